--- The typed arguments of a command, in the flat form that starttls.core takes:
-- type, value, type, value ... The types are those of csrc/mail/encoder.h.
-- May rely on nothing.
local Arguments = {}
Arguments.__index = Arguments

local arguments = {}

--- Begins with a command's words.
-- @param ...  the words: "UID", "FETCH"
function arguments.of(...)
  local self = setmetatable({ name = table.concat({ ... }, " "):lower() }, Arguments)
  for _, word in ipairs { ... } do self:add("atom", word) end
  return self
end

--- Begins without words: arguments of a command that the core writes itself.
-- @param name  what raised errors call it
function arguments.named(name)
  return setmetatable({ name = name }, Arguments)
end

--- Adds one argument.
-- @param kind   "atom", "mailbox", "set", ...
-- @param value  a string; raises for anything else
-- @return itself
function Arguments:add(kind, value)
  if type(value) ~= "string" then
    error(("%s: the %s must be a string, not %s"):format(self.name, kind, type(value)), 0)
  end
  self[#self + 1] = kind
  self[#self + 1] = value
  return self
end

--- Adds a list in parentheses, of arguments of one type.
-- @return itself
function Arguments:add_list(kind, values)
  self:add("(", "")
  for _, value in ipairs(values) do self:add(kind, value) end
  return self:add(")", "")
end

--- All of it, as arguments of a call.
function Arguments:unpack()
  return table.unpack(self)
end

return arguments
