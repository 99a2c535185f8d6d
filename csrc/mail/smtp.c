/*
 * mail/smtp.c - what is particular to SMTP: replies, EHLO, AUTH (RFC 5321, 3207, 4954);
 * and to LMTP, which differs in a few names and in its answers to content (RFC 2033).
 * Floor 2, mail wing: may rely on base/ and mail/ only.
 */
#include <string.h>

#include "mail/protocol.h"

/* {====== Replies (RFC 5321 4.2) ======
 *
 *   Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
 */

static enum stls_reply_class class_of(int code) {
  if (code == 421) return STLS_ON_BYE;
  switch (code / 100) {
    case 2: return STLS_ON_POSITIVE;
    case 3: return STLS_ON_CONTINUE;
    case 4: return STLS_ON_TRANSIENT;
    default: return STLS_ON_PERMANENT;
  }
}

/* The code of a reply line, or -1 when it is none. `*last_r`: no "-" follows it. */
static int parse_code(struct stls_slice line, bool *last_r) {
  uint64_t code;
  if (line.len < 3 || !stls_slice_number(stls_slice(line.ptr, 3), 599, &code) || code < 200)
    return -1;
  if (line.len > 3 && line.ptr[3] != ' ' && line.ptr[3] != '-') return -1;
  *last_r = line.len == 3 || line.ptr[3] == ' ';
  return (int)code;
}

/* RFC 3463 2: class "." subject "." detail, at the start of the text. */
static struct stls_slice enhanced_status(struct stls_slice text, int code) {
  size_t len = 0;
  int dots = 0;
  while (len < text.len && (stls_is_digit(text.ptr[len]) || text.ptr[len] == '.')) {
    if (text.ptr[len] == '.') dots++;
    len++;
  }
  if (dots != 2 || len < 5 || text.ptr[0] != '0' + code / 100 || text.ptr[1] != '.') len = 0;
  if (len > 0 && (text.ptr[len - 1] == '.' || (len < text.len && text.ptr[len] != ' '))) len = 0;
  return stls_slice(text.ptr, len);
}

static void add_line(struct stls_reply *reply, struct stls_slice text) {
  struct stls_slice status = enhanced_status(text, reply->code);
  if (status.len > 0) {
    if (reply->status[0] == '\0') stls_reply_set_status(reply, status);
    text = stls_slice_trim(stls_slice_from(text, status.len));
  }
  stls_reply_add_line(reply, text);
}

static enum stls_read read_line(struct stls_dialogue *d, struct stls_slice line) {
  struct stls_reply *reply = &d->reply;
  bool last;
  int code = parse_code(line, &last);
  if (code < 0 || (d->reply_started && code != reply->code)) {
    stls_dialogue_fail(d, STLS_ERROR_PROTOCOL, "the server's line is not an SMTP reply");
    stls_error_reply(&d->error, 0, stls_slice("", 0), line);
    return STLS_READ_FAILED;
  }
  if (!d->reply_started) {
    stls_reply_clear(reply);
    d->reply_size = 0;
  }
  if (!stls_dialogue_count_line(d, line)) return STLS_READ_FAILED;
  d->reply_started = !last;
  reply->code = code;
  reply->class = class_of(code);
  add_line(reply, line.len > 4 ? stls_slice_from(line, 4) : stls_slice("", 0));
  if (reply->text.failure != STLS_BUFFER_OK) {
    stls_dialogue_fail_buffer(d, &reply->text, "reply");
    return STLS_READ_FAILED;
  }
  return last ? STLS_READ_REPLY : STLS_READ_MORE;
}

static enum stls_read smtp_read(struct stls_dialogue *d) {
  struct stls_slice line;
  while (stls_dialogue_take_line(d, &line)) {
    enum stls_read read = read_line(d, line);
    if (read != STLS_READ_MORE) return read;
  }
  return d->error.kind == STLS_ERROR_NONE ? STLS_READ_MORE : STLS_READ_FAILED;
}

/* }====== */

/* {====== EHLO (RFC 5321 4.1.1.1) ====== */

static void greet(struct stls_dialogue *d, const char *verb) {
  struct stls_arg args[] = {{STLS_ARG_ATOM, stls_slice_of(verb)},
                            {STLS_ARG_ATOM, stls_slice_of(d->config->client_name)}};
  stls_dialogue_send(d, args, 2);
}

static void ask_capabilities(struct stls_dialogue *d) {
  greet(d, "EHLO");
}

/* RFC 2033 4.1: the same by another name. */
static void ask_lmtp_capabilities(struct stls_dialogue *d) {
  greet(d, "LHLO");
}

/* "AUTH=PLAIN" is how some servers wrote AUTH before RFC 2554 was out. */
static void learn_extension(struct stls_dialogue *d, struct stls_slice line) {
  struct stls_slice word;
  if (!stls_slice_word(&line, &word)) return;
  if (stls_slice_starts(word, "AUTH=")) {
    line = stls_slice_from(word, 5);
    word = stls_slice_of("AUTH");
  }
  if (!stls_capabilities_add(&d->capabilities, word, stls_slice_trim(line))) {
    stls_dialogue_fail_buffer(d, &d->capabilities.entries, "list of capabilities");
  }
}

/* The first line is the server's greeting; each other one an extension. */
static void learn_capabilities(struct stls_dialogue *d) {
  struct stls_slice rest = stls_buffer_slice(&d->reply.text);
  bool first = true;
  stls_capabilities_clear(&d->capabilities);
  d->capabilities.known = true;
  while (rest.len > 0) {
    const char *lf = memchr(rest.ptr, '\n', rest.len);
    size_t len = lf ? (size_t)(lf - rest.ptr) : rest.len;
    if (!first) learn_extension(d, stls_slice(rest.ptr, len));
    first = false;
    rest = stls_slice_from(rest, lf ? len + 1 : len);
  }
}

/* }====== */

static bool offers_mechanism(const struct stls_dialogue *d, const char *mechanism) {
  return stls_capabilities_lists(&d->capabilities, "AUTH", mechanism);
}

static bool takes_initial_response(const struct stls_dialogue *d) {
  (void)d;
  return true;
}

/* One command, one reply. QUIT's 221 is such a reply too; so is the end of the stream then. */
static bool says_goodbye(const struct stls_dialogue *d) {
  return d->form == STLS_ANSWER_GOODBYE;
}

static const char *const command_states[] = {"command"};

static const struct stls_row command_rows[] = {
    {0, STLS_ON_BYE, says_goodbye, 0, stls_dialogue_finish_reply},
    {0, STLS_ON_POSITIVE | STLS_ON_REFUSAL, NULL, 0, stls_dialogue_finish_reply},
};

static const struct stls_table command_table = {"smtp command", command_states, 1, command_rows,
                                                sizeof command_rows / sizeof command_rows[0]};

const struct stls_protocol stls_smtp = {
    .name = "smtp",
    .sasl_service = "smtp",
    .alpn = NULL, /* none is registered */
    .port = 587,
    .port_implicit = 465,
    .upgrade_verb = "STARTTLS",
    .longest_auth = 512,     /* RFC 4954 4: the command line limit of RFC 5321 holds */
    .longest_command = 2048, /* RFC 5321 4.5.3.1.4 says 512, and each extension adds to it */
    .read = smtp_read,
    .ask_capabilities = ask_capabilities,
    .learn_capabilities = learn_capabilities,
    .offers_mechanism = offers_mechanism,
    .takes_initial_response = takes_initial_response,
    .command_table = &command_table,
};

const struct stls_protocol stls_lmtp = {
    .name = "lmtp",
    .sasl_service = "lmtp",
    .alpn = NULL, /* none is registered */
    .port = 24,   /* "any private mail system"; none is registered for LMTP */
    .port_implicit = 24,
    .answers_each = true,
    .upgrade_verb = "STARTTLS",
    .longest_auth = 512,     /* RFC 4954 4: the command line limit of RFC 5321 holds */
    .longest_command = 2048, /* RFC 5321 4.5.3.1.4 says 512, and each extension adds to it */
    .read = smtp_read,
    .ask_capabilities = ask_lmtp_capabilities,
    .learn_capabilities = learn_capabilities,
    .offers_mechanism = offers_mechanism,
    .takes_initial_response = takes_initial_response,
    .command_table = &command_table,
};
