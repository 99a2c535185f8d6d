--- What host.c runs: says how many messages an INBOX has, over IMAP, and leaves all as it is.
--
--   host examples/embed/inbox.lua THREADS STATES
--
-- The account is in the environment: MAIL_HOST, MAIL_USER, MAIL_PASSWORD, and where needed
-- MAIL_PORT and MAIL_CA_FILE.
local imap = require "starttls.imap"

local number = ... -- of this coroutine

local session <close> = assert(imap.connect {
  host = os.getenv "MAIL_HOST", port = tonumber(os.getenv "MAIL_PORT"),
  user = os.getenv "MAIL_USER", password = os.getenv "MAIL_PASSWORD",
  ca_file = os.getenv "MAIL_CA_FILE",
  loop = host,
})
local inbox = assert(session:examine "INBOX")
io.write(("%d\t%d messages\n"):format(number, inbox.exists)) -- in one piece: threads share stdout
assert(session:logout())
