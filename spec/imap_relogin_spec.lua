-- Logging out and in on one connection (RFC 8437), and what becomes of referrals (RFC 2221, RFC
-- 2193). Dovecot has no UNAUTHENTICATE, but lets a session begin without credentials.

local clients = require "spec.support.clients"
local peer_steps = require "spec.support.peer_steps"
local servers = require "spec.support.servers"
local Stage = require "spec.support.stage"

local imap = require "starttls.imap"

local expect, say, silence = peer_steps.expect, peer_steps.say, peer_steps.silence

describe("An IMAP session that logs out and in", function()
  local stage

  setup(function() stage = Stage.open() end)
  teardown(function() stage:close() end)

  local logged_in = peer_steps.logged_in
  local upgraded = { "imap_upgrade", { auth = false, after = { "AUTH=PLAIN", "SASL-IR" } } }

  -- Plays the steps and runs `use(session)`. Returns what use did, and the peer's record.
  local function play(steps, use, given)
    local peer <close> = stage:start(steps)
    local options = stage:options(given or {})
    options.port = peer.port
    local session <close> = assert(imap.connect(options))
    use(session)
    session:close()
    local record = peer:finish()
    assert.is_true(record.ok, record.error)
    return record
  end

  -- Up to a session whose server can unauthenticate.
  local function can_unauthenticate(...)
    return logged_in("imap", expect "CAPABILITY",
      say("* CAPABILITY IMAP4rev1 UNAUTHENTICATE ENABLE CONDSTORE UTF8=ACCEPT\r\n"
        .. "%T OK done\r\n"), ...)
  end

  local plain_bob = "AUTHENTICATE PLAIN AGJvYgBidWlsZGVy\r\n" -- NUL bob NUL builder

  it("goes the way of opening again, with the credentials given", function()
    local lines = {}
    play(can_unauthenticate(
      expect "SELECT", say "* 3 EXISTS\r\n%T OK done\r\n",
      expect "ENABLE", say "* ENABLED CONDSTORE\r\n%T OK done\r\n",
      expect "UNAUTHENTICATE\r\n", say "%T OK done\r\n",
      expect "CAPABILITY", say "* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=X\r\n%T OK done\r\n",
      expect(plain_bob), say "%T OK [CAPABILITY IMAP4rev1 X-BOB] hello\r\n",
      expect "NOOP", say "%T OK done\r\n", silence), function(session)
      assert(session:capability())
      assert(session:select "INBOX")
      assert(session:enable "CONDSTORE")
      assert.equals("PLAIN", session:security().mechanism)
      assert(session:unauthenticate())
      assert.is_nil(session.mailbox)
      assert.same({}, session.enabled)
      assert.is_nil(session:security().mechanism)
      assert.is_true(session:authenticate { user = "bob", password = "builder" })
      assert.equals("PLAIN", session:security().mechanism)
      assert.is_true(session:has "X-BOB")
      assert.is_false(session:has "UNAUTHENTICATE")
      assert(session:noop())
    end, { trace = function(event) lines[#lines + 1] = event.text end })
    assert.is_nil(table.concat(lines, "\n"):find "AGJvYgB")
  end)

  it("asks a function for the password, and takes another mechanism", function()
    play(can_unauthenticate(
      expect "UNAUTHENTICATE\r\n", say "%T OK done\r\n",
      expect "CAPABILITY",
      say "* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=XOAUTH2\r\n%T OK done\r\n",
      expect "AUTHENTICATE XOAUTH2 [%w+/=]+\r\n", say "%T OK done\r\n",
      expect "CAPABILITY", say "* CAPABILITY IMAP4rev1\r\n%T OK done\r\n", silence),
      function(session)
        assert(session:capability())
        assert(session:unauthenticate())
        assert(session:authenticate { user = "bob", token = function() return "abc" end,
          sasl = "XOAUTH2" })
        assert.equals("XOAUTH2", session:security().mechanism)
      end)
  end)

  it("writes mailbox names as if nothing had been enabled", function()
    play(can_unauthenticate(
      expect "ENABLE UTF8=ACCEPT", say "* ENABLED UTF8=ACCEPT\r\n%T OK done\r\n",
      expect 'SUBSCRIBE "\u{fc}"\r\n', say "%T OK done\r\n",
      expect "UNAUTHENTICATE\r\n", say "%T OK done\r\n",
      expect "CAPABILITY", say "* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\r\n%T OK done\r\n",
      expect(plain_bob), say "%T OK [CAPABILITY IMAP4rev1] hello\r\n",
      expect 'SUBSCRIBE "&APw%-"\r\n', say "%T OK done\r\n", silence), function(session)
      assert(session:capability())
      assert(session:enable "UTF8=ACCEPT")
      assert(session:subscribe "\u{fc}")
      assert(session:unauthenticate())
      assert(session:authenticate { user = "bob", password = "builder" })
      assert(session:subscribe "\u{fc}")
    end)
  end)

  it("asks for what an eager session was told beforehand", function()
    play({ { "imap_upgrade", { after = { "AUTH=PLAIN" } } },
      expect "UNAUTHENTICATE\r\n", say "%T OK done\r\n",
      expect "CAPABILITY", say "* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\r\n%T OK done\r\n",
      expect(plain_bob), say "%T OK hello\r\n",
      expect "CAPABILITY", say "* CAPABILITY IMAP4rev1 X-BOB\r\n%T OK done\r\n", silence },
      function(session)
        assert(session:unauthenticate())
        assert(session:authenticate { user = "bob", password = "builder" })
        assert.is_true(session:has "X-BOB")
      end, { eager = { "SASL-IR", "AUTH=PLAIN", "UNAUTHENTICATE" } })
  end)

  it("logs in on a session that was opened without credentials", function()
    play({ upgraded, expect "CAPABILITY",
      say "* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\r\n%T OK done\r\n",
      expect(plain_bob), say "%T OK [CAPABILITY IMAP4rev1] done\r\n", silence }, function(session)
      assert(session:authenticate { user = "bob", password = "builder" })
    end, { user = false, password = false })
  end)

  it("is refused while it is logged in, and nothing is sent", function()
    play(logged_in("imap", expect "NOOP", say "%T OK done\r\n", silence), function(session)
      local done, err = session:authenticate { user = "bob", password = "builder" }
      assert.is_nil(done)
      assert.same({ "rejected", "auth" }, { err.kind, err.during })
      assert(session:noop())
    end)
  end)

  it("is not logged out when the server refuses", function()
    play(can_unauthenticate(
      expect "SELECT", say "* 3 EXISTS\r\n%T OK done\r\n",
      expect "UNAUTHENTICATE\r\n", say "%T NO no\r\n", silence), function(session)
      assert(session:capability())
      assert(session:select "INBOX")
      local reply, err = session:unauthenticate()
      assert.is_nil(reply)
      assert.same({ "rejected", "unauthenticate" }, { err.kind, err.during })
      assert.equals("INBOX", session.mailbox.name)
      assert.equals("PLAIN", session:security().mechanism)
    end)
  end)

  it("is closed when it is not let in again, and nothing weaker is tried", function()
    play({ upgraded, expect "CAPABILITY",
      say "* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=LOGIN\r\n%T OK done\r\n",
      expect(plain_bob), say "%T NO [AUTHENTICATIONFAILED] no\r\n", silence }, function(session)
      local done, err = session:authenticate { user = "bob", password = "builder" }
      assert.is_nil(done)
      assert.same({ "auth", "AUTHENTICATIONFAILED" }, { err.kind, err.status })
      done, err = session:noop()
      assert.is_nil(done)
      assert.equals("auth", err.kind)
    end, { user = false, password = false })
  end)

  it("sends no credential on a channel that is not encrypted", function()
    local peer <close> = stage:start { { "imap_upgrade", { before = { "SASL-IR", "AUTH=PLAIN" },
      after = { "SASL-IR", "AUTH=PLAIN" }, secure = false, auth = false } },
      expect "CAPABILITY", say "* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\r\n%T OK done\r\n",
      silence }
    local session <close> = assert(imap.connect { host = "127.0.0.1", port = peer.port,
      tls = "opportunistic", ca_file = stage.ca.cert })
    local done, err = session:authenticate { user = "bob", password = "builder" }
    assert.is_nil(done)
    assert.same({ "downgrade", "auth" }, { err.kind, err.during })
    local record = peer:finish()
    assert.is_nil(record.clear:find "AUTHENTICATE")
  end)

  it("does not log in anew while it is compressed", function()
    play(logged_in("imap", expect "CAPABILITY",
      say "* CAPABILITY IMAP4rev1 UNAUTHENTICATE COMPRESS=DEFLATE\r\n%T OK done\r\n",
      expect "COMPRESS DEFLATE", say "%T OK done\r\n", silence), function(session)
      assert(session:capability())
      assert(session:compress())
      local reply, err = session:unauthenticate()
      assert.is_nil(reply)
      assert.equals("unsupported", err.kind)
      assert.is_truthy(err.message:find "compressed")
    end)
  end)

  -- Referrals (RFC 2221, RFC 2193): reported, and connected to nowhere.
  it("reports a referral that comes with a refusal", function()
    local elsewhere <close> = stage:start { silence }
    local url = ("imap://user;AUTH=*@127.0.0.1:%d/"):format(elsewhere.port)
    local peer <close> = stage:start { upgraded, expect "AUTHENTICATE",
      say(("%%T NO [REFERRAL %s] Try there.\r\n"):format(url)), silence }
    local session, err = imap.connect(stage:options { port = peer.port })
    assert.is_nil(session)
    assert.same({ "auth", "REFERRAL", "Try there." }, { err.kind, err.status, err.text })
    assert.is_truthy(err.hint:find(url, 1, true))
    assert.equals(0, elsewhere:finish().connections)
  end)

  it("reports a referral that comes with a welcome, or later", function()
    local elsewhere <close> = stage:start { silence }
    local url = ("imap://bob@127.0.0.1:%d/"):format(elsewhere.port)
    local heard = {}
    play({ upgraded, expect "AUTHENTICATE", say(("%%T OK [REFERRAL %s] hello\r\n"):format(url)),
      expect "CAPABILITY", say "* CAPABILITY IMAP4rev1\r\n%T OK done\r\n",
      expect "SELECT", say(("%%T NO [REFERRAL %sx] there\r\n"):format(url)), silence },
      function(session)
        local selected, err = session:select "x"
        assert.is_nil(selected)
        assert.same({ "REFERRAL", url .. "x" }, { err.status, err.reply.referral })
      end, { on = { referral = function(where) heard[#heard + 1] = where end } })
    assert.same({ url, url .. "x" }, heard)
    assert.equals(0, elsewhere:finish().connections)
  end)

  it("drops a referral that is said in the clear", function()
    local heard = {}
    play({ { "imap_upgrade", { greeting = "* OK [REFERRAL imap://evil.test/] hi\r\n",
      after = { "AUTH=PLAIN", "SASL-IR" } } }, expect "CAPABILITY",
      say "* CAPABILITY IMAP4rev1\r\n%T OK done\r\n", silence }, function() end,
      { on = { referral = function(where) heard[#heard + 1] = where end } })
    assert.same({}, heard)
  end)

  it("logs in at Dovecot on a session that was opened without credentials", function()
    local mail = servers.shared()
    local open <close> = assert(clients.connect(mail, "imap", { user = false, password = false }))
    assert.is_true(open:authenticate { user = "bob", password = mail.users.bob.password })
    assert(open:select "INBOX")
    assert.is_truthy(open:security().mechanism:find "^SCRAM")
  end)
end)
