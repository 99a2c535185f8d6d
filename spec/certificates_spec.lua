-- Whom a session trusts: certificates that are refused, each in its own words and before
-- any credential is sent, those that pass, and what security() says of them.

local mime = require "mime"

local Peer = require "spec.support.peer"
local certificates = require "spec.support.certificates"
local process = require "spec.support.process"

local protocols = {
  smtp = require "starttls.smtp", imap = require "starttls.imap", pop3 = require "starttls.pop3",
}

local user, password = "alice", "do not send this"
local far = "mail.example.test" -- whom most of the certificates here are for

local directory, dir, ca, good

-- Certificates that spec.support.certificates does not make -----------------------------------

-- Signs with `openssl x509`; `extensions`: lines of its configuration, `days`: of validity,
-- from now. Returns { cert =, key = }.
local function sign_by_hand(options)
  local base = dir .. "/" .. options.name
  process.run { "openssl", "genpkey", "-algorithm", "EC", "-pkeyopt",
    "ec_paramgen_curve:P-256", "-out", base .. ".key" }
  process.run { "openssl", "req", "-new", "-config", certificates.request_config(dir), "-key",
    base .. ".key", "-subj", "/CN=" .. options.name, "-out", base .. ".csr" }
  process.write_file(base .. ".ext", table.concat(options.extensions, "\n") .. "\n")
  process.run { "openssl", "x509", "-req", "-in", base .. ".csr", "-out", base .. ".pem",
    "-CA", options.signer.cert, "-CAkey", options.signer.key, "-CAcreateserial", "-sha256",
    "-days", options.days or 30, "-extfile", base .. ".ext" }
  return { cert = base .. ".pem", key = base .. ".key" }
end

-- An authority below `ca`, with the methods of one.
local function intermediate(name, days)
  local made = sign_by_hand { name = name, signer = ca, days = days, extensions = {
    "basicConstraints = critical,CA:true", "keyUsage = critical,keyCertSign,cRLSign",
    "subjectKeyIdentifier = hash", "authorityKeyIdentifier = keyid",
  } }
  made.dir = dir
  return setmetatable(made, getmetatable(ca))
end

-- The certificate with others behind it, in a file of its own.
local function chain(leaf, ...)
  local parts = {}
  for i, each in ipairs { leaf, ... } do parts[i] = process.read_file(each.cert) end
  local path = leaf.cert:gsub("%.pem$", ".chain.pem")
  process.write_file(path, table.concat(parts))
  return { cert = path, key = leaf.key }
end

-- A subjectAltName with one dNSName of any octets.
local function raw_dns_name(name)
  local names = string.pack("Bs1", 0x30, string.pack("Bs1", 0x82, name))
  local hex = names:gsub(".", function(octet) return ("%02X"):format(octet:byte()) end)
  return "subjectAltName = DER:" .. hex
end

-- Sessions ------------------------------------------------------------------------------------

local function merge(...)
  local all = {}
  for i = 1, select("#", ...) do
    for name, value in pairs((select(i, ...))) do all[name] = value end
  end
  return all
end

local none = {} -- stands for an option that is not given

local function without_none(options)
  for name, value in pairs(options) do
    if value == none then options[name] = nil end
  end
  return options
end

-- One session against a peer whose TLS has these options (of p:starttls, and `implicit`).
-- Returns what security() says, or nil and the error; and the peer's record.
local function try(protocol, tls, options)
  local peer <close> = Peer.start(function(p, args)
    local state = p[args.protocol .. "_upgrade"](p, args.tls)
    if args.protocol == "imap" and state.user then -- a login may change the capabilities
      local tag = p:imap_expect "^CAPABILITY"
      p:send("* CAPABILITY IMAP4rev1\r\n", tag, " OK done\r\n")
    end
  end, { protocol = protocol, tls = merge(tls, { auth = options.password ~= nil }) })
  local session, err = protocols[protocol].connect(without_none(merge({
    host = "127.0.0.1", port = peer.port, tls = tls.implicit and "implicit" or "starttls",
    ca_file = ca.cert,
  }, options)))
  local security = session and session:security { pem = true }
  if session then session:close() end
  return security, err, peer:finish()
end

local credentials = { user = user, password = password }

local function contains(words, text)
  assert(tostring(text):find(words, 1, true), ("%q is not in %q"):format(words, tostring(text)))
end

local function assert_nothing_secret(record)
  assert.equals("", record.encrypted)
  local seen = record.clear .. record.raw
  for _, form in ipairs {
    user, password, mime.b64(user), mime.b64(password),
    mime.b64(("\0%s\0%s"):format(user, password)),
  } do
    assert.is_nil(seen:find(form, 1, true), seen)
  end
end

local function assert_refused(kind, words, security, err, record)
  assert.is_nil(security)
  assert.equals(kind, err.kind, err)
  assert.equals("handshake", err.during)
  assert.is_false(err.temporary)
  contains(words, err)
  assert.equals(1, record.connections)
  assert_nothing_secret(record)
end

local function assert_accepted(security, err, record)
  assert(security, err)
  assert.is_true(security.verified)
  assert.is_true(record.ok, record.error)
  assert.equals(1, record.handshakes)
end

-- Each protocol over STARTTLS, and one over TLS from the first byte: the handshake is the same.
local ways = {
  { "smtp", implicit = false }, { "smtp", implicit = true },
  { "imap", implicit = false }, { "pop3", implicit = false },
}

-- The cases -----------------------------------------------------------------------------------
-- What the server shows (options of ca:issue, or a function that makes the certificate), whom
-- the client expects (`server_name`, `far` unless told, `none` for the address 127.0.0.1), and
-- the words that tell this refusal from the others.

local other_name, other_address = "is for another name", "is not for this address"

local refused = {
  { "from an unknown authority", words = "authority that is not trusted here",
    make = function()
      local other = certificates.ca(dir, { name = "other", cn = "Another CA" })
      return other:issue { name = "unknown", dns = { far } }
    end },
  { "from an authority that has the name of ours", words = "authority that is not trusted here",
    make = function()
      return certificates.ca(dir, { name = "double" }):issue { name = "impostor", dns = { far } }
    end },
  { "that is self-signed", words = "is self-signed", dns = { far }, self_signed = true },
  { "that has expired", words = "expired on 2", dns = { far }, not_before = -9, not_after = -2 },
  { "that is not valid yet", words = "is not valid before 2", dns = { far }, not_before = 2 },

  { "for another name", words = other_name, dns = { "other.example.test" } },
  { "for a longer name", words = other_name, dns = { "x" .. far, far .. ".example.test" } },
  { "without any name", words = other_name, cn = "nobody" },
  { "with the name in the CN only", words = "subject (CN) only", cn = far },
  { "with the name in the CN and another in the SAN", words = other_name, cn = far,
    dns = { "other.example.test" } },
  { "with the name in front of a NUL", words = other_name, make = function()
    return sign_by_hand { name = "nul", signer = ca,
      extensions = { raw_dns_name(far .. "\0.evil.test") } }
  end },
  { "with an address for a name", words = other_name, ip = { "127.0.0.1" } },

  { "with a wildcard two labels up", words = other_name, dns = { "*.example.test" },
    server_name = "a.b.example.test" },
  { "with a wildcard below the name", words = other_name, dns = { "*.example.test" },
    server_name = "example.test" },
  { "with a wildcard that ends a label", words = other_name, dns = { "m*.example.test" } },
  { "with a wildcard that begins a label", words = other_name, dns = { "*il.example.test" } },
  { "with a wildcard inside of a label", words = other_name, dns = { "m*l.example.test" } },
  { "with a wildcard in an A-label", words = other_name, dns = { "xn--*.example.test" },
    server_name = "bücher.example.test" },
  { "with a wildcard in the middle", words = other_name, dns = { "mail.*.test" } },
  { "with two wildcards", words = other_name, dns = { "*.*.test" } },
  { "with a wildcard for a top-level domain", words = other_name, dns = { "*.test" },
    server_name = "example.test" },
  { "with a wildcard for everything", words = other_name, dns = { "*" },
    server_name = "localhost" },

  { "for another address", words = other_address, ip = { "127.0.0.2" }, server_name = none },
  { "for an address of the other family", words = other_address, ip = { "127.0.0.1" },
    server_name = "::ffff:127.0.0.1" },
  { "with the address as a DNS name", words = other_address, dns = { "127.0.0.1" },
    server_name = none },
  { "with a wildcard for the address", words = other_address, dns = { "*.0.0.1" },
    server_name = none },
  { "with the address in the CN only", words = "subject (CN) only", cn = "127.0.0.1",
    server_name = none },

  { "with a weak key (RSA of 1024 bits)", words = "too weak", dns = { far }, key = "rsa1024" },
  { "with a weak signature (SHA-1)", words = "too weak", dns = { far }, digest = "sha1" },
  { "that is meant for a client", words = "not meant for servers", dns = { far }, client = true },

  { "whose intermediate is missing", words = "authority that is not trusted here",
    make = function() return intermediate("absent"):issue { name = "orphan", dns = { far } } end },
  { "whose intermediate is no authority", words = "no authority", make = function()
    local leaf = ca:issue { name = "leaf", dns = { "leaf.example.test" } }
    local below = sign_by_hand { name = "below-leaf", signer = leaf,
      extensions = { "subjectAltName = DNS:" .. far } }
    return chain(below, leaf)
  end },
  { "whose intermediate has expired", words = "issuer whose own certificate is out of date",
    make = function()
      local above = intermediate("expired", -1)
      return chain(above:issue { name = "below-expired", dns = { far } }, above)
    end },
}

local accepted = {
  { "with the name among others", dns = { "other.example.test", far } },
  { "with the name in other letters", dns = { "Mail.EXAMPLE.test" } },
  { "with the name, which the caller ends in a dot", dns = { far }, server_name = far .. "." },
  { "with a wildcard", dns = { "*.example.test" } },
  { "with a wildcard for an IDNA name", dns = { "*.example.test" },
    server_name = "bücher.example.test" },
  { "with an IDNA name", dns = { "xn--bcher-kva.example.test" },
    server_name = "Bücher.example.test" },
  { "with the address", ip = { "127.0.0.1" }, server_name = none },
  { "with an IPv6 address", ip = { "2001:db8::1" }, server_name = "[2001:DB8:0::1]" },
  { "with an RSA key", dns = { far }, key = "rsa2048" },
  { "with an Ed25519 key", dns = { far }, key = "ed25519" },
  { "with an intermediate", make = function()
    local above = intermediate "above"
    return chain(above:issue { name = "below", dns = { far } }, above)
  end },
  { "with a chain in disorder", make = function()
    local above = intermediate "above-one"
    return chain(above:issue { name = "shuffled", dns = { far } }, ca, above)
  end },
}

local issued = {} -- case -> its certificate
local count = 0

local function certificate_of(case)
  if not issued[case] then
    count = count + 1
    issued[case] = case.make and case.make()
      or ca:issue(merge({ name = "case" .. count, cn = "peer" }, case))
  end
  return issued[case]
end

local function run_case(case, way)
  return try(way[1], merge(certificate_of(case), { implicit = way.implicit }),
    merge(credentials, { server_name = case.server_name or far }))
end

local function describe_cases(title, cases, check)
  describe(title, function()
    for _, case in ipairs(cases) do
      it(case[1], function()
        for _, way in ipairs(ways) do check(case, run_case(case, way)) end
      end)
    end
  end)
end

-- What `openssl x509` says of a certificate.
local function openssl(path, option)
  local line = process.run { "openssl", "x509", "-noout", "-in", path, option }
  return line:match "=(.-)%s*$"
end

local months = "JanFebMarAprMayJunJulAugSepOctNovDec"

-- "Nov 24 00:41:00 2026 GMT" -> seconds since the epoch
local function epoch(text)
  local month, day, hour, min, sec, year = text:match "^(%a+) +(%d+) (%d+):(%d+):(%d+) (%d+) GMT$"
  local at = os.time { year = year, month = (months:find(month) + 2) // 3, day = day, hour = hour,
    min = min, sec = sec, isdst = false }
  return at + os.difftime(os.time(os.date("*t", at)), os.time(os.date("!*t", at)))
end

describe("certificates", function()
  setup(function()
    directory = process.temporary_directory()
    dir = directory.path
    ca = certificates.ca(dir)
    good = ca:issue { name = "good", dns = { far, "localhost" }, ip = { "127.0.0.1" } }
  end)

  teardown(function()
    directory:close()
    issued = {}
  end)

  describe_cases("refuses a certificate", refused, function(case, ...)
    assert_refused("certificate", case.words, ...)
  end)

  describe_cases("takes a certificate", accepted, function(_, ...)
    assert_accepted(...)
  end)

  it("sends an alert, so that the server knows why", function()
    local _, _, record = try("smtp", certificate_of(refused[1]), credentials)
    contains("alert", record.error)
  end)

  describe("the TLS version", function()
    for _, way in ipairs(ways) do
      it(("of a server without TLS 1.2 is refused (%s, %s)"):format(way[1],
        way.implicit and "implicit" or "starttls"), function()
        local old = merge(good, { min = "TLSv1", max = "TLSv1.1", implicit = way.implicit })
        assert_refused("tls", "no TLS version that is safe", try(way[1], old, credentials))
      end)
    end

    it("may be an old one where the script says so with tls_priority", function()
      local security, err = try("smtp", merge(good, { max = "TLSv1.1", min = "TLSv1.1" }), {
        tls_priority = "NORMAL:-VERS-ALL:+VERS-TLS1.1:%PROFILE_VERY_WEAK",
      })
      assert(security, err)
      assert.equals("TLS1.1", security.version)
      assert.is_true(security.verified)
    end)

    it("can be narrowed with tls_priority", function()
      local security = assert(try("smtp", good,
        { tls_priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2" }))
      assert.equals("TLS1.2", security.version)
    end)

    it("can't be garbage", function()
      assert.error_matches(function()
        protocols.smtp.connect { host = "127.0.0.1", tls_priority = "GARBAGE" }
      end, "tls_priority")
    end)
  end)

  describe("the server's name", function()
    local function seen(options)
      local security, err, record = try("smtp", good, options)
      return record.tls[1] and record.tls[1].server_name, security, err
    end

    it("is the host's, in SNI and in the certificate", function()
      local name, security, err = seen { host = "localhost" }
      assert(security, err)
      assert.equals("localhost", name)
    end)

    it("is server_name where that is given", function()
      local name, security, err = seen { server_name = far }
      assert(security, err)
      assert.equals(far, name)
    end)

    it("is server_name even where the host would fit", function()
      local _, security, err = seen { host = "localhost", server_name = "other.example.test" }
      assert.is_nil(security)
      contains("other.example.test is for another name", err)
    end)

    it("is not sent in SNI where it is an address", function()
      local name, security, err = seen {}
      assert(security, err)
      assert.is_nil(name)
    end)

    for _, form in ipairs { "bücher.example.test", "BÜCHER.Example.Test",
      "bu\u{308}cher.example.test", "bücher\u{3002}example.test" } do
      it(("is an A-label in SNI for %q"):format(form), function()
        local idna = certificate_of(accepted[6])
        local security, err, record = try("smtp", idna, { server_name = form })
        assert(security, err)
        assert.equals("xn--bcher-kva.example.test", record.tls[1].server_name)
      end)
    end
  end)

  describe("authorities", function()
    local to_far

    setup(function()
      to_far = merge(credentials, { server_name = far })
    end)

    -- A directory with these files: name -> text.
    local function directory_with(name, files)
      local path = dir .. "/" .. name
      process.run { "mkdir", path }
      for file, text in pairs(files) do process.write_file(path .. "/" .. file, text) end
      return path
    end

    local function connect_with(options)
      return protocols.smtp.connect(merge({ host = "127.0.0.1", port = 1 }, options))
    end

    it("are the system's where none is given", function()
      assert_refused("certificate", "authority that is not trusted here",
        try("smtp", good, merge(to_far, { ca_file = none })))
    end)

    it("are those of ca_file alone where that is given", function()
      local other = certificates.ca(dir, { name = "elsewhere", cn = "Elsewhere CA" })
      assert_refused("certificate", "authority that is not trusted here",
        try("smtp", good, merge(to_far, { ca_file = other.cert })))
    end)

    it("may be several in one ca_file", function()
      local other = certificates.ca(dir, { name = "first", cn = "First CA" })
      assert_accepted(try("smtp", good, merge(to_far, { ca_file = chain(other, ca).cert })))
    end)

    it("may be found in ca_path", function()
      local path = directory_with("trusted", { ["any-name.pem"] = process.read_file(ca.cert) })
      assert_accepted(try("smtp", good, merge(to_far, { ca_file = none, ca_path = path })))
    end)

    it("may be the server's own certificate", function()
      local own = ca:issue { name = "own", dns = { far }, self_signed = true }
      assert_accepted(try("smtp", own, merge(to_far, { ca_file = own.cert })))
    end)

    it("do not make up for the name or the time of a certificate given as ca_file", function()
      local other = ca:issue { name = "own-other", dns = { "other.test" }, self_signed = true }
      assert_refused("certificate", other_name,
        try("smtp", other, merge(to_far, { ca_file = other.cert })))
      local old = ca:issue { name = "own-old", dns = { far }, self_signed = true,
        not_before = -9, not_after = -2 }
      assert_refused("certificate", "expired on",
        try("smtp", old, merge(to_far, { ca_file = old.cert })))
    end)

    it("are read again when what was read is old", function()
      local trust = require "starttls.trust"
      local lifetime, path = trust.lifetime, dir .. "/replaced.pem"
      finally(function() trust.lifetime = lifetime end)
      process.write_file(path, process.read_file(good.cert))
      local with_path = merge(to_far, { ca_file = path })
      assert_accepted(try("smtp", good, with_path))
      process.write_file(path, process.read_file(certificates.ca(dir, { name = "new" }).cert))
      assert_accepted(try("smtp", good, with_path))
      trust.lifetime = 0
      assert_refused("certificate", "authority that is not trusted here",
        try("smtp", good, with_path))
    end)

    for _, case in ipairs {
      { "missing", words = "No such file" },
      { "empty", text = "", words = "can't load certificate authorities" },
      { "garbage", text = "garbage\n", words = "can't load certificate authorities" },
      { "a key", text = "key", words = "can't load certificate authorities" },
      { "cut short", text = "half", words = "can't load certificate authorities" },
    } do
      it("must be had before anything is connected: ca_file is " .. case[1], function()
        local path = dir .. "/ca " .. case[1]
        local pem = process.read_file(ca.cert)
        local texts = { key = process.read_file(ca.key), half = pem:sub(1, #pem // 2) }
        if case.text then process.write_file(path, texts[case.text] or case.text) end
        local session, err = connect_with { ca_file = path }
        assert.is_nil(session)
        assert.equals("certificate", err.kind)
        assert.equals("connect", err.during)
        contains(case.words, err)
        contains(path, err)
      end)
    end

    for _, case in ipairs {
      { "missing", path = function() return dir .. "/nowhere" end },
      { "empty", path = function() return directory_with("nothing", {}) end },
      { "full of something else", path = function()
        return directory_with("something", { ["a.pem"] = "garbage", ["b.key"] = "more of it" })
      end },
    } do
      it("must be had before anything is connected: ca_path is " .. case[1], function()
        local path = case.path()
        local session, err = connect_with { ca_path = path }
        assert.is_nil(session)
        assert.equals("certificate", err.kind)
        assert.equals("connect", err.during)
        contains(path, err)
      end)
    end
  end)

  describe("a client's certificate", function()
    local client, versions = nil, { "TLSv1.2", "TLSv1.3" }

    setup(function()
      client = ca:issue { name = "client", cn = "alice", client = true }
      process.write_file(dir .. "/both.pem",
        process.read_file(client.cert) .. process.read_file(client.key))
    end)

    local function show(version, wish, options)
      local tls = merge(good, { min = version, max = version, client_certificate = wish,
        ca_file = ca.cert })
      return try("smtp", tls, options)
    end

    local function shown(record)
      return record.tls[1].client_certificate
    end

    for _, version in ipairs(versions) do
      it("is shown to a server that asks for it, over " .. version, function()
        local security, err, record = show(version, "request",
          { client_cert = client.cert, client_key = client.key })
        assert(security, err)
        assert.equals(process.read_file(client.cert), shown(record))
      end)

      it("may stand in one file with its key, over " .. version, function()
        local security, err, record = show(version, "require", { client_cert = dir .. "/both.pem" })
        assert(security, err)
        assert.equals(process.read_file(client.cert), shown(record))
      end)

      it("is not needed where the server only asks, over " .. version, function()
        local security, err, record = show(version, "request", {})
        assert(security, err)
        assert.is_nil(shown(record))
      end)

      it("is asked for in clear words where the server requires one, over " .. version, function()
        local security, err = show(version, "require", {})
        assert.is_nil(security)
        assert.equals("tls", err.kind, err)
        contains("client certificate", err)
        contains("client_cert", err.hint)
      end)
    end

    it("is not shown to a server that does not ask", function()
      local security, err, record = show("TLSv1.3", nil,
        { client_cert = client.cert, client_key = client.key })
      assert(security, err)
      assert.is_nil(shown(record))
    end)

    local function load(cert, key)
      return protocols.smtp.connect { host = "127.0.0.1", port = 1, ca_file = ca.cert,
        client_cert = cert, client_key = key }
    end

    it("must be there, with the key that belongs to it", function()
      for _, case in ipairs {
        { dir .. "/nowhere.pem", client.key, "No such file" },
        { client.cert, dir .. "/nowhere.key", "No such file" },
        { client.cert, nil, "can't load" },
        { client.cert, good.key, "can't load the client certificate and key" },
        { ca.key, client.key, "can't load the client certificate and key" },
      } do
        local session, err = load(case[1], case[2])
        assert.is_nil(session)
        assert.equals("certificate", err.kind)
        assert.equals("connect", err.during)
        contains(case[3], err)
      end
    end)
  end)

  describe("ALPN", function()
    local function negotiated(protocol, list, options)
      local security, err, record = try(protocol, merge(good, { alpn = list }), options or {})
      assert(security, err)
      assert.equals(record.tls[1].alpn, security.alpn)
      return security.alpn
    end

    for _, case in ipairs { { "imap", "imap" }, { "pop3", "pop3" }, { "smtp", nil } } do
      local protocol, id = case[1], case[2]
      it(("of %s offers %s"):format(protocol, id or "nothing, as no id is registered"), function()
        assert.equals(id, negotiated(protocol, { "smtp", "http/1.1", "pop3", "imap" }))
      end)
    end

    it("is optional for the server", function()
      assert.is_nil(negotiated("imap"))
    end)

    it("is not offered with alpn = false", function()
      assert.is_nil(negotiated("imap", { "imap" }, { alpn = false }))
    end)
  end)

  describe("insecure_no_verify", function()
    local off

    setup(function()
      off = { insecure_no_verify = true, server_name = far }
    end)

    for _, way in ipairs(ways) do
      it(("lets a session without credentials go on, which says so (%s, %s)"):format(way[1],
        way.implicit and "implicit" or "starttls"), function()
        local case = refused[1]
        local security, err = try(way[1],
          merge(certificate_of(case), { implicit = way.implicit }), off)
        assert(security, err)
        assert.is_true(security.encrypted)
        assert.is_false(security.verified)
        contains(case.words, security.unverified)
      end)
    end

    it("says why for each kind of fault", function()
      for _, case in ipairs(refused) do
        local security, err = try("smtp", certificate_of(case),
          merge(off, { server_name = case.server_name or far }))
        assert(security, err)
        assert.is_false(security.verified, case[1])
        contains(case.words, security.unverified)
      end
    end)

    it("still verifies a certificate that is good", function()
      local security = assert(try("smtp", good, off))
      assert.is_true(security.verified)
      assert.is_nil(security.unverified)
    end)

    it("lets credentials pass only with insecure_auth", function()
      local bad = certificate_of(refused[1])
      assert.error_matches(function() try("smtp", bad, merge(off, credentials)) end,
        "insecure_auth")
      local security, err, record = try("smtp", bad,
        merge(off, credentials, { insecure_auth = true }))
      assert(security, err)
      assert.is_false(security.verified)
      contains(mime.b64(("\0%s\0%s"):format(user, password)), record.encrypted)
    end)

    it("is worth nothing to a server that speaks no safe TLS version", function()
      assert_refused("tls", "no TLS version that is safe",
        try("smtp", merge(good, { min = "TLSv1.1", max = "TLSv1.1" }), off))
    end)
  end)

  describe("security()", function()
    -- "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" is OpenSSL's "ECDHE-ECDSA-AES256-GCM-SHA384".
    local function plain(cipher)
      return (cipher:gsub("^TLS", ""):gsub("WITH", ""):gsub("[_-]", ""))
    end

    for _, way in ipairs(ways) do
      for version, name in pairs { ["TLSv1.2"] = "TLS1.2", ["TLSv1.3"] = "TLS1.3" } do
        local how = way.implicit and "implicit" or "starttls"
        it(("tells what the channel is (%s, %s, %s)"):format(way[1], how, name), function()
          local security, err, record = try(way[1],
            merge(good, { min = version, max = version, implicit = way.implicit }),
            merge(credentials, { server_name = far }))
          assert(security, err)
          assert.is_true(security.encrypted)
          assert.is_true(security.verified)
          assert.is_nil(security.unverified)
          assert.equals(how, security.how)
          assert.equals(name, security.version)
          assert.equals(plain(record.tls[1].cipher), plain(security.cipher))
          assert.is_string(security.group)
          assert.equals("PLAIN", security.mechanism)
        end)
      end
    end

    it("tells whose certificate it is", function()
      local certificate = assert(try("imap", good, { server_name = far })).certificate
      assert.equals("CN=good", certificate.subject)
      assert.equals("CN=Throw-away test CA", certificate.issuer)
      assert.same({ far, "localhost", "127.0.0.1" }, certificate.names)
      assert.equals(epoch(openssl(good.cert, "-startdate")), certificate.not_before)
      assert.equals(epoch(openssl(good.cert, "-enddate")), certificate.not_after)
      local fingerprint = process.run { "openssl", "x509", "-noout", "-in", good.cert,
        "-fingerprint", "-sha256" }
      assert.equals(fingerprint:match "=([%x:]+)":gsub(":", ""):lower(), certificate.sha256)
      assert.equals(process.read_file(good.cert), certificate.pem)
    end)

    it("gives the certificate in PEM on request only", function()
      local peer <close> = Peer.start(function(p, tls)
        p:smtp_upgrade(tls)
      end, merge(good, { auth = false }))
      local session <close> = assert(protocols.smtp.connect {
        host = "127.0.0.1", port = peer.port, ca_file = ca.cert })
      assert.is_nil(session:security().certificate.pem)
      assert.is_string(session:security({ pem = true }).certificate.pem)
    end)

    it("tells of clear text, too", function()
      local peer <close> = Peer.start(function(p)
        p:smtp_upgrade { secure = false, auth = false }
      end)
      local session <close> = assert(protocols.smtp.connect {
        host = "127.0.0.1", port = peer.port, tls = "none" })
      local security = session:security()
      assert.is_false(security.encrypted)
      assert.is_false(security.verified)
      for _, field in ipairs { "how", "version", "cipher", "certificate" } do
        assert.is_nil(security[field], field)
      end
    end)
  end)
end)
