/*
 * mail/encoder.h - commands, put together from typed arguments.
 * Floor 1, mail wing: may rely on base/ and mail/trace.h only.
 *
 * No command is ever glued together from strings: each argument says what it is,
 * and what its type cannot carry is refused before a byte is sent. A refusal is
 * sticky for the line: ending it then returns the reason and sends nothing.
 *
 * A line may have stops: places where the server must first answer "+"
 * (RFC 9051 4.3, synchronising literals).
 */
#ifndef STLS_MAIL_ENCODER_H
#define STLS_MAIL_ENCODER_H

#include "base/buffer.h"
#include "mail/trace.h"

enum stls_arg_type {
  STLS_ARG_ATOM,    /* a word: printable ASCII, no blank or special */
  STLS_ARG_KEYWORD, /* a word that the next argument follows without a space: "FROM:" */
  STLS_ARG_TEXT,    /* free text to the line's end: no CR, LF, NUL */
  STLS_ARG_RAW,     /* printable ASCII with blanks, passed as it is: IMAP fetch items, searches */
  STLS_ARG_PATH,    /* an address in angle brackets (RFC 5321 4.1.2); "" is the null path */
  STLS_ARG_XTEXT,   /* RFC 3461 4 */
  STLS_ARG_NUMBER,  /* decimal digits */
  STLS_ARG_SET,     /* IMAP sequence set */
  STLS_ARG_STRING,  /* IMAP string: quoted, or a literal where quotes can't carry it */
  STLS_ARG_MAILBOX, /* IMAP mailbox name: UTF-8, sent as modified UTF-7 (RFC 3501 5.1.3) */
  STLS_ARG_FLAG,    /* IMAP flag: "\Seen" or a keyword */
  STLS_ARG_OPEN,    /* "(" */
  STLS_ARG_CLOSE,   /* ")" */
  STLS_ARG_SECRET,  /* like ATOM on the wire (base64, POP3 password); never shown */
  STLS_ARG_SECRET_STRING, /* like STRING on the wire; never shown */
  STLS_ARG_OCTETS,        /* IMAP value of any octets: quoted, a literal, or with NUL a literal8 */
  STLS_ARG_CONTENT,       /* IMAP literal whose octets the caller sends itself: its size */
  STLS_ARG_CONTENT8,      /* the same as literal8, which may have NUL (RFC 3516 4.4) */
  STLS_ARG_CHARSET        /* IMAP SEARCH: "CHARSET" and an atom; nothing where strings are UTF-8 */
                          /* anyway, as it must not be sent there (RFC 9755 3) */
};

enum stls_literal_style {
  STLS_LITERAL_SYNC,  /* wait for "+" before each literal */
  STLS_LITERAL_MINUS, /* up to 4096 octets without waiting (RFC 7888 5) */
  STLS_LITERAL_PLUS   /* without waiting */
};

/* A place in a command where more than bytes are needed. */
struct stls_stop {
  size_t offset;   /* into the command */
  uint64_t size;   /* of the content that comes here */
  bool waits;      /* the server must first answer "+" */
  bool is_content; /* the caller sends `size` octets here */
  bool is_binary;  /* NUL may be among them */
};

struct stls_encoder {
  struct stls_buffer line;  /* the whole command as it goes out */
  struct stls_buffer shown; /* the same, for the trace */
  struct stls_trace *trace; /* or NULL */
  enum stls_literal_style literals;
  bool utf8;      /* quoted strings may have UTF-8, and mailbox names are (RFC 9051, RFC 9755) */
  size_t longest; /* of this line, CRLF included; 0, as each line begins: no limit */
  struct stls_buffer stops; /* struct stls_stop */
  size_t stop_next;         /* the first that the command is not released up to */
  size_t released;          /* bytes of the command already moved to the output */
  bool joined;              /* no space before the next argument */
  const char *refusal;      /* why the line can't be sent */
};

/* `trace` may be NULL and is borrowed. */
void stls_encoder_init(struct stls_encoder *encoder, struct stls_trace *trace);
void stls_encoder_free(struct stls_encoder *encoder);

/* Begins a command; whatever was being put together is dropped. */
void stls_encoder_begin(struct stls_encoder *encoder);

/* Adds an argument, with a space before it where one belongs. */
void stls_encoder_add(struct stls_encoder *encoder, enum stls_arg_type type,
                      struct stls_slice value);

/*
 * Ends the line. Returns NULL, or why it is refused; then nothing of it is sent.
 * The reasons are literals that name the argument's type: "address has a CR, LF or NUL".
 */
const char *stls_encoder_end(struct stls_encoder *encoder);

/* Moves the command into `out` up to the next stop. False when a buffer breaks. */
bool stls_encoder_release(struct stls_encoder *encoder, struct stls_buffer *out);

/* Whether the command is not released as a whole yet. */
bool stls_encoder_stopped(const struct stls_encoder *encoder);

/* Where the command stands; NULL when it has no stop or has not been released up to one. */
const struct stls_stop *stls_encoder_stop(const struct stls_encoder *encoder);

/* Whether the command being put together has a stop. */
bool stls_encoder_stops(const struct stls_encoder *encoder);

/* Drops what is not released of the command. */
void stls_encoder_drop(struct stls_encoder *encoder);

/* The type with this public name ("mailbox"); false when there is none. */
bool stls_arg_type_named(const char *name, enum stls_arg_type *type_r);

/* Appends `mailbox` (UTF-8) in modified UTF-7. False when it is not valid UTF-8. */
bool stls_utf7_encode(struct stls_slice mailbox, struct stls_buffer *out);

/* Appends modified UTF-7 as UTF-8. False when it is not valid modified UTF-7. */
bool stls_utf7_decode(struct stls_slice name, struct stls_buffer *out);

#endif
