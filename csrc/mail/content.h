/*
 * mail/content.h - message content on its way to and from the wire.
 * Floor 1, mail wing: may rely on base/ only.
 *
 * To the wire, every line ends in CRLF, whatever the source has: a bare CR or
 * bare LF is a line end too, so that neither ever reaches a server as such
 * (RFC 5321 2.3.8; the "SMTP smuggling" attacks live there). With `dots`, lines
 * that begin with a dot get another one (RFC 5321 4.5.2, RFC 1939 3).
 * Both coders stop and go on at any byte.
 */
#ifndef STLS_MAIL_CONTENT_H
#define STLS_MAIL_CONTENT_H

#include "base/buffer.h"

struct stls_content_encoder {
  bool dots;       /* stuff leading dots */
  bool after_cr;   /* the last byte given was CR, and is not written yet */
  bool line_start; /* the next byte begins a line */
};

/* Begins a message. */
void stls_content_encoder_init(struct stls_content_encoder *encoder, bool dots);

/* Encodes a piece of it into `out`. False when the buffer breaks. */
bool stls_content_encode(struct stls_content_encoder *encoder, struct stls_slice piece,
                         struct stls_buffer *out);

/*
 * Whether a piece is plain: it needs no change and has no NUL. Then it is taken for encoded,
 * and may be used as it is.
 */
bool stls_content_pass(struct stls_content_encoder *encoder, struct stls_slice piece);

/* Ends it: the last line is ended if it was not; the final dot line is the caller's. */
bool stls_content_encode_end(struct stls_content_encoder *encoder, struct stls_buffer *out);

/* Whether any octet is above 127: the message needs 8BITMIME (RFC 6152). */
bool stls_content_is_8bit(struct stls_slice text);

/*
 * Whether a line that begins with `name` (case ignored) is in a message before the first blank
 * line: there may be a header field of that name, or there is none. Any of CR and LF ends a line.
 */
bool stls_content_may_have_field(struct stls_slice text, const char *name);

enum stls_content_state {
  STLS_CONTENT_LINE_START,
  STLS_CONTENT_DOT,    /* a dot at a line's start: stuffed, or the end */
  STLS_CONTENT_DOT_CR, /* dot CR: the end if LF follows */
  STLS_CONTENT_TEXT,
  STLS_CONTENT_TEXT_CR, /* in a line, the last byte was CR */
  STLS_CONTENT_END
};

struct stls_content_decoder {
  enum stls_content_state state;
};

/* Begins a dot-terminated message. */
void stls_content_decoder_init(struct stls_content_decoder *decoder);

/*
 * Only CRLF ends a line here, and only CRLF "." CRLF the message: a bare LF is
 * text, so that a message which has one cannot end the reply early.
 *
 * Decodes the next stretch of `input` that needs no change, which `*piece_r`
 * then borrows (it may be empty), and returns how many bytes of input that took.
 * When the state is STLS_CONTENT_END, the dot line was taken too.
 */
size_t stls_content_decode(struct stls_content_decoder *decoder, struct stls_slice input,
                           struct stls_slice *piece_r);

#endif
