/*
 * mail/opening.c - the one way from the greeting to an authenticated session.
 * Floor 2, mail wing: may rely on base/ and mail/ only.
 *
 * greeting, capabilities, the upgrade, (a new dialogue) capabilities, authentication:
 * written once for all protocols, as the table at the end of this file. What a
 * protocol does differently stands in its struct stls_protocol.
 *
 * The rules that everything here serves (RFC 3207 4.2 and 6, RFC 9051 6.2.1, RFC 2595 4):
 *  - where encryption is required, it comes first or the session ends;
 *  - of what is said in the clear, only "is the upgrade offered" is read;
 *  - the answer to the upgrade command must be the last thing heard in the clear;
 *  - credentials go out only on a channel that is encrypted and verified.
 *
 * With pinned capabilities nothing is waited for that the caller knows already: in the
 * clear the upgrade is asked for before the greeting is there, inside of TLS nobody asks
 * for capabilities. The rules above hold all the same.
 */
#include <stdlib.h>
#include <string.h>

#include "mail/protocol.h"

enum opening_state {
  GREETING,
  CAPABILITIES,
  HELO,   /* SMTP without ESMTP, where clear text is allowed */
  DECIDE, /* what to do with the capabilities */
  UTF8,   /* POP3, where the caller wants it (RFC 6856 2.1: before authentication) */
  UPGRADE,
  HANDSHAKE, /* this dialogue is over */
  LOGIN,     /* a SASL exchange */
  OWN_LOGIN, /* LOGIN, USER/PASS */
  AUTHENTICATED,
  AGAIN, /* capabilities after authentication */
  READY
};

static const char *const state_names[] = {
    "greeting",  "capabilities", "capabilities", "capabilities", "utf8",         "starttls",
    "handshake", "auth",         "auth",         "auth",         "capabilities", "ready"};

void stls_login_end(struct stls_login *login) {
  stls_sasl_free(login->sasl);
  login->sasl = NULL;
  stls_secret_free(&login->credential);
  stls_buffer_free(&login->held);
  stls_buffer_free(&login->sent);
  login->started = false;
  login->holds = false;
  login->first_half = false;
}

void stls_opening_count(struct stls_dialogue *d, size_t bytes) {
  if (d->table != &stls_opening_table) return;
  d->heard += bytes;
  if (d->heard <= d->config->limits.greeting) return;
  stls_dialogue_fail(d, STLS_ERROR_LIMIT,
                     "the server said more than the limit of %zu bytes before the session "
                     "was open",
                     d->config->limits.greeting);
}

static bool contains(struct stls_slice text, struct stls_slice part) {
  return part.len >= 4 && memmem(text.ptr, text.len, part.ptr, part.len) != NULL;
}

/* A challenge is base64; what it says may be the credential all the same. */
static bool contains_in_base64(struct stls_slice line, struct stls_slice part) {
  const char *blank;
  struct stls_buffer octets;
  bool found;
  line = stls_slice_trim(line);
  blank = memrchr(line.ptr, ' ', line.len);
  if (blank) line = stls_slice_from(line, (size_t)(blank - line.ptr) + 1);
  stls_buffer_init(&octets, 0);
  octets.wipes = true;
  found = stls_base64_decode(line, &octets) && contains(stls_buffer_slice(&octets), part);
  stls_buffer_free(&octets);
  return found;
}

bool stls_login_repeats(const struct stls_dialogue *d, struct stls_slice line) {
  const struct stls_login *login = &d->login;
  struct stls_slice credential = stls_slice(login->credential.text, login->credential.len);
  if (!login->started) return false;
  return contains(line, credential) || contains(line, stls_buffer_slice(&login->sent)) ||
         contains_in_base64(line, credential);
}

/* {====== Guards ====== */

static bool may_upgrade(const struct stls_dialogue *d) {
  enum stls_tls_mode tls = d->config->tls;
  if (d->facts.encrypted || d->upgrade_refused) return false;
  return tls == STLS_TLS_STARTTLS || tls == STLS_TLS_OPPORTUNISTIC;
}

/* Encryption is wanted, and this channel has none. */
static bool must_upgrade(const struct stls_dialogue *d) {
  return !d->facts.encrypted && d->config->tls == STLS_TLS_STARTTLS;
}

static bool is_offered(const struct stls_dialogue *d) {
  return stls_capabilities_find(&d->capabilities, d->config->protocol->upgrade_verb, NULL);
}

static bool may_upgrade_as_offered(const struct stls_dialogue *d) {
  return may_upgrade(d) && is_offered(d);
}

/* The upgrade is sent right after the greeting: offered there, or tried as it is required. */
static bool may_upgrade_at_once(const struct stls_dialogue *d) {
  if (d->config->protocol->upgrade_unasked) return must_upgrade(d);
  return may_upgrade_as_offered(d);
}

/* The upgrade was asked for before the greeting was there. */
static bool has_asked_ahead(const struct stls_dialogue *d) {
  return d->config->pinned && must_upgrade(d);
}

static bool knows_capabilities(const struct stls_dialogue *d) {
  return d->capabilities.known && !may_upgrade(d);
}

static bool may_do_without_esmtp(const struct stls_dialogue *d) {
  return d->config->protocol == &stls_smtp && !must_upgrade(d);
}

static bool may_lack_capability_command(const struct stls_dialogue *d) {
  return d->config->protocol == &stls_pop3; /* CAPA came with RFC 2449 */
}

static bool has_premature_answer(const struct stls_dialogue *d) {
  return stls_buffer_length(&d->output) > 0;
}

static bool has_trailing_bytes(const struct stls_dialogue *d) {
  return stls_buffer_length(&d->input) > 0;
}

static bool must_authenticate(const struct stls_dialogue *d) {
  const struct stls_dialogue_config *config = d->config;
  bool by_certificate = config->has_certificate && config->user;
  return config->has_password || config->has_token || config->mechanisms || by_certificate;
}

static bool must_not_authenticate(const struct stls_dialogue *d) {
  bool trusted = d->facts.encrypted && d->facts.verified;
  return must_authenticate(d) && !trusted && !d->config->insecure_auth;
}

static bool must_enable_utf8(const struct stls_dialogue *d) {
  return d->config->utf8 && !d->utf8;
}

/* All is said that we had to say, and with SCRAM the server has proven itself. */
static bool is_satisfied(const struct stls_dialogue *d) {
  return !d->login.holds && stls_sasl_complete(d->login.sasl);
}

static bool awaits_second_half(const struct stls_dialogue *d) {
  return d->login.first_half;
}

/* Whether the caller lets this mechanism be used at all. */
static bool is_allowed(const struct stls_dialogue *d, const char *name) {
  struct stls_slice names = stls_slice_of(d->config->mechanisms), word;
  while (stls_slice_word(&names, &word)) {
    if (stls_slice_is(word, name)) return true;
  }
  return d->config->mechanisms == NULL;
}

/* -PLUS was refused: one more try without it is allowed, with the same hash. */
static bool may_unbind(const struct stls_dialogue *d) {
  const struct stls_login *login = &d->login;
  const char *unbound;
  if (!login->mechanism->binds || d->config->binding == STLS_BINDING_REQUIRE) return false;
  if (!d->facts.verified || d->error.kind != STLS_ERROR_NONE) return false;
  unbound = stls_mechanism_unbound(login->mechanism)->name;
  return is_allowed(d, unbound) && d->config->protocol->offers_mechanism(d, unbound);
}

static bool must_ask_again(const struct stls_dialogue *d) {
  return !d->config->pinned && d->config->protocol->retells && !d->login.retold;
}

/* }====== */

/* {====== Greeting, capabilities, upgrade ====== */

static void ask_capabilities(struct stls_dialogue *d) {
  stls_capabilities_clear(&d->capabilities);
  d->config->protocol->ask_capabilities(d);
}

static void learn_capabilities(struct stls_dialogue *d) {
  d->config->protocol->learn_capabilities(d);
}

static void learn_nothing(struct stls_dialogue *d) {
  d->capabilities.known = true;
}

static void send_helo(struct stls_dialogue *d) {
  struct stls_arg args[] = {{STLS_ARG_ATOM, stls_slice_of("HELO")},
                            {STLS_ARG_ATOM, stls_slice_of(d->config->client_name)}};
  stls_dialogue_send(d, args, 2);
}

static void send_upgrade(struct stls_dialogue *d) {
  /* What came before the command is sent cannot be its answer (RFC 3207 4.2). */
  if (has_trailing_bytes(d)) {
    d->state = UPGRADE;
    stls_dialogue_fail(d, STLS_ERROR_INJECTION,
                       "the server sent more in the clear than it was asked for");
    return;
  }
  stls_dialogue_send_word(d, d->config->protocol->upgrade_verb);
}

static void want_handshake(struct stls_dialogue *d) {
  d->want = STLS_NEED_UPGRADE;
}

static void fail_greeting(struct stls_dialogue *d) {
  stls_dialogue_fail_reply(d, STLS_ERROR_REJECTED, "the server refuses the session");
}

static void fail_preauth(struct stls_dialogue *d) {
  stls_dialogue_fail(d, STLS_ERROR_DOWNGRADE,
                     "the server says in the clear that the session is authenticated already "
                     "(PREAUTH), which rules STARTTLS out");
  stls_error_hint(&d->error,
                  "somebody between here and the server may be hiding STARTTLS; "
                  "tls = \"implicit\" on port %u can't be stripped",
                  d->config->protocol->port_implicit);
}

static void fail_capabilities(struct stls_dialogue *d) {
  stls_dialogue_fail_reply(d, STLS_ERROR_REJECTED, "the server does not tell its capabilities");
}

static void hint_at_stripping(struct stls_dialogue *d) {
  stls_error_hint(&d->error,
                  "try tls = \"implicit\" on port %u; a server that is known to offer it "
                  "may have it hidden by somebody in between",
                  d->config->protocol->port_implicit);
}

static void fail_stripped(struct stls_dialogue *d) {
  d->state = UPGRADE;
  stls_dialogue_fail(d, STLS_ERROR_DOWNGRADE,
                     "the server does not offer %s, and encryption is required",
                     d->config->protocol->upgrade_verb);
  hint_at_stripping(d);
}

static void fail_untold(struct stls_dialogue *d) {
  stls_dialogue_fail_reply(
      d, STLS_ERROR_DOWNGRADE,
      "the server does not tell whether it offers %s, and encryption is required",
      d->config->protocol->upgrade_verb);
  hint_at_stripping(d);
}

static void fail_upgrade(struct stls_dialogue *d) {
  stls_dialogue_fail_reply(d, STLS_ERROR_DOWNGRADE,
                           "the server refuses %s, and encryption is required",
                           d->config->protocol->upgrade_verb);
}

static void fail_injection(struct stls_dialogue *d) {
  stls_dialogue_fail(d, STLS_ERROR_INJECTION,
                     "plain text arrived behind the answer to %s, where only TLS may follow",
                     d->config->protocol->upgrade_verb);
  stls_error_hint(&d->error, "somebody between here and the server may be injecting it");
}

static void fail_premature(struct stls_dialogue *d) {
  stls_dialogue_fail(d, STLS_ERROR_INJECTION,
                     "the answer to %s arrived before the command was sent",
                     d->config->protocol->upgrade_verb);
}

/* The server refused an upgrade that is not required: go on in the clear. */
static void forgo_upgrade(struct stls_dialogue *d) {
  d->upgrade_refused = true;
}

static void send_utf8(struct stls_dialogue *d) {
  d->state = UTF8;
  if (stls_capabilities_find(&d->capabilities, "UTF8", NULL)) {
    stls_dialogue_send_word(d, "UTF8");
  } else {
    stls_dialogue_fail(d, STLS_ERROR_UNSUPPORTED, "the server does not offer UTF8");
  }
}

static void note_utf8(struct stls_dialogue *d) {
  d->utf8 = true;
}

static void fail_utf8(struct stls_dialogue *d) {
  stls_dialogue_fail_reply(d, STLS_ERROR_REJECTED, "the server refuses UTF8");
}

/* }====== */

/* {====== Authentication ====== */

static void fail_untrusted(struct stls_dialogue *d) {
  d->state = LOGIN;
  if (d->facts.encrypted) {
    stls_dialogue_fail(d, STLS_ERROR_CERTIFICATE,
                       "no credential is sent: the server's certificate was not verified");
    stls_error_hint(&d->error, "name the certificate's authority with ca_file instead of switching "
                               "verification off, or accept the risk with insecure_auth = true");
  } else {
    stls_dialogue_fail(d, STLS_ERROR_DOWNGRADE,
                       "no credential is sent: the connection is not encrypted");
    stls_error_hint(&d->error, "use tls = \"starttls\" or tls = \"implicit\"");
  }
}

/* Whether we have what the mechanism needs, and the server offers it. */
static bool is_usable(const struct stls_dialogue *d, const struct stls_mechanism *mechanism) {
  const struct stls_dialogue_config *config = d->config;
  bool named = config->mechanisms != NULL;
  if (mechanism->by_name_only && !named) return false;
  if (mechanism->credential == STLS_CREDENTIAL_PASSWORD && !(config->has_password && config->user))
    return false;
  if (mechanism->credential == STLS_CREDENTIAL_TOKEN && !config->has_token) return false;
  if (mechanism->credential == STLS_CREDENTIAL_NONE && !named && !config->has_certificate)
    return false;
  if (config->binding == STLS_BINDING_REQUIRE && !mechanism->binds) return false;
  if (mechanism->binds && (config->binding == STLS_BINDING_OFF || !d->facts.binding_type))
    return false;
  return config->protocol->offers_mechanism(d, mechanism->name);
}

/* The caller's first usable mechanism. */
static const struct stls_mechanism *choose_named(const struct stls_dialogue *d) {
  struct stls_slice names = stls_slice_of(d->config->mechanisms), word;
  while (stls_slice_word(&names, &word)) {
    const struct stls_mechanism *mechanism = stls_mechanism_named(word);
    if (mechanism && is_usable(d, mechanism)) return mechanism;
  }
  return NULL;
}

/* The strongest usable mechanism, weak or not weak. */
static const struct stls_mechanism *choose_strongest(const struct stls_dialogue *d, bool weak) {
  const struct stls_mechanism *mechanism;
  for (mechanism = stls_mechanisms; mechanism->name; mechanism++) {
    if (mechanism->weak == weak && is_usable(d, mechanism)) return mechanism;
  }
  return NULL;
}

/* The login of the protocol's own that can be used, or NULL. */
static const char *choose_own_login(const struct stls_dialogue *d) {
  const struct stls_dialogue_config *config = d->config;
  const struct stls_protocol *protocol = config->protocol;
  const char *named = config->mechanisms ? protocol->named_login : NULL;
  if (!protocol->own_login || !config->has_password || !config->user) return NULL;
  if (config->binding == STLS_BINDING_REQUIRE) return NULL;
  if (named && is_allowed(d, named) && protocol->offers_named_login(d)) return named;
  return is_allowed(d, protocol->own_login) && protocol->offers_own_login(d) ? protocol->own_login
                                                                             : NULL;
}

static void fail_no_mechanism(struct stls_dialogue *d) {
  struct stls_buffer offered;
  const struct stls_mechanism *mechanism;
  stls_buffer_init(&offered, 0);
  for (mechanism = stls_mechanisms; mechanism->name; mechanism++) {
    if (!d->config->protocol->offers_mechanism(d, mechanism->name)) continue;
    stls_buffer_append_char(&offered, ' ');
    stls_buffer_append_text(&offered, mechanism->name);
  }
  stls_buffer_append_char(&offered, '\0');
  if (offered.failure == STLS_BUFFER_OK && stls_buffer_length(&offered) > 1) {
    stls_dialogue_fail(
        d, STLS_ERROR_AUTH, "no authentication mechanism fits: the server offers%s, and %s%s",
        stls_buffer_slice(&offered).ptr,
        d->config->mechanisms ? "the script allows "
                              : "none of these can be used with what the script gives",
        d->config->mechanisms ? d->config->mechanisms : "");
  } else {
    stls_dialogue_fail(d, STLS_ERROR_AUTH, "the server offers no authentication that we know");
  }
  if (d->config->binding == STLS_BINDING_REQUIRE) {
    stls_error_hint(&d->error, "channel_binding = \"require\" allows the -PLUS mechanisms only");
  }
  stls_buffer_free(&offered);
}

static void begin_sasl(struct stls_dialogue *d);

/* Asks the caller for the credential, or goes on at once where none is needed. */
static void begin_login(struct stls_dialogue *d, const struct stls_mechanism *mechanism) {
  d->state = LOGIN;
  d->login.mechanism = mechanism;
  /* RFC 9051 6.2.2: what is offered changes here; the answer may say how. */
  d->login.retold = false;
  if (mechanism && mechanism->credential == STLS_CREDENTIAL_NONE) begin_sasl(d);
  else d->want = STLS_NEED_CREDENTIAL;
}

static void choose_login(struct stls_dialogue *d) {
  const struct stls_mechanism *mechanism =
      d->config->mechanisms ? choose_named(d) : choose_strongest(d, false);
  const char *own = mechanism ? NULL : choose_own_login(d);
  d->state = LOGIN;
  d->login.own = own;
  if (!mechanism && !own && !d->config->mechanisms) mechanism = choose_strongest(d, true);
  if (!mechanism && !own) fail_no_mechanism(d);
  else begin_login(d, mechanism);
}

static void remember_sent(struct stls_dialogue *d, struct stls_slice secret) {
  stls_buffer_clear(&d->login.sent);
  stls_buffer_append_slice(&d->login.sent, secret);
}

/* Sends AUTH or AUTHENTICATE, with the initial response where that is allowed and fits. */
static void send_auth(struct stls_dialogue *d, bool has_first) {
  const struct stls_protocol *protocol = d->config->protocol;
  struct stls_slice first = stls_buffer_slice(&d->login.held);
  const char *verb = protocol == &stls_imap ? "AUTHENTICATE" : "AUTH";
  struct stls_arg args[] = {{STLS_ARG_ATOM, stls_slice_of(verb)},
                            {STLS_ARG_ATOM, stls_slice_of(d->login.mechanism->name)},
                            {STLS_ARG_SECRET, first}};
  bool fits = first.len + strlen(d->login.mechanism->name) + 32 < protocol->longest_auth;
  bool sends =
      has_first && fits && !d->login.mechanism->holds_first && protocol->takes_initial_response(d);
  if (sends && first.len == 0) args[2].value = stls_slice_of("="); /* RFC 4954 4, 4959 3, 5034 4 */
  d->login.holds = has_first && !sends;
  if (sends) remember_sent(d, args[2].value);
  stls_dialogue_send(d, args, sends ? 3 : 2);
}

/* Without a reason of its own, an exchange fails because memory ran out. */
static void fail_sasl(struct stls_dialogue *d) {
  const char *why = d->login.sasl ? stls_sasl_failure(d->login.sasl) : "";
  if (why[0] == '\0') {
    stls_dialogue_fail(d, STLS_ERROR_MEMORY, "not enough memory");
    return;
  }
  stls_dialogue_fail(d, STLS_ERROR_AUTH, "%s can't go on: %s", d->login.mechanism->name, why);
}

static void begin_sasl(struct stls_dialogue *d) {
  struct stls_login *login = &d->login;
  const struct stls_dialogue_config *config = d->config;
  struct stls_sasl_identity identity = {
      config->user,    config->authzid, config->protocol->sasl_service,
      config->host,    config->port,    d->facts.binding_type,
      d->facts.binding};
  bool has_first;
  if (!login->mechanism->binds) identity.binding_type = NULL;
  stls_sasl_free(login->sasl);
  login->started = true;
  stls_buffer_clear(&login->held);
  login->sasl = stls_sasl_new(login->mechanism, &identity, &login->credential);
  if (!login->sasl || !stls_sasl_start(login->sasl, &login->held, &has_first)) fail_sasl(d);
  else send_auth(d, has_first);
}

void stls_opening_credential(struct stls_dialogue *d) {
  if (d->login.mechanism) {
    begin_sasl(d);
    return;
  }
  d->login.started = true;
  d->state = OWN_LOGIN;
  d->config->protocol->send_own_login(d);
}

/* The line that answers a challenge: base64 alone (RFC 4954 4, 9051 6.2.2, 5034 4). */
static void send_answer(struct stls_dialogue *d, struct stls_slice answer) {
  const char *refusal;
  remember_sent(d, answer);
  stls_encoder_begin(&d->encoder);
  if (answer.len > 0) stls_encoder_add(&d->encoder, STLS_ARG_SECRET, answer);
  refusal = stls_dialogue_send_line(d);
  if (refusal) stls_dialogue_fail(d, STLS_ERROR_AUTH, "%s", refusal);
}

static void answer_challenge(struct stls_dialogue *d) {
  struct stls_login *login = &d->login;
  struct stls_slice challenge = stls_slice_trim(stls_buffer_slice(&d->reply.text));
  if (login->holds) {
    login->holds = false;
  } else {
    stls_buffer_clear(&login->held);
    if (!stls_sasl_step(login->sasl, challenge, &login->held)) {
      fail_sasl(d);
      return;
    }
  }
  send_answer(d, stls_buffer_slice(&login->held));
}

static void retry_unbound(struct stls_dialogue *d) {
  d->binding_refused = true;
  d->login.mechanism = stls_mechanism_unbound(d->login.mechanism);
  begin_sasl(d);
}

static const char *login_name(const struct stls_dialogue *d) {
  return d->login.mechanism ? d->login.mechanism->name : d->login.own;
}

/* RFC 2221: another server would know us. Whom to trust with a credential is not its to say. */
static void hint_at_referral(struct stls_dialogue *d) {
  const struct stls_imap_response *response =
      d->parser ? stls_imap_parser_response(d->parser) : NULL;
  struct stls_slice url;
  if (!response || !d->facts.encrypted || strcmp(d->reply.status, "REFERRAL") != 0) return;
  if (response->node_count < 2) return;
  url = stls_imap_node_text(response, 1);
  if (url.len > 512 || stls_login_repeats(d, url)) return;
  stls_error_hint(&d->error, "the server refers to %.*s, which is not followed", (int)url.len,
                  url.ptr);
}

static void fail_auth(struct stls_dialogue *d) {
  const char *detail = d->login.sasl ? stls_sasl_server_error(d->login.sasl) : "";
  if (stls_login_repeats(d, stls_slice_of(detail))) detail = STLS_LOGIN_WITHHELD;
  stls_dialogue_fail_reply(d, STLS_ERROR_AUTH, "the server refuses authentication with %s%s%s%s",
                           login_name(d),
                           d->binding_refused ? " (and before that with channel binding)" : "",
                           detail[0] ? ": " : "", detail);
  if (d->reply.code == 538 || strcmp(d->reply.status, "PRIVACYREQUIRED") == 0) {
    stls_error_hint(&d->error, "the server wants an encrypted connection for this");
  }
  hint_at_referral(d);
}

static void fail_unproven(struct stls_dialogue *d) {
  stls_dialogue_fail(d, STLS_ERROR_AUTH,
                     "the server says yes to %s before the exchange is over: it has not shown "
                     "that it knows the credential",
                     d->login.mechanism->name);
}

static void end_login(struct stls_dialogue *d) {
  const struct stls_mechanism *mechanism = d->login.mechanism;
  d->authenticated = true;
  d->mechanism = login_name(d);
  d->binding_used = mechanism && mechanism->binds;
  stls_login_end(&d->login);
  d->output.wipes = false;
  d->encoder.line.wipes = false;
}

static void send_second_half(struct stls_dialogue *d) {
  d->config->protocol->send_own_login(d);
}

/* }====== */

static const struct stls_row rows[] = {
    /* state, reply, guard, next, action */
    {GREETING, STLS_ON_PREAUTH, may_upgrade, GREETING, fail_preauth},
    {GREETING, STLS_ON_PREAUTH, knows_capabilities, READY, stls_dialogue_finish},
    {GREETING, STLS_ON_PREAUTH, NULL, AGAIN, ask_capabilities},
    {GREETING, STLS_ON_POSITIVE, has_asked_ahead, UPGRADE, NULL},
    {GREETING, STLS_ON_POSITIVE, may_upgrade_at_once, UPGRADE, send_upgrade},
    {GREETING, STLS_ON_POSITIVE, knows_capabilities, DECIDE, NULL},
    {GREETING, STLS_ON_POSITIVE, NULL, CAPABILITIES, ask_capabilities},
    {GREETING, STLS_ON_REFUSAL | STLS_ON_BYE, NULL, GREETING, fail_greeting},

    {CAPABILITIES, STLS_ON_POSITIVE, NULL, DECIDE, learn_capabilities},
    {CAPABILITIES, STLS_ON_PERMANENT, may_do_without_esmtp, HELO, send_helo},
    {CAPABILITIES, STLS_ON_PERMANENT, may_lack_capability_command, DECIDE, learn_nothing},
    {CAPABILITIES, STLS_ON_REFUSAL, must_upgrade, CAPABILITIES, fail_untold},
    {CAPABILITIES, STLS_ON_REFUSAL, NULL, CAPABILITIES, fail_capabilities},
    {HELO, STLS_ON_POSITIVE, NULL, DECIDE, learn_nothing},
    {HELO, STLS_ON_REFUSAL, NULL, HELO, fail_capabilities},

    {DECIDE, STLS_ON_NOTHING, may_upgrade_as_offered, UPGRADE, send_upgrade},
    {DECIDE, STLS_ON_NOTHING, must_upgrade, DECIDE, fail_stripped},
    {DECIDE, STLS_ON_NOTHING, must_not_authenticate, DECIDE, fail_untrusted},
    {DECIDE, STLS_ON_NOTHING, must_enable_utf8, UTF8, send_utf8},
    {DECIDE, STLS_ON_NOTHING, must_authenticate, LOGIN, choose_login},
    {DECIDE, STLS_ON_NOTHING, NULL, READY, stls_dialogue_finish},

    {UTF8, STLS_ON_POSITIVE, NULL, DECIDE, note_utf8},
    {UTF8, STLS_ON_REFUSAL, NULL, UTF8, fail_utf8},

    {UPGRADE, STLS_ON_POSITIVE, has_premature_answer, UPGRADE, fail_premature},
    {UPGRADE, STLS_ON_POSITIVE, has_trailing_bytes, UPGRADE, fail_injection},
    {UPGRADE, STLS_ON_POSITIVE, NULL, HANDSHAKE, want_handshake},
    {UPGRADE, STLS_ON_REFUSAL, must_upgrade, UPGRADE, fail_upgrade},
    {UPGRADE, STLS_ON_REFUSAL, NULL, DECIDE, forgo_upgrade},

    {LOGIN, STLS_ON_CONTINUE, NULL, LOGIN, answer_challenge},
    {LOGIN, STLS_ON_POSITIVE, is_satisfied, AUTHENTICATED, end_login},
    {LOGIN, STLS_ON_POSITIVE, NULL, LOGIN, fail_unproven},
    {LOGIN, STLS_ON_PERMANENT, may_unbind, LOGIN, retry_unbound},
    {LOGIN, STLS_ON_REFUSAL, NULL, LOGIN, fail_auth},
    {OWN_LOGIN, STLS_ON_CONTINUE, stls_dialogue_is_stopped, OWN_LOGIN, stls_dialogue_release},
    {OWN_LOGIN, STLS_ON_POSITIVE, awaits_second_half, OWN_LOGIN, send_second_half},
    {OWN_LOGIN, STLS_ON_POSITIVE, NULL, AUTHENTICATED, end_login},
    {OWN_LOGIN, STLS_ON_REFUSAL, NULL, OWN_LOGIN, fail_auth},

    {AUTHENTICATED, STLS_ON_NOTHING, must_ask_again, AGAIN, ask_capabilities},
    {AUTHENTICATED, STLS_ON_NOTHING, NULL, READY, stls_dialogue_finish},
    {AGAIN, STLS_ON_POSITIVE | STLS_ON_REFUSAL, NULL, READY, stls_dialogue_finish},
};

const struct stls_table stls_opening_table = {"opening", state_names,
                                              sizeof state_names / sizeof state_names[0], rows,
                                              sizeof rows / sizeof rows[0]};

/* They are parted by tabs, each in the form in which the protocol lists it. */
static bool pin_capabilities(struct stls_dialogue *d) {
  struct stls_slice rest = stls_slice_of(d->config->pinned), word;
  stls_capabilities_clear(&d->capabilities);
  d->capabilities.known = true;
  while (rest.len > 0) {
    const char *tab = memchr(rest.ptr, '\t', rest.len);
    size_t len = tab ? (size_t)(tab - rest.ptr) : rest.len;
    struct stls_slice entry = stls_slice(rest.ptr, len);
    if (stls_slice_word(&entry, &word) &&
        !stls_capabilities_add(&d->capabilities, word, stls_slice_trim(entry)))
      return stls_dialogue_fail_buffer(d, &d->capabilities.entries, "list of capabilities");
    rest = stls_slice_from(rest, tab ? len + 1 : len);
  }
  return true;
}

/* What can be said before the server has spoken. */
static void begin_ahead(struct stls_dialogue *d) {
  if (must_upgrade(d)) stls_dialogue_send_word(d, d->config->protocol->upgrade_verb);
  else if (pin_capabilities(d)) d->state = DECIDE;
}

void stls_opening_begin(struct stls_dialogue *d) {
  stls_dialogue_begin(d, &stls_opening_table, GREETING, NULL);
  d->awaits_greeting = !d->facts.upgraded;
  if (d->config->pinned) {
    begin_ahead(d);
  } else if (d->facts.upgraded) {
    d->state = CAPABILITIES;
    ask_capabilities(d);
  }
}

enum stls_read stls_opening_greeted(struct stls_dialogue *d) {
  d->awaits_greeting = false;
  if (d->state == GREETING) return STLS_READ_REPLY;
  if (d->reply.class == STLS_ON_POSITIVE) return STLS_READ_MORE;
  if (d->reply.class & (STLS_ON_REFUSAL | STLS_ON_BYE)) d->state = GREETING;
  return STLS_READ_REPLY;
}

void stls_opening_again(struct stls_dialogue *d) {
  d->heard = 0;
  d->output.wipes = true;
  d->encoder.line.wipes = true;
  stls_dialogue_begin(d, &stls_opening_table, CAPABILITIES, NULL);
  ask_capabilities(d);
}
