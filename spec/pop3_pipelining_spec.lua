-- Several POP3 commands in flight (RFC 2449 6.8). A peer that answers only when it has all the
-- commands of a flight shows how often the client waits: one that sends less than it could, or
-- more, is stuck, or fails.

local socket = require "socket"

local patience = require "spec.support.patience"
local clients = require "spec.support.clients"
local peer_steps = require "spec.support.peer_steps"
local process = require "spec.support.process"
local servers = require "spec.support.servers"

local pop3 = require "starttls.pop3"

local capabilities = { "PIPELINING", "UIDL", "TOP" }

-- A flight: the commands that are to be there before the first answer, and the answers.
local function flight(commands, answers)
  local steps = {}
  for _, command in ipairs(commands) do
    steps[#steps + 1] = { "expect", "^" .. command:gsub("%p", "%%%0") .. "\r\n$" }
  end
  steps[#steps + 1] = { "nothing_more" }
  steps[#steps + 1] = { "send", table.concat(answers, "\r\n") .. "\r\n" }
  return steps
end

local function message(n) return ("Subject: %d\r\n\r\n..\r\nbody\r\n"):format(n) end
local function fetched(n) return ("Subject: %d\r\n\r\n.\r\nbody\r\n"):format(n) end

-- A flight of commands for messages `first` to `last`.
local function retrs(first, last)
  local commands, answers = {}, {}
  for n = first, last do
    commands[#commands + 1], answers[#answers + 1] = "RETR " .. n, "+OK\r\n" .. message(n) .. "."
  end
  return flight(commands, answers)
end

local function list(count, size)
  local lines = { "+OK" }
  for n = 1, count do lines[#lines + 1] = ("%d %d"):format(n, size or 30) end
  lines[#lines + 1] = "."
  return table.concat(lines, "\r\n")
end

local function ids(count)
  local lines = { "+OK" }
  for n = 1, count do lines[#lines + 1] = ("%d id%d"):format(n, n) end
  lines[#lines + 1] = "."
  return table.concat(lines, "\r\n")
end

local function lists(count, size)
  return flight({ "LIST", "UIDL" }, { list(count, size), ids(count) })
end

local goodbye = flight({ "QUIT" }, { "+OK bye" })

-- Runs use(session) against a peer with these flights. Its record, and their number.
local function converse(flights, use, options)
  options = options or {}
  local steps = { { "pop3_upgrade", { secure = false, auth = false,
    after = options.after or capabilities } } }
  for _, one in ipairs(flights) do table.move(one, 1, #one, #steps + 1, steps) end
  local peer <close> = peer_steps.start(steps, { slow = options.slow })
  local session <close> = assert(pop3.connect {
    host = "127.0.0.1", port = peer.port, tls = "none", timeout = patience.seconds(20),
    loop = options.loop, deadline = options.deadline,
  })
  use(session)
  session:close()
  local record = peer:finish()
  assert.is_true(record.ok, record.error)
  return #flights
end

local function save_all(session)
  local count = 0
  for msg in session:messages() do
    count = count + 1
    assert.equals("id" .. msg.n, msg.uid)
    assert.equals(fetched(msg.n), assert(msg:retr()))
  end
  return count
end

describe("a POP3 session with PIPELINING", function()
  it("fetches 20 messages in 4 flights, goodbye included, not in 23", function()
    local count
    assert.equals(4, converse({ lists(20), retrs(1, 17), retrs(18, 20), goodbye },
      function(session)
        count = save_all(session)
        assert(session:quit())
      end))
    assert.equals(20, count)
    local one_by_one = { flight({ "LIST" }, { list(20) }), flight({ "UIDL" }, { ids(20) }) }
    for n = 1, 20 do one_by_one[#one_by_one + 1] = retrs(n, n) end
    one_by_one[#one_by_one + 1] = goodbye
    assert.equals(23, converse(one_by_one, function(session)
      count = save_all(session)
      assert(session:quit())
    end, { after = { "UIDL" } }))
    assert.equals(20, count)
  end)

  it("fetches and deletes in as many, and says how many are gone", function()
    local commands, answers = {}, {}
    for n = 1, 4 do
      commands[n], answers[n] = "RETR " .. n, "+OK\r\n" .. message(n) .. "."
    end
    local deletes = flight({ "DELE 1", "DELE 2", "DELE 3", "DELE 4" },
      { "+OK", "-ERR [X] no", "+OK", "+OK" })
    converse({ lists(4), flight(commands, answers), deletes, goodbye }, function(session)
      for msg in session:messages() do
        assert.equals(fetched(msg.n), msg.body)
        assert.is_true(msg:delete())
      end
      local result = assert(session:quit())
      assert.same({ deleted = 3, refused = { { n = 2, status = "X", text = "no" } } }, result)
    end)
  end)

  it("marks many messages with a bounded number of commands in flight", function()
    local commands, answers = {}, {}
    for n = 1, 500 do commands[n], answers[n] = "DELE " .. n, "+OK" end
    local steps = { lists(500) }
    for first = 1, 500, 60 do
      local last = math.min(first + 59, 500)
      steps[#steps + 1] = flight({ table.unpack(commands, first, last) },
        { table.unpack(answers, first, last) })
    end
    steps[#steps + 1] = goodbye
    converse(steps, function(session)
      for msg in session:messages() do assert(msg:delete()) end
      assert.equals(500, assert(session:quit()).deleted)
    end)
  end)

  it("asks for no more octets ahead than it has learned to need", function()
    -- 40,000 octets each by the server's count: one ahead within 64 KiB; when the loop comes to
    -- the third the bound is 256 KiB, six ahead; soon it is 1 MiB, or 16 messages
    converse({ lists(25, 40000), retrs(1, 2), retrs(3, 9), retrs(10, 25), goodbye },
      function(session)
        save_all(session)
        assert(session:quit())
      end)
    -- more than 64 KiB each: never
    local steps = { lists(3, 70000) }
    for n = 1, 3 do steps[#steps + 1] = retrs(n, n) end
    converse(steps, save_all)
  end)

  it("asks for nothing ahead when told so, or where RETR may delete (EXPIRE 0)", function()
    local steps = { lists(3), retrs(1, 1), retrs(2, 2), retrs(3, 3) }
    converse(steps, function(session)
      for msg in session:messages { ahead = 0 } do assert.equals(fetched(msg.n), msg:retr()) end
    end)
    for _, expire in ipairs { "EXPIRE 0", "expire 00" } do
      converse(steps, save_all, { after = { expire, table.unpack(capabilities) } })
    end
    for answer, rest in pairs {
      ["EXPIRE 0 USER"] = { retrs(1, 1), retrs(2, 2), retrs(3, 3) },
      ["EXPIRE 60 USER"] = { retrs(1, 3) }, ["UIDL"] = { retrs(1, 3) },
    } do
      local all = { flight({ "LIST", "UIDL", "CAPA" }, { list(3), ids(3),
        "+OK\r\nPIPELINING\r\n" .. answer .. "\r\n." }), table.unpack(rest) }
      converse(all, save_all, { after = { "EXPIRE 30 USER", table.unpack(capabilities) } })
    end
    -- a server that does not say is taken to delete
    converse({ flight({ "LIST", "UIDL", "CAPA" }, { list(3), ids(3), "-ERR not now" }),
      retrs(1, 1), retrs(2, 2), retrs(3, 3) }, save_all,
      { after = { "EXPIRE 30 USER", table.unpack(capabilities) } })
    for _, expire in ipairs { "EXPIRE NEVER", "EXPIRE 30", "EXPIRE 05" } do
      converse({ lists(3), retrs(1, 3) }, save_all,
        { after = { expire, table.unpack(capabilities) } })
    end
  end)

  it("asks ahead for what the loop wants only, where it is told what that is", function()
    local wanted = flight({ "RETR 2", "RETR 4" },
      { "+OK\r\n" .. message(2) .. ".", "+OK\r\n" .. message(4) .. "." })
    local seen = {}
    converse({ lists(5), wanted, goodbye }, function(session)
      for msg in session:messages { only = function(it) return it.uid:find "[24]" end } do
        seen[#seen + 1] = msg.n
        assert.equals(fetched(msg.n), msg:retr())
      end
      assert(session:quit())
    end)
    assert.same({ 2, 4 }, seen)
  end)

  it("gives up asking ahead when the loop passes over what was asked for", function()
    converse({ lists(20), retrs(1, 17), retrs(19, 19), retrs(20, 20), goodbye }, function(session)
      for msg in session:messages() do
        if msg.n == 1 or msg.n >= 19 then assert.equals(fetched(msg.n), msg:retr()) end
      end
      assert(session:quit())
    end)
  end)

  it("asks for nothing ahead that is fetched already, or that is dropped", function()
    converse({ lists(4), retrs(4, 4), retrs(3, 3), flight({ "RETR 1", "RETR 2" },
      { "+OK\r\n" .. message(1) .. ".", "+OK\r\n" .. message(2) .. "." }), retrs(2, 2), retrs(1, 1),
      goodbye }, function(session)
      local all = {}
      for msg in session:messages() do all[#all + 1] = msg end
      for _, n in ipairs { 4, 3, 1 } do assert.equals(fetched(n), all[n]:retr()) end
      local again = session:retr(2) -- not the walk's: what it asked for is dropped
      assert.equals(fetched(2), again)
      assert.equals(fetched(1), all[1]:retr())
      assert(session:quit())
    end)
  end)

  it("uses of what was asked for what the loop passes on to", function()
    converse({ lists(4), retrs(1, 4), goodbye }, function(session)
      for msg in session:messages() do
        if msg.n ~= 2 then assert.equals(fetched(msg.n), msg:retr()) end
      end
      assert(session:quit())
    end)
  end)

  it("takes other commands in between, and asks again for what that dropped", function()
    converse({ lists(3), retrs(1, 3), flight({ "STAT" }, { "+OK 3 90" }), retrs(2, 2),
      flight({ "TOP 3 0" }, { "+OK\r\nSubject: 3\r\n." }), retrs(3, 3), goodbye },
      function(session)
        for msg in session:messages() do
          if msg.n == 3 then assert.equals("Subject: 3\r\n", msg.headers) end
          assert.equals(fetched(msg.n), msg:retr())
          if msg.n == 1 then assert.equals(3, session:stat()) end
        end
        assert(session:quit())
      end)
  end)

  it("asks for nothing ahead where the loop looks at headers", function()
    converse({ lists(3), flight({ "TOP 1 0" }, { "+OK\r\nSubject: 1\r\n." }), retrs(1, 1),
      retrs(2, 2) }, function(session)
      for msg in session:messages() do
        if msg.n == 1 then assert.equals("Subject: 1\r\n", msg.headers) end
        if msg.n < 3 then assert.equals(fetched(msg.n), msg.body) end
      end
    end)
  end)

  it("keeps answers and messages together when one is refused", function()
    local answers = { "+OK\r\n" .. message(1) .. ".", "-ERR [SYS/TEMP] not now",
      "+OK\r\n" .. message(3) .. "." }
    converse({ lists(3), flight({ "RETR 1", "RETR 2", "RETR 3" }, answers), goodbye },
      function(session)
        for msg in session:messages() do
          local text, err = msg:retr()
          if msg.n == 2 then
            assert.is_nil(text)
            assert.equals("rejected", err.kind)
            assert.equals("SYS/TEMP", err.status)
            assert.is_true(err.temporary)
          else
            assert.equals(fetched(msg.n), text)
          end
        end
        assert(session:quit())
      end)
  end)

  it("reads answers byte by byte", function()
    converse({ lists(3), retrs(1, 3), goodbye }, function(session)
      assert.equals(3, save_all(session))
      assert(session:quit())
    end, { slow = true })
  end)

  it("goes on behind sinks that fail or raise, and behind a loop that is left", function()
    for _, spoil in ipairs {
      function(msg)
        local done, err = msg:retr(function() return nil, "disk full" end)
        assert.is_nil(done)
        assert.equals("cancelled", err.kind)
      end,
      function(msg)
        assert.is_false(pcall(msg.retr, msg, function() error "boom" end))
      end,
    } do
      converse({ lists(3), retrs(1, 3), flight({ "NOOP" }, { "+OK" }), goodbye },
        function(session)
          for msg in session:messages() do
            if msg.n == 1 then
              spoil(msg)
            else
              assert.equals(fetched(msg.n), msg:retr())
              break
            end
          end
          assert(session:noop())
          assert(session:quit())
        end)
    end
  end)

  it("tells every call of a connection that is lost", function()
    converse({ lists(3), flight({ "RETR 1", "RETR 2", "RETR 3" },
      { "+OK\r\n" .. message(1) .. ".", "+OK\r\nhalf" }) }, function(session)
      local kinds = {}
      for msg in session:messages() do
        local text, err = msg:retr()
        kinds[msg.n] = text and "fetched" or err.kind .. " " .. err.during
      end
      assert.same({ "fetched", "closed retr", "closed retr" }, kinds)
      local result, err = session:quit()
      assert.is_nil(result)
      assert.equals("closed", err.kind)
    end)
  end)

  it("has the deadline of a call for each of them, however long the loop takes", function()
    converse({ lists(4), retrs(1, 4), goodbye }, function(session)
      for msg in session:messages() do
        assert.equals(fetched(msg.n), msg:retr())
        socket.sleep(patience.seconds(0.4))
      end
      assert(session:quit())
    end, { deadline = patience.seconds(1) })
  end)

  it("ends when an answer is there that nobody asked for", function()
    converse({ lists(2), flight({ "RETR 1", "RETR 2" }, { "+OK\r\n" .. message(1) .. ".",
      "+OK\r\n" .. message(2) .. ".\r\n+OK stray" }) }, function(session)
      assert.equals(2, save_all(session))
      local result, err = session:noop()
      assert.is_nil(result)
      assert.equals("protocol", err.kind)
    end)
  end)

  it("ends when an answer is there before its command was sent", function()
    local early = retrs(1, 17)
    early[#early][2] = early[#early][2] .. "+OK\r\n" .. message(18) .. ".\r\n"
    converse({ lists(18), early }, function(session)
      local kinds = {}
      for msg in session:messages() do
        local text, err = msg:retr()
        kinds[msg.n] = text and "fetched" or err.kind
      end
      assert.equals("fetched", kinds[1])
      assert.equals("protocol", kinds[18])
    end)
  end)

  describe("in coroutines", function()
    local function waits_by_yielding()
      return { wait = function() coroutine.yield() return true end, forget = function() end }
    end

    local function finish(thread)
      repeat assert(coroutine.resume(thread)) until coroutine.status(thread) == "dead"
    end

    it("is busy while one is at it, and free again", function()
      converse({ lists(2), retrs(1, 2), goodbye }, function(session)
        local pieces
        local thread = coroutine.create(function()
          assert(session:messages()():retr(function(piece)
            pieces = (pieces or "") .. (piece or "")
            if piece then coroutine.yield() end
            return true
          end))
        end)
        repeat assert(coroutine.resume(thread)) until pieces
        local reply, err = session:noop()
        assert.is_nil(reply)
        assert.equals("busy", err.kind, err)
        finish(thread)
        assert.equals(fetched(1), pieces)
        finish(coroutine.create(function() assert(session:quit()) end))
      end, { loop = waits_by_yielding() })
    end)

    it("ends with one that is dropped while it waits", function()
      converse({ lists(2), { { "hear" }, { "wait_for_close" } } }, function(session)
        local first
        local thread = coroutine.create(function()
          first = session:messages()()
          first:retr()
        end)
        repeat assert(coroutine.resume(thread)) until first
        thread = nil -- luacheck: ignore
        collectgarbage()
        collectgarbage()
        local reply, err = session:noop()
        assert.is_nil(reply)
        assert.equals("cancelled", err.kind)
      end, { loop = waits_by_yielding() })
    end)
  end)

  it("fetches from Dovecot in constant memory #memory", function()
    local mail = servers.shared()
    clients.empty(mail, "alice")
    local text = "Subject: x\r\n\r\n" .. ("0123456789abcdef\r\n"):rep(1700)
    for _ = 1, 400 do mail:deliver("alice", text) end -- 12 MB
    local function peak()
      return tonumber(process.read_file "/proc/self/status":match "VmHWM:%s+(%d+)")
    end
    local session <close> = clients.connect(mail, "pop3")
    local count, before = 0, nil
    for msg in session:messages() do
      local octets = 0
      assert(msg:retr(function(piece)
        octets = octets + #(piece or "")
        return true
      end))
      assert.equals(#text, octets)
      assert(msg:delete())
      count = count + 1
      if count == 50 then before = peak() end
    end
    assert.equals(400, count)
    assert(peak() - before < 2048, "the memory grows with the number of messages")
    assert.equals(400, assert(session:quit()).deleted)
    assert.equals(0, #mail:inbox "alice")
  end)

  it("raises for settings that it does not know", function()
    converse({}, function(session)
      for words, settings in pairs {
        ["unknown setting 'a'"] = { a = 1 }, ["'ahead'"] = { ahead = 25 },
        ["'only'"] = { only = true }, ["from 0"] = { ahead = -1 },
      } do
        assert.error_matches(function() session:messages(settings) end, words)
      end
    end)
  end)
end)
