/* imap.c - the IMAP dialogue, as a client that fetches, appends and idles. See dialogue.h. */
#include "dialogue.h"

/* APPEND with two messages, of which the first need not wait for "+" if the server says so. */
static bool append(struct run *run) {
  const struct stls_arg args[] = {
      {STLS_ARG_ATOM, stls_slice_of("APPEND")}, {STLS_ARG_MAILBOX, stls_slice_of("M\xc3\xbcll")},
      {STLS_ARG_CONTENT, stls_slice_of("24")}, /* three pieces of content */
      {STLS_ARG_FLAG, stls_slice_of("\\Seen")}, {STLS_ARG_CONTENT8, stls_slice_of("0")},
      {STLS_ARG_OCTETS, stls_slice("a\0b", 3)},
  };
  const char *refusal = stls_dialogue_command(run->dialogue, "fuzz", args,
                                              sizeof args / sizeof args[0], STLS_ANSWER_REPLY);
  must(refusal == NULL);
  return true;
}

/* Three commands in flight. */
static bool pipeline(struct run *run) {
  struct stls_arg args[] = {{STLS_ARG_ATOM, stls_slice_of("NOOP")}};
  bool sent;
  unsigned i;
  command(run, "FETCH", "1:* (FLAGS BODY.PEEK[])", STLS_ANSWER_REPLY);
  for (i = 0; i < 2; i++) stls_dialogue_push(run->dialogue, args, 1, STLS_ANSWER_REPLY, &sent);
  return true;
}

/* The next user of the same connection. */
static bool log_in_again(struct run *run) {
  stls_dialogue_forget_login(run->dialogue);
  stls_dialogue_authenticate(run->dialogue);
  return true;
}

static bool begin_operation(struct run *run, unsigned n) {
  switch (n % 10) {
    case 0: return command(run, "SELECT", "INBOX", STLS_ANSWER_REPLY);
    case 1: return pipeline(run);
    case 2: return append(run);
    case 3: return command(run, "IDLE", NULL, STLS_ANSWER_IDLE);
    case 4: stls_dialogue_listen(run->dialogue); return true;
    case 5: return command(run, "NOOP", NULL, STLS_ANSWER_REPLY);
    case 6: return log_in_again(run);
    case 7: return command(run, "COMPRESS", "DEFLATE", STLS_ANSWER_COMPRESS);
    case 8: return command(run, "LOGOUT", NULL, STLS_ANSWER_GOODBYE);
    default: return false;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  return fuzz(&stls_imap, data, size);
}
