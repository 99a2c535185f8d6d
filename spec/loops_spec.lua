-- The same session in every way to wait: by itself, and in each event loop that there is an
-- adapter for. What works in one works in all, and whatever ends a coroutine leaves nothing.

local cqueues = require "cqueues"
local uv = require "luv"
local Peer = require "spec.support.peer"
local Stage = require "spec.support.stage"
local clients = require "spec.support.clients"
local descriptors = require "spec.support.descriptors"
local event_loop = require "starttls.loop"
local patience = require "spec.support.patience"
local peer_steps = require "spec.support.peer_steps"
local servers = require "spec.support.servers"

local say, expect, silence = peer_steps.say, peer_steps.expect, peer_steps.silence
local logged_in = peer_steps.logged_in

-- {====== The loops ======
-- run: runs functions side by side to their end, and raises what one of them raises.
-- kill: runs `fn` until `reached()` is true, which it becomes at a wait, and ends its coroutine.

local loops = {}

loops.blocking = { run = function(functions)
  for _, fn in ipairs(functions) do fn() end
end }

loops.poll = { adapter = event_loop.poll, run = event_loop.poll.run, sleep = event_loop.poll.sleep }

function loops.poll.kill(fn, reached)
  event_loop.poll.run { function()
    local task = event_loop.poll.spawn(fn)
    repeat event_loop.poll.sleep(0.001) until reached() or task:is_over()
    assert(task:cancel())
  end }
end

loops.cqueues = { adapter = event_loop.cqueues, sleep = cqueues.sleep }

function loops.cqueues.run(functions)
  local queue = cqueues.new()
  for _, fn in ipairs(functions) do queue:wrap(fn) end
  local ok, err = queue:loop(patience.seconds(30))
  local over = queue:empty()
  queue:close()
  if not ok then error(err, 0) end
  assert(over, "not over in time")
end

-- cqueues has no other way to end a coroutine than to drop them all.
function loops.cqueues.kill(fn, reached)
  local queue = cqueues.new()
  queue:wrap(fn)
  repeat assert(queue:step(0.001)) until reached() or queue:empty()
  queue:close()
end

loops.luv = { adapter = event_loop.luv }

function loops.luv.sleep(seconds)
  local thread, timer = coroutine.running(), uv.new_timer()
  timer:start(math.ceil(seconds * 1000), 0, function()
    timer:close()
    assert(coroutine.resume(thread))
  end)
  coroutine.yield()
end

local function start(fn)
  local thread = coroutine.create(fn)
  local ok, err = coroutine.resume(thread)
  if ok then return thread end
  coroutine.close(thread)
  error(err, 0)
end

function loops.luv.run(functions)
  local results = {}
  for index, fn in ipairs(functions) do
    start(function() results[index] = table.pack(pcall(fn)) end)
  end
  uv.run()
  for index in ipairs(functions) do
    if not results[index][1] then error(results[index][2], 0) end
  end
end

function loops.luv.kill(fn, reached)
  local thread = start(fn)
  while not reached() and coroutine.status(thread) ~= "dead" do uv.run "once" end
  assert(coroutine.close(thread))
  uv.run() -- closes its handles
end

-- }======

-- An adapter that counts; `stop_at` is the number of the wait that reached() tells of.
local function counting(adapter, stop_at)
  local log = { waits = 0, turns = 0 }
  log.adapter = { forget = adapter.forget, wait = function(session, mode, seconds)
    log.waits = log.waits + 1
    if seconds == 0 then log.turns = log.turns + 1 end
    return adapter.wait(session, mode, seconds)
  end }
  function log.reached() return log.waits >= stop_at end
  return log
end

local message = "Subject: %d\r\n\r\n" .. ("x"):rep(70) .. "\r\n"

describe("under each loop", function()
  local mail, stage

  setup(function()
    mail, stage = servers.shared(), Stage.open()
  end)
  teardown(function() stage:close() end)
  before_each(function() clients.empty(mail, "bob") end)

  local function bob(adapter)
    return clients.connect(mail, "imap",
      { loop = adapter, user = "bob", password = mail.users.bob.password })
  end

  local function send(adapter, number)
    local given = clients.options(mail, "smtp")
    given.loop = adapter
    local session <close> = assert(require "starttls.smtp".connect(given))
    assert(session:send { from = mail.users.alice.address, to = mail.users.bob.address,
      message = message:format(number) })
    assert(session:quit())
  end

  -- A session with a bit of everything.
  local function go_through(adapter)
    local session <close> = bob(adapter)
    assert(session:append("INBOX", message:format(1)))
    assert(session:select "INBOX")
    assert(#assert(session:fetch_all(1, { "body" }, { seq = true })) == 1)
    assert(session:idle { seconds = 0.01, each = function() end })
    assert(session:logout())
  end

  local function peer_options(peer, adapter, given)
    local all = stage:options(given or {})
    all.port, all.loop = peer.port, adapter
    return all
  end

  -- {====== For all of them ======

  for name, loop in pairs(loops) do
    it("messages are sent and fetched side by side: " .. name, function()
      local before, senders, found = descriptors.open(), {}, {}
      for number = 1, 4 do
        senders[number] = function() send(loop.adapter, number) end
      end
      loop.run(senders)
      loop.run { function()
        local session <close> = bob(loop.adapter)
        assert(session:select "INBOX")
        while #found < 4 do -- Exim delivers when it likes to
          found = assert(session:fetch_all("1:*", { "body" }, { seq = true }))
          assert(session:noop())
        end
        for _, msg in ipairs(found) do assert(msg.body:find "Subject: %d\r\n\r\nx+\r\n$") end
        assert(session:logout())
      end }
      descriptors.assert_same(before)
    end)

    it("what happens is told while a session idles: " .. name, function()
      local told
      loop.run { function()
        local session <close> = bob(loop.adapter)
        assert(session:select "INBOX")
        mail:deliver("bob", message:format(1))
        assert(session:idle { seconds = patience.seconds(20), each = function(event)
          told = event.type == "exists" and event.value or told
          return told == nil
        end })
        assert(session:logout())
      end }
      assert.equal(1, told)
    end)

    it("silence is a timeout: " .. name, function()
      local silent <close> = Peer.listen_silently()
      local kind
      loop.run { function()
        local session, err = require "starttls.smtp".connect(
          peer_options(silent, loop.adapter, { timeout = 0.1 }))
        kind = session == nil and err.kind
      end }
      assert.equal("timeout", kind)
    end)

    it("an error in a callback is the caller's, and the session goes on: " .. name, function()
      local token, caught, after = {}, nil, nil
      mail:deliver("bob", message:format(1))
      loop.run { function()
        local session <close> = bob(loop.adapter)
        assert(session:select "INBOX")
        local _, err = pcall(session.fetch_all, session, 1, { "body" },
          { seq = true, sink = function() error(token) end })
        caught, after = err, session:noop()
      end }
      assert.equal(token, caught)
      assert.is_truthy(after)
    end)

    it("an error that ends a task is raised, and closes its session: " .. name, function()
      local before = descriptors.open()
      local ok, err = pcall(loop.run, { function()
        local session <close> = bob(loop.adapter) -- luacheck: ignore
        error "the reason"
      end })
      assert.is_false(ok)
      assert.matches("the reason", tostring(err))
      collectgarbage()
      collectgarbage()
      if name == "luv" then uv.run() end -- closes its handles
      descriptors.assert_same(before)
    end)
  end

  -- }======

  -- {====== For those in which others run meanwhile ======

  for name, loop in pairs(loops) do
    if loop.adapter then
      it("a slow server holds nobody else up: " .. name, function()
        local slow <close> = stage:start(logged_in("smtp", expect "NOOP", silence))
        local order = {}
        loop.run {
          function()
            local session <close> = assert(require "starttls.smtp".connect(
              peer_options(slow, loop.adapter, { timeout = patience.seconds(1) })))
            local _, err = session:noop()
            order[#order + 1] = err.kind
          end,
          function()
            send(loop.adapter, 1)
            order[#order + 1] = "sent"
          end,
        }
        assert.same({ "sent", "timeout" }, order)
      end)

      for _, ending in ipairs { "cancel", "close" } do
        it(("%s() from another coroutine ends a wait: %s"):format(ending, name), function()
          local peer <close> = stage:start(logged_in("smtp", expect "NOOP", silence))
          local before = descriptors.open()
          local session, kind, fd
          loop.run {
            function()
              session = assert(require "starttls.smtp".connect(peer_options(peer, loop.adapter)))
              local _, err = session:noop()
              kind, fd = err.kind, session:getfd()
            end,
            function()
              repeat loop.sleep(0.01) until session
              loop.sleep(0.02)
              session[ending](session)
            end,
          }
          assert.equal(ending == "cancel" and "cancelled" or "closed", kind)
          assert.equal(-1, fd)
          descriptors.assert_same(before)
        end)
      end

      it("nothing is left of a coroutine that dies, at whichever wait: " .. name, function()
        local number, over = 0
        local alive = setmetatable({}, { __mode = "k" })
        repeat
          number = number + 1
          clients.empty(mail, "bob")
          local before, ended = descriptors.open(), false
          do
            local log = counting(loop.adapter, number)
            local wait = log.adapter.wait
            function log.adapter.wait(session, ...)
              alive[session] = true
              return wait(session, ...)
            end
            loop.kill(function()
              go_through(log.adapter)
              ended = true
            end, log.reached)
            over = log.waits < number
          end
          assert.is_true(ended or not over) -- it may end before the other coroutine kills it
          collectgarbage()
          collectgarbage()
          if name == "luv" then uv.run() end -- closes the handles of what was collected
          collectgarbage()
          assert.is_nil(next(alive), "wait " .. number)
          descriptors.assert_same(before)
        until over
        assert.is_true(number > 8, "only " .. number)
      end)

      it("a session that always has something to read gives others a turn: " .. name, function()
        local flood = ("* 1 EXISTS\r\n"):rep(13000)
        local peer <close> = stage:start(logged_in("imap", expect "NOOP",
          say(flood .. "%T OK done\r\n"), silence))
        local log, count = counting(loop.adapter, 0), 0
        loop.run { function()
          local session <close> = assert(require "starttls.imap".connect(peer_options(peer,
            log.adapter, { on = { exists = function() count = count + 1 end } })))
          assert(session:noop())
        end }
        assert.equal(13000, count)
        assert.is_true(log.turns >= 10, log.turns .. " turns")
      end)
    end
  end

  -- }======

  it("the default adapter is for sessions that are not given another", function()
    local log, own = counting(event_loop.poll, 0), counting(event_loop.poll, 0)
    assert.is_nil(event_loop.use(log.adapter))
    local ok, err = pcall(event_loop.poll.run, {
      function() send(nil, 1) end,
      function() send(own.adapter, 2) end,
    })
    local waits = log.waits
    local alone, reason = pcall(event_loop.poll.run, { function() send(false, 3) end })
    assert.equal(log.adapter, event_loop.use(nil))
    assert.is_true(ok, tostring(err))
    assert.is_true(alone, tostring(reason))
    assert.is_true(waits > 3 and own.waits > 3)
    assert.equal(waits, log.waits) -- `false` is none at all
    send(nil, 4)
    assert.equal(waits, log.waits)
  end)

  it("what is no adapter is no default", function()
    for _, it in ipairs { 5, "step", {}, { wait = print } } do
      local ok, err = pcall(event_loop.use, it)
      assert.is_false(ok)
      assert.matches("two functions, wait and forget", err, 1, true)
    end
  end)
end)
