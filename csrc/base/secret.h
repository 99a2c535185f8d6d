/*
 * base/secret.h - a password or token that leaves no copy behind.
 * Floor 0: may rely on libc only.
 *
 * Secrets are held here, and nowhere else, from when the caller gives them
 * until authentication ends; `stls_secret_free` wipes the memory.
 */
#ifndef STLS_BASE_SECRET_H
#define STLS_BASE_SECRET_H

#include "base/slice.h"

struct stls_secret {
  char *text; /* NUL-terminated, so that libraries that want C strings can read it */
  size_t len;
};

/* Copies `value` in, wiping what was there. Returns false when out of memory. */
bool stls_secret_set(struct stls_secret *secret, struct stls_slice value);

/* Wipes and frees; the secret is then unset. Harmless when it is already. */
void stls_secret_free(struct stls_secret *secret);

#endif
