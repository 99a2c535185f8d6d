/* net/deflate.c - see deflate.h. */
#include "net/deflate.h"

#include <stdlib.h>
#include <string.h>

#define ZLIB_CONST
#include <zlib.h>

#define RAW_WINDOW   (-15)       /* no zlib header; 32 KiB of history, the most there is */
#define PIECE        (16 * 1024) /* octets compressed at a time; a TLS record holds as many */
#define PACKED_ROOM  (4 * 1024)
#define SILENCE_MAX  (64 * 1024) /* compressed octets that may decode to nothing, in a row */
#define MEMORY_LEVEL 8           /* zlib's default: 256 KiB for compressing */

struct stls_deflate {
  z_stream out, in;
  struct stls_buffer packed;   /* to be sent */
  size_t piece;                /* octets of the caller's that `packed` stands for */
  struct stls_buffer received; /* not decoded yet */
  bool filled;                 /* the last decoding ended for want of room */
  size_t silence;              /* octets decoded since the last that said something */
};

static bool fail_memory(const char *during, struct stls_error *error) {
  return stls_error_set(error, STLS_ERROR_MEMORY, during, "not enough memory");
}

struct stls_deflate *stls_deflate_new(const char *during, struct stls_error *error) {
  struct stls_deflate *z = calloc(1, sizeof *z);
  if (!z) {
    fail_memory(during, error);
    return NULL;
  }
  stls_buffer_init(&z->packed, 0);
  stls_buffer_init(&z->received, 0);
  if (deflateInit2(&z->out, Z_DEFAULT_COMPRESSION, Z_DEFLATED, RAW_WINDOW, MEMORY_LEVEL,
                   Z_DEFAULT_STRATEGY) == Z_OK &&
      inflateInit2(&z->in, RAW_WINDOW) == Z_OK)
    return z;
  fail_memory(during, error);
  stls_deflate_free(z);
  return NULL;
}

void stls_deflate_free(struct stls_deflate *z) {
  if (!z) return;
  deflateEnd(&z->out); /* harmless where it was not begun */
  inflateEnd(&z->in);
  stls_buffer_free(&z->packed);
  stls_buffer_free(&z->received);
  free(z);
}

/* {====== Sending ====== */

bool stls_deflate_pack(struct stls_deflate *z, struct stls_slice data, const char *during,
                       struct stls_error *error) {
  z_stream *out = &z->out;
  bool is_last = data.len <= PIECE;
  if (z->piece > 0) return true;
  z->piece = is_last ? data.len : PIECE;
  out->next_in = (const Bytef *)data.ptr;
  out->avail_in = (uInt)z->piece;
  do { /* a buffer's room is always more than the six octets that zlib asks for a flush */
    char *room = stls_buffer_reserve(&z->packed, PACKED_ROOM);
    if (!room) return fail_memory(during, error);
    out->next_out = (Bytef *)room;
    out->avail_out = PACKED_ROOM;
    deflate(out, is_last ? Z_SYNC_FLUSH : Z_NO_FLUSH); /* can't fail: its state is sound */
    stls_buffer_commit(&z->packed, PACKED_ROOM - out->avail_out);
  } while (out->avail_out == 0);
  return true;
}

struct stls_buffer *stls_deflate_packed(struct stls_deflate *z) {
  return &z->packed;
}

size_t stls_deflate_take_sent(struct stls_deflate *z) {
  size_t piece = z->piece;
  z->piece = 0;
  return piece;
}

/* }====== */

/* {====== Receiving ====== */

struct stls_buffer *stls_deflate_received(struct stls_deflate *z) {
  return &z->received;
}

static enum stls_io fail_broken(const char *during, struct stls_error *error, const char *why) {
  stls_error_set(error, STLS_ERROR_PROTOCOL, during, "the server's compressed data is broken: %s",
                 why);
  return STLS_IO_FAILED;
}

/* Decoding has come to nothing: why, and what is to be done. */
static enum stls_io explain(struct stls_deflate *z, int status, const char *during,
                            struct stls_error *error) {
  switch (status) {
    case Z_OK:
    case Z_BUF_ERROR:
      if (z->silence <= SILENCE_MAX) return STLS_IO_WANT_READ;
      return fail_broken(during, error, "there is nothing in it, again and again");
    case Z_STREAM_END:
      if (stls_buffer_length(&z->received) == 0) return STLS_IO_CLOSED;
      return fail_broken(during, error, "it goes on behind its end");
    case Z_MEM_ERROR: fail_memory(during, error); return STLS_IO_FAILED;
    default: return fail_broken(during, error, z->in.msg ? z->in.msg : "unknown");
  }
}

enum stls_io stls_deflate_unpack(struct stls_deflate *z, char *data, size_t size, size_t *decoded_r,
                                 const char *during, struct stls_error *error) {
  struct stls_slice received = stls_buffer_slice(&z->received);
  z_stream *in = &z->in;
  size_t used;
  int status;
  in->next_in = (const Bytef *)received.ptr;
  in->avail_in = (uInt)received.len;
  in->next_out = (Bytef *)data;
  in->avail_out = (uInt)size;
  /* It may have more to say though nothing is left of what was received. */
  status = inflate(in, Z_SYNC_FLUSH);
  used = received.len - in->avail_in;
  stls_buffer_consume(&z->received, used);
  *decoded_r = size - in->avail_out;
  z->filled = in->avail_out == 0;
  z->silence = *decoded_r > 0 ? 0 : z->silence + used;
  /* What came before a fault is good; the fault is told next time. */
  return *decoded_r > 0 ? STLS_IO_OK : explain(z, status, during, error);
}

bool stls_deflate_has_pending(const struct stls_deflate *z) {
  return z->filled || stls_buffer_length(&z->received) > 0;
}

/* }====== */
