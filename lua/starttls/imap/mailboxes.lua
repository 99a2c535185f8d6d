--- Mailboxes: listing, counting, opening (RFC 9051 6.3).
-- May rely on starttls.imap.class and starttls.arguments.
local Imap = require "starttls.imap.class"
local arguments = require "starttls.arguments"

--- Lists mailboxes (RFC 9051 6.3.9).
-- @param reference  usually ""
-- @param pattern    "*" for all, "%" for one level; default "*"
-- @return an array of { name, delimiter, flags }; or nil and an error
Imap.define("list", function(_, reference, pattern)
  return {
    during = "list", wanted = "LIST",
    args = arguments.of("LIST"):add("mailbox", reference or ""):add("mailbox", pattern or "*"),
    finish = function(_, values) return values end,
  }
end)

local status_items = { "MESSAGES", "UIDNEXT", "UIDVALIDITY", "UNSEEN" }

--- Asks for a mailbox's counts without selecting it (RFC 9051 6.3.11).
-- @param name   the mailbox
-- @param items  names; default messages, uidnext, uidvalidity, unseen
-- @return a table with these in lower case; or nil and an error
Imap.define("status", function(_, name, items)
  local names = {}
  for index, item in ipairs(items or status_items) do
    if type(item) ~= "string" or not item:find "^[%a%d.-]+$" then
      error("status: the items must be names such as \"messages\"", 0)
    end
    names[index] = item:upper()
  end
  return {
    during = "status", wanted = "STATUS",
    args = arguments.of("STATUS"):add("mailbox", name):add_list("atom", names),
    finish = function(_, values) return values[1] or {} end,
  }
end)

-- {====== Opening ======

--- Codes of untagged OKs that tell of the mailbox being opened.
local opening_codes = {
  UIDVALIDITY = "uidvalidity", UIDNEXT = "uidnext", UNSEEN = "unseen",
  HIGHESTMODSEQ = "highestmodseq", PERMANENTFLAGS = "permanent_flags",
}

--- Notes what SELECT's untagged responses say of the mailbox.
local function note_mailbox(mailbox, name, number, value)
  if name == "EXISTS" then mailbox.exists = number or mailbox.exists
  elseif name == "RECENT" then mailbox.recent = number
  elseif name == "FLAGS" then mailbox.flags = value
  elseif name == "OK" and opening_codes[value.code] then
    mailbox[opening_codes[value.code]] = value.arguments[1]
  else return false end
  return true
end

local function open_mailbox(self, verb, name)
  local mailbox = { name = name, exists = 0, flags = {}, permanent_flags = {} }
  return {
    during = verb:lower(), alone = true,
    args = arguments.of(verb):add("mailbox", name),
    take = function(response, number, value)
      return note_mailbox(mailbox, response, number, value)
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
-- @return a table: name, exists, uidvalidity, uidnext, flags, permanent_flags, highestmodseq,
--         read_only; `exists` is kept right as the server tells; or nil and an error
Imap.define("select", function(self, name) return open_mailbox(self, "SELECT", name) end)

--- Opens a mailbox without the right to change it (RFC 9051 6.3.3); returns as select does.
Imap.define("examine", function(self, name) return open_mailbox(self, "EXAMINE", name) end)

-- }======
