/*
 * net/dial.h - connecting to the first of several addresses that answers (RFC 8305).
 * Floor 1, net wing: may rely on base/ and net/ only.
 *
 * Attempts begin a quarter of a second apart, address families in turn; the first
 * that succeeds wins. They are watched through one descriptor, so that whoever
 * waits needs to know of one only.
 */
#ifndef STLS_NET_DIAL_H
#define STLS_NET_DIAL_H

#include <netdb.h>

#include "base/error.h"
#include "net/io.h"

struct stls_dial;

/* Begins with a copy of the addresses. NULL: the error is set. */
struct stls_dial *stls_dial_new(const struct addrinfo *addresses, struct stls_error *error);

/* The same with a Unix socket: `path` has at most STLS_DIAL_PATH_MAX bytes. */
#define STLS_DIAL_PATH_MAX 107
struct stls_dial *stls_dial_new_unix(const char *path, struct stls_error *error);

/* Readable when an attempt has ended. */
int stls_dial_fd(const struct stls_dial *dial);

/* Seconds until the next attempt is due; negative when none is left to begin. */
double stls_dial_timeout(const struct stls_dial *dial, double now);

/* OK: take the descriptor. WANT_READ: wait. FAILED: an error of kind `connect`. */
enum stls_io stls_dial_step(struct stls_dial *dial, double now, struct stls_error *error);

/* The connected descriptor, which the caller now owns; and the address in words. */
int stls_dial_take(struct stls_dial *dial, char *address_r, size_t size);

/*
 * Ends all attempts. Returns the watched descriptor, which the caller closes.
 * NULL is harmless and returns -1.
 */
int stls_dial_free(struct stls_dial *dial);

#endif
