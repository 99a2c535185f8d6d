/*
 * message/message.h - the parts of the Lua module starttls.mime.
 * Beside floor 4: may rely on base/, on GMime 3 with GLib, and on Lua 5.4.
 *
 *   module.c   what the module exports; GMime's beginning
 *   encode.c   content as it is transferred (RFC 2045)
 */
#ifndef STLS_MESSAGE_MESSAGE_H
#define STLS_MESSAGE_MESSAGE_H

#include <gmime/gmime.h>
#include <lauxlib.h>
#include <lua.h>

/* encode.c: functions of the module. */
int l_base64(lua_State *L);
int l_quoted_printable(lua_State *L);
int l_text_encoding(lua_State *L);
int l_random_token(lua_State *L);
int l_decode_phrase(lua_State *L);

#endif
