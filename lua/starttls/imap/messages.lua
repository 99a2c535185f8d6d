--- Changing messages: flags and labels, removal (RFC 9051 6.4).
-- May rely on starttls.imap.class, starttls.imap.sets, starttls.arguments, starttls.core and
-- starttls.settings.
local Imap = require "starttls.imap.class"
local sets = require "starttls.imap.sets"
local arguments = require "starttls.arguments"
local core = require "starttls.core"
local check_settings = require("starttls.settings").check

local function append_all(all, more)
  table.move(more, 1, #more, #all + 1, all)
end

-- {====== Flags and labels ======

--- The changes: field of the caller's table -> what is written for it.
local changes = {
  add = "+FLAGS", remove = "-FLAGS", replace = "FLAGS",
  add_labels = "+X-GM-LABELS", remove_labels = "-X-GM-LABELS", replace_labels = "X-GM-LABELS",
}

--- The data item of a change, and its flags or labels.
local function change_of(change)
  local name, values = next(change)
  if not changes[name] or type(values) ~= "table" or next(change, name) ~= nil then
    error("store: the change must be add, remove or replace, or one of these with _labels, and "
      .. "an array", 0)
  end
  return changes[name], values
end

--- Gmail's own labels look like flags ("\Inbox"), all others are mailbox names.
local function add_labels(args, labels)
  args:add("(", "")
  for _, label in ipairs(labels) do
    local is_own = type(label) == "string" and label:find "^\\%a+$"
    args:add(is_own and "flag" or "mailbox", label)
  end
  return args:add(")", "")
end

--- RFC 7162 3.1.3: the condition.
local function add_condition(args, unchanged_since)
  if math.type(unchanged_since) ~= "integer" or unchanged_since < 0 then
    error("store: unchanged_since must be a mod-sequence", 0)
  end
  return args:add("(", ""):add("atom", "UNCHANGEDSINCE")
    :add("number", ("%d"):format(unchanged_since)):add(")", "")
end

local function store_args(text, item, values, settings)
  local args = sets.command("STORE", text, settings.seq)
  if settings.unchanged_since then add_condition(args, settings.unchanged_since) end
  args:add("atom", settings.silent and item .. ".SILENT" or item)
  if item:find "LABELS$" then return add_labels(args, values) end
  return args:add_list("flag", values)
end

--- RFC 7162 3.1.3: some servers call it NO when messages were left as they are; those named in
-- MODIFIED are, and all others are changed.
local function is_partly_done(reply)
  return type(reply.modified) == "string"
end

local function merge_stored(all, more)
  append_all(all, more)
  if not more.modified then return end
  all.modified = all.modified or {}
  append_all(all.modified, more.modified)
end

local function store_request(self, text, item, values, settings)
  local messages, weigh, request = {}, self:bounded "store", nil
  request = {
    during = "store", wanted = "FETCH", by_seq = settings.seq,
    args = store_args(text, item, values, settings), accepts = is_partly_done,
    take = function(name, _, value, weight)
      -- Flags that a silent store is told are another client's doing (RFC 9051 6.4.6).
      if name ~= "FETCH" or (settings.silent and value.flags) then return false end
      if not request.claims(value) then return false end
      messages[#messages + 1] = value
      return weigh(weight)
    end,
    finish = function(reply)
      local left = reply.modified
      if left then messages.modified = type(left) == "string" and core.numbers_of(left) or {} end
      return messages
    end,
  }
  return request
end

--- What a store needs of the server.
local function check_store(self, item, settings)
  if item:find "LABELS$" then
    local able, err = self:needs("store", "X-GM-EXT-1")
    if not able then return nil, err end
  end
  if not settings.unchanged_since then return true end
  return self:needs("store", "CONDSTORE", "QRESYNC")
end

--- Changes flags (RFC 9051 6.4.6), or Gmail's labels (X-GM-EXT-1).
-- @param set       UIDs as in fetch
-- @param change    one of add = { flags }, remove = { flags }, replace = { flags };
--                  add_labels, remove_labels, replace_labels = { labels }
-- @param settings  seq = true: sequence numbers; silent = true: don't report the new flags;
--                  unchanged_since = n: leave messages alone that have changed since this
--                  mod-sequence (RFC 7162 3.1.3)
-- @return an array of messages with their new flags, empty when silent; with unchanged_since also
--         their `modseq`, and where some had changed the field `modified` of the array: an array
--         of these UIDs (or sequence numbers), which were left alone; or nil and an error
Imap.define("store", function(self, set, change, settings)
  settings = check_settings("store", settings, "seq silent unchanged_since")
  local item, values = change_of(change)
  local nothing_to_change = #values == 0 and item:find "^[+-]"
  if sets.is_empty(set) or nothing_to_change then return { result = {} } end
  local able, err = check_store(self, item, settings)
  if not able then return nil, err end
  return sets.in_turn(set, "store", function(text)
    return store_request(self, text, item, values, settings)
  end, merge_stored)
end)

-- }======

-- {====== Removal ======

local function merge_gone(all, more)
  append_all(all, more)
  if not more.uids then return end
  all.uids = all.uids or {}
  append_all(all.uids, more.uids)
end

--- Notes what went: by sequence number, or by UID where QRESYNC or UIDONLY is enabled
-- (RFC 7162 3.2.10, RFC 9586 3).
local function note_gone(gone, name, number, value)
  if name == "EXPUNGE" and number then
    gone[#gone + 1] = number
  elseif name == "VANISHED" and not value.earlier then
    gone.uids = gone.uids or {}
    append_all(gone.uids, core.numbers_of(value.uids or "") or {})
  else
    return false
  end
  return true
end

--- Removes the messages that have the flag \Deleted (RFC 9051 6.4.3).
-- @param set  UIDs to confine it to, which needs UIDPLUS (RFC 4315); nil: all
-- @return an array of the sequence numbers that went, as the server told them; where QRESYNC or
--         UIDONLY is enabled, its field `uids` is an array of UIDs instead; or nil and an error
Imap.define("expunge", function(self, set)
  if sets.is_empty(set) then return { result = {} } end
  local function request(args)
    local gone, weigh = {}, self:bounded "expunge"
    return {
      during = "expunge", wanted = "EXPUNGE", args = args,
      take = function(name, number, value, weight)
        if not note_gone(gone, name, number, value) then return false end
        self:unasked(name, number, value)
        return weigh(weight)
      end,
      finish = function() return gone end,
    }
  end
  if not set then return request(arguments.of "EXPUNGE") end
  local able, err = self:needs("expunge", "UIDPLUS", "IMAP4rev2")
  if not able then return nil, err end
  return sets.in_turn(set, "expunge", function(text)
    return request(sets.command("EXPUNGE", text))
  end, merge_gone)
end)

-- }======
