/*
 * net/deflate.h - a stream of octets compressed with DEFLATE (RFC 1951), in both directions.
 * Floor 1, net wing: may rely on base/ and net/ only. deflate.c alone includes zlib.h.
 *
 * The raw format, without zlib's header, as IMAP's COMPRESS has it (RFC 4978 4). It works a piece
 * at a time: however well the peer compresses, no more is held than what one receive brought.
 */
#ifndef STLS_NET_DEFLATE_H
#define STLS_NET_DEFLATE_H

#include "base/buffer.h"
#include "base/error.h"
#include "net/io.h"

struct stls_deflate;

/* Both directions, at their beginning. NULL: out of memory, and the error is set. */
struct stls_deflate *stls_deflate_new(const char *during, struct stls_error *error);

/* NULL is harmless. */
void stls_deflate_free(struct stls_deflate *z);

/* {====== Sending ====== */

/*
 * Compresses a piece from the front of `data`, unless the one before is not sent yet. What the
 * last piece of `data` ends in is flushed, so that the peer can read all of it. False: the error
 * is set.
 */
bool stls_deflate_pack(struct stls_deflate *z, struct stls_slice data, const char *during,
                       struct stls_error *error);

/* The compressed octets: send from its front and consume. */
struct stls_buffer *stls_deflate_packed(struct stls_deflate *z);

/* How many octets of `data` the piece was; to be called when all of it is sent. */
size_t stls_deflate_take_sent(struct stls_deflate *z);

/* }====== */

/* {====== Receiving ====== */

/* Where compressed octets go: append what has arrived. */
struct stls_buffer *stls_deflate_received(struct stls_deflate *z);

/*
 * Decodes at most `size` octets into `data`. OK: `*decoded_r` of them, one at least. WANT_READ:
 * all that was received is used up. CLOSED: the peer has ended the compressed stream. FAILED:
 * kind `protocol` (or memory); `during` goes into the error.
 */
enum stls_io stls_deflate_unpack(struct stls_deflate *z, char *data, size_t size, size_t *decoded_r,
                                 const char *during, struct stls_error *error);

/* Whether there may be more to decode before anything is received. */
bool stls_deflate_has_pending(const struct stls_deflate *z);

/* }====== */

#endif
