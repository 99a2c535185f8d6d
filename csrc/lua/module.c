/*
 * lua/module.c - what starttls.core exports.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 */
#include "lua/binding.h"

void l_open_session(lua_State *L);
void l_open_operation(lua_State *L);

__attribute__((visibility("default"))) int luaopen_starttls_core(lua_State *L);

static int trust_gc(lua_State *L) {
  struct stls_tls_trust **trust = luaL_checkudata(L, 1, STLS_TRUST);
  stls_tls_trust_unref(*trust);
  *trust = NULL;
  return 0;
}

static const luaL_Reg functions[] = {{"new", l_session_new}, {"trust", l_trust_new}, {NULL, NULL}};

int luaopen_starttls_core(lua_State *L) {
  l_open_session(L);
  l_open_operation(L);
  luaL_newmetatable(L, STLS_TRUST);
  lua_pushcfunction(L, trust_gc);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, functions);
  luaL_newmetatable(L, STLS_ERROR);
  lua_setfield(L, -2, "error_metatable");
  return 1;
}
