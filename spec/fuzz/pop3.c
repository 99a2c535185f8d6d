/* pop3.c - the POP3 dialogue, as a client that fetches. See dialogue.h. */
#include "dialogue.h"

static bool begin_operation(struct run *run, unsigned n) {
  switch (n % 5) {
    case 0: return command(run, "STAT", NULL, STLS_ANSWER_REPLY);
    case 1: return command(run, "UIDL", NULL, STLS_ANSWER_LINES);
    case 2: return command(run, "RETR", "1", STLS_ANSWER_CONTENT);
    case 3: return command(run, "QUIT", NULL, STLS_ANSWER_GOODBYE);
    default: return false;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  return fuzz(&stls_pop3, data, size);
}
