/*
 * spec/support/failing_allocator.c - a Lua module for memory_failure_spec.lua: runs a function
 * while Lua's own memory runs out, as testes/memerr.lua of Lua's own tests does. Preloaded, it
 * also counts the blocks that the module under test holds.
 *
 *   allocator.run(n, f)  calls f; from its n-th request for memory on, every request fails.
 *                        Returns whether f came to its end, and its error's text; and whether
 *                        memory did run out.
 *   allocator.live()     how many blocks that starttls/core.so asked for are not freed
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <lauxlib.h>
#include <lua.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void __libc_free(void *block);

/* {====== The blocks of the module under test ====== */

#define BLOCKS 65536 /* a power of two, far above what a session has */

static void *blocks[BLOCKS];
static long live;

static size_t first_place(const void *block) {
  return ((uintptr_t)block >> 4) * 2654435761u % BLOCKS;
}

/* A freed place keeps this mark, so that the search for what lies behind it goes on. */
static char freed;

static void *note(void *block, void *caller) {
  Dl_info info;
  size_t at = first_place(block), tries = 0;
  if (!block || !dladdr(caller, &info) || !strstr(info.dli_fname, "starttls/core.so")) return block;
  while (blocks[at] && blocks[at] != &freed) {
    at = (at + 1) % BLOCKS;
    if (++tries == BLOCKS) abort();
  }
  blocks[at] = block;
  live++;
  return block;
}

void *malloc(size_t size) {
  return note(__libc_malloc(size), __builtin_return_address(0));
}

void *calloc(size_t count, size_t size) {
  return note(__libc_calloc(count, size), __builtin_return_address(0));
}

char *strdup(const char *text) {
  size_t size = strlen(text) + 1;
  char *copy = note(__libc_malloc(size), __builtin_return_address(0));
  return copy ? memcpy(copy, text, size) : NULL;
}

void free(void *block) {
  size_t at = first_place(block), tries = 0;
  while (block && blocks[at] && blocks[at] != block && ++tries < BLOCKS) at = (at + 1) % BLOCKS;
  if (block && blocks[at] == block) {
    blocks[at] = &freed;
    live--;
  }
  __libc_free(block);
}

/* }====== */

/* {====== Lua's memory ====== */

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

static int count_live(lua_State *L) {
  lua_pushinteger(L, live);
  return 1;
}

int luaopen_failing_allocator(lua_State *L);

int luaopen_failing_allocator(lua_State *L) {
  static const luaL_Reg functions[] = {{"run", run}, {"live", count_live}, {NULL, NULL}};
  luaL_newlib(L, functions);
  return 1;
}

/* }====== */
