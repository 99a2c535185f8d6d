-- Waiting for what happens: IDLE (RFC 2177), NOOP where there is none, NOTIFY (RFC 5465), and the
-- functions for what a server says unasked. Scripted peers see every line; Dovecot is real.

local socket = require "socket"
local clients = require "spec.support.clients"
local patience = require "spec.support.patience"
local imap_script = require "spec.support.imap_script"
local servers = require "spec.support.servers"

local converse = imap_script.converse

-- Dialogues -----------------------------------------------------------------------------------

local short = imap_script.short
local idling, going = { "+ idling\r\n" }, { "%T OK done\r\n" }

-- Takes events until there are that many; what each is, in short.
local function take(session, count, settings)
  local told = {}
  for event in session:idle(settings) do
    told[#told + 1] = short(event)
    if #told == count then break end
  end
  return told
end

local news = "* 5 EXISTS\r\n* 1 RECENT\r\n* 3 EXPUNGE\r\n* 2 FETCH (UID 7 FLAGS (\\Seen))\r\n"
  .. "* VANISHED 11:12\r\n* OK Still here\r\n* OK [ALERT] Fire\r\n* FLAGS (\\Seen x)\r\n"
  .. "* LIST () \"/\" new\r\n* STATUS other (MESSAGES 3)\r\n"

local told_news = { "exists 5", "recent 1", "expunge 3", "fetch 7", "vanished 11:12",
  "alert Fire", "flags \\Seen,x", "list new", "status other" }

describe("IDLE", function()
  it("tells what happens to an iterator, and to functions", function()
    local on, heard = {}, {}
    for _, kind in ipairs { "exists", "recent", "expunge", "fetch", "vanished", "alert", "flags",
      "list", "status" } do
      on[kind] = function(value) heard[#heard + 1] = short { type = kind, value = value } end
    end
    converse({ "IDLE", idling, { news }, "DONE", going, "NOOP", going }, function(session)
      assert.same(told_news, take(session, #told_news))
      assert.same(told_news, heard)
      assert.is_truthy(session:noop())
    end, { options = { on = on } })
  end)

  it("tells what comes before the \"+\" and after DONE", function()
    local late = {}
    converse({ "IDLE", { "* 1 EXISTS\r\n+ idling\r\n* 2 EXISTS\r\n" }, "DONE",
      { "* 3 EXISTS\r\n%T OK done\r\n" }, "NOOP", going }, function(session)
        assert.same({ "exists 1", "exists 2" }, take(session, 2))
        assert.is_truthy(session:noop())
      end, { options = { on = { exists = function(number) late[#late + 1] = number end } } })
    assert.same({ 1, 2, 3 }, late)
  end)

  it("does not say DONE before the \"+\"", function()
    converse({ "IDLE", { "* 1 EXISTS\r\n" }, { quiet = true }, idling, "DONE", going, "NOOP",
      going }, function(session)
        assert.same({ "exists 1" }, take(session, 1))
        assert.is_truthy(session:noop())
      end)
  end)

  it("keeps the mailbox's counts right", function()
    converse({ 'SELECT "x"', { "* 9 EXISTS\r\n%T OK done\r\n" }, "IDLE", idling,
      { "* 12 EXISTS\r\n* 3 EXPUNGE\r\n* VANISHED 11:12,20\r\n* VANISHED (EARLIER) 1:5\r\n" },
      "DONE", going, "NOOP", { "* 9 EXPUNGE\r\n%T OK done\r\n" } }, function(session)
        local mailbox = assert(session:select "x")
        take(session, 4)
        assert.equal(8, mailbox.exists)
        assert(session:noop())
        assert.equal(7, mailbox.exists)
      end)
  end)

  it("works with nothing selected", function()
    converse({ "IDLE", idling, { "* OK [ALERT] Fire\r\n" }, "DONE", going, "NOOP", going },
      function(session)
        assert.same({ "alert Fire" }, take(session, 1))
        assert.is_truthy(session:noop())
      end)
  end)

  it("is sent anew every so often", function()
    converse({ "IDLE", idling, "DONE", going, "IDLE", idling, "DONE", { "* 4 EXISTS\r\n%T OK\r\n" },
      "IDLE", idling, "DONE", going, "NOOP", going }, function(session)
        assert.same({ "exists 4" }, take(session, 1, { renew = 0.05 }))
        take(session, 0, { seconds = 0.01 })
        assert.is_truthy(session:noop())
      end)
  end)

  it("notices a dead connection when it is sent anew", function()
    converse({ "IDLE", idling, { "* 4 EXISTS\r\n" }, { silent = true } }, function(session)
      local told = {}
      local fine, err = pcall(function()
        for event in session:idle { renew = 0.1 } do told[#told + 1] = short(event) end
      end)
      assert.is_false(fine)
      assert.equal("timeout", err.kind)
      assert.same({ "exists 4" }, told)
      assert.equal("timeout", select(2, session:noop()).kind)
    end, { options = { timeout = 0.2 } })
  end)

  it("may take longer than timeout and deadline", function()
    local long = patience.seconds(1.2)
    converse({ "IDLE", idling, { pause = long }, { "%T OK enough\r\n" }, "NOOP", going, "IDLE",
      idling, { "* 1 EXISTS\r\n" }, "DONE", going, "NOOP", going }, function(session)
        assert.is_true(session:idle { seconds = long * 1.1, each = error })
        assert.is_truthy(session:noop())
        for _ in session:idle() do -- luacheck: ignore
          socket.sleep(long)
          break
        end
        assert.is_truthy(session:noop())
      end, { options = { timeout = patience.seconds(1), deadline = patience.seconds(1) } })
  end)

  -- Ways to leave the loop, each after the first event: the next command works.
  local ways = {
    ["break"] = function(session) take(session, 1) end,
    ["an error of the body"] = function(session)
      assert.error_matches(function()
        for _ in session:idle() do error "enough" end
      end, "enough")
    end,
    ["an error of a function of on"] = function(session)
      session.on.exists = function() error "enough" end
      assert.error_matches(function()
        take(session, 1)
      end, "enough")
      session.on.exists = nil
    end,
    ["the time that is over"] = function(session)
      for _ in session:idle { seconds = 0.05 } do end -- luacheck: ignore
    end,
    ["each that returns false"] = function(session)
      assert.is_true(session:idle { each = function() return false end })
    end,
    ["coroutine.close"] = function(session)
      local thread = coroutine.create(function()
        for _ in session:idle() do coroutine.yield() end
      end)
      assert(coroutine.resume(thread))
      assert(coroutine.close(thread))
    end,
    ["a coroutine that is dropped"] = function(session)
      coroutine.wrap(function()
        for _ in session:idle() do coroutine.yield() end
      end)()
      collectgarbage()
      collectgarbage()
    end,
  }

  for name, leave in pairs(ways) do
    it("ends with one DONE by " .. name, function()
      converse({ "IDLE", { "+ idling\r\n* 1 EXISTS\r\n" }, "DONE", going, "NOOP", going, "IDLE",
        idling, { "* 2 EXISTS\r\n" }, "DONE", going, "NOOP", going }, function(session)
          leave(session)
          assert.is_truthy(session:noop())
          assert.same({ "exists 2" }, take(session, 1))
          assert.is_truthy(session:noop())
        end)
    end)
  end

  it("gives events to a function until it returns false, and errors as values", function()
    converse({ "IDLE", idling, { "* 1 EXISTS\r\n* 2 EXISTS\r\n* 3 EXISTS\r\n" }, "DONE", going,
      "IDLE", { "%T NO [LIMIT] not now\r\n" }, "IDLE", idling, { cut = true } }, function(session)
        local told = {}
        local function each(event)
          told[#told + 1] = short(event)
          return #told < 2
        end
        assert.is_true(session:idle { each = each })
        assert.same({ "exists 1", "exists 2" }, told)
        local ended, err = session:idle { each = each }
        assert.is_nil(ended)
        assert.equal("rejected", err.kind)
        assert.equal("LIMIT", err.status)
        ended, err = session:idle { each = each }
        assert.is_nil(ended)
        assert.equal("closed", err.kind)
      end)
  end)
end)

describe("a server that ends IDLE by itself", function()
  it("is asked with NOOP from then on when it does so at once", function()
    converse({ "IDLE", { "+ idling\r\n* 1 EXISTS\r\n%T OK enough\r\n" }, "NOOP",
      { "* 2 EXISTS\r\n%T OK\r\n" }, "NOOP", { "* 3 EXISTS\r\n%T OK\r\n" } }, function(session)
        assert.same({ "exists 1", "exists 2", "exists 3" }, take(session, 3, { interval = 0.05 }))
      end)
  end)

  it("is not told DONE behind that", function()
    converse({ "IDLE", { "+ idling\r\n* 1 EXISTS\r\n%T OK enough\r\n" }, "NOOP", going },
      function(session)
        assert.same({ "exists 1" }, take(session, 1))
        assert.is_truthy(session:noop())
      end)
  end)

  it("may take a DONE that crosses its answer for a command", function()
    converse({ "IDLE", { "+ idling\r\n* 1 EXISTS\r\n" }, "DONE",
      { "%T OK enough\r\nDONE BAD unknown command\r\n" }, "NOOP", going }, function(session)
        assert.same({ "exists 1" }, take(session, 1))
        assert.is_truthy(session:noop())
      end)
  end)

  for _, status in ipairs { "NO", "BAD" } do
    it("with " .. status .. " makes the loop raise, and lives on", function()
      converse({ "IDLE", { "+ idling\r\n* 1 EXISTS\r\n%T " .. status .. " [INUSE] go\r\n" },
        "NOOP", going }, function(session)
          local told = {}
          local fine, err = pcall(function()
            for event in session:idle() do told[#told + 1] = short(event) end
          end)
          assert.is_false(fine)
          assert.equal("rejected", err.kind)
          assert.equal("INUSE", err.status)
          assert.same({ "exists 1" }, told)
          assert.is_truthy(session:noop())
        end)
    end)
  end

  it("with BYE tells it as an event, and then raises", function()
    converse({ "IDLE", { "+ idling\r\n* BYE shutting down\r\n" } }, function(session)
      local told = {}
      local fine, err = pcall(function()
        for event in session:idle() do told[#told + 1] = short(event) end
      end)
      assert.is_false(fine)
      assert.equal("closed", err.kind)
      assert.equal("shutting down", err.text)
      assert.same({ "bye shutting down" }, told)
    end)
  end)

  for name, line in pairs {
    ["a second \"+\""] = "+ idling\r\n", ["an OK to another command"] = "A77 OK done\r\n",
  } do
    it("is not believed when it says " .. name, function()
      converse({ "IDLE", { "+ idling\r\n" .. line } }, function(session)
        local ended, err = session:idle { each = error }
        assert.is_nil(ended)
        assert.equal("protocol", err.kind)
      end)
    end)
  end
end)

describe("without IDLE", function()
  it("the server is asked with NOOP every so often, and heard in between", function()
    converse({ "NOOP", { "* 1 EXISTS\r\n%T OK\r\n* 2 EXISTS\r\n" }, "NOOP", going,
      "NOOP", { "* 3 EXISTS\r\n%T OK\r\n" }, 'SELECT "x"', going }, function(session)
        assert.same({ "exists 1", "exists 2", "exists 3" }, take(session, 3, { interval = 0.05 }))
        assert.is_truthy(session:select "x")
      end, { capabilities = {} })
  end)

  it("a refusal of NOOP raises", function()
    converse({ "NOOP", { "%T BAD no\r\n" } }, function(session)
      local ended, err = session:idle { interval = 0.05, each = error }
      assert.is_nil(ended)
      assert.equal("rejected", err.kind)
      assert.equal("noop", err.during)
    end, { capabilities = {} })
  end)

  it("the time can be over", function()
    converse({ 'SELECT "x"', going }, function(session)
      assert.is_true(session:idle { seconds = 0.05, each = error })
      assert.is_truthy(session:select "x")
    end, { capabilities = {} })
  end)
end)

it("idle refuses settings that make no sense", function()
  converse({ 'SELECT "x"', going }, function(session)
    for _, settings in ipairs { { renew = 0 }, { renew = 1741 }, { renew = "x" }, { interval = -1 },
      { seconds = 0 / 0 }, { each = 1 } } do
      assert.error_matches(function() session:idle(settings) end, "^idle: %l+ must be")
    end
    assert.is_truthy(session:select "x")
  end)
end)

-- Coroutines ----------------------------------------------------------------------------------

describe("idle in a coroutine", function()
  local seconds_told
  local loop = {
    wait = function(_, mode, seconds)
      seconds_told[#seconds_told + 1] = seconds
      coroutine.yield(mode)
      return true
    end,
    forget = function() end,
  }

  before_each(function() seconds_told = {} end)

  -- Resumes a coroutine when its session can go on, until it is over or `enough` says so.
  local function drive(thread, session, enough)
    local stop = socket.gettime() + patience.seconds(10)
    while coroutine.status(thread) ~= "dead" and not (enough and enough()) do
      assert.is_true(socket.gettime() < stop)
      assert(coroutine.resume(thread))
      if coroutine.status(thread) ~= "dead" then
        socket.select({ session }, nil, math.min(0.05, seconds_told[#seconds_told] or 0))
      end
    end
  end

  it("waits in the loop, for a number of seconds each time", function()
    converse({ "IDLE", idling, { "* 1 EXISTS\r\n" }, "DONE", going, "NOOP", going },
      function(session)
        local told
        local thread = coroutine.create(function()
          told = take(session, 1)
          assert(session:noop())
        end)
        drive(thread, session)
        assert.same({ "exists 1" }, told)
        for _, seconds in ipairs(seconds_told) do assert.equal("number", type(seconds)) end
      end, { options = { loop = loop } })
  end)

  it("ends with cancel from elsewhere", function()
    converse({ "IDLE", idling, { silent = true } }, function(session)
      local fine, err
      local thread = coroutine.create(function()
        fine, err = pcall(function() take(session, 1) end)
      end)
      drive(thread, session, function() return (seconds_told[#seconds_told] or 0) > 400 end)
      assert.equal("busy", select(2, session:noop()).kind)
      session:cancel()
      assert(coroutine.resume(thread))
      assert.is_false(fine)
      assert.equal("cancelled", err.kind)
    end, { options = { loop = loop } })
  end)

  it("lets go of the session when its coroutine is closed while it waits", function()
    converse({ "IDLE", idling, "DONE", going, "NOOP", going }, function(session)
      local thread = coroutine.create(function() take(session, 1) end)
      drive(thread, session, function() return (seconds_told[#seconds_told] or 0) > 400 end)
      assert.is_true(coroutine.close(thread))
      assert.is_truthy(session:noop())
    end, { options = { loop = loop } })
  end)

  it("is over for whoever waits in it when the loop is ended from elsewhere", function()
    converse({ "IDLE", idling, "DONE", going, "NOOP", going }, function(session)
      local fine, err, guard
      local thread = coroutine.create(function()
        local next_event, _
        next_event, _, _, guard = session:idle()
        fine, err = pcall(next_event)
      end)
      drive(thread, session, function() return (seconds_told[#seconds_told] or 0) > 400 end)
      getmetatable(guard).__close(guard)
      assert.is_truthy(session:noop())
      assert(coroutine.resume(thread))
      assert.is_false(fine)
      assert.matches("the operation is over", err)
    end, { options = { loop = loop } })
  end)

  it("lets functions of on yield", function()
    local yielded
    converse({ "IDLE", idling, { "* 1 EXISTS\r\n" }, "DONE", going, "NOOP", going },
      function(session)
        local told
        local thread = coroutine.create(function() told = take(session, 1) end)
        drive(thread, session)
        assert.same({ "exists 1" }, told)
        assert.is_true(yielded)
        assert.is_truthy(session:noop())
      end, { options = { loop = loop, on = { exists = function()
        coroutine.yield "r"
        yielded = true
      end } } })
  end)
end)

-- Dovecot -------------------------------------------------------------------------------------

describe("with Dovecot", function()
  local mail, watched, other

  local function connect()
    local session = clients.connect(mail, "imap")
    assert(session:select "INBOX")
    return session
  end

  setup(function() mail = servers.shared() end)
  before_each(function()
    clients.empty(mail, "alice")
    watched, other = connect(), connect()
  end)
  after_each(function()
    watched:close()
    other:close()
  end)

  it("idle tells what another session does, and the mailbox object follows", function()
    local acts = {
      function() assert(other:append("INBOX", "Subject: 1\r\n\r\nOne\r\n")) end,
      function() assert(other:store("1:*", { add = { "\\Deleted" } })) end,
      function() assert(other:expunge()) end,
    }
    local expected, seen = { "exists", "fetch", "expunge" }, {}
    assert(table.remove(acts, 1))()
    for event in watched:idle { seconds = patience.seconds(15) } do
      if event.type == expected[#seen + 1] then
        seen[#seen + 1] = event.type
        local act = table.remove(acts, 1)
        if not act then break end
        act()
      end
    end
    assert.same(expected, seen)
    assert.equal(0, watched.mailbox.exists)
    assert.same({}, assert(watched:search "ALL"))
  end)
end)
