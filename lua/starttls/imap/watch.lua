--- Waiting for what happens (RFC 2177, RFC 9051 6.3.13; RFC 5465).
-- May rely on starttls.core, starttls.imap.class, starttls.imap.gatherer, starttls.arguments and
-- starttls.settings.
local core = require "starttls.core"
local Imap = require "starttls.imap.class"
local gatherer = require "starttls.imap.gatherer"
local arguments = require "starttls.arguments"
local check_settings = require("starttls.settings").check

--- RFC 2177: servers may hang up after 30 minutes; many devices on the way do so much sooner.
local default_renewal = 9 * 60
local longest_renewal = 29 * 60
local default_interval = 60

--- An IDLE that the server itself ends sooner than this is no way to wait.
local shortest_idling = 10

local Watch = {}
Watch.__index = Watch

-- {====== Ways to wait ======

--- With IDLE the server tells as long as that lasts; with NOTIFY at any time; else one has to ask.
-- IDLE goes first, as Dovecot (2.3) tells of the selected mailbox only in answer to a command even
-- with NOTIFY; RFC 5465 6.2 lets all servers do so for "selected-delayed".
function Watch:way()
  if self.idles then return "idle" end
  return self.session.notified == "at once" and "listen" or "poll"
end

--- Begins to wait.
function Watch:begin()
  self.doing, self.left, self.begun_at = self:way(), false, core.clock()
  if self.doing == "idle" then
    return self:take_up(self.session:command("idle", "idle", "atom", "IDLE"))
  end
  return self:take_up(self.session.core:listen())
end

--- Asks the server to tell what has happened, and whether it is still there.
function Watch:ask()
  self.doing = "ask"
  return self:take_up(self.session:command("noop", "reply", "atom", "NOOP"))
end

function Watch:take_up(operation, err)
  self.operation = operation
  if not operation then return nil, err end
  operation:gather(self.session.string_limit)
  if self.doing == "listen" or self.doing == "poll" then self:sleep() end
  return true
end

--- Arranges for the next time that something is to be done unasked.
function Watch:sleep()
  local seconds = self.doing == "poll" and self.interval or self.renewal
  if self.ends_at then seconds = math.min(seconds, self.ends_at - core.clock()) end
  self.operation:wake(math.max(seconds, 0))
end

function Watch:is_over()
  return self.ends_at ~= nil and core.clock() >= self.ends_at
end

function Watch:leave()
  if self.left or self.doing == "ask" then return end
  self.left = true
  self.operation:leave()
end

--- What was begun is over: something else begins, unless the caller has had enough.
function Watch:go_on()
  self.operation = nil
  if self.refusal then return nil, self.refusal end
  if self:is_over() then return true end
  if self.doing == "idle" and not self.left then
    if core.clock() - self.begun_at < shortest_idling then self.idles = false end
  end
  if self.doing == "listen" or self.doing == "poll" then return self:ask() end
  return self:begin()
end

-- }======

--- @return an event; nil when the time is over; or nil and an error
function Watch:next()
  while self.operation do
    if self:is_over() then self:leave() end
    local going, err = self.session:take(self.operation, self.handlers)
    if going == "done" then going, err = self:go_on() end
    if not going then
      self:close()
      return nil, err
    end
    local event = self.event
    self.event = nil
    if event then return event end
  end
end

--- Ends it; what is left of its answer is dropped by the next call.
function Watch:close()
  local operation <close> = self.operation -- luacheck: ignore
  self.operation = nil
end

--- Tells what the server said. RFC 5465 5.1: a new message may come with content.
function Watch:untagged(name, number, value)
  if name == "FETCH" then
    local message, err = self.gatherer:finish(value)
    if not message then return nil, err end
  end
  local kind, told = self.session:unasked(name, number, value)
  if kind then self.event = { type = kind, value = told } end
  if kind == "overflow" and self.doing == "listen" then self:leave() end
  return true
end

local function handlers_of(watch)
  return {
    idling = function()
      watch:sleep()
      return true
    end,
    wake = function()
      watch:leave()
      return true
    end,
    untagged = function(_, ...) return watch:untagged(...) end,
    content = function(_, ...) return watch.gatherer:content(...) end,
    reply = function(_, reply)
      local ok, refusal = watch.session:judge(watch.doing == "ask" and "noop" or "idle", reply)
      if not ok then watch.refusal = refusal end
      return true
    end,
  }
end

local function check_seconds(settings, name, default, most)
  local value = settings[name] or default
  if type(value) ~= "number" or value <= 0 or value ~= value or (most and value > most) then
    error(("idle: %s must be a positive number of seconds%s"):format(name,
      most and (", at most %d"):format(most) or ""), 0)
  end
  return value
end

local function new_watch(self, settings)
  local watch = setmetatable({
    session = self, gatherer = gatherer.new(nil, self.string_limit),
    idles = self:has "IDLE" or self:has "IMAP4rev2",
    renewal = check_seconds(settings, "renew", default_renewal, longest_renewal),
    interval = check_seconds(settings, "interval", default_interval, longest_renewal),
    ends_at = settings.seconds and core.clock() + check_seconds(settings, "seconds"),
  }, Watch)
  if settings.each ~= nil and type(settings.each) ~= "function" then
    error("idle: each must be a function", 0)
  end
  watch.handlers = handlers_of(watch)
  return watch
end

--- Hands every event to a function, until it returns false or the time is over.
local function run(watch, each)
  local guard <close> = setmetatable({}, { __close = function() watch:close() end }) -- luacheck: ignore
  while true do
    local event, err = watch:next()
    if not event then
      if err then return nil, err end
      return true
    end
    if each(event) == false then return true end
  end
end

--- An iterator with its closing value, which ends the waiting when the loop is left.
local function iterate(watch)
  local guard = setmetatable({}, { __close = function() watch:close() end })
  return function()
    local event, err = watch:next()
    if err then error(err, 0) end
    return event
  end, nil, nil, guard
end

--- Waits for what happens in the selected mailbox, with IDLE (RFC 2177); in those that `notify`
-- named, without a command (RFC 5465); where the server has neither, with NOOP every so often.
-- Every so often the server must show that it is alive, within the session's `timeout`: IDLE is
-- sent anew, which also keeps servers and devices on the way from hanging up.
-- @param settings  seconds = how long to wait in all, default for ever; renew = seconds after
--                  which IDLE is sent anew, default 540, at most 1740; interval = seconds between
--                  NOOPs where there is no IDLE, default 60; each = function(event), called for
--                  every event until it returns false
-- @return an iterator of events for a generic for: tables with `type` and `value`, the same that
--         on = { ... } is given: "exists" 5, "expunge" 3, "fetch" message, ... Leaving the loop
--         ends IDLE. It ends by itself when `seconds` are over. A failure raises the error object.
--         With `each`: true when it returned false or the time was over; or nil and an error.
function Imap:idle(settings)
  settings = check_settings("idle", settings, "seconds renew interval each")
  local watch = new_watch(self, settings)
  local begun, err = self:drain()
  if begun then begun, err = watch:begin() end
  if not begun then
    if settings.each then return nil, err end
    error(err, 0)
  end
  if settings.each then return run(watch, settings.each) end
  return iterate(watch)
end

--- Does nothing, and lets the server tell what has changed (NOOP).
Imap.define("noop", function()
  return { during = "noop", args = arguments.of "NOOP" }
end)
