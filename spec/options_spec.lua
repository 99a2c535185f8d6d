-- The options of connect(): what raises before anything is sent, what comes back as nil and an
-- error, the defaults; and that errors read well.

local Peer = require "spec.support.peer"
local certificates = require "spec.support.certificates"
local process = require "spec.support.process"
local shell = require "spec.support.shell"

local errors = require "starttls.error"
local options = require "starttls.options"

local protocols = {
  smtp = require "starttls.smtp", imap = require "starttls.imap", pop3 = require "starttls.pop3",
}

local port -- where nobody listens

local function nothing() end

-- Options that would do, changed as the case says; `false` takes one away.
local function with(changes)
  local all = { host = "127.0.0.1", port = port.port, ca_file = port.ca.cert,
    user = "alice", password = "secret", connect_timeout = 5 }
  for name, value in pairs(changes) do all[name] = value end
  return all
end

local without = {} -- in place of an option: not given

local function given(changes)
  local all = with(changes)
  for name, value in pairs(all) do
    if value == without then all[name] = nil end
  end
  return all
end

local function assert_raises(words, changes, protocol)
  local ok, err = pcall(protocols[protocol or "smtp"].connect, given(changes))
  assert(not ok, "does not raise")
  assert.is_string(err)
  assert(err:find(words, 1, true), ("%q is not in %q"):format(words, err))
  assert.matches("^starttls: [^\r\n]+$", err)
  assert.is_nil(err:find("secret", 1, true))
end

-- These options are no misuse: it is only that nobody listens.
local function assert_passes(changes, protocol)
  local session, err = protocols[protocol or "smtp"].connect(given(changes))
  assert.is_nil(session)
  assert.equals("connect", err.kind, err)
end

describe("options", function()
  setup(function()
    port = Peer.closed_port()
    port.directory = process.temporary_directory()
    port.ca = certificates.ca(port.directory.path)
    port.client = port.ca:issue { name = "client", client = true }
  end)

  teardown(function()
    port.directory:close()
    port:close()
  end)

  for protocol in pairs(protocols) do
    describe("of " .. protocol, function()
      it("are those that the README lists", function()
        assert_passes({}, protocol)
        assert_passes({ tls = "implicit", authzid = "bob", sasl = { "PLAIN" },
          channel_binding = "off", timeout = 5, deadline = 5.5, ca_path = port.directory.path,
          server_name = "mail.example.test", client_cert = port.client.cert,
          client_key = port.client.key, tls_priority = "NORMAL", alpn = false, trace = nothing,
          limits = { line = 1, reply = 1, depth = 1, greeting = 1, string = 1 },
          loop = { wait = nothing, forget = nothing }, insecure_auth = false,
          insecure_no_verify = false }, protocol)
      end)

      it("raise when they are unknown", function()
        for _, name in ipairs { "hots", "Host", "tls_verify", "username", "pass", "verify",
          "insecure", "ssl", "loops", 1, true } do
          assert_raises(("unknown option '%s'"):format(tostring(name)), { [name] = "x" }, protocol)
        end
      end)

      it("are a table", function()
        local connect = protocols[protocol].connect
        for _, value in ipairs { "mail.example.test", 5, true, print } do
          assert.error_matches(function() connect(value) end, "table of options")
        end
        assert.error_matches(function() connect() end, "table of options")
      end)
    end)
  end

  it("of one protocol are none of another", function()
    assert_passes({ client_name = "laptop.example.test" }, "smtp")
    assert_passes({ on = { exists = print } }, "imap")
    for _, protocol in ipairs { "imap", "pop3" } do
      assert_raises("unknown option 'client_name'", { client_name = "x" }, protocol)
    end
    for _, protocol in ipairs { "smtp", "pop3" } do
      assert_raises("unknown option 'on'", { on = {} }, protocol)
    end
  end)

  describe("raise for another type:", function()
    local values = { string = "x", number = 5, boolean = true, table = {}, ["function"] = print }
    local types = {
      host = "string", port = "number", tls = "string", user = "string",
      password = "string function", token = "string function", authzid = "string",
      sasl = "string table", channel_binding = "string", timeout = "number",
      connect_timeout = "number", deadline = "number", ca_file = "string", ca_path = "string",
      server_name = "string", client_cert = "string", client_key = "string",
      tls_priority = "string", alpn = "boolean", loop = "table false", trace = "function",
      limits = "table", insecure_auth = "boolean", insecure_no_verify = "boolean",
      client_name = "string",
    }
    for name, allowed in pairs(types) do
      it(name, function()
        for kind, value in pairs(values) do
          if not allowed:find(kind, 1, true) then
            assert_raises(("option '%s' must be a %s, not a %s"):format(name,
              allowed:gsub(" ", " or "), kind), { [name] = value })
          end
        end
      end)
    end
  end)

  -- words of the message, and the options
  for _, case in ipairs {
    { "'host' is missing", { host = without } },
    { "host name is empty", { host = "" } },
    { "host", { host = "two words" } },
    { "host", { host = "mail.example.test:25" } },
    { "host", { host = "smtp://mail.example.test" } },
    { "host", { host = "user@mail.example.test" } },
    { "empty label", { host = "mail..example.test" } },
    { "empty label", { host = ".example.test" } },
    { "hyphen", { host = "-mail.example.test" } },
    { "hyphen", { host = "mail-.example.test" } },
    { "63 octets", { host = ("x"):rep(64) .. ".test" } },
    { "255 octets", { host = ("abc."):rep(64) .. "test" } },
    { "host", { host = "[::1" } },
    { "host", { host = "\xff\xfe" } },
    { "host", { host = "b\u{fc}cher\u{2024}test:1" } },
    { "server_name", { server_name = "two words" } },
    { "server_name", { server_name = "" } },
    { "server_name", { server_name = "*.example.test" } },

    { "'port' must be an integer from 1 to 65535", { port = 0 } },
    { "'port' must be an integer from 1 to 65535", { port = -1 } },
    { "'port' must be an integer from 1 to 65535", { port = 65536 } },
    { "'port' must be an integer from 1 to 65535", { port = 25.5 } },
    { "'port' must be an integer from 1 to 65535", { port = 0 / 0 } },
    { "'port' must be an integer from 1 to 65535", { port = math.huge } },
    { "'port' must be an integer from 1 to 65535", { port = math.maxinteger } },

    { "'timeout' must be a positive number", { timeout = 0 } },
    { "'timeout' must be a positive number", { timeout = -1 } },
    { "'timeout' must be a positive number", { timeout = 0 / 0 } },
    { "'connect_timeout' must be a positive number", { connect_timeout = 0 } },
    { "'deadline' must be a positive number", { deadline = -0.5 } },

    { "'tls'", { tls = "ssl" } }, { "'tls'", { tls = "STARTTLS" } }, { "'tls'", { tls = "" } },
    { "'channel_binding'", { channel_binding = "always" } },
    { "tls_priority", { tls_priority = "EVERYTHING" } },
    { "tls_priority", { tls_priority = "" } },
    { "client_name", { client_name = "two words" } },

    { "'MAGIC'", { sasl = "MAGIC" } }, { "''", { sasl = "" } },
    { "'PLAIN LOGIN'", { sasl = "PLAIN LOGIN" } },
    { "'sasl' names no mechanism", { sasl = {} } },
    { "'MAGIC'", { sasl = { "PLAIN", "MAGIC" } } },
    { "mechanism", { sasl = { "PLAIN", 5 } } }, { "mechanism", { sasl = { {} } } },

    { "unknown limit 'lines'", { limits = { lines = 5 } } },
    { "unknown limit '1'", { limits = { 5 } } },
    { "limit 'line' must be a positive integer", { limits = { line = 0 } } },
    { "limit 'reply' must be a positive integer", { limits = { reply = -1 } } },
    { "limit 'greeting' must be a positive integer", { limits = { greeting = 1.5 } } },
    { "limit 'string' must be a positive integer", { limits = { string = "5" } } },
    { "limit 'reply'", { limits = { reply = 1 << 28 } } },
    { "limit 'depth' can't be more than 1000", { limits = { depth = 1001 } } },

    { "'loop' must have two functions, wait and forget", { loop = {} } },
    { "'loop' must have two functions, wait and forget", { loop = { wait = print } } },
    { "'loop' must have two functions, wait and forget", { loop = { wait = 5, forget = print } } },

    { "'password' needs option 'user'", { user = without } },
    { "'user' needs a password, a token", { password = without } },
    { "'user' is empty", { user = "" } },
    { "'password' is empty", { password = "" } },
    { "'token' is empty", { password = without, token = "" } },
    { "'client_key' needs option 'client_cert'", { client_key = "x.key" } },

    { "not sent in the clear", { tls = "none" } },
    { "not sent in the clear", { tls = "none", password = print } },
    { "not sent in the clear", { tls = "none", password = without, token = "t" } },
    { "not sent in the clear", { tls = "none", user = without, password = without,
      sasl = "ANONYMOUS" } },
    { "certificate is not verified", { insecure_no_verify = true } },
    { "certificate is not verified", { insecure_no_verify = true, password = without, token = "t",
      tls = "implicit" } },
  } do
    it("raise: " .. case[1], function()
      assert_raises(case[1], case[2])
    end)
  end

  it("for IMAP raise where a handler is none", function()
    assert_raises("unknown handler 'exist'", { on = { exist = print } }, "imap")
    assert_raises("unknown handler '1'", { on = { print } }, "imap")
    assert_raises("handler 'exists' in option 'on' must be a function, not a string",
      { on = { exists = "x" } }, "imap")
  end)

  for _, case in ipairs {
    { "a host in other letters, with a root's dot", { host = "LocalHost." } },
    { "an address in brackets", { host = "[127.0.0.1]" } },
    { "a server_name beyond ASCII", { server_name = "b\u{fc}cher.example.test" } },
    { "a port that is a float without a fraction", { port = "float" } },
    { "times that are long or infinite", { timeout = 1e300, connect_timeout = math.huge,
      deadline = math.huge } },
    { "a mechanism in other letters", { sasl = "scram-sha-256" } },
    { "a token in place of a password", { password = without, token = "t" } },
    { "a token without a user", { user = without, password = without, token = "t" } },
    { "a client certificate in place of a password",
      { password = without, client_cert = "client" } },
    { "no credentials at all", { user = without, password = without } },
    { "no credentials in the clear", { user = without, password = without, tls = "none" } },
    { "no credentials and no verification", { user = without, password = without,
      insecure_no_verify = true } },
    { "ANONYMOUS without a user", { user = without, password = without, sasl = "ANONYMOUS" } },
    { "credentials in the clear, with insecure_auth", { tls = "none", insecure_auth = true } },
    { "credentials unverified, with insecure_auth", { insecure_no_verify = true,
      insecure_auth = true } },
    { "the least of limits", { limits = { depth = 1000, line = 1, reply = (1 << 28) - 1 } } },
    { "options that are false or empty", { insecure_auth = false, limits = {} } },
  } do
    it("may be " .. case[1], function()
      local changes = {}
      for name, value in pairs(case[2]) do changes[name] = value end
      if changes.port == "float" then changes.port = port.port + 0.0 end
      if changes.client_cert then
        changes.client_cert, changes.client_key = port.client.cert, port.client.key
      end
      assert_passes(changes)
    end)
  end

  it("raise before anything is connected, or the password is asked for", function()
    local peer <close> = Peer.start(function() end)
    local asked = false
    local function password()
      asked = true
      return "x"
    end
    assert_raises("'tls'", { port = peer.port, tls = "ssl", password = password })
    assert_raises("tls_priority", { port = peer.port, tls_priority = "X", password = password })
    assert_passes { password = password }
    assert.is_false(asked)
    assert.equals(0, peer:finish().connections)
  end)

  it("are left as they are, and may be used again", function()
    local mine = given { sasl = { "PLAIN" }, limits = { line = 1000 } }
    local before = {}
    for name, value in pairs(mine) do before[name] = value end
    for _ = 1, 2 do protocols.smtp.connect(mine) end
    assert.same(before, mine)
    assert.same({ "PLAIN" }, mine.sasl)
  end)

  describe("by default", function()
    local function tls_of(changes)
      return options.check("smtp", given(changes), {}).tls
    end

    it("begin in the clear and insist on STARTTLS, except at the ports of implicit TLS", function()
      for number, tls in pairs { [25] = "starttls", [587] = "starttls", [143] = "starttls",
        [110] = "starttls", [2525] = "starttls", [465] = "implicit", [993] = "implicit",
        [995] = "implicit" } do
        assert.equals(tls, tls_of { port = number })
        assert.equals(tls, tls_of { port = number + 0.0 })
        assert.equals("starttls", tls_of { port = number, tls = "starttls" })
        assert.equals("implicit", tls_of { port = number, tls = "implicit" })
      end
      assert.equals("starttls", tls_of { port = without })
    end)

    -- The session as it stands while its host is looked up; no connection is made.
    local function look_up(protocol, changes)
      local seen
      local loop = {
        wait = function(session)
          seen = seen or tostring(session)
          return nil, "enough"
        end,
        forget = function() end,
      }
      changes.loop, changes.port, changes.host = loop, without, "localhost"
      local session, err = coroutine.wrap(function()
        return protocols[protocol].connect(given(changes))
      end)()
      assert.is_nil(session)
      assert.equals("cancelled", err.kind)
      return seen
    end

    local ports_of = { smtp = { 587, 465 }, imap = { 143, 993 }, pop3 = { 110, 995 } }
    for protocol, ports in pairs(ports_of) do
      it("go to the ports of " .. protocol, function()
        local form = "starttls.%s: localhost:%d (closed)"
        assert.equals(form:format(protocol, ports[1]), look_up(protocol, {}))
        assert.equals(form:format(protocol, ports[1]), look_up(protocol, { tls = "starttls" }))
        assert.equals(form:format(protocol, ports[1]),
          look_up(protocol, { tls = "opportunistic" }))
        assert.equals(form:format(protocol, ports[1]),
          look_up(protocol, { tls = "none", user = without, password = without }))
        assert.equals(form:format(protocol, ports[2]), look_up(protocol, { tls = "implicit" }))
      end)
    end
  end)
end)

describe("an error", function()
  local function refused()
    local session, err = protocols.smtp.connect { host = "127.0.0.1", port = port.port,
      ca_file = port.ca.cert }
    assert.is_nil(session)
    return err
  end

  setup(function()
    port = Peer.closed_port()
    port.directory = process.temporary_directory()
    port.ca = certificates.ca(port.directory.path)
  end)

  teardown(function()
    port.directory:close()
    port:close()
  end)

  it("has its fields", function()
    local err = refused()
    assert.is_true(errors.is(err))
    assert.equals("connect", err.kind)
    assert.equals("connect", err.during)
    assert.is_true(err.temporary)
    assert.matches("127.0.0.1:" .. port.port, err.message, 1, true)
    for _, field in ipairs { "hint", "code", "status", "text", "delivery", "rejected" } do
      assert.is_nil(err[field], field)
    end
  end)

  it("is one line that says it all", function()
    local err = refused()
    assert.equals(err.message .. " [connect, during connect]", tostring(err))
    local all = errors.new { kind = "rejected", during = "mail", message = "the server says no",
      code = 550, status = "5.1.1", text = "first\nsecond\r\n third\27", hint = "ask\tagain" }
    assert.equals("the server says no (the server says: 550 5.1.1 first second third?); ask again "
      .. "[rejected, during mail]", tostring(all))
    assert.is_false(all.temporary)
  end)

  it("can be joined with other text", function()
    local err = refused()
    assert.equals("failed: " .. tostring(err), "failed: " .. err)
    assert.equals(tostring(err) .. "!", err .. "!")
    assert.equals("1" .. tostring(err), 1 .. err)
    assert.equals(tostring(err) .. tostring(err), err .. err)
  end)

  it("is what assert raises, and reads well where nobody catches it", function()
    local program = ([[
      package.path, package.cpath = %q, %q
      assert(require("starttls.smtp").connect { host = "127.0.0.1", port = %d, tls = "none" })
    ]]):format(package.path, package.cpath, port.port)
    local ok, output = shell.run("%s -e %s", os.getenv "LUA" or "lua5.4", shell.quote(program))
    assert.is_false(ok)
    assert.matches("can't connect to 127.0.0.1:" .. port.port, output, 1, true)
    assert.is_nil(output:find("error object", 1, true))
  end)

  it("is told from other values", function()
    assert.is_false(errors.is "text")
    assert.is_false(errors.is(nil))
    assert.is_false(errors.is {})
    assert.is_false(errors.is(setmetatable({}, {})))
  end)
end)

describe("the module starttls", function()
  it("loads the protocols when they are used", function()
    local starttls = require "starttls"
    for protocol, module in pairs(protocols) do assert.equals(module, starttls[protocol]) end
    assert.equals(errors, starttls.error)
    assert.is_nil(starttls.nothing)
  end)
end)
