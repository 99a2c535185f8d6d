/*
 * base/error.h - what went wrong, for a program (kind, code) and a person (message, hint).
 * Floor 0: may rely on libc only.
 *
 * An error is sticky: the first one set wins, as it is nearest to the cause.
 */
#ifndef STLS_BASE_ERROR_H
#define STLS_BASE_ERROR_H

#include "base/slice.h"

/* The closed list of kinds; stls_error_kind_name gives each its public name. */
enum stls_error_kind {
  STLS_ERROR_NONE,
  STLS_ERROR_RESOLVE,     /* the host name has no address, or the look-up failed */
  STLS_ERROR_CONNECT,     /* no address accepted a connection */
  STLS_ERROR_TIMEOUT,     /* a deadline passed */
  STLS_ERROR_CLOSED,      /* the peer, or the caller, closed the connection */
  STLS_ERROR_TLS,         /* the handshake or the record layer failed */
  STLS_ERROR_CERTIFICATE, /* the peer's certificate was not acceptable */
  STLS_ERROR_DOWNGRADE,   /* encryption was required and not to be had */
  STLS_ERROR_INJECTION,   /* plain text arrived behind the answer to STARTTLS */
  STLS_ERROR_AUTH,        /* authentication was refused or impossible */
  STLS_ERROR_REJECTED,    /* the server said no to a command */
  STLS_ERROR_UNSUPPORTED, /* the server lacks what was asked for */
  STLS_ERROR_PROTOCOL,    /* the server broke the protocol's rules */
  STLS_ERROR_LIMIT,       /* the server exceeded a limit of ours */
  STLS_ERROR_CANCELLED,   /* the caller ended the operation */
  STLS_ERROR_BUSY,        /* another operation is in progress */
  STLS_ERROR_MEMORY       /* out of memory; the Lua binding raises it, as Lua does */
};

struct stls_error {
  enum stls_error_kind kind;
  char during[24]; /* the phase: "connect", "greeting", "starttls", "auth", a command's name */
  char *message;   /* one line for a person; NULL only when memory ran out */
  char *hint;      /* what to do about it, or NULL */
  int code;        /* SMTP reply code, or 0 */
  char *status;    /* enhanced status "5.7.1" or IMAP/POP3 response code, or NULL */
  char *text;      /* what the server said, or NULL */
  bool temporary;  /* worth trying again later */
  bool unknown;    /* the message's end was sent and no answer came: delivery is unknown */
};

/* The public name of a kind: "downgrade". Never NULL. */
const char *stls_error_kind_name(enum stls_error_kind kind);

/*
 * Sets kind, phase and message, unless an error is set already.
 * Returns false, so that a caller may say `return stls_error_set(...)`.
 */
bool stls_error_set(struct stls_error *error, enum stls_error_kind kind, const char *during,
                    const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Adds advice to an error that has none. */
void stls_error_hint(struct stls_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Adds what the server said; unprintable characters become '?'. */
void stls_error_reply(struct stls_error *error, int code, struct stls_slice status,
                      struct stls_slice text);

/* Frees the strings; the error is then unset. */
void stls_error_free(struct stls_error *error);

/* Copies an error, strings and all, into one that is unset. */
void stls_error_copy(struct stls_error *to, const struct stls_error *from);

#endif
