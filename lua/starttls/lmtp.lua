--- LMTP: delivery into mailboxes, with an answer for each recipient (RFC 2033).
-- May rely on starttls.session and starttls.smtp.
--
-- The methods are those of SMTP sessions. After the content the server says of each recipient
-- that it accepted whether it has delivered the message; so `accepted` has those it did, and
-- `rejected` the others, whichever way they were refused.
local session = require "starttls.session"
local smtp = require "starttls.smtp"

local lmtp = {}
local Lmtp = session.class("lmtp", smtp.class)

--- Opens a session over TCP (`host`, `port`, by default 24) or a Unix socket (`path`).
-- @param given  options as in README.md; also client_name, what LHLO says. With `path`, tls
--               is "none" unless told otherwise; with `host` it is "starttls".
-- @return a session, or nil and an error. Raises on misuse, which port 25 is (RFC 2033 5).
function lmtp.connect(given)
  if type(given) == "table" and given.port == 25 then
    error("starttls: LMTP must not be spoken on port 25", 0)
  end
  return session.connect(Lmtp, given, { client_name = "string" })
end

--- Connects, sends one message and says goodbye.
-- @param options  as for lmtp.connect
-- @param given    as for session:send
-- @return as session:send
function lmtp.send(options, given)
  return smtp.send_once(lmtp.connect, options, given)
end

return lmtp
