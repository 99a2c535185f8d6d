/*
 * mail/dialogue.h - one conversation with a mail server, without any I/O.
 * Floor 2, mail wing: may rely on base/ and mail/ only.
 *
 * A dialogue is fed received bytes, hands out bytes to send, and says what it
 * needs next. It holds no descriptor, no clock, no TLS, and can be stopped and
 * resumed at any byte. The first error is sticky.
 *
 * At STARTTLS a dialogue ends: the owner destroys it and gives birth to another
 * from the same configuration, so that nothing learned in the clear survives.
 */
#ifndef STLS_MAIL_DIALOGUE_H
#define STLS_MAIL_DIALOGUE_H

#include "base/buffer.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/secret.h"
#include "mail/capabilities.h"
#include "mail/encoder.h"
#include "mail/imap_parser.h"
#include "mail/sasl.h"
#include "mail/table.h"
#include "mail/trace.h"

/* The four ways on the wire. */
enum stls_tls_mode {
  STLS_TLS_STARTTLS,      /* begin in the clear, insist on the upgrade (RFC 8314 4.1) */
  STLS_TLS_IMPLICIT,      /* TLS from the first byte (RFC 8314 3) */
  STLS_TLS_OPPORTUNISTIC, /* upgrade when it is offered, else go on in the clear */
  STLS_TLS_NONE           /* clear text */
};

struct stls_protocol; /* mail/protocol.h: stls_smtp, stls_imap, stls_pop3 */

/* What the caller wants of the conversation. Borrowed; outlives the dialogue. */
struct stls_dialogue_config {
  const struct stls_protocol *protocol;
  enum stls_tls_mode tls;
  bool insecure_auth; /* credentials even where the channel is not encrypted and verified */
  const char *host;   /* the name the caller gave */
  unsigned port;
  const char *client_name; /* EHLO argument */
  const char *user;        /* or NULL */
  const char *authzid;     /* or NULL */
  const char *mechanisms;  /* names separated by blanks, in order of preference; NULL: ours */
  const char *pinned;      /* capabilities known beforehand, parted by tabs; NULL: ask */
  bool has_password;       /* the caller can give one when asked */
  bool has_token;
  bool has_certificate; /* a client certificate: EXTERNAL may be chosen */
  bool utf8;            /* POP3: UTF8 before authentication (RFC 6856) */
  enum stls_binding_policy binding;
  struct stls_limits limits;
};

/* What the session knows of the channel. A dialogue is born with it; it never changes. */
struct stls_channel_facts {
  bool encrypted;
  bool verified;
  bool upgraded;            /* by STARTTLS just now: the server does not greet again */
  const char *binding_type; /* see sasl.h; NULL: none to be had */
  struct stls_slice binding;
};

/* What a dialogue needs next. */
enum stls_need {
  STLS_NEED_INPUT,       /* received bytes; or what it has to say must first be sent */
  STLS_NEED_UPGRADE,     /* a TLS handshake, and then a new dialogue */
  STLS_NEED_COMPRESSION, /* every octet from here on; stls_dialogue_compressed */
  STLS_NEED_CREDENTIAL,  /* stls_dialogue_credential */
  STLS_NEED_CONTENT,     /* stls_dialogue_content */
  STLS_NEED_MESSAGE,     /* stls_dialogue_message */
  STLS_NEED_NOTHING,     /* the operation is over; begin another */
  STLS_NEED_CARE,        /* look at the event, then call again */
  STLS_NEED_BURIAL       /* it has failed: stls_dialogue_error */
};

enum stls_event_type {
  STLS_EVENT_REPLY, /* the last reply to command number `index` of the operation, or a message */
  STLS_EVENT_RECIPIENT, /* a reply about one recipient: `index` counts from 0 */
  STLS_EVENT_REFUSED,   /* the reply that refused a whole message */
  STLS_EVENT_LINE,      /* one line of a POP3 list: `text` */
  STLS_EVENT_CONTENT,   /* a piece of message content: `text` */
  STLS_EVENT_UNTAGGED,  /* an IMAP response: `response` */
  STLS_EVENT_IDLING     /* IMAP: the server took IDLE and tells from now on what happens */
};

struct stls_reply {
  enum stls_reply_class class;
  int code;                /* SMTP */
  char status[64];         /* enhanced status or response code, or "" */
  struct stls_buffer text; /* lines joined by LF */
};

struct stls_event {
  enum stls_event_type type;
  size_t index;
  struct stls_slice text; /* borrowed until the next call; of messages: the phase */
  uint64_t size;          /* IMAP content: the literal's size */
  uint64_t offset;        /* IMAP content: where in it `text` begins */
  const struct stls_reply *reply;
  const struct stls_imap_response *response; /* IMAP content: the response so far */
};

struct stls_dialogue;

/* A dialogue that has not begun; NULL when out of memory. `trace` is borrowed, may be NULL. */
struct stls_dialogue *stls_dialogue_new(const struct stls_dialogue_config *config,
                                        const struct stls_channel_facts *facts,
                                        struct stls_trace *trace);

/* Destroys it, wiping what may be secret. NULL is harmless. */
void stls_dialogue_free(struct stls_dialogue *d);

/* {====== Bytes ====== */

/* Where received bytes go: reserve and commit there, or append. */
struct stls_buffer *stls_dialogue_input(struct stls_dialogue *d);

/* What is to be sent: send from its front and consume. */
struct stls_buffer *stls_dialogue_output(struct stls_dialogue *d);

/* The stream ended; `clean` unless TLS was cut without close-notify. */
void stls_dialogue_input_ended(struct stls_dialogue *d, bool clean);

/* Goes on as far as it can. The event is valid when CARE is returned. */
enum stls_need stls_dialogue_next(struct stls_dialogue *d, struct stls_event *event_r);

/* }====== */

/* {====== Operations: one at a time; NEED_NOTHING ends each ====== */

/* From the greeting to an authenticated session, or to NEED_UPGRADE. */
void stls_dialogue_open(struct stls_dialogue *d);

/*
 * From asking for the capabilities to an authenticated session, on a dialogue that is open and
 * not authenticated, with what the configuration says by now.
 */
void stls_dialogue_authenticate(struct stls_dialogue *d);

/* The server has forgotten who we are, and what it was told to do for us (RFC 8437 3). */
void stls_dialogue_forget_login(struct stls_dialogue *d);

/* What a command's positive answer brings with it. */
enum stls_answer_form {
  STLS_ANSWER_REPLY,   /* nothing more */
  STLS_ANSWER_LINES,   /* POP3: lines up to a dot, one event each */
  STLS_ANSWER_CONTENT, /* POP3: a message up to a dot */
  STLS_ANSWER_GOODBYE, /* the server closes: QUIT, LOGOUT */
  STLS_ANSWER_IDLE,    /* IMAP: "+", and then what happens, until stls_dialogue_done */
  STLS_ANSWER_COMPRESS /* all that follows it is compressed: IMAP COMPRESS */
};

struct stls_arg {
  enum stls_arg_type type;
  struct stls_slice value;
};

struct stls_args {
  const struct stls_arg *list;
  size_t count;
};

/*
 * Sends one command, which errors call `during` (cut to 23 characters). NEED_CONTENT asks for
 * the octets of each argument of type CONTENT (IMAP APPEND). Returns NULL, or why an argument
 * is refused; then nothing is sent.
 */
const char *stls_dialogue_command(struct stls_dialogue *d, const char *during,
                                  const struct stls_arg *args, size_t count,
                                  enum stls_answer_form form);

/*
 * Sends another command of the same operation without waiting for the answers to those before
 * it (IMAP, POP3). Whether the protocol allows it is the caller's to know. `*sent_r` is false
 * when it must be a command of its own after these: the server has to answer "+" to a part of
 * it or of one before it, or STLS_FLIGHT_MAX commands are in flight.
 */
const char *stls_dialogue_push(struct stls_dialogue *d, const struct stls_arg *args, size_t count,
                               enum stls_answer_form form, bool *sent_r);

/* Why an argument of such a command would be refused, or NULL; nothing is sent. */
const char *stls_dialogue_check(const struct stls_dialogue *d, const struct stls_arg *args,
                                size_t count);

/* IMAP: hands out what the server says unasked, without a command, until stls_dialogue_done. */
void stls_dialogue_listen(struct stls_dialogue *d);

/* Ends IDLE (RFC 9051 6.3.13: "DONE"), as soon as the server has taken it, or listening. */
void stls_dialogue_done(struct stls_dialogue *d);

/* Whether the server may be silent for as long as it likes: idling or listening. */
bool stls_dialogue_is_listening(const struct stls_dialogue *d);

struct stls_envelope {
  struct stls_args mail;              /* the sender as a PATH, and the parameters of MAIL */
  const struct stls_args *recipients; /* each a PATH, and the parameters of its RCPT */
  size_t count;                       /* of recipients; not 0 */
  bool binary;                        /* the content passes as it is (RFC 3030 3) */
};

/*
 * SMTP and LMTP: sends messages, one after the other or, with PIPELINING, up to `window`
 * at a time. NEED_MESSAGE asks for each, NEED_CONTENT for its content. Events tell what
 * the server says, in the order of the messages: RECIPIENT for each one that is refused
 * (in LMTP for each that was accepted also, when the content was heard), REFUSED when
 * all of it is, and REPLY when it is over. Where nothing was refused, that is the
 * server's word that it took the message.
 */
void stls_dialogue_begin_sending(struct stls_dialogue *d, size_t window);

/*
 * The next message is the last of the session: QUIT goes out in its last flight, where the server
 * has PIPELINING, and the operation ends with the answer to that.
 */
void stls_dialogue_farewell(struct stls_dialogue *d);

/* Answers NEED_MESSAGE. Returns NULL, or why it is refused: then nothing of it is sent. */
const char *stls_dialogue_message(struct stls_dialogue *d, const struct stls_envelope *envelope);

/*
 * Answers NEED_MESSAGE: there is none until another message is over, or, with `last`
 * (which may be said at any time), ever. The operation ends when none is under way.
 */
void stls_dialogue_no_message(struct stls_dialogue *d, bool last);

/*
 * Answers NEED_CONTENT with a piece, or with the end. False when refused: the dialogue
 * has failed, or stls_dialogue_complaint says why this one message is abandoned.
 */
bool stls_dialogue_content(struct stls_dialogue *d, struct stls_slice piece);
void stls_dialogue_content_end(struct stls_dialogue *d);

/*
 * The same in two steps, which spare a copy: room for `size` bytes (NULL: it has failed),
 * then how many of them were written there, more than 0.
 */
char *stls_dialogue_content_room(struct stls_dialogue *d, size_t size);
bool stls_dialogue_content_fill(struct stls_dialogue *d, size_t len);

/*
 * Answers NEED_CONTENT: the message is not to be sent after all. Its REPLY comes yet.
 * False when it is too late for that, and closing the connection the only way.
 */
bool stls_dialogue_content_abandon(struct stls_dialogue *d);

/* Why content was refused last, or NULL; asking forgets it. */
const char *stls_dialogue_complaint(struct stls_dialogue *d);

/*
 * Answers NEED_COMPRESSION. Before that the owner has taken all input away, to be decoded: it is
 * compressed already, and not to be read as it is.
 */
void stls_dialogue_compressed(struct stls_dialogue *d);

/* Answers NEED_CREDENTIAL. The value is copied and wiped when authentication ends. */
void stls_dialogue_credential(struct stls_dialogue *d, struct stls_slice value);

/* Which credential NEED_CREDENTIAL wants. */
enum stls_credential stls_dialogue_wanted_credential(const struct stls_dialogue *d);

/* }====== */

/* {====== What is known ====== */

const struct stls_capabilities *stls_dialogue_capabilities(const struct stls_dialogue *d);

/* The sticky error; its kind is NONE while all is well. */
struct stls_error *stls_dialogue_error(struct stls_dialogue *d);

/* The tag of the last command (IMAP): "A12". */
#define STLS_TAG_SIZE 16
void stls_dialogue_tag(const struct stls_dialogue *d, char tag_r[STLS_TAG_SIZE]);

/* The phase, for errors: "greeting", "starttls", "auth", "fetch". */
const char *stls_dialogue_phase(const struct stls_dialogue *d);

/* Whether the server knows who we are: we have said it, or it greeted so (PREAUTH). */
bool stls_dialogue_is_authenticated(const struct stls_dialogue *d);

/* The mechanism that succeeded ("LOGIN" and "USER" for the protocols' own), or NULL. */
const char *stls_dialogue_mechanism(const struct stls_dialogue *d);

/* The channel binding used, or NULL; and whether the server listed it, then refused it. */
const char *stls_dialogue_binding(const struct stls_dialogue *d, bool *refused_r);

/* Whether no operation is in progress. */
bool stls_dialogue_is_idle(const struct stls_dialogue *d);

/*
 * Whether nothing is left to say in the operation in progress: it may be left to
 * its end without the caller, by taking its events and dropping them.
 */
bool stls_dialogue_may_drain(const struct stls_dialogue *d);

/* How many messages' ends were sent whose answers have not come: the oldest ones under way. */
size_t stls_dialogue_unanswered(const struct stls_dialogue *d);

/* }====== */

#endif
