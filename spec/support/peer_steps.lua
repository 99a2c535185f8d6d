-- Scripted peers whose script is a list of steps, for specs that are tables of cases:
--
--   local peer <close> = peer_steps.start({
--     { "send", "220 mail.example.test ESMTP\r\n" },
--     { "expect", "^EHLO " },
--     { "send", "250-mail.example.test\r\n250 STARTTLS\r\n" },
--     { "expect", "^STARTTLS\r\n" },
--     { "send", "220 go ahead\r\n" },
--     { "starttls", {} },
--   }, { cert = cert, key = key })
--
-- A step is a verb of the peer (peer_verbs.lua, peer_dialogues.lua) and its arguments, or
-- one of those below. A table as the first argument gets `cert` and `key`. In what is sent,
-- "%T" is the tag (first word) of the line last expected, and "%N" the tag after it.
-- Further arguments: `slow = true` sends every byte on its own.

local Peer = require "spec.support.peer"
local peer_tls = require "spec.support.peer_tls"

local peer_steps = {}

-- The tag that a client which counts uses next.
local function tag_after(tag)
  local letters, number = tag:match "^(%a*)(%d+)$"
  return number and letters .. math.tointeger(number) + 1 or "none"
end

local function fill(state, text)
  return (text:gsub("%%([TN])", { T = state.tag, N = tag_after(state.tag) }))
end

local verbs = {}

function verbs.send(p, state, text)
  p:send(fill(state, text))
end

function verbs.send_slowly(p, state, text, pause)
  p:send_slowly(fill(state, text), pause)
end

function verbs.expect(p, state, pattern)
  state.tag = p:expect(pattern):match "^%S+"
end

--- Waits until something arrives, whatever it is.
function verbs.hear(p)
  p:receive "for anything"
end

--- An error when the client has sent more than was expected. What is still on its way is not seen:
-- commands that go out in one piece are.
function verbs.nothing_more(p)
  local bytes = p.buffer ~= "" and p.buffer or p:receive_now()
  if bytes then p:fail("more than was expected: %q", bytes) end
end

--- Sends again and again until the client leaves: all at once, or with pauses.
function verbs.repeat_for_ever(p, state, text, pause)
  text = fill(state, text)
  repeat
    if pause then p:sleep(pause) end
  until not pcall(p.send, p, text)
end

--- Sends bytes below TLS, as if they were records.
function verbs.send_below(p, _, bytes)
  p:below_tls(function(tcp) tcp:send(bytes) end)
end

--- Ends the connection after `after` bytes of the handshake.
function verbs.cut_handshake(p, _, options)
  p:starttls_cut_after(options.after, options)
end

--- Says no more after `after` bytes of the handshake.
function verbs.stall_handshake(p, _, options)
  peer_tls.handshake_until(p.conn, options, options.after, function(what)
    return p:wait(what, "r")
  end)
end

local function send_single_bytes(p)
  local send = p.send
  function p.send(self, ...)
    for byte in table.concat { ... }:gmatch "." do
      send(self, byte)
      self:sleep(0.0005)
    end
  end
end

--- The steps that most scripts consist of.
function peer_steps.say(text) return { "send", text } end
function peer_steps.expect(pattern) return { "expect", pattern } end
peer_steps.silence = { "wait_for_close" }

--- The steps up to an authenticated session, and then those given.
function peer_steps.logged_in(name, ...)
  local after = {
    smtp = { "AUTH PLAIN" }, imap = { "AUTH=PLAIN", "SASL-IR" }, pop3 = { "SASL PLAIN" },
  }
  local steps = { { name .. "_upgrade", { after = after[name] } } }
  if name == "imap" then
    steps[2] = peer_steps.expect "CAPABILITY"
    steps[3] = peer_steps.say "* CAPABILITY IMAP4rev1 UIDPLUS\r\n%T OK done\r\n"
  end
  return table.move({ ... }, 1, select("#", ...), #steps + 1, steps)
end

--- The peer's part.
function peer_steps.play(p, args)
  local state = { tag = "" }
  if args.slow then send_single_bytes(p) end
  for _, step in ipairs(args.steps) do
    local verb, argument = step[1], step[2]
    if type(argument) == "table" then argument.cert, argument.key = args.cert, args.key end
    if verbs[verb] then verbs[verb](p, state, table.unpack(step, 2))
    else p[verb](p, table.unpack(step, 2)) end
  end
end

--- Starts a peer (see Peer.start) that plays the steps for its first client.
function peer_steps.start(steps, args, options)
  local all = { steps = steps }
  for name, value in pairs(args) do all[name] = value end
  return Peer.start(function(p, given)
    require("spec.support.peer_steps").play(p, given)
  end, all, options)
end

return peer_steps
