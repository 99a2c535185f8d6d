/*
 * mail/number_set.h - sets of message numbers and UIDs as IMAP writes them: "1:3,7"
 * (RFC 9051 9, sequence-set; RFC 9394's "partial" ranges are none).
 * Floor 1, mail wing: may rely on base/ only.
 */
#ifndef STLS_MAIL_NUMBER_SET_H
#define STLS_MAIL_NUMBER_SET_H

#include "base/buffer.h"

/* first <= last, whichever came first on the wire. */
struct stls_range {
  uint64_t first;
  uint64_t last;
};

/*
 * Takes the next range off the front of `rest`. False at the end, when `rest` is
 * empty, and at what is no range of positive numbers, such as "*", when it is not.
 */
bool stls_number_set_next(struct stls_slice *rest, struct stls_range *range_r);

/* How many numbers the set has, each as often as it is named. False when it is no set. */
bool stls_number_set_count(struct stls_slice set, uint64_t *count_r);

/*
 * Appends the shortest text for `count` positive numbers, which must be sorted; what is
 * there twice is named once. False when the buffer breaks.
 */
bool stls_number_set_write(const uint64_t *numbers, size_t count, struct stls_buffer *out);

/* Sorts numbers, which costs nothing when they are in order. */
void stls_numbers_sort(uint64_t *numbers, size_t count);

#endif
