-- The way a user gets the rock: a source archive, packed by LuaRocks, installed into an
-- empty tree, required from there. And what a user is told when a library is missing.
local shell = require "spec.support.shell"

-- Nothing of this checkout, and nothing of the make that runs the specs.
local CLEAN = "env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL -u LUA_PATH_5_4 -u LUA_CPATH_5_4 "
local LUAROCKS = CLEAN .. "luarocks --lua-version 5.4 "

describe("the rock #package", function()
  local dir

  -- A release's rockspec, made from the one in rockspec/, that takes a local archive.
  local function write_release()
    local file <close> = assert(io.open "rockspec/starttls-scm-1.rockspec")
    local text = file:read "a"
    local version, url
    text, version = text:gsub('version = "scm%-1"', 'version = "0.0.1-1"')
    text, url = text:gsub('url = "[^"]*"', ('url = "file://%s/starttls-0.0.1.tar.gz"'):format(dir))
    assert(version == 1 and url == 1, "the rockspec no longer looks as expected")
    shell.write(dir .. "/starttls-0.0.1-1.rockspec", text)
  end

  setup(function()
    dir = shell.must "mktemp -d"
    -- What git would archive, and what is new and not ignored.
    shell.must("mkdir %s/starttls-0.0.1", dir)
    shell.must("git ls-files --cached --others --exclude-standard -z | "
      .. "xargs -0 -I{} sh -c 'test ! -e \"{}\" || cp --parents \"{}\" %s/starttls-0.0.1/'", dir)
    shell.must("tar -C %s -czf %s/starttls-0.0.1.tar.gz starttls-0.0.1", dir, dir)
    write_release()
    shell.must("cd %s && %s pack starttls-0.0.1-1.rockspec", dir, LUAROCKS)
  end)

  teardown(function()
    shell.must("rm -rf %s", dir)
  end)

  local function in_tree(command)
    return CLEAN .. ("LUA_PATH='%s/tree/share/lua/5.4/?.lua;%s/tree/share/lua/5.4/?/init.lua' "
      .. "LUA_CPATH='%s/tree/lib/lua/5.4/?.so' %s"):format(dir, dir, dir, command)
  end

  it("has a rockspec that LuaRocks finds no fault with", function()
    shell.must(LUAROCKS .. "lint rockspec/starttls-scm-1.rockspec")
  end)

  it("installs from a .src.rock into an empty tree, and each module loads from there", function()
    shell.must("cd %s && %s --tree tree install ./starttls-0.0.1-1.src.rock", dir, LUAROCKS)
    local names = shell.must "cd lua && find starttls -name '*.lua'"
    for name in names:gmatch "[^\n]+" do
      name = name:gsub("/init%.lua$", ""):gsub("%.lua$", ""):gsub("/", ".")
      -- An adapter has use for its event loop alone, which is no part of the rock.
      local needs = name:match "^starttls%.loop%.(%l+)$"
      needs = needs ~= "poll" and needs or nil
      local loaded, output = shell.run("%s",
        in_tree(("lua5.4 -e 'require %q'"):format(name)))
      if needs then assert.matches(("module '%s"):format(needs), output, 1, true)
      else assert.is_true(loaded, output) end
    end
    shell.must(in_tree "lua5.4 -e 'require \"starttls.core\" require \"starttls.mime\"'")
  end)

  it("installs nothing but modules", function()
    local files = shell.must("cd %s/tree && find lib/lua share/lua -type f | LC_ALL=C sort", dir)
    local modules = { ["lib/lua/5.4/starttls/core.so"] = true,
      ["lib/lua/5.4/starttls/mime.so"] = true }
    for file in files:gmatch "[^\n]+" do
      assert.is_true(modules[file] or file:find "^share/lua/5%.4/starttls/.*%.lua$" ~= nil, file)
    end
  end)

  it("loads into many Lua states, one after another and in several threads", function()
    shell.must("cc -std=c11 -Wall -o %s/states spec/support/states.c "
      .. "$(pkg-config --cflags --libs lua5.4) -pthread", dir)
    shell.must(in_tree(dir .. "/states 'require \"starttls.core\" require \"starttls.smtp\"'"))
    shell.must(in_tree(dir .. "/states 'require \"starttls.message\"'"))
  end)

  it("has GLib and GMime in a process only when starttls.message is required", function()
    local program = "lua5.4 -e 'require \"starttls.smtp\" require \"starttls.imap\" "
      .. "require \"starttls.pop3\" require \"starttls.lmtp\" %s "
      .. "for line in io.lines \"/proc/self/maps\" do print(line) end'"
    local without = shell.must("%s", in_tree(program:format ""))
    assert.matches("starttls/core%.so", without)
    assert.is_nil(without:find "mime")
    assert.is_nil(without:find "libglib")
    local with = shell.must("%s", in_tree(program:format "require \"starttls.message\""))
    assert.matches("libgmime", with)
    assert.matches("libglib", with)
  end)

  it("is built without GMime by make MESSAGE=no, and says so to who wants it", function()
    shell.must("cp -R %s/starttls-0.0.1 %s/small", dir, dir)
    -- A pkg-config that does not know GMime, as on a machine without it.
    shell.write(dir .. "/bin/pkg-config", '#!/bin/sh\ncase "$*" in *gmime*) exit 1;; esac\n'
      .. 'exec /usr/bin/pkg-config "$@"\n')
    shell.must("chmod 755 %s/bin/pkg-config", dir)
    local make = ("cd %s/small && %s PATH=%s/bin:$PATH make -j2 "):format(dir, CLEAN, dir)
    local ok, output = shell.run("%s", make)
    assert.is_false(ok)
    assert.matches("libgmime-3.0-dev", output, 1, true)
    assert.matches("MESSAGE=no", output, 1, true)
    shell.must("%s", make .. "MESSAGE=no install house PREFIX=" .. dir .. "/prefix")
    local run = CLEAN .. ("LUA_PATH='%s/prefix/share/lua/5.4/?.lua' "):format(dir)
      .. ("LUA_CPATH='%s/prefix/lib/lua/5.4/?.so' lua5.4 -e "):format(dir)
    shell.must("%s", run .. "'require \"starttls.smtp\"'")
    ok, output = shell.run("%s", run .. "'require \"starttls.message\"'")
    assert.is_false(ok)
    assert.matches("built without starttls.message (MESSAGE=no)", output, 1, true)
  end)

  it("says through LuaRocks which library's header is missing", function()
    shell.must("mkdir -p %s/empty", dir)
    local ok, output = shell.run("cd %s && %s --tree other install ./starttls-0.0.1-1.src.rock "
      .. "GSASL_INCDIR=%s/empty", dir, LUAROCKS, dir)
    assert.is_false(ok)
    assert.matches("Could not find header file for GSASL", output, 1, true)
  end)

  it("says through make which package to install when pkg-config finds no library", function()
    local ok, output = shell.run("cd %s/starttls-0.0.1 && "
      .. "%s PKG_CONFIG_PATH= PKG_CONFIG_LIBDIR=%s make", dir, CLEAN, dir)
    assert.is_false(ok)
    for _, word in ipairs { "gnutls", "libgnutls28-dev", "gnutls-devel", "libgsasl-dev",
      "libidn2-dev", "zlib1g-dev", "libgmime-3.0-dev", "brew install" } do
      assert.matches(word, output, 1, true)
    end
  end)
end)
