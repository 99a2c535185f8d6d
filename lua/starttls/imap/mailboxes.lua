--- Mailboxes: counting, making, naming, leaving (RFC 9051 6.3, 6.4.1, 6.4.2).
-- May rely on starttls.imap.class, starttls.arguments and starttls.settings.
local Imap = require "starttls.imap.class"
local arguments = require "starttls.arguments"
local check_settings = require("starttls.settings").check

local mailboxes = {}

--- A mailbox's name as a key: INBOX is the same in any case (RFC 9051 5.1).
function mailboxes.key_of(name)
  return type(name) == "string" and name:upper() == "INBOX" and "INBOX" or name
end

local key_of = mailboxes.key_of

-- {====== STATUS ======

local default_items = { "MESSAGES", "UIDNEXT", "UIDVALIDITY", "UNSEEN" }

--- What a data item needs of the server; any of these capabilities will do.
local item_needs = {
  HIGHESTMODSEQ = { "CONDSTORE", "QRESYNC" }, -- RFC 7162 3.1.7
  SIZE = { "STATUS=SIZE", "IMAP4rev2" }, -- RFC 8438
  DELETED = { "IMAP4rev2", "QUOTA=RES-MESSAGE" }, -- RFC 9051 6.3.11, RFC 9208 4.1.4
  ["DELETED-STORAGE"] = { "QUOTA=RES-STORAGE" }, -- RFC 9208 4.1.4
  APPENDLIMIT = { "APPENDLIMIT" }, -- RFC 7889 3
  MAILBOXID = { "OBJECTID" }, -- RFC 8474 4.3
}

--- The data items of STATUS as they are sent.
-- @param self   the session
-- @param what   the call, for errors
-- @param items  names such as "messages", "deleted_storage"
-- @return an array of names; or nil and an error
function mailboxes.status_items(self, what, items)
  if type(items) ~= "table" or #items == 0 then
    error(what .. ": the items of the status must be an array of names", 0)
  end
  local names = {}
  for index, item in ipairs(items) do
    if type(item) ~= "string" or not item:find "^%a[%a%d._-]*$" then
      error(what .. ": the items of the status must be names such as \"messages\"", 0)
    end
    names[index] = item:upper():gsub("_", "-")
    local able, err = true, nil
    if item_needs[names[index]] then
      able, err = self:needs(what, table.unpack(item_needs[names[index]]))
    end
    if not able then return nil, err end
  end
  return names
end

--- Asks for a mailbox's counts without selecting it (RFC 9051 6.3.11).
-- @param name   the mailbox
-- @param items  names: messages uidnext uidvalidity unseen recent deleted size highestmodseq
--               appendlimit mailboxid deleted_storage; default the first four
-- @return a table with these in lower case, and name; or nil and an error
Imap.define("status", function(self, name, items)
  local names, err = mailboxes.status_items(self, "status", items or default_items)
  if not names then return nil, err end
  local answer
  return {
    during = "status",
    args = arguments.of("STATUS"):add("mailbox", name):add_list("atom", names),
    take = function(response, _, value) -- its name tells it from other commands' answers
      if response ~= "STATUS" or answer then return false end
      if type(value.name) ~= "string" or value.name:lower() ~= name:lower() then return false end
      answer = value
      return true
    end,
    finish = function() return answer or {} end,
  }
end)

-- }======

-- {====== Making and naming ======

local function on_mailbox(verb, name, more)
  local request = { during = verb:lower(), args = arguments.of(verb):add("mailbox", name) }
  for field, value in pairs(more or {}) do request[field] = value end
  return request
end

--- Makes a mailbox (RFC 9051 6.3.4).
-- @param name      its name
-- @param settings  use = "\\Sent" or an array of such: what it is for (CREATE-SPECIAL-USE,
--                  RFC 6154 3)
-- @return the reply, with `mailboxid` where the server has OBJECTID; or nil and an error, whose
--         status is USEATTR when the server takes no such use
Imap.define("create", function(self, name, settings)
  local request = on_mailbox("CREATE", name)
  local uses = check_settings("create", settings, "use").use
  if uses == nil then return request end
  if type(uses) == "string" then uses = { uses } end
  if type(uses) ~= "table" or #uses == 0 then
    error("create: the use must be \"\\\\Sent\" or an array of such", 0)
  end
  local able, err = self:needs("create", "CREATE-SPECIAL-USE")
  if not able then return nil, err end
  request.args:add("(", ""):add("atom", "USE"):add_list("flag", uses):add(")", "")
  return request
end)

--- Deletes a mailbox (RFC 9051 6.3.5). When it was the selected one, none is selected any more.
-- @return the reply; or nil and an error
Imap.define("delete", function(self, name)
  return on_mailbox("DELETE", name, { alone = true, finish = function(reply)
    local selected = self.mailbox
    if selected and key_of(selected.name) == key_of(name) then self.mailbox = nil end
    return reply
  end })
end)

--- Finds the delimiter in the selected mailbox's new name, once its parent was renamed.
local function ask_delimiter(self, mailbox, old, new, reply)
  return {
    during = "rename", wanted = "LIST", -- RFC 9051 6.3.9: no pattern, and only this is told
    args = arguments.of("LIST"):add("mailbox", new):add("mailbox", ""),
    finish = function(_, values)
      local delimiter = values[1] and values[1].delimiter
      local rest = mailbox.name:sub(#old + 1)
      if self.mailbox == mailbox and delimiter and rest:sub(1, #delimiter) == delimiter then
        mailbox.name = new .. rest
      end
      return reply
    end,
  }
end

--- Gives a mailbox, and those below it, another name (RFC 9051 6.3.6). Renaming INBOX moves its
-- messages and leaves it there. The selected mailbox stays selected under its new name.
-- @return the reply; or nil and an error
Imap.define("rename", function(self, old, new)
  local request = on_mailbox("RENAME", old, { alone = true })
  request.args:add("mailbox", new)
  function request.follow(reply)
    local selected = self.mailbox
    if not selected or key_of(old) == "INBOX" then return { result = reply } end
    if selected.name == old then selected.name = new
    elseif selected.name:sub(1, #old) == old then
      return ask_delimiter(self, selected, old, new, reply)
    end
    return { result = reply }
  end
  return request
end)

--- Adds a mailbox to those subscribed to (RFC 9051 6.3.7).
-- @return the reply; or nil and an error
Imap.define("subscribe", function(_, name) return on_mailbox("SUBSCRIBE", name) end)

--- Takes a mailbox from those subscribed to (RFC 9051 6.3.8).
-- @return the reply; or nil and an error
Imap.define("unsubscribe", function(_, name) return on_mailbox("UNSUBSCRIBE", name) end)

-- }======

-- {====== Leaving ======

--- A command after which no mailbox is selected.
local function leave(self, verb)
  return {
    during = verb:lower(), alone = true, args = arguments.of(verb),
    finish = function(reply)
      self.mailbox = nil
      return reply
    end,
  }
end

--- Removes the messages that have the flag \Deleted, unless the mailbox is read-only, and leaves
-- it (CLOSE, RFC 9051 6.4.1).
-- @return the reply; or nil and an error
Imap.define("close_mailbox", function(self) return leave(self, "CLOSE") end)

local no_mailbox = "starttls: no mailbox has this name"

--- What a server without UNSELECT is asked: a mailbox that can't be opened is none (RFC 3691 1).
-- Should it be there, it is closed again: nothing is removed from what is examined.
local function leave_for_nothing(self)
  return {
    during = "unselect", alone = true,
    args = arguments.of("EXAMINE"):add("mailbox", no_mailbox),
    take = function(name) return name == "EXISTS" or name == "RECENT" or name == "FLAGS" end,
    accepts = function() return true end,
    follow = function(reply)
      self.mailbox = nil
      if reply.class == "positive" then return leave(self, "CLOSE") end
      return { result = reply }
    end,
  }
end

--- Leaves the selected mailbox without removing anything (UNSELECT, RFC 3691; where the server
-- lacks it, by opening a mailbox that is not there).
-- @return the reply; or nil and an error
Imap.define("unselect", function(self)
  if self:has "UNSELECT" or self:has "IMAP4rev2" then return leave(self, "UNSELECT") end
  return leave_for_nothing(self)
end)

--- Has the server put the mailbox in order (CHECK, RFC 3501 6.4.1); a server of IMAP4rev2 alone
-- has no such command and gets NOOP.
-- @return the reply; or nil and an error
Imap.define("check", function(self)
  local verb = self:has "IMAP4rev2" and not self:has "IMAP4rev1" and "NOOP" or "CHECK"
  return { during = "check", args = arguments.of(verb) }
end)

-- }======

--- Tells where mailboxes are (RFC 9051 6.3.10, RFC 2342).
-- @return { personal, other, shared }: arrays of { prefix, delimiter, extensions }, each of which
--         may be empty; or nil and an error
Imap.define("namespace", function(self)
  local able, err = self:needs("namespace", "NAMESPACE", "IMAP4rev2")
  if not able then return nil, err end
  return {
    during = "namespace", wanted = "NAMESPACE", args = arguments.of "NAMESPACE",
    finish = function(_, values)
      return values[1] or { personal = {}, other = {}, shared = {} }
    end,
  }
end)

--- Asks anew what the server can do (CAPABILITY, RFC 9051 6.1.1).
-- @return what capabilities() returns; or nil and an error
Imap.define("capability", function(self)
  return {
    during = "capability", args = arguments.of "CAPABILITY",
    finish = function() return self:capabilities() end,
  }
end)

return mailboxes
