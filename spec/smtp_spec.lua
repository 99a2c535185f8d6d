-- What an SMTP session does with what the server says: replies of every form, refusals at
-- every step of a transaction, the extensions, and the end of a session. Most peers are
-- scripted and speak clear text, as the encryption makes no difference here; Exim is real.

local clients = require "spec.support.clients"
local Peer = require "spec.support.peer"
local peer_steps = require "spec.support.peer_steps"
local servers = require "spec.support.servers"

local smtp = require "starttls.smtp"

-- Dialogues -----------------------------------------------------------------------------------

local CONTENT = {} -- in place of a command: message content and its final dot

-- Steps from what is expected and what is answered, in turn.
local function steps_of(dialogue)
  local steps = {}
  for i = 1, #dialogue, 2 do
    local expected, answer = dialogue[i], dialogue[i + 1]
    steps[#steps + 1] = expected == CONTENT and { "read_to_dot" } or { "expect", expected }
    if answer then steps[#steps + 1] = { "send", answer .. "\r\n" } end
  end
  return steps
end

local function connect(port, more)
  local options = { host = "127.0.0.1", port = port, tls = "none" }
  for name, value in pairs(more or {}) do options[name] = value end
  return smtp.connect(options)
end

-- Runs `use(session)` against a peer that offers `extensions` and then follows the steps.
-- Returns the peer's record.
local function converse(extensions, steps, use)
  local all = { { "smtp_upgrade", { secure = false, auth = false, after = extensions } },
    table.unpack(steps) }
  local peer <close> = peer_steps.start(all, {})
  local session <close> = assert(connect(peer.port))
  use(session)
  session:close()
  local record = peer:finish()
  assert.is_true(record.ok, record.error)
  return record
end

-- What the client said behind EHLO.
local function said(record)
  return record.clear:match "^EHLO [^\r]+\r\n(.*)$"
end

local a, b, c = "a@example.test", "b@example.test", "c@example.test"
local letter = "Subject: x\r\n\r\nx\r\n"

local function envelope(to, message)
  return { from = "sender@example.test", to = to or { a, b, c }, message = message or letter }
end

-- The fields of an error, or of anything, that the case names.
local function assert_fields(expected, actual)
  for name, value in pairs(expected) do
    assert.same(value, actual[name], ("%s of %s"):format(name, tostring(actual)))
  end
end

local function assert_alive(session)
  assert(session:noop())
  assert.is_true(session:quit())
end

-- The last commands of a dialogue whose session goes on.
local function and_alive(dialogue)
  local all = { table.unpack(dialogue) }
  table.move({ "^NOOP\r\n", "250 OK", "^QUIT\r\n", "221 bye" }, 1, 4, #all + 1, all)
  return all
end

local function assert_dead(session, expected)
  local _, first = session:noop()
  assert_fields(expected, first)
  local _, second = session:send(envelope())
  assert_fields(expected, second)
end

-- A transaction's fates -----------------------------------------------------------------------

local MAIL, RCPT, DATA, RSET = "^MAIL FROM:<sender@example.test>", "^RCPT TO:<", "^DATA\r\n",
  "^RSET\r\n"
local yes, go_on = "250 2.1.0 OK", "354 go on"

-- `pipelined`, `single`: the dialogue with and without PIPELINING; `both` when it is the same.
-- Expected are `accepted`, `rejected` and `reply` of the result, or fields of the `err`.
local fates = {
  { "takes a message for everybody",
    both = { MAIL, yes, RCPT, yes, RCPT, "251 2.1.5 will forward", RCPT, "252 2.1.5 perhaps",
      DATA, go_on, CONTENT, "250 2.6.0 queued as 17" },
    accepted = { a, b, c }, rejected = {},
    reply = { code = 250, status = "2.6.0", text = "queued as 17" } },

  { "takes a message for some",
    both = { MAIL, yes, RCPT, "550 5.1.1 no such user", RCPT, yes, RCPT, "451 4.2.1 busy\r",
      DATA, go_on, CONTENT, "250 queued" },
    accepted = { b },
    rejected = {
      { address = a, code = 550, status = "5.1.1", text = "no such user", temporary = false },
      { address = c, code = 451, status = "4.2.1", text = "busy\r", temporary = true },
    } },

  { "refuses the sender",
    pipelined = { MAIL, "550 5.7.1 not from you", RCPT, "503 need MAIL", RCPT, "503 need MAIL",
      RCPT, "503 need MAIL", DATA, "503 need RCPT", RSET, "250 OK" },
    single = { MAIL, "550 5.7.1 not from you" },
    err = { kind = "rejected", during = "mail", code = 550, status = "5.7.1",
      text = "not from you", temporary = false, rejected = {} } },

  { "defers the sender",
    pipelined = { MAIL, "451 4.3.0 later", RCPT, "503 need MAIL", RCPT, "503 need MAIL",
      RCPT, "503 need MAIL", DATA, "503 need RCPT", RSET, "250 OK" },
    single = { MAIL, "451 4.3.0 later" },
    err = { kind = "rejected", during = "mail", code = 451, temporary = true } },

  { "refuses the sender and wants content all the same",
    pipelined = { MAIL, "550 5.7.1 not from you", RCPT, yes, RCPT, yes, RCPT, yes, DATA, go_on,
      "^%.\r\n", "554 5.5.1 no valid sender" },
    err = { kind = "rejected", during = "mail", code = 550 } },

  { "refuses every recipient",
    pipelined = { MAIL, yes, RCPT, "550 5.1.1 no a", RCPT, "550 5.1.1 no b",
      RCPT, "550 5.1.1 no c", DATA, "503 5.5.1 no recipients", RSET, "250 OK" },
    single = { MAIL, yes, RCPT, "550 5.1.1 no a", RCPT, "550 5.1.1 no b", RCPT, "550 5.1.1 no c",
      RSET, "250 OK" },
    err = { kind = "rejected", during = "rcpt", code = 550, status = "5.1.1", text = "no a",
      temporary = false, message = "the server refuses all 3 recipients; the first, " .. a,
      rejected = {
        { address = a, code = 550, status = "5.1.1", text = "no a", temporary = false },
        { address = b, code = 550, status = "5.1.1", text = "no b", temporary = false },
        { address = c, code = 550, status = "5.1.1", text = "no c", temporary = false },
      } } },

  { "refuses the only recipient", to = a,
    pipelined = { MAIL, yes, RCPT, "450 4.2.0 later", DATA, "503 no recipients", RSET, "250 OK" },
    single = { MAIL, yes, RCPT, "450 4.2.0 later", RSET, "250 OK" },
    err = { kind = "rejected", during = "rcpt", code = 450, temporary = true,
      message = "the server refuses the recipient " .. a } },

  { "refuses every recipient and wants content all the same", to = { a },
    pipelined = { MAIL, yes, RCPT, "550 5.1.1 no a", DATA, go_on, "^%.\r\n", "554 no recipients" },
    err = { kind = "rejected", during = "rcpt", code = 550, text = "no a" } },

  { "refuses every recipient and takes the empty message", to = { a },
    pipelined = { MAIL, yes, RCPT, "550 5.1.1 no a", DATA, go_on, "^%.\r\n", "250 queued" },
    err = { kind = "rejected", during = "rcpt", code = 550, text = "no a" } },

  { "refuses DATA",
    both = { MAIL, yes, RCPT, yes, RCPT, "550 5.1.1 no b", RCPT, yes,
      DATA, "451 4.3.1 disk full", RSET, "250 OK" },
    err = { kind = "rejected", during = "data", code = 451, status = "4.3.1", text = "disk full",
      temporary = true, rejected = {
        { address = b, code = 550, status = "5.1.1", text = "no b", temporary = false } } } },

  { "refuses the message",
    both = { MAIL, yes, RCPT, yes, RCPT, yes, RCPT, yes, DATA, go_on,
      CONTENT, "554 5.6.0 I don't like it" },
    err = { kind = "rejected", during = "delivery", code = 554, status = "5.6.0",
      text = "I don't like it", temporary = false, rejected = {} } },

  { "defers the message",
    both = { MAIL, yes, RCPT, yes, RCPT, yes, RCPT, yes, DATA, go_on,
      CONTENT, "452 4.3.1 no room" },
    err = { kind = "rejected", during = "delivery", code = 452, temporary = true } },
}

local function assert_fate(fate, result, err)
  if fate.err then
    assert.is_nil(result)
    assert_fields(fate.err, err)
    assert.is_nil(err.delivery)
    return
  end
  assert(result, err)
  assert_fields({ accepted = fate.accepted, rejected = fate.rejected }, result)
  if fate.reply then assert_fields(fate.reply, result.reply) end
end

describe("an SMTP session", function()
  for _, fate in ipairs(fates) do
    for _, way in ipairs { { "pipelined", { "PIPELINING" } }, { "single", {} } } do
      local dialogue = fate.both or fate[way[1]]
      if dialogue then
        it(("reports a server that %s (%s), and goes on"):format(fate[1], way[1]), function()
          converse(way[2], steps_of(and_alive(dialogue)), function(session)
            assert_fate(fate, session:send(envelope(fate.to)))
            assert_alive(session)
          end)
        end)
      end
    end
  end

  it("sends an envelope in one flight where the server has PIPELINING", function()
    local steps = { { "expect", MAIL }, { "expect", RCPT }, { "expect", RCPT }, { "expect", RCPT },
      { "expect", DATA }, { "send", ("250 OK\r\n"):rep(4) .. "354 go on\r\n" },
      { "read_to_dot" }, { "send", "250 queued\r\n" } }
    converse({ "PIPELINING" }, steps, function(session)
      assert.same({ a, b, c }, assert(session:send(envelope())).accepted)
    end)
  end)

  it("waits for each answer where the server lacks PIPELINING", function()
    local peer <close> = Peer.start(function(p)
      p:smtp_upgrade { secure = false, auth = false, after = {} }
      for _, pattern in ipairs { "^MAIL", "^RCPT", "^RCPT", "^RCPT", "^DATA" } do
        p:expect(pattern)
        p:sleep(0.02)
        if p.buffer ~= "" or p:receive_now() then p:fail("more behind %s", pattern) end
        p:send(pattern == "^DATA" and "354 go on\r\n" or "250 OK\r\n")
      end
      p:read_to_dot()
      p:send "250 queued\r\n"
    end)
    local session <close> = assert(connect(peer.port))
    assert.same({ a, b, c }, assert(session:send(envelope())).accepted)
    local record = peer:finish()
    assert.is_true(record.ok, record.error)
  end)

  it("can send to very many at once", function()
    local to = {}
    for i = 1, 5000 do to[i] = ("recipient-%d@example.test"):format(i) end
    local peer <close> = Peer.start(function(p)
      p:smtp_upgrade { secure = false, auth = false, after = { "PIPELINING" } }
      p:keep(false)
      return #p:smtp_receive().to
    end)
    local session <close> = assert(connect(peer.port))
    assert.same(to, assert(session:send(envelope(to))).accepted)
    assert.equals(5000, peer:finish().result)
  end)

  it("sends one message after the other", function()
    local peer <close> = Peer.start(function(p)
      p:smtp_upgrade { secure = false, auth = false }
      local seen = {}
      for i = 1, 3 do seen[i] = p:smtp_receive().content end
      return seen
    end)
    local session <close> = assert(connect(peer.port))
    for i = 1, 3 do assert(session:send(envelope(a, ("message %d\r\n"):format(i)))) end
    assert.same({ "message 1\r\n", "message 2\r\n", "message 3\r\n" }, peer:finish().result)
  end)

  describe("when the server says goodbye", function()
    local transaction = { MAIL, yes, RCPT, yes, RCPT, yes, RCPT, yes, DATA, go_on, CONTENT }
    for at = 1, #transaction, 2 do
      local name = transaction[at] == CONTENT and "content" or transaction[at]:match "%u+"
      it(("with 421 to %s #%d, is closed and says so"):format(name, at // 2 + 1), function()
        local dialogue = { table.unpack(transaction, 1, at) }
        dialogue[at + 1] = "421 4.3.2 shutting down"
        local expected = { kind = "closed", code = 421, status = "4.3.2", text = "shutting down",
          temporary = true }
        converse({}, steps_of(dialogue), function(session)
          local result, err = session:send(envelope())
          assert.is_nil(result)
          assert_fields(expected, err)
          assert.is_nil(err.delivery)
          assert_dead(session, expected)
        end)
      end)

      it(("by closing behind %s #%d, is closed and says so"):format(name, at // 2 + 1), function()
        converse({}, steps_of { table.unpack(transaction, 1, at) }, function(session)
          local result, err = session:send(envelope())
          assert.is_nil(result)
          assert_fields({ kind = "closed", temporary = true }, err)
          assert.equals(name == "content" and "unknown" or nil, err.delivery)
          if err.delivery then assert.matches("unknown", tostring(err)) end
          assert_dead(session, { kind = "closed" })
        end)
      end)
    end

    for _, call in ipairs { "noop", "reset", "verify" } do
      it(("with 421 to %s(), is closed and says so"):format(call), function()
        converse({}, steps_of { "^%u%u%u%u", "421 4.3.2 shutting down" }, function(session)
          local reply, err = session[call](session, a)
          assert.is_nil(reply)
          assert_fields({ kind = "closed", code = 421, temporary = true }, err)
          assert_dead(session, { kind = "closed", code = 421 })
        end)
      end)
    end

    it("while nobody asked, is closed at the next call", function()
      local steps = steps_of { "^NOOP\r\n", "250 OK\r\n421 4.4.2 idle too long" }
      converse({}, steps, function(session)
        assert(session:noop())
        local reply, err = session:noop()
        assert.is_nil(reply)
        assert.equals("closed", err.kind)
        assert.matches("idle too long", tostring(err))
      end)
    end)

    for _, case in ipairs {
      { "421 4.3.2 not now", true }, { "450 4.3.2 not now", true }, { "554 5.3.2 not now", false },
    } do
      it("in the greeting, hands out no session: " .. case[1], function()
        local peer <close> = peer_steps.start({ { "send", case[1] .. "\r\n" } }, {})
        local session, err = connect(peer.port)
        assert.is_nil(session)
        assert_fields({ kind = "rejected", during = "greeting", temporary = case[2],
          code = math.tointeger(tonumber(case[1]:sub(1, 3))), text = "not now" }, err)
      end)
    end
  end)

  describe("reads replies", function()
    local function noop_reply(answer)
      local reply, err
      converse({}, steps_of { "^NOOP\r\n", answer }, function(session)
        reply, err = session:noop()
        if err then assert_dead(session, { kind = err.kind, message = err.message }) end
      end)
      return reply, err
    end

    -- the reply, its code, enhanced status and text
    for _, case in ipairs {
      { "250 OK", 250, nil, "OK" },
      { "250", 250, nil, "" },
      { "250 ", 250, nil, "" },
      { "250-one\r\n250-two\r\n250 three", 250, nil, "one\ntwo\nthree" },
      { "250-one\r\n250", 250, nil, "one\n" },
      { "250-2.0.0 one\r\n250 2.0.0 two", 250, "2.0.0", "one\ntwo" },
      { "250-one\n250 two\n", 250, nil, "one\ntwo" },
      { "250 2.1.5 OK", 250, "2.1.5", "OK" },
      { "250 2.1.5", 250, "2.1.5", "" },
      { "250 2.123.456 OK", 250, "2.123.456", "OK" },
      { "250 5.1.1 another class", 250, nil, "5.1.1 another class" },
      { "250 2.1 too short", 250, nil, "2.1 too short" },
      { "250 2.1.5.6 too long", 250, nil, "2.1.5.6 too long" },
      { "250 2.1.5x no status", 250, nil, "2.1.5x no status" },
      { "250 2..5 no status", 250, nil, "2..5 no status" },
      { "250 2.1. no status", 250, nil, "2.1. no status" },
      { "250 \u{e9}\xff\t text", 250, nil, "\u{e9}\xff\t text" },
      { "299 other", 299, nil, "other" },
    } do
      it(("such as %q"):format(case[1]), function()
        local reply = assert(noop_reply(case[1]))
        assert.equals(case[2], reply.code)
        assert.equals(case[3], reply.status)
        assert.equals(case[4], reply.text)
        assert.equals("positive", reply.class)
      end)
    end

    for _, case in ipairs {
      { "550 5.5.1 no", { code = 550, status = "5.5.1", text = "no", temporary = false } },
      { "450-4.5.1 not\r\n450 4.5.1 now", { code = 450, status = "4.5.1", text = "not\nnow",
        temporary = true } },
      { "550 \27[2J\7evil", { code = 550, text = "\27[2J\7evil" } },
    } do
      it(("that are refusals, such as %q"):format(case[1]), function()
        converse({}, steps_of(and_alive { "^RSET\r\n", case[1] }), function(session)
          local reply, err = session:reset()
          assert.is_nil(reply)
          assert_fields({ kind = "rejected", during = "rset" }, err)
          assert_fields(case[2], err)
          assert.is_nil(tostring(err):find "%c")
          assert_alive(session)
        end)
      end)
    end

    for _, line in ipairs {
      "", "abc", "25", "25 OK", "250x", "2500 OK", " 250 OK", "199 low", "600 high", "+OK", "* OK",
      "250-one\r\n251 two", "250-one\r\n", "250-one\r\nend", "250\tOK", "-50 OK", "2 0 OK", "\0",
      "354 go on", "334 ",
    } do
      it(("and closes behind %q, which is none"):format(line), function()
        local reply, err = noop_reply(line)
        assert.is_nil(reply)
        assert_fields({ kind = "protocol", during = "noop", temporary = false }, err)
      end)
    end

    it("in whatever pieces they come", function()
      local peer <close> = Peer.start(function(p)
        p:smtp_upgrade { secure = false, auth = false, after = { "PIPELINING" } }
        p:expect "^MAIL" p:expect "^RCPT" p:expect "^RCPT" p:expect "^RCPT" p:expect "^DATA"
        p:send_slowly("250-2.1.0 one\r\n250 2.1.0 two\r\n250 OK\r\n550-5.1.1 no\r\n550 5.1.1 b\r\n"
          .. "250 OK\r\n354-go\r\n354 on\r\n", 0.0005)
        p:read_to_dot()
        p:send_slowly("250-2.6.0 queued\r\n250 2.6.0 as 17\r\n", 0.0005)
      end)
      local session <close> = assert(connect(peer.port))
      local result = assert(session:send(envelope()))
      assert.same({ a, c }, result.accepted)
      assert.same({ { address = b, code = 550, status = "5.1.1", text = "no\nb",
        temporary = false } }, result.rejected)
      assert_fields({ code = 250, status = "2.6.0", text = "queued\nas 17" }, result.reply)
    end)

    it("and takes an answer to nothing for a broken protocol", function()
      converse({}, steps_of { "^NOOP\r\n", "250 OK\r\n250 and another" }, function(session)
        assert(session:noop())
        local reply, err = session:noop()
        assert.is_nil(reply)
        assert_fields({ kind = "protocol", text = "250 and another" }, err)
      end)
    end)
  end)

  describe("asks the server", function()
    it("to verify an address", function()
      local steps = steps_of(and_alive { "^VRFY bob smith\r\n", "252 2.1.5 try it",
        "^VRFY nobody\r\n", "550 5.1.1 no such user" })
      converse({}, steps, function(session)
        assert_fields({ code = 252, status = "2.1.5", text = "try it" }, session:verify "bob smith")
        local reply, err = session:verify "nobody"
        assert.is_nil(reply)
        assert_fields({ kind = "rejected", during = "vrfy", code = 550 }, err)
        assert_alive(session)
      end)
    end)

    it("to reset, and to do nothing", function()
      converse({}, steps_of(and_alive { RSET, "250 2.0.0 reset" }), function(session)
        assert.equals("reset", assert(session:reset()).text)
        assert_alive(session)
      end)
    end)
  end)

  describe("keeps to the extensions", function()
    -- The MAIL command that a message leads to, or nil and the error.
    local function mail_command(extensions, given)
      local steps = steps_of { "^MAIL", "250 OK", "^RCPT", "250 OK", "^DATA", "354 go on", CONTENT,
        "250 queued" }
      local peer <close> = peer_steps.start({
        { "smtp_upgrade", { secure = false, auth = false, after = extensions } },
        table.unpack(steps),
      }, {})
      local session <close> = assert(connect(peer.port))
      local result, err = session:send(given)
      session:close()
      local clear = said(peer:finish())
      if result then return clear:match "^(.-)\r\n" end
      return nil, err, clear
    end

    local function file_of(text)
      local file = assert(io.tmpfile())
      file:write(text)
      file:seek "set"
      return file
    end

    local function source_of(text)
      return function()
        local piece = text
        text = nil
        return piece
      end
    end

    local plain, eight = ("x"):rep(8) .. "\r\n", "f\u{fc}r uns\r\n"
    local mail = "MAIL FROM:<sender@example.test>"

    -- extensions, message, and the command (behind `mail`), or the error
    for _, case in ipairs {
      { "nothing to a server without any", {}, plain, "" },
      { "the size where it is asked for", { "SIZE" }, plain, " SIZE=10" },
      { "the size where there is no limit", { "SIZE 0" }, plain, " SIZE=10" },
      { "the size that the limit just allows", { "SIZE 10" }, plain, " SIZE=10" },
      { "nothing of the size of a stream", { "SIZE 10" }, source_of, "" },
      { "the size of a file", { "SIZE 10" }, file_of, " SIZE=10" },
      { "BODY=8BITMIME for 8-bit text", { "8BITMIME" }, eight, " BODY=8BITMIME" },
      { "no BODY for 7-bit text", { "8BITMIME" }, plain, "" },
      { "BODY=8BITMIME for a stream", { "8BITMIME" }, source_of, " BODY=8BITMIME" },
    } do
      it("and states " .. case[1], function()
        local message = type(case[3]) == "function" and case[3](plain) or case[3]
        assert.equals(mail .. case[4], assert(mail_command(case[2], envelope(a, message))))
      end)
    end

    local utf8 = { from = "j\u{fc}rgen@example.test", to = a, message = plain }

    it("and states SMTPUTF8 for an address beyond ASCII", function()
      assert.equals("MAIL FROM:<j\u{fc}rgen@example.test> SMTPUTF8",
        assert(mail_command({ "SMTPUTF8" }, utf8)))
      assert.equals("MAIL FROM:<sender@example.test> SMTPUTF8",
        assert(mail_command({ "SMTPUTF8" }, envelope "b\u{f6}b@example.test")))
    end)

    for _, case in ipairs {
      { "a message above the SIZE limit", { "SIZE 9" }, envelope(a, plain),
        { kind = "rejected", during = "mail", temporary = false } },
      { "8-bit text without 8BITMIME", {}, envelope(a, eight), { kind = "unsupported" } },
      { "an address beyond ASCII without SMTPUTF8", {}, utf8, { kind = "unsupported" } },
      { "a NUL", { "8BITMIME" }, envelope(a, "a\0b\r\n"), { kind = "unsupported" } },
    } do
      it(("and sends nothing of %s, but goes on"):format(case[1]), function()
        local record = converse(case[2], steps_of(and_alive {}), function(session)
          local result, err = session:send(case[3])
          assert.is_nil(result)
          assert_fields(case[4], err)
          assert_alive(session)
        end)
        assert.equals("NOOP\r\nQUIT\r\n", said(record))
      end)
    end

    it("and sends nothing of a file above the SIZE limit", function()
      local file <close> = file_of(plain)
      local result, err, clear = mail_command({ "SIZE 9" }, envelope(a, file))
      assert.is_nil(result)
      assert.equals("rejected", err.kind)
      assert.equals("", clear)
      assert.equals(0, file:seek())
    end)

    for _, case in ipairs {
      { "8-bit text without 8BITMIME", {}, eight }, { "a NUL", { "8BITMIME" }, "a\0b" },
    } do
      it(("and never ends a stream that has %s"):format(case[1]), function()
        local result, err, clear = mail_command(case[2], envelope(a, source_of(case[3])))
        assert.is_nil(result)
        assert.equals("unsupported", err.kind)
        assert.is_nil(clear:find("\r\n.\r\n", 1, true))
      end)
    end

    it("and tells what they are", function()
      local extensions = { "PIPELINING", "size 1000", "AUTH PLAIN LOGIN", "AUTH=CRAM-MD5",
        "X-ODD a b" }
      converse(extensions, {}, function(session)
        local list = session:capabilities()
        assert.is_true(list.PIPELINING)
        assert.equals("a b", list["X-ODD"])
        assert.equals("PLAIN LOGIN CRAM-MD5", list.AUTH)
        assert.is_nil(list["mail.example.test"])
        assert.same({ true, "1000" }, { session:has "SIZE" })
        assert.same({ true, "" }, { session:has "pipelining" })
        assert.same({ false }, { session:has "PIPE" })
        assert.same({ false }, { session:has "mail.example.test" })
      end)
    end)
  end)

  describe("with the caller's content", function()
    local function begin(steps)
      return peer_steps.start({
        { "smtp_upgrade", { secure = false, auth = false, after = {} } },
        { "expect", "^MAIL" }, { "send", "250 OK\r\n" }, { "expect", "^RCPT" },
        { "send", "250 OK\r\n" }, { "expect", "^DATA" }, { "send", "354 go on\r\n" },
        table.unpack(steps),
      }, {})
    end

    it("never ends the message when the source fails", function()
      local peer <close> = begin { { "wait_for_close" } }
      local session <close> = assert(connect(peer.port))
      local pieces = { "Subject: x\r\n\r\n", "half" }
      local result, err = session:send(envelope(a, function()
        local piece = table.remove(pieces, 1)
        if piece then return piece end
        return nil, "disk on fire"
      end))
      assert.is_nil(result)
      assert_fields({ kind = "cancelled", during = "content" }, err)
      assert.matches("disk on fire", tostring(err))
      assert_dead(session, { kind = "cancelled" })
      assert.is_nil(peer:finish().clear:find "\n%.\r\n")
    end)

    it("never ends the message when the source raises", function()
      local peer <close> = begin { { "wait_for_close" } }
      local session <close> = assert(connect(peer.port))
      local ok, err = pcall(session.send, session, envelope(a, function() error "boom" end))
      assert.is_false(ok)
      assert.matches("boom", err)
      assert_dead(session, { kind = "cancelled" })
      assert.is_nil(peer:finish().clear:find "\n%.\r\n")
    end)

    it("hears a server that refuses it half-way, and stops", function()
      local peer <close> = begin {
        { "keep", false }, { "read", 100000 }, { "send", "552 5.3.4 too big\r\n" },
        { "wait_for_close" },
      }
      local session <close> = assert(connect(peer.port))
      local given, piece = 0, ("x"):rep(65534) .. "\r\n"
      local result, err = session:send(envelope(a, function()
        given = given + #piece
        return given < 1 << 30 and piece or nil
      end))
      assert.is_nil(result)
      assert_fields({ kind = "rejected", during = "content", code = 552, status = "5.3.4",
        text = "too big" }, err)
      assert.is_nil(err.delivery)
      assert(given < 1 << 30)
      assert_dead(session, { code = 552 })
    end)

    it("is misused with what is no content, before anything is sent", function()
      local record = converse({}, steps_of(and_alive {}), function(session)
        local closed = assert(io.tmpfile())
        closed:close()
        for _, message in ipairs { 5, true, {}, closed } do
          assert.error_matches(function() session:send(envelope(a, message)) end, "message")
        end
        assert_alive(session)
      end)
      assert.equals("NOOP\r\nQUIT\r\n", said(record))
    end)
  end)

  describe("begins", function()
    it("with our address, or the client_name that is given", function()
      for _, name in ipairs { "laptop.example.test", "[IPv6:2001:db8::1]" } do
        local peer <close> = peer_steps.start(
          { { "smtp_upgrade", { secure = false, auth = false } } }, {})
        assert(connect(peer.port, { client_name = name })):close()
        assert.equals(("EHLO %s\r\n"):format(name), peer:finish().clear)
      end
      local record = converse({}, {}, function() end)
      assert.equals("EHLO [127.0.0.1]\r\n", record.clear)
    end)

    it("behind a greeting of several lines", function()
      local peer <close> = peer_steps.start({ { "smtp_upgrade", { secure = false, auth = false,
        greeting = "220-mail.example.test\r\n220-no spam\r\n220 ESMTP\r\n" } } }, {})
      assert(connect(peer.port)):close()
    end)

    for _, line in ipairs { "* OK IMAP", "+OK POP3", "HTTP/1.1 400 Bad Request", "354 go on" } do
      it(("not with a server that greets with %q"):format(line), function()
        local peer <close> = peer_steps.start({ { "send", line .. "\r\n" } }, {})
        local session, err = connect(peer.port)
        assert.is_nil(session)
        assert_fields({ kind = "protocol", during = "greeting" }, err)
      end)
    end

    local old = { { "send", "220 old\r\n" }, { "expect", "^EHLO" }, { "send", "502 what?\r\n" } }

    it("with HELO where the server knows no EHLO and clear text is allowed", function()
      for _, tls in ipairs { "none", "opportunistic" } do
        local peer <close> = peer_steps.start({ old[1], old[2], old[3],
          { "expect", "^HELO %[127.0.0.1%]\r\n" }, { "send", "250 hello\r\n" },
          { "expect", "^NOOP\r\n" }, { "send", "250 OK\r\n" } }, {})
        local session <close> = assert(connect(peer.port, { tls = tls }))
        assert(session:noop())
        assert.same({}, session:capabilities())
      end
    end)

    it("not with HELO where encryption is required", function()
      local peer <close> = peer_steps.start(old, {})
      local session, err = connect(peer.port, { tls = "starttls" })
      assert.is_nil(session)
      assert_fields({ kind = "downgrade" }, err)
      assert.equals("EHLO [127.0.0.1]\r\n", peer:finish().clear)
    end)

    it("not where HELO is refused too, or EHLO only for the moment", function()
      local peer <close> = peer_steps.start({ old[1], old[2], old[3], { "expect", "^HELO" },
        { "send", "550 5.7.0 go away\r\n" } }, {})
      local session, err = connect(peer.port)
      assert.is_nil(session)
      assert_fields({ kind = "rejected", during = "capabilities", code = 550 }, err)

      local busy <close> = peer_steps.start(
        { old[1], old[2], { "send", "451 4.3.2 later\r\n" } }, {})
      session, err = connect(busy.port)
      assert.is_nil(session)
      assert_fields({ kind = "rejected", during = "capabilities", temporary = true }, err)
      assert.equals("EHLO [127.0.0.1]\r\n", busy:finish().clear)
    end)
  end)

  describe("ends", function()
    local function quit(answer)
      local done, err
      local steps = { { "expect", "^QUIT\r\n" } }
      if answer then steps[2] = { "send", answer .. "\r\n" } end
      converse({}, steps, function(session)
        done, err = session:quit()
        assert_dead(session, { kind = "closed" })
        local again, why = session:quit()
        assert.is_nil(again)
        assert.equals("closed", why.kind)
      end)
      return done, err
    end

    it("with a goodbye, which servers answer in many ways", function()
      assert.is_true(quit "221 2.0.0 bye")
      assert.is_true(quit "250 bye")
      assert.is_true(quit "421 timeout")
      assert.is_true(quit())
    end)

    it("with an error where the goodbye is refused", function()
      local done, err = quit "500 what?"
      assert.is_nil(done)
      assert_fields({ kind = "rejected", during = "quit", code = 500 }, err)
    end)

    it("without a word when it is closed, twice and by <close>", function()
      local record = converse({}, {}, function(session)
        session:close()
        session:close()
        assert_dead(session, { kind = "closed" })
        assert.is_false(session:security().encrypted)
        assert.same({}, session:capabilities())
        assert.matches("closed", tostring(session))
      end)
      assert.equals("", said(record))
    end)
  end)

  describe("with Exim", function()
    local mail

    setup(function()
      mail = servers.shared()
    end)

    it("tells of each recipient what became of it", function()
      local session <close> = clients.connect(mail, "smtp")
      local alice = mail.users.alice.address
      local result = assert(session:send { from = alice, message = letter,
        to = { mail.refused, alice, mail.deferred, "nobody@elsewhere.test" } })
      assert.same({ alice }, result.accepted)
      assert.equals(3, #result.rejected)
      assert_fields({ address = mail.refused, code = 550, status = "5.1.1", temporary = false },
        result.rejected[1])
      assert_fields({ address = mail.deferred, code = 451, status = "4.2.1", temporary = true },
        result.rejected[2])
      assert_fields({ address = "nobody@elsewhere.test", code = 550, status = "5.7.1" },
        result.rejected[3])
      assert.equals(250, result.reply.code)
      assert(session:quit())
    end)

    it("tells when all recipients are refused, and goes on", function()
      local session <close> = clients.connect(mail, "smtp")
      local alice = mail.users.alice.address
      local result, err = session:send { from = alice, to = { mail.deferred, mail.refused },
        message = letter }
      assert.is_nil(result)
      assert_fields({ kind = "rejected", during = "rcpt", code = 451, status = "4.2.1",
        temporary = true }, err)
      assert.equals(2, #err.rejected)
      assert(session:send { from = alice, to = alice, message = letter })
      assert(session:reset())
      assert(session:noop())
      assert(session:quit())
    end)

    it("sends to and from an address beyond ASCII, if only to be refused", function()
      local session <close> = clients.connect(mail, "smtp")
      local result, err = session:send { from = "j\u{fc}rgen@example.test",
        to = "b\u{f6}b@example.test", message = letter }
      assert.is_nil(result)
      assert_fields({ kind = "rejected", during = "rcpt", code = 550 }, err)
      assert(session:noop())
    end)

    it("says a size limit of the server before it sends", function()
      local session <close> = clients.connect(mail, "smtp")
      local offered, limit = session:has "SIZE"
      assert.is_true(offered)
      local alice = mail.users.alice.address
      local result, err = session:send { from = alice, to = alice,
        message = ("x"):rep(math.tointeger(tonumber(limit)) + 1) }
      assert.is_nil(result)
      assert_fields({ kind = "rejected", during = "mail" }, err)
      assert(session:noop())
    end)
  end)
end)
