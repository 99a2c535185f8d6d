/* mail/number_set.c - see number_set.h. */
#include "mail/number_set.h"

#include <stdlib.h>

/* Takes a positive number off the front. */
static bool take_number(struct stls_slice *rest, uint64_t *number_r) {
  size_t len = 0;
  while (len < rest->len && stls_is_digit(rest->ptr[len])) len++;
  if (!stls_slice_number(stls_slice(rest->ptr, len), INT64_MAX, number_r) || *number_r == 0)
    return false;
  *rest = stls_slice_from(*rest, len);
  return true;
}

static bool take_char(struct stls_slice *rest, char c) {
  if (rest->len == 0 || rest->ptr[0] != c) return false;
  *rest = stls_slice_from(*rest, 1);
  return true;
}

bool stls_number_set_next(struct stls_slice *rest, struct stls_range *range_r) {
  struct stls_slice ahead = *rest;
  uint64_t a, b;
  if (!take_number(&ahead, &a)) return false;
  b = a;
  if (take_char(&ahead, ':') && !take_number(&ahead, &b)) return false;
  if (ahead.len > 0 && (!take_char(&ahead, ',') || ahead.len == 0)) return false;
  range_r->first = a < b ? a : b;
  range_r->last = a < b ? b : a;
  *rest = ahead;
  return true;
}

bool stls_number_set_count(struct stls_slice set, uint64_t *count_r) {
  struct stls_range range;
  uint64_t count = 0;
  while (stls_number_set_next(&set, &range)) {
    uint64_t more = range.last - range.first + 1;
    count = count > UINT64_MAX - more ? UINT64_MAX : count + more;
  }
  *count_r = count;
  return set.len == 0;
}

bool stls_number_set_write(const uint64_t *numbers, size_t count, struct stls_buffer *out) {
  size_t i = 0;
  while (i < count) {
    uint64_t first = numbers[i], last = first;
    while (i < count && numbers[i] <= last + 1) last = numbers[i++];
    if (stls_buffer_length(out) > 0) stls_buffer_append_char(out, ',');
    stls_buffer_append_number(out, first);
    if (last == first) continue;
    stls_buffer_append_char(out, last == first + 1 ? ',' : ':');
    stls_buffer_append_number(out, last);
  }
  return out->failure == STLS_BUFFER_OK;
}

static int compare(const void *left, const void *right) {
  uint64_t a, b;
  memcpy(&a, left, sizeof a);
  memcpy(&b, right, sizeof b);
  return a < b ? -1 : a > b;
}

void stls_numbers_sort(uint64_t *numbers, size_t count) {
  size_t i = 1;
  while (i < count && numbers[i - 1] <= numbers[i]) i++;
  if (i < count) qsort(numbers, count, sizeof *numbers, compare);
}
