/* number_set.c - sets of numbers: what is read and written again has the same numbers. */
#include <stdlib.h>

#include "mail/number_set.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NUMBERS 4096

static void must(bool holds) {
  if (!holds) abort();
}

/* Reads the set into `numbers`; how many there are. */
static size_t expand(struct stls_slice set, uint64_t *numbers) {
  struct stls_range range;
  size_t count = 0;
  while (stls_number_set_next(&set, &range)) {
    uint64_t number;
    must(range.first > 0 && range.first <= range.last);
    for (number = range.first; number <= range.last && count < NUMBERS; number++)
      numbers[count++] = number;
  }
  must(set.len == 0);
  return count;
}

static size_t drop_duplicates(uint64_t *numbers, size_t count) {
  size_t kept = 0, i;
  for (i = 0; i < count; i++) {
    if (kept == 0 || numbers[kept - 1] != numbers[i]) numbers[kept++] = numbers[i];
  }
  return kept;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint64_t numbers[NUMBERS], again[NUMBERS];
  struct stls_slice set = stls_slice((const char *)data, size);
  struct stls_buffer written;
  uint64_t count;
  size_t have, read;
  if (!stls_number_set_count(set, &count) || count > NUMBERS) return 0;
  have = expand(set, numbers);
  must(have == count);
  stls_numbers_sort(numbers, have);
  stls_buffer_init(&written, 0);
  must(stls_number_set_write(numbers, have, &written));
  must(stls_buffer_length(&written) <= size);
  have = drop_duplicates(numbers, have);
  read = expand(stls_buffer_slice(&written), again);
  must(read == have && memcmp(numbers, again, have * sizeof numbers[0]) == 0);
  stls_buffer_free(&written);
  return 0;
}
