-- That `make house` sees what it is there to see: a small tree that keeps to the floors
-- passes, and each way of breaking them is named with its file and line.
local shell = require "spec.support.shell"

local good = {
  ["message/parts.h"] = "int message_parts(void);\n",
  ["message/module.c"] = [[
#include <gmime/gmime.h>
#include <lauxlib.h>
#include "base/word.h"
#include "message/parts.h"
int message_parts(void) { return base_word(); }
__attribute__((visibility("default"))) int luaopen_starttls_mime(lua_State *L);
int luaopen_starttls_mime(lua_State *L) {
  lua_pushinteger(L, message_parts() + (lua_Integer)gmime_major_version);
  return 1;
}
]],
  ["base/word.h"] = "int base_word(void);\n",
  ["base/word.c"] = '#include "base/word.h"\nint base_word(void) { return 1; }\n',
  ["mail/talk.h"] = "int mail_talk(void);\n",
  ["mail/talk.c"] = [[
#include "mail/talk.h"
#include "base/word.h"
static const char *const names[] = {"a", "b"};
int mail_talk(void) { return names[base_word()][0]; }
]],
  ["net/wire.h"] = "int net_wire(void);\n",
  ["net/wire.c"] = [[
#include "net/wire.h"
#include <sys/socket.h>
int net_wire(void) { return socket(AF_INET, SOCK_STREAM, 0); }
]],
  ["session/run.h"] = "int session_run(void);\n",
  ["session/run.c"] = [[
#include "session/run.h"
#include "mail/talk.h"
#include "net/wire.h"
int session_run(void) { return mail_talk() + net_wire(); }
]],
  ["lua/core.c"] = [[
#include <lauxlib.h>
#include "session/run.h"
__attribute__((visibility("default"))) int luaopen_starttls_core(lua_State *L);
int luaopen_starttls_core(lua_State *L) {
  lua_pushinteger(L, session_run());
  return 1;
}
]],
}

-- file, its text, and what must be said about it
local offences = {
  { "mail/bad.c", '#include "net/wire.h"\n',
    'csrc/mail/bad.c:1: includes "net/wire.h": mail/ must not know net/' },
  { "net/bad.c", '\n#include "mail/talk.h"\n',
    'csrc/net/bad.c:2: includes "mail/talk.h": net/ must not know mail/' },
  { "base/bad.c", '#include "session/run.h"\n', "base/ must not know session/" },
  { "session/bad.h", '# include "lua/core.h"\n', "session/ must not know lua/" },
  { "net/bad.c", '#include "wire.h"\n', 'is not written as "FLOOR/NAME.h"' },
  { "session/bad.c", '#include "../net/wire.h"\n', 'is not written as "FLOOR/NAME.h"' },
  { "attic/bad.h", "\n", "csrc/attic/bad.h: belongs to no floor" },
  { "message/bad.c", '#include "mail/talk.h"\n', "message/ must not know mail/" },
  { "lua/bad.c", '#include "message/parts.h"\n', "lua/ must not know message/" },
  { "lua/bad.c", "#if 0\n#include <glib.h>\n#endif\n",
    "csrc/lua/bad.c:2: includes glib.h: no business here with GMime and GLib" },
  { "mail/bad.c", "void g_free(void *);\nvoid bad(void);\nvoid bad(void) { g_free(0); }\n",
    "csrc/mail/bad.c:1: uses g_free: no business here with GMime and GLib" },
  { "session/bad.c", "#include <lua.h>\n",
    "csrc/session/bad.c:1: includes lua.h: no business here with Lua" },
  { "net/dial.c", "#include <gnutls/gnutls.h>\n", "no business here with GnuTLS" },
  { "mail/smtp.c", "#include <gsasl.h>\n", "no business here with GNU SASL" },
  { "net/channel.c", "#include <zlib.h>\n", "no business here with zlib" },
  { "mail/bad.c", "#include <netdb.h>\n", "no business here with a socket" },
  { "mail/bad.c", "int send(int, const void *, unsigned long, int);\n\n"
    .. "int bad(void);\nint bad(void) { return send(1, 0, 0, 0); }\n",
    "csrc/mail/bad.c:1: uses send: no business here with a socket" },
  { "session/bad.c", "void lua_settop(void *, int);\n"
    .. "void bad(void);\nvoid bad(void) { lua_settop(0, 0); }\n", "uses lua_settop" },
  { "session/bad.c", "int poll(void *, unsigned long, int);\n"
    .. "int bad(void);\nint bad(void) { return poll(0, 0, 0); }\n", "uses poll" },
  { "base/bad.c", "\nstatic int count;\nint bad(void);\nint bad(void) { return ++count; }\n",
    "csrc/base/bad.c:2: count is mutable static data" },
  { "net/bad.c", "int bad(void);\nint bad(void) { static int seen = 7; return seen++; }\n",
    "csrc/net/bad.c:2: seen is mutable static data" },
  { "net/bad.c", "static __thread int mine;\n"
    .. "int bad(void);\nint bad(void) { return ++mine; }\n", "mine is mutable static data" },
  { "lua/bad.c", '__attribute__((visibility("default"))) int bad(void);\nint bad(void) '
    .. "{ return 1; }\n", "core.so: exports bad" },
  { "message/bad.c", '__attribute__((visibility("default"))) int bad(void);\nint bad(void) '
    .. "{ return 1; }\n", "mime.so: exports bad" },
}

describe("make house #package", function()
  local tree

  setup(function()
    tree = shell.must "mktemp -d"
    shell.must("mkdir -p %s/spec && cp Makefile %s/ && cp -R spec/check spec/tools %s/spec/",
      tree, tree, tree)
    for file, text in pairs(good) do
      shell.write(tree .. "/csrc/" .. file, text)
    end
  end)

  teardown(function()
    shell.must("rm -rf %s", tree)
  end)

  local function house()
    return shell.run("env -u MAKEFLAGS -u MFLAGS make -s -C %s house BUILD=build/house", tree)
  end

  it("lets a tree pass that keeps to its floors", function()
    local ok, output = house()
    assert.is_true(ok, output)
    assert.matches("11 files keep to their floors", output, 1, true)
  end)

  for _, row in ipairs(offences) do
    local file, text, said = table.unpack(row)
    it("sees: " .. said, function()
      shell.write(tree .. "/csrc/" .. file, text)
      local ok, output = house()
      shell.must("rm %s/csrc/%s", tree, file)
      assert.is_false(ok)
      assert.matches(said, output, 1, true)
    end)
  end
end)
