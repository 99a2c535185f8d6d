--- Messages that are objects, such as those of starttls.message: what send() makes of them.
-- May rely on starttls.content and starttls.error. It never requires starttls.message.
--
-- An object has a method `source`, see starttls.content. One that also has `envelope` knows whom
-- it is from and for, and can write itself in ASCII and in UTF-8: `envelope()` returns { from =,
-- to = array, utf8 = nil, "wanted" or "needed" }; `source { utf8 = boolean }`, the message in that
-- form, without blind copies. In ASCII, it is 7bit as a whole.
local content = require "starttls.content"
local errors = require "starttls.error"

local objects = {}

local function failure(kind, message)
  return nil, errors.new { kind = kind, during = "envelope", message = message }
end

--- Which form of a header goes out (RFC 6531 3.5).
-- @return true for UTF-8, or false; or nil and an error
local function decide_form(session, letter, need)
  local offered = session:has "SMTPUTF8"
  if need == "needed" and (letter.smtputf8 == false or not offered) then
    return failure("unsupported", "the message's header has an address that is not ASCII before "
      .. "the @, and the server does not offer SMTPUTF8, or it may not be used")
  end
  if letter.smtputf8 ~= nil then return letter.smtputf8 end
  return need == "needed" or need == "wanted" and offered or false
end

--- Makes a letter's message one that can be sent: a string, a source, or an object with the
-- method `source`, which can be called again. Sets `size` and `is_7bit`, and completes `from`,
-- `to` and `smtputf8`.
-- @param session  the session, for what the server offers
-- @param letter   from parameters.check
-- @return true, and whether the envelope is complete; or nil and an error
function objects.adopt(session, letter)
  local object = letter.message
  if not object.envelope then
    letter.message = object:source()
    return true, false
  end
  local envelope = object:envelope()
  letter.from, letter.to = letter.from or envelope.from, letter.to or envelope.to
  if #letter.to == 0 then
    return failure("rejected", "the message names no recipient: give 'to'")
  end
  local is_utf8, err = decide_form(session, letter, envelope.utf8)
  if is_utf8 == nil then return nil, err end
  letter.smtputf8, letter.is_7bit = is_utf8 or letter.smtputf8, not is_utf8
  local function open() return object:source { utf8 = is_utf8 } end
  local source, size = open()
  local first
  first, err = source()
  if err then return nil, content.failure("the message's source", "content", err) end
  letter.size = size
  letter.message = #first == size and first or { source = open }
  return true, true
end

return objects
