/*
 * lua/module.c - what starttls.core exports.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 */
#include <string.h>

#include "base/clock.h"
#include "lua/binding.h"
#include "mail/content.h"
#include "net/hostname.h"

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

/* core.clock() -> seconds on a clock that is never set back */
static int clock_now(lua_State *L) {
  lua_pushnumber(L, stls_clock_now());
  return 1;
}

/* core.may_have_field(message, name) -> whether its header may have a field of that name */
static int may_have_field(lua_State *L) {
  size_t len;
  const char *message = luaL_checklstring(L, 1, &len);
  lua_pushboolean(L, stls_content_may_have_field(stls_slice(message, len), luaL_checkstring(L, 2)));
  return 1;
}

/* core.to_ascii(host) -> its A-labels (IDNA 2008) | nil, why it is no host name */
static int to_ascii(lua_State *L) {
  char ascii[STLS_HOSTNAME_SIZE];
  size_t len;
  const char *host = luaL_checklstring(L, 1, &len);
  const char *reason =
      strlen(host) == len ? stls_hostname_to_ascii(host, ascii) : "host name has a NUL";
  if (!reason) {
    lua_pushstring(L, ascii);
    return 1;
  }
  luaL_pushfail(L);
  lua_pushstring(L, reason);
  return 2;
}

static const struct stls_limits default_limits = STLS_LIMITS_DEFAULT;

static const luaL_Reg functions[] = {{"new", l_session_new},   {"trust", l_trust_new},
                                     {"is_8bit", is_8bit},     {"may_have_field", may_have_field},
                                     {"to_ascii", to_ascii},   {"numbers_of", l_numbers_of},
                                     {"set_of", l_set_of},     {"clock", clock_now},
                                     {"poller", l_poller_new}, {NULL, NULL}};

int luaopen_starttls_core(lua_State *L) {
  l_open_session(L);
  l_open_operation(L);
  l_open_poller(L);
  l_open_imap_values(L);
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
