/* mail/flight.c - see flight.h. */
#include "mail/flight.h"

#include <string.h>

void stls_flight_begin(struct stls_flight *flight) {
  memset(flight, 0, sizeof *flight);
}

void stls_flight_add(struct stls_flight *flight, unsigned form, uint64_t end) {
  if (flight->sent > 0) flight->ends[(flight->sent - 1) % STLS_FLIGHT_MAX] = end;
  flight->forms[flight->sent % STLS_FLIGHT_MAX] = (uint8_t)form;
  flight->sent++;
}

bool stls_flight_is_full(const struct stls_flight *flight) {
  return flight->sent - flight->oldest == STLS_FLIGHT_MAX;
}

bool stls_flight_is_over(const struct stls_flight *flight) {
  return flight->oldest == flight->sent;
}

bool stls_flight_awaits(const struct stls_flight *flight, unsigned number) {
  return number >= flight->oldest && number < flight->sent &&
         !(flight->answered >> (number - flight->oldest) & 1);
}

uint64_t stls_flight_end(const struct stls_flight *flight, unsigned number) {
  return flight->ends[number % STLS_FLIGHT_MAX];
}

void stls_flight_answer(struct stls_flight *flight, unsigned number) {
  if (!stls_flight_awaits(flight, number)) return;
  flight->answered |= (uint64_t)1 << (number - flight->oldest);
  while (flight->answered & 1) {
    flight->answered >>= 1;
    flight->oldest++;
  }
}

unsigned stls_flight_form(const struct stls_flight *flight) {
  return stls_flight_is_over(flight) ? 0 : flight->forms[flight->oldest % STLS_FLIGHT_MAX];
}

unsigned stls_flight_last_form(const struct stls_flight *flight) {
  return flight->sent == 0 ? 0 : flight->forms[(flight->sent - 1) % STLS_FLIGHT_MAX];
}
