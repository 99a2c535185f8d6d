/*
 * mail/imap_parser.c - see imap_parser.h. The grammar is RFC 9051 9, read leniently
 * where that is harmless: line ends may be a bare LF, blanks may repeat or be missing
 * where a parenthesis or a quote parts values, any character that does not delimit
 * belongs to an atom, a backslash that escapes nothing is a backslash, and in ENVELOPE
 * and BODYSTRUCTURE a quote that nothing follows which may follow a string is a quote.
 *
 *   response = ("*" SP (status / number SP name / name) / tag SP status / "+" [SP text]) CRLF
 *
 * One function for each lexical state takes a stretch of input and moves on. Values that
 * are there as a whole, as most are, are taken in one loop (lex_value).
 */
#include "mail/imap_parser.h"

#include <stdlib.h>
#include <string.h>

enum lexeme {
  LEX_TAG,        /* the first word */
  LEX_NAME,       /* the second, or after a number the third */
  LEX_TEXT_START, /* of a status: a code in brackets, or text */
  LEX_TEXT,       /* up to the line's end */
  LEX_VALUE,      /* before a value */
  LEX_ATOM,
  LEX_SECTION, /* in the brackets of BODY[...] */
  LEX_QUOTED,
  LEX_ESCAPED,       /* behind a backslash in quotes */
  LEX_CLOSING,       /* behind a quote that may end the string */
  LEX_CLOSING_BLANK, /* behind that, and blanks */
  LEX_CLOSING_QUOTE, /* behind that, and another quote */
  LEX_LITERAL_SIZE,
  LEX_LITERAL_PLUS, /* behind the "+" of a size; servers have no use for it */
  LEX_LITERAL_LINE, /* between } and the octets */
  LEX_LITERAL,
  LEX_CONTENT, /* a literal that is handed out */
  LEX_LINE_END /* behind CR */
};

#define LIST_WEIGHT 32         /* "()" is short on the wire, and a table of its own in memory */
#define NO_SIZE     UINT64_MAX /* of a literal: no digit has come yet */

struct stls_imap_parser {
  struct stls_limits limits;
  enum lexeme lexeme;
  struct stls_buffer strings; /* of all tokens of the response */
  struct stls_buffer nodes;   /* struct stls_imap_node */
  struct stls_buffer open;    /* uint32_t: indexes of the lists that are open */
  size_t token;               /* where in `strings` the token being read begins */
  bool in_code;               /* in a response code's brackets */
  bool is_fetch;
  bool loose;              /* in ENVELOPE or BODYSTRUCTURE, where quotes may stand unescaped */
  size_t brackets;         /* open in an atom of a response code */
  size_t closing;          /* where in `strings` the quote is that may end the string */
  struct stls_buffer code; /* the response code as it stands */
  bool utf8;
  bool starts_new; /* the response is complete: the next byte begins another */
  uint64_t literal_left;
  struct stls_imap_content content;
  size_t fresh; /* the node behind the last literal that was handed out */
  size_t tag_len, name_start, name_len, text_start, text_len;
  struct stls_imap_response response;
  bool records;
  bool hides; /* in a quoted string of message content, which is not recorded */
  struct stls_buffer record;
  enum stls_error_kind failure;
  const char *why;
};

/* {====== Life ====== */

struct stls_imap_parser *stls_imap_parser_new(const struct stls_limits *limits) {
  struct stls_imap_parser *parser = calloc(1, sizeof *parser);
  if (!parser) return NULL;
  parser->limits = *limits;
  stls_buffer_init(&parser->strings, limits->reply);
  stls_buffer_init(&parser->nodes, limits->reply * sizeof(struct stls_imap_node));
  stls_buffer_init(&parser->open, limits->depth * sizeof(uint32_t));
  stls_buffer_init(&parser->code, limits->reply);
  stls_buffer_init(&parser->record, 0);
  parser->starts_new = true;
  return parser;
}

void stls_imap_parser_free(struct stls_imap_parser *parser) {
  if (!parser) return;
  stls_buffer_free(&parser->strings);
  stls_buffer_free(&parser->nodes);
  stls_buffer_free(&parser->open);
  stls_buffer_free(&parser->code);
  stls_buffer_free(&parser->record);
  free(parser);
}

void stls_imap_parser_record(struct stls_imap_parser *parser) {
  parser->records = true;
}

void stls_imap_parser_utf8(struct stls_imap_parser *parser, bool utf8) {
  parser->utf8 = utf8;
}

/* Begins a response; memory that a large one took is given back. */
static void begin_response(struct stls_imap_parser *parser) {
  stls_buffer_shrink(&parser->strings, 16 * 1024);
  stls_buffer_shrink(&parser->nodes, 16 * 1024);
  stls_buffer_clear(&parser->open);
  stls_buffer_shrink(&parser->code, 16 * 1024);
  stls_buffer_shrink(&parser->record, 16 * 1024);
  memset(&parser->response, 0, sizeof parser->response);
  parser->response.utf8 = parser->utf8;
  parser->tag_len = parser->name_start = parser->name_len = 0;
  parser->text_start = parser->text_len = parser->token = 0;
  parser->fresh = 1; /* behind the list that all data items are in */
  parser->in_code = parser->is_fetch = parser->loose = parser->starts_new = false;
  parser->brackets = 0;
  parser->lexeme = LEX_TAG;
}

static void fail(struct stls_imap_parser *parser, enum stls_error_kind kind, const char *why) {
  if (parser->failure != STLS_ERROR_NONE) return;
  parser->failure = kind;
  parser->why = why;
}

static void check_buffer(struct stls_imap_parser *parser, const struct stls_buffer *buffer,
                         const char *why) {
  if (buffer->failure == STLS_BUFFER_MEMORY) fail(parser, STLS_ERROR_MEMORY, "not enough memory");
  if (buffer->failure == STLS_BUFFER_LIMIT) fail(parser, STLS_ERROR_LIMIT, why);
}

enum stls_error_kind stls_imap_parser_failure(const struct stls_imap_parser *parser,
                                              const char **why_r) {
  *why_r = parser->why;
  return parser->failure;
}

/* }====== */

/* {====== Nodes ====== */

/* Blanks leave nothing in the buffers, but they count as well: a response has an end. */
static void count(struct stls_imap_parser *parser, size_t octets) {
  parser->response.weight += octets;
  if (parser->response.weight > parser->limits.reply)
    fail(parser, STLS_ERROR_LIMIT, "the server's response is longer than the limit allows");
}

static size_t node_count(const struct stls_imap_parser *parser) {
  return stls_buffer_length(&parser->nodes) / sizeof(struct stls_imap_node);
}

static struct stls_imap_node *node_at(struct stls_imap_parser *parser, size_t index) {
  return (struct stls_imap_node *)(void *)parser->nodes.data + index;
}

static inline void add_node(struct stls_imap_parser *parser, enum stls_imap_type type, size_t start,
                            size_t len) {
  struct stls_imap_node node = {type, (uint32_t)start, (uint32_t)len};
  if (parser->nodes.capacity - parser->nodes.end >= sizeof node) { /* in most cases */
    memcpy(parser->nodes.data + parser->nodes.end, &node, sizeof node);
    parser->nodes.end += sizeof node;
    return;
  }
  stls_buffer_append(&parser->nodes, (const char *)&node, sizeof node);
  check_buffer(parser, &parser->nodes,
               "the server's response has more values than the limit allows");
}

static size_t depth(const struct stls_imap_parser *parser) {
  return stls_buffer_length(&parser->open) / sizeof(uint32_t);
}

/* The text of the last node, which must be no list. */
static struct stls_slice last_text(struct stls_imap_parser *parser) {
  const struct stls_imap_node *last = node_at(parser, node_count(parser) - 1);
  return stls_slice(parser->strings.data + parser->strings.start + last->start, last->len);
}

/* Whether the list that opens is the value of ENVELOPE, BODYSTRUCTURE or BODY. */
static bool is_loose(struct stls_imap_parser *parser) {
  struct stls_slice item;
  if (!parser->is_fetch || depth(parser) != 1) return parser->loose;
  if (node_at(parser, node_count(parser) - 1)->type != STLS_IMAP_ATOM) return false;
  item = last_text(parser);
  return stls_slice_is(item, "ENVELOPE") || stls_slice_is(item, "BODYSTRUCTURE") ||
         stls_slice_is(item, "BODY");
}

static void open_list(struct stls_imap_parser *parser) {
  uint32_t index = (uint32_t)node_count(parser);
  parser->loose = is_loose(parser);
  stls_buffer_append(&parser->open, (const char *)&index, sizeof index);
  check_buffer(parser, &parser->open,
               "the server's response is nested deeper than the limit allows");
  add_node(parser, STLS_IMAP_LIST, 0, 0);
  count(parser, LIST_WEIGHT);
}

static void close_list(struct stls_imap_parser *parser) {
  uint32_t index;
  if (stls_buffer_length(&parser->open) == 0) {
    fail(parser, STLS_ERROR_PROTOCOL,
         "the server's response closes a parenthesis that is not open");
    return;
  }
  parser->open.end -= sizeof index;
  memcpy(&index, parser->open.data + parser->open.end, sizeof index);
  node_at(parser, index)->len = (uint32_t)node_count(parser);
  if (depth(parser) <= 1) parser->loose = false;
}

static struct stls_slice token_text(const struct stls_imap_parser *parser) {
  return stls_slice_from(stls_buffer_slice(&parser->strings), parser->token);
}

static void begin_token(struct stls_imap_parser *parser, enum lexeme lexeme) {
  parser->token = stls_buffer_length(&parser->strings);
  parser->lexeme = lexeme;
}

static inline void keep(struct stls_imap_parser *parser, struct stls_slice text) {
  struct stls_buffer *strings = &parser->strings;
  if (text.len == 0) return;
  if (strings->capacity - strings->end >= text.len &&
      text.len <= parser->limits.reply - stls_buffer_length(strings)) { /* in most cases */
    memcpy(strings->data + strings->end, text.ptr, text.len);
    strings->end += text.len;
    return;
  }
  stls_buffer_append_slice(&parser->strings, text);
  check_buffer(parser, &parser->strings, "the server's response is longer than the limit allows");
}

static void end_string(struct stls_imap_parser *parser) {
  parser->hides = false;
  add_node(parser, STLS_IMAP_STRING, parser->token, token_text(parser).len);
  parser->lexeme = LEX_VALUE;
}

static bool is_all_digits(struct stls_slice text) {
  size_t i;
  for (i = 0; i < text.len; i++) {
    if (!stls_is_digit(text.ptr[i])) return false;
  }
  return text.len > 0;
}

static bool is_nil(struct stls_slice text) {
  return text.len == 3 && stls_upper(text.ptr[0]) == 'N' && stls_upper(text.ptr[1]) == 'I' &&
         stls_upper(text.ptr[2]) == 'L';
}

static void end_atom(struct stls_imap_parser *parser) {
  struct stls_slice text = token_text(parser);
  enum stls_imap_type type = STLS_IMAP_ATOM;
  if (is_all_digits(text)) type = STLS_IMAP_NUMBER;
  else if (is_nil(text)) type = STLS_IMAP_NIL;
  add_node(parser, type, parser->token, text.len);
  parser->lexeme = LEX_VALUE;
}

/* Whether the literal whose header was read belongs to a data item of message content. */
static bool is_content(struct stls_imap_parser *parser) {
  struct stls_slice item;
  if (!parser->is_fetch || depth(parser) != 1 || node_count(parser) < 2) return false;
  if (node_at(parser, node_count(parser) - 1)->type != STLS_IMAP_ATOM) return false;
  item = last_text(parser);
  return stls_slice_starts(item, "BODY[") || stls_slice_starts(item, "BINARY[") ||
         stls_slice_is(item, "RFC822") || stls_slice_is(item, "RFC822.HEADER") ||
         stls_slice_is(item, "RFC822.TEXT");
}

/* }====== */

/* {====== Lexical states: each takes at least one byte off a non-empty input, or moves on ====== */

static bool ends_word(char c) {
  return c == ' ' || c == '\r' || c == '\n';
}

/* The bytes up to the first that `ends` says ends the token. */
static size_t span(struct stls_slice input, bool (*ends)(char c)) {
  size_t len = 0;
  while (len < input.len && !ends(input.ptr[len])) len++;
  return len;
}

static bool ends_line(char c) {
  return c == '\r' || c == '\n';
}

/* Ends the line if `c` is (half of) a line end; the bytes used. */
static size_t take_line_end(struct stls_imap_parser *parser, char c);

static bool is_status_name(struct stls_slice name) {
  return stls_slice_is(name, "OK") || stls_slice_is(name, "NO") || stls_slice_is(name, "BAD") ||
         stls_slice_is(name, "BYE") || stls_slice_is(name, "PREAUTH");
}

static void end_tag(struct stls_imap_parser *parser) {
  struct stls_slice tag = token_text(parser);
  parser->tag_len = tag.len;
  parser->response.kind = stls_slice_equals(tag, "*")   ? STLS_IMAP_UNTAGGED
                          : stls_slice_equals(tag, "+") ? STLS_IMAP_CONTINUE
                                                        : STLS_IMAP_TAGGED;
  begin_token(parser, parser->response.kind == STLS_IMAP_CONTINUE ? LEX_TEXT : LEX_NAME);
}

static void end_name(struct stls_imap_parser *parser, char end) {
  struct stls_slice name = token_text(parser);
  uint64_t number;
  if (name.len == 0 && end == ' ') return;
  if (name.len == 0) {
    fail(parser, STLS_ERROR_PROTOCOL, "the server's line is not an IMAP response");
    return;
  }
  if (parser->response.kind == STLS_IMAP_UNTAGGED && !parser->response.has_number &&
      stls_slice_number(name, UINT32_MAX, &number)) {
    parser->response.has_number = true;
    parser->response.number = (uint32_t)number;
    begin_token(parser, LEX_NAME);
    return;
  }
  parser->name_start = parser->token;
  parser->name_len = name.len;
  parser->is_fetch = stls_slice_is(name, "FETCH") || stls_slice_is(name, "UIDFETCH");
  parser->response.is_status = is_status_name(name);
  begin_token(parser, parser->response.is_status ? LEX_TEXT_START : LEX_VALUE);
}

static size_t lex_word(struct stls_imap_parser *parser, struct stls_slice input) {
  size_t len = span(input, ends_word);
  bool is_tag = parser->lexeme == LEX_TAG;
  if (is_tag && token_text(parser).len == 0 && input.ptr[0] == '+') { /* no tag has a "+" */
    keep(parser, stls_slice(input.ptr, 1));
    end_tag(parser);
    return 1;
  }
  keep(parser, stls_slice(input.ptr, len));
  if (len == input.len) return len;
  if (is_tag) end_tag(parser);
  else end_name(parser, input.ptr[len]);
  return input.ptr[len] == ' ' ? len + 1 : len;
}

static size_t lex_text_start(struct stls_imap_parser *parser, struct stls_slice input) {
  parser->in_code = input.ptr[0] == '[';
  begin_token(parser, parser->in_code ? LEX_VALUE : LEX_TEXT);
  return parser->in_code ? 1 : 0;
}

static size_t lex_text(struct stls_imap_parser *parser, struct stls_slice input) {
  size_t len = span(input, ends_line);
  struct stls_slice text;
  keep(parser, stls_slice(input.ptr, len));
  if (len == input.len) return len;
  text = stls_slice_trim(token_text(parser)); /* a blank parts it from a response code */
  parser->text_start = (size_t)(text.ptr - stls_buffer_slice(&parser->strings).ptr);
  parser->text_len = text.len;
  return len + take_line_end(parser, input.ptr[len]);
}

static void end_code(struct stls_imap_parser *parser) {
  if (depth(parser) > 0)
    fail(parser, STLS_ERROR_PROTOCOL, "the server's response code leaves a parenthesis open");
  parser->in_code = false;
  begin_token(parser, LEX_TEXT);
}

/* {====== Values that are there as a whole ====== */

/* What a byte means to an atom: blanks, line ends and parentheses end it; the others depend. */
enum { PLAIN, DELIMITS, DEPENDS };

static const unsigned char atom_classes[256] = {
    [' '] = DELIMITS, ['('] = DELIMITS, [')'] = DELIMITS, ['\r'] = DELIMITS, ['\n'] = DELIMITS,
    ['"'] = DEPENDS,  ['{'] = DEPENDS,  ['['] = DEPENDS,  [']'] = DEPENDS};

static inline int atom_class(char c) {
  return atom_classes[(unsigned char)c];
}

/* What ends the quick part of a quoted string: its end, an escape, a line end. */
static const bool quoted_ends[256] = {['"'] = true, ['\\'] = true, ['\r'] = true, ['\n'] = true};

/* Takes an atom that ends in the input. 0 when this is no place to be quick. */
static size_t take_atom(struct stls_imap_parser *parser, struct stls_slice input) {
  size_t len = 0, start = stls_buffer_length(&parser->strings);
  while (len < input.len && atom_class(input.ptr[len]) == PLAIN) len++;
  if (len == 0 || len == input.len || atom_class(input.ptr[len]) != DELIMITS) return 0;
  keep(parser, stls_slice(input.ptr, len));
  parser->token = start;
  end_atom(parser);
  return len;
}

/* Whether a value may begin with this, where strings, numbers, NIL and lists are all there is. */
static bool may_follow(char c) {
  return c == '"' || c == '(' || c == ')' || c == '{' || c == '~' || stls_is_digit(c) || c == 'N' ||
         c == 'n' || c == '\r' || c == '\n';
}

/* Whether what stands behind a quote says that it ends the string. */
static bool is_closed(struct stls_slice behind) {
  if (behind.len > 0 && (behind.ptr[0] == ')' || behind.ptr[0] == '(')) return true;
  return behind.len > 1 && behind.ptr[0] == ' ' && may_follow(behind.ptr[1]);
}

/* Takes a quoted string that ends in the input, and has no escapes. 0 as above. */
static size_t take_quoted(struct stls_imap_parser *parser, struct stls_slice input) {
  size_t len = 1;
  while (len < input.len && !quoted_ends[(unsigned char)input.ptr[len]]) len++;
  if (len == input.len || input.ptr[len] != '"') return 0;
  if (parser->loose && !is_closed(stls_slice_from(input, len + 1))) return 0;
  add_node(parser, STLS_IMAP_STRING, stls_buffer_length(&parser->strings), len - 1);
  keep(parser, stls_slice(input.ptr + 1, len - 1));
  return len + 1;
}

/* }====== */

static bool ends_code(const struct stls_imap_parser *parser, char c) {
  return c == ']' && parser->in_code && depth(parser) == 0 && parser->brackets == 0;
}

/* What can't be taken as a whole, or is no value: the first byte decides what state is next. */
static size_t begin_value(struct stls_imap_parser *parser, char c) {
  switch (c) {
    case '"':
      parser->hides = is_content(parser);
      begin_token(parser, LEX_QUOTED);
      return 1;
    case '{':
      begin_token(parser, LEX_LITERAL_SIZE);
      parser->literal_left = NO_SIZE;
      return 1;
    case '\r':
    case '\n': return take_line_end(parser, c);
    default: break;
  }
  if (ends_code(parser, c)) {
    end_code(parser);
    return 1;
  }
  begin_token(parser, LEX_ATOM);
  return 0;
}

/* One value or parenthesis, no blank, or the beginning of one. */
static size_t lex_one(struct stls_imap_parser *parser, struct stls_slice input) {
  char c = input.ptr[0];
  size_t len = 0;
  switch (c) {
    case '(': open_list(parser); return 1;
    case ')': close_list(parser); return 1;
    case '"':
      if (!is_content(parser)) len = take_quoted(parser, input);
      break;
    case ']':
    case '{': break;
    default: len = take_atom(parser, input); break;
  }
  return len > 0 ? len : begin_value(parser, c);
}

/* It counts by itself, value by value, so that a limit is exceeded at the same byte always. */
static size_t lex_value(struct stls_imap_parser *parser, struct stls_slice input) {
  size_t used = 0;
  while (used < input.len && parser->lexeme == LEX_VALUE && !parser->starts_new &&
         parser->failure == STLS_ERROR_NONE) {
    size_t len = input.ptr[used] == ' ' ? 1 : lex_one(parser, stls_slice_from(input, used));
    count(parser, len);
    used += len;
  }
  return used;
}

/* A quote, brace or bracket in an atom: part of it, unless it ends a code or begins a literal. */
static size_t lex_in_atom(struct stls_imap_parser *parser, char c) {
  if (c == '{' && stls_slice_equals(token_text(parser), "~")) { /* literal8, RFC 3516 4.4 */
    parser->strings.end--;
    parser->lexeme = LEX_VALUE;
    return 0;
  }
  if (ends_code(parser, c) || (c == '"' && is_nil(token_text(parser)))) {
    end_atom(parser);
    return 0;
  }
  keep(parser, stls_slice(&c, 1));
  if (parser->in_code && c == '[') parser->brackets++;
  if (parser->in_code && c == ']' && parser->brackets > 0) parser->brackets--;
  if (c == '[' && parser->is_fetch && depth(parser) == 1) parser->lexeme = LEX_SECTION;
  return 1;
}

static size_t lex_atom(struct stls_imap_parser *parser, struct stls_slice input) {
  size_t len = 0;
  while (len < input.len && atom_class(input.ptr[len]) == PLAIN) len++;
  keep(parser, stls_slice(input.ptr, len));
  if (len == input.len) return len;
  if (atom_class(input.ptr[len]) == DEPENDS) return len + lex_in_atom(parser, input.ptr[len]);
  parser->brackets = 0;
  end_atom(parser);
  return len;
}

static bool ends_section(char c) {
  return c == ']' || c == '\r' || c == '\n';
}

/* "HEADER.FIELDS (FROM TO)" has blanks and parentheses that delimit nothing. */
static size_t lex_section(struct stls_imap_parser *parser, struct stls_slice input) {
  size_t len = span(input, ends_section);
  keep(parser, stls_slice(input.ptr, len));
  if (len < input.len) parser->lexeme = LEX_ATOM;
  if (len < input.len && input.ptr[len] == ']') keep(parser, stls_slice(input.ptr + len++, 1));
  return len;
}

static bool ends_quoted(char c) {
  return c == '"' || c == '\\' || c == '\r' || c == '\n';
}

/* The quote ends the string at once, or once it is seen what follows. */
static void close_quote(struct stls_imap_parser *parser) {
  if (!parser->loose) {
    end_string(parser);
    return;
  }
  parser->closing = stls_buffer_length(&parser->strings);
  keep(parser, stls_slice("\"", 1));
  parser->lexeme = LEX_CLOSING;
}

/* It does: what was kept behind it, in case it did not, goes. */
static void close_string(struct stls_imap_parser *parser) {
  parser->strings.end = parser->strings.start + parser->closing;
  end_string(parser);
}

/*
 * Behind a quote, blanks and another quote. That one ends the string if it is followed by what
 * may follow one, and else begins another string.
 */
static void lex_second_quote(struct stls_imap_parser *parser, char c) {
  if (c == ' ' || c == ')') {
    parser->closing++;
    parser->lexeme = LEX_CLOSING;
  } else {
    close_string(parser);
    begin_token(parser, LEX_QUOTED);
  }
}

/*
 * A quote that is neither followed by a parenthesis, nor by a blank and something that begins
 * a value, was not the end: `"Terry "T" Gray"`, as some servers write. Takes only what is kept.
 */
static size_t lex_closing(struct stls_imap_parser *parser, struct stls_slice input) {
  char c = input.ptr[0];
  if (parser->lexeme == LEX_CLOSING_QUOTE) {
    lex_second_quote(parser, c);
    return 0;
  }
  if (c == ' ') {
    parser->lexeme = LEX_CLOSING_BLANK;
  } else if (parser->lexeme == LEX_CLOSING && c == '"') {
    parser->lexeme = LEX_CLOSING_QUOTE;
  } else {
    bool closed = may_follow(c);
    if (parser->lexeme == LEX_CLOSING) closed = c == '(' || c == ')' || c == '\r' || c == '\n';
    if (closed) close_string(parser);
    else parser->lexeme = LEX_QUOTED;
    return 0;
  }
  keep(parser, stls_slice(&c, 1));
  return 1;
}

static size_t lex_quoted(struct stls_imap_parser *parser, struct stls_slice input) {
  size_t len = span(input, ends_quoted);
  keep(parser, stls_slice(input.ptr, len));
  if (len == input.len) return len;
  switch (input.ptr[len]) {
    case '"': close_quote(parser); break;
    case '\\': parser->lexeme = LEX_ESCAPED; break;
    default:
      fail(parser, STLS_ERROR_PROTOCOL, "the server's response has a line end in a quoted string");
      break;
  }
  return len + 1;
}

static size_t lex_escaped(struct stls_imap_parser *parser, struct stls_slice input) {
  char c = input.ptr[0];
  parser->lexeme = LEX_QUOTED;
  if (c != '"' && c != '\\') { /* the server escapes nothing: take it as it stands */
    keep(parser, stls_slice("\\", 1));
    return 0;
  }
  keep(parser, stls_slice(&c, 1));
  return 1;
}

static size_t lex_literal_size(struct stls_imap_parser *parser, struct stls_slice input) {
  char c = input.ptr[0];
  if (stls_is_digit(c) && parser->lexeme == LEX_LITERAL_SIZE) {
    if (parser->literal_left == NO_SIZE) parser->literal_left = 0;
    if (parser->literal_left > (uint64_t)INT64_MAX / 10 - 9) {
      fail(parser, STLS_ERROR_PROTOCOL, "the server announces an impossible literal");
    }
    parser->literal_left = parser->literal_left * 10 + (uint64_t)(c - '0');
  } else if (c == '}' && parser->literal_left != NO_SIZE) {
    parser->lexeme = LEX_LITERAL_LINE;
  } else if (c == '+' && parser->lexeme == LEX_LITERAL_SIZE) {
    parser->lexeme = LEX_LITERAL_PLUS;
  } else {
    fail(parser, STLS_ERROR_PROTOCOL, "the server's response has a malformed literal");
  }
  return 1;
}

static void begin_literal(struct stls_imap_parser *parser) {
  if (is_content(parser)) {
    parser->content.size = parser->literal_left;
    parser->content.offset = 0;
    add_node(parser, STLS_IMAP_STREAMED, parser->token, 0);
    parser->response.fresh = parser->fresh;
    parser->fresh = node_count(parser);
    parser->lexeme = LEX_CONTENT;
    return;
  }
  if (parser->literal_left > parser->limits.reply - stls_buffer_length(&parser->strings)) {
    fail(parser, STLS_ERROR_LIMIT,
         "the server announces a literal that is longer than the limit allows");
    return;
  }
  parser->lexeme = LEX_LITERAL;
  if (parser->literal_left == 0) end_string(parser);
}

static size_t lex_literal_line(struct stls_imap_parser *parser, struct stls_slice input) {
  if (input.ptr[0] == '\n') begin_literal(parser);
  else if (input.ptr[0] != '\r')
    fail(parser, STLS_ERROR_PROTOCOL, "the server's response has a malformed literal");
  return 1;
}

static size_t lex_literal(struct stls_imap_parser *parser, struct stls_slice input) {
  size_t len = parser->literal_left < input.len ? (size_t)parser->literal_left : input.len;
  keep(parser, stls_slice(input.ptr, len));
  parser->literal_left -= len;
  if (parser->literal_left == 0) end_string(parser);
  return len;
}

static size_t lex_content(struct stls_imap_parser *parser, struct stls_slice input) {
  size_t len = parser->literal_left < input.len ? (size_t)parser->literal_left : input.len;
  parser->content.offset = parser->content.size - parser->literal_left;
  parser->content.piece = stls_slice(input.ptr, len);
  parser->literal_left -= len;
  if (parser->literal_left == 0) parser->lexeme = LEX_VALUE;
  return len;
}

static void end_response(struct stls_imap_parser *parser) {
  if (depth(parser) > 0 || parser->in_code) {
    fail(parser, STLS_ERROR_PROTOCOL, "the server's response ends inside of parentheses");
    return;
  }
  if (parser->response.kind != STLS_IMAP_CONTINUE && parser->name_len == 0) {
    fail(parser, STLS_ERROR_PROTOCOL, "the server's line is not an IMAP response");
    return;
  }
  if (parser->response.kind == STLS_IMAP_TAGGED && !parser->response.is_status) {
    fail(parser, STLS_ERROR_PROTOCOL, "the server's tagged response is not OK, NO or BAD");
    return;
  }
  parser->starts_new = true;
}

static size_t take_line_end(struct stls_imap_parser *parser, char c) {
  if (c == '\n') end_response(parser);
  else parser->lexeme = LEX_LINE_END;
  return 1;
}

static size_t lex_line_end(struct stls_imap_parser *parser, struct stls_slice input) {
  if (input.ptr[0] == '\n') end_response(parser);
  else fail(parser, STLS_ERROR_PROTOCOL, "the server's response has a bare CR");
  return 1;
}

static size_t lex(struct stls_imap_parser *parser, struct stls_slice input) {
  switch (parser->lexeme) {
    case LEX_TAG:
    case LEX_NAME: return lex_word(parser, input);
    case LEX_TEXT_START: return lex_text_start(parser, input);
    case LEX_TEXT: return lex_text(parser, input);
    case LEX_VALUE: return lex_value(parser, input);
    case LEX_ATOM: return lex_atom(parser, input);
    case LEX_SECTION: return lex_section(parser, input);
    case LEX_QUOTED: return lex_quoted(parser, input);
    case LEX_ESCAPED: return lex_escaped(parser, input);
    case LEX_CLOSING:
    case LEX_CLOSING_BLANK:
    case LEX_CLOSING_QUOTE: return lex_closing(parser, input);
    case LEX_LITERAL_SIZE:
    case LEX_LITERAL_PLUS: return lex_literal_size(parser, input);
    case LEX_LITERAL_LINE: return lex_literal_line(parser, input);
    case LEX_LITERAL: return lex_literal(parser, input);
    case LEX_CONTENT: return lex_content(parser, input);
    case LEX_LINE_END: return lex_line_end(parser, input);
  }
  return input.len;
}

/* }====== */

static void keep_code(struct stls_imap_parser *parser, struct stls_slice text) {
  stls_buffer_append_slice(&parser->code, text);
  check_buffer(parser, &parser->code, "the server's response is longer than the limit allows");
}

static void record(struct stls_imap_parser *parser, const char *from, const char *to) {
  if (parser->records && to > from) stls_buffer_append(&parser->record, from, (size_t)(to - from));
}

enum stls_imap_result stls_imap_parser_feed(struct stls_imap_parser *parser,
                                            struct stls_slice input, size_t *used_r) {
  size_t used = 0, from = 0;
  enum stls_imap_result result = STLS_IMAP_MORE;
  if (parser->starts_new && input.len > 0) begin_response(parser);
  while (result == STLS_IMAP_MORE && parser->failure == STLS_ERROR_NONE &&
         (used < input.len || parser->lexeme == LEX_CONTENT)) {
    bool content = parser->lexeme == LEX_CONTENT, hidden = parser->hides;
    bool counted = parser->lexeme == LEX_VALUE, in_code = parser->in_code;
    size_t len;
    if (content && used == input.len && parser->literal_left > 0) break;
    if (content) record(parser, input.ptr + from, input.ptr + used);
    len = lex(parser, stls_slice_from(input, used));
    if (in_code) keep_code(parser, stls_slice(input.ptr + used, len));
    used += len;
    if (!content && !counted) count(parser, len);
    if (!hidden && parser->hides) record(parser, input.ptr + from, input.ptr + used);
    if (content || hidden || parser->hides) from = used;
    if (hidden && !parser->hides && parser->records) {
      stls_buffer_append_text(&parser->record, "<content>\"");
    }
    if (content) result = STLS_IMAP_CONTENT;
    else if (parser->starts_new) result = STLS_IMAP_RESPONSE;
  }
  record(parser, input.ptr + from, input.ptr + used);
  *used_r = used;
  return parser->failure == STLS_ERROR_NONE ? result : STLS_IMAP_FAILED;
}

const struct stls_imap_response *stls_imap_parser_response(struct stls_imap_parser *parser) {
  struct stls_imap_response *response = &parser->response;
  response->strings = stls_buffer_slice(&parser->strings).ptr;
  response->tag = stls_slice(response->strings, parser->tag_len);
  response->name = stls_slice(response->strings + parser->name_start, parser->name_len);
  response->code = stls_buffer_slice(&parser->code);
  if (response->code.len > 0) response->code.len--; /* the bracket that ends it */
  response->text = stls_slice(response->strings + parser->text_start, parser->text_len);
  response->nodes = node_count(parser) > 0 ? node_at(parser, 0) : NULL;
  response->node_count = node_count(parser);
  return response;
}

const struct stls_imap_content *stls_imap_parser_content(const struct stls_imap_parser *parser) {
  return &parser->content;
}

struct stls_slice stls_imap_parser_recorded(const struct stls_imap_parser *parser) {
  return stls_buffer_slice(&parser->record);
}

void stls_imap_parser_drop_record(struct stls_imap_parser *parser) {
  stls_buffer_clear(&parser->record);
}

struct stls_slice stls_imap_node_text(const struct stls_imap_response *response, size_t index) {
  const struct stls_imap_node *node = &response->nodes[index];
  if (node->type == STLS_IMAP_NIL || node->type == STLS_IMAP_LIST) return stls_slice("", 0);
  return stls_slice(response->strings + node->start, node->len);
}

size_t stls_imap_node_next(const struct stls_imap_response *response, size_t index) {
  const struct stls_imap_node *node = &response->nodes[index];
  return node->type == STLS_IMAP_LIST ? node->len : index + 1;
}
