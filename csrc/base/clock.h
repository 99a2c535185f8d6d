/*
 * base/clock.h - time for deadlines.
 * Floor 0: may rely on libc only.
 */
#ifndef STLS_BASE_CLOCK_H
#define STLS_BASE_CLOCK_H

#include <time.h>

/* Seconds since some fixed point; never steps back. */
static inline double stls_clock_now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

#endif
