/*
 * mail/flight.h - commands that are sent and not answered yet.
 * Floor 1, mail wing: may rely on base/ only.
 *
 * The commands of one operation are numbered from 0 in the order in which they were
 * sent. POP3 answers in that order (RFC 2449 6.8); IMAP servers may overtake (RFC 9051 5.5).
 */
#ifndef STLS_MAIL_FLIGHT_H
#define STLS_MAIL_FLIGHT_H

#include <stdbool.h>
#include <stdint.h>

#define STLS_FLIGHT_MAX  64 /* commands; as many as `answered` has bits */
#define STLS_FLIGHT_NONE UINT32_MAX

struct stls_flight {
  unsigned sent;                  /* commands of this operation so far */
  unsigned oldest;                /* that is not answered; equals `sent` when all are */
  uint64_t answered;              /* bit i: command oldest + i is answered */
  uint64_t ends[STLS_FLIGHT_MAX]; /* octets of output up to each one's end, but the last one's */
  uint8_t forms[STLS_FLIGHT_MAX]; /* enum stls_answer_form, by number modulo STLS_FLIGHT_MAX */
};

/* Forgets all commands: an operation begins. */
void stls_flight_begin(struct stls_flight *flight);

/* Adds a command; there must be room. `end`: octets of output up to the end of the one before. */
void stls_flight_add(struct stls_flight *flight, unsigned form, uint64_t end);

bool stls_flight_is_full(const struct stls_flight *flight);

/* Whether every command that was sent is answered. */
bool stls_flight_is_over(const struct stls_flight *flight);

/* Whether command `number` waits for its answer. */
bool stls_flight_awaits(const struct stls_flight *flight, unsigned number);

/* The octets of output up to the end of command `number`, which is not the last. */
uint64_t stls_flight_end(const struct stls_flight *flight, unsigned number);

/* Notes the answer of a command that waits for it. */
void stls_flight_answer(struct stls_flight *flight, unsigned number);

/* The form of the oldest command that is not answered; 0 when there is none. */
unsigned stls_flight_form(const struct stls_flight *flight);

/* The form of the command that was sent last; 0 when none was. */
unsigned stls_flight_last_form(const struct stls_flight *flight);

#endif
