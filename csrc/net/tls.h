/*
 * net/tls.h - TLS on a non-blocking descriptor.
 * Floor 1, net wing: may rely on base/ and net/ only. tls*.c alone include GnuTLS headers.
 *
 * TLS 1.2 and 1.3 (RFC 8997, RFC 9325 3.1.1). The certificate and its name are
 * verified during the handshake (RFC 7817, RFC 9525), before anything else is sent.
 */
#ifndef STLS_NET_TLS_H
#define STLS_NET_TLS_H

#include "base/buffer.h"
#include "base/error.h"
#include "net/io.h"

/* Whom to trust and who we are: loading it is slow, so several connections may share one. */
struct stls_tls_trust;

/*
 * Loads authorities from `ca_file` (PEM) and `ca_path` (a directory of PEM files), or
 * with neither the system's; and our certificate and key (PEM), when both are given.
 * Returns NULL with an error of kind `certificate` (or memory) when that fails.
 */
struct stls_tls_trust *stls_tls_trust_new(const char *ca_file, const char *ca_path,
                                          const char *client_cert, const char *client_key,
                                          struct stls_error *error);

/* One more, and one less owner; the last one frees it. NULL is harmless. Any thread may. */
struct stls_tls_trust *stls_tls_trust_ref(struct stls_tls_trust *trust);
void stls_tls_trust_unref(struct stls_tls_trust *trust);

/* Whether `priority` is a GnuTLS priority string; else `*at_r` is where it goes wrong. */
bool stls_tls_priority_is_valid(const char *priority, const char **at_r);

struct stls_tls_settings {
  const char *name; /* whom we expect: A-labels, or an IP address */
  bool is_address;
  const char *priority; /* NULL: TLS 1.2 and 1.3 with GnuTLS's normal choice */
  const char *alpn;     /* protocol id to offer (RFC 7301), or NULL */
  bool no_verify;
  bool upgraded; /* the channel was in the clear before: for the words of an error */
};

struct stls_tls;

/* A session on `fd`, which stays the caller's. NULL: the error is set. */
struct stls_tls *stls_tls_new(int fd, struct stls_tls_trust *trust,
                              const struct stls_tls_settings *settings, struct stls_error *error);

/* Frees it without a word to the peer. NULL is harmless. */
void stls_tls_free(struct stls_tls *tls);

/* Goes on with the handshake. FAILED: kind `tls` or `certificate`. */
enum stls_io stls_tls_handshake(struct stls_tls *tls, struct stls_error *error);

/* At most `size` bytes into `data`; `during` goes into the error. */
enum stls_io stls_tls_receive(struct stls_tls *tls, char *data, size_t size, size_t *received_r,
                              const char *during, struct stls_error *error);

/* Some of the bytes; after WANT_*, call again with the same ones. */
enum stls_io stls_tls_send(struct stls_tls *tls, struct stls_slice data, size_t *sent_r,
                           const char *during, struct stls_error *error);

/* Whether decrypted bytes wait that the descriptor won't tell of. */
bool stls_tls_has_pending(const struct stls_tls *tls);

/* Tries to say close-notify, without waiting. */
void stls_tls_goodbye(struct stls_tls *tls);

/* Whether the certificate was found good. */
bool stls_tls_is_verified(const struct stls_tls *tls);

/* What the session is, for people. Strings are borrowed from the session or static; may be NULL. */
struct stls_tls_report {
  const char *version;    /* "TLS1.3" */
  const char *cipher;     /* "TLS_AES_256_GCM_SHA384" */
  const char *group;      /* of the key exchange: "X25519" */
  const char *alpn;       /* what the server took; in `alpn_text` */
  const char *unverified; /* why the certificate is not verified, where that is allowed */
  char alpn_text[32];
  char cipher_text[64];
};

void stls_tls_describe(struct stls_tls *tls, struct stls_tls_report *report_r);

/* The peer's certificate, for people and for pinning. */
struct stls_certificate {
  struct stls_buffer subject; /* RFC 4514, NUL-terminated like all of these */
  struct stls_buffer issuer;
  struct stls_buffer names; /* DNS names and addresses of the SAN, each NUL-terminated */
  struct stls_buffer pem;
  double not_before, not_after; /* seconds since the epoch */
  unsigned char sha256[32];     /* of the DER encoding */
};

/* Fills it from the session. False when there is none, or no memory. Free in either case. */
bool stls_tls_certificate(struct stls_tls *tls, struct stls_certificate *certificate_r);
void stls_certificate_free(struct stls_certificate *certificate);

/*
 * The strongest channel binding of the session: tls-exporter on TLS 1.3 (RFC 9266),
 * tls-unique on 1.2 with extended master secret (RFC 5929, RFC 7627). Appends the
 * octets and returns the type's name, or NULL when there is none.
 */
const char *stls_tls_binding(struct stls_tls *tls, struct stls_buffer *octets);

#endif
