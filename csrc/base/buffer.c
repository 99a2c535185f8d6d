/* base/buffer.c - see buffer.h. */
#include "base/buffer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMALLEST 256 /* first allocation, bytes */

void stls_buffer_init(struct stls_buffer *buffer, size_t limit) {
  memset(buffer, 0, sizeof *buffer);
  buffer->limit = limit;
}

static void wipe(struct stls_buffer *buffer, size_t from, size_t to) {
  if (buffer->wipes && buffer->data && to > from) explicit_bzero(buffer->data + from, to - from);
}

void stls_buffer_free(struct stls_buffer *buffer) {
  wipe(buffer, 0, buffer->capacity);
  free(buffer->data);
  buffer->data = NULL;
  buffer->capacity = 0;
  stls_buffer_clear(buffer);
}

void stls_buffer_clear(struct stls_buffer *buffer) {
  wipe(buffer, 0, buffer->end);
  buffer->start = buffer->end = 0;
  buffer->failure = STLS_BUFFER_OK;
}

void stls_buffer_shrink(struct stls_buffer *buffer, size_t keep) {
  if (buffer->capacity > keep) stls_buffer_free(buffer);
  else stls_buffer_clear(buffer);
}

static char *break_buffer(struct stls_buffer *buffer, enum stls_buffer_failure failure) {
  buffer->failure = failure;
  return NULL;
}

/* Moves the bytes to the front, so that consumed room is used again. */
static void slide(struct stls_buffer *buffer) {
  size_t len = stls_buffer_length(buffer);
  if (len > 0) memmove(buffer->data, buffer->data + buffer->start, len);
  wipe(buffer, len, buffer->end);
  buffer->start = 0;
  buffer->end = len;
}

/* Moves the bytes into a new allocation; realloc would leave secrets behind. */
static bool grow(struct stls_buffer *buffer, size_t wanted) {
  size_t capacity = buffer->capacity ? buffer->capacity : SMALLEST;
  char *data;
  while (capacity < wanted) capacity *= 2;
  data = malloc(capacity);
  if (!data) return false;
  if (buffer->end > 0) memcpy(data, buffer->data, buffer->end);
  wipe(buffer, 0, buffer->capacity);
  free(buffer->data);
  buffer->data = data;
  buffer->capacity = capacity;
  return true;
}

char *stls_buffer_reserve(struct stls_buffer *buffer, size_t n) {
  size_t len = stls_buffer_length(buffer);
  if (buffer->failure != STLS_BUFFER_OK) return NULL;
  if (n > SIZE_MAX / 4 - len) return break_buffer(buffer, STLS_BUFFER_LIMIT);
  if (buffer->limit > 0 && len + n > buffer->limit) return break_buffer(buffer, STLS_BUFFER_LIMIT);
  if (buffer->capacity - buffer->end < n) {
    if (buffer->start > 0) slide(buffer);
    if (buffer->capacity - buffer->end < n && !grow(buffer, buffer->end + n)) {
      return break_buffer(buffer, STLS_BUFFER_MEMORY);
    }
  }
  return buffer->data + buffer->end;
}

void stls_buffer_commit(struct stls_buffer *buffer, size_t n) {
  buffer->end += n;
}

bool stls_buffer_append(struct stls_buffer *buffer, const char *ptr, size_t len) {
  char *room;
  if (len == 0) return buffer->failure == STLS_BUFFER_OK;
  room = stls_buffer_reserve(buffer, len);
  if (!room) return false;
  memcpy(room, ptr, len);
  stls_buffer_commit(buffer, len);
  return true;
}

bool stls_buffer_append_slice(struct stls_buffer *buffer, struct stls_slice slice) {
  return stls_buffer_append(buffer, slice.ptr, slice.len);
}

bool stls_buffer_append_text(struct stls_buffer *buffer, const char *text) {
  return stls_buffer_append(buffer, text, strlen(text));
}

bool stls_buffer_append_char(struct stls_buffer *buffer, char c) {
  return stls_buffer_append(buffer, &c, 1);
}

bool stls_buffer_append_number(struct stls_buffer *buffer, uint64_t number) {
  char text[24];
  int len = snprintf(text, sizeof text, "%llu", (unsigned long long)number);
  return stls_buffer_append(buffer, text, (size_t)len);
}

void stls_buffer_consume(struct stls_buffer *buffer, size_t n) {
  wipe(buffer, buffer->start, buffer->start + n);
  buffer->start += n;
  buffer->consumed += n;
  if (buffer->start == buffer->end) buffer->start = buffer->end = 0;
}

static void take_over(struct stls_buffer *to, const struct stls_buffer *from) {
  to->data = from->data;
  to->start = from->start;
  to->end = from->end;
  to->capacity = from->capacity;
  to->failure = from->failure;
}

void stls_buffer_swap(struct stls_buffer *a, struct stls_buffer *b) {
  struct stls_buffer kept = *a;
  take_over(a, b);
  take_over(b, &kept);
}
