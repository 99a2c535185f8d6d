-- `make bench`: ours beside Python's standard library and curl, against the real servers of the
-- specs, in one run. Prints each one's CPU time (user and system, of the client alone) and wall
-- time, the least of three runs, and the ratio to ours. Then how the time of large answers grows.
local clients = require "spec.support.clients"
local growth = require "spec.support.growth"
local process = require "spec.support.process"
local servers = require "spec.support.servers"
local shell = require "spec.support.shell"

local runs = 3

-- What is sent and fetched ------------------------------------------------------------------------

local function message(number, octets)
  local line = ("All work and no play makes a line of text that is not very long.\r\n")
  return ("From: Bob Example <bob@example.test>\r\nTo: Alice <alice@example.test>\r\n"
    .. "Subject: Message number %d\r\nDate: Tue, 24 Nov 2026 00:00:00 +0000\r\n"
    .. "Message-ID: <%d@example.test>\r\nMIME-Version: 1.0\r\n"
    .. "Content-Type: text/plain; charset=utf-8\r\n\r\n"):format(number, number)
    .. line:rep(octets // #line)
end

local function fill(mail, count, octets)
  clients.empty(mail, "alice")
  for number = 1, count do mail:deliver("alice", message(number, octets)) end
end

-- Running and timing ------------------------------------------------------------------------------

-- Runs a command of the shell. Returns CPU and wall seconds.
local function time(command)
  local timed = "TIMEFORMAT='%U %S %R'; time " .. command
  local output = shell.must("bash -c %s", shell.quote(timed))
  local user, system, real = output:match "([%d.]+) ([%d.]+) ([%d.]+)%s*$"
  return assert(tonumber(user), output) + tonumber(system), tonumber(real)
end

local function best(command)
  local cpu, wall = math.huge, math.huge
  for _ = 1, runs do
    local one_cpu, one_wall = time(command)
    cpu, wall = math.min(cpu, one_cpu), math.min(wall, one_wall)
  end
  return cpu, wall
end

local function environment(mail, count, path)
  local words = { "env" }
  for name, value in pairs {
    BENCH_COUNT = count, BENCH_CA = mail.ca_file, BENCH_IMAPS = mail.imap.tls_port,
    BENCH_SMTPS = mail.smtp.tls_port, BENCH_PASSWORD = mail.users.alice.password,
    BENCH_MESSAGE = path,
  } do
    words[#words + 1] = shell.quote(("%s=%s"):format(name, value))
  end
  return table.concat(words, " ") .. " "
end

local function curl_bodies(mail, count)
  return ("curl -s -o /dev/null --cacert %s -u %s 'imaps://localhost:%d/INBOX;MAILINDEX=[1-%d]'")
    :format(shell.quote(mail.ca_file), shell.quote("alice:" .. mail.users.alice.password),
      mail.imap.tls_port, count)
end

local function compare(title, mail, case, count, path, more)
  local lua, variables = os.getenv "LUA" or "lua5.4", environment(mail, count, path)
  local commands = {
    { "ours", variables .. lua .. " spec/bench/compare/ours.lua " .. case },
    { "python3", variables .. "python3 spec/bench/compare/python.py " .. case },
    more,
  }
  print(title)
  local ours
  for _, entry in ipairs(commands) do
    local cpu, wall = best(entry[2])
    ours = ours or cpu
    print(("  %-8s %7.3f s CPU %7.3f s wall %6.1f us a message %6.2f times ours")
      :format(entry[1], cpu, wall, cpu / count * 1e6, cpu / ours))
  end
end

-- All of it ---------------------------------------------------------------------------------------

local mail = servers.shared()
local directory <close> = process.temporary_directory()
local path = directory.path .. "/message"
process.write_file(path, message(0, 10240))

fill(mail, 5000, 500)
compare("IMAP: 5,000 messages, envelopes and structures (imaplib leaves them unparsed)", mail,
  "metadata", 5000, path)
fill(mail, 1000, 50 * 1024)
compare("IMAP: 1,000 bodies of 50 KiB", mail, "bodies", 1000, path,
  { "curl", curl_bodies(mail, 1000) })
compare("SMTP: 200 messages of 10 KiB on one session", mail, "send", 200, path)
mail:wait_for_mail("alice", 1)
clients.empty(mail, "alice")

-- The responses of the first comparison, made up: the parser sees no more of a server than these.
local function parser_alone()
  local lines = {}
  for number = 1, 5000 do
    local bob = '(("Bob Example" NIL "bob" "example.test"))'
    lines[number] = ('* %d FETCH (UID %d FLAGS (\\Seen) '
      .. 'INTERNALDATE "24-Nov-2026 00:00:00 +0000" RFC822.SIZE 1000 ENVELOPE ("Tue, 24 Nov 2026 00:00:00 +0000" "Message number %d" %s %s %s '
      .. '(("Alice" NIL "alice" "example.test")) NIL NIL NIL "<%d@example.test>") '
      .. 'BODYSTRUCTURE ("text" "plain" ("charset" "utf-8") NIL NIL "7bit" 1000 20 NIL NIL NIL NIL))\r\n')
      :format(number, number, number, bob, bob, bob, number)
  end
  process.write_file(path, table.concat(lines))
  return shell.must("%s/parser-bench %s", os.getenv "STARTTLS_BUILD" or "build/5.4",
    shell.quote(path))
end
print(("The C parser alone, on such responses: %s us each"):format(parser_alone()))

print "Growth: CPU time of an answer at 1x, 10x, 100x the size"
for _, case in ipairs(growth.cases) do
  local columns = {}
  for index, n in ipairs(case.sizes) do
    columns[index] = ("%9d: %8.2f ms"):format(n, growth.measure(case, n, runs) * 1000)
  end
  print(("  %-28s %s"):format(case.name, table.concat(columns, " ")))
end
