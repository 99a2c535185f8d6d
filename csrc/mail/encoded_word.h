/*
 * mail/encoded_word.h - text of header fields becomes UTF-8: RFC 2047, and RFC 2231's
 * languages, percent signs and continuations.
 * Floor 1, mail wing: may rely on base/ and mail/charset.h only.
 *
 * What comes out is always valid UTF-8: raw 8-bit text that is none is taken as
 * Windows-1252. An encoded word whose character set is unknown or whose encoding is
 * broken is left as it stands.
 */
#ifndef STLS_MAIL_ENCODED_WORD_H
#define STLS_MAIL_ENCODED_WORD_H

#include "mail/charset.h"

/* Whether decoding would leave the text as it is: ASCII, unfolded, no encoded word. */
bool stls_header_is_plain(struct stls_slice text);

/*
 * Appends the text of a header field, decoded: encoded words anywhere in it, blanks
 * between two of them dropped, characters that are cut in two by adjacent words of
 * the same character set made whole; unfolded. False when the buffer breaks.
 */
bool stls_header_decode(struct stls_slice text, struct stls_buffer *out);

/*
 * A parameter of Content-Type or Content-Disposition, whose name may say more (RFC 2231):
 * "filename*1*" is the second section of "filename", with percent signs.
 */
struct stls_parameter {
  struct stls_slice name; /* without what follows a "*" */
  struct stls_slice value;
  uint32_t section;
  bool extended;
};

/* False for a name that says no more: it stands for itself. */
bool stls_parameter_read(struct stls_slice name, struct stls_slice value,
                         struct stls_parameter *parameter_r);

/* Sorts by name, and sections of one name in their order. */
void stls_parameters_sort(struct stls_parameter *parameters, size_t count);

/* Whether both are sections of one parameter. */
bool stls_parameter_is_same(const struct stls_parameter *a, const struct stls_parameter *b);

/*
 * Appends the value that `count` sections make together: up to the first that is missing.
 * False when the buffer breaks.
 */
bool stls_parameters_decode(const struct stls_parameter *sections, size_t count,
                            struct stls_buffer *out);

#endif
