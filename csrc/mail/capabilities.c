/* mail/capabilities.c - see capabilities.h. */
#include "mail/capabilities.h"

void stls_capabilities_init(struct stls_capabilities *capabilities, size_t limit) {
  capabilities->known = false;
  stls_buffer_init(&capabilities->entries, limit);
}

void stls_capabilities_free(struct stls_capabilities *capabilities) {
  stls_buffer_free(&capabilities->entries);
  capabilities->known = false;
}

void stls_capabilities_clear(struct stls_capabilities *capabilities) {
  stls_buffer_clear(&capabilities->entries);
  capabilities->known = false;
}

bool stls_capabilities_add(struct stls_capabilities *capabilities, struct stls_slice word,
                           struct stls_slice value) {
  struct stls_buffer *entries = &capabilities->entries;
  if (memchr(word.ptr, '\0', word.len) || memchr(value.ptr, '\0', value.len)) return true;
  stls_buffer_append_slice(entries, word);
  stls_buffer_append_char(entries, '\0');
  stls_buffer_append_slice(entries, value);
  return stls_buffer_append_char(entries, '\0');
}

bool stls_capabilities_next(const struct stls_capabilities *capabilities, size_t *position,
                            struct stls_slice *word_r, struct stls_slice *value_r) {
  struct stls_slice entries = stls_buffer_slice(&capabilities->entries);
  if (*position >= entries.len) return false;
  *word_r = stls_slice_of(entries.ptr + *position);
  *value_r = stls_slice_of(word_r->ptr + word_r->len + 1);
  *position += word_r->len + 1 + value_r->len + 1;
  return true;
}

bool stls_capabilities_find(const struct stls_capabilities *capabilities, const char *word,
                            struct stls_slice *value_r) {
  struct stls_slice found, value;
  size_t position = 0;
  while (stls_capabilities_next(capabilities, &position, &found, &value)) {
    if (!stls_slice_is(found, word)) continue;
    if (value_r) *value_r = value;
    return true;
  }
  return false;
}

bool stls_capabilities_lists(const struct stls_capabilities *capabilities, const char *word,
                             const char *item) {
  struct stls_slice found, value, listed;
  size_t position = 0;
  while (stls_capabilities_next(capabilities, &position, &found, &value)) {
    if (!stls_slice_is(found, word)) continue;
    while (stls_slice_word(&value, &listed)) {
      if (stls_slice_is(listed, item)) return true;
    }
  }
  return false;
}
