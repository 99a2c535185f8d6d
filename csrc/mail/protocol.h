/*
 * mail/protocol.h - what tells SMTP, IMAP and POP3 apart, as the upgrade path needs it.
 * Floor 2, mail wing: may rely on base/ and mail/ only.
 *
 * The way from the greeting to an authenticated session is written once, in
 * opening.c. A new protocol fills in one of these tables and gives it a reader.
 */
#ifndef STLS_MAIL_PROTOCOL_H
#define STLS_MAIL_PROTOCOL_H

#include "mail/dialogue.h"
#include "mail/dialogue_parts.h"

/* What a protocol's reader made of the input. */
enum stls_read {
  STLS_READ_MORE,  /* needs more bytes */
  STLS_READ_REPLY, /* d->reply is the answer to a command */
  STLS_READ_EVENT, /* d->event is for the caller */
  STLS_READ_FAILED /* the error is set */
};

struct stls_protocol {
  const char *name;         /* "smtp" */
  const char *sasl_service; /* the GSSAPI service name of its RFC */
  const char *alpn;         /* registered protocol id, or NULL */
  unsigned port;            /* where it starts in the clear */
  unsigned port_implicit;   /* where it starts in TLS */
  const char *upgrade_verb; /* "STARTTLS", which is also the capability; "STLS" */
  bool upgrade_unasked;     /* the upgrade may be tried before capabilities are asked for */
  bool goodbye_counts;      /* QUIT does something: its answer must come (RFC 1939 6) */
  bool answers_each;        /* content is answered for each recipient (RFC 2033 4.2) */
  bool retells;             /* capabilities may change at authentication, and the OK tells them */
  const char *own_login;    /* the name of a login that isn't SASL, or NULL */
  const char *named_login;  /* of another, used only when the caller names it, or NULL */
  size_t longest_auth;      /* line with an initial response, CRLF included */
  size_t longest_command;   /* line, CRLF included; 0: no limit */

  enum stls_read (*read)(struct stls_dialogue *d);
  void (*ask_capabilities)(struct stls_dialogue *d);
  void (*learn_capabilities)(struct stls_dialogue *d); /* from d->reply */
  bool (*offers_mechanism)(const struct stls_dialogue *d, const char *mechanism);
  bool (*offers_own_login)(const struct stls_dialogue *d);
  bool (*offers_named_login)(const struct stls_dialogue *d);
  bool (*takes_initial_response)(const struct stls_dialogue *d);
  void (*send_own_login)(struct stls_dialogue *d); /* d->login.own; again after each first OK */
  const struct stls_table *command_table;
};

extern const struct stls_protocol stls_smtp, stls_lmtp, stls_imap, stls_pop3;

/*
 * opening.c: d->reply is the greeting. It answers nothing when something was said before it
 * came (pinned capabilities): MORE; unless it is no friendly one.
 */
enum stls_read stls_opening_greeted(struct stls_dialogue *d);

/* The protocol of this name, or NULL. */
const struct stls_protocol *stls_protocol_named(const char *name);

#endif
