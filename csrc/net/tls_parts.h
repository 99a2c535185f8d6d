/*
 * net/tls_parts.h - the inside of a TLS session, for tls.c, tls_verify.c and tls_report.c.
 * Floor 1, net wing: may rely on base/ and net/ only. Includes GnuTLS.
 */
#ifndef STLS_NET_TLS_PARTS_H
#define STLS_NET_TLS_PARTS_H

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdatomic.h>

#include "net/hostname.h"
#include "net/tls.h"

struct stls_tls_trust {
  atomic_int owners;
  gnutls_certificate_credentials_t credentials;
};

struct stls_tls {
  int fd;
  gnutls_session_t session;
  struct stls_tls_trust *trust;
  char name[STLS_HOSTNAME_SIZE]; /* whom we expect */
  bool is_address;
  bool no_verify;
  bool upgraded; /* the channel was in the clear before */
  bool heard;    /* the peer's first byte was seen */
  bool is_alien; /* it is not the beginning of TLS */
  bool verified;
  struct stls_error verdict; /* why the certificate is not good */
};

/* The handshake's verification callback: 0 to go on. */
int stls_tls_verify(gnutls_session_t session);

/* The peer's own certificate, imported; the caller deinits it. False when there is none. */
bool stls_tls_peer_certificate(gnutls_session_t session, gnutls_x509_crt_t *certificate_r);

/* A name of the subject alternative name extension. */
struct stls_tls_name {
  unsigned type; /* gnutls_x509_subject_alt_name_t */
  char text[1024];
  size_t size;
};

/* The next name that can be read: start with `*index` 0. False at the end. */
bool stls_tls_next_name(gnutls_x509_crt_t certificate, unsigned *index,
                        struct stls_tls_name *name_r);

#endif
