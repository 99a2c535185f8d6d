/*
 * spec/support/failing_allocator.c - a Lua module for memory_failure_spec.lua: runs a function
 * while Lua's own memory runs out, as testes/memerr.lua of Lua's own tests does.
 *
 *   allocator.run(n, f)  calls f; from its n-th request for memory on, every request fails.
 *                        Returns whether f came to its end, and its error's text; and whether
 *                        memory did run out.
 *   allocator.heap()     the octets of the C heap that are in use
 */
#include <lauxlib.h>
#include <lua.h>
#include <malloc.h>

struct limit {
  lua_Alloc alloc; /* Lua's own */
  void *data;
  lua_Integer left; /* requests that still succeed */
  int exhausted;
};

/* Shrinking and freeing never fail, as Lua relies on that. */
static void *allocate(void *data, void *block, size_t old_size, size_t size) {
  struct limit *limit = data;
  int grows = size > 0 && (!block || size > old_size);
  if (grows && limit->left <= 0) {
    limit->exhausted = 1;
    return NULL;
  }
  if (grows) limit->left--;
  return limit->alloc(limit->data, block, old_size, size);
}

static int run(lua_State *L) {
  struct limit limit = {.left = luaL_checkinteger(L, 1), .exhausted = 0};
  int status;
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  limit.alloc = lua_getallocf(L, &limit.data);
  lua_setallocf(L, allocate, &limit);
  status = lua_pcall(L, 0, 1, 0);
  lua_setallocf(L, limit.alloc, limit.data);
  lua_pushboolean(L, status == LUA_OK);
  luaL_tolstring(L, 2, NULL);
  lua_pushboolean(L, limit.exhausted);
  return 3;
}

static int heap(lua_State *L) {
  struct mallinfo2 info = mallinfo2();
  lua_pushinteger(L, (lua_Integer)(info.uordblks + info.hblkhd));
  return 1;
}

int luaopen_failing_allocator(lua_State *L);

int luaopen_failing_allocator(lua_State *L) {
  static const luaL_Reg functions[] = {{"run", run}, {"heap", heap}, {NULL, NULL}};
  luaL_newlib(L, functions);
  return 1;
}
