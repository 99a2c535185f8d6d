-- What a peer's script can do; `p` in the script is an object of this class.
-- Every wait is bounded. A wait that fails, an expectation that is not met and
-- a client that leaves too early raise an error, which ends the script and is
-- found in the record as `error`.

local socket = require "socket"
local peer_tls = require "spec.support.peer_tls"

local Verbs = {}
Verbs.__index = Verbs

function Verbs.new(options)
  return setmetatable({
    listener = options.listener, control = options.control,
    bound = options.wait, deadline = socket.gettime() + options.total,
    buffer = "", recording = true, clear = {}, encrypted = {}, raw = {},
    connections = 0, handshakes = {},
  }, Verbs)
end

--- Raises an error at the line of the script.
function Verbs.fail(_, format, ...)
  local level = 2
  while true do
    local info = debug.getinfo(level, "Sl")
    if not info then break end
    if info.currentline > 0 and not info.source:find("support/peer", 1, true) then
      error(("%s:%d: %s"):format(info.short_src, info.currentline, format:format(...)), 0)
    end
    level = level + 1
  end
  error(format:format(...), 0)
end

-- Waiting ---------------------------------------------------------------

-- A message from the spec's process: "finish", or the end of interest.
function Verbs:read_control()
  self.control:settimeout(0)
  local line, why = self.control:receive "*l"
  if line == "finish" then
    self.finishing = true
  elseif why == "closed" then
    self.abandoned = true
    error("nobody waits for this peer any more", 0)
  end
end

function Verbs:watched(...)
  local list = { ... }
  if not self.finishing then list[#list + 1] = self.control end
  return list
end

-- One wait for a socket ("r" or "w"); false when the time is over.
function Verbs:wait(what, mode, seconds)
  local stop = math.min(self.deadline, socket.gettime() + (seconds or self.bound))
  repeat
    local left = math.max(0, stop - socket.gettime())
    local readable, writable
    if mode == "r" then
      readable, writable = socket.select(self:watched(what), nil, left)
    else
      readable, writable = socket.select(self:watched(), { what }, left)
    end
    if readable[self.control] then self:read_control() end
    if readable[what] or writable[what] then return true end
    if self.finishing and (self.draining or what == self.listener) then return false end
  until socket.gettime() >= stop
  return false
end

function Verbs:wait_for_client(mode, purpose)
  if not self:wait(self.conn, mode) then self:fail("timeout while waiting %s", purpose) end
end

--- Does nothing for that many seconds (at most the usual bound).
function Verbs:sleep(seconds)
  local stop = socket.gettime() + math.min(seconds, self.bound)
  repeat
    local readable = socket.select(self:watched(), nil, math.max(0, stop - socket.gettime()))
    if readable[self.control] then self:read_control() end
  until socket.gettime() >= stop
end

-- Connections -----------------------------------------------------------

--- Takes the next client; the first one is taken before the script begins.
function Verbs:accept()
  if self.conn then self:close() end
  if not self:wait(self.listener, "r") then self:fail("no client connected") end
  self.listener:settimeout(0)
  self.tcp = assert(self.listener:accept())
  self.tcp:setoption("tcp-nodelay", true)
  self.tcp:settimeout(0)
  self.conn = self.tcp
  self.buffer, self.secure, self.failed, self.lost = "", false, false, nil
  self.connections = self.connections + 1
end

-- Runs `action` with the plain TCP socket below the connection.
function Verbs:below_tls(action)
  if self.conn == self.tcp then return action(self.tcp) end
  self.tcp:setfd(self.conn:getfd())
  action(self.tcp)
  self.tcp:setfd(-1)
end

--- Closes the connection: with TLS a close-notify first, then FIN.
function Verbs:close()
  if not self.conn then return end
  self.conn:close()
  self.conn = nil
end

--- Sends FIN and goes on reading. With TLS no close-notify is sent: use `close`.
function Verbs:shutdown()
  self:below_tls(function(tcp) tcp:shutdown "send" end)
end

--- Ends the TCP connection with FIN, without the close-notify of TLS.
function Verbs:cut()
  self:below_tls(function(tcp) tcp:shutdown "both" end)
  self:close()
end

--- Ends the TCP connection with RST.
function Verbs:reset()
  self:below_tls(function(tcp)
    tcp:setoption("linger", { on = true, timeout = 0 })
    tcp:close()
  end)
  self:close()
end

-- Receiving -------------------------------------------------------------

function Verbs:note(bytes)
  if not self.recording then return end
  local kept = self.secure and self.encrypted or self.failed and self.raw or self.clear
  kept[#kept + 1] = bytes
end

--- `keep(false)` stops the recording of received bytes, `keep(true)` resumes it.
function Verbs:keep(recording)
  self.recording = recording
end

-- The bytes that have arrived; nil and "wait" or a reason when there are none.
function Verbs:receive_now()
  if self.lost then return nil, self.lost end
  local bytes, why, partial = self.conn:receive(65536)
  bytes = bytes or partial
  -- LuaSec never returns when it is asked to read or write once more after an error.
  if why and why ~= "timeout" and why ~= "wantread" then self.lost = why end
  if bytes and bytes ~= "" then
    self:note(bytes)
    return bytes
  end
  if why == "timeout" or why == "wantread" then return nil, "wait" end
  return nil, why
end

-- Waits for some bytes; nil and a reason when the client has closed.
function Verbs:receive(purpose)
  while true do
    local bytes, why = self:receive_now()
    if bytes or why ~= "wait" then return bytes, why end
    self:wait_for_client("r", purpose)
  end
end

function Verbs:more(purpose)
  local bytes, why = self:receive("for " .. purpose)
  if not bytes then
    self:fail("the client left (%s) before %s; received: %q", why, purpose, self.buffer:sub(1, 200))
  end
  return bytes
end

--- Everything up to and including `text` (plain), however long.
function Verbs:read_until(text, purpose)
  local parts, tail, rest = {}, "", self.buffer
  self.buffer = ""
  while true do
    local window = tail .. rest
    local _, last = window:find(text, 1, true)
    if last then
      self.buffer = window:sub(last + 1)
      parts[#parts + 1] = rest:sub(1, last - #tail)
      return table.concat(parts)
    end
    parts[#parts + 1] = rest
    tail = #text > 1 and window:sub(-(#text - 1)) or ""
    rest = self:more(purpose or ("%q"):format(text))
  end
end

--- One line with its line ending (LF ends a line).
function Verbs:line()
  return self:read_until("\n", "a line's end")
end

--- One line; an error unless it matches the Lua pattern. Returns the line.
function Verbs:expect(pattern)
  local line = self:line()
  if not line:find(pattern) then self:fail("expected %q, got %q", pattern, line) end
  return line
end

--- Exactly `count` bytes.
function Verbs:read(count)
  local parts, have = { self.buffer }, #self.buffer
  self.buffer = ""
  while have < count do
    local bytes = self:more(("%d bytes"):format(count))
    parts[#parts + 1], have = bytes, have + #bytes
  end
  local all = table.concat(parts)
  self.buffer = all:sub(count + 1)
  return all:sub(1, count)
end

--- Message content up to the line with the single dot, which is left out.
-- The content is as it was on the wire: leading dots are still doubled.
function Verbs:read_to_dot()
  if #self.buffer < 3 then self.buffer = self.buffer .. self:read_more_than(3 - #self.buffer) end
  if self.buffer:sub(1, 3) == ".\r\n" then
    self.buffer = self.buffer:sub(4)
    return ""
  end
  return self:read_until("\r\n.\r\n", "the final dot"):sub(1, -4)
end

function Verbs:read_more_than(count)
  local parts, have = {}, 0
  while have < count do
    local bytes = self:more "message content"
    parts[#parts + 1], have = bytes, have + #bytes
  end
  return table.concat(parts)
end

--- Reads until the client closes; with TLS tells "closed" (close-notify seen)
-- from "cut". Bytes that arrive meanwhile are recorded and otherwise ignored.
function Verbs:wait_for_close()
  self.buffer = ""
  while true do
    local bytes, why = self:receive "for the client to close"
    if not bytes then return why == "closed" and "closed" or "cut" end
  end
end

--- Like `wait_for_close`, but an error when the client sends anything first.
function Verbs:expect_eof()
  local bytes, why = self.buffer, nil
  self.buffer = ""
  if bytes == "" then bytes, why = self:receive "for the client to close" end
  if bytes then self:fail("expected the end of the connection, got %q", bytes:sub(1, 200)) end
  return why == "closed" and "closed" or "cut"
end

-- Sending ---------------------------------------------------------------

-- Sends as much as goes within the bounds: the number of bytes, and a reason
-- when it is not all of them.
function Verbs:push(bytes)
  local sent = 0
  if self.secure and self.lost and self.lost ~= "closed" then return sent, self.lost end
  while sent < #bytes do
    local last, why, partial = self.conn:send(bytes, sent + 1)
    sent = math.tointeger(last or partial) or sent
    if why == "timeout" or why == "wantwrite" then
      if not self:wait(self.conn, "w") then return sent, "timeout" end
    elseif why then
      return sent, why
    end
  end
  return sent
end

--- Sends its arguments as one piece: one TCP segment or TLS record when short.
function Verbs:send(...)
  local bytes = table.concat { ... }
  local sent, why = self:push(bytes)
  if sent < #bytes then self:fail("sent %d of %d bytes: %s", sent, #bytes, why) end
end

--- Sends byte by byte, each on its own, with a pause (1 ms unless told).
function Verbs:send_slowly(bytes, pause)
  for i = 1, #bytes do
    self:send(bytes:sub(i, i))
    self:sleep(pause or 0.001)
  end
end

--- Sends `bytes` again and again until the client closes, or `total` bytes are
-- sent, or nothing more can be sent within the bound (the client does not
-- read). Returns how many went out and "closed", "total" or "timeout".
function Verbs:flood(bytes, total)
  local block = bytes:rep(math.max(1, 65536 // #bytes))
  local sent = 0
  while sent < total do
    local count, why = self:push(block)
    sent = sent + count
    if why then return sent, why == "timeout" and "timeout" or "closed" end
    if socket.gettime() > self.deadline then return sent, "timeout" end
  end
  return sent, "total"
end

-- TLS -------------------------------------------------------------------

local waits = { wantread = "r", wantwrite = "w", timeout = "r" }

function Verbs:shake_hands(conn)
  while true do
    local ok, why = conn:dohandshake()
    if ok then return true end
    if not waits[why] then return nil, why end
    if not self:wait(conn, waits[why]) then return nil, "timeout" end
  end
end

-- The handshake: true, or nil and the reason.
function Verbs:try_starttls(options)
  if self.buffer ~= "" then
    self:fail("bytes in the clear before the handshake: %q", self.buffer:sub(1, 200))
  end
  local conn = peer_tls.wrap(self.tcp, options)
  self.conn = conn
  local ok, why = self:shake_hands(conn)
  if not ok then
    self.conn, self.failed = peer_tls.unwrap(conn, self.tcp), true
    return nil, why
  end
  self.secure = true
  self.handshakes[#self.handshakes + 1] = peer_tls.describe(conn)
  return true
end

--- Does the server's side of a TLS handshake; an error when it fails. Options:
-- `cert`, `key` (paths, PEM; `cert` may hold a chain), `min`, `max` ("TLSv1",
-- "TLSv1.1", "TLSv1.2", "TLSv1.3"), `ciphers`, `ciphersuites`, `curves`,
-- `alpn` (list), `client_certificate` ("request" or "require"), `ca_file` (for
-- it), `options` (further LuaSec options such as "no_extended_master_secret").
-- Returns the entry for the record: version, cipher, server_name, ...
function Verbs:starttls(options)
  local ok, why = self:try_starttls(options)
  if not ok then self:fail("handshake: %s", why) end
  return self.handshakes[#self.handshakes]
end

--- Begins the handshake and ends the connection (FIN) when the server's side of
-- it has sent `count` bytes: at 1 in the first record header, further on in its
-- flight. Returns the number of bytes sent.
function Verbs:starttls_cut_after(count, options)
  local sent = peer_tls.handshake_until(self.conn, options, count,
    function(what) return self:wait(what, "r") end)
  self:close()
  if sent < count then self:fail("the handshake ended after %d bytes already", sent) end
  return sent
end

--- The channel binding data of this connection: "tls-exporter" (TLS 1.3),
-- "tls-unique" (TLS 1.2) or "tls-server-end-point" (with the certificate's path).
function Verbs:channel_binding(kind, cert)
  return peer_tls.channel_binding(self.conn, kind, cert)
end

-- The end ---------------------------------------------------------------

-- After the script: say goodbye, then record what still comes in the clear
-- until the client closes or the spec wants the record.
function Verbs:conclude()
  if self.conn and not self.secure then pcall(self.drain, self) end
  pcall(self.close, self)
  while not self.finishing and not self.abandoned do
    local readable = socket.select({ self.control }, nil, self.bound)
    if not readable[self.control] then break end
    pcall(self.read_control, self)
  end
end

function Verbs:drain()
  self:shutdown()
  self.draining, self.deadline = true, math.huge
  while true do
    local _, why = self:receive_now()
    if why and (why ~= "wait" or self.finishing) then return end
    if why then self:wait(self.conn, "r", self.bound) end
  end
end

function Verbs:record()
  return {
    clear = table.concat(self.clear), encrypted = table.concat(self.encrypted),
    raw = table.concat(self.raw),
    connections = self.connections, handshakes = #self.handshakes, tls = self.handshakes,
  }
end

for _, file in ipairs { "peer_dialogues", "peer_smtp" } do
  for name, dialogue in pairs(require("spec.support." .. file)) do Verbs[name] = dialogue end
end

return Verbs
