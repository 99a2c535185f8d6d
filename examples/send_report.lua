--- Sends a report: text and HTML, with a picture in it, and a file attached.
--
--   lua5.4 examples/send_report.lua logo.png report.pdf "Alice <alice@example.com>" bob@example.net
--
-- The last two are From and To, as they stand in a header; To may be a list. The attachment is
-- read while it is sent, so its size doesn't matter. The account is in the environment: MAIL_HOST,
-- MAIL_USER, MAIL_PASSWORD, and where needed MAIL_PORT and MAIL_CA_FILE.
-- Exit status: 0 when all recipients were accepted, else 1.
local message = require "starttls.message"
local smtp = require "starttls.smtp"

local picture, report, from, to = table.unpack(arg)
if not to then error("usage: send_report.lua PICTURE REPORT FROM TO", 0) end

local today = os.date "!%Y-%m-%d"
local mail = assert(message.new {
  from = from, to = to, subject = "Report – " .. today,
  text = ("The report of %s is attached.\n"):format(today),
  html = ("<p><img src='cid:logo' alt=''> The report of <b>%s</b> is attached.</p>"):format(today),
  inline = { logo = { file = picture } },
  attachments = { { file = report, name = ("report – %s.pdf"):format(today) } },
})

local session <close> = assert(smtp.connect {
  host = os.getenv "MAIL_HOST", port = tonumber(os.getenv "MAIL_PORT"),
  user = os.getenv "MAIL_USER", password = os.getenv "MAIL_PASSWORD",
  ca_file = os.getenv "MAIL_CA_FILE",
})
local result = assert(session:send { message = mail })

for _, address in ipairs(result.accepted) do print("accepted", address) end
for _, refused in ipairs(result.rejected) do
  print("refused", refused.address, refused.code, refused.text)
end
session:quit()
os.exit(#result.rejected == 0, true)
