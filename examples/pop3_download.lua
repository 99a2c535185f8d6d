--- Downloads what is new in a POP3 mailbox into a directory, one file for each message.
--
--   lua5.4 examples/pop3_download.lua DIRECTORY [delete | DAYS]
--
-- What has been downloaded is remembered in the directory, so that files may be moved away. With
-- "delete", what is safe on disk is deleted from the server; with a number, when it has been there
-- for that many days. The account is in the environment: MAIL_HOST, MAIL_USER, MAIL_PASSWORD, and
-- where needed MAIL_PORT and MAIL_CA_FILE.
local pop3 = require "starttls.pop3"

local directory, delete = arg[1], arg[2]
if not directory then error("usage: pop3_download.lua DIRECTORY [delete | DAYS]", 0) end

local session <close> = assert(pop3.connect {
  host = os.getenv "MAIL_HOST", port = tonumber(os.getenv "MAIL_PORT"),
  user = os.getenv "MAIL_USER", password = os.getenv "MAIL_PASSWORD",
  ca_file = os.getenv "MAIL_CA_FILE",
})

local result = assert(pop3.download(session, {
  directory = directory, delete = delete == "delete" or tonumber(delete),
}))
for _, it in ipairs(result.saved) do print("saved", it.size, it.path) end
for _, it in ipairs(result.failed) do
  io.stderr:write("failed\t", it.n, "\t", tostring(it.err), "\n")
end

local goodbye = assert(session:quit()) -- only now the server deletes
if goodbye.deleted > 0 then print("deleted", goodbye.deleted) end
