--- The body of a composed message: the content of its parts, encoded for any transport (RFC 2045),
-- and their tree (RFC 2046).
-- May rely on starttls.mime, starttls.content, starttls.error and starttls.message.header.
--
-- Encoded content is an array of segments: a string, or { size =, open = function } where the
-- function returns a source of exactly that many octets, which it takes from a file, say, as
-- they are wanted. All that comes out is 7bit, in lines of at most 998 octets that end in CRLF.
local mime = require "starttls.mime"
local content = require "starttls.content"
local errors = require "starttls.error"
local header = require "starttls.message.header"

local body = {}

local block = 57 * 1024 -- octets that are encoded at a time: whole lines of 57

-- Segments --------------------------------------------------------------------------------------

--- The size of segments.
function body.size(segments)
  local size = 0
  for _, segment in ipairs(segments) do
    size = size + (type(segment) == "string" and #segment or segment.size)
  end
  return size
end

--- A source over segments.
function body.source(segments)
  local at, inner = 0, nil
  return function()
    while true do
      if inner then
        local piece, err = inner()
        if piece or err then return piece, err end
        inner = nil
      end
      at = at + 1
      local segment = segments[at]
      if segment == nil then return nil end
      if type(segment) == "string" then return segment end
      local err
      inner, err = segment.open()
      if not inner then return nil, err end
    end
  end
end

--- The size of so many octets in base64: 4 for 3, and a line end for each 76.
local function base64_size(size)
  local encoded = (size + 2) // 3 * 4
  return encoded + (encoded + 75) // 76 * 2
end

--- A source in base64.
-- @param read  function that returns the next block, of whole lines but for the last one
local function base64_source(read)
  return function()
    local octets, err = read()
    return octets and mime.base64(octets), err
  end
end

--- A file's octets in blocks, and an error when they are not as many as they were.
local function blocks_of(file, path, size)
  local left = size
  return function()
    if not file then return nil end
    local octets, why = file:read(math.min(block, left + 1))
    if octets then left = left - #octets end
    if left < 0 or not octets and (why or left > 0) then
      file:close()
      file = nil
      return nil, errors.new { kind = "cancelled", during = "content",
        message = ("%s can't be sent: %s"):format(path, why or "its size has changed") }
    elseif not octets then
      file:close()
      file = nil
    end
    return octets
  end
end

local function cannot_read(path, why)
  why = why:gsub("^" .. path:gsub("%p", "%%%0") .. ": ", "")
  return nil, errors.new { kind = "cancelled", during = "compose",
    message = ("the file %s can't be read: %s"):format(path, why) }
end

--- The size of a file that can be read; or nil and an error.
local function file_size(path)
  local file <close>, why = io.open(path, "rb")
  if not file then return cannot_read(path, why) end
  local readable, reason = file:read(0) -- a directory says no; an empty file gives nil alone
  if not readable and reason then return cannot_read(path, reason) end
  local size
  size, reason = file:seek "end"
  if not size then return cannot_read(path, reason) end
  return size
end

--- A file in base64, read when it is sent.
-- @return segments; or nil and an error
function body.file(path)
  local size, err = file_size(path)
  if not size then return nil, err end
  return { { size = base64_size(size), open = function()
    local file, why = io.open(path, "rb")
    if not file then return cannot_read(path, why) end
    return base64_source(blocks_of(file, path, size))
  end } }
end

--- Octets in base64, as segments.
function body.octets(octets)
  if #octets <= block then return { mime.base64(octets) } end
  return { { size = base64_size(#octets), open = function()
    local at = 1
    return base64_source(function()
      if at > #octets then return nil end
      at = at + block
      return octets:sub(at - block, at - 1)
    end)
  end } }
end

--- Text in the shortest encoding that carries it.
-- @param text  UTF-8 with LF as its line end
-- @return its name (RFC 2045 6.1), and segments
function body.text(text)
  local encoding = mime.text_encoding(text)
  if encoding == "quoted-printable" then return encoding, { mime.quoted_printable(text) } end
  local lines = text:gsub("\n", "\r\n")
  if encoding == "base64" then return encoding, { mime.base64(lines) } end
  return encoding, { lines }
end

-- Messages in messages --------------------------------------------------------------------------

--- A source's pieces as blocks.
local function reblocked(source)
  local held, ended = "", false
  return function()
    local parts, size = { held }, #held
    while size < block and not ended do
      local piece, err = source()
      if err then return nil, err end
      ended = piece == nil
      parts[#parts + 1], size = piece, size + #(piece or "")
    end
    local text = table.concat(parts)
    local whole = ended and #text or #text // block * block
    held = text:sub(whole + 1)
    return whole > 0 and text:sub(1, whole) or nil
  end
end

--- What must be known of a message before it can be put into another.
-- @return its size, whether it is 7bit in lines of 998 octets; or nil and an error
local function measure(source)
  local size, is_7bit, line = 0, true, 0
  while true do
    local piece, err = source()
    if err then return nil, err end
    if not piece then return size, is_7bit end
    size = size + #piece
    for text, stop in piece:gmatch "([^\n]*)(\n?)" do
      line = line + #text
      if line > 999 then is_7bit = false end -- with the CR
      if stop ~= "" then line = 0 end
    end
    if piece:find "[\0\x80-\xff]" then is_7bit = false end
  end
end

--- A message as a part (RFC 2046 5.2.1). What can't be 7bit as it is, and may not be encoded as
-- message/rfc822, goes as message/global, which may (RFC 6532 3.7).
-- @param open  function that returns a source of it, as often as it is called
-- @return its type, its encoding, and segments; or nil and an error
function body.message(open)
  local function open_lines() return content.with_crlf(open()) end
  local size, is_7bit = measure(open_lines())
  if not size then
    return nil, content.failure("the attached message's source", "compose", is_7bit)
  end
  if is_7bit then return "message/rfc822", "7bit", { { size = size, open = open_lines } } end
  return "message/global", "base64", { { size = base64_size(size), open = function()
    return base64_source(reblocked(open_lines()))
  end } }
end

-- The tree --------------------------------------------------------------------------------------

--- A part that holds parts.
-- @param subtype     "mixed", "related" or "alternative"
-- @param parts       array of parts
-- @param parameters  array of { name, value }, beside the boundary
function body.multipart(subtype, parts, parameters)
  -- RFC 2046 5.1.1: not in any part. Nobody can guess it, and no encoding writes "=_".
  local boundary = "=_" .. mime.random_token()
  local all = { { "boundary", boundary } }
  table.move(parameters or {}, 1, #(parameters or {}), 2, all)
  return { type = "multipart/" .. subtype, parameters = all, parts = parts, boundary = boundary }
end

--- Collects segments, strings that follow each other as one.
local Collector = {}
Collector.__index = Collector

function Collector:add(segment)
  if type(segment) == "string" then
    self.texts[#self.texts + 1] = segment
    return
  end
  self:flush()
  self.segments[#self.segments + 1] = segment
end

function Collector:flush()
  if #self.texts == 0 then return end
  self.segments[#self.segments + 1] = table.concat(self.texts)
  self.texts = {}
end

local function write_fields(part, collector, is_utf8)
  collector:add(header.parameterized("Content-Type", part.type, part.parameters, is_utf8))
  if part.encoding and part.encoding ~= "7bit" then
    collector:add("Content-Transfer-Encoding: " .. part.encoding .. "\r\n")
  end
  if part.disposition then
    collector:add(header.parameterized("Content-Disposition", part.disposition,
      part.disposition_parameters, is_utf8))
  end
  if part.id then collector:add("Content-ID: <" .. part.id .. ">\r\n") end
  collector:add "\r\n"
end

local function write(part, collector, is_utf8)
  write_fields(part, collector, is_utf8)
  for _, inner in ipairs(part.parts or {}) do
    collector:add("--" .. part.boundary .. "\r\n")
    write(inner, collector, is_utf8)
    collector:add "\r\n"
  end
  if part.parts then collector:add("--" .. part.boundary .. "--\r\n") end
  for _, segment in ipairs(part.segments or {}) do collector:add(segment) end
end

--- A message as it is transferred.
-- @param fields   the text of its header, down to the fields of the uppermost part
-- @param part     the uppermost part: type, parameters (array of { name, value }), encoding,
--                 disposition, disposition_parameters, id; parts and boundary, or segments
-- @param is_utf8  whether the fields of parts may have UTF-8 as it is
-- @return segments
function body.write(fields, part, is_utf8)
  local collector = setmetatable({ texts = { fields }, segments = {} }, Collector)
  write(part, collector, is_utf8)
  collector:flush()
  return collector.segments
end

return body
