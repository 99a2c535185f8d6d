/*
 * spec/support/failing_malloc.c - preloaded by memory_failure_spec.lua: makes one allocation of
 * the module under test fail. Counting begins when the program calls getenv("FAIL_FROM_HERE");
 * the FAIL_AT-th allocation that starttls/core.so asks for from then on returns NULL. With
 * FAIL_AT=0 none fails. At exit, the count goes to descriptor 3.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern char **environ;

static long seen = -1, fail_at;

static int fails(void *caller) {
  Dl_info info;
  if (seen < 0 || !dladdr(caller, &info) || !strstr(info.dli_fname, "starttls/core.so")) return 0;
  if (++seen != fail_at) return 0;
  errno = ENOMEM;
  return 1;
}

void *malloc(size_t size) {
  return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
  return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

char *strdup(const char *text) {
  size_t size = strlen(text) + 1;
  char *copy = fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
  return copy ? memcpy(copy, text, size) : NULL;
}

static const char *value_of(const char *name) {
  size_t len = strlen(name);
  char **entry;
  for (entry = environ; *entry; entry++) {
    if (strncmp(*entry, name, len) == 0 && (*entry)[len] == '=') return *entry + len + 1;
  }
  return NULL;
}

char *getenv(const char *name) {
  if (strcmp(name, "FAIL_FROM_HERE") == 0) {
    const char *at = value_of("FAIL_AT");
    fail_at = at ? atol(at) : 0;
    seen = 0;
  }
  return (char *)value_of(name);
}

__attribute__((destructor)) static void tell(void) {
  char text[32];
  int len = snprintf(text, sizeof text, "%ld\n", seen);
  if (write(3, text, (size_t)len) < 0) return;
}
