/* base/error.c - see error.h. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST 1024 /* of a message or a server's text kept in an error, bytes */

const char *stls_error_kind_name(enum stls_error_kind kind) {
  static const char *const names[] = {
      "none",        "resolve",   "connect",   "timeout", "closed",   "tls",
      "certificate", "downgrade", "injection", "auth",    "rejected", "unsupported",
      "protocol",    "limit",     "cancelled", "busy",    "memory"};
  return names[kind];
}

static char *format_text(const char *format, va_list args) __attribute__((format(printf, 1, 0)));

static char *format_text(const char *format, va_list args) {
  char text[LONGEST];
  vsnprintf(text, sizeof text, format, args);
  return strdup(text);
}

bool stls_error_set(struct stls_error *error, enum stls_error_kind kind, const char *during,
                    const char *format, ...) {
  va_list args;
  if (error->kind != STLS_ERROR_NONE) return false;
  error->kind = kind;
  snprintf(error->during, sizeof error->during, "%s", during);
  error->temporary = kind == STLS_ERROR_RESOLVE || kind == STLS_ERROR_CONNECT ||
                     kind == STLS_ERROR_TIMEOUT || kind == STLS_ERROR_CLOSED;
  va_start(args, format);
  error->message = format_text(format, args);
  va_end(args);
  return false;
}

void stls_error_hint(struct stls_error *error, const char *format, ...) {
  va_list args;
  if (error->hint) return;
  va_start(args, format);
  error->hint = format_text(format, args);
  va_end(args);
}

/* A printable copy of at most LONGEST bytes; UTF-8 passes. NULL for nothing. */
static char *printable(struct stls_slice text) {
  size_t len = text.len < LONGEST ? text.len : LONGEST;
  char *copy;
  size_t i;
  if (len == 0) return NULL;
  copy = malloc(len + 1);
  if (!copy) return NULL;
  for (i = 0; i < len; i++) {
    unsigned char c = (unsigned char)text.ptr[i];
    copy[i] = c < 0x20 || c == 0x7f ? (c == '\t' || c == '\n' ? ' ' : '?') : text.ptr[i];
  }
  copy[len] = '\0';
  return copy;
}

void stls_error_reply(struct stls_error *error, int code, struct stls_slice status,
                      struct stls_slice text) {
  if (error->text || error->code) return;
  error->code = code;
  error->status = printable(status);
  error->text = printable(text);
}

void stls_error_free(struct stls_error *error) {
  free(error->message);
  free(error->hint);
  free(error->status);
  free(error->text);
  memset(error, 0, sizeof *error);
}

static char *copy_text(const char *text) {
  return text ? strdup(text) : NULL;
}

void stls_error_copy(struct stls_error *to, const struct stls_error *from) {
  *to = *from;
  to->message = copy_text(from->message);
  to->hint = copy_text(from->hint);
  to->status = copy_text(from->status);
  to->text = copy_text(from->text);
}
