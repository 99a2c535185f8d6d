--- The commands of a POP3 session that wait for their answers, which come in order.
-- May rely on starttls.error.
--
-- Where the server lists PIPELINING, a command may be sent before those in front of it are
-- answered (RFC 2449 6.8); elsewhere one is sent at a time. Fields of a request:
--
--   1, 2, ...  the command: typed arguments, flat (csrc/mail/encoder.h)
--   during     the phase, for errors: "retr"
--   form       what the answer brings: "reply", "lines" or "content"
--   take       function(piece) for each line or piece of content -> true, or nil and an error,
--              behind which the rest is dropped; nil: dropped from the start
--   answered   function(reply) when its reply is there; may be nil
-- and what becomes of it:
--   reply      the server's answer, be that a refusal
--   failure    the error object instead: it gets no answer, or `take` did not want more
--   dropped    something came for it while it had no `take`
local errors = require "starttls.error"

local Flight = {}
Flight.__index = Flight

local most = 60 -- commands in flight; the core takes 64

local function discard() return true end

-- {====== Receiving ======

--- A line or a piece of content belongs to the oldest. While its `take` runs there is another
-- in its place, so that one that raises is not called again.
local function hand_over(self, piece)
  local request = self.queue[1]
  local take = request.take
  if not take then
    request.dropped = true
    return true
  end
  request.take = discard
  local taken, err = take(piece)
  if taken then
    request.take = take
    return true
  end
  request.failure = err
  -- What exceeds a limit may have no end: the session is closed.
  if errors.is(err) and err.kind == "limit" then return nil, err end
  return true
end

local function take_reply(self, reply)
  local request = table.remove(self.queue, 1)
  request.reply = reply
  if not request.take then request.dropped = true end
  if request.answered then request.answered(reply) end
  return true
end

--- None of them gets an answer any more.
local function abandon(self, err)
  for _, request in ipairs(self.queue) do request.failure = request.failure or err end
  self.queue, self.operation = {}, nil
end

local function lost(during)
  return errors.new { kind = "cancelled", during = during,
    message = "the call that waited for the answer was ended" }
end

--- While answers are awaited the operation is held by the call that waits, and by nobody else, so
-- that it ends with a coroutine that is dropped. A handler that raises leaves it as it was.
local Guard = {}

function Guard:__close()
  local flight = self.flight
  if not self.operation then return end
  if not flight.waits then
    flight.operation = self.operation
    return
  end
  local operation <close> = self.operation -- luacheck: ignore
  abandon(flight, lost "pop3")
end

--- Takes one event of the operation that the guard holds.
local function take_event(self, guard)
  self.waits = true
  local going, err = self.session:take(guard.operation, self.handlers)
  self.waits = false
  if going == true then return end
  local operation <close> = guard.operation -- luacheck: ignore
  guard.operation = nil
  if going == "done" then return end
  if self.queue[1] then err.during = self.queue[1].during end
  abandon(self, err)
end

--- Takes answers until `enough` says so, or all are there. The operation may be older than the
-- call that waits here, whose time begins now.
function Flight:run(enough)
  if self.operation then self.operation:renew() end
  local guard <close> = setmetatable({ flight = self, operation = self.operation }, Guard)
  self.operation = nil
  while guard.operation and (#self.queue == 0 or not enough()) do take_event(self, guard) end
end

local function never() return false end

--- Takes all answers.
function Flight:settle()
  self:run(never)
end

-- }======

-- {====== Sending ======

--- Sends a command behind those in flight, if that can be done at once.
-- @return whether it is on its way
function Flight:push(request)
  if not (self.operation and #self.queue < most and self.session:pipelines()) then return false end
  local form = request.form or "reply"
  if not self.operation:push(request.during, form, table.unpack(request)) then return false end
  self.queue[#self.queue + 1] = request
  return true
end

--- Sends a command, as soon as it may be sent.
-- @return true, or nil and an error
function Flight:send(request)
  if self.operation and self.session:pipelines() then
    if #self.queue >= most then self:run(function() return #self.queue <= most // 2 end) end
    if self:push(request) then return true end
  end
  self:settle()
  local operation, err = self.begin(self.session, request.during, request.form or "reply",
    table.unpack(request))
  if not operation then return nil, err end
  abandon(self, lost(request.during))
  self.operation, self.queue[1] = operation, request
  return true
end

--- Waits for the answer to a command that was sent.
-- @return the reply, be that a refusal; or nil and an error
function Flight:await(request)
  self:run(function() return request.reply or request.failure end)
  if request.failure then return nil, request.failure end
  return request.reply
end

-- }======

--- @param session  whose commands they are; its pipelines() says whether the server takes several
--                  at a time
-- @param begin     function(session, during, form, ...) that begins an operation
function Flight.new(session, begin)
  local self = setmetatable({ session = session, begin = begin, queue = {} }, Flight)
  -- What the caller's functions raise finds the operation not waiting.
  local function handler(action)
    return function(_, what)
      self.waits = false
      return action(self, what)
    end
  end
  self.handlers = {
    line = handler(hand_over), content = handler(hand_over), reply = handler(take_reply),
  }
  return self
end

return Flight
