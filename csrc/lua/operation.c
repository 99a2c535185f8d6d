/*
 * lua/operation.c - the userdata starttls.operation: one operation in progress.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 *
 * It is the guard of Contract 4: the roof holds it in a <close> variable, so that
 * an error, coroutine.close or a break ends the operation; __gc does so for a
 * coroutine that was dropped. An operation that ends early while it waits for an
 * answer has its session cancelled. One that ends early in between, or while it
 * idles, is drained by the next one if all that is left is to listen, else the
 * session is cancelled too.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lua/binding.h"

#define BLOCK (192 * 1024) /* bytes of content taken at a time: a chunk (smtp_content.c) */

void l_open_operation(lua_State *L);

void l_push_operation(lua_State *L, int index) {
  struct l_session *session = l_check_session(L, index);
  struct l_operation *operation;
  index = lua_absindex(L, index);
  operation = lua_newuserdatauv(L, sizeof *operation, 1);
  operation->session = NULL;
  operation->gather_limit = 0;
  stls_buffer_init(&operation->gathered, 0);
  luaL_setmetatable(L, STLS_OPERATION);
  lua_pushvalue(L, index);
  lua_setiuservalue(L, -2, UV_SESSION);
  operation->session = session;
  session->operation = operation;
  session->has_step = false;
}

void l_end_operation(struct l_operation *operation, bool complete) {
  struct l_session *session = operation->session;
  struct stls_dialogue *dialogue;
  bool waiting;
  stls_buffer_free(&operation->gathered);
  if (!session) return;
  operation->session = NULL;
  session->operation = NULL;
  session->has_step = false;
  waiting = session->waiting;
  session->waiting = false;
  if (complete || !session->session || stls_session_is_closed(session->session)) return;
  dialogue = stls_session_dialogue(session->session);
  if (dialogue && stls_dialogue_is_listening(dialogue)) waiting = false;
  if (dialogue && !waiting) stls_dialogue_done(dialogue);
  if (dialogue && !waiting) stls_dialogue_no_message(dialogue, true);
  if (dialogue && !waiting && stls_dialogue_is_idle(dialogue)) return;
  if (dialogue && !waiting && stls_dialogue_may_drain(dialogue)) session->draining = true;
  else stls_session_close(session->session, STLS_ERROR_CANCELLED);
}

/* __close and __gc */
static int operation_end(lua_State *L) {
  struct l_operation *operation = luaL_checkudata(L, 1, STLS_OPERATION);
  l_end_operation(operation, false);
  if (lua_getiuservalue(L, 1, UV_SESSION) == LUA_TUSERDATA)
    l_close_descriptors(L, lua_absindex(L, -1));
  return 0;
}

static struct stls_dialogue *check_dialogue(lua_State *L) {
  struct l_operation *operation = luaL_checkudata(L, 1, STLS_OPERATION);
  if (!operation->session || !operation->session->session) return NULL;
  return stls_session_dialogue(operation->session->session);
}

/* false, and why this message can't be sent; without a reason, next() will give the error. */
static int push_complaint(lua_State *L, struct stls_dialogue *dialogue) {
  lua_pushboolean(L, 0);
  lua_pushstring(L, dialogue ? stls_dialogue_complaint(dialogue) : NULL); /* nil for NULL */
  return 2;
}

/*
 * op:content(piece [, from]) -> the position behind what was taken | false [, why]
 * Some of the content that next() asked for; with `from`, at most a block of it from there
 * on.
 */
static int operation_content(lua_State *L) {
  struct stls_dialogue *dialogue = check_dialogue(L);
  size_t len, from;
  const char *piece = luaL_checklstring(L, 2, &len);
  lua_Integer position = luaL_optinteger(L, 3, 1);
  luaL_argcheck(L, position >= 1 && (size_t)position <= len + 1, 3, "not in the piece");
  from = (size_t)position - 1;
  len -= from;
  if (!lua_isnoneornil(L, 3) && len > BLOCK) len = BLOCK;
  if (!dialogue || !stls_dialogue_content(dialogue, stls_slice(piece + from, len)))
    return push_complaint(L, dialogue);
  lua_pushinteger(L, position + (lua_Integer)len);
  return 1;
}

/*
 * op:content_file(file) -> true | false [, why] | nil, the system's reason
 * The next block of an open file, without a Lua string in between, and with the last one the
 * content's end.
 */
static int operation_content_file(lua_State *L) {
  struct stls_dialogue *dialogue = check_dialogue(L);
  luaL_Stream *stream = luaL_checkudata(L, 2, LUA_FILEHANDLE);
  char *room = dialogue && stream->closef ? stls_dialogue_content_room(dialogue, BLOCK) : NULL;
  size_t len;
  luaL_argcheck(L, stream->closef != NULL, 2, "closed file");
  if (!room) return push_complaint(L, dialogue);
  errno = 0;
  len = fread(room, 1, BLOCK, stream->f);
  if (ferror(stream->f)) {
    luaL_pushfail(L);
    lua_pushstring(L, strerror(errno));
    return 2;
  }
  if (len > 0 && !stls_dialogue_content_fill(dialogue, len)) return push_complaint(L, dialogue);
  if (len < BLOCK) stls_dialogue_content_end(dialogue);
  lua_pushboolean(L, 1);
  return 1;
}

/* op:content_abandon() -> whether the message can be left out, and the session goes on */
static int operation_content_abandon(lua_State *L) {
  struct stls_dialogue *dialogue = check_dialogue(L);
  lua_pushboolean(L, dialogue && stls_dialogue_content_abandon(dialogue));
  return 1;
}

/*
 * op:message(recipients, binary, type, value, ...) -> true | nil, why it is refused
 * The message that next() asked for. The typed arguments are the sender's path and the
 * parameters of MAIL; a recipient is an address or { address, type, value, ... }.
 */
static int operation_message(lua_State *L) {
  struct stls_dialogue *dialogue = check_dialogue(L);
  struct stls_envelope envelope;
  const char *refusal;
  luaL_checktype(L, 2, LUA_TTABLE);
  envelope.binary = lua_toboolean(L, 3);
  envelope.mail.list = l_check_args(L, 4, &envelope.mail.count);
  envelope.recipients = l_check_recipients(L, 2, &envelope.count);
  luaL_argcheck(L, envelope.count > 0, 2, "no recipients");
  refusal = dialogue ? stls_dialogue_message(dialogue, &envelope) : NULL;
  if (!refusal) {
    lua_pushboolean(L, 1);
    return 1;
  }
  luaL_pushfail(L);
  lua_pushstring(L, refusal);
  return 2;
}

/* op:farewell(): the next message is the last of the session, which ends with it. */
static int operation_farewell(lua_State *L) {
  struct stls_dialogue *dialogue = check_dialogue(L);
  if (dialogue) stls_dialogue_farewell(dialogue);
  return 0;
}

/* op:no_message(last): there is none until another one is over, or ever. */
static int operation_no_message(lua_State *L) {
  struct stls_dialogue *dialogue = check_dialogue(L);
  if (dialogue) stls_dialogue_no_message(dialogue, lua_toboolean(L, 2));
  return 0;
}

/* op:content_end(): there is no more. */
static int operation_content_end(lua_State *L) {
  struct stls_dialogue *dialogue = check_dialogue(L);
  if (dialogue) stls_dialogue_content_end(dialogue);
  return 0;
}

/* op:credential(secret): what next() asked for. */
static int operation_credential(lua_State *L) {
  struct stls_dialogue *dialogue = check_dialogue(L);
  size_t len;
  const char *secret = luaL_checklstring(L, 2, &len);
  if (dialogue) stls_dialogue_credential(dialogue, stls_slice(secret, len));
  return 0;
}

/*
 * op:push(during, form, type, value, ...) -> true: one more command is in flight; false: it must
 * be a command of its own, after "done". Raises when an argument can't be sent.
 */
static int operation_push(lua_State *L) {
  struct stls_dialogue *dialogue = check_dialogue(L);
  const char *during = luaL_checkstring(L, 2), *refusal;
  enum stls_answer_form form = l_check_form(L, 3);
  bool sent = false;
  size_t count;
  struct stls_arg *args = l_check_args(L, 4, &count);
  refusal = dialogue ? stls_dialogue_push(dialogue, args, count, form, &sent) : NULL;
  l_check_refusal(L, during, refusal);
  lua_pushboolean(L, sent);
  return 1;
}

/* op:tag() -> the tag of the IMAP command sent last */
static int operation_tag(lua_State *L) {
  struct stls_dialogue *dialogue = check_dialogue(L);
  char tag[STLS_TAG_SIZE];
  if (!dialogue) return 0;
  stls_dialogue_tag(dialogue, tag);
  lua_pushstring(L, tag);
  return 1;
}

/* op:leave(): ends idling or listening; what follows is the answer, or "done". */
static int operation_leave(lua_State *L) {
  struct l_operation *operation = luaL_checkudata(L, 1, STLS_OPERATION);
  struct stls_dialogue *dialogue = check_dialogue(L);
  if (!dialogue) return 0;
  stls_dialogue_done(dialogue);
  stls_session_begun(operation->session->session);
  return 0;
}

/* op:wake(seconds): while idling or listening, next() gives "wake" once, `seconds` from now. */
static int operation_wake(lua_State *L) {
  struct l_operation *operation = luaL_checkudata(L, 1, STLS_OPERATION);
  lua_Number seconds = luaL_checknumber(L, 2);
  if (check_dialogue(L)) stls_session_wake(operation->session->session, seconds);
  return 0;
}

/* op:renew(): another call waits for it, whose time runs from now. */
static int operation_renew(lua_State *L) {
  struct l_operation *operation = luaL_checkudata(L, 1, STLS_OPERATION);
  if (check_dialogue(L)) stls_session_begun(operation->session->session);
  return 0;
}

/* op:gather(limit): literals of up to `limit` octets come as one piece from now on. */
static int operation_gather(lua_State *L) {
  struct l_operation *operation = luaL_checkudata(L, 1, STLS_OPERATION);
  lua_Integer limit = luaL_checkinteger(L, 2);
  operation->gather_limit = limit > 0 ? (uint64_t)limit : 0;
  return 0;
}

static const luaL_Reg methods[] = {{"next", l_operation_next},
                                   {"gather", operation_gather},
                                   {"content", operation_content},
                                   {"content_end", operation_content_end},
                                   {"content_file", operation_content_file},
                                   {"content_abandon", operation_content_abandon},
                                   {"message", operation_message},
                                   {"no_message", operation_no_message},
                                   {"farewell", operation_farewell},
                                   {"credential", operation_credential},
                                   {"push", operation_push},
                                   {"tag", operation_tag},
                                   {"leave", operation_leave},
                                   {"wake", operation_wake},
                                   {"renew", operation_renew},
                                   {NULL, NULL}};

void l_open_operation(lua_State *L) {
  luaL_newmetatable(L, STLS_OPERATION);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, operation_end);
  lua_setfield(L, -2, "__gc");
  lua_pushcfunction(L, operation_end);
  lua_setfield(L, -2, "__close");
  lua_pop(L, 1);
}
