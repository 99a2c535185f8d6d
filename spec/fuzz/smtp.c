/* smtp.c - the SMTP dialogue, as a client that sends mail. See dialogue.h. */
#include "dialogue.h"

static bool begin_transaction(struct run *run, size_t recipients) {
  static const char *const addresses[] = {"bob@example.net", "\"c d\"@example.net", "e@f.g"};
  struct stls_arg mail[] = {{STLS_ARG_ATOM, stls_slice_of("MAIL")},
                            {STLS_ARG_KEYWORD, stls_slice_of("FROM:")},
                            {STLS_ARG_PATH, stls_slice_of("alice@example.com")}};
  struct stls_arg paths[3];
  struct stls_args commands[3];
  size_t i;
  for (i = 0; i < recipients; i++) {
    paths[i].type = STLS_ARG_PATH;
    paths[i].value = stls_slice_of(addresses[i]);
    commands[i].list = &paths[i];
    commands[i].count = 1;
  }
  must(stls_dialogue_transaction(run->dialogue, mail, 3, commands, recipients) == NULL);
  return true;
}

static bool begin_operation(struct run *run, unsigned n) {
  switch (n % 5) {
    case 0: return begin_transaction(run, 1);
    case 1: return begin_transaction(run, 3);
    case 2: return command(run, "NOOP", NULL, STLS_ANSWER_REPLY);
    case 3: return command(run, "QUIT", NULL, STLS_ANSWER_GOODBYE);
    default: return false;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  return fuzz(&stls_smtp, data, size);
}
