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

--- Who may still be written to in a session (RFC 9422 4.3: so many domains, and no more).
-- @param addresses  array
-- @param most       how many domains of recipients a session may have
-- @param used       the domains that it has had: name -> true; those of who may be are added
-- @return an array of the indices of who may, and one of those who may not
function limits.admit(addresses, most, used)
  local count, may, may_not = 0, {}, {}
  for _ in pairs(used) do count = count + 1 end
  for index, address in ipairs(addresses) do
    local domain = domain_of(address)
    if not used[domain] and count < most then
      used[domain] = true
      count = count + 1
    end
    local list = used[domain] and may or may_not
    list[#list + 1] = index
  end
  return may, may_not
end

--- Spreads recipients over transactions.
-- @param indices  array of their numbers
-- @param most     how many one transaction may have, or nil
-- @return an array of arrays of indices, or nil when one transaction will do
function limits.split(indices, most)
  if #indices <= (most or #indices) then return nil end
  local parts = {}
  for first = 1, #indices, most do
    parts[#parts + 1] = table.move(indices, first, math.min(first + most - 1, #indices), 1, {})
  end
  return parts
end

return limits
