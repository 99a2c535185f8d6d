-- examples/embed/: a C program with Lua and the library inside, against the real servers.

local process = require "spec.support.process"
local servers = require "spec.support.servers"
local shell = require "spec.support.shell"

local build = os.getenv "STARTTLS_BUILD" or "build/5.4"

-- make as a user calls it, not as a part of the make that runs the specs.
local MAKE = "env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make -s "

local function letter(subject)
  return ("From: carol@example.test\r\nTo: bob@example.test\r\nSubject: %s\r\n\r\nHello\r\n")
    :format(subject)
end

-- How often each line of a text occurs.
local function counted(text)
  local counts = {}
  for line in text:gmatch "[^\n]+" do counts[line] = (counts[line] or 0) + 1 end
  return counts
end

describe("examples/embed #package", function()
  local mail, directory, host

  setup(function()
    mail = servers.shared()
    directory = process.temporary_directory()
    shell.must(MAKE .. "embed BUILD=" .. shell.quote(build))
    host = directory.path .. "/host"
    shell.must("cp %s/embed/host %s", build, host)
  end)

  teardown(function() directory:close() end)

  before_each(function() mail:empty "bob" end)

  -- Runs the host in an empty directory, where it finds nothing of this checkout.
  local function run(script, threads, states, settings)
    local variables = { MAIL_HOST = mail.host, MAIL_PORT = mail.imap.port,
      MAIL_CA_FILE = mail.ca_file, MAIL_USER = "bob", MAIL_PASSWORD = mail.users.bob.password }
    for key, value in pairs(settings or {}) do variables[key] = value end
    local words = { "cd", directory.path, "&& env -i" }
    for key, value in pairs(variables) do words[#words + 1] = shell.quote(key .. "=" .. value) end
    words[#words + 1] = ("%s %s %d %d"):format(host, shell.quote(script), threads, states)
    return shell.run((table.concat(words, " "):gsub("%%", "%%%%")))
  end

  local connect = [[
    local function connect()
      return assert(require "starttls.imap".connect { loop = host,
        host = os.getenv "MAIL_HOST", port = tonumber(os.getenv "MAIL_PORT"),
        user = os.getenv "MAIL_USER", password = os.getenv "MAIL_PASSWORD",
        ca_file = os.getenv "MAIL_CA_FILE" })
    end
  ]]

  -- Runs a script that has connect().
  local function run_text(text, threads, states)
    local path = directory.path .. "/script.lua"
    process.write_file(path, connect .. text)
    return run(path, threads, states)
  end

  local inbox = process.run({ "readlink", "-f", "examples/embed/inbox.lua" }):match "[^\n]+"

  it("is a C program of less than 150 lines", function()
    local _, lines = process.read_file("examples/embed/host.c"):gsub("\n", "")
    assert.is_true(lines < 150, lines)
  end)

  for _, case in ipairs { { 1, 1 }, { 1, 3 }, { 3, 2 } } do
    local threads, states = table.unpack(case)
    it(("runs sessions side by side in %d thread(s), %d state(s) in each"):format(threads, states),
      function()
        mail:deliver("bob", letter "One")
        mail:deliver("bob", letter "Two")
        local ok, output = run(inbox, threads, states)
        assert.is_true(ok, output)
        local wanted = {}
        for task = 1, 4 do wanted[task .. "\t2 messages"] = threads * states end
        assert.same(wanted, counted(output))
      end)
  end

  it("says what is wrong, and fails", function()
    local ok, output = run(inbox, 1, 1, { MAIL_PASSWORD = "wrong" })
    assert.is_false(ok)
    assert.matches("^host: [^\n]*the server refuses authentication[^\n]*\n$", output)
  end)

  it("waits in its own loop: a session that idles keeps no other from its work", function()
    local ok, output = run_text([[
      local session <close> = connect()
      assert(session:select "INBOX")
      local number = ...
      if number == 1 then
        idling = session
        local done, err = session:idle { each = function() end }
        io.write(tostring(done), " ", err.kind, "\n")
      elseif number == 2 then
        while not idling do assert(session:noop()) end
        assert(session:noop())
        idling:cancel()
      end]], 1, 1)
    assert.is_true(ok, output)
    assert.equal("nil cancelled\n", output)
  end)

  it("leaves no descriptor open when a state is closed around open sessions", function()
    local ok, output = run_text([[
      sessions = sessions or {}
      local session = connect()
      sessions[#sessions + 1] = session
      if #sessions < 4 then return end
      local count = 0
      for number = 0, 255 do
        local file = io.open("/proc/self/fdinfo/" .. number)
        if file then count = count + 1 file:close() end
      end
      io.write(count, "\n")]], 1, 5)
    assert.is_true(ok, output)
    local counts = counted(output)
    local count = next(counts)
    assert.same({ [count] = 5 }, counts)
  end)
end)
