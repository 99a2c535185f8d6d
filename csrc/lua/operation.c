/*
 * lua/operation.c - the userdata starttls.operation: one operation in progress.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 *
 * It is the guard of Contract 4: the roof holds it in a <close> variable, so that
 * an error, coroutine.close or a break ends the operation; __gc does so for a
 * coroutine that was dropped. An operation that ends early while it waits has its
 * session cancelled. One that ends early in between is drained by the next one if
 * all that is left is to listen, else the session is cancelled too.
 */
#include <string.h>

#include "lua/binding.h"

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
  stls_buffer_free(&operation->gathered);
  if (!session) return;
  operation->session = NULL;
  session->operation = NULL;
  session->has_step = false;
  if (complete || !session->session || stls_session_is_closed(session->session)) {
    session->waiting = false;
    return;
  }
  dialogue = stls_session_dialogue(session->session);
  if (dialogue && !session->waiting) stls_dialogue_done(dialogue);
  if (dialogue && !session->waiting && stls_dialogue_is_idle(dialogue)) return;
  if (dialogue && !session->waiting && stls_dialogue_may_drain(dialogue)) session->draining = true;
  else stls_session_close(session->session, STLS_ERROR_CANCELLED);
  session->waiting = false;
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

/* op:content(piece): some of the content that next() asked for. False: next() will say why. */
static int operation_content(lua_State *L) {
  struct stls_dialogue *dialogue = check_dialogue(L);
  size_t len;
  const char *piece = luaL_checklstring(L, 2, &len);
  lua_pushboolean(L, dialogue && stls_dialogue_content(dialogue, stls_slice(piece, len)));
  return 1;
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
