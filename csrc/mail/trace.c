/* mail/trace.c - see trace.h. */
#include "mail/trace.h"

#include <stdlib.h>
#include <string.h>

static void add(struct stls_trace *trace, enum stls_trace_direction direction,
                struct stls_slice text, size_t bytes) {
  struct stls_trace_event *event = malloc(sizeof *event + text.len);
  if (!event) return;
  event->next = NULL;
  event->direction = direction;
  event->encrypted = trace->encrypted;
  event->bytes = bytes;
  event->len = text.len;
  if (text.len > 0) memcpy(event->text, text.ptr, text.len);
  if (trace->last) trace->last->next = event;
  else trace->first = event;
  trace->last = event;
}

void stls_trace_line(struct stls_trace *trace, enum stls_trace_direction direction,
                     struct stls_slice text) {
  if (!trace || !trace->on) return;
  add(trace, direction, text, 0);
}

void stls_trace_content(struct stls_trace *trace, enum stls_trace_direction direction,
                        size_t bytes) {
  struct stls_trace_event *last;
  if (!trace || !trace->on || bytes == 0) return;
  last = trace->last;
  if (last && last->bytes > 0 && last->direction == direction) last->bytes += bytes;
  else add(trace, direction, stls_slice("", 0), bytes);
}

struct stls_trace_event *stls_trace_take(struct stls_trace *trace) {
  struct stls_trace_event *event = trace->first;
  if (!event) return NULL;
  trace->first = event->next;
  if (!trace->first) trace->last = NULL;
  return event;
}

void stls_trace_free(struct stls_trace *trace) {
  struct stls_trace_event *event;
  while ((event = stls_trace_take(trace)) != NULL) free(event);
}
