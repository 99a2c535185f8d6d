/* pop3.c - the POP3 dialogue, as a client that fetches. See dialogue.h. */
#include "dialogue.h"

/* Commands of all forms in flight (RFC 2449 6.8). */
static bool pipeline(struct run *run) {
  static const struct {
    const char *words;
    enum stls_answer_form form;
  } more[] = {{"UIDL", STLS_ANSWER_LINES},
              {"RETR 2", STLS_ANSWER_CONTENT},
              {"DELE 1", STLS_ANSWER_REPLY},
              {"RETR 3", STLS_ANSWER_CONTENT}};
  size_t i;
  command(run, "RETR", "1", STLS_ANSWER_CONTENT);
  for (i = 0; i < sizeof more / sizeof more[0]; i++) {
    struct stls_arg arg = {STLS_ARG_RAW, stls_slice_of(more[i].words)};
    bool sent;
    must(stls_dialogue_push(run->dialogue, &arg, 1, more[i].form, &sent) == NULL);
  }
  return true;
}

static bool begin_operation(struct run *run, unsigned n) {
  switch (n % 6) {
    case 0: return command(run, "STAT", NULL, STLS_ANSWER_REPLY);
    case 1: return command(run, "UIDL", NULL, STLS_ANSWER_LINES);
    case 2: return command(run, "RETR", "1", STLS_ANSWER_CONTENT);
    case 3: return pipeline(run);
    case 4: return command(run, "QUIT", NULL, STLS_ANSWER_GOODBYE);
    default: return false;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  return fuzz(&stls_pop3, data, size);
}
