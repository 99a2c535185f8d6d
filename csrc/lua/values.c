/*
 * lua/values.c - errors, replies, trace events and reports become Lua tables.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 */
#include <string.h>
#include <time.h>

#include "lua/binding.h"

void l_push_slice(lua_State *L, struct stls_slice slice) {
  lua_pushlstring(L, slice.ptr, slice.len);
}

void l_push_upper(lua_State *L, struct stls_slice slice) {
  luaL_Buffer buffer;
  char *text = luaL_buffinitsize(L, &buffer, slice.len);
  size_t i;
  for (i = 0; i < slice.len; i++) text[i] = stls_upper(slice.ptr[i]);
  luaL_pushresultsize(&buffer, slice.len);
}

/* [-0, +0] sets a field of the table on the top; nothing for NULL. */
static void set_text(lua_State *L, const char *name, const char *text) {
  if (!text) return;
  lua_pushstring(L, text);
  lua_setfield(L, -2, name);
}

static void set_flag(lua_State *L, const char *name, bool flag) {
  lua_pushboolean(L, flag);
  lua_setfield(L, -2, name);
}

void l_push_error(lua_State *L, const struct stls_error *error) {
  lua_createtable(L, 0, 8);
  set_text(L, "kind", stls_error_kind_name(error->kind));
  set_text(L, "message", error->message ? error->message : "not enough memory");
  set_text(L, "during", error->during);
  set_text(L, "hint", error->hint);
  set_text(L, "status", error->status);
  set_text(L, "text", error->text);
  set_flag(L, "temporary", error->temporary);
  if (error->unknown) set_text(L, "delivery", "unknown");
  if (error->code) {
    lua_pushinteger(L, error->code);
    lua_setfield(L, -2, "code");
  }
  luaL_setmetatable(L, STLS_ERROR);
}

static const char *class_name(enum stls_reply_class class) {
  switch (class) {
    case STLS_ON_POSITIVE: return "positive";
    case STLS_ON_CONTINUE: return "continue";
    case STLS_ON_TRANSIENT: return "transient";
    default: return "permanent";
  }
}

void l_push_reply(lua_State *L, const struct stls_event *event) {
  const struct stls_reply *reply = event->reply;
  lua_createtable(L, 0, 5);
  set_text(L, "class", class_name(reply->class));
  l_push_slice(L, stls_buffer_slice(&reply->text));
  lua_setfield(L, -2, "text");
  if (reply->status[0]) set_text(L, "status", reply->status);
  if (reply->code) {
    lua_pushinteger(L, reply->code);
    lua_setfield(L, -2, "code");
  }
  if (event->response) l_set_code_fields(L, event->response);
}

/* Seconds since the epoch. */
static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void l_push_trace(lua_State *L, const struct stls_trace_event *event) {
  static const char *const directions[] = {"sent", "received", "note"};
  lua_createtable(L, 0, 4);
  set_text(L, "direction", directions[event->direction]);
  set_flag(L, "encrypted", event->encrypted);
  lua_pushnumber(L, now());
  lua_setfield(L, -2, "time");
  if (event->bytes > 0) {
    lua_pushinteger(L, (lua_Integer)event->bytes);
    lua_setfield(L, -2, "bytes");
  } else {
    lua_pushlstring(L, event->text, event->len);
    lua_setfield(L, -2, "text");
  }
}

/* {====== Security ====== */

static void push_names(lua_State *L, struct stls_slice names) {
  lua_Integer count = 0;
  lua_newtable(L);
  while (names.len > 0) {
    size_t len = strlen(names.ptr);
    lua_pushlstring(L, names.ptr, len);
    lua_seti(L, -2, ++count);
    names = stls_slice_from(names, len + 1);
  }
}

static void push_hex(lua_State *L, const unsigned char *octets, size_t count) {
  static const char digits[] = "0123456789abcdef";
  char text[64];
  size_t i;
  for (i = 0; i < count; i++) {
    text[2 * i] = digits[octets[i] >> 4];
    text[2 * i + 1] = digits[octets[i] & 15];
  }
  lua_pushlstring(L, text, 2 * count);
}

static void push_certificate(lua_State *L, const struct stls_certificate *certificate, bool pem) {
  lua_createtable(L, 0, 7);
  set_text(L, "subject", stls_buffer_slice(&certificate->subject).ptr);
  set_text(L, "issuer", stls_buffer_slice(&certificate->issuer).ptr);
  push_names(L, stls_buffer_slice(&certificate->names));
  lua_setfield(L, -2, "names");
  lua_pushinteger(L, (lua_Integer)certificate->not_before);
  lua_setfield(L, -2, "not_before");
  lua_pushinteger(L, (lua_Integer)certificate->not_after);
  lua_setfield(L, -2, "not_after");
  push_hex(L, certificate->sha256, sizeof certificate->sha256);
  lua_setfield(L, -2, "sha256");
  if (pem) set_text(L, "pem", stls_buffer_slice(&certificate->pem).ptr);
}

static int push_certificate_protected(lua_State *L) {
  push_certificate(L, lua_touserdata(L, 1), lua_toboolean(L, 2));
  return 1;
}

/* The certificate's memory is freed whether or not Lua runs out of its own. */
int l_push_certificate(lua_State *L, struct stls_session *session, bool pem) {
  struct stls_certificate certificate;
  int status;
  if (!stls_session_certificate(session, &certificate)) {
    stls_certificate_free(&certificate);
    return 0;
  }
  lua_pushcfunction(L, push_certificate_protected);
  lua_pushlightuserdata(L, &certificate);
  lua_pushboolean(L, pem);
  status = lua_pcall(L, 2, 1, 0);
  stls_certificate_free(&certificate);
  return status == LUA_OK ? 1 : lua_error(L);
}

void l_push_security(lua_State *L, struct stls_session *session) {
  struct stls_security security;
  stls_session_security(session, &security);
  lua_createtable(L, 0, 11);
  set_flag(L, "encrypted", security.encrypted);
  set_flag(L, "verified", security.verified);
  set_text(L, "mechanism", security.mechanism);
  set_text(L, "channel_binding", security.binding);
  set_flag(L, "channel_binding_refused", security.binding_refused);
  set_flag(L, "compressed", security.compressed);
  if (!security.encrypted) return;
  set_text(L, "how", security.mode == STLS_TLS_STARTTLS ? "starttls" : "implicit");
  set_text(L, "version", security.tls.version);
  set_text(L, "cipher", security.tls.cipher);
  set_text(L, "group", security.tls.group);
  set_text(L, "alpn", security.tls.alpn);
  if (!security.verified) set_text(L, "unverified", security.tls.unverified);
}

/* }====== */

/*
 * name -> true or its value. IMAP's "AUTH=PLAIN AUTH=LOGIN" becomes AUTH = "PLAIN LOGIN",
 * so that SMTP's and IMAP's lists read alike.
 */
void l_push_capabilities(lua_State *L, const struct stls_capabilities *capabilities) {
  struct stls_slice word, value;
  size_t position = 0;
  lua_newtable(L);
  while (stls_capabilities_next(capabilities, &position, &word, &value)) {
    const char *equals = memchr(word.ptr, '=', word.len);
    if (equals && value.len == 0) {
      value = stls_slice_from(word, (size_t)(equals - word.ptr) + 1);
      word.len = (size_t)(equals - word.ptr);
    }
    l_push_slice(L, word);
    lua_pushvalue(L, -1);
    if (lua_rawget(L, -3) == LUA_TSTRING && value.len > 0) { /* one more value */
      lua_pushliteral(L, " ");
      l_push_slice(L, value);
      lua_concat(L, 3);
    } else {
      lua_pop(L, 1);
      if (value.len > 0) l_push_slice(L, value);
      else lua_pushboolean(L, 1);
    }
    lua_rawset(L, -3);
  }
}
