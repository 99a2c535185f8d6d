/*
 * lua/arguments.c - the typed arguments of commands, out of Lua.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 */
#include "lua/binding.h"

/* Reads one typed argument at `type_index` and the index behind it, which the roof sees to. */
static void read_arg(lua_State *L, int type_index, struct stls_arg *arg) {
  const char *type = luaL_checkstring(L, type_index);
  size_t len;
  const char *value = luaL_checklstring(L, type_index + 1, &len);
  if (!stls_arg_type_named(type, &arg->type)) luaL_error(L, "unknown type of argument '%s'", type);
  arg->value = stls_slice(value, len);
}

/* Reads the typed arguments from `first` on, in pairs, into an array on the stack's top. */
struct stls_arg *l_check_args(lua_State *L, int first, size_t *count_r) {
  int last = lua_gettop(L), i;
  size_t count = (size_t)(last - first + 1) / 2;
  struct stls_arg *args = lua_newuserdatauv(L, (count + 1) * sizeof *args, 0);
  for (i = 0; i < (int)count; i++) read_arg(L, first + 2 * i, &args[i]);
  *count_r = count;
  return args;
}

/*
 * [-1, +0] the recipient on the top: an address, or a table { address, type, value, ... }.
 * Its arguments go to `arg` and on; returns how many. The caller's table keeps strings alive.
 */
static size_t read_recipient(lua_State *L, struct stls_arg *arg) {
  int at = lua_gettop(L);
  size_t count = 1;
  lua_Integer i;
  if (lua_istable(L, at)) {
    count = ((size_t)luaL_len(L, at) + 1) / 2;
    luaL_checkstack(L, 4, "recipient");
    lua_geti(L, at, 1);
  } else {
    lua_pushvalue(L, at);
  }
  luaL_checktype(L, -1, LUA_TSTRING); /* the roof sees to it */
  arg[0].type = STLS_ARG_PATH;
  arg[0].value.ptr = lua_tolstring(L, -1, &arg[0].value.len);
  for (i = 1; i < (lua_Integer)count; i++) {
    lua_settop(L, at);
    lua_geti(L, at, 2 * i);
    lua_geti(L, at, 2 * i + 1);
    read_arg(L, at + 1, &arg[i]);
  }
  lua_settop(L, at - 1);
  return count;
}

/* How many arguments all recipients at `index` have. */
static size_t count_arguments(lua_State *L, int index, size_t recipients) {
  size_t count = 0, i;
  for (i = 1; i <= recipients; i++) {
    int type = lua_geti(L, index, (lua_Integer)i);
    count += type == LUA_TTABLE ? ((size_t)luaL_len(L, -1) + 1) / 2 : 1;
    lua_pop(L, 1);
  }
  return count;
}

/* [-0, +1] Reads the array of recipients at `index`. */
struct stls_args *l_check_recipients(lua_State *L, int index, size_t *count_r) {
  size_t count = (size_t)luaL_len(L, index), i;
  size_t total = count_arguments(L, index, count);
  struct stls_args *recipients =
      lua_newuserdatauv(L, count * sizeof *recipients + (total + 1) * sizeof(struct stls_arg), 0);
  struct stls_arg *arg = (struct stls_arg *)(void *)(recipients + count);
  for (i = 0; i < count; i++) {
    lua_geti(L, index, (lua_Integer)i + 1);
    recipients[i].list = arg;
    recipients[i].count = read_recipient(L, arg);
    arg += recipients[i].count;
  }
  *count_r = count;
  return recipients;
}
