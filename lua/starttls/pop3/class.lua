--- The class of POP3 sessions: how a command is run, and what has been marked to be deleted.
-- May rely on starttls.session, starttls.error and starttls.pop3.flight. The other files of this
-- folder add methods.
local session = require "starttls.session"
local errors = require "starttls.error"
local Flight = require "starttls.pop3.flight"

local Pop3 = session.class "pop3"

local begin = Pop3.command

--- The session's commands in flight. Made when first asked for, as a loop adapter has the session
-- before connect() returns it.
function Pop3:commands()
  if not self.flight then self.flight = Flight.new(self, begin) end
  return self.flight
end

--- Whether commands may be sent before those in front of them are answered.
function Pop3:pipelines()
  return (self:has "PIPELINING")
end

--- Begins a command when all those before it are answered.
function Pop3:command(...)
  self:commands():settle()
  return begin(self, ...)
end

--- Sends a request (flight.lua) and waits for its answer.
-- @return the reply, be that a refusal; or nil and an error
function Pop3:exchange(request)
  local flight = self:commands()
  local sent, err = flight:send(request)
  if not sent then return nil, err end
  return flight:await(request)
end

--- Sends a request and waits for its answer.
-- @return the reply; or nil and an error, of kind "rejected" when the server said no
function Pop3:perform(request)
  local reply, err = self:exchange(request)
  if not reply then return nil, err end
  return self:judge(request.during, reply)
end

--- Fails where the server does not list a capability.
-- @param during  the call that needs it
-- @param name    the capability
-- @return true, or nil and an error of kind "unsupported"
function Pop3:needs(during, name)
  if self:has(name) then return true end
  return nil, errors.new { kind = "unsupported", during = during,
    message = ("the server does not offer %s, which %s needs"):format(name, during) }
end

function Pop3.malformed(during, text)
  return nil, errors.new { kind = "protocol", during = during, text = text,
    message = "the server's answer is not what RFC 1939 says" }
end

--- A message's number as an argument. Raises for anything else.
function Pop3.number(n, during)
  if math.type(n) == "integer" and n > 0 then return ("%d"):format(n) end
  error(during .. ": the message number must be a positive integer", 0)
end

-- {====== Marks ======

--- What is marked to be deleted, and what the server did not let mark.
function Pop3:marks()
  self.marked = self.marked or { count = 0, refused = {} }
  return self.marked
end

--- The request that marks a message; the answer is noted when it comes.
function Pop3:mark_request(n)
  local marks = self:marks()
  local request = { "atom", "DELE", "number", Pop3.number(n, "dele"), during = "dele" }
  function request.answered(reply)
    if reply.class ~= "positive" then
      marks.refused[#marks.refused + 1] = { n = n, status = reply.status, text = reply.text }
    elseif not marks[n] then
      marks[n], marks.count = true, marks.count + 1
    end
  end
  return request
end

--- Marks a message without waiting for the answer where the server lists PIPELINING. What it
-- refuses is in the result of quit().
-- @return true; or nil and an error
function Pop3:mark(n)
  local request = self:mark_request(n)
  if self:pipelines() then return self:commands():send(request) end
  local reply, err = self:perform(request)
  if not reply then return nil, err end
  return true
end

-- }======

return Pop3
