--- A scheduler of our own: many sessions side by side in one process, without another library.
-- May rely on starttls.core only (its poller: epoll).
--
--   local loop = require "starttls.loop.poll"
--   loop.run { function() ... end, function() ... end }
--
-- where sessions are connected with `loop = loop`. A task is a function in a coroutine of its
-- own. Tasks are in groups: that of a run has the functions that it was given, and what these
-- spawn; the run is over when all of them are.
local core = require "starttls.core"

local loop = {}

local WAIT = setmetatable({}, { __name = "starttls.loop.poll.wait" }) -- what a task yields

-- Of this Lua state:
local poller             -- while something runs
local current            -- the task that runs now
local ready, count = {}, 0 -- tasks that can go on
local waiters = {}       -- descriptor -> the task that waits for it
local sleepers = {}      -- tasks with a time, as a binary heap: the soonest is the first
local wrapped = setmetatable({}, { __mode = "k" }) -- coroutines that hand WAIT on

-- {====== Times ======

local function place(task, index)
  sleepers[index], task.place = task, index
end

local function rise(task, index)
  while index > 1 do
    local parent = index // 2
    if sleepers[parent].time <= task.time then break end
    place(sleepers[parent], index)
    index = parent
  end
  place(task, index)
end

local function sink(task, index)
  local last = #sleepers
  while 2 * index <= last do
    local child = 2 * index
    if child < last and sleepers[child + 1].time < sleepers[child].time then child = child + 1 end
    if task.time <= sleepers[child].time then break end
    place(sleepers[child], index)
    index = child
  end
  place(task, index)
end

local function wake_at(task, time)
  task.time = time
  rise(task, #sleepers + 1)
end

local function wake_at_no_time(task)
  local index = task.place
  if not index then return end
  local last = table.remove(sleepers)
  task.place = nil
  if last == task then return end
  rise(last, index)
  sink(last, last.place)
end

-- }======

-- {====== Tasks ======

local Task = {}
Task.__index = Task
Task.__name = "starttls.loop.poll.task"

-- Takes a task out of whatever it waits for.
local function unhook(task)
  if task.fd then waiters[task.fd], task.fd = nil, nil end
  wake_at_no_time(task)
end

local function make_ready(task)
  unhook(task)
  if task.ready or not task.group then return end
  task.ready = true
  count = count + 1
  ready[count] = task
end

-- A task is over, with an error or without. The first error of a group is what its run raises.
local function finish(task, failed, err)
  local group = task.group
  unhook(task)
  task.group, group.tasks[task] = nil, nil
  if failed and not group.failed then group.failed, group.err = true, err end
  if group.parent and (group.failed or not next(group.tasks)) then make_ready(group.parent) end
end

local function spawn(group, fn, ...)
  local task = setmetatable({ group = group, arguments = table.pack(...) }, Task)
  task.thread = coroutine.create(fn)
  wrapped[task.thread] = true
  group.tasks[task] = true
  make_ready(task)
  return task
end

local function resume(task)
  local arguments = task.arguments
  local going, what
  task.ready, task.arguments = nil, nil
  current = task
  if arguments then
    going, what = coroutine.resume(task.thread, table.unpack(arguments, 1, arguments.n))
  else
    going, what = coroutine.resume(task.thread)
  end
  current = nil
  if coroutine.status(task.thread) == "dead" then
    if not going then coroutine.close(task.thread) end -- what it held in <close> variables
    finish(task, not going, what)
  elseif what ~= WAIT then
    make_ready(task) -- a plain coroutine.yield gives the others a turn
  end
end

--- Ends a task that is not over: its coroutine is closed, with all it holds in <close> variables,
-- and a session that it waits for is cancelled.
-- @return true; false and the error when closing the coroutine raised one. Raises when the task
--         is the one that runs, or waits for that one.
function Task:cancel()
  if not self.group then return true end
  local task = current
  while task do
    if task == self then error("starttls: a task can't cancel itself, or who waits for it", 2) end
    task = task.group.parent
  end
  if self.children then self.children:cancel() end
  local closed, err = coroutine.close(self.thread)
  finish(self, false)
  return closed, err
end

--- Whether the task is over.
function Task:is_over()
  return self.group == nil
end

local Group = {}
Group.__index = Group

function Group:cancel()
  for task in pairs(self.tasks) do
    local closed, err = task:cancel()
    if not closed and not self.failed then self.failed, self.err = true, err end
  end
end

-- }======

-- {====== Running ======

local function run_ready()
  local batch, last = ready, count
  ready, count = {}, 0
  for index = 1, last do
    local task = batch[index]
    if task.group then resume(task) end
  end
end

local found = {}

-- Makes ready who can go on, and waits for that if nobody is.
local function poll()
  local soonest = sleepers[1]
  local seconds = soonest and math.max(0, soonest.time - core.clock())
  local number = poller:wait(count > 0 and 0 or seconds, found)
  for index = 1, number do
    local task = waiters[found[index]]
    if task then make_ready(task) end
  end
  local now = sleepers[1] and core.clock()
  while sleepers[1] and sleepers[1].time <= now do make_ready(sleepers[1]) end
end

local function run_until_over(group)
  poller = core.poller()
  local guard <close> = setmetatable({}, { __close = function() -- luacheck: ignore
    group:cancel() -- after an error of the loop itself, say Ctrl-C; else nothing is left
    poller:close()
    poller, current, ready, count = nil, nil, {}, 0
  end })
  while next(group.tasks) and not group.failed do
    run_ready()
    if next(group.tasks) and not group.failed then poll() end
  end
  group:cancel()
end

-- A run within a task: the task waits for it.
local function wait_until_over(group)
  local task = current
  group.parent, task.children = task, group
  while next(group.tasks) and not group.failed do coroutine.yield(WAIT) end
  task.children = nil
  group:cancel()
end

local function is_in_task()
  return current ~= nil and wrapped[coroutine.running()]
end

--- Runs functions side by side, until all of them and what they spawn are over. In a task, that
-- task waits for them.
-- An error that one of them raises cancels the others, and is raised here as it is.
-- @param functions  an array of functions without arguments
function loop.run(functions)
  local group = setmetatable({ tasks = {} }, Group)
  if poller and not is_in_task() then
    error("starttls: loop.run() in a coroutine that is not the loop's (see loop.wrap)", 2)
  end
  for index, fn in ipairs(functions) do
    if type(fn) ~= "function" then
      error(("starttls: loop.run() takes functions; number %d is a %s"):format(index, type(fn)), 2)
    end
  end
  for _, fn in ipairs(functions) do spawn(group, fn) end
  if poller then wait_until_over(group) else run_until_over(group) end
  if group.failed then error(group.err, 0) end
end

--- Adds a task to the run that the current one belongs to.
-- @param fn   a function
-- @param ...  its arguments
-- @return the task, with the methods cancel() and is_over()
function loop.spawn(fn, ...)
  if not current then error("starttls: loop.spawn() outside of loop.run()", 2) end
  return spawn(current.group, fn, ...)
end

--- Lets the others go on for so many seconds; 0 gives each of them a turn.
function loop.sleep(seconds)
  if not is_in_task() then error("starttls: loop.sleep() outside of loop.run()", 2) end
  if seconds > 0 then wake_at(current, core.clock() + seconds) else make_ready(current) end
  coroutine.yield(WAIT)
end

--- Like coroutine.wrap, for a coroutine in a task whose body waits: what waits in it makes the
-- task wait, and is not handed to who called it.
function loop.wrap(fn)
  local thread = coroutine.create(fn)
  wrapped[thread] = true
  -- With the task ends what it waits for in here.
  local guard = setmetatable({}, { __close = function(it)
    if it.waiting then coroutine.close(thread) end
  end })
  local function hand_on(going, ...)
    if not going then
      coroutine.close(thread)
      error((...), 0)
    end
    return ...
  end
  return function(...)
    local results = table.pack(coroutine.resume(thread, ...))
    while results[2] == WAIT do
      local waiting <close> = guard
      waiting.waiting = true
      coroutine.yield(WAIT)
      waiting.waiting = false
      results = table.pack(coroutine.resume(thread))
    end
    return hand_on(table.unpack(results, 1, results.n))
  end
end

-- }======

-- {====== The adapter ======

-- Where no task can wait, the descriptor is waited for alone.
local function wait_alone(fd, mode, seconds)
  local alone <close> = core.poller()
  if fd >= 0 then
    local armed, err = alone:arm(fd, mode)
    if not armed then return nil, err end
  end
  alone:wait(seconds, {})
  return true
end

--- Waits for a session, or any object with a method getfd(), say a socket of LuaSocket. In a
-- coroutine that is neither a task's nor made by loop.wrap, all tasks wait.
-- @param object   whose descriptor it is; a negative one: for the time only
-- @param mode     "r", "w" or "rw"
-- @param seconds  at most; nil: for ever
-- @return true when it can be read or written, is broken, or the time is over; or nil and an error
function loop.wait(object, mode, seconds)
  local fd, task = object:getfd(), current
  if not is_in_task() then return wait_alone(fd, mode, seconds) end
  if seconds and seconds <= 0 then
    make_ready(task)
  else
    if fd >= 0 then
      if waiters[fd] then return nil, "another task waits for this descriptor" end
      local armed, err = poller:arm(fd, mode)
      if not armed then return nil, err end
      waiters[fd], task.fd = task, fd
    end
    if seconds then wake_at(task, core.clock() + seconds) end
  end
  coroutine.yield(WAIT)
  return true
end

--- To be called before a descriptor is closed: who waits for it goes on.
function loop.forget(fd)
  if not poller then return end
  poller:forget(fd)
  if waiters[fd] then make_ready(waiters[fd]) end
end

-- }======

return loop
