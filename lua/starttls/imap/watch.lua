--- Waiting for what happens in the mailbox (RFC 2177, RFC 9051 6.3.13).
-- May rely on starttls.imap.class, starttls.arguments and starttls.error.
local Imap = require "starttls.imap.class"
local arguments = require "starttls.arguments"

--- RFC 2177: servers may hang up after 30 minutes; many devices on the way do so much sooner.
local default_renewal = 9 * 60
local longest_renewal = 29 * 60
local default_interval = 60

local Watch = {}
Watch.__index = Watch

local function check_seconds(settings, name, default, most)
  local value = settings[name] or default
  if type(value) ~= "number" or value <= 0 or value ~= value or (most and value > most) then
    error(("idle: %s must be a positive number of seconds%s"):format(name,
      most and (", at most %d"):format(most) or ""), 0)
  end
  return value
end

--- Begins IDLE; or, where the server lacks it, NOOP and listening in turn.
function Watch:begin()
  local operation, err
  if self.idles then operation, err = self.session:command("idle", "idle", "atom", "IDLE")
  else operation, err = self.session.core:listen() end
  if not operation then return nil, err end
  self.operation, self.leaving = operation, false
  if not self.idles then self:sleep() end
  return true
end

--- Arranges for the next time that something is to be done unasked.
function Watch:sleep()
  local seconds = self.interval
  if self.left then seconds = math.min(seconds, self.left) end
  self.slept = seconds
  self.operation:wake(seconds)
end

function Watch:wake()
  if self.left then
    self.left = self.left - self.slept
    if self.left <= 0 then self.ended = true end
  end
  self.leaving = true
  self.operation:leave()
  return true
end

--- What was begun is over: begin again unless the caller has had enough.
function Watch:renew()
  self.operation = nil
  if self.refusal then return nil, self.refusal end
  if self.ended then return true end
  if not self.idles then
    local asked, err = self.session:noop()
    if not asked then return nil, err end
  end
  return self:begin()
end

function Watch:next()
  while true do
    local event = table.remove(self.events, 1)
    if event then return event end
    if not self.operation then return nil end
    local going, err = self.session:take(self.operation, self.handlers)
    if going == "done" then going, err = self:renew() end
    if not going then
      self:close()
      error(err, 0)
    end
  end
end

--- Ends it; what is left of its answer is dropped by the next call.
function Watch:close()
  self.session.watcher = nil
  local operation <close> = self.operation -- luacheck: ignore
  self.operation = nil
end

local function new_watch(self, settings)
  local watch = setmetatable({
    session = self, events = {}, idles = self:has "IDLE" or self:has "IMAP4rev2" or false,
    left = settings.seconds and check_seconds(settings, "seconds"),
  }, Watch)
  local renewal = check_seconds(settings, "renew", default_renewal, longest_renewal)
  local interval = check_seconds(settings, "interval", default_interval, longest_renewal)
  watch.interval = watch.idles and renewal or interval
  watch.handlers = {
    idling = function()
      watch:sleep()
      return true
    end,
    wake = function() return watch:wake() end,
    reply = function(_, reply)
      local ok, refusal = self:judge("idle", reply)
      if not ok then watch.refusal = refusal end
      return true
    end,
  }
  return watch
end

--- Waits for what happens in the selected mailbox, with IDLE (RFC 2177); where the server lacks
-- it, with NOOP every so often. IDLE is renewed before servers and devices on the way take the
-- connection for dead, and each renewal must be answered within the session's `timeout`: so a
-- dead connection is noticed.
-- @param settings  seconds = how long to wait in all, default for ever; renew = seconds after
--                  which IDLE is sent anew, default 540, at most 1740; interval = seconds between
--                  NOOPs where there is no IDLE, default 60
-- @return an iterator of events for a generic for: tables with `type` and `value`, the same that
--         on = { ... } is given: "exists" 5, "expunge" 3, "fetch" message, ... Leaving the loop
--         ends IDLE. It ends by itself when `seconds` are over. A failure raises the error object.
function Imap:idle(settings)
  local watch = new_watch(self, settings or {})
  local drained, err = self:drain()
  if not drained then error(err, 0) end
  self.watcher = function(kind, value)
    watch.events[#watch.events + 1] = { type = kind, value = value }
  end
  local begun, failure = watch:begin()
  if not begun then
    watch:close()
    error(failure, 0)
  end
  local guard = setmetatable({}, { __close = function() watch:close() end })
  return function() return watch:next() end, nil, nil, guard
end

--- Does nothing, and lets the server tell what has changed (NOOP).
Imap.define("noop", function()
  return { during = "noop", args = arguments.of "NOOP" }
end)
