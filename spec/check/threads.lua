-- threads.lua HOST - runs examples/embed/'s host, built with ThreadSanitizer, against real servers:
-- four threads with a Lua state each, and 1,000 whole sessions in all. Fails on a data race, on a
-- session that fails, and when there were fewer sessions than that. GnuTLS, GNU SASL and Lua are
-- not instrumented, but their locks and what they do to our memory through libc are seen.

local servers = require "spec.support.servers"
local shell = require "spec.support.shell"

local host = arg[1] or error("usage: threads.lua HOST", 0)
local THREADS, STATES, WANTED = 4, 13, 1000

-- Whatever ThreadSanitizer reports is an error, also when the program goes on well.
local options = "exitcode=66 second_deadlock_stack=1"

local mail <close> = servers.start()
mail:deliver("alice", "From: bob@example.test\r\nSubject: One\r\n\r\nHello\r\n")
mail:deliver("bob", "From: alice@example.test\r\nSubject: One\r\n\r\nHello\r\n")

local variables = { TSAN_OPTIONS = options, MAIL_HOST = mail.host, MAIL_CA_FILE = mail.ca_file,
  ALICE_PASSWORD = mail.users.alice.password, BOB_PASSWORD = mail.users.bob.password }
for _, protocol in ipairs { "smtp", "imap", "pop3" } do
  variables[protocol:upper() .. "_PORT"] = mail[protocol].port
  variables[protocol:upper() .. "_TLS_PORT"] = mail[protocol].tls_port
end
local words = { "env" }
for name, value in pairs(variables) do words[#words + 1] = shell.quote(name .. "=" .. value) end
words[#words + 1] = ("%s spec/check/threads_script.lua %d %d"):format(
  shell.quote(host), THREADS, STATES)

local started = os.time()
local ok, output = shell.run((table.concat(words, " "):gsub("%%", "%%%%")))
local sessions = 0
output = output:gsub("(%d+) sessions\n", function(count)
  sessions = sessions + tonumber(count)
  return ""
end)
io.write(output)
print(("threads: %d whole sessions in %d threads, %d states in each, %d s"):format(
  sessions, THREADS, STATES, os.time() - started))
if not ok or output ~= "" or sessions < WANTED then
  print("threads: failed")
  os.exit(1, true)
end
