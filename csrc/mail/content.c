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

/*
 * How much of the piece can go out as it is: text up to the first CR or LF that is
 * not half of a CRLF, the first dot to be stuffed, or the end. Whole lines are
 * taken in one go, as most sources have nothing to change.
 */
static size_t clean_length(const struct stls_content_encoder *encoder, struct stls_slice piece) {
  size_t line = 0; /* where the line being looked at begins */
  bool line_start = encoder->line_start;
  for (;;) {
    const char *start = piece.ptr + line, *cr, *end = piece.ptr + piece.len;
    const char *lf = memchr(start, '\n', (size_t)(end - start));
    if (start == end || (line_start && encoder->dots && *start == '.')) return line;
    cr = memchr(start, '\r', (size_t)((lf ? lf : end) - start));
    if (!lf || !cr || cr + 1 != lf) {
      return (size_t)((cr ? cr : lf ? lf : end) - piece.ptr);
    }
    line = (size_t)(lf - piece.ptr) + 1;
    line_start = true;
  }
}

/* Writes `len` bytes that need no change; what they end in tells where the next one stands. */
static void encode_clean(struct stls_content_encoder *encoder, struct stls_slice piece, size_t len,
                         struct stls_buffer *out) {
  stls_buffer_append(out, piece.ptr, len);
  encoder->line_start = piece.ptr[len - 1] == '\n';
}

#define BLOCK 256

/*
 * Whether a block is plain, the step to the byte behind it included. The loop has a fixed
 * count and no way out, so that compilers make it one over vectors.
 */
static bool is_plain_block(const char *block, bool dots) {
  unsigned char odd = 0, dotted = 0;
  size_t i;
  for (i = 0; i < BLOCK; i++) {
    odd |= (unsigned char)(((block[i] == '\r') ^ (block[i + 1] == '\n')) | (block[i] == '\0'));
    dotted |= (unsigned char)((block[i] == '\n') & (block[i + 1] == '.'));
  }
  return !odd && !(dots && dotted);
}

bool stls_content_pass(struct stls_content_encoder *encoder, struct stls_slice piece) {
  struct stls_content_encoder rest = *encoder;
  size_t at = 0;
  if (encoder->after_cr || piece.len == 0 || piece.ptr[0] == '\n') return piece.len == 0;
  if (encoder->dots && encoder->line_start && piece.ptr[0] == '.') return false;
  while (piece.len - at > BLOCK && is_plain_block(piece.ptr + at, encoder->dots)) at += BLOCK;
  if (piece.len - at > BLOCK) return false;
  if (at > 0 && piece.ptr[at] == '\n') at--; /* its CR was the last of the block */
  if (at > 0) rest.line_start = piece.ptr[at - 1] == '\n';
  piece = stls_slice_from(piece, at);
  if (clean_length(&rest, piece) < piece.len || memchr(piece.ptr, '\0', piece.len)) return false;
  encoder->line_start = piece.ptr[piece.len - 1] == '\n';
  return true;
}

/* Writes the one byte that does need a change. */
static void encode_odd(struct stls_content_encoder *encoder, char c, struct stls_buffer *out) {
  if (c == '\r') {
    encoder->after_cr = true;
  } else if (c == '\n') {
    end_line(encoder, out);
  } else {
    stls_buffer_append_text(out, "..");
    encoder->line_start = false;
  }
}

bool stls_content_encode(struct stls_content_encoder *encoder, struct stls_slice piece,
                         struct stls_buffer *out) {
  while (piece.len > 0) {
    size_t len;
    if (encoder->after_cr) { /* a line end, whether or not LF follows */
      end_line(encoder, out);
      if (piece.ptr[0] == '\n') piece = stls_slice_from(piece, 1);
      continue;
    }
    len = clean_length(encoder, piece);
    if (len > 0) encode_clean(encoder, piece, len, out);
    piece = stls_slice_from(piece, len);
    if (piece.len == 0) break;
    encode_odd(encoder, piece.ptr[0], out);
    piece = stls_slice_from(piece, 1);
  }
  return out->failure == STLS_BUFFER_OK;
}

bool stls_content_encode_end(struct stls_content_encoder *encoder, struct stls_buffer *out) {
  if (encoder->after_cr || !encoder->line_start) end_line(encoder, out);
  return out->failure == STLS_BUFFER_OK;
}

bool stls_content_is_8bit(struct stls_slice text) {
  uint64_t words[4];
  size_t i = 0;
  for (; i + sizeof words <= text.len; i += sizeof words) {
    memcpy(words, text.ptr + i, sizeof words);
    if ((words[0] | words[1] | words[2] | words[3]) & UINT64_C(0x8080808080808080)) return true;
  }
  for (; i < text.len; i++) {
    if ((unsigned char)text.ptr[i] > 0x7f) return true;
  }
  return false;
}

/* Where the line that begins at `at` ends: at its CR or LF, or with the text. */
static size_t end_of_line(struct stls_slice text, size_t at) {
  while (at < text.len && text.ptr[at] != '\r' && text.ptr[at] != '\n') at++;
  return at;
}

bool stls_content_may_have_field(struct stls_slice text, const char *name) {
  size_t at = 0;
  while (at < text.len) {
    size_t end = end_of_line(text, at);
    if (end == at) return false;
    if (stls_slice_starts(stls_slice_from(text, at), name)) return true;
    if (end + 1 < text.len && text.ptr[end] == '\r' && text.ptr[end + 1] == '\n') end++;
    at = end + 1;
  }
  return false;
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
