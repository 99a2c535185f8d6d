/*
 * base/slice.h - a borrowed run of bytes, and the comparisons protocols need.
 * Floor 0: may rely on libc only.
 *
 * A slice owns nothing: it is valid as long as what it points into is.
 * Protocol keywords are ASCII, so case is folded without regard to the locale.
 */
#ifndef STLS_BASE_SLICE_H
#define STLS_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct stls_slice {
  const char *ptr;
  size_t len;
};

/* A slice of `len` bytes at `ptr`. */
static inline struct stls_slice stls_slice(const char *ptr, size_t len) {
  struct stls_slice slice = {ptr, len};
  return slice;
}

/* A slice over a NUL-terminated string; empty for NULL. */
static inline struct stls_slice stls_slice_of(const char *text) {
  return text ? stls_slice(text, strlen(text)) : stls_slice("", 0);
}

/* The slice without its first `n` bytes; `n` must not exceed its length. */
static inline struct stls_slice stls_slice_from(struct stls_slice slice, size_t n) {
  return stls_slice(slice.ptr + n, slice.len - n);
}

/* The ASCII upper-case letter for `c`, whatever the locale. */
static inline char stls_upper(char c) {
  return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

static inline bool stls_is_digit(char c) {
  return c >= '0' && c <= '9';
}

/* Whole-slice comparison, byte for byte. */
bool stls_slice_equals(struct stls_slice slice, const char *text);

/* Whether the slice begins with `text`, ASCII case ignored. */
bool stls_slice_starts(struct stls_slice slice, const char *text);

/* Whole-slice comparison, ASCII case ignored: "STARTTLSX" is not "STARTTLS". */
static inline bool stls_slice_is(struct stls_slice slice, const char *text) {
  return slice.len == strlen(text) && stls_slice_starts(slice, text);
}

/*
 * Takes the next word (separated by spaces or tabs) off the front of `rest`.
 * Returns false, with an empty word, when there is none.
 */
bool stls_slice_word(struct stls_slice *rest, struct stls_slice *word_r);

/* The slice without blanks at either end. */
struct stls_slice stls_slice_trim(struct stls_slice slice);

/*
 * Reads a decimal number that fills the slice.
 * Returns false when it is empty, has another character, or exceeds `max`.
 */
bool stls_slice_number(struct stls_slice slice, uint64_t max, uint64_t *number_r);

#endif
