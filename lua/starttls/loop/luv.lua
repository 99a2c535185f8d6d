--- Sessions in libuv: the adapter for `loop`, in any coroutine while uv.run() runs.
-- May rely on luv only.
--
-- Who waits is resumed from a callback of libuv. An error that ends the coroutine is raised there,
-- and meets what luv does with errors in callbacks.
local uv = require "luv"

local adapter = {}

local waits = {} -- descriptor -> { poll, timer, thread that waits or nil }

local function go_on(it)
  local thread = it.thread
  it.thread = nil
  it.timer:stop()
  if it.poll then it.poll:stop()
  elseif not it.timer:is_closing() then it.timer:close()
  end
  if not thread or coroutine.status(thread) ~= "suspended" then return end
  local going, err = coroutine.resume(thread, true)
  if going then return end
  coroutine.close(thread) -- what it held in <close> variables
  error(err, 0)
end

-- libuv knows one handle for a descriptor, which is kept until it is forgotten.
local function handles(fd)
  local it = waits[fd]
  if it then return it end
  it = { timer = uv.new_timer() }
  it.go_on = function() go_on(it) end
  if fd >= 0 then
    local err
    it.poll, err = uv.new_poll(fd)
    if not it.poll then
      it.timer:close()
      return nil, err
    end
    waits[fd] = it
  end
  return it
end

--- See starttls.loop. Two coroutines can't wait for one descriptor.
function adapter.wait(session, mode, seconds)
  local it, err = handles(session:getfd())
  if not it then return nil, err end
  if it.thread and coroutine.status(it.thread) == "suspended" then
    return nil, "another coroutine waits for this descriptor"
  end
  it.thread = coroutine.running()
  if it.poll and seconds ~= 0 then it.poll:start(mode, it.go_on) end
  if seconds then it.timer:start(math.ceil(seconds * 1000), 0, it.go_on) end
  return coroutine.yield()
end

--- Lets go of a descriptor; who waits for it goes on in the next round.
function adapter.forget(fd)
  local it = waits[fd]
  if not it then return end
  waits[fd] = nil
  it.poll:stop()
  it.poll:close()
  it.poll = nil
  it.timer:stop()
  it.timer:start(0, 0, it.go_on)
end

return adapter
