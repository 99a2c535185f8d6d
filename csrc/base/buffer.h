/*
 * base/buffer.h - a byte queue: appended at the end, consumed at the front.
 * Floor 0: may rely on libc only.
 *
 * Each buffer is born with a limit. Exceeding it, or running out of memory,
 * breaks the buffer: later appends do nothing, and `failure` says which it was.
 * So a writer may append many pieces and look once at the end.
 * A buffer that `wipes` leaves no byte behind in memory that it gives up.
 */
#ifndef STLS_BASE_BUFFER_H
#define STLS_BASE_BUFFER_H

#include "base/slice.h"

enum stls_buffer_failure { STLS_BUFFER_OK, STLS_BUFFER_LIMIT, STLS_BUFFER_MEMORY };

struct stls_buffer {
  char *data;
  size_t start;      /* first byte not yet consumed */
  size_t end;        /* one behind the last byte */
  size_t capacity;   /* bytes allocated at `data` */
  uint64_t consumed; /* bytes consumed in all its life */
  size_t limit;      /* the most it may hold unconsumed; 0: no limit */
  bool wipes;        /* holds secrets: zero what is consumed, moved or freed */
  enum stls_buffer_failure failure;
};

/* Makes an empty buffer. Allocates nothing. `limit` 0 means no limit. */
void stls_buffer_init(struct stls_buffer *buffer, size_t limit);

/* Frees the memory (wiped when the buffer wipes); leaves an empty buffer. */
void stls_buffer_free(struct stls_buffer *buffer);

/* Forgets all bytes and any failure, but keeps the memory for reuse. */
void stls_buffer_clear(struct stls_buffer *buffer);

/* Like clear, and gives the memory back when it has grown beyond `keep` bytes. */
void stls_buffer_shrink(struct stls_buffer *buffer, size_t keep);

/* Room for at least `n` more bytes at the end, or NULL when the buffer breaks. */
char *stls_buffer_reserve(struct stls_buffer *buffer, size_t n);

/* Says that `n` of the reserved bytes have been written. */
void stls_buffer_commit(struct stls_buffer *buffer, size_t n);

/* Appends a copy. Returns false when the buffer is, or now becomes, broken. */
bool stls_buffer_append(struct stls_buffer *buffer, const char *ptr, size_t len);
bool stls_buffer_append_slice(struct stls_buffer *buffer, struct stls_slice slice);
bool stls_buffer_append_text(struct stls_buffer *buffer, const char *text);
bool stls_buffer_append_char(struct stls_buffer *buffer, char c);
bool stls_buffer_append_number(struct stls_buffer *buffer, uint64_t number);

/* Drops `n` bytes from the front; `n` must not exceed the length. */
void stls_buffer_consume(struct stls_buffer *buffer, size_t n);

/* Exchanges what two buffers hold, memory and all; limits, wiping and counts stay where they are.
 */
void stls_buffer_swap(struct stls_buffer *a, struct stls_buffer *b);

static inline size_t stls_buffer_length(const struct stls_buffer *buffer) {
  return buffer->end - buffer->start;
}

/* Where its end is, counted from the first byte ever appended. */
static inline uint64_t stls_buffer_end(const struct stls_buffer *buffer) {
  return buffer->consumed + stls_buffer_length(buffer);
}

/* The unconsumed bytes; valid until the next append or reserve. */
static inline struct stls_slice stls_buffer_slice(const struct stls_buffer *buffer) {
  return stls_slice(buffer->data ? buffer->data + buffer->start : "", stls_buffer_length(buffer));
}

#endif
