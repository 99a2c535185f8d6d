/*
 * mail/sasl.h - authentication exchanges (RFC 4422), on GNU SASL.
 * Floor 1, mail wing: may rely on base/ only. sasl.c alone includes gsasl.h.
 *
 * OAUTHBEARER (RFC 7628) and XOAUTH2, which GNU SASL lacks, are in sasl_oauth.c.
 */
#ifndef STLS_MAIL_SASL_H
#define STLS_MAIL_SASL_H

#include "base/buffer.h"
#include "base/secret.h"

enum stls_binding_policy { STLS_BINDING_PREFER, STLS_BINDING_REQUIRE, STLS_BINDING_OFF };

/* What a mechanism needs from the caller. */
enum stls_credential { STLS_CREDENTIAL_NONE, STLS_CREDENTIAL_PASSWORD, STLS_CREDENTIAL_TOKEN };

struct stls_mechanism {
  const char *name;
  enum stls_credential credential;
  bool binds;        /* the credential is bound to the TLS channel (-PLUS) */
  bool weak;         /* chosen only when nothing better is offered */
  bool by_name_only; /* chosen only when the caller names it */
  bool holds_first;  /* has something to say first, but by custom waits to be asked */
};

/* All mechanisms, strongest first; ends with a NULL name. */
extern const struct stls_mechanism stls_mechanisms[];

/* The mechanism with this name, case ignored, or NULL. */
const struct stls_mechanism *stls_mechanism_named(struct stls_slice name);

/* The same hash without channel binding: SCRAM-SHA-256 for -PLUS. NULL when it binds nothing. */
const struct stls_mechanism *stls_mechanism_unbound(const struct stls_mechanism *mechanism);

/* Who authenticates, to whom, over what. Everything is borrowed. */
struct stls_sasl_identity {
  const char *user;    /* authentication identity, or NULL */
  const char *authzid; /* authorization identity, or NULL */
  const char *service; /* "smtp", "imap", "pop" */
  const char *host;
  unsigned port;
  const char *binding_type;  /* "tls-exporter", "tls-unique", "tls-server-end-point", or NULL */
  struct stls_slice binding; /* its raw octets */
};

struct stls_sasl;

/* Begins an exchange. Copies the credential. NULL when memory runs out or the library refuses. */
struct stls_sasl *stls_sasl_new(const struct stls_mechanism *mechanism,
                                const struct stls_sasl_identity *identity,
                                const struct stls_secret *credential);

/* Wipes and frees; NULL is harmless. */
void stls_sasl_free(struct stls_sasl *sasl);

/*
 * Appends the client's first message in base64. `*first_r` tells whether the
 * mechanism has one: with none, the server speaks first. False on failure.
 */
bool stls_sasl_start(struct stls_sasl *sasl, struct stls_buffer *answer, bool *first_r);

/* Takes a challenge (base64) and appends the answer (base64). False on failure. */
bool stls_sasl_step(struct stls_sasl *sasl, struct stls_slice challenge,
                    struct stls_buffer *answer);

/* Whether the client's side is satisfied: with SCRAM, the server's signature was right. */
bool stls_sasl_complete(const struct stls_sasl *sasl);

/* Why it failed, for a person; "" when the library said nothing. */
const char *stls_sasl_failure(const struct stls_sasl *sasl);

/* What the server put into its error challenge (a token's: JSON; SCRAM's: "e=..."), or "". */
const char *stls_sasl_server_error(const struct stls_sasl *sasl);

/* Appends `data` in base64, or the octets of base64 `text`; false when malformed or out of memory.
 */
bool stls_base64_encode(struct stls_slice data, struct stls_buffer *out);
bool stls_base64_decode(struct stls_slice text, struct stls_buffer *out);

#endif
