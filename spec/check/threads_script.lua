-- threads_script.lua - what threads.lua has run in each coroutine of each state: sessions of all
-- protocols, whole ones, refused ones, and some that are given up while the name is looked up.

local protocols = {
  imap = require "starttls.imap", pop3 = require "starttls.pop3", smtp = require "starttls.smtp",
}
local number = ... -- of this coroutine
local user = number % 2 == 0 and "alice" or "bob"
local count = 0

-- Connects; `more` are further options.
local function connect(protocol, tls, more)
  local name = protocol:upper() .. (tls == "implicit" and "_TLS_PORT" or "_PORT")
  local options = {
    host = os.getenv "MAIL_HOST", port = math.tointeger(tonumber(os.getenv(name))), tls = tls,
    ca_file = os.getenv "MAIL_CA_FILE", user = user,
    password = os.getenv(user:upper() .. "_PASSWORD"), loop = host,
  }
  for key, value in pairs(more or {}) do options[key] = value end
  return protocols[protocol].connect(options)
end

local function fails(kind, session, err)
  assert(not session and err.kind == kind, err or "no failure")
end

local work = {
  imap = function(session)
    assert(session:select "INBOX")
    local messages = assert(session:fetch_all("1:*", { "envelope", "body" }))
    assert(#messages == 1 and messages[1].envelope.subject == "One")
    assert(session:logout())
  end,
  pop3 = function(session)
    assert(session:stat() == 1)
    assert(assert(session:retr(1)):find "Hello")
    assert(session:quit())
  end,
  smtp = function(session)
    assert(session:noop())
    assert(session:quit())
  end,
}

for index, protocol in ipairs { "smtp", "imap", "smtp", "pop3", "smtp" } do
  local tls = (index + number) % 4 < 2 and "starttls" or "implicit"
  local sasl = index % 2 == 0 and "PLAIN" or nil -- not SCRAM each time, which takes its time
  local session <close> = assert(connect(protocol, tls, { sasl = sasl }))
  work[protocol](session)
  count = count + 1
end
fails("timeout", connect("imap", "starttls", { connect_timeout = 1e-9 }))
fails("certificate", connect("imap", "implicit", { server_name = "other.example.test" }))

io.write(("%d sessions\n"):format(count))
