--- SMTP submission: connect, send, and the smaller commands (RFC 5321, RFC 6409).
-- May rely on starttls.session, starttls.content, starttls.envelope and what is in starttls/smtp/.
local session = require "starttls.session"
local content = require "starttls.content"
local envelope = require "starttls.envelope"
local Letter = require "starttls.smtp.letter"
local Outbox = require "starttls.smtp.outbox"
local parameters = require "starttls.smtp.parameters"
local queries = require "starttls.smtp.queries"

local smtp = {}
local Smtp = session.class "smtp"

--- The class of sessions, for LMTP, which differs in little.
smtp.class = Smtp

--- Opens a session: encrypted, verified and, when credentials are given, authenticated.
-- @param given  options as in README.md; also client_name, what EHLO says (default: our
--               address in brackets, RFC 5321 4.1.3)
-- @return a session, or nil and an error
function smtp.connect(given)
  return session.connect(Smtp, given, { client_name = "string" })
end

--- The message's size as far as it can be known without reading it.
local function size_of(message)
  if type(message) == "string" then return #message end
  if io.type(message) ~= "file" then return nil end
  local at = message:seek()
  local size = at and message:seek "end"
  if not size then return nil end
  message:seek("set", at)
  return size - at
end

--- A closed session says why; it offers nothing, which is not what is wrong with it.
local function is_usable(self)
  local err = self.core:error()
  return not err, err
end

--- Checks a message as far as that needs no server.
-- @return see parameters.check; also `size`, where it is known. Raises on misuse.
local function plan_of(given)
  local plan = parameters.check(given)
  if type(plan.message) ~= "string" then content.source(plan.message, "send: 'message'") end
  plan.size = size_of(plan.message)
  return plan
end

--- Makes a letter of a plan, with all that can be done before a byte is sent.
-- @return the letter, or nil and an error
local function address(self, plan)
  local is_addressed, addresses = plan.to ~= nil, {}
  local ok, err = envelope.complete(plan)
  if not ok then return nil, err end
  if not is_addressed then plan.to = parameters.recipient_list(plan.to, plan.notify) end
  local mail, recipients
  mail, err = parameters.mail(self, plan)
  if not mail then return nil, err end
  recipients, err = parameters.recipients(self, plan)
  if not recipients then return nil, err end
  for index, to in ipairs(plan.to) do addresses[index] = parameters.address_of(to) end
  local letter = Letter.new(plan.from, addresses, parameters.content(plan),
    plan.asked.body == "BINARYMIME")
  letter.mail, letter.recipients = mail, recipients
  return letter
end

--- A letter of a plan; one that can't go out is done, with its failure.
local function make_letter(self, plan)
  local letter, err = address(self, plan)
  if letter then return letter end
  letter = Letter.new(plan.from or "", {}, "")
  letter.failure, letter.done = err, true
  return letter
end

--- Sends a letter through an outbox of its own.
-- @return what the letter's outcome is
local function send_letter(self, letter, farewell)
  if letter.done then return letter:outcome() end
  local outbox, err = Outbox.open(self, 1, function()
    local only = letter
    letter = nil
    return only
  end, farewell)
  if not outbox then return nil, err end
  local _ <close> = outbox.operation
  local sent = outbox:next()
  if outbox:next() then error("send: more than one letter") end
  return sent:outcome()
end

--- Sends one message.
-- @param given  message (string, open file or LTN12 source; line ends become CRLF on the wire),
--               from (address, "" for the null sender) and to (address or array), which the
--               message's header tells where they are missing, and what extensions add: see
--               README.md, "The envelope"
-- @return a result: accepted (array of addresses), rejected (array of { address, code,
--         status, text, temporary }), reply { code, status, text }, replies (all of them,
--         where there are several); or nil and an error, when nobody was accepted or the
--         content was refused. Raises on misuse, such as a line break in an address.
function Smtp:send(given)
  local plan = plan_of(given)
  local ok, err = self:drain()
  if ok then ok, err = is_usable(self) end
  if not ok then return nil, err end
  return send_letter(self, make_letter(self, plan))
end

--- Connects, sends one message and says goodbye, which rides along with the message where the
-- server has PIPELINING.
-- @param connect  smtp.connect or lmtp.connect
-- @param options  for it
-- @param given    as for session:send
-- @return as session:send
function smtp.send_once(connect, options, given)
  local plan = plan_of(given)
  local session <close>, err = connect(options) -- luacheck: ignore
  if not session then return nil, err end
  local letter = make_letter(session, plan)
  local farewell = not letter.done and Outbox.fits(session, letter)
  local result, failure = send_letter(session, letter, farewell)
  if not farewell then session:quit() end -- whatever comes of it: the message has its result
  return result, failure
end

--- Connects, sends one message and says goodbye.
-- @param options  as for smtp.connect
-- @param given    as for session:send
-- @return as session:send
function smtp.send(options, given)
  return smtp.send_once(smtp.connect, options, given)
end

local default_window, greatest_window = 32, 1000

local function check_settings(settings)
  for name in pairs(settings) do
    if name ~= "window" then
      error(("send_all: unknown setting '%s'"):format(tostring(name)), 0)
    end
  end
  local window = settings.window or default_window
  if math.type(window) ~= "integer" or window < 1 or window > greatest_window then
    error(("send_all: 'window' must be an integer from 1 to %d"):format(greatest_window), 0)
  end
  return window
end

--- A function that gives one message after the other.
local function iterator_of(messages)
  if type(messages) == "function" then return messages end
  if type(messages) ~= "table" then
    error("send_all: takes a function that returns messages, or an array of them", 0)
  end
  local at = 0
  return function()
    at = at + 1
    return messages[at]
  end
end

--- Sends many messages: where the server has PIPELINING, the next ones go out before the
-- answers to the ones before have come (RFC 2920).
-- @param messages  function that returns the next message, as for send, or nil at the end;
--                  or an array of messages
-- @param settings  optional: { window = n }, how many may be under way at a time (32)
-- @return an iterator, for a generic `for`, over the outcomes in the order of the messages:
--         number, result (as from send) or nil, error or nil, and the message. When the
--         session is lost, each message that was taken has its outcome, and the loop ends.
--         Raises on misuse, at the message's turn, and the error object when the session
--         can't begin to send.
function Smtp:send_all(messages, settings)
  local window = check_settings(settings or {})
  local give = iterator_of(messages)
  local drained, err = self:drain()
  if not drained then error(err, 0) end
  local outbox
  outbox, err = Outbox.open(self, window, function()
    local given = give()
    if given == nil then return nil end
    local letter = make_letter(self, plan_of(given))
    letter.envelope = given
    return letter
  end)
  if not outbox then error(err, 0) end
  local number = 0
  return function()
    local letter = outbox:next()
    if not letter then return nil end
    number = number + 1
    local result, failure = letter:outcome()
    return number, result, failure, letter.envelope
  end, nil, nil, outbox.operation
end

for name, method in pairs(queries) do Smtp[name] = method end

--- Drops a transaction, if there is one (RSET).
function Smtp:reset()
  return self:ask("rset", {}, "atom", "RSET")
end

--- Does nothing, and keeps the session alive (NOOP).
function Smtp:noop()
  return self:ask("noop", {}, "atom", "NOOP")
end

--- Says goodbye, waits for the answer and closes.
function Smtp:quit()
  return self:say_goodbye "QUIT"
end

return smtp
