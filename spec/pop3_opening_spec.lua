-- POP3 before the session is open: capabilities anew at each stage, APOP, UTF-8 mode; and what
-- the server says it can do, as fields.

local Peer = require "spec.support.peer"
local certificates = require "spec.support.certificates"
local peer_steps = require "spec.support.peer_steps"
local process = require "spec.support.process"

local pop3 = require "starttls.pop3"

local stamp = "<1896.697170952@dbc.mtview.ca.us>"

describe("opening a POP3 session", function()
  local directory, cert

  setup(function()
    directory = process.temporary_directory()
    local ca = certificates.ca(directory.path)
    cert = ca:issue { name = "server", dns = { "localhost" }, ip = { "127.0.0.1" } }
    cert.ca_file = ca.cert
  end)

  teardown(function() directory:close() end)

  -- What connect() returns, and the record of a peer that plays these steps.
  local function attempt(steps, options)
    local peer <close> = peer_steps.start(steps, { cert = cert.cert, key = cert.key })
    local given = { host = "127.0.0.1", port = peer.port, ca_file = cert.ca_file,
      user = "mrose", password = "tanstaaf", tls = "implicit" }
    for name, value in pairs(options or {}) do given[name] = value or nil end
    local session, err = pop3.connect(given)
    if session then
      err = session:security().mechanism
      session:close()
    end
    return session, err, peer:finish()
  end

  local function greeted(greeting, ...)
    return { { "starttls", {} }, { "send", greeting .. "\r\n" }, { "expect", "^CAPA\r\n" },
      { "send", "+OK\r\nUSER\r\nSASL PLAIN\r\n.\r\n" }, ... }
  end

  describe("with APOP", function()
    local apop = { sasl = "APOP" }

    -- The password, and its digest where RFC 1939 7 gives it; else OpenSSL says what it is.
    for _, case in ipairs {
      { "tanstaaf", "c4c9334bac560ecc979e58001b3e22fb" },
      -- with the timestamp at the edges of MD5's blocks
      { ("x"):rep(22) }, { ("x"):rep(23) }, { ("x"):rep(30) }, { ("x"):rep(31) },
      { ("x"):rep(200) },
    } do
      it(("sends the digest of a password of %d octets"):format(#case[1]), function()
        local pipe = assert(io.popen(("printf %%s '%s' | openssl md5 -r"):format(stamp .. case[1])))
        local digest = pipe:read(32)
        pipe:close()
        if case[2] then assert.equals(case[2], digest) end
        local session, mechanism = attempt(greeted("+OK POP3 ready " .. stamp,
          { "expect", "^APOP mrose " .. digest .. "\r\n" }, { "send", "+OK maildrop\r\n" }),
          { sasl = "APOP", password = case[1] })
        assert.is_truthy(session, mechanism)
        assert.equals("APOP", mechanism)
      end)
    end

    it("never unless it is named, whatever the greeting has", function()
      local session, mechanism = attempt(greeted("+OK " .. stamp, { "expect", "^AUTH PLAIN" },
        { "send", "+OK\r\n" }))
      assert.is_truthy(session, mechanism)
      assert.equals("PLAIN", mechanism)
    end)

    for _, greeting in ipairs {
      "+OK", "+OK ready", "+OK <>", "+OK <a>", "+OK <@>", "+OK <a@>", "+OK <@b>", "+OK <a@b",
      "+OK <a@b@c>", "+OK <a b@c>", "+OK <a@b\1>", "+OK <\200\201@b>", "+OK <a@b\127>", "+OK a@b>",
      "+OK <a@[1.2.3.4]>", "+OK <a>@b>", "+OK <a\\@b>", "+OK <<a@b>",
    } do
      it(("not for a greeting without a msg-id: %q"):format(greeting), function()
        local session, err, record = attempt(greeted(greeting, { "wait_for_close" }), apop)
        assert.is_nil(session)
        assert.equals("auth", err.kind, err)
        assert.matches("APOP", tostring(err))
        assert.equals("CAPA\r\n", record.encrypted)
      end)
    end

    it("and nothing weaker behind a refusal", function()
      local session, err, record = attempt(greeted("+OK " .. stamp, { "expect", "^APOP " },
        { "send", "-ERR [AUTH] no\r\n" }, { "wait_for_close" }), { sasl = { "APOP", "USER" } })
      assert.is_nil(session)
      assert.equals("auth", err.kind)
      assert.equals("AUTH", err.status)
      assert.matches("APOP", err.message)
      assert.is_nil(record.encrypted:find "USER")
    end)

    it("or USER, as the caller allows and the greeting has it", function()
      local session, mechanism = attempt(greeted("+OK", { "expect", "^USER " },
        { "send", "+OK\r\n" }, { "expect", "^PASS " },
        { "send", "+OK\r\n" }), { sasl = { "APOP", "USER" } })
      assert.is_truthy(session, mechanism)
      assert.equals("USER", mechanism)
    end)

    it("not where the greeting, and so what it digests, comes in the clear", function()
      for _, tls in ipairs { "starttls", "opportunistic" } do
        assert.error_matches(function()
          pop3.connect { host = "127.0.0.1", tls = tls, sasl = "APOP", user = "a", password = "b" }
        end, 'needs tls = "implicit"', 1, true)
      end
      assert.error_matches(function()
        pop3.connect { host = "127.0.0.1", tls = "none", sasl = "APOP", user = "a", password = "b" }
      end, "insecure_auth")
      for _, protocol in ipairs { "smtp", "imap" } do
        assert.error_matches(function()
          require("starttls." .. protocol).connect { host = "127.0.0.1", tls = "implicit",
            sasl = "APOP", user = "a", password = "b" }
        end, "POP3 alone")
      end
    end)

    it("not on a channel that is not verified, unless that is accepted", function()
      local steps = greeted("+OK " .. stamp, { "wait_for_close" })
      assert.error_matches(function()
        attempt(steps, { sasl = "APOP", insecure_no_verify = true })
      end, "not verified")
      local session, mechanism = attempt(greeted("+OK " .. stamp, { "expect", "^APOP " },
        { "send", "+OK\r\n" }), { sasl = "APOP", insecure_no_verify = true, insecure_auth = true })
      assert.is_truthy(session, mechanism)
    end)

    it("without the digest in the trace", function()
      local lines = {}
      attempt(greeted("+OK " .. stamp, { "expect", "^APOP " }, { "send", "+OK\r\n" }),
        { sasl = "APOP", trace = function(event) lines[#lines + 1] = event.text end })
      assert.matches("APOP mrose <secret>", table.concat(lines, "\n"), 1, true)
      assert.is_nil(table.concat(lines):find("c4c9334b", 1, true))
    end)
  end)

  describe("in UTF-8 mode", function()
    local function offered(capability, ...)
      return { { "starttls", {} }, { "send", "+OK\r\n" }, { "expect", "^CAPA\r\n" },
        { "send", "+OK\r\nSASL PLAIN\r\n" .. capability .. "\r\n.\r\n" }, ... }
    end

    it("says so before it authenticates", function()
      local session, mechanism = attempt(offered("UTF8 USER", { "expect", "^UTF8\r\n" },
        { "send", "+OK UTF8 enabled\r\n" }, { "expect", "^AUTH PLAIN" }, { "send", "+OK\r\n" }),
        { utf8 = true })
      assert.is_truthy(session, mechanism)
    end)

    it("behind STLS, and not before it", function()
      local session, err = attempt({ { "send", "+OK\r\n" }, { "expect", "^STLS\r\n" },
        { "send", "+OK\r\n" }, { "starttls", {} }, { "expect", "^CAPA\r\n" },
        { "send", "+OK\r\nUTF8\r\n.\r\n" }, { "expect", "^UTF8\r\n" }, { "send", "+OK\r\n" } },
        { utf8 = true, tls = "starttls", user = false, password = false })
      assert.is_truthy(session, err)
    end)

    it("not without being asked for", function()
      local session, err = attempt(offered("UTF8", { "expect", "^AUTH PLAIN" },
        { "send", "+OK\r\n" }), { utf8 = false })
      assert.is_truthy(session, err)
    end)

    for _, case in ipairs {
      { "UTF8X", { { "wait_for_close" } }, "unsupported" },
      { "UTF8", { { "expect", "^UTF8\r\n" }, { "send", "-ERR [SYS/TEMP] no\r\n" },
        { "wait_for_close" } }, "rejected" },
    } do
      it("or not at all: " .. case[3], function()
        local session, err, record = attempt(offered(case[1], table.unpack(case[2])),
          { utf8 = true })
        assert.is_nil(session)
        assert.equals(case[3], err.kind)
        assert.equals("utf8", err.during)
        assert.is_nil(record.encrypted:find "AUTH")
      end)
    end
  end)

  it("asks for the capabilities again behind STLS, and forgets those of before", function()
    local peer <close> = peer_steps.start({
      { "pop3_upgrade", { before = { "STLS", "PIPELINING", "EXPIRE 0" },
        after = { "SASL PLAIN" } } },
    }, { cert = cert.cert, key = cert.key })
    local session <close> = assert(pop3.connect { host = "127.0.0.1", port = peer.port,
      ca_file = cert.ca_file, user = "mrose", password = "tanstaaf" })
    assert.is_false(session:has "PIPELINING")
    assert.is_false(session:has "EXPIRE")
    session:close()
    assert.equals("STLS\r\n", peer:finish().clear)
  end)
end)

describe("a POP3 server's capabilities", function()
  local function features_of(lines)
    local peer <close> = Peer.start(function(p, args)
      p:pop3_upgrade { secure = false, auth = false }
      p:expect "^CAPA\r\n"
      p:send(args.answer)
    end, { answer = lines and "+OK\r\n" .. table.concat(lines, "\r\n") .. "\r\n.\r\n"
      or "-ERR what?\r\n" })
    local session <close> = assert(pop3.connect { host = "127.0.0.1", port = peer.port,
      tls = "none" })
    local features = assert(session:features())
    if lines then assert.same(features, session:features()) end -- without asking again
    return features, session:has "UIDL"
  end

  it("become fields, as they are after authentication", function()
    local features, uidl = features_of { "TOP", "uidl", "USER", "PIPELINING", "STLS", "LANG",
      "RESP-CODES", "AUTH-RESP-CODE", "SASL plain  SCRAM-SHA-256", "EXPIRE 60 USER",
      "LOGIN-DELAY 900", "IMPLEMENTATION Shlemazle-Plotz v302", "UTF8 USER", "X-OWN thing" }
    assert.same({ top = true, uidl = true, user = true, pipelining = true, stls = true, lang = true,
      resp_codes = true, auth_resp_code = true, sasl = { "PLAIN", "SCRAM-SHA-256" },
      expire = { days = 60, per_user = true }, login_delay = { seconds = 900 },
      implementation = "Shlemazle-Plotz v302", utf8 = { user = true }, others = { "X-OWN" },
    }, features)
    assert.is_true(uidl)
  end)

  for _, case in ipairs {
    { { "EXPIRE NEVER" }, "expire", { never = true } },
    { { "EXPIRE 0" }, "expire", { days = 0 } },
    { { "EXPIRE" }, "expire", true }, { { "EXPIRE soon" }, "expire", true },
    { { "LOGIN-DELAY 60 USER" }, "login_delay", { seconds = 60, per_user = true } },
    { { "UTF8" }, "utf8", { user = false } }, { { "SASL" }, "sasl", {} },
    { { "IMPLEMENTATION" }, "implementation", "" }, { { "" }, "others", {} },
  } do
    it(("mean what RFC 2449 says: %q"):format(case[1][1]), function()
      assert.same(case[3], features_of(case[1])[case[2]])
    end)
  end

  it("are none where the server has no CAPA", function()
    assert.same({ others = {} }, features_of(nil))
  end)
end)

describe("a POP3 server's language", function()
  local function speak(capabilities, steps, use)
    local all = { { "pop3_upgrade", { secure = false, auth = false, after = capabilities } } }
    local peer <close> = peer_steps.start(table.move(steps, 1, #steps, 2, all), {})
    local session <close> = assert(pop3.connect { host = "127.0.0.1", port = peer.port,
      tls = "none" })
    use(session)
    session:close()
    local record = peer:finish()
    assert.is_true(record.ok, record.error)
  end

  it("is one of those that it lists", function()
    speak({ "LANG" }, { { "expect", "^LANG\r\n" },
      { "send", "+OK\r\nen English\r\nfr Fran\xc3\xa7ais\r\ni-default\r\n.\r\n" },
      { "expect", "^LANG fr\r\n" }, { "send", "+OK fr\r\n" },
      { "expect", "^LANG %*\r\n" }, { "send", "+OK i-default\r\n" },
      { "expect", "^LANG uga\r\n" }, { "send", "-ERR no\r\n" } }, function(session)
      assert.same({ { tag = "en", name = "English" }, { tag = "fr", name = "Fran\xc3\xa7ais" },
        { tag = "i-default", name = "" } }, session:lang())
      assert.equals("positive", session:lang("fr").class)
      assert(session:lang "*")
      local reply, err = session:lang "uga"
      assert.is_nil(reply)
      assert.equals("rejected", err.kind)
    end)
  end)

  it("can't be chosen where it lists no LANG, or by what is no tag", function()
    speak({ "UIDL" }, {}, function(session)
      local reply, err = session:lang "fr"
      assert.is_nil(reply)
      assert.equals("unsupported", err.kind)
      assert.matches("LANG", err.message)
      for _, tag in ipairs { "", "f r", "fr\r\nDELE 1", 5, "-" } do
        assert.error_matches(function() session:lang(tag) end, "tag")
      end
    end)
  end)
end)
