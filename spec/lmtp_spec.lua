-- LMTP (RFC 2033): Dovecot's over TCP and on a Unix socket, and scripted peers for what it does
-- not do. What LMTP shares with SMTP is in smtp_spec.lua, smtp_chunking_spec.lua and
-- send_all_spec.lua.

local lfs = require "lfs"
local Peer = require "spec.support.peer"
local process = require "spec.support.process"
local servers = require "spec.support.servers"
local talk = require "spec.support.smtp_talk"

local lmtp = require "starttls.lmtp"

local a, b, c = "a@example.test", "b@example.test", "c@example.test"
local text = "Subject: x\r\n\r\nx\r\n"

local assert_fields = talk.assert_fields

local function envelope(to, message)
  return talk.envelope(to, message or text)
end

describe("LMTP with Dovecot", function()
  local mail

  setup(function()
    mail = servers.shared()
    mail:empty "alice"
    mail:empty "bob"
    -- A mailbox that can't be one.
    process.write_file(mail.dir .. "/mail/full", "in the way\n")
  end)

  teardown(function() os.remove(mail.dir .. "/mail/full") end)

  local places = {
    ["a Unix socket"] = function() return { path = mail.lmtp.path } end,
    ["TCP with STARTTLS"] = function()
      return { host = mail.host, port = mail.lmtp.port, ca_file = mail.ca_file }
    end,
  }

  for place, options in pairs(places) do
    it("delivers to each recipient, over " .. place, function()
      local session <close> = assert(lmtp.connect(options()))
      assert.equals(place ~= "a Unix socket", session:security().encrypted)
      local to = { "alice@example.test", "odd!one@example.test", "full@example.test",
        "bob@example.test" }
      local result = assert(session:send(envelope(to)))
      assert.same({ "alice@example.test", "bob@example.test" }, result.accepted)
      assert_fields({ address = to[2], code = 550, status = "5.1.1", temporary = false },
        result.rejected[1])
      assert_fields({ address = to[3], code = 451, temporary = true }, result.rejected[2])
      assert.equals(2, #result.replies)
      assert.matches("<alice@example.test> .* Saved", result.replies[1].text)
      assert.matches("<bob@example.test> .* Saved", result.reply.text)
      for _, user in ipairs { "alice", "bob" } do
        local file <close> = assert(io.open(mail:wait_for_mail(user, 1)[1].path))
        assert.matches("Subject: x\n\nx\n$", file:read "a")
        mail:empty(user)
      end
      local none, err = session:send(envelope { to[2], to[3] })
      assert.is_nil(none)
      assert_fields({ kind = "rejected", during = "delivery" }, err)
      assert.equals(2, #err.rejected)
      none, err = session:send(envelope(to[2]))
      assert.is_nil(none)
      assert_fields({ kind = "rejected", during = "rcpt", code = 550 }, err)
      assert(session:noop())
      assert.is_true(session:quit())
    end)

    it("delivers many messages, over " .. place, function()
      local session <close> = assert(lmtp.connect(options()))
      local count = 0
      for number, result, err in session:send_all(function()
        count = count + 1
        if count > 20 then return nil end
        return envelope(count % 5 == 0 and "odd!one@example.test" or "bob@example.test",
          ("Subject: %d\n\n"):format(count) .. ("x"):rep(70):rep(5000, "\n"))
      end) do
        if number % 5 == 0 then assert.equals(550, err.code)
        else assert.same({ "bob@example.test" }, assert(result, err).accepted) end
      end
      assert.is_true(session:quit())
      assert.equals(16, #mail:wait_for_mail("bob", 16))
      mail:empty "bob"
    end)
  end

  it("says where it is connected to", function()
    local session <close> = assert(lmtp.connect { path = mail.lmtp.path })
    assert.equals(("starttls.lmtp: %s (clear text)"):format(mail.lmtp.path), tostring(session))
  end)

  it("can have TLS on a Unix socket, too", function()
    local session, err = lmtp.connect { path = mail.lmtp.path, tls = "starttls",
      ca_file = mail.ca_file }
    assert.is_true(assert(session, err):security().verified)
    session:close()
    session, err = lmtp.connect { path = mail.lmtp.path, tls = "starttls",
      ca_file = mail.ca_file, host = "other.example.test" }
    assert.is_nil(session)
    assert.equals("certificate", err.kind)
  end)
end)

describe("LMTP", function()
  -- Runs `use(session)` against the server of peer_smtp.lua.
  local function serve(extensions, use)
    local peer <close> = Peer.start(function(p, args)
      p:smtp_upgrade { secure = false, auth = false, after = args.extensions }
      return p:smtp_serve { lmtp = true }
    end, { extensions = extensions })
    local session <close> = assert(lmtp.connect { host = "127.0.0.1", port = peer.port,
      tls = "none" })
    use(session)
    session:close()
    local record = peer:finish()
    assert.is_true(record.ok, record.error)
    return record.result, record
  end

  local ways = { chunks = { "PIPELINING", "CHUNKING" }, text = { "PIPELINING" },
    ["single chunks"] = { "CHUNKING" }, ["single text"] = {} }

  for way, extensions in pairs(ways) do
    it(("hears of each recipient what became of the message, in %s"):format(way), function()
      local full = "full@example.test"
      local taken, record = serve(extensions, function(session)
        local to = { a, "no@example.test", full, b, "later@example.test", c }
        local result = assert(session:send(envelope(to)))
        assert.same({ a, b, c }, result.accepted)
        local function codes(list)
          local found = {}
          for i, it in ipairs(list) do found[i] = it.code end
          return found
        end
        assert.same({ 550, 452, 451 }, codes(result.rejected))
        assert.equals(3, #result.replies)
        assert.equals("<c@example.test> saved as 1", result.reply.text)
        local none, err = session:send(envelope { full, full })
        assert.is_nil(none)
        assert_fields({ kind = "rejected", during = "delivery", code = 452, status = "4.2.2",
          temporary = true }, err)
        none, err = session:send(envelope({ a, b }, "REJECT"))
        assert.is_nil(none)
        assert_fields({ kind = "rejected", during = "delivery", code = 554 }, err)
        none, err = session:send(envelope { "no@example.test", "later@example.test" })
        assert.is_nil(none)
        assert_fields({ kind = "rejected", during = "rcpt", code = 550 }, err)
        none, err = session:send { from = "bad@x.test", to = { a, b }, message = text }
        assert.is_nil(none)
        assert_fields({ kind = "rejected", during = "mail", code = 550 }, err)
        assert.same({ a }, assert(session:send(envelope(a))).accepted)
        assert(session:noop())
        assert.is_true(session:quit())
      end)
      assert.equals(text, taken[#taken].content)
      assert.matches("^LHLO %[127%.0%.0%.1%]\r\n", record.clear)
      assert.is_nil(record.clear:find "EHLO")
    end)

    it(("is told apart for each of many messages, in %s"):format(way), function()
      local messages = { envelope { a, "full@example.test" }, envelope({ a, b }, "REJECT"),
        envelope "no@example.test", envelope { "full@example.test", b, c } }
      serve(extensions, function(session)
        local got = {}
        for number, result, err in session:send_all(messages) do
          got[number] = result and result.accepted or err.code
        end
        assert.same({ { a }, 554, 550, { b, c } }, got)
        assert(session:noop())
      end)
    end)
  end

  it("stops a message that is refused half-way, and knows how many answers come", function()
    local long = (("x"):rep(98) .. "\r\n"):rep(3000)
    local taken = serve(ways.chunks, function(session)
      local none, err = session:send(envelope({ a, b }, "HALFWAY" .. long))
      assert.is_nil(none)
      assert_fields({ kind = "rejected", during = "content", code = 552 }, err)
      assert.same({ a, b }, assert(session:send(envelope({ a, b }, long))).accepted)
      assert(session:noop())
    end)
    assert.equals(long, taken[1].content)
    assert.same({ "BDAT", "RSET", "MAIL" }, { table.unpack(taken.verbs, 4, 6) })
  end)

  it("knows what is unknown when the connection is lost between the answers", function()
    for count, way in pairs { [0] = "chunks", [1] = "chunks", [2] = "text" } do
      local peer <close> = Peer.start(function(p, args)
        p:smtp_upgrade { secure = false, auth = false, after = args.extensions }
        p:expect "^MAIL" p:expect "^RCPT" p:expect "^RCPT" p:expect "^RCPT"
        if args.extensions[2] then
          p:smtp_chunk()
          p:send(("250 OK\r\n"):rep(4))
        else
          p:expect "^DATA"
          p:send(("250 OK\r\n"):rep(4), "354 go on\r\n")
          p:read_to_dot()
        end
        p:send(("250 saved\r\n"):rep(args.count))
      end, { extensions = ways[way], count = count })
      local session <close> = assert(lmtp.connect { host = "127.0.0.1", port = peer.port,
        tls = "none" })
      local result, err = session:send(envelope { a, b, c })
      if count == 0 then
        assert_fields({ kind = "closed", delivery = "unknown" }, err)
      else
        assert.same({ table.unpack({ a, b, c }, 1, count) }, assert(result, err).accepted)
        assert.equals(3 - count, #result.rejected)
        assert_fields({ address = c, temporary = true, delivery = "unknown" },
          result.rejected[3 - count])
      end
      assert.equals("closed", select(2, session:noop()).kind)
    end
  end)

  it("is never spoken on port 25", function()
    assert.error_matches(function() lmtp.connect { host = "127.0.0.1", port = 25 } end, "port 25")
  end)

  it("is on port 24, and wants STARTTLS there, unless told otherwise", function()
    local session, err = lmtp.connect { host = "127.0.0.1", connect_timeout = 2 }
    assert.is_nil(session)
    assert.matches("127%.0%.0%.1:24", err.message)
    local peer <close> = Peer.start(function(p)
      p:send "220 ready\r\n"
      p:expect "^LHLO"
      p:send "250 nothing\r\n"
    end)
    session, err = lmtp.connect { host = "127.0.0.1", port = peer.port }
    assert.is_nil(session)
    assert.equals("downgrade", err.kind)
  end)

  it("has no HELO to fall back to", function()
    local peer <close> = Peer.start(function(p)
      p:send "220 ready\r\n"
      p:expect "^LHLO"
      p:send "500 what?\r\n"
      p:expect_eof()
    end)
    local session, err = lmtp.connect { host = "127.0.0.1", port = peer.port, tls = "none" }
    assert.is_nil(session)
    assert_fields({ kind = "rejected", code = 500 }, err)
    assert.is_true(peer:finish().ok)
  end)
end)

describe("A Unix socket", function()
  it("that is not there is an error that names it", function()
    local path = os.tmpname()
    os.remove(path)
    local session, err = lmtp.connect { path = path }
    assert.is_nil(session)
    assert_fields({ kind = "connect", during = "connect", temporary = true }, err)
    assert.matches(path, err.message, 1, true)
    assert.is_nil(lfs.attributes(path))
  end)

  it("can't have a path that is none, or a port", function()
    for wrong, options in pairs {
      ["exclude each other"] = { path = "/run/x", port = 24 },
      ["'path' is empty"] = { path = "" },
      ["has a NUL"] = { path = "/run/\0" },
      ["path is too long"] = { path = "/" .. ("x"):rep(107) },
      ["'path' must be a string"] = { path = 5 },
      ["'host' is missing"] = {},
    } do
      assert.error_matches(function() lmtp.connect(options) end, wrong)
    end
  end)
end)
