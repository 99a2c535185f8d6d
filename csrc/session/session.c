/*
 * session/session.c - see session.h.
 *
 * A session is in one phase at a time; each phase has a function that goes on as
 * far as it can and says whether to wait. The way through them is
 *
 *   RESOLVING - DIALING - [HANDSHAKING] - TALKING - [HANDSHAKING - TALKING] - CLOSED
 */
#include "session/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "mail/protocol.h"
#include "net/channel.h"
#include "net/dial.h"
#include "net/hostname.h"
#include "net/resolve.h"

#define CLOSING_MAX 4  /* descriptors: look-up, dial, connection */
#define STRINGS_MAX 13 /* those that copy_strings names, and a new identity beside the old one */

enum phase { UNBORN, RESOLVING, DIALING, HANDSHAKING, TALKING, CLOSED };

struct stls_session {
  struct stls_session_config config;
  struct stls_dialogue_config dialogue_config;
  char *strings[STRINGS_MAX];    /* copies that the configuration points to, or NULL */
  char host[STLS_HOSTNAME_SIZE]; /* A-labels or address */
  char name[STLS_HOSTNAME_SIZE]; /* whom the certificate must name */
  char client_name[STLS_HOSTNAME_SIZE];
  char address[STLS_DIAL_PATH_MAX + 1];

  enum phase phase;
  struct stls_resolve *resolve;
  struct stls_dial *dial;
  struct stls_channel channel;
  struct stls_dialogue *dialogue;
  struct stls_buffer binding; /* channel binding octets */
  const char *binding_type;
  bool upgraded; /* by STARTTLS */

  unsigned events;    /* what to wait for */
  bool waits;         /* the last step said WAIT */
  double progress_at; /* when something last moved */
  double phase_at;    /* when this phase began, for connect_timeout */
  double begun_at;    /* when the operation began, for deadline */
  double wake_at;     /* when to end a wait while listening; 0: never */
  int closing[CLOSING_MAX];
  size_t closing_count;
  size_t unanswered; /* messages, when the dialogue came to its end */
  struct stls_error error;
  struct stls_trace trace;
};

/* {====== Birth ====== */

/* Copies a string that outlives the caller's; NULL stays NULL. */
static bool keep_string(struct stls_session *session, const char **text) {
  size_t i = 0;
  if (!*text) return true;
  while (session->strings[i]) i++;
  *text = session->strings[i] = strdup(*text);
  return *text != NULL;
}

/* Frees the copy that `text` points to, if it does. */
static void drop_string(struct stls_session *session, const char **text) {
  size_t i;
  for (i = 0; i < STRINGS_MAX; i++) {
    if (!*text || session->strings[i] != *text) continue;
    free(session->strings[i]);
    session->strings[i] = NULL;
  }
  *text = NULL;
}

static void drop_strings(struct stls_session *session, const char **user, const char **authzid,
                         const char **mechanisms) {
  drop_string(session, user);
  drop_string(session, authzid);
  drop_string(session, mechanisms);
}

static bool copy_strings(struct stls_session *session) {
  struct stls_session_config *config = &session->config;
  return keep_string(session, &config->protocol) && keep_string(session, &config->host) &&
         keep_string(session, &config->path) && keep_string(session, &config->client_name) &&
         keep_string(session, &config->user) && keep_string(session, &config->authzid) &&
         keep_string(session, &config->mechanisms) && keep_string(session, &config->pinned) &&
         keep_string(session, &config->server_name) && keep_string(session, &config->tls_priority);
}

static void fill_identity(struct stls_session *session) {
  const struct stls_session_config *config = &session->config;
  struct stls_dialogue_config *to = &session->dialogue_config;
  to->user = config->user;
  to->authzid = config->authzid;
  to->mechanisms = config->mechanisms;
  to->has_password = config->has_password;
  to->has_token = config->has_token;
}

static void fill_dialogue_config(struct stls_session *session,
                                 const struct stls_protocol *protocol) {
  const struct stls_session_config *config = &session->config;
  struct stls_dialogue_config *to = &session->dialogue_config;
  to->protocol = protocol;
  to->tls = config->tls;
  to->insecure_auth = config->insecure_auth;
  to->host = config->host;
  to->port = config->port;
  to->client_name = config->client_name;
  to->pinned = config->pinned;
  to->has_certificate = config->has_certificate;
  to->utf8 = config->utf8;
  to->binding = config->binding;
  to->limits = config->limits;
  fill_identity(session);
}

/* NULL, or what can't be. */
static const char *check(struct stls_session *session, const struct stls_protocol *protocol) {
  struct stls_session_config *config = &session->config;
  const char *reason = stls_hostname_to_ascii(config->host, session->host);
  const char *at;
  if (reason) return reason;
  if (config->server_name) reason = stls_hostname_to_ascii(config->server_name, session->name);
  else memcpy(session->name, session->host, sizeof session->name);
  if (reason) return "server_name is no host name";
  if (config->path && strlen(config->path) > STLS_DIAL_PATH_MAX) return "path is too long";
  if (config->tls_priority && !stls_tls_priority_is_valid(config->tls_priority, &at)) {
    return "tls_priority is not a GnuTLS priority string";
  }
  if (config->port == 0) {
    config->port = config->tls == STLS_TLS_IMPLICIT ? protocol->port_implicit : protocol->port;
  }
  return config->port > 65535 ? "port is greater than 65535" : NULL;
}

struct stls_session *stls_session_new(const struct stls_session_config *config,
                                      const char **misuse_r) {
  const struct stls_protocol *protocol = stls_protocol_named(config->protocol);
  struct stls_session *session;
  *misuse_r = protocol ? NULL : "protocol is unknown";
  session = protocol ? calloc(1, sizeof *session) : NULL;
  if (!session) return NULL;
  session->config = *config;
  session->config.trust = config->trust ? stls_tls_trust_ref(config->trust) : NULL;
  session->trace.on = config->trace;
  stls_channel_init(&session->channel, -1);
  stls_buffer_init(&session->binding, 0);
  if (copy_strings(session)) {
    *misuse_r = check(session, protocol);
    fill_dialogue_config(session, protocol);
    if (!*misuse_r) return session;
  }
  stls_session_free(session);
  return NULL;
}

/* }====== */

/* {====== Death ====== */

static const char *phase_name(const struct stls_session *session) {
  if (session->phase == HANDSHAKING) return "handshake";
  return session->phase == TALKING ? stls_dialogue_phase(session->dialogue) : "connect";
}

static void close_later(struct stls_session *session, int fd) {
  if (fd < 0) return;
  if (session->closing_count < CLOSING_MAX) session->closing[session->closing_count++] = fd;
  else close(fd);
}

int stls_session_take_closing(struct stls_session *session) {
  return session->closing_count > 0 ? session->closing[--session->closing_count] : -1;
}

static void end_connecting(struct stls_session *session) {
  close_later(session, stls_resolve_free(session->resolve));
  close_later(session, stls_dial_free(session->dial));
  session->resolve = NULL;
  session->dial = NULL;
}

/* Lets everything go but the error and the trace. */
static void tear_down(struct stls_session *session) {
  end_connecting(session);
  close_later(session, stls_channel_end(&session->channel));
  if (session->dialogue) session->unanswered = stls_dialogue_unanswered(session->dialogue);
  stls_dialogue_free(session->dialogue);
  session->dialogue = NULL;
  stls_buffer_free(&session->binding);
  session->phase = CLOSED;
  session->events = 0;
}

/* Losing the session now may leave a message's fate in the dark. */
static void note_delivery(struct stls_session *session) {
  if (session->dialogue && stls_dialogue_unanswered(session->dialogue) > 0)
    session->error.unknown = true;
}

void stls_session_close(struct stls_session *session, enum stls_error_kind kind) {
  struct stls_tls *tls = session->channel.tls;
  bool idle = session->dialogue && stls_dialogue_is_idle(session->dialogue);
  if (tls && idle) stls_tls_goodbye(tls);
  stls_error_set(&session->error, kind, idle ? "close" : phase_name(session), "%s",
                 kind == STLS_ERROR_CANCELLED
                     ? "the operation was cancelled, and with it the session"
                     : "the session is closed");
  note_delivery(session);
  tear_down(session);
}

void stls_session_free(struct stls_session *session) {
  int fd;
  size_t i;
  if (!session) return;
  tear_down(session);
  while ((fd = stls_session_take_closing(session)) >= 0) close(fd);
  for (i = 0; i < STRINGS_MAX; i++) free(session->strings[i]);
  stls_tls_trust_unref(session->config.trust);
  stls_error_free(&session->error);
  stls_trace_free(&session->trace);
  free(session);
}

static enum stls_step fail(struct stls_session *session) {
  tear_down(session);
  return STLS_STEP_FAILED;
}

/* }====== */

/* {====== Time ====== */

static bool is_connecting(const struct stls_session *session) {
  return session->phase == RESOLVING || session->phase == DIALING || session->phase == HANDSHAKING;
}

static bool is_listening(const struct stls_session *session) {
  return session->phase == TALKING && stls_dialogue_is_listening(session->dialogue) &&
         stls_buffer_length(stls_dialogue_output(session->dialogue)) == 0;
}

/* The moment at which waiting has been too long. */
static double patience_ends(const struct stls_session *session) {
  const struct stls_session_config *config = &session->config;
  double at = is_connecting(session) ? session->phase_at + config->connect_timeout
                                     : session->progress_at + config->timeout;
  if (config->deadline > 0 && session->begun_at + config->deadline < at)
    at = session->begun_at + config->deadline;
  return at;
}

/* A server that waits for TLS says nothing. */
static void hint_at_port(struct stls_session *session) {
  unsigned port = session->config.port;
  bool implicit = port == 465 || port == 993 || port == 995;
  if (strcmp(phase_name(session), "greeting") != 0 || session->channel.tls) return;
  stls_error_hint(&session->error,
                  implicit
                      ? "port %u speaks TLS from the first byte: use tls = \"implicit\""
                      : "port %u may want TLS from the first byte: then use tls = \"implicit\"",
                  port);
}

static void tell_too_late(struct stls_session *session) {
  const struct stls_session_config *config = &session->config;
  const char *during = phase_name(session);
  if (session->phase == RESOLVING) {
    stls_error_set(&session->error, STLS_ERROR_TIMEOUT, during,
                   "looking up %s took longer than %g s", session->host, config->connect_timeout);
  } else if (session->phase == DIALING) {
    stls_error_set(&session->error, STLS_ERROR_TIMEOUT, during,
                   "connecting to %s took longer than %g s", session->host,
                   config->connect_timeout);
  } else {
    stls_error_set(&session->error, STLS_ERROR_TIMEOUT, during,
                   "the server did not answer within %g s",
                   is_connecting(session) ? config->connect_timeout : config->timeout);
  }
}

static bool is_too_late(struct stls_session *session, double now) {
  if (now < patience_ends(session)) return false;
  tell_too_late(session);
  note_delivery(session);
  hint_at_port(session);
  return true;
}

double stls_session_timeout(const struct stls_session *session) {
  double now = stls_clock_now(), left, attempt;
  if (session->phase == UNBORN || session->phase == CLOSED) return -1;
  if (is_listening(session) && session->wake_at == 0) return -1;
  left = (is_listening(session) ? session->wake_at : patience_ends(session)) - now;
  if (session->phase == DIALING) {
    attempt = stls_dial_timeout(session->dial, now);
    if (attempt >= 0 && attempt < left) left = attempt;
  }
  return left > 0 ? left : 0;
}

static void enter(struct stls_session *session, enum phase phase) {
  session->phase = phase;
  session->progress_at = stls_clock_now();
}

static enum stls_step wait_for(struct stls_session *session, unsigned events) {
  session->events = events;
  return STLS_STEP_WAIT;
}

void stls_session_begun(struct stls_session *session) {
  session->begun_at = session->progress_at = stls_clock_now();
  session->wake_at = 0;
}

/* The credentials themselves are asked for again, and go only where opening.c lets them. */
bool stls_session_authenticate(struct stls_session *session,
                               const struct stls_session_identity *who) {
  struct stls_session_config *config = &session->config;
  struct stls_session_identity kept = *who;
  if (!keep_string(session, &kept.user) || !keep_string(session, &kept.authzid) ||
      !keep_string(session, &kept.mechanisms)) {
    drop_strings(session, &kept.user, &kept.authzid, &kept.mechanisms);
    return false;
  }
  drop_strings(session, &config->user, &config->authzid, &config->mechanisms);
  config->user = kept.user;
  config->authzid = kept.authzid;
  config->mechanisms = kept.mechanisms;
  config->has_password = kept.has_password;
  config->has_token = kept.has_token;
  fill_identity(session);
  session->dialogue_config.pinned = NULL; /* known of the first login, and of that alone */
  stls_dialogue_authenticate(session->dialogue);
  stls_session_begun(session);
  return true;
}

void stls_session_wake(struct stls_session *session, double seconds) {
  session->wake_at = stls_clock_now() + seconds;
}

/* }====== */

/* {====== Connecting ====== */

static void note(struct stls_session *session, const char *text) {
  stls_trace_line(&session->trace, STLS_TRACE_NOTE, stls_slice_of(text));
}

void stls_session_open(struct stls_session *session) {
  enter(session, RESOLVING);
  session->phase_at = session->progress_at;
  stls_session_begun(session);
  if (session->config.path) {
    session->dial = stls_dial_new_unix(session->config.path, &session->error);
    session->phase = DIALING;
  } else {
    session->resolve = stls_resolve_new(session->host, session->config.port, &session->error);
  }
}

/* RFC 5321 4.1.3: a client without a name of its own says its address. */
static void name_client(struct stls_session *session) {
  char text[64];
  bool v6 = stls_channel_local_address(&session->channel, text, sizeof text);
  snprintf(session->client_name, sizeof session->client_name, "[%s%s]", v6 ? "IPv6:" : "", text);
  session->dialogue_config.client_name = session->client_name;
}

/* Gives birth to a dialogue that knows nothing but the configuration and the channel. */
static bool begin_dialogue(struct stls_session *session) {
  struct stls_tls *tls = session->channel.tls;
  struct stls_channel_facts facts = {.encrypted = tls != NULL,
                                     .verified = tls && stls_tls_is_verified(tls),
                                     .upgraded = session->upgraded,
                                     .binding_type = session->binding_type,
                                     .binding = stls_buffer_slice(&session->binding)};
  session->trace.encrypted = facts.encrypted;
  session->dialogue = stls_dialogue_new(&session->dialogue_config, &facts, &session->trace);
  if (!session->dialogue)
    return stls_error_set(&session->error, STLS_ERROR_MEMORY, "connect", "not enough memory");
  stls_dialogue_open(session->dialogue);
  enter(session, TALKING);
  return true;
}

static bool begin_handshake(struct stls_session *session) {
  const struct stls_session_config *config = &session->config;
  struct stls_tls_settings settings = {
      .name = session->name,
      .is_address = stls_hostname_is_address(session->name),
      .priority = config->tls_priority,
      .alpn = config->alpn ? session->dialogue_config.protocol->alpn : NULL,
      .no_verify = config->insecure_no_verify,
      .upgraded = session->upgraded};
  enter(session, HANDSHAKING);
  session->phase_at = session->progress_at;
  return stls_channel_begin_tls(&session->channel, config->trust, &settings, &session->error);
}

static enum stls_io resolve(struct stls_session *session) {
  enum stls_io io;
  if (!session->resolve) return STLS_IO_FAILED;
  io = stls_resolve_step(session->resolve, &session->error);
  if (io != STLS_IO_OK) return io;
  session->dial = stls_dial_new(stls_resolve_result(session->resolve), &session->error);
  close_later(session, stls_resolve_free(session->resolve));
  session->resolve = NULL;
  session->phase = DIALING;
  return session->dial ? STLS_IO_OK : STLS_IO_FAILED;
}

static enum stls_io dial(struct stls_session *session) {
  char text[128 + STLS_DIAL_PATH_MAX];
  enum stls_io io;
  if (!session->dial) return STLS_IO_FAILED;
  io = stls_dial_step(session->dial, stls_clock_now(), &session->error);
  if (io != STLS_IO_OK) return io;
  stls_channel_init(&session->channel,
                    stls_dial_take(session->dial, session->address, sizeof session->address));
  end_connecting(session);
  snprintf(text, sizeof text, "connected to %s", session->address);
  note(session, text);
  if (!session->config.client_name) name_client(session);
  if (session->config.tls == STLS_TLS_IMPLICIT)
    return begin_handshake(session) ? STLS_IO_OK : STLS_IO_FAILED;
  return begin_dialogue(session) ? STLS_IO_OK : STLS_IO_FAILED;
}

static void note_handshake(struct stls_session *session) {
  struct stls_tls_report report;
  char text[256];
  stls_tls_describe(session->channel.tls, &report);
  session->trace.encrypted = true;
  snprintf(text, sizeof text, "encrypted: %s, %s, certificate %s", report.version,
           report.cipher ? report.cipher : "unknown cipher",
           stls_tls_is_verified(session->channel.tls) ? "verified" : "NOT verified");
  note(session, text);
}

static enum stls_io handshake(struct stls_session *session) {
  enum stls_io io = stls_channel_handshake(&session->channel, &session->error);
  if (io != STLS_IO_OK) return io;
  note_handshake(session);
  session->binding_type = stls_tls_binding(session->channel.tls, &session->binding);
  return begin_dialogue(session) ? STLS_IO_OK : STLS_IO_FAILED;
}

/*
 * The dialogue asked for the upgrade: it has seen to it that nothing was sent
 * behind the server's answer. It dies here, with all that it learned.
 */
static bool upgrade(struct stls_session *session) {
  stls_dialogue_free(session->dialogue);
  session->dialogue = NULL;
  session->upgraded = true;
  return begin_handshake(session);
}

static enum stls_step connect_step(struct stls_session *session) {
  enum stls_io io = session->phase == RESOLVING ? resolve(session)
                    : session->phase == DIALING ? dial(session)
                                                : handshake(session);
  switch (io) {
    case STLS_IO_OK: return STLS_STEP_DONE; /* of this phase */
    case STLS_IO_WANT_READ: return wait_for(session, STLS_EVENT_READ);
    case STLS_IO_WANT_WRITE: return wait_for(session, STLS_EVENT_WRITE);
    default: return fail(session);
  }
}

/* }====== */

/* {====== Talking ====== */

/* Takes over the dialogue's error; it knows best. */
static enum stls_step bury(struct stls_session *session) {
  if (session->error.kind == STLS_ERROR_NONE) {
    stls_error_copy(&session->error, stls_dialogue_error(session->dialogue));
  }
  return fail(session);
}

static enum stls_io send_output(struct stls_session *session, struct stls_error *error) {
  struct stls_buffer *output = stls_dialogue_output(session->dialogue);
  size_t before = stls_buffer_length(output);
  enum stls_io io;
  if (before == 0) return STLS_IO_OK;
  io = stls_channel_send(&session->channel, output, stls_dialogue_phase(session->dialogue), error);
  if (stls_buffer_length(output) < before) session->progress_at = stls_clock_now();
  return io;
}

/* OK: there is news for the dialogue, be it that the stream has ended. */
static enum stls_io receive_input(struct stls_session *session, struct stls_error *error) {
  enum stls_io io = stls_channel_receive(&session->channel, stls_dialogue_input(session->dialogue),
                                         stls_dialogue_phase(session->dialogue), error);
  if (io == STLS_IO_OK) session->progress_at = stls_clock_now();
  if (io != STLS_IO_CLOSED && io != STLS_IO_CUT) return io;
  stls_dialogue_input_ended(session->dialogue, io == STLS_IO_CLOSED);
  return STLS_IO_OK;
}

static enum stls_io lose(struct stls_session *session, const struct stls_error *why) {
  stls_error_copy(&session->error, why);
  note_delivery(session);
  return STLS_IO_FAILED;
}

/*
 * Sends what the dialogue has to say, else receives what has come. OK: ask the
 * dialogue again. What the server says is read even while we send: it may refuse a
 * message long before its end, wait for us to listen, or have said why it hung up,
 * which tells more than "broken pipe".
 */
static enum stls_io exchange(struct stls_session *session) {
  bool had_output = stls_buffer_length(stls_dialogue_output(session->dialogue)) > 0;
  struct stls_error send_error, receive_error;
  enum stls_io sent, received;
  memset(&send_error, 0, sizeof send_error);
  memset(&receive_error, 0, sizeof receive_error);
  sent = send_output(session, &send_error);
  received = receive_input(session, &receive_error);
  if (received == STLS_IO_WANT_READ && had_output && sent == STLS_IO_OK) received = STLS_IO_OK;
  if (received == STLS_IO_FAILED)
    received = lose(session, sent == STLS_IO_FAILED ? &send_error : &receive_error);
  else if (received != STLS_IO_OK && sent == STLS_IO_FAILED) received = lose(session, &send_error);
  else if (received == STLS_IO_WANT_READ && sent == STLS_IO_WANT_WRITE)
    received = STLS_IO_WANT_WRITE;
  stls_error_free(&send_error);
  stls_error_free(&receive_error);
  return received;
}

/*
 * The server has said that it compresses: what lies behind that in the dialogue's input is the
 * first of it. It is taken away here, before anybody can begin a command and read it in the clear.
 */
static bool compress(struct stls_session *session) {
  struct stls_dialogue *dialogue = session->dialogue;
  if (!stls_channel_begin_deflate(&session->channel, stls_dialogue_input(dialogue),
                                  stls_dialogue_phase(dialogue), &session->error))
    return false;
  stls_dialogue_compressed(dialogue);
  note(session, "compressed: DEFLATE");
  return true;
}

static enum stls_step talk(struct stls_session *session, struct stls_event *event_r) {
  for (;;) {
    switch (stls_dialogue_next(session->dialogue, event_r)) {
      case STLS_NEED_INPUT:
        switch (exchange(session)) {
          case STLS_IO_OK: continue;
          case STLS_IO_WANT_READ: return wait_for(session, STLS_EVENT_READ);
          case STLS_IO_WANT_WRITE: return wait_for(session, STLS_EVENT_READ | STLS_EVENT_WRITE);
          default: return fail(session);
        }
      case STLS_NEED_COMPRESSION:
        if (!compress(session)) return fail(session);
        continue;
      case STLS_NEED_CONTENT: return STLS_STEP_CONTENT;
      case STLS_NEED_MESSAGE: return STLS_STEP_MESSAGE;
      case STLS_NEED_CREDENTIAL: return STLS_STEP_CREDENTIAL;
      case STLS_NEED_CARE: return STLS_STEP_CARE;
      case STLS_NEED_NOTHING: return STLS_STEP_DONE;
      case STLS_NEED_UPGRADE: return upgrade(session) ? STLS_STEP_DONE : fail(session);
      case STLS_NEED_BURIAL: return bury(session);
    }
  }
}

/* The operation as a whole has taken too long, however busy the server keeps us. */
static bool is_overdue(struct stls_session *session, double now) {
  double deadline = session->config.deadline;
  if (deadline <= 0 || now < session->begun_at + deadline) return false;
  stls_error_set(&session->error, STLS_ERROR_TIMEOUT, phase_name(session),
                 "the operation took longer than its deadline of %g s", deadline);
  note_delivery(session);
  return true;
}

/* What the server has decided is not to be lost because its time is over just now. */
static bool is_verdict(enum stls_step step, const struct stls_event *event) {
  return step == STLS_STEP_CARE &&
         (event->type == STLS_EVENT_REPLY || event->type == STLS_EVENT_RECIPIENT ||
          event->type == STLS_EVENT_REFUSED);
}

/* Looks at the clock only where it matters: an event in a busy stream need not. */
static bool is_out_of_time(struct stls_session *session, enum stls_step step,
                           const struct stls_event *event) {
  double now;
  if (is_listening(session) || is_verdict(step, event)) return false;
  if (!session->waits && session->config.deadline <= 0) return false;
  now = stls_clock_now();
  return is_overdue(session, now) || (session->waits && is_too_late(session, now));
}

static bool is_to_wake(struct stls_session *session) {
  if (!session->waits || session->wake_at == 0 || !is_listening(session)) return false;
  if (stls_clock_now() < session->wake_at) return false;
  session->wake_at = 0;
  return true;
}

enum stls_step stls_session_step(struct stls_session *session, struct stls_event *event_r) {
  enum stls_step step;
  enum phase phase;
  double now = stls_clock_now();
  if (session->phase == UNBORN || session->error.kind != STLS_ERROR_NONE) return fail(session);
  /* The time that the caller takes for itself is not the server's; that in which the server
   * may be silent counts for nothing at all. */
  if (!session->waits) session->progress_at = now;
  if (is_listening(session)) session->begun_at = session->progress_at = now;
  do { /* as long as one phase leads to another */
    phase = session->phase;
    step = is_connecting(session) ? connect_step(session) : talk(session, event_r);
  } while (step == STLS_STEP_DONE && session->phase != phase);
  session->waits = step == STLS_STEP_WAIT;
  if (step == STLS_STEP_DONE || step == STLS_STEP_FAILED) return step;
  if (is_to_wake(session)) return STLS_STEP_WAKE;
  return is_out_of_time(session, step, event_r) ? fail(session) : step;
}

/* }====== */

/* {====== What is known ====== */

struct stls_dialogue *stls_session_dialogue(struct stls_session *session) {
  return session->dialogue;
}

int stls_session_pollfd(const struct stls_session *session) {
  if (session->phase == RESOLVING && session->resolve) return stls_resolve_fd(session->resolve);
  if (session->phase == DIALING && session->dial) return stls_dial_fd(session->dial);
  return session->channel.fd;
}

unsigned stls_session_events(const struct stls_session *session) {
  return session->events;
}

bool stls_session_is_dirty(const struct stls_session *session) {
  /* What an operation in progress left is the beginning of something, and wants more. */
  if (session->phase != TALKING || !stls_dialogue_is_idle(session->dialogue)) return false;
  return stls_buffer_length(stls_dialogue_input(session->dialogue)) > 0 ||
         stls_channel_has_pending(&session->channel);
}

const struct stls_error *stls_session_error(const struct stls_session *session) {
  return &session->error;
}

bool stls_session_is_open(const struct stls_session *session) {
  return session->phase == TALKING && session->error.kind == STLS_ERROR_NONE;
}

bool stls_session_is_compressed(const struct stls_session *session) {
  return session->channel.deflate != NULL;
}

bool stls_session_is_closed(const struct stls_session *session) {
  return session->phase == CLOSED || session->error.kind != STLS_ERROR_NONE;
}

size_t stls_session_unanswered(const struct stls_session *session) {
  return session->unanswered;
}

void stls_session_security(struct stls_session *session, struct stls_security *security_r) {
  struct stls_tls *tls = session->channel.tls;
  memset(security_r, 0, sizeof *security_r);
  security_r->encrypted = tls != NULL && session->phase == TALKING;
  security_r->mode = session->upgraded ? STLS_TLS_STARTTLS : STLS_TLS_IMPLICIT;
  if (security_r->encrypted) {
    security_r->verified = stls_tls_is_verified(tls);
    stls_tls_describe(tls, &security_r->tls);
  }
  security_r->compressed = stls_session_is_compressed(session);
  if (!session->dialogue) return;
  security_r->mechanism = stls_dialogue_mechanism(session->dialogue);
  security_r->binding = stls_dialogue_binding(session->dialogue, &security_r->binding_refused);
}

bool stls_session_certificate(struct stls_session *session,
                              struct stls_certificate *certificate_r) {
  memset(certificate_r, 0, sizeof *certificate_r);
  return session->channel.tls && stls_tls_certificate(session->channel.tls, certificate_r);
}

const char *stls_session_address(const struct stls_session *session) {
  return session->address;
}

unsigned stls_session_port(const struct stls_session *session) {
  return session->config.port;
}

struct stls_trace *stls_session_trace(struct stls_session *session) {
  return &session->trace;
}

/* }====== */
