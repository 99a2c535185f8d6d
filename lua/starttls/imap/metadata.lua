--- Annotations of mailboxes and of the server (METADATA, RFC 5464).
-- May rely on starttls.imap.class, starttls.arguments and starttls.settings.
local Imap = require "starttls.imap.class"
local arguments = require "starttls.arguments"
local check_settings = require("starttls.settings").check

local metadata = {}

--- RFC 5464 4.1: a path of ASCII below /private or /shared, without wildcards and empty parts.
local function check_entry(what, entry)
  local path = type(entry) == "string" and entry:lower() or ""
  local root = path:match "^/%l+"
  if (root ~= "/private" and root ~= "/shared") or path:find "[%c%*%%\128-\255]"
    or path:find("//", 1, true) or path:find "/$" then
    error(what .. ": the entry must be a name such as \"/private/comment\"", 0)
  end
  return entry
end

--- The names of entries, one or an array.
-- @param what     the call, for errors
-- @param entries  "/private/comment", or an array of such
-- @return an array of names
function metadata.check_entries(what, entries)
  if type(entries) ~= "table" then return { check_entry(what, entries) } end
  local names = {}
  for index, entry in ipairs(entries) do names[index] = check_entry(what, entry) end
  if #names == 0 then error(what .. ": there is no entry", 0) end
  return names
end

--- Adds one METADATA response's values to those that came before (RFC 5464 4.4.1: they may come
-- in several).
-- @param all    entry -> value, or nil
-- @param value  the response
-- @return all of them
function metadata.merge(all, value)
  all = all or {}
  for entry, text in pairs(value.values or {}) do all[entry] = text end
  return all
end

local function check_able(self, what, mailbox)
  if mailbox == "" then return self:needs(what, "METADATA-SERVER", "METADATA") end
  return self:needs(what, "METADATA")
end

local depths = { [0] = "0", [1] = "1", infinity = "infinity" }

--- RFC 5464 4.2: (MAXSIZE 1024 DEPTH 1)
local function add_options(args, settings)
  local maxsize, depth = settings.maxsize, settings.depth
  if maxsize == nil and depth == nil then return args end
  args:add("(", "")
  if maxsize ~= nil then
    if math.type(maxsize) ~= "integer" or maxsize < 0 then
      error("getmetadata: maxsize must be a number of octets", 0)
    end
    args:add("atom", "MAXSIZE"):add("number", ("%d"):format(maxsize))
  end
  if depth ~= nil then
    if not depths[depth] then error("getmetadata: depth must be 0, 1 or \"infinity\"", 0) end
    args:add("atom", "DEPTH"):add("atom", depths[depth])
  end
  return args:add(")", "")
end

--- Whether a response is about the mailbox, and has values: those that tell of a change unasked
-- have names alone (RFC 5464 4.4.2).
local function answers(name, value, mailbox)
  return name == "METADATA" and value.values and value.name
    and value.name:lower() == mailbox:lower()
end

--- Gets annotations (GETMETADATA, RFC 5464 4.2).
-- @param mailbox   its name; "" for the server's own
-- @param entries   "/private/comment", or an array of such
-- @param settings  depth = 0, 1 or "infinity": also those that many levels below; maxsize =
--                  octets: leave out longer values
-- @return entry -> value, a string of any octets, without those that have none; and with maxsize
--         the size of the longest value that was left out, if any was. Or nil and an error
Imap.define("getmetadata", function(self, mailbox, entries, settings)
  settings = check_settings("getmetadata", settings, "depth maxsize")
  local args = add_options(arguments.of "GETMETADATA", settings):add("mailbox", mailbox)
  args:add_list("string", metadata.check_entries("getmetadata", entries))
  local able, err = check_able(self, "getmetadata", mailbox)
  if not able then return nil, err end
  local found, weigh = {}, self:bounded "getmetadata"
  return {
    during = "getmetadata", args = args,
    take = function(name, _, value, weight)
      if not answers(name, value, mailbox) then return false end
      metadata.merge(found, value)
      return weigh(weight)
    end,
    finish = function(reply) return found, reply.metadata and reply.metadata.longentries end,
  }
end)

--- Sets and removes annotations (SETMETADATA, RFC 5464 4.3).
-- @param mailbox  its name; "" for the server's own
-- @param values   entry -> value, a string of any octets; false removes the entry
-- @return the reply; or nil and an error, whose status is METADATA when the value is too long
--         (then err.metadata is { maxsize }), or there are too many, or none may be private
Imap.define("setmetadata", function(self, mailbox, values)
  if type(values) ~= "table" or not next(values) then
    error("setmetadata: the values must be a table of entries", 0)
  end
  local names = {}
  for entry in pairs(values) do names[#names + 1] = check_entry("setmetadata", entry) end
  table.sort(names)
  local args = arguments.of("SETMETADATA"):add("mailbox", mailbox):add("(", "")
  for _, entry in ipairs(names) do
    args:add("string", entry)
    if values[entry] == false then args:add("atom", "NIL")
    else args:add("octets", values[entry]) end
  end
  local able, err = check_able(self, "setmetadata", mailbox)
  if not able then return nil, err end
  return { during = "setmetadata", args = args:add(")", "") }
end)

return metadata
