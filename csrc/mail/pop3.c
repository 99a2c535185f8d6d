/*
 * mail/pop3.c - what is particular to POP3: answers, CAPA, USER/PASS, APOP (RFC 1939, 2449, 2595,
 * 5034). Floor 2, mail wing: may rely on base/ and mail/ only.
 */
#include <string.h>

#include "mail/md5.h"
#include "mail/protocol.h"

/* {====== Answers ======
 *
 *   RFC 2449 5: single-line = status [SP text] CRLF, status = "+OK" / "-ERR"
 *   RFC 5034 4: continue-req = "+" SP [base64] CRLF
 */

/* A code's levels are divided by "/", and one that is not known means what its parent does. */
static bool is_under(struct stls_slice code, const char *parent) {
  size_t len = strlen(parent);
  return stls_slice_starts(code, parent) && (code.len == len || code.ptr[len] == '/');
}

/* RFC 2449 8, RFC 3206 4: the codes of what may pass. */
static bool may_pass(struct stls_slice code) {
  return is_under(code, "IN-USE") || is_under(code, "LOGIN-DELAY") || is_under(code, "SYS/TEMP");
}

/* RFC 2449 8: a response code in brackets before the text. */
static void read_text(struct stls_reply *reply, struct stls_slice text) {
  if (text.len > 0 && text.ptr[0] == '[' && memchr(text.ptr, ']', text.len)) {
    size_t len = (size_t)((const char *)memchr(text.ptr, ']', text.len) - text.ptr);
    struct stls_slice code = stls_slice(text.ptr + 1, len - 1);
    stls_reply_set_status(reply, code);
    if (reply->class == STLS_ON_PERMANENT && may_pass(code)) reply->class = STLS_ON_TRANSIENT;
    text = stls_slice_trim(stls_slice_from(text, len + 1));
  }
  stls_reply_add_line(reply, text);
}

/* RFC 5322 3.2.3: atext, and the dot between atoms. */
static bool is_dot_atom(struct stls_slice text) {
  size_t i;
  for (i = 0; i < text.len; i++) {
    unsigned char c = (unsigned char)text.ptr[i];
    if (c <= ' ' || c > '~' || strchr("()<>[]:;@\\,\"", c)) return false;
  }
  return text.len > 0;
}

/*
 * RFC 1939 7: the timestamp has the form of a msg-id. Nothing else is taken for one: who may put
 * octets of his choice there learns the password from a few hundred logins (CVE-2007-1558).
 */
static struct stls_slice find_timestamp(struct stls_slice text) {
  const char *from = memchr(text.ptr, '<', text.len), *at, *to;
  if (!from) return stls_slice("", 0);
  text = stls_slice_from(text, (size_t)(from - text.ptr));
  at = memchr(text.ptr, '@', text.len);
  to = memchr(text.ptr, '>', text.len);
  if (!at || !to || to < at || !is_dot_atom(stls_slice(from + 1, (size_t)(at - from) - 1)) ||
      !is_dot_atom(stls_slice(at + 1, (size_t)(to - at) - 1))) {
    return stls_slice("", 0);
  }
  return stls_slice(from, (size_t)(to - from) + 1);
}

static void read_greeting(struct stls_dialogue *d, struct stls_slice text) {
  if (!d->awaits_greeting) return;
  stls_buffer_append_slice(&d->timestamp, find_timestamp(text));
}

static bool takes_word(struct stls_slice *line, const char *word) {
  size_t len = strlen(word);
  if (!stls_slice_starts(*line, word)) return false;
  if (line->len > len && line->ptr[len] != ' ') return false;
  *line = stls_slice_trim(stls_slice_from(*line, len));
  return true;
}

static enum stls_read fail_line(struct stls_dialogue *d, struct stls_slice line, const char *why) {
  stls_dialogue_fail(d, STLS_ERROR_PROTOCOL, "%s", why);
  stls_error_reply(&d->error, 0, stls_slice("", 0), line);
  return STLS_READ_FAILED;
}

/* The answers come in the order of the commands (RFC 2449 6.8), and none before its command. */
static bool is_premature(const struct stls_dialogue *d) {
  return d->table == d->config->protocol->command_table && !stls_dialogue_is_sent(d, d->answering);
}

static enum stls_read read_status(struct stls_dialogue *d, struct stls_slice line) {
  struct stls_reply *reply = &d->reply;
  struct stls_slice text = line;
  if (is_premature(d)) return fail_line(d, line, "the server answered a command that was not sent");
  stls_reply_clear(reply);
  if (takes_word(&text, "+OK")) {
    reply->class = STLS_ON_POSITIVE;
    read_greeting(d, text);
    d->reading_lines = d->form == STLS_ANSWER_LINES || d->form == STLS_ANSWER_CONTENT;
    d->reply_size = 0;
    if (d->form == STLS_ANSWER_CONTENT) stls_content_decoder_init(&d->content_in);
  } else if (takes_word(&text, "-ERR")) {
    reply->class = STLS_ON_PERMANENT;
    d->form = STLS_ANSWER_REPLY; /* a refusal has one line, whatever was asked for */
  } else if (takes_word(&text, "+")) {
    reply->class = STLS_ON_CONTINUE;
    stls_reply_add_line(reply, text);
    return STLS_READ_REPLY;
  } else {
    return fail_line(d, line, "the server's line is not a POP3 answer");
  }
  read_text(reply, text);
  if (d->awaits_greeting) return stls_opening_greeted(d);
  return d->reading_lines ? STLS_READ_MORE : STLS_READ_REPLY;
}

/* One line of a list: to the caller, or kept as the list of capabilities while opening. */
static enum stls_read read_list_line(struct stls_dialogue *d, struct stls_slice line) {
  if (stls_slice_equals(line, ".")) {
    d->reading_lines = false;
    return STLS_READ_REPLY;
  }
  if (line.len > 0 && line.ptr[0] == '.') line = stls_slice_from(line, 1);
  if (!stls_dialogue_count_line(d, line)) return STLS_READ_FAILED;
  if (d->table == &stls_opening_table) {
    stls_buffer_append_char(&d->reply.text, '\n');
    if (stls_buffer_append_slice(&d->reply.text, line)) return STLS_READ_MORE;
    stls_dialogue_fail_buffer(d, &d->reply.text, "list of capabilities");
    return STLS_READ_FAILED;
  }
  memset(&d->event, 0, sizeof d->event);
  d->event.type = STLS_EVENT_LINE;
  d->event.text = line;
  return STLS_READ_EVENT;
}

static enum stls_read read_content(struct stls_dialogue *d) {
  bool ended;
  if (stls_dialogue_take_content(d, &ended)) return STLS_READ_EVENT;
  if (!ended) return STLS_READ_MORE;
  d->reading_lines = false;
  return STLS_READ_REPLY;
}

static enum stls_read pop3_read(struct stls_dialogue *d) {
  struct stls_slice line;
  enum stls_read read = STLS_READ_MORE;
  while (read == STLS_READ_MORE) {
    if (d->reading_lines && d->form == STLS_ANSWER_CONTENT) return read_content(d);
    if (!stls_dialogue_take_line(d, &line)) break;
    read = d->reading_lines ? read_list_line(d, line) : read_status(d, line);
  }
  return d->error.kind == STLS_ERROR_NONE ? read : STLS_READ_FAILED;
}

/* }====== */

/* {====== CAPA (RFC 2449 5) ====== */

static void ask_capabilities(struct stls_dialogue *d) {
  d->form = STLS_ANSWER_LINES;
  stls_dialogue_send_word(d, "CAPA");
}

/* The first line of the kept text is the +OK's; each other one a capability. */
static void learn_capabilities(struct stls_dialogue *d) {
  struct stls_slice rest = stls_buffer_slice(&d->reply.text);
  bool first = true;
  d->form = STLS_ANSWER_REPLY;
  stls_capabilities_clear(&d->capabilities);
  d->capabilities.known = true;
  for (;;) {
    const char *lf = memchr(rest.ptr, '\n', rest.len);
    size_t len = lf ? (size_t)(lf - rest.ptr) : rest.len;
    struct stls_slice line = stls_slice(rest.ptr, len), word;
    if (!first && stls_slice_word(&line, &word) &&
        !stls_capabilities_add(&d->capabilities, word, stls_slice_trim(line))) {
      stls_dialogue_fail_buffer(d, &d->capabilities.entries, "list of capabilities");
    }
    first = false;
    if (!lf) return;
    rest = stls_slice_from(rest, len + 1);
  }
}

/* }====== */

static bool offers_mechanism(const struct stls_dialogue *d, const char *mechanism) {
  return stls_capabilities_lists(&d->capabilities, "SASL", mechanism);
}

/* Servers without CAPA have USER; with it they list it (RFC 2449 6.3). */
static bool offers_own_login(const struct stls_dialogue *d) {
  size_t position = 0;
  struct stls_slice word, value;
  if (!stls_capabilities_next(&d->capabilities, &position, &word, &value)) return true;
  return stls_capabilities_find(&d->capabilities, "USER", NULL);
}

static bool offers_apop(const struct stls_dialogue *d) {
  return stls_buffer_length(&d->timestamp) > 0;
}

static bool takes_initial_response(const struct stls_dialogue *d) {
  (void)d;
  return true; /* RFC 5034 4: whenever it fits */
}

/* RFC 1939 7: the digest of the timestamp and the password. It lets the password be guessed at. */
static void send_apop(struct stls_dialogue *d) {
  static const char digits[] = "0123456789abcdef";
  struct stls_secret *password = &d->login.credential;
  unsigned char digest[STLS_MD5_SIZE];
  char hex[2 * STLS_MD5_SIZE];
  struct stls_arg args[] = {{STLS_ARG_ATOM, stls_slice_of("APOP")},
                            {STLS_ARG_TEXT, stls_slice_of(d->config->user)},
                            {STLS_ARG_SECRET, stls_slice(hex, sizeof hex)}};
  size_t i;
  stls_md5(stls_buffer_slice(&d->timestamp), stls_slice(password->text, password->len), digest);
  for (i = 0; i < sizeof digest; i++) {
    hex[2 * i] = digits[digest[i] >> 4];
    hex[2 * i + 1] = digits[digest[i] & 15];
  }
  stls_dialogue_send(d, args, 3);
}

/* RFC 1939 7: USER, and when that is accepted, PASS with all that follows as the password. */
static void send_user_pass(struct stls_dialogue *d) {
  struct stls_secret *password = &d->login.credential;
  struct stls_arg user[] = {{STLS_ARG_ATOM, stls_slice_of("USER")},
                            {STLS_ARG_TEXT, stls_slice_of(d->config->user)}};
  struct stls_arg pass[] = {{STLS_ARG_ATOM, stls_slice_of("PASS")},
                            {STLS_ARG_SECRET, stls_slice(password->text, password->len)}};
  d->login.first_half = !d->login.first_half;
  stls_dialogue_send(d, d->login.first_half ? user : pass, 2);
}

static void send_own_login(struct stls_dialogue *d) {
  if (strcmp(d->login.own, "APOP") == 0) send_apop(d);
  else send_user_pass(d);
}

static const char *const command_states[] = {"command"};

static const struct stls_row command_rows[] = {
    {0, STLS_ON_POSITIVE | STLS_ON_REFUSAL, NULL, 0, stls_dialogue_finish_reply},
};

static const struct stls_table command_table = {"pop3 command", command_states, 1, command_rows,
                                                sizeof command_rows / sizeof command_rows[0]};

const struct stls_protocol stls_pop3 = {
    .name = "pop3",
    .sasl_service = "pop",
    .alpn = "pop3",
    .port = 110,
    .port_implicit = 995,
    .upgrade_verb = "STLS",
    .upgrade_unasked = true,
    .goodbye_counts = true,
    .own_login = "USER",
    .named_login = "APOP",
    .longest_auth = 255, /* RFC 2449 4 */
    .longest_command = 255,
    .read = pop3_read,
    .ask_capabilities = ask_capabilities,
    .learn_capabilities = learn_capabilities,
    .offers_mechanism = offers_mechanism,
    .offers_own_login = offers_own_login,
    .offers_named_login = offers_apop,
    .takes_initial_response = takes_initial_response,
    .send_own_login = send_own_login,
    .command_table = &command_table,
};
