-- The TLS of the scripted peer: server contexts, what a finished handshake
-- agreed on, channel bindings, and a handshake that ends in the middle. It is
-- LuaSec, that is OpenSSL, at security level 0: a peer must be able to present
-- what a client has to refuse.

local socket = require "socket"
local ssl = require "ssl"
local context = require "ssl.context"
local core = require "ssl.core"

local peer_tls = {}

local versions = { "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3" }
local off = {
  ["TLSv1"] = "no_tlsv1", ["TLSv1.1"] = "no_tlsv1_1",
  ["TLSv1.2"] = "no_tlsv1_2", ["TLSv1.3"] = "no_tlsv1_3",
}

local function position(version)
  for i, name in ipairs(versions) do
    if name == version then return i end
  end
  error("unknown TLS version " .. tostring(version), 0)
end

local function ssl_options(options)
  local list = { "no_ticket", table.unpack(options.options or {}) }
  local first, last = position(options.min or "TLSv1.2"), position(options.max or "TLSv1.3")
  for i, name in ipairs(versions) do
    if i < first or i > last then list[#list + 1] = off[name] end
  end
  return list
end

local verify = {
  request = { "peer" },
  require = { "peer", "fail_if_no_peer_cert" },
}

local function new_context(options)
  local made = assert(ssl.newcontext {
    mode = "server", protocol = "any", certificates = {},
    options = ssl_options(options),
    ciphers = options.ciphers or "ALL:@SECLEVEL=0", ciphersuites = options.ciphersuites,
    curveslist = options.curves, alpn = options.alpn,
    verify = verify[options.client_certificate] or "none", cafile = options.ca_file,
    -- The script judges a client's certificate, not the handshake.
    verifyext = options.client_certificate and { "lsec_continue" } or nil,
  })
  -- Now that the security level is set: a higher one refuses weak keys and signatures.
  assert(context.loadkey(made, options.key, nil))
  assert(context.loadcert(made, options.cert))
  return made
end

--- A server's TLS connection over a connected socket.
function peer_tls.wrap(conn, options)
  local made = new_context(options)
  local wrapped = assert(ssl.wrap(conn, made))
  wrapped:sni({ [""] = made }, false)
  wrapped:settimeout(0)
  return wrapped
end

--- Gives the socket back after a handshake that failed.
function peer_tls.unwrap(conn, tcp)
  local fd = conn:getfd()
  core.setfd(conn, core.SOCKET_INVALID)
  tcp:setfd(fd)
  return tcp
end

--- What the handshake agreed on.
function peer_tls.describe(conn)
  local info = conn:info()
  local certificate = conn:getpeercertificate()
  return {
    version = info.protocol, cipher = info.cipher,
    server_name = conn:getsniname(), alpn = conn:getalpn(),
    client_certificate = certificate and certificate:pem() or nil,
  }
end

local function from_hex(text)
  return (text:gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end))
end

local bindings = {}

bindings["tls-exporter"] = function(conn)
  return conn:exportkeyingmaterial("EXPORTER-Channel-Binding", 32, "")
end

bindings["tls-unique"] = function(conn)
  return conn:getpeerfinished()
end

bindings["tls-server-end-point"] = function(_, cert)
  local file = assert(io.open(cert))
  local pem = file:read "a"
  file:close()
  return from_hex(ssl.loadcertificate(pem):digest "sha256")
end

function peer_tls.channel_binding(conn, kind, cert)
  return assert(assert(bindings[kind], "unknown channel binding")(conn, cert))
end

-- Two connected sockets.
local function pair()
  local listener = assert(socket.bind("127.0.0.1", 0))
  local _, port = listener:getsockname()
  local a = assert(socket.connect("127.0.0.1", port))
  local b = assert(listener:accept())
  listener:close()
  a:settimeout(0)
  return a, b
end

local function forward(from, to, limit)
  if limit <= 0 then return 0 end
  local bytes, _, partial = from:receive(limit)
  bytes = bytes or partial or ""
  if bytes ~= "" then to:send(bytes) end
  return #bytes
end

--- Runs a handshake behind a relay that lets only `count` bytes of the
-- server's side through. Returns how many there were.
function peer_tls.handshake_until(conn, options, count, wait)
  local relay, inner = pair()
  local server = peer_tls.wrap(inner, options)
  local sent, running = 0, true
  while sent < count and running do
    forward(conn, relay, 65536)
    local ok, why = server:dohandshake()
    socket.select({ relay }, nil, 0.01)
    local now = forward(relay, conn, count - sent)
    sent = sent + now
    if why == "wantread" and now == 0 and sent < count then running = wait(conn) end
    if ok and now == 0 then running = false end
    if not ok and why ~= "wantread" and why ~= "wantwrite" then running = false end
  end
  server:close()
  relay:close()
  return sent
end

return peer_tls
