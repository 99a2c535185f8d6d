--- POP3: fetch and delete (RFC 1939, 2449, 6856).
-- May rely on starttls.session and the files of starttls/pop3.
--
-- Deletions take effect when quit() succeeds, and only then: a session that is
-- closed or lost before leaves the mailbox as it was.
local session = require "starttls.session"
local Pop3 = require "starttls.pop3.class"
require "starttls.pop3.capabilities"
require "starttls.pop3.deleting"
require "starttls.pop3.lists"
require "starttls.pop3.messages"

local pop3 = { download = require "starttls.pop3.download" }

--- Opens a session: encrypted, verified and, when credentials are given, authenticated.
-- @param given  options as in README.md; here also utf8 = true: UTF-8 mode (RFC 6856 2.1), which
--               begins before authentication. Fails where the server does not list UTF8.
-- @return a session, or nil and an error
function pop3.connect(given)
  local self, err = session.connect(Pop3, given, { utf8 = "boolean", eager = "table" })
  if self then self.user = given.user end
  return self, err
end

--- Connects, fetches one message and says goodbye, which rides along with the message where the
-- server has PIPELINING. Deletes nothing.
-- @param given  options for connect
-- @param n      the message's number
-- @param sink   as for session:retr
-- @return as session:retr
function pop3.retr(given, n, sink)
  Pop3.number(n, "retr")
  local self <close>, err = pop3.connect(given) -- luacheck: ignore
  if not self then return nil, err end
  return self:retr_and_quit(n, sink)
end

return pop3
