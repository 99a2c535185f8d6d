-- The upgrade path, against peers that break it in every way: STARTTLS (POP3: STLS)
-- stripped, refused, answered and not done, cut, injected into; and what is said in the
-- clear, which has to be gone after the upgrade.

local mime = require "mime"
local errors = require "starttls.error"
local patience = require "spec.support.patience"
local peer_steps = require "spec.support.peer_steps"
local Stage = require "spec.support.stage"

local user, password = "u-alice-7f3a", "pw-9c1e-sesame"

-- What the peers say in each protocol, up to the answer to the upgrade command.
-- "%T" and "%N" are tags, see peer_steps.lua.
local protocols = {
  smtp = {
    verb = "STARTTLS", greeting = "220 mail.example.test ESMTP\r\n",
    ask = "^EHLO [^\r\n]+\r\n$",
    offer = "250-mail.example.test\r\n250-SIZE 1000\r\n250 STARTTLS\r\n",
    bare = "250-mail.example.test\r\n250 SIZE 1000\r\n",
    command = "^STARTTLS\r\n$", ok = "220 2.0.0 go ahead\r\n",
    injected = { "250 injected\r\n", "250-mail.example.test\r\n250 AUTH PLAIN\r\n", "\n", "2" },
  },
  imap = {
    verb = "STARTTLS", greeting = "* OK IMAP4rev1 ready\r\n",
    ask = "^%S+ CAPABILITY\r\n$", offer = "* CAPABILITY IMAP4rev1 STARTTLS\r\n%T OK done\r\n",
    bare = "* CAPABILITY IMAP4rev1\r\n%T OK done\r\n",
    command = "^%S+ STARTTLS\r\n$", ok = "%T OK begin TLS\r\n",
    injected = { "* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n",
      "* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n%N OK done\r\n",
      "* OK [ALERT] injected\r\n", "* 99 EXISTS\r\n", "\n", "*" },
  },
  pop3 = {
    verb = "STLS", greeting = "+OK POP3 ready\r\n",
    command = "^STLS\r\n$", ok = "+OK begin TLS\r\n",
    injected = { "+OK injected\r\n", "+OK\r\nSASL PLAIN\r\n.\r\n", "\n", "+" },
  },
}

-- Steps of a peer.
local say, expect = peer_steps.say, peer_steps.expect
local function handshake(options) return { "try_starttls", options or {} } end
local until_close, end_of_stream = peer_steps.silence, { "expect_eof" }

-- The steps up to the upgrade command, and then those given.
local function from_command(protocol, ...)
  local steps = { say(protocol.greeting) }
  if protocol.ask then
    steps[#steps + 1] = expect(protocol.ask)
    steps[#steps + 1] = say(protocol.offer)
  end
  steps[#steps + 1] = expect(protocol.command)
  for _, step in ipairs { ... } do steps[#steps + 1] = step end
  return steps
end

-- The steps up to the request for capabilities, and then those given.
local function from_capabilities(protocol, ...)
  return { say(protocol.greeting), expect(protocol.ask), ... }
end

-- The forms in which a secret could be on the wire: as it is, in hexadecimal digits,
-- and in base64 at each of the three offsets.
local function forms(secret)
  local list = { secret, (secret:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) }
  for offset = 0, 2 do
    local text = mime.b64(("\0"):rep(offset) .. secret)
    list[#list + 1] = text:sub(offset == 0 and 1 or 5, #text - 4)
  end
  return list
end

-- All that may be said in the clear before the upgrade.
local clear_commands = {
  "^EHLO %[127%.0%.0%.1%]$", "^HELO %[127%.0%.0%.1%]$", "^STARTTLS$", "^STLS$", "^CAPA$",
  "^%u%d+ CAPABILITY$", "^%u%d+ STARTTLS$",
}

local function is_clear_command(line)
  for _, pattern in ipairs(clear_commands) do
    if line:find(pattern) then return true end
  end
  return false
end

local function assert_nothing_leaked(record)
  local heard = record.clear .. record.raw
  for _, secret in ipairs { user, password } do
    for _, form in ipairs(forms(secret)) do
      assert.is_nil(heard:lower():find(form:lower(), 1, true), "in the clear: " .. form)
    end
  end
  for line in record.clear:gsub("\22\3.*$", ""):gmatch "[^\n]+" do -- up to a ClientHello
    assert.is_true(is_clear_command((line:gsub("\r$", ""))), "in the clear: " .. line)
  end
end

describe("the upgrade", function()
  local stage

  setup(function() stage = Stage.open() end)
  teardown(function() stage:close() end)

  -- Connects to a peer that plays the steps. Returns the session or nil, the error, and
  -- the peer, whose record is complete once the session is closed.
  local function connect(name, steps, given, settings)
    local peer = stage:start(steps, settings and settings.slow)
    local options = stage:options {
      port = peer.port, user = user, password = password, connect_timeout = patience.seconds(10),
    }
    for key, value in pairs(given or {}) do options[key] = value or nil end
    local session, err = require("starttls." .. name).connect(options)
    return session, err, peer
  end

  -- Connects, and expects an error: kind, during, and fields as given in `expected`.
  local function fails(name, steps, expected, given, settings)
    local session, err, peer <close> = connect(name, steps, given, settings)
    if session then session:close() end
    local record = peer:finish()
    assert.is_nil(session, "a session was handed out")
    assert.is_true(errors.is(err))
    assert.are.equal(expected.kind, err.kind, tostring(err))
    assert.are.equal(expected.during, err.during, tostring(err))
    for _, field in ipairs { "code", "status", "text", "temporary" } do
      if expected[field] ~= nil then assert.are.equal(expected[field], err[field], field) end
    end
    if expected.says then assert.matches(expected.says, tostring(err)) end
    assert.is_nil(tostring(err):find(password, 1, true))
    assert_nothing_leaked(record)
    assert.are.equal(0, record.handshakes)
    return err, record
  end

  -- Connects, and expects a session.
  local function succeeds(name, steps, given, settings)
    local session, err, peer = connect(name, steps, given, settings)
    if not session then
      local record = peer:finish()
      error(("%s; the peer: %s"):format(err, record.error), 0)
    end
    return session, peer
  end

  -- {====== Stripped ======

  describe("is an error of kind downgrade when it is not offered:", function()
    local lists = {
      smtp = {
        ["no STARTTLS"] = protocols.smtp.bare,
        ["no extensions at all"] = "250 mail.example.test\r\n",
        ["STARTTLSX"] = "250-mail.example.test\r\n250 STARTTLSX\r\n",
        ["XSTARTTLS"] = "250-mail.example.test\r\n250 XSTARTTLS\r\n",
        ["STARTTLS=1"] = "250-mail.example.test\r\n250 STARTTLS=1\r\n",
        ["the value of another word"] = "250-mail.example.test\r\n250 SIZE STARTTLS\r\n",
        ["the name of the server"] = "250-STARTTLS\r\n250 SIZE 1000\r\n",
        ["a refusal of EHLO with 502"] = "502 5.5.1 not implemented\r\n",
        ["a refusal of EHLO with 550"] = "550 STARTTLS\r\n",
        ["a refusal of EHLO with 451"] = "451 4.3.0 later\r\n",
      },
      imap = {
        ["no STARTTLS"] = protocols.imap.bare,
        ["no capabilities at all"] = "%T OK done\r\n",
        ["STARTTLSX"] = "* CAPABILITY IMAP4rev1 STARTTLSX\r\n%T OK done\r\n",
        ["XSTARTTLS"] = "* CAPABILITY IMAP4rev1 XSTARTTLS\r\n%T OK done\r\n",
        ["AUTH=STARTTLS"] = "* CAPABILITY IMAP4rev1 AUTH=STARTTLS\r\n%T OK done\r\n",
        ["STARTTLS=1"] = "* CAPABILITY IMAP4rev1 STARTTLS=1\r\n%T OK done\r\n",
        ["the text of the answer"] = "* CAPABILITY IMAP4rev1\r\n%T OK STARTTLS\r\n",
        ["another code"] = "* CAPABILITY IMAP4rev1\r\n* OK [XINFO STARTTLS] hi\r\n%T OK done\r\n",
        ["a refusal of CAPABILITY with NO"] = "%T NO STARTTLS\r\n",
        ["a refusal of CAPABILITY with BAD"] = "%T BAD STARTTLS\r\n",
      },
    }
    for name, answers in pairs(lists) do
      for what, answer in pairs(answers) do
        it(("%s, %s"):format(name, what), function()
          local steps = from_capabilities(protocols[name], say(answer), end_of_stream)
          local err, record = fails(name, steps, {
            kind = "downgrade", during = what:find "refusal" and "capabilities" or "starttls",
            says = "does not .*offer.* STARTTLS, and encryption is required",
            temporary = what:find "451" ~= nil,
          })
          assert.matches('tls = "implicit"', err.hint)
          assert.is_nil(record.error) -- we hung up, and said nothing more
        end)
      end
    end

    it("imap, capabilities in the greeting without it", function()
      fails("imap", { say("* OK [CAPABILITY IMAP4rev1 XSTARTTLS] STARTTLS\r\n"),
        expect(protocols.imap.ask), say(protocols.imap.bare), end_of_stream },
        { kind = "downgrade", during = "starttls" })
    end)
  end)

  it("is done when it is offered in small letters", function()
    local session <close>, peer = succeeds("smtp",
      { { "smtp_upgrade", { before = { "starttls" } } }, until_close })
    assert.is_true(session:security().encrypted)
    session:close()
    assert.are.equal(1, peer:finish().handshakes)
  end)

  -- }======

  -- {====== Refused ======

  describe("ends the session when it is refused:", function()
    local refusals = {
      smtp = {
        { "454 4.7.0 TLS not available\r\n", "downgrade", code = 454, status = "4.7.0",
          temporary = true },
        { "501 5.5.4 no parameters\r\n", "downgrade", code = 501, temporary = false },
        { "502 5.5.1 not implemented\r\n", "downgrade", code = 502, temporary = false },
        { "503 5.5.1 not now\r\n", "downgrade", code = 503, temporary = false },
        { "554-5.7.0 no\r\n554 5.7.0 never\r\n", "downgrade", code = 554, text = "no never" },
        { "421 4.3.2 shutting down\r\n", "closed", code = 421, temporary = true },
        { "220 go\r\n220 go\r\n", "injection", temporary = false },
        { "334 \r\n", "protocol", code = 334 },
        { "354 go ahead\r\n", "protocol", code = 354 },
        { "120 wait\r\n", "protocol" },
        { "220go ahead\r\n", "protocol" },
        { "220-go\r\n221 ahead\r\n", "protocol" },
        { "OK begin TLS\r\n", "protocol" },
        { "\r\n", "protocol" },
      },
      imap = {
        { "%T NO [UNAVAILABLE] later\r\n", "downgrade", status = "UNAVAILABLE", temporary = true },
        { "%T NO never\r\n", "downgrade", text = "never", temporary = false },
        { "%T BAD unknown command\r\n", "downgrade", text = "unknown command", temporary = false },
        { "* BYE overloaded\r\n", "closed", text = "overloaded", temporary = true },
        { "%T BYE overloaded\r\n", "closed" },
        { "%T PREAUTH hello\r\n", "protocol" },
        { "ZZ9 OK begin TLS\r\n", "protocol" },
        { "A1 OK begin TLS\r\n", "protocol" }, -- the tag of CAPABILITY
        { "%N OK begin TLS\r\n", "protocol" },
        { "%T0 OK begin TLS\r\n", "protocol" },
        { "+ go ahead\r\n", "protocol" },
        { "%T\r\n", "protocol" },
        { "\r\n", "protocol" },
        { "220 go ahead\r\n", "protocol" },
      },
      pop3 = {
        { "-ERR never\r\n", "downgrade", text = "never", temporary = false },
        { "-ERR [SYS/TEMP] later\r\n", "downgrade", status = "SYS/TEMP", temporary = true },
        { "-ERR [SYS/PERM] never\r\n", "downgrade", status = "SYS/PERM", temporary = false },
        { "+OKAY\r\n", "protocol" },
        { "OK begin TLS\r\n", "protocol" },
        { "+ \r\n", "protocol" },
        { "\r\n", "protocol" },
      },
    }
    for name, list in pairs(refusals) do
      for _, refusal in ipairs(list) do
        it(("%s, %q"):format(name, refusal[1]), function()
          local expected = { kind = refusal[2], during = "starttls" }
          for field, value in pairs(refusal) do
            if type(field) == "string" then expected[field] = value end
          end
          if refusal[2] == "downgrade" then
            expected.says = ("refuses %s, and encryption is required"):format(protocols[name].verb)
          end
          fails(name, from_command(protocols[name], say(refusal[1]), end_of_stream), expected)
        end)
      end
    end

    it("imap, an untagged OK is no answer", function()
      fails("imap", from_command(protocols.imap, say("* OK begin TLS\r\n"), until_close),
        { kind = "timeout", during = "starttls" }, { timeout = 0.3 })
    end)
  end)

  -- }======

  -- {====== No handshake ======

  describe("ends the session when no handshake follows the answer:", function()
    local no_handshakes = {
      { "clear text", "250 mail.example.test\r\n", "something else" },
      { "a greeting", "* OK IMAP4rev1 ready\r\n+OK ready\r\n220 ready\r\n", "something else" },
      { "HTTP", "HTTP/1.1 400 Bad Request\r\n\r\n", "something else" },
      { "zeros", ("\0"):rep(64), "something else" },
      { "the older framing of SSLv2", "\x80\x2e\1\0\2" .. ("\0"):rep(64), "something else" },
      { "application data", "\23\3\3\0\5hello", "something else" },
      { "a handshake record of garbage", "\22\3\3\0\8garbage!" },
      { "a record too long", "\22\3\3\xff\xff" .. ("x"):rep(100) },
      { "a record of version 0", "\22\0\0\0\4abcd" },
      { "an alert", "\21\3\3\0\2\2\40", "alert" },
      { "an alert about the version", "\21\3\1\0\2\2\70", "TLS 1%.2 or 1%.3" },
    }
    for name, protocol in pairs(protocols) do
      for _, case in ipairs(no_handshakes) do
        it(("%s, %s"):format(name, case[1]), function()
          fails(name, from_command(protocol, say(protocol.ok), { "hear" },
            say(case[2])), { kind = "tls", during = "handshake", says = case[3] })
        end)
      end

      it(name .. ", clear text as single bytes behind the answer", function()
        for _, text in ipairs(protocol.injected) do
          local steps = from_command(protocol, say(protocol.ok), { "sleep", 0.02 },
            { "send_slowly", text })
          local err = fails(name, steps,
            { kind = "tls", during = "handshake", says = "something else" })
          assert.is_nil(err.hint:find("starttls", 1, true)) -- that is what was used
        end
      end)

      it(name .. ", the connection ends", function()
        for _, ending in ipairs { "close", "reset" } do
          fails(name, from_command(protocol, say(protocol.ok), { ending }),
            { kind = "tls", during = "handshake", says = "closed the connection during the TLS" })
        end
      end)

      it(name .. ", the handshake is cut", function()
        for _, count in ipairs { 1, 4, 5, 6, 80, 127, 128, 300, 600 } do
          local steps = from_command(protocol, say(protocol.ok),
            { "cut_handshake", { after = count } })
          local _, record = fails(name, steps, { kind = "tls", during = "handshake" })
          assert.is_nil(record.error)
        end
      end)

      it(name .. ", TLS 1.1 only", function()
        fails(name, from_command(protocol, say(protocol.ok),
          handshake({ min = "TLSv1.1", max = "TLSv1.1" })),
          { kind = "tls", during = "handshake", says = "TLS 1%.2 or 1%.3" })
      end)
    end
  end)

  describe("ends the session when the server closes:", function()
    for name, protocol in pairs(protocols) do
      it(name .. ", in the middle of the greeting", function()
        for _, sent in ipairs { 0, 1, #protocol.greeting - 2, #protocol.greeting - 1 } do
          fails(name, { say(protocol.greeting:sub(1, sent)), { "close" } },
            { kind = "closed", during = "greeting", temporary = true })
        end
      end)

      if protocol.ask then
        it(name .. ", in the middle of the capabilities", function()
          for _, sent in ipairs { 0, 3, #protocol.offer - 1 } do
            fails(name, from_capabilities(protocol, say(protocol.offer:sub(1, sent)), { "close" }),
              { kind = "closed", during = "capabilities" })
          end
        end)
      end

      it(name .. ", instead of the answer or in its middle", function()
        for _, sent in ipairs { 0, 2, #protocol.ok - 1 } do
          for _, ending in ipairs { "close", "reset" } do
            fails(name, from_command(protocol, say(protocol.ok:sub(1, sent)), { ending }),
              { kind = "closed", during = "starttls" })
          end
        end
      end)
    end
  end)

  -- }======

  -- {====== Injected ======

  describe("is refused with kind injection when plain text is behind the answer:", function()
    for name, protocol in pairs(protocols) do
      for _, text in ipairs(protocol.injected) do
        it(("%s, %q"):format(name, text), function()
          local steps = from_command(protocol, say(protocol.ok .. text), handshake())
          local err, record = fails(name, steps, {
            kind = "injection", during = "starttls", temporary = false,
            says = "plain text arrived behind the answer to " .. protocol.verb,
          })
          assert.is_truthy(err.hint)
          assert.is_nil(record.clear:find("\22\3", 1, true)) -- we didn't even begin
        end)
      end
    end
  end)

  describe("is refused when its answer is there before the command:", function()
    local early = {
      { "smtp", "with the capabilities", protocols.smtp.offer .. protocols.smtp.ok },
      { "smtp", "in part, with the capabilities", protocols.smtp.offer .. "2" },
      { "imap", "with the capabilities", protocols.imap.offer .. "%N OK begin TLS\r\n" },
      { "imap", "in part, with the capabilities", protocols.imap.offer .. "%N OK" },
      { "imap", "before the capabilities", "%N OK begin TLS\r\n" .. protocols.imap.offer },
    }
    for _, case in ipairs(early) do
      local name, when, answer = table.unpack(case)
      it(("%s, %s"):format(name, when), function()
        local session, err, peer <close> = connect(name,
          from_capabilities(protocols[name], say(answer), handshake()))
        assert.is_nil(session)
        assert.is_true(err.kind == "injection" or err.kind == "protocol", tostring(err))
        local record = peer:finish()
        assert_nothing_leaked(record)
        assert.are.equal(0, record.handshakes)
      end)
    end

    local with_greeting = {
      smtp = protocols.smtp.greeting .. protocols.smtp.offer .. protocols.smtp.ok,
      imap = "* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\nA1 OK begin TLS\r\n",
      pop3 = protocols.pop3.greeting .. protocols.pop3.ok,
    }
    for name, greeting in pairs(with_greeting) do
      it(name .. ", with the greeting", function()
        fails(name, { say(greeting), handshake() },
          { kind = "injection", during = "starttls" })
      end)
    end
  end)

  -- }======

  describe("is not undone: plain text in the stream of TLS is an error of kind tls,", function()
    local records = {
      ["plain text"] = "250 ok\r\n* OK [ALERT] injected\r\n+OK injected\r\n",
      ["a record that nobody encrypted"] = "\23\3\3\0\32" .. ("250 ok\r\n"):rep(4),
      ["a handshake record"] = "\22\3\3\0\4\0\0\0\0",
    }
    for name in pairs(protocols) do
      for what, bytes in pairs(records) do
        it(("%s, %s"):format(name, what), function()
          local steps = { { name .. "_upgrade", {} } }
          if name == "imap" then
            steps[2] = expect "CAPABILITY"
            steps[3] = say "* CAPABILITY IMAP4rev1\r\n%T OK done\r\n"
          end
          steps[#steps + 1] = expect "NOOP"
          steps[#steps + 1] = { "send_below", bytes }
          steps[#steps + 1] = until_close
          local alerts = {}
          local session <close>, peer = succeeds(name, steps,
            { on = name == "imap" and { alert = function(text) alerts[#alerts + 1] = text end } })
          local reply, err = session:noop()
          assert.is_nil(reply)
          assert.are.equal("tls", err.kind, tostring(err))
          assert.are.equal("noop", err.during)
          assert.are.same({}, alerts)
          assert.is_false(session:security().encrypted)
          peer:close()
        end)
      end
    end
  end)

  -- {====== Forgotten ======

  describe("leaves nothing of what was said in the clear:", function()
    local before = {
      smtp = { "STARTTLS", "XEVIL", "SIZE 17", "AUTH LOGIN CRAM-MD5", "SMTPUTF8" },
      imap = { "STARTTLS", "XEVIL", "AUTH=LOGIN", "AUTH=CRAM-MD5", "UIDPLUS" },
      pop3 = { "STLS", "XEVIL", "SASL LOGIN CRAM-MD5", "USER", "IMPLEMENTATION evil" },
    }
    local after = {
      smtp = { "XGOOD yes", "AUTH PLAIN" },
      imap = { "XGOOD", "AUTH=PLAIN" },
      pop3 = { "XGOOD", "SASL PLAIN" },
    }
    local left = {
      smtp = { XGOOD = "yes", AUTH = "PLAIN" },
      imap = { XGOOD = true, AUTH = "PLAIN", IMAP4rev1 = true },
      pop3 = { XGOOD = true, SASL = "PLAIN" },
    }
    -- What the peer does after the login.
    local later = {
      smtp = { until_close },
      imap = { expect("CAPABILITY"),
        say("* CAPABILITY IMAP4rev1 XGOOD AUTH=PLAIN\r\n%T OK done\r\n"), until_close },
      pop3 = { expect("CAPA"), say("+OK\r\nXGOOD\r\nSASL PLAIN\r\n.\r\n"), until_close },
    }
    for name in pairs(protocols) do
      for _, tls in ipairs { "starttls", "opportunistic" } do
        it(("%s, %s, capabilities"):format(name, tls), function()
          local session <close>, peer = succeeds(name, {
            { name .. "_upgrade", { before = before[name], after = after[name] } },
            table.unpack(later[name]),
          }, { tls = tls })
          assert.are.same(left[name], session:capabilities())
          for _, word in ipairs { "STARTTLS", "STLS", "XEVIL", "SIZE", "UIDPLUS", "USER" } do
            assert.is_false((session:has(word)), word)
          end
          assert.is_true((session:has "XGOOD"))
          local security = session:security()
          assert.is_true(security.encrypted and security.verified)
          assert.are.equal("starttls", security.how)
          assert.are.equal("PLAIN", security.mechanism)
          session:close()
          local record = peer:finish()
          assert_nothing_leaked(record)
          assert.matches("^%S*%s?%u+", record.encrypted)
          assert.is_nil(record.error)
        end)
      end

      it(name .. ", a mechanism that was offered in the clear only is not used", function()
        local session, err, peer <close> = connect(name, {
          { name .. "_upgrade",
            { before = before[name], after = { "XGOOD", "LOGINDISABLED" }, auth = false } },
          until_close,
        }, { sasl = { "LOGIN", "CRAM-MD5" } })
        assert.is_nil(session)
        assert.are.equal("auth", err.kind)
        assert_nothing_leaked(peer:finish())
      end)
    end

    it("imap, capabilities in the greeting and in the answer", function()
      local session <close>, peer = succeeds("imap", {
        say "* OK [CAPABILITY IMAP4rev1 STARTTLS XEVIL AUTH=LOGIN] ready\r\n",
        expect "STARTTLS", say "%T OK [CAPABILITY IMAP4rev1 XEVIL AUTH=LOGIN] begin\r\n",
        { "starttls", {} },
        expect "CAPABILITY", say "* CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\r\n%T OK done\r\n",
        expect "AUTHENTICATE PLAIN", say "%T OK [CAPABILITY IMAP4rev1 XGOOD] done\r\n", until_close,
      })
      assert.are.same({ IMAP4rev1 = true, XGOOD = true }, session:capabilities())
      session:close()
      assert.is_nil(peer:finish().error)
    end)

    it("imap, untagged data, alerts and referrals reach neither handlers nor counts", function()
      local called = {}
      local on = {}
      for _, event in ipairs { "alert", "exists", "expunge", "fetch", "bye" } do
        on[event] = function(...) called[#called + 1] = { event, ... } end
      end
      local noise = table.concat {
        "* 99 EXISTS\r\n* 98 RECENT\r\n* 7 EXPUNGE\r\n* 1 FETCH (UID 6 FLAGS (\\Seen))\r\n",
        "* FLAGS (\\Evil)\r\n* OK [ALERT] evil\r\n* OK [UIDVALIDITY 666] evil\r\n",
        "* NO [ALERT] evil\r\n* OK [REFERRAL imap://evil.example/] evil\r\n",
        "* LIST () \"/\" evil\r\n* ENABLED XEVIL\r\n",
      }
      local session <close>, peer = succeeds("imap", {
        say("* OK [REFERRAL imap://evil.example/] ready\r\n" .. noise),
        expect("CAPABILITY"), say(noise .. protocols.imap.offer:gsub("^%*.-\n", "%0" .. noise)),
        expect("STARTTLS"), say(noise .. "%T OK [CAPABILITY IMAP4rev1 XEVIL AUTH=LOGIN] begin\r\n"),
        { "starttls", {} },
        expect("CAPABILITY"), say("* CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\r\n%T OK done\r\n"),
        expect("AUTHENTICATE PLAIN"), say("%T OK done\r\n"),
        expect("CAPABILITY"), say("* CAPABILITY IMAP4rev1\r\n%T OK done\r\n"),
        expect("NOOP"), say("* OK [ALERT] good\r\n%T OK done\r\n"),
        expect("SELECT"), say("* 3 EXISTS\r\n%T OK [READ-WRITE] done\r\n"),
        until_close,
      }, { on = on })
      assert.are.same({}, called)
      assert.is_nil(session.mailbox)
      assert.are.same({ IMAP4rev1 = true }, session:capabilities())
      assert(session:noop())
      assert.are.same({ { "alert", "good" } }, called)
      local mailbox = assert(session:select "INBOX")
      assert.are.equal(3, mailbox.exists)
      assert.are.same({}, mailbox.flags)
      assert.is_nil(mailbox.uidvalidity)
      session:close()
      assert.is_nil(peer:finish().error)
    end)
  end)

  describe("with PREAUTH in the clear", function()
    local greetings = {
      "* PREAUTH welcome\r\n", "* preauth\r\n",
      "* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] welcome\r\n",
    }
    for _, greeting in ipairs(greetings) do
      for _, tls in ipairs { "starttls", "opportunistic" } do
        it(("is refused with kind downgrade: %s, %q"):format(tls, greeting), function()
          local err, record = fails("imap", { say(greeting), end_of_stream },
            { kind = "downgrade", during = "greeting", says = "PREAUTH" }, { tls = tls })
          assert.matches('tls = "implicit"', err.hint)
          assert.are.equal("", record.clear)
        end)
      end
    end

    it("says nothing when it comes later than the greeting", function()
      local session <close>, peer = succeeds("imap", from_command(protocols.imap,
        say("* PREAUTH welcome\r\n%T OK begin\r\n"), { "starttls", {} },
        expect("CAPABILITY"), say("* CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\r\n%T OK done\r\n"),
        expect("AUTHENTICATE"), say("%T OK [CAPABILITY IMAP4rev1] done\r\n"), until_close))
      assert.are.equal("PLAIN", session:security().mechanism)
      session:close()
      assert.is_nil(peer:finish().error)
    end)

    it("is accepted in TLS from the first byte, and no credentials are sent", function()
      local session <close>, peer = succeeds("imap", {
        { "starttls", {} }, say("* PREAUTH [CAPABILITY IMAP4rev1] welcome\r\n"),
        expect("NOOP"), say("%T OK done\r\n"), until_close,
      }, { tls = "implicit" })
      assert(session:noop())
      assert.is_nil(session:security().mechanism)
      assert.are.equal("implicit", session:security().how)
      session:close()
      local record = peer:finish()
      assert.is_nil(record.error)
      assert.is_nil(record.encrypted:find "AUTH")
    end)
  end)

  -- }======

  -- {====== Opportunistic ======

  describe("when it is opportunistic", function()
    local refused = { smtp = "454 4.7.0 no\r\n", imap = "%T NO no\r\n", pop3 = "-ERR no\r\n" }
    local offers = {
      smtp = protocols.smtp.offer, imap = protocols.imap.offer,
      pop3 = "+OK\r\nSTLS\r\nSASL PLAIN\r\n.\r\n",
    }
    local bare = {
      smtp = "250-mail.example.test\r\n250-STARTTLSX\r\n250 AUTH PLAIN LOGIN\r\n",
      imap = "* CAPABILITY IMAP4rev1 XSTARTTLS SASL-IR AUTH=PLAIN\r\n%T OK done\r\n",
      pop3 = "+OK\r\nSTLSX\r\nUSER\r\nSASL PLAIN\r\n.\r\n",
    }
    local ask = { smtp = protocols.smtp.ask, imap = protocols.imap.ask, pop3 = "^CAPA\r\n$" }
    local noop = { smtp = "250 ok\r\n", imap = "%T OK done\r\n", pop3 = "+OK\r\n" }
    local nobody = { tls = "opportunistic", user = false, password = false }

    -- The two ways to a channel that stays in the clear.
    local function stays_clear(name)
      local protocol = protocols[name]
      return {
        ["not offered"] = { say(protocol.greeting), expect(ask[name]), say(bare[name]) },
        ["refused"] = { say(protocol.greeting), expect(ask[name]), say(offers[name]),
          expect(protocol.command), say(refused[name]) },
      }
    end

    for name, protocol in pairs(protocols) do
      for _, why in ipairs { "not offered", "refused" } do
        it(("goes on in the clear: %s, %s"):format(name, why), function()
          local steps = stays_clear(name)[why]
          for _, step in ipairs { expect("NOOP"), say(noop[name]), until_close } do
            steps[#steps + 1] = step
          end
          local session <close>, peer = succeeds(name, steps, nobody)
          assert(session:noop())
          assert.is_false(session:security().encrypted)
          assert.is_false(session:security().verified)
          session:close()
          assert.is_nil(peer:finish().error)
        end)

        it(("sends no credentials there: %s, %s"):format(name, why), function()
          local steps = stays_clear(name)[why]
          steps[#steps + 1] = end_of_stream
          local err, record = fails(name, steps,
            { kind = "downgrade", during = "auth", says = "no credential is sent" },
            { tls = "opportunistic" })
          assert.matches('tls = "starttls"', err.hint)
          assert.is_nil(record.error)
        end)

        it(("does not even ask for the password there: %s, %s"):format(name, why), function()
          local steps = stays_clear(name)[why]
          steps[#steps + 1] = end_of_stream
          local asked = false
          fails(name, steps, { kind = "downgrade", during = "auth" },
            { tls = "opportunistic", password = function() asked = true return password end })
          assert.is_false(asked)
        end)
      end

      it("never goes on in the clear after a failed handshake: " .. name, function()
        for _, step in ipairs { say("250 hi\r\n* OK hi\r\n+OK hi\r\n"), say("\21\3\3\0\2\2\40"),
          handshake({ max = "TLSv1.1", min = "TLSv1.1" }), { "close" } } do
          fails(name, { say(protocol.greeting), expect(ask[name]), say(offers[name]),
            expect(protocol.command), say(protocol.ok),
            step[1] == "send" and { "hear" } or { "sleep", 0 }, step },
            { kind = "tls", during = "handshake" }, nobody)
        end
      end)

      it("takes plain text behind the answer for an injection: " .. name, function()
        fails(name, { say(protocol.greeting), expect(ask[name]), say(offers[name]),
          expect(protocol.command), say(protocol.ok .. protocol.injected[1]), handshake() },
          { kind = "injection", during = "starttls" }, nobody)
      end)
    end

    it("does without capabilities where a POP3 server does not know the command", function()
      local session <close>, peer = succeeds("pop3", {
        say(protocols.pop3.greeting), expect "^CAPA", say "-ERR what?\r\n",
        expect "^NOOP", say "+OK\r\n", until_close,
      }, nobody)
      assert(session:noop())
      session:close()
      assert.is_nil(peer:finish().error)
    end)

    it("does without ESMTP where the server has none", function()
      local session <close>, peer = succeeds("smtp", {
        say(protocols.smtp.greeting), expect("^EHLO "), say("502 5.5.1 what?\r\n"),
        expect("^HELO "), say("250 mail.example.test\r\n"),
        expect("^NOOP"), say("250 ok\r\n"), until_close,
      }, nobody)
      assert(session:noop())
      assert.are.same({}, session:capabilities())
      session:close()
      assert.is_nil(peer:finish().error)
    end)
  end)

  -- }======

  -- {====== Byte by byte ======

  describe("goes the same way when every byte comes on its own:", function()
    local slow = { slow = true }
    for name, protocol in pairs(protocols) do
      it(name .. ", the whole way", function()
        local steps = { { name .. "_upgrade", {} } }
        if name == "imap" then
          steps[2] = expect("CAPABILITY")
          steps[3] = say("* CAPABILITY IMAP4rev1\r\n%T OK done\r\n")
        end
        steps[#steps + 1] = until_close
        local session <close>, peer = succeeds(name, steps, { sasl = "PLAIN" }, slow)
        assert.is_true(session:security().encrypted)
        session:close()
        local record = peer:finish()
        assert.is_nil(record.error)
        assert.are.equal(1, record.handshakes)
        assert_nothing_leaked(record)
      end)

      it(name .. ", refused", function()
        local refusals = {
          smtp = "502-5.5.1 no\r\n502 5.5.1 no\r\n", imap = "%T NO no\r\n", pop3 = "-ERR no\r\n",
        }
        fails(name, from_command(protocol, say(refusals[name]), end_of_stream),
          { kind = "downgrade", during = "starttls" }, nil, slow)
      end)

      it(name .. ", plain text behind the answer", function()
        local _, err, peer <close> = connect(name,
          from_command(protocol, say(protocol.ok .. protocol.injected[1])), nil, slow)
        assert.is_true(err.kind == "tls" and err.during == "handshake"
          or err.kind == "injection" and err.during == "starttls", tostring(err))
        assert_nothing_leaked(peer:finish())
      end)

      if protocol.ask then
        it(name .. ", stripped", function()
          fails(name, from_capabilities(protocol, say(protocol.bare), end_of_stream),
            { kind = "downgrade", during = "starttls" }, nil, slow)
        end)
      end
    end

    it("imap, PREAUTH", function()
      fails("imap", { say("* PREAUTH welcome\r\n"), end_of_stream },
        { kind = "downgrade", during = "greeting" }, nil, slow)
    end)
  end)

  -- }======

  -- {====== The wrong way on the wire ======

  describe("mistaken for another way on the wire", function()
    for name, protocol in pairs(protocols) do
      it("is named in the hint: implicit TLS to a port of clear text, " .. name, function()
        local err = fails(name, { say(protocol.greeting) }, { kind = "tls", during = "handshake" },
          { tls = "implicit" })
        assert.matches('tls = "starttls"', err.hint)
      end)

      it("is named in the hint: STARTTLS to a port of implicit TLS, " .. name, function()
        local err, record = fails(name, { handshake() }, { kind = "timeout", during = "greeting" },
          { timeout = 0.3 })
        assert.matches('tls = "implicit"', err.hint)
        assert.are.equal("", record.raw)
      end)
    end
  end)

  -- }======
end)
