-- Shows that the specs' own harness works: the scripted peer, the certificates,
-- and the real servers. The clients here are LuaSocket and LuaSec.

local mime = require "mime"
local socket = require "socket"
local ssl = require "ssl"

local Peer = require "spec.support.peer"
local certificates = require "spec.support.certificates"
local process = require "spec.support.process"
local servers = require "spec.support.servers"

local function connect(port, host)
  local conn = assert(socket.connect(host or "127.0.0.1", port))
  conn:settimeout(20)
  return conn
end

-- TLS over a connection; options as for LuaSec.
local function upgrade(conn, options)
  local all = { mode = "client", protocol = "any", verify = "none", options = {} }
  for name, value in pairs(options or {}) do all[name] = value end
  local secure = assert(ssl.wrap(conn, all))
  secure:settimeout(20)
  if all.server_name then secure:sni(all.server_name) end
  local ok, why = secure:dohandshake()
  return ok and secure, why
end

-- Lines up to the one that matches.
local function read_to(conn, pattern)
  local lines = {}
  repeat
    local line = assert(conn:receive "*l")
    lines[#lines + 1] = line
  until line:find(pattern)
  return table.concat(lines, "\n")
end

local function say(conn, text, pattern)
  assert(conn:send(text))
  return read_to(conn, pattern)
end

-- Why nothing more can be received.
local function reason(conn)
  local byte, why = conn:receive(1)
  assert(not byte, "a byte was received")
  return why
end

describe("the harness", function()
  local directory, ca, cert

  setup(function()
    directory = process.temporary_directory()
    ca = certificates.ca(directory.path)
    cert = ca:issue { name = "peer", dns = { "mail.example.test" } }
  end)

  teardown(function()
    directory:close()
  end)

  describe("processes", function()
    it("end when they are stopped, by KILL if they ignore TERM", function()
      local log = directory.path .. "/log"
      for _, words in ipairs {
        { "sleep", "1000" },
        { "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done" },
      } do
        local program <close> = process.start { words = words, log = log, grace = 1 }
        assert.is_true(program:running())
        program:stop()
        assert.is_false(program:running())
      end
    end)

    it("name the package of a program that is missing", function()
      assert.has_error(function() process.find("no-such-program", "no-such-package") end,
        "no-such-program is missing: install the Debian package no-such-package")
    end)

    it("leave no temporary directory", function()
      local path
      do
        local temporary <close> = process.temporary_directory()
        path = temporary.path
        process.write_file(path .. "/file", "x")
      end
      assert.is_nil(process.read_file(path .. "/file"))
    end)
  end)

  describe("certificates", function()
    local function verdict(issued)
      local command = "openssl verify -CAfile %s %s 2>&1"
      local pipe = assert(io.popen(command:format(ca.cert, issued.cert)))
      local output = pipe:read "a"
      pipe:close()
      return output
    end

    it("are good, expired, not yet valid, or of nobody", function()
      assert.matches("OK", verdict(cert))
      assert.matches("expired", verdict(ca:issue { name = "old", not_before = -9, not_after = -2 }))
      assert.matches("not yet valid", verdict(ca:issue { name = "new", not_before = 2 }))
      assert.matches("self.signed", verdict(ca:issue { name = "own", self_signed = true }))
      local other = certificates.ca(directory.path, { name = "other", cn = "Another CA" })
      assert.matches("unable to get local issuer", verdict(other:issue { name = "foreign" }))
    end)

    it("have the names, keys and digests that are asked for", function()
      local issued = ca:issue {
        name = "odd", dns = { "*.example.test" }, ip = { "::1" }, key = "rsa1024", digest = "sha1",
      }
      local text = process.run { "openssl", "x509", "-in", issued.cert, "-noout", "-text" }
      assert.matches("DNS:*.example.test, IP Address:0:0:0:0:0:0:0:1", text, 1, true)
      assert.matches("1024 bit", text)
      assert.matches("ecdsa%-with%-SHA1", text)
    end)
  end)

  describe("a scripted peer", function()
    it("upgrades and records what came in the clear and inside TLS", function()
      local peer <close> = Peer.start(function(p, args)
        p:send "220 mail.example.test ESMTP\r\n"
        p:expect "^EHLO "
        p:send("250-mail.example.test\r\n", "250 STARTTLS\r\n")
        p:expect "^STARTTLS\r\n"
        p:send "220 go ahead\r\n"
        p:starttls { cert = args.cert, key = args.key }
        p:expect "^QUIT\r\n"
        p:send "221 bye\r\n"
        p:close()
        return "done"
      end, cert)
      local conn = connect(peer.port)
      read_to(conn, "^220 ")
      say(conn, "EHLO client\r\n", "^250 ")
      say(conn, "STARTTLS\r\n", "^220 ")
      conn = upgrade(conn, { server_name = "mail.example.test" })
      say(conn, "QUIT\r\n", "^221 ")
      assert.equal("closed", reason(conn)) -- a close-notify, not a cut
      local record = peer:finish()
      assert.same({
        ok = true, result = "done", clear = "EHLO client\r\nSTARTTLS\r\n",
        encrypted = "QUIT\r\n", raw = "", connections = 1, handshakes = 1,
        tls = { {
          version = "TLSv1.3", cipher = "TLS_AES_256_GCM_SHA384", server_name = "mail.example.test",
        } },
      }, record)
    end)

    it("says where an expectation was not met, and hears what follows", function()
      local peer <close> = Peer.start(function(p) p:expect "^EHLO " end)
      local conn = connect(peer.port)
      conn:send "HELO client\r\n"
      assert.equal("closed", reason(conn))
      conn:send "and more\r\n"
      local record = peer:finish()
      assert.is_false(record.ok)
      assert.matches('support_spec.lua:%d+: expected "%^EHLO ", got "HELO client', record.error)
      assert.equal("HELO client\r\nand more\r\n", record.clear)
    end)

    it("ends without a client", function()
      local peer <close> = Peer.start(function(p) p:send "hello" end)
      local record = peer:finish()
      assert.same({ false, 0 }, { record.ok, record.connections })
      assert.matches("no client connected", record.error)
    end)

    it("has bounded waits", function()
      local peer <close> = Peer.start(function(p) p:line() end, nil, { wait = 0.1 })
      connect(peer.port)
      assert.matches("timeout while waiting for a line's end", peer:finish().error)
    end)

    it("refuses a script that uses outer locals", function()
      local outer = "text"
      assert.error_matches(function() Peer.start(function(p) p:send(outer) end) end,
        "uses the outer local 'outer'; pass it as an argument")
    end)

    it("reads lines, counts, dots, and the end, in any segments", function()
      local peer <close> = Peer.start(function(p)
        local result = { p:line(), p:read(3), p:read_to_dot(), p:read_to_dot(), p:read_until "##" }
        result[#result + 1] = p:expect_eof()
        return result
      end)
      local conn = connect(peer.port)
      conn:setoption("tcp-nodelay", true)
      for byte in ("a\r\nbcd.\r\n..x\r\n.\r\n.\r\nyy#z##"):gmatch "." do conn:send(byte) end
      conn:close()
      assert.same({ "a\r\n", "bcd", "", "..x\r\n", ".\r\nyy#z##", "closed" },
        peer:finish().result)
    end)

    it("sends slowly, takes further clients, and resets", function()
      local peer <close> = Peer.start(function(p)
        p:send_slowly "one by one\r\n"
        p:accept()
        p:reset()
      end)
      local conn = connect(peer.port)
      assert.equal("one by one", (conn:receive "*l"))
      local second = connect(peer.port)
      assert.is_nil((second:receive(1)))
      assert.equal(2, peer:finish().connections)
    end)

    it("floods a client until it closes or enough is sent", function()
      for total, expected in pairs { [100] = "total", [1 << 40] = "closed" } do
        local peer <close> = Peer.start(function(p, args)
          local sent, why = p:flood("never ending ", args.total)
          return { sent = sent, why = why }
        end, { total = total })
        local conn = connect(peer.port)
        conn:receive(10)
        if expected == "closed" then conn:close() end
        local result = peer:finish().result
        assert.equal(expected, result.why)
        assert.is_true(result.sent >= 10)
      end
    end)

    it("speaks TLS of a chosen version only, 1.1 too", function()
      for _, version in ipairs { "TLSv1.1", "TLSv1.2", "TLSv1.3" } do
        local peer <close> = Peer.start(function(p, args)
          p:starttls(args)
        end, { cert = cert.cert, key = cert.key, min = version, max = version })
        assert.truthy(upgrade(connect(peer.port), { ciphers = "ALL:@SECLEVEL=0" }))
        assert.equal(version, peer:finish().tls[1].version)
      end
    end)

    it("cuts a connection, and a handshake at any byte", function()
      local peer <close> = Peer.start(function(p, args)
        p:starttls(args)
        p:cut()
        for _, count in ipairs { 1, 4, 5, 100, 300 } do
          p:accept()
          p:starttls_cut_after(count, args)
        end
      end, cert)
      local conn = upgrade(connect(peer.port))
      assert.not_equal("closed", reason(conn))
      for _ = 1, 5 do
        local ok, why = upgrade(connect(peer.port))
        assert.same({ false, "unexpected eof while reading" }, { ok, why })
      end
      local record = peer:finish()
      assert.same({ nil, 1, 6 }, { record.error, record.handshakes, record.connections })
    end)

    it("tells why a client broke off the handshake", function()
      local peer <close> = Peer.start(function(p, args) p:starttls(args) end, cert)
      assert.is_false((upgrade(connect(peer.port), { verify = "peer" })))
      assert.matches("handshake: tlsv1 alert unknown ca", peer:finish().error)
    end)

    it("asks for a client's certificate and ALPN", function()
      local client = ca:issue { name = "client", cn = "alice", client = true }
      local peer <close> = Peer.start(function(p, args) p:starttls(args) end, {
        cert = cert.cert, key = cert.key, alpn = { "imap" }, client_certificate = "require",
        ca_file = ca.cert,
      })
      assert.truthy(upgrade(connect(peer.port),
        { certificate = client.cert, key = client.key, alpn = { "imap" } }))
      local handshake = peer:finish().tls[1]
      assert.equal("imap", handshake.alpn)
      assert.equal(process.read_file(client.cert), handshake.client_certificate)
    end)

    it("has the data for channel bindings", function()
      for kind, version in pairs { ["tls-exporter"] = "TLSv1.3", ["tls-unique"] = "TLSv1.2" } do
        local peer <close> = Peer.start(function(p, args)
          p:starttls(args)
          return p:channel_binding(args.kind)
        end, { cert = cert.cert, key = cert.key, max = version, kind = kind })
        local conn = upgrade(connect(peer.port))
        local mine = kind == "tls-unique" and conn:getfinished()
          or conn:exportkeyingmaterial("EXPORTER-Channel-Binding", 32, "")
        assert.equal(mine, peer:finish().result)
      end
    end)

    it("has ports that are silent or closed", function()
      local silent <close> = Peer.listen_silently()
      local conn = connect(silent.port)
      conn:settimeout(0.05)
      assert.equal("timeout", reason(conn))
      local closed <close> = Peer.closed_port()
      assert.same({ nil, "connection refused" }, { socket.connect("127.0.0.1", closed.port) })
    end)
  end)

  describe("the ready-made dialogues", function()
    local plain = mime.b64 "\0alice\0secret"

    it("take SMTP with one message", function()
      local peer <close> = Peer.start(function(p, args)
        local state = p:smtp_upgrade(args)
        return { state.user, state.password, p:smtp_receive() }
      end, cert)
      local conn = connect(peer.port)
      read_to(conn, "^220 ")
      assert.matches("STARTTLS", say(conn, "EHLO client\r\n", "^250 "))
      say(conn, "STARTTLS\r\n", "^220 ")
      conn = upgrade(conn)
      assert.matches("AUTH PLAIN", say(conn, "EHLO client\r\n", "^250 "))
      say(conn, "AUTH PLAIN\r\n", "^334 ")
      say(conn, plain .. "\r\n", "^235 ")
      say(conn, "MAIL FROM:<a@example.test>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n", "^354 ")
      say(conn, "..x\r\n.\r\n", "^250 ")
      local record = peer:finish()
      assert.is_nil(record.error)
      assert.same({ "alice", "secret", {
        from = "MAIL FROM:<a@example.test>\r\n", to = { "RCPT TO:<b@example.test>\r\n" },
        content = "..x\r\n",
      } }, record.result)
    end)

    it("take IMAP with any tag, AUTHENTICATE or LOGIN", function()
      for _, command in ipairs { "AUTHENTICATE PLAIN " .. plain, 'LOGIN alice "secret"' } do
        local peer <close> = Peer.start(function(p, args)
          local state = p:imap_upgrade(args)
          local tag = p:imap_expect "^LOGOUT\r\n"
          p:send(tag, " OK bye\r\n")
          return { state.user, state.password }
        end, cert)
        local conn = connect(peer.port)
        read_to(conn, "^* OK")
        say(conn, "x1 STARTTLS\r\n", "^x1 OK")
        conn = upgrade(conn)
        assert.matches("AUTH=PLAIN", say(conn, "x2 CAPABILITY\r\n", "^x2 OK"))
        say(conn, "x3 " .. command .. "\r\n", "^x3 OK")
        say(conn, "x4 LOGOUT\r\n", "^x4 OK")
        assert.same({ "alice", "secret" }, peer:finish().result)
      end
    end)

    it("take POP3 without CAPA, AUTH or USER, and implicit TLS", function()
      for _, implicit in ipairs { false, true } do
        local peer <close> = Peer.start(function(p, args)
          local state = p:pop3_upgrade(args)
          return { state.user, state.password }
        end, { cert = cert.cert, key = cert.key, implicit = implicit })
        local conn = connect(peer.port)
        if implicit then conn = upgrade(conn) end
        read_to(conn, "^%+OK")
        if not implicit then
          say(conn, "STLS\r\n", "^%+OK")
          conn = upgrade(conn)
          say(conn, "AUTH PLAIN " .. plain .. "\r\n", "^%+OK")
        else
          say(conn, "USER alice\r\n", "^%+OK")
          say(conn, "PASS secret\r\n", "^%+OK")
        end
        assert.same({ "alice", "secret" }, peer:finish().result)
      end
    end)

    it("take SCRAM", function()
      local scram = require "spec.support.peer_scram"
      -- The example of RFC 7677, section 3, with the server's part of the nonce ours.
      local exchange = scram.new { hash = "sha256", password = "pencil" }
      assert.matches("^r=abcSERVER,s=[%w+/=]+,i=4096$", exchange:first "n,,n=user,r=abc")
      assert.equal("user", exchange.user)
      assert.error_matches(function() exchange:final "c=biws,r=abcSERVER,p=AAAA" end,
        "wrong password")
      assert.error_matches(function() scram.new { binding = "tls-exporter" }:first "n,,n=u,r=a" end,
        "expected p=tls%-exporter, got n")
    end)
  end)

  describe("the real servers", function()
    local mail

    setup(function()
      mail = servers.start()
    end)

    teardown(function()
      mail:stop()
    end)

    local function secure(conn)
      return assert(upgrade(conn, { verify = "peer", cafile = mail.ca_file }))
    end

    local function plain_of(user)
      return (mime.b64("\0" .. user .. "\0" .. mail.users[user].password))
    end

    local function smtp()
      local conn = connect(mail.smtp.port)
      read_to(conn, "^220 ")
      local before = say(conn, "EHLO client.example.test\r\n", "^250 ")
      say(conn, "STARTTLS\r\n", "^220 ")
      conn = secure(conn)
      return conn, before, say(conn, "EHLO client.example.test\r\n", "^250 ")
    end

    it("offer SMTP with STARTTLS, and mechanisms after it", function()
      local _, before, after = smtp()
      assert.matches("STARTTLS", before)
      assert.not_matches("AUTH", before)
      assert.not_matches("STARTTLS", after)
      assert.matches("AUTH PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256 SCRAM-SHA-1 XOAUTH2 OAUTHBEARER",
        after, 1, true)
      assert.matches("SIZE 209715200", after)
      local conn = secure(connect(mail.smtp.tls_port))
      read_to(conn, "^220 ")
    end)

    it("offer IMAP with STARTTLS, and mechanisms after it", function()
      local conn = connect(mail.imap.port, mail.far_host)
      assert.matches("STARTTLS LOGINDISABLED", read_to(conn, "^* OK"))
      say(conn, "a STARTTLS\r\n", "^a OK")
      conn = secure(conn)
      local after = say(conn, "b CAPABILITY\r\n", "^b OK")
      for name in ([[SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 PLAIN LOGIN ANONYMOUS XOAUTH2
        OAUTHBEARER EXTERNAL]]):gmatch "%S+" do
        assert.matches("AUTH=" .. name, after, 1, true)
      end
      for _, user in ipairs { "alice", "bob" } do
        conn = secure(connect(mail.imap.tls_port))
        read_to(conn, "^* OK")
        say(conn, "c AUTHENTICATE PLAIN " .. plain_of(user) .. "\r\n", "^c OK")
      end
    end)

    it("offer POP3 with STLS, and mechanisms after it", function()
      local conn = connect(mail.pop3.port)
      read_to(conn, "^%+OK")
      assert.matches("\nSTLS\n", say(conn, "CAPA\r\n", "^%.$"))
      say(conn, "STLS\r\n", "^%+OK")
      conn = secure(conn)
      assert.matches("\nSASL SCRAM%-SHA%-256 ", say(conn, "CAPA\r\n", "^%.$"))
      conn = secure(connect(mail.pop3.tls_port))
      read_to(conn, "^%+OK")
    end)

    it("take a bearer token, not an expired one, and a client's certificate", function()
      for seconds, answer in pairs { [3600] = "^a OK", [-60] = "^%+ " } do
        local conn = secure(connect(mail.imap.tls_port))
        read_to(conn, "^* OK")
        local response = ("user=alice\1auth=Bearer %s\1\1"):format(mail:token("alice", seconds))
        say(conn, ("a AUTHENTICATE XOAUTH2 %s\r\n"):format((mime.b64(response))), answer)
      end
      local client = mail.ca:issue { name = "alice", client = true }
      local conn = upgrade(connect(mail.imap.tls_port),
        { certificate = client.cert, key = client.key })
      read_to(conn, "^* OK")
      say(conn, "a AUTHENTICATE EXTERNAL =\r\n", "^a OK")
      conn = upgrade(connect(mail.smtp.tls_port), { certificate = client.cert, key = client.key })
      read_to(conn, "^220 ")
      assert.matches("EXTERNAL", say(conn, "EHLO client\r\n", "^250 "))
      say(conn, "AUTH EXTERNAL =\r\n", "^235 ")
    end)

    it("deliver at once and unchanged, and refuse what they should", function()
      local conn = smtp()
      say(conn, "AUTH PLAIN " .. plain_of "alice" .. "\r\n", "^235 ")
      say(conn, "MAIL FROM:<alice@example.test>\r\n", "^250 ")
      assert.matches("^550", say(conn, ("RCPT TO:<%s>\r\n"):format(mail.refused), "^%d%d%d "))
      assert.matches("^451", say(conn, ("RCPT TO:<%s>\r\n"):format(mail.deferred), "^%d%d%d "))
      say(conn, "RCPT TO:<bob@example.test>\r\nDATA\r\n", "^354 ")
      local body = ("x"):rep(100000) .. "\n..\n\0\xff\x80\nlast\n"
      local stuffed = body:gsub("\n", "\r\n"):gsub("\r\n%.", "\r\n..")
      say(conn, "Subject: one\r\n\r\n" .. stuffed .. ".\r\n", "^250 ")
      local message = mail:wait_for_mail("bob", 1)[1]
      local got = process.read_file(message.path)
      assert.equal("Subject: one\n\n" .. body, got:match "\n(Subject: one\n.*)$")
    end)

    it("show a message that is put into a maildir", function()
      mail:empty "alice"
      mail:deliver("alice", "Subject: two\r\n\r\nhello\r\n")
      assert.equal(1, #mail:inbox "alice")
      local conn = secure(connect(mail.pop3.tls_port))
      read_to(conn, "^%+OK")
      say(conn, "AUTH PLAIN " .. plain_of "alice" .. "\r\n", "^%+OK")
      assert.matches("hello", say(conn, "RETR 1\r\n", "^%.$"))
    end)

    it("speak the version of TLS that they are told", function()
      for _, version in ipairs { "TLSv1.2", "TLSv1.3" } do
        local own <close> = servers.start { tls_min = version, tls_max = version }
        for _, port in ipairs { own.smtp.tls_port, own.imap.tls_port, own.pop3.tls_port } do
          assert.equal(version, upgrade(connect(port)):info "protocol")
        end
      end
    end)

    it("are gone after they are stopped", function()
      local own = servers.start()
      own:stop()
      assert.is_nil(process.read_file(own.ca_file))
      for _, program in ipairs { own.smtp, own.imap, own.pop3 } do
        assert.is_nil((socket.connect("127.0.0.1", program.port)))
      end
    end)
  end)
end)
