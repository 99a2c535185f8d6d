/*
 * mail/dialogue_parts.h - the inside of a dialogue, for the files that make it up.
 * Floor 2, mail wing: may rely on base/ and mail/ only. Not for owners of dialogues.
 *
 * opening.c, smtp.c, imap.c and pop3.c share this structure; dialogue.c owns it.
 */
#ifndef STLS_MAIL_DIALOGUE_PARTS_H
#define STLS_MAIL_DIALOGUE_PARTS_H

#include "mail/content.h"
#include "mail/dialogue.h"
#include "mail/flight.h"
#include "mail/sending.h"
#include "mail/table.h"

/* Authentication, while it lasts. */
struct stls_login {
  const struct stls_mechanism *mechanism; /* NULL: the protocol's own login */
  const char *own;                        /* which of these: the protocol's name for it */
  struct stls_sasl *sasl;
  struct stls_secret credential;
  struct stls_buffer held; /* the initial response that waits to be asked for, base64 */
  bool holds;              /* `held` waits */
  struct stls_buffer sent; /* the last credential line as it was sent, to know it again */
  bool first_half;         /* own login: the user name is sent, the password is not */
  bool started;
  bool retold; /* the server told its capabilities since the login began */
};

struct stls_dialogue {
  const struct stls_dialogue_config *config;
  struct stls_channel_facts facts;
  struct stls_trace *trace;
  struct stls_buffer input, output;
  size_t heard; /* bytes consumed while opening, against limits.greeting */
  struct stls_error error;
  struct stls_capabilities capabilities;
  struct stls_encoder encoder;

  const struct stls_table *table; /* of the operation in progress */
  unsigned state;
  char during[24];     /* the operation's name; "": its table's states tell */
  enum stls_need want; /* what the operation waits for, INPUT or NOTHING otherwise */
  bool has_event;
  struct stls_event event;
  struct stls_reply reply;

  struct stls_login login;
  bool authenticated;
  bool awaits_greeting;  /* the server has not greeted yet */
  const char *mechanism; /* that succeeded */
  bool binding_used, binding_refused;
  bool upgrade_refused; /* opportunistic, and the server said no */

  struct stls_flight flight;  /* commands that wait for their answers */
  unsigned answering;         /* the command that d->reply answers */
  enum stls_answer_form form; /* of the oldest in flight */
  struct stls_content_encoder content_out;
  struct stls_content_decoder content_in;
  uint64_t literal_left; /* IMAP: octets of the announced literal to be sent yet */
  bool awaits_delivery;  /* IMAP: its end is sent, the answer has not come */
  bool leaves_idle;      /* IMAP: DONE is sent, or will be when the server takes IDLE */

  bool reading_lines; /* POP3: in the lines or content of an answer */
  bool reply_started; /* SMTP: in a reply of several lines */
  size_t reply_size;  /* SMTP, POP3: bytes of its lines so far */
  size_t scanned;     /* input bytes known to hold no line end */

  struct stls_imap_parser *parser; /* IMAP only */
  unsigned tag;                    /* of the last command */
  bool said_bye;                   /* IMAP: it was handed out, and is now to be acted on */
  bool utf8; /* IMAP: mailbox names are UTF-8 (RFC 9051, 9755); POP3: UTF8 is taken (RFC 6856) */
  struct stls_buffer timestamp; /* POP3: of the greeting, for APOP */
  struct stls_sending sending;  /* SMTP and LMTP only */
};

/* Fails with the phase filled in. Returns false. */
bool stls_dialogue_fail(struct stls_dialogue *d, enum stls_error_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Fails with the server's words from d->reply. */
bool stls_dialogue_fail_reply(struct stls_dialogue *d, enum stls_error_kind kind,
                              const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Fails because a buffer broke: kind limit or memory. `what` names what was too long. */
bool stls_dialogue_fail_buffer(struct stls_dialogue *d, const struct stls_buffer *buffer,
                               const char *what);

/* Begins an operation in a state of its table. */
void stls_dialogue_begin(struct stls_dialogue *d, const struct stls_table *table, unsigned state,
                         const char *during);

/* Ends the operation: NEED_NOTHING. An action for tables. */
void stls_dialogue_finish(struct stls_dialogue *d);

/*
 * Hands d->reply, which answers command d->answering, to the caller as an event, and ends the
 * operation when it was the last in flight. An action for tables.
 */
void stls_dialogue_finish_reply(struct stls_dialogue *d);

/* Sends a command whose arguments are known to be good (a mistake fails the dialogue). */
void stls_dialogue_send(struct stls_dialogue *d, const struct stls_arg *args, size_t count);

/* The same for one word. */
void stls_dialogue_send_word(struct stls_dialogue *d, const char *word);

/* Ends the line being encoded and moves it to the output; NULL or the refusal. */
const char *stls_dialogue_send_line(struct stls_dialogue *d);

/* Moves more of a stopped command to the output, up to where it stops again. */
void stls_dialogue_release(struct stls_dialogue *d);

/* Whether the server can have read command `number` of the flight as a whole. */
bool stls_dialogue_is_sent(const struct stls_dialogue *d, unsigned number);

/* Whether a part of the command waits for the server's "+". A guard for tables. */
bool stls_dialogue_is_stopped(const struct stls_dialogue *d);

/*
 * Takes one line (without its line end) off the input. The slice is borrowed
 * until the next read. False when none is complete, or it is too long (then failed).
 */
bool stls_dialogue_take_line(struct stls_dialogue *d, struct stls_slice *line_r);

/* Adds a received line to the trace, unless it repeats a credential. */
void stls_dialogue_trace_received(struct stls_dialogue *d, struct stls_slice line);

/* Empties d->reply. */
void stls_reply_clear(struct stls_reply *reply);

/* Adds a line to its text, within the limit; false when that breaks. */
bool stls_reply_add_line(struct stls_reply *reply, struct stls_slice line);

/* Counts a line of a reply against limits.reply; false when that breaks (then failed). */
bool stls_dialogue_count_line(struct stls_dialogue *d, struct stls_slice line);

/* Copies everything of a reply. */
void stls_reply_copy(struct stls_reply *to, const struct stls_reply *from);

/* Sets its status, cut to what fits. */
void stls_reply_set_status(struct stls_reply *reply, struct stls_slice status);

/* Takes dot-terminated content off the input: an event, or END through `*ended_r`. */
bool stls_dialogue_take_content(struct stls_dialogue *d, bool *ended_r);

/* Asks for content whose encoder is set up. An action for tables. */
void stls_dialogue_want_content(struct stls_dialogue *d);

/* opening.c: the table, and the credential that arrived. */
extern const struct stls_table stls_opening_table;
void stls_opening_begin(struct stls_dialogue *d);
void stls_opening_again(struct stls_dialogue *d); /* from the capabilities on */
void stls_opening_credential(struct stls_dialogue *d);
void stls_login_end(struct stls_login *login);

/* Counts what the server says before the session is open, against limits.greeting. */
void stls_opening_count(struct stls_dialogue *d, size_t bytes);

/* Whether a line of the server repeats the credential that was sent to it. */
bool stls_login_repeats(const struct stls_dialogue *d, struct stls_slice line);

/* What is shown, in the trace and in errors, in place of such a line. */
#define STLS_LOGIN_WITHHELD "(a line that repeats the credential)"

/* Begins an operation without a command. False when it can't: the error is set. */
bool stls_dialogue_prepare(struct stls_dialogue *d, const struct stls_table *table, unsigned state);

/* imap.c: how a command begins, goes on, behind content too, and ends idling; its states. */
void stls_imap_begin_command(struct stls_dialogue *d);
void stls_imap_command_sent(struct stls_dialogue *d);
void stls_imap_send_done(struct stls_dialogue *d);
void stls_imap_content_ended(struct stls_dialogue *d);
enum { STLS_IMAP_COMMAND, STLS_IMAP_IDLING, STLS_IMAP_LEAVING, STLS_IMAP_LISTENING };

#endif
