-- Messages with more recipients than the server takes in one transaction, as it states or says
-- on the way: what goes where, and what the one result is. The peers are scripted.

local talk = require "spec.support.smtp_talk"

local envelope, serve, outcomes = talk.envelope, talk.serve, talk.outcomes
local contents, assert_fields, assert_alive = talk.contents, talk.assert_fields, talk.assert_alive
local ways = talk.ways
local chunked, single = ways["in chunks"], ways["one at a time"]

local a, b = "a@example.test", "b@example.test"

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
    { "RCPTDOMAINMAX=3", many(6, 3), { 6 } },
    { "rcptmax=2 MAILMAX=9 RCPTDOMAINMAX=2 X=y", many(5, 2), { 2, 2, 1 } },
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

  -- RFC 9422 4.3: of a session, not of a transaction.
  it("goes to no more domains than RCPTDOMAINMAX allows in a session", function()
    local taken = serve({ "PIPELINING", "LIMITS RCPTDOMAINMAX=2" }, function(session)
      local to = many(6, 3) -- in the domains 1, 2, 0, 1, 2, 0
      local result = assert(session:send(envelope(to)))
      assert.same({ to[1], to[2], to[4], to[5] }, result.accepted)
      assert.equals(2, #result.rejected)
      assert_fields({ address = to[3], temporary = true }, result.rejected[1])
      assert.matches("2 domains in a session", result.rejected[1].text)
      assert(session:send(envelope { to[2] }))
      local none, err = session:send(envelope { to[3] })
      assert.is_nil(none)
      assert_fields({ kind = "rejected", during = "rcpt", temporary = true }, err)
      assert_alive(session)
    end)
    assert.same({ 4, 1 }, sizes(taken))
  end)

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
