--- Sets of numbers as ranges: what a mailbox of a million UIDs is kept in.
-- May rely on nothing. All operations take time linear in the number of ranges.
local Ranges = {}
Ranges.__index = Ranges

local ranges = {}

--- An empty set.
function ranges.new()
  return setmetatable({ from = {}, to = {} }, Ranges)
end

--- Adds a range that begins behind everything that is there, or touches or overlaps the end.
local function extend(self, from, to)
  local last = #self.to
  if last > 0 and from <= self.to[last] + 1 then
    if to > self.to[last] then self.to[last] = to end
    return
  end
  self.from[last + 1], self.to[last + 1] = from, to
end

--- Reads a set text such as "3,1:2"; without "*".
-- @return the set, or nil when the text is none
function ranges.parse(text)
  local parts = {}
  for part in text:gmatch "[^,]+" do
    local first, last = part:match "^(%d+):?(%d*)$"
    local from = math.tointeger(tonumber(first))
    local to = math.tointeger(tonumber(last)) or from
    if not from or from < 1 or (last == "" and part:find(":", 1, true)) then return nil end
    if to < from then from, to = to, from end
    parts[#parts + 1] = { from, to }
  end
  table.sort(parts, function(a, b) return a[1] < b[1] end)
  local self = ranges.new()
  for _, part in ipairs(parts) do extend(self, part[1], part[2]) end
  return self
end

--- The set of an array of positive integers in any order.
function ranges.of(numbers)
  local self, ordered = ranges.new(), true
  for index = 2, #numbers do
    if numbers[index] < numbers[index - 1] then
      ordered = false
      break
    end
  end
  if not ordered then
    numbers = table.move(numbers, 1, #numbers, 1, {})
    table.sort(numbers)
  end
  for _, number in ipairs(numbers) do extend(self, number, number) end
  return self
end

--- The shortest text of the set; "" when it is empty.
function Ranges:text()
  local parts = {}
  for index, from in ipairs(self.from) do
    local to = self.to[index]
    parts[index] = from == to and ("%d"):format(from) or ("%d:%d"):format(from, to)
  end
  return table.concat(parts, ",")
end

--- How many numbers it has.
function Ranges:count()
  local count = 0
  for index, from in ipairs(self.from) do count = count + self.to[index] - from + 1 end
  return count
end

--- The largest number; 0 when it is empty.
function Ranges:last()
  return self.to[#self.to] or 0
end

--- Whether a number is in it.
function Ranges:contains(number)
  local low, high = 1, #self.from
  while low <= high do
    local middle = (low + high) // 2
    if number < self.from[middle] then high = middle - 1
    elseif number > self.to[middle] then low = middle + 1
    else return true end
  end
  return false
end

--- Whether any number is in both sets.
function Ranges:overlaps(other)
  local i, j = 1, 1
  while self.from[i] and other.from[j] do
    if self.to[i] < other.from[j] then i = i + 1
    elseif other.to[j] < self.from[i] then j = j + 1
    else return true end
  end
  return false
end

--- Adds a number; cheap when numbers come in ascending order.
function Ranges:add(number)
  if #self.from == 0 or number >= self.from[#self.from] then
    extend(self, number, number)
  elseif not self:contains(number) then
    local other = ranges.new()
    extend(other, number, number)
    local both = self:union(other)
    self.from, self.to = both.from, both.to
  end
end

--- The numbers of either set.
function Ranges:union(other)
  local both, i, j = ranges.new(), 1, 1
  while self.from[i] or other.from[j] do
    local mine = not other.from[j] or (self.from[i] and self.from[i] <= other.from[j])
    if mine then
      extend(both, self.from[i], self.to[i])
      i = i + 1
    else
      extend(both, other.from[j], other.to[j])
      j = j + 1
    end
  end
  return both
end

--- The numbers that are not in the other set.
function Ranges:minus(other)
  local rest, j = ranges.new(), 1
  for index, from in ipairs(self.from) do
    local to = self.to[index]
    while other.to[j] and other.to[j] < from do j = j + 1 end
    local k = j
    while from <= to and other.from[k] and other.from[k] <= to do
      if other.from[k] > from then extend(rest, from, other.from[k] - 1) end
      from = other.to[k] + 1
      k = k + 1
    end
    if from <= to then extend(rest, from, to) end
  end
  return rest
end

--- The numbers that are in both sets.
function Ranges:common(other)
  return self:minus(self:minus(other))
end

--- Iterates over the numbers.
function Ranges:each()
  local index, number = 1, (self.from[1] or 0) - 1
  return function()
    if not self.from[index] then return nil end
    number = number + 1
    if number > self.to[index] then
      index = index + 1
      number = self.from[index]
    end
    return number
  end
end

--- All numbers, in an array.
function Ranges:numbers()
  local numbers = {}
  for index, from in ipairs(self.from) do
    for number = from, self.to[index] do numbers[#numbers + 1] = number end
  end
  return numbers
end

return ranges
