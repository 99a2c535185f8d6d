-- eager = { ... }: capabilities that the caller knows save round trips, and nothing else.

local peer_steps = require "spec.support.peer_steps"
local Stage = require "spec.support.stage"

local say, expect, silence = peer_steps.say, peer_steps.expect, peer_steps.silence
local tls = { "starttls", {} }

local imap_known, pop3_known = { "AUTH=PLAIN", "SASL-IR" }, { "SASL PLAIN" }

-- What each protocol says, with the greeting held back until the client has spoken.
local ways = {
  { "imap", "starttls", imap_known,
    { expect "^A1 STARTTLS\r\n", say "* OK hello\r\nA1 OK go\r\n", tls,
      expect "^A1 AUTHENTICATE PLAIN %S+\r\n", say "A1 OK done\r\n" } },
  { "imap", "implicit", imap_known,
    { tls, expect "^A1 AUTHENTICATE PLAIN %S+\r\n", say "* OK hello\r\nA1 OK done\r\n" } },
  { "pop3", "starttls", pop3_known,
    { expect "^STLS\r\n", say "+OK hello\r\n+OK go\r\n", tls,
      expect "^AUTH PLAIN %S+\r\n", say "+OK done\r\n" } },
  { "pop3", "implicit", pop3_known,
    { tls, expect "^AUTH PLAIN %S+\r\n", say "+OK hello\r\n+OK done\r\n" } },
}

-- Answers that must end the session: protocol, way, capabilities, steps, kind of the error.
local refused = {
  { "the greeting is a refusal", "imap", "starttls", imap_known,
    { expect "STARTTLS", say "* BYE no\r\n" }, "rejected" },
  { "the greeting is a refusal, inside of TLS", "imap", "implicit", imap_known,
    { tls, expect "AUTHENTICATE", say "* BYE no\r\n" }, "rejected" },
  { "the greeting is a refusal", "pop3", "starttls", pop3_known,
    { expect "STLS", say "-ERR no\r\n" }, "rejected" },
  { "the greeting is a refusal, inside of TLS", "pop3", "implicit", pop3_known,
    { tls, expect "AUTH", say "-ERR no\r\n" }, "rejected" },
  { "the greeting says PREAUTH", "imap", "starttls", imap_known,
    { expect "STARTTLS", say "* PREAUTH hello\r\n" }, "downgrade" },
  { "the upgrade is refused", "imap", "starttls", imap_known,
    { expect "STARTTLS", say "* OK hello\r\nA1 NO not here\r\n" }, "downgrade" },
  { "the upgrade is refused", "pop3", "starttls", pop3_known,
    { expect "STLS", say "+OK hello\r\n-ERR not here\r\n" }, "downgrade" },
  { "something follows the answer to the upgrade", "imap", "starttls", imap_known,
    { expect "STARTTLS", say "* OK hello\r\nA1 OK go\r\nA1 OK done\r\n" }, "injection" },
  { "something follows the answer to the upgrade", "pop3", "starttls", pop3_known,
    { expect "STLS", say "+OK hello\r\n+OK go\r\n+OK done\r\n" }, "injection" },
  { "authentication is refused", "imap", "implicit", imap_known,
    { tls, expect "AUTHENTICATE", say "* OK hello\r\nA1 NO [AUTHENTICATIONFAILED] no\r\n" },
    "auth" },
  { "authentication is refused", "pop3", "implicit", pop3_known,
    { tls, expect "AUTH", say "+OK hello\r\n-ERR [AUTH] no\r\n" }, "auth" },
  { "nothing known fits", "imap", "starttls", { "AUTH=XOAUTH2", "LOGINDISABLED" },
    { expect "STARTTLS", say "* OK hello\r\nA1 OK go\r\n", tls, silence }, "auth" },
}

local misuses = {
  { { eager = {} }, "names no capability" },
  { { eager = { "AUTH=PLAIN\r\nX" } }, "as the server lists them" },
  { { eager = { 1 } }, "as the server lists them" },
  { { eager = "AUTH=PLAIN" }, "must be a table" },
  { { eager = imap_known, tls = "opportunistic" }, "needs tls" },
  { { eager = imap_known, user = false, password = false }, "needs credentials" },
}

describe("a session whose server's capabilities are known", function()
  local stage

  setup(function() stage = Stage.open() end)
  teardown(function() stage:close() end)

  local function connect(protocol, way, known, port)
    return require("starttls." .. protocol).connect(stage:options {
      port = port, tls = way, eager = known,
    })
  end

  for _, way in ipairs(ways) do
    local protocol, how, known, steps = table.unpack(way)
    it(("waits for nothing that is known: %s, %s"):format(protocol, how), function()
      local goodbye = protocol == "imap" and "%T OK done\r\n" or "+OK done\r\n"
      local all = table.move(steps, 1, #steps, 1, {})
      for _, step in ipairs { expect "NOOP", say(goodbye) } do all[#all + 1] = step end
      for _, slow in ipairs { false, true } do
        local peer <close> = stage:start(all, slow)
        local session <close> = assert(connect(protocol, how, known, peer.port))
        assert.equal("PLAIN", session:security().mechanism)
        assert(session:noop())
        local record = peer:finish()
        assert.is_true(record.ok, record.error)
      end
    end)
  end

  for _, case in ipairs(refused) do
    local what, protocol, how, known, steps, kind = table.unpack(case)
    it(("ends when %s: %s, %s"):format(what, protocol, how), function()
      local peer <close> = stage:start(steps)
      local session, err = connect(protocol, how, known, peer.port)
      assert.is_nil(session)
      assert.equal(kind, err.kind, err.message)
    end)
  end

  for _, case in ipairs(misuses) do
    it("is refused when the option " .. case[2], function()
      local options = stage:options { port = 1 }
      for name, value in pairs(case[1]) do options[name] = value or nil end
      local ok, err = pcall(require("starttls.imap").connect, options)
      assert.is_false(ok)
      assert.matches(case[2], err, 1, true)
    end)
  end

  it("is none with SMTP, whose servers must be listened to first", function()
    assert.has_error(function()
      require("starttls.smtp").connect(stage:options { eager = { "AUTH PLAIN" } })
    end, "starttls: unknown option 'eager'")
  end)
end)
