/* imap.c - the IMAP dialogue, as a client that fetches and appends. See dialogue.h. */
#include "dialogue.h"

static bool begin_operation(struct run *run, unsigned n) {
  static const uint64_t size = 24; /* three pieces of content */
  switch (n % 7) {
    case 0: return command(run, "SELECT", "INBOX", STLS_ANSWER_REPLY, NULL);
    case 1: return command(run, "FETCH", "1:* (FLAGS BODY.PEEK[])", STLS_ANSWER_REPLY, NULL);
    case 2: return command(run, "APPEND", "INBOX", STLS_ANSWER_REPLY, &size);
    case 3: return command(run, "NOOP", NULL, STLS_ANSWER_REPLY, NULL);
    case 4: return command(run, "LOGOUT", NULL, STLS_ANSWER_GOODBYE, NULL);
    case 5: return command(run, "COMPRESS", "DEFLATE", STLS_ANSWER_COMPRESS, NULL);
    default: return false;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  return fuzz(&stls_imap, data, size);
}
