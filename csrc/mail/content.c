/* mail/content.c - see content.h. */
#include "mail/content.h"

#include <string.h>

void stls_content_encoder_init(struct stls_content_encoder *encoder, bool dots) {
  encoder->dots = dots;
  encoder->after_cr = false;
  encoder->line_start = true;
}

static void end_line(struct stls_content_encoder *encoder, struct stls_buffer *out) {
  stls_buffer_append(out, "\r\n", 2);
  encoder->after_cr = false;
  encoder->line_start = true;
}

/* The length of the line's text: up to CR, LF or the end of the piece. */
static size_t text_length(struct stls_slice piece) {
  const char *lf = memchr(piece.ptr, '\n', piece.len);
  size_t len = lf ? (size_t)(lf - piece.ptr) : piece.len;
  const char *cr = memchr(piece.ptr, '\r', len);
  return cr ? (size_t)(cr - piece.ptr) : len;
}

static void encode_text(struct stls_content_encoder *encoder, struct stls_slice text,
                        struct stls_buffer *out) {
  if (encoder->line_start && encoder->dots && text.ptr[0] == '.') stls_buffer_append_char(out, '.');
  encoder->line_start = false;
  stls_buffer_append_slice(out, text);
}

bool stls_content_encode(struct stls_content_encoder *encoder, struct stls_slice piece,
                         struct stls_buffer *out) {
  while (piece.len > 0) {
    size_t len;
    if (encoder->after_cr) {
      bool crlf = piece.ptr[0] == '\n';
      end_line(encoder, out);
      if (crlf) piece = stls_slice_from(piece, 1);
      continue;
    }
    len = text_length(piece);
    if (len > 0) encode_text(encoder, stls_slice(piece.ptr, len), out);
    piece = stls_slice_from(piece, len);
    if (piece.len == 0) break;
    if (piece.ptr[0] == '\r') encoder->after_cr = true;
    else end_line(encoder, out);
    piece = stls_slice_from(piece, 1);
  }
  return out->failure == STLS_BUFFER_OK;
}

bool stls_content_encode_end(struct stls_content_encoder *encoder, struct stls_buffer *out) {
  if (encoder->after_cr || !encoder->line_start) end_line(encoder, out);
  return out->failure == STLS_BUFFER_OK;
}

void stls_content_decoder_init(struct stls_content_decoder *decoder) {
  decoder->state = STLS_CONTENT_LINE_START;
}

static bool ends_in_cr(struct stls_slice text) {
  return text.len > 0 && text.ptr[text.len - 1] == '\r';
}

/*
 * Takes text up to its end, or to the line end before a line with a dot in
 * front: one piece goes on over ordinary line ends. Not empty input only.
 */
static size_t decode_text(struct stls_content_decoder *decoder, struct stls_slice input,
                          struct stls_slice *piece_r) {
  bool after_cr = decoder->state == STLS_CONTENT_TEXT_CR;
  size_t from = 0;
  const char *lf;
  while ((lf = memchr(input.ptr + from, '\n', input.len - from)) != NULL) {
    size_t at = (size_t)(lf - input.ptr);
    bool crlf = at > 0 ? input.ptr[at - 1] == '\r' : after_cr;
    from = at + 1;
    if (!crlf) continue;
    if (from == input.len || input.ptr[from] == '.') {
      decoder->state = STLS_CONTENT_LINE_START;
      *piece_r = stls_slice(input.ptr, from);
      return from;
    }
  }
  decoder->state = ends_in_cr(input) ? STLS_CONTENT_TEXT_CR : STLS_CONTENT_TEXT;
  *piece_r = input;
  return input.len;
}

size_t stls_content_decode(struct stls_content_decoder *decoder, struct stls_slice input,
                           struct stls_slice *piece_r) {
  *piece_r = stls_slice(input.ptr, 0);
  if (input.len == 0) return 0;
  switch (decoder->state) {
    case STLS_CONTENT_LINE_START:
      if (input.ptr[0] != '.') return decode_text(decoder, input, piece_r);
      decoder->state = STLS_CONTENT_DOT;
      return 1;
    case STLS_CONTENT_DOT:
      if (input.ptr[0] != '\r') return decode_text(decoder, input, piece_r); /* stuffed */
      decoder->state = STLS_CONTENT_DOT_CR;
      return 1;
    case STLS_CONTENT_DOT_CR:
      if (input.ptr[0] == '\n') {
        decoder->state = STLS_CONTENT_END;
        return 1;
      }
      *piece_r = stls_slice("\r", 1); /* a stuffed dot, then a line that begins with CR */
      decoder->state = STLS_CONTENT_TEXT_CR;
      return 0;
    case STLS_CONTENT_TEXT:
    case STLS_CONTENT_TEXT_CR: return decode_text(decoder, input, piece_r);
    case STLS_CONTENT_END: break;
  }
  return 0;
}
