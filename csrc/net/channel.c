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
  channel->tls = NULL;
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

enum stls_io stls_channel_receive(struct stls_channel *channel, struct stls_buffer *input,
                                  const char *during, struct stls_error *error) {
  size_t received = 0;
  enum stls_io io;
  char *room = stls_buffer_reserve(input, RECEIVE_ROOM);
  if (!room) {
    stls_error_set(error, STLS_ERROR_MEMORY, during, "not enough memory");
    return STLS_IO_FAILED;
  }
  if (channel->tls)
    io = stls_tls_receive(channel->tls, room, RECEIVE_ROOM, &received, during, error);
  else io = receive_clear(channel->fd, room, RECEIVE_ROOM, &received, during, error);
  if (io == STLS_IO_OK) stls_buffer_commit(input, received);
  return io;
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

enum stls_io stls_channel_send(struct stls_channel *channel, struct stls_buffer *output,
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
