--- Finding mailboxes (RFC 9051 6.3.9; LIST-EXTENDED: RFC 5258; LIST-STATUS: RFC 5819;
-- SPECIAL-USE: RFC 6154; LIST-METADATA: RFC 9590).
-- May rely on starttls.imap.class, starttls.imap.mailboxes, starttls.imap.metadata,
-- starttls.arguments and starttls.settings.
local Imap = require "starttls.imap.class"
local arguments = require "starttls.arguments"
local mailboxes = require "starttls.imap.mailboxes"
local metadata = require "starttls.imap.metadata"
local check_settings = require("starttls.settings").check

-- {====== What is asked for ======

--- Options that say which mailboxes are told (RFC 5258 3.1, RFC 6154 2).
local selections = {
  subscribed = "SUBSCRIBED", remote = "REMOTE", recursive_match = "RECURSIVEMATCH",
  special_use = "SPECIAL-USE",
}

--- Options that say what is told of them (RFC 5258 3.2, RFC 6154 2, RFC 5819 2, RFC 9590 3).
local returns = {
  children = "CHILDREN", subscribed = "SUBSCRIBED", special_use = "SPECIAL-USE",
  status = "STATUS", metadata = "METADATA",
}

--- The order in which they are sent.
local order = { "subscribed", "remote", "recursive_match", "special_use", "children", "status",
  "metadata" }

local has_list = { status = true, metadata = true }

local function check_options(which, given, known)
  if given == nil then return {} end
  if type(given) ~= "table" then error(("list: %s must be a table"):format(which), 0) end
  for name, value in pairs(given) do
    if not known[name] then
      error(("list: %s.%s: there is no such option"):format(which, tostring(name)), 0)
    elseif not has_list[name] and type(value) ~= "boolean" then
      error(("list: %s.%s must be true or false"):format(which, name), 0)
    end
  end
  return given
end

local function check_patterns(patterns)
  if patterns == nil then return { "*" } end
  if type(patterns) == "string" then return { patterns } end
  if type(patterns) ~= "table" or #patterns == 0 then
    error("list: the pattern must be a string or an array of strings", 0)
  end
  return patterns
end

local function read_settings(settings)
  settings = check_settings("list", settings, "select returns")
  local selected = check_options("select", settings.select, selections)
  -- RFC 5258 3.1: a BAD command otherwise
  if selected.recursive_match and not (selected.subscribed or selected.special_use) then
    error("list: select.recursive_match needs select.subscribed or select.special_use", 0)
  end
  return selected, check_options("returns", settings.returns, returns)
end

-- }======

-- {====== What is told ======

--- Mailboxes as they are told, and what other responses tell of them.
local Listing = {}
Listing.__index = Listing

local function new_listing()
  return setmetatable({ entries = {}, by_name = {} }, Listing)
end

function Listing:find(name)
  return self.by_name[mailboxes.key_of(name)]
end

--- What has no name is no mailbox, whatever the server meant.
function Listing:add(entry)
  if not entry.name then return end
  self.entries[#self.entries + 1] = entry
  self.by_name[mailboxes.key_of(entry.name)] = entry
end

--- STATUS and METADATA responses go into the entry of their mailbox. One for a mailbox that is
-- not listed answers nothing that was asked here.
function Listing:join(name, value)
  local entry = self:find(value.name)
  if not entry then return false end
  if name == "STATUS" then entry.status = value
  else entry.metadata = metadata.merge(entry.metadata, value) end
  return true
end

local function has_flag(entry, wanted)
  for _, flag in ipairs(entry.flags) do
    if flag:lower() == wanted:lower() then return true end
  end
  return false
end

--- RFC 9051 7.3.1; RFC 5258 3: \NonExistent implies \Noselect.
local function can_be_selected(entry)
  return not has_flag(entry, "\\Noselect") and not has_flag(entry, "\\NonExistent")
end

local function add_flag(entry, flag)
  if has_flag(entry, flag) then return end
  entry.flags[#entry.flags + 1] = flag
  entry.flags[flag] = true
end

-- }======

-- {====== One command, where the server can do it ======

--- Adds "(" names ")" of the options that are on, with the lists of those that have one.
local function add_options(args, known, given, lists)
  args:add("(", "")
  for _, name in ipairs(order) do
    if known[name] and given[name] then
      args:add("atom", known[name])
      if has_list[name] then args:add_list(lists[name].kind, lists[name]) end
    end
  end
  return args:add(")", "")
end

--- What the server must be able to do: true and the lists of returns.status and .metadata, or nil
-- and an error.
local function check_able(self, select, give)
  local lists, err = {}, nil
  local able = true
  if select.special_use or give.special_use then able, err = self:needs("list", "SPECIAL-USE") end
  if able and give.status then
    able, err = self:needs("list", "LIST-STATUS", "IMAP4rev2")
    if able then lists.status, err = mailboxes.status_items(self, "list", give.status) end
    able = able and lists.status
    if able then lists.status.kind = "atom" end
  end
  if able and give.metadata then
    able, err = self:needs("list", "LIST-METADATA")
    lists.metadata = metadata.check_entries("list", give.metadata)
    lists.metadata.kind = "string"
  end
  if not able then return nil, err end
  return lists
end

local function add_patterns(args, patterns)
  if #patterns == 1 then return args:add("mailbox", patterns[1]) end
  return args:add_list("mailbox", patterns)
end

--- LIST (selection options) reference patterns RETURN (return options)
local function extended_request(self, reference, patterns, select, give)
  local lists, err = check_able(self, select, give)
  if not lists then return nil, err end
  local args = arguments.of "LIST"
  if next(select) then add_options(args, selections, select, lists) end
  add_patterns(args:add("mailbox", reference), patterns)
  if next(give) then add_options(args:add("atom", "RETURN"), returns, give, lists) end
  local listing, weigh = new_listing(), self:bounded "list"
  local joins = { STATUS = give.status, METADATA = give.metadata }
  return {
    during = "list", wanted = "LIST", args = args, alone = give.status or give.metadata,
    take = function(name, _, value, weight)
      if name == "LIST" then listing:add(value)
      elseif not joins[name] or not listing:join(name, value) then return false end
      return weigh(weight)
    end,
    finish = function() return listing.entries end,
  }
end

-- }======

-- {====== Several commands, where it can't ======

--- Attributes that say what a mailbox is for (RFC 6154 2, RFC 8457 3).
local uses = { "\\All", "\\Archive", "\\Drafts", "\\Flagged", "\\Important", "\\Junk", "\\Sent",
  "\\Trash" }

local function has_use(entry)
  for _, use in ipairs(uses) do
    if has_flag(entry, use) then return true end
  end
  return false
end

--- What LSUB tells. RFC 3501 6.3.9: with "%", what is not subscribed but has something below it
-- that is comes with \Noselect. What is subscribed to and not there is told only by the selection
-- option (RFC 5258 3.1).
local function note_subscribed(listing, told, select)
  local recursive = select.recursive_match
  for _, entry in ipairs(told) do
    local there = listing:find(entry.name)
    local parent = has_flag(entry, "\\Noselect")
    if not there and select.subscribed and (recursive or not parent) then
      there = { name = entry.name, delimiter = entry.delimiter, flags = {} }
      add_flag(there, "\\NonExistent")
      listing:add(there)
    end
    if there and not parent then add_flag(there, "\\Subscribed") end
    if there and parent and recursive then there.childinfo = { "SUBSCRIBED" } end
  end
end

--- The entries that the selection options leave.
local function filtered(listing, select)
  local left = {}
  for _, entry in ipairs(listing.entries) do
    local subscribed = entry.childinfo or has_flag(entry, "\\Subscribed")
    if (subscribed or not select.subscribed) and (not select.special_use or has_use(entry)) then
      left[#left + 1] = entry
    end
  end
  return left
end

--- Whether plain commands can do it: true, or nil and an error.
local function check_plain(self, select, give)
  if select.remote or select.recursive_match and select.special_use then
    return self:needs("list", "LIST-EXTENDED", "IMAP4rev2")
  elseif give.metadata then return self:needs("list", "LIST-METADATA")
  elseif give.status then return self:needs("list", "LIST-STATUS", "IMAP4rev2")
  end
  local able, err = true, nil
  if select.special_use or give.special_use then able, err = self:needs("list", "SPECIAL-USE") end
  if able and give.children then able, err = self:needs("list", "CHILDREN", "LIST-EXTENDED") end
  return able, err
end

--- One step after the other.
-- @param steps   array of { verb, pattern, note = function(responses) }
-- @param finish  function() -> the result
local function in_turn(steps, index, reference, finish)
  local step = steps[index]
  local request = {
    during = "list", wanted = step.verb,
    args = arguments.of(step.verb):add("mailbox", reference):add("mailbox", step.pattern),
  }
  if index < #steps then
    function request.follow(_, told)
      step.note(told)
      return in_turn(steps, index + 1, reference, finish)
    end
  else
    function request.finish(_, told)
      step.note(told)
      return finish()
    end
  end
  return request
end

--- LIST for each pattern, and LSUB where subscriptions matter.
local function plain_request(self, reference, patterns, select, give)
  local able, err = check_plain(self, select, give)
  if not able then return nil, err end
  local listing, steps = new_listing(), {}
  local function note_listed(told)
    for _, entry in ipairs(told) do
      if not listing:find(entry.name) then listing:add(entry) end
    end
  end
  for _, pattern in ipairs(patterns) do
    steps[#steps + 1] = { verb = "LIST", pattern = pattern, note = note_listed }
  end
  if select.subscribed or give.subscribed then
    for _, pattern in ipairs(patterns) do
      steps[#steps + 1] = { verb = "LSUB", pattern = pattern, note = function(told)
        note_subscribed(listing, told, select)
      end }
    end
  end
  return in_turn(steps, 1, reference, function() return filtered(listing, select) end)
end

-- }======

local function is_extended(self)
  return self:has "LIST-EXTENDED" or self:has "IMAP4rev2"
end

local function build_list(self, reference, patterns, settings)
  local select, give = read_settings(settings)
  reference, patterns = reference or "", check_patterns(patterns)
  local plain = #patterns == 1 and not next(select) and not next(give)
  if plain or is_extended(self) then
    return extended_request(self, reference, patterns, select, give)
  end
  return plain_request(self, reference, patterns, select, give)
end

Imap.define("list", build_list)

local list_at_once = Imap.list

--- Asks for each mailbox's status by itself. One that can't be had is left out, as it is in a
-- server's own answer (RFC 5819 2).
local function add_statuses(self, entries, items)
  local promises = {}
  local function take(index)
    if promises[index] then entries[index].status = promises[index]:get() end
    promises[index] = nil
  end
  return self:pipeline(function(p)
    for index, entry in ipairs(entries) do
      if can_be_selected(entry) then
        promises[index] = p:status(entry.name, items)
      end
      take(index - 32) -- so that few wait, however many mailboxes there are
    end
    for index = math.max(1, #entries - 31), #entries do take(index) end
  end)
end

--- Lists mailboxes (RFC 9051 6.3.9).
-- @param reference  usually ""
-- @param patterns   "*" for all, "%" for one level, or an array of patterns; default "*"
-- @param settings   select = { subscribed, remote, recursive_match, special_use = true }: which of
--                   them are told; returns = { children, subscribed, special_use = true,
--                   status = items of status(), metadata = names of entries }: what is told of
--                   them. Without LIST-EXTENDED, LIST-STATUS and the like plain LIST, LSUB and
--                   STATUS serve for all but `remote`, `metadata`, and, in a pipeline, `status`.
-- @return an array of { name, delimiter, flags }, and where it is told childinfo, old_name, status
--         (as status() returns it), metadata (entry -> value); or nil and an error
function Imap:list(reference, patterns, settings)
  local select, give = read_settings(settings)
  if not give.status or self:has "LIST-STATUS" or self:has "IMAP4rev2" then
    return list_at_once(self, reference, patterns, settings)
  end
  local items, err = mailboxes.status_items(self, "list", give.status)
  if not items then return nil, err end
  local others = {}
  for name, value in pairs(give) do others[name] = value end
  others.status = nil
  local entries
  entries, err = list_at_once(self, reference, patterns, { select = select, returns = others })
  if not entries then return nil, err end
  local lived, failure = add_statuses(self, entries, items)
  if not lived then return nil, failure end
  return entries
end

--- Lists the mailboxes subscribed to (LSUB, RFC 3501 6.3.9). A server of IMAP4rev2 alone, which
-- has no LSUB, is asked with LIST. list() with select.subscribed tells more exactly.
-- @return as list
Imap.define("lsub", function(self, reference, pattern)
  if self:has "IMAP4rev2" and not self:has "IMAP4rev1" then
    return build_list(self, reference, pattern, { select = { subscribed = true } })
  end
  return {
    during = "lsub", wanted = "LSUB",
    args = arguments.of("LSUB"):add("mailbox", reference or ""):add("mailbox", pattern or "*"),
    finish = function(_, values) return values end,
  }
end)

--- Finds the mailbox that is for something (RFC 6154).
-- @param use  "\\Sent", "\\Trash", "\\Drafts", "\\Junk", "\\Archive", "\\All", ...
-- @return the mailbox as list() gives it; nil when there is none that can be selected; or nil and
--         an error
Imap.define("special", function(self, use)
  if type(use) ~= "string" or not use:find "^\\%a" then
    error("special: the use must be a name such as \"\\\\Sent\"", 0)
  end
  local on = { special_use = true }
  local asks = self:has "SPECIAL-USE" and is_extended(self)
  local request, err = build_list(self, "", "*", asks and { select = on, returns = on } or nil)
  if not request then return nil, err end
  local finish = request.finish
  function request.finish(...)
    for _, entry in ipairs(finish(...)) do
      if has_flag(entry, use) and can_be_selected(entry) then return entry end
    end
    return nil
  end
  return request
end)
