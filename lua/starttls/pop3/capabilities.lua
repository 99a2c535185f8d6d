--- What a POP3 server says it can do (RFC 2449), and in which language (RFC 6856).
-- May rely on starttls.pop3.class.
local Pop3 = require "starttls.pop3.class"

local listed_by_core = Pop3.has

--- Whether the server lists a capability (a whole word, case ignored), by the newest list: the one
-- before authentication, or what capabilities() or features() asked for since.
-- @return true and its value ("" when it has none), or false
function Pop3:has(word)
  if not self.told then return listed_by_core(self, word) end
  local value = self.told[word:upper()]
  if not value then return false end
  return true, value == true and "" or value
end

--- The request for a new list, which is the newest when its answer is there.
function Pop3:capa_request()
  local list = {}
  local request = { "atom", "CAPA", during = "capa", form = "lines", list = list }
  function request.take(line)
    local name, value = line:match "^(%S+)%s*(.-)%s*$"
    if name then list[name:upper()] = value ~= "" and value or true end
    return true
  end
  function request.answered(reply)
    if reply.class == "positive" then self.told = list end
  end
  return request
end

--- The server's capabilities, asked for anew: authentication may have changed them (RFC 2449 5).
-- @return a table name -> true or value; empty where the server has no CAPA and when the session
--         is closed; or nil and an error
function Pop3:capabilities()
  if not self.core:is_open() then return {} end
  local request = self:capa_request()
  local reply, err = self:exchange(request)
  if not reply then return nil, err end
  return request.list
end

-- {====== What they mean ======

local function words(value)
  local list = {}
  if value ~= true then
    for word in value:gmatch "%S+" do list[#list + 1] = word:upper() end
  end
  return list
end

--- "60 USER", "NEVER": a number and whether it depends on who has authenticated.
-- @return { [unit] = number, never = true, per_user = true }; true where there is no number
local function period(unit)
  return function(value)
    local list = words(value)
    local number = list[1] and list[1]:find "^%d+$" and math.tointeger(tonumber(list[1])) or nil
    local never = list[1] == "NEVER"
    if not (number or never) then return true end
    return { [unit] = number, never = never or nil, per_user = list[2] == "USER" or nil }
  end
end

local function present() return true end

--- Capability -> what its value means. The names of the fields are these in lower case, with "_".
local meanings = {
  TOP = present, UIDL = present, USER = present, PIPELINING = present, STLS = present,
  LANG = present, ["RESP-CODES"] = present, ["AUTH-RESP-CODE"] = present,
  SASL = words, EXPIRE = period "days", ["LOGIN-DELAY"] = period "seconds",
  UTF8 = function(value) return { user = words(value)[1] == "USER" } end,
  IMPLEMENTATION = function(value) return value == true and "" or value end,
}

--- The server's capabilities as fields, from an answer to CAPA of after authentication; asked for
-- once.
-- @return a table of those that the server lists: top uidl user pipelining stls lang resp_codes
--         auth_resp_code (true); sasl (array of mechanisms, upper case); expire { days or never,
--         per_user }; login_delay { seconds, per_user }; implementation (text); utf8 { user };
--         others = array of names. Or nil and an error.
function Pop3:features()
  local list, err = self.told, nil
  if not list then list, err = self:capabilities() end
  if not list then return nil, err end
  local features = { others = {} }
  for name, value in pairs(list) do
    local mean = meanings[name]
    if mean then features[name:lower():gsub("-", "_")] = mean(value)
    else features.others[#features.others + 1] = name end
  end
  table.sort(features.others)
  return features
end

-- }======

--- Chooses the language of the server's words, or lists those it has (RFC 6856 3).
-- @param tag  a language tag of RFC 5646 such as "fr", or "*" for the server's own choice;
--             nil: the list is asked for
-- @return the reply, or an array of { tag, name }; or nil and an error, of kind "unsupported"
--         where the server does not list LANG
function Pop3:lang(tag)
  if tag ~= nil and not (type(tag) == "string" and (tag == "*" or tag:find "^%w[%w-]*$")) then
    error("lang: the language must be a tag such as \"fr\", or \"*\"", 0)
  end
  local able, err = self:needs("lang", "LANG")
  if not able then return nil, err end
  if tag then return self:perform { "atom", "LANG", "text", tag, during = "lang" } end
  local languages = {}
  local reply
  reply, err = self:perform { "atom", "LANG", during = "lang", form = "lines",
    take = function(line)
      local name, description = line:match "^%s*(%S+)%s*(.-)%s*$"
      if name then languages[#languages + 1] = { tag = name, name = description } end
      return true
    end }
  if not reply then return nil, err end
  return languages
end

--- Does nothing, and keeps the session alive (NOOP).
-- @return the reply; or nil and an error
function Pop3:noop()
  return self:perform { "atom", "NOOP", during = "noop" }
end

return Pop3
