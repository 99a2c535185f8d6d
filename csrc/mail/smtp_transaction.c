/*
 * mail/smtp_transaction.c - messages and what the server says to them (RFC 5321 3.3).
 * Floor 2, mail wing: may rely on base/ and mail/ only.
 *
 * With PIPELINING (RFC 2920) the whole envelope goes out in one flight, with DATA or
 * with the first chunk of the content, and up to a window of transactions are under
 * way at a time; without, each command waits for the answer to the one before. The
 * table is the same: what was sent ahead is not sent again. It reads the answers to
 * the oldest transaction; see sending.h.
 *
 * A transaction that fails may leave its envelope with the server, and chunks that
 * were refused do (RFC 3030 2). So RSET goes before each transaction that is sent
 * while another in chunks is under way, and behind one that failed.
 */
#include <stdlib.h>
#include <string.h>

#include "mail/protocol.h"

/* CHUNKS, BODY, TIDY and OVER decide at once. */
enum transaction_state {
  IDLE,
  CLEAR,
  MAIL,
  RCPT,
  BODY,
  DATA,
  CONTENT,
  CHUNKS,
  CHUNK,
  DELIVERY,
  TIDY,
  RESET,
  OVER,
  PARTING
};

static const char *const state_names[] = {"mail",  "reset",   "mail",    "rcpt",    "rcpt",
                                          "data",  "content", "content", "content", "delivery",
                                          "reset", "reset",   "reset",   "quit"};

static struct stls_letter *oldest(const struct stls_dialogue *d) {
  return stls_sending_oldest(&d->sending);
}

/* {====== Guards ====== */

static bool is_pipelined(const struct stls_dialogue *d) {
  return d->sending.pipelined;
}

static bool is_chunked(const struct stls_dialogue *d) {
  return d->sending.chunked;
}

static bool has_more_recipients(const struct stls_dialogue *d) {
  return d->sending.answered + 1 < oldest(d)->recipients;
}

static bool is_accepted(const struct stls_dialogue *d) {
  return !d->sending.refused && d->sending.accepted > 0;
}

/* LMTP answers the content for each recipient, and not at all where there is none. */
static bool is_text_due(const struct stls_dialogue *d) {
  return !d->config->protocol->answers_each;
}

/* It is being written, and in vain. */
static bool must_stop(const struct stls_dialogue *d) {
  return oldest(d)->end == 0 && !oldest(d)->stopped && !is_accepted(d);
}

static bool awaits_chunk(const struct stls_dialogue *d) {
  return d->sending.chunks_answered < oldest(d)->chunks;
}

static bool awaits_verdict(const struct stls_dialogue *d) {
  return oldest(d)->end > 0 && d->sending.chunks_answered + 1 == oldest(d)->chunks;
}

static bool awaits_more(const struct stls_dialogue *d) {
  return awaits_chunk(d) || (oldest(d)->end == 0 && !oldest(d)->stopped);
}

/* LMTP, RFC 2033 4.2: an answer for each recipient that was accepted. */
static bool answers_each(const struct stls_dialogue *d) {
  return d->config->protocol->answers_each && is_accepted(d);
}

static bool has_more_deliveries(const struct stls_dialogue *d) {
  struct stls_slice fates = stls_buffer_slice(&d->sending.fates);
  const char *next =
      memchr(fates.ptr + d->sending.delivered, '+', fates.len - d->sending.delivered);
  if (!answers_each(d) || !next) return false;
  next++;
  return memchr(next, '+', (size_t)(fates.ptr + fates.len - next)) != NULL;
}

static bool is_newest(const struct stls_dialogue *d) {
  return d->sending.count == 1;
}

static bool has_parted(const struct stls_dialogue *d) {
  return d->sending.parted;
}

static bool must_part(const struct stls_dialogue *d) {
  return d->sending.farewell && d->sending.count == 1;
}

static bool has_next(const struct stls_dialogue *d) {
  return d->sending.count > 1;
}

static bool has_cleared_next(const struct stls_dialogue *d) {
  const struct stls_sending *sending = &d->sending;
  return has_next(d) && sending->flights[(sending->first + 1) % sending->window].cleared;
}

/* }====== */

/* {====== Actions ====== */

/* Sends the next command of the envelope, which is encoded already. */
static void send_next_command(struct stls_dialogue *d) {
  struct stls_slice left = stls_buffer_slice(&d->sending.commands);
  const char *lf = memchr(left.ptr, '\n', left.len);
  size_t len = lf ? (size_t)(lf - left.ptr) + 1 : 0;
  if (len == 0) return;
  stls_trace_line(d->trace, STLS_TRACE_SENT, stls_slice(left.ptr, len - 2));
  if (!stls_buffer_append(&d->output, left.ptr, len))
    stls_dialogue_fail(d, STLS_ERROR_MEMORY, "not enough memory");
  stls_buffer_consume(&d->sending.commands, len);
}

static void send_data(struct stls_dialogue *d) {
  stls_dialogue_send_word(d, "DATA");
}

static void send_reset(struct stls_dialogue *d) {
  oldest(d)->stopped = true;
  stls_dialogue_send_word(d, "RSET");
}

static void give_event(struct stls_dialogue *d, enum stls_event_type type) {
  memset(&d->event, 0, sizeof d->event);
  d->event.type = type;
  d->event.reply = &d->reply;
  d->event.text = stls_slice_of(state_names[d->state]);
  d->has_event = true;
}

/* All recipients of the oldest one are refused, and it with them. */
static bool is_hopeless(const struct stls_dialogue *d) {
  return d->sending.answered == oldest(d)->recipients && d->sending.accepted == 0;
}

/* The first refusal is the one that counts: the answers to what was sent ahead follow from it. */
static void refuse(struct stls_dialogue *d) {
  if (!d->sending.refused && !is_hopeless(d)) give_event(d, STLS_EVENT_REFUSED);
  d->sending.refused = true;
}

static void refuse_envelope(struct stls_dialogue *d) {
  refuse(d);
  stls_buffer_clear(&d->sending.commands);
}

static void refuse_text(struct stls_dialogue *d) {
  refuse(d);
  oldest(d)->stopped = true;
}

/* Once MAIL is refused, the answers to what was sent ahead say nothing of the recipients. */
static void note_recipient(struct stls_dialogue *d) {
  struct stls_sending *sending = &d->sending;
  bool accepted = d->reply.class == STLS_ON_POSITIVE;
  size_t index = sending->answered++;
  if (sending->refused) return;
  if (accepted) sending->accepted++;
  if (d->config->protocol->answers_each &&
      !stls_buffer_append_char(&sending->fates, accepted ? '+' : '-')) {
    stls_dialogue_fail(d, STLS_ERROR_MEMORY, "not enough memory");
  }
  if (accepted) return;
  give_event(d, STLS_EVENT_RECIPIENT);
  d->event.index = index;
}

static void note_and_send_next(struct stls_dialogue *d) {
  note_recipient(d);
  send_next_command(d);
}

static void begin_text(struct stls_dialogue *d) {
  stls_content_begin(d);
}

/* DATA was sent ahead and accepted although nobody was: a lone dot, RFC 2920 3.1. */
static void send_lone_dot(struct stls_dialogue *d) {
  oldest(d)->stopped = true;
  stls_dialogue_send_word(d, ".");
}

/* The server spoke up while the message was on its way: neither side can go on from here. */
static void fail_content(struct stls_dialogue *d) {
  stls_dialogue_fail_reply(d, STLS_ERROR_REJECTED, "the server refuses the message before its end");
}

static void stop_writing(struct stls_dialogue *d) {
  oldest(d)->stopped = true;
}

static void note_chunk(struct stls_dialogue *d) {
  d->sending.chunks_answered++;
}

/* RFC 3030 2: no more chunks then; those sent ahead are answered yet. */
static void refuse_chunk(struct stls_dialogue *d) {
  refuse(d);
  d->sending.chunks_answered++;
}

static void note_delivery(struct stls_dialogue *d) {
  struct stls_sending *sending = &d->sending;
  struct stls_slice fates = stls_buffer_slice(&sending->fates);
  while (sending->delivered < fates.len && fates.ptr[sending->delivered] != '+')
    sending->delivered++;
  give_event(d, STLS_EVENT_RECIPIENT);
  d->event.index = sending->delivered++;
}

static void begin_reading(struct stls_sending *sending) {
  sending->answered = sending->accepted = 0;
  sending->chunks_answered = sending->delivered = 0;
  sending->refused = false;
  stls_buffer_clear(&sending->fates);
}

static void finish_sending(struct stls_dialogue *d) {
  stls_buffer_free(&d->sending.chunk); /* an idle session needs no room for chunks */
  stls_dialogue_finish(d);
}

/* Messages that go out together fill TLS records, and spare system calls on both sides. */
static bool has_room_again(const struct stls_sending *sending) {
  return sending->count <= sending->window - (sending->window + 3) / 4;
}

static void end_transaction(struct stls_dialogue *d) {
  struct stls_sending *sending = &d->sending;
  give_event(d, STLS_EVENT_REPLY);
  sending->first = (sending->first + 1) % sending->window;
  sending->count--;
  sending->paused = false;
  if (has_room_again(sending)) sending->full = false;
  begin_reading(sending);
  if (sending->count == 0 && sending->last && !sending->farewell) finish_sending(d);
}

/* RFC 5321 4.1.1.10: the server answers and closes; or merely closes. */
static void part(struct stls_dialogue *d) {
  end_transaction(d);
  if (!d->sending.parted) stls_dialogue_send_word(d, "QUIT");
  d->form = STLS_ANSWER_GOODBYE;
}

/* }====== */

#define ANY_ANSWER (STLS_ON_POSITIVE | STLS_ON_REFUSAL)

static const struct stls_row rows[] = {
    /* state, reply, guard, next, action */
    {CLEAR, ANY_ANSWER, NULL, MAIL, NULL},

    {MAIL, STLS_ON_POSITIVE, NULL, RCPT, send_next_command},
    {MAIL, STLS_ON_REFUSAL, is_pipelined, RCPT, refuse},
    {MAIL, STLS_ON_REFUSAL, NULL, OVER, refuse_envelope},

    {RCPT, ANY_ANSWER, has_more_recipients, RCPT, note_and_send_next},
    {RCPT, ANY_ANSWER, NULL, BODY, note_recipient},

    {BODY, STLS_ON_NOTHING, is_chunked, CHUNKS, NULL},
    {BODY, STLS_ON_NOTHING, is_pipelined, DATA, NULL},
    {BODY, STLS_ON_NOTHING, is_accepted, DATA, send_data},
    {BODY, STLS_ON_NOTHING, NULL, RESET, send_reset},

    {DATA, STLS_ON_CONTINUE, is_accepted, CONTENT, begin_text},
    {DATA, STLS_ON_CONTINUE, is_text_due, DELIVERY, send_lone_dot},
    {DATA, STLS_ON_REFUSAL, NULL, TIDY, refuse_text},

    {CONTENT, STLS_ON_REFUSAL, NULL, CONTENT, fail_content},

    {CHUNKS, STLS_ON_NOTHING, must_stop, CHUNKS, stop_writing},
    {CHUNKS, STLS_ON_NOTHING, stls_content_is_due, CHUNKS, stls_content_write},
    {CHUNKS, STLS_ON_NOTHING, awaits_verdict, DELIVERY, NULL},
    {CHUNKS, STLS_ON_NOTHING, awaits_more, CHUNK, NULL},
    {CHUNKS, STLS_ON_NOTHING, NULL, TIDY, NULL},

    {CHUNK, STLS_ON_POSITIVE, awaits_chunk, CHUNKS, note_chunk},
    {CHUNK, STLS_ON_REFUSAL, awaits_chunk, CHUNKS, refuse_chunk},

    {DELIVERY, ANY_ANSWER, has_more_deliveries, DELIVERY, note_delivery},
    {DELIVERY, ANY_ANSWER, answers_each, OVER, note_delivery},
    {DELIVERY, STLS_ON_POSITIVE, is_accepted, OVER, NULL},
    {DELIVERY, ANY_ANSWER, is_chunked, TIDY, refuse},
    {DELIVERY, ANY_ANSWER, NULL, OVER, refuse},

    {TIDY, STLS_ON_NOTHING, has_parted, OVER, NULL},
    {TIDY, STLS_ON_NOTHING, is_newest, RESET, send_reset},
    {TIDY, STLS_ON_NOTHING, NULL, OVER, NULL},
    {RESET, ANY_ANSWER, NULL, OVER, NULL},

    {OVER, STLS_ON_NOTHING, has_cleared_next, CLEAR, end_transaction},
    {OVER, STLS_ON_NOTHING, has_next, MAIL, end_transaction},
    {OVER, STLS_ON_NOTHING, must_part, PARTING, part},
    {OVER, STLS_ON_NOTHING, NULL, IDLE, end_transaction},

    {PARTING, ANY_ANSWER | STLS_ON_BYE, NULL, IDLE, finish_sending},
};

static const struct stls_table transaction_table = {"smtp transaction", state_names,
                                                    sizeof state_names / sizeof state_names[0],
                                                    rows, sizeof rows / sizeof rows[0]};

/* {====== For the writer (smtp_content.c) ====== */

bool stls_transaction_sends_text(const struct stls_dialogue *d) {
  return d->state == CONTENT;
}

void stls_transaction_text_ended(struct stls_dialogue *d) {
  d->state = DELIVERY;
}

/* RFC 2920 3.1: QUIT may end a group of commands, and a new group begins behind the content. */
void stls_transaction_written(struct stls_dialogue *d) {
  struct stls_sending *sending = &d->sending;
  stls_sending_newest(sending)->end = stls_buffer_end(&d->output);
  if (!sending->farewell || !sending->pipelined) return;
  sending->parted = true;
  stls_trace_line(d->trace, STLS_TRACE_SENT, stls_slice_of("QUIT"));
  if (!stls_buffer_append_text(&d->output, "QUIT\r\n"))
    stls_dialogue_fail(d, STLS_ERROR_MEMORY, "not enough memory");
}

bool stls_transaction_is_welcome(const struct stls_dialogue *d) {
  return (d->state == CHUNKS || d->state == CHUNK) && is_accepted(d);
}

void stls_transaction_look_again(struct stls_dialogue *d) {
  if (d->state == CHUNK) d->state = CHUNKS;
}

/* }====== */

/* {====== Sending ====== */

void stls_sending_init(struct stls_sending *sending) {
  memset(sending, 0, sizeof *sending);
  stls_encoder_init(&sending->encoder, NULL);
  stls_buffer_init(&sending->commands, 0);
  stls_buffer_init(&sending->chunk, 0);
  stls_buffer_init(&sending->fates, 0);
}

void stls_sending_free(struct stls_sending *sending) {
  free(sending->flights);
  stls_encoder_free(&sending->encoder);
  stls_buffer_free(&sending->commands);
  stls_buffer_free(&sending->chunk);
  stls_buffer_free(&sending->fates);
}

void stls_dialogue_begin_sending(struct stls_dialogue *d, size_t window) {
  struct stls_sending *sending = &d->sending;
  if (!stls_dialogue_prepare(d, &transaction_table, IDLE)) return;
  sending->pipelined = stls_capabilities_find(&d->capabilities, "PIPELINING", NULL);
  sending->chunked = stls_capabilities_find(&d->capabilities, "CHUNKING", NULL);
  sending->window = sending->pipelined && window > 1 ? window : 1;
  sending->active = true;
  sending->paused = sending->last = sending->full = false;
  sending->farewell = sending->parted = false;
  sending->first = sending->count = 0;
  begin_reading(sending);
  free(sending->flights);
  sending->flights = calloc(sending->window, sizeof *sending->flights);
  if (!sending->flights) stls_dialogue_fail(d, STLS_ERROR_MEMORY, "not enough memory");
  /* Credentials are behind us, and content is no secret: no need to wipe it. */
  if (stls_buffer_length(&d->output) == 0) d->output.wipes = false;
}

static bool is_writing(const struct stls_dialogue *d) {
  const struct stls_letter *flight;
  if (d->sending.count == 0) return false;
  flight = stls_sending_newest(&d->sending);
  return flight->end == 0 && !flight->stopped;
}

static bool may_take_message(const struct stls_dialogue *d) {
  const struct stls_sending *sending = &d->sending;
  return sending->active && d->want == STLS_NEED_INPUT && !sending->last && !sending->paused &&
         !sending->full && !is_writing(d);
}

enum stls_need stls_sending_need(const struct stls_dialogue *d) {
  if (stls_content_is_wanted(d)) return STLS_NEED_CONTENT;
  return may_take_message(d) ? STLS_NEED_MESSAGE : STLS_NEED_INPUT;
}

bool stls_sending_may_drain(const struct stls_dialogue *d) {
  return d->sending.last && d->want == STLS_NEED_INPUT && !is_writing(d);
}

size_t stls_sending_unanswered(const struct stls_dialogue *d) {
  const struct stls_sending *sending = &d->sending;
  size_t i, unanswered = 0;
  if (!sending->active) return 0;
  for (i = 0; i < sending->count; i++) {
    const struct stls_letter *flight = &sending->flights[(sending->first + i) % sending->window];
    bool hopeless = i == 0 && (sending->refused || is_hopeless(d));
    if (flight->end == 0 || flight->end > d->output.consumed) break;
    if (!hopeless) unanswered++;
  }
  return unanswered;
}

void stls_dialogue_farewell(struct stls_dialogue *d) {
  if (d->sending.active && d->sending.count == 0) d->sending.farewell = true;
}

void stls_dialogue_no_message(struct stls_dialogue *d, bool last) {
  struct stls_sending *sending = &d->sending;
  if (!sending->active) return;
  sending->paused = true;
  if (last) sending->last = true;
  if (sending->count == 0 && d->want == STLS_NEED_INPUT) finish_sending(d);
}

/* }====== */

/* {====== The envelope ====== */

/* Encodes one command and keeps it. NULL or the refusal. */
static const char *keep_command(struct stls_dialogue *d, const char *verb, const char *keyword,
                                const struct stls_args *args) {
  struct stls_encoder *encoder = &d->sending.encoder;
  const char *refusal;
  size_t i;
  stls_encoder_begin(encoder);
  encoder->longest = d->config->protocol->longest_command;
  stls_encoder_add(encoder, STLS_ARG_ATOM, stls_slice_of(verb));
  if (keyword) stls_encoder_add(encoder, STLS_ARG_KEYWORD, stls_slice_of(keyword));
  for (i = 0; args && i < args->count; i++)
    stls_encoder_add(encoder, args->list[i].type, args->list[i].value);
  refusal = stls_encoder_end(encoder);
  if (!refusal && !stls_encoder_release(encoder, &d->sending.commands))
    stls_dialogue_fail(d, STLS_ERROR_MEMORY, "not enough memory");
  return refusal;
}

static const char *keep_envelope(struct stls_dialogue *d, const struct stls_envelope *envelope,
                                 bool cleared) {
  const char *refusal = cleared ? keep_command(d, "RSET", NULL, NULL) : NULL;
  size_t i;
  if (!refusal) refusal = keep_command(d, "MAIL", "FROM:", &envelope->mail);
  for (i = 0; i < envelope->count && !refusal; i++) {
    const struct stls_args *recipient = &envelope->recipients[i];
    refusal = recipient->list[0].value.len == 0 ? "recipient is an empty address"
                                                : keep_command(d, "RCPT", "TO:", recipient);
  }
  if (!refusal && d->sending.pipelined && !d->sending.chunked)
    refusal = keep_command(d, "DATA", NULL, NULL);
  return refusal;
}

const char *stls_dialogue_message(struct stls_dialogue *d, const struct stls_envelope *envelope) {
  struct stls_sending *sending = &d->sending;
  struct stls_letter *flight;
  bool cleared = sending->chunked && sending->count > 0;
  const char *refusal;
  if (!may_take_message(d)) return NULL;
  stls_buffer_clear(&sending->commands);
  refusal = keep_envelope(d, envelope, cleared);
  if (refusal || d->error.kind != STLS_ERROR_NONE) return refusal;
  sending->count++;
  sending->full = sending->count == sending->window;
  sending->last = sending->farewell;
  flight = stls_sending_newest(sending);
  memset(flight, 0, sizeof *flight);
  flight->recipients = envelope->count;
  flight->binary = envelope->binary;
  flight->cleared = cleared;
  if (sending->count == 1) d->state = MAIL;
  if (sending->chunked) stls_content_begin(d);
  do send_next_command(d);
  while (sending->pipelined && stls_buffer_length(&sending->commands) > 0 &&
         d->error.kind == STLS_ERROR_NONE);
  return NULL;
}

/* }====== */
