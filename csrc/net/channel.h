/*
 * net/channel.h - a connected descriptor, in the clear or under TLS, compressed inside or not.
 * Floor 2, net wing: may rely on base/ and net/ only.
 *
 * A channel hides how bytes travel. It never blocks and never calls back.
 */
#ifndef STLS_NET_CHANNEL_H
#define STLS_NET_CHANNEL_H

#include "base/buffer.h"
#include "base/error.h"
#include "net/deflate.h"
#include "net/io.h"
#include "net/tls.h"

struct stls_channel {
  int fd;                       /* -1: none */
  struct stls_tls *tls;         /* NULL: in the clear */
  struct stls_deflate *deflate; /* above TLS (RFC 4978 3); NULL: octets go as they are */
};

/* Takes a connected, non-blocking descriptor over. */
void stls_channel_init(struct stls_channel *channel, int fd);

/* Writes our own address; true when it is IPv6. Anything but TCP counts as 127.0.0.1. */
bool stls_channel_local_address(const struct stls_channel *channel, char *text_r, size_t size);

/* Frees TLS and compression. Returns the descriptor, which the caller closes, or -1. */
int stls_channel_end(struct stls_channel *channel);

/* Begins TLS; go on with stls_channel_handshake. False: the error is set. */
bool stls_channel_begin_tls(struct stls_channel *channel, struct stls_tls_trust *trust,
                            const struct stls_tls_settings *settings, struct stls_error *error);
enum stls_io stls_channel_handshake(struct stls_channel *channel, struct stls_error *error);

/*
 * From here on every octet is compressed, in both directions. `received` holds what has arrived
 * behind the server's word that begins it: moved to where it is decoded. False: the error is set.
 */
bool stls_channel_begin_deflate(struct stls_channel *channel, struct stls_buffer *received,
                                const char *during, struct stls_error *error);

/* Whether received bytes wait that the descriptor won't tell of. */
bool stls_channel_has_pending(const struct stls_channel *channel);

/* Appends a piece of what has arrived to `input`. `during` goes into the error. */
enum stls_io stls_channel_receive(struct stls_channel *channel, struct stls_buffer *input,
                                  const char *during, struct stls_error *error);

/* Sends from the front of `output`, and consumes what was sent. OK: it is empty now. */
enum stls_io stls_channel_send(struct stls_channel *channel, struct stls_buffer *output,
                               const char *during, struct stls_error *error);

#endif
