/*
 * lua/options.c - a table of options becomes a session's configuration.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 *
 * The roof (lua/starttls/options.lua) has checked names, types and combinations;
 * here values are read, and misuse that only the core can see is raised.
 */
#include <stdarg.h>
#include <string.h>

#include "lua/binding.h"

/* Raises, without the place in our own files, which is of no use to the caller. */
static int misuse(lua_State *L, const char *format, ...) {
  va_list args;
  lua_pushliteral(L, "starttls: ");
  va_start(args, format);
  lua_pushvfstring(L, format, args);
  va_end(args);
  lua_concat(L, 2);
  return lua_error(L);
}

static const char *text_at(lua_State *L, int index, const char *name) {
  const char *text = NULL;
  size_t len = 0;
  int type = lua_getfield(L, index, name);
  if (type != LUA_TNIL && type != LUA_TSTRING) misuse(L, "option '%s' must be a string", name);
  if (type == LUA_TSTRING) text = lua_tolstring(L, -1, &len);
  if (text && (strlen(text) != len || strpbrk(text, "\r\n"))) {
    misuse(L, "option '%s' has a CR, LF or NUL", name);
  }
  lua_pop(L, 1); /* the options table keeps the string alive */
  return text;
}

static const char *text_option(lua_State *L, const char *name) {
  return text_at(L, 1, name);
}

static bool flag_at(lua_State *L, int index, const char *name) {
  bool flag;
  lua_getfield(L, index, name);
  flag = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return flag;
}

static bool flag_option(lua_State *L, const char *name) {
  return flag_at(L, 1, name);
}

/* Seconds; `otherwise` where the option is absent. */
static double seconds_option(lua_State *L, const char *name, double otherwise) {
  double seconds = otherwise;
  if (lua_getfield(L, 1, name) != LUA_TNIL) {
    seconds = lua_tonumber(L, -1);
    if (!lua_isnumber(L, -1) || !(seconds > 0))
      misuse(L, "option '%s' must be a positive number of seconds", name);
  }
  lua_pop(L, 1);
  return seconds;
}

static int choice_option(lua_State *L, const char *name, const char *const choices[],
                         int otherwise) {
  const char *text = text_option(L, name);
  int i;
  if (!text) return otherwise;
  for (i = 0; choices[i]; i++) {
    if (strcmp(text, choices[i]) == 0) return i;
  }
  return misuse(L, "option '%s' can't be \"%s\"", name, text);
}

static unsigned port_option(lua_State *L) {
  lua_Integer port = 0;
  int is_integer = 1;
  if (lua_getfield(L, 1, "port") != LUA_TNIL) {
    port = lua_tointegerx(L, -1, &is_integer);
    if (!is_integer || port < 1 || port > 65535)
      misuse(L, "option 'port' must be an integer from 1 to 65535");
  }
  lua_pop(L, 1);
  return (unsigned)port;
}

#define SIZE_MOST  (((lua_Integer)1 << 28) - 1) /* bytes of a limit: offsets are 32 bits wide */
#define DEPTH_MOST 1000                         /* nested tables are made recursively */

/* A limit of the table on the stack's top. */
static void limit_option(lua_State *L, const char *name, lua_Integer most, size_t *limit) {
  int is_integer;
  lua_Integer value;
  if (lua_getfield(L, -1, name) != LUA_TNIL) {
    value = lua_tointegerx(L, -1, &is_integer);
    if (!is_integer || value < 1 || value > most)
      misuse(L, "limit '%s' must be an integer from 1 to %d", name, (int)most);
    *limit = (size_t)value;
  }
  lua_pop(L, 1);
}

static void read_limits(lua_State *L, struct stls_limits *limits) {
  static const struct stls_limits defaults = STLS_LIMITS_DEFAULT;
  *limits = defaults;
  if (lua_getfield(L, 1, "limits") == LUA_TTABLE) {
    limit_option(L, "line", SIZE_MOST, &limits->line);
    limit_option(L, "reply", SIZE_MOST, &limits->reply);
    limit_option(L, "depth", DEPTH_MOST, &limits->depth);
    limit_option(L, "greeting", SIZE_MOST, &limits->greeting);
  }
  lua_pop(L, 1);
}

void l_read_identity(lua_State *L, int index, struct stls_session_identity *who) {
  who->user = text_at(L, index, "user");
  who->authzid = text_at(L, index, "authzid");
  who->mechanisms = text_at(L, index, "sasl");
  who->has_password = flag_at(L, index, "has_password");
  who->has_token = flag_at(L, index, "has_token");
}

static void read_config(lua_State *L, struct stls_session_config *config) {
  static const char *const modes[] = {"starttls", "implicit", "opportunistic", "none", NULL};
  static const char *const bindings[] = {"prefer", "require", "off", NULL};
  struct stls_session_identity who;
  struct stls_tls_trust **trust;
  memset(config, 0, sizeof *config);
  l_read_identity(L, 1, &who);
  config->protocol = text_option(L, "protocol");
  config->host = text_option(L, "host");
  if (!config->host) misuse(L, "option 'host' is missing");
  config->path = text_option(L, "path");
  config->port = port_option(L);
  config->tls = (enum stls_tls_mode)choice_option(L, "tls", modes, STLS_TLS_STARTTLS);
  config->client_name = text_option(L, "client_name");
  config->user = who.user;
  config->authzid = who.authzid;
  config->mechanisms = who.mechanisms;
  config->pinned = text_option(L, "pinned");
  config->has_password = who.has_password;
  config->has_token = who.has_token;
  config->has_certificate = flag_option(L, "has_certificate");
  config->utf8 = flag_option(L, "utf8");
  config->binding =
      (enum stls_binding_policy)choice_option(L, "channel_binding", bindings, STLS_BINDING_PREFER);
  config->insecure_auth = flag_option(L, "insecure_auth");
  config->insecure_no_verify = flag_option(L, "insecure_no_verify");
  config->server_name = text_option(L, "server_name");
  config->tls_priority = text_option(L, "tls_priority");
  config->alpn = flag_option(L, "alpn");
  config->timeout = seconds_option(L, "timeout", 60);
  config->connect_timeout = seconds_option(L, "connect_timeout", 15);
  config->deadline = seconds_option(L, "deadline", 0);
  config->trace = flag_option(L, "trace");
  read_limits(L, &config->limits);
  lua_getfield(L, 1, "trust");
  trust = luaL_testudata(L, -1, STLS_TRUST);
  if (trust) config->trust = *trust;
  lua_pop(L, 1);
}

/* The adapter's functions and the public object, for the wait hook. */
static void keep_loop(lua_State *L) {
  if (lua_getfield(L, 1, "loop") == LUA_TTABLE) {
    lua_getfield(L, -1, "wait");
    lua_setiuservalue(L, 2, UV_WAIT);
    lua_getfield(L, -1, "forget");
    lua_setiuservalue(L, 2, UV_FORGET);
  }
  lua_pop(L, 1);
  lua_getfield(L, 1, "object");
  lua_setiuservalue(L, 2, UV_OBJECT);
}

/* core.new(options) -> session. Nothing is sent yet. */
int l_session_new(lua_State *L) {
  struct stls_session_config config;
  struct l_session *session;
  const char *reason;
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  session = lua_newuserdatauv(L, sizeof *session, UV_SESSION_COUNT);
  memset(session, 0, sizeof *session);
  luaL_setmetatable(L, STLS_SESSION);
  read_config(L, &config);
  keep_loop(L);
  session->session = stls_session_new(&config, &reason);
  if (session->session) return 1;
  return reason ? misuse(L, "%s", reason) : luaL_error(L, "not enough memory");
}

/* core.trust(ca_file, ca_path, client_cert, client_key) -> trust | nil, error */
int l_trust_new(lua_State *L) {
  struct stls_tls_trust **trust = lua_newuserdatauv(L, sizeof *trust, 0);
  struct stls_error error;
  *trust = NULL;
  luaL_setmetatable(L, STLS_TRUST);
  memset(&error, 0, sizeof error);
  *trust = stls_tls_trust_new(luaL_optstring(L, 1, NULL), luaL_optstring(L, 2, NULL),
                              luaL_optstring(L, 3, NULL), luaL_optstring(L, 4, NULL), &error);
  if (*trust) return 1;
  luaL_pushfail(L);
  l_push_error(L, &error);
  stls_error_free(&error);
  return 2;
}
