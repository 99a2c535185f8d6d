/*
 * message/encode.c - content as it is transferred: base64 and quoted-printable (RFC 2045 6),
 * by GMime's encoders, in lines that end in CRLF.
 * Beside floor 4: may rely on base/, on GMime 3 with GLib, and on Lua 5.4.
 */
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>

#include "message/message.h"

/* Pushes encoded text, whose lines end in LF, with CRLF. */
static void push_lines(luaL_Buffer *out, const char *text, size_t len) {
  const char *end = text + len;
  while (text < end) {
    const char *stop = memchr(text, '\n', (size_t)(end - text));
    if (!stop) {
      luaL_addlstring(out, text, (size_t)(end - text));
      return;
    }
    luaL_addlstring(out, text, (size_t)(stop - text));
    luaL_addlstring(out, "\r\n", 2);
    text = stop + 1;
  }
}

/* [-0, +1] the text at `index`, encoded. */
static void push_encoded(lua_State *L, int index, GMimeContentEncoding encoding) {
  size_t len, encoded_len;
  const char *text = luaL_checklstring(L, index, &len);
  GMimeEncoding state;
  luaL_Buffer out;
  char *encoded;
  g_mime_encoding_init_encode(&state, encoding);
  encoded = lua_newuserdatauv(L, g_mime_encoding_outlen(&state, len), 0);
  encoded_len = g_mime_encoding_flush(&state, text, len, encoded);
  luaL_buffinitsize(L, &out, encoded_len + encoded_len / 32 + 2);
  push_lines(&out, encoded, encoded_len);
  luaL_pushresult(&out);
}

/*
 * mime.base64(octets) -> lines of 76 characters, the last one ended, too. A long text may be
 * encoded in pieces whose lengths, but the last, are multiples of 57.
 */
int l_base64(lua_State *L) {
  push_encoded(L, 1, GMIME_CONTENT_ENCODING_BASE64);
  return 1;
}

/* mime.quoted_printable(text, whose lines end in LF) -> lines of at most 76 characters */
int l_quoted_printable(lua_State *L) {
  push_encoded(L, 1, GMIME_CONTENT_ENCODING_QUOTEDPRINTABLE);
  return 1;
}

struct facts {
  size_t escaped; /* octets that need three in quoted-printable */
  size_t longest; /* octets of the longest line */
  bool plain;     /* nothing but US-ASCII text */
};

/* RFC 2045 2.7: what 7bit data is. Of control characters, only TAB is sure to arrive. */
static struct facts facts_of(const char *text, size_t len) {
  struct facts facts = {0, 0, true};
  size_t i, line = 0;
  for (i = 0; i < len; i++) {
    unsigned char c = (unsigned char)text[i];
    bool is_odd = c >= 127 || (c < ' ' && c != '\t' && c != '\n');
    line = c == '\n' ? 0 : line + 1;
    if (line > facts.longest) facts.longest = line;
    if (is_odd) facts.plain = false;
    if (is_odd || c == '=') facts.escaped++;
  }
  return facts;
}

/*
 * mime.text_encoding(text, whose lines end in LF) -> "7bit", "quoted-printable" or "base64",
 * whichever is the shortest that carries it. A line has 998 octets at most (RFC 5322 2.1.1).
 */
int l_text_encoding(lua_State *L) {
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  struct facts facts = facts_of(text, len);
  const char *name = "base64";
  if (facts.plain && facts.longest <= 998) {
    name = "7bit";
  } else if (facts.escaped <= len / 6) {
    name = "quoted-printable";
  }
  lua_pushstring(L, name);
  return 1;
}

/* mime.random_token() -> 26 characters that nobody can guess, of 0-9 and a-v (130 bits) */
int l_random_token(lua_State *L) {
  static const char digits[] = "0123456789abcdefghijklmnopqrstuv";
  unsigned char octets[26];
  char token[sizeof octets];
  size_t i;
  if (getrandom(octets, sizeof octets, 0) != (ssize_t)sizeof octets) {
    return luaL_error(L, "the system gives no random numbers");
  }
  for (i = 0; i < sizeof octets; i++) token[i] = digits[octets[i] & 31];
  lua_pushlstring(L, token, sizeof token);
  return 1;
}

/* mime.decode_phrase(text with encoded words) -> what it says, in UTF-8 (RFC 2047) */
int l_decode_phrase(lua_State *L) {
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  /* No octet becomes more than one character; GMime's memory is given back before Lua may raise. */
  size_t size = 4 * len + 1;
  char *copy = lua_newuserdatauv(L, size, 0);
  char *decoded = g_mime_utils_header_decode_phrase(NULL, text);
  g_strlcpy(copy, decoded, size);
  g_free(decoded);
  lua_pushstring(L, copy);
  return 1;
}
