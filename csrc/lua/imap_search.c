/*
 * lua/imap_search.c - what a server found, with named fields.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 *
 *   SEARCH, SORT  array of numbers, and field modseq (RFC 7162 3.1.5)
 *   ESEARCH       { tag, uid = boolean, min, max, count, all = set, modseq,
 *                 partial = { range, set }, relevancy = array, mailbox, uidvalidity, others }
 *   VANISHED      { earlier = boolean, uids = set }
 *   THREAD        array of threads: { number = 3, answer, answer, ... }, where an answer is
 *                 a thread; `number` is absent where the message that began it is
 *
 * Sets are text, as on the wire: core.numbers_of makes numbers of them.
 */
#include "lua/imap_parts.h"

static size_t end_of(Reader r) {
  return r->response->node_count;
}

/* {====== SEARCH, SORT ====== */

/* [-0, +0] RFC 7162 3.1.5: "(" "MODSEQ" SP number ")" */
static void set_modseq(Reader r, size_t index) {
  if (l_next(r, index) == index + 3 && stls_slice_is(l_text(r, index + 1), "MODSEQ"))
    l_set_number(r, "modseq", index + 2);
}

static void push_numbers(Reader r) {
  size_t index;
  lua_Integer count = 0, number;
  lua_createtable(r->L, l_count_nodes(r, 0, end_of(r)), 0);
  for (index = 0; index < end_of(r); index = l_next(r, index)) {
    if (l_is_list(r, index)) {
      set_modseq(r, index);
    } else if (l_number(r, index, &number)) {
      lua_pushinteger(r->L, number);
      lua_rawseti(r->L, -2, ++count);
    }
  }
}

/* }====== */

/* {====== ESEARCH (RFC 4731, RFC 9051 7.3.4) ====== */

/* [-0, +0] RFC 4466 2.6.2, RFC 7377 2.1: ("TAG" tag ["MAILBOX" name "UIDVALIDITY" number]) */
static void set_correlator(Reader r, size_t index) {
  size_t end = l_next(r, index);
  for (index++; index + 1 < end && !l_is_list(r, index); index = l_next(r, index + 1)) {
    struct stls_slice name = l_text(r, index);
    if (stls_slice_is(name, "TAG")) l_set_text(r, "tag", index + 1);
    else if (stls_slice_is(name, "MAILBOX")) l_set_mailbox(r, "mailbox", index + 1);
    else if (stls_slice_is(name, "UIDVALIDITY")) l_set_number(r, "uidvalidity", index + 1);
  }
}

/* RFC 9394 3.1: "(" range SP set ")"; NIL for the set when there is nothing in the range */
static void set_partial(Reader r, size_t index) {
  lua_createtable(r->L, 0, 2);
  if (l_is_list(r, index) && l_next(r, index) > index + 1) l_set_text(r, "range", index + 1);
  if (l_is_list(r, index) && l_next(r, index) == index + 3) l_set_text(r, "set", index + 2);
  lua_setfield(r->L, -2, "partial");
}

static void set_returned(Reader r, size_t index) {
  static const char *const numbers[] = {"MIN", "MAX", "COUNT", "MODSEQ"};
  static const char *const fields[] = {"min", "max", "count", "modseq"};
  struct stls_slice name = l_text(r, index);
  size_t i;
  for (i = 0; i < 4; i++) {
    if (stls_slice_is(name, numbers[i])) {
      l_set_number(r, fields[i], index + 1);
      return;
    }
  }
  if (stls_slice_is(name, "ALL")) {
    l_set_text(r, "all", index + 1);
  } else if (stls_slice_is(name, "PARTIAL")) {
    set_partial(r, index + 1);
  } else {
    l_push_lower(r, name, '-');
    l_push_value(r, index + 1);
    lua_rawset(r->L, -3);
  }
}

static void push_esearch(Reader r) {
  size_t index = 0;
  bool uid = false;
  lua_createtable(r->L, 0, 6);
  if (index < end_of(r) && l_is_list(r, index)) {
    set_correlator(r, index);
    index = l_next(r, index);
  }
  if (index < end_of(r) && stls_slice_is(l_text(r, index), "UID")) {
    uid = true;
    index++;
  }
  lua_pushboolean(r->L, uid);
  lua_setfield(r->L, -2, "uid");
  for (; index + 1 < end_of(r) && !l_is_list(r, index); index = l_next(r, index + 1))
    set_returned(r, index);
}

/* }====== */

/* RFC 7162 3.2.10: ["(EARLIER)" SP] set */
static void push_vanished(Reader r) {
  size_t index = 0;
  bool earlier = end_of(r) > 0 && l_is_list(r, 0);
  lua_createtable(r->L, 0, 2);
  lua_pushboolean(r->L, earlier);
  lua_setfield(r->L, -2, "earlier");
  if (earlier) index = l_next(r, 0);
  if (index < end_of(r)) l_set_text(r, "uids", index);
}

/* {====== THREAD (RFC 5256 4) ====== */

/* [-1, +1] adds a thread to the one on the top, and puts it there instead */
static void descend(lua_State *L) {
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_rawseti(L, -3, (lua_Integer)lua_rawlen(L, -3) + 1);
  lua_remove(L, -2);
}

/*
 * [-0, +0] Adds the thread in a list to the one on the top. Numbers side by side are each the
 * answer to the one before; lists behind them are the answers to the last. Recursion goes as
 * deep as lists are nested, which limits.depth bounds; a chain of numbers is a loop.
 */
static void add_thread(Reader r, size_t index) {
  size_t end = l_next(r, index);
  lua_Integer number;
  bool first_is_number = index + 1 < end && !l_is_list(r, index + 1);
  luaL_checkstack(r->L, 6, "threads are nested too deep");
  lua_pushvalue(r->L, -1);
  if (!first_is_number) descend(r->L);
  for (index++; index < end; index = l_next(r, index)) {
    if (l_is_list(r, index)) {
      add_thread(r, index);
    } else if (l_number(r, index, &number)) {
      descend(r->L);
      lua_pushinteger(r->L, number);
      lua_setfield(r->L, -2, "number");
    }
  }
  lua_pop(r->L, 1);
}

static void push_threads(Reader r) {
  size_t index;
  lua_newtable(r->L);
  for (index = 0; index < end_of(r); index = l_next(r, index)) {
    if (l_is_list(r, index)) add_thread(r, index);
  }
}

/* }====== */

bool l_push_search_response(Reader r) {
  struct stls_slice name = r->response->name;
  if (stls_slice_is(name, "SEARCH") || stls_slice_is(name, "SORT")) push_numbers(r);
  else if (stls_slice_is(name, "ESEARCH")) push_esearch(r);
  else if (stls_slice_is(name, "VANISHED")) push_vanished(r);
  else if (stls_slice_is(name, "THREAD")) push_threads(r);
  else return false;
  return true;
}
