/*
 * lua/imap_values.c - IMAP responses become Lua tables: the way in, and the values
 * that all responses are made of.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 *
 * Every reading is one call of a C function of Lua's, whose upvalues are the scratch
 * memory and the names of fields: making these strings anew for each message is a
 * large part of the work otherwise.
 */
#include "lua/imap_parts.h"
#include "mail/encoded_word.h"

#define SCRATCH      "starttls.scratch"
#define SCRATCH_MOST (64 * 1024) /* octets of each buffer that are kept for the next response */

static const char *const l_key_names[KEY_COUNT] = {
    "address",    "bcc",         "cc",       "date",    "disposition", "disposition_parameters",
    "encoding",   "envelope",    "filename", "flags",   "from",        "host",
    "id",         "in_reply_to", "lines",    "mailbox", "message_id",  "name",
    "parameters", "parts",       "reply_to", "section", "sender",      "seq",
    "size",       "structure",   "subject",  "subtype", "time",        "to",
    "type",       "uid"};

#define SHORT_NAME 64 /* octets; longer ones are made in a buffer of Lua's */

/* {====== Values without names ====== */

int l_count_nodes(Reader r, size_t index, size_t end) {
  int count = 0;
  for (; index < end; index = l_next(r, index)) count++;
  return count;
}

bool l_number(Reader r, size_t index, lua_Integer *number_r) {
  uint64_t number;
  if (!stls_slice_number(stls_slice_trim(l_text(r, index)), INT64_MAX, &number)) return false;
  *number_r = (lua_Integer)number;
  return true;
}

static void push_number(Reader r, size_t index) {
  lua_Integer number;
  if (l_number(r, index, &number)) lua_pushinteger(r->L, number);
  else l_push_slice(r->L, l_text(r, index));
}

/* Recursion goes as deep as limits.depth lets lists be nested, and that is bounded. */
void l_push_array(Reader r, size_t index, size_t end) {
  lua_Integer count = 0;
  luaL_checkstack(r->L, 4, "response is nested too deep");
  lua_createtable(r->L, l_count_nodes(r, index, end), 0);
  for (; index < end; index = l_next(r, index)) {
    l_push_value(r, index);
    lua_rawseti(r->L, -2, ++count);
  }
}

void l_push_value(Reader r, size_t index) {
  switch (l_type(r, index)) {
    case STLS_IMAP_LIST: l_push_array(r, index + 1, l_next(r, index)); break;
    case STLS_IMAP_NIL:
    case STLS_IMAP_STREAMED: lua_pushboolean(r->L, 0); break;
    case STLS_IMAP_NUMBER: push_number(r, index); break;
    default: l_push_slice(r->L, l_text(r, index)); break;
  }
}

void l_push_strings(Reader r, size_t index) {
  bool list = l_is_list(r, index);
  size_t at = list ? index + 1 : index, end = l_next(r, index);
  lua_Integer count = 0;
  lua_createtable(r->L, l_count_nodes(r, at, end), 0);
  for (; at < end; at = l_next(r, at)) {
    if (!l_is_text(r, at)) continue;
    l_push_slice(r->L, l_text(r, at));
    lua_rawseti(r->L, -2, ++count);
  }
}

void l_push_flags(Reader r, size_t index) {
  lua_State *L = r->L;
  size_t end = l_next(r, index);
  lua_Integer count = 0;
  int expected = l_is_list(r, index) ? l_count_nodes(r, index + 1, end) : 0;
  lua_createtable(L, expected, expected);
  if (expected == 0) return;
  for (index++; index < end; index = l_next(r, index)) {
    if (!l_is_text(r, index)) continue;
    l_push_slice(L, l_text(r, index));
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, ++count);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
  }
}

/* }====== */

/* {====== Text ====== */

static void push_scratch(Reader r, bool whole) {
  if (!whole) luaL_error(r->L, "not enough memory");
  l_push_slice(r->L, stls_buffer_slice(&r->scratch->text));
}

void l_push_decoded(Reader r, struct stls_slice text) {
  struct stls_buffer *out = &r->scratch->text;
  if (stls_header_is_plain(text)) {
    l_push_slice(r->L, text);
    return;
  }
  stls_buffer_clear(out);
  push_scratch(r, stls_header_decode(text, out));
}

void l_push_utf8(Reader r, struct stls_slice text) {
  struct stls_buffer *out = &r->scratch->text;
  if (stls_is_ascii(text)) {
    l_push_slice(r->L, text);
    return;
  }
  stls_buffer_clear(out);
  stls_utf8_put_unlabelled(text, out);
  push_scratch(r, out->failure == STLS_BUFFER_OK);
}

/* Servers without ENABLE UTF8=ACCEPT that send 8-bit names all the same send UTF-8. */
void l_push_mailbox(Reader r, struct stls_slice name) {
  struct stls_buffer *out = &r->scratch->text;
  if (r->response->utf8 || !memchr(name.ptr, '&', name.len)) {
    l_push_utf8(r, name);
    return;
  }
  stls_buffer_clear(out);
  if (stls_utf7_decode(name, out)) push_scratch(r, true);
  else if (out->failure != STLS_BUFFER_OK) luaL_error(r->L, "not enough memory");
  else l_push_utf8(r, name);
}

void l_push_lower(Reader r, struct stls_slice text, char dash) {
  char room[SHORT_NAME];
  luaL_Buffer buffer;
  bool is_short = text.len <= sizeof room;
  char *lower = is_short ? room : luaL_buffinitsize(r->L, &buffer, text.len);
  size_t i;
  for (i = 0; i < text.len; i++) {
    char c = text.ptr[i];
    lower[i] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c == '-' ? dash : c;
  }
  if (is_short) lua_pushlstring(r->L, room, text.len);
  else luaL_pushresultsize(&buffer, text.len);
}

void l_set_text(Reader r, const char *name, size_t index) {
  if (!l_is_text(r, index)) return;
  l_push_utf8(r, l_text(r, index));
  lua_setfield(r->L, -2, name);
}

void l_set_number(Reader r, const char *name, size_t index) {
  lua_Integer number;
  if (!l_number(r, index, &number)) return;
  lua_pushinteger(r->L, number);
  lua_setfield(r->L, -2, name);
}

/* "NIL" is a name like any (RFC 9051 9, astring); a list is none. */
void l_set_mailbox(Reader r, const char *name, size_t index) {
  if (l_is_list(r, index)) return;
  l_push_mailbox(r, l_type(r, index) == STLS_IMAP_NIL ? stls_slice_of("NIL") : l_text(r, index));
  lua_setfield(r->L, -2, name);
}

/* }====== */

/* {====== The way in ====== */

enum task { WHOLE, FRESH_ITEMS, CODE_FIELDS };

static int scratch_gc(lua_State *L) {
  struct l_scratch *scratch = luaL_checkudata(L, 1, SCRATCH);
  stls_buffer_free(&scratch->text);
  stls_buffer_free(&scratch->section);
  stls_buffer_free(&scratch->frames);
  stls_buffer_free(&scratch->parameters);
  return 0;
}

struct l_scratch *l_push_scratch(lua_State *L) {
  struct l_scratch *scratch = lua_newuserdatauv(L, sizeof *scratch, 0);
  stls_buffer_init(&scratch->text, 0);
  stls_buffer_init(&scratch->section, 0);
  stls_buffer_init(&scratch->frames, 0);
  stls_buffer_init(&scratch->parameters, 0);
  if (luaL_newmetatable(L, SCRATCH)) {
    lua_pushcfunction(L, scratch_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  return scratch;
}

static void push_whole(Reader r) {
  const struct stls_imap_response *response = r->response;
  if (response->is_status) l_push_condition(r);
  else if (stls_slice_is(response->name, "FETCH") || stls_slice_is(response->name, "UIDFETCH"))
    l_push_message(r, 1);
  else if (!l_push_mailbox_response(r) && !l_push_search_response(r))
    l_push_array(r, 0, response->node_count);
}

/* Arguments: the response, a task, and for CODE_FIELDS the table. Returns the value. */
static int read_response(lua_State *L) {
  struct l_reader reader = {L, lua_touserdata(L, 1), lua_touserdata(L, lua_upvalueindex(1))};
  switch ((enum task)lua_tointeger(L, 2)) {
    case WHOLE: push_whole(&reader); break;
    /* Whoever wants all of them adds them up: to start anew at each literal takes quadratic time.
     */
    case FRESH_ITEMS: l_push_message(&reader, reader.response->fresh); break;
    case CODE_FIELDS: l_set_code(&reader); break;
  }
  stls_buffer_shrink(&reader.scratch->text, SCRATCH_MOST);
  stls_buffer_shrink(&reader.scratch->parameters, SCRATCH_MOST);
  return 1;
}

/* Its address is the reading function's key in Lua's registry. */
static const char reader_key = 'r';

void l_open_imap_values(lua_State *L) {
  int i;
  luaL_checkstack(L, KEY_COUNT + 4, "too many names of fields");
  l_push_scratch(L);
  for (i = 0; i < KEY_COUNT; i++) lua_pushstring(L, l_key_names[i]);
  lua_pushcclosure(L, read_response, KEY_COUNT + 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &reader_key);
}

static void begin_reading(lua_State *L, const struct stls_imap_response *response, enum task task) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &reader_key);
  lua_pushlightuserdata(L, (void *)response); /* which stays as it is */
  lua_pushinteger(L, task);
}

void l_push_response(lua_State *L, const struct stls_imap_response *response) {
  begin_reading(L, response, WHOLE);
  lua_call(L, 2, 1);
}

void l_push_fresh_items(lua_State *L, const struct stls_imap_response *response) {
  begin_reading(L, response, FRESH_ITEMS);
  lua_call(L, 2, 1);
}

void l_set_code_fields(lua_State *L, const struct stls_imap_response *response) {
  int table = lua_absindex(L, -1);
  begin_reading(L, response, CODE_FIELDS);
  lua_pushvalue(L, table);
  lua_call(L, 3, 0);
}

/* }====== */
