/* mail/charset.c - see charset.h. */
#include "mail/charset.h"

#include <errno.h>
#include <iconv.h>
#include <string.h>

#define LONGEST_NAME 40 /* of a character set; the longest in use have about 20 */

/* {====== UTF-8 ====== */

bool stls_utf8_take(struct stls_slice *rest, uint32_t *point_r) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  unsigned char first = (unsigned char)rest->ptr[0];
  unsigned len = first < 0x80         ? 1
                 : (first >> 5) == 6  ? 2
                 : (first >> 4) == 14 ? 3
                 : (first >> 3) == 30 ? 4
                                      : 0;
  uint32_t point;
  unsigned i;
  if (len == 0 || rest->len < len) return false;
  point = len == 1 ? first : first & (0xffu >> (len + 1));
  for (i = 1; i < len; i++) {
    unsigned char c = (unsigned char)rest->ptr[i];
    if ((c & 0xc0) != 0x80) return false;
    point = point << 6 | (c & 0x3f);
  }
  if (point < least[len] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) return false;
  *rest = stls_slice_from(*rest, len);
  *point_r = point;
  return true;
}

void stls_utf8_put(uint32_t point, struct stls_buffer *out) {
  if (point < 0x80) {
    stls_buffer_append_char(out, (char)point);
    return;
  }
  if (point < 0x800) {
    stls_buffer_append_char(out, (char)(0xc0 | point >> 6));
  } else {
    if (point < 0x10000) {
      stls_buffer_append_char(out, (char)(0xe0 | point >> 12));
    } else {
      stls_buffer_append_char(out, (char)(0xf0 | point >> 18));
      stls_buffer_append_char(out, (char)(0x80 | (point >> 12 & 0x3f)));
    }
    stls_buffer_append_char(out, (char)(0x80 | (point >> 6 & 0x3f)));
  }
  stls_buffer_append_char(out, (char)(0x80 | (point & 0x3f)));
}

bool stls_is_ascii(struct stls_slice text) {
  unsigned char all = 0;
  size_t i;
  for (i = 0; i < text.len; i++) all |= (unsigned char)text.ptr[i];
  return all < 0x80;
}

bool stls_utf8_is_valid(struct stls_slice text) {
  uint32_t point;
  if (stls_is_ascii(text)) return true;
  while (text.len > 0) {
    if (!stls_utf8_take(&text, &point)) return false;
  }
  return true;
}

/* }====== */

/* {====== One octet a character ====== */

/* Where Windows-1252 differs from Latin-1: 0x80 to 0x9f. */
static const uint16_t windows_1252[32] = {
    0x20ac, 0x81,   0x201a, 0x192,  0x201e, 0x2026, 0x2020, 0x2021, 0x2c6,  0x2030, 0x160,
    0x2039, 0x152,  0x8d,   0x17d,  0x8f,   0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
    0x2013, 0x2014, 0x2dc,  0x2122, 0x161,  0x203a, 0x153,  0x9d,   0x17e,  0x178};

static void put_windows_1252(struct stls_slice octets, struct stls_buffer *out) {
  size_t i;
  for (i = 0; i < octets.len; i++) {
    unsigned char c = (unsigned char)octets.ptr[i];
    stls_utf8_put(c >= 0x80 && c < 0xa0 ? windows_1252[c - 0x80] : c, out);
  }
}

void stls_utf8_put_unlabelled(struct stls_slice text, struct stls_buffer *out) {
  if (stls_utf8_is_valid(text)) stls_buffer_append_slice(out, text);
  else put_windows_1252(text, out);
}

/* }====== */

/* {====== All others ====== */

/* Names by which mail means more than they say, and names that iconv(3) does not know. */
static const char *const aliases[][2] = {{"gb2312", "GB18030"},          {"gbk", "GB18030"},
                                         {"ks_c_5601-1987", "CP949"},    {"euc-kr", "CP949"},
                                         {"shift_jis", "CP932"},         {"x-sjis", "CP932"},
                                         {"iso-8859-8-i", "ISO-8859-8"}, {"cp-850", "CP850"},
                                         {"unicode-1-1-utf-7", "UTF-7"}};

/* Copies the name, if it is one that may be given to iconv: no "//" and what follows it. */
static bool copy_name(struct stls_slice charset, char name[LONGEST_NAME + 1]) {
  size_t i;
  if (charset.len == 0 || charset.len > LONGEST_NAME) return false;
  for (i = 0; i < charset.len; i++) {
    char c = charset.ptr[i];
    bool letter = stls_upper(c) >= 'A' && stls_upper(c) <= 'Z';
    if (!letter && !stls_is_digit(c) && !(c && strchr("-_.:+", c))) return false;
    name[i] = c;
  }
  name[charset.len] = '\0';
  return true;
}

static iconv_t open_converter(struct stls_slice charset) {
  char name[LONGEST_NAME + 1];
  size_t i;
  if (!copy_name(charset, name)) return (iconv_t)-1;
  for (i = 0; i < sizeof aliases / sizeof aliases[0]; i++) {
    if (stls_slice_is(charset, aliases[i][0])) {
      iconv_t converter = iconv_open("UTF-8", aliases[i][1]);
      if (converter != (iconv_t)-1) return converter;
    }
  }
  return iconv_open("UTF-8", name);
}

/* Converts as much as there is room for. False at octets that are none of the set. */
static bool convert_some(iconv_t converter, char **in, size_t *left, struct stls_buffer *out) {
  char *room = stls_buffer_reserve(out, *left * 2 + 64), *end = room;
  size_t free = *left * 2 + 64;
  bool fits;
  if (!room) return false;
  fits = iconv(converter, in, left, &end, &free) != (size_t)-1;
  if (!fits && errno != E2BIG) return false;
  if (fits && iconv(converter, NULL, NULL, &end, &free) == (size_t)-1) return false;
  stls_buffer_commit(out, (size_t)(end - room));
  return true;
}

static bool convert(iconv_t converter, struct stls_slice octets, struct stls_buffer *out) {
  char *in = (char *)octets.ptr; /* which iconv does not change */
  size_t left = octets.len, before;
  do {
    before = left;
    if (!convert_some(converter, &in, &left, out)) return false;
  } while (left > 0 && left < before);
  return left == 0;
}

static bool decode_by_iconv(struct stls_slice charset, struct stls_slice octets,
                            struct stls_buffer *out) {
  size_t before = stls_buffer_length(out);
  iconv_t converter = open_converter(charset);
  bool done;
  if (converter == (iconv_t)-1) return false;
  done = convert(converter, octets, out) &&
         stls_utf8_is_valid(stls_slice_from(stls_buffer_slice(out), before));
  if (!done) out->end = out->start + before;
  iconv_close(converter);
  return done;
}

bool stls_charset_decode(struct stls_slice charset, struct stls_slice octets,
                         struct stls_buffer *out) {
  if (stls_slice_is(charset, "utf-8") || stls_slice_is(charset, "utf8"))
    return stls_utf8_is_valid(octets) && stls_buffer_append_slice(out, octets);
  if (stls_slice_is(charset, "us-ascii") || stls_slice_is(charset, "ascii")) {
    stls_utf8_put_unlabelled(octets, out);
  } else if (stls_slice_is(charset, "iso-8859-1") || stls_slice_is(charset, "latin1") ||
             stls_slice_is(charset, "windows-1252")) {
    put_windows_1252(octets, out);
  } else {
    return decode_by_iconv(charset, octets, out);
  }
  return out->failure == STLS_BUFFER_OK;
}

/* }====== */
