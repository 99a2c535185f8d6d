/* mail/sasl_oauth.c - see sasl_oauth.h. */
#include "mail/sasl_oauth.h"

#include <stdio.h>
#include <stdlib.h>

#define ERROR_KEPT 500 /* of the server's report, bytes */

struct stls_oauth {
  bool xoauth2;
  struct stls_buffer message;
  char error[ERROR_KEPT + 1];
};

/* RFC 5801 4, which RFC 7628 3.1 uses: in a gs2 saslname, "," is =2C and "=" is =3D. */
static void append_saslname(struct stls_buffer *out, const char *name) {
  for (; *name; name++) {
    if (*name == ',') stls_buffer_append_text(out, "=2C");
    else if (*name == '=') stls_buffer_append_text(out, "=3D");
    else stls_buffer_append_char(out, *name);
  }
}

/* RFC 7628 3.1: gs2-header ^A "host=..." ^A "port=..." ^A "auth=Bearer ..." ^A ^A */
static void write_oauthbearer(struct stls_buffer *out, const struct stls_sasl_identity *identity) {
  stls_buffer_append_text(out, "n,");
  if (identity->user) {
    stls_buffer_append_text(out, "a=");
    append_saslname(out, identity->user);
  }
  stls_buffer_append_text(out, ",\001host=");
  stls_buffer_append_text(out, identity->host);
  stls_buffer_append_text(out, "\001port=");
  stls_buffer_append_number(out, identity->port);
  stls_buffer_append_text(out, "\001");
}

struct stls_oauth *stls_oauth_new(bool xoauth2, const struct stls_sasl_identity *identity,
                                  const struct stls_secret *token) {
  struct stls_oauth *oauth = calloc(1, sizeof *oauth);
  struct stls_buffer *message;
  if (!oauth) return NULL;
  oauth->xoauth2 = xoauth2;
  message = &oauth->message;
  stls_buffer_init(message, 0);
  message->wipes = true;
  if (xoauth2) {
    stls_buffer_append_text(message, "user=");
    stls_buffer_append_text(message, identity->user ? identity->user : "");
    stls_buffer_append_text(message, "\001");
  } else {
    write_oauthbearer(message, identity);
  }
  stls_buffer_append_text(message, "auth=Bearer ");
  stls_buffer_append(message, token->text, token->len);
  if (stls_buffer_append_text(message, "\001\001")) return oauth;
  stls_oauth_free(oauth);
  return NULL;
}

void stls_oauth_free(struct stls_oauth *oauth) {
  if (!oauth) return;
  stls_buffer_free(&oauth->message);
  free(oauth);
}

bool stls_oauth_first(struct stls_oauth *oauth, struct stls_buffer *answer) {
  return stls_base64_encode(stls_buffer_slice(&oauth->message), answer);
}

bool stls_oauth_step(struct stls_oauth *oauth, struct stls_slice challenge,
                     struct stls_buffer *answer) {
  snprintf(oauth->error, sizeof oauth->error, "%.*s",
           (int)(challenge.len < ERROR_KEPT ? challenge.len : ERROR_KEPT), challenge.ptr);
  if (oauth->xoauth2) return true;                          /* an empty line */
  return stls_base64_encode(stls_slice("\001", 1), answer); /* RFC 7628 3.2.3 */
}

const char *stls_oauth_error(const struct stls_oauth *oauth) {
  return oauth->error;
}
