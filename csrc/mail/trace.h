/*
 * mail/trace.h - the record of a dialogue, for people: lines, with credentials blanked.
 * Floor 1, mail wing: may rely on base/ only.
 *
 * A queue of events. The dialogue adds what it sends and receives; whoever owns
 * the trace takes them out, and knows what time it is. Credentials never get in: the encoder knows
 * which arguments are secret by their type, and writes SECRET_SHOWN in their place. Message content
 * is counted, not kept.
 */
#ifndef STLS_MAIL_TRACE_H
#define STLS_MAIL_TRACE_H

#include "base/buffer.h"

#define STLS_TRACE_SECRET "<secret>"

enum stls_trace_direction {
  STLS_TRACE_SENT,
  STLS_TRACE_RECEIVED,
  STLS_TRACE_NOTE /* not on the wire: connected, handshake done */
};

struct stls_trace_event {
  struct stls_trace_event *next;
  enum stls_trace_direction direction;
  bool encrypted;
  size_t bytes; /* of message content; 0 for a line */
  size_t len;   /* of text */
  char text[];
};

struct stls_trace {
  bool on;        /* off: adding does nothing */
  bool encrypted; /* what the events added now say */
  struct stls_trace_event *first, *last;
};

/* Adds a line (without its CRLF). Out of memory, the event is lost. `trace` may be NULL. */
void stls_trace_line(struct stls_trace *trace, enum stls_trace_direction direction,
                     struct stls_slice text);

/* Counts message content; consecutive counts in one direction add up. */
void stls_trace_content(struct stls_trace *trace, enum stls_trace_direction direction,
                        size_t bytes);

/* Takes the oldest event out; the caller frees it with free(). NULL when there is none. */
struct stls_trace_event *stls_trace_take(struct stls_trace *trace);

/* Drops what is left. */
void stls_trace_free(struct stls_trace *trace);

#endif
