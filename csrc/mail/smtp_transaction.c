/*
 * mail/smtp_transaction.c - one message to any number of recipients (RFC 5321 3.3).
 * Floor 2, mail wing: may rely on base/ and mail/ only.
 *
 * With PIPELINING (RFC 2920) the whole envelope and DATA go out in one flight;
 * without, each command waits for the answer to the one before. The table is the
 * same: what was sent ahead is not sent again.
 */
#include <string.h>

#include "mail/protocol.h"

enum transaction_state { MAIL, RCPT, DATA, CONTENT, DELIVERY, RESET };

static const char *const state_names[] = {"mail", "rcpt", "data", "content", "delivery", "reset"};

/* {====== Guards ====== */

static bool is_pipelined(const struct stls_dialogue *d) {
  return d->transaction.pipelined;
}

static bool has_more_recipients(const struct stls_dialogue *d) {
  return d->transaction.answered + 1 < d->transaction.count;
}

static bool is_accepted(const struct stls_dialogue *d) {
  return !d->transaction.refused && d->transaction.accepted > 0;
}

/* The last RCPT is refused, as all before were, and DATA is not sent yet. */
static bool is_hopeless(const struct stls_dialogue *d) {
  return !d->transaction.pipelined && d->transaction.accepted == 0;
}

static bool is_refused(const struct stls_dialogue *d) {
  return d->transaction.refused;
}

/* }====== */

/* {====== Actions ====== */

/* The commands are encoded already: the next one is the next line. */
static void send_recipient(struct stls_dialogue *d) {
  struct stls_transaction *transaction = &d->transaction;
  struct stls_slice left = stls_buffer_slice(&transaction->commands);
  const char *lf = memchr(left.ptr, '\n', left.len);
  size_t len = lf ? (size_t)(lf - left.ptr) + 1 : left.len;
  transaction->sent++;
  if (len >= 2) stls_trace_line(d->trace, STLS_TRACE_SENT, stls_slice(left.ptr, len - 2));
  if (!stls_buffer_append(&d->output, left.ptr, len))
    stls_dialogue_fail(d, STLS_ERROR_MEMORY, "not enough memory");
  stls_buffer_consume(&transaction->commands, len);
}

static void send_next_recipient(struct stls_dialogue *d) {
  if (d->transaction.sent == d->transaction.answered) send_recipient(d);
}

static void send_data(struct stls_dialogue *d) {
  if (!d->transaction.pipelined) stls_dialogue_send_word(d, "DATA");
}

/* Keeps the first refusal: it is what the caller is told in the end. */
static void keep_refusal(struct stls_dialogue *d) {
  struct stls_transaction *transaction = &d->transaction;
  if (transaction->refused) return;
  transaction->refused = true;
  stls_reply_copy(&transaction->refusal, &d->reply);
}

static void finish_refused(struct stls_dialogue *d) {
  if (d->transaction.refused) stls_reply_copy(&d->reply, &d->transaction.refusal);
  stls_dialogue_finish_reply(d);
}

/* After a refusal the server may still hold the envelope: RSET clears it (RFC 5321 4.1.1.5). */
static void keep_refusal_and_reset(struct stls_dialogue *d) {
  keep_refusal(d);
  stls_dialogue_send_word(d, "RSET");
}

/* Once MAIL is refused, the answers to what was sent ahead say nothing of the recipients. */
static void note_recipient(struct stls_dialogue *d) {
  size_t index = d->transaction.answered++;
  if (d->transaction.refused) return;
  memset(&d->event, 0, sizeof d->event);
  d->event.type = STLS_EVENT_RECIPIENT;
  d->event.index = index;
  d->event.reply = &d->reply;
  d->has_event = true;
  if (d->reply.class == STLS_ON_POSITIVE) d->transaction.accepted++;
}

static void note_and_send_next(struct stls_dialogue *d) {
  note_recipient(d);
  send_next_recipient(d);
}

static void note_and_send_data(struct stls_dialogue *d) {
  note_recipient(d);
  send_data(d);
}

static void note_and_reset(struct stls_dialogue *d) {
  note_recipient(d);
  keep_refusal_and_reset(d);
}

static void begin_content(struct stls_dialogue *d) {
  stls_content_encoder_init(&d->content_out, true);
  stls_dialogue_want_content(d);
}

/* DATA was sent ahead and accepted although nobody was: a lone dot, RFC 2920 3.1. */
static void send_lone_dot(struct stls_dialogue *d) {
  stls_dialogue_send_word(d, ".");
}

/* The server spoke up while the message was on its way: neither side can go on from here. */
static void fail_content(struct stls_dialogue *d) {
  stls_dialogue_fail_reply(d, STLS_ERROR_REJECTED, "the server refuses the message before its end");
}

/* }====== */

static const struct stls_row rows[] = {
    /* state, reply, guard, next, action */
    {MAIL, STLS_ON_POSITIVE, NULL, RCPT, send_next_recipient},
    {MAIL, STLS_ON_REFUSAL, is_pipelined, RCPT, keep_refusal},
    {MAIL, STLS_ON_REFUSAL, NULL, RESET, finish_refused},

    {RCPT, STLS_ON_POSITIVE | STLS_ON_REFUSAL, has_more_recipients, RCPT, note_and_send_next},
    {RCPT, STLS_ON_POSITIVE, NULL, DATA, note_and_send_data},
    {RCPT, STLS_ON_REFUSAL, is_hopeless, RESET, note_and_reset},
    {RCPT, STLS_ON_REFUSAL, NULL, DATA, note_and_send_data},

    {DATA, STLS_ON_CONTINUE, is_accepted, CONTENT, begin_content},
    {DATA, STLS_ON_CONTINUE, NULL, DELIVERY, send_lone_dot},
    {DATA, STLS_ON_REFUSAL, NULL, RESET, keep_refusal_and_reset},

    {CONTENT, STLS_ON_REFUSAL, NULL, CONTENT, fail_content},

    {DELIVERY, STLS_ON_POSITIVE | STLS_ON_REFUSAL, is_refused, RESET, finish_refused},
    {DELIVERY, STLS_ON_POSITIVE | STLS_ON_REFUSAL, NULL, DELIVERY, stls_dialogue_finish_reply},

    {RESET, STLS_ON_POSITIVE | STLS_ON_REFUSAL, NULL, RESET, finish_refused},
};

const struct stls_table stls_transaction_table = {"smtp transaction", state_names,
                                                  sizeof state_names / sizeof state_names[0], rows,
                                                  sizeof rows / sizeof rows[0]};

/* The content's end is on its way: from here on, the message may be the server's. */
void stls_transaction_content_ended(struct stls_dialogue *d) {
  size_t before = stls_buffer_length(&d->output);
  stls_content_encode_end(&d->content_out, &d->output);
  stls_trace_content(d->trace, STLS_TRACE_SENT, stls_buffer_length(&d->output) - before);
  if (!stls_buffer_append_text(&d->output, ".\r\n")) {
    stls_dialogue_fail_buffer(d, &d->output, "content");
    return;
  }
  stls_trace_line(d->trace, STLS_TRACE_SENT, stls_slice_of("."));
  d->state = DELIVERY;
  d->awaits_delivery = true;
}

/* Encodes the RCPT command of each recipient, and keeps it. NULL or the refusal. */
static const char *keep_recipient(struct stls_dialogue *d, const struct stls_args *recipient) {
  struct stls_encoder *encoder = &d->transaction.encoder;
  const char *refusal;
  size_t i;
  if (recipient->list[0].value.len == 0) return "recipient is an empty address";
  stls_encoder_begin(encoder);
  encoder->longest = d->config->protocol->longest_command;
  stls_encoder_add(encoder, STLS_ARG_ATOM, stls_slice_of("RCPT"));
  stls_encoder_add(encoder, STLS_ARG_KEYWORD, stls_slice_of("TO:"));
  for (i = 0; i < recipient->count; i++)
    stls_encoder_add(encoder, recipient->list[i].type, recipient->list[i].value);
  refusal = stls_encoder_end(encoder);
  if (!refusal && !stls_encoder_release(encoder, &d->transaction.commands))
    stls_dialogue_fail(d, STLS_ERROR_MEMORY, "not enough memory");
  return refusal;
}

static const char *keep_recipients(struct stls_dialogue *d, const struct stls_args *recipients,
                                   size_t count) {
  const char *refusal = NULL;
  size_t i;
  stls_buffer_clear(&d->transaction.commands);
  for (i = 0; i < count && !refusal; i++) refusal = keep_recipient(d, &recipients[i]);
  return refusal;
}

const char *stls_dialogue_transaction(struct stls_dialogue *d, const struct stls_arg *mail,
                                      size_t mail_count, const struct stls_args *recipients,
                                      size_t recipient_count) {
  struct stls_transaction *transaction = &d->transaction;
  const char *refusal = keep_recipients(d, recipients, recipient_count);
  if (refusal) return refusal;
  if (d->error.kind != STLS_ERROR_NONE) return NULL;
  transaction->count = recipient_count;
  transaction->sent = 0;
  transaction->answered = transaction->accepted = 0;
  transaction->refused = false;
  transaction->pipelined = stls_capabilities_find(&d->capabilities, "PIPELINING", NULL);
  refusal = stls_dialogue_command(d, NULL, mail, mail_count, STLS_ANSWER_REPLY, NULL);
  if (refusal || d->error.kind != STLS_ERROR_NONE) return refusal;
  stls_dialogue_begin(d, &stls_transaction_table, MAIL, NULL);
  if (!transaction->pipelined) return NULL;
  while (transaction->sent < transaction->count) send_recipient(d);
  stls_dialogue_send_word(d, "DATA");
  return NULL;
}
