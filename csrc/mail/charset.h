/*
 * mail/charset.h - text of whatever character set becomes UTF-8 (RFC 3629).
 * Floor 1, mail wing: may rely on base/ only; conversion is iconv(3) of libc.
 */
#ifndef STLS_MAIL_CHARSET_H
#define STLS_MAIL_CHARSET_H

#include "base/buffer.h"

/* Takes one code point off the front. False when it is not valid UTF-8. */
bool stls_utf8_take(struct stls_slice *rest, uint32_t *point_r);

/* Appends one code point. */
void stls_utf8_put(uint32_t point, struct stls_buffer *out);

bool stls_utf8_is_valid(struct stls_slice text);

/* Whether every octet is below 128. */
bool stls_is_ascii(struct stls_slice text);

/*
 * Appends text of which nobody says what it is: as it stands when it is valid
 * UTF-8, else taken as Windows-1252, which is Latin-1 with more letters. What
 * comes out is valid UTF-8 in any case.
 */
void stls_utf8_put_unlabelled(struct stls_slice text, struct stls_buffer *out);

/*
 * Appends `octets` of the named character set. False, with nothing appended, when
 * the set is unknown or the octets are none of it, or when the buffer breaks.
 * US-ASCII and ISO-8859-1 are read as Windows-1252, and some East Asian names as
 * the larger sets that are meant by them in practice.
 */
bool stls_charset_decode(struct stls_slice charset, struct stls_slice octets,
                         struct stls_buffer *out);

#endif
