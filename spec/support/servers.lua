-- Real mail servers on the loopback interface, with a configuration, users,
-- spool and certificates of their own in a temporary directory: Exim for SMTP,
-- Dovecot for IMAP, POP3 and LMTP. Exim delivers into the maildirs that Dovecot reads.
--
--   local mail <close> = servers.start()
--   mail.host, mail.smtp.port, mail.imap.tls_port, mail.ca_file, mail.users.alice.password ...
--
--   local mail = servers.shared()   -- one for the whole run, stopped at its end
--
-- Nothing of the machine's own mail system is read, written or started.

local lfs = require "lfs"
local socket = require "socket"
local certificates = require "spec.support.certificates"
local dovecot = require "spec.support.dovecot"
local exim = require "spec.support.exim"
local patience = require "spec.support.patience"
local process = require "spec.support.process"

local servers = {}

local Servers = {}
Servers.__index = Servers

local function account_number(option, name)
  local pipe = assert(io.popen(("id %s %s 2>/dev/null"):format(option, name)))
  local number = pipe:read "n"
  pipe:close()
  return number
end

-- Who owns the mail: the account of Exim, since an Exim with a configuration of
-- ours does not get root's rights back for a delivery.
local function mail_owner()
  if account_number("-u", "") ~= 0 then
    error("the real mail servers need root: Exim starts as a daemon for root only", 0)
  end
  local uid, gid = account_number("-u", "Debian-exim"), account_number("-g", "Debian-exim")
  if not uid then error("no account Debian-exim: install exim4-daemon-heavy", 0) end
  return { uid = uid, gid = gid }
end

local function make_maildirs(self)
  local words = { "mkdir", "-p" }
  for name in pairs(self.users) do
    for _, part in ipairs { "cur", "new", "tmp" } do
      words[#words + 1] = ("%s/mail/%s/%s"):format(self.dir, name, part)
    end
  end
  process.run(words)
end

local function give_away(self)
  process.run { "chmod", "755", self.dir }
  process.run { "chown", "-R", ("%d:%d"):format(self.owner.uid, self.owner.gid),
    self.dir .. "/mail", self.dir .. "/exim/spool", self.dir .. "/exim/log" }
end

local function make_certificates(self, options)
  local ca = certificates.ca(self.dir)
  self.ca, self.ca_file = ca, ca.cert
  local given = options.certificate or ca:issue {
    name = "server", dns = { "localhost" }, ip = { "127.0.0.1", "::1", self.far_host },
  }
  self.cert, self.key = given.cert, given.key
  process.run { "chmod", "644", self.key }
end

local function start_programs(self)
  self.programs = { dovecot.start(self), exim.start(self) }
  for _, endpoint in ipairs { self.imap, self.pop3 } do
    self.programs[1]:wait_for_port("127.0.0.1", endpoint.port)
    self.programs[1]:wait_for_port("127.0.0.1", endpoint.tls_port)
  end
  self.programs[1]:wait_for_port("127.0.0.1", self.lmtp.port)
  self.programs[2]:wait_for_port("127.0.0.1", self.smtp.port)
end

local function take_ports(self)
  local ports = { process.free_ports(7) }
  self.smtp = { port = ports[1], tls_port = ports[2] }
  self.imap = { port = ports[3], tls_port = ports[4] }
  self.pop3 = { port = ports[5], tls_port = ports[6] }
  self.lmtp = { port = ports[7] }
end

--- Starts the servers. Options: `tls_min`, `tls_max` ("TLSv1.2", "TLSv1.3");
-- `certificate` = { cert =, key = } instead of a good one for "localhost",
-- 127.0.0.1 and ::1.
-- Fields of the result: `host`, `smtp`, `imap`, `pop3` (each with `port` for
-- STARTTLS and `tls_port` for TLS from the first byte), `lmtp` (`port` for STARTTLS
-- and `path` of a Unix socket), `ca_file`, `ca` (issues
-- more certificates, for clients say), `users` (name -> password, address).
-- `far_host`: the same servers, at an address where Dovecot takes a client for a
-- remote one and says LOGINDISABLED before TLS (it trusts a client that has the
-- address of the server, so at `host` it takes passwords in the clear).
-- Addresses that are refused: `refused` (550) and `deferred` (451).
function servers.start(options)
  options = options or {}
  local directory = process.temporary_directory()
  local self = setmetatable({
    directory = directory, dir = directory.path, host = "localhost",
    far_host = "127.0.0.2",
    tls_min = options.tls_min or "TLSv1.2", tls_max = options.tls_max or "TLSv1.3",
    users = {
      alice = { password = "wonderland 1865", address = "alice@example.test" },
      bob = { password = "builder \\\"quoted\\\" 99%", address = "bob@example.test" },
    },
    refused = "refused@example.test", deferred = "deferred@example.test",
  }, Servers)
  self.owner = mail_owner()
  take_ports(self)
  make_certificates(self, options)
  make_maildirs(self)
  dovecot.configure(self)
  exim.configure(self)
  give_away(self)
  start_programs(self)
  return self
end

local shared_key = "starttls.spec.servers"

--- The servers that all specs of a run share. They stop when Lua ends.
function servers.shared()
  -- The registry, since busted takes loaded modules and globals back after each file.
  local registry = debug.getregistry()
  if not registry[shared_key] then registry[shared_key] = servers.start() end
  return registry[shared_key]
end

--- A bearer token for XOAUTH2 and OAUTHBEARER at Dovecot, good for a while
-- (`seconds` from now, 3600 unless told; negative: expired).
function Servers:token(user, seconds)
  return dovecot.token(self, user, seconds or 3600)
end

--- Puts a message into the user's INBOX, byte for byte. Returns its file name.
function Servers:deliver(user, bytes)
  self.delivered = (self.delivered or 0) + 1
  local name = ("%d.spec%06d.localhost"):format(os.time(), self.delivered)
  local maildir = ("%s/mail/%s"):format(self.dir, user)
  process.write_file(maildir .. "/tmp/" .. name, bytes)
  assert(os.rename(maildir .. "/tmp/" .. name, maildir .. "/new/" .. name))
  return name
end

--- The user's messages, oldest first: list of { path =, name =, bytes = size }.
function Servers:inbox(user)
  local found = {}
  for _, part in ipairs { "new", "cur" } do
    local folder = ("%s/mail/%s/%s"):format(self.dir, user, part)
    for name in lfs.dir(folder) do
      local path = folder .. "/" .. name
      local facts = lfs.attributes(path)
      if facts and facts.mode == "file" then
        found[#found + 1] = { name = name, path = path, bytes = facts.size }
      end
    end
  end
  table.sort(found, function(a, b) return a.name < b.name end)
  return found
end

--- Waits, bounded, until the user has at least `count` messages; returns them.
function Servers:wait_for_mail(user, count)
  local stop = socket.gettime() + patience.seconds(20)
  repeat
    local found = self:inbox(user)
    if #found >= count then return found end
    socket.sleep(0.01)
  until socket.gettime() > stop
  error(("%s has %d messages, not %d\n%s"):format(user, #self:inbox(user), count, self:log()), 2)
end

--- Empties the user's mailbox, so that a spec starts from nothing. Dovecot's index
-- goes too, since it names removed files for a second or so.
function Servers:empty(user)
  for _, message in ipairs(self:inbox(user)) do os.remove(message.path) end
  local maildir = ("%s/mail/%s"):format(self.dir, user)
  for name in lfs.dir(maildir) do
    if name:find "^dovecot" then os.remove(maildir .. "/" .. name) end
  end
end

--- The last lines of the servers' logs, for the message of a failed spec.
function Servers:log(lines)
  local parts = {}
  for _, path in ipairs { "/dovecot/log", "/exim/log/mainlog", "/exim/log/paniclog" } do
    local text = process.read_file(self.dir .. path)
    if text and text ~= "" then parts[#parts + 1] = ("== %s\n%s"):format(path, text) end
  end
  local kept, count = {}, lines or 60
  for line in table.concat(parts, "\n"):gmatch "[^\n]+" do kept[#kept + 1] = line end
  return table.concat(kept, "\n", math.max(1, #kept - count + 1))
end

--- Stops everything and removes every file.
function Servers:stop()
  for _, program in ipairs(self.programs or {}) do program:stop() end
  self.programs = nil
  self.directory:close()
end

Servers.__close = Servers.stop
Servers.__gc = Servers.stop

return servers
