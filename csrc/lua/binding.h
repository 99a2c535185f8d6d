/*
 * lua/binding.h - the parts of the Lua module starttls.core.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 *
 *   module.c     what the module exports
 *   options.c    a table of options becomes a session's configuration
 *   session.c    the userdata starttls.session
 *   operation.c  the userdata starttls.operation: one operation in progress, guarded
 *   arguments.c  typed arguments of commands
 *   drive.c      op:next(), where a session waits
 *   poller.c     the userdata starttls.poller: waiting for many descriptors at once
 *   values.c     events become Lua values
 *   files.c      files that are safely on disk
 *   imap_*.c     IMAP responses become Lua values (imap_parts.h says which does what)
 */
#ifndef STLS_LUA_BINDING_H
#define STLS_LUA_BINDING_H

#include <lauxlib.h>
#include <lua.h>

#include "session/session.h"

#define STLS_SESSION   "starttls.session"
#define STLS_OPERATION "starttls.operation"
#define STLS_ERROR     "starttls.error"
#define STLS_TRUST     "starttls.trust"

/* User values of a session. */
enum { UV_WAIT = 1, UV_FORGET, UV_OBJECT, UV_SESSION_COUNT = UV_OBJECT };

struct l_session {
  struct stls_session *session;  /* NULL: never made, or collected */
  struct l_operation *operation; /* in progress, or NULL */
  bool draining;                 /* an abandoned operation is to be taken to its end first */
  bool waiting;                  /* in a wait */
  size_t spent;                  /* on work since the last wait, see drive.c */
  bool has_step;                 /* `step` and `event` are not handed out yet */
  enum stls_step step;
  struct stls_event event;
};

/* User value of an operation: its session. */
enum { UV_SESSION = 1 };

struct l_operation {
  struct l_session *session;   /* NULL once it is over */
  struct stls_buffer gathered; /* a literal that comes in pieces and is wanted whole */
  uint64_t gather_limit;       /* literals up to this size are; 0: none */
};

/* session.c: [-0, +0] the session at `index`; raises for anything else. */
struct l_session *l_check_session(lua_State *L, int index);

/* session.c: the form of a command's answer at `index`: "reply", "lines", ... */
enum stls_answer_form l_check_form(lua_State *L, int index);

/* session.c: raises what the encoder refused, if it did; nothing was sent. */
void l_check_refusal(lua_State *L, const char *during, const char *refusal);

/* operation.c: [-0, +1] an operation on the session at `index`, which becomes busy. */
void l_push_operation(lua_State *L, int index);

/* Ends it; an operation that is not at its end leaves the session draining or cancelled. */
void l_end_operation(struct l_operation *operation, bool complete);

/*
 * arguments.c: [-0, +1] each, an array that borrows from the values on the stack, or in
 * the table at `index`: type, value, ... from `first` on; and recipients, of which each is
 * an address or { address, type, value, ... }. Raises for what is neither.
 */
struct stls_arg *l_check_args(lua_State *L, int first, size_t *count_r);
struct stls_args *l_check_recipients(lua_State *L, int index, size_t *count_r);

/* drive.c: op:next(). */
int l_operation_next(lua_State *L);

/* drive.c: for poll(2) and epoll_wait(2): rounded up; -1, for ever, when negative. */
int l_to_milliseconds(double seconds);

/* poller.c: core.poller(), and the metatable of what it makes. */
int l_poller_new(lua_State *L);
void l_open_poller(lua_State *L);

/* drive.c: tells the loop to forget descriptors that the session is done with, and closes them. */
void l_close_descriptors(lua_State *L, int session_index);

/* options.c: [-0, +1] a new session from the options table at `index`. Raises on misuse. */
int l_session_new(lua_State *L);
int l_trust_new(lua_State *L);

/* options.c: who we are, from the table at `index`, which keeps the strings. */
void l_read_identity(lua_State *L, int index, struct stls_session_identity *who);

/* values.c: [-0, +1] each. */
void l_push_error(lua_State *L, const struct stls_error *error);
void l_push_reply(lua_State *L, const struct stls_event *event);
void l_push_trace(lua_State *L, const struct stls_trace_event *event);
void l_push_security(lua_State *L, struct stls_session *session);
int l_push_certificate(lua_State *L, struct stls_session *session, bool pem);
void l_push_capabilities(lua_State *L, const struct stls_capabilities *capabilities);
void l_push_slice(lua_State *L, struct stls_slice slice);
void l_push_upper(lua_State *L, struct stls_slice slice);

/* imap_values.c: what reads responses; its parts are in imap_parts.h. */
void l_open_imap_values(lua_State *L);

/* imap_values.c: [-0, +1] the response's value. */
void l_push_response(lua_State *L, const struct stls_imap_response *response);

/* imap_values.c: [-0, +0] what a status response's code says, as fields of the table on the top. */
void l_set_code_fields(lua_State *L, const struct stls_imap_response *response);

/* imap_values.c: [-0, +1] the message as far as it came since the literal before this one. */
void l_push_fresh_items(lua_State *L, const struct stls_imap_response *response);

/* imap_message.c: [-0, +1] the section that the literal being streamed is, as in msg.sections. */
void l_push_streamed_section(lua_State *L, const struct stls_imap_response *response);

/* imap_sets.c: functions of the module. */
int l_numbers_of(lua_State *L);
int l_set_of(lua_State *L);

#endif
