--- SMTP submission: connect, send, and the smaller commands (RFC 5321, RFC 6409).
-- May rely on starttls.core, starttls.session, starttls.arguments, starttls.content and
-- starttls.error.
local core = require "starttls.core"
local session = require "starttls.session"
local arguments = require "starttls.arguments"
local content = require "starttls.content"
local errors = require "starttls.error"

local smtp = {}
local Smtp = session.class "smtp"

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

local function check_envelope(envelope)
  if type(envelope) ~= "table" then error("send: takes a table with from, to and message", 0) end
  local known = { from = true, to = true, message = true }
  for name in pairs(envelope) do
    if not known[name] then error(("send: unknown field '%s'"):format(tostring(name)), 0) end
  end
  check_address(envelope.from, "the address in 'from'")
  return as_list(envelope.to)
end

local function unsupported(message)
  return nil, errors.new { kind = "unsupported", during = "mail", message = message }
end

--- What the message needs of the server that can be told before it is sent.
-- @return typed arguments for MAIL, or nil and an error
local function mail_parameters(self, envelope, to, size)
  local message = envelope.message
  local params = {}
  if type(message) == "string" and message:find("\0", 1, true) then
    return unsupported "the message has a NUL octet, which SMTP can't carry"
  end
  -- A stream is declared as 8-bit where that is possible, as nobody can tell beforehand.
  local is_8bit = type(message) ~= "string" or core.is_8bit(message)
  if is_8bit and self:has "8BITMIME" then
    params[#params + 1] = "BODY=8BITMIME"
  elseif type(message) == "string" and is_8bit then
    return unsupported "the message has 8-bit text, and the server does not offer 8BITMIME"
  end
  if core.is_8bit(envelope.from .. table.concat(to)) then
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

local function rejection(address, reply)
  return { address = address, code = reply.code, status = reply.status, text = reply.text,
    temporary = reply.class == "transient" }
end

--- The error for a message that nobody was accepted for, or that was refused as a whole.
-- @param phase  how far it went: "mail", "data" or "delivery"
local function refusal(result, phase, sender)
  local first, reply = result.rejected[1], result.reply
  local err
  if phase == "mail" then
    err = errors.from_reply("rejected", "mail",
      sender == "" and "the server refuses a message without a sender"
        or "the server refuses the sender " .. sender, reply)
  elseif #result.accepted == 0 then
    err = errors.from_reply("rejected", "rcpt",
      #result.rejected == 1 and ("the server refuses the recipient %s"):format(first.address)
        or ("the server refuses all %d recipients; the first, %s")
          :format(#result.rejected, first.address),
      { code = first.code, status = first.status, text = first.text,
        class = first.temporary and "transient" or "permanent" })
  else
    err = errors.from_reply("rejected", phase, "the server refuses the message", reply)
  end
  err.rejected = result.rejected
  return nil, err
end

--- Sends one message.
-- @param envelope  from (address, "" for the null sender), to (address or array), message
--                  (string, open file or LTN12 source; line ends become CRLF on the wire)
-- @return a result: accepted (array of addresses), rejected (array of { address, code,
--         status, text, temporary }), reply { code, status, text }; or nil and an error,
--         when nobody was accepted or the content was refused. Raises on misuse,
--         such as a line break in an address.
function Smtp:send(envelope)
  local to = check_envelope(envelope)
  local source = content.source(envelope.message, "send: 'message'")
  local drained, drain_error = self:drain()
  if not drained then return nil, drain_error end
  local params, why = mail_parameters(self, envelope, to, size_of(envelope.message))
  if not params then return nil, why end
  local args = arguments.of("MAIL"):add("keyword", "FROM:"):add("path", envelope.from)
  for _, param in ipairs(params) do args:add("atom", param) end
  local result, phase = { accepted = {}, rejected = {} }, "mail"
  local feed = session.feeder(source, "content")
  local operation, refused = self.core:transaction(to, args:unpack())
  local done, err = self:run(operation, {
    recipient = function(_, index, reply)
      phase = "data"
      if reply.class == "positive" then table.insert(result.accepted, to[index])
      else table.insert(result.rejected, rejection(to[index], reply)) end
    end,
    want_content = function(given)
      phase = "delivery"
      return feed(given)
    end,
    reply = function(_, reply) result.reply = reply end,
  }, refused)
  if not done then
    if errors.is(err) and #result.rejected > 0 then err.rejected = result.rejected end
    return nil, err
  end
  if #result.accepted == 0 or result.reply.class ~= "positive" then
    return refusal(result, phase, envelope.from)
  end
  return result
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
