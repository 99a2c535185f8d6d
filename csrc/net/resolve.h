/*
 * net/resolve.h - a name look-up that can be waited for, and abandoned.
 * Floor 1, net wing: may rely on base/ and net/ only.
 *
 * getaddrinfo blocks, so it runs on a thread of its own and says through a
 * descriptor when it is done. Addresses are looked up at once, without a thread.
 */
#ifndef STLS_NET_RESOLVE_H
#define STLS_NET_RESOLVE_H

#include <netdb.h>

#include "base/error.h"
#include "net/io.h"

struct stls_resolve;

/* Begins. `host` is ASCII (see hostname.h). NULL: the error is set. */
struct stls_resolve *stls_resolve_new(const char *host, unsigned port, struct stls_error *error);

/* Becomes readable when the look-up is done; -1 when it is done already. */
int stls_resolve_fd(const struct stls_resolve *resolve);

/* OK, WANT_READ, or FAILED with an error of kind `resolve`. */
enum stls_io stls_resolve_step(struct stls_resolve *resolve, struct stls_error *error);

/* The addresses, once OK; owned by the look-up. */
const struct addrinfo *stls_resolve_result(const struct stls_resolve *resolve);

/*
 * Abandons or frees it; a thread still at work cleans up behind itself.
 * Returns the descriptor, which the caller closes, or -1. NULL is harmless.
 */
int stls_resolve_free(struct stls_resolve *resolve);

#endif
