/*
 * mail/table.h - a dialogue's transitions, as data.
 * Floor 1, mail wing: may rely on base/ only.
 *
 * A row says: in this state, on a reply of one of these classes, if the guard
 * holds, do this and go there. Rows are tried in order. No row: the server broke
 * the protocol, by construction. A state whose rows have the class STLS_ON_NOTHING
 * decides at once, without waiting for a reply.
 */
#ifndef STLS_MAIL_TABLE_H
#define STLS_MAIL_TABLE_H

#include <stdbool.h>
#include <stddef.h>

struct stls_dialogue;

/* What a reply means, whatever the protocol. Bits, so that a row can name several. */
enum stls_reply_class {
  STLS_ON_POSITIVE = 1,  /* 2yz, +OK, OK */
  STLS_ON_CONTINUE = 2,  /* 3yz, + */
  STLS_ON_TRANSIENT = 4, /* 4yz; a NO or -ERR whose code says that it may pass */
  STLS_ON_PERMANENT = 8, /* 5yz, -ERR, NO, BAD */
  STLS_ON_PREAUTH = 16,  /* IMAP greeting: authenticated already */
  STLS_ON_BYE = 32,      /* 421, BYE: the server is about to close */
  STLS_ON_NOTHING = 64   /* no reply: a decision */
};

#define STLS_ON_REFUSAL (STLS_ON_TRANSIENT | STLS_ON_PERMANENT)

struct stls_row {
  unsigned state;
  unsigned classes;                             /* of enum stls_reply_class */
  bool (*guard)(const struct stls_dialogue *d); /* NULL: always */
  unsigned next;
  void (*action)(struct stls_dialogue *d); /* NULL: nothing to do */
};

struct stls_table {
  const char *name;
  const char *const *states; /* their names, which errors give as `during` */
  size_t state_count;
  const struct stls_row *rows;
  size_t row_count;
};

/* The first row that fits, or NULL. */
const struct stls_row *stls_table_find(const struct stls_table *table, unsigned state,
                                       unsigned class, const struct stls_dialogue *d);

/* Whether `state` decides without a reply. */
bool stls_table_decides(const struct stls_table *table, unsigned state);

#endif
