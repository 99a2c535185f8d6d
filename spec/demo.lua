-- What `make demo` runs: starts Exim and Dovecot with a throw-away CA, spool and users under a
-- temporary directory, lets examples/roundtrip.lua walk a message through them, and stops what
-- it started. Exit status 0 only when the message came back as it was sent.
--
-- However it ends, by an error, Ctrl-C or a signal, no process and no file is left: the servers
-- and their directory have guards (support/process.lua).

local servers = require "spec.support.servers"
local shell = require "spec.support.shell"

-- The interpreter that runs this.
local function interpreter()
  local first = 0
  while arg[first - 1] do first = first - 1 end
  return os.getenv "LUA" or arg[first]
end

local function roundtrip(mail)
  local settings = {
    MAIL_HOST = mail.host, MAIL_CA_FILE = mail.ca_file, MAIL_USER = "alice",
    MAIL_PASSWORD = mail.users.alice.password, MAIL_ADDRESS = mail.users.alice.address,
    MAIL_SMTP_PORT = mail.smtp.port, MAIL_IMAP_PORT = mail.imap.port,
    MAIL_POP3_PORT = mail.pop3.port,
  }
  local words = { "exec env" }
  for name, value in pairs(settings) do words[#words + 1] = shell.quote(name .. "=" .. value) end
  words[#words + 1] = shell.quote(interpreter())
  words[#words + 1] = "examples/roundtrip.lua"
  -- Its output goes where ours goes; "w" only keeps it from reading our input.
  return assert(io.popen(table.concat(words, " "), "w")):close()
end

io.stdout:setvbuf "line"
local mail <close> = servers.start()
print(("Exim and Dovecot are running on %s, with all their files in %s."):format(
  mail.host, mail.dir))
local came_back = roundtrip(mail)
mail:stop()
print "Exim and Dovecot are stopped, and their files removed."
os.exit(came_back == true, true)
