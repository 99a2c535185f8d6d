/*
 * mail/sending.h - messages on their way through SMTP or LMTP, several at a time.
 * Floor 2, mail wing: may rely on base/ and mail/ only. A part of dialogue_parts.h.
 *
 * What is said and what is heard run apart: with PIPELINING (RFC 2920), later
 * messages are being written while the answers to earlier ones are read. Answers
 * come in the order of the commands, so it takes two places only: the newest
 * transaction is the one being written (smtp_content.c), the oldest the one whose
 * answers are read (smtp_transaction.c). In between are those written to their end.
 */
#ifndef STLS_MAIL_SENDING_H
#define STLS_MAIL_SENDING_H

#include "base/buffer.h"
#include "mail/encoder.h"

/* One transaction, as it was written. */
struct stls_letter {
  size_t recipients;
  size_t chunks; /* BDAT commands written */
  uint64_t end;  /* where in the output its content ends; 0: that is not written yet */
  bool cleared;  /* RSET goes before it */
  bool binary;   /* content passes as it is (RFC 3030 3) */
  bool ended;    /* the caller has no more content; chunks may still be held back */
  bool stopped;  /* refused or abandoned: no more content goes out */
};

struct stls_sending {
  bool active;    /* an operation sends messages */
  bool pipelined; /* commands go out without waiting (RFC 2920) */
  bool chunked;   /* BDAT, not DATA (RFC 3030) */
  bool paused;    /* the caller has no message until a transaction has ended */
  bool last;      /* the caller has no more messages */
  bool full;      /* the window was, and there is not enough room again yet */
  bool farewell;  /* the next message is the last of the session: QUIT goes right behind it */
  bool parted;    /* QUIT is written */

  struct stls_letter *flights; /* a ring */
  size_t window;               /* its size */
  size_t first, count;         /* the oldest, and how many */

  struct stls_encoder encoder; /* of the envelope; its trace is added when lines are sent */
  struct stls_buffer commands; /* of the newest one's envelope, not sent yet */
  struct stls_buffer chunk;    /* of the newest one's content, not sent yet */
  const char *complaint;       /* why a piece of content was refused, and its message abandoned */

  size_t answered;          /* of the oldest: RCPT commands answered */
  size_t accepted;          /* of them positively */
  size_t chunks_answered;   /* BDAT commands answered */
  size_t delivered;         /* LMTP: recipients looked at for the answers to the content */
  bool refused;             /* a command for all recipients was refused */
  struct stls_buffer fates; /* LMTP: '+' or '-' for each recipient */
};

struct stls_dialogue;

void stls_sending_init(struct stls_sending *sending);
void stls_sending_free(struct stls_sending *sending);

/* smtp_transaction.c: what the dialogue needs while an operation sends. */
enum stls_need stls_sending_need(const struct stls_dialogue *d);

/* smtp_transaction.c: transactions whose end was sent and whose fate nobody knows. */
size_t stls_sending_unanswered(const struct stls_dialogue *d);

/* smtp_transaction.c: see stls_dialogue_may_drain. */
bool stls_sending_may_drain(const struct stls_dialogue *d);

/* The newest transaction; there is one. */
static inline struct stls_letter *stls_sending_newest(const struct stls_sending *sending) {
  return &sending->flights[(sending->first + sending->count - 1) % sending->window];
}

/* The oldest; there is one. */
static inline struct stls_letter *stls_sending_oldest(const struct stls_sending *sending) {
  return &sending->flights[sending->first];
}

/* smtp_content.c: whether the newest one's content is being written. */
bool stls_content_is_open(const struct stls_dialogue *d);

/* Whether more of it is wanted now. */
bool stls_content_is_wanted(const struct stls_dialogue *d);

/* Begins it, when its transaction begins. */
void stls_content_begin(struct stls_dialogue *d);

/* Takes a piece. False when it can't be sent: the transaction is abandoned, or the dialogue fails.
 */
bool stls_content_take(struct stls_dialogue *d, struct stls_slice piece);

/* Takes its end. */
void stls_content_end(struct stls_dialogue *d);

/* Whether a chunk may be written: a guard for tables; and the action that does so. */
bool stls_content_is_due(const struct stls_dialogue *d);
void stls_content_write(struct stls_dialogue *d);

/* smtp_transaction.c: the newest one's content is written to its end. */
void stls_transaction_written(struct stls_dialogue *d);

/* smtp_transaction.c: the state of the reader may be another now that something was written. */
void stls_transaction_look_again(struct stls_dialogue *d);

/* The text behind DATA may go out; and is it on its way? */
bool stls_transaction_sends_text(const struct stls_dialogue *d);

/* The text has ended, with its dot. */
void stls_transaction_text_ended(struct stls_dialogue *d);

/* Whether the oldest one's envelope is answered, and somebody accepted. */
bool stls_transaction_is_welcome(const struct stls_dialogue *d);

#endif
