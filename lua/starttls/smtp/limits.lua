--- What a server takes at most in a session and in a transaction (RFC 9422), and how the
-- recipients of a message are spread over transactions so that each stays within that.
-- May rely on nothing.
local limits = {}

--- Reads the value of the EHLO keyword LIMITS.
-- @param value  "MAILMAX=5 RCPTMAX=100", or nil
-- @return a table: mailmax, rcptmax, rcptdomainmax, and what else is a number, each a positive
--         integer, or absent
function limits.read(value)
  local read = {}
  for word in (value or ""):gmatch "%S+" do
    local name, digits = word:match "^([%w_-]+)=(%d+)$"
    local most = name and math.tointeger(tonumber(digits))
    if most and most > 0 then read[name:lower()] = most end
  end
  return read
end

local function domain_of(address)
  return (address:match "@([^@]*)$" or ""):lower()
end

--- The indices of the addresses, those of one domain together, in the order of their appearance.
local function by_domain(addresses)
  local groups, order = {}, {}
  for i, address in ipairs(addresses) do
    local domain = domain_of(address)
    if not groups[domain] then
      groups[domain] = {}
      order[#order + 1] = domain
    end
    table.insert(groups[domain], i)
  end
  return groups, order
end

--- Spreads recipients over transactions.
-- @param addresses  array
-- @param most       from limits.read
-- @return an array of arrays of indices, or nil when one transaction will do
function limits.split(addresses, most)
  local count = #addresses
  local groups, order = nil, nil
  if most.rcptdomainmax then groups, order = by_domain(addresses) end
  if order and #order <= most.rcptdomainmax then order = nil end
  if not order then
    if count <= (most.rcptmax or count) then return nil end
    groups, order = { {} }, { 1 }
    for i = 1, count do groups[1][i] = i end
  end
  local parts, part, domains = {}, nil, 0
  for _, domain in ipairs(order) do
    if domains == most.rcptdomainmax then part = nil end
    local counted = false
    for _, index in ipairs(groups[domain]) do
      if not part or #part == most.rcptmax then
        part, domains, counted = {}, 0, false
        parts[#parts + 1] = part
      end
      if not counted then domains, counted = domains + 1, true end
      part[#part + 1] = index
    end
  end
  return parts
end

return limits
