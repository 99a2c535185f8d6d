-- Several messages under way on one session: which answer belongs to whom, however the server
-- judges each, and what is said when the connection is lost. Most peers are scripted and speak
-- clear text; Exim is real.

local clients = require "spec.support.clients"
local Peer = require "spec.support.peer"
local servers = require "spec.support.servers"
local talk = require "spec.support.smtp_talk"

local connect, envelope, serve, outcomes = talk.connect, talk.envelope, talk.serve, talk.outcomes
local contents, assert_fields, assert_alive = talk.contents, talk.assert_fields, talk.assert_alive
local converse, ways = talk.converse, talk.ways
local chunked, pipelined, single = ways["in chunks"], ways["as text"], ways["one at a time"]

local a, b = "a@example.test", "b@example.test"

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

  it("wait in an event loop, as may the caller's own functions", function()
    for _, extensions in pairs(ways) do
      local peer <close> = Peer.start(function(p, args)
        p:smtp_upgrade { secure = false, auth = false, after = args.extensions }
        return p:smtp_serve {}
      end, { extensions = extensions })
      local yields = { loop = 0, message = 0, source = 0 }
      local function pause(who)
        yields[who] = yields[who] + 1
        coroutine.yield()
      end
      local loop = { forget = function() end, wait = function() -- busy, but a loop
        pause "loop"
        return true
      end }
      local list
      local thread = coroutine.create(function()
        local session <close> = assert(connect(peer.port, { loop = loop }))
        local count = 0
        list = outcomes(session, function()
          count = count + 1
          pause "message"
          local piece = count .. "\r\n"
          return count <= 5 and envelope(a, function()
            pause "source"
            local given = piece
            piece = nil
            return given
          end) or nil
        end)
        assert_alive(session)
      end)
      while coroutine.status(thread) ~= "dead" do assert(coroutine.resume(thread)) end
      for i = 1, 5 do assert.same({ a }, list[i][1].accepted) end
      assert.same({ 6, 10 }, { yields.message, yields.source })
      assert(yields.loop > 0)
      assert.same({ "1\r\n", "2\r\n", "3\r\n", "4\r\n", "5\r\n" },
        contents(peer:finish().result))
    end
  end)

  it("end with the coroutine that is closed in the middle", function()
    local peer <close> = Peer.start(function(p)
      p:smtp_upgrade { secure = false, auth = false, after = { "PIPELINING", "CHUNKING" } }
      return p:smtp_serve {}
    end)
    local session <close> = assert(connect(peer.port))
    local thread = coroutine.create(function()
      for number in session:send_all(function() return envelope() end, { window = 3 }) do
        coroutine.yield(number)
      end
    end)
    assert(coroutine.resume(thread))
    assert(coroutine.close(thread))
    assert.same({ a }, assert(session:send(envelope())).accepted)
    assert_alive(session)
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
