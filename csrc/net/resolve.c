/* net/resolve.c - see resolve.h. */
#include "net/resolve.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "net/hostname.h"

/*
 * Shared by the caller and the thread; the last to let go frees it. The thread
 * writes `status` and `result`, then raises `done`; the caller reads them after.
 */
struct lookup {
  atomic_int owners;
  atomic_bool done;
  int done_fd; /* the thread's own copy */
  int status;  /* of getaddrinfo */
  int reason;  /* errno of the thread, for EAI_SYSTEM */
  struct addrinfo *result;
  char host[STLS_HOSTNAME_SIZE];
  char service[16];
};

struct stls_resolve {
  struct lookup *lookup;
  int fd;
};

static void let_go(struct lookup *lookup) {
  if (atomic_fetch_sub(&lookup->owners, 1) > 1) return;
  if (lookup->result) freeaddrinfo(lookup->result);
  if (lookup->done_fd >= 0) close(lookup->done_fd);
  free(lookup);
}

static void look_up(struct lookup *lookup, int flags) {
  struct addrinfo hints;
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  lookup->status = getaddrinfo(lookup->host, lookup->service, &hints, &lookup->result);
  lookup->reason = errno;
  atomic_store(&lookup->done, true);
}

static void *run_thread(void *arg) {
  struct lookup *lookup = arg;
  look_up(lookup, 0);
  eventfd_write(lookup->done_fd, 1);
  let_go(lookup);
  return NULL;
}

/* The host's signal handlers must not run on a thread that it does not know. */
static bool start_thread(struct lookup *lookup) {
  pthread_t thread;
  sigset_t all, before;
  int status;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  atomic_fetch_add(&lookup->owners, 1);
  status = pthread_create(&thread, NULL, run_thread, lookup);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (status == 0) pthread_detach(thread);
  else atomic_fetch_sub(&lookup->owners, 1);
  return status == 0;
}

static bool start(struct stls_resolve *resolve) {
  resolve->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (resolve->fd < 0) return false;
  resolve->lookup->done_fd = dup(resolve->fd);
  return resolve->lookup->done_fd >= 0 && start_thread(resolve->lookup);
}

struct stls_resolve *stls_resolve_new(const char *host, unsigned port, struct stls_error *error) {
  struct stls_resolve *resolve = calloc(1, sizeof *resolve);
  struct lookup *lookup = calloc(1, sizeof *lookup);
  if (!resolve || !lookup) {
    free(resolve);
    free(lookup);
    stls_error_set(error, STLS_ERROR_MEMORY, "connect", "not enough memory");
    return NULL;
  }
  resolve->lookup = lookup;
  resolve->fd = lookup->done_fd = -1;
  atomic_store(&lookup->owners, 1);
  snprintf(lookup->host, sizeof lookup->host, "%s", host);
  snprintf(lookup->service, sizeof lookup->service, "%u", port);
  if (stls_hostname_is_address(host)) {
    look_up(lookup, AI_NUMERICHOST);
  } else if (!start(resolve)) {
    stls_error_set(error, STLS_ERROR_RESOLVE, "connect", "can't start a thread to look up %s",
                   host);
    if (resolve->fd >= 0) close(resolve->fd);
    resolve->fd = -1;
    stls_resolve_free(resolve);
    return NULL;
  }
  return resolve;
}

int stls_resolve_fd(const struct stls_resolve *resolve) {
  return resolve->fd;
}

enum stls_io stls_resolve_step(struct stls_resolve *resolve, struct stls_error *error) {
  struct lookup *lookup = resolve->lookup;
  if (!atomic_load(&lookup->done)) return STLS_IO_WANT_READ;
  if (lookup->status == 0 && lookup->result) return STLS_IO_OK;
  stls_error_set(error, STLS_ERROR_RESOLVE, "connect", "can't look up %s: %s", lookup->host,
                 lookup->status == EAI_SYSTEM ? strerror(lookup->reason)
                                              : gai_strerror(lookup->status));
  error->temporary = lookup->status == EAI_AGAIN;
  return STLS_IO_FAILED;
}

const struct addrinfo *stls_resolve_result(const struct stls_resolve *resolve) {
  return resolve->lookup->result;
}

int stls_resolve_free(struct stls_resolve *resolve) {
  int fd;
  if (!resolve) return -1;
  fd = resolve->fd;
  let_go(resolve->lookup);
  free(resolve);
  return fd;
}
