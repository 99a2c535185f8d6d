--- Errors as values: what went wrong, for a program and for a person.
-- May rely on starttls.core only.
--
-- Operational failures return `nil, err`. `err` has these fields:
--   kind       resolve connect timeout closed tls certificate downgrade injection auth
--              rejected unsupported protocol limit cancelled busy
--   message    one line for a person
--   during     the phase: connect greeting capabilities starttls handshake auth envelope mail
--              rcpt data content delivery, or a command's name
--   temporary  true when it is worth trying again later
--   hint       what to do about it, when we can tell
--   code       SMTP reply code; status: enhanced status or response code; text: the
--              server's words - where the server spoke
--   reply      the reply to a command that was refused, with its response code's fields
--   delivery   "unknown" when a message's end was sent and no answer came
--   done, copied  what an IMAP call of several commands had done before one of them failed
-- `tostring(err)` is one line with all of that, and `..` works on it.
local core = require "starttls.core"

local errors = {}
local metatable = core.error_metatable

local function server_words(err)
  local words = {}
  if err.code then words[#words + 1] = tostring(err.code) end
  if err.status then words[#words + 1] = err.status end
  if err.text and err.text ~= "" then words[#words + 1] = err.text end
  return table.concat(words, " ")
end

--- One line that a terminal or a log can show: no control characters from the server.
local function one_line(text)
  return (text:gsub("%s*[\r\n]+%s*", " "):gsub("\t", " "):gsub("%c", "?"))
end

function metatable.__tostring(err)
  local parts = { err.message }
  local words = server_words(err)
  if words ~= "" then parts[#parts + 1] = (" (the server says: %s)"):format(words) end
  if err.hint then parts[#parts + 1] = "; " .. err.hint end
  parts[#parts + 1] = (" [%s, during %s]"):format(err.kind, err.during)
  return one_line(table.concat(parts))
end

function metatable.__concat(left, right)
  return tostring(left) .. tostring(right)
end

metatable.__name = "starttls.error"

--- Makes an error.
-- @param fields  kind, message and during at least; see above
-- @return the error object
function errors.new(fields)
  fields.temporary = fields.temporary or false
  return setmetatable(fields, metatable)
end

--- A copy of an error that says more: the same one may have been given to others.
-- @param err   the error
-- @param tell  function(fields): changes the copy's fields
-- @return the copy
function errors.with(err, tell)
  local fields = {}
  for name, value in pairs(err) do fields[name] = value end
  tell(fields)
  return errors.new(fields)
end

--- Makes an error from a server's reply.
-- @param kind     e.g. "rejected"
-- @param during   the phase
-- @param message  what was refused, for a person
-- @param reply    the reply, as starttls.core hands it out
-- @return the error object
function errors.from_reply(kind, during, message, reply)
  return errors.new {
    kind = kind, during = during, message = message,
    code = reply.code, status = reply.status, text = reply.text, reply = reply,
    temporary = reply.class == "transient",
  }
end

--- Whether a value is one of our errors.
function errors.is(value)
  return getmetatable(value) == metatable
end

return errors
