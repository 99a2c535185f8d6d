/* base/secret.c - see secret.h. */
#include "base/secret.h"

#include <stdlib.h>
#include <string.h>

bool stls_secret_set(struct stls_secret *secret, struct stls_slice value) {
  char *text = malloc(value.len + 1);
  if (!text) return false;
  if (value.len > 0) memcpy(text, value.ptr, value.len);
  text[value.len] = '\0';
  stls_secret_free(secret);
  secret->text = text;
  secret->len = value.len;
  return true;
}

void stls_secret_free(struct stls_secret *secret) {
  if (secret->text) explicit_bzero(secret->text, secret->len);
  free(secret->text);
  secret->text = NULL;
  secret->len = 0;
}
