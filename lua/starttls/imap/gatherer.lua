--- Content of the message being received, gathered by section.
-- May rely on starttls.content.
local content = require "starttls.content"

local Gatherer = {}
Gatherer.__index = Gatherer

local gatherer = {}

--- @param choose  nil, or the caller's function(message, section) -> sink or nil
-- @param limit   octets of content that one message may have in strings
function gatherer.new(choose, limit)
  return setmetatable({ choose = choose, limit = limit, left = limit, sections = {} }, Gatherer)
end

--- Keeps the message so far, by which the caller chooses a sink.
-- @param fresh  the items that came since the literal before
function Gatherer:learn(fresh)
  local so_far = self.so_far
  if not so_far then
    self.so_far = fresh
    return
  end
  for name, value in pairs(fresh) do
    if name ~= "sections" then so_far[name] = value end
  end
  for section, text in pairs(fresh.sections) do so_far.sections[section] = text end
end

function Gatherer:begin(section, fresh, size)
  if self.choose then self:learn(fresh) end
  local target = self.choose and self.choose(self.so_far, section) or nil
  if not target then self.left = self.left - size end
  if self.left < 0 then return nil, content.too_long("fetch", self.limit) end
  self.section, self.unfinished = section, true
  self.take, self.result = content.sink(target, self.limit, "fetch")
  return true
end

--- A piece of a literal: to the sink that the caller chose, or into a string.
function Gatherer:content(piece, size, offset, section, fresh)
  if offset == 0 then
    local begun, too_long = self:begin(section, fresh, size)
    if not begun then return nil, too_long end
  end
  local taken, err = self.take(piece)
  if not taken then return nil, content.failure("the sink", "fetch", err) end
  if offset + #piece < size then return true end
  taken, err = self.take(nil)
  if not taken and err then return nil, content.failure("the sink", "fetch", err) end
  self.sections[self.section] = self.result() or true
  self.unfinished = false
  return true
end

--- Tells the caller's sink that the rest does not come, as LTN12 has it.
function Gatherer:abort(err)
  if self.unfinished then self.take(nil, tostring(err)) end
  self.unfinished = false
end

--- A short section may come as a quoted string: the sink is to have it all the same.
function Gatherer:pour(message, gathered)
  local sections = message.sections
  for section, text in pairs(sections) do
    local target = gathered[section] == nil and self.choose(message, section)
    if target then
      local take = content.sink(target, self.limit, "fetch")
      local taken, err = take(text)
      if taken then taken, err = take(nil) end
      if not taken and err then return nil, content.failure("the sink", "fetch", err) end
      sections[section] = true
    end
  end
  return true
end

--- Puts what was gathered into the message that is complete now.
-- @return the message, or nil and an error
function Gatherer:finish(message)
  local gathered, sections = self.sections, message.sections
  if next(gathered) then
    sections = sections or {}
    message.sections = sections
    for section, text in pairs(gathered) do sections[section] = text end
    self.sections = {}
  end
  self.left, self.so_far = self.limit, nil
  if not sections then return message end
  if self.choose then
    local poured, err = self:pour(message, gathered)
    if not poured then return nil, err end
  end
  message.body, message.headers, message.text = sections[""], sections.HEADER, sections.TEXT
  return message
end

return gatherer
