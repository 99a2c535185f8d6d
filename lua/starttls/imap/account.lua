--- Who is at the two ends: ID, languages, logging in and out of an account on one connection.
-- May rely on starttls.imap.class, starttls.options, starttls.session and starttls.arguments.
local Imap = require "starttls.imap.class"
local session = require "starttls.session"
local options = require "starttls.options"
local arguments = require "starttls.arguments"
local errors = require "starttls.error"

-- {====== ID ======

-- RFC 2971 3.3
local most_fields, longest_name, longest_value = 30, 30, 1024

local function check_field(name, value)
  if type(name) ~= "string" or name == "" or #name > longest_name then
    error(("id: a field's name must be a string of at most %d octets"):format(longest_name), 0)
  elseif value ~= false and (type(value) ~= "string" or #value > longest_value) then
    error(("id: %s must be a string of at most %d octets, or false"):format(name, longest_value), 0)
  end
end

--- RFC 2971 3.3: no field may come twice, and case does not matter.
local function field_names(fields)
  local names, seen = {}, {}
  for name, value in pairs(fields) do
    check_field(name, value)
    if seen[name:lower()] then error(("id: %s is there twice"):format(name), 0) end
    seen[name:lower()] = true
    names[#names + 1] = name
  end
  if #names > most_fields then error(("id: more than %d fields"):format(most_fields), 0) end
  table.sort(names)
  return names
end

--- Says who we are, and asks who the server is (ID, RFC 2971). For statistics and the hunt for
-- faults only: nothing else may depend on what it says.
-- @param fields  name -> value: at most 30 fields, names of at most 30 octets, values of at most
--                1024, false for NIL; such as { name = "mirror", version = "1.0" }. Default: none
-- @return name in lower case -> value, empty when the server says nothing; or nil and an error
Imap.define("id", function(self, fields)
  if fields ~= nil and type(fields) ~= "table" then error("id: the fields must be a table", 0) end
  local names, args = field_names(fields or {}), arguments.of "ID"
  if #names == 0 then
    args:add("atom", "NIL")
  else
    args:add("(", "")
    for _, name in ipairs(names) do
      args:add("string", name)
      if fields[name] then args:add("string", fields[name]) else args:add("atom", "NIL") end
    end
    args:add(")", "")
  end
  local able, err = self:needs("id", "ID")
  if not able then return nil, err end
  return {
    during = "id", wanted = "ID", args = args,
    finish = function(_, values) return values[1] or {} end,
  }
end)

-- }======

-- {====== Languages and comparators ======

local function add_words(what, args, ...)
  for _, word in ipairs { ... } do
    if type(word) ~= "string" or not word:find "^[%w*;.=/-]+$" then
      error(("%s: %s is no name"):format(what, tostring(word)), 0)
    end
    args:add("string", word)
  end
  return args
end

--- Tells which languages the server can write its texts in, or has it write in one of them
-- (LANGUAGE, RFC 5255 3.2).
-- @param ...  tags in order of preference: "de", "fr-CA", "*", "default"; none: only ask
-- @return an array of tags: all that there are, or the one that is used from now on; or nil and an
--         error
Imap.define("language", function(self, ...)
  local args = add_words("language", arguments.of "LANGUAGE", ...)
  local able, err = self:needs("language", "LANGUAGE")
  if not able then return nil, err end
  return {
    during = "language", wanted = "LANGUAGE", alone = true, args = args,
    finish = function(_, values) return values[1] or {} end,
  }
end)

--- Tells by which rules the server compares texts when it searches and sorts, or has it use others
-- (COMPARATOR, RFC 5255 4.7).
-- @param ...  names in order of preference, in which "*" stands for anything: "i;unicode-casemap";
--             none: only ask
-- @return { active = name, matching = array of all names that fit }; or nil and an error
Imap.define("comparator", function(self, ...)
  local args = add_words("comparator", arguments.of "COMPARATOR", ...)
  local able, err = self:needs("comparator", "I18NLEVEL=2")
  if not able then return nil, err end
  return {
    during = "comparator", wanted = "COMPARATOR", alone = true, args = args,
    finish = function(_, values)
      local told = values[1] or {}
      return { active = told[1], matching = told[2] or {} }
    end,
  }
end)

-- }======

--- Tells where the account can be reached with JMAP (GETJMAPACCESS, RFC 9698).
-- @return the URL of the JMAP session object; or nil and an error
Imap.define("getjmapaccess", function(self)
  local able, err = self:needs("getjmapaccess", "JMAPACCESS")
  if not able then return nil, err end
  return {
    during = "getjmapaccess", wanted = "JMAPACCESS", args = arguments.of "GETJMAPACCESS",
    finish = function(_, values) return values[1] and values[1].url end,
  }
end)

-- {====== Logging out and in ======

local function fail(what, kind, message)
  return nil, errors.new { kind = kind, during = what, message = message }
end

--- Leaves the account, but not the connection (UNAUTHENTICATE, RFC 8437). No mailbox is selected
-- then, and nothing that was enabled is on; authenticate() comes next. Not possible while the
-- session is compressed, since the next credentials would be compressed as well.
-- @return the reply; or nil and an error
Imap.define("unauthenticate", function(self)
  local able, err = self:needs("unauthenticate", "UNAUTHENTICATE")
  if not able then return nil, err end
  if self.core:is_compressed() then
    return fail("unauthenticate", "unsupported", "the session is compressed, and remains so: "
      .. "credentials must not be sent on it")
  end
  return {
    during = "unauthenticate", alone = true, args = arguments.of "UNAUTHENTICATE",
    finish = function(reply)
      self.core:forget_login()
      self.mailbox, self.enabled = nil, {}
      return reply
    end,
  }
end)

--- Logs in on a session that is not authenticated: connected without credentials, or after
-- unauthenticate(). All goes as in connect(): the capabilities are asked for, the strongest
-- mechanism is chosen, and credentials are sent only where the channel allows; and when it fails
-- the session is closed.
-- @param given  user, password, token, authzid, sasl: as in connect()
-- @return true; or nil and an error
function Imap:authenticate(given)
  local identity = options.identity(given, self.policy)
  local drained, err = self:drain()
  if not drained then return nil, err end
  if self.core:is_open() and self.core:is_authenticated() then
    return fail("auth", "rejected", "the session is authenticated already")
  elseif self.core:is_compressed() then
    return fail("auth", "unsupported", "the session is compressed: no credential is sent on it")
  end
  return session.log_in(self, given, self.core:authenticate(identity))
end

-- }======
