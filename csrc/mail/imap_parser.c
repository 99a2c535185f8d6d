/*
 * mail/imap_parser.c - see imap_parser.h. The grammar is RFC 9051 9, read leniently
 * where that is harmless: line ends may be a bare LF, blanks may repeat, and any
 * character that does not delimit belongs to an atom.
 *
 *   response = ("*" SP (status / number SP name / name) / tag SP status / "+" [SP text]) CRLF
 *
 * One function for each lexical state takes a stretch of input and moves on.
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
  LEX_ESCAPED, /* behind a backslash in quotes */
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
  stls_buffer_init(&parser->record, 0);
  parser->starts_new = true;
  return parser;
}

void stls_imap_parser_free(struct stls_imap_parser *parser) {
  if (!parser) return;
  stls_buffer_free(&parser->strings);
  stls_buffer_free(&parser->nodes);
  stls_buffer_free(&parser->open);
  stls_buffer_free(&parser->record);
  free(parser);
}

void stls_imap_parser_record(struct stls_imap_parser *parser) {
  parser->records = true;
}

/* Begins a response; memory that a large one took is given back. */
static void begin_response(struct stls_imap_parser *parser) {
  stls_buffer_shrink(&parser->strings, 16 * 1024);
  stls_buffer_shrink(&parser->nodes, 16 * 1024);
  stls_buffer_clear(&parser->open);
  stls_buffer_shrink(&parser->record, 16 * 1024);
  memset(&parser->response, 0, sizeof parser->response);
  parser->tag_len = parser->name_start = parser->name_len = 0;
  parser->text_start = parser->text_len = parser->token = 0;
  parser->fresh = 1; /* behind the list that all data items are in */
  parser->in_code = parser->is_fetch = parser->starts_new = false;
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

static void add_node(struct stls_imap_parser *parser, enum stls_imap_type type, size_t start,
                     size_t len) {
  struct stls_imap_node node = {type, (uint32_t)start, (uint32_t)len};
  stls_buffer_append(&parser->nodes, (const char *)&node, sizeof node);
  check_buffer(parser, &parser->nodes,
               "the server's response has more values than the limit allows");
}

static void open_list(struct stls_imap_parser *parser) {
  uint32_t index = (uint32_t)node_count(parser);
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
}

static size_t depth(const struct stls_imap_parser *parser) {
  return stls_buffer_length(&parser->open) / sizeof(uint32_t);
}

static struct stls_slice token_text(const struct stls_imap_parser *parser) {
  return stls_slice_from(stls_buffer_slice(&parser->strings), parser->token);
}

static void begin_token(struct stls_imap_parser *parser, enum lexeme lexeme) {
  parser->token = stls_buffer_length(&parser->strings);
  parser->lexeme = lexeme;
}

static void keep(struct stls_imap_parser *parser, struct stls_slice text) {
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

static void end_atom(struct stls_imap_parser *parser) {
  struct stls_slice text = token_text(parser);
  enum stls_imap_type type = STLS_IMAP_ATOM;
  if (is_all_digits(text)) type = STLS_IMAP_NUMBER;
  else if (stls_slice_is(text, "NIL")) type = STLS_IMAP_NIL;
  add_node(parser, type, parser->token, text.len);
  parser->lexeme = LEX_VALUE;
}

/* Whether the literal whose header was read belongs to a data item of message content. */
static bool is_content(struct stls_imap_parser *parser) {
  struct stls_imap_node *last;
  struct stls_slice item;
  if (!parser->is_fetch || depth(parser) != 1 || node_count(parser) < 2) return false;
  last = node_at(parser, node_count(parser) - 1);
  if (last->type != STLS_IMAP_ATOM) return false;
  item = stls_slice(parser->strings.data + parser->strings.start + last->start, last->len);
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

static void end_name(struct stls_imap_parser *parser) {
  struct stls_slice name = token_text(parser);
  uint64_t number;
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
  parser->is_fetch = stls_slice_is(name, "FETCH");
  parser->response.is_status = is_status_name(name);
  begin_token(parser, parser->response.is_status ? LEX_TEXT_START : LEX_VALUE);
}

static size_t lex_word(struct stls_imap_parser *parser, struct stls_slice input) {
  size_t len = span(input, ends_word);
  bool is_tag = parser->lexeme == LEX_TAG;
  keep(parser, stls_slice(input.ptr, len));
  if (len == input.len) return len;
  if (is_tag) end_tag(parser);
  else end_name(parser);
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

static size_t lex_value(struct stls_imap_parser *parser, struct stls_slice input) {
  char c = input.ptr[0];
  switch (c) {
    case ' ': return 1;
    case '(': open_list(parser); return 1;
    case ')': close_list(parser); return 1;
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
  if (c == ']' && parser->in_code) {
    end_code(parser);
    return 1;
  }
  begin_token(parser, LEX_ATOM);
  return 0;
}

/* Bytes that may end an atom: blanks, line ends, delimiters, and brackets, which depend. */
static bool may_end_atom(char c) {
  switch (c) {
    case ' ':
    case '(':
    case ')':
    case '\r':
    case '\n':
    case '"':
    case '{':
    case '[':
    case ']': return true;
    default: return false;
  }
}

static size_t lex_atom(struct stls_imap_parser *parser, struct stls_slice input) {
  size_t len = span(input, may_end_atom);
  char c;
  keep(parser, stls_slice(input.ptr, len));
  if (len == input.len) return len;
  c = input.ptr[len];
  if (c == '[' || (c == ']' && !parser->in_code) || c == '"') {
    keep(parser, stls_slice(&c, 1));
    if (c == '[' && parser->is_fetch) parser->lexeme = LEX_SECTION;
    return len + 1;
  }
  if (c == '{' && stls_slice_equals(token_text(parser), "~")) { /* literal8, RFC 3516 4.4 */
    parser->strings.end--;
    parser->lexeme = LEX_VALUE;
    return len;
  }
  if (c == '{') {
    keep(parser, stls_slice(&c, 1));
    return len + 1;
  }
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

static size_t lex_quoted(struct stls_imap_parser *parser, struct stls_slice input) {
  size_t len = span(input, ends_quoted);
  keep(parser, stls_slice(input.ptr, len));
  if (len == input.len) return len;
  switch (input.ptr[len]) {
    case '"': end_string(parser); break;
    case '\\': parser->lexeme = LEX_ESCAPED; break;
    default:
      fail(parser, STLS_ERROR_PROTOCOL, "the server's response has a line end in a quoted string");
      break;
  }
  return len + 1;
}

static size_t lex_escaped(struct stls_imap_parser *parser, struct stls_slice input) {
  keep(parser, stls_slice(input.ptr, 1));
  parser->lexeme = LEX_QUOTED;
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
    size_t len;
    if (content && used == input.len && parser->literal_left > 0) break;
    if (content) record(parser, input.ptr + from, input.ptr + used);
    len = lex(parser, stls_slice_from(input, used));
    used += len;
    if (!content) count(parser, len);
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
