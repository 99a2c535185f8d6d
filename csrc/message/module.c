/*
 * message/module.c - what starttls.mime exports, and how GMime begins.
 * Beside floor 4: may rely on base/, on GMime 3 with GLib, and on Lua 5.4.
 */
#include "message/message.h"

__attribute__((visibility("default"))) int luaopen_starttls_mime(lua_State *L);

/* Broken mail is what it is there to read: no word of it on the host's standard error. */
static void be_silent(const gchar *domain, GLogLevelFlags level, const gchar *text, gpointer data) {
  (void)domain, (void)level, (void)text, (void)data;
}

/*
 * Runs when the module is loaded for the first time, under the loader's lock, so that threads
 * which load it at once need no lock of ours. The module stays loaded (it is linked with
 * nodelete, as GMime can't register its types twice), so it never runs again.
 */
__attribute__((constructor)) static void begin(void) {
  g_log_set_handler("gmime", G_LOG_LEVEL_MASK | G_LOG_FLAG_FATAL | G_LOG_FLAG_RECURSION, be_silent,
                    NULL);
  g_mime_init();
}

static const luaL_Reg functions[] = {{"base64", l_base64},
                                     {"quoted_printable", l_quoted_printable},
                                     {"text_encoding", l_text_encoding},
                                     {"random_token", l_random_token},
                                     {"decode_phrase", l_decode_phrase},
                                     {NULL, NULL}};

int luaopen_starttls_mime(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
