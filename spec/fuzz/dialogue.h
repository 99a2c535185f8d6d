/*
 * dialogue.h - one mail session against a server that says whatever the fuzzer likes.
 * Included by smtp.c, imap.c and pop3.c, which name the protocol and what to ask for.
 *
 * The first three bytes of the input choose the configuration, the size of the pieces
 * in which the rest arrives, and the operation; the rest is what the server says.
 */
#include <stdlib.h>
#include <string.h>

#include "mail/dialogue.h"
#include "mail/protocol.h"

#define PASSWORD "pa55-W0rd-t0-hide"
#define TOKEN    "t0ken-Of-access-t0-hide"

struct run {
  struct stls_dialogue_config config;
  struct stls_channel_facts facts;
  struct stls_trace trace;
  struct stls_dialogue *dialogue;
  struct stls_slice server; /* what it has not said yet */
  size_t piece;
  unsigned operation;
  size_t pieces_left; /* of message content */
  bool sending;       /* the operation sends messages */
  size_t messages_left;
  size_t given, answered; /* messages of the operation */
  size_t turns;
};

/* Each protocol begins its operation number `n`; false when there is none of that number. */
static bool begin_operation(struct run *run, unsigned n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds) {
  if (!holds) abort();
}

static bool has(struct stls_slice text, const char *word) {
  return memmem(text.ptr, text.len, word, strlen(word)) != NULL;
}

/* What we say is traced with credentials blanked. */
static void check_trace(struct run *run) {
  struct stls_trace_event *event;
  while ((event = stls_trace_take(&run->trace)) != NULL) {
    struct stls_slice text = stls_slice(event->text, event->len);
    if (event->direction == STLS_TRACE_SENT) must(!has(text, PASSWORD) && !has(text, TOKEN));
    free(event);
  }
}

/* What goes out in the clear has no credential in it. */
static void send_output(struct run *run) {
  struct stls_buffer *output = stls_dialogue_output(run->dialogue);
  struct stls_slice text = stls_buffer_slice(output);
  bool trusted = run->facts.encrypted && run->facts.verified;
  if (!trusted && !run->config.insecure_auth) must(!has(text, PASSWORD) && !has(text, TOKEN));
  stls_buffer_consume(output, stls_buffer_length(output));
}

static void receive(struct run *run) {
  size_t len = run->server.len < run->piece ? run->server.len : run->piece;
  if (len == 0) {
    stls_dialogue_input_ended(run->dialogue, run->operation % 2 == 0);
    return;
  }
  stls_buffer_append(stls_dialogue_input(run->dialogue), run->server.ptr, len);
  run->server = stls_slice_from(run->server, len);
}

static void give_credential(struct run *run) {
  bool token = stls_dialogue_wanted_credential(run->dialogue) == STLS_CREDENTIAL_TOKEN;
  must(run->config.insecure_auth || (run->facts.encrypted && run->facts.verified));
  stls_dialogue_credential(run->dialogue, stls_slice_of(token ? TOKEN : PASSWORD));
}

#define PIECE "\r\n.\n.x\r"

/* As from a file: written where it goes. */
static void fill_content(struct run *run) {
  char *room = stls_dialogue_content_room(run->dialogue, sizeof PIECE);
  if (!room) return;
  memcpy(room, PIECE, sizeof PIECE - 1);
  stls_dialogue_content_fill(run->dialogue, sizeof PIECE - 1);
}

/* So much that chunks have to be written. */
static void give_large_content(struct run *run) {
  static char large[200 * 1024];
  memset(large, 'x', sizeof large);
  stls_dialogue_content(run->dialogue, stls_slice(large, sizeof large));
}

static void give_content(struct run *run) {
  if (run->pieces_left == 0) {
    stls_dialogue_content_end(run->dialogue);
    return;
  }
  run->pieces_left--;
  if (!run->sending || run->pieces_left == 2)
    stls_dialogue_content(run->dialogue, stls_slice_of(PIECE));
  else if (run->pieces_left == 1) fill_content(run);
  else if (run->operation & 8) give_large_content(run);
  else if (run->operation & 16) stls_dialogue_content_abandon(run->dialogue);
}

static void give_message(struct run *run) {
  static const char *const addresses[] = {"bob@example.net", "\"c d\"@example.net", "e@f.g"};
  struct stls_arg from = {STLS_ARG_PATH, stls_slice_of("alice@example.com")};
  struct stls_arg paths[3];
  struct stls_args recipients[3];
  struct stls_envelope envelope = {{&from, 1}, recipients, 1 + run->messages_left % 3, false};
  size_t i;
  if (run->messages_left == 0) {
    stls_dialogue_no_message(run->dialogue, run->operation & 32);
    return;
  }
  run->messages_left--;
  run->given++;
  run->pieces_left = 3;
  envelope.binary = run->operation & 64;
  for (i = 0; i < envelope.count; i++) {
    paths[i].type = STLS_ARG_PATH;
    paths[i].value = stls_slice_of(addresses[i]);
    recipients[i].list = &paths[i];
    recipients[i].count = 1;
  }
  must(stls_dialogue_message(run->dialogue, &envelope) == NULL);
}

/* No message has more than one end, and none before it began. */
static void count_answers(struct run *run, const struct stls_event *event) {
  if (!run->sending) return;
  if (event->type == STLS_EVENT_REPLY) run->answered++;
  must(run->answered <= run->given);
  must(stls_dialogue_unanswered(run->dialogue) <= run->given - run->answered);
}

/* A dialogue ends here; another begins from the configuration, on an encrypted channel. */
static bool upgrade(struct run *run) {
  must(stls_buffer_length(stls_dialogue_input(run->dialogue)) == 0);
  must(!run->facts.encrypted);
  stls_dialogue_free(run->dialogue);
  run->facts.encrypted = run->facts.verified = run->facts.upgraded = true;
  run->facts.binding_type = "tls-exporter";
  run->facts.binding = stls_slice_of("0123456789abcdef0123456789abcdef");
  run->dialogue = stls_dialogue_new(&run->config, &run->facts, &run->trace);
  must(run->dialogue != NULL);
  stls_dialogue_open(run->dialogue);
  return true;
}

/* What lies behind the word that begins it is not the dialogue's any more. */
static void compress(struct run *run) {
  stls_buffer_clear(stls_dialogue_input(run->dialogue));
  stls_dialogue_compressed(run->dialogue);
}

static bool begin_next(struct run *run) {
  run->pieces_left = 3;
  run->sending = false;
  return begin_operation(run, run->operation++);
}

/* One turn; false when the session is over. */
static bool turn(struct run *run) {
  struct stls_event event;
  enum stls_need need = stls_dialogue_next(run->dialogue, &event);
  check_trace(run);
  send_output(run);
  switch (need) {
    case STLS_NEED_INPUT: receive(run); return true;
    case STLS_NEED_UPGRADE: return upgrade(run);
    case STLS_NEED_COMPRESSION: compress(run); return true;
    case STLS_NEED_CREDENTIAL: give_credential(run); return true;
    case STLS_NEED_CONTENT: give_content(run); return true;
    case STLS_NEED_MESSAGE: give_message(run); return true;
    case STLS_NEED_NOTHING: return begin_next(run);
    case STLS_NEED_CARE:
      count_answers(run, &event);
      if (stls_dialogue_is_listening(run->dialogue)) stls_dialogue_done(run->dialogue);
      return true;
    case STLS_NEED_BURIAL: break;
  }
  must(stls_dialogue_error(run->dialogue)->kind != STLS_ERROR_NONE);
  must(stls_dialogue_error(run->dialogue)->message != NULL);
  must(!has(stls_slice_of(stls_dialogue_error(run->dialogue)->message), PASSWORD));
  must(stls_dialogue_next(run->dialogue, &event) == STLS_NEED_BURIAL);
  return false;
}

static void configure(struct run *run, const struct stls_protocol *protocol, unsigned choice) {
  static const struct stls_limits limits = {2000, 20000, 50, 20000};
  run->config.protocol = protocol;
  run->config.tls = (enum stls_tls_mode)(choice & 3);
  run->config.insecure_auth = choice & 4;
  run->config.host = "mail.example.com";
  run->config.port = protocol->port;
  run->config.client_name = "client.example.com";
  run->config.user = "alice";
  run->config.has_password = !(choice & 8);
  run->config.has_token = choice & 16;
  run->config.has_certificate = choice & 32;
  run->config.binding = choice & 64 ? STLS_BINDING_REQUIRE : STLS_BINDING_PREFER;
  run->config.limits = limits;
  run->facts.encrypted = run->facts.verified = run->config.tls == STLS_TLS_IMPLICIT;
  run->trace.on = !(choice & 128);
}

static int fuzz(const struct stls_protocol *protocol, const uint8_t *data, size_t size) {
  struct run run;
  memset(&run, 0, sizeof run);
  if (size < 3) return 0;
  configure(&run, protocol, data[0]);
  run.piece = data[1] ? data[1] : 4096;
  run.operation = data[2];
  if (protocol == &stls_pop3) {
    run.config.utf8 = data[2] & 64;
    run.config.mechanisms = data[2] & 128 ? "PLAIN APOP USER" : NULL;
  }
  run.server = stls_slice((const char *)data + 3, size - 3);
  run.dialogue = stls_dialogue_new(&run.config, &run.facts, &run.trace);
  must(run.dialogue != NULL);
  stls_dialogue_open(run.dialogue);
  /* However it is cut, nothing takes more turns than there are bytes, and then some. */
  while (turn(&run)) must(++run.turns < 8 * size + 200);
  stls_dialogue_free(run.dialogue);
  check_trace(&run);
  stls_trace_free(&run.trace);
  return 0;
}

/* One command of untyped words, for an operation. */
static bool command(struct run *run, const char *verb, const char *rest,
                    enum stls_answer_form form) {
  struct stls_arg args[] = {{STLS_ARG_ATOM, stls_slice_of(verb)},
                            {STLS_ARG_RAW, stls_slice_of(rest)}};
  const char *refusal = stls_dialogue_command(run->dialogue, "fuzz", args, rest ? 2 : 1, form);
  must(refusal == NULL);
  return true;
}
