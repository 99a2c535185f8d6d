/*
 * mail/capabilities.h - what a server says it can do: words, some with a value.
 * Floor 1, mail wing: may rely on base/ only.
 *
 * "SIZE 1000" is the word SIZE with the value "1000"; IMAP's "AUTH=PLAIN" stays
 * one word. Look-ups compare whole words: STARTTLSX does not offer STARTTLS.
 */
#ifndef STLS_MAIL_CAPABILITIES_H
#define STLS_MAIL_CAPABILITIES_H

#include "base/buffer.h"

struct stls_capabilities {
  bool known;                 /* a list has been received, be it an empty one */
  struct stls_buffer entries; /* word NUL value NUL, ... */
};

/* An empty, unknown list that may hold at most `limit` bytes. */
void stls_capabilities_init(struct stls_capabilities *capabilities, size_t limit);
void stls_capabilities_free(struct stls_capabilities *capabilities);

/* Forgets all entries: a new list follows, which replaces the old one. */
void stls_capabilities_clear(struct stls_capabilities *capabilities);

/* Adds one. False when the limit is exceeded or memory runs out. */
bool stls_capabilities_add(struct stls_capabilities *capabilities, struct stls_slice word,
                           struct stls_slice value);

/* Finds a word, case ignored. The value (may be empty) goes to `*value_r` unless that is NULL. */
bool stls_capabilities_find(const struct stls_capabilities *capabilities, const char *word,
                            struct stls_slice *value_r);

/* Whether the value of `word` has `item` among its words: AUTH has PLAIN. */
bool stls_capabilities_lists(const struct stls_capabilities *capabilities, const char *word,
                             const char *item);

/*
 * Walks the entries: start with `*position` 0; false at the end.
 */
bool stls_capabilities_next(const struct stls_capabilities *capabilities, size_t *position,
                            struct stls_slice *word_r, struct stls_slice *value_r);

#endif
