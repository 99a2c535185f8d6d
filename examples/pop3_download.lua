--- Downloads what is new in a POP3 mailbox into a directory, one file for each message.
--
--   lua5.4 examples/pop3_download.lua DIRECTORY [delete]
--
-- A message is new when there is no file of its unique identifier yet. With "delete", what is
-- on disk is deleted from the server. Messages are streamed, so their size doesn't matter. The
-- account is in the environment: MAIL_HOST, MAIL_USER, MAIL_PASSWORD, and where needed
-- MAIL_PORT and MAIL_CA_FILE.
local pop3 = require "starttls.pop3"

local directory, delete = arg[1], arg[2] == "delete"
if not directory then error("usage: pop3_download.lua DIRECTORY [delete]", 0) end

-- The identifier is the server's word, and may have "/" or "..": it is no file name as it is.
local function path_of(msg)
  local name = assert(msg.uid, "the server has no unique identifiers")
    :gsub("[^%w-]", function(c) return ("%%%02X"):format(c:byte()) end)
  return ("%s/%s.eml"):format(directory, name)
end

local function exists(path)
  local file = io.open(path)
  return file and file:close()
end

local session <close> = assert(pop3.connect {
  host = os.getenv "MAIL_HOST", port = tonumber(os.getenv "MAIL_PORT"),
  user = os.getenv "MAIL_USER", password = os.getenv "MAIL_PASSWORD",
  ca_file = os.getenv "MAIL_CA_FILE",
})

for msg in session:messages() do
  local path = path_of(msg)
  if not exists(path) then
    assert(msg:save(path))
    print("saved", msg.size, path)
  end
  if delete then assert(msg:delete()) end
end
assert(session:quit()) -- only now the server deletes
