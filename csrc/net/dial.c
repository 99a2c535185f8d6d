/* net/dial.c - see dial.h. */
#include "net/dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ATTEMPT_DELAY 0.25 /* seconds, RFC 8305 5 */
#define ADDRESSES_MAX 32

struct attempt {
  struct sockaddr_storage address;
  socklen_t len;
  int fd; /* -1: not begun, or ended */
};

struct stls_dial {
  int watch;    /* epoll */
  size_t count; /* of addresses */
  size_t begun;
  size_t running;
  double next_at; /* when the next attempt is due */
  int last_errno;
  size_t last_failed;
  size_t winner; /* index, once connected */
  struct attempt attempts[];
};

static void add_address(struct stls_dial *dial, const struct addrinfo *info) {
  struct attempt *attempt = &dial->attempts[dial->count++];
  memcpy(&attempt->address, info->ai_addr, info->ai_addrlen);
  attempt->len = info->ai_addrlen;
  attempt->fd = -1;
}

/* The next address of the given family (or, with `same` false, of another) from `info` on. */
static const struct addrinfo *next_of(const struct addrinfo *info, int family, bool same) {
  while (info && (info->ai_family == family) != same) info = info->ai_next;
  return info;
}

/* RFC 8305 4: families in turn, beginning with the one the resolver put first. */
static void interleave(struct stls_dial *dial, const struct addrinfo *addresses) {
  int first = addresses->ai_family;
  const struct addrinfo *same = next_of(addresses, first, true),
                        *other = next_of(addresses, first, false);
  while ((same || other) && dial->count < ADDRESSES_MAX) {
    if (same) {
      add_address(dial, same);
      same = next_of(same->ai_next, first, true);
    }
    if (other && dial->count < ADDRESSES_MAX) {
      add_address(dial, other);
      other = next_of(other->ai_next, first, false);
    }
  }
}

struct stls_dial *stls_dial_new(const struct addrinfo *addresses, struct stls_error *error) {
  struct stls_dial *dial = calloc(1, sizeof *dial + ADDRESSES_MAX * sizeof dial->attempts[0]);
  if (!dial) {
    stls_error_set(error, STLS_ERROR_MEMORY, "connect", "not enough memory");
    return NULL;
  }
  dial->watch = epoll_create1(EPOLL_CLOEXEC);
  if (dial->watch < 0) {
    stls_error_set(error, STLS_ERROR_CONNECT, "connect", "can't watch connections: %s",
                   strerror(errno));
    free(dial);
    return NULL;
  }
  interleave(dial, addresses);
  return dial;
}

struct stls_dial *stls_dial_new_unix(const char *path, struct stls_error *error) {
  struct sockaddr_un address;
  struct addrinfo info;
  memset(&address, 0, sizeof address);
  memset(&info, 0, sizeof info);
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
  info.ai_family = AF_UNIX;
  info.ai_addr = (struct sockaddr *)&address;
  info.ai_addrlen = sizeof address;
  return stls_dial_new(&info, error);
}

int stls_dial_fd(const struct stls_dial *dial) {
  return dial->watch;
}

double stls_dial_timeout(const struct stls_dial *dial, double now) {
  if (dial->begun == dial->count) return -1;
  return dial->next_at > now ? dial->next_at - now : 0;
}

static void note_failure(struct stls_dial *dial, size_t index, int error) {
  dial->last_errno = error;
  dial->last_failed = index;
  dial->next_at = 0; /* RFC 8305 5: a failure lets the next one begin at once */
}

static void end_attempt(struct stls_dial *dial, size_t index, int error) {
  close(dial->attempts[index].fd);
  dial->attempts[index].fd = -1;
  dial->running--;
  note_failure(dial, index, error);
}

/* True when it is connected on the spot, as Unix and loopback sockets may be. */
static bool begin_attempt(struct stls_dial *dial, size_t index) {
  struct attempt *attempt = &dial->attempts[index];
  struct epoll_event event = {.events = EPOLLOUT, .data = {.u64 = index}};
  int fd = socket(attempt->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int on = 1;
  if (fd < 0) {
    note_failure(dial, index, errno);
    return false;
  }
  attempt->fd = fd;
  dial->running++;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  if (connect(fd, (struct sockaddr *)&attempt->address, attempt->len) == 0) {
    dial->winner = index;
    return true;
  }
  if (errno != EINPROGRESS && errno != EINTR) end_attempt(dial, index, errno);
  else if (epoll_ctl(dial->watch, EPOLL_CTL_ADD, fd, &event) != 0) end_attempt(dial, index, errno);
  return false;
}

/* Looks at the attempts that have ended. True when one is connected. */
static bool check_attempts(struct stls_dial *dial) {
  struct epoll_event events[ADDRESSES_MAX];
  int i, count = epoll_wait(dial->watch, events, ADDRESSES_MAX, 0);
  for (i = 0; i < count; i++) {
    size_t index = (size_t)events[i].data.u64;
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(dial->attempts[index].fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
      error = errno;
    if (error == 0) {
      dial->winner = index;
      return true;
    }
    end_attempt(dial, index, error);
  }
  return false;
}

static void describe(const struct attempt *attempt, char *text, size_t size) {
  char host[INET6_ADDRSTRLEN] = "?", port[8] = "?";
  if (attempt->address.ss_family == AF_UNIX) {
    const struct sockaddr_un *local = (const struct sockaddr_un *)(const void *)&attempt->address;
    snprintf(text, size, "%s", local->sun_path);
    return;
  }
  getnameinfo((const struct sockaddr *)&attempt->address, attempt->len, host, sizeof host, port,
              sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
  snprintf(text, size, attempt->address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

enum stls_io stls_dial_step(struct stls_dial *dial, double now, struct stls_error *error) {
  char text[80];
  if (dial->running > 0 && check_attempts(dial)) return STLS_IO_OK;
  while (dial->begun < dial->count && (dial->running == 0 || now >= dial->next_at)) {
    dial->next_at = now + ATTEMPT_DELAY;
    if (begin_attempt(dial, dial->begun++)) return STLS_IO_OK;
  }
  if (dial->running > 0) return STLS_IO_WANT_READ;
  describe(&dial->attempts[dial->last_failed], text, sizeof text);
  stls_error_set(error, STLS_ERROR_CONNECT, "connect", "can't connect to %s: %s", text,
                 strerror(dial->last_errno));
  return STLS_IO_FAILED;
}

int stls_dial_take(struct stls_dial *dial, char *address_r, size_t size) {
  struct attempt *attempt = &dial->attempts[dial->winner];
  int fd = attempt->fd;
  describe(attempt, address_r, size);
  epoll_ctl(dial->watch, EPOLL_CTL_DEL, fd, NULL);
  attempt->fd = -1;
  dial->running--;
  return fd;
}

int stls_dial_free(struct stls_dial *dial) {
  size_t i;
  int watch;
  if (!dial) return -1;
  for (i = 0; i < dial->begun; i++) {
    if (dial->attempts[i].fd >= 0) close(dial->attempts[i].fd);
  }
  watch = dial->watch;
  free(dial);
  return watch;
}
