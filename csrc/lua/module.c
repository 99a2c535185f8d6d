/*
 * lua/module.c - what starttls.core exports.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 */
#include "lua/binding.h"
#include "mail/content.h"

void l_open_session(lua_State *L);
void l_open_operation(lua_State *L);
void l_push_files(lua_State *L);

__attribute__((visibility("default"))) int luaopen_starttls_core(lua_State *L);

static int trust_gc(lua_State *L) {
  struct stls_tls_trust **trust = luaL_checkudata(L, 1, STLS_TRUST);
  stls_tls_trust_unref(*trust);
  *trust = NULL;
  return 0;
}

/* core.is_8bit(text) -> whether any octet is above 127 */
static int is_8bit(lua_State *L) {
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  lua_pushboolean(L, stls_content_is_8bit(stls_slice(text, len)));
  return 1;
}

static const struct stls_limits default_limits = STLS_LIMITS_DEFAULT;

static const luaL_Reg functions[] = {
    {"new", l_session_new}, {"trust", l_trust_new}, {"is_8bit", is_8bit}, {NULL, NULL}};

int luaopen_starttls_core(lua_State *L) {
  l_open_session(L);
  l_open_operation(L);
  luaL_newmetatable(L, STLS_TRUST);
  lua_pushcfunction(L, trust_gc);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, functions);
  l_push_files(L);
  lua_setfield(L, -2, "files");
  luaL_newmetatable(L, STLS_ERROR);
  lua_setfield(L, -2, "error_metatable");
  lua_pushinteger(L, (lua_Integer)default_limits.reply);
  lua_setfield(L, -2, "reply_limit"); /* what limits.reply is unless the caller says */
  return 1;
}
