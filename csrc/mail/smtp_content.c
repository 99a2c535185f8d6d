/*
 * mail/smtp_content.c - a message's content on its way out: text behind DATA, or chunks.
 * Floor 2, mail wing: may rely on base/ and mail/ only.
 *
 * Where the server has CHUNKING (RFC 3030), BDAT saves the dots and, with PIPELINING,
 * a round trip: the first chunk goes out with the envelope. Later chunks wait until
 * the envelope is answered, so that a server that refuses everybody sees one chunk
 * too many and no more. Without PIPELINING each chunk waits for the answer to the one
 * before; so does the last one in LMTP, where the number of answers to it depends on
 * whether those before it were taken (RFC 2033 4.2).
 */
#include <stdio.h>
#include <string.h>

#include "mail/protocol.h"

/* A chunk is written when it has this size; its memory is a power of two. */
#define CHUNK_SIZE (192 * 1024)

/* Room in front of a chunk for its command: "BDAT 18446744073709551615 LAST\r\n". */
#define CHUNK_HEAD 32

static struct stls_letter *newest(const struct stls_dialogue *d) {
  return stls_sending_newest(&d->sending);
}

bool stls_content_is_open(const struct stls_dialogue *d) {
  if (d->sending.count == 0 || newest(d)->ended || newest(d)->stopped) return false;
  return d->sending.chunked || stls_transaction_sends_text(d);
}

static size_t held(const struct stls_dialogue *d) {
  size_t length = stls_buffer_length(&d->sending.chunk);
  return length > CHUNK_HEAD ? length - CHUNK_HEAD : 0;
}

bool stls_content_is_wanted(const struct stls_dialogue *d) {
  if (!stls_content_is_open(d)) return false;
  if (!d->sending.chunked) return true;
  if (!d->sending.pipelined && !stls_transaction_is_welcome(d)) return false;
  return held(d) < CHUNK_SIZE;
}

/* {====== Chunks ====== */

/* Whether the newest transaction's envelope is answered, with success. */
static bool is_welcome(const struct stls_dialogue *d) {
  return d->sending.count == 1 && stls_transaction_is_welcome(d);
}

static bool may_write_chunk(const struct stls_dialogue *d, bool last) {
  const struct stls_letter *flight = newest(d);
  bool waits = !d->sending.pipelined || (last && d->config->protocol->answers_each);
  if (flight->chunks == 0 && d->sending.pipelined) return true;
  if (!is_welcome(d)) return false;
  return !waits || d->sending.chunks_answered == flight->chunks;
}

/* Leaves room for the command that goes before the chunk. */
static void begin_chunk(struct stls_dialogue *d) {
  struct stls_buffer *chunk = &d->sending.chunk;
  stls_buffer_clear(chunk);
  if (stls_buffer_reserve(chunk, CHUNK_HEAD)) stls_buffer_commit(chunk, CHUNK_HEAD);
}

/* Puts the command right before the chunk's content, and drops what room is left. */
static void write_head(struct stls_dialogue *d, bool last) {
  struct stls_buffer *chunk = &d->sending.chunk;
  char head[CHUNK_HEAD];
  int len = snprintf(head, sizeof head, "BDAT %zu%s\r\n", held(d), last ? " LAST" : "");
  stls_buffer_consume(chunk, CHUNK_HEAD - (size_t)len);
  memcpy(chunk->data + chunk->start, head, (size_t)len);
  stls_trace_line(d->trace, STLS_TRACE_SENT, stls_slice(head, (size_t)len - 2));
}

static void write_chunk(struct stls_dialogue *d, bool last) {
  struct stls_buffer *chunk = &d->sending.chunk;
  struct stls_letter *flight = newest(d);
  size_t size = held(d);
  if (chunk->failure != STLS_BUFFER_OK) {
    stls_dialogue_fail_buffer(d, chunk, "content");
    return;
  }
  write_head(d, last);
  stls_trace_content(d->trace, STLS_TRACE_SENT, size);
  if (stls_buffer_length(&d->output) == 0) stls_buffer_swap(&d->output, chunk);
  else stls_buffer_append_slice(&d->output, stls_buffer_slice(chunk));
  begin_chunk(d);
  flight->chunks++;
  if (last) stls_transaction_written(d);
  if (d->output.failure != STLS_BUFFER_OK) stls_dialogue_fail_buffer(d, &d->output, "content");
}

bool stls_content_is_due(const struct stls_dialogue *d) {
  const struct stls_letter *flight = newest(d);
  if (!d->sending.chunked || flight->stopped || flight->end > 0) return false;
  return (flight->ended || held(d) >= CHUNK_SIZE) && may_write_chunk(d, flight->ended);
}

void stls_content_write(struct stls_dialogue *d) {
  write_chunk(d, newest(d)->ended);
}

/* }====== */

void stls_content_begin(struct stls_dialogue *d) {
  stls_content_encoder_init(&d->content_out, !d->sending.chunked);
  if (d->sending.chunked) begin_chunk(d);
}

static bool takes_8bit(const struct stls_dialogue *d) {
  return stls_capabilities_find(&d->capabilities, "8BITMIME", NULL);
}

/* Why the piece can't be sent, or NULL. RFC 6152 3: 8-bit text where 8BITMIME is offered only. */
static const char *refusal_of(const struct stls_dialogue *d, struct stls_slice piece) {
  if (newest(d)->binary) return NULL;
  if (memchr(piece.ptr, '\0', piece.len))
    return "the message has a NUL octet, which only BINARYMIME can carry";
  /* The piece is looked through only where the answer matters. */
  if (!takes_8bit(d) && stls_content_is_8bit(piece))
    return "the message has 8-bit text, and the server does not offer 8BITMIME";
  return NULL;
}

/* A message in chunks can be taken back, as RSET may follow any chunk. One behind DATA can't. */
static bool refuse_piece(struct stls_dialogue *d, const char *refusal) {
  if (stls_dialogue_content_abandon(d)) {
    d->sending.complaint = refusal;
    return false;
  }
  return stls_dialogue_fail(d, STLS_ERROR_UNSUPPORTED, "%s", refusal);
}

/* Where content goes on its way to the wire. */
static struct stls_buffer *destination(struct stls_dialogue *d) {
  return d->sending.chunked ? &d->sending.chunk : &d->output;
}

/* A piece is in its place, which had `before` bytes. */
static bool note_taken(struct stls_dialogue *d, size_t before) {
  struct stls_buffer *out = destination(d);
  if (out->failure != STLS_BUFFER_OK) return stls_dialogue_fail_buffer(d, out, "content");
  if (!d->sending.chunked)
    stls_trace_content(d->trace, STLS_TRACE_SENT, stls_buffer_length(out) - before);
  else if (stls_content_is_due(d)) stls_content_write(d);
  return d->error.kind == STLS_ERROR_NONE;
}

bool stls_content_take(struct stls_dialogue *d, struct stls_slice piece) {
  struct stls_buffer *out = destination(d);
  size_t before = stls_buffer_length(out);
  const char *refusal = refusal_of(d, piece);
  if (refusal) return refuse_piece(d, refusal);
  if (newest(d)->binary) stls_buffer_append_slice(out, piece);
  else stls_content_encode(&d->content_out, piece, out);
  return note_taken(d, before);
}

char *stls_dialogue_content_room(struct stls_dialogue *d, size_t size) {
  char *room;
  if (d->error.kind != STLS_ERROR_NONE || !d->sending.active || !stls_content_is_open(d))
    return NULL;
  room = stls_buffer_reserve(destination(d), size);
  if (!room) stls_dialogue_fail_buffer(d, destination(d), "content");
  return room;
}

/* Encodes what lies in the place where it is to be written. */
static bool take_aside(struct stls_dialogue *d, struct stls_slice piece) {
  struct stls_buffer aside;
  bool taken;
  stls_buffer_init(&aside, 0);
  stls_buffer_append_slice(&aside, piece);
  if (aside.failure != STLS_BUFFER_OK) taken = stls_dialogue_fail_buffer(d, &aside, "content");
  else taken = stls_content_take(d, stls_buffer_slice(&aside));
  stls_buffer_free(&aside);
  return taken;
}

bool stls_dialogue_content_fill(struct stls_dialogue *d, size_t len) {
  struct stls_buffer *out = destination(d);
  size_t before = stls_buffer_length(out);
  struct stls_slice piece = stls_slice(out->data + out->end, len);
  if (!newest(d)->binary && (!takes_8bit(d) || !stls_content_pass(&d->content_out, piece)))
    return take_aside(d, piece);
  stls_buffer_commit(out, len);
  return note_taken(d, before);
}

/* The dot that ends the text (RFC 5321 4.1.1.4). */
static void end_text(struct stls_dialogue *d) {
  size_t before = stls_buffer_length(&d->output);
  stls_content_encode_end(&d->content_out, &d->output);
  stls_trace_content(d->trace, STLS_TRACE_SENT, stls_buffer_length(&d->output) - before);
  if (!stls_buffer_append_text(&d->output, ".\r\n")) {
    stls_dialogue_fail_buffer(d, &d->output, "content");
    return;
  }
  stls_trace_line(d->trace, STLS_TRACE_SENT, stls_slice_of("."));
  stls_transaction_written(d);
  stls_transaction_text_ended(d);
}

void stls_content_end(struct stls_dialogue *d) {
  struct stls_letter *flight = newest(d);
  flight->ended = true;
  if (!d->sending.chunked) {
    end_text(d);
    return;
  }
  if (!flight->binary) stls_content_encode_end(&d->content_out, &d->sending.chunk);
  if (stls_content_is_due(d)) stls_content_write(d);
  stls_transaction_look_again(d);
}

bool stls_dialogue_content_abandon(struct stls_dialogue *d) {
  if (!d->sending.active || !d->sending.chunked || !stls_content_is_open(d)) return false;
  newest(d)->stopped = true;
  stls_transaction_look_again(d);
  return true;
}
