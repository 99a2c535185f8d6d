/*
 * content.c - message content to the wire and back: no bare CR or LF and no lone dot ever
 * goes out, cutting changes nothing, and what comes back is what went out. The header's
 * lines are the same before and after.
 */
#include <stdlib.h>

#include "mail/content.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds) {
  if (!holds) abort();
}

static void encode(struct stls_slice message, size_t piece, bool dots, struct stls_buffer *out) {
  struct stls_content_encoder encoder;
  stls_content_encoder_init(&encoder, dots);
  while (message.len > 0) {
    size_t len = message.len < piece ? message.len : piece;
    must(stls_content_encode(&encoder, stls_slice(message.ptr, len), out));
    message = stls_slice_from(message, len);
  }
  must(stls_content_encode_end(&encoder, out));
}

static bool same(const struct stls_buffer *a, const struct stls_buffer *b) {
  struct stls_slice left = stls_buffer_slice(a), right = stls_buffer_slice(b);
  return left.len == right.len && memcmp(left.ptr, right.ptr, left.len) == 0;
}

/* Every line ends in CRLF, and none is a dot alone. */
static void check_wire(struct stls_slice wire) {
  size_t i, line = 0;
  for (i = 0; i < wire.len; i++) {
    if (wire.ptr[i] == '\r') must(i + 1 < wire.len && wire.ptr[i + 1] == '\n');
    if (wire.ptr[i] != '\n') continue;
    must(i > 0 && wire.ptr[i - 1] == '\r');
    must(!(i - line == 2 && wire.ptr[line] == '.'));
    line = i + 1;
  }
  must(line == wire.len);
}

/* Decodes piece by piece; returns whether the dot line was reached, and that nothing is left. */
static void decode(struct stls_slice wire, size_t piece, struct stls_buffer *out) {
  struct stls_content_decoder decoder;
  stls_content_decoder_init(&decoder);
  while (decoder.state != STLS_CONTENT_END) {
    size_t len = wire.len < piece ? wire.len : piece, used;
    struct stls_slice text = {NULL, 0};
    must(len > 0);
    used = stls_content_decode(&decoder, stls_slice(wire.ptr, len), &text);
    must(used > 0 && used <= len);
    if (text.len > 0) stls_buffer_append_slice(out, text);
    wire = stls_slice_from(wire, used);
  }
  must(wire.len == 0);
}

/* What passes is what encoding it gives, wherever the line stands. */
static void check_pass(struct stls_slice message, size_t piece, bool dots) {
  struct stls_content_encoder encoder, passing;
  struct stls_buffer out;
  stls_buffer_init(&out, 0);
  stls_content_encoder_init(&encoder, dots);
  while (message.len > 0) {
    size_t len = message.len < piece ? message.len : piece;
    struct stls_slice part = stls_slice(message.ptr, len);
    passing = encoder;
    stls_buffer_clear(&out);
    must(stls_content_encode(&encoder, part, &out));
    if (stls_content_pass(&passing, part)) {
      must(stls_buffer_length(&out) == len && memcmp(out.data + out.start, part.ptr, len) == 0);
      must(!memchr(part.ptr, '\0', len));
      must(passing.after_cr == encoder.after_cr && passing.line_start == encoder.line_start);
    }
    message = stls_slice_from(message, len);
  }
  stls_buffer_free(&out);
}

static void check_round_trip(struct stls_slice message, size_t piece) {
  struct stls_buffer wire, cut, plain, back;
  stls_buffer_init(&wire, 0);
  stls_buffer_init(&cut, 0);
  stls_buffer_init(&plain, 0);
  stls_buffer_init(&back, 0);
  encode(message, message.len + 1, true, &wire);
  encode(message, piece, true, &cut);
  encode(message, piece, false, &plain);
  must(same(&wire, &cut));
  check_wire(stls_buffer_slice(&wire));
  stls_buffer_append_text(&wire, ".\r\n");
  decode(stls_buffer_slice(&wire), piece, &back);
  must(same(&plain, &back));
  /* A header field is one before it is on the wire, and there. */
  must(stls_content_may_have_field(message, "bcc") ==
       stls_content_may_have_field(stls_buffer_slice(&plain), "bcc"));
  stls_buffer_free(&wire);
  stls_buffer_free(&cut);
  stls_buffer_free(&plain);
  stls_buffer_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1) return 0;
  check_pass(stls_slice((const char *)data + 1, size - 1), 4 * (size_t)data[0] + 1, data[0] & 1);
  check_round_trip(stls_slice((const char *)data + 1, size - 1), (size_t)data[0] + 1);
  return 0;
}
