-- The drive loop under event loops and in coroutines: every call works unchanged where it
-- may yield, and however it is interrupted - closed, abandoned, cancelled, by an error in a
-- callback - nothing is left behind: no descriptor, no busy session, no half-sent message.

local cqueues = require "cqueues"
local lfs = require "lfs"
local socket = require "socket"
local Peer = require "spec.support.peer"
local clients = require "spec.support.clients"
local descriptors = require "spec.support.descriptors"
local errors = require "starttls.error"
local patience = require "spec.support.patience"
local peer_steps = require "spec.support.peer_steps"
local process = require "spec.support.process"
local servers = require "spec.support.servers"
local Stage = require "spec.support.stage"

-- Steps of a peer.
local say, expect, silence = peer_steps.say, peer_steps.expect, peer_steps.silence
local logged_in = peer_steps.logged_in

-- Every call that says something to the server, with arguments.
local calls = {
  smtp = { { "send", { from = "a@b", to = "c@d", message = "x" } }, { "verify", "x" },
    { "reset" }, { "noop" }, { "quit" } },
  imap = { { "list" }, { "status", "x" }, { "select", "x" }, { "examine", "x" },
    { "search", "ALL" }, { "store", 1, { add = { "x" } } }, { "copy", 1, "x" }, { "expunge" },
    { "append", "x", "y" }, { "fetch_all", 1, { "uid" } }, { "noop" }, { "logout" } },
  pop3 = { { "stat" }, { "list" }, { "list", 1 }, { "uidl" }, { "retr", 1 }, { "top", 1 },
    { "dele", 1 }, { "reset" }, { "noop" }, { "quit" } },
}

-- {====== A loop of a few lines ======

-- Runs functions in coroutines, with LuaSocket's select.
local Scheduler = {}
Scheduler.__index = Scheduler

function Scheduler.new()
  local self = setmetatable({ tasks = {}, waits = 0, most = 0, forgotten = {} }, Scheduler)
  self.loop = {
    wait = coroutine.yield,
    forget = function(fd)
      self.forgotten[#self.forgotten + 1] = fd
      for _, task in ipairs(self.tasks) do
        if task.fd == fd then task.ready = true end
      end
    end,
  }
  return self
end

function Scheduler:spawn(fn, ...)
  local task = { co = coroutine.create(fn), arguments = table.pack(...), ready = true }
  self.tasks[#self.tasks + 1] = task
  return task
end

function Scheduler:resume(task)
  local arguments = task.arguments or { true, n = 1 }
  local results = table.pack(coroutine.resume(task.co, table.unpack(arguments, 1, arguments.n)))
  task.arguments, task.ready, task.fd = nil, false, nil
  if coroutine.status(task.co) == "dead" then
    task.ok, task.results = results[1], table.pack(table.unpack(results, 2, results.n))
    return
  end
  self.waits = self.waits + 1
  task.session, task.mode = results[2], results[3]
  task.fd, task.until_ = task.session:getfd(), socket.gettime() + results[4]
end

-- Waits until something can go on.
function Scheduler:poll()
  local readers, writers, soonest, waiting = {}, {}, math.huge, 0
  for _, task in ipairs(self.tasks) do
    if task.ready then soonest = 0
    elseif not task.results then
      waiting = waiting + 1
      if task.mode:find "r" then readers[#readers + 1] = task.session end
      if task.mode:find "w" then writers[#writers + 1] = task.session end
      soonest = math.min(soonest, task.until_ - socket.gettime())
    end
  end
  self.most = math.max(self.most, waiting)
  local can_read, can_write = socket.select(readers, writers, math.max(0, soonest))
  local now = socket.gettime()
  for _, task in ipairs(self.tasks) do
    if not task.results and (can_read[task.session] or can_write[task.session]
        or now >= (task.until_ or 0)) then
      task.ready = true
    end
  end
end

-- Runs all tasks to their end; raises the first error.
function Scheduler:run()
  local unfinished = true
  while unfinished do
    unfinished = false
    for _, task in ipairs(self.tasks) do
      if task.ready and not task.results then self:resume(task) end
      unfinished = unfinished or not task.results
    end
    if unfinished then self:poll() end
  end
  for _, task in ipairs(self.tasks) do
    if not task.ok then error(task.results[1], 0) end
  end
end

-- }======

describe("in coroutines", function()
  local stage

  setup(function() stage = Stage.open() end)
  teardown(function() stage:close() end)

  local function options(peer, given)
    local all = stage:options(given or {})
    all.port = peer.port
    return all
  end

  local function start(steps) return stage:start(steps) end

  local function connect(name, peer, given)
    return assert(require("starttls." .. name).connect(options(peer, given)))
  end

  -- {====== Real servers ======

  describe("with real servers", function()
    local mail

    setup(function() mail = servers.shared() end)
    before_each(function() clients.empty(mail, "bob") end)

    local message = "Subject: %d\r\n\r\n" .. ("x"):rep(70) .. "\r\n"

    local function send(loop, number)
      local session <close> = clients.connect(mail, "smtp", { loop = loop })
      assert(session:send { from = mail.users.alice.address, to = mail.users.bob.address,
        message = message:format(number) })
      assert(session:quit())
    end

    local bob = { user = "bob" }

    local function read_imap(loop)
      local session <close> = clients.connect(mail, "imap",
        { loop = loop, user = bob.user, password = mail.users.bob.password })
      assert(session:select "INBOX")
      local count = 0
      for msg in session:fetch("1:*", { "body" }) do
        assert(msg.body:find "Subject: %d+\r\n\r\nx+\r\n$")
        count = count + 1
      end
      assert(session:logout())
      return count
    end

    local function read_pop3(loop)
      local session <close> = clients.connect(mail, "pop3",
        { loop = loop, user = bob.user, password = mail.users.bob.password })
      local count = 0
      for msg in session:messages() do
        assert(msg:retr():find "Subject: %d+\r\n\r\nx+\r\n$")
        count = count + 1
      end
      assert(session:quit())
      return count
    end

    local function wait_for_delivery(count)
      local stop = socket.gettime() + patience.seconds(10)
      while #mail:inbox "bob" < count and socket.gettime() < stop do socket.sleep(0.02) end
      assert.are.equal(count, #mail:inbox "bob")
    end

    it("all protocols work side by side in a scheduler around select", function()
      local before = descriptors.open()
      local scheduler = Scheduler.new()
      for number = 1, 6 do scheduler:spawn(send, scheduler.loop, number) end
      scheduler:run()
      assert.is_true(scheduler.most > 1) -- they did wait at the same time
      wait_for_delivery(6)
      scheduler = Scheduler.new()
      local imap = scheduler:spawn(read_imap, scheduler.loop)
      local pop3 = scheduler:spawn(read_pop3, scheduler.loop)
      scheduler:run()
      assert.are.same({ 6, 6 }, { imap.results[1], pop3.results[1] })
      descriptors.assert_same(before)
    end)

    it("all protocols work side by side in cqueues", function()
      local loop = {
        wait = function(session, _, seconds) return cqueues.poll(session, seconds) end,
        forget = cqueues.cancel,
      }
      local queue = cqueues.new()
      for number = 1, 6 do queue:wrap(send, loop, number) end
      assert(queue:loop(patience.seconds(20)))
      assert.is_true(queue:empty())
      wait_for_delivery(6)
      local counts = {}
      for _, read in ipairs { read_imap, read_pop3 } do
        queue:wrap(function()
          local count = read(loop)
          counts[#counts + 1] = count
        end)
      end
      assert(queue:loop(patience.seconds(20)))
      assert.are.same({ 6, 6 }, counts)
    end)

    it("sessions that are dropped without a word leave no descriptor", function()
      collectgarbage()
      local before = descriptors.open()
      for _ = 1, 10 do
        for _, name in ipairs(clients.protocols) do clients.connect(mail, name) end
      end
      collectgarbage()
      collectgarbage()
      descriptors.assert_same(before)
    end)
  end)

  -- }======

  -- {====== Interrupted at each wait ======

  -- A session of each protocol from the connection to the goodbye.
  local sessions = {
    smtp = {
      steps = logged_in("smtp", expect "^MAIL", say "250 ok\r\n", expect "^RCPT", say "250 ok\r\n",
        expect "^DATA", say "354 go\r\n", { "read_to_dot" }, say "250 ok\r\n", expect "^QUIT",
        say "221 bye\r\n", silence),
      calls = {
        function(session)
          return session:send { from = "a@b", to = "c@d", message = "hello\r\n" }
        end,
        function(session) return session:quit() end,
      },
    },
    imap = {
      steps = logged_in("imap", expect "SELECT", say "* 2 EXISTS\r\n", { "sleep", 0.002 },
        say "%T OK done\r\n", expect "FETCH", say "* 1 FETCH (UID 1 BODY[] {10}\r\nhello",
        { "sleep", 0.002 }, say "world)\r\n%T OK done\r\n", expect "APPEND", say "+ go\r\n",
        { "line" }, { "line" }, say "%T OK done\r\n", expect "LOGOUT",
        say "* BYE bye\r\n%T OK bye\r\n", silence),
      calls = {
        function(session) return session:select "INBOX" end,
        function(session) return session:fetch_all(1, { "body" }) end,
        function(session) return session:append("INBOX", "hello\r\n") end,
        function(session) return session:logout() end,
      },
    },
    pop3 = {
      steps = logged_in("pop3", expect "LIST", say "+OK\r\n1 10\r\n", { "sleep", 0.002 },
        say "2 20\r\n.\r\n", expect "RETR", say "+OK\r\nhello", { "sleep", 0.002 },
        say "\r\n.\r\n", expect "QUIT", say "+OK bye\r\n", silence),
      calls = {
        function(session) return session:list() end,
        function(session) return session:retr(1) end,
        function(session) return session:quit() end,
      },
    },
  }

  -- The whole session; nil and the error where a call fails.
  local function go_through(name, given)
    local session <close>, err = require("starttls." .. name).connect(given)
    if not session then return nil, err end
    for _, call in ipairs(sessions[name].calls) do
      local result
      result, err = call(session)
      if not result then return nil, err end
    end
    return "done"
  end

  -- Goes through a session in a coroutine up to wait number `number`. Returns the coroutine,
  -- or nil when there are fewer waits; what it waits for; and a log. What the coroutine gets
  -- from its resumption is called in place of the wait.
  local function run_to_wait(name, peer, number, given)
    local log = { forgotten = {}, problems = {}, waits = 0 }
    local all = options(peer, given)
    all.loop = {
      wait = function(session, mode, seconds)
        log.waits = log.waits + 1
        if type(mode) ~= "string" or not mode:find "^r?w?$" or mode == "" then
          log.problems[#log.problems + 1] = "mode " .. tostring(mode)
        end
        return coroutine.yield(session, mode, seconds)()
      end,
      forget = function(fd)
        log.forgotten[fd] = true
        if not lfs.symlinkattributes("/proc/self/fd/" .. fd) then
          log.problems[#log.problems + 1] = "forgotten too late: " .. fd
        end
      end,
    }
    local co = coroutine.create(go_through)
    local function resume(...)
      local results = table.pack(coroutine.resume(co, ...))
      if not results[1] then error(results[2], 0) end
      return table.unpack(results, 2, results.n)
    end
    local session, mode, seconds = resume(name, all)
    while coroutine.status(co) ~= "dead" do
      local fd = session:getfd()
      assert.is_true(fd >= 0 and seconds >= 0)
      if log.waits == number then return co, session, fd, log end
      socket.select(mode:find "r" and { session }, mode:find "w" and { session }, seconds)
      session, mode, seconds = resume(function() return true end)
    end
    assert.are.equal("done", session, tostring(mode))
    return nil, log
  end

  -- Each: what happens to the coroutine that waits; returns the error that the session is to
  -- have from then on, or "gone" when nobody can ask it any more.
  local interruptions = {
    ["coroutine.close"] = function(co)
      assert(coroutine.close(co))
      return "cancelled"
    end,
    ["an error in wait"] = function(co)
      local token = {}
      local ok, err = coroutine.resume(co, function() error(token) end)
      assert.is_false(ok)
      assert.are.equal(token, err)
      coroutine.close(co) -- as for any coroutine that died of an error (Lua manual 3.3.8)
      return "cancelled"
    end,
    ["wait's nil and a reason"] = function(co)
      local ok, result, err = coroutine.resume(co, function() return nil, "the reason" end)
      assert.is_true(ok)
      assert.is_nil(result)
      assert.are.equal("cancelled", err.kind)
      return "cancelled"
    end,
    ["session:cancel()"] = function(co, session)
      session:cancel()
      local ok, result, err = coroutine.resume(co, function() return true end)
      assert.is_true(ok)
      assert.is_nil(result)
      assert.are.equal("cancelled", err.kind)
      return "cancelled"
    end,
    ["session:close()"] = function(co, session)
      session:close()
      local ok, result, err = coroutine.resume(co, function() return true end)
      assert.is_true(ok)
      assert.is_nil(result)
      assert.are.equal("closed", err.kind)
      return "closed"
    end,
    ["session:close() in wait"] = function(co, session)
      local ok, result, err = coroutine.resume(co, function()
        session:close()
        return true
      end)
      assert.is_true(ok)
      assert.is_nil(result)
      assert.are.equal("closed", err.kind)
      return "closed"
    end,
  }

  for name, script in pairs(sessions) do
    describe("a session of " .. name, function()
      for what, interrupt in pairs(interruptions) do
        it(("is at its end after %s, at whichever wait"):format(what), function()
          local number, over = 0, false
          while not over do
            number = number + 1
            local peer <close> = start(script.steps)
            local before = descriptors.open()
            local co, session, fd, log = run_to_wait(name, peer, number)
            over = co == nil
            if co then
              local kind = interrupt(co, session)
              assert.is_true(log.forgotten[fd])
              assert.are.same({}, log.problems)
              descriptors.assert_same(before)
              local result, err = session:noop()
              assert.is_nil(result)
              assert.are.equal(kind, err.kind)
              assert.are.equal(-1, session:getfd())
            end
          end
          assert.is_true(number > 3, "only " .. number)
        end)
      end

      it("is collected when its coroutine is dropped, at whichever wait", function()
        local number, over = 0, false
        while not over do
          number = number + 1
          local peer <close> = start(script.steps)
          local before = descriptors.open()
          local fd, log
          do
            local co, session
            co, session, fd, log = run_to_wait(name, peer, number)
            over = co == nil
            if co then assert.is_true(session:getfd() >= 0) end
          end
          collectgarbage()
          collectgarbage()
          if not over then
            assert.is_true(log.forgotten[fd])
            assert.are.same({}, log.problems)
          end
          descriptors.assert_same(before)
        end
      end)

      it("takes a wait that returns early, or nothing, for a wake-up", function()
        local peer <close> = start(script.steps)
        local count = 0
        local loop = { forget = function() end, wait = function(session, mode, seconds)
          count = count + 1
          if count % 2 == 0 then
            socket.select(mode:find "r" and { session }, mode:find "w" and { session }, seconds)
          end
          return nil
        end }
        local co = coroutine.wrap(go_through)
        assert.are.equal("done", co(name, options(peer, { loop = loop })))
        assert.is_true(count > 3, "only " .. count)
      end)
    end)
  end

  it("a name that is being looked up leaves nothing either", function()
    for _, what in ipairs { "coroutine.close", "session:cancel()" } do
      local peer <close> = start { silence }
      local before = descriptors.open()
      local co, session = run_to_wait("smtp", peer, 1, { host = "localhost" })
      interruptions[what](co, session)
      descriptors.assert_same(before)
    end
  end)

  it("an error in the adapter's forget is nobody's", function()
    local peer <close> = start(sessions.pop3.steps)
    local before = descriptors.open()
    local loop = { forget = error, wait = function(session, mode, seconds)
      socket.select(mode:find "r" and { session }, mode:find "w" and { session }, seconds)
      return true
    end }
    local co = coroutine.wrap(go_through)
    assert.are.equal("done", co("pop3", options(peer, { loop = loop })))
    descriptors.assert_same(before)
  end)

  it("a process may end while they wait", function()
    local peer <close> = start(sessions.smtp.steps)
    local path = stage.path .. "/program.lua"
    process.write_file(path, ([[
      package.path, package.cpath = %q, %q
      local loop = { wait = coroutine.yield, forget = function() end }
      local co = coroutine.create(require("starttls.smtp").connect)
      print(coroutine.resume(co, { host = "127.0.0.1", port = %d, ca_file = %q, loop = loop }))
      os.exit(true, true)
    ]]):format(package.path, package.cpath, peer.port, stage.ca.cert))
    assert.matches("^true\tstarttls.smtp", process.run { os.getenv "LUA" or "lua5.4", path })
  end)

  -- }======

  -- {====== Several coroutines ======

  describe("two on one session", function()
    it("the second is told that the session is busy, and the first goes on", function()
      local peer <close> = start(logged_in("imap", expect "NOOP", { "sleep", 0.1 },
        say "%T OK done\r\n", expect "NOOP", say "%T OK done\r\n", silence))
      local scheduler = Scheduler.new()
      local session <close> = connect("imap", peer, { loop = scheduler.loop })
      local first = scheduler:spawn(function() return session:noop() end)
      local second = scheduler:spawn(function()
        local results = {}
        for _, call in ipairs { "noop", "list", "logout" } do
          local result, err = session[call](session)
          results[#results + 1] = result == nil and err.kind or "done"
        end
        local ok, err = pcall(session.fetch, session, 1, { "flags" })
        results[#results + 1] = not ok and err.kind
        return results
      end)
      scheduler:run()
      assert.is_truthy(first.results[1])
      assert.are.same({ "busy", "busy", "busy", "busy" }, second.results[1])
      assert.is_truthy(session:noop())
    end)

    it("all calls of all protocols are refused while one waits", function()
      for name, list in pairs(calls) do
        local peer <close> = start(logged_in(name, silence))
        local loop = { wait = coroutine.yield, forget = function() end }
        local session <close> = connect(name, peer, { loop = loop })
        local co = coroutine.create(function() return session:noop() end)
        assert(coroutine.resume(co))
        for _, call in ipairs(list) do
          local result, err = session[call[1]](session, table.unpack(call, 2))
          assert.is_nil(result, call[1])
          assert.are.equal("busy", err.kind, call[1])
          assert.is_false(err.temporary)
        end
        assert.are.equal("suspended", coroutine.status(co))
        assert.is_truthy(session:has(({ smtp = "AUTH", imap = "IMAP4rev1", pop3 = "SASL" })[name]))
        coroutine.close(co)
        local result, err = session:noop()
        assert.is_nil(result)
        assert.are.equal("cancelled", err.kind)
      end
    end)

    it("an adapter that uses the session while it waits is told so", function()
      local peer <close> = start(logged_in("smtp", expect "NOOP", { "sleep", 0.05 },
        say "250 ok\r\n", silence))
      local kinds = {}
      local session
      local loop = { forget = function() end, wait = function(object, _, seconds)
        if session then
          local _, err = session:noop()
          kinds[#kinds + 1] = err.kind
        end
        socket.select({ object }, nil, seconds)
        return true
      end }
      session = connect("smtp", peer, { loop = loop })
      assert.is_truthy(coroutine.wrap(function() return session:noop() end)())
      assert.are.same({ "busy" }, kinds)
      session:close()
    end)
  end)

  it("a slow server holds nobody else up", function()
    local slow <close> = start(logged_in("smtp", expect "NOOP", silence))
    local quick <close> = start(logged_in("pop3", expect "STAT", say "+OK 1 2\r\n", silence))
    local scheduler = Scheduler.new()
    local order = {}
    scheduler:spawn(function()
      local session <close> = connect("smtp", slow,
        { loop = scheduler.loop, timeout = patience.seconds(1) })
      local _, err = session:noop()
      order[#order + 1] = err.kind
    end)
    scheduler:spawn(function()
      local session <close> = connect("pop3", quick, { loop = scheduler.loop })
      order[#order + 1] = assert(session:stat())
    end)
    scheduler:run()
    assert.are.same({ 1, "timeout" }, order)
  end)

  it("half a line that has come does not make the loop spin", function()
    local peer <close> = start(logged_in("smtp", expect "NOOP", say "250-half", { "sleep", 0.3 },
      say "\r\n250 ok\r\n", silence))
    local scheduler = Scheduler.new()
    local session <close> = connect("smtp", peer, { loop = scheduler.loop })
    scheduler:spawn(function() return assert(session:noop()) end)
    scheduler:run()
    assert.is_true(scheduler.waits < 10, ("%d waits"):format(scheduler.waits))
  end)

  it("what the server says between calls is seen in dirty()", function()
    local peer <close> = start(logged_in("imap", expect "NOOP",
      say "%T OK done\r\n* 3 EXISTS\r\n", expect "NOOP", say "%T OK done\r\n", silence))
    local session <close> = connect("imap", peer)
    assert.is_false(session:dirty())
    assert(session:noop())
    assert.is_true(session:dirty())
    assert(session:noop())
    assert.is_false(session:dirty())
  end)

  it("cqueues wakes a coroutine whose session is closed or cancelled by another", function()
    for _, ending in ipairs { "close", "cancel" } do
      local peer <close> = start(logged_in("smtp", silence))
      local loop = {
        wait = function(session, _, seconds) return cqueues.poll(session, seconds) end,
        forget = cqueues.cancel,
      }
      local queue, kind, session = cqueues.new(), nil, nil
      queue:wrap(function()
        session = connect("smtp", peer, { loop = loop })
        local _, err = session:noop()
        kind = err.kind
      end)
      queue:wrap(function()
        repeat cqueues.sleep(0.01) until session
        cqueues.sleep(0.02)
        session[ending](session)
      end)
      assert(queue:loop(patience.seconds(9)))
      assert.is_true(queue:empty())
      assert.are.equal(ending == "close" and "closed" or "cancelled", kind)
    end
  end)

  -- }======

  -- {====== Where a yield is impossible ======

  describe("where no yield is possible the call waits by itself:", function()
    local places = {
      ["a comparator of table.sort"] = function(call)
        table.sort({ 2, 1 }, function() call() end)
      end,
      ["a callback of string.gsub"] = function(call) string.gsub("x", "x", call) end,
      ["a finalizer"] = function(call)
        setmetatable({}, { __gc = function() call() end })
        collectgarbage()
      end,
      ["load's reader"] = function(call) load(function() call() end) end,
    }
    for place, go in pairs(places) do
      it(place, function()
        local peer <close> = start(logged_in("smtp", expect "NOOP", { "sleep", 0.02 },
          say "250 ok\r\n", silence))
        local waits = 0
        local loop = { forget = function() end, wait = function(...)
          waits = waits + 1
          return coroutine.yield(...)
        end }
        local session <close> = connect("smtp", peer, { loop = loop })
        local reply
        local co = coroutine.create(function()
          go(function() reply = reply or { session:noop() } end)
        end)
        assert(coroutine.resume(co))
        assert.are.equal("dead", coroutine.status(co))
        assert.are.equal(250, reply[1] and reply[1].code, tostring(reply[2]))
        assert.are.equal(0, waits)
      end)
    end

    it("the main thread", function()
      local peer <close> = start(logged_in("smtp", expect "NOOP", say "250 ok\r\n", silence))
      local loop = { forget = function() end, wait = function() error "not here" end }
      local session <close> = connect("smtp", peer, { loop = loop })
      assert.is_truthy(session:noop())
    end)
  end)

  -- }======

  -- {====== Errors in the caller's functions ======

  describe("an error raised", function()
    local token = setmetatable({}, { __tostring = function() return "the token" end })
    local function raise() error(token) end

    -- Expects `fn(...)` to raise the token, whatever is around it.
    local function raises(fn, ...)
      local ok, err = pcall(fn, ...)
      assert.is_false(ok)
      assert.are.equal(token, err)
    end

    for name, script in pairs(sessions) do
      it("in the trace function, at whichever event, leaves nothing: " .. name, function()
        local number, over = 0, false
        while not over do
          number = number + 1
          local peer <close> = start(script.steps)
          local before, count = descriptors.open(), 0
          local function trace()
            count = count + 1
            if count == number then error(token) end
          end
          local ok, result = pcall(go_through, name, options(peer, { trace = trace }))
          over = ok
          if ok then assert.are.equal("done", result)
          else assert.are.equal(token, result) end
          collectgarbage()
          descriptors.assert_same(before)
        end
        assert.is_true(number > 15, "only " .. number)
      end)

      it("in the function for the password leaves nothing: " .. name, function()
        local peer <close> = start(script.steps)
        local before = descriptors.open()
        raises(require("starttls." .. name).connect, options(peer, { password = raise }))
        collectgarbage()
        descriptors.assert_same(before)
        local record = peer:finish()
        assert.is_nil(record.encrypted:find "AUTH")
      end)
    end

    it("in the source of a message never lets half of it be delivered", function()
      local sources = {
        raise, function() return nil, "the reason" end, function() return 1 == 1 end,
      }
      for number, fail in ipairs(sources) do
        local peer <close> = start(logged_in("smtp", expect "^MAIL", say "250 ok\r\n",
          expect "^RCPT", say "250 ok\r\n", expect "^DATA", say "354 go\r\n", silence))
        local session <close> = connect("smtp", peer)
        local given = 0
        local ok, result, err = pcall(session.send, session, { from = "a@b", to = "c@d",
          message = function()
            given = given + 1
            if given < 4 then return "half of it\r\n" end
            return fail()
          end })
        if number == 1 then assert.are.equal(token, result) end
        if number == 2 then
          assert.is_true(ok)
          assert.is_nil(result)
          assert.are.equal("cancelled", err.kind)
          assert.matches("the reason", err.message)
        end
        if number == 3 then assert.is_false(ok) end
        result, err = session:noop()
        assert.is_nil(result)
        assert.are.equal("cancelled", err.kind)
        local record = peer:finish()
        assert.is_nil(record.error)
        assert.is_nil(record.encrypted:find("\r\n.\r\n", 1, true))
      end
    end)

    it("in the source of APPEND, which is read beforehand, does no harm", function()
      local peer <close> = start(logged_in("imap", silence))
      local session <close> = connect("imap", peer)
      raises(session.append, session, "INBOX", raise)
      local result, err = session:append("INBOX", function() return nil, "the reason" end)
      assert.is_nil(result)
      assert.are.equal("cancelled", err.kind)
      assert.matches("the reason", err.message)
      assert.matches("TLS", tostring(session)) -- open
    end)

    it("by a file that changes while it is appended ends the session", function()
      local path = stage.path .. "/message"
      local changes = {
        function() io.open(path, "wb"):close() end, -- to nothing
        function(file) file:close() end,
      }
      for _, change in ipairs(changes) do
        process.write_file(path, ("x"):rep(200000))
        local file = assert(io.open(path, "rb"))
        local peer <close> = start(logged_in("imap", expect "APPEND", say "+ go\r\n", silence))
        local session <close> = connect("imap", peer, { trace = function(event)
          if event.direction == "sent" and (event.text or ""):find "APPEND" then change(file) end
        end })
        local ok, result = pcall(session.append, session, "INBOX", file)
        assert.is_true(not ok or result == nil)
        assert.is_nil((session:noop()))
        assert.matches("closed", tostring(session))
        assert.is_true(#peer:finish().encrypted < 2000)
      end
    end)

    local fetch_answer = say("* 1 FETCH (UID 1 BODY[] {10}\r\nhelloworld BODY[1] {5}\r\nhello)\r\n"
      .. "%T OK done\r\n")

    it("in a sink leaves the session to the next call", function()
      local peer <close> = start(logged_in("imap", expect "FETCH", fetch_answer, expect "NOOP",
        say "%T OK done\r\n", silence))
      local session <close> = connect("imap", peer)
      raises(session.fetch_all, session, 1, { "body" }, { sink = function() return raise end })
      assert.is_truthy(session:noop())
    end)

    it("in the function that chooses a sink leaves the session to the next call", function()
      local peer <close> = start(logged_in("imap", expect "FETCH", fetch_answer, expect "NOOP",
        say "%T OK done\r\n", silence))
      local session <close> = connect("imap", peer)
      raises(session.fetch_all, session, 1, { "body" }, { sink = raise })
      assert.is_truthy(session:noop())
    end)

    it("in a loop over messages leaves the session to the next call", function()
      local peer <close> = start(logged_in("imap", expect "FETCH",
        say("* 1 FETCH (UID 1 FLAGS ())\r\n* 2 FETCH (UID 2 FLAGS ())\r\n"), { "sleep", 0.02 },
        say "* 3 FETCH (UID 3 FLAGS ())\r\n%T OK done\r\n",
        expect "NOOP", say "%T OK done\r\n", silence))
      local session <close> = connect("imap", peer)
      raises(function()
        for _ in session:fetch("1:*", { "flags" }) do raise() end
      end)
      assert.is_truthy(session:noop())
    end)

    it("in a handler of what the server says leaves the session to the next call", function()
      local peer <close> = start(logged_in("imap", expect "NOOP", say "* 3 EXISTS\r\n",
        { "sleep", 0.02 }, say "%T OK done\r\n", expect "NOOP", say "%T OK done\r\n", silence))
      local session <close> = connect("imap", peer, { on = { exists = raise } })
      raises(session.noop, session)
      assert.is_truthy(session:noop())
    end)

    it("in a POP3 sink leaves the session to the next call", function()
      local peer <close> = start(logged_in("pop3", expect "RETR", say "+OK\r\nhello\r\n",
        { "sleep", 0.02 }, say "world\r\n.\r\n", expect "NOOP", say "+OK\r\n", silence))
      local session <close> = connect("pop3", peer)
      raises(session.retr, session, 1, raise)
      assert.is_truthy(session:noop())
    end)
  end)

  describe("a loop that is left", function()
    local answer = logged_in("imap", expect "FETCH",
      say "* 1 FETCH (UID 1 BODY[] {5}\r\nhello)\r\n", { "sleep", 0.02 },
      say "* 2 FETCH (UID 2 BODY[] {100000}\r\n", say(("x"):rep(100000)),
      say ")\r\n%T OK done\r\n", expect "NOOP", say "%T OK done\r\n", silence)

    it("by break: the next call takes what is left of it", function()
      local peer <close> = start(answer)
      local session <close> = connect("imap", peer)
      for msg in session:fetch("1:*", { "body" }) do
        if msg.body == "hello" then break end
      end
      assert.is_truthy(session:noop())
    end)

    it("by dropping its iterator: the session is free after a collection", function()
      local peer <close> = start(answer)
      local session <close> = connect("imap", peer)
      do
        local next_message = session:fetch("1:*", { "body" })
        assert.are.equal("hello", next_message().body)
        local result, err = session:noop()
        assert.is_nil(result)
        assert.are.equal("busy", err.kind)
      end
      collectgarbage()
      collectgarbage()
      assert.is_truthy(session:noop())
    end)

    it("by the end of the session: the iterator says so", function()
      local peer <close> = start(answer)
      local session <close> = connect("imap", peer)
      local next_message = session:fetch("1:*", { "body" })
      assert.are.equal("hello", next_message().body)
      session:close()
      local ok, err = pcall(next_message)
      assert.is_false(ok)
      assert.are.equal("closed", err.kind)
      assert.is_nil(next_message())
    end)
  end)

  -- }======

  -- {====== Closed from within ======

  describe("a session that is ended from within", function()
    for name, script in pairs(sessions) do
      for _, ending in ipairs { "close", "cancel" } do
        it(("the trace function, at any event, says so: %s, %s"):format(name, ending), function()
          local number, over = 0, false
          while not over do
            number = number + 1
            local peer <close> = start(script.steps)
            local before, count, session = descriptors.open(), 0, nil
            local loop = { forget = function() end, wait = function(object, mode, seconds)
              session = object
              socket.select(mode:find "r" and { object }, mode:find "w" and { object }, seconds)
              return true
            end }
            local ended = false
            local function trace()
              count = count + 1
              if session and not ended and count >= number then
                ended = true
                session[ending](session)
              end
            end
            local given = options(peer, { trace = trace, loop = loop })
            local result, err = coroutine.wrap(go_through)(name, given)
            over = not ended
            if ended and result ~= "done" then -- which it is after the goodbye
              assert.is_nil(result)
              assert.are.equal(ending == "close" and "closed" or "cancelled", err.kind)
            end
            descriptors.assert_same(before)
          end
          assert.is_true(number > 15, "only " .. number)
        end)
      end
    end

    local endings = {
      ["a sink"] = { "imap", logged_in("imap", expect "FETCH",
        say "* 1 FETCH (UID 1 BODY[] {10}\r\nhello", { "sleep", 0.02 },
        say "world)\r\n%T OK done\r\n", silence),
        function(session)
          return session:fetch_all(1, { "body" }, { sink = function()
            return function()
              session:close()
              return true
            end
          end })
        end },
      ["the choice of a sink"] = { "imap", logged_in("imap", expect "FETCH",
        say "* 1 FETCH (UID 1 BODY[] {10}\r\nhelloworld)\r\n%T OK done\r\n", silence),
        function(session)
          return session:fetch_all(1, { "body" }, { sink = function() session:close() end })
        end },
      ["a POP3 sink"] = { "pop3", logged_in("pop3", expect "RETR", say "+OK\r\nhello\r\n",
        { "sleep", 0.02 }, say "world\r\n.\r\n", silence),
        function(session)
          return session:retr(1, function()
            session:close()
            return true
          end)
        end },
      ["a source"] = { "smtp", logged_in("smtp", expect "^MAIL", say "250 ok\r\n", expect "^RCPT",
        say "250 ok\r\n", expect "^DATA", say "354 go\r\n", silence),
        function(session)
          return session:send { from = "a@b", to = "c@d", message = function()
            session:close()
            return "hello\r\n"
          end }
        end },
      ["a handler"] = { "imap", logged_in("imap", expect "NOOP", say "* 3 EXISTS\r\n* 4 EXISTS\r\n",
        { "sleep", 0.02 }, say "%T OK done\r\n", silence),
        function(session)
          session.on.exists = function() session:close() end
          return session:noop()
        end },
    }
    for place, case in pairs(endings) do
      it(place .. ", says so", function()
        local name, steps, action = table.unpack(case)
        local peer <close> = start(steps)
        local session <close> = connect(name, peer)
        local result, err = action(session)
        assert.is_nil(result)
        assert.are.equal("closed", err.kind, tostring(err))
      end)
    end
  end)

  describe("a closed session", function()
    for name, list in pairs(calls) do
      it("answers every call with an error of kind closed: " .. name, function()
        local peer <close> = start(logged_in(name, silence))
        local session <close> = connect(name, peer)
        session:close()
        session:close()
        session:cancel()
        for _, call in ipairs(list) do
          local result, err = session[call[1]](session, table.unpack(call, 2))
          assert.is_nil(result, call[1])
          assert.is_true(errors.is(err), call[1])
          assert.are.equal("closed", err.kind, call[1])
        end
        assert.are.same({}, session:capabilities())
        assert.is_false(session:has "AUTH")
        assert.is_false(session:security().encrypted)
        assert.is_nil(session:security().certificate)
        assert.are.same({ -1, -1, "", false },
          { session:getfd(), session:pollfd(), session:events(), session:dirty() })
        assert.is_nil(session:timeout())
        assert.matches("closed", tostring(session))
        if name == "imap" then
          local ok, err = pcall(session.fetch, session, 1, { "uid" })
          assert.is_false(ok)
          assert.are.equal("closed", err.kind)
        elseif name == "pop3" then
          local ok, err = pcall(session.messages, session)
          assert.is_false(ok)
          assert.are.equal("closed", err.kind)
        end
      end)
    end

    it("does not wait: not even for a server that does not read", function()
      local silent <close> = Peer.listen_silently()
      local began = socket.gettime()
      local loop = { wait = coroutine.yield, forget = function() end }
      local co = coroutine.create(require("starttls.smtp").connect)
      assert(coroutine.resume(co, options(silent, { loop = loop })))
      coroutine.close(co)
      assert.is_true(socket.gettime() - began < patience.seconds(5))
    end)
  end)

  -- }======
end)
