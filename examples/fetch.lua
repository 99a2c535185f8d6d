--- Lists the unseen messages of an IMAP mailbox and saves each to a file UID.eml.
--
--   lua5.4 examples/fetch.lua DIRECTORY [MAILBOX]
--
-- The messages stay unseen. They are streamed, so their size doesn't matter. The account is in
-- the environment: MAIL_HOST, MAIL_USER, MAIL_PASSWORD, and where needed MAIL_PORT and
-- MAIL_CA_FILE.
local imap = require "starttls.imap"

local directory, mailbox = arg[1], arg[2] or "INBOX"
if not directory then error("usage: fetch.lua DIRECTORY [MAILBOX]", 0) end

-- Writes one message to a file, which gets its name only when it is complete.
local function save(session, uid)
  local path = ("%s/%d.eml"):format(directory, uid)
  local file = assert(io.open(path .. ".part", "wb"))
  local saved, err = session:fetch_all(uid, { "body" }, { sink = function() return file end })
  assert(file:close())
  assert(saved, err)
  assert(os.rename(path .. ".part", path))
end

local session <close> = assert(imap.connect {
  host = os.getenv "MAIL_HOST", port = tonumber(os.getenv "MAIL_PORT"),
  user = os.getenv "MAIL_USER", password = os.getenv "MAIL_PASSWORD",
  ca_file = os.getenv "MAIL_CA_FILE",
})
assert(session:examine(mailbox))

local uids = assert(session:search "UNSEEN")
for _, msg in ipairs(assert(session:fetch_all(uids, { "envelope", "size" }))) do
  local from = msg.envelope.from[1]
  print(msg.uid, msg.size, from and from.address or "", msg.envelope.subject or "")
  save(session, msg.uid)
end
assert(session:logout())
