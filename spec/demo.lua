-- What `make demo` runs: starts Exim and Dovecot with a throw-away CA, spool and users under a
-- temporary directory, lets examples/roundtrip.lua walk a message through them, and stops what
-- it started. Exit status 0 only when the message came back as it was sent.
--
-- However it ends, by an error, Ctrl-C or a signal, no process and no file is left: the servers
-- have their guards (support/process.lua), and the directory has one here.

local servers = require "spec.support.servers"
local shell = require "spec.support.shell"

-- A shell that waits for the end of this process, in whatever way that comes, and for that
-- of the servers, and then removes the directory if it is still there.
local guard = [[
trap : INT TERM HUP
cat >/dev/null
tries=0
while [ $tries -lt 200 ]; do
  tries=$((tries + 1))
  kill -0 %d 2>/dev/null || kill -0 %d 2>/dev/null || { rm -rf -- %s 2>/dev/null && exit; }
  sleep 0.1
done]]

local function guard_directory(mail)
  local script = guard:format(mail.programs[1].pid, mail.programs[2].pid, shell.quote(mail.dir))
  return assert(io.popen("exec sh -c " .. shell.quote(script), "w"))
end

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
mail.guard = guard_directory(mail) -- closed with the Lua state, behind `mail`
print(("Exim and Dovecot are running on %s, with all their files in %s."):format(
  mail.host, mail.dir))
local came_back = roundtrip(mail)
mail:stop()
print "Exim and Dovecot are stopped, and their files removed."
os.exit(came_back == true, true)
