--- The envelope of a message from its own header (RFC 5322 3.6), and the header without Bcc.
-- May rely on starttls.core, starttls.addresses, starttls.content and starttls.error.
--
-- Only the header is read, within a limit; what follows streams on as it is. A line ends as it
-- will on the wire, where CR, LF and CRLF all become CRLF: so nothing can hide a Bcc from us
-- that a reader of the message will see.
local core = require "starttls.core"
local addresses = require "starttls.addresses"
local content = require "starttls.content"
local errors = require "starttls.error"

local envelope = {}

--- Octets of a header, blank line apart.
local header_limit = 1024 * 1024

local function failure(kind, format, ...)
  return nil, errors.new { kind = kind, during = "envelope", message = format:format(...) }
end

-- The header ----------------------------------------------------------------------------------

--- What kind of a line begins at `at`: "blank", "folded", "field" (and the field's name, and
-- where its body begins), or nil for one that belongs into no header.
local function line_kind(text, at)
  local c = text:byte(at)
  if c == 13 or c == 10 then return "blank" end
  if c == 32 or c == 9 then return "folded" end
  -- RFC 5322 2.2, and 4.5 for the blanks before the colon; a line has 998 octets.
  local name, after = text:sub(at, at + 997):match "^([!-9;-~]+)[ \t]*:()"
  if name then return "field", name:lower(), at + after - 1 end
end

--- Where the line that begins at `at` ends, its line end included; nil when that is not there yet.
local function line_end(text, at, ended)
  local stop = text:find("[\r\n]", at)
  if not stop then return ended and #text or nil end
  if text:byte(stop) == 10 then return stop end
  if stop == #text and not ended then return nil end -- an LF may follow
  return text:byte(stop + 1) == 10 and stop + 1 or stop
end

--- Looks for the header's end, from where it last stopped.
-- @param header  { fields = {}, at = 1 }; a field is { name, first, body, last } with offsets
-- @param ended   whether this is all of the message
-- @return whether the end is found: `at` is where the blank line or the body begins
local function scan(header, text, ended)
  local fields = header.fields
  while header.at <= #text do
    local at = header.at
    local kind, name, body = line_kind(text, at)
    if kind == "blank" then return true end
    local is_alien = not kind or kind == "folded" and #fields == 0
    local last = not (is_alien and #text - at >= 998) and line_end(text, at, ended)
    if is_alien and (last or #text - at >= 998) then
      header.malformed = true
      return true
    end
    if not last or last > header_limit then return false end
    if kind == "field" then
      fields[#fields + 1] = { name = name, first = at, body = body, last = last }
    else
      fields[#fields].last = last
    end
    header.at = last + 1
  end
  return ended
end

--- Takes more text from a source: about as much as there is, so that the sum of the work stays
-- linear however small the pieces are.
-- @return the longer text, and whether the source ended; or nil and what the source gave as error
local function grow(source, text)
  local parts, wanted, ended = { text }, math.max(#text, 1024), false
  while wanted > 0 and not ended do
    local piece, err = source()
    if err then return nil, err end
    ended = piece == nil
    if not ended and type(piece) ~= "string" then
      error(("send: the message's source gave a %s"):format(type(piece)), 0)
    end
    parts[#parts + 1] = piece
    wanted = wanted - #(piece or "")
  end
  return table.concat(parts), ended
end

--- Reads a message up to its body.
-- @param message  a string, which is looked at in place
-- @param source   where else it comes from
-- @return { fields, at, malformed, text, ended }; or nil and an error
local function read_header(message, source)
  local header = { fields = {}, at = 1, text = "", ended = false }
  if type(message) == "string" then header.text, header.ended = message, true end
  while not scan(header, header.text, header.ended) do
    if #header.text > header_limit then
      return failure("limit", "the message's header is longer than %d octets", header_limit)
    end
    local text, ended = grow(source, header.text)
    if not text then return nil, ended end
    header.text, header.ended = text, ended
  end
  return header
end

-- Who it is from, and for ---------------------------------------------------------------------

--- RFC 5322 3.6.6: resent fields are put on top, so that the first run of them is the last time;
-- a name that comes again belongs to the time before.
local function resent_block(fields)
  local block, seen = {}, {}
  for _, field in ipairs(fields) do
    local is_resent = field.name:find "^resent%-"
    if #block > 0 and (not is_resent or seen[field.name]) then break end
    if is_resent then
      block[#block + 1] = field
      seen[field.name] = true
    end
  end
  return #block > 0 and block or nil
end

--- The addresses of all fields of one name.
-- @return an array, and how many fields there are; or nil and an error
local function addresses_in(header, fields, name)
  local list, count = {}, 0
  for _, field in ipairs(fields) do
    if field.name == name then
      count = count + 1
      local body = header.text:sub(field.body, field.last):gsub("[\r\n]", "")
      local found, why = addresses.parse(body)
      if not found then
        return failure("rejected", "the message's field %s can't be read: %s", name, why)
      end
      table.move(found, 1, #found, #list + 1, list)
    end
  end
  return list, count
end

--- The sender (RFC 5322 3.6.2): one mailbox. Who wrote stands in From, who sent in Sender.
local function sender_of(header, fields, prefix)
  for _, name in ipairs { prefix .. "sender", prefix .. "from" } do
    local list, count = addresses_in(header, fields, name)
    if not list then return nil, count end
    if #list == 1 and count == 1 then return list[1] end
    if count > 0 then
      return failure("rejected", "the message's header has %d addresses in %s: give 'from'", #list,
        name)
    end
  end
  return failure("rejected", "the message's header does not say who sends it: give 'from'")
end

--- Local parts may differ in case, domains don't (RFC 5321 2.4).
local function same_mailbox(address)
  return (address:gsub("@[^@]*$", string.lower))
end

local function recipients_of(header, fields, prefix)
  local all, seen = {}, {}
  for _, name in ipairs { prefix .. "to", prefix .. "cc", prefix .. "bcc" } do
    local list, err = addresses_in(header, fields, name)
    if not list then return nil, err end
    for _, address in ipairs(list) do
      local key = same_mailbox(address)
      if not seen[key] then all[#all + 1] = address end
      seen[key] = true
    end
  end
  if #all > 0 then return all end
  return failure("rejected", "the message's header names no recipient: give 'to'")
end

--- Fills in what the caller left out.
local function address_letter(letter, header)
  if header.malformed then
    return failure("rejected", "the message's header has a line that is no header field, or "
      .. "lacks the blank line behind it: give 'from' and 'to'")
  end
  local block = resent_block(header.fields)
  local fields, prefix = block or header.fields, block and "resent-" or ""
  local err
  if not letter.from then
    letter.from, err = sender_of(header, fields, prefix)
    if not letter.from then return nil, err end
  end
  if not letter.to then
    letter.to, err = recipients_of(header, fields, prefix)
    if not letter.to then return nil, err end
  end
  return true
end

-- What is sent --------------------------------------------------------------------------------

--- The header's text without the blind copies (RFC 5322 3.6.3), and how much shorter it is.
local function without_bcc(header)
  local parts, from = {}, 1
  for _, field in ipairs(header.fields) do
    if field.name == "bcc" or field.name == "resent-bcc" then
      parts[#parts + 1] = header.text:sub(from, field.first - 1)
      from = field.last + 1
    end
  end
  parts[#parts + 1] = header.text:sub(from, header.at - 1)
  local text = table.concat(parts)
  return text, header.at - 1 - #text
end

--- A source that gives `text` first, and then what `rest` gives.
local function before(text, rest)
  return function()
    if not text then return rest() end
    local piece = text
    text = nil
    return piece
  end
end

--- A source for a file from an offset on, which moves the file only when it is read.
local function from_offset(file, offset)
  local read
  return function()
    if not read then
      file:seek("set", offset)
      read = content.source(file, "message")
    end
    return read()
  end
end

--- What was read of a stream, and then the rest of it.
local function rejoin(text, header, source)
  return before(text .. header.text:sub(header.at), header.ended and function() end or source)
end

--- A source without blind copies, which reads nothing of a stream before it is read itself.
local function filter(source)
  local rest
  return function()
    if not rest then
      local header, err = read_header(nil, source)
      if not header then return nil, err end
      rest = rejoin(without_bcc(header), header, source)
    end
    return rest()
  end
end

--- The message without blind copies, as the kind of thing it was where it has none.
local function strip(letter, header, source, start)
  local message, text, removed = letter.message, without_bcc(header)
  if letter.keep_bcc then text, removed = header.text:sub(1, header.at - 1), 0 end
  if type(message) ~= "string" and not start then
    letter.message = rejoin(text, header, source)
  elseif removed > 0 and start then
    letter.message = before(text, from_offset(message, start + header.at - 1))
  elseif removed > 0 then
    letter.message = text .. message:sub(header.at)
  end
  if letter.size then letter.size = letter.size - removed end
end

--- Most messages have no blind copies: for those that are whole and addressed, that is all.
local function is_blameless(message)
  return type(message) == "string" and not core.may_have_field(message, "bcc")
    and not core.may_have_field(message, "resent-bcc")
end

--- Completes a letter: `from` and `to` out of the header where they are missing (`to` as an array
-- of addresses), `message` and `size` without Bcc and Resent-Bcc unless `keep_bcc`.
-- Where it can be helped, nothing is taken from a stream before its content is wanted: an open
-- file stays where it is, a function is called only to see whom the message is for.
-- @param letter  from, to, message (string, open file, source), size or nil, keep_bcc
-- @return true; or nil and an error of kind "rejected" (a header that does not tell), "limit"
--         (longer than 1 MiB) or "cancelled" (the source failed)
function envelope.complete(letter)
  local message, is_addressed = letter.message, letter.from and letter.to
  if is_addressed and (letter.keep_bcc or is_blameless(message)) then return true end
  local source = content.source(message, "send: 'message'")
  local start = io.type(message) == "file" and message:seek() or nil
  if is_addressed and not start and type(message) ~= "string" then
    letter.message = filter(source)
    return true
  end
  local header, err = read_header(message, source)
  if start then message:seek("set", start) end
  if not header then return nil, content.failure("the message's source", "envelope", err) end
  if not is_addressed then
    local ok
    ok, err = address_letter(letter, header)
    if not ok then return nil, err end
  end
  strip(letter, header, source, start)
  return true
end

return envelope
