--- Header fields as they are written: folded (RFC 5322 2.2.3), with encoded words (RFC 2047) and
-- parameters in UTF-8 (RFC 2231), or in UTF-8 as it is (RFC 6532).
-- May rely on starttls.mime.
--
-- A line has 78 octets at most wherever it can be folded, and 998 in any case. The first line of
-- a field is never empty: there are readers that take such a field for an empty one. What is
-- given has passed `header.check`: no line break ever comes from a value.
local mime = require "starttls.mime"

local header = {}

local line_limit = 78 -- RFC 5322 2.1.1, line end apart
local word_limit = 75 -- RFC 2047 2: of an encoded word
local longest_word = 500 -- what is longer without a blank is encoded, so that it can be folded

--- Raises unless a value is text that a header can have: UTF-8 without control characters.
-- A tab is one that can be had.
-- @param value  anything
-- @param what   its name, for the error
-- @return the value
function header.check(value, what)
  if type(value) ~= "string" then
    error(("message: %s must be a string, not %s"):format(what, type(value)), 0)
  elseif value:find "[\r\n]" then
    error(("message: %s has a line break"):format(what), 0)
  elseif value:gsub("\t", ""):find "[\0-\31\127]" then
    error(("message: %s has a control character"):format(what), 0)
  elseif not utf8.len(value) then
    error(("message: %s is not valid UTF-8"):format(what), 0)
  end
  return value
end

-- Lines -----------------------------------------------------------------------------------------

local Field = {}
Field.__index = Field

--- Begins a field.
-- @param name     its name
-- @param is_utf8  whether it may have UTF-8 as it is
function header.field(name, is_utf8)
  return setmetatable({ parts = { name, ":" }, column = #name + 1, is_utf8 = is_utf8 or false,
    is_first = true }, Field)
end

--- The next line, if `length` more octets are too many for this one.
function Field:make_room(length)
  if self.is_first or self.column + length <= line_limit then return end
  self.parts[#self.parts + 1] = "\r\n"
  self.column = 0
end

--- Adds what can't be folded.
-- @param blank  the blanks before it (one space)
function Field:add(text, blank)
  blank = blank or " "
  self:make_room(#blank + #text)
  local parts = self.parts
  parts[#parts + 1] = blank
  parts[#parts + 1] = text
  self.column = self.column + #blank + #text
  self.is_first = false
end

--- The whole field.
function Field:text()
  self.parts[#self.parts + 1] = "\r\n"
  return table.concat(self.parts)
end

-- Encoded words ---------------------------------------------------------------------------------

local function hex(octet)
  return ("=%02X"):format(octet:byte())
end

--- RFC 2047 5 (3): what may stand for itself in a phrase, which is the strictest place.
local function q_encoded(text)
  return (text:gsub("[^A-Za-z0-9!*+/ -]", hex):gsub(" ", "_"))
end

--- The longest start of a text, of whole characters, that B needs no more than `room` for.
local function take_b(text, room)
  local last = math.min(#text, room // 4 * 3)
  while last < #text and text:find("^[\x80-\xbf]", last + 1) do last = last - 1 end
  return mime.base64(text:sub(1, last)):sub(1, -3), last
end

--- The same with Q.
local function take_q(text, room)
  local parts, size, last = {}, 0, 0
  for character in text:gmatch(utf8.charpattern) do
    local encoded = q_encoded(character)
    size = size + #encoded
    if size > room then break end
    parts[#parts + 1] = encoded
    last = last + #character
  end
  return table.concat(parts), last
end

local frame = "=?UTF-8?%s?%s?="
local frame_size = #frame:format("Q", "")

--- Adds a text as encoded words.
function Field:encode(text, blank)
  local is_q = #q_encoded(text) <= (#text + 2) // 3 * 4
  local take, mark = is_q and take_q or take_b, is_q and "Q" or "B"
  blank = blank or " "
  while text ~= "" do
    -- Four octets, of one character, take twelve in Q; a word of a few octets isn't worth it.
    self:make_room(#blank + frame_size + 12)
    local room = math.min(word_limit, line_limit - self.column - #blank) - frame_size
    local payload, last = take(text, math.max(room, 12))
    self:add(frame:format(mark, payload), blank)
    text, blank = text:sub(last + 1), " "
  end
end

--- Whether a text may stand in a field as it is, as far as its characters go.
-- What looks like an encoded word would be decoded.
function Field:is_plain(text)
  return not text:find(self.is_utf8 and "[\0-\31\127]" or "[^ -~]") and not text:find("=?", 1, true)
end

-- Text, names, addresses ------------------------------------------------------------------------

--- The words of a text: { blank =, text =, odd = whether it must be encoded }. Blanks at the
-- text's ends would be lost, so that they belong to a word.
local function words_of(field, text)
  local words = {}
  for blank, word in text:gmatch "( *)([^ ]+)" do
    words[#words + 1] = { blank = blank, text = word,
      odd = #word > longest_word or not field:is_plain(word) }
  end
  if #words == 0 then return { { blank = " ", text = text, odd = true } } end
  local first, last = words[1], words[#words]
  local rest = text:match " *$"
  if first.blank ~= "" then first.text, first.odd = first.blank .. first.text, true end
  if rest ~= "" then last.text, last.odd = last.text .. rest, true end
  first.blank = " "
  return words
end

--- Adds unstructured text (RFC 5322 3.2.5): encoded is what must be, as blanks between encoded
-- words don't count, together with those.
function Field:add_text(text)
  if text == "" then return end
  local words, at = words_of(self, text), 1
  while words[at] do
    local word = words[at]
    local run = word.text
    while word.odd and words[at + 1] and words[at + 1].odd do
      at = at + 1
      run = run .. words[at].blank .. words[at].text
    end
    if word.odd then self:encode(run, word.blank) else self:add(run, word.blank) end
    at = at + 1
  end
end

--- A field of unstructured text.
function header.unstructured(name, text, is_utf8)
  if #name + 2 + #text <= line_limit and text:find "^[!-~]" and not text:find "[^ -~]"
    and not text:find " $" and not text:find("=?", 1, true) then
    return name .. ": " .. text .. "\r\n"
  end
  local field = header.field(name, is_utf8)
  field:add_text(text)
  return field:text()
end

local atoms = "^[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]+$" -- RFC 5322 3.2.3

--- Whether a name is made of atoms with a blank between any two.
local function is_of_atoms(name)
  for word in (name .. " "):gmatch "([^ ]*) " do
    if not word:find(atoms) then return false end
  end
  return true
end

--- Adds a display name (RFC 5322 3.2.5), and what follows it at once.
-- @param behind  "" or ":"
function Field:add_phrase(name, behind)
  if #name > longest_word or not self:is_plain(name) then
    self:encode(name)
    if behind ~= "" then self:add(behind) end
  elseif is_of_atoms(name) then
    for word, rest in name:gmatch "([^ ]+)( ?)" do
      self:add(rest == "" and word .. behind or word)
    end
  else
    self:add('"' .. name:gsub('["\\]', "\\%0") .. '"' .. behind)
  end
end

--- Adds a list of mailboxes and groups (RFC 5322 3.4).
-- @param list    array of { name, address } and { name, group = array }
-- @param behind  what follows the last of them ("")
function Field:add_mailboxes(list, behind)
  for index, entry in ipairs(list) do
    local follows = index < #list and "," or behind or ""
    if entry.group then
      local is_empty = #entry.group == 0
      self:add_phrase(entry.name, is_empty and ":;" .. follows or ":")
      self:add_mailboxes(entry.group, ";" .. follows)
    elseif entry.name then
      self:add_phrase(entry.name, "")
      self:add("<" .. entry.address .. ">" .. follows)
    else
      self:add(entry.address .. follows)
    end
  end
end

--- A field of addresses.
function header.mailboxes(name, list, is_utf8)
  local field = header.field(name, is_utf8)
  field:add_mailboxes(list)
  return field:text()
end

--- A field of message ids (RFC 5322 3.6.4).
function header.ids(name, ids)
  local field = header.field(name)
  for _, id in ipairs(ids) do field:add(id) end
  return field:text()
end

-- Parameters ------------------------------------------------------------------------------------

local longest_value = 60

local function percent(octet)
  return ("%%%02X"):format(octet:byte())
end

--- RFC 2231 3, 4: in UTF-8, in as many sections as it takes.
local function extended(name, value)
  local pieces, size = { "" }, 0
  for character in value:gmatch(utf8.charpattern) do
    local encoded = character:gsub("[^A-Za-z0-9!#$&+.^_`{|}~-]", percent)
    if size + #encoded > longest_value then
      pieces[#pieces + 1], size = "", 0
    end
    pieces[#pieces], size = pieces[#pieces] .. encoded, size + #encoded
  end
  if not pieces[2] then return { name .. "*=UTF-8''" .. pieces[1] } end
  for index, piece in ipairs(pieces) do
    pieces[index] = ("%s*%d*=%s%s"):format(name, index - 1, index == 1 and "UTF-8''" or "", piece)
  end
  return pieces
end

--- A parameter, in one piece or more.
local function parameter(field, name, value)
  local is_short = #value <= longest_value
  if is_short and value:find "^[A-Za-z0-9!#$&+.^_`{|}~-]+$" then return { name .. "=" .. value } end
  if is_short and value ~= "" and field:is_plain(value) and not value:find '["\\]' then
    return { name .. '="' .. value .. '"' }
  end
  return extended(name, value)
end

--- A field of a value and parameters (RFC 2045 5.1, RFC 2183 2).
-- @param value       such as "text/plain"
-- @param parameters  array of { name, value }
function header.parameterized(name, value, parameters, is_utf8)
  local field = header.field(name, is_utf8)
  local pieces = { value }
  for _, it in ipairs(parameters) do
    local more = parameter(field, it[1], it[2])
    table.move(more, 1, #more, #pieces + 1, pieces)
  end
  for index, piece in ipairs(pieces) do field:add(index < #pieces and piece .. ";" or piece) end
  return field:text()
end

-- Dates -----------------------------------------------------------------------------------------

local days = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" }
local months = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov",
  "Dec" }

--- A date (RFC 5322 3.3), in UTC, whatever the locale calls its months.
-- @param seconds  since the epoch
function header.date(seconds)
  local t = os.date("!*t", seconds)
  return ("%s, %d %s %04d %02d:%02d:%02d +0000"):format(days[t.wday], t.day, months[t.month],
    t.year, t.hour, t.min, t.sec)
end

return header
