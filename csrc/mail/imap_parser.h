/*
 * mail/imap_parser.h - everything an IMAP server may say, one response at a time.
 * Floor 1, mail wing: may rely on base/ only.
 *
 * The parser is fed bytes and can stop and go on at any of them. It does not
 * recurse, and looks at each byte once. A response comes out as a flat list of
 * nodes in the order of the wire, in which a LIST node says where its elements
 * end; strings are unquoted, literals joined.
 *
 * The literals of a FETCH that carry message content (BODY[...], BINARY[...],
 * RFC822...) are not kept: they are handed out piece by piece as they arrive.
 * All else is bounded by limits.reply and limits.depth.
 */
#ifndef STLS_MAIL_IMAP_PARSER_H
#define STLS_MAIL_IMAP_PARSER_H

#include "base/buffer.h"
#include "base/error.h"
#include "base/limits.h"

enum stls_imap_type {
  STLS_IMAP_ATOM,   /* also flags, sequence sets, sections */
  STLS_IMAP_NUMBER, /* an atom of digits */
  STLS_IMAP_STRING, /* quoted string or literal */
  STLS_IMAP_NIL,
  STLS_IMAP_LIST,
  STLS_IMAP_STREAMED /* a literal that was handed out */
};

struct stls_imap_node {
  uint32_t type;  /* enum stls_imap_type */
  uint32_t start; /* of the text */
  uint32_t len;   /* of the text; LIST: index of the node behind its last element */
};

enum stls_imap_kind {
  STLS_IMAP_UNTAGGED, /* "*" */
  STLS_IMAP_TAGGED,
  STLS_IMAP_CONTINUE /* "+" */
};

/* A response. Everything in it is borrowed from the parser until it is fed again. */
struct stls_imap_response {
  enum stls_imap_kind kind;
  struct stls_slice tag;
  struct stls_slice name; /* "OK", "FETCH", "LIST", ... */
  bool has_number;        /* "* 23 EXISTS" */
  uint32_t number;
  bool is_status;         /* OK, NO, BAD, BYE, PREAUTH: nodes are the response code's */
  struct stls_slice code; /* of a status: all between the brackets, as it stands */
  struct stls_slice text; /* of a status or continuation, for people */
  bool utf8;              /* mailbox names are UTF-8, see stls_imap_parser_utf8 */
  size_t fresh;           /* CONTENT: the first node behind the literal handed out before */
  size_t weight;          /* against limits.reply: octets without content, and some per list */
  const char *strings;    /* what the nodes' offsets refer to */
  const struct stls_imap_node *nodes;
  size_t node_count;
};

enum stls_imap_result {
  STLS_IMAP_MORE,     /* feed more */
  STLS_IMAP_RESPONSE, /* one is complete */
  STLS_IMAP_CONTENT,  /* a piece of message content */
  STLS_IMAP_FAILED    /* see stls_imap_parser_failure */
};

/* A piece of content, and where it belongs. */
struct stls_imap_content {
  struct stls_slice piece; /* borrowed from the input */
  uint64_t size;           /* of the whole literal */
  uint64_t offset;         /* of the piece in it */
};

struct stls_imap_parser;

/* NULL when out of memory. */
struct stls_imap_parser *stls_imap_parser_new(const struct stls_limits *limits);
void stls_imap_parser_free(struct stls_imap_parser *parser);

/* Keeps the text of each response, without literals' octets, for a trace. */
void stls_imap_parser_record(struct stls_imap_parser *parser);

/*
 * From the next response on, whether mailbox names are UTF-8 as they stand instead of modified
 * UTF-7: after ENABLE UTF8=ACCEPT (RFC 9755) or IMAP4rev2 (RFC 9051 5.1). False at first.
 */
void stls_imap_parser_utf8(struct stls_imap_parser *parser, bool utf8);

/* Takes what it can use off `input`; `*used_r` says how much that was. */
enum stls_imap_result stls_imap_parser_feed(struct stls_imap_parser *parser,
                                            struct stls_slice input, size_t *used_r);

/* The complete response, or during CONTENT what is there of it so far. */
const struct stls_imap_response *stls_imap_parser_response(struct stls_imap_parser *parser);

const struct stls_imap_content *stls_imap_parser_content(const struct stls_imap_parser *parser);

/* What is recorded of the response since the last drop; empty without stls_imap_parser_record. */
struct stls_slice stls_imap_parser_recorded(const struct stls_imap_parser *parser);
void stls_imap_parser_drop_record(struct stls_imap_parser *parser);

/* What is wrong: kind limit, protocol or memory, and words for a person. */
enum stls_error_kind stls_imap_parser_failure(const struct stls_imap_parser *parser,
                                              const char **why_r);

/* The text of a node that is no LIST; empty for NIL. */
struct stls_slice stls_imap_node_text(const struct stls_imap_response *response, size_t index);

/* The index of the node behind this one and all its elements. */
size_t stls_imap_node_next(const struct stls_imap_response *response, size_t index);

#endif
