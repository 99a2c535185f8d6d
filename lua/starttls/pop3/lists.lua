--- How much there is: STAT, LIST and UIDL (RFC 1939 5 and 7).
-- May rely on starttls.pop3.class.
--
-- Servers put more behind what RFC 1939 asks for, and blanks in front of it: both are harmless.
local Pop3 = require "starttls.pop3.class"

--- What digits say; nil for anything else, and for more than an integer holds.
local function to_integer(text)
  return text and text:find "^%d+$" and math.tointeger(tonumber(text)) or nil
end

--- The word behind the message's number is its size; what follows is the server's own.
local function size_of(rest)
  return to_integer(rest:match "^%S+")
end

--- All of it is the identifier, blanks inside it too, as cutting it would make two alike.
local function identifier_of(rest)
  return rest ~= "" and rest or nil
end

--- How much there is.
-- @return the number of messages and of octets; or nil and an error
function Pop3:stat()
  local reply, err = self:perform { "atom", "STAT", during = "stat" }
  if not reply then return nil, err end
  local count, octets = reply.text:match "^(%d+)%s+(%d+)"
  count, octets = to_integer(count), to_integer(octets)
  if not (count and octets) then return Pop3.malformed("stat", reply.text) end
  return count, octets
end

--- The number of the message and what is said of it.
local function split(line)
  local digits, rest = line:match "^%s*(%d+)%s+(.-)%s*$"
  return to_integer(digits), rest
end

--- The request for a list of all messages; `values` is filled, `bad` is a line that says nothing.
local function list_request(verb, convert)
  local request = { "atom", verb, during = verb:lower(), form = "lines", values = {} }
  function request.take(line)
    local number, rest = split(line)
    local value = number and convert(rest)
    if value then request.values[number] = value else request.bad = request.bad or line end
    return true
  end
  return request
end

--- @return a table message number -> value; or nil and an error
local function list_result(self, request, reply, err)
  if reply then reply, err = self:judge(request.during, reply) end
  if not reply then return nil, err end
  if request.bad then return Pop3.malformed(request.during, request.bad) end
  return request.values
end

local function ask_one(self, verb, convert, n)
  local during = verb:lower()
  local reply, err = self:perform { "atom", verb, "number", Pop3.number(n, during),
    during = during }
  if not reply then return nil, err end
  local number, rest = split(reply.text)
  local value = number == n and convert(rest)
  if not value then return Pop3.malformed(during, reply.text) end
  return value
end

local function ask(self, verb, convert, n)
  if n then return ask_one(self, verb, convert, n) end
  local request = list_request(verb, convert)
  return list_result(self, request, self:exchange(request))
end

--- Sizes in octets.
-- @param n  message number, or nil for all
-- @return one size, or a table message number -> size; or nil and an error
function Pop3:list(n)
  return ask(self, "LIST", size_of, n)
end

--- Identifiers that stay the same from session to session (RFC 1939 7).
-- @param n  message number, or nil for all
-- @return one identifier, or a table message number -> identifier; or nil and an error
function Pop3:uidl(n)
  return ask(self, "UIDL", identifier_of, n)
end

--- Sizes and identifiers of all, together where the server lists PIPELINING. What it says of EXPIRE
-- may be another thing after authentication: then it is asked along with them (RFC 2449 6.7).
-- @return sizes and, in that case, identifiers or nil and why not; or nil and an error
function Pop3:survey()
  local sizes = list_request("LIST", size_of)
  local uids = list_request("UIDL", identifier_of)
  local flight = self:commands()
  local sent, err = flight:send(sizes)
  if not sent then return nil, err end
  local together = flight:push(uids)
  local _, expire = self:has "EXPIRE"
  local depends = expire and expire:upper():find "USER"
  if depends and not self.told then flight:push(self:capa_request()) end
  local values
  values, err = list_result(self, sizes, flight:await(sizes))
  if not together then return values, err end
  local identifiers, why = list_result(self, uids, flight:await(uids))
  flight:settle()
  if not values then return nil, err end
  return values, identifiers, why
end

return Pop3
