/*
 * mail/dialogue.c - see dialogue.h: the part that all protocols and operations share.
 *
 * One turn of stls_dialogue_next: the protocol's reader takes a reply or an
 * event off the input; a reply is looked up in the operation's table, whose row
 * may send, ask the caller for something, hand out an event, finish or fail.
 */
#include "mail/dialogue.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mail/protocol.h"

/* While message content is sent, ask for more of it below this; one TLS flight or so. */
#define OUTPUT_LOW_WATER (64 * 1024)
#define KEPT_CAPACITY    (4 * 1024) /* memory that an idle dialogue's buffers keep, bytes each */

const struct stls_protocol *stls_protocol_named(const char *name) {
  static const struct stls_protocol *const protocols[] = {&stls_smtp, &stls_lmtp, &stls_imap,
                                                          &stls_pop3};
  size_t i;
  for (i = 0; i < sizeof protocols / sizeof protocols[0]; i++) {
    if (strcmp(protocols[i]->name, name) == 0) return protocols[i];
  }
  return NULL;
}

struct stls_dialogue *stls_dialogue_new(const struct stls_dialogue_config *config,
                                        const struct stls_channel_facts *facts,
                                        struct stls_trace *trace) {
  struct stls_dialogue *d = calloc(1, sizeof *d);
  if (!d) return NULL;
  d->config = config;
  d->facts = *facts;
  d->trace = trace;
  d->want = STLS_NEED_NOTHING;
  stls_buffer_init(&d->input, 0);
  stls_buffer_init(&d->output, 0);
  d->output.wipes = true;
  stls_capabilities_init(&d->capabilities, config->limits.line);
  stls_encoder_init(&d->encoder, trace && trace->on ? trace : NULL);
  stls_buffer_init(&d->reply.text, config->limits.reply);
  stls_buffer_init(&d->login.held, 0);
  d->login.held.wipes = true;
  stls_buffer_init(&d->login.sent, 0);
  d->login.sent.wipes = true;
  stls_buffer_init(&d->timestamp, 0);
  stls_sending_init(&d->sending);
  if (config->protocol == &stls_imap) {
    d->parser = stls_imap_parser_new(&config->limits);
    if (!d->parser) {
      stls_dialogue_free(d);
      return NULL;
    }
    if (d->encoder.trace) stls_imap_parser_record(d->parser);
  }
  return d;
}

void stls_dialogue_free(struct stls_dialogue *d) {
  if (!d) return;
  stls_login_end(&d->login);
  stls_buffer_free(&d->input);
  stls_buffer_free(&d->output);
  stls_capabilities_free(&d->capabilities);
  stls_encoder_free(&d->encoder);
  stls_buffer_free(&d->reply.text);
  stls_buffer_free(&d->timestamp);
  stls_sending_free(&d->sending);
  stls_imap_parser_free(d->parser);
  stls_error_free(&d->error);
  free(d);
}

struct stls_buffer *stls_dialogue_input(struct stls_dialogue *d) {
  return &d->input;
}

struct stls_buffer *stls_dialogue_output(struct stls_dialogue *d) {
  return &d->output;
}

const struct stls_capabilities *stls_dialogue_capabilities(const struct stls_dialogue *d) {
  return &d->capabilities;
}

struct stls_error *stls_dialogue_error(struct stls_dialogue *d) {
  return &d->error;
}

const char *stls_dialogue_phase(const struct stls_dialogue *d) {
  if (d->during[0]) return d->during;
  return d->table ? d->table->states[d->state] : "idle";
}

bool stls_dialogue_is_authenticated(const struct stls_dialogue *d) {
  return d->authenticated;
}

const char *stls_dialogue_mechanism(const struct stls_dialogue *d) {
  return d->mechanism;
}

const char *stls_dialogue_binding(const struct stls_dialogue *d, bool *refused_r) {
  *refused_r = d->binding_refused;
  return d->binding_used ? d->facts.binding_type : NULL;
}

bool stls_dialogue_is_idle(const struct stls_dialogue *d) {
  return d->want == STLS_NEED_NOTHING;
}

bool stls_dialogue_may_drain(const struct stls_dialogue *d) {
  bool listens = d->want == STLS_NEED_INPUT || d->want == STLS_NEED_COMPRESSION;
  if (d->sending.active) return stls_sending_may_drain(d);
  return d->table == d->config->protocol->command_table && listens && !stls_dialogue_is_stopped(d);
}

void stls_dialogue_tag(const struct stls_dialogue *d, char tag_r[STLS_TAG_SIZE]) {
  snprintf(tag_r, STLS_TAG_SIZE, "A%u", d->tag);
}

size_t stls_dialogue_unanswered(const struct stls_dialogue *d) {
  if (d->awaits_delivery && stls_buffer_length(&d->output) == 0) return 1;
  return stls_sending_unanswered(d);
}

/* {====== Failing ====== */

/* The server's words as they may be shown: not when they repeat a credential. */
static struct stls_slice showable(const struct stls_dialogue *d, struct stls_slice text) {
  return stls_login_repeats(d, text) ? stls_slice_of(STLS_LOGIN_WITHHELD) : text;
}

static void set_error(struct stls_dialogue *d, enum stls_error_kind kind, const char *format,
                      va_list args) __attribute__((format(printf, 3, 0)));

static void set_error(struct stls_dialogue *d, enum stls_error_kind kind, const char *format,
                      va_list args) {
  char message[1024];
  vsnprintf(message, sizeof message, format, args);
  stls_error_set(&d->error, kind, stls_dialogue_phase(d), "%s", message);
  d->error.unknown = stls_dialogue_unanswered(d) > 0;
}

bool stls_dialogue_fail(struct stls_dialogue *d, enum stls_error_kind kind, const char *format,
                        ...) {
  va_list args;
  va_start(args, format);
  set_error(d, kind, format, args);
  va_end(args);
  return false;
}

bool stls_dialogue_fail_reply(struct stls_dialogue *d, enum stls_error_kind kind,
                              const char *format, ...) {
  va_list args;
  if (d->error.kind != STLS_ERROR_NONE) return false;
  va_start(args, format);
  set_error(d, kind, format, args);
  va_end(args);
  stls_error_reply(&d->error, d->reply.code, stls_slice_of(d->reply.status),
                   showable(d, stls_buffer_slice(&d->reply.text)));
  if (d->reply.class & (STLS_ON_TRANSIENT | STLS_ON_BYE)) d->error.temporary = true;
  if (d->reply.class & (STLS_ON_REFUSAL | STLS_ON_BYE)) d->error.unknown = false; /* it said no */
  return false;
}

bool stls_dialogue_fail_buffer(struct stls_dialogue *d, const struct stls_buffer *buffer,
                               const char *what) {
  if (buffer->failure == STLS_BUFFER_MEMORY) {
    return stls_dialogue_fail(d, STLS_ERROR_MEMORY, "not enough memory");
  }
  return stls_dialogue_fail(d, STLS_ERROR_LIMIT,
                            "the server's %s is longer than the limit of %zu bytes", what,
                            buffer->limit);
}

void stls_dialogue_input_ended(struct stls_dialogue *d, bool clean) {
  if (d->form == STLS_ANSWER_GOODBYE && d->want != STLS_NEED_NOTHING &&
      !d->config->protocol->goodbye_counts) {
    stls_dialogue_finish(d);
    return;
  }
  if (stls_dialogue_unanswered(d) > 0) {
    stls_dialogue_fail(d, STLS_ERROR_CLOSED,
                       "the connection was lost after the message's end and before the server's "
                       "answer: whether it will be delivered is unknown");
    return;
  }
  if (clean) {
    stls_dialogue_fail(d, STLS_ERROR_CLOSED, "the server closed the connection");
  } else {
    stls_dialogue_fail(d, STLS_ERROR_CLOSED,
                       "the connection ended without TLS close-notify: what came may be cut short");
  }
}

/* }====== */

/* {====== Turns ====== */

void stls_dialogue_begin(struct stls_dialogue *d, const struct stls_table *table, unsigned state,
                         const char *during) {
  d->table = table;
  d->state = state;
  snprintf(d->during, sizeof d->during, "%s", during ? during : "");
  d->want = STLS_NEED_INPUT;
  d->has_event = false;
  d->form = STLS_ANSWER_REPLY;
  d->sending.active = false;
  d->awaits_delivery = false;
}

static void rest(struct stls_dialogue *d) {
  if (stls_buffer_length(&d->input) == 0) stls_buffer_shrink(&d->input, KEPT_CAPACITY);
  if (stls_buffer_length(&d->output) == 0) stls_buffer_shrink(&d->output, KEPT_CAPACITY);
}

void stls_dialogue_finish(struct stls_dialogue *d) {
  d->want = STLS_NEED_NOTHING;
}

void stls_dialogue_finish_reply(struct stls_dialogue *d) {
  memset(&d->event, 0, sizeof d->event);
  d->event.type = STLS_EVENT_REPLY;
  d->event.index = d->answering;
  d->event.reply = &d->reply;
  if (d->parser) d->event.response = stls_imap_parser_response(d->parser);
  d->has_event = true;
  stls_encoder_drop(&d->encoder); /* of a command that is refused before its end */
  stls_flight_answer(&d->flight, d->answering);
  if (d->answering == 0) d->awaits_delivery = false; /* the only one that can have content */
  d->answering = d->flight.oldest;
  if (stls_flight_is_over(&d->flight)) stls_dialogue_finish(d);
  else d->form = (enum stls_answer_form)stls_flight_form(&d->flight);
}

static void take_row(struct stls_dialogue *d, const struct stls_row *row) {
  if (row->action) row->action(d);
  if (d->error.kind == STLS_ERROR_NONE) d->state = row->next;
}

static void no_row(struct stls_dialogue *d) {
  if (d->reply.class == STLS_ON_BYE) {
    stls_dialogue_fail_reply(d, STLS_ERROR_CLOSED, "the server is closing the connection");
    return;
  }
  stls_dialogue_fail_reply(d, STLS_ERROR_PROTOCOL, "the server's answer makes no sense here");
}

/* Looks the reply up and goes on through the states that decide by themselves. */
static void react(struct stls_dialogue *d, unsigned class) {
  for (;;) {
    const struct stls_row *row = stls_table_find(d->table, d->state, class, d);
    if (!row) {
      no_row(d);
      return;
    }
    take_row(d, row);
    if (d->error.kind != STLS_ERROR_NONE || d->want != STLS_NEED_INPUT) return;
    if (d->has_event && d->sending.active) return; /* it comes first */
    if (!stls_table_decides(d->table, d->state)) return;
    class = STLS_ON_NOTHING;
  }
}

static enum stls_need need_more(const struct stls_dialogue *d) {
  if (stls_buffer_length(&d->output) >= OUTPUT_LOW_WATER) return STLS_NEED_INPUT;
  return d->sending.active ? stls_sending_need(d) : d->want;
}

static enum stls_need give_event(struct stls_dialogue *d, struct stls_event *event_r) {
  *event_r = d->event;
  d->has_event = false;
  return STLS_NEED_CARE;
}

enum stls_need stls_dialogue_next(struct stls_dialogue *d, struct stls_event *event_r) {
  for (;;) {
    if (d->error.kind != STLS_ERROR_NONE) return STLS_NEED_BURIAL;
    if (d->has_event) return give_event(d, event_r);
    if (d->want == STLS_NEED_NOTHING) rest(d);
    if (d->want != STLS_NEED_INPUT && d->want != STLS_NEED_CONTENT) return d->want;
    if (d->sending.active && stls_table_decides(d->table, d->state)) {
      react(d, STLS_ON_NOTHING);
      continue;
    }
    switch (d->config->protocol->read(d)) {
      case STLS_READ_MORE: return need_more(d);
      case STLS_READ_REPLY:
        if (d->error.kind == STLS_ERROR_NONE) react(d, d->reply.class);
        break;
      case STLS_READ_EVENT: d->has_event = true; break;
      case STLS_READ_FAILED: break;
    }
  }
}

/* }====== */

/* {====== Lines in, lines out ====== */

void stls_dialogue_trace_received(struct stls_dialogue *d, struct stls_slice line) {
  if (d->trace && d->trace->on) stls_trace_line(d->trace, STLS_TRACE_RECEIVED, showable(d, line));
}

bool stls_dialogue_take_line(struct stls_dialogue *d, struct stls_slice *line_r) {
  struct stls_slice input = stls_buffer_slice(&d->input);
  const char *lf = memchr(input.ptr + d->scanned, '\n', input.len - d->scanned);
  size_t len = lf ? (size_t)(lf - input.ptr) : input.len;
  if (len > d->config->limits.line) {
    stls_dialogue_fail(d, STLS_ERROR_LIMIT,
                       "the server's line is longer than the limit of %zu bytes",
                       d->config->limits.line);
    return false;
  }
  if (!lf) {
    d->scanned = input.len;
    return false;
  }
  d->scanned = 0;
  stls_buffer_consume(&d->input, len + 1);
  *line_r = stls_slice(input.ptr, len > 0 && lf[-1] == '\r' ? len - 1 : len);
  stls_opening_count(d, len);
  stls_dialogue_trace_received(d, *line_r);
  return d->error.kind == STLS_ERROR_NONE;
}

void stls_reply_clear(struct stls_reply *reply) {
  reply->code = 0;
  reply->status[0] = '\0';
  stls_buffer_clear(&reply->text);
}

bool stls_reply_add_line(struct stls_reply *reply, struct stls_slice line) {
  if (stls_buffer_length(&reply->text) > 0) stls_buffer_append_char(&reply->text, '\n');
  return stls_buffer_append_slice(&reply->text, line);
}

bool stls_dialogue_count_line(struct stls_dialogue *d, struct stls_slice line) {
  d->reply_size += line.len + 2; /* its line end: empty lines count as well */
  if (d->reply_size <= d->config->limits.reply) return true;
  return stls_dialogue_fail(d, STLS_ERROR_LIMIT,
                            "the server's reply is longer than the limit of %zu bytes",
                            d->config->limits.reply);
}

void stls_reply_copy(struct stls_reply *to, const struct stls_reply *from) {
  to->class = from->class;
  to->code = from->code;
  memcpy(to->status, from->status, sizeof to->status);
  stls_buffer_clear(&to->text);
  stls_buffer_append_slice(&to->text, stls_buffer_slice(&from->text));
}

void stls_reply_set_status(struct stls_reply *reply, struct stls_slice status) {
  size_t len = status.len < sizeof reply->status ? status.len : sizeof reply->status - 1;
  memcpy(reply->status, status.ptr, len);
  reply->status[len] = '\0';
}

void stls_dialogue_release(struct stls_dialogue *d) {
  if (!stls_encoder_release(&d->encoder, &d->output)) {
    stls_dialogue_fail(d, STLS_ERROR_MEMORY, "not enough memory");
  }
}

bool stls_dialogue_is_stopped(const struct stls_dialogue *d) {
  return stls_encoder_stopped(&d->encoder);
}

bool stls_dialogue_is_sent(const struct stls_dialogue *d, unsigned number) {
  if (number + 1 < d->flight.sent) return d->output.consumed >= stls_flight_end(&d->flight, number);
  return !stls_dialogue_is_stopped(d) && stls_buffer_length(&d->output) == 0;
}

const char *stls_dialogue_send_line(struct stls_dialogue *d) {
  const char *refusal = stls_encoder_end(&d->encoder);
  if (!refusal) stls_dialogue_release(d);
  return refusal;
}

/* Puts a command together; ending its line is the caller's. `longest` as in the encoder. */
static void encode(struct stls_dialogue *d, const struct stls_arg *args, size_t count,
                   size_t longest) {
  size_t i;
  stls_encoder_begin(&d->encoder);
  d->encoder.longest = longest;
  d->encoder.utf8 = d->utf8;
  if (d->parser) stls_imap_begin_command(d);
  for (i = 0; i < count; i++) stls_encoder_add(&d->encoder, args[i].type, args[i].value);
}

void stls_dialogue_send(struct stls_dialogue *d, const struct stls_arg *args, size_t count) {
  const char *refusal;
  encode(d, args, count, 0);
  stls_flight_begin(&d->flight);
  stls_flight_add(&d->flight, STLS_ANSWER_REPLY, 0);
  d->answering = 0;
  refusal = stls_dialogue_send_line(d);
  if (refusal) stls_dialogue_fail(d, STLS_ERROR_AUTH, "%s", refusal);
}

void stls_dialogue_send_word(struct stls_dialogue *d, const char *word) {
  struct stls_arg arg = {STLS_ARG_ATOM, stls_slice_of(word)};
  stls_dialogue_send(d, &arg, 1);
}

bool stls_dialogue_take_content(struct stls_dialogue *d, bool *ended_r) {
  struct stls_slice input, piece = {NULL, 0};
  *ended_r = false;
  do {
    input = stls_buffer_slice(&d->input);
    stls_buffer_consume(&d->input, stls_content_decode(&d->content_in, input, &piece));
    if (d->content_in.state == STLS_CONTENT_END) {
      stls_dialogue_trace_received(d, stls_slice_of("."));
      *ended_r = true;
      return false;
    }
  } while (piece.len == 0 && stls_buffer_length(&d->input) > 0);
  if (piece.len == 0) return false;
  stls_trace_content(d->trace, STLS_TRACE_RECEIVED, piece.len);
  memset(&d->event, 0, sizeof d->event);
  d->event.type = STLS_EVENT_CONTENT;
  d->event.text = piece;
  return true;
}

/* }====== */

/* {====== Operations ====== */

void stls_dialogue_open(struct stls_dialogue *d) {
  stls_opening_begin(d);
  if (stls_table_decides(d->table, d->state)) react(d, STLS_ON_NOTHING);
}

void stls_dialogue_authenticate(struct stls_dialogue *d) {
  if (d->error.kind == STLS_ERROR_NONE) stls_opening_again(d);
}

void stls_dialogue_forget_login(struct stls_dialogue *d) {
  d->authenticated = false;
  d->mechanism = NULL;
  d->binding_used = d->binding_refused = false;
  d->utf8 = false;
}

/* SMTP and POP3 servers speak only when spoken to: what is there already answers nothing. */
static bool spoke_unasked(struct stls_dialogue *d) {
  struct stls_slice line;
  if (d->parser || stls_buffer_length(&d->input) == 0) return false;
  if (!stls_dialogue_take_line(d, &line)) line = stls_buffer_slice(&d->input);
  if (stls_slice_starts(line, d->config->protocol == &stls_pop3 ? "-ERR" : "421")) {
    stls_dialogue_fail(d, STLS_ERROR_CLOSED, "the server has closed the session");
  } else {
    stls_dialogue_fail(d, STLS_ERROR_PROTOCOL, "the server answered a command that was not sent");
  }
  stls_error_reply(&d->error, 0, stls_slice("", 0), line);
  return true;
}

const char *stls_dialogue_command(struct stls_dialogue *d, const char *during,
                                  const struct stls_arg *args, size_t count,
                                  enum stls_answer_form form) {
  const char *refusal;
  if (d->error.kind != STLS_ERROR_NONE) return NULL;
  encode(d, args, count, d->config->protocol->longest_command);
  if (d->encoder.refusal) return d->encoder.refusal;
  stls_dialogue_begin(d, d->config->protocol->command_table, 0, during);
  d->form = form;
  d->answering = 0;
  d->leaves_idle = false;
  stls_flight_begin(&d->flight);
  stls_flight_add(&d->flight, form, 0);
  if (spoke_unasked(d)) return NULL;
  refusal = stls_dialogue_send_line(d);
  if (refusal) d->want = STLS_NEED_NOTHING;
  else if (d->parser) stls_imap_command_sent(d);
  return refusal;
}

/*
 * Only commands that are sent and answered in one piece each can be in flight together; a
 * goodbye may be the last of them.
 */
static bool may_push(const struct stls_dialogue *d, enum stls_answer_form form) {
  return d->want == STLS_NEED_INPUT && stls_dialogue_may_drain(d) &&
         !stls_flight_is_over(&d->flight) && !stls_flight_is_full(&d->flight) &&
         stls_flight_last_form(&d->flight) < STLS_ANSWER_GOODBYE && form <= STLS_ANSWER_GOODBYE;
}

const char *stls_dialogue_push(struct stls_dialogue *d, const struct stls_arg *args, size_t count,
                               enum stls_answer_form form, bool *sent_r) {
  uint64_t end = d->output.consumed + stls_buffer_length(&d->output);
  const char *refusal;
  *sent_r = false;
  if (d->error.kind != STLS_ERROR_NONE || !may_push(d, form)) return NULL;
  encode(d, args, count, d->config->protocol->longest_command);
  if (!d->encoder.refusal && stls_encoder_stops(&d->encoder)) {
    stls_encoder_drop(&d->encoder);
    d->tag--;
    return NULL;
  }
  refusal = stls_dialogue_send_line(d);
  *sent_r = !refusal;
  if (refusal) d->tag--;
  else stls_flight_add(&d->flight, form, end);
  return refusal;
}

const char *stls_dialogue_check(const struct stls_dialogue *d, const struct stls_arg *args,
                                size_t count) {
  struct stls_encoder encoder;
  const char *refusal;
  size_t i;
  stls_encoder_init(&encoder, NULL);
  stls_encoder_begin(&encoder);
  encoder.longest = d->config->protocol->longest_command;
  encoder.utf8 = d->utf8;
  for (i = 0; i < count; i++) stls_encoder_add(&encoder, args[i].type, args[i].value);
  refusal = stls_encoder_end(&encoder);
  stls_encoder_free(&encoder);
  return refusal;
}

void stls_dialogue_listen(struct stls_dialogue *d) {
  if (d->error.kind != STLS_ERROR_NONE || !d->parser) return;
  stls_dialogue_begin(d, d->config->protocol->command_table, STLS_IMAP_LISTENING, "listen");
}

void stls_dialogue_done(struct stls_dialogue *d) {
  if (d->want != STLS_NEED_INPUT || d->table != d->config->protocol->command_table) return;
  d->leaves_idle = true;
  if (d->parser && d->state == STLS_IMAP_LISTENING) stls_dialogue_finish(d);
  if (d->parser && d->state == STLS_IMAP_IDLING) {
    stls_imap_send_done(d);
    d->state = STLS_IMAP_LEAVING;
  }
}

bool stls_dialogue_is_listening(const struct stls_dialogue *d) {
  return d->parser && d->table == d->config->protocol->command_table &&
         d->want == STLS_NEED_INPUT &&
         (d->state == STLS_IMAP_IDLING || d->state == STLS_IMAP_LISTENING);
}

bool stls_dialogue_prepare(struct stls_dialogue *d, const struct stls_table *table,
                           unsigned state) {
  if (d->error.kind != STLS_ERROR_NONE) return false;
  stls_dialogue_begin(d, table, state, NULL);
  return !spoke_unasked(d);
}

const char *stls_dialogue_complaint(struct stls_dialogue *d) {
  const char *complaint = d->sending.complaint;
  d->sending.complaint = NULL;
  return complaint;
}

void stls_dialogue_want_content(struct stls_dialogue *d) {
  d->want = STLS_NEED_CONTENT;
}

/* Why the piece of an IMAP literal can't be sent, or NULL. */
static const char *literal_refusal(const struct stls_dialogue *d, struct stls_slice piece) {
  const struct stls_stop *stop = stls_encoder_stop(&d->encoder);
  if (!(stop && stop->is_binary) && memchr(piece.ptr, '\0', piece.len))
    return "the message has a NUL octet, which this protocol can't carry";
  return piece.len > d->literal_left ? "the message is longer than its announced size" : NULL;
}

static bool take_literal(struct stls_dialogue *d, struct stls_slice piece) {
  const char *refusal = literal_refusal(d, piece);
  if (refusal) return stls_dialogue_fail(d, STLS_ERROR_UNSUPPORTED, "%s", refusal);
  d->literal_left -= piece.len;
  if (!stls_buffer_append_slice(&d->output, piece))
    return stls_dialogue_fail_buffer(d, &d->output, "content");
  stls_trace_content(d->trace, STLS_TRACE_SENT, piece.len);
  return true;
}

bool stls_dialogue_content(struct stls_dialogue *d, struct stls_slice piece) {
  if (d->error.kind != STLS_ERROR_NONE) return false;
  if (piece.len == 0) return true;
  if (d->sending.active) return !stls_content_is_open(d) || stls_content_take(d, piece);
  return d->want != STLS_NEED_CONTENT || take_literal(d, piece);
}

void stls_dialogue_content_end(struct stls_dialogue *d) {
  if (d->error.kind != STLS_ERROR_NONE) return;
  if (d->sending.active && stls_content_is_open(d)) stls_content_end(d);
  if (d->want != STLS_NEED_CONTENT) return;
  if (d->literal_left > 0) {
    stls_dialogue_fail(d, STLS_ERROR_UNSUPPORTED, "the message is shorter than its announced size");
    return;
  }
  d->want = STLS_NEED_INPUT;
  stls_imap_content_ended(d);
}

void stls_dialogue_compressed(struct stls_dialogue *d) {
  if (d->want == STLS_NEED_COMPRESSION) stls_dialogue_finish(d);
}

void stls_dialogue_credential(struct stls_dialogue *d, struct stls_slice value) {
  if (d->want != STLS_NEED_CREDENTIAL) return;
  d->want = STLS_NEED_INPUT;
  if (memchr(value.ptr, '\0', value.len) || memchr(value.ptr, '\r', value.len) ||
      memchr(value.ptr, '\n', value.len)) {
    stls_dialogue_fail(d, STLS_ERROR_AUTH, "the credential has a CR, LF or NUL, and can't be sent");
    return;
  }
  if (!stls_secret_set(&d->login.credential, value)) {
    stls_dialogue_fail(d, STLS_ERROR_MEMORY, "not enough memory");
    return;
  }
  stls_opening_credential(d);
}

enum stls_credential stls_dialogue_wanted_credential(const struct stls_dialogue *d) {
  return d->login.mechanism ? d->login.mechanism->credential : STLS_CREDENTIAL_PASSWORD;
}

/* }====== */
