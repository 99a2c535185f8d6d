--- Opening a mailbox (RFC 9051 6.3.2, 6.3.3; CONDSTORE and QRESYNC: RFC 7162).
-- May rely on starttls.imap.class, starttls.arguments and starttls.settings.
local Imap = require "starttls.imap.class"
local arguments = require "starttls.arguments"
local check_settings = require("starttls.settings").check

-- {====== What the server says of it ======

--- Codes of untagged OKs that tell of the mailbox being opened.
local opening_codes = {
  UIDVALIDITY = "uidvalidity", UIDNEXT = "uidnext", UNSEEN = "unseen",
  HIGHESTMODSEQ = "highestmodseq", PERMANENTFLAGS = "permanent_flags", MAILBOXID = "mailboxid",
}

local function new_mailbox(name)
  return { name = name, exists = 0, flags = {}, permanent_flags = {} }
end

--- RFC 7162 3.2.11: what came before it was about the mailbox that was open until now.
local function start_over(mailbox)
  local fresh = new_mailbox(mailbox.name)
  for field in pairs(mailbox) do mailbox[field] = nil end
  for field, value in pairs(fresh) do mailbox[field] = value end
end

--- The one argument of a code that has a list of its own: MAILBOXID (x).
local function argument_of(value)
  local argument = value.arguments[1]
  if value.code == "MAILBOXID" and type(argument) == "table" then return argument[1] end
  return argument
end

local function note_code(mailbox, value, had_another)
  if value.code == "CLOSED" then
    if had_another then start_over(mailbox) end
  elseif value.code == "NOMODSEQ" then mailbox.highestmodseq = nil
  elseif opening_codes[value.code] then mailbox[opening_codes[value.code]] = argument_of(value)
  else return false end
  return true
end

--- Notes what SELECT's untagged responses say of the mailbox.
local function note_mailbox(mailbox, had_another, name, number, value)
  if name == "OK" then return note_code(mailbox, value, had_another) end
  if name == "EXISTS" then mailbox.exists = number or mailbox.exists
  elseif name == "RECENT" then mailbox.recent = number
  elseif name == "FLAGS" then mailbox.flags = value
  else return false end
  return true
end

--- Hands out what QRESYNC tells of the time since the known state.
-- @return function(name, value, weight) as `take` of a request
local function note_changes(self, mailbox, known)
  local weigh = self:bounded "select"
  return function(name, value, weight)
    if name == "VANISHED" and value.earlier then
      mailbox.vanished = mailbox.vanished and mailbox.vanished .. "," .. value.uids or value.uids
      return weigh(weight)
    elseif name == "FETCH" and known.each then
      known.each(value)
      return true
    elseif name == "FETCH" then
      mailbox.changed = mailbox.changed or {}
      table.insert(mailbox.changed, value)
      return weigh(weight)
    end
    return false
  end
end

-- }======

-- {====== Asking ======

local function check_number(known, field)
  local value = known[field]
  if math.type(value) ~= "integer" or value < 1 then
    error(("select: qresync.%s must be a positive integer"):format(field), 0)
  end
  return ("%d"):format(value)
end

--- RFC 7162 3.2.5: QRESYNC (uidvalidity modseq [known-uids])
local function add_known_state(args, known)
  args:add("(", ""):add("atom", "QRESYNC"):add("(", "")
  args:add("number", check_number(known, "uidvalidity"))
  args:add("number", check_number(known, "modseq"))
  if known.uids and known.uids ~= "" then args:add("set", known.uids) end
  return args:add(")", ""):add(")", "")
end

--- Adds what was asked for beside the name. Returns nil and an error when it can't be had.
local function add_parameters(self, args, settings)
  if settings.qresync then
    if not self.enabled.QRESYNC then
      return nil, Imap.unsupported("select", 'QRESYNC (enable("QRESYNC") comes first)')
    end
    return add_known_state(args, settings.qresync)
  elseif settings.condstore then
    local able, err = self:needs("select", "CONDSTORE", "QRESYNC")
    if not able then return nil, err end
    return args:add("(", ""):add("atom", "CONDSTORE"):add(")", "")
  end
  return args
end

local function open_mailbox(self, verb, name, settings)
  settings = check_settings(verb:lower(), settings, "condstore qresync")
  local args, err = add_parameters(self, arguments.of(verb):add("mailbox", name), settings)
  if not args then return nil, err end
  local mailbox, had_another = new_mailbox(name), self.mailbox ~= nil
  local take_change = settings.qresync and note_changes(self, mailbox, settings.qresync)
  return {
    during = verb:lower(), alone = true, args = args,
    take = function(response, number, value, weight)
      if note_mailbox(mailbox, had_another, response, number, value) then return true end
      if take_change then return take_change(response, value, weight) end
      return false
    end,
    accepts = function() -- whatever the answer, what was selected before is not any more
      self.mailbox = nil
      return false
    end,
    finish = function(reply)
      mailbox.read_only = reply.status == "READ-ONLY" or verb == "EXAMINE"
      self.mailbox = mailbox
      return mailbox
    end,
  }
end

--- Opens a mailbox (RFC 9051 6.3.2).
-- @param name      its name
-- @param settings  condstore = true: tell mod-sequences from now on (RFC 7162 3.1.8);
--                  qresync = { uidvalidity, modseq, uids = set text, each = function(message) }:
--                  what was known, to be told what has changed since (RFC 7162 3.2.5); QRESYNC
--                  must have been enabled
-- @return a table: name, exists, uidvalidity, uidnext, flags, permanent_flags, highestmodseq,
--         mailboxid, read_only; `exists` is kept right as the server tells. With qresync also
--         vanished (set text), and changed (array of messages) unless `each` took them.
--         Or nil and an error
Imap.define("select", function(self, name, settings)
  return open_mailbox(self, "SELECT", name, settings)
end)

--- Opens a mailbox without the right to change it (RFC 9051 6.3.3); as select.
Imap.define("examine", function(self, name, settings)
  return open_mailbox(self, "EXAMINE", name, settings)
end)

-- }======
