-- The scheduler starttls.loop.poll by itself: tasks, their groups, times, and ends.

local loop = require "starttls.loop.poll"
local patience = require "spec.support.patience"
local socket = require "socket"

-- Appends to a list what a task does.
local function recorder()
  local order = {}
  return order, function(what) order[#order + 1] = what end
end

-- A value that notes when it is closed.
local function noting(note, what)
  return setmetatable({}, { __close = function() note(what) end })
end

describe("starttls.loop.poll", function()
  it("wakes sleepers in the order of their times, however many", function()
    local order, note = recorder()
    local tasks, times = {}, {}
    for index = 1, 300 do times[index] = (index * 7919 % 300) / 2000 end
    for index, seconds in ipairs(times) do
      tasks[index] = function()
        loop.sleep(seconds)
        note(seconds)
      end
    end
    loop.run(tasks)
    table.sort(times)
    assert.same(times, order)
  end)

  it("gives each task a turn with sleep(0) and with a plain yield", function()
    local order, note = recorder()
    local function task(name, pause)
      return function()
        for _ = 1, 3 do
          note(name)
          pause(0)
        end
      end
    end
    loop.run { task("a", loop.sleep), task("b", coroutine.yield) }
    assert.same({ "a", "b", "a", "b", "a", "b" }, order)
  end)

  it("runs ten thousand tasks", function()
    local count, tasks = 0, {}
    for index = 1, 10000 do
      tasks[index] = function()
        loop.sleep(0.001)
        count = count + 1
      end
    end
    loop.run(tasks)
    assert.equal(10000, count)
  end)

  it("is over when all that was spawned is; arguments reach the task", function()
    local order, note = recorder()
    loop.run { function()
      loop.spawn(function(a, b)
        loop.sleep(0.01)
        note(a)
        note(b)
      end, "x", nil)
      note "first"
    end }
    assert.same({ "first", "x" }, order)
  end)

  it("runs within a task, which waits for it while others go on", function()
    local order, note = recorder()
    loop.run {
      function()
        loop.run { function()
          loop.sleep(0.02)
          note "inner"
        end }
        note "outer"
      end,
      function() note "other" end,
    }
    assert.same({ "other", "inner", "outer" }, order)
  end)

  it("raises the first error as it is, and closes what the others hold", function()
    local order, note = recorder()
    local token = {}
    local ok, err = pcall(loop.run, {
      function()
        local it <close> = noting(note, "closed") -- luacheck: ignore
        loop.sleep(patience.seconds(100))
      end,
      function()
        local it <close> = noting(note, "own") -- luacheck: ignore
        loop.sleep(0.01)
        error(token)
      end,
    })
    assert.is_false(ok)
    assert.equal(token, err)
    assert.same({ "own", "closed" }, order)
    loop.run { function() note "again" end } -- and is ready for the next run
    assert.equal("again", order[3])
  end)

  it("an error in a run within a task is the task's", function()
    local order, note = recorder()
    loop.run { function()
      local ok, err = pcall(loop.run, {
        function()
          local it <close> = noting(note, "closed") -- luacheck: ignore
          loop.sleep(patience.seconds(100))
        end,
        function() error("the reason", 0) end,
      })
      note(tostring(ok) .. err)
      loop.sleep(0)
      note "on"
    end }
    assert.same({ "closed", "falsethe reason", "on" }, order)
  end)

  it("cancels a task with all that it runs", function()
    local order, note = recorder()
    loop.run { function()
      local task = loop.spawn(function()
        local it <close> = noting(note, "outer") -- luacheck: ignore
        loop.run { function()
          local inner <close> = noting(note, "inner") -- luacheck: ignore
          loop.sleep(patience.seconds(100))
        end }
      end)
      loop.sleep(0.01)
      assert.is_false(task:is_over())
      assert.is_true(task:cancel())
      assert.is_true(task:is_over())
      assert.is_true(task:cancel())
    end }
    assert.same({ "inner", "outer" }, order)
  end)

  it("tells of an error in closing what a cancelled task holds", function()
    loop.run { function()
      local task = loop.spawn(function()
        local it <close> = setmetatable({}, { __close = function() error("bad end", 0) end })
        loop.sleep(patience.seconds(100))
        return it
      end)
      loop.sleep(0)
      local ok, err = task:cancel()
      assert.is_false(ok)
      assert.equal("bad end", err)
    end }
  end)

  it("waits for whatever has a descriptor; forget wakes who waits", function()
    local order, note = recorder()
    local server = assert(socket.bind("127.0.0.1", 0))
    local host, port = server:getsockname()
    local client = assert(socket.connect(host, port))
    local peer = assert(server:accept())
    loop.run {
      function()
        assert(loop.wait(client, "r", patience.seconds(20)))
        note(client:receive(1))
        local result, err = loop.wait(client, "r", 0.01)
        note(tostring(result) .. tostring(err))
        assert(loop.wait(client, "r", patience.seconds(100)))
        note "forgotten"
      end,
      function()
        loop.sleep(0.01)
        peer:send "x"
        loop.sleep(0.1)
        local result, err = loop.wait(client, "r")
        assert.is_nil(result)
        assert.matches("another task", err)
        loop.forget(client:getfd())
      end,
    }
    assert.same({ "x", "truenil", "forgotten" }, order)
    for _, it in ipairs { server, client, peer } do it:close() end
  end)

  it("hands the waiting of a wrapped coroutine on to the task, and closes both", function()
    local order, note = recorder()
    loop.run { function()
      local task = loop.spawn(function()
        for item in loop.wrap(function()
          local it <close> = noting(note, "closed") -- luacheck: ignore
          for index = 1, 2 do
            loop.sleep(0.001)
            coroutine.yield(index)
          end
          loop.sleep(patience.seconds(100))
        end) do
          note(item)
        end
      end)
      while #order < 2 do loop.sleep(0.001) end
      loop.sleep(0.01)
      task:cancel()
    end }
    assert.same({ 1, 2, "closed" }, order)
    local ok, err = pcall(loop.wrap(function() error("within", 0) end))
    assert.same({ false, "within" }, { ok, err })
  end)

  it("waits in a coroutine of one's own, and outside of a run, without the others", function()
    local items = {}
    local client = socket.udp()
    local function generate()
      assert(loop.wait(client, "r", 0.001))
      coroutine.yield "item"
    end
    loop.run { function()
      for item in coroutine.wrap(generate) do items[#items + 1] = item end
    end }
    for item in coroutine.wrap(generate) do items[#items + 1] = item end
    client:close()
    assert.same({ "item", "item" }, items)
  end)

  it("says what is wrong", function()
    local task
    local cases = {
      { "takes functions; number 2 is a number", function()
        loop.run { print, 5 }
      end },
      { "outside of loop.run()", function() loop.spawn(print) end },
      { "outside of loop.run()", function() loop.sleep(0) end },
      { "can't cancel itself", function()
        loop.run { function()
          task = loop.spawn(function() task:cancel() end)
        end }
      end },
      { "can't cancel itself", function()
        loop.run { function()
          task = loop.spawn(function()
            loop.run { function() task:cancel() end }
          end)
        end }
      end },
      { "not the loop's", function()
        loop.run { function() coroutine.wrap(loop.run) {} end }
      end },
    }
    for _, case in ipairs(cases) do
      local ok, err = pcall(case[2])
      assert.is_false(ok, case[1])
      assert.matches(case[1], err, 1, true)
    end
  end)
end)
