-- Out of memory at every allocation, the module's and Lua's: a clean error, no crash, no
-- descriptor left.
--
-- For the module's, a program of its own connects to the real servers and does some work; each
-- run, one later allocation of ours fails (support/failing_malloc.c). For Lua's, which leave our
-- C code by longjmp, a program does that with a scripted peer, again and again in one process,
-- and each time memory runs out one request later (support/failing_allocator.c).
-- Not run under sanitizers, which bring an allocator of their own.

local Peer = require "spec.support.peer"
local certificates = require "spec.support.certificates"
local servers = require "spec.support.servers"
local shell = require "spec.support.shell"

-- Both programs find the build that this spec is run with, however it is run.
local environment = ("env LUA_PATH_5_4=%s LUA_CPATH_5_4=%s "):format(shell.quote(package.path),
  shell.quote(package.cpath))
local lua = os.getenv "LUA" or "lua5.4"

-- What the program prints: how the work ended, and how many descriptors are open behind it that
-- were not open before.
local program = [[
local protocol, port, ca_file, password = table.unpack(arg)
local lfs = require "lfs"
local function open_descriptors()
  local count = 0
  for _ in lfs.dir "/proc/self/fd" do count = count + 1 end
  return count
end
local module = require("starttls." .. protocol)
require "starttls.error"
local options = { host = "127.0.0.1", port = math.tointeger(port), ca_file = ca_file,
  user = "alice", password = password, trace = function() end }
local before = open_descriptors()
local work = {
  smtp = function(session)
    return session:send { from = "alice@example.test", to = { "alice@example.test" },
      message = "Subject: memory\n\n" .. ("text\n"):rep(4000) }
  end,
  imap = function(session)
    local selected, err = session:compress()
    if selected then selected, err = session:select "INBOX" end
    if not selected then return nil, err end
    return session:fetch_all("1:*", { "flags", "envelope", "structure", "body" })
  end,
  pop3 = function(session) return session:retr(1) end,
}
os.getenv "FAIL_FROM_HERE"
local raised, done, err = pcall(function()
  local session <close> = assert(module.connect(options))
  return work[protocol](session)
end)
if not raised then done, err = nil, done end
collectgarbage()
collectgarbage()
print(done and "done" or "failed", open_descriptors() - before, done and "" or tostring(err))
]]

describe("out of memory #memory", function()
  local mail, directory

  setup(function()
    mail = servers.shared()
    mail:empty "alice"
    mail:deliver("alice", "Subject: memory\r\n\r\n" .. ("text\r\n"):rep(4000))
    directory = shell.must "mktemp -d":gsub("%s+$", "")
    shell.write(directory .. "/program.lua", program)
    shell.must("cc -O1 -shared -fPIC -o %s spec/support/failing_malloc.c -ldl",
      directory .. "/failing.so")
  end)

  teardown(function() shell.must("rm -rf %s", directory) end)

  -- Runs the program with the n-th allocation failing. Returns how it ended, the descriptors
  -- left, the error's text, and how many allocations there were.
  local function run(protocol, n)
    local ok, output = shell.run("%s FAIL_AT=%d LD_PRELOAD=%s %s %s %s %d %s %s 3>&1",
      environment, n, directory .. "/failing.so", lua, directory .. "/program.lua",
      protocol, mail[protocol].port, mail.ca_file, shell.quote(mail.users.alice.password))
    assert.is_true(ok, ("%s, allocation %d: %s"):format(protocol, n, output))
    local ended, left, why, count = output:match "^(%a+)\t(%d+)\t([^\n]*)\n(%d+)\n"
    assert.is_string(ended, output)
    return ended, tonumber(left), why, tonumber(count)
  end

  -- Most allocations are common to all protocols: each protocol takes every third, from its own.
  for first, protocol in ipairs { "smtp", "imap", "pop3" } do
    it("at any allocation ends a session cleanly: " .. protocol, function()
      local ended, left, why, count = run(protocol, 0)
      assert.equal("done", ended, why)
      assert.equal(0, left)
      assert.is_true(count > 30, "too few allocations were seen: " .. count)
      local failures, odd = 0, {}
      for n = first, count, 3 do
        ended, left, why = run(protocol, n)
        assert.equal(0, left, ("descriptors left at allocation %d"):format(n))
        if ended == "failed" then
          failures = failures + 1
          if not why:find "memory" then odd[n] = why end
        end
      end
      assert.same({}, odd)
      -- The others were trace events, which are lost without harm.
      assert.is_true(failures > 5, failures .. " of " .. count)
    end)
  end
end)

-- Prints a line for each run that is not as it should be, or that leaves descriptors or blocks of
-- our C code behind; then how many runs there were, and how many blocks a session has.
local exhausting_program = [[
local protocol, port, ca_file, directory = table.unpack(arg)
package.cpath = directory .. "/?.so;" .. package.cpath
local allocator = require "failing_allocator"
local lfs = require "lfs"
local module = require("starttls." .. protocol)
local work = {
  smtp = function(session)
    assert(session:send { from = "a@example.test", to = { "b@example.test", "c@example.test" },
      message = ("text\n"):rep(20000) })
    return session:quit()
  end,
  imap = function(session)
    assert(session:list())
    assert(session:select "INBOX")
    for _ in session:fetch("1:*", { "flags", "envelope", "structure", "body" }) do end
    assert(session:append("INBOX", ("text\n"):rep(2000)))
    assert(session:unauthenticate())
    assert(session:authenticate { user = "bob", password = "secret", authzid = "alice" })
    return session:logout()
  end,
  pop3 = function(session)
    assert(session:list())
    assert(session:retr(1))
    return session:quit()
  end,
}
local most = 0
local function once()
  local session <close> = assert(module.connect { host = "127.0.0.1",
    port = math.tointeger(port), ca_file = ca_file, user = "alice", trace = function() end,
    password = function() return "secret" end })
  most = math.max(most, allocator.live())
  assert(session:security({ pem = true }).verified)
  return assert(work[protocol](session))
end
local function open_descriptors()
  local count = 0
  for _ in lfs.dir "/proc/self/fd" do count = count + 1 end
  return count
end
local function collect()
  collectgarbage()
  collectgarbage()
end
assert(once())
collect()
local descriptors, blocks = open_descriptors(), allocator.live()
local runs = 0
repeat
  runs = runs + 1
  local done, why, exhausted = allocator.run(runs, once)
  collect()
  local left = open_descriptors() - descriptors
  local lost = allocator.live() - blocks
  if left ~= 0 or lost ~= 0 then
    print("left behind", runs, left .. " descriptors", lost .. " blocks", why)
  end
  if not done and not why:find "not enough memory" then print("odd", runs, why) end
  if not exhausted and not done then print("failed", runs, why) end
until not exhausted or left ~= 0 or lost ~= 0 or runs == 5000
print("runs", runs, most - blocks)
]]

describe("out of Lua's memory #memory", function()
  local directory, ca, cert

  setup(function()
    directory = shell.must "mktemp -d":gsub("%s+$", "")
    ca = certificates.ca(directory)
    cert = ca:issue { name = "peer", ip = { "127.0.0.1" } }
    shell.write(directory .. "/program.lua", exhausting_program)
    shell.must("cc -std=gnu11 -O1 -Wall -shared -fPIC -o %s/failing_allocator.so "
      .. "spec/support/failing_allocator.c $(pkg-config --cflags lua5.4) -ldl", directory)
  end)

  teardown(function() shell.must("rm -rf %s", directory) end)

  -- Serves one client after the other, each as long as it stays.
  local function serve(p, args)
    local answers = {
      LIST = '* LIST () "/" "Entw&APw-rfe"\r\n', SELECT = "* 1 EXISTS\r\n* FLAGS (\\Seen)\r\n",
      UID = '* OK [COPYUID 1 2 3] x\r\n* ESEARCH (TAG "a") ALL 1\r\n* THREAD (1 2)\r\n'
        .. '* 1 FETCH (UID 1 FLAGS (\\Seen) ENVELOPE ("d" "=?utf-8?Q?=C3=BC?=" ((NIL NIL "g" NIL)'
        .. '(NIL NIL "a" "b")(NIL NIL NIL NIL)) NIL NIL NIL NIL NIL NIL NIL) BODYSTRUCTURE (('
        .. [["TEXT" "PLAIN" ("name*0*" "iso-8859-2''%e1" "name*1" "x"))("MESSAGE" "RFC822" NIL ]]
        .. 'NIL NIL "7BIT" 1 (NIL "s") ("TEXT" "PLAIN") 1) "MIXED") BODY[] {3}\r\nabc)\r\n',
      CAPABILITY = "* CAPABILITY IMAP4rev1 UNAUTHENTICATE SASL-IR AUTH=PLAIN\r\n",
    }
    local talk = {}
    function talk.smtp()
      p:smtp_receive()
      p:expect "^QUIT" p:send "221 bye\r\n"
    end
    function talk.imap()
      repeat
        local tag, line = p:imap_expect ""
        local size = line:match "{(%d+)}"
        if size then
          p:send "+ go on\r\n"
          p:read(math.tointeger(tonumber(size)) + 2)
        end
        local verb = line:match "^%S+ (%u+)"
        p:send(answers[verb] or "", tag, " OK done\r\n")
      until verb == "LOGOUT"
    end
    function talk.pop3()
      p:expect "^LIST" p:send "+OK\r\n1 6\r\n.\r\n"
      p:expect "^RETR" p:send("+OK\r\n", ("text\r\n"):rep(5000), ".\r\n")
      p:expect "^QUIT" p:send "+OK bye\r\n"
    end
    p:keep(false)
    repeat
      pcall(function()
        p[args.protocol .. "_upgrade"](p, args)
        talk[args.protocol]()
      end)
    until not pcall(p.accept, p)
  end

  for _, protocol in ipairs { "smtp", "imap", "pop3" } do
    it("at any allocation ends a session cleanly: " .. protocol, function()
      local peer <close> = Peer.start(serve, { protocol = protocol, cert = cert.cert,
        key = cert.key }, { total = 120 })
      local ok, output = shell.run("%s LD_PRELOAD=%s/failing_allocator.so %s %s/program.lua "
        .. "%s %d %s %s", environment, directory, lua, directory, protocol, peer.port, ca.cert,
        directory)
      assert.is_true(ok, output)
      local runs, blocks = output:match "^runs\t(%d+)\t(%d+)\n$"
      assert.is_string(runs, output)
      assert.is_true(tonumber(runs) > 100, "too few requests were seen: " .. runs)
      assert.is_true(tonumber(blocks) > 5, "too few blocks were seen: " .. blocks)
    end)
  end
end)
