/*
 * mail/imap.c - what is particular to IMAP: tags, untagged data, capabilities, LOGIN
 * (RFC 9051, RFC 3501, SASL-IR: RFC 4959).
 * Floor 2, mail wing: may rely on base/ and mail/ only.
 */
#include <stdio.h>
#include <string.h>

#include "mail/protocol.h"

static const char done_line[] = "DONE\r\n"; /* RFC 9051 6.3.13 */

/* {====== Reading ====== */

/* The number of the command in flight that a tag belongs to; STLS_FLIGHT_NONE for any other. */
static unsigned command_tagged(const struct stls_dialogue *d, struct stls_slice tag) {
  unsigned first = d->tag - d->flight.sent + 1;
  uint64_t number;
  if (tag.len < 2 || tag.ptr[0] != 'A' || tag.ptr[1] == '0') return STLS_FLIGHT_NONE;
  if (!stls_slice_number(stls_slice_from(tag, 1), UINT32_MAX, &number) || number < first)
    return STLS_FLIGHT_NONE;
  number -= first;
  return stls_flight_awaits(&d->flight, (unsigned)number) ? (unsigned)number : STLS_FLIGHT_NONE;
}

/* RFC 5530 3: codes that say a NO may pass. */
static bool is_temporary(const char *code) {
  return strcmp(code, "UNAVAILABLE") == 0 || strcmp(code, "INUSE") == 0;
}

static enum stls_reply_class class_of(struct stls_slice name, const char *code) {
  if (stls_slice_is(name, "OK")) return STLS_ON_POSITIVE;
  if (stls_slice_is(name, "PREAUTH")) return STLS_ON_PREAUTH;
  if (stls_slice_is(name, "BYE")) return STLS_ON_BYE;
  return is_temporary(code) ? STLS_ON_TRANSIENT : STLS_ON_PERMANENT;
}

static void fill_reply(struct stls_dialogue *d, const struct stls_imap_response *response) {
  struct stls_reply *reply = &d->reply;
  char *c;
  stls_reply_clear(reply);
  if (response->node_count > 0) stls_reply_set_status(reply, stls_imap_node_text(response, 0));
  for (c = reply->status; *c; c++) *c = stls_upper(*c);
  reply->class = response->kind == STLS_IMAP_CONTINUE ? STLS_ON_CONTINUE
                                                      : class_of(response->name, reply->status);
  if (response->text.len > d->config->limits.line) {
    stls_dialogue_fail(d, STLS_ERROR_LIMIT,
                       "the server's line is longer than the limit of %zu bytes",
                       d->config->limits.line);
  } else if (!stls_reply_add_line(reply, response->text)) {
    stls_dialogue_fail_buffer(d, &reply->text, "reply");
  }
}

static void use_utf8(struct stls_dialogue *d) {
  d->utf8 = true;
  stls_imap_parser_utf8(d->parser, true);
}

/* "AUTH=PLAIN" stays one word. `from`: the first node that is a capability. */
static void learn(struct stls_dialogue *d, const struct stls_imap_response *response, size_t from) {
  size_t i;
  stls_capabilities_clear(&d->capabilities);
  d->capabilities.known = true;
  d->login.retold = true;
  for (i = from; i < response->node_count; i++) {
    if (!stls_capabilities_add(&d->capabilities, stls_imap_node_text(response, i),
                               stls_slice("", 0))) {
      stls_dialogue_fail_buffer(d, &d->capabilities.entries, "list of capabilities");
    }
  }
  /* RFC 9051 A: what knows nothing of revision 1 needs no ENABLE. */
  if (stls_capabilities_find(&d->capabilities, "IMAP4rev2", NULL) &&
      !stls_capabilities_find(&d->capabilities, "IMAP4rev1", NULL))
    use_utf8(d);
}

/* RFC 9051 6.3.1, RFC 9755 3: what ENABLE changed in how mailbox names are written. */
static void note_enabled(struct stls_dialogue *d, const struct stls_imap_response *response) {
  size_t i;
  for (i = 0; i < response->node_count; i++) {
    struct stls_slice word = stls_imap_node_text(response, i);
    if (stls_slice_is(word, "UTF8=ACCEPT") || stls_slice_is(word, "IMAP4rev2")) use_utf8(d);
  }
}

/* A list may come by itself or as the code of any status (RFC 9051 7.1, 7.2.2). */
static void learn_if_told(struct stls_dialogue *d, const struct stls_imap_response *response) {
  if (response->is_status) {
    if (response->node_count > 0 && stls_slice_is(stls_imap_node_text(response, 0), "CAPABILITY"))
      learn(d, response, 1);
  } else if (stls_slice_is(response->name, "CAPABILITY")) {
    learn(d, response, 0);
  } else if (stls_slice_is(response->name, "ENABLED") && d->table != &stls_opening_table) {
    note_enabled(d, response);
  }
}

static enum stls_read fail_tag(struct stls_dialogue *d, const struct stls_imap_response *response) {
  stls_dialogue_fail(d, STLS_ERROR_PROTOCOL, "the server answered a command that was not sent");
  stls_error_reply(&d->error, 0, response->tag, response->text);
  return STLS_READ_FAILED;
}

static void make_untagged_event(struct stls_dialogue *d,
                                const struct stls_imap_response *response) {
  memset(&d->event, 0, sizeof d->event);
  d->event.type = STLS_EVENT_UNTAGGED;
  d->event.index = d->flight.oldest;
  d->event.response = response;
}

/*
 * RFC 9051 7.1: an alert is for a person to see, whatever it comes with; a referral (RFC 2221) is
 * for the caller to know of, as we never follow it. But not when said in the clear, where it may
 * be anybody's (6.2.1).
 */
static void tell_code_while_opening(struct stls_dialogue *d,
                                    const struct stls_imap_response *response) {
  struct stls_slice code;
  if (!d->facts.encrypted || response->node_count == 0) return;
  code = stls_imap_node_text(response, 0);
  if (!stls_slice_is(code, "ALERT") && !stls_slice_is(code, "REFERRAL")) return;
  make_untagged_event(d, response);
  d->has_event = true;
}

/* Servers that end IDLE by themselves take a DONE that crosses their answer for a command. */
static bool answers_done(const struct stls_dialogue *d, const struct stls_imap_response *response) {
  if (d->table == &stls_opening_table) return false;
  return stls_slice_is(response->tag, "DONE") && !stls_slice_is(response->name, "OK");
}

/* IDLE is over already: a DONE that has not left would be taken for a command. */
static void unsay_done(struct stls_dialogue *d) {
  if (d->state == STLS_IMAP_LEAVING && stls_buffer_length(&d->output) == sizeof done_line - 1)
    stls_buffer_clear(&d->output);
}

/* A tagged OK counts only for a command in flight, and only once it is sent as a whole. */
static enum stls_read read_tagged(struct stls_dialogue *d,
                                  const struct stls_imap_response *response) {
  unsigned number = command_tagged(d, response->tag);
  if (answers_done(d, response)) return STLS_READ_MORE;
  if (number == STLS_FLIGHT_NONE) return fail_tag(d, response);
  unsay_done(d);
  fill_reply(d, response);
  if (d->reply.class == STLS_ON_POSITIVE && !stls_dialogue_is_sent(d, number))
    return fail_tag(d, response);
  d->answering = number;
  if (d->table == &stls_opening_table) {
    tell_code_while_opening(d, response);
    stls_flight_answer(&d->flight, number);
  }
  return STLS_READ_REPLY;
}

static enum stls_read read_greeting(struct stls_dialogue *d,
                                    const struct stls_imap_response *response) {
  fill_reply(d, response);
  if (!response->is_status) {
    stls_dialogue_fail_reply(d, STLS_ERROR_PROTOCOL,
                             "the server's greeting is not an IMAP greeting");
    return STLS_READ_FAILED;
  }
  d->authenticated = d->reply.class == STLS_ON_PREAUTH;
  tell_code_while_opening(d, response);
  return stls_opening_greeted(d);
}

/* While opening in the clear, only the greeting and BYE count; all else is the caller's. */
static enum stls_read read_untagged(struct stls_dialogue *d,
                                    const struct stls_imap_response *response) {
  bool opening = d->table == &stls_opening_table;
  if (opening && d->awaits_greeting) return read_greeting(d, response);
  if (stls_slice_is(response->name, "BYE") && d->form != STLS_ANSWER_GOODBYE) {
    fill_reply(d, response);
    if (opening) return STLS_READ_REPLY;
    d->said_bye = true; /* the caller's function for it hears of it first */
  }
  if (opening && !d->facts.encrypted) return STLS_READ_MORE;
  make_untagged_event(d, response);
  return STLS_READ_EVENT;
}

/* What was received of a response since this was called last. A literal makes it several lines. */
static void trace_recorded(struct stls_dialogue *d) {
  struct stls_slice rest = stls_imap_parser_recorded(d->parser);
  while (rest.len > 0) {
    const char *lf = memchr(rest.ptr, '\n', rest.len);
    size_t len = lf ? (size_t)(lf - rest.ptr) : rest.len;
    struct stls_slice line = stls_slice(rest.ptr, len);
    if (lf && len > 0 && line.ptr[len - 1] == '\r') line.len--;
    if (line.len > 0) stls_dialogue_trace_received(d, line);
    rest = stls_slice_from(rest, lf ? len + 1 : len);
  }
  stls_imap_parser_drop_record(d->parser);
}

static enum stls_read read_response(struct stls_dialogue *d) {
  const struct stls_imap_response *response = stls_imap_parser_response(d->parser);
  trace_recorded(d);
  learn_if_told(d, response);
  if (d->error.kind != STLS_ERROR_NONE) return STLS_READ_FAILED;
  switch (response->kind) {
    case STLS_IMAP_TAGGED: return read_tagged(d, response);
    case STLS_IMAP_UNTAGGED: return read_untagged(d, response);
    case STLS_IMAP_CONTINUE: break;
  }
  fill_reply(d, response);
  return STLS_READ_REPLY;
}

static enum stls_read read_content(struct stls_dialogue *d) {
  const struct stls_imap_content *content = stls_imap_parser_content(d->parser);
  trace_recorded(d);
  stls_trace_content(d->trace, STLS_TRACE_RECEIVED, content->piece.len);
  memset(&d->event, 0, sizeof d->event);
  d->event.type = STLS_EVENT_CONTENT;
  d->event.index = d->flight.oldest;
  d->event.text = content->piece;
  d->event.size = content->size;
  d->event.offset = content->offset;
  d->event.response = stls_imap_parser_response(d->parser);
  return STLS_READ_EVENT;
}

static enum stls_read fail_parse(struct stls_dialogue *d) {
  const char *why;
  enum stls_error_kind kind = stls_imap_parser_failure(d->parser, &why);
  stls_dialogue_fail(d, kind, "%s", why);
  return STLS_READ_FAILED;
}

static enum stls_read imap_read(struct stls_dialogue *d) {
  enum stls_read read = STLS_READ_MORE;
  if (d->said_bye) return STLS_READ_REPLY;
  while (read == STLS_READ_MORE && stls_buffer_length(&d->input) > 0) {
    size_t used;
    enum stls_imap_result result =
        stls_imap_parser_feed(d->parser, stls_buffer_slice(&d->input), &used);
    stls_buffer_consume(&d->input, used);
    stls_opening_count(d, used);
    if (d->error.kind != STLS_ERROR_NONE) return STLS_READ_FAILED;
    switch (result) {
      case STLS_IMAP_MORE: return STLS_READ_MORE;
      case STLS_IMAP_CONTENT: return read_content(d);
      case STLS_IMAP_RESPONSE: read = read_response(d); break;
      case STLS_IMAP_FAILED: return fail_parse(d);
    }
  }
  return read;
}

/* }====== */

/* {====== Opening ====== */

void stls_imap_begin_command(struct stls_dialogue *d) {
  char tag[STLS_TAG_SIZE];
  d->tag++;
  stls_dialogue_tag(d, tag);
  d->encoder.literals = STLS_LITERAL_SYNC;
  if (stls_capabilities_find(&d->capabilities, "LITERAL+", NULL))
    d->encoder.literals = STLS_LITERAL_PLUS;
  else if (stls_capabilities_find(&d->capabilities, "LITERAL-", NULL))
    d->encoder.literals = STLS_LITERAL_MINUS;
  stls_encoder_add(&d->encoder, STLS_ARG_ATOM, stls_slice_of(tag));
}

static void ask_capabilities(struct stls_dialogue *d) {
  stls_dialogue_send_word(d, "CAPABILITY");
}

/* They were learned as the response arrived. */
static void learn_capabilities(struct stls_dialogue *d) {
  d->capabilities.known = true;
}

static bool offers_mechanism(const struct stls_dialogue *d, const char *mechanism) {
  char word[64];
  snprintf(word, sizeof word, "AUTH=%s", mechanism);
  return stls_capabilities_find(&d->capabilities, word, NULL);
}

/* RFC 9051 6.2.3: never LOGIN where LOGINDISABLED is listed. */
static bool offers_own_login(const struct stls_dialogue *d) {
  return !stls_capabilities_find(&d->capabilities, "LOGINDISABLED", NULL);
}

static bool takes_initial_response(const struct stls_dialogue *d) {
  return stls_capabilities_find(&d->capabilities, "SASL-IR", NULL) ||
         stls_capabilities_find(&d->capabilities, "IMAP4rev2", NULL);
}

static void send_own_login(struct stls_dialogue *d) {
  struct stls_secret *password = &d->login.credential;
  struct stls_arg args[] = {{STLS_ARG_ATOM, stls_slice_of("LOGIN")},
                            {STLS_ARG_STRING, stls_slice_of(d->config->user)},
                            {STLS_ARG_SECRET_STRING, stls_slice(password->text, password->len)}};
  stls_dialogue_send(d, args, 3);
}

/* }====== */

/* {====== Commands ====== */

static bool awaits_content(const struct stls_dialogue *d) {
  const struct stls_stop *stop = stls_encoder_stop(&d->encoder);
  return d->want == STLS_NEED_INPUT && stop && stop->is_content;
}

static void want_content(struct stls_dialogue *d) {
  d->literal_left = stls_encoder_stop(&d->encoder)->size;
  stls_dialogue_want_content(d);
}

/* Goes on up to where the server must say "+", asking for content that need not wait for it. */
static void go_on(struct stls_dialogue *d) {
  const struct stls_stop *stop;
  stls_dialogue_release(d);
  stop = stls_encoder_stop(&d->encoder);
  if (stop && !stop->waits) want_content(d);
}

void stls_imap_command_sent(struct stls_dialogue *d) {
  const struct stls_stop *stop = stls_encoder_stop(&d->encoder);
  if (stop && !stop->waits) want_content(d);
}
static bool begins_compression(const struct stls_dialogue *d) {
  return d->form == STLS_ANSWER_COMPRESS;
}

/* RFC 4978 3: compressed from the CRLF of this OK on. No more is read before that is seen to. */
static void want_compression(struct stls_dialogue *d) {
  stls_dialogue_finish_reply(d);
  d->want = STLS_NEED_COMPRESSION;
}

void stls_imap_content_ended(struct stls_dialogue *d) {
  go_on(d);
  d->awaits_delivery = !stls_dialogue_is_stopped(d); /* it was the last */
}

static bool is_sending_content(const struct stls_dialogue *d) {
  return d->want == STLS_NEED_CONTENT;
}

static void fail_content(struct stls_dialogue *d) {
  stls_dialogue_fail_reply(d, STLS_ERROR_REJECTED, "the server refuses the message before its end");
}

static bool is_idle(const struct stls_dialogue *d) {
  return d->form == STLS_ANSWER_IDLE;
}

static bool leaves_idle(const struct stls_dialogue *d) {
  return is_idle(d) && d->leaves_idle;
}

static void tell_idling(struct stls_dialogue *d) {
  memset(&d->event, 0, sizeof d->event);
  d->event.type = STLS_EVENT_IDLING;
  d->has_event = true;
}

void stls_imap_send_done(struct stls_dialogue *d) {
  stls_buffer_append(&d->output, done_line, sizeof done_line - 1);
  stls_trace_line(d->trace, STLS_TRACE_SENT, stls_slice_of("DONE"));
}

static const char *const command_states[] = {"command", "idle", "done", "listen"};

static const struct stls_row command_rows[] = {
    /* state, reply, guard, next, action */
    {STLS_IMAP_COMMAND, STLS_ON_CONTINUE, awaits_content, STLS_IMAP_COMMAND, want_content},
    {STLS_IMAP_COMMAND, STLS_ON_CONTINUE, stls_dialogue_is_stopped, STLS_IMAP_COMMAND, go_on},
    {STLS_IMAP_COMMAND, STLS_ON_CONTINUE, leaves_idle, STLS_IMAP_LEAVING, stls_imap_send_done},
    {STLS_IMAP_COMMAND, STLS_ON_CONTINUE, is_idle, STLS_IMAP_IDLING, tell_idling},
    {STLS_IMAP_COMMAND, STLS_ON_REFUSAL, is_sending_content, STLS_IMAP_COMMAND, fail_content},
    {STLS_IMAP_COMMAND, STLS_ON_POSITIVE, begins_compression, STLS_IMAP_COMMAND, want_compression},
    {STLS_IMAP_COMMAND, STLS_ON_POSITIVE | STLS_ON_REFUSAL, NULL, STLS_IMAP_COMMAND,
     stls_dialogue_finish_reply},
    {STLS_IMAP_IDLING, STLS_ON_POSITIVE | STLS_ON_REFUSAL, NULL, STLS_IMAP_COMMAND,
     stls_dialogue_finish_reply},
    {STLS_IMAP_LEAVING, STLS_ON_POSITIVE | STLS_ON_REFUSAL, NULL, STLS_IMAP_COMMAND,
     stls_dialogue_finish_reply},
};

static const struct stls_table command_table = {
    "imap command", command_states, sizeof command_states / sizeof command_states[0], command_rows,
    sizeof command_rows / sizeof command_rows[0]};

/* }====== */

const struct stls_protocol stls_imap = {
    .name = "imap",
    .sasl_service = "imap",
    .alpn = "imap",
    .port = 143,
    .port_implicit = 993,
    .upgrade_verb = "STARTTLS",
    .retells = true,
    .own_login = "LOGIN",
    .longest_auth = 8192,
    .read = imap_read,
    .ask_capabilities = ask_capabilities,
    .learn_capabilities = learn_capabilities,
    .offers_mechanism = offers_mechanism,
    .offers_own_login = offers_own_login,
    .takes_initial_response = takes_initial_response,
    .send_own_login = send_own_login,
    .command_table = &command_table,
};
