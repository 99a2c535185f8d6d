/*
 * mail/sasl_oauth.h - OAUTHBEARER (RFC 7628) and XOAUTH2, from a token.
 * Floor 1, mail wing: may rely on base/ and mail/sasl.h only.
 */
#ifndef STLS_MAIL_SASL_OAUTH_H
#define STLS_MAIL_SASL_OAUTH_H

#include "mail/sasl.h"

struct stls_oauth;

/* Copies what it needs; NULL when out of memory. `xoauth2`: the older form that Google began. */
struct stls_oauth *stls_oauth_new(bool xoauth2, const struct stls_sasl_identity *identity,
                                  const struct stls_secret *token);
void stls_oauth_free(struct stls_oauth *oauth);

/* Appends the one message that the client has to say, in base64. */
bool stls_oauth_first(struct stls_oauth *oauth, struct stls_buffer *answer);

/*
 * A challenge is an error report in JSON. It is kept, and answered so that the
 * server goes on to refuse: servers wait for that, and clients that don't hang.
 */
bool stls_oauth_step(struct stls_oauth *oauth, struct stls_slice challenge,
                     struct stls_buffer *answer);

/* The error report, or "". */
const char *stls_oauth_error(const struct stls_oauth *oauth);

#endif
