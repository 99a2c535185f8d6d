/* mail/encoder.c - see encoder.h. The alphabets are those of RFC 5321, 3461, 3501 and 9051. */
#include "mail/encoder.h"

#include <string.h>

#include "mail/charset.h"

#define LITERAL_MINUS_MAX 4096 /* RFC 7888 5 */

/* Waiting lets the server refuse a message before it is sent (RFC 7889 4, RFC 7888 3). */
#define CONTENT_UNASKED_MAX (64 * 1024)

static const char *const type_names[] = {"atom",   "keyword", "text",     "raw",    "path",
                                         "xtext",  "number",  "set",      "string", "mailbox",
                                         "flag",   "(",       ")",        "secret", "secret_string",
                                         "octets", "content", "content8", "charset"};

bool stls_arg_type_named(const char *name, enum stls_arg_type *type_r) {
  size_t i;
  for (i = 0; i < sizeof type_names / sizeof type_names[0]; i++) {
    if (strcmp(type_names[i], name) != 0) continue;
    *type_r = (enum stls_arg_type)i;
    return true;
  }
  return false;
}

void stls_encoder_init(struct stls_encoder *encoder, struct stls_trace *trace) {
  memset(encoder, 0, sizeof *encoder);
  stls_buffer_init(&encoder->line, 0);
  stls_buffer_init(&encoder->shown, 0);
  stls_buffer_init(&encoder->stops, 0);
  encoder->line.wipes = true;
  encoder->trace = trace;
}

void stls_encoder_free(struct stls_encoder *encoder) {
  stls_buffer_free(&encoder->line);
  stls_buffer_free(&encoder->shown);
  stls_buffer_free(&encoder->stops);
}

void stls_encoder_begin(struct stls_encoder *encoder) {
  stls_buffer_shrink(&encoder->line, 4096);
  stls_buffer_shrink(&encoder->shown, 4096);
  stls_buffer_shrink(&encoder->stops, 1024);
  encoder->stop_next = 0;
  encoder->released = 0;
  encoder->longest = 0;
  encoder->joined = true;
  encoder->refusal = NULL;
}

static void refuse(struct stls_encoder *encoder, const char *reason) {
  if (!encoder->refusal) encoder->refusal = reason;
}

/* {====== What each type can carry ====== */

static bool has_line_breaker(struct stls_slice value) {
  size_t i;
  for (i = 0; i < value.len; i++) {
    if (value.ptr[i] == '\r' || value.ptr[i] == '\n' || value.ptr[i] == '\0') return true;
  }
  return false;
}

static bool is_printable(struct stls_slice value, char lowest) {
  size_t i;
  for (i = 0; i < value.len; i++) {
    if (value.ptr[i] < lowest || value.ptr[i] > '~') return false;
  }
  return true;
}

static bool consists_of(struct stls_slice value, const char *alphabet) {
  size_t i;
  for (i = 0; i < value.len; i++) {
    if (value.ptr[i] == '\0' || !strchr(alphabet, value.ptr[i])) return false;
  }
  return value.len > 0;
}

/* RFC 9051: flag = "\" atom / atom; the atom has no specials. */
static bool is_flag(struct stls_slice value) {
  size_t i;
  if (value.len > 0 && value.ptr[0] == '\\') value = stls_slice_from(value, 1);
  if (value.len == 0 || !is_printable(value, '!')) return false;
  for (i = 0; i < value.len; i++) {
    if (strchr("(){%*\"\\]", value.ptr[i])) return false;
  }
  return true;
}

/*
 * An address as the envelope has it: no angle brackets, controls or blanks
 * outside of quotes; the local part at most 64 octets, the whole 254, the
 * domain 255 (RFC 5321 4.5.3.1). Quoted local parts are told apart so that
 * "odd name"@example.test passes.
 */
static const char *path_refusal(struct stls_slice path) {
  bool quoted = false;
  size_t i, at = path.len;
  if (has_line_breaker(path)) return "address has a CR, LF or NUL";
  for (i = 0; i < path.len; i++) {
    char c = path.ptr[i];
    if (quoted && c == '\\' && i + 1 < path.len) i++;
    else if (c == '"') quoted = !quoted;
    else if ((unsigned char)c < ' ' || c == 0x7f) return "address has a control character";
    else if (!quoted && strchr(" <>()\\", c))
      return "address has a blank, bracket or backslash outside of quotes";
    else if (!quoted && c == '@') at = i;
  }
  if (quoted) return "address has an unfinished quoted string";
  if (path.len > 0 && (at == 0 || at + 1 == path.len))
    return "address lacks a local part or domain";
  if (at < path.len && at > 64) return "address has a local part of more than 64 octets";
  if (path.len > 254) return "address is longer than 254 octets";
  return NULL;
}

/* "{5}" at a line's end announces a literal, to which what we say next would fall prey. */
static bool announces_literal(struct stls_slice value) {
  size_t at = value.len;
  if (at == 0 || value.ptr[--at] != '}') return false;
  if (at > 0 && (value.ptr[at - 1] == '+' || value.ptr[at - 1] == '-')) at--;
  while (at > 0 && stls_is_digit(value.ptr[at - 1])) at--;
  return at > 0 && value.ptr[at - 1] == '{';
}

static const char *raw_refusal(struct stls_slice value) {
  if (value.len == 0 || !is_printable(value, ' '))
    return "item is empty or has a character outside of printable ASCII";
  return announces_literal(value) ? "item ends in what announces a literal" : NULL;
}

static const char *refusal_of(enum stls_arg_type type, struct stls_slice value) {
  switch (type) {
    case STLS_ARG_ATOM:
    case STLS_ARG_CHARSET:
    case STLS_ARG_KEYWORD:
      return value.len > 0 && is_printable(value, '!')
                 ? NULL
                 : "word is empty or has a character that words can't have";
    case STLS_ARG_TEXT: return has_line_breaker(value) ? "text has a CR, LF or NUL" : NULL;
    case STLS_ARG_RAW: return raw_refusal(value);
    case STLS_ARG_PATH: return path_refusal(value);
    case STLS_ARG_XTEXT: return has_line_breaker(value) ? "parameter has a CR, LF or NUL" : NULL;
    case STLS_ARG_NUMBER:
    case STLS_ARG_CONTENT:
    case STLS_ARG_CONTENT8:
      return consists_of(value, "0123456789") ? NULL : "number has a character that is no digit";
    case STLS_ARG_SET:
      return consists_of(value, "0123456789:,*$")
                 ? NULL
                 : "set has a character that message sets can't have";
    case STLS_ARG_FLAG: return is_flag(value) ? NULL : "flag has a character that flags can't have";
    case STLS_ARG_STRING:
    case STLS_ARG_MAILBOX: return has_line_breaker(value) ? "string has a CR, LF or NUL" : NULL;
    case STLS_ARG_SECRET:
    case STLS_ARG_SECRET_STRING:
      return has_line_breaker(value) ? "credential has a CR, LF or NUL" : NULL;
    case STLS_ARG_OCTETS:
    case STLS_ARG_OPEN:
    case STLS_ARG_CLOSE: return NULL;
  }
  return "argument has an unknown type";
}

/* }====== */

/* {====== How each type is written ====== */

static void write_both(struct stls_encoder *encoder, const char *text, size_t len) {
  stls_buffer_append(&encoder->line, text, len);
  if (encoder->trace) stls_buffer_append(&encoder->shown, text, len);
}

static void write_path(struct stls_encoder *encoder, struct stls_slice path) {
  write_both(encoder, "<", 1);
  write_both(encoder, path.ptr, path.len);
  write_both(encoder, ">", 1);
}

/* RFC 3461 4: everything but printable ASCII without "+" and "=" becomes +HH. */
static void write_xtext(struct stls_encoder *encoder, struct stls_slice value) {
  static const char digits[] = "0123456789ABCDEF";
  size_t i;
  for (i = 0; i < value.len; i++) {
    unsigned char c = (unsigned char)value.ptr[i];
    char hex[3] = {'+', digits[c >> 4], digits[c & 15]};
    if (c < '!' || c > '~' || c == '+' || c == '=') write_both(encoder, hex, 3);
    else write_both(encoder, value.ptr + i, 1);
  }
}

static void write_hidden(struct stls_encoder *encoder, const char *text, size_t len) {
  stls_buffer_append(&encoder->line, text, len);
}

static void show_secret(struct stls_encoder *encoder) {
  if (encoder->trace) stls_buffer_append_text(&encoder->shown, STLS_TRACE_SECRET);
}

static bool has_controls(struct stls_slice value) {
  size_t i;
  for (i = 0; i < value.len; i++) {
    if ((unsigned char)value.ptr[i] < ' ' || value.ptr[i] == 0x7f) return true;
  }
  return false;
}

/* RFC 9051 9, QUOTED-CHAR: no controls; UTF-8 only where that is agreed upon. */
static bool can_be_quoted(const struct stls_encoder *encoder, struct stls_slice value) {
  if (value.len > 1024 || has_controls(value)) return false;
  return is_printable(value, ' ') || (encoder->utf8 && stls_utf8_is_valid(value));
}

typedef void (*writer)(struct stls_encoder *encoder, const char *text, size_t len);

static void write_quoted(struct stls_encoder *encoder, struct stls_slice value, writer write) {
  size_t i;
  write(encoder, "\"", 1);
  for (i = 0; i < value.len; i++) {
    if (value.ptr[i] == '"' || value.ptr[i] == '\\') write(encoder, "\\", 1);
    write(encoder, value.ptr + i, 1);
  }
  write(encoder, "\"", 1);
}

static void stop_here(struct stls_encoder *encoder, struct stls_stop stop) {
  stop.offset = encoder->released + stls_buffer_length(&encoder->line);
  if (!stls_buffer_append(&encoder->stops, (const char *)&stop, sizeof stop))
    encoder->line.failure = encoder->stops.failure;
}

static bool must_wait(const struct stls_encoder *encoder, uint64_t size) {
  if (encoder->literals == STLS_LITERAL_PLUS) return false;
  return encoder->literals == STLS_LITERAL_SYNC || size > LITERAL_MINUS_MAX;
}

/* "{5}", "{5+}", "~{5}" and the line's end */
static void write_literal_header(struct stls_encoder *encoder, uint64_t size, bool waits,
                                 bool binary, bool shown) {
  char digits[24];
  struct stls_buffer *line = &encoder->line;
  size_t from = stls_buffer_length(line);
  stls_buffer_append_text(line, binary ? "~{" : "{");
  stls_buffer_append_number(line, size);
  stls_buffer_append_text(line, waits ? "}" : "+}");
  if (shown && encoder->trace && line->failure == STLS_BUFFER_OK) {
    struct stls_slice header = stls_slice_from(stls_buffer_slice(line), from);
    memcpy(digits, header.ptr, header.len);
    stls_buffer_append(&encoder->shown, digits, header.len);
  }
  stls_buffer_append(line, "\r\n", 2);
}

static void write_literal(struct stls_encoder *encoder, struct stls_slice value, writer write) {
  bool waits = must_wait(encoder, value.len);
  bool binary = memchr(value.ptr, '\0', value.len) != NULL;
  bool shown = write != write_hidden; /* a secret's length is its own */
  write_literal_header(encoder, value.len, waits, binary, shown);
  if (waits) stop_here(encoder, (struct stls_stop){.waits = true});
  if (shown && encoder->trace) stls_buffer_append_char(&encoder->shown, ' ');
  write(encoder, value.ptr, value.len);
}

static void write_content(struct stls_encoder *encoder, struct stls_slice digits, bool binary) {
  struct stls_stop stop = {.is_content = true, .is_binary = binary};
  if (!stls_slice_number(digits, INT64_MAX, &stop.size)) {
    refuse(encoder, "content's size is no number that can be");
    return;
  }
  stop.waits = must_wait(encoder, stop.size) || stop.size > CONTENT_UNASKED_MAX;
  write_literal_header(encoder, stop.size, stop.waits, binary, true);
  stop_here(encoder, stop);
}

static void write_string(struct stls_encoder *encoder, struct stls_slice value, bool secret) {
  writer write = secret ? write_hidden : write_both;
  if (can_be_quoted(encoder, value)) write_quoted(encoder, value, write);
  else write_literal(encoder, value, write);
  if (secret) show_secret(encoder);
}

static void write_mailbox(struct stls_encoder *encoder, struct stls_slice mailbox) {
  struct stls_buffer name;
  if (encoder->utf8) {
    if (stls_utf8_is_valid(mailbox)) write_string(encoder, mailbox, false);
    else refuse(encoder, "mailbox name is not valid UTF-8");
    return;
  }
  stls_buffer_init(&name, 0);
  if (stls_utf7_encode(mailbox, &name)) write_string(encoder, stls_buffer_slice(&name), false);
  else if (name.failure != STLS_BUFFER_OK) encoder->line.failure = name.failure;
  else refuse(encoder, "mailbox name is not valid UTF-8");
  stls_buffer_free(&name);
}

static void write_arg(struct stls_encoder *encoder, enum stls_arg_type type,
                      struct stls_slice value) {
  switch (type) {
    case STLS_ARG_PATH: write_path(encoder, value); break;
    case STLS_ARG_XTEXT: write_xtext(encoder, value); break;
    case STLS_ARG_STRING:
    case STLS_ARG_OCTETS: write_string(encoder, value, false); break;
    case STLS_ARG_CONTENT: write_content(encoder, value, false); break;
    case STLS_ARG_CONTENT8: write_content(encoder, value, true); break;
    case STLS_ARG_MAILBOX: write_mailbox(encoder, value); break;
    case STLS_ARG_SECRET_STRING: write_string(encoder, value, true); break;
    case STLS_ARG_SECRET:
      write_hidden(encoder, value.ptr, value.len);
      show_secret(encoder);
      break;
    case STLS_ARG_CHARSET:
      write_both(encoder, "CHARSET ", 8);
      write_both(encoder, value.ptr, value.len);
      break;
    case STLS_ARG_OPEN: write_both(encoder, "(", 1); break;
    case STLS_ARG_CLOSE: write_both(encoder, ")", 1); break;
    default: write_both(encoder, value.ptr, value.len); break;
  }
}

/* }====== */

void stls_encoder_add(struct stls_encoder *encoder, enum stls_arg_type type,
                      struct stls_slice value) {
  const char *reason = refusal_of(type, value);
  if (reason) refuse(encoder, reason);
  if (encoder->refusal || (type == STLS_ARG_CHARSET && encoder->utf8)) return;
  if (!encoder->joined && type != STLS_ARG_CLOSE) write_both(encoder, " ", 1);
  write_arg(encoder, type, value);
  encoder->joined = type == STLS_ARG_KEYWORD || type == STLS_ARG_OPEN;
}

const char *stls_encoder_end(struct stls_encoder *encoder) {
  struct stls_slice line;
  stls_buffer_append(&encoder->line, "\r\n", 2);
  line = stls_buffer_slice(&encoder->line);
  if (encoder->longest > 0 && line.len > encoder->longest) {
    refuse(encoder, "command line is longer than the protocol allows");
  }
  if (encoder->refusal) {
    stls_buffer_clear(&encoder->line);
    return encoder->refusal;
  }
  stls_trace_line(encoder->trace, STLS_TRACE_SENT, stls_buffer_slice(&encoder->shown));
  return NULL;
}

bool stls_encoder_stopped(const struct stls_encoder *encoder) {
  return stls_buffer_length(&encoder->line) > 0;
}

static const struct stls_stop *stop_at(const struct stls_encoder *encoder, size_t index) {
  struct stls_slice stops = stls_buffer_slice(&encoder->stops);
  if (index >= stops.len / sizeof(struct stls_stop)) return NULL;
  return (const struct stls_stop *)(const void *)stops.ptr + index;
}

const struct stls_stop *stls_encoder_stop(const struct stls_encoder *encoder) {
  if (encoder->stop_next == 0 || !stls_encoder_stopped(encoder)) return NULL;
  return stop_at(encoder, encoder->stop_next - 1);
}

bool stls_encoder_stops(const struct stls_encoder *encoder) {
  return stls_buffer_length(&encoder->stops) > 0;
}

void stls_encoder_drop(struct stls_encoder *encoder) {
  stls_buffer_clear(&encoder->line);
}

bool stls_encoder_release(struct stls_encoder *encoder, struct stls_buffer *out) {
  struct stls_slice line = stls_buffer_slice(&encoder->line);
  const struct stls_stop *stop = stop_at(encoder, encoder->stop_next);
  size_t len = stop ? stop->offset - encoder->released : line.len;
  if (encoder->line.failure != STLS_BUFFER_OK) return false;
  encoder->stop_next++;
  stls_buffer_append(out, line.ptr, len);
  stls_buffer_consume(&encoder->line, len);
  encoder->released += len;
  return out->failure == STLS_BUFFER_OK;
}
