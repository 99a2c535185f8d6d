-- What a script passes in can't become a command of its own: line breaks, NUL and what the
-- protocols' grammars don't allow are refused before a byte is sent, odd but legal strings
-- arrive as they are, and message content ends where the message does and nowhere else.

local Peer = require "spec.support.peer"
local certificates = require "spec.support.certificates"
local process = require "spec.support.process"
local servers = require "spec.support.servers"

local protocols = {
  smtp = require "starttls.smtp", imap = require "starttls.imap", pop3 = require "starttls.pop3",
}

local directory, ca, cert

-- Sessions with a peer that says yes to everything --------------------------------------------

-- Returns the commands that came after the login.
local function agreeable(p, args)
  local yes = { smtp = "250 2.0.0 OK\r\n", imap = " OK done\r\n", pop3 = "+OK\r\n" }
  local commands = {}
  p[args.protocol .. "_upgrade"](p, args)
  repeat
    local line = p:line()
    local tag = args.protocol == "imap" and line:match "^%S+" or ""
    if not line:find "CAPABILITY" then commands[#commands + 1] = line:sub(#tag + 1) end
    p:send(tag, yes[args.protocol])
  until line:find "QUIT" or line:find "LOGOUT"
  return commands
end

local function start(script, protocol, more)
  local args = { protocol = protocol, cert = cert.cert, key = cert.key }
  for name, value in pairs(more or {}) do args[name] = value end
  return Peer.start(script, args)
end

local function connect(protocol, port, more)
  local options = { host = "127.0.0.1", port = port, ca_file = ca.cert, user = "alice",
    password = "secret" }
  for name, value in pairs(more or {}) do options[name] = value end
  return protocols[protocol].connect(options)
end

local function goodbye(session)
  return assert((session.quit or session.logout)(session))
end

-- Misuse raises a string; an error object would be a failure of the session.
local function assert_raises(words, which, ...)
  local ok, err = pcall(...)
  assert(not ok, ("call %s does not raise"):format(which))
  assert.is_string(err)
  assert(err:find(words, 1, true), ("call %s: %q is not in %q"):format(which, words, err))
end

-- Makes calls that have to raise, each with words that say why, on an open session, which is
-- used after each of them. `calls`: list of { words, function(session) }.
local function assert_refused(protocol, calls)
  local peer <close> = start(agreeable, protocol)
  local session <close> = assert(connect(protocol, peer.port))
  for i, call in ipairs(calls) do
    assert_raises(call[1], i, call[2], session)
    assert(session:noop())
  end
  goodbye(session)
  local record = peer:finish()
  assert.is_true(record.ok, record.error)
  local commands = record.result
  assert.equals(#calls + 1, #commands)
  for i = 1, #calls do assert.equals("NOOP\r\n", commands[i]:match "^ ?(.*)$") end
end

-- Strings that must not pass ------------------------------------------------------------------

-- The text with CR, LF, NUL or CRLF and a command at its start, in its middle and at its end.
local function broken(text)
  local all = {}
  for _, breaker in ipairs { "\r", "\n", "\0", "\r\nNOOP\r\n" } do
    for _, at in ipairs { 0, #text // 2, #text } do
      all[#all + 1] = text:sub(1, at) .. breaker .. text:sub(at + 1)
    end
  end
  return all
end

-- Calls for assert_refused: `call(session, string)` for each string.
local function each(words, strings, call)
  local calls = {}
  for i, text in ipairs(strings) do
    calls[i] = { words, function(session) return call(session, text) end }
  end
  return calls
end

local function send_from(session, address)
  return session:send { from = address, to = "bob@example.test", message = "x\r\n" }
end

local function send_to(session, address)
  return session:send { from = "a@example.test", to = { "bob@example.test", address },
    message = "x\r\n" }
end

local long_local = ("l"):rep(65) .. "@example.test"
local long_address = "a@" .. ("d"):rep(253)

-- Addresses that could end the path, and those that are none. They may not be sent either.
local bad_addresses = {
  { "<bob@example.test>", "outside of quotes" }, { "bob@example.test>", "outside of quotes" },
  { "bob@example.test> SIZE=1", "outside of quotes" }, { "b ob@example.test", "outside of quotes" },
  { "bob@example.test ", "outside of quotes" }, { " bob@example.test", "outside of quotes" },
  { "bob(c)@example.test", "outside of quotes" }, { "bob@example.test\\", "outside of quotes" },
  { "bob\\@example.test", "outside of quotes" },
  { "bob\t@example.test", "control character" }, { "bob\127@example.test", "control character" },
  { '"bob@example.test', "unfinished quoted string" }, { 'bob"@example.test', "unfinished" },
  { '"bob\\"@example.test', "unfinished quoted string" },
  { "b\xf6b@example.test", "valid UTF-8" }, { "b\xed\xa0\x80b@example.test", "valid UTF-8" },
  { "@example.test", "lacks a local part" }, { "bob@", "lacks a local part or domain" },
  { long_local, "more than 64 octets" }, { long_address, "longer than 254 octets" },
}

describe("what a script passes in", function()
  setup(function()
    directory = process.temporary_directory()
    ca = certificates.ca(directory.path)
    cert = ca:issue { name = "peer", ip = { "127.0.0.1" } }
  end)

  teardown(function()
    directory:close()
  end)

  describe("to SMTP's commands", function()
    it("is refused with CR, LF or NUL in a sender", function()
      assert_refused("smtp", each("CR, LF or NUL", broken "alice@example.test", send_from))
    end)

    it("is refused with CR, LF or NUL in a recipient", function()
      assert_refused("smtp", each("CR, LF or NUL", broken "bob@example.test", send_to))
    end)

    it("is refused with CR, LF or NUL in what VRFY asks for", function()
      assert_refused("smtp", each("CR, LF or NUL", broken "bob", function(session, text)
        return session:verify(text)
      end))
    end)

    it("is refused where an address could end before its end, or is none", function()
      local calls = {}
      for _, case in ipairs(bad_addresses) do
        local address, words = case[1], case[2]
        calls[#calls + 1] = { words, function(session) return send_from(session, address) end }
        calls[#calls + 1] = { words, function(session) return send_to(session, address) end }
      end
      assert_refused("smtp", calls)
    end)

    it("is refused where a recipient is empty, the line too long, or the type wrong", function()
      assert_refused("smtp", {
        { "empty", function(session) return send_to(session, "") end },
        { "longer than the protocol", function(session)
          return session:verify(("x"):rep(5000))
        end },
        { "string", function(session) return session:verify(nil) end },
        { "string", function(session) return session:verify {} end },
        { "address", function(session) return send_from(session, 5) end },
        { "empty", function(session)
          return session:send { from = "a@b", to = {}, message = "x" }
        end },
        { "valid UTF-8", function(session)
          return session:send { from = "a@b", to = "\xff@c", message = "x" }
        end },
        { "string", function(session) return send_to(session, 5) end },
        { "string", function(session) return send_to(session, true) end },
        { "message", function(session) return session:send { from = "a@b", to = "c@d" } end },
        { "message", function(session)
          return session:send { from = "a@b", to = "c@d", message = 5 }
        end },
        { "unknown field 'subject'", function(session)
          return session:send { from = "a@b", to = "c@d", message = "x", subject = "x" }
        end },
      })
    end)

    it("passes where an odd address is legal", function()
      local peer <close> = start(function(p, args)
        p:smtp_upgrade(args)
        local envelope = p:smtp_receive()
        p:expect "^QUIT" p:send "221 bye\r\n"
        return envelope
      end, "smtp")
      local session <close> = assert(connect("smtp", peer.port))
      local to = { '"odd > name"@example.test', '"a\\"b\\\\"@example.test', "postmaster",
        "bob+tag@[IPv6:2001:db8::1]", ("l"):rep(64) .. "@example.test" }
      assert(session:send { from = "", to = to, message = "x\r\n" })
      goodbye(session)
      local envelope = peer:finish().result
      assert.equals("MAIL FROM:<>", envelope.from:match "^%S+ %S+")
      for i, address in ipairs(to) do
        assert.equals(("RCPT TO:<%s>\r\n"):format(address), envelope.to[i])
      end
    end)
  end)

  describe("to IMAP's commands", function()
    local string_arguments = {
      ["a name to SELECT"] = function(session, text) return session:select(text) end,
      ["a name to EXAMINE"] = function(session, text) return session:examine(text) end,
      ["a name to STATUS"] = function(session, text) return session:status(text) end,
      ["a reference to LIST"] = function(session, text) return session:list(text, "*") end,
      ["a pattern to LIST"] = function(session, text) return session:list("", text) end,
      ["a name to APPEND"] = function(session, text) return session:append(text, "x\r\n") end,
      ["a name to COPY"] = function(session, text) return session:copy("1", text) end,
    }
    for name, call in pairs(string_arguments) do
      it("is refused with CR, LF or NUL in " .. name, function()
        assert_refused("imap", each("CR, LF or NUL", broken "Drafts", call))
      end)
    end

    it("is refused with CR, LF or NUL in a date to APPEND", function()
      assert_refused("imap", each("date", broken "17-Jul-1996 02:44:25 -0700",
        function(session, text)
          return session:append("INBOX", "x\r\n", { date = text })
        end))
    end)

    local set_arguments = {
      FETCH = function(session, set) return session:fetch(set, { "flags" }) end,
      STORE = function(session, set) return session:store(set, { add = { "\\Seen" } }) end,
      COPY = function(session, set) return session:copy(set, "INBOX") end,
    }
    for verb, call in pairs(set_arguments) do
      it("is refused in a set that is none, to " .. verb, function()
        local sets = broken "1:5"
        for _, set in ipairs { "", "1 2", "1)", "x", "1:5 (FLAGS)", "{1}", -1, { -1 }, { 1.5 },
          { "1 2" }, { "1\r\n" } } do
          sets[#sets + 1] = set
        end
        assert_refused("imap", each("set", sets, call))
        local odd = { 1.0, true, 0, { 0 }, { true }, math.mininteger }
        assert_refused("imap", each("set", odd, call))
      end)
    end

    it("is refused in a fetch item", function()
      assert_refused("imap", each("item", broken "BODY[1]", function(session, item)
        return session:fetch("1", { item })
      end))
      assert_refused("imap", each("item", { "", "ENV\u{e9}LOPE", 5, {} }, function(session, item)
        return session:fetch("1", { item })
      end))
    end)

    it("is refused in a status item", function()
      local items = broken "MESSAGES"
      for _, item in ipairs { "", "MESSAGES UNSEEN", "MESSAGES)", "{5}", "\u{e9}", 5, {} } do
        items[#items + 1] = item
      end
      assert_refused("imap", each("status", items, function(session, item)
        return session:status("INBOX", { item })
      end))
    end)

    it("is refused in search criteria, where they would announce a literal too", function()
      assert_refused("imap", each("item", broken "UNSEEN", function(session, criteria)
        return session:search(criteria)
      end))
      assert_refused("imap", each("literal", { "SUBJECT {5}", "SUBJECT {5+}", "TEXT {0-}",
        "TEXT ~{3}" }, function(session, criteria) return session:search(criteria) end))
      assert_refused("imap", each("item", { "", "SUBJECT \u{e9}" }, function(session, criteria)
        return session:search(criteria)
      end))
    end)

    it("is refused in a flag", function()
      local flags = broken "\\Seen"
      for _, flag in ipairs { "", "\\", "two words", "par(en", "par)en", "st*r", "%", '"q"',
        "\\\\x", "bracket]", "{5}", "\u{e9}" } do
        flags[#flags + 1] = flag
      end
      assert_refused("imap", each("flag", flags, function(session, flag)
        return session:store("1", { add = { flag } })
      end))
      assert_refused("imap", each("flag", flags, function(session, flag)
        return session:append("INBOX", "x\r\n", { flags = { flag } })
      end))
    end)

    it("is refused where a mailbox name is not UTF-8", function()
      assert_refused("imap", each("UTF-8", { "\xff", "a\xc3", "\xed\xa0\x80", "\xc0\xaf",
        "\xf4\x90\x80\x80" }, function(session, name) return session:select(name) end))
    end)

    it("is refused where the type is wrong", function()
      assert_refused("imap", {
        { "string", function(session) return session:select(nil) end },
        { "string", function(session) return session:select {} end },
        { "string", function(session) return session:list({}, "*") end },
        { "string", function(session) return session:search(nil) end },
        { "message", function(session) return session:append("INBOX", nil) end },
        { "string", function(session) return session:append(nil, "x") end },
        { "add, remove or replace", function(session) return session:store("1", {}) end },
        { "set", function(session) return session:fetch(nil, { "flags" }) end },
      })
    end)
  end)

  describe("to POP3's commands", function()
    local numbers = { 0, -1, math.mininteger, 1.5, 1.0, 2 ^ 53, math.huge, 0 / 0, "1",
      "1\r\nDELE 2", true, {} }

    for _, name in ipairs { "retr", "top", "dele", "list", "uidl" } do
      it(("is refused where the message number is none, to %s"):format(name:upper()), function()
        assert_refused("pop3", each("positive integer", numbers, function(session, n)
          return session[name](session, n)
        end))
      end)
    end

    it("is refused where the number of lines is none, to TOP", function()
      assert_refused("pop3", each("lines", { -1, 1.5, "1", "1\r\nDELE 2", math.huge, {} },
        function(session, lines) return session:top(1, lines) end))
    end)

    it("passes where it is a number, however large", function()
      local peer <close> = start(agreeable, "pop3")
      local session <close> = assert(connect("pop3", peer.port))
      assert(session:dele(math.maxinteger))
      goodbye(session)
      assert.equals("DELE 9223372036854775807\r\n", peer:finish().result[1])
    end)
  end)

  describe("as an option", function()
    local strings = { "host", "user", "password", "token", "authzid", "server_name", "tls_priority",
      "ca_file", "ca_path", "client_cert", "client_key", "sasl", "channel_binding", "tls" }

    local paths = { ca_file = true, ca_path = true, client_cert = true, client_key = true }

    -- What the option would be if nothing were wrong with it.
    local function good_value(name)
      local values = { host = "127.0.0.1", ca_file = ca.cert, ca_path = directory.path,
        client_cert = cert.cert, client_key = cert.key, server_name = "localhost",
        tls_priority = "NORMAL", sasl = "PLAIN", channel_binding = "prefer", tls = "starttls" }
      return values[name] or "alice"
    end

    for protocol in pairs(protocols) do
      it("is refused with CR, LF or NUL before anything is connected, in " .. protocol, function()
        local peer <close> = start(agreeable, protocol)
        local names = { table.unpack(strings) }
        if protocol == "smtp" then names[#names + 1] = "client_name" end
        for _, name in ipairs(names) do
          for _, value in ipairs(broken(good_value(name))) do
            if paths[name] then value = value:gsub("[\r\n]+", "\0") end -- those a path may have
            local more = { [name] = value }
            if name == "client_key" then more.client_cert = cert.cert end
            local ok, err = pcall(connect, protocol, peer.port, more)
            assert(not ok, ("%s = %q does not raise"):format(name, value))
            assert.is_string(err)
          end
        end
        assert.equals(0, peer:finish().connections)
      end)

      it("is refused with CR, LF or NUL where a function gives it, in " .. protocol, function()
        for _, text in ipairs(broken "secret") do
          local peer <close> = start(agreeable, protocol)
          local session, err = connect(protocol, peer.port,
            { password = function() return text end })
          assert.is_nil(session)
          assert.equals("auth", err.kind)
          assert(tostring(err):find("CR, LF or NUL", 1, true), err)
          assert.is_nil(tostring(err):find("secret", 1, true))
          local record = peer:finish()
          assert.equals(1, record.handshakes)
          for _, verb in ipairs { "AUTH", "LOGIN", "USER", "PASS", "NOOP" } do
            assert.is_nil(record.encrypted:find(verb, 1, true), record.encrypted)
          end
        end
      end)
    end

    it("is refused as client_name where it is no word, or too long", function()
      for _, name in ipairs { "", "two words", "\u{e9}", ("x"):rep(256), "a\tb", "\127" } do
        local peer <close> = start(agreeable, "smtp")
        assert_raises("client_name", name, connect, "smtp", peer.port, { client_name = name })
        assert.equals(0, peer:finish().connections)
      end
    end)
  end)

  describe("that is odd but legal", function()
    -- name, how IMAP spells it (RFC 3501 5.1.3)
    local mailboxes = {
      { 'quo"te', 'quo"te' }, { "back\\slash", "back\\slash" }, { "R&D", "R&-D" },
      { "&", "&-" }, { "&AOk-", "&-AOk-" }, { "{5}", "{5}" }, { "(paren)", "(paren)" },
      { "bra]cket", "bra]cket" }, { "two words", "two words" }, { "NIL", "NIL" },
      { "Entw\u{fc}rfe", "Entw&APw-rfe" }, { "\u{53f0}\u{5317}", "&U,BTFw-" },
      { "a\u{1F600}b", "a&2D3eAA-b" },
    }

    -- Makes the folders as Dovecot would; returns a function that removes them.
    local function make_folders(mail)
      local made = {}
      for i, mailbox in ipairs(mailboxes) do
        made[i] = ("%s/mail/alice/.%s"):format(mail.dir, mailbox[2])
        process.run { "mkdir", made[i], made[i] .. "/cur", made[i] .. "/new", made[i] .. "/tmp" }
        process.run { "chown", "-R", ("%d:%d"):format(mail.owner.uid, mail.owner.gid), made[i] }
      end
      return function() process.run { "rm", "-r", table.unpack(made) } end
    end

    it("names a mailbox of Dovecot, in every command", function()
      local mail = servers.shared()
      local remove_folders = make_folders(mail)
      finally(function()
        remove_folders()
        mail:empty "alice"
      end)
      mail:empty "alice"
      mail:deliver("alice", "Subject: x\r\n\r\nx\r\n")
      local session <close> = assert(protocols.imap.connect {
        host = mail.host, port = mail.imap.port, ca_file = mail.ca_file, user = "alice",
        password = mail.users.alice.password })
      local listed = {}
      for _, mailbox in ipairs(assert(session:list("", "*"))) do listed[mailbox.name] = true end
      for _, mailbox in ipairs(mailboxes) do
        local name = mailbox[1]
        assert.is_true(listed[name], name)
        assert.equals(name, assert(session:list("", name))[1].name)
        assert(session:select "INBOX")
        assert(session:copy("*", name))
        assert(session:append(name, "Subject: " .. name .. "\r\n\r\n"))
        assert.equals(2, assert(session:status(name)).messages, name)
        assert.equals(2, assert(session:select(name)).exists)
        assert.equals(name, session.mailbox.name)
        assert(session:examine(name))
      end
      assert(session:logout())
    end)

    local passwords = {
      'quo"te', "back\\slash", 'end\\', '\\"', "two  words", " lead and trail ", "(){}%*]", "{5}",
      "p\u{e4}ssw\u{f6}rd \u{2713}", ("long "):rep(300), "=", "+", "%s", "NIL",
    }

    -- Reads an IMAP string: quoted, or a literal that is asked for unless it does not wait.
    local function login_by_command(p, args)
      p:imap_upgrade { cert = args.cert, key = args.key, after = args.after, auth = false }
      local function read_string()
        local first = p:read(1)
        if first == '"' then
          local text = {}
          for c in function() return p:read(1) end do
            if c == '"' then break end
            text[#text + 1] = c == "\\" and p:read(1) or c
          end
          return table.concat(text), "quoted"
        end
        local size, sign = p:line():match "^(%d+)(%+?)}\r\n$"
        if first ~= "{" or not size then p:fail "not a string" end
        if sign == "" then p:send "+ go on\r\n" end
        return p:read(math.tointeger(tonumber(size))), sign == "" and "literal" or "literal+"
      end
      local tag = p:read_until(" "):sub(1, -2)
      p:read_until(" ")
      local user = read_string()
      p:read(1)
      local password, form = read_string()
      if p:line() ~= "\r\n" then p:fail "more after LOGIN" end
      p:send(tag, " OK [CAPABILITY IMAP4rev1] logged in\r\n")
      p:imap_expect "^LOGOUT"
      return { user = user, password = password, form = form }
    end

    for _, after in ipairs { {}, { "LITERAL+" } } do
      local style = after[1] or "no LITERAL+"
      it("logs in by IMAP's LOGIN with every user and password, with " .. style, function()
        for _, password in ipairs(passwords) do
          local user = "al\\ice \"" .. (password:find "[\128-\255]" and "\u{e9}" or "x")
          local peer <close> = start(login_by_command, "imap", { after = after })
          local session, err = connect("imap", peer.port, { user = user, password = password })
          assert(session, err)
          session:logout()
          local record = peer:finish()
          assert(record.result, record.error)
          assert.equals(user, record.result.user)
          assert.equals(password, record.result.password)
          local quoted = not password:find "[\128-\255]" and #password <= 1024
          assert.equals(quoted and "quoted" or after[1] and "literal+" or "literal",
            record.result.form)
        end
      end)
    end

    for protocol in pairs(protocols) do
      it("logs in by PLAIN with every user and password, to " .. protocol, function()
        for _, password in ipairs(passwords) do
          local user = "al\\ice \"" .. password:sub(1, 20)
          local peer <close> = start(function(p, args)
            local state = p[args.protocol .. "_upgrade"](p, args)
            if args.protocol == "imap" then
              p:send(p:imap_expect "^CAPABILITY", " OK done\r\n")
            end
            return state
          end, protocol)
          local session, err = connect(protocol, peer.port, { user = user, password = password })
          assert(session, err)
          session:close()
          local state = peer:finish().result
          assert.equals("PLAIN", state.mechanism)
          assert.equals(user, state.user)
          assert.equals(password, state.password)
        end
      end)
    end

    it("logs in by POP3's USER and PASS with every password", function()
      for _, password in ipairs(passwords) do
        local peer <close> = start(function(p, args)
          return p:pop3_upgrade(args)
        end, "pop3", { after = { "USER" } })
        local session, err = connect("pop3", peer.port, { password = password })
        assert(session, err)
        session:close()
        local state = peer:finish().result
        assert.equals("USER", state.mechanism)
        assert.equals("alice", state.user)
        assert.equals(password, state.password)
      end
    end)

    it("logs in to Dovecot with quotes, backslashes, blanks and UTF-8", function()
      local mail = servers.shared()
      local users = mail.dir .. "/dovecot/users"
      local before = process.read_file(users)
      local added = {}
      for i, password in ipairs { 'quo"te', "back\\slash", "two  words", " lead and trail ",
        "p\u{e4}ssw\u{f6}rd \u{2713}" } do
        added[i] = { name = "odd" .. i, password = password }
        before = before .. ("odd%d:{PLAIN}%s::::::\n"):format(i, password)
      end
      process.write_file(users, before)
      for _, user in ipairs(added) do
        for _, mechanism in ipairs { "PLAIN", "SCRAM-SHA-256", "CRAM-MD5", "LOGIN" } do
          for _, protocol in ipairs { "imap", "pop3" } do
            local session, err = protocols[protocol].connect {
              host = mail.host, port = mail[protocol].port, ca_file = mail.ca_file,
              user = user.name, password = user.password, sasl = mechanism }
            assert(session, ("%s by %s: %s"):format(user.password, mechanism, err))
            assert.equals(mechanism, session:security().mechanism)
            session:close()
          end
        end
        local session, err = protocols.pop3.connect {
          host = mail.host, port = mail.pop3.port, ca_file = mail.ca_file,
          user = user.name, password = user.password, sasl = "USER" }
        assert(session, err)
        session:close()
      end
    end)
  end)

  describe("as a message", function()
    local contents = {
      "\n.\n", "\r.\r", "\r\n.\n", "\n.\r\n", ".\r\n", ".", "..", "\r\n.\r\n", "\r\r\n.\r\r\n",
      "x\n.\nMAIL FROM:<evil@example.test>\nRCPT TO:<bob@example.test>\nDATA\n\nx\n.\n",
      "x\r.\rQUIT\r", "x\r\n.\rNOOP\r\n", "x\n.\rNOOP\r\n", "x\r.\nNOOP\r\n", "\r\n..\r\n.\r\n",
      "x\r\n.\r", "x\r\n.\n\r", "\r", "\n", "\n\r", "\r\n", "", "x", "x\r", "x\r\n.x\r\n",
    }

    -- The same text with CRLF as its only line end, and with one at its end.
    local function normal(text)
      text = text:gsub("\r\n", "\n"):gsub("\r", "\n")
      if text ~= "" and text:sub(-1) ~= "\n" then text = text .. "\n" end
      return (text:gsub("\n", "\r\n"))
    end

    -- A source that gives pieces of that size.
    local function pieces(text, size)
      local at = 1
      return function()
        if at > #text then return nil end
        at = at + size
        return text:sub(at - size, at - 1)
      end
    end

    local forms = {
      { "a string", function(text) return text end },
      { "a source of single bytes", function(text) return pieces(text, 1) end },
      { "a source of two bytes at a time", function(text) return pieces(text, 2) end },
      { "a file", function(text)
        local file = assert(io.tmpfile())
        file:write(text)
        file:seek "set"
        return file
      end },
    }

    for _, form in ipairs(forms) do
      it(("given as %s ends once in SMTP, and has no bare CR or LF"):format(form[1]), function()
        local peer <close> = start(function(p, args)
          p:smtp_upgrade(args)
          local seen = {}
          for i = 1, args.count do seen[i] = p:smtp_receive().content end
          p:expect "^QUIT" p:send "221 bye\r\n"
          return seen
        end, "smtp", { count = #contents })
        local session <close> = assert(connect("smtp", peer.port))
        for _, text in ipairs(contents) do
          assert(session:send { from = "alice@example.test", to = "bob@example.test",
            message = form[2](text) })
        end
        assert(session:quit())
        local record = peer:finish()
        assert.is_true(record.ok, record.error)
        for i, text in ipairs(contents) do
          local wire = record.result[i]
          assert.is_nil(wire:gsub("\r\n", ""):find "[\r\n]", ("%q"):format(text))
          assert.is_nil(("\r\n" .. wire):find("\r\n.\r\n", 1, true), ("%q"):format(text))
          local unstuffed = ("\r\n" .. wire):gsub("\r\n%.", "\r\n"):sub(3)
          assert.equals(normal(text), unstuffed)
        end
      end)

      it(("given as %s has the size in IMAP that is said"):format(form[1]), function()
        local peer <close> = start(function(p, args)
          p:imap_upgrade(args)
          local seen = {}
          p:send(p:imap_expect "^CAPABILITY", " OK [CAPABILITY IMAP4rev1] done\r\n")
          for i = 1, args.count do
            local tag, line = p:imap_expect '^APPEND "INBOX" {%d+}\r\n$'
            p:send "+ go on\r\n"
            seen[i] = p:read(math.tointeger(tonumber(line:match "{(%d+)}")))
            if p:line() ~= "\r\n" then p:fail "more than was announced" end
            p:send(tag, " OK done\r\n")
          end
          p:imap_expect "^LOGOUT"
          return seen
        end, "imap", { count = #contents })
        local session <close> = assert(connect("imap", peer.port))
        for _, text in ipairs(contents) do assert(session:append("INBOX", form[2](text))) end
        session:logout()
        local record = peer:finish()
        assert.is_true(record.ok, record.error)
        for i, text in ipairs(contents) do
          local wire = record.result[i]
          assert.is_nil(wire:gsub("\r\n", ""):find "[\r\n]", ("%q"):format(text))
          assert.equals(normal(text), normal(wire))
        end
      end)
    end
  end)
end)
