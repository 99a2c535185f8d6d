/*
 * mail/sasl.c - see sasl.h. The only file that includes gsasl.h.
 *
 * GNU SASL asks for what it needs through a callback; the answers stand in
 * struct stls_sasl. It takes the presence of channel binding data as the wish to
 * bind, so that is given for -PLUS mechanisms only.
 */
#include "mail/sasl.h"

#include <gsasl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mail/sasl_oauth.h"

const struct stls_mechanism stls_mechanisms[] = {
    /* name, credential, binds, weak, by name only, holds first */
    {"SCRAM-SHA-256-PLUS", STLS_CREDENTIAL_PASSWORD, true, false, false, false},
    {"SCRAM-SHA-1-PLUS", STLS_CREDENTIAL_PASSWORD, true, false, false, false},
    {"SCRAM-SHA-256", STLS_CREDENTIAL_PASSWORD, false, false, false, false},
    {"SCRAM-SHA-1", STLS_CREDENTIAL_PASSWORD, false, false, false, false},
    {"OAUTHBEARER", STLS_CREDENTIAL_TOKEN, false, false, false, false},
    {"XOAUTH2", STLS_CREDENTIAL_TOKEN, false, false, false, false},
    {"PLAIN", STLS_CREDENTIAL_PASSWORD, false, false, false, false},
    {"EXTERNAL", STLS_CREDENTIAL_NONE, false, false, false, false},
    {"CRAM-MD5", STLS_CREDENTIAL_PASSWORD, false, true, false, false},
    {"LOGIN", STLS_CREDENTIAL_PASSWORD, false, true, false, true},
    {"ANONYMOUS", STLS_CREDENTIAL_NONE, false, true, true, false},
    {NULL, STLS_CREDENTIAL_NONE, false, false, false, false}};

/* A SCRAM server may ask for at most this many rounds of hashing: some seconds (RFC 7677 4 wants
   at least 4096, which the weakest still in use have). */
#define SCRAM_ITERATIONS_MAX 1000000
#define SCRAM_ITERATIONS_MIN 4096

struct stls_sasl {
  const struct stls_mechanism *mechanism;
  const struct stls_sasl_identity *identity; /* borrowed, during calls only */
  struct stls_secret credential;
  struct stls_secret user, authzid; /* copies: the library asks late */
  struct stls_buffer binding;       /* base64, NUL-terminated */
  const char *binding_type;
  Gsasl *library;
  Gsasl_session *session;
  struct stls_oauth *oauth; /* in place of the library's session */
  bool complete;
  const char *failure;
  char server_error[100]; /* "e=invalid-proof", or "" */
};

const struct stls_mechanism *stls_mechanism_named(struct stls_slice name) {
  const struct stls_mechanism *mechanism;
  for (mechanism = stls_mechanisms; mechanism->name; mechanism++) {
    if (stls_slice_is(name, mechanism->name)) return mechanism;
  }
  return NULL;
}

const struct stls_mechanism *stls_mechanism_unbound(const struct stls_mechanism *mechanism) {
  if (!mechanism->binds) return NULL;
  return stls_mechanism_named(
      stls_slice(mechanism->name, strlen(mechanism->name) - strlen("-PLUS")));
}

/* {====== What the library asks for ====== */

/* Answers one property; false when we have nothing to say to it. */
static bool answer_property(const struct stls_sasl *sasl, Gsasl_session *session,
                            Gsasl_property property) {
  const char *value = NULL;
  switch (property) {
    case GSASL_AUTHID: value = sasl->user.text; break;
    case GSASL_AUTHZID: value = sasl->authzid.text; break;
    case GSASL_PASSWORD: value = sasl->credential.text; break;
    case GSASL_ANONYMOUS_TOKEN: value = sasl->user.text ? sasl->user.text : "anonymous"; break;
    case GSASL_CB_TLS_EXPORTER:
      if (sasl->binding_type && strcmp(sasl->binding_type, "tls-exporter") == 0)
        value = sasl->binding.data;
      break;
    case GSASL_CB_TLS_UNIQUE:
      if (sasl->binding_type && strcmp(sasl->binding_type, "tls-unique") == 0)
        value = sasl->binding.data;
      break;
    default: break;
  }
  return value && gsasl_property_set(session, property, value) == GSASL_OK;
}

static int on_property(Gsasl *library, Gsasl_session *session, Gsasl_property property) {
  const struct stls_sasl *sasl = gsasl_callback_hook_get(library);
  return answer_property(sasl, session, property) ? GSASL_OK : GSASL_NO_CALLBACK;
}

/* }====== */

/* {====== Life ====== */

static bool copy_identity(struct stls_sasl *sasl, const struct stls_sasl_identity *identity,
                          const struct stls_secret *credential) {
  bool copied = stls_secret_set(&sasl->credential, stls_slice(credential->text, credential->len));
  if (identity->user)
    copied = copied && stls_secret_set(&sasl->user, stls_slice_of(identity->user));
  if (identity->authzid)
    copied = copied && stls_secret_set(&sasl->authzid, stls_slice_of(identity->authzid));
  if (identity->binding_type) {
    sasl->binding_type = identity->binding_type;
    copied = copied && stls_base64_encode(identity->binding, &sasl->binding) &&
             stls_buffer_append_char(&sasl->binding, '\0');
  }
  return copied;
}

static bool begin_library(struct stls_sasl *sasl) {
  if (gsasl_init(&sasl->library) != GSASL_OK) return false;
  gsasl_callback_set(sasl->library, on_property);
  gsasl_callback_hook_set(sasl->library, sasl);
  return gsasl_client_start(sasl->library, sasl->mechanism->name, &sasl->session) == GSASL_OK;
}

struct stls_sasl *stls_sasl_new(const struct stls_mechanism *mechanism,
                                const struct stls_sasl_identity *identity,
                                const struct stls_secret *credential) {
  struct stls_sasl *sasl = calloc(1, sizeof *sasl);
  bool made;
  if (!sasl) return NULL;
  sasl->mechanism = mechanism;
  sasl->failure = "";
  stls_buffer_init(&sasl->binding, 0);
  made = copy_identity(sasl, identity, credential);
  if (made && mechanism->credential == STLS_CREDENTIAL_TOKEN) {
    sasl->oauth = stls_oauth_new(strcmp(mechanism->name, "XOAUTH2") == 0, identity, credential);
    made = sasl->oauth != NULL;
  } else {
    made = made && begin_library(sasl);
  }
  if (made) return sasl;
  stls_sasl_free(sasl);
  return NULL;
}

void stls_sasl_free(struct stls_sasl *sasl) {
  if (!sasl) return;
  if (sasl->session) gsasl_finish(sasl->session);
  if (sasl->library) gsasl_done(sasl->library);
  stls_oauth_free(sasl->oauth);
  stls_secret_free(&sasl->credential);
  stls_secret_free(&sasl->user);
  stls_secret_free(&sasl->authzid);
  stls_buffer_free(&sasl->binding);
  free(sasl);
}

/* }====== */

/* {====== The exchange ====== */

static bool is_scram(const struct stls_sasl *sasl) {
  return strncmp(sasl->mechanism->name, "SCRAM", 5) == 0;
}

static bool fail(struct stls_sasl *sasl, const char *why) {
  sasl->failure = why;
  return false;
}

/*
 * RFC 5802 5.1: "r=...,s=...,i=4096". Too few rounds make an eavesdropper's
 * guessing cheap; too many are an attack on our time.
 */
static bool accepts_iterations(struct stls_sasl *sasl, struct stls_slice challenge) {
  size_t at;
  for (at = 0; at + 3 < challenge.len; at++) {
    struct stls_slice digits;
    uint64_t iterations;
    if (memcmp(challenge.ptr + at, ",i=", 3) != 0) continue;
    digits = stls_slice_from(challenge, at + 3);
    digits.len = strspn(digits.ptr, "0123456789"); /* the challenge is NUL-terminated */
    if (!stls_slice_number(digits, SCRAM_ITERATIONS_MAX, &iterations)) {
      return fail(sasl, "the server asks for too many rounds of SCRAM hashing");
    }
    if (iterations < SCRAM_ITERATIONS_MIN) {
      return fail(sasl, "the server asks for fewer rounds of SCRAM hashing than is safe (4096)");
    }
    return true;
  }
  return true; /* the last message has none; the library checks what must be there */
}

/* RFC 5802 7: "e=invalid-proof" in the signature's place. An empty answer; then comes the no. */
static bool takes_server_error(struct stls_sasl *sasl, struct stls_slice challenge) {
  size_t most = sizeof sasl->server_error - 1;
  if (sasl->complete || !stls_slice_starts(challenge, "e=")) return false;
  snprintf(sasl->server_error, sizeof sasl->server_error, "%.*s",
           (int)(challenge.len < most ? challenge.len : most), challenge.ptr);
  return true;
}

static bool library_step(struct stls_sasl *sasl, struct stls_slice challenge,
                         struct stls_buffer *answer) {
  char *output = NULL;
  size_t len = 0;
  int status = gsasl_step(sasl->session, challenge.ptr, challenge.len, &output, &len);
  bool kept = true;
  if (status == GSASL_OK) sasl->complete = true;
  if (status != GSASL_OK && status != GSASL_NEEDS_MORE) return fail(sasl, gsasl_strerror(status));
  if (output) {
    kept = stls_base64_encode(stls_slice(output, len), answer);
    explicit_bzero(output, len);
    gsasl_free(output);
  }
  return kept;
}

bool stls_sasl_start(struct stls_sasl *sasl, struct stls_buffer *answer, bool *first_r) {
  *first_r = true;
  if (sasl->oauth) {
    sasl->complete = true;
    return stls_oauth_first(sasl->oauth, answer);
  }
  if (strcmp(sasl->mechanism->name, "CRAM-MD5") == 0) { /* RFC 2195 2: the server speaks first */
    *first_r = false;
    return true;
  }
  return library_step(sasl, stls_slice("", 0), answer);
}

bool stls_sasl_step(struct stls_sasl *sasl, struct stls_slice challenge,
                    struct stls_buffer *answer) {
  struct stls_buffer octets;
  bool went;
  stls_buffer_init(&octets, 0);
  went = stls_base64_decode(challenge, &octets) && stls_buffer_append_char(&octets, '\0');
  if (!went) {
    if (octets.failure == STLS_BUFFER_OK) fail(sasl, "the server's challenge is not base64");
  } else {
    struct stls_slice plain = stls_buffer_slice(&octets);
    plain.len--; /* the NUL */
    if (sasl->oauth) went = stls_oauth_step(sasl->oauth, plain, answer);
    else if (is_scram(sasl) && takes_server_error(sasl, plain)) went = true;
    else if (is_scram(sasl) && !accepts_iterations(sasl, plain)) went = false;
    else if (sasl->complete) went = plain.len == 0; /* nothing more to say: an empty line */
    else went = library_step(sasl, plain, answer);
  }
  stls_buffer_free(&octets);
  return went;
}

bool stls_sasl_complete(const struct stls_sasl *sasl) {
  return sasl->complete;
}

const char *stls_sasl_failure(const struct stls_sasl *sasl) {
  return sasl->failure;
}

const char *stls_sasl_server_error(const struct stls_sasl *sasl) {
  return sasl->oauth ? stls_oauth_error(sasl->oauth) : sasl->server_error;
}

/* }====== */

/* {====== Base64 ====== */

static bool take_result(int status, char *output, size_t len, struct stls_buffer *out) {
  bool kept = status == GSASL_OK && stls_buffer_append(out, output, len);
  if (status == GSASL_OK) {
    explicit_bzero(output, len);
    gsasl_free(output);
  }
  return kept;
}

bool stls_base64_encode(struct stls_slice data, struct stls_buffer *out) {
  char *output = NULL;
  size_t len = 0;
  int status;
  if (data.len == 0) return true;
  status = gsasl_base64_to(data.ptr, data.len, &output, &len);
  return take_result(status, output, len, out);
}

bool stls_base64_decode(struct stls_slice text, struct stls_buffer *out) {
  char *output = NULL;
  size_t len = 0;
  int status;
  if (text.len == 0) return true;
  status = gsasl_base64_from(text.ptr, text.len, &output, &len);
  return take_result(status, output, len, out);
}

/* }====== */
