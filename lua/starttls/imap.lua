--- IMAP: mailboxes and messages (RFC 9051, RFC 3501).
-- May rely on starttls.session and on the files of starttls/imap/, which hold the methods.
local session = require "starttls.session"
local Imap = require "starttls.imap.class"
require "starttls.imap.mailboxes"
require "starttls.imap.enable"
require "starttls.imap.select"
require "starttls.imap.fetch"
require "starttls.imap.search"
require "starttls.imap.messages"
require "starttls.imap.append"
require "starttls.imap.watch"
require "starttls.imap.notify"
require "starttls.imap.pipeline"
require "starttls.imap.compress"
local sync = require "starttls.imap.sync"

local imap = { sync = sync }

local function check_events(on)
  for name, handler in pairs(type(on) == "table" and on or {}) do
    if not Imap.event_names[name] then
      error(("starttls: on.%s: there is no such event"):format(tostring(name)), 0)
    end
    if type(handler) ~= "function" then
      error(("starttls: on.%s must be a function"):format(name), 0)
    end
  end
end

--- Opens a session: encrypted, verified and, when credentials are given, authenticated.
-- @param given  options as in README.md; also on = { alert = f, exists = f, ... }: functions for
--               what the server says unasked
-- @return a session, or nil and an error
function imap.connect(given)
  if type(given) == "table" then check_events(given.on) end
  local self, err = session.connect(Imap, given, { on = "table", eager = "table" })
  if err and err.status == "ALERT" and err.during == "auth" and given.on and given.on.alert then
    given.on.alert(err.text) -- RFC 9051 7.1: for a person to see, whatever it comes with
  end
  if self then self.enabled = {} end
  return self, err
end

--- Says goodbye, waits for the answer and closes (LOGOUT).
function Imap:logout()
  return self:say_goodbye "LOGOUT"
end

return imap
