/*
 * states.c - a host that embeds Lua: opens and closes many states, one after another and
 * in threads at the same time, and loads the module into each. (Run by package_spec.lua.)
 */
#include <lauxlib.h>
#include <lualib.h>
#include <pthread.h>
#include <stdio.h>

enum { STATES = 20, THREADS = 4 };

static int run_once(const char *script) {
  lua_State *L = luaL_newstate();
  int failed;
  if (!L) return 1;
  luaL_openlibs(L);
  failed = luaL_dostring(L, script);
  if (failed) fprintf(stderr, "%s\n", lua_tostring(L, -1));
  lua_close(L);
  return failed;
}

static void *run_many(void *script) {
  int i;
  for (i = 0; i < STATES; i++) {
    if (run_once(script)) return script;
  }
  return NULL;
}

int main(int argc, char **argv) {
  pthread_t threads[THREADS];
  void *failed = NULL, *result;
  int i;
  if (argc != 2) return 2;
  if (run_many(argv[1])) return 1;
  for (i = 0; i < THREADS; i++) {
    if (pthread_create(&threads[i], NULL, run_many, argv[1])) return 1;
  }
  for (i = 0; i < THREADS; i++) {
    if (pthread_join(threads[i], &result) || result) failed = argv[1];
  }
  return failed != NULL;
}
