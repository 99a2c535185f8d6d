-- Authentication: every mechanism of the real servers with right and wrong credentials, and
-- against scripted peers the choice of a mechanism, channel binding, what a server must prove,
-- and where credentials never go.

local errors = require "starttls.error"
local mime = require "mime"
local Peer = require "spec.support.peer"
local clients = require "spec.support.clients"
local servers = require "spec.support.servers"

local protocols = clients.protocols

describe("Authentication at the real servers", function()
  local mail, alice

  setup(function()
    mail = servers.shared()
    alice = mail.ca:issue { name = "alice-of-authentication", cn = "alice", client = true }
  end)

  local everywhere = { smtp = true, imap = true, pop3 = true }
  local dovecot = { imap = true, pop3 = true }

  -- `right` and `wrong`: options, or functions that make them. bob's password has quotes, a
  -- backslash and a percent sign.
  local function by_password(name, sasl)
    return { name = name, sasl = sasl or name, at = everywhere,
      right = function() return { user = "bob", password = mail.users.bob.password } end,
      wrong = function() return { user = "bob", password = mail.users.alice.password } end,
    }
  end

  local function by_token(name)
    return { name = name, sasl = name, at = everywhere,
      right = function() return { password = false, token = mail:token "alice" } end,
      wrong = function() return { password = false, token = mail:token("alice", -60) } end,
    }
  end

  local user = by_password "USER"
  user.at = { pop3 = true }
  local mechanisms = {
    by_password "SCRAM-SHA-256", by_password "SCRAM-SHA-1", by_password "CRAM-MD5",
    by_password "PLAIN", by_password "LOGIN", user, by_token "XOAUTH2", by_token "OAUTHBEARER",
    { name = "EXTERNAL", sasl = "EXTERNAL", at = everywhere,
      right = function()
        return { password = false, client_cert = alice.cert, client_key = alice.key }
      end,
      wrong = function() -- alice's certificate does not make her bob
        return { password = false, client_cert = alice.cert, client_key = alice.key,
          authzid = "bob" }
      end,
    },
    { name = "ANONYMOUS", sasl = "ANONYMOUS", at = dovecot,
      right = function() return { user = false, password = false } end,
    },
  }

  local function options(mechanism, given, more)
    local all = { sasl = mechanism.sasl }
    for name, value in pairs(given) do all[name] = value end
    for name, value in pairs(more or {}) do all[name] = value end
    return all
  end

  local ways = {
    { how = "starttls", version = "TLS1.2" }, { how = "implicit", version = "TLS1.2" },
    { how = "starttls", version = "TLS1.3" }, { how = "implicit", version = "TLS1.3" },
  }

  for _, mechanism in ipairs(mechanisms) do
    for _, protocol in ipairs(protocols) do
      if mechanism.at[protocol] then
        it(("succeeds with %s by %s, over every way to TLS"):format(mechanism.name, protocol),
          function()
            for _, way in ipairs(ways) do
              local session <close> = clients.connect(mail, protocol, options(mechanism,
                mechanism.right(), { tls = way.how,
                  tls_priority = "NORMAL:-VERS-ALL:+VERS-" .. way.version }))
              local security = session:security()
              assert.same({ mechanism.name, way.how, way.version },
                { security.mechanism, security.how, security.version })
              assert.truthy(session:noop())
            end
          end)
      end

      if mechanism.at[protocol] and mechanism.wrong then
        it(("fails with %s by %s and wrong credentials, and says so"):format(mechanism.name,
          protocol), function()
          local given = options(mechanism, mechanism.wrong())
          local session, err = clients.try(mail, protocol, given)
          assert.is_nil(session)
          assert.is_true(errors.is(err))
          assert.same({ "auth", "auth", false }, { err.kind, err.during, err.temporary })
          assert.matches("authentication with " .. mechanism.name:gsub("%-", "%%-"), err.message)
          assert.is_true(err.text ~= "")
          local secret = given.password or given.token
          if secret then assert.not_matches(secret, tostring(err), 1, true) end
          -- The server's report, in JSON.
          if given.token then assert.matches('{"status":"', err.message, 1, true) end
        end)
      end
    end
  end

  it("takes the strongest mechanism that password, token or certificate serve", function()
    local token = { password = false, token = mail:token "alice" }
    local certificate = { password = false, client_cert = alice.cert, client_key = alice.key }
    for _, protocol in ipairs(protocols) do
      for name, given in pairs { ["SCRAM-SHA-256"] = {}, OAUTHBEARER = token,
        EXTERNAL = certificate } do
        local session <close> = clients.connect(mail, protocol, given)
        assert.equal(name, session:security().mechanism)
      end
    end
  end)

  it("honours LOGINDISABLED, also where the script allows LOGIN in the clear", function()
    local none, err = clients.try(mail, "imap", { host = mail.far_host, sasl = "LOGIN",
      tls = "none", insecure_auth = true })
    assert.is_nil(none)
    assert.equal("auth", err.kind)
    assert.matches("and the script allows LOGIN$", err.message)
  end)
end)

describe("Authentication at a scripted server", function()
  local mail

  setup(function() mail = servers.shared() end)

  -- Runs `script(p, args)` as the server, and connect(). `given`: options of connect();
  -- `args`: of the script, see peer_auth.lua. Returns what came of it: `err` or `security`,
  -- `record` of the peer, and `trace`.
  local function attempt(protocol, script, args, given)
    local all = { protocol = protocol, cert = mail.cert, key = mail.key }
    for name, value in pairs(args or {}) do all[name] = value end
    local peer <close> = Peer.start(script, all)
    local outcome = { trace = {} }
    local options = { port = peer.port, user = "alice", password = "secret password",
      trace = function(event) outcome.trace[#outcome.trace + 1] = event end }
    for name, value in pairs(given or {}) do options[name] = value end
    local session, err = clients.try(mail, protocol, options)
    outcome.err = err
    if session then
      outcome.security = session:security()
      session:close()
    end
    outcome.record = peer:finish()
    assert.is_nil(outcome.record.error)
    return outcome
  end

  local function trace_text(outcome)
    local lines = {}
    for _, event in ipairs(outcome.trace) do
      lines[#lines + 1] = ("%s: %s"):format(event.direction, event.text or event.bytes)
    end
    return table.concat(lines, "\n")
  end

  -- Neither the error nor the trace has the text.
  local function assert_hidden(text, outcome)
    for name, value in pairs(outcome.err or {}) do
      assert.is_nil((tostring(value):find(text, 1, true)), name .. " has the credential")
    end
    assert.not_matches(text, tostring(outcome.err), 1, true)
    assert.not_matches(text, trace_text(outcome), 1, true)
  end

  local function assert_fails(outcome, pattern)
    assert.is_nil(outcome.security)
    assert.same({ "auth", "auth" }, { outcome.err.kind, outcome.err.during })
    assert.matches(pattern, outcome.err.message)
  end

  -- A server that says which mechanism was begun, and refuses it in a way that ends it all.
  -- LOGIN and USER may also be commands of their own.
  local function tell_mechanism(p, args)
    local auth = require "spec.support.peer_auth".open(p, args)
    local line = auth:command()
    auth:says(args.refusal, "not now")
    p:expect_eof()
    return line:match "^AUTH%a* (%S+)" or line:match "^%S+"
  end

  local temporary = { smtp = "454 4.7.0 ", imap = "NO [UNAVAILABLE] ", pop3 = "-ERR [SYS/TEMP] " }

  local function chosen(protocol, offers, given, capabilities, max)
    local outcome = attempt(protocol, tell_mechanism, { offers = offers, max = max,
      capabilities = capabilities, refusal = temporary[protocol] }, given)
    assert_fails(outcome, "refuses authentication with ")
    assert.equal(outcome.err.message:match "with (%S+)$", outcome.record.result)
    return outcome.record.result
  end

  describe("chooses a mechanism:", function()
    local all = { "ANONYMOUS", "LOGIN", "CRAM-MD5", "EXTERNAL", "PLAIN", "XOAUTH2", "OAUTHBEARER",
      "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS" }
    local token = { password = false, token = "t0ken" }
    local both = { token = "t0ken" }

    local function without(...)
      local dropped, left = { ... }, {}
      for _, name in ipairs(all) do
        local keep = true
        for _, other in ipairs(dropped) do keep = keep and name ~= other end
        if keep then left[#left + 1] = name end
      end
      return left
    end

    local cases = {
      { "the strongest, with channel binding", all, "SCRAM-SHA-256-PLUS" },
      { "any channel binding before none", without "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS" },
      { "the better hash", without("SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"), "SCRAM-SHA-256" },
      { "SCRAM before PLAIN", { "PLAIN", "SCRAM-SHA-1" }, "SCRAM-SHA-1" },
      { "PLAIN before the weak ones", { "LOGIN", "CRAM-MD5", "PLAIN" }, "PLAIN" },
      { "CRAM-MD5 when only weak ones are offered", { "LOGIN", "CRAM-MD5" }, "CRAM-MD5" },
      { "LOGIN when nothing else is offered", { "LOGIN" }, "LOGIN" },
      { "for a token, OAUTHBEARER", all, "OAUTHBEARER", token },
      { "for a token, XOAUTH2 before nothing", { "PLAIN", "XOAUTH2" }, "XOAUTH2", token },
      { "SCRAM before a token, where both are given", all, "SCRAM-SHA-256-PLUS", both },
      { "a token before PLAIN, where both are given", { "PLAIN", "XOAUTH2" }, "XOAUTH2", both },
      { "the only one that the script names", all, "PLAIN", { sasl = "PLAIN" } },
      { "the first of the script's list", all, "CRAM-MD5", { sasl = { "CRAM-MD5", "PLAIN" } } },
      { "the script's next, where the first is not offered", { "PLAIN", "LOGIN" }, "LOGIN",
        { sasl = { "CRAM-MD5", "LOGIN", "PLAIN" } } },
      { "one whose name is written differently", { "scram-sha-256", "plain" }, "SCRAM-SHA-256",
        { sasl = { "Scram-Sha-256" } } },
      { "none with channel binding, when it is off", all, "SCRAM-SHA-256",
        { channel_binding = "off" } },
      { "one with channel binding, when it is required", all, "SCRAM-SHA-256-PLUS",
        { channel_binding = "require" } },
      { "EXTERNAL for a name on the script's list", all, "EXTERNAL",
        { sasl = "EXTERNAL", password = false } },
      { "ANONYMOUS for a name on the script's list", all, "ANONYMOUS",
        { sasl = "ANONYMOUS", user = false, password = false } },
    }

    for _, case in ipairs(cases) do
      local what, offers, expected, given = table.unpack(case)
      it(what, function()
        for _, protocol in ipairs(protocols) do
          assert.equal(expected, chosen(protocol, offers, given, { "LOGINDISABLED" }))
        end
      end)
    end

    it("the protocol's own login before the weak ones", function()
      assert.equal("LOGIN", chosen("imap", { "CRAM-MD5" }))
      assert.equal("USER", chosen("pop3", { "CRAM-MD5", "LOGIN" }, nil, { "USER" }))
    end)

    it("the protocol's own login where nothing else is offered", function()
      assert.equal("LOGIN", chosen("imap", {}))
      assert.equal("USER", chosen("pop3", {}, nil, { "USER" }))
      assert.equal("USER", chosen("pop3", { "PLAIN" }, { sasl = "USER" }, { "USER" }))
    end)

    it("tls-unique under TLS 1.2", function()
      for _, protocol in ipairs(protocols) do
        assert.equal("SCRAM-SHA-256-PLUS", chosen(protocol, all, nil, nil, "TLSv1.2"))
      end
    end)
  end)

  describe("finds none:", function()
    -- A server that sees the client leave without a try.
    local function expect_none(p, args)
      require "spec.support.peer_auth".open(p, args)
      p:expect_eof()
    end

    local cases = {
      { "the script's is not offered", { "PLAIN" }, { sasl = "CRAM-MD5" },
        "offers PLAIN, and the script allows CRAM%-MD5$" },
      { "nothing with channel binding, and it is required", { "SCRAM-SHA-256", "PLAIN" },
        { channel_binding = "require" }, "offers SCRAM%-SHA%-256 PLAIN, and none of these" },
      { "a password for a server that takes tokens", { "XOAUTH2" }, {},
        "offers XOAUTH2, and none of these" },
      { "a token for a server that takes passwords", { "PLAIN" },
        { password = false, token = "t0ken" }, "offers PLAIN, and none of these" },
      { "ANONYMOUS, which the script did not name", { "ANONYMOUS" }, {},
        "offers ANONYMOUS, and none of these" },
      { "a mechanism that nobody knows", { "X-OWN" }, {}, "offers no authentication that we know" },
      { "nothing at all", {}, {}, "offers no authentication that we know" },
    }

    for _, case in ipairs(cases) do
      local what, offers, given, pattern = table.unpack(case)
      it(what, function()
        for _, protocol in ipairs(protocols) do
          local outcome = attempt(protocol, expect_none,
            { offers = offers, capabilities = { "LOGINDISABLED" } }, given)
          assert_fails(outcome, pattern)
          local required = given.channel_binding == "require"
          if required then assert.matches("PLUS mechanisms only", outcome.err.hint) end
        end
      end)
    end

    it("LOGINDISABLED forbids LOGIN", function()
      local outcome = attempt("imap", expect_none, { capabilities = { "LOGINDISABLED" } })
      assert_fails(outcome, "offers no authentication that we know")
    end)

    it("POP3 without USER among its capabilities forbids USER", function()
      local outcome = attempt("pop3", expect_none, { capabilities = { "UIDL" } })
      assert_fails(outcome, "offers no authentication that we know")
    end)
  end)

  describe("with channel binding", function()
    local function bind(p, args)
      local auth = require "spec.support.peer_auth".open(p, args)
      local flag = auth:scram(args.mechanism, args.scram)
      auth:accepts()
      return flag
    end

    local cases = {
      { "tls-exporter", "TLSv1.3", "SCRAM-SHA-256-PLUS", "sha256" },
      { "tls-exporter", "TLSv1.3", "SCRAM-SHA-1-PLUS", "sha1" },
      { "tls-unique", "TLSv1.2", "SCRAM-SHA-256-PLUS", "sha256" },
      { "tls-unique", "TLSv1.2", "SCRAM-SHA-1-PLUS", "sha1" },
    }

    for _, case in ipairs(cases) do
      local binding, version, mechanism, hash = table.unpack(case)
      it(("proves %s by %s under %s"):format(binding, mechanism, version), function()
        for _, protocol in ipairs(protocols) do
          local outcome = attempt(protocol, bind, { offers = { mechanism }, max = version,
            mechanism = mechanism,
            scram = { hash = hash, password = "secret password", binding = binding } })
          assert.is_nil(outcome.err)
          assert.equal("p=" .. binding, outcome.record.result)
          assert.same({ mechanism, binding, false }, { outcome.security.mechanism,
            outcome.security.channel_binding, outcome.security.channel_binding_refused })
        end
      end)
    end

    it("uses no binding where TLS 1.2 can't give a safe one", function()
      for _, protocol in ipairs(protocols) do
        local outcome = attempt(protocol, bind, {
          offers = { "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256" }, mechanism = "SCRAM-SHA-256",
          max = "TLSv1.2", options = { "no_extended_master_secret" },
          scram = { password = "secret password" } })
        assert.is_nil(outcome.err)
        assert.equal("SCRAM-SHA-256", outcome.security.mechanism)
        assert.is_nil(outcome.security.channel_binding)
      end
    end)

    -- Refuses the mechanism with binding, at once or when it has seen the proof; takes the
    -- same hash without.
    local function refuse_binding(p, args)
      local auth = require "spec.support.peer_auth".open(p, args)
      if args.late then
        auth:scram_to_proof("SCRAM-SHA-256-PLUS",
          { password = args.password, binding = "tls-exporter" })
      else
        auth:mechanism()
      end
      auth:refuses "no channel binding here"
      local flag = auth:scram("SCRAM-SHA-256", { password = args.password })
      auth:accepts()
      return flag
    end

    for _, late in ipairs { false, true } do
      it("asks once more without it where the server refuses it "
        .. (late and "at the end" or "at once"), function()
        for _, protocol in ipairs(protocols) do
          local outcome = attempt(protocol, refuse_binding, { late = late,
            password = "secret password",
            offers = { "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1",
              "PLAIN" } })
          assert.is_nil(outcome.err)
          assert.equal("n", outcome.record.result)
          assert.same({ "SCRAM-SHA-256", true }, { outcome.security.mechanism,
            outcome.security.channel_binding_refused })
          assert.is_nil(outcome.security.channel_binding)
        end
      end)
    end

    -- Refuses whatever is tried, and tells what that was.
    local function refuse_all(p, args)
      local auth = require "spec.support.peer_auth".open(p, args)
      local tried = {}
      for i = 1, args.tries do
        tried[i] = auth:mechanism()
        auth:refuses("refusal " .. i)
      end
      p:expect_eof()
      return tried
    end

    local function tried(protocol, offers, given, tries)
      local outcome = attempt(protocol, refuse_all, { offers = offers, tries = tries }, given)
      assert_fails(outcome, "refuses authentication with ")
      return outcome.record.result, outcome.err
    end

    it("asks only once more, and for nothing weaker", function()
      for _, protocol in ipairs(protocols) do
        local names, err = tried(protocol, { "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS",
          "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN" }, nil, 2)
        assert.same({ "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256" }, names)
        assert.matches("SCRAM%-SHA%-256 %(and before that with channel binding%)", err.message)
        assert.equal("refusal 2", err.text)
      end
    end)

    it("does not ask again for another hash", function()
      for _, protocol in ipairs(protocols) do
        assert.same({ "SCRAM-SHA-256-PLUS" },
          (tried(protocol, { "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1", "PLAIN" }, nil, 1)))
      end
    end)

    it("does not ask again when binding is required", function()
      for _, protocol in ipairs(protocols) do
        assert.same({ "SCRAM-SHA-256-PLUS" },
          (tried(protocol, { "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256" },
            { channel_binding = "require" }, 1)))
      end
    end)

    it("does not ask again on a channel that is not verified", function()
      for _, protocol in ipairs(protocols) do
        assert.same({ "SCRAM-SHA-256-PLUS" },
          (tried(protocol, { "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256" },
            { insecure_no_verify = true, insecure_auth = true,
              server_name = "other.example.test" }, 1)))
      end
    end)

    it("does not ask again when the script's list does not have it", function()
      for _, protocol in ipairs(protocols) do
        assert.same({ "SCRAM-SHA-256-PLUS" },
          (tried(protocol, { "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256" },
            { sasl = { "SCRAM-SHA-256-PLUS", "PLAIN" } }, 1)))
      end
    end)
  end)

  it("tries nothing else after a refusal, and says what was tried", function()
    local cases = {
      { offers = { "SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5" }, name = "SCRAM-SHA-256" },
      { offers = { "PLAIN", "LOGIN", "CRAM-MD5" }, name = "PLAIN" },
      { offers = { "XOAUTH2", "PLAIN" }, name = "XOAUTH2", given = { token = "t0ken" } },
      { offers = { "CRAM-MD5", "PLAIN" }, name = "CRAM-MD5",
        given = { sasl = { "CRAM-MD5", "PLAIN" } } },
    }
    for _, protocol in ipairs(protocols) do
      for _, case in ipairs(cases) do
        local outcome = attempt(protocol, function(p, args)
          local auth = require "spec.support.peer_auth".open(p, args)
          auth:mechanism()
          auth:refuses_for_good "go away"
        end, { offers = case.offers, capabilities = { "USER" } }, case.given)
        assert_fails(outcome, "refuses authentication with " .. case.name:gsub("%-", "%%-") .. "$")
        assert.equal("go away", outcome.err.text)
        assert.equal(({ smtp = 535 })[protocol], outcome.err.code)
        assert.equal(({ smtp = "5.7.8", imap = "AUTHENTICATIONFAILED", pop3 = "AUTH" })[protocol],
          outcome.err.status)
      end
    end
  end)

  it("tells a refusal that may pass from one that stays", function()
    for protocol, refusal in pairs(temporary) do
      local outcome = attempt(protocol, tell_mechanism,
        { offers = { "PLAIN" }, refusal = refusal })
      assert_fails(outcome, "refuses authentication with PLAIN$")
      assert.is_true(outcome.err.temporary)
      assert.equal("not now", outcome.err.text)
    end
  end)

  describe("with SCRAM", function()
    -- A server that says no more after the client has left.
    local function scram(p, args)
      local auth = require "spec.support.peer_auth".open(p, args)
      local exchange, final = auth:scram_to_proof("SCRAM-SHA-256", args.scram)
      if args.final then final = args.final end
      if args.final ~= "" then p:send(auth.words.challenge, args.encode(final), "\r\n") end
      if args.yes then auth:says(auth.words.yes, "welcome") end
      p:expect_eof()
      return exchange.flag
    end

    local function encode(text) return require "mime".b64(text) or "" end

    local wrong_finals = {
      { "a wrong signature", scram = { signature = ("x"):rep(32) } },
      { "a signature that is cut", scram = { signature = "x" } },
      { "an empty signature", final = "v=" },
      { "an empty last message", final = "\0", encode = function() return "" end },
      { "something else in its place", final = "welcome" },
      { "what is not base64", final = "*", encode = function() return "!*!" end },
    }

    for _, case in ipairs(wrong_finals) do
      it("refuses a server that answers the proof with " .. case[1], function()
        for _, protocol in ipairs(protocols) do
          local options = { password = "secret password" }
          for name, value in pairs(case.scram or {}) do options[name] = value end
          local outcome = attempt(protocol, scram, { offers = { "SCRAM-SHA-256", "PLAIN" },
            scram = options, final = case.final, encode = case.encode or encode })
          assert_fails(outcome, "^SCRAM%-SHA%-256 can't go on: ")
        end
      end)
    end

    it("refuses a server that says yes without its signature", function()
      for _, protocol in ipairs(protocols) do
        local outcome = attempt(protocol, scram, { offers = { "SCRAM-SHA-256", "PLAIN" },
          scram = { password = "secret password" }, final = "", yes = true })
        assert_fails(outcome, "says yes to SCRAM%-SHA%-256 before the exchange is over")
      end
    end)

    it("refuses a server that says yes before anything", function()
      for _, protocol in ipairs(protocols) do
        local outcome = attempt(protocol, function(p, args)
          local auth = require "spec.support.peer_auth".open(p, args)
          auth:mechanism()
          auth:accepts()
        end, { offers = { "SCRAM-SHA-256", "PLAIN" } })
        assert_fails(outcome, "says yes to SCRAM%-SHA%-256 before the exchange is over")
      end
    end)

    -- First messages that the client must not answer. The client's nonce is %N.
    local firsts = {
      { "a nonce that is not ours", "r=somebodyelses,s=c2FsdA==,i=4096" },
      { "a part of our nonce", "r=%H,s=c2FsdA==,i=4096" },
      { "no salt", "r=%Nx,i=4096" },
      { "no iteration count", "r=%Nx,s=c2FsdA==" },
      { "an empty message", "" },
      { "a mandatory extension", "m=what,r=%Nx,s=c2FsdA==,i=4096" },
      { "1 round", "r=%Nx,s=c2FsdA==,i=1", "fewer rounds" },
      { "4095 rounds", "r=%Nx,s=c2FsdA==,i=4095", "fewer rounds" },
      { "1,000,001 rounds", "r=%Nx,s=c2FsdA==,i=1000001", "too many rounds" },
      { "more rounds than fit into 64 bits", "r=%Nx,s=c2FsdA==,i=99999999999999999999",
        "too many rounds" },
    }

    for _, case in ipairs(firsts) do
      local what, first, pattern = table.unpack(case)
      it("refuses a server that begins with " .. what, function()
        for _, protocol in ipairs(protocols) do
          local outcome = attempt(protocol, function(p, args)
            local auth = require "spec.support.peer_auth".open(p, args)
            local nonce = auth:begins "SCRAM-SHA-256":match ",r=(.*)$"
            local text = args.first:gsub("%%(%a)",
              { N = nonce, H = nonce:sub(1, #nonce // 2) })
            p:send(auth.words.challenge, require "mime".b64(text) or "", "\r\n")
            p:expect_eof()
          end, { offers = { "SCRAM-SHA-256", "PLAIN" }, first = first })
          assert_fails(outcome, "^SCRAM%-SHA%-256 can't go on: .*" .. (pattern or ""))
        end
      end)
    end

    it("takes 4096 rounds and 10,000 rounds", function()
      for _, iterations in ipairs { 4096, 10000 } do
        local outcome = attempt("imap", function(p, args)
          local auth = require "spec.support.peer_auth".open(p, args)
          auth:scram("SCRAM-SHA-256", args.scram)
          auth:accepts()
        end, { offers = { "SCRAM-SHA-256" },
          scram = { password = "secret password", iterations = iterations } })
        assert.is_nil(outcome.err)
      end
    end)

    it("shows the error with which the server answers the proof", function()
      for _, protocol in ipairs(protocols) do
        local outcome = attempt(protocol, function(p, args)
          local auth = require "spec.support.peer_auth".open(p, args)
          auth:scram_to_proof("SCRAM-SHA-256", args.scram)
          auth:asks "e=other-error"
          auth:refuses_for_good "no"
        end, { offers = { "SCRAM-SHA-256" }, scram = { password = "secret password" } })
        assert_fails(outcome, "refuses authentication with SCRAM%-SHA%-256: e=other%-error$")
        assert.equal("no", outcome.err.text)
      end
    end)

    it("escapes what a user's name may have", function()
      local outcome = attempt("smtp", function(p, args)
        local auth = require "spec.support.peer_auth".open(p, args)
        local exchange, final = auth:scram_to_proof("SCRAM-SHA-256", args.scram)
        auth:asks(final)
        auth:accepts()
        return exchange.user
      end, { offers = { "SCRAM-SHA-256" }, scram = { password = "secret password" } },
        { user = "a=b,c" })
      assert.is_nil(outcome.err)
      assert.equal("a=b,c", outcome.record.result)
    end)
  end)

  describe("with any mechanism", function()
    it("refuses a yes to what was not said", function()
      local cases = {
        { offers = { "PLAIN" }, initial = false }, -- asked for by a challenge that never comes
        { offers = { "LOGIN" }, initial = false },
        { offers = { "CRAM-MD5" }, initial = true },
      }
      for _, case in ipairs(cases) do
        local outcome = attempt("imap", function(p, args)
          local auth = require "spec.support.peer_auth".open(p, args)
          auth:mechanism()
          auth:accepts()
        end, { offers = case.offers, capabilities = { case.initial and "SASL-IR" or "X" } },
          { sasl = case.offers })
        assert_fails(outcome, "says yes to " .. case.offers[1]:gsub("%-", "%%-"))
      end
    end)

    it("refuses a yes to the user's name alone", function()
      for _, protocol in ipairs(protocols) do
        local outcome = attempt(protocol, function(p, args)
          local auth = require "spec.support.peer_auth".open(p, args)
          auth:mechanism()
          auth:asks "Username:"
          auth:accepts()
        end, { offers = { "LOGIN" } }, { sasl = "LOGIN" })
        assert_fails(outcome, "says yes to LOGIN")
      end
    end)

    it("refuses a challenge that is not base64", function()
      for _, protocol in ipairs(protocols) do
        local outcome = attempt(protocol, function(p, args)
          local auth = require "spec.support.peer_auth".open(p, args)
          auth:mechanism()
          p:send(auth.words.challenge, "what is your name?", "\r\n")
          p:expect_eof()
        end, { offers = { "CRAM-MD5" } }, { sasl = "CRAM-MD5" })
        assert_fails(outcome, "^CRAM%-MD5 can't go on: the server's challenge is not base64$")
      end
    end)

    it("says what RFC 4616 and RFC 2195 say", function()
      for _, protocol in ipairs(protocols) do
        local outcome = attempt(protocol, function(p, args)
          local auth = require "spec.support.peer_auth".open(p, args)
          local response = auth:begins "PLAIN"
          auth:accepts()
          return response
        end, { offers = { "PLAIN" } }, { authzid = "admin" })
        assert.equal("admin\0alice\0secret password", outcome.record.result)
        -- The example of RFC 2195, section 2.
        outcome = attempt(protocol, function(p, args)
          local auth = require "spec.support.peer_auth".open(p, args)
          auth:mechanism()
          local answer = auth:asks "<1896.697170952@postoffice.reston.mci.net>"
          auth:accepts()
          return answer
        end, { offers = { "CRAM-MD5" } },
          { sasl = "CRAM-MD5", user = "tim", password = "tanstaaftanstaaf" })
        assert.equal("tim b913a602c7eda7a495b4e6e7334d3890", outcome.record.result)
      end
    end)

    it("says the user's name and the password to LOGIN, whatever it asks", function()
      for _, protocol in ipairs(protocols) do
        local outcome = attempt(protocol, function(p, args)
          local auth = require "spec.support.peer_auth".open(p, args)
          local _, initial = auth:mechanism()
          local answers = { initial, auth:asks "User Name\0", auth:asks "Password\0" }
          auth:accepts()
          return answers
        end, { offers = { "LOGIN" } }, { sasl = "LOGIN" })
        assert.same({ "", "alice", "secret password" }, outcome.record.result)
      end
    end)
  end)

  describe("with a token", function()
    local report = '{"status":"invalid_token","scope":"mail"}'

    local function refuse_token(p, args)
      local auth = require "spec.support.peer_auth".open(p, args)
      local response = auth:begins(args.mechanism)
      local answer = auth:asks(args.report)
      auth:refuses_for_good "no"
      return { response, answer }
    end

    it("answers the server's report, shows it, and tries nothing else", function()
      for _, protocol in ipairs(protocols) do
        for mechanism, expected in pairs {
          XOAUTH2 = { "user=al,i=ce\1auth=Bearer t0ken\1\1", "" },
          OAUTHBEARER = {
            "n,a=al=2Ci=3Dce,\1host=localhost\1port=%d\1auth=Bearer t0ken\1\1", "\1",
          },
        } do
          local outcome = attempt(protocol, refuse_token,
            { offers = { mechanism, "PLAIN" }, mechanism = mechanism, report = report },
            { user = "al,i=ce", token = "t0ken" })
          assert_fails(outcome, "refuses authentication with " .. mechanism .. ": ")
          assert.matches(report, outcome.err.message, 1, true)
          assert.equal("no", outcome.err.text)
          local response, answer = table.unpack(outcome.record.result)
          assert.same(expected, { (response:gsub("\1port=%d+\1", "\1port=%%d\1")), answer })
        end
      end
    end)

    it("keeps a report that has the token to itself", function()
      for _, protocol in ipairs(protocols) do
        for _, mechanism in ipairs { "XOAUTH2", "OAUTHBEARER" } do
          local telling = '{"status":"bad","token":"t0ken of alice"}'
          local outcome = attempt(protocol, refuse_token, { offers = { mechanism },
            mechanism = mechanism, report = telling }, { token = "t0ken of alice" })
          assert_fails(outcome, "refuses authentication with " .. mechanism)
          assert_hidden("t0ken of alice", outcome)
          assert_hidden((mime.b64(telling)), outcome)
        end
      end
    end)

    it("sends it with the command where that fits, else in a line of its own", function()
      -- RFC 4954 4: 512 octets with CRLF; RFC 2449 4: 255; IMAP has no limit of its own.
      local longest = { smtp = 512, imap = 8192, pop3 = 255 }
      for _, protocol in ipairs(protocols) do
        for _, size in ipairs { 10, 100, 150, 250, 300, 400, 2000 } do
          local outcome = attempt(protocol, function(p, args)
            local auth = require "spec.support.peer_auth".open(p, args)
            local line = auth:command()
            local alone = not line:find "^AUTH%a* %S+ "
            local response = alone and auth:asks ""
            auth:accepts()
            return { alone = alone, length = #line + 2, response = response or line }
          end, { offers = { "XOAUTH2" } }, { token = ("t"):rep(size) })
          assert.is_nil(outcome.err)
          local seen = outcome.record.result
          assert.is_true(seen.length <= longest[protocol])
          if seen.alone then
            assert.equal("user=alice\1auth=Bearer " .. ("t"):rep(size) .. "\1\1", seen.response)
            assert.is_true(size + 24 > longest[protocol] // 2) -- base64 makes 4 of 3
          end
          if size * 4 // 3 > longest[protocol] then assert.is_true(seen.alone) end
        end
      end
    end)
  end)

  it("sends an initial response by IMAP only where SASL-IR is listed", function()
    for capability, expected in pairs { ["SASL-IR"] = true, ["X-OTHER"] = false } do
      local outcome = attempt("imap", function(p, args)
        local auth = require "spec.support.peer_auth".open(p, args)
        local _, initial = auth:mechanism()
        local response = initial == "" and auth:asks "" or require "mime".unb64(initial)
        auth:accepts()
        return { initial ~= "", response }
      end, { offers = { "PLAIN" }, capabilities = { capability } })
      assert.same({ expected, "\0alice\0secret password" }, outcome.record.result)
    end
  end)

  it("sends = for an empty initial response, and an empty line without one", function()
    for _, protocol in ipairs(protocols) do
      for _, capability in ipairs { "SASL-IR", "X-OTHER" } do
        local outcome = attempt(protocol, function(p, args)
          local auth = require "spec.support.peer_auth".open(p, args)
          local mechanism, initial = auth:mechanism()
          local answer
          if initial == "" then
            p:send(auth.words.challenge, "\r\n")
            answer = p:line()
          end
          auth:accepts()
          return { mechanism, initial, answer }
        end, { offers = { "EXTERNAL" }, capabilities = { capability } },
          { sasl = "EXTERNAL", user = false, password = false })
        assert.is_nil(outcome.err)
        local waits = protocol == "imap" and capability == "X-OTHER"
        assert.same(waits and { "EXTERNAL", "", "\r\n" } or { "EXTERNAL", "=" },
          outcome.record.result)
      end
    end
  end)

  it("answers with the authorization identity to EXTERNAL", function()
    for _, protocol in ipairs(protocols) do
      local outcome = attempt(protocol, function(p, args)
        local auth = require "spec.support.peer_auth".open(p, args)
        local response = auth:begins "EXTERNAL"
        auth:accepts()
        return response
      end, { offers = { "EXTERNAL" } },
        { sasl = "EXTERNAL", user = false, password = false, authzid = "bob" })
      assert.equal("bob", outcome.record.result)
    end
  end)

  describe("with the protocol's own login", function()
    -- Reads LOGIN with its arguments, quoted or literal.
    local function read_login(p, args)
      local auth = require "spec.support.peer_auth".open(p, args)
      local line, found = auth:command(), {}
      local rest = line:match "^LOGIN (.*)$"
      while rest and rest ~= "" do
        local size, plus = rest:match "^{(%d+)(%+?)}$"
        if size then
          if plus == "" then p:send "+ go on\r\n" end
          found[#found + 1] = p:read(math.tointeger(size))
          found.literals = (found.literals or 0) + 1
          found.waited = plus == ""
          rest = p:line():gsub("\r\n$", "")
        else
          local quoted, after = rest:match '^"(.-[^\\])"(.*)$'
          if not quoted then p:fail("cannot read %q", rest) end
          found[#found + 1], rest = quoted:gsub("\\(.)", "%1"), after
        end
        rest = rest:gsub("^ ", "")
      end
      auth:accepts()
      return found
    end

    it("quotes for LOGIN what can be quoted", function()
      local outcome = attempt("imap", read_login, {}, { password = 'a "b" \\c 99%' })
      assert.same({ "alice", 'a "b" \\c 99%' }, outcome.record.result)
      assert.equal("LOGIN", outcome.security.mechanism)
    end)

    it("sends a literal for what can't be quoted, waiting where it has to", function()
      for capability, waited in pairs { ["LITERAL+"] = false, ["LITERAL-"] = false, X = true } do
        local outcome = attempt("imap", read_login, { capabilities = { capability } },
          { user = "\xc3\xa4", password = "gr\xc3\xbcn" })
        assert.same({ "\xc3\xa4", "gr\xc3\xbcn", literals = 2, waited = waited },
          outcome.record.result)
      end
    end)

    it("says USER, and PASS with all that the password has", function()
      local outcome = attempt("pop3", function(p, args)
        local auth = require "spec.support.peer_auth".open(p, args)
        local user = auth:command()
        auth:says(auth.words.yes, "who?")
        local pass = auth:command()
        auth:accepts()
        return { user, pass }
      end, { capabilities = { "USER" } }, { password = '  a "b" \xc3\xa4 ' })
      assert.same({ "USER alice", 'PASS   a "b" \xc3\xa4 ' }, outcome.record.result)
      assert.equal("USER", outcome.security.mechanism)
    end)

    it("says no PASS when USER is refused", function()
      local outcome = attempt("pop3", function(p, args)
        local auth = require "spec.support.peer_auth".open(p, args)
        auth:command()
        auth:refuses_for_good "who?"
      end, { capabilities = { "USER" } })
      assert_fails(outcome, "refuses authentication with USER")
      assert.equal("who?", outcome.err.text)
      assert.not_matches("PASS", outcome.record.encrypted)
    end)

    it("stops when the server refuses a literal", function()
      local outcome = attempt("imap", function(p, args)
        local auth = require "spec.support.peer_auth".open(p, args)
        auth:command()
        auth:refuses_for_good "no literals"
      end, { capabilities = { "X" } }, { password = "gr\xc3\xbcn" })
      assert_fails(outcome, "refuses authentication with LOGIN")
      assert.not_matches("gr\xc3\xbcn", outcome.record.encrypted, 1, true)
    end)
  end)

  describe("with a function for the secret", function()
    local function accept(p, args)
      local auth = require "spec.support.peer_auth".open(p, args)
      local response = auth:begins(args.mechanism)
      auth:accepts()
      return response
    end

    local function leave(p, args)
      require "spec.support.peer_auth".open(p, args)
      p:expect_eof()
    end

    local kinds = {
      { option = "password", mechanism = "PLAIN", said = "\0alice\0from the function" },
      { option = "token", mechanism = "XOAUTH2",
        said = "user=alice\1auth=Bearer from the function\1\1" },
    }

    for _, kind in ipairs(kinds) do
      it("calls it once, for the " .. kind.option, function()
        for _, protocol in ipairs(protocols) do
          local calls = 0
          local given = { password = false }
          given[kind.option] = function()
            calls = calls + 1
            return "from the function"
          end
          local outcome = attempt(protocol, accept,
            { offers = { kind.mechanism }, mechanism = kind.mechanism }, given)
          assert.is_nil(outcome.err)
          assert.equal(kind.said, outcome.record.result)
          assert.equal(1, calls)
        end
      end)

      it("ends when it gives none, with its reason, for the " .. kind.option, function()
        for _, protocol in ipairs(protocols) do
          for _, case in ipairs {
            { pattern = "none: the keyring is locked$", give = function()
              return nil, "the keyring is locked"
            end },
            { pattern = "none: nil$", give = function() return nil end },
            { pattern = "none: number$", give = function() return 1234 end },
          } do
            local given = { password = false }
            given[kind.option] = case.give
            local outcome = attempt(protocol, leave, { offers = { kind.mechanism } }, given)
            assert_fails(outcome, "function for the " .. kind.option .. " gave " .. case.pattern)
          end
        end
      end)

      it("refuses a line end in what it gives, for the " .. kind.option, function()
        for _, secret in ipairs { "a\r\nb", "a\nb", "a\0b" } do
          local given = { password = false }
          given[kind.option] = function() return secret end
          local outcome = attempt("smtp", leave, { offers = { kind.mechanism } }, given)
          assert_fails(outcome, "has a CR, LF or NUL")
        end
      end)
    end

    it("closes the session when it raises", function()
      assert.has_error(function()
        attempt("smtp", leave, { offers = { "PLAIN" } },
          { password = function() error("my own error", 0) end })
      end, "my own error")
    end)

    it("calls it not at all when the upgrade fails", function()
      local refusals = { smtp = "454 4.7.0 no\r\n", imap = "%s NO no\r\n", pop3 = "-ERR no\r\n" }
      local greetings = { smtp = "220 hello\r\n", imap = "* OK [CAPABILITY STARTTLS] hello\r\n",
        pop3 = "+OK hello\r\n" }
      for _, protocol in ipairs(protocols) do
        local called = false
        local outcome = attempt(protocol, function(p, args)
          p:send(args.greeting)
          if args.protocol == "smtp" then
            p:expect "^EHLO"
            p:send "250-mail\r\n250 STARTTLS\r\n"
          end
          local tag = p:line():match "^%S+"
          p:send(args.refusal:format(tag))
          p:expect_eof()
        end, { greeting = greetings[protocol], refusal = refusals[protocol] },
          { password = function() called = true end })
        assert.equal("downgrade", outcome.err.kind)
        assert.is_false(called)
      end
    end)

    it("calls it not at all when no mechanism fits", function()
      for _, protocol in ipairs(protocols) do
        local called = false
        local outcome = attempt(protocol, leave, { capabilities = { "LOGINDISABLED" } },
          { password = function() called = true end })
        assert_fails(outcome, "offers no authentication that we know")
        assert.is_false(called)
      end
    end)

    it("asks for the password no second time when binding is refused", function()
      local calls = 0
      local outcome = attempt("smtp", function(p, args)
        local auth = require "spec.support.peer_auth".open(p, args)
        auth:mechanism()
        auth:refuses()
        auth:scram("SCRAM-SHA-256", { password = "secret password" })
        auth:accepts()
      end, { offers = { "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256" } }, { password = function()
        calls = calls + 1
        return "secret password"
      end })
      assert.is_nil(outcome.err)
      assert.equal(1, calls)
    end)
  end)

  describe("with a server that repeats what it was told", function()
    -- Repeats the line that had the credential, or the credential itself.
    local function repeat_it(p, args)
      local auth = require "spec.support.peer_auth".open(p, args)
      local line = auth:command()
      if line:find "^USER" then
        auth:says(auth.words.yes, "who?")
        line = auth:command()
      elseif line:find "^AUTH%a* LOGIN$" then
        auth:asks "Username:"
        p:send(auth.words.challenge, "UGFzc3dvcmQ6\r\n")
        line = p:line():gsub("\r\n$", "")
      end
      auth:refuses_for_good("I heard " .. (args.what or line))
    end

    local password = "secret password"
    local cases = {
      { "PLAIN", "AGFsaWNlAHNlY3JldCBwYXNzd29yZA==" },
      { "LOGIN", "c2VjcmV0IHBhc3N3b3Jk" },
    }

    for _, case in ipairs(cases) do
      local mechanism, encoded = table.unpack(case)
      it("shows it neither in the error nor in the trace, by " .. mechanism, function()
        for _, protocol in ipairs(protocols) do
          for _, what in ipairs { false, password } do
            local outcome = attempt(protocol, repeat_it,
              { offers = { mechanism }, what = what or nil }, { sasl = mechanism })
            assert_fails(outcome, "refuses authentication with " .. mechanism)
            assert.matches("repeats the credential", outcome.err.text)
            assert_hidden(password, outcome)
            assert_hidden(encoded, outcome)
          end
        end
      end)
    end

    it("shows it neither in the error nor in the trace, by the protocol's own login", function()
      for protocol, capability in pairs { imap = "X", pop3 = "USER" } do
        local outcome = attempt(protocol, repeat_it, { capabilities = { capability } })
        assert_fails(outcome, "refuses authentication with ")
        assert.matches("repeats the credential", outcome.err.text)
        assert_hidden(password, outcome)
      end
    end)

    it("shows it neither when the server repeats it in a line of its own", function()
      local lines = { smtp = "535-%s\r\n535 no\r\n", imap = "* NO [ALERT] %s\r\n%s NO no\r\n" }
      for protocol, text in pairs(lines) do
        local outcome = attempt(protocol, function(p, args)
          local auth = require "spec.support.peer_auth".open(p, args)
          auth:mechanism()
          p:send(args.text:format("AGFsaWNlAHNlY3JldCBwYXNzd29yZA==", auth.tag))
          p:expect_eof()
        end, { offers = { "PLAIN" }, text = text })
        assert_fails(outcome, "refuses authentication with PLAIN")
        assert_hidden("AGFsaWNlAHNlY3JldCBwYXNzd29yZA==", outcome)
      end
    end)
  end)

  describe("on a channel that is not both encrypted and verified", function()
    local function accept_plain(p, args)
      local auth = require "spec.support.peer_auth".open(p, args)
      local response = auth:begins "PLAIN"
      auth:accepts()
      return response
    end

    local function leave(p, args)
      require "spec.support.peer_auth".open(p, args)
      p:expect_eof()
    end

    -- Nothing that looks like a credential came in the clear.
    local function assert_nothing_heard(outcome)
      assert.not_matches("AUTH", outcome.record.clear)
      assert.not_matches("LOGIN", outcome.record.clear)
      assert.not_matches("PASS", outcome.record.clear)
      assert.not_matches("AUTH", outcome.record.encrypted)
    end

    for _, protocol in ipairs(protocols) do
      it("sends nothing in the clear where the upgrade is not offered, by " .. protocol, function()
        local called = false
        local outcome = attempt(protocol, leave, { offers = { "PLAIN" }, secure = false,
          capabilities = { "USER" } }, { tls = "opportunistic", password = function()
            called = true
          end })
        assert.same({ "downgrade", "auth" }, { outcome.err.kind, outcome.err.during })
        assert.matches("not encrypted", outcome.err.message)
        assert.is_false(called)
        assert_nothing_heard(outcome)
      end)

      it("sends it in the clear with insecure_auth, by " .. protocol, function()
        for _, tls in ipairs { "none", "opportunistic" } do
          local outcome = attempt(protocol, accept_plain,
            { offers = { "PLAIN" }, secure = false }, { tls = tls, insecure_auth = true })
          assert.is_nil(outcome.err)
          assert.is_false(outcome.security.encrypted)
          assert.equal("PLAIN", outcome.security.mechanism)
          assert.equal("\0alice\0secret password", outcome.record.result)
        end
      end)

      it("sends it unverified with insecure_auth and no verification, by " .. protocol, function()
        for _, tls in ipairs { "starttls", "implicit", "opportunistic" } do
          local outcome = attempt(protocol, accept_plain,
            { offers = { "PLAIN" }, implicit = tls == "implicit" },
            { tls = tls, insecure_auth = true, insecure_no_verify = true,
              server_name = "other.example.test" })
          assert.is_nil(outcome.err)
          assert.same({ true, false }, { outcome.security.encrypted, outcome.security.verified })
          assert.equal("\0alice\0secret password", outcome.record.result)
        end
      end)

      it("sends nothing where the certificate is not good, insecure_auth or not, by " .. protocol,
        function()
          for _, tls in ipairs { "starttls", "implicit", "opportunistic" } do
            for _, insecure_auth in ipairs { false, true } do
              local peer <close> = Peer.start(function(p, args)
                require "spec.support.peer_auth".open(p, args)
              end, { protocol = protocol, cert = mail.cert, key = mail.key, offers = { "PLAIN" },
                implicit = tls == "implicit" })
              local session, err = clients.try(mail, protocol, { port = peer.port, tls = tls,
                insecure_auth = insecure_auth, server_name = "other.example.test" })
              assert.is_nil(session)
              assert.equal("certificate", err.kind)
              assert_nothing_heard { record = peer:finish() }
            end
          end
        end)

      it("refuses by itself what the options alone show to be unsafe, by " .. protocol, function()
        local connect = require("starttls." .. protocol).connect
        local options = { host = "localhost", port = 1, user = "alice", password = "x" }
        options.tls = "none"
        assert.error_matches(function() connect(options) end, "not sent in the clear")
        options.tls, options.insecure_no_verify = "starttls", true
        assert.error_matches(function() connect(options) end, "certificate is not verified")
        options.tls = "implicit"
        assert.error_matches(function() connect(options) end, "certificate is not verified")
      end)
    end
  end)
end)
