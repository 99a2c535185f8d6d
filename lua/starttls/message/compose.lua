--- Messages from a table of what they say: header, body, and the envelope that goes with them.
-- May rely on starttls.mime, starttls.content and what is in starttls/message/.
--
-- All that a script can do wrong raises in `compose.new`, before anything is written: an unknown
-- field, a line break in a value, an address that can't be read. What is made there stays as it
-- is; only files are read later, when the message is sent.
local mime = require "starttls.mime"
local content = require "starttls.content"
local body = require "starttls.message.body"
local header = require "starttls.message.header"
local mailboxes = require "starttls.message.mailboxes"
local type_of_name = require "starttls.message.types"

local compose = {}

local Composed = {}
Composed.__index = Composed
Composed.__name = "starttls.message"

local function misuse(format, ...)
  error("message: " .. format:format(...), 0)
end

local function check_type(value, expected, what)
  if type(value) ~= expected then
    misuse("%s must be a %s, not a %s", what, expected, type(value))
  end
  return value
end

local function check_fields(given, known, what)
  check_type(given, "table", what)
  for name in pairs(given) do
    if not known[name] then misuse("unknown field '%s' of %s", tostring(name), what) end
  end
end

-- Who, when, which ------------------------------------------------------------------------------

local recipients = { "to", "cc", "bcc" }

local function is_mailbox(list)
  return #list == 1 and not list[1].group
end

--- Reads the fields that have addresses (RFC 5322 3.6.2, 3.6.3).
local function read_people(given)
  local people = {}
  for _, name in ipairs { "from", "sender", "to", "cc", "bcc", "reply_to" } do
    if given[name] ~= nil then people[name] = mailboxes.read(given[name], "'" .. name .. "'") end
  end
  local from = people.from
  if not from or #from == 0 then misuse "'from' is missing" end
  for _, entry in ipairs(from) do
    if entry.group then misuse "'from' has a group" end
  end
  if people.sender and not is_mailbox(people.sender) then misuse "'sender' must be one address" end
  if #from > 1 and not people.sender then
    misuse("'from' has %d addresses: 'sender' must say which of them sends", #from)
  end
  return people
end

--- The envelope (RFC 5321 2.3.1): blind copies are here, and nowhere else.
local function envelope_of(people)
  local sender = people.sender or people.from
  local to, seen = {}, {}
  for _, name in ipairs(recipients) do
    for _, address in ipairs(mailboxes.flatten(people[name] or {}, {})) do
      -- Local parts may differ in case, domains don't (RFC 5321 2.4).
      local key = address:gsub("@[^@]*$", string.lower)
      if not seen[key] then to[#to + 1] = address end
      seen[key] = true
    end
  end
  return { from = sender[1].address, to = to }
end

--- A message id in its brackets (RFC 5322 3.6.4). Longer ones don't fit into a line.
local function check_id(id, what)
  header.check(id, what)
  local left, right = id:match "^<?([^<>%s]+)@([^<>@%s]+)>?$"
  if not left or id:find "^<" and not id:find ">$" or id:find ">$" and not id:find "^<"
    or id:find "[\x80-\xff]" or #id > 900 then
    misuse("%s is no message id, as in <left@right>", what)
  end
  return "<" .. left .. "@" .. right .. ">"
end

--- An id, a text with several, or an array of both.
local function check_ids(given, what)
  if type(given) == "string" then given = { given } end
  local ids = {}
  for _, text in ipairs(check_type(given, "table", what)) do
    for id in header.check(text, what):gmatch "[^%s,]+" do ids[#ids + 1] = check_id(id, what) end
  end
  return ids
end

local last_second = 253402300799 -- of the year 9999

local function check_date(date)
  if date == nil then return os.time() end
  if math.type(date) ~= "integer" or date < 0 or date > last_second then
    misuse "'date' must be seconds since the epoch, as an integer"
  end
  return date
end

--- RFC 5322 3.6.4: the sender's domain, and what nobody else has made.
local function new_id(address)
  local domain = address:match "@([%w.-]+)$" or "localhost"
  return ("<%s@%s>"):format(mime.random_token(), domain)
end

-- The caller's own header fields ----------------------------------------------------------------

--- Fields that have a place of their own, or none in a new message.
local reserved = {}
for name in ([[from sender to cc bcc reply-to subject date message-id in-reply-to references
  mime-version return-path received]]):gmatch "%S+" do
  reserved[name] = true
end

local function check_name(name)
  check_type(name, "string", "the name of a header field")
  local lower = name:lower()
  if not name:find "^[!-9;-~]+$" or #name > 76 then
    misuse("%q can't be the name of a header field", name)
  elseif reserved[lower] or lower:find "^content%-" or lower:find "^resent%-" then
    misuse("the header field %s can't be given in 'headers'", name)
  end
  return name
end

local function add_field(fields, name, value)
  check_name(name)
  if type(value) ~= "table" then value = { value } end
  for _, text in ipairs(value) do
    if math.type(text) then text = tostring(text) end
    fields[#fields + 1] = { name, header.check(text, "the header field " .. name) }
  end
end

--- Reads `headers`: name = value, or name = array of values, which come in the order of the
-- names; { name, value } in the array's order.
local function read_headers(given)
  local fields, names = {}, {}
  for name, value in pairs(check_type(given, "table", "'headers'")) do
    if math.type(name) ~= "integer" then
      names[#names + 1] = check_name(name)
    elseif type(value) ~= "table" or #value ~= 2 then
      misuse "an entry of 'headers' must be { name, value }"
    end
  end
  table.sort(names)
  for _, pair in ipairs(given) do add_field(fields, pair[1], pair[2]) end
  for _, name in ipairs(names) do add_field(fields, name, given[name]) end
  return fields
end

-- Parts -----------------------------------------------------------------------------------------

--- Text for `text` and `html`: one kind of line end, also behind the last line.
local function check_text(text, what)
  check_type(text, "string", what)
  if not utf8.len(text) then misuse("%s is not valid UTF-8", what) end
  text = text:gsub("\r\n?", "\n")
  if text ~= "" and text:sub(-1) ~= "\n" then text = text .. "\n" end
  return text
end

local function text_part(subtype, text)
  local encoding, segments = body.text(text)
  local charset = text:find "[\x80-\xff]" and "utf-8" or "us-ascii"
  return { type = "text/" .. subtype, parameters = { { "charset", charset } },
    encoding = encoding, segments = segments }
end

local token = "[%w!#$&+^_.-]+" -- RFC 6838 4.2

local function check_media_type(kind, what)
  header.check(kind, "the type of " .. what)
  if not kind:find("^" .. token .. "/" .. token .. "$") then
    misuse("the type of %s must be as in text/csv, not %q", what, kind)
  elseif kind:lower():find "^multipart/" or kind:lower():find "^message/" then
    misuse("the type of %s can't be %s: give a message as { message = ... }", what, kind)
  end
  return kind:lower()
end

local function file_name(given, what)
  local name = given.name
  if name == nil and given.file then name = given.file:match "[^/]+$" end
  if name == nil then return nil end
  header.check(name, "the name of " .. what)
  if name == "" or #name > 1000 then misuse("the name of %s is empty, or too long", what) end
  return name
end

local function charset_parameters(given, kind, what)
  local charset = given.charset
  if charset ~= nil then
    if not header.check(charset, "the charset of " .. what):find("^" .. token .. "$") then
      misuse("the charset of %s is no name of one", what)
    end
  elseif kind:find "^text/" and given.content and utf8.len(given.content) then
    charset = "utf-8"
  end
  return charset and { { "charset", charset } } or {}
end

--- An attachment from a file or from octets.
-- @return a part; or nil and an error, when the file can't be read
local function file_part(given, disposition, what)
  if (given.file == nil) == (given.content == nil) then
    misuse("%s needs either 'file' or 'content'", what)
  end
  if given.file ~= nil then
    if check_type(given.file, "string", "the file of " .. what):find "\0" then
      misuse("the file of %s has a NUL in its name", what)
    end
  else
    check_type(given.content, "string", "the content of " .. what)
  end
  local name = file_name(given, what)
  local kind = given.type == nil and (name and type_of_name(name) or "application/octet-stream")
    or check_media_type(given.type, what)
  local parameters = charset_parameters(given, kind, what)
  local segments, err
  if given.file then segments, err = body.file(given.file)
  else segments = body.octets(given.content) end
  if not segments then return nil, err end
  return { type = kind, parameters = parameters, encoding = "base64", segments = segments,
    disposition = disposition, disposition_parameters = name and { { "filename", name } } or {} }
end

local file_fields = { file = true, content = true, name = true, type = true, charset = true }
local message_fields = { message = true, name = true }

--- A message as an attachment: one of ours, any object with a method `source`, or its text.
local function message_part(given, what)
  check_fields(given, message_fields, what)
  local other, name = given.message, file_name(given, what)
  local kind, encoding, segments
  if getmetatable(other) == Composed and not other.is_utf8_needed then
    kind, encoding, segments = "message/rfc822", "7bit", other:segments(false)
  elseif type(other) == "string" then
    kind, encoding, segments = body.message(function() return body.source { other } end)
  elseif content.is_object(other) then
    kind, encoding, segments = body.message(function() return other:source() end)
  else
    misuse("%s must be a message, or the text of one", what)
  end
  if not kind then return nil, encoding end
  return { type = kind, parameters = {}, encoding = encoding, segments = segments,
    disposition = "attachment", disposition_parameters = name and { { "filename", name } } or {} }
end

local function attachment_part(given, what)
  check_type(given, "table", what)
  if given.message ~= nil then return message_part(given, what) end
  check_fields(given, file_fields, what)
  return file_part(given, "attachment", what)
end

--- The html with what it shows (RFC 2387): { html, inline ... }.
local function related_part(html, inline)
  local names, parts = {}, { html }
  for name in pairs(check_type(inline, "table", "'inline'")) do
    -- RFC 2392 2: what a URL has as it is.
    if type(name) ~= "string" or not name:find "^[%w._+~@-]+$" or #name > 200 then
      misuse "a name in 'inline' must be of letters, digits and . _ + ~ @ -"
    end
    names[#names + 1] = name
  end
  if #names == 0 then return html end
  table.sort(names)
  for _, name in ipairs(names) do
    local what = "inline." .. name
    check_fields(inline[name], file_fields, what)
    local part, err = file_part(inline[name], "inline", what)
    if not part then return nil, err end
    part.id = name
    parts[#parts + 1] = part
  end
  return body.multipart("related", parts, { { "type", "text/html" } })
end

--- What is read: text, html, or both for the reader to choose from (RFC 2046 5.1.4).
local function readable_part(given)
  local text = given.text ~= nil and text_part("plain", check_text(given.text, "'text'"))
  local html = given.html ~= nil and text_part("html", check_text(given.html, "'html'"))
  if given.inline ~= nil then
    if not html then misuse "'inline' is for what 'html' shows" end
    local err
    html, err = related_part(html, given.inline)
    if not html then return nil, err end
  end
  if text and html then return body.multipart("alternative", { text, html }) end
  return text or html or text_part("plain", "")
end

--- The whole tree.
local function tree_of(given)
  local attachments = check_type(given.attachments or {}, "table", "'attachments'")
  local main, err = readable_part(given)
  if not main then return nil, err end
  local parts = { main }
  if given.text == nil and given.html == nil then parts = {} end
  for key in pairs(attachments) do
    if math.type(key) ~= "integer" then misuse "'attachments' must be an array" end
  end
  for index, attachment in ipairs(attachments) do
    local part
    part, err = attachment_part(attachment, ("attachments[%d]"):format(index))
    if not part then return nil, err end
    parts[#parts + 1] = part
  end
  return #attachments > 0 and body.multipart("mixed", parts) or main
end

-- Writing ---------------------------------------------------------------------------------------

local people_fields = { { "From", "from" }, { "Sender", "sender" }, { "Reply-To", "reply_to" },
  { "To", "to" }, { "Cc", "cc" } }

--- The header down to the fields of the body.
local function write_header(self, is_utf8)
  local parts = { "Date: ", header.date(self.date), "\r\n" }
  local people = is_utf8 and self.people or self.ascii_people
  for _, row in ipairs(people_fields) do
    local list = people[row[2]]
    if list and #list > 0 then parts[#parts + 1] = header.mailboxes(row[1], list, is_utf8) end
  end
  if self.subject then
    parts[#parts + 1] = header.unstructured("Subject", self.subject, is_utf8)
  end
  parts[#parts + 1] = header.ids("Message-ID", { self.message_id })
  if #self.in_reply_to > 0 then
    parts[#parts + 1] = header.ids("In-Reply-To", self.in_reply_to)
  end
  if #self.references > 0 then parts[#parts + 1] = header.ids("References", self.references) end
  for _, field in ipairs(self.fields) do
    parts[#parts + 1] = header.unstructured(field[1], field[2], is_utf8)
  end
  parts[#parts + 1] = "MIME-Version: 1.0\r\n"
  return table.concat(parts)
end

--- The message in one of its two forms.
function Composed:segments(is_utf8)
  return body.write(write_header(self, is_utf8), self.tree, is_utf8)
end

local settings_fields = { utf8 = true }

local function wants_utf8(self, settings)
  if settings == nil then return self.is_utf8_needed end
  check_fields(settings, settings_fields, "a message's settings")
  return settings.utf8 or self.is_utf8_needed
end

--- The people of a header in ASCII, and whether there is no such header.
local function ascii_people(people)
  local ascii = {}
  for name, list in pairs(people) do
    local it = name ~= "bcc" and mailboxes.to_ascii(list)
    if name ~= "bcc" and not it then return people, true end
    ascii[name] = it
  end
  return ascii, false
end

-- For scripts and sessions ----------------------------------------------------------------------

local known = { from = true, sender = true, to = true, cc = true, bcc = true, reply_to = true,
  subject = true, date = true, text = true, html = true, inline = true, attachments = true,
  headers = true, in_reply_to = true, references = true, message_id = true, utf8 = true }

--- Makes a message. See docs/message.md for the fields.
-- @param given  table: from; sender, to, cc, bcc, reply_to, subject, date, text, html, inline,
--               attachments, headers, in_reply_to, references, message_id, utf8
-- @return the message; or nil and an error of kind "cancelled", when a file can't be read.
--         Raises on misuse, such as a line break in a value.
function compose.new(given)
  check_fields(given, known, "a message")
  local self = setmetatable({}, Composed)
  self.people, self.date = read_people(given), check_date(given.date)
  if given.subject ~= nil then self.subject = header.check(given.subject, "'subject'") end
  if given.utf8 ~= nil then check_type(given.utf8, "boolean", "'utf8'") end
  self.is_utf8_wanted = given.utf8 or false
  self.ascii_people, self.is_utf8_needed = ascii_people(self.people)
  self.in_reply_to = check_ids(given.in_reply_to or {}, "'in_reply_to'")
  self.references = check_ids(given.references or {}, "'references'")
  self.fields = read_headers(given.headers or {})
  self.message_id = given.message_id ~= nil and check_id(given.message_id, "'message_id'")
    or new_id(self.ascii_people.from[1].address)
  local err
  self.tree, err = tree_of(given)
  if not self.tree then return nil, err end
  return self
end

--- A source of the message, from its beginning, with CRLF as its line end; all of it 7bit,
-- unless in UTF-8. Each call returns a new one.
-- @param settings  optional: { utf8 = true } has header fields in UTF-8 as it is (RFC 6532)
-- @return the source, and how many octets it gives
function Composed:source(settings)
  local segments = self:segments(wants_utf8(self, settings))
  return body.source(segments), body.size(segments)
end

--- How many octets its source gives.
function Composed:size(settings)
  return body.size(self:segments(wants_utf8(self, settings)))
end

--- The envelope: { from = address, to = array of addresses, utf8 = nil, "wanted" (where the
-- server has SMTPUTF8) or "needed" (an address of the header has no ASCII form) }.
function Composed:envelope()
  local envelope = envelope_of(self.people)
  envelope.utf8 = self.is_utf8_needed and "needed" or self.is_utf8_wanted and "wanted" or nil
  return envelope
end

--- The whole message as it is transferred. Raises an error object when a file can't be read.
function Composed:__tostring()
  local parts, source = {}, self:source()
  while true do
    local piece, err = source()
    if err then error(err, 0) end
    if not piece then return table.concat(parts) end
    parts[#parts + 1] = piece
  end
end

return compose
