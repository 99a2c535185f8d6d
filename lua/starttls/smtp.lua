--- SMTP submission: connect, send, and the smaller commands (RFC 5321, RFC 6409).
-- May rely on starttls.core, starttls.session, starttls.arguments, starttls.content,
-- starttls.error and starttls.smtp.*.
local core = require "starttls.core"
local session = require "starttls.session"
local arguments = require "starttls.arguments"
local content = require "starttls.content"
local errors = require "starttls.error"
local Letter = require "starttls.smtp.letter"
local Outbox = require "starttls.smtp.outbox"

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

--- RFC 6531 3.3: what is not ASCII is UTF-8. All else is checked where it is encoded.
local function check_address(address, what)
  if type(address) ~= "string" then
    error(("send: %s must be a string, not %s"):format(what, type(address)), 0)
  end
  if not utf8.len(address) then error(("send: %s is not valid UTF-8"):format(what), 0) end
end

local function as_list(to)
  if type(to) == "string" then to = { to } end
  if type(to) ~= "table" then error("send: 'to' must be an address or an array of addresses", 0) end
  if #to == 0 then error("send: 'to' is empty", 0) end
  for _, address in ipairs(to) do check_address(address, "an address in 'to'") end
  return to
end

local fields = { from = true, to = true, message = true, binary = true }

--- Checks a message's description.
-- @return the array of recipients. Raises on misuse.
local function check_envelope(envelope)
  if type(envelope) ~= "table" then error("send: takes a table with from, to and message", 0) end
  for name in pairs(envelope) do
    if not fields[name] then error(("send: unknown field '%s'"):format(tostring(name)), 0) end
  end
  check_address(envelope.from, "the address in 'from'")
  if envelope.binary ~= nil and type(envelope.binary) ~= "boolean" then
    error("send: 'binary' must be a boolean", 0)
  end
  if type(envelope.message) ~= "string" then content.source(envelope.message, "send: 'message'") end
  return as_list(envelope.to)
end

local function unsupported(message)
  return nil, errors.new { kind = "unsupported", during = "mail", message = message }
end

local function has_8bit_address(from, to)
  for _, address in ipairs(to) do
    if core.is_8bit(address) then return true end
  end
  return core.is_8bit(from)
end

--- What is to be said of the content's octets (RFC 6152, RFC 3030).
-- @return the parameter, or nil when there is none; or nil and an error
local function body_type(self, envelope)
  local message = envelope.message
  local is_text = type(message) == "string"
  if envelope.binary then
    if self:has "BINARYMIME" and self:has "CHUNKING" then return "BODY=BINARYMIME" end
    return unsupported "the server does not offer BINARYMIME"
  end
  if is_text and message:find("\0", 1, true) then
    return unsupported "the message has a NUL octet, which only BINARYMIME can carry"
  end
  -- A stream is declared as 8-bit where that is possible, as nobody can tell beforehand.
  local is_8bit = not is_text or core.is_8bit(message)
  if is_8bit and self:has "8BITMIME" then return "BODY=8BITMIME" end
  if is_8bit and is_text then
    return unsupported "the message has 8-bit text, and the server does not offer 8BITMIME"
  end
end

--- What the message needs of the server that can be told before it is sent.
-- @return typed arguments for MAIL, or nil and an error
local function mail_parameters(self, envelope, to, size)
  local params = {}
  local body, why = body_type(self, envelope)
  if why then return nil, why end
  params[1] = body
  if has_8bit_address(envelope.from, to) then
    if not self:has "SMTPUTF8" then
      return unsupported "an address is not ASCII, and the server does not offer SMTPUTF8"
    end
    params[#params + 1] = "SMTPUTF8"
  end
  local offered, limit = self:has "SIZE"
  limit = offered and tonumber(limit) or 0
  if size and offered then
    if limit > 0 and size > limit then
      return nil, errors.new { kind = "rejected", during = "mail",
        message = ("the message has %d octets, and the server takes at most %d")
          :format(size, limit) }
    end
    params[#params + 1] = ("SIZE=%d"):format(size)
  end
  return params
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

--- A letter from a checked envelope; one that can't go out is done, with its failure.
local function make_letter(self, envelope, to)
  local letter = Letter.new(envelope.from, to, envelope.message, envelope.binary)
  local params, why = mail_parameters(self, envelope, to, size_of(envelope.message))
  if not params then
    letter.failure, letter.done = why, true
    return letter
  end
  local mail = { "path", envelope.from }
  for _, param in ipairs(params) do
    mail[#mail + 1] = "atom"
    mail[#mail + 1] = param
  end
  letter.mail = mail
  return letter
end

--- Sends one message.
-- @param envelope  from (address, "" for the null sender), to (address or array), message
--                  (string, open file or LTN12 source; line ends become CRLF on the wire),
--                  binary (true: the message goes as it is, NUL and all, RFC 3030)
-- @return a result: accepted (array of addresses), rejected (array of { address, code,
--         status, text, temporary }), reply { code, status, text }, replies (all of them,
--         where there are several); or nil and an error, when nobody was accepted or the
--         content was refused. Raises on misuse, such as a line break in an address.
function Smtp:send(envelope)
  local to = check_envelope(envelope)
  local drained, drain_error = self:drain()
  if not drained then return nil, drain_error end
  local outbox, err = Outbox.open(self, 1, function()
    local given = envelope
    envelope = nil
    return given and make_letter(self, given, to)
  end)
  if not outbox then return nil, err end
  local _ <close> = outbox.operation
  local letter = outbox:next()
  if outbox:next() then error("send: more than one letter") end
  return letter:outcome()
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
    local envelope = give()
    if envelope == nil then return nil end
    local letter = make_letter(self, envelope, check_envelope(envelope))
    letter.envelope = envelope
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

--- Asks whether an address exists (VRFY). Most servers won't tell.
-- @return the reply { code, status, text }, or nil and an error
function Smtp:verify(address)
  return self:ask("vrfy", {}, arguments.of("VRFY"):add("text", address):unpack())
end

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
