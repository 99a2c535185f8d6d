--- Sends a message, from a file or from standard input, to any number of recipients.
--
--   lua5.4 examples/send.lua alice@example.com bob@example.net carol@example.net < message.eml
--   lua5.4 examples/send.lua -f message.eml alice@example.com bob@example.net
--
-- The first address is the sender. The message is complete, header and all; it is streamed,
-- so its size doesn't matter. The account is in the environment: MAIL_HOST, MAIL_USER,
-- MAIL_PASSWORD, and where needed MAIL_PORT and MAIL_CA_FILE.
-- Exit status: 0 when all recipients were accepted, else 1.
local smtp = require "starttls.smtp"

local message = io.stdin
local addresses = table.pack(table.unpack(arg))
if addresses[1] == "-f" then
  message = assert(io.open(addresses[2], "rb"))
  addresses = table.pack(table.unpack(addresses, 3))
end
local from = table.remove(addresses, 1)
if not addresses[1] then error("usage: send.lua [-f FILE] FROM TO...", 0) end

local session <close> = assert(smtp.connect {
  host = os.getenv "MAIL_HOST", port = tonumber(os.getenv "MAIL_PORT"),
  user = os.getenv "MAIL_USER", password = os.getenv "MAIL_PASSWORD",
  ca_file = os.getenv "MAIL_CA_FILE",
})
local result = assert(session:send { from = from, to = addresses, message = message })

for _, address in ipairs(result.accepted) do print("accepted", address) end
for _, refused in ipairs(result.rejected) do
  print("refused", refused.address, refused.code, refused.text)
end
session:quit()
os.exit(#result.rejected == 0, true)
