-- The trace: every line in both directions with its time and whether it was encrypted, with
-- credentials blanked, and message content as counts of octets.

local mime = require "mime"
local socket = require "socket"
local Peer = require "spec.support.peer"
local clients = require "spec.support.clients"
local servers = require "spec.support.servers"

local protocols = clients.protocols

describe("A trace", function()
  local mail

  setup(function() mail = servers.shared() end)

  -- Options with a trace function, and the array that it fills.
  local function traced(given)
    local events, options = {}, {}
    for name, value in pairs(given or {}) do options[name] = value end
    options.trace = function(event) events[#events + 1] = event end
    return options, events
  end

  -- Runs `script(p, args)` as the server and `action(session)` as the client. Returns the
  -- events, the peer's record, and the error of connect().
  local function run(protocol, script, args, given, action)
    local all = { protocol = protocol, cert = mail.cert, key = mail.key }
    for name, value in pairs(args or {}) do all[name] = value end
    local peer <close> = Peer.start(script, all)
    local options, events = traced { port = peer.port, password = "pass word" }
    for name, value in pairs(given or {}) do options[name] = value end
    local session, err = clients.try(mail, protocol, options)
    if session then
      if action then action(session) end
      session:close()
    end
    local record = peer:finish()
    assert.is_nil(record.error)
    return events, record, err
  end

  local function texts(events, direction, encrypted)
    local found = {}
    for _, event in ipairs(events) do
      local is_wanted = event.direction == direction
        and (encrypted == nil or event.encrypted == encrypted)
      if is_wanted and event.text then found[#found + 1] = event.text end
    end
    return found
  end

  local function whole_text(events)
    local lines = {}
    for _, event in ipairs(events) do lines[#lines + 1] = event.text or "" end
    return table.concat(lines, "\n")
  end

  -- A pattern for a line in which a credential may stand.
  local function shown(text)
    local pattern = text:gsub("%p", "%%%0"):gsub("%%<secret%%>", "%%S+")
    return "^" .. pattern .. "$"
  end

  -- The events of that direction tell what went over the wire: all of it, line by line. Behind
  -- the literal of IMAP's APPEND a line ends that has nothing more to tell.
  local function assert_tells(events, direction, encrypted, wire, protocol)
    local at, in_literal = 1, false
    local function leave_literal()
      if in_literal then
        assert.equal("\r\n", wire:sub(at, at + 1))
        at, in_literal = at + 2, false
      end
    end
    for _, event in ipairs(events) do
      if event.direction == direction and event.encrypted == encrypted then
        if event.bytes then
          at, in_literal = at + event.bytes, protocol == "imap" and direction == "sent"
        else
          leave_literal()
          local ending = assert(wire:find("\r\n", at, true), "no such line: " .. event.text)
          assert.matches(shown(event.text), wire:sub(at, ending - 1))
          at = ending + 2
        end
      end
    end
    leave_literal()
    assert.equal("", wire:sub(at))
  end

  -- A server that tells what it said, takes PLAIN, and has a message.
  local function whole_session(p, args)
    local said, send = { clear = "", encrypted = "" }, p.send
    function p.send(self, ...)
      local when = self.secure and "encrypted" or "clear"
      said[when] = said[when] .. table.concat { ... }
      send(self, ...)
    end
    local auth = require "spec.support.peer_auth".open(p, args)
    auth:begins "PLAIN"
    auth:says(auth.words.yes, "welcome")
    local serve = {}
    function serve.smtp()
      p:smtp_receive()
    end
    function serve.imap()
      local tag, line = p:imap_expect "^APPEND "
      p:send "+ go on\r\n"
      p:read(math.tointeger(line:match "{(%d+)}"))
      p:expect "^\r\n$"
      p:send(tag, " OK done\r\n")
      tag = p:imap_expect "^UID FETCH"
      p:send("* 1 FETCH (UID 7 BODY[HEADER] {8}\r\na: b\r\n\r\n BODY[TEXT] {3}\r\nc\r\n)\r\n",
        tag, " OK done\r\n")
    end
    function serve.pop3()
      p:expect "^RETR 1\r\n"
      p:send "+OK here it is\r\na: b\r\n\r\nc\r\n.\r\n"
      p:expect "^LIST\r\n"
      p:send "+OK all\r\n1 11\r\n.\r\n"
    end
    serve[args.protocol]()
    p:expect_eof()
    return said
  end

  local use = {
    smtp = function(session)
      assert(session:send { from = "alice@example.test", to = "bob@example.test",
        message = "a: b\n\nc" })
    end,
    imap = function(session)
      assert(session:append("INBOX", "a: b\n\nc"))
      assert(session:fetch_all(7, { "headers", "text" }))
    end,
    pop3 = function(session)
      assert(session:retr(1))
      assert(session:list())
    end,
  }

  local function walk(protocol, args, given)
    args.offers = { "PLAIN" }
    return run(protocol, whole_session, args, given, use[protocol])
  end

  for _, protocol in ipairs(protocols) do
    describe("of " .. protocol, function()
      it("tells every line of both directions on both sides of the upgrade", function()
        local events, record = walk(protocol, {})
        assert_tells(events, "sent", false, record.clear, protocol)
        assert_tells(events, "sent", true, record.encrypted, protocol)
        assert_tells(events, "received", false, record.result.clear, protocol)
        assert_tells(events, "received", true, record.result.encrypted, protocol)
        assert.is_true(#texts(events, "sent", false) > 0)
        assert.is_true(#texts(events, "received", false) > 0)
      end)

      it("notes the connection and the encryption, and nothing is clear after it", function()
        local events = walk(protocol, {})
        assert.same({ "note", false }, { events[1].direction, events[1].encrypted })
        assert.matches("^connected to 127%.0%.0%.1:%d+$", events[1].text)
        local upgraded = 1
        while not events[upgraded].encrypted do upgraded = upgraded + 1 end
        for i, event in ipairs(events) do assert.equal(i >= upgraded, event.encrypted) end
        assert.equal("note", events[upgraded].direction)
        assert.matches("^encrypted: TLS1%.3, TLS_%S+, certificate verified$",
          events[upgraded].text)
        local verb = protocol == "pop3" and "STLS" or "STARTTLS"
        assert.matches(verb .. "$", events[upgraded - 2].text)
        assert.equal("received", events[upgraded - 1].direction)
        assert.equal(2, #texts(events, "note"))
      end)

      it("is encrypted as a whole but for the connection, with implicit TLS", function()
        local events, record = walk(protocol, { implicit = true }, { tls = "implicit" })
        assert.matches("^connected to ", events[1].text)
        for i, event in ipairs(events) do assert.equal(i > 1, event.encrypted) end
        assert.matches("^encrypted: ", events[2].text)
        assert_tells(events, "sent", true, record.encrypted, protocol)
        assert_tells(events, "received", true, record.result.encrypted, protocol)
      end)

      it("is clear as a whole without TLS, and blanks credentials all the same", function()
        local events, record = walk(protocol, { secure = false },
          { tls = "none", insecure_auth = true })
        for _, event in ipairs(events) do assert.is_false(event.encrypted) end
        assert.equal(1, #texts(events, "note"))
        assert_tells(events, "sent", false, record.clear, protocol)
        assert_tells(events, "received", false, record.result.clear, protocol)
        assert.matches("PLAIN <secret>", whole_text(events))
      end)

      it("says so when the certificate is not verified", function()
        local events = walk(protocol, {}, { insecure_auth = true, insecure_no_verify = true,
          server_name = "other.example.test" })
        assert.matches("certificate NOT verified$", texts(events, "note")[2])
      end)

      it("tells the time of every event", function()
        local begun = socket.gettime()
        local events = walk(protocol, {})
        local ended = socket.gettime()
        for _, event in ipairs(events) do
          assert.equal("float", math.type(event.time))
          assert.is_true(event.time > begun - 1 and event.time < ended + 1)
        end
      end)

      it("has text or a count in every event, and no line end", function()
        for _, event in ipairs(walk(protocol, {})) do
          assert.is_true((event.text == nil) ~= (event.bytes == nil))
          if event.text then assert.not_matches("[\r\n]", event.text) end
        end
      end)

      it("goes up to what led to a failure", function()
        local no = { smtp = "454 4.7.0 not now\r\n", imap = "A1 NO not now\r\n",
          pop3 = "-ERR not now\r\n" }
        local greeting = { smtp = "220 hello\r\n", imap = "* OK [CAPABILITY STARTTLS] hello\r\n",
          pop3 = "+OK hello\r\n" }
        local events, _, err = run(protocol, function(p, args)
          p:send(args.greeting)
          if args.protocol == "smtp" then
            p:expect "^EHLO "
            p:send "250-mail.example.test\r\n250 STARTTLS\r\n"
          end
          p:line()
          p:send(args.no)
          p:expect_eof()
        end, { greeting = greeting[protocol], no = no[protocol] })
        assert.equal("downgrade", err.kind)
        local last = events[#events]
        assert.same({ "received", false, (no[protocol]:gsub("\r\n", "")) },
          { last.direction, last.encrypted, last.text })
      end)
    end)
  end

  describe("shows message content as a count:", function()
    local body = ("not for the trace\r\n"):rep(20000)
    local message = "Subject: content\r\n\r\n" .. body

    -- The sum of the counts in that direction.
    local function counted(events, direction)
      local sum = 0
      for _, event in ipairs(events) do
        if event.bytes then
          assert.equal(direction, event.direction)
          assert.is_true(event.encrypted)
          assert.equal("integer", math.type(event.bytes))
          sum = sum + event.bytes
        end
      end
      assert.not_matches("not for the trace", whole_text(events), 1, true)
      return sum
    end

    before_each(function() clients.empty(mail, "alice") end)

    it("sent by SMTP", function()
      local options, events = traced()
      local session <close> = clients.connect(mail, "smtp", options)
      assert(session:send { from = "alice@example.test", to = "alice@example.test",
        message = message })
      assert.equal(#message, counted(events, "sent"))
      local last = texts(events, "sent")
      local before = #message - 196608 -- what goes into the last chunk
      assert.same({ "BDAT 196608", ("BDAT %d LAST"):format(before) },
        { last[#last - 1], last[#last] })
      mail:wait_for_mail("alice", 1)
    end)

    it("appended by IMAP, and fetched", function()
      local options, events = traced()
      do
        local session <close> = clients.connect(mail, "imap", options)
        assert(session:append("INBOX", message))
      end
      assert.equal(#message, counted(events, "sent"))
      options, events = traced()
      local session <close> = clients.connect(mail, "imap", options)
      assert(session:select "INBOX")
      assert(session:fetch_all("1:*", { "body" }))
      assert.equal(#message, counted(events, "received"))
    end)

    it("fetched by POP3", function()
      mail:deliver("alice", (message:gsub("\r\n", "\n")))
      local options, events = traced()
      local session <close> = clients.connect(mail, "pop3", options)
      assert(session:retr(1))
      assert.equal(#message, counted(events, "received"))
      local last = texts(events, "received")
      assert.matches("^%+OK", last[#last - 1])
      assert.equal(".", last[#last])
    end)

    it("between the beginning and the rest of an IMAP line", function()
      local events = run("imap", function(p, args)
        local auth = require "spec.support.peer_auth".open(p, args)
        auth:begins "PLAIN"
        auth:says(auth.words.yes, "welcome")
        local tag = p:imap_expect "^UID FETCH"
        p:send "* 1 FETCH (UID 7 BODY[HEADER] {8}\r\na: b\r\n"
        p:send "\r\n BODY[TEXT] {0}\r\n FLAGS ())\r\n"
        p:send("* 2 EXISTS\r\n", tag, " OK done\r\n")
        p:expect_eof()
      end, { offers = { "PLAIN" } }, nil, function(session)
        assert(session:fetch_all("7", { "headers", "text", "flags" }))
      end)
      -- One literal may be counted in several events.
      local lines = {}
      for _, event in ipairs(events) do
        local last = lines[#lines]
        if event.bytes and math.type(last) then lines[#lines] = last + event.bytes
        else lines[#lines + 1] = event.text or event.bytes end
      end
      assert.same({
        "A3 UID FETCH 7 (UID BODY.PEEK[HEADER] BODY.PEEK[TEXT] FLAGS)",
        "* 1 FETCH (UID 7 BODY[HEADER] {8}", 8, " BODY[TEXT] {0}", " FLAGS ())",
        "* 2 EXISTS", "A3 OK done",
      }, table.move(lines, #lines - 6, #lines, 1, {}))
    end)

    it("and not at all where the server puts it in quotes", function()
      local events = run("imap", function(p, args)
        local auth = require "spec.support.peer_auth".open(p, args)
        auth:begins "PLAIN"
        auth:says(auth.words.yes, "welcome")
        local tag = p:imap_expect "^UID FETCH"
        p:send_slowly '* 1 FETCH (UID 7 BODY[TEXT] "a \\"b" X "shown")\r\n'
        p:send(tag, " OK done\r\n")
        p:expect_eof()
      end, { offers = { "PLAIN" } }, nil, function(session)
        assert.equal('a "b', assert(session:fetch_all("7", { "text" }))[1].text)
      end)
      assert.equal('* 1 FETCH (UID 7 BODY[TEXT] "<content>" X "shown")', events[#events - 1].text)
    end)
  end)

  it("has a line for each line of a response with a literal that is no content", function()
    local events = run("imap", function(p, args)
      local auth = require "spec.support.peer_auth".open(p, args)
      auth:begins "PLAIN"
      auth:says(auth.words.yes, "welcome")
      local tag = p:imap_expect "^LIST"
      p:send('* LIST () "/" {8}\r\na"b\r\nc"d\r\n', '* LIST () "/" {1}\r\ne\r\n')
      p:send(tag, " OK done\r\n")
      p:expect_eof()
    end, { offers = { "PLAIN" } }, nil, function(session) assert(session:list()) end)
    local received = texts(events, "received")
    assert.same({ '* LIST () "/" {8}', 'a"b', 'c"d', '* LIST () "/" {1}', "e", "A3 OK done" },
      table.move(received, #received - 5, #received, 1, {}))
  end)

  describe("blanks a credential", function()
    local password = "pass word"
    local long = ("t0ken"):rep(200)

    -- Takes what the client says, with these challenges in between, and refuses it.
    local function challenge(p, args)
      local auth = require "spec.support.peer_auth".open(p, args)
      auth:command()
      for _, text in ipairs(args.challenges) do auth:asks(text) end
      auth:refuses_for_good()
    end

    -- Says yes to USER.
    local function say_yes(p, args)
      local auth = require "spec.support.peer_auth".open(p, args)
      auth:command()
      auth:says(auth.words.yes, "who?")
      auth:command()
      auth:refuses_for_good()
    end

    -- Takes LOGIN with two literals that the client waits for.
    local function take_literals(p, args)
      local auth = require "spec.support.peer_auth".open(p, args)
      local line = auth:command()
      for _ = 1, 2 do
        p:send "+ go on\r\n"
        p:read(math.tointeger(line:match "{(%d+)}$"))
        line = p:line():gsub("\r\n", "")
      end
      auth:refuses_for_good()
    end

    local function prove(p, args)
      local auth = require "spec.support.peer_auth".open(p, args)
      auth:scram("SCRAM-SHA-256", { password = args.password })
      auth:accepts()
    end

    local cases = {
      { "in an initial response", offers = { "PLAIN" },
        smtp = { "AUTH PLAIN <secret>" }, imap = { "A2 AUTHENTICATE PLAIN <secret>" },
        pop3 = { "AUTH PLAIN <secret>" } },
      { "in a line of its own", offers = { "PLAIN" }, capabilities = { "X" }, challenges = { "" },
        imap = { "A2 AUTHENTICATE PLAIN", "<secret>" } },
      { "in both lines of LOGIN", offers = { "LOGIN" }, given = { sasl = "LOGIN" },
        challenges = { "Username:", "Password:" },
        smtp = { "AUTH LOGIN", "<secret>", "<secret>" },
        imap = { "A2 AUTHENTICATE LOGIN", "<secret>", "<secret>" },
        pop3 = { "AUTH LOGIN", "<secret>", "<secret>" } },
      { "in the digest of CRAM-MD5", offers = { "CRAM-MD5" }, given = { sasl = "CRAM-MD5" },
        challenges = { "<1@example.test>" },
        smtp = { "AUTH CRAM-MD5", "<secret>" }, imap = { "A2 AUTHENTICATE CRAM-MD5", "<secret>" },
        pop3 = { "AUTH CRAM-MD5", "<secret>" } },
      { "in the proof of SCRAM", offers = { "SCRAM-SHA-256" }, script = prove,
        smtp = { "AUTH SCRAM-SHA-256 <secret>", "<secret>", "" },
        imap = { "A2 AUTHENTICATE SCRAM-SHA-256 <secret>", "<secret>", "" },
        pop3 = { "AUTH SCRAM-SHA-256 <secret>", "<secret>", "" } },
      { "that is a token", offers = { "XOAUTH2" }, given = { token = "t0ken" },
        challenges = { "{}" },
        smtp = { "AUTH XOAUTH2 <secret>", "" }, imap = { "A2 AUTHENTICATE XOAUTH2 <secret>", "" },
        pop3 = { "AUTH XOAUTH2 <secret>", "" } },
      { "that is a token too long for the command's line", offers = { "OAUTHBEARER" },
        given = { token = long }, challenges = { "" },
        smtp = { "AUTH OAUTHBEARER", "<secret>" }, pop3 = { "AUTH OAUTHBEARER", "<secret>" } },
      { "in quotes", imap = { 'A2 LOGIN "alice" <secret>' } },
      { "in a literal", capabilities = { "LITERAL+" }, given = { password = "pass w\xc3\xb6rd" },
        script = function(p, args)
          local auth = require "spec.support.peer_auth".open(p, args)
          p:read(math.tointeger(auth:command():match "{(%d+)%+}$"))
          p:expect "^\r\n$"
          auth:refuses_for_good()
        end,
        imap = { 'A2 LOGIN "alice" <secret>' } },
      { "in a literal that the server asks for", capabilities = { "X" },
        given = { user = "al\xc3\xaf", password = "pass w\xc3\xb6rd" }, script = take_literals,
        imap = { "A2 LOGIN {4} al\xc3\xaf <secret>" } },
      { "of PASS", capabilities = { "USER" }, script = say_yes,
        pop3 = { "USER alice", "PASS <secret>" } },
    }

    for _, case in ipairs(cases) do
      for _, protocol in ipairs(protocols) do
        local expected = case[protocol]
        if expected then
          it(("%s, by %s"):format(case[1], protocol), function()
            local events = run(protocol, case.script or challenge, { offers = case.offers,
              capabilities = case.capabilities, challenges = case.challenges or {},
              password = password }, case.given)
            local sent = texts(events, "sent", true)
            assert.same(expected, table.move(sent, 2, #sent, 1, {})) -- behind EHLO and the like
            local text = whole_text(events)
            local given = case.given or {}
            for _, secret in ipairs { password, given.password or password, given.token or long,
              (mime.b64(given.password or password)), (mime.b64("\0alice\0" .. password)) } do
              assert.not_matches(secret, text, 1, true)
            end
          end)
        end
      end
    end

    it("with every mechanism of the real servers", function()
      local user = mail.users.bob
      for _, protocol in ipairs(protocols) do
        for _, name in ipairs { "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN", "CRAM-MD5" } do
          local options, events = traced { sasl = name, user = "bob", password = user.password }
          clients.connect(mail, protocol, options):close()
          local text = whole_text(events)
          assert.matches("<secret>", text)
          for _, secret in ipairs { user.password, (mime.b64(user.password)),
            (mime.b64("\0bob\0" .. user.password)) } do
            assert.not_matches(secret, text, 1, true)
          end
        end
      end
    end)
  end)
end)
