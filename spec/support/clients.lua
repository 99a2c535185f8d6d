-- The library under test as a client of the real servers (spec.support.servers):
--
--   local session <close> = clients.connect(mail, "imap", { tls = "implicit" })
--
-- is alice's session on the right port, with the throw-away CA.

local lfs = require "lfs"
local patience = require "spec.support.patience"

local clients = {}

clients.protocols = { "smtp", "imap", "pop3" }

--- Options for connect(). `extra` adds or replaces; a value of false takes an option away.
function clients.options(mail, protocol, extra)
  local endpoint = mail[protocol]
  local options = {
    host = mail.host, ca_file = mail.ca_file, timeout = patience.seconds(20),
    port = extra and extra.tls == "implicit" and endpoint.tls_port or endpoint.port,
    user = "alice", password = mail.users.alice.password,
  }
  for name, value in pairs(extra or {}) do options[name] = value or nil end
  return options
end

--- What connect() returns: a session, or nil and an error.
function clients.try(mail, protocol, extra)
  return require("starttls." .. protocol).connect(clients.options(mail, protocol, extra))
end

--- A session; raises the error when there is none.
function clients.connect(mail, protocol, extra)
  local session, err = clients.try(mail, protocol, extra)
  if not session then error(("%s: %s"):format(protocol, err), 2) end
  return session
end

--- Empties a mailbox as if it had never had a message: with the files that `mail:empty`
-- removes goes Dovecot's index, which else goes on naming them for a second or so.
function clients.empty(mail, user)
  mail:empty(user)
  local folder = ("%s/mail/%s"):format(mail.dir, user)
  for name in lfs.dir(folder) do
    if name:find "^dovecot" then os.remove(folder .. "/" .. name) end
  end
end

return clients
