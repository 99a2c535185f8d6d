/* smtp.c - the SMTP or LMTP dialogue, as a client that sends mail. See dialogue.h. */
#include "dialogue.h"

static bool begin_sending(struct run *run, size_t messages, size_t window) {
  run->sending = true;
  run->messages_left = messages;
  run->given = run->answered = 0;
  stls_dialogue_begin_sending(run->dialogue, window);
  return true;
}

static bool begin_operation(struct run *run, unsigned n) {
  switch (n % 5) {
    case 0: return begin_sending(run, 1, 1);
    case 1: return begin_sending(run, 4, 3);
    case 2: return command(run, "NOOP", NULL, STLS_ANSWER_REPLY);
    case 3: return command(run, "QUIT", NULL, STLS_ANSWER_GOODBYE);
    default: return false;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  return fuzz(size > 2 && data[2] & 128 ? &stls_lmtp : &stls_smtp, data, size);
}
