-- Ready-made dialogues for the scripted peer's scripts, so that a spec says only
-- what is particular to it:
--
--   local peer <close> = Peer.start(function(p, args)
--     p:smtp_upgrade { cert = args.cert, key = args.key }
--     p:expect "^MAIL FROM:"
--     ...
--   end, { cert = ..., key = ... })
--
-- `smtp_upgrade`, `imap_upgrade` and `pop3_upgrade` speak the greeting, the
-- capabilities, STARTTLS with the handshake, the capabilities after it, and
-- accept any name and password by AUTH PLAIN (IMAP also LOGIN, POP3 also
-- USER/PASS). They return what was said: `user`, `password`, `mechanism`,
-- `commands` (all lines) and `tag` (IMAP, of the last command). Options:
--   cert, key, min, max, ...  for the handshake, see `p:starttls`
--   implicit = true           TLS from the first byte
--   secure = false            no upgrade at all: everything in the clear
--   greeting                  the whole first line
--   before, after             capabilities before and after the upgrade
--   auth = false              return after the first capabilities inside TLS

local mime = require "mime"
local scram = require "spec.support.peer_scram"

local dialogues = {}

local function verb_of(line, tagged)
  local rest = tagged and line:match "^%S+ (.*)" or line
  return ((rest or ""):match "^%a+" or ""):upper()
end

-- Reads a command, notes it, and runs its handler from the table.
local function serve(p, state, handlers)
  local line = p:line()
  state.commands[#state.commands + 1] = line
  state.tag = handlers.tagged and line:match "^%S+" or nil
  local verb = verb_of(line, handlers.tagged)
  local handler = handlers[verb]
  if not handler then p:fail("unexpected command %q", line) end
  handler(p, state, line)
end

local function serve_until(p, state, handlers, field)
  while not state[field] do serve(p, state, handlers) end
end

local function upgrade(p, state, options)
  p:starttls(options)
  state.upgraded = true
end

local function decode_plain(p, state, response)
  local authzid, user, password = (mime.unb64(response) or ""):match "^(%Z*)%z(%Z*)%z(%Z*)$"
  if not user then p:fail("not a PLAIN response: %q", response) end
  state.mechanism, state.authzid, state.user, state.password = "PLAIN", authzid, user, password
end

-- AUTH PLAIN with or without an initial response.
local function read_plain(p, state, line, challenge)
  local mechanism, response = line:match "[Aa][Uu][Tt][Hh]%a* (%S+) ?(%S*)\r\n$"
  if (mechanism or ""):upper() ~= "PLAIN" then p:fail("expected AUTH PLAIN, got %q", line) end
  if response == "" then
    p:send(challenge)
    response = p:line():gsub("\r\n$", "")
  end
  decode_plain(p, state, response)
end

local function run(p, options, greeting, handlers)
  local state = { commands = {} }
  if options.implicit then upgrade(p, state, options) end
  p:send(greeting)
  if not options.implicit and options.secure ~= false then
    serve_until(p, state, handlers, "upgraded")
  end
  state.upgraded = true
  serve_until(p, state, handlers, options.auth == false and "asked" or "user")
  return state
end

--- Goes on from an AUTH or AUTHENTICATE command for a SCRAM mechanism, up to the
-- client's answer to the server's last message; the script then says success in
-- the words of its protocol. Options: `challenge` ("334 " or "+ "), and those of
-- peer_scram.lua; for a -PLUS mechanism `binding`, whose data is taken from the
-- connection (`cert` for "tls-server-end-point"). Returns the exchange: `user`,
-- `flag`, `mechanism`. A wrong proof or binding is an error, like an
-- expectation that is not met.
function dialogues.scram(p, line, options)
  local mechanism, response = line:match "[Aa][Uu][Tt][Hh]%a* (%S+) ?(%S*)\r\n$"
  if not mechanism then p:fail("expected AUTH, got %q", line) end
  local data = options.binding_data
  if options.binding and not data then data = p:channel_binding(options.binding, options.cert) end
  local exchange = scram.new(options, data)
  local function ask(text)
    p:send(options.challenge, mime.b64(text) or "", "\r\n") -- b64 "" is nil
    return mime.unb64((p:line():gsub("\r\n$", ""))) or ""
  end
  local first = response ~= "" and mime.unb64(response) or ask ""
  ask(exchange:final(ask(exchange:first(first))))
  exchange.mechanism = mechanism
  return exchange
end

-- SMTP ------------------------------------------------------------------

local function smtp_list(lines)
  local out = {}
  for i, line in ipairs(lines) do
    out[i] = ("250%s%s\r\n"):format(i < #lines and "-" or " ", line)
  end
  return table.concat(out)
end

local function smtp_handlers(options)
  local before = options.before or { "STARTTLS", "PIPELINING", "8BITMIME" }
  local after = options.after or { "PIPELINING", "8BITMIME", "SIZE", "AUTH PLAIN" }
  local handlers = {}
  function handlers.EHLO(p, state)
    state.asked = state.upgraded
    p:send(smtp_list { "mail.example.test", table.unpack(state.upgraded and after or before) })
  end
  handlers.LHLO = handlers.EHLO
  function handlers.HELO(p, state)
    state.asked = state.upgraded
    p:send "250 mail.example.test\r\n"
  end
  function handlers.NOOP(p) p:send "250 2.0.0 OK\r\n" end
  handlers.RSET = handlers.NOOP
  function handlers.STARTTLS(p, state)
    p:send "220 2.0.0 go ahead\r\n"
    upgrade(p, state, options)
  end
  function handlers.AUTH(p, state, line)
    read_plain(p, state, line, "334 \r\n")
    p:send "235 2.7.0 authenticated\r\n"
  end
  return handlers
end

function dialogues.smtp_upgrade(p, options)
  local greeting = options.greeting or "220 mail.example.test ESMTP\r\n"
  return run(p, options, greeting, smtp_handlers(options))
end

--- After `smtp_upgrade`: takes one message. Returns the sender, the recipients
-- (lines as sent) and the content as it was on the wire.
function dialogues.smtp_receive(p)
  local envelope = { from = p:expect "^MAIL FROM:", to = {} }
  p:send "250 2.1.0 OK\r\n"
  local line = p:line()
  while line:find "^RCPT TO:" do
    envelope.to[#envelope.to + 1] = line
    p:send "250 2.1.5 OK\r\n"
    line = p:line()
  end
  if line ~= "DATA\r\n" then p:fail("expected DATA, got %q", line) end
  p:send "354 go ahead\r\n"
  envelope.content = p:read_to_dot()
  p:send "250 2.0.0 queued\r\n"
  return envelope
end

-- IMAP ------------------------------------------------------------------

local function imap_capabilities(p, list)
  p:send("* CAPABILITY IMAP4rev1 ", table.concat(list, " "), "\r\n")
end

local function imap_ok(p, state, text)
  p:send(state.tag, " OK ", text or "done", "\r\n")
end

local function imap_handlers(options)
  local before = options.before or { "STARTTLS", "LOGINDISABLED", "SASL-IR" }
  local after = options.after or { "SASL-IR", "AUTH=PLAIN", "LITERAL+" }
  local handlers = { tagged = true }
  function handlers.CAPABILITY(p, state)
    state.asked = state.upgraded
    imap_capabilities(p, state.upgraded and after or before)
    imap_ok(p, state)
  end
  function handlers.NOOP(p, state) imap_ok(p, state) end
  function handlers.ID(p, state)
    p:send "* ID NIL\r\n"
    imap_ok(p, state)
  end
  function handlers.STARTTLS(p, state)
    imap_ok(p, state, "begin TLS")
    upgrade(p, state, options)
  end
  function handlers.AUTHENTICATE(p, state, line)
    read_plain(p, state, line, "+ \r\n")
    imap_ok(p, state, "authenticated")
  end
  function handlers.LOGIN(p, state, line)
    state.mechanism = "LOGIN"
    state.user, state.password = line:match '^%S+ %a+ "?([^" ]+)"? "?(.-)"?\r\n$'
    if not state.user then p:fail("cannot read %q", line) end
    imap_ok(p, state, "logged in")
  end
  return handlers
end

function dialogues.imap_upgrade(p, options)
  local greeting = options.greeting or "* OK IMAP4rev1 ready\r\n"
  return run(p, options, greeting, imap_handlers(options))
end

--- Expects an IMAP command that matches `pattern` behind its tag. Returns the
-- tag and the line.
function dialogues.imap_expect(p, pattern)
  local line = p:line()
  local tag, command = line:match "^(%S+) (.*)$"
  if not tag or not command:find(pattern) then p:fail("expected TAG %q, got %q", pattern, line) end
  return tag, line
end

-- POP3 ------------------------------------------------------------------

local function pop3_handlers(options)
  local before = options.before or { "STLS", "UIDL", "TOP" }
  local after = options.after or { "UIDL", "TOP", "USER", "SASL PLAIN", "RESP-CODES" }
  local handlers = {}
  function handlers.CAPA(p, state)
    state.asked = state.upgraded
    local list = state.upgraded and after or before
    p:send("+OK capabilities\r\n", table.concat(list, "\r\n"), "\r\n.\r\n")
  end
  function handlers.NOOP(p) p:send "+OK\r\n" end
  function handlers.STLS(p, state)
    p:send "+OK begin TLS\r\n"
    upgrade(p, state, options)
  end
  function handlers.AUTH(p, state, line)
    read_plain(p, state, line, "+ \r\n")
    p:send "+OK authenticated\r\n"
  end
  function handlers.USER(p, state, line)
    state.name = line:match "^%a+ (.-)\r\n$"
    p:send "+OK\r\n"
  end
  function handlers.PASS(p, state, line)
    state.mechanism, state.user = "USER", state.name
    state.password = line:match "^%a+ (.-)\r\n$"
    p:send "+OK logged in\r\n"
  end
  return handlers
end

function dialogues.pop3_upgrade(p, options)
  local greeting = options.greeting or "+OK POP3 ready\r\n"
  return run(p, options, greeting, pop3_handlers(options))
end

return dialogues
