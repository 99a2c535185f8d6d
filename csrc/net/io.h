/*
 * net/io.h - how a non-blocking step can end.
 * Floor 1, net wing: may rely on base/ only.
 */
#ifndef STLS_NET_IO_H
#define STLS_NET_IO_H

enum stls_io {
  STLS_IO_OK,
  STLS_IO_WANT_READ,  /* call again when the descriptor can be read */
  STLS_IO_WANT_WRITE, /* call again when it can be written */
  STLS_IO_CLOSED,     /* the peer ended the stream, with close-notify under TLS */
  STLS_IO_CUT,        /* under TLS: the stream ended without close-notify */
  STLS_IO_FAILED      /* the error says why */
};

#endif
