/* net/channel.c - see channel.h. */
#include "net/channel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* A TLS record holds at most 16 KiB (RFC 8446 5.1); more room would stay empty. */
#define RECEIVE_ROOM (16 * 1024)

void stls_channel_init(struct stls_channel *channel, int fd) {
  channel->fd = fd;
  channel->tls = NULL;
  channel->deflate = NULL;
}

bool stls_channel_local_address(const struct stls_channel *channel, char *text_r, size_t size) {
  struct sockaddr_storage own;
  socklen_t len = sizeof own;
  memset(&own, 0, sizeof own);
  getsockname(channel->fd, (struct sockaddr *)&own, &len);
  if (own.ss_family == AF_INET6) {
    inet_ntop(AF_INET6, &((struct sockaddr_in6 *)(void *)&own)->sin6_addr, text_r, (socklen_t)size);
    return true;
  }
  if (own.ss_family == AF_INET) {
    inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)&own)->sin_addr, text_r, (socklen_t)size);
  } else {
    snprintf(text_r, size, "127.0.0.1");
  }
  return false;
}

int stls_channel_end(struct stls_channel *channel) {
  int fd = channel->fd;
  stls_tls_free(channel->tls);
  stls_deflate_free(channel->deflate);
  channel->tls = NULL;
  channel->deflate = NULL;
  channel->fd = -1;
  return fd;
}

bool stls_channel_begin_tls(struct stls_channel *channel, struct stls_tls_trust *trust,
                            const struct stls_tls_settings *settings, struct stls_error *error) {
  channel->tls = stls_tls_new(channel->fd, trust, settings, error);
  return channel->tls != NULL;
}

enum stls_io stls_channel_handshake(struct stls_channel *channel, struct stls_error *error) {
  return stls_tls_handshake(channel->tls, error);
}

bool stls_channel_begin_deflate(struct stls_channel *channel, struct stls_buffer *received,
                                const char *during, struct stls_error *error) {
  channel->deflate = stls_deflate_new(during, error);
  if (!channel->deflate) return false;
  if (!stls_buffer_append_slice(stls_deflate_received(channel->deflate),
                                stls_buffer_slice(received)))
    return stls_error_set(error, STLS_ERROR_MEMORY, during, "not enough memory");
  stls_buffer_clear(received);
  return true;
}

bool stls_channel_has_pending(const struct stls_channel *channel) {
  return (channel->tls && stls_tls_has_pending(channel->tls)) ||
         (channel->deflate && stls_deflate_has_pending(channel->deflate));
}

static enum stls_io fail(const char *during, struct stls_error *error) {
  stls_error_set(error, STLS_ERROR_CLOSED, during, "the connection was lost: %s", strerror(errno));
  return STLS_IO_FAILED;
}

static enum stls_io receive_clear(int fd, char *data, size_t size, size_t *received_r,
                                  const char *during, struct stls_error *error) {
  for (;;) {
    ssize_t got = recv(fd, data, size, MSG_DONTWAIT);
    if (got > 0) {
      *received_r = (size_t)got;
      return STLS_IO_OK;
    }
    if (got == 0 || errno == ECONNRESET) return STLS_IO_CLOSED;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return STLS_IO_WANT_READ;
    if (errno != EINTR) return fail(during, error);
  }
}

static char *reserve(struct stls_buffer *buffer, const char *during, struct stls_error *error) {
  char *room = stls_buffer_reserve(buffer, RECEIVE_ROOM);
  if (!room) stls_error_set(error, STLS_ERROR_MEMORY, during, "not enough memory");
  return room;
}

static enum stls_io receive_octets(struct stls_channel *channel, struct stls_buffer *input,
                                   const char *during, struct stls_error *error) {
  size_t received = 0;
  enum stls_io io;
  char *room = reserve(input, during, error);
  if (!room) return STLS_IO_FAILED;
  if (channel->tls)
    io = stls_tls_receive(channel->tls, room, RECEIVE_ROOM, &received, during, error);
  else io = receive_clear(channel->fd, room, RECEIVE_ROOM, &received, during, error);
  if (io == STLS_IO_OK) stls_buffer_commit(input, received);
  return io;
}

static enum stls_io decode(struct stls_deflate *deflate, struct stls_buffer *input,
                           const char *during, struct stls_error *error) {
  size_t decoded;
  enum stls_io io;
  char *room = reserve(input, during, error);
  if (!room) return STLS_IO_FAILED;
  io = stls_deflate_unpack(deflate, room, RECEIVE_ROOM, &decoded, during, error);
  if (io == STLS_IO_OK) stls_buffer_commit(input, decoded);
  return io;
}

/* The descriptor is asked only when nothing more can be decoded: so the caller waits only then. */
static enum stls_io receive_deflated(struct stls_channel *channel, struct stls_buffer *input,
                                     const char *during, struct stls_error *error) {
  enum stls_io io;
  do {
    io = decode(channel->deflate, input, during, error);
    if (io != STLS_IO_WANT_READ) return io;
    io = receive_octets(channel, stls_deflate_received(channel->deflate), during, error);
  } while (io == STLS_IO_OK);
  return io;
}

enum stls_io stls_channel_receive(struct stls_channel *channel, struct stls_buffer *input,
                                  const char *during, struct stls_error *error) {
  return channel->deflate ? receive_deflated(channel, input, during, error)
                          : receive_octets(channel, input, during, error);
}

static enum stls_io send_clear(int fd, struct stls_slice data, size_t *sent_r, const char *during,
                               struct stls_error *error) {
  for (;;) {
    ssize_t sent = send(fd, data.ptr, data.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      *sent_r = (size_t)sent;
      return STLS_IO_OK;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) return STLS_IO_WANT_WRITE;
    if (errno != EINTR) return fail(during, error);
  }
}

static enum stls_io send_octets(struct stls_channel *channel, struct stls_buffer *output,
                                const char *during, struct stls_error *error) {
  while (stls_buffer_length(output) > 0) {
    struct stls_slice data = stls_buffer_slice(output);
    size_t sent = 0;
    enum stls_io io = channel->tls ? stls_tls_send(channel->tls, data, &sent, during, error)
                                   : send_clear(channel->fd, data, &sent, during, error);
    if (io != STLS_IO_OK) return io;
    stls_buffer_consume(output, sent);
  }
  return STLS_IO_OK;
}

/* A piece is consumed when all that it became is sent: so an empty output has left us. */
static enum stls_io send_deflated(struct stls_channel *channel, struct stls_buffer *output,
                                  const char *during, struct stls_error *error) {
  struct stls_deflate *deflate = channel->deflate;
  while (stls_buffer_length(output) > 0) {
    enum stls_io io;
    if (!stls_deflate_pack(deflate, stls_buffer_slice(output), during, error))
      return STLS_IO_FAILED;
    io = send_octets(channel, stls_deflate_packed(deflate), during, error);
    if (io != STLS_IO_OK) return io;
    stls_buffer_consume(output, stls_deflate_take_sent(deflate));
  }
  return STLS_IO_OK;
}

enum stls_io stls_channel_send(struct stls_channel *channel, struct stls_buffer *output,
                               const char *during, struct stls_error *error) {
  return channel->deflate ? send_deflated(channel, output, during, error)
                          : send_octets(channel, output, during, error);
}
