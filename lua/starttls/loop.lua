--- Event loops: which one sessions wait in, when their options don't say.
-- May rely on nothing; the ready-made adapters, starttls.loop.poll and others, are loaded when
-- they are first asked for.
--
-- An adapter is a table of two functions:
--   wait(session, mode, seconds)  called in the coroutine that called the session's method; comes
--     back when the descriptor session:getfd() can be read ("r"), written ("w") or either ("rw"),
--     or after so many seconds (nil: never for that reason). Coming back too early does no harm.
--     With 0 seconds others are to have a turn. Returns true, or nil and an error, which closes
--     the session.
--   forget(fd)  called before a descriptor is closed. Never yields.
local loop = {}

local default

--- Checks an adapter.
-- @param adapter  a table
-- @return nil, or what is wrong with it
function loop.complaint(adapter)
  if type(adapter) ~= "table" or type(adapter.wait) ~= "function"
      or type(adapter.forget) ~= "function" then
    return "must have two functions, wait and forget"
  end
end

--- Makes an adapter the default for the sessions of this Lua state that are connected from now on
-- without the option `loop`. With `loop = false` a session does without.
-- @param adapter  a table of wait and forget; nil: sessions wait by themselves again
-- @return the adapter that was the default before, or nil. Raises for what is no adapter.
function loop.use(adapter)
  local complaint = adapter ~= nil and loop.complaint(adapter)
  if complaint then error("starttls: the adapter " .. complaint, 2) end
  local former = default
  default = adapter
  return former
end

--- The adapter for a session.
-- @param given  the option `loop`: an adapter, false for none, nil for the default
-- @return an adapter, or nil
function loop.choose(given)
  if given == nil then return default end
  return given or nil
end

local adapters = { poll = true, cqueues = true, luv = true }

return setmetatable(loop, {
  __index = function(_, name)
    if not adapters[name] then return nil end
    local adapter = require("starttls.loop." .. name)
    rawset(loop, name, adapter)
    return adapter
  end,
})
