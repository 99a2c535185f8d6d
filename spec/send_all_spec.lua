-- Several messages under way on one session, and messages that take several transactions:
-- which answer belongs to whom, however the server judges each, and what is said when the
-- connection is lost. Most peers are scripted and speak clear text; Exim is real.

local clients = require "spec.support.clients"
local Peer = require "spec.support.peer"
local servers = require "spec.support.servers"

local smtp = require "starttls.smtp"

local a, b = "a@example.test", "b@example.test"

local function envelope(to, message)
  return { from = "sender@example.test", to = to or a, message = message or "x\r\n" }
end

local function connect(port, more)
  local options = { host = "127.0.0.1", port = port, tls = "none" }
  for name, value in pairs(more or {}) do options[name] = value end
  return smtp.connect(options)
end

-- Runs `use(session)` against a peer that offers `extensions` and runs `script(p)` then.
-- Returns what the script returns.
local function converse(extensions, script, use)
  local peer <close> = Peer.start(function(p, args)
    p:smtp_upgrade { secure = false, auth = false, after = args.extensions }
    return load(args.script, "=script", "b")(p)
  end, { extensions = extensions, script = string.dump(script) })
  local session <close> = assert(connect(peer.port))
  use(session)
  session:close()
  local record = peer:finish()
  assert.is_true(record.ok, record.error)
  return record.result
end

local function serve(extensions, use, options)
  local peer <close> = Peer.start(function(p, args)
    p:smtp_upgrade { secure = false, auth = false, after = args.extensions }
    return p:smtp_serve(args.options)
  end, { extensions = extensions, options = options or {} })
  local session <close> = assert(connect(peer.port))
  use(session)
  session:close()
  local record = peer:finish()
  assert.is_true(record.ok, record.error)
  return record.result
end

local chunked, pipelined, single = { "PIPELINING", "CHUNKING" }, { "PIPELINING" }, {}
local ways = {
  ["in chunks"] = chunked, ["as text"] = pipelined, ["one at a time"] = single,
  ["one at a time in chunks"] = { "CHUNKING" },
}

local function assert_fields(expected, actual)
  for name, value in pairs(expected) do
    assert.same(value, actual[name], ("%s of %s"):format(name, tostring(actual)))
  end
end

local function assert_alive(session)
  assert(session:noop())
  assert.is_true(session:quit())
end

-- The outcomes as an array of { result or false, error }.
local function outcomes(session, messages, settings)
  local list = {}
  for number, result, err, message in session:send_all(messages, settings) do
    list[#list + 1] = { result or false, err, message }
    assert.equals(#list, number)
  end
  return list
end

local function contents(taken)
  local list = {}
  for i, mail in ipairs(taken) do list[i] = mail.content end
  return list
end

describe("Many messages on one session", function()
  it("are under way together where the server has PIPELINING and CHUNKING", function()
    converse(chunked, function(p)
      for i = 1, 3 do -- all that before any answer
        if i > 1 then p:expect "^RSET" end
        p:expect "^MAIL" p:expect "^RCPT"
        p:smtp_chunk()
      end
      p:send("250 OK\r\n250 OK\r\n250 one\r\n", "250 OK\r\n250 OK\r\n550 no\r\n554 nobody\r\n")
      p:send("250 OK\r\n250 OK\r\n250 OK\r\n250 three\r\n")
      p:expect "^QUIT"
      p:send "221 bye\r\n"
    end, function(session)
      local list = outcomes(session, { envelope(), envelope(), envelope() })
      assert.equals("one", list[1][1].reply.text)
      assert_fields({ kind = "rejected", during = "rcpt", code = 550 }, list[2][2])
      assert.equals("three", list[3][1].reply.text)
      assert.is_true(session:quit())
    end)
  end)

  it("follow each other without a pause where the server has PIPELINING only", function()
    converse(pipelined, function(p)
      p:expect "^MAIL" p:expect "^RCPT" p:expect "^DATA"
      for _ = 1, 2 do
        p:send "250 OK\r\n250 OK\r\n354 go on\r\n"
        p:read_to_dot() -- the next envelope comes without an answer to that
        p:expect "^MAIL" p:expect "^RCPT" p:expect "^DATA"
        p:send "250 queued\r\n"
      end
      p:send "250 OK\r\n250 OK\r\n354 go on\r\n"
      p:read_to_dot()
      p:send "250 queued\r\n"
    end, function(session)
      for _, outcome in ipairs(outcomes(session, { envelope(), envelope(), envelope() })) do
        assert.same({ a }, outcome[1].accepted)
      end
    end)
  end)

  it("go one at a time where the server lacks PIPELINING", function()
    converse(single, function(p)
      for _ = 1, 3 do
        for _, pattern in ipairs { "^MAIL", "^RCPT", "^DATA", "dot" } do
          if pattern == "dot" then p:read_to_dot() else p:expect(pattern) end
          p:sleep(0.02)
          if p.buffer ~= "" or p:receive_now() then p:fail("more behind %s", pattern) end
          p:send(pattern == "^DATA" and "354 go on\r\n" or "250 OK\r\n")
        end
      end
    end, function(session)
      assert.equals(3, #outcomes(session, { envelope(), envelope(), envelope() }, { window = 9 }))
    end)
  end)

  it("are no more at a time than the window is wide", function()
    converse(chunked, function(p)
      local function take(first)
        if not first then p:expect "^RSET" end
        p:expect "^MAIL" p:expect "^RCPT"
        p:smtp_chunk()
      end
      for i = 1, 5 do
        if i <= 2 then take(i == 1) end
        if i == 1 then take() end
        p:sleep(0.02)
        if i < 5 and (p.buffer ~= "" or p:receive_now()) then p:fail("more behind %d", i) end
        p:send(i > 1 and "250 OK\r\n" or "", "250 OK\r\n250 OK\r\n250 queued\r\n")
        if i < 4 and i > 1 then take() end
      end
    end, function(session)
      local given = 0
      local list = outcomes(session, function()
        given = given + 1
        return given <= 5 and envelope() or nil
      end, { window = 2 })
      assert.equals(5, #list)
    end)
  end)

  -- Each message, its accepted recipients or the phase and code of the error
  local messages = {
    { envelope(a, "1\r\n"), { a } },
    { { from = "bad@x.test", to = { a, b }, message = "2\r\n" }, "mail", 550 },
    { envelope({ a, "no-b@example.test" }, "3\r\n"), { a } },
    { envelope({ "no@example.test", "later@example.test" }, "4\r\n"), "rcpt", 550 },
    { envelope({ a, b }, "REJECT\r\n"), "delivery", 554 },
    { envelope(b, "6\r\n"), { b } },
    { envelope(b, "DEFER\r\n"), "delivery", 451 },
    { envelope("later@example.test", "8\r\n"), "rcpt", 451 },
    { { from = "bad@x.test", to = a, message = ("9\r\n"):rep(100000) }, "mail", 550 },
    { envelope(a, ("10\r\n"):rep(100000)), { a } },
    { envelope("no@example.test", ("11\r\n"):rep(100000)), "rcpt", 550 },
    { envelope(a, "a\0b"), "mail" },
    { envelope({ b, a }, "13\r\n"), { b, a } },
  }

  for way, extensions in pairs(ways) do
    it(("have each their own fate, sent %s"):format(way), function()
      local taken = serve(extensions, function(session)
        local at = 0
        local list = outcomes(session, function()
          at = at + 1
          return messages[at] and messages[at][1]
        end)
        assert.equals(#messages, #list)
        for i, case in ipairs(messages) do
          local result, err, message = table.unpack(list[i], 1, 3)
          assert.equals(case[1], message)
          if type(case[2]) == "table" then assert.same(case[2], result and result.accepted)
          else assert_fields({ during = case[2], code = case[3] }, err) end
          assert.is_nil(err and err.delivery)
        end
        assert_alive(session)
      end)
      assert.same({ "1\r\n", "3\r\n", "6\r\n", ("10\r\n"):rep(100000), "13\r\n" }, contents(taken))
    end)

    it(("don't hinder each other when one has to be given up, sent %s"):format(way), function()
      local taken = serve(extensions, function(session)
        local fails = function() return nil, "disk on fire" end
        local list = outcomes(session, { envelope(a, "1\r\n"), envelope(a, fails),
          envelope(a, "3\r\n") })
        assert.same({ a }, list[1][1].accepted)
        assert_fields({ kind = "cancelled", during = "content" }, list[2][2])
        if extensions[#extensions] == "CHUNKING" then
          assert.same({ a }, list[3][1].accepted)
          assert_alive(session)
        else -- half a message can't be taken back
          assert.equals(2, #list)
          assert.equals("cancelled", select(2, session:noop()).kind)
        end
      end)
      assert.equals(extensions[#extensions] == "CHUNKING" and 2 or 1, #taken)
    end)
  end

  it("raise what is wrong with one when it is its turn, and the session goes on", function()
    for wrong, message in pairs {
      ["CR, LF or NUL"] = envelope "a@example.test\r\nDATA",
      ["unknown field"] = { from = "", to = a, message = "x", cc = b },
      ["takes a table"] = 5,
      ["my own"] = "raise",
      ["boom"] = envelope(a, function() error "boom" end),
    } do
      local seen = 0
      local taken = serve(chunked, function(session)
        local list = { envelope(a, "1\r\n"), envelope("no@example.test"), message, envelope() }
        local at = 0
        assert.error_matches(function()
          for _ in session:send_all(function()
            at = at + 1
            if list[at] == "raise" then error "my own" end
            return list[at]
          end) do
            seen = seen + 1
          end
        end, wrong)
        assert.equals(2, seen)
        assert_alive(session)
      end)
      assert.equals("1\r\n", taken[1].content)
    end
  end)

  it("may be left in the middle, and the session goes on", function()
    local taken = serve(chunked, function(session)
      local at = 0
      for number in session:send_all(function()
        at = at + 1
        return envelope(a, at .. "\r\n")
      end, { window = 4 }) do
        if number == 3 then break end
      end
      assert(session:send(envelope(a, "last\r\n")))
      assert_alive(session)
    end)
    assert.equals("last\r\n", taken[#taken].content)
    assert(#taken >= 4 and #taken <= 9, #taken)
  end)

  it("keep the session busy until the last one", function()
    serve(chunked, function(session)
      for number in session:send_all { envelope(), envelope() } do
        local done, err = session:noop()
        assert.is_nil(done)
        assert.equals("busy", err.kind)
        assert.is_true(number <= 2)
      end
      assert_alive(session)
    end)
  end)

  it("may be none", function()
    serve(chunked, function(session)
      assert.same({}, outcomes(session, {}))
      assert.same({}, outcomes(session, function() end))
      assert_alive(session)
    end)
  end)

  it("are misused with wrong settings, before anything is sent", function()
    local taken = serve(chunked, function(session)
      for _, window in ipairs { 0, -1, 1.5, "2", 1001 } do
        assert.error_matches(function() session:send_all({}, { window = window }) end, "'window'")
      end
      assert.error_matches(function() session:send_all({}, { windows = 1 }) end, "'windows'")
      assert.error_matches(function() session:send_all "x" end, "takes a function")
      assert_alive(session)
    end)
    assert.same({ "NOOP", "QUIT" }, taken.verbs)
  end)

  it("don't begin on a session that is closed", function()
    serve(chunked, function(session)
      session:close()
      local ok, err = pcall(session.send_all, session, { envelope() })
      assert.is_false(ok)
      assert.equals("closed", err.kind)
    end)
  end)

  describe("when the connection is lost", function()
    local function letters(count)
      local list = {}
      for i = 1, count do list[i] = envelope(a, i .. "\r\n") end
      return list
    end

    for how, goodbye in pairs { ["by hanging up"] = "", ["with 421"] = "421 4.3.2 going down\r\n",
      ["with nonsense"] = "what?\r\n" } do
      it(("%s, have each the right outcome"):format(how), function()
        local peer <close> = Peer.start(function(p, args)
          p:smtp_upgrade { secure = false, auth = false, after = { "CHUNKING", "PIPELINING" } }
          for i = 1, 4 do
            if i > 1 then p:expect "^RSET" end
            p:expect "^MAIL" p:expect "^RCPT"
            p:smtp_chunk()
          end
          p:expect "^RSET" p:expect "^MAIL" p:expect "^RCPT" p:expect "^BDAT"
          p:send("250 OK\r\n250 OK\r\n250 one\r\n", "250 OK\r\n550 bad\r\n503 ?\r\n503 ?\r\n",
            "250 OK\r\n250 OK\r\n250 OK\r\n", args.goodbye)
        end, { goodbye = goodbye })
        local session <close> = assert(connect(peer.port))
        local list = letters(4)
        -- So long that its end can't be on its way when nobody reads.
        list[5] = envelope(a, (("x"):rep(98) .. "\r\n"):rep(400000))
        list[6] = envelope()
        local got = outcomes(session, list)
        assert.equals(5, #got)
        assert.same({ a }, got[1][1].accepted)
        assert_fields({ kind = "rejected", during = "mail", code = 550 }, got[2][2])
        local unknown = how ~= "with 421" and "unknown" or nil
        for i = 3, 5 do
          assert.is_false(got[i][1])
          assert.equals(how == "with nonsense" and "protocol" or "closed", got[i][2].kind)
          assert.equals(i < 5 and unknown or nil, got[i][2].delivery)
        end
        local _, err = session:noop()
        assert.equals(got[3][2].kind, err.kind)
      end)
    end

    it("before the end of the last ones went out, is not unknown of them", function()
      local peer <close> = Peer.start(function(p)
        p:smtp_upgrade { secure = false, auth = false, after = { "CHUNKING", "PIPELINING" } }
        p:receive "for anything"
        p:sleep(0.2) -- until nothing more can be sent to us
        p:reset()
      end)
      local session <close> = assert(connect(peer.port))
      local body = (("x"):rep(98) .. "\r\n"):rep(1500)
      local got = outcomes(session, function() return envelope(a, body) end, { window = 1000 })
      assert(#got > 10 and #got < 1000, #got)
      for i, outcome in ipairs(got) do
        assert.is_false(outcome[1])
        assert.equals("closed", outcome[2].kind)
        -- What waits to be sent is a few of them.
        if i == #got then assert.is_nil(outcome[2].delivery)
        elseif i < #got - 4 then assert.equals("unknown", outcome[2].delivery) end
      end
    end)

    it("at any byte of the answers, are never sent without the server's word", function()
      local first = "250 OK\r\n250 OK\r\n250 1\r\n"
      local second = "250 R\r\n" .. first
      local peer <close> = Peer.start(function(p, args)
        for count = 0, #args.answers do
          if count > 0 then p:accept() end
          p:smtp_upgrade { secure = false, auth = false, after = { "CHUNKING", "PIPELINING" } }
          for i = 1, 2 do
            if i > 1 then p:expect "^RSET" end
            p:expect "^MAIL" p:expect "^RCPT"
            p:smtp_chunk()
          end
          p:send(args.answers:sub(1, count))
          p:close()
        end
      end, { answers = first .. second })
      for count = 0, #first + #second do
        local session <close> = assert(connect(peer.port))
        local got = outcomes(session, letters(2))
        assert.equals(2, #got)
        for i, needed in ipairs { #first, #first + #second } do
          if count >= needed then
            assert.same({ a }, got[i][1].accepted)
          else
            assert.is_false(got[i][1])
            assert_fields({ kind = "closed", delivery = "unknown" }, got[i][2])
          end
        end
      end
      assert.is_true(peer:finish().ok)
    end)
  end)
end)

describe("A message with more recipients than a transaction takes", function()
  local function many(count, domains)
    local to = {}
    for i = 1, count do
      to[i] = ("r%d@%s.test"):format(i, domains and "d" .. i % domains or "example")
    end
    return to
  end

  local function sizes(taken)
    local list = {}
    for i, mail in ipairs(taken) do list[i] = #mail.to end
    return list
  end

  local text = "Subject: x\r\n\r\nx\r\n"

  local function file_of(content)
    local file = assert(io.tmpfile())
    file:write("skip", content)
    file:seek("set", 4)
    return file
  end

  local function source_of(content)
    return function()
      local piece = content
      content = nil
      return piece
    end
  end

  -- LIMITS (RFC 9422), recipients, and the transactions' sizes
  for _, case in ipairs {
    { "RCPTMAX=10", many(10), { 10 } },
    { "RCPTMAX=10", many(25), { 10, 10, 5 } },
    { "RCPTDOMAINMAX=1", many(6, 3), { 2, 2, 2 } },
    { "RCPTDOMAINMAX=2", many(6, 3), { 4, 2 } },
    { "RCPTDOMAINMAX=3", many(6, 3), { 6 } },
    { "rcptmax=2 MAILMAX=9 RCPTDOMAINMAX=1 X=y", many(6, 2), { 2, 1, 2, 1 } },
    { "RCPTMAX=0 RCPTDOMAINMAX=x", many(3), { 3 } },
  } do
    it(("is sent %d times where the server says LIMITS %s"):format(#case[3], case[1]), function()
      for _, make in ipairs { function() return text end, file_of, source_of } do
        local taken = serve({ "PIPELINING", "LIMITS " .. case[1] }, function(session)
          local result = assert(session:send(envelope(case[2], make(text))))
          assert.same(case[2], result.accepted)
          assert.same({}, result.rejected)
          assert.equals(#case[3] > 1 and #case[3] or nil, result.replies and #result.replies)
          assert_alive(session)
        end)
        assert.same(case[3], sizes(taken))
        for _, mail in ipairs(taken) do assert.equals(text, mail.content) end
      end
    end)
  end

  it("goes to nobody behind the last one that MAILMAX allows", function()
    local taken = serve({ "CHUNKING", "LIMITS MAILMAX=2 RCPTMAX=1" }, function(session)
      local result = assert(session:send(envelope { a, "no@example.test", b }))
      assert.same({ a }, result.accepted)
      assert.equals(550, result.rejected[1].code)
      assert_fields({ address = b, temporary = true }, result.rejected[2])
      local none, err = session:send(envelope())
      assert.is_nil(none)
      assert_fields({ kind = "rejected", during = "mail", temporary = true }, err)
      assert.matches("2 messages", err.message)
      assert_alive(session)
    end)
    assert.same({ "MAIL", "RCPT", "BDAT", "MAIL", "RCPT", "RSET", "NOOP", "QUIT" }, taken.verbs)
  end)

  for _, case in ipairs {
    { "452 4.5.3 too many recipients", { 100, 100, 50 } },
    { "452 no room for more", { 100, 100, 50 } },
    { "552 too many", { 100, 100, 50 } },
    { "451 4.5.3 too many", { 100, 100, 50 } },
    { "452 4.2.2 mailbox full", { 100 }, 452 },
    { "450 4.2.1 later", { 100 }, 450 },
    { "550 5.1.1 no such user", { 100 }, 550 },
  } do
    it(("is sent %d times where the server says %s"):format(#case[2], case[1]), function()
      local to = many(250)
      for _, make in ipairs { function() return text end, file_of, source_of } do
        for _, extensions in ipairs { chunked, single } do
          local taken = serve(extensions, function(session)
            local result = assert(session:send(envelope(to, make(text))))
            assert.equals(case[3] and 100 or 250, #result.accepted)
            assert.equals(case[3] and 150 or 0, #result.rejected)
            assert.equals(case[3], result.rejected[1] and result.rejected[1].code)
            if not case[3] then assert.same(to, result.accepted) end
            assert_alive(session)
          end, { most = 100, full = case[1] })
          assert.same(case[2], sizes(taken))
        end
      end
    end)
  end

  it("is not sent again when nobody was accepted, or the message was refused", function()
    local taken = serve(chunked, function(session)
      local none, err = session:send(envelope(many(3), "REJECT"))
      assert.is_nil(none)
      assert_fields({ during = "delivery", code = 554 }, err)
      assert.equals(2, #err.rejected)
      assert_alive(session)
    end, { most = 1 })
    assert.same({ "MAIL", "RCPT", "RCPT", "RCPT", "BDAT", "RSET", "NOOP", "QUIT" }, taken.verbs)
  end)

  it("is not sent when its source fails or raises, and the others are", function()
    local taken = serve(chunked, function(session)
      local to = many(101)
      local list = outcomes(session, { envelope(a, "1\r\n"),
        envelope(to, function() return nil, "disk on fire" end), envelope(a, "3\r\n") })
      assert.same({ a }, list[1][1].accepted)
      assert_fields({ kind = "cancelled", during = "content" }, list[2][2])
      assert.same({ a }, list[3][1].accepted)
      local seen = 0
      assert.has_error(function()
        for _ in session:send_all { envelope(a, "4\r\n"),
          envelope(to, function() error("boom", 0) end) } do
          seen = seen + 1
        end
      end, "boom")
      assert.equals(1, seen)
      assert_alive(session)
    end)
    assert.same({ "1\r\n", "3\r\n", "4\r\n" }, contents(taken))
  end)

  it("is in its place among others", function()
    local taken = serve(chunked, function(session)
      local list = outcomes(session, { envelope(many(5), "1\r\n"), envelope(a, "2\r\n"),
        envelope(many(3), "3\r\n") })
      for i, count in ipairs { 5, 1, 3 } do assert.equals(count, #list[i][1].accepted) end
      assert_alive(session)
    end, { most = 2 })
    assert.equals(6, #taken)
  end)

  for _, at in ipairs { 1, 50, 100 } do
    it(("tells that recipient %d of 100 is refused"):format(at), function()
      for _, extensions in pairs(ways) do
        local to = many(100)
        to[at] = "no@example.test"
        serve(extensions, function(session)
          local result = assert(session:send(envelope(to)))
          assert.equals(99, #result.accepted)
          assert.same({ { address = "no@example.test", code = 550, status = "5.1.1",
            text = "no such user", temporary = false } }, result.rejected)
          assert_alive(session)
        end)
      end
    end)
  end
end)

describe("Many messages to Exim", function()
  local mail

  setup(function() mail = servers.shared() end)

  it("arrive, but for those that it refuses", function()
    local session <close> = clients.connect(mail, "smtp")
    mail:empty "bob"
    local alice, bob = mail.users.alice.address, mail.users.bob.address
    local count = 0
    local accepted = 0
    for number, result, err in session:send_all(function()
      count = count + 1
      if count > 40 then return nil end
      local to = count % 10 == 3 and mail.refused or count % 10 == 7 and { mail.deferred, bob }
        or bob
      return { from = alice, to = to, message = ("Subject: %d\n\nhello\n"):format(count) }
    end) do
      if number % 10 == 3 then
        assert_fields({ kind = "rejected", during = "rcpt", code = 550, status = "5.1.1" }, err)
      else
        accepted = accepted + 1
        assert.same({ bob }, assert(result, err).accepted)
        assert.equals(number % 10 == 7 and 1 or 0, #result.rejected)
      end
    end
    assert.equals(36, accepted)
    assert(session:quit())
    assert.equals(36, #mail:wait_for_mail("bob", 36))
    mail:empty "bob"
  end)
end)
