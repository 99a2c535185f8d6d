--- Messages as APPEND and its like take them: literals, or parts that the server puts together.
-- May rely on starttls.imap.class, starttls.imap.dates, starttls.content, starttls.error and
-- starttls.settings.
--
-- A letter is made before anything is sent, so that what can't be sent is found out in time:
--   flags, date   as they are written, or nil
--   parts         array of literals { source, size, kind, utf8 } and of { url }
--   size          octets of its literals together
--   catenated     true: the server puts the parts together (RFC 4469)
local Imap = require "starttls.imap.class"
local dates = require "starttls.imap.dates"
local content = require "starttls.content"
local errors = require "starttls.error"
local check_settings = require("starttls.settings").check

local letter = {}

local function misuse(what, words)
  error(("%s: %s"):format(what, words), 0)
end

-- {====== Literals ======

--- A source whose size the caller knows: it is read once, as it comes.
local function sized_literal(what, message, settings)
  if math.type(settings.size) ~= "integer" or settings.size < 0 then
    misuse(what, "the size must be a number of octets")
  end
  return { source = content.source(message, what .. ": 'message'"), size = settings.size }
end

local function measured_literal(what, message, settings)
  local source, size, has_nul = content.measured(message, what .. ": 'message'", settings.binary)
  if not source then return nil, content.failure("the message's source", what, size) end
  return { source = source, size = size }, has_nul
end

--- RFC 3516 4.4: octets of any kind go as literal8, where the server has BINARY. RFC 6855 4: a
-- message with UTF-8 in its header goes as literal8 in UTF8 ( ).
local function literal_of(self, what, message, settings)
  local make = settings.size and sized_literal or measured_literal
  local literal, more = make(what, message, settings)
  if not literal then return nil, more end
  local is_binary = settings.binary or more
  if is_binary and not self:has "BINARY" then
    return nil, errors.new { kind = "unsupported", during = what,
      message = "the message is binary, and the server does not offer BINARY" }
  end
  if settings.utf8 and not self.enabled["UTF8=ACCEPT"] then
    return nil, Imap.unsupported(what, "UTF8=ACCEPT (see enable)")
  end
  literal.utf8 = settings.utf8
  literal.kind = (is_binary or settings.utf8) and "content8" or "content"
  return literal
end

-- }======

-- {====== Parts that the server has already ======

--- RFC 3986 2.1: all but the unreserved characters. "/" too, as a name may begin with one.
local function percent_encoded(text)
  return (text:gsub("[^A-Za-z0-9._~-]", function(octet)
    return ("%%%02X"):format(octet:byte())
  end))
end

local function check_number(what, part, name, required)
  local value = part[name]
  if value == nil and not required then return end
  if math.type(value) ~= "integer" or value < 1 then
    misuse(what, ("a part's %s must be a positive integer"):format(name))
  end
end

local function check_text(what, part, name, pattern)
  local value = part[name]
  if type(value) ~= "string" or not utf8.len(value) or not value:find(pattern) then
    misuse(what, ("a part's %s is not what it must be"):format(name))
  end
end

--- The URL of a message, or of a part of it, on this server (RFC 5092 11, RFC 4469 3).
local function url_of(what, part)
  check_text(what, part, "mailbox", "^%Z+$")
  check_number(what, part, "uid", true)
  check_number(what, part, "uidvalidity")
  local name = percent_encoded(part.mailbox)
  if name:find "^%.+$" then name = name:gsub("%.", "%%2E") end -- else it goes up (RFC 3986 5.2.4)
  local words = { "/", name }
  if part.uidvalidity then words[#words + 1] = (";UIDVALIDITY=%d"):format(part.uidvalidity) end
  words[#words + 1] = ("/;UID=%d"):format(part.uid)
  if part.section then
    check_text(what, part, "section", "^%Z+$")
    words[#words + 1] = "/;SECTION=" .. percent_encoded(part.section)
  end
  if part.partial then
    check_text(what, part, "partial", "^%d+%.?%d*$")
    words[#words + 1] = "/;PARTIAL=" .. part.partial
  end
  return table.concat(words)
end

local function part_of(self, what, part)
  if type(part) ~= "table" then
    local literal, err = literal_of(self, what, part, {})
    if literal and literal.kind == "content8" then
      return nil, errors.new { kind = "unsupported", during = what,
        message = "a part has a NUL octet, which CATENATE can't carry" }
    end
    return literal, err
  end
  if part.partial then
    local able, err = self:needs(what, "URL-PARTIAL")
    if not able then return nil, err end
  end
  return { url = url_of(what, part), size = 0 }
end

local function parts_of(self, what, message, settings)
  if settings.size or settings.utf8 or settings.binary then
    misuse(what, "size, utf8 and binary are for messages that are no parts")
  end
  local able, err = self:needs(what, "CATENATE")
  if not able then return nil, err end
  local parts = {}
  for index, part in ipairs(message) do
    parts[index], err = part_of(self, what, part)
    if not parts[index] then return nil, err end
  end
  return parts
end

-- }======

--- Makes a letter.
-- @param self      the session
-- @param what      the call, for errors
-- @param message   string, open file, LTN12 source; or an array of these and of
--                  { mailbox, uid, uidvalidity, section, partial }: parts of other messages
-- @param settings  flags, date, size, binary, utf8: see append
-- @return the letter, or nil and an error
function letter.new(self, what, message, settings)
  settings = check_settings(what, settings, "flags date size binary utf8")
  local made = { flags = settings.flags, size = 0 }
  if made.flags ~= nil and type(made.flags) ~= "table" then
    misuse(what, "flags must be an array")
  end
  if settings.date ~= nil then made.date = dates.moment(settings.date, what) end
  made.catenated = type(message) == "table" and #message > 0
  local err
  if made.catenated then
    made.parts, err = parts_of(self, what, message, settings)
    if not made.parts then return nil, err end
  else
    made.parts = {}
    made.parts[1], err = literal_of(self, what, message, settings)
    if not made.parts[1] then return nil, err end
  end
  for _, part in ipairs(made.parts) do made.size = made.size + part.size end
  return made
end

-- {====== On the wire ======

local function add_literal(args, literal)
  if literal.utf8 then args:add("atom", "UTF8"):add("(", "") end
  args:add(literal.kind, ("%d"):format(literal.size))
  if literal.utf8 then args:add(")", "") end
end

--- Adds a letter to a command.
-- @param sources  array that gets the sources of its literals, in their order
function letter.write(made, args, sources)
  if made.flags then args:add_list("flag", made.flags) end
  if made.date then args:add("string", made.date) end
  if made.catenated then args:add("atom", "CATENATE"):add("(", "") end
  for _, part in ipairs(made.parts) do
    if made.catenated then args:add("atom", part.url and "URL" or "TEXT") end
    if part.url then args:add("string", part.url) else add_literal(args, part) end
    sources[#sources + 1] = part.source
  end
  if made.catenated then args:add(")", "") end
end

--- Feeds literals to a command, in their order.
-- @return a handler for "want_content"
function letter.feeder(sources, during)
  local index = 1
  return function(operation)
    local piece, err = sources[index]()
    if piece then
      operation:content(piece)
    elseif err then
      return nil, errors.with(content.failure("the message's source", during, err), function(fields)
        fields.hint = "the server waits for the rest of it, so the session is closed"
      end)
    else
      index = index + 1
      operation:content_end()
    end
    return true
  end
end

-- }======

return letter
