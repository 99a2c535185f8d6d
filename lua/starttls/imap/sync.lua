--- What has changed in a mailbox since it was looked at last.
-- May rely on starttls.imap.ranges, starttls.error, starttls.settings and on sessions of
-- starttls.imap.
--
-- With QRESYNC (RFC 7162) the server tells all of it as the mailbox is opened; with CONDSTORE it
-- tells changed flags, and what has vanished is found by comparing UIDs; without either, flags
-- and UIDs are compared. What is known is kept in a plain table, the *state*:
--
--   mailbox, uidvalidity
--   uids           set text of the messages that are there
--   highestmodseq  with CONDSTORE or QRESYNC
--   flags          without: flags as one text -> set text of the messages that have them
--
-- A million messages are no table each here: UIDs are ranges or arrays, flags are texts.
local ranges = require "starttls.imap.ranges"
local errors = require "starttls.error"
local check_settings = require("starttls.settings").check

local Sync = {}
Sync.__index = Sync

-- {====== Flags ======

--- Flags as one text, which is the same for the same flags. \Recent is the session's own.
local function flags_text(flags)
  local sorted = {}
  for _, flag in ipairs(flags or {}) do
    if flag:lower() ~= "\\recent" then sorted[#sorted + 1] = flag end
  end
  table.sort(sorted)
  return table.concat(sorted, " ")
end

--- The flags of a text, as an array and a set.
local function flags_of(text)
  local flags = {}
  for flag in text:gmatch "%S+" do
    flags[#flags + 1] = flag
    flags[flag] = true
  end
  return flags
end

local function parse(text)
  return ranges.parse(text or "") or ranges.new()
end

-- }======

-- {====== Finding out ======

--- Messages that were found: their UIDs, and beside each its flags as text.
local function new_list()
  return { uids = {}, texts = {} }
end

--- Adds a message that the server tells of to the new or to the changed ones.
function Sync:note(message)
  if not message.uid then return end
  local list = self.known:contains(message.uid) and self.changed or self.fresh
  local index = #list.uids + 1
  list.uids[index], list.texts[index] = message.uid, flags_text(message.flags)
end

--- Fetches the flags of all messages.
-- @return true, or nil and an error
function Sync:each_message(settings, take)
  local ok, err = pcall(function()
    for message in self.session:fetch("1:*", { "flags" }, settings) do take(message) end
  end)
  if ok then return true end
  if not errors.is(err) then error(err, 0) end
  return nil, err
end

--- By mod-sequences (RFC 7162 6). What is there is asked for only if something must have gone.
function Sync:compare_modseq()
  local session = self.session
  local told, err = self:each_message({ changed_since = self.before.highestmodseq },
    function(message) self:note(message) end)
  if not told then return nil, err end
  self.gone = ranges.new()
  if self:adds_up(session.mailbox) then return true end
  local there, failure = session:search "ALL"
  if not there then return nil, failure end
  self.gone = self.known:minus(ranges.of(there))
  return true
end

--- Without mod-sequences: everything is looked at.
function Sync:compare_all()
  local seen, before = {}, {}
  for text, uids in pairs(self.before.flags or {}) do before[text] = parse(uids) end
  local told, err = self:each_message(nil, function(message)
    seen[#seen + 1] = message.uid
    local same = before[flags_text(message.flags)]
    if not (same and same:contains(message.uid)) then self:note(message) end
  end)
  if not told then return nil, err end
  self.gone = self.known:minus(ranges.of(seen))
  return true
end

--- Whether an extension is there, and not to be avoided.
function Sync:has(name)
  return not self.avoid[name] and (self.session:has(name))
end

--- What the server is told that we know, where it can make use of it. Not the UIDs: it would
-- then tell of these alone, and new messages were to be asked for (RFC 7162 3.2.5.1).
function Sync:known_state()
  local before = self.before
  local able = self:has "QRESYNC" and self.session.enabled.QRESYNC
  if not (able and before.highestmodseq and before.uidvalidity) then return end
  return {
    uidvalidity = before.uidvalidity, modseq = before.highestmodseq,
    each = function(message) self:note(message) end,
  }
end

--- Opens the mailbox in the way that tells most.
function Sync:open(known)
  local session = self.session
  local open = self.settings.read_only and session.examine or session.select
  local condstore = not session.enabled.CONDSTORE and self:has "CONDSTORE"
  local mailbox, err = open(session, self.name, { qresync = known, condstore = condstore })
  if mailbox and self.avoid.CONDSTORE then mailbox.highestmodseq = nil end
  return mailbox, err
end

--- Whether as many messages are there as there must be after what the server told.
function Sync:adds_up(mailbox)
  return self.known:count() - self.gone:count() + #self.fresh.uids == mailbox.exists
end

--- UIDs mean other messages than before: all that was known is void.
function Sync:forget()
  self.reset, self.before, self.known = true, {}, ranges.new()
  self.changed, self.fresh = new_list(), new_list()
end

--- Finds out what is different.
-- @return the mailbox, or nil and an error
function Sync:look()
  local session = self.session
  if self:has "QRESYNC" and not session.enabled.QRESYNC then
    local enabled, err = session:enable "QRESYNC"
    if not enabled then return nil, err end
  end
  local known = self:known_state()
  local mailbox, err = self:open(known)
  if not mailbox then return nil, err end
  local same = self.before.uidvalidity == mailbox.uidvalidity
  if self.before.uidvalidity and not same then self:forget() end
  if mailbox.exists == 0 then
    self.gone = self.known
    return mailbox
  elseif known and same and mailbox.highestmodseq then
    self.gone = parse(mailbox.vanished):common(self.known)
    if self:adds_up(mailbox) then return mailbox end
    self.changed, self.fresh = new_list(), new_list()
  end
  local compared, failure
  if self.before.highestmodseq and mailbox.highestmodseq then
    compared, failure = self:compare_modseq()
  else
    compared, failure = self:compare_all()
  end
  if not compared then return nil, failure end
  return mailbox
end

-- }======

-- {====== Telling ======

--- Without mod-sequences the flags are kept: those of before, and what has changed in them.
function Sync:flags_after()
  local touched, told = {}, {}
  for _, list in ipairs { self.changed, self.fresh } do
    for index, uid in ipairs(list.uids) do
      local text = list.texts[index]
      told[text] = told[text] or {}
      table.insert(told[text], uid)
      touched[#touched + 1] = uid
    end
  end
  local moved, texts = ranges.of(touched):union(self.gone), {}
  for text, uids in pairs(self.before.flags or {}) do texts[text] = parse(uids):minus(moved) end
  for text, uids in pairs(told) do
    texts[text] = (texts[text] or ranges.new()):union(ranges.of(uids))
  end
  local flags = {}
  for text, uids in pairs(texts) do
    if uids:count() > 0 then flags[text] = uids:text() end
  end
  return flags
end

function Sync:state_after(mailbox)
  local there = self.known:minus(self.gone):union(ranges.of(self.fresh.uids))
  return {
    mailbox = self.name, uidvalidity = mailbox.uidvalidity, uids = there:text(),
    highestmodseq = mailbox.highestmodseq,
    flags = not mailbox.highestmodseq and self:flags_after() or nil,
  }
end

--- One change after the other: reset, vanished, flags, new.
function Sync:changes()
  local lists, list, index = { { "flags", self.changed }, { "new", self.fresh } }, 1, 0
  local told_reset, told_gone = not self.reset, self.gone:count() == 0
  return function()
    if not told_reset then
      told_reset = true
      return { type = "reset" }
    elseif not told_gone then
      told_gone = true
      return { type = "vanished", uids = self.gone:numbers() }
    end
    while lists[list] do
      local kind, found = table.unpack(lists[list])
      index = index + 1
      if found.uids[index] then
        return { type = kind, uid = found.uids[index], flags = flags_of(found.texts[index]) }
      end
      list, index = list + 1, 0
    end
  end
end

-- }======

local function to_avoid(names)
  local avoid = {}
  for _, name in ipairs(names or {}) do
    if name ~= "QRESYNC" and name ~= "CONDSTORE" then
      error("sync: avoid may have \"QRESYNC\" and \"CONDSTORE\"", 0)
    end
    avoid[name] = true
  end
  avoid.QRESYNC = avoid.QRESYNC or avoid.CONDSTORE -- which builds on it
  return avoid
end

--- Opens a mailbox and finds out what has changed in it.
-- @param session   of starttls.imap; the mailbox stays open
-- @param name      the mailbox
-- @param state     what the last call returned, or nil: then everything is new
-- @param settings  read_only = true: open it with EXAMINE; avoid = { "QRESYNC", "CONDSTORE" }:
--                  extensions not to use, for servers that have them wrong
-- @return an iterator for a generic for of changes in the order in which to apply them:
--         { type = "reset" } (UIDVALIDITY has changed: forget everything), { type = "vanished",
--         uids = array }, { type = "flags", uid, flags }, { type = "new", uid, flags }; and the new
--         state, a plain table to be kept until the next time once the changes are applied. The
--         iterator asks the server nothing: other calls may be made meanwhile. Or nil and an error
return function(session, name, state, settings)
  settings = check_settings("sync", settings, "read_only avoid")
  local self = setmetatable({
    session = session, name = name, before = state or {}, settings = settings,
    avoid = to_avoid(settings.avoid),
    known = parse(state and state.uids), gone = ranges.new(),
    changed = new_list(), fresh = new_list(),
  }, Sync)
  local mailbox, err = self:look()
  if not mailbox then return nil, err end
  return self:changes(), self:state_after(mailbox)
end
