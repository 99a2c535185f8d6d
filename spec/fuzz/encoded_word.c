/*
 * encoded_word.c - text of header fields, parameters and dates: what comes out is valid UTF-8,
 * whatever goes in, and text that needs no decoding stays as it is.
 */
#include <stdlib.h>

#include "mail/date.h"
#include "mail/encoded_word.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PARAMETERS 8

static void must(bool holds) {
  if (!holds) abort();
}

static void check_text(struct stls_slice text, struct stls_buffer *out) {
  struct stls_slice decoded;
  must(stls_header_decode(text, out));
  decoded = stls_buffer_slice(out);
  must(stls_utf8_is_valid(decoded));
  if (!stls_header_is_plain(text)) return;
  must(decoded.len == text.len && memcmp(decoded.ptr, text.ptr, text.len) == 0);
}

/* Takes the next line off the front. */
static struct stls_slice take_line(struct stls_slice *rest) {
  const char *end = rest->len > 0 ? memchr(rest->ptr, '\n', rest->len) : NULL;
  struct stls_slice line = stls_slice(rest->ptr, end ? (size_t)(end - rest->ptr) : rest->len);
  *rest = stls_slice_from(*rest, end ? line.len + 1 : line.len);
  return line;
}

/* Lines in turn are names and values. */
static void check_parameters(struct stls_slice text, struct stls_buffer *out) {
  struct stls_parameter parameters[PARAMETERS];
  size_t count = 0, i;
  while (text.len > 0 && count < PARAMETERS) {
    struct stls_slice name = take_line(&text), value = take_line(&text);
    if (stls_parameter_read(name, value, &parameters[count])) count++;
  }
  stls_parameters_sort(parameters, count);
  for (i = 1; i < count; i++) {
    if (stls_parameter_is_same(&parameters[i - 1], &parameters[i]))
      must(parameters[i - 1].section <= parameters[i].section);
  }
  must(stls_parameters_decode(parameters, count, out));
  must(stls_utf8_is_valid(stls_buffer_slice(out)));
}

static void check_date(struct stls_slice text) {
  int64_t seconds;
  if (!stls_date_parse(text, &seconds)) return;
  must(seconds > INT64_C(-70000000000) && seconds < INT64_C(270000000000));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  /* A copy of its own, so that reading past the end is seen. */
  char *copy = malloc(size > 0 ? size : 1);
  struct stls_slice text = stls_slice(copy, size);
  struct stls_buffer out;
  must(copy != NULL);
  memcpy(copy, data, size);
  stls_buffer_init(&out, 0);
  check_text(text, &out);
  stls_buffer_clear(&out);
  check_parameters(text, &out);
  check_date(text);
  stls_buffer_free(&out);
  free(copy);
  return 0;
}
