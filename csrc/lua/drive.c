/*
 * lua/drive.c - op:next(), and the one place where a session waits.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 *
 * By default it waits in poll(2). A session with a loop adapter waits by calling
 * the adapter's wait(session, mode, seconds), which may yield: this function then
 * goes on in its continuation. Where a yield is impossible (main thread, a sort
 * comparator), poll(2) serves there too.
 *
 * A session that always has something to do would never wait, and nobody else in the
 * loop would have a turn: after a share of work it waits for no time at all.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "lua/binding.h"

/* What a session may do between two waits. A small event costs as much as a kilobyte. */
#define SHARE      (256 * 1024)
#define EVENT_COST 1024
#define PIECE_COST (64 * 1024) /* of content that the caller is asked for */

static int drive(lua_State *L);

/* {====== Descriptors on their way out ====== */

void l_close_descriptors(lua_State *L, int session_index) {
  struct l_session *session = lua_touserdata(L, session_index);
  int fd;
  if (!session || !session->session) return;
  while ((fd = stls_session_take_closing(session->session)) >= 0) {
    if (lua_getiuservalue(L, session_index, UV_FORGET) == LUA_TFUNCTION) {
      lua_pushinteger(L, fd);
      /* An error in the adapter must not keep the descriptor open. */
      if (lua_pcall(L, 1, 0, 0) != LUA_OK) lua_pop(L, 1);
    } else {
      lua_pop(L, 1);
    }
    close(fd);
  }
}

/* }====== */

/* {====== Waiting ====== */

static int do_nothing(lua_State *L) {
  (void)L;
  return 0;
}

int l_to_milliseconds(double seconds) {
  double milliseconds = ceil(seconds * 1000);
  if (seconds < 0) return -1;
  return milliseconds > 86400000 ? 86400000 : (int)milliseconds;
}

/* Waits without yielding. An interrupted wait lets Lua run its hooks: Ctrl-C acts at once. */
static void wait_here(lua_State *L, struct stls_session *session) {
  unsigned events = stls_session_events(session);
  struct pollfd pollfd = {.fd = stls_session_pollfd(session)};
  if (events & STLS_EVENT_READ) pollfd.events |= POLLIN;
  if (events & STLS_EVENT_WRITE) pollfd.events |= POLLOUT;
  if (poll(&pollfd, 1, l_to_milliseconds(stls_session_timeout(session))) < 0 && errno == EINTR) {
    lua_pushcfunction(L, do_nothing);
    lua_call(L, 0, 0);
  }
}

/* [-0, +4] the adapter's wait function and its arguments: session, mode, seconds */
static void push_wait(lua_State *L, struct stls_session *session, bool turn) {
  static const char *const modes[] = {"r", "r", "w", "rw"}; /* to give a turn, any will do */
  double seconds = turn ? 0 : stls_session_timeout(session);
  lua_getiuservalue(L, 2, UV_WAIT);
  lua_getiuservalue(L, 2, UV_OBJECT);
  lua_pushstring(L, modes[stls_session_events(session) & 3]);
  if (seconds < 0) lua_pushnil(L);
  else lua_pushnumber(L, seconds);
}

/* An adapter that says nil, err can't wait: that ends the session. A mere nil is a wake-up. */
static void take_wait_result(lua_State *L, struct l_session *session) {
  session->waiting = false;
  if (!lua_toboolean(L, -2) && !lua_isnil(L, -1))
    stls_session_close(session->session, STLS_ERROR_CANCELLED);
  lua_settop(L, 2);
}

static int drive_k(lua_State *L, int status, lua_KContext context) {
  (void)status;
  (void)context;
  take_wait_result(L, lua_touserdata(L, 2));
  return drive(L);
}

static bool has_loop(lua_State *L) {
  int type = lua_getiuservalue(L, 2, UV_WAIT);
  lua_pop(L, 1);
  return type == LUA_TFUNCTION && lua_isyieldable(L);
}

/* `turn`: there is no need to wait, but others are to have a turn. */
static void wait_in_loop(lua_State *L, struct l_session *session, bool turn) {
  session->waiting = true;
  session->spent = 0;
  push_wait(L, session->session, turn);
  lua_callk(L, 3, 2, 0, drive_k);
  take_wait_result(L, session);
}

static void wait_for_progress(lua_State *L, struct l_session *session) {
  if (has_loop(L)) {
    wait_in_loop(L, session, false);
  } else {
    session->waiting = true;
    wait_here(L, session->session);
    session->waiting = false;
  }
}

/* Counts what a step did. */
static void count_work(struct l_session *session) {
  if (session->step == STLS_STEP_CARE) session->spent += EVENT_COST + session->event.text.len;
  else if (session->step == STLS_STEP_CONTENT) session->spent += PIECE_COST;
  else session->spent += EVENT_COST;
}

static bool owes_a_turn(lua_State *L, const struct l_session *session) {
  return session->spent > SHARE && !session->has_step && has_loop(L);
}

/* }====== */

/* {====== Handing out ====== */

/* The event stays in the trace until Lua has it, in case Lua runs out of memory. */
static int push_trace_event(lua_State *L, struct stls_session *session) {
  struct stls_trace *trace = stls_session_trace(session);
  lua_pushliteral(L, "trace");
  l_push_trace(L, trace->first);
  free(stls_trace_take(trace));
  return 2;
}

static int push_content(lua_State *L, const struct stls_event *event) {
  lua_pushliteral(L, "content");
  l_push_slice(L, event->text);
  if (!event->response) return 2;
  lua_pushinteger(L, (lua_Integer)event->size);
  lua_pushinteger(L, (lua_Integer)event->offset);
  l_push_streamed_section(L, event->response);
  if (event->offset > 0) return 5;
  l_push_fresh_items(L, event->response);
  return 6;
}

static int push_untagged(lua_State *L, const struct stls_imap_response *response) {
  lua_pushliteral(L, "untagged");
  if (stls_slice_is(response->name, "UIDFETCH")) lua_pushliteral(L, "FETCH"); /* RFC 9586 3 */
  else l_push_upper(L, response->name); /* RFC 9051 9, note 1: case does not matter */
  if (response->has_number) lua_pushinteger(L, response->number);
  else lua_pushnil(L);
  l_push_response(L, response);
  lua_pushinteger(L, (lua_Integer)response->weight);
  return 5;
}

static int push_event(lua_State *L, const struct stls_event *event) {
  switch (event->type) {
    case STLS_EVENT_REPLY:
      lua_pushliteral(L, "reply");
      l_push_reply(L, event);
      lua_pushinteger(L, (lua_Integer)event->index + 1);
      return 3;
    case STLS_EVENT_RECIPIENT:
      lua_pushliteral(L, "recipient");
      lua_pushinteger(L, (lua_Integer)event->index + 1);
      l_push_reply(L, event);
      l_push_slice(L, event->text);
      return 4;
    case STLS_EVENT_REFUSED:
      lua_pushliteral(L, "refused");
      l_push_reply(L, event);
      l_push_slice(L, event->text);
      return 3;
    case STLS_EVENT_LINE:
      lua_pushliteral(L, "line");
      l_push_slice(L, event->text);
      return 2;
    case STLS_EVENT_CONTENT: return push_content(L, event);
    case STLS_EVENT_UNTAGGED: return push_untagged(L, event->response);
    case STLS_EVENT_IDLING: lua_pushliteral(L, "idling"); return 1;
  }
  return luaL_error(L, "unknown event");
}

/*
 * Keeps a piece of a literal that is wanted whole. True while more of it is to
 * come; else the event holds all of it. Copying once into room of the right size
 * is cheaper than Lua strings for the pieces.
 */
static bool gather(lua_State *L, struct l_operation *operation, struct stls_event *event) {
  struct stls_buffer *gathered = &operation->gathered;
  bool complete = event->offset + event->text.len == event->size;
  if (event->size == 0 || event->size > operation->gather_limit) return false;
  if (event->text.len == event->size) return false;
  if (event->offset == 0) {
    stls_buffer_clear(gathered);
    stls_buffer_reserve(gathered, (size_t)event->size);
  }
  if (!stls_buffer_append_slice(gathered, event->text)) luaL_error(L, "not enough memory");
  if (!complete) return true;
  event->text = stls_buffer_slice(gathered);
  event->offset = 0;
  return false;
}

static bool is_gathering(lua_State *L, struct l_session *session, struct l_operation *operation) {
  return session->step == STLS_STEP_CARE && session->event.type == STLS_EVENT_CONTENT &&
         gather(L, operation, &session->event);
}

static int push_step(lua_State *L, struct l_session *session, struct l_operation *operation) {
  struct stls_session *core = session->session;
  session->has_step = false;
  switch (session->step) {
    case STLS_STEP_CARE: return push_event(L, &session->event);
    case STLS_STEP_CONTENT: lua_pushliteral(L, "want_content"); return 1;
    case STLS_STEP_MESSAGE: lua_pushliteral(L, "want_message"); return 1;
    case STLS_STEP_CREDENTIAL:
      lua_pushliteral(L, "want_credential");
      lua_pushstring(L, stls_dialogue_wanted_credential(stls_session_dialogue(core)) ==
                                STLS_CREDENTIAL_TOKEN
                            ? "token"
                            : "password");
      return 2;
    case STLS_STEP_WAKE: lua_pushliteral(L, "wake"); return 1;
    case STLS_STEP_DONE:
      l_end_operation(operation, true);
      lua_pushliteral(L, "done");
      return 1;
    default: break;
  }
  l_end_operation(operation, true);
  if (stls_session_error(core)->kind == STLS_ERROR_MEMORY)
    return luaL_error(L, "not enough memory");
  luaL_pushfail(L);
  l_push_error(L, stls_session_error(core));
  return 2;
}

/* }====== */

static void take_step(struct l_session *session) {
  session->step = stls_session_step(session->session, &session->event);
  session->has_step = session->step != STLS_STEP_WAIT;
  if (session->has_step) count_work(session);
}

/* Stack: 1 the operation, 2 its session. Everything else lives in these, as a yield loses locals.
 */
static int drive(lua_State *L) {
  struct l_operation *operation = lua_touserdata(L, 1);
  struct l_session *session = lua_touserdata(L, 2);
  for (;;) {
    if (!session->session) return luaL_error(L, "the session was collected");
    if (!operation->session) return luaL_error(L, "the operation is over"); /* while we waited */
    /* A trace function may have closed the session that the kept event borrows from. */
    if (stls_session_is_closed(session->session)) session->has_step = false;
    if (owes_a_turn(L, session)) {
      wait_in_loop(L, session, true);
      continue;
    }
    if (!session->has_step) take_step(session);
    l_close_descriptors(L, 2);
    if (stls_session_trace(session->session)->first) return push_trace_event(L, session->session);
    if (!session->has_step) wait_for_progress(L, session);
    else if (is_gathering(L, session, operation)) session->has_step = false;
    else return push_step(L, session, operation);
  }
}

/*
 * op:next() -> "reply", reply, number of the command | "line", text | "want_message"
 *            | "recipient", index, reply, phase | "refused", reply, phase
 *            | "content", piece [, size, offset, section [, fresh items]]
 *            | "untagged", name, number, value, weight | "want_content" | "idling" | "wake"
 *            | "want_credential", "password" or "token" | "trace", event | "done"
 *            | nil, error
 * Waits until there is something to say. After "done" and nil the operation is over.
 */
int l_operation_next(lua_State *L) {
  struct l_operation *operation = luaL_checkudata(L, 1, STLS_OPERATION);
  lua_settop(L, 1);
  if (!operation->session) return luaL_error(L, "the operation is over");
  if (operation->session->waiting) return luaL_error(L, "the operation is waited for already");
  lua_getiuservalue(L, 1, UV_SESSION);
  return drive(L);
}
