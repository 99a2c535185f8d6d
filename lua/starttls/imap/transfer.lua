--- Copying and moving messages to other mailboxes (RFC 9051 6.4.7, 6.4.8).
-- May rely on starttls.imap.class, starttls.imap.sets, starttls.imap.chain, starttls.imap.removal,
-- starttls.arguments, starttls.core and starttls.settings.
local Imap = require "starttls.imap.class"
local sets = require "starttls.imap.sets"
local chain = require "starttls.imap.chain"
local removal = require "starttls.imap.removal"
local arguments = require "starttls.arguments"
local core = require "starttls.core"
local check_settings = require("starttls.settings").check

-- {====== What went where ======

--- RFC 4315 3: the sets of COPYUID are of the same length and in the same order. What does not
-- keep to that tells nothing.
-- @param told  { uidvalidity, source, destination } with set texts, or nil
-- @return the same with arrays; empty when it tells nothing
local function mapping_of(told)
  if type(told) ~= "table" or not told.uidvalidity then return {} end -- no arguments, or odd ones
  local source, destination = core.numbers_of(told.source), core.numbers_of(told.destination)
  if not source or not destination or #source ~= #destination or #source == 0 then return {} end
  return { uidvalidity = told.uidvalidity, source = source, destination = destination }
end

--- Adds one command's mapping to that of those before it.
local function merge_mappings(all, more)
  if not more.source then return end
  if all.uidvalidity ~= more.uidvalidity then -- none yet; or that mailbox is no more
    all.uidvalidity, all.source, all.destination = more.uidvalidity, {}, {}
  end
  table.move(more.source, 1, #more.source, #all.source + 1, all.source)
  table.move(more.destination, 1, #more.destination, #all.destination + 1, all.destination)
end

-- }======

-- {====== COPY ======

local function copy_request(during, text, mailbox, by_seq)
  return {
    during = during, by_seq = by_seq,
    args = sets.command("COPY", text, by_seq):add("mailbox", mailbox),
    finish = function(reply) return mapping_of(reply.copyuid) end,
  }
end

--- Copies messages to another mailbox (RFC 9051 6.4.7).
-- @param set       UIDs as in fetch
-- @param mailbox   the destination's name. Where it does not exist the error's `status` is
--                  "TRYCREATE" if it could be created
-- @param settings  seq = true: the set has sequence numbers
-- @return a table: uidvalidity of the destination, and the arrays source and destination, of UIDs:
--         source[i] became destination[i]. It is empty where the server does not tell (it lacks
--         UIDPLUS), or copied nothing; or nil and an error
Imap.define("copy", function(_, set, mailbox, settings)
  local by_seq = check_settings("copy", settings, "seq").seq
  if sets.is_empty(set) then return { result = {} } end
  return sets.in_turn(set, "copy", function(text)
    return copy_request("copy", text, mailbox, by_seq)
  end, merge_mappings)
end)

-- }======

-- {====== MOVE ======

--- RFC 6851 4.3: COPYUID comes before the EXPUNGEs, in an untagged OK. When MOVE fails half-way,
-- it tells what is moved already.
local function move_request(text, mailbox, by_seq)
  local moved = {}
  local request = {
    during = "move", wanted = "EXPUNGE", by_seq = by_seq,
    args = sets.command("MOVE", text, by_seq):add("mailbox", mailbox),
    take = function(name, _, value)
      if name ~= "OK" or not value.copyuid then return false end
      merge_mappings(moved, mapping_of(value.copyuid))
      return true
    end,
    finish = function(reply)
      return moved.source and moved or mapping_of(reply.copyuid)
    end,
  }
  return chain.telling(request, function(fields)
    if moved.source then fields.done = moved end
  end)
end

--- The UIDs of the messages of a set that are there now: what arrives later is none of them.
local function find_request(text, by_seq)
  local args = arguments.of("UID", "SEARCH")
  if not by_seq then args:add("atom", "UID") end
  return {
    during = "move", wanted = "SEARCH", by_seq = by_seq,
    args = args:add("set", text),
    finish = function(_, values)
      local found = {}
      for _, numbers in ipairs(values) do
        table.move(numbers, 1, #numbers, #found + 1, found)
      end
      return found
    end,
  }
end

local function merge_found(all, more)
  table.move(more, 1, #more, #all + 1, all)
end

--- RFC 6851 3.3: what MOVE is in terms of older commands.
local function copy_and_remove(text, mailbox)
  return chain.behind(copy_request("move", text, mailbox), function(mapping)
    return removal("move", text, ("the messages were copied to %q"):format(mailbox), mapping)
  end)
end

local function move_by_copying(self, set, mailbox, by_seq)
  if type(mailbox) ~= "string" then error("move: the mailbox must be a string", 0) end
  if not self:has "UIDPLUS" then return nil, Imap.unsupported("move", "MOVE or UIDPLUS") end
  local finding = sets.in_turn(set, "move", function(text)
    return find_request(text, by_seq)
  end, merge_found)
  return chain.behind(finding, function(uids)
    if #uids == 0 then return { result = {} } end
    return sets.in_turn(uids, "move", function(text)
      return copy_and_remove(text, mailbox)
    end, merge_mappings)
  end)
end

--- Moves messages to another mailbox (RFC 6851). Where the server lacks MOVE it is done with
-- COPY, STORE and UID EXPUNGE, of the messages that are there when it begins; never with a plain
-- EXPUNGE, which could take other messages along (RFC 6851 3.3).
-- @param set       UIDs as in fetch
-- @param mailbox   the destination's name, as in copy
-- @param settings  seq = true: the set has sequence numbers
-- @return as copy; or nil and an error: `done` has what was moved as a whole before, `copied` what
--         was copied and not removed
Imap.define("move", function(self, set, mailbox, settings)
  local by_seq = check_settings("move", settings, "seq").seq
  if sets.is_empty(set) then return { result = {} } end
  if not self:has "MOVE" and not self:has "IMAP4rev2" then
    return move_by_copying(self, set, mailbox, by_seq)
  end
  return sets.in_turn(set, "move", function(text)
    return move_request(text, mailbox, by_seq)
  end, merge_mappings)
end)

-- }======
