/*
 * base/limits.h - how much a server may make us hold.
 * Floor 0: may rely on libc only.
 *
 * Every buffer that a server can make grow has one of these limits; exceeding
 * it ends the session with an error of kind `limit`. Message content passes
 * through and is bounded by none of them, unless the caller wants it as a string.
 */
#ifndef STLS_BASE_LIMITS_H
#define STLS_BASE_LIMITS_H

#include <stddef.h>

struct stls_limits {
  size_t line;     /* one reply line; RFC 5321 4.5.3.1.5 says 512, servers exceed it */
  size_t reply;    /* all lines of one reply, or one IMAP response without its content; */
                   /* there a list counts for some more, as it does in memory; */
                   /* a search that finds a million of the longest UIDs takes 11 MB */
  size_t depth;    /* nesting of parentheses in an IMAP response */
  size_t greeting; /* everything a server may say before the session is open */
};

#define STLS_LIMITS_DEFAULT                                                                        \
  { 64 * 1024, 16 * 1024 * 1024, 200, 256 * 1024 }

#endif
