-- Out of memory at every allocation of the module: a clean error, no crash, no descriptor left.
--
-- A program of its own connects to the real servers and does some work; each run, one later
-- allocation of ours fails (support/failing_malloc.c). Not run under sanitizers, which bring an
-- allocator of their own.

local servers = require "spec.support.servers"
local shell = require "spec.support.shell"

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
    local selected, err = session:select "INBOX"
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
    local ok, output = shell.run("env FAIL_AT=%d LD_PRELOAD=%s %s %s %s %d %s %s 3>&1",
      n, directory .. "/failing.so", os.getenv "LUA" or "lua5.4", directory .. "/program.lua",
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
