--- SMTP submission: connect, send, and the smaller commands (RFC 5321, RFC 6409).
-- May rely on starttls.session, starttls.content, starttls.envelope, starttls.error and what is
-- in starttls/smtp/.
local session = require "starttls.session"
local content = require "starttls.content"
local envelope = require "starttls.envelope"
local errors = require "starttls.error"
local parameters = require "starttls.smtp.parameters"
local queries = require "starttls.smtp.queries"

local smtp = {}
local Smtp = session.class "smtp"

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

--- A closed session says why; it offers nothing, which is not what is wrong with it.
local function is_usable(self)
  local err = self.core:error()
  return not err, err
end

--- Checks and prepares all of a message that can be, before a byte is sent.
-- @return the letter (see parameters.check), the arguments of MAIL, and the recipients for the
--         core; or nil and an error. Raises on misuse.
local function prepare(self, given)
  local letter = parameters.check(given)
  content.source(letter.message, "send: 'message'")
  letter.size = size_of(letter.message)
  local is_addressed = letter.to ~= nil
  local ok, err = self:drain()
  if ok then ok, err = is_usable(self) end
  if ok then ok, err = envelope.complete(letter) end
  if not ok then return nil, err end
  if not is_addressed then letter.to = parameters.recipient_list(letter.to, letter.notify) end
  local mail, recipients
  mail, err = parameters.mail(self, letter)
  if not mail then return nil, err end
  recipients, err = parameters.recipients(self, letter)
  if not recipients then return nil, err end
  return letter, mail, recipients
end

--- Sends one message.
-- @param given  message (string, open file or LTN12 source; line ends become CRLF on the wire),
--               from (address, "" for the null sender) and to (address or array), which the
--               message's header tells where they are missing, and what extensions add: see
--               README.md, "The envelope"
-- @return a result: accepted (array of addresses), rejected (array of { address, code,
--         status, text, temporary }), reply { code, status, text }; or nil and an error,
--         when nobody was accepted or the content was refused. Raises on misuse,
--         such as a line break in an address.
function Smtp:send(given)
  local letter, mail, recipients = prepare(self, given)
  if not letter then return nil, mail end
  local to = letter.to
  local result, phase = { accepted = {}, rejected = {} }, "mail"
  local feed = session.feeder(parameters.source(letter), "content")
  local operation, refused = self.core:transaction(recipients, mail:unpack())
  local done, err = self:run(operation, {
    recipient = function(_, index, reply)
      phase = "data"
      local address = parameters.address_of(to[index])
      if reply.class == "positive" then table.insert(result.accepted, address)
      else table.insert(result.rejected, rejection(address, reply)) end
    end,
    want_content = function(wanting)
      phase = "delivery"
      return feed(wanting)
    end,
    reply = function(_, reply) result.reply = reply end,
  }, refused)
  if not done then
    if errors.is(err) and #result.rejected > 0 then err.rejected = result.rejected end
    return nil, err
  end
  if #result.accepted == 0 or result.reply.class ~= "positive" then
    return refusal(result, phase, letter.from)
  end
  return result
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
