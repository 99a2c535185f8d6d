/* base/slice.c - see slice.h. */
#include "base/slice.h"

bool stls_slice_equals(struct stls_slice slice, const char *text) {
  return slice.len == strlen(text) && memcmp(slice.ptr, text, slice.len) == 0;
}

bool stls_slice_starts(struct stls_slice slice, const char *text) {
  size_t i;
  for (i = 0; text[i] != '\0'; i++) {
    if (i == slice.len || stls_upper(slice.ptr[i]) != stls_upper(text[i])) return false;
  }
  return true;
}

static bool is_blank(char c) {
  return c == ' ' || c == '\t';
}

bool stls_slice_word(struct stls_slice *rest, struct stls_slice *word_r) {
  size_t end;
  *rest = stls_slice_trim(*rest);
  for (end = 0; end < rest->len && !is_blank(rest->ptr[end]); end++) continue;
  *word_r = stls_slice(rest->ptr, end);
  *rest = stls_slice_from(*rest, end);
  return end > 0;
}

struct stls_slice stls_slice_trim(struct stls_slice slice) {
  while (slice.len > 0 && is_blank(slice.ptr[0])) slice = stls_slice_from(slice, 1);
  while (slice.len > 0 && is_blank(slice.ptr[slice.len - 1])) slice.len--;
  return slice;
}

bool stls_slice_number(struct stls_slice slice, uint64_t max, uint64_t *number_r) {
  uint64_t number = 0;
  size_t i;
  if (slice.len == 0) return false;
  for (i = 0; i < slice.len; i++) {
    uint64_t digit = (uint64_t)(slice.ptr[i] - '0');
    if (!stls_is_digit(slice.ptr[i]) || number > (max - digit) / 10) return false;
    number = number * 10 + digit;
  }
  *number_r = number;
  return true;
}
