/* mail/encoded_word.c - see encoded_word.h. */
#include "mail/encoded_word.h"

#include <stdlib.h>

/* An encoded word as it stands: "=?" charset ["*" language] "?" encoding "?" text "?=" */
struct word {
  struct stls_slice whole;
  struct stls_slice charset;
  char encoding; /* 'B' or 'Q' */
  struct stls_slice text;
};

/* {====== Encodings ====== */

static int hex_digit(char c) {
  if (stls_is_digit(c)) return c - '0';
  c = stls_upper(c);
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Appends the octet of the two digits behind the sign at the front. False if there are none. */
static bool put_hex(struct stls_slice text, struct stls_buffer *out) {
  int high, low;
  if (text.len < 3) return false;
  high = hex_digit(text.ptr[1]);
  low = hex_digit(text.ptr[2]);
  return high >= 0 && low >= 0 && stls_buffer_append_char(out, (char)(high << 4 | low));
}

/* RFC 2047 4.2. Blanks should not be there, and do no harm. */
static bool decode_q(struct stls_slice text, struct stls_buffer *out) {
  while (text.len > 0) {
    size_t used = 1;
    if (text.ptr[0] == '=') {
      if (!put_hex(text, out)) return false;
      used = 3;
    } else {
      stls_buffer_append_char(out, text.ptr[0] == '_' ? ' ' : text.ptr[0]);
    }
    text = stls_slice_from(text, used);
  }
  return true;
}

static int base64_digit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (stls_is_digit(c)) return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* RFC 2047 4.1. Padding that is missing is not missed. */
static bool decode_b(struct stls_slice text, struct stls_buffer *out) {
  uint32_t bits = 0;
  unsigned count = 0;
  size_t i;
  for (i = 0; i < text.len; i++) {
    int digit = base64_digit(text.ptr[i]);
    if (text.ptr[i] == '=' || text.ptr[i] == ' ') continue;
    if (digit < 0) return false;
    bits = (bits << 6 | (uint32_t)digit) & 0xffff;
    count += 6;
    if (count < 8) continue;
    count -= 8;
    stls_buffer_append_char(out, (char)(bits >> count));
  }
  return true;
}

static bool decode_octets(const struct word *word, struct stls_buffer *octets) {
  return word->encoding == 'B' ? decode_b(word->text, octets) : decode_q(word->text, octets);
}

/* }====== */

/* {====== Finding words ====== */

/* Takes all up to the next "?" off the front, and that. False if there is none. */
static bool take_to_mark(struct stls_slice *rest, struct stls_slice *part_r) {
  const char *mark = rest->len > 0 ? memchr(rest->ptr, '?', rest->len) : NULL;
  if (!mark) return false;
  *part_r = stls_slice(rest->ptr, (size_t)(mark - rest->ptr));
  *rest = stls_slice_from(*rest, part_r->len + 1);
  return true;
}

static bool has_blank(struct stls_slice text) {
  return memchr(text.ptr, ' ', text.len) || memchr(text.ptr, '\t', text.len);
}

/* Reads the word that `text` begins with. None of its parts has a "?", so this stays short. */
static bool read_word(struct stls_slice text, struct word *word) {
  struct stls_slice rest = text, encoding;
  const char *language;
  if (!stls_slice_starts(rest, "=?")) return false;
  rest = stls_slice_from(rest, 2);
  if (!take_to_mark(&rest, &word->charset) || !take_to_mark(&rest, &encoding) ||
      !take_to_mark(&rest, &word->text)) {
    return false;
  }
  if (word->charset.len == 0 || has_blank(word->charset)) return false;
  if (encoding.len != 1 || rest.len == 0 || rest.ptr[0] != '=') return false;
  word->encoding = stls_upper(encoding.ptr[0]);
  word->whole = stls_slice(text.ptr, text.len - rest.len + 1);
  language = memchr(word->charset.ptr, '*', word->charset.len); /* RFC 2231 5 */
  if (language) word->charset.len = (size_t)(language - word->charset.ptr);
  return word->encoding == 'B' || word->encoding == 'Q';
}

/* The offset of the next "=?", or the text's length. */
static size_t next_mark(struct stls_slice text) {
  const char *mark = text.len > 0 ? memmem(text.ptr, text.len, "=?", 2) : NULL;
  return mark ? (size_t)(mark - text.ptr) : text.len;
}

static bool is_same_charset(const struct word *a, const struct word *b) {
  size_t i;
  if (a->charset.len != b->charset.len) return false;
  for (i = 0; i < a->charset.len; i++) {
    if (stls_upper(a->charset.ptr[i]) != stls_upper(b->charset.ptr[i])) return false;
  }
  return true;
}

static bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_all_blank(struct stls_slice text) {
  size_t i;
  for (i = 0; i < text.len; i++) {
    if (!is_blank(text.ptr[i])) return false;
  }
  return true;
}

/* The word behind `word`, if nothing but blanks parts them. */
static bool read_next(const struct word *word, const char *end, struct word *next_r) {
  const char *p = word->whole.ptr + word->whole.len;
  while (p < end && is_blank(*p)) p++;
  return read_word(stls_slice(p, (size_t)(end - p)), next_r);
}

/* }====== */

/* {====== Text with words ====== */

struct decoder {
  struct stls_slice rest;
  struct stls_buffer *out;
  struct stls_buffer octets; /* of the words being decoded, in their character set */
  const char *single_until;  /* words up to here don't make sense together */
  bool decoded;              /* a word ends where `rest` begins */
};

/* Text that is no encoded word; unfolded (RFC 5322 2.2.3). */
static void put_plain(struct stls_slice text, struct stls_buffer *out) {
  while (text.len > 0) {
    size_t len = 0;
    while (len < text.len && text.ptr[len] != '\r' && text.ptr[len] != '\n') len++;
    stls_utf8_put_unlabelled(stls_slice(text.ptr, len), out);
    while (len < text.len && (text.ptr[len] == '\r' || text.ptr[len] == '\n')) len++;
    text = stls_slice_from(text, len);
  }
}

/* The octets of the word and those behind it that are to be read with it; where they end. */
static const char *gather(struct decoder *d, struct word word, bool *several_r) {
  const char *end = d->rest.ptr + d->rest.len;
  struct word next;
  *several_r = false;
  stls_buffer_clear(&d->octets);
  if (!decode_octets(&word, &d->octets)) return NULL;
  while (read_next(&word, end, &next) && is_same_charset(&word, &next)) {
    size_t before = stls_buffer_length(&d->octets);
    if (!decode_octets(&next, &d->octets)) {
      d->octets.end = d->octets.start + before;
      break;
    }
    word = next;
    *several_r = true;
  }
  return word.whole.ptr + word.whole.len;
}

static bool put_octets(struct decoder *d, const struct word *word) {
  return stls_charset_decode(word->charset, stls_buffer_slice(&d->octets), d->out);
}

/* Appends the word at the front, and those that belong to it. The octets used; 0: can't be. */
static size_t put_words(struct decoder *d, const struct word *word) {
  if (word->whole.ptr >= d->single_until) {
    bool several;
    const char *end = gather(d, *word, &several);
    if (!end) return 0;
    if (put_octets(d, word)) return (size_t)(end - word->whole.ptr);
    if (!several) return 0;
    d->single_until = end;
  }
  stls_buffer_clear(&d->octets);
  return decode_octets(word, &d->octets) && put_octets(d, word) ? word->whole.len : 0;
}

/* Takes the text up to the next encoded word, and that word. */
static void decode_some(struct decoder *d) {
  struct stls_slice gap = stls_slice(d->rest.ptr, next_mark(d->rest));
  struct word word;
  size_t used;
  d->rest = stls_slice_from(d->rest, gap.len);
  if (!read_word(d->rest, &word)) {
    size_t mark = d->rest.len > 0 ? 2 : 0;
    put_plain(stls_slice(gap.ptr, gap.len + mark), d->out);
    d->rest = stls_slice_from(d->rest, mark);
    d->decoded = false;
    return;
  }
  if (!d->decoded || !is_all_blank(gap)) {
    put_plain(gap, d->out);
    gap.len = 0;
  }
  used = put_words(d, &word);
  d->decoded = used > 0;
  if (!d->decoded) { /* what stays as it stands keeps the blanks around it */
    put_plain(gap, d->out);
    put_plain(word.whole, d->out);
    used = word.whole.len;
  }
  d->rest = stls_slice_from(d->rest, used);
}

bool stls_header_is_plain(struct stls_slice text) {
  unsigned char all = 0;
  bool special = false;
  size_t i;
  for (i = 0; i < text.len; i++) {
    char c = text.ptr[i];
    all |= (unsigned char)c;
    special |= c == '=' || c == '\r' || c == '\n';
  }
  if (all >= 0x80) return false;
  if (!special) return true;
  return !memchr(text.ptr, '\r', text.len) && !memchr(text.ptr, '\n', text.len) &&
         next_mark(text) == text.len;
}

bool stls_header_decode(struct stls_slice text, struct stls_buffer *out) {
  struct decoder decoder = {.rest = text, .out = out, .single_until = text.ptr};
  bool memory;
  stls_buffer_init(&decoder.octets, 0);
  while (decoder.rest.len > 0) decode_some(&decoder);
  memory = decoder.octets.failure == STLS_BUFFER_OK;
  stls_buffer_free(&decoder.octets);
  return memory && out->failure == STLS_BUFFER_OK;
}

/* }====== */

/* {====== Parameters (RFC 2231) ====== */

bool stls_parameter_read(struct stls_slice name, struct stls_slice value,
                         struct stls_parameter *parameter_r) {
  const char *star = name.len > 0 ? memchr(name.ptr, '*', name.len) : NULL;
  struct stls_slice rest;
  uint64_t section = 0;
  if (!star || star == name.ptr) return false;
  rest = stls_slice_from(name, (size_t)(star - name.ptr) + 1);
  parameter_r->name = stls_slice(name.ptr, (size_t)(star - name.ptr));
  parameter_r->value = value;
  parameter_r->extended = rest.len == 0 || rest.ptr[rest.len - 1] == '*';
  if (rest.len > 0 && parameter_r->extended) rest.len--;
  if (rest.len > 0 && !stls_slice_number(rest, UINT32_MAX, &section)) return false;
  parameter_r->section = (uint32_t)section;
  return true;
}

static int compare_names(struct stls_slice a, struct stls_slice b) {
  size_t i, len = a.len < b.len ? a.len : b.len;
  for (i = 0; i < len; i++) {
    int difference = stls_upper(a.ptr[i]) - stls_upper(b.ptr[i]);
    if (difference != 0) return difference;
  }
  return a.len < b.len ? -1 : a.len > b.len;
}

static int compare_parameters(const void *left, const void *right) {
  const struct stls_parameter *a = left, *b = right;
  int names = compare_names(a->name, b->name);
  if (names != 0) return names;
  return a->section < b->section ? -1 : a->section > b->section;
}

void stls_parameters_sort(struct stls_parameter *parameters, size_t count) {
  if (count > 1) qsort(parameters, count, sizeof *parameters, compare_parameters);
}

bool stls_parameter_is_same(const struct stls_parameter *a, const struct stls_parameter *b) {
  return compare_names(a->name, b->name) == 0;
}

/* Takes charset'language' off the front of the first section. */
static struct stls_slice take_charset(struct stls_slice *value) {
  const char *first = value->len > 0 ? memchr(value->ptr, '\'', value->len) : NULL;
  struct stls_slice rest, charset;
  const char *second;
  if (!first) return stls_slice("", 0);
  charset = stls_slice(value->ptr, (size_t)(first - value->ptr));
  rest = stls_slice_from(*value, charset.len + 1);
  second = rest.len > 0 ? memchr(rest.ptr, '\'', rest.len) : NULL;
  if (!second) return stls_slice("", 0);
  *value = stls_slice_from(rest, (size_t)(second - rest.ptr) + 1);
  return charset;
}

/* A percent sign without two digits stands for itself. */
static void put_percent(struct stls_slice value, struct stls_buffer *out) {
  while (value.len > 0) {
    if (value.ptr[0] == '%' && put_hex(value, out)) {
      value = stls_slice_from(value, 3);
    } else {
      stls_buffer_append_char(out, value.ptr[0]);
      value = stls_slice_from(value, 1);
    }
  }
}

/* All sections together; `*charset_r` is empty when the first says none. False: none extended. */
static bool join(const struct stls_parameter *sections, size_t count, struct stls_buffer *octets,
                 struct stls_slice *charset_r) {
  bool extended = false;
  size_t i;
  *charset_r = stls_slice("", 0);
  for (i = 0; i < count && sections[i].section <= i; i++) {
    struct stls_slice value = sections[i].value;
    if (i > 0 && sections[i].section == sections[i - 1].section) continue; /* said twice */
    if (i == 0 && sections[i].extended) *charset_r = take_charset(&value);
    if (sections[i].extended) put_percent(value, octets);
    else stls_buffer_append_slice(octets, value);
    extended = extended || sections[i].extended;
  }
  return extended;
}

bool stls_parameters_decode(const struct stls_parameter *sections, size_t count,
                            struct stls_buffer *out) {
  struct stls_buffer octets;
  struct stls_slice charset;
  bool extended, memory;
  stls_buffer_init(&octets, 0);
  extended = join(sections, count, &octets, &charset);
  if (!extended) stls_header_decode(stls_buffer_slice(&octets), out);
  else if (!stls_charset_decode(charset, stls_buffer_slice(&octets), out))
    stls_utf8_put_unlabelled(stls_buffer_slice(&octets), out);
  memory = octets.failure == STLS_BUFFER_OK;
  stls_buffer_free(&octets);
  return memory && out->failure == STLS_BUFFER_OK;
}

/* }====== */
