/* net/tls_trust.c - authorities and our own certificate: see tls.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/tls_parts.h"

static bool fail(struct stls_error *error, const char *what, const char *where, const char *why) {
  return stls_error_set(error, STLS_ERROR_CERTIFICATE, "connect", "can't load %s from %s: %s", what,
                        where, why);
}

static bool load_system(struct stls_tls_trust *trust, struct stls_error *error) {
  int count = gnutls_certificate_set_x509_system_trust(trust->credentials);
  if (count > 0) return true;
  fail(error, "certificate authorities", "the system's store",
       count < 0 ? gnutls_strerror(count) : "it is empty");
  stls_error_hint(error,
                  "install the system's CA certificates (Debian: ca-certificates) or give ca_file");
  return false;
}

static bool load_file(struct stls_tls_trust *trust, const char *ca_file, struct stls_error *error) {
  int count;
  if (access(ca_file, R_OK) != 0)
    return fail(error, "certificate authorities", ca_file, strerror(errno));
  count = gnutls_certificate_set_x509_trust_file(trust->credentials, ca_file, GNUTLS_X509_FMT_PEM);
  if (count > 0) return true;
  return fail(error, "certificate authorities", ca_file,
              count < 0 ? gnutls_strerror(count) : "it has none");
}

static bool load_path(struct stls_tls_trust *trust, const char *ca_path, struct stls_error *error) {
  int count =
      gnutls_certificate_set_x509_trust_dir(trust->credentials, ca_path, GNUTLS_X509_FMT_PEM);
  if (count > 0) return true;
  return fail(error, "certificate authorities", ca_path,
              count < 0 ? gnutls_strerror(count) : "it has none");
}

static bool load_identity(struct stls_tls_trust *trust, const char *cert, const char *key,
                          struct stls_error *error) {
  int status;
  if (access(cert, R_OK) != 0) return fail(error, "the client certificate", cert, strerror(errno));
  if (access(key, R_OK) != 0) return fail(error, "the client key", key, strerror(errno));
  status = gnutls_certificate_set_x509_key_file(trust->credentials, cert, key, GNUTLS_X509_FMT_PEM);
  if (status >= 0) return true;
  return fail(error, "the client certificate and key", cert, gnutls_strerror(status));
}

static bool load(struct stls_tls_trust *trust, const char *ca_file, const char *ca_path,
                 const char *cert, const char *key, struct stls_error *error) {
  if (ca_file && !load_file(trust, ca_file, error)) return false;
  if (ca_path && !load_path(trust, ca_path, error)) return false;
  if (!ca_file && !ca_path && !load_system(trust, error)) return false;
  return !cert || !key || load_identity(trust, cert, key, error);
}

struct stls_tls_trust *stls_tls_trust_new(const char *ca_file, const char *ca_path,
                                          const char *client_cert, const char *client_key,
                                          struct stls_error *error) {
  struct stls_tls_trust *trust = calloc(1, sizeof *trust);
  if (!trust || gnutls_certificate_allocate_credentials(&trust->credentials) < 0) {
    free(trust);
    stls_error_set(error, STLS_ERROR_MEMORY, "connect", "not enough memory");
    return NULL;
  }
  atomic_store(&trust->owners, 1);
  if (load(trust, ca_file, ca_path, client_cert, client_key, error)) return trust;
  stls_tls_trust_unref(trust);
  return NULL;
}

struct stls_tls_trust *stls_tls_trust_ref(struct stls_tls_trust *trust) {
  atomic_fetch_add(&trust->owners, 1);
  return trust;
}

void stls_tls_trust_unref(struct stls_tls_trust *trust) {
  if (!trust || atomic_fetch_sub(&trust->owners, 1) > 1) return;
  gnutls_certificate_free_credentials(trust->credentials);
  free(trust);
}
