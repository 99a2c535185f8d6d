/*
 * session/session.h - one session: a dialogue over a channel, from the host name to the goodbye.
 * Floor 3: may rely on base/, mail/, net/.
 *
 * A session never blocks. Its owner calls stls_session_step until that says the
 * operation is over, and in between waits as it is told: for the descriptor, in
 * the direction, at most for the time. It never calls back.
 *
 * At STARTTLS the dialogue is destroyed and a new one born, so that nothing that
 * was said in the clear outlives the clear.
 */
#ifndef STLS_SESSION_SESSION_H
#define STLS_SESSION_SESSION_H

#include "base/error.h"
#include "mail/dialogue.h"
#include "net/tls.h"

/* What the owner wants. stls_session_new copies all strings. */
struct stls_session_config {
  const char *protocol; /* "smtp", "imap", "pop3" */
  const char *host;     /* name or address; UTF-8 */
  const char *path;     /* of a Unix socket to connect to, not to `host`; or NULL */
  unsigned port;        /* 0: the protocol's, for the way on the wire */
  enum stls_tls_mode tls;
  const char *client_name;                 /* EHLO; NULL: the local address in brackets */
  const char *user, *authzid, *mechanisms; /* see mail/dialogue.h; NULL where not given */
  const char *pinned;
  bool has_password, has_token;
  enum stls_binding_policy binding;
  bool insecure_auth, insecure_no_verify;
  const char *server_name;      /* whom the certificate must name, and SNI; NULL: host */
  const char *tls_priority;     /* GnuTLS priority string; NULL: ours */
  bool alpn;                    /* offer the protocol's registered id */
  struct stls_tls_trust *trust; /* borrowed for the call; NULL with tls = none only */
  bool has_certificate;         /* the trust has a client certificate */
  bool utf8;                    /* POP3: UTF-8 mode (RFC 6856) */
  double timeout;               /* seconds without progress */
  double connect_timeout; /* seconds for look-up and connecting, and again for the handshake */
  double deadline;        /* seconds for one operation as a whole; 0: none */
  struct stls_limits limits;
  bool trace;
};

enum stls_step {
  STLS_STEP_WAIT,       /* wait: stls_session_pollfd, _events, _timeout; then step again */
  STLS_STEP_CARE,       /* look at the event, then step again */
  STLS_STEP_CREDENTIAL, /* stls_dialogue_credential on the dialogue, then step again */
  STLS_STEP_CONTENT,    /* stls_dialogue_content or _content_end, then step again */
  STLS_STEP_WAKE,       /* the time asked for with stls_session_wake has come */
  STLS_STEP_MESSAGE,    /* stls_dialogue_message or _no_message, then step again */
  STLS_STEP_DONE,       /* the operation is over */
  STLS_STEP_FAILED      /* stls_session_error; the session is closed */
};

/* Bits of stls_session_events. */
enum { STLS_EVENT_READ = 1, STLS_EVENT_WRITE = 2 };

struct stls_session;

/*
 * A session that has not begun. `*misuse_r` names a setting that can't be (a
 * literal); else NULL is out of memory.
 */
struct stls_session *stls_session_new(const struct stls_session_config *config,
                                      const char **misuse_r);

/* Closes at once, without a word to the server, and frees. NULL is harmless. */
void stls_session_free(struct stls_session *session);

/* Closes at once. Later steps fail with `kind` (closed or cancelled) unless it failed before. */
void stls_session_close(struct stls_session *session, enum stls_error_kind kind);

/* Begins the first operation: look up, connect, encrypt, authenticate. */
void stls_session_open(struct stls_session *session);

/* The dialogue to begin other operations on; NULL before the connection and after the end. */
struct stls_dialogue *stls_session_dialogue(struct stls_session *session);

/* Who we are, where that changes after the session was made. */
struct stls_session_identity {
  const char *user, *authzid, *mechanisms;
  bool has_password, has_token;
};

/*
 * Begins another authentication on the connection, from asking for the capabilities on. Copies
 * the strings. False when out of memory; then nothing has begun.
 */
bool stls_session_authenticate(struct stls_session *session,
                               const struct stls_session_identity *who);

/* To be called when an operation was begun on the dialogue: its time runs from here. */
void stls_session_begun(struct stls_session *session);

/*
 * While the dialogue listens, when the server may be silent as long as it likes: ends a wait
 * once, `seconds` from now.
 */
void stls_session_wake(struct stls_session *session, double seconds);

/* Goes on as far as it can without waiting. The event is valid when CARE is returned. */
enum stls_step stls_session_step(struct stls_session *session, struct stls_event *event_r);

/* {====== Waiting ====== */

/* The descriptor to wait for, or -1. */
int stls_session_pollfd(const struct stls_session *session);

/* What to wait for: STLS_EVENT_READ, _WRITE or both. */
unsigned stls_session_events(const struct stls_session *session);

/* Seconds until the session wants to be stepped in any case; negative: never. */
double stls_session_timeout(const struct stls_session *session);

/*
 * A descriptor that the session is done with: the owner tells its event loop to
 * forget it, and closes it. -1 when there is none. stls_session_free closes the rest.
 */
int stls_session_take_closing(struct stls_session *session);

/* Whether received bytes wait that the descriptor won't tell of. */
bool stls_session_is_dirty(const struct stls_session *session);

/* }====== */

/* {====== What is known ====== */

/* The sticky error; kind NONE while all is well. */
const struct stls_error *stls_session_error(const struct stls_session *session);

/* Whether it is connected and ready for operations. */
bool stls_session_is_open(const struct stls_session *session);

/* Whether every octet is compressed, in both directions. */
bool stls_session_is_compressed(const struct stls_session *session);

/* Whether the server answered an operation with a goodbye, or we closed. */
bool stls_session_is_closed(const struct stls_session *session);

/* When it has failed: how many messages' ends were sent whose answers had not come. */
size_t stls_session_unanswered(const struct stls_session *session);

struct stls_security {
  bool encrypted, verified;
  enum stls_tls_mode mode;    /* how it came to be encrypted: STARTTLS or IMPLICIT */
  struct stls_tls_report tls; /* when encrypted */
  const char *mechanism;      /* of authentication, or NULL */
  const char *binding;        /* channel binding used, or NULL */
  bool binding_refused;
  bool compressed; /* IMAP COMPRESS */
};

void stls_session_security(struct stls_session *session, struct stls_security *security_r);

/* The peer's certificate; see stls_tls_certificate. */
bool stls_session_certificate(struct stls_session *session, struct stls_certificate *certificate_r);

/* Where it is connected to, as "192.0.2.1:587" or a path, or "". */
const char *stls_session_address(const struct stls_session *session);
unsigned stls_session_port(const struct stls_session *session);

/* The record of the dialogue; take events out of it. */
struct stls_trace *stls_session_trace(struct stls_session *session);

/* }====== */

#endif
