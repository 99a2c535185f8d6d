--- IMAP: mailboxes and messages (RFC 9051, RFC 3501).
-- May rely on starttls.session, starttls.core and the files of starttls/imap/, which hold the
-- methods.
local session = require "starttls.session"
local core = require "starttls.core"
local Imap = require "starttls.imap.class"
require "starttls.imap.mailboxes"
require "starttls.imap.listing"
require "starttls.imap.enable"
require "starttls.imap.select"
require "starttls.imap.fetch"
require "starttls.imap.search"
require "starttls.imap.sort"
require "starttls.imap.messages"
require "starttls.imap.transfer"
require "starttls.imap.append"
require "starttls.imap.watch"
require "starttls.imap.notify"
require "starttls.imap.pipeline"
require "starttls.imap.compress"
require "starttls.imap.account"
require "starttls.imap.metadata"
require "starttls.imap.quota"
require "starttls.imap.rights"
local marks = require "starttls.imap.execute"
local sync = require "starttls.imap.sync"
local fetch_once = require "starttls.imap.once"

local imap = { sync = sync }

-- What the arguments of session:execute() are, where they are no plain strings and numbers.
imap.atom, imap.mailbox, imap.flag = marks.atom, marks.mailbox, marks.flag
imap.set, imap.content, imap.null = marks.set, marks.content, marks.null

--- Opens a session: encrypted, verified and, when credentials are given, authenticated.
-- @param given  options as in README.md; also on = { alert = f, exists = f, ... }: functions for
--               what the server says unasked
-- @return a session, or nil and an error
function imap.connect(given)
  local self, err = session.connect(Imap, given, { on = "table", eager = "table" })
  if err and err.status == "ALERT" and err.during == "auth" and given.on and given.on.alert then
    given.on.alert(err.text) -- RFC 9051 7.1: for a person to see, whatever it comes with
  end
  if self then self.enabled = {} end
  return self, err
end

--- The numbers of a set as text, in its order: "1:3,7" has 1, 2, 3 and 7, "" none.
-- @param set    text, as results have it
-- @param limit  how many there may be, default 10 million
-- @return an array of integers; or nil and the reason: there are more, or it is no such set, as
--         "1:*" is none
imap.numbers_of = core.numbers_of

--- The shortest set that has these numbers, as text: { 1, 2, 3, 7 } becomes "1:3,7".
-- @param numbers  an array of positive integers, in any order; raises for anything else
-- @return the text; "" for no numbers
imap.set_of = core.set_of

--- Connects, fetches and says goodbye: see starttls.imap.once.
-- @param given     options for connect
-- @param ...       mailbox, set, items, settings
-- @return an array of messages, or nil and an error
function imap.fetch(given, ...)
  return fetch_once(imap.connect, given, ...)
end

--- Says goodbye, waits for the answer and closes (LOGOUT).
function Imap:logout()
  return self:say_goodbye "LOGOUT"
end

return imap
