/*
 * lua/session.c - the userdata starttls.session, which the roof's objects wrap.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 */
#include <string.h>

#include "lua/binding.h"

#define WINDOW_MOST 1000 /* messages under way at a time */

void l_open_session(lua_State *L);

struct l_session *l_check_session(lua_State *L, int index) {
  struct l_session *session = luaL_checkudata(L, index, STLS_SESSION);
  if (!session->session) luaL_error(L, "the session was never made");
  return session;
}

/* nil, error: the sticky error of the session. */
static int push_failure(lua_State *L, const struct stls_error *error) {
  luaL_pushfail(L);
  l_push_error(L, error);
  return 2;
}

static int push_simple(lua_State *L, enum stls_error_kind kind, const char *during,
                       const char *message) {
  struct stls_error error;
  memset(&error, 0, sizeof error);
  stls_error_set(&error, kind, during, "%s", message);
  push_failure(L, &error);
  stls_error_free(&error);
  return 2;
}

/* {====== Beginning operations ====== */

/* 0 when an operation may begin; else the number of results pushed, which say why not. */
static int refuse_if_unready(lua_State *L, struct l_session *session, const char *during) {
  const struct stls_error *error = stls_session_error(session->session);
  if (error->kind != STLS_ERROR_NONE) return push_failure(L, error);
  if (session->operation || session->draining) {
    return push_simple(L, STLS_ERROR_BUSY, during,
                       "another operation is in progress on this session");
  }
  if (!stls_session_is_open(session->session)) {
    return push_simple(L, STLS_ERROR_CLOSED, during, "the session is not open");
  }
  return 0;
}

/* session:open() -> operation | nil, error */
static int session_open(lua_State *L) {
  struct l_session *session = l_check_session(L, 1);
  l_push_operation(L, 1);
  stls_session_open(session->session);
  return 1;
}

/*
 * session:authenticate(identity) -> operation | nil, error
 * The roof has checked that the session is not authenticated.
 */
static int session_authenticate(lua_State *L) {
  struct l_session *session = l_check_session(L, 1);
  struct stls_session_identity who;
  int results = refuse_if_unready(L, session, "auth");
  if (results > 0) return results;
  luaL_checktype(L, 2, LUA_TTABLE);
  l_read_identity(L, 2, &who);
  l_push_operation(L, 1);
  if (stls_session_authenticate(session->session, &who)) return 1;
  l_end_operation(lua_touserdata(L, -1), true);
  return luaL_error(L, "not enough memory");
}

/* session:forget_login(): the server took UNAUTHENTICATE. */
static int session_forget_login(lua_State *L) {
  struct stls_dialogue *dialogue = stls_session_dialogue(l_check_session(L, 1)->session);
  if (dialogue) stls_dialogue_forget_login(dialogue);
  return 0;
}

/* session:drain() -> the abandoned operation, to be taken to its end, or nil */
static int session_drain(lua_State *L) {
  struct l_session *session = l_check_session(L, 1);
  if (!session->draining || session->operation) return 0;
  session->draining = false;
  l_push_operation(L, 1);
  stls_session_begun(session->session);
  return 1;
}

enum stls_answer_form l_check_form(lua_State *L, int index) {
  static const char *const forms[] = {"reply", "lines",    "content", "goodbye",
                                      "idle",  "compress", NULL};
  return (enum stls_answer_form)luaL_checkoption(L, index, NULL, forms);
}

/* The place in our own files is of no use. */
void l_check_refusal(lua_State *L, const char *during, const char *refusal) {
  if (!refusal) return;
  lua_pushfstring(L, "%s: %s", during, refusal);
  lua_error(L);
}

/* session:command(during, form, type, value, ...) -> operation | nil, error; raises when an
 * argument can't be sent. */
static int session_command(lua_State *L) {
  struct l_session *session = l_check_session(L, 1);
  const char *during = luaL_checkstring(L, 2), *refusal;
  enum stls_answer_form form = l_check_form(L, 3);
  int results = refuse_if_unready(L, session, during);
  struct stls_arg *args;
  size_t count;
  if (results > 0) return results;
  args = l_check_args(L, 4, &count);
  l_push_operation(L, 1);
  refusal =
      stls_dialogue_command(stls_session_dialogue(session->session), during, args, count, form);
  if (refusal) l_end_operation(lua_touserdata(L, -1), true);
  l_check_refusal(L, during, refusal);
  stls_session_begun(session->session);
  return 1;
}

/* session:check(during, type, value, ...): raises when an argument can't be sent. */
static int session_check(lua_State *L) {
  struct stls_dialogue *dialogue = stls_session_dialogue(l_check_session(L, 1)->session);
  const char *during = luaL_checkstring(L, 2);
  size_t count;
  struct stls_arg *args = l_check_args(L, 3, &count);
  if (dialogue) l_check_refusal(L, during, stls_dialogue_check(dialogue, args, count));
  return 0;
}

/* session:listen() -> operation | nil, error: what an IMAP server says unasked, until op:leave() */
static int session_listen(lua_State *L) {
  struct l_session *session = l_check_session(L, 1);
  int results = refuse_if_unready(L, session, "listen");
  if (results > 0) return results;
  l_push_operation(L, 1);
  stls_dialogue_listen(stls_session_dialogue(session->session));
  stls_session_begun(session->session);
  return 1;
}

/* session:sending(window) -> operation that sends messages | nil, error */
static int session_sending(lua_State *L) {
  struct l_session *session = l_check_session(L, 1);
  lua_Integer window = luaL_checkinteger(L, 2);
  int results = refuse_if_unready(L, session, "mail");
  luaL_argcheck(L, window > 0 && window <= WINDOW_MOST, 2, "window out of range");
  if (results > 0) return results;
  l_push_operation(L, 1);
  stls_dialogue_begin_sending(stls_session_dialogue(session->session), (size_t)window);
  stls_session_begun(session->session);
  return 1;
}

/* session:unanswered() -> messages under way, when it failed, whose ends were sent */
static int session_unanswered(lua_State *L) {
  size_t count = stls_session_unanswered(l_check_session(L, 1)->session);
  lua_pushinteger(L, (lua_Integer)count);
  return 1;
}

/* }====== */

/* {====== Ending ====== */

static int end_session(lua_State *L, enum stls_error_kind kind) {
  struct l_session *session = luaL_checkudata(L, 1, STLS_SESSION);
  if (!session->session) return 0;
  stls_session_close(session->session, kind);
  l_close_descriptors(L, 1);
  return 0;
}

/* session:close(): at once, as __gc and __close do it; never waits. */
static int session_close(lua_State *L) {
  return end_session(L, STLS_ERROR_CLOSED);
}

/* session:cancel(): like close; whoever waits in the session gets an error of kind `cancelled`. */
static int session_cancel(lua_State *L) {
  return end_session(L, STLS_ERROR_CANCELLED);
}

static int session_gc(lua_State *L) {
  struct l_session *session = luaL_checkudata(L, 1, STLS_SESSION);
  end_session(L, STLS_ERROR_CLOSED);
  stls_session_free(session->session);
  session->session = NULL;
  return 0;
}

/* }====== */

/* {====== Asking ====== */

/* session:error() -> error | nil */
static int session_error(lua_State *L) {
  const struct stls_error *error = stls_session_error(l_check_session(L, 1)->session);
  if (error->kind == STLS_ERROR_NONE) return 0;
  l_push_error(L, error);
  return 1;
}

static int session_security(lua_State *L) {
  l_push_security(L, l_check_session(L, 1)->session);
  return 1;
}

/* session:certificate(with_pem) -> table | nil */
static int session_certificate(lua_State *L) {
  return l_push_certificate(L, l_check_session(L, 1)->session, lua_toboolean(L, 2));
}

static int session_capabilities(lua_State *L) {
  struct stls_dialogue *dialogue = stls_session_dialogue(l_check_session(L, 1)->session);
  if (!dialogue) return 0;
  l_push_capabilities(L, stls_dialogue_capabilities(dialogue));
  return 1;
}

/* [-0, +1] the values of IMAP's "WORD=value" capabilities, joined by blanks; "" for none */
static void push_suffixes(lua_State *L, const struct stls_capabilities *capabilities,
                          const char *word) {
  size_t len = strlen(word), position = 0;
  struct stls_slice entry, value;
  luaL_Buffer joined;
  luaL_buffinit(L, &joined);
  while (stls_capabilities_next(capabilities, &position, &entry, &value)) {
    if (!stls_slice_starts(entry, word) || entry.len <= len || entry.ptr[len] != '=') continue;
    if (luaL_bufflen(&joined) > 0) luaL_addchar(&joined, ' ');
    luaL_addlstring(&joined, entry.ptr + len + 1, entry.len - len - 1);
  }
  luaL_pushresult(&joined);
}

/* session:has(word) -> true and the value, or false */
static int session_has(lua_State *L) {
  struct stls_dialogue *dialogue = stls_session_dialogue(l_check_session(L, 1)->session);
  const char *word = luaL_checkstring(L, 2);
  const struct stls_capabilities *capabilities;
  struct stls_slice value;
  lua_pushboolean(L, dialogue != NULL);
  if (!dialogue) return 1;
  capabilities = stls_dialogue_capabilities(dialogue);
  if (stls_capabilities_find(capabilities, word, &value)) {
    l_push_slice(L, value);
    return 2;
  }
  push_suffixes(L, capabilities, word);
  if (lua_rawlen(L, -1) > 0) return 2;
  lua_pushboolean(L, 0);
  return 1;
}

static int session_pollfd(lua_State *L) {
  lua_pushinteger(L, stls_session_pollfd(l_check_session(L, 1)->session));
  return 1;
}

/* session:events() -> "r", "w", "rw" or "" */
static int session_events(lua_State *L) {
  static const char *const names[] = {"", "r", "w", "rw"};
  lua_pushstring(L, names[stls_session_events(l_check_session(L, 1)->session) & 3]);
  return 1;
}

/* session:timeout() -> seconds | nil */
static int session_timeout(lua_State *L) {
  double seconds = stls_session_timeout(l_check_session(L, 1)->session);
  if (seconds < 0) return 0;
  lua_pushnumber(L, seconds);
  return 1;
}

static int session_dirty(lua_State *L) {
  lua_pushboolean(L, stls_session_is_dirty(l_check_session(L, 1)->session));
  return 1;
}

static int session_address(lua_State *L) {
  lua_pushstring(L, stls_session_address(l_check_session(L, 1)->session));
  return 1;
}

static int session_port(lua_State *L) {
  lua_pushinteger(L, stls_session_port(l_check_session(L, 1)->session));
  return 1;
}

static int session_is_open(lua_State *L) {
  lua_pushboolean(L, stls_session_is_open(l_check_session(L, 1)->session));
  return 1;
}

/* session:is_authenticated() -> whether the server knows who we are */
static int session_is_authenticated(lua_State *L) {
  struct stls_dialogue *dialogue = stls_session_dialogue(l_check_session(L, 1)->session);
  lua_pushboolean(L, dialogue && stls_dialogue_is_authenticated(dialogue));
  return 1;
}

/* session:is_compressed() -> whether every octet is compressed */
static int session_is_compressed(lua_State *L) {
  lua_pushboolean(L, stls_session_is_compressed(l_check_session(L, 1)->session));
  return 1;
}

/* }====== */

static const luaL_Reg methods[] = {{"open", session_open},
                                   {"authenticate", session_authenticate},
                                   {"forget_login", session_forget_login},
                                   {"drain", session_drain},
                                   {"command", session_command},
                                   {"check", session_check},
                                   {"listen", session_listen},
                                   {"sending", session_sending},
                                   {"unanswered", session_unanswered},
                                   {"close", session_close},
                                   {"cancel", session_cancel},
                                   {"error", session_error},
                                   {"security", session_security},
                                   {"certificate", session_certificate},
                                   {"capabilities", session_capabilities},
                                   {"has", session_has},
                                   {"pollfd", session_pollfd},
                                   {"events", session_events},
                                   {"timeout", session_timeout},
                                   {"dirty", session_dirty},
                                   {"address", session_address},
                                   {"port", session_port},
                                   {"is_open", session_is_open},
                                   {"is_authenticated", session_is_authenticated},
                                   {"is_compressed", session_is_compressed},
                                   {NULL, NULL}};

void l_open_session(lua_State *L) {
  luaL_newmetatable(L, STLS_SESSION);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, session_gc);
  lua_setfield(L, -2, "__gc");
  lua_pushcfunction(L, session_close);
  lua_setfield(L, -2, "__close");
  lua_pop(L, 1);
}
