/* utf7.c - mailbox names: what encodes is printable ASCII and decodes to the same name. */
#include <stdlib.h>

#include "mail/encoder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds) {
  if (!holds) abort();
}

static void check_printable(struct stls_slice text) {
  size_t i;
  for (i = 0; i < text.len; i++) must(text.ptr[i] >= 0x20 && text.ptr[i] < 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct stls_slice input = stls_slice((const char *)data, size), decoded;
  struct stls_buffer there, back;
  stls_buffer_init(&there, 0);
  stls_buffer_init(&back, 0);
  if (stls_utf7_encode(input, &there)) {
    check_printable(stls_buffer_slice(&there));
    must(stls_utf7_decode(stls_buffer_slice(&there), &back));
    decoded = stls_buffer_slice(&back);
    must(decoded.len == size && (size == 0 || memcmp(decoded.ptr, data, size) == 0));
  }
  stls_buffer_clear(&back);
  stls_utf7_decode(input, &back);
  stls_buffer_free(&there);
  stls_buffer_free(&back);
  return 0;
}
