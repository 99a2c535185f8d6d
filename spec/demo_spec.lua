-- That `make demo` shows the whole way of a message, fails when the message does not come back
-- as it was sent, and leaves nothing behind, however it ends.

local lfs = require "lfs"
local socket = require "socket"
local patience = require "spec.support.patience"
local process = require "spec.support.process"
local shell = require "spec.support.shell"

local lua = os.getenv "LUA" or "lua5.4"

-- Runs first in every Lua of the demo: replaces a function of a module of ours by one that a
-- spec writes. `real` is the function as it is.
local meddling = [[
package.preload[%q] = function(name)
  local path = assert(package.searchpath(name, package.path))
  local module = assert(loadfile(path))(name, path)
  local real = module.connect
  %s
  return module
end]]

-- A temporary directory that the servers' own accounts may enter.
local function public_directory()
  local directory = process.temporary_directory()
  process.run { "chmod", "755", directory.path }
  return directory
end

local function command(dir, code, variables)
  local words = {
    "TMPDIR=" .. shell.quote(dir), "LUA_PATH_5_4=" .. shell.quote(package.path),
    "LUA_CPATH_5_4=" .. shell.quote(package.cpath), "LUA_INIT_5_4=" .. shell.quote(code or ""),
    variables or "", "%s " .. shell.quote(lua) .. " spec/demo.lua",
  }
  return table.concat(words, " ")
end

local function run(dir, code, prefix)
  local line = command(dir, code):format(prefix or "env")
  local pipe = assert(io.popen("{ " .. line .. "; } 2>&1 </dev/null"))
  local output = pipe:read "a"
  local _, _, status = pipe:close()
  return status, output
end

-- The processes of a demo whose temporary directory this is: their command line or environment
-- names it, or a file in it. (The directory's own guard is the spec's, and names nothing in it.)
local function processes_of(dir)
  local found = {}
  for pid in lfs.dir "/proc" do
    if pid:find "^%d+$" then
      for _, name in ipairs { "cmdline", "environ" } do
        local text = process.read_file(("/proc/%s/%s"):format(pid, name))
        if text and (text:find(dir .. "/", 1, true) or text:find("TMPDIR=" .. dir, 1, true)) then
          found[#found + 1] = pid .. " " .. text
        end
      end
    end
  end
  return found
end

local function files_in(dir)
  local names = {}
  for name in lfs.dir(dir) do
    if name ~= "." and name ~= ".." then names[#names + 1] = name end
  end
  return names
end

-- Waits, within bounds, until `condition` holds.
local function wait_until(what, condition)
  local stop = socket.gettime() + patience.seconds(30)
  while not condition() do
    if socket.gettime() > stop then error("waited in vain until " .. what, 2) end
    socket.sleep(0.02)
  end
end

local function assert_nothing_left(dir)
  assert.same({}, processes_of(dir))
  assert.same({}, files_in(dir))
end

-- The lines between one heading and the next.
local function part(output, name)
  return output:match("\n" .. name .. "\n(.-)\n\n")
end

describe("make demo", function()
  local directory, dir

  before_each(function()
    directory = public_directory()
    dir = directory.path
  end)

  after_each(function() directory:close() end)

  it("runs spec/demo.lua behind the build", function()
    local recipe = shell.must "env -u MAKEFLAGS -u MFLAGS make -n demo"
    assert.matches("spec/demo.lua", recipe, 1, true)
  end)

  describe("with servers that do their work", function()
    local status, output, own_directory

    setup(function()
      own_directory = public_directory()
      status, output = run(own_directory.path)
    end)

    teardown(function() own_directory:close() end)

    it("succeeds, and says that both copies are as they were sent", function()
      assert.equal(0, status, output)
      assert.matches("\nIMAP: all %d+ bytes are as they were sent", output)
      assert.matches("\nPOP3: all %d+ bytes are as they were sent", output)
    end)

    it("leaves no process and no file behind", function()
      assert_nothing_left(own_directory.path)
    end)

    for name, upgrade in pairs { SMTP = "STARTTLS", IMAP = "A1 STARTTLS", POP3 = "STLS" } do
      it(("shows where the %s session became encrypted, and how"):format(name), function()
        local clear, version, cipher, encrypted = part(output, name)
          :match "^(.-)\n%-+ encrypted: (%S+), (%S+), certificate verified %-+\n(.*)$"
        assert.equal("TLS1.3", version)
        assert.matches("^TLS_[%u%d_]+$", cipher)
        assert.matches("clear  C: " .. upgrade .. "\nclear  S: [^\n]+$", clear)
        assert.is_nil(clear:find "\nTLS ")
        assert.is_nil(("\n" .. encrypted):find "\nclear ")
        assert.matches("\nTLS    C: [^\n]*AUTH[^\n]* SCRAM%-SHA%-256 <secret>\n", encrypted)
      end)
    end

    it("shows who says what, in aligned lines that fit a terminal", function()
      for line in output:match("\nSMTP\n.*"):gmatch "[^\n]+" do
        assert.is_true(#line <= 100, line)
        if line:find " [CS]: " then assert.matches("^[cT][lL][eS][a ][r ]  [CS]: ", line) end
      end
      assert.matches("\nTLS    C: MAIL FROM:<alice@example.test>[^\n]*\n", output)
      assert.matches("\nTLS    C: %(%d+ bytes of the message%)\n", output)
      assert.matches("\nTLS    C: A%d+ UID FETCH 1 ", output)
      assert.matches("\nTLS    C: RETR 1\n", output)
    end)

    it("shows neither the password nor colours that nobody asked for", function()
      assert.is_nil(output:find("wonderland", 1, true))
      assert.is_nil(output:find("\27", 1, true))
    end)
  end)

  it("fails, and cleans up, when a copy is not as it was sent", function()
    local status, output = run(dir, meddling:format("starttls.pop3", [[
      function module.connect(options)
        local session = assert(real(options))
        local retr = session.retr
        function session.retr(...) return assert(retr(...)):sub(1, -2) end
        return session
      end]]))
    assert.equal(1, status, output)
    assert.matches("POP3: the message is NOT as it was sent", output, 1, true)
    assert_nothing_left(dir)
  end)

  it("fails, and cleans up, when a session can't be had", function()
    local status, output = run(dir, meddling:format("starttls.imap", [[
      function module.connect(options)
        options.password = "wrong"
        return real(options)
      end]]))
    assert.equal(1, status, output)
    assert.matches("the server refuses authentication with SCRAM-SHA-256", output, 1, true)
    assert_nothing_left(dir)
  end)

  -- The demo stands still in the middle of its way until the signal comes. It has a process
  -- group of its own, which gets the signal as a whole, as from a terminal.
  local function start_and_stop(signal)
    local mark, log = dir .. "/standing", dir .. "/output"
    local code = meddling:format("starttls.imap", ([[
      function module.connect()
        io.open(%q, "w"):close()
        io.popen("sleep 60"):read "a"
      end]]):format(mark))
    local demo = command(dir, code):format "exec env --default-signal=INT,QUIT setsid"
    local pipe = assert(io.popen(demo .. " >" .. log
      .. " 2>&1 </dev/null & echo $!; wait $! 2>/dev/null; echo $?"))
    local group = pipe:read "n"
    wait_until("the demo stands still", function() return lfs.attributes(mark) end)
    assert.is_true(#processes_of(dir) > 2)
    shell.must("env kill -s %s -- -%d", signal, group)
    local status = pipe:read "n"
    pipe:close()
    os.remove(mark)
    os.remove(log)
    return status
  end

  for _, signal in ipairs { "INT", "TERM", "HUP" } do
    it(("leaves nothing behind when SIG%s ends it"):format(signal), function()
      assert.not_equal(0, start_and_stop(signal))
      wait_until("all processes are gone", function() return #processes_of(dir) == 0 end)
      assert_nothing_left(dir)
    end)
  end
end)
