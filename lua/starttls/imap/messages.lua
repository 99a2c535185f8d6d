--- Changing messages: flags, copies, removal (RFC 9051 6.4).
-- May rely on starttls.imap.class, starttls.imap.sets and starttls.arguments.
local Imap = require "starttls.imap.class"
local sets = require "starttls.imap.sets"
local arguments = require "starttls.arguments"

local function append_all(all, more)
  table.move(more, 1, #more, #all + 1, all)
end

--- The data item and the flags of a change.
local function flag_change(change, silent)
  local item, flags
  if change.add then item, flags = "+FLAGS", change.add
  elseif change.remove then item, flags = "-FLAGS", change.remove
  elseif change.replace then item, flags = "FLAGS", change.replace
  else error("store: the change must be add, remove or replace", 0) end
  return silent and item .. ".SILENT" or item, flags
end

--- Changes flags (RFC 9051 6.4.6).
-- @param set       UIDs as in fetch
-- @param change    one of add = { flags }, remove = { flags }, replace = { flags }
-- @param settings  seq = true: sequence numbers; silent = true: don't report the new flags
-- @return an array of messages with their new flags (empty when silent); or nil and an error
Imap.define("store", function(_, set, change, settings)
  settings = settings or {}
  local item, flags = flag_change(change, settings.silent)
  if sets.is_empty(set) then return { result = {} } end
  return sets.in_turn(set, "store", function(text)
    return {
      during = "store", wanted = "FETCH", kind = "store", by_seq = settings.seq,
      args = sets.command("STORE", text, settings.seq):add("atom", item):add_list("flag", flags),
      finish = function(_, values) return values end,
    }
  end, append_all)
end)

--- Copies messages to another mailbox (RFC 9051 6.4.7).
-- @param set  UIDs as in fetch
-- @return the reply, whose `arguments` are those of COPYUID where the server has UIDPLUS;
--         or nil and an error
Imap.define("copy", function(_, set, mailbox)
  if sets.is_empty(set) then
    return { result = { class = "positive", text = "", arguments = {} } }
  end
  return {
    during = "copy",
    args = sets.command("COPY", sets.texts(set, "copy")[1]):add("mailbox", mailbox),
    finish = function(reply) return reply end,
  }
end)

--- Removes the messages that have the flag \Deleted (RFC 9051 6.4.3).
-- @param set  UIDs to confine it to, which needs UIDPLUS (RFC 4315); nil: all
-- @return an array of the sequence numbers that went, as the server told them; or nil and an error
Imap.define("expunge", function(self, set)
  if sets.is_empty(set) then return { result = {} } end
  local gone, weigh = {}, self:bounded "expunge"
  local function request(args)
    return {
      during = "expunge", args = args,
      take = function(name, number, value, weight)
        if name ~= "EXPUNGE" then return false end
        self:unasked(name, number, value)
        gone[#gone + 1] = number
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
  end, function() end)
end)
