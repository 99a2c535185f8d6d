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

bool stls_slice_take_utf8(struct stls_slice *rest, uint32_t *point_r) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  unsigned char first = (unsigned char)rest->ptr[0];
  unsigned len = first < 0x80         ? 1
                 : (first >> 5) == 6  ? 2
                 : (first >> 4) == 14 ? 3
                 : (first >> 3) == 30 ? 4
                                      : 0;
  uint32_t point;
  unsigned i;
  if (len == 0 || rest->len < len) return false;
  point = len == 1 ? first : first & (0xffu >> (len + 1));
  for (i = 1; i < len; i++) {
    unsigned char c = (unsigned char)rest->ptr[i];
    if ((c & 0xc0) != 0x80) return false;
    point = point << 6 | (c & 0x3f);
  }
  if (point < least[len] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) return false;
  *rest = stls_slice_from(*rest, len);
  *point_r = point;
  return true;
}

bool stls_slice_is_utf8(struct stls_slice text) {
  uint32_t point;
  while (text.len > 0) {
    if (!stls_slice_take_utf8(&text, &point)) return false;
  }
  return true;
}
