--- Addresses as scripts give them: text as in RFC 5322 3.4, tables { name, address }, groups.
-- May rely on starttls.mime, starttls.addresses and starttls.message.header.
local mime = require "starttls.mime"
local addresses = require "starttls.addresses"
local header = require "starttls.message.header"

local mailboxes = {}

local function misuse(format, ...)
  error("message: " .. format:format(...), 0)
end

--- Display names: encoded words are decoded, which may bring anything to light.
local function check_name(name, what)
  header.check(name, "a name in " .. what)
  if not name:find("=?", 1, true) then return name end
  return header.check(mime.decode_phrase(name), "a name in " .. what)
end

--- Entries that were read from a text, checked.
local function check_read(list, what)
  for _, entry in ipairs(list) do
    if entry.name == "" then entry.name = nil end
    if entry.name then entry.name = check_name(entry.name, what) end
    if entry.group then check_read(entry.group, what) end
  end
  return list
end

local function read(text, what)
  header.check(text, what)
  local list, why = addresses.mailboxes(text)
  if not list then misuse("%s can't be read: %s", what, why) end
  return check_read(list, what)
end

--- An address alone, as it is written.
local function read_address(text, what)
  header.check(text, "an address in " .. what)
  local list, why = addresses.mailboxes(text)
  if list and (#list ~= 1 or list[1].group or text:find "[<>]%s*$") then
    why = "it must be one address, and nothing else"
  end
  if not list or why then misuse("the address %q in %s can't be read: %s", text, what, why) end
  return list[1].address
end

local known = { name = true, address = true, group = true }
local add

--- An entry that is a table.
local function read_entry(given, what)
  for name in pairs(given) do
    if not known[name] then
      misuse("unknown field '%s' of an address in %s", tostring(name), what)
    end
  end
  local name = given.name
  if name ~= nil then name = header.check(name, "a name in " .. what) end
  if name == "" then name = nil end
  if given.group == nil then return { name = name, address = read_address(given.address, what) } end
  if given.address ~= nil then misuse("%s has an entry with both an address and a group", what) end
  if not name then misuse("%s has a group without a name", what) end
  local entry = { name = name, group = {} }
  add(entry.group, given.group, what)
  for _, member in ipairs(entry.group) do
    if member.group then misuse("%s has a group in a group", what) end
  end
  return entry
end

--- Adds what was given, whatever form it has, to a list.
function add(list, given, what)
  if type(given) == "string" then
    local found = read(given, what)
    table.move(found, 1, #found, #list + 1, list)
  elseif type(given) ~= "table" then
    misuse("%s must be text, or a table of addresses, not %s", what, type(given))
  elseif given.address ~= nil or given.group ~= nil then
    list[#list + 1] = read_entry(given, what)
  else
    local count = 0
    for key in pairs(given) do
      if math.type(key) ~= "integer" then misuse("%s has an entry without an address", what) end
      count = count + 1
    end
    if count ~= #given then misuse("%s is an array with holes", what) end
    for _, entry in ipairs(given) do add(list, entry, what) end
  end
end

--- Reads addresses.
-- @param given  text with a list of addresses; { name =, address = }; { name =, group = array };
--               or an array of these
-- @param what   the field's name, for errors
-- @return an array of { name, address }, where the name may be missing, and { name, group }.
--         Raises on misuse.
function mailboxes.read(given, what)
  local list = {}
  add(list, given, what)
  return list
end

--- The addresses of a list, groups resolved, added to an array.
function mailboxes.flatten(list, all)
  for _, entry in ipairs(list) do
    if entry.group then mailboxes.flatten(entry.group, all)
    else all[#all + 1] = entry.address end
  end
  return all
end

--- The same list as a header without UTF-8 has it: domains in A-labels (RFC 5891).
-- @return the list; or nil, and why it can't be
function mailboxes.to_ascii(list)
  local ascii = {}
  for index, entry in ipairs(list) do
    local copy = { name = entry.name }
    local why
    if entry.group then
      copy.group, why = mailboxes.to_ascii(entry.group)
    else
      copy.address, why = addresses.to_ascii(entry.address)
    end
    if why then return nil, why end
    ascii[index] = copy
  end
  return ascii
end

return mailboxes
