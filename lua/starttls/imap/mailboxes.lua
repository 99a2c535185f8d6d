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
