/*
 * deflate.c - compressed streams: what the fuzzer says is decoded alike however it is cut, in
 * bounded steps; and what is compressed, in whatever pieces, is what comes out again.
 */
#include <stdlib.h>
#include <string.h>

#include "net/deflate.h"

#define ROOM 4096 /* octets decoded at a time */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds) {
  if (!holds) abort();
}

/* Decodes what was received. Returns how that ended. */
static enum stls_io unpack(struct stls_deflate *z, size_t room, struct stls_buffer *out,
                           struct stls_error *error) {
  for (;;) {
    size_t decoded = 0;
    char *place = stls_buffer_reserve(out, ROOM);
    enum stls_io io = stls_deflate_unpack(z, place, room, &decoded, "fuzz", error);
    must(decoded <= room && (io == STLS_IO_OK) == (decoded > 0));
    if (io == STLS_IO_WANT_READ) must(!stls_deflate_has_pending(z));
    if (io != STLS_IO_OK) return io;
    stls_buffer_commit(out, decoded);
    if (stls_buffer_length(out) > 1024 * 1024) return STLS_IO_OK; /* it goes on, as it should */
  }
}

/* The server's stream in pieces. Returns how it ended. */
static enum stls_io decode(struct stls_slice server, size_t piece, size_t room,
                           struct stls_buffer *out) {
  struct stls_error error;
  struct stls_deflate *z;
  enum stls_io io = STLS_IO_WANT_READ;
  memset(&error, 0, sizeof error);
  z = stls_deflate_new("fuzz", &error);
  must(z != NULL);
  while (io == STLS_IO_WANT_READ && server.len > 0) {
    size_t len = server.len < piece ? server.len : piece;
    stls_buffer_append(stls_deflate_received(z), server.ptr, len);
    server = stls_slice_from(server, len);
    io = unpack(z, room, out, &error);
  }
  must((io == STLS_IO_FAILED) == (error.kind == STLS_ERROR_PROTOCOL));
  stls_deflate_free(z);
  stls_error_free(&error);
  return io;
}

static bool same(const struct stls_buffer *a, const struct stls_buffer *b) {
  struct stls_slice left = stls_buffer_slice(a), right = stls_buffer_slice(b);
  return left.len == right.len && memcmp(left.ptr, right.ptr, left.len) == 0;
}

static void check_cuts(struct stls_slice server, size_t piece) {
  struct stls_buffer whole, cut;
  enum stls_io io;
  stls_buffer_init(&whole, 0);
  stls_buffer_init(&cut, 0);
  io = decode(server, server.len, ROOM, &whole);
  /* Data behind a stream's end may come too late to be seen. */
  if (decode(server, piece, piece, &cut) == io && io != STLS_IO_OK) must(same(&whole, &cut));
  stls_buffer_free(&whole);
  stls_buffer_free(&cut);
}

static void check_round_trip(struct stls_slice text, size_t piece) {
  struct stls_buffer output, wire, back;
  struct stls_error error;
  struct stls_deflate *z;
  memset(&error, 0, sizeof error);
  stls_buffer_init(&output, 0);
  stls_buffer_init(&wire, 0);
  stls_buffer_init(&back, 0);
  z = stls_deflate_new("fuzz", &error);
  stls_buffer_append_slice(&output, text);
  while (stls_buffer_length(&output) > 0) { /* as the channel does, with a slow socket */
    struct stls_buffer *packed = stls_deflate_packed(z);
    must(stls_deflate_pack(z, stls_buffer_slice(&output), "fuzz", &error));
    while (stls_buffer_length(packed) > 0) {
      size_t len = stls_buffer_length(packed) < piece ? stls_buffer_length(packed) : piece;
      stls_buffer_append(&wire, stls_buffer_slice(packed).ptr, len);
      stls_buffer_consume(packed, len);
      must(stls_deflate_pack(z, stls_buffer_slice(&output), "fuzz", &error));
    }
    stls_buffer_consume(&output, stls_deflate_take_sent(z));
  }
  stls_deflate_free(z);
  if (text.len > 0) must(decode(stls_buffer_slice(&wire), piece, piece, &back) != STLS_IO_FAILED);
  must(stls_buffer_length(&back) == text.len);
  must(memcmp(stls_buffer_slice(&back).ptr, text.ptr, text.len) == 0);
  stls_buffer_free(&output);
  stls_buffer_free(&wire);
  stls_buffer_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1) return 0;
  check_cuts(stls_slice((const char *)data + 1, size - 1), (size_t)data[0] + 1);
  check_round_trip(stls_slice((const char *)data + 1, size - 1), (size_t)data[0] + 1);
  return 0;
}
