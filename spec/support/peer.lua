-- The scripted peer: a server on the loopback interface that says exactly what
-- a spec wants, at any byte, with OpenSSL as its TLS (the library under test
-- uses GnuTLS).
--
--   local peer <close> = Peer.start(function(p, args)
--     p:send "220 mail.example.test ESMTP\r\n"
--     p:expect "^EHLO "
--     p:send("250-mail.example.test\r\n", "250 STARTTLS\r\n")
--     p:expect "^STARTTLS\r\n"
--     p:send "220 go ahead\r\n"
--     p:starttls { cert = args.cert, key = args.key }
--     p:expect "^EHLO "
--   end, { cert = cert, key = key })
--   ... connect to 127.0.0.1, peer.port ...
--   local record = peer:finish()
--
-- The script runs in a process of its own, since the client under test blocks.
-- So it sees its arguments and Lua's globals, and no outer local: the attempt
-- is refused by `start`. Inside it `require` works. The verbs of `p` are in
-- peer_verbs.lua, whole dialogues in peer_dialogues.lua.
--
-- The script starts when a client has connected. When it ends, the connection
-- is closed in an orderly way. What the client sends after that in the clear is
-- recorded all the same, up to the call of `finish`.
--
-- LuaSocket, which this file loads, ignores SIGPIPE for the whole process: a spec
-- about SIGPIPE has to run its client in a process without it.

local socket = require "socket"
local patience = require "spec.support.patience"
local transfer = require "spec.support.transfer"

local Peer = {}
Peer.__index = Peer

local function interpreter()
  local first = 0
  while arg and arg[first - 1] do first = first - 1 end
  return first < 0 and arg[first] or "lua5.4"
end

local function quote(word)
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

local function write_job(job)
  local bytes = transfer.pack(job)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
  return path
end

local function launch(job_path)
  local program = assert(package.searchpath("spec.support.peer_process", package.path))
  local pipe = assert(io.popen(("exec env -u LD_PRELOAD %s %s %s </dev/null"):format(
    quote(interpreter()), quote(program), quote(job_path)), "r"))
  local port, control_port = (pipe:read "l" or ""):match "^(%d+) (%d+)$"
  if not port then
    pipe:close()
    error("the peer's process did not start", 0)
  end
  return pipe, math.tointeger(port), math.tointeger(control_port)
end

--- Starts a peer that runs `script(p, args)` for the first client.
-- `options.host`: the address to listen on, "127.0.0.1" unless told.
-- `options.wait`: the bound of each single wait, 10 s unless told.
-- `options.total`: the bound of the whole script, 60 s unless told.
function Peer.start(script, args, options)
  options = options or {}
  local job_path = write_job {
    script = script, args = args or {}, path = package.path, cpath = package.cpath,
    host = options.host or "127.0.0.1",
    wait = patience.seconds(options.wait or 10),
    total = patience.seconds(options.total or 60),
  }
  local pipe, port, control_port = launch(job_path)
  local control = assert(socket.connect("127.0.0.1", control_port))
  control:settimeout(patience.seconds((options.total or 60) + 10))
  return setmetatable({ pipe = pipe, port = port, control = control }, Peer)
end

--- Waits for the end of the script. Returns a record:
-- `ok`, and `error` (text) when a wait failed or an expectation was not met;
-- `result`: what the script returned;
-- `clear`, `encrypted`, `raw`: every byte received before TLS, inside TLS, and
-- after a handshake that had failed;
-- `connections`, `handshakes`: counts;
-- `tls`: for each handshake version, cipher, server_name, alpn and
-- client_certificate (PEM).
function Peer:finish()
  if self.record then return self.record end
  assert(self.control, "the peer is closed")
  self.control:send "finish\n"
  local bytes, why = self.control:receive "*a"
  self:close()
  if not bytes or bytes == "" then
    error("the peer's process ended without a record: " .. tostring(why or "it failed"), 2)
  end
  self.record = transfer.unpack(bytes)
  return self.record
end

--- Ends the peer at once, whatever its script is doing.
function Peer:close()
  if not self.control then return end
  self.control:close()
  self.pipe:close()
  self.control, self.pipe = nil, nil
end

Peer.__close = Peer.close
Peer.__gc = Peer.close

-- A socket that a spec holds only for its port number.
local Port = {}
Port.__index = Port

function Port:close()
  self.socket:close()
end

Port.__close = Port.close

local function hold(listening, host)
  local holder = assert(socket.tcp4())
  assert(holder:bind(host or "127.0.0.1", 0))
  if listening then assert(holder:listen(16)) end
  local _, port = holder:getsockname()
  return setmetatable({ socket = holder, port = math.tointeger(tonumber(port)) }, Port)
end

--- A port where connections are accepted and nothing is ever said.
function Peer.listen_silently(host)
  return hold(true, host)
end

--- A port that refuses connections for as long as the object lives.
function Peer.closed_port(host)
  return hold(false, host)
end

return Peer
