-- One-shot calls: connect, send or fetch, say goodbye, in exactly so many round trips. The peer
-- answers a flight when it has all of it, so that a client which waits for an answer in the middle
-- of one waits in vain.

local peer_steps = require "spec.support.peer_steps"
local Stage = require "spec.support.stage"

local say, expect = peer_steps.say, peer_steps.expect
local tls = { "starttls", {} }


-- The steps of a conversation, and the round trips that it takes: one to connect, one for each
-- flight, one for the handshake of TLS 1.3.
-- A flight is an array of the patterns of its lines, and at its end the answer; or `tls`; or the
-- greeting, which is an answer to nothing.
local function script(flights)
  local steps, trips = {}, 1
  for _, flight in ipairs(flights) do
    trips = trips + 1
    if flight == tls then
      steps[#steps + 1] = tls
    else
      for index = 1, #flight - 1 do steps[#steps + 1] = expect(flight[index]) end
      steps[#steps + 1] = say(flight[#flight])
    end
  end
  return steps, trips
end

local function join(...)
  local all = {}
  for _, part in ipairs { ... } do table.move(part, 1, #part, #all + 1, all) end
  return all
end

-- {====== SMTP ======

local message = "Subject: x\r\n\r\nHello\r\n"

local function ehlo(words)
  local lines = { "250-mail.example.test" }
  for _, word in ipairs(words) do lines[#lines + 1] = "250-" .. word end
  lines[#lines + 1] = "250 HELP"
  return { "^EHLO ", table.concat(lines, "\r\n") .. "\r\n" }
end

local smtp_greeting = { "220 mail.example.test ESMTP\r\n" }
local smtp_auth = { "^AUTH PLAIN ", "235 ok\r\n" }

local function smtp_way(how, words)
  local authenticated = { ehlo(words), smtp_auth }
  if how == "implicit" then return join({ tls, smtp_greeting }, authenticated) end
  return join({ smtp_greeting, ehlo { "STARTTLS" }, { "^STARTTLS", "220 go\r\n" }, tls },
    authenticated)
end

local chunks = { "CHUNKING", "PIPELINING", "8BITMIME", "AUTH PLAIN" }
local no_chunks = { "PIPELINING", "8BITMIME", "AUTH PLAIN" }

local in_chunks = { { "^MAIL FROM:<alice@example.test>", "^RCPT TO:<bob@example.test>",
  "^BDAT " .. #message .. " LAST\r\n", "^Subject: x", "^\r\n", "^Hello", "^QUIT\r\n",
  "250 ok\r\n250 ok\r\n250 queued\r\n221 bye\r\n" } }
local in_text = {
  { "^MAIL FROM:<alice@example.test>", "^RCPT TO:<bob@example.test>", "^DATA\r\n",
    "250 ok\r\n250 ok\r\n354 go on\r\n" },
  { "^Subject: x", "^\r\n", "^Hello", "^%.\r\n", "^QUIT\r\n", "250 queued\r\n221 bye\r\n" },
}

local function send(options)
  return require "starttls.smtp".send(options,
    { from = "alice@example.test", to = "bob@example.test", message = message })
end

local function is_sent(result)
  assert.same({ "bob@example.test" }, result.accepted)
  assert.equal("queued", result.reply.text)
end

-- }======

-- {====== IMAP ======

local imap_greeting = { "* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] hello\r\n" }
local imap_capability = { "CAPABILITY",
  "* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\r\n%T OK done\r\n" }
local imap_auth = { "AUTHENTICATE PLAIN ", "%T OK [CAPABILITY IMAP4rev1 UIDPLUS] in\r\n" }
local imap_flight = { "^A%d+ EXAMINE \"INBOX\"", "^A%d+ UID FETCH 7 %(UID BODY.PEEK%[%]%)",
  "^A(%d+) LOGOUT" }

-- The tags of three commands in one flight are those that follow the last one.
local function imap_talk(first)
  local answer = ("* 1 EXISTS\r\nA%d OK [READ-ONLY] done\r\n"
    .. "* 1 FETCH (UID 7 BODY[] {5}\r\nHello)\r\nA%d OK done\r\n"
    .. "* BYE\r\nA%d OK done\r\n"):format(first, first + 1, first + 2)
  return { join(imap_flight, { answer }) }
end

local imap_starttls = { imap_greeting, { "STARTTLS", "%T OK go\r\n" }, tls, imap_capability,
  imap_auth }
local imap_implicit = { tls, { "* OK hello\r\n" }, imap_capability, imap_auth }
local imap_eager = {
  { "^A1 STARTTLS", "* OK hello\r\nA1 OK go\r\n" }, tls,
  { "^A1 AUTHENTICATE PLAIN ", "A1 OK in\r\n" },
}

local function fetch(options)
  return require "starttls.imap".fetch(options, "INBOX", 7, { "body" })
end

local function is_fetched(messages)
  assert.equal(1, #messages)
  assert.equal("Hello", messages[1].body)
end

-- }======

-- {====== POP3 ======

local pop3_greeting = { "+OK hello\r\n" }
local pop3_capa = { "^CAPA\r\n", "+OK\r\nSASL PLAIN\r\nPIPELINING\r\n.\r\n" }
local pop3_auth = { "^AUTH PLAIN ", "+OK in\r\n" }
local pop3_talk = { { "^RETR 1\r\n", "^QUIT\r\n", "+OK\r\nHello\r\n.\r\n+OK bye\r\n" } }

local pop3_starttls = { pop3_greeting, { "^STLS", "+OK go\r\n" }, tls, pop3_capa, pop3_auth }
local pop3_implicit = { tls, pop3_greeting, pop3_capa, pop3_auth }
local pop3_eager = { { "^STLS", "+OK hello\r\n+OK go\r\n" }, tls, pop3_auth }

local function retr(options)
  return require "starttls.pop3".retr(options, 1)
end

local function is_retrieved(text)
  assert.equal("Hello\r\n", text)
end

-- }======

-- name, way, flights, round trips, call, check, options
local calls = {
  { "SMTP with CHUNKING", "starttls", join(smtp_way("starttls", chunks), in_chunks), 8, send,
    is_sent },
  { "SMTP with PIPELINING alone", "starttls", join(smtp_way("starttls", no_chunks), in_text), 9,
    send, is_sent },
  { "SMTP with CHUNKING", "implicit", join(smtp_way("implicit", chunks), in_chunks), 6, send,
    is_sent },
  { "IMAP", "starttls", join(imap_starttls, imap_talk(3)), 7, fetch, is_fetched },
  { "IMAP", "implicit", join(imap_implicit, imap_talk(3)), 6, fetch, is_fetched },
  { "IMAP with known capabilities", "starttls", join(imap_eager, imap_talk(2)), 5, fetch,
    is_fetched, { eager = { "AUTH=PLAIN", "SASL-IR" } } },
  { "POP3", "starttls", join(pop3_starttls, pop3_talk), 7, retr, is_retrieved },
  { "POP3", "implicit", join(pop3_implicit, pop3_talk), 6, retr, is_retrieved },
  { "POP3 with known capabilities", "starttls", join(pop3_eager, pop3_talk), 5, retr,
    is_retrieved, { eager = { "SASL PLAIN", "PIPELINING" } } },
}

describe("a one-shot call", function()
  local stage

  setup(function() stage = Stage.open() end)
  teardown(function() stage:close() end)

  for _, case in ipairs(calls) do
    local name, way, flights, expected, call, check, more = table.unpack(case)
    it(("takes %d round trips: %s, %s"):format(expected, name, way), function()
      local steps, trips = script(flights)
      assert.equal(expected, trips)
      local peer <close> = stage:start(steps)
      local options = stage:options { port = peer.port, tls = way, sasl = "PLAIN" }
      for field, value in pairs(more or {}) do options[field] = value end
      local result, err = call(options)
      assert.is_truthy(result, tostring(err))
      check(result)
      local record = peer:finish()
      assert.is_true(record.ok, record.error)
    end)
  end

  it("returns the error of a connection that can't be made", function()
    local peer <close> = stage:start { say "554 no\r\n" }
    local result, err = send(stage:options { port = peer.port })
    assert.is_nil(result)
    assert.equal("rejected", err.kind)
  end)

  it("raises for misuse before it connects", function()
    local smtp, imap = require "starttls.smtp", require "starttls.imap"
    assert.has_error(function() smtp.send(stage:options { port = 1 }, { too = "x" }) end)
    assert.has_error(function()
      imap.fetch(stage:options { port = 1 }, "INBOX", 1, { "body" }, { seq = true })
    end, "fetch: a mailbox that is not open yet has no sequence numbers")
  end)

  it("tells who was refused, though the goodbye was said", function()
    local refused = { { "^MAIL", "^RCPT", "^BDAT", "^Subject", "^\r\n", "^Hello", "^QUIT",
      "250 ok\r\n550 5.1.1 nobody\r\n503 no\r\n221 bye\r\n" } }
    local peer <close> = stage:start((script(join(smtp_way("implicit", chunks), refused))))
    local result, err = send(stage:options { port = peer.port, tls = "implicit", sasl = "PLAIN" })
    assert.is_nil(result)
    assert.equal("5.1.1", err.status)
    assert.equal("bob@example.test", err.rejected[1].address)
  end)

  it("sends the goodbye when it may, without PIPELINING", function()
    local steps = script(join(smtp_way("implicit", { "8BITMIME", "AUTH PLAIN" }), {
      { "^MAIL", "250 ok\r\n" }, { "^RCPT", "250 ok\r\n" }, { "^DATA", "354 go\r\n" },
      { "^Subject", "^\r\n", "^Hello", "^%.\r\n", "250 queued\r\n" }, { "^QUIT", "221 bye\r\n" },
    }))
    local peer <close> = stage:start(steps)
    is_sent(assert(send(stage:options { port = peer.port, tls = "implicit", sasl = "PLAIN" })))
    assert.is_true(peer:finish().ok)
  end)

  it("does not call delivery unknown when only the goodbye's answer is lost", function()
    local flights = join(smtp_way("implicit", chunks), { join(in_chunks[1]) })
    flights[#flights][#flights[#flights]] = "250 ok\r\n250 ok\r\n250 queued\r\n"
    local peer <close> = stage:start((script(flights)))
    is_sent(assert(send(stage:options { port = peer.port, tls = "implicit", sasl = "PLAIN" })))
  end)

  it("returns what the server says of a mailbox that it can't open", function()
    local talk = { join(imap_flight, { "A3 NO [NONEXISTENT] none\r\nA4 BAD nothing selected\r\n"
      .. "* BYE\r\nA5 OK done\r\n" }) }
    local peer <close> = stage:start((script(join(imap_implicit, talk))))
    local options = stage:options { port = peer.port, tls = "implicit", sasl = "PLAIN" }
    local messages, err = fetch(options)
    assert.is_nil(messages)
    assert.equal("NONEXISTENT", err.status)
  end)
end)
