--- Message content on its way in and out: strings, open files, LTN12 functions.
-- May rely on starttls.error only.
--
-- A source is a function that returns the next piece, nil at the end, or nil and
-- an error. A sink is a function that takes a piece, and nil at the end, and
-- returns true, or nil and an error.
--
-- A message may also be an object: a value with a method `source`, which returns such a function
-- each time it is called, for octets whose line end is CRLF, and their number where it is known.
-- starttls.message makes objects; nothing here knows how.
local errors = require "starttls.error"

local content = {}

local piece_size = 64 * 1024

local function is_open_file(value)
  return io.type(value) == "file"
end

--- Whether a value is a message as an object.
function content.is_object(value)
  local kind = type(value)
  return (kind == "table" or kind == "userdata" and not io.type(value))
    and type(value.source) == "function"
end

--- A source for a message given as a string, an open file, a function or an object.
-- @param message  what the caller gave
-- @param what     its name, for errors
-- @return the source, and the message's size in octets where that is known at once.
--         Raises for anything else.
function content.source(message, what)
  if type(message) == "string" then
    local given = false
    return function()
      if given then return nil end
      given = true
      return message
    end, #message
  elseif is_open_file(message) then
    return function() return message:read(piece_size) end, nil
  elseif type(message) == "function" then
    return message, nil
  elseif content.is_object(message) then
    return message:source()
  end
  error(("%s must be a string, an open file or a source function, not %s")
    :format(what, io.type(message) or type(message)), 0)
end

--- The error for a message that is too long for a string.
function content.too_long(during, limit)
  return errors.new { kind = "limit", during = during,
    message = ("the message is longer than the limit of %d bytes for a string"):format(limit),
    hint = "give a file or a function to take it, or raise limits.string" }
end

--- A sink for what the caller gave: an open file, a function, or nothing for a string.
-- @param target  file, function or nil
-- @param limit   octets that a string may have; beyond that the sink fails
-- @param during  the phase, for that error
-- @return the sink, and a function that returns the string (nil when the content went elsewhere)
function content.sink(target, limit, during)
  if target == nil then
    local pieces, size = {}, 0
    return function(piece)
      if not piece then return true end
      size = size + #piece
      if size > limit then return nil, content.too_long(during, limit) end
      pieces[#pieces + 1] = piece
      return true
    end, function() return #pieces == 1 and pieces[1] or table.concat(pieces) end
  elseif is_open_file(target) then
    return function(piece)
      if not piece then return true end
      return target:write(piece)
    end, function() end
  elseif type(target) == "function" then
    return target, function() end
  end
  error(("sink must be an open file or a function, not %s")
    :format(io.type(target) or type(target)), 0)
end

--- What a failed source or sink of the caller becomes.
function content.failure(who, during, err)
  if errors.is(err) then return err end
  return errors.new { kind = "cancelled", during = during,
    message = ("%s failed: %s"):format(who, tostring(err or "it gave no reason")) }
end

--- The same text with CRLF as its only line end.
-- @param source  a source
-- @return a source
function content.with_crlf(source)
  local held = "" -- a CR at a piece's end, whose LF may follow
  local ended = false
  return function()
    if ended then return nil end
    local piece, err = source()
    if err then return nil, err end
    if not piece then
      ended = true
      return held ~= "" and "\r\n" or nil
    end
    piece = held .. piece
    held = piece:sub(-1) == "\r" and "\r" or ""
    if held ~= "" then piece = piece:sub(1, -2) end
    if not piece:find("[\r\n]") then return piece end
    return (piece:gsub("\r\n", "\n"):gsub("\r", "\n"):gsub("\n", "\r\n"))
  end
end

--- Reads a source to its end.
-- @return its octets, and whether a NUL is among them; or nil and an error
local function measure(source)
  local size, has_nul = 0, false
  while true do
    local piece, err = source()
    if err then return nil, err end
    if not piece then return size, has_nul end
    size = size + #piece
    has_nul = has_nul or piece:find("\0", 1, true) ~= nil
  end
end

--- Writes a source into a temporary file, so that its size is known and it can be read again.
-- @return the file, at its beginning, and its size; or nil and an error
function content.spool(source)
  local file, err = io.tmpfile()
  if not file then return nil, err end
  repeat
    local piece
    piece, err = source()
    if piece and not err then err = select(2, file:write(piece)) end
    if err then
      file:close()
      return nil, err
    end
  until not piece
  local size = file:seek "end"
  file:seek "set"
  return file, size
end

--- A string with CRLF line ends.
local function text_with_crlf(text)
  local source = content.with_crlf(content.source(text))
  return (source() or "") .. (source() or "")
end

--- A source of a file from a place on, wherever else it was read in the meantime.
local function source_from(file, start)
  local read, begun = content.source(file), false
  return function()
    if not begun then file:seek("set", start) end
    begun = true
    return read()
  end
end

local function measured_file(file, start, as_is)
  local function source()
    local plain = source_from(file, start)
    return as_is and plain or content.with_crlf(plain)
  end
  local size, has_nul = measure(source())
  if not size then return nil, has_nul end
  if has_nul and not as_is then return measured_file(file, start, true) end
  file:seek("set", start)
  return source(), size, has_nul
end

--- A source with CRLF line ends, and its size, which IMAP wants to know beforehand. What has a
-- NUL octet is binary: its line ends are left alone.
-- Reads a file twice; spools what can't be read twice into a temporary file.
-- @param as_is  true: leave line ends alone anyhow
-- @return source, size, whether it has a NUL; or nil and an error
function content.measured(message, what, as_is)
  local source, size = content.source(message, what)
  if size and content.is_object(message) then return source, size, false end
  if size then
    local has_nul = message:find("\0", 1, true) ~= nil
    if as_is or has_nul then return source, size, has_nul end
    local text = text_with_crlf(message)
    return content.source(text), #text, false
  end
  local file, start = message, is_open_file(message) and message:seek()
  if not start then
    local err
    file, err = content.spool(source)
    if not file then return nil, err end
    start = 0
  end
  return measured_file(file, start, as_is)
end

return content
