-- Waiting: whatever doesn't answer ends in the right error, in the right phase, within the
-- bounds that the script has set. And a link that is lost while a message is on its way.

local socket = require "socket"
local Peer = require "spec.support.peer"
local errors = require "starttls.error"
local patience = require "spec.support.patience"
local peer_steps = require "spec.support.peer_steps"
local process = require "spec.support.process"
local Stage = require "spec.support.stage"

local greetings = {
  smtp = "220 mail.example.test ESMTP\r\n", imap = "* OK ready\r\n", pop3 = "+OK ready\r\n",
}

-- Steps of a peer.
local say, expect, silence = peer_steps.say, peer_steps.expect, peer_steps.silence
local logged_in = peer_steps.logged_in

local function join(...)
  local steps = {}
  for _, list in ipairs { ... } do table.move(list, 1, #list, #steps + 1, steps) end
  return steps
end

-- Steps up to the handshake, and then those given.
local function at_handshake(name, ...)
  local steps = {
    smtp = { say(greetings.smtp), expect "^EHLO", say "250-mail\r\n250 STARTTLS\r\n",
      expect "^STARTTLS", say "220 go ahead\r\n" },
    imap = { say "* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n", expect "STARTTLS",
      say "%T OK begin\r\n" },
    pop3 = { say(greetings.pop3), expect "^STLS", say "+OK begin\r\n" },
  }
  return join(steps[name], { ... })
end

-- Steps up to the content of a message, and then those given.
local function at_content(...)
  return logged_in("smtp", expect "^MAIL", say "250 ok\r\n", expect "^RCPT", say "250 ok\r\n",
    expect "^DATA", say "354 go ahead\r\n", ...)
end

local function message(text)
  return { from = "a@example.test", to = "b@example.test",
    message = text or "Subject: x\n\nhello\n" }
end

local function send(text)
  return function(session) return session:send(message(text)) end
end

-- A source that has more than any buffer takes, and tells how much was asked for.
local function long_source(octets)
  local given, line = 0, ("x"):rep(1022) .. "\r\n"
  return function()
    if given >= octets then return nil end
    given = given + 64 * #line
    return line:rep(64)
  end, function() return given end
end

describe("waiting", function()
  local stage

  setup(function() stage = Stage.open() end)
  teardown(function() stage:close() end)

  local function options(given)
    local all = stage:options { connect_timeout = patience.seconds(10) }
    for name, value in pairs(given) do all[name] = value or nil end
    return all
  end

  local function start(steps) return stage:start(steps) end

  -- Connects to a peer that plays the steps, and does `action(session)`, which has to fail.
  -- Returns the error, and the seconds that the failed call took.
  local function failure(name, steps, action, given)
    local peer <close> = start(steps)
    given = options(given or {})
    given.port = peer.port
    local began = socket.gettime()
    local session <close>, err = require("starttls." .. name).connect(given)
    if session then
      assert(action, "a session was handed out")
      began = socket.gettime()
      local done
      done, err = action(session)
      assert.is_nil(done)
    end
    local seconds = socket.gettime() - began
    assert.is_true(errors.is(err), tostring(err))
    return err, seconds
  end

  local function assert_took(seconds, at_least)
    assert.is_true(seconds > at_least * 0.9, ("only %g s"):format(seconds))
    assert.is_true(seconds < at_least + patience.seconds(8), ("%g s"):format(seconds))
  end

  -- Expects a timeout during that phase. A busy machine may be late before it comes to
  -- that: then once more, with more time.
  local function stalls(name, during, steps, action, given)
    local err, seconds, limit
    for _, timeout in ipairs { 0.1, 1, patience.seconds(4) } do
      limit = timeout
      local all = { timeout = limit, connect_timeout = during == "handshake" and limit or nil }
      for key, value in pairs(given or {}) do all[key] = value end
      err, seconds = failure(name, steps, action, all)
      if err.during == during then break end
    end
    assert.are.equal("timeout", err.kind, tostring(err))
    assert.are.equal(during, err.during, tostring(err))
    assert.is_true(err.temporary)
    assert_took(seconds, limit)
    return err
  end

  -- {====== Connecting ======

  describe("for a connection", function()
    -- A port whose queue of connections is full: the next SYN is not answered.
    local function black_hole(host, port)
      local held = {}
      local listener = assert(host:find ":" and socket.tcp6() or socket.tcp4())
      if host:find ":" then assert(listener:setoption("ipv6-v6only", true)) end
      held[1] = listener
      local bound, why = listener:bind(host, port)
      if not bound then
        listener:close()
        return nil, why
      end
      assert(listener:listen(0))
      port = math.tointeger(tonumber((select(2, listener:getsockname()))))
      local full = false
      for _ = 1, 20 do
        local client = host:find ":" and socket.tcp6() or socket.tcp4()
        client:settimeout(0.1)
        held[#held + 1] = client
        if not client:connect(host, port) then
          full = true
          break
        end
      end
      assert(full, "the queue never gets full")
      local function close() for _, conn in ipairs(held) do conn:close() end end
      return setmetatable({ port = port, close = close }, { __close = close })
    end

    for _, name in ipairs { "smtp", "imap", "pop3" } do
      it("to a host that does not answer ends in time: " .. name, function()
        local hole <close> = assert(black_hole("127.0.0.1", 0))
        local limit, began = patience.seconds(0.3), socket.gettime()
        local session, err = require("starttls." .. name).connect(
          options { port = hole.port, connect_timeout = limit })
        assert.is_nil(session)
        assert.are.equal("timeout", err.kind)
        assert.are.equal("connect", err.during)
        assert.is_true(err.temporary)
        assert.matches("127.0.0.1", err.message)
        assert_took(socket.gettime() - began, limit)
      end)

      it("to a closed port fails at once: " .. name, function()
        local closed <close> = Peer.closed_port()
        local session, err = require("starttls." .. name).connect(options { port = closed.port })
        assert.is_nil(session)
        assert.are.equal("connect", err.kind)
        assert.are.equal("connect", err.during)
        assert.is_true(err.temporary)
        assert.matches(("127.0.0.1:%d"):format(closed.port), err.message)
      end)
    end

    it("to a name that does not resolve ends in time", function()
      local limit, began = patience.seconds(2), socket.gettime()
      local session, err = require("starttls.smtp").connect(
        options { host = "no-such-host.invalid", port = 25, connect_timeout = limit })
      assert.is_nil(session)
      assert.is_true(err.kind == "resolve" or err.kind == "timeout", tostring(err))
      assert.are.equal("connect", err.during)
      assert.matches("no%-such%-host%.invalid", err.message)
      assert.is_true(socket.gettime() - began < limit + patience.seconds(8))
    end)

    it("to localhost finds the address that answers", function()
      -- Where localhost is ::1 too, that one is dead: first refusing, then not answering.
      for _, dead in ipairs { false, true } do
        local peer <close> = start { { "smtp_upgrade", {} }, silence }
        local hole = dead and black_hole("::1", peer.port)
        local session <close> = assert(require("starttls.smtp").connect(
          options { host = "localhost", port = peer.port }))
        assert.is_true(session:security().encrypted)
        if hole then hole:close() end
      end
    end)

    it("counts against the deadline", function()
      local hole <close> = assert(black_hole("127.0.0.1", 0))
      local limit, began = patience.seconds(0.3), socket.gettime()
      local _, err = require("starttls.smtp").connect(
        options { port = hole.port, deadline = limit })
      assert.are.equal("timeout", err.kind)
      assert.matches("deadline", err.message)
      assert_took(socket.gettime() - began, limit)
    end)
  end)

  -- }======

  -- {====== Silence ======

  describe("for a silent server ends with a timeout,", function()
    local function call(method, ...)
      local arguments = table.pack(...)
      return function(session)
        return session[method](session, table.unpack(arguments, 1, arguments.n))
      end
    end

    local phases = {
      { "smtp", "greeting", {} },
      { "smtp", "greeting", { say "220-mail\r\n220-mai" } },
      { "smtp", "capabilities", { say(greetings.smtp), expect "^EHLO" } },
      { "smtp", "capabilities", { say(greetings.smtp), expect "^EHLO", say "250-mail\r\n250-ST" } },
      { "smtp", "starttls", { say(greetings.smtp), expect "^EHLO", say "250-a\r\n250 STARTTLS\r\n",
        expect "^STARTTLS" } },
      { "smtp", "starttls", { say(greetings.smtp), expect "^EHLO", say "250-a\r\n250 STARTTLS\r\n",
        expect "^STARTTLS", say "220" } },
      { "smtp", "capabilities", at_handshake("smtp", { "starttls", {} }) },
      { "smtp", "auth", { { "smtp_upgrade", { auth = false } }, expect "^AUTH" } },
      { "smtp", "auth", { { "smtp_upgrade", { auth = false, after = { "AUTH LOGIN" } } },
        expect "^AUTH", say "334 \r\n", { "hear" } } },
      { "smtp", "mail", logged_in("smtp", expect "^MAIL"), send() },
      { "smtp", "rcpt", logged_in("smtp", expect "^MAIL", say "250 ok\r\n", expect "^RCPT"),
        send() },
      { "smtp", "data", logged_in("smtp", expect "^MAIL", say "250 ok\r\n", expect "^RCPT",
        say "250 ok\r\n", expect "^DATA"), send() },
      { "smtp", "content", at_content { "sleep", 60 }, send(long_source(1 << 40)) },
      { "smtp", "delivery", at_content { "read_to_dot" }, send() },
      { "smtp", "delivery", at_content({ "read_to_dot" }, say "250-2.0.0"), send() },
      { "smtp", "noop", logged_in "smtp", call "noop" },
      { "smtp", "noop", logged_in("smtp", expect "NOOP", { "send_below", "\23\3\3\1\0hello" }),
        call "noop" },
      { "smtp", "vrfy", logged_in "smtp", call("verify", "alice") },
      { "smtp", "rset", logged_in "smtp", call "reset" },
      { "smtp", "quit", logged_in "smtp", call "quit" },

      { "imap", "greeting", { say "* OK [CAPABI" } },
      { "imap", "capabilities", { say(greetings.imap), expect "CAPABILITY",
        say "* CAPABILITY IMAP4rev1 STARTTLS\r\n" } },
      { "imap", "starttls", { say "* OK [CAPABILITY STARTTLS] hi\r\n", expect "STARTTLS",
        say "* OK hi\r\n%T O" } },
      { "imap", "capabilities", at_handshake("imap", { "starttls", {} }) },
      { "imap", "auth", { { "imap_upgrade", { auth = false } }, expect "AUTHENTICATE" } },
      { "imap", "auth", { { "imap_upgrade", { auth = false, after = {} } }, expect "LOGIN" } },
      { "imap", "capabilities", { { "imap_upgrade", {} }, expect "CAPABILITY" } },
      { "imap", "select", logged_in("imap", expect "SELECT", say "* 3 EXISTS\r\n"),
        call("select", "INBOX") },
      { "imap", "list", logged_in("imap", expect "LIST", say '* LIST () "/" "INB'), call "list" },
      { "imap", "fetch", logged_in("imap", expect "FETCH"), call("fetch_all", 1, { "body" }) },
      { "imap", "fetch", logged_in("imap", expect "FETCH",
        say "* 1 FETCH (UID 1 BODY[] {100}\r\nhello"), call("fetch_all", 1, { "body" }) },
      { "imap", "fetch", logged_in("imap", expect "FETCH",
        say "* 1 FETCH (UID 1 BODY[] {5}\r\nhello"), call("fetch_all", 1, { "body" }) },
      { "imap", "append", logged_in("imap", expect "APPEND"),
        call("append", "INBOX", "hello\r\n") },
      { "imap", "append", logged_in("imap", expect "APPEND", say "+ go ahead\r\n"),
        call("append", "INBOX", "hello\r\n") },
      { "imap", "search", logged_in("imap", expect "SEARCH", { "send_below", "\23" }),
        call("search", "ALL") },
      { "imap", "logout", logged_in("imap", expect "LOGOUT", say "* BYE bye\r\n"), call "logout" },

      { "pop3", "greeting", { say "+OK" } },
      { "pop3", "starttls", { say(greetings.pop3), expect "^STLS" } },
      { "pop3", "capabilities", at_handshake("pop3", { "starttls", {} }, expect "CAPA",
        say "+OK\r\nUSER\r\n") },
      { "pop3", "auth", { { "pop3_upgrade", { auth = false } }, expect "^AUTH" } },
      { "pop3", "auth", { { "pop3_upgrade", { auth = false, after = { "USER" } } }, expect "^USER",
        say "+OK\r\n" } },
      { "pop3", "stat", logged_in("pop3", expect "STAT"), call "stat" },
      { "pop3", "list", logged_in("pop3", expect "LIST", say "+OK\r\n1 100\r\n2 "), call "list" },
      { "pop3", "retr", logged_in("pop3", expect "RETR"), call("retr", 1) },
      { "pop3", "retr", logged_in("pop3", expect "RETR", say "+OK\r\nSubject: x\r\n\r\nhel"),
        call("retr", 1) },
      { "pop3", "retr", logged_in("pop3", expect "RETR", say "+OK\r\nhello\r\n."),
        call("retr", 1) },
      { "pop3", "quit", logged_in("pop3", expect "QUIT"), call "quit" },
    }
    for number, case in ipairs(phases) do
      local name, during, steps, action = table.unpack(case)
      it(("%s, during %s (%d)"):format(name, during, number), function()
        local err = stalls(name, during, join(steps, { silence }), action)
        assert.matches("did not answer within", err.message)
        -- The message's end was sent: nobody knows whether the server has taken it.
        local last = steps[#steps]
        local ended = during == "delivery" or (last and last[2] == "+ go ahead\r\n")
        assert.are.equal(ended and "unknown" or nil, err.delivery)
      end)
    end

    for _, name in ipairs { "smtp", "imap", "pop3" } do
      it(name .. ", anywhere in the handshake", function()
        stalls(name, "handshake", at_handshake(name, silence))
        for _, count in ipairs { 1, 5, 127, 600 } do
          local steps = at_handshake(name, { "stall_handshake", { after = count } }, silence)
          stalls(name, "handshake", steps)
        end
      end)

      it(name .. ", in TLS from the first byte", function()
        stalls(name, "handshake", { silence }, nil, { tls = "implicit" })
        stalls(name, "greeting", { { "starttls", {} }, silence }, nil, { tls = "implicit" })
      end)
    end
  end)

  describe("for a server that sends a byte now and then", function()
    local dripping = {
      { "smtp", "greeting", { { "repeat_for_ever", "2", 0.05 } } },
      { "imap", "capabilities", at_handshake("imap", { "starttls", {} },
        { "repeat_for_ever", "* OK hi\r\n", 0.05 }) },
      { "smtp", "noop", logged_in("smtp", { "repeat_for_ever", "250-x\r\n", 0.05 }),
        function(session) return session:noop() end },
      { "imap", "fetch", logged_in("imap", expect "FETCH", say "* 1 FETCH (BODY[] {1000000}\r\n",
        { "repeat_for_ever", "x", 0.05 }),
        function(session) return session:fetch_all(1, { "body" }) end },
      { "pop3", "retr", logged_in("pop3", expect "RETR", say "+OK\r\n",
        { "repeat_for_ever", "x", 0.05 }), function(session) return session:retr(1) end },
      { "smtp", "content", at_content { "repeat_for_ever", "250-x\r\n", 0.05 },
        send(long_source(1 << 40)) },
    }
    for _, case in ipairs(dripping) do
      local name, during, steps, action = table.unpack(case)
      it(("the deadline ends it: %s, %s"):format(name, during), function()
        local limit = patience.seconds(0.3)
        local err, seconds = failure(name, steps, action, { deadline = limit })
        assert.are.equal("timeout", err.kind, tostring(err))
        assert.are.equal(during, err.during)
        assert.matches("deadline of", err.message)
        assert_took(seconds, limit)
      end)
    end

    it("connect_timeout ends it in the handshake", function()
      for _, name in ipairs { "smtp", "imap", "pop3" } do
        local limit = patience.seconds(0.4)
        local err, seconds = failure(name,
          at_handshake(name, { "hear" }, say "\22\3\3\64\0",
            { "repeat_for_ever", "\0", 0.02 }), nil,
          { connect_timeout = limit })
        assert.are.equal("timeout", err.kind, tostring(err))
        assert.are.equal("handshake", err.during)
        assert_took(seconds, limit)
      end
    end)

    it("the timeout does not end it, as long as something comes", function()
      local peer <close> = start(logged_in("smtp", expect "NOOP",
        { "send_slowly", "250 " .. ("x"):rep(30) .. "\r\n", 0.05 }, silence))
      local session <close> = assert(require("starttls.smtp").connect(
        options { port = peer.port, timeout = patience.seconds(1) }))
      local began = socket.gettime()
      assert.is_truthy(session:noop())
      assert.is_true(socket.gettime() - began > 1.2)
    end)
  end)

  describe("bounds", function()
    it("hold for one operation, not for the session", function()
      local peer <close> = start(logged_in("smtp", expect "NOOP", say "250 ok\r\n", silence))
      local limit = patience.seconds(0.8)
      local session <close> = assert(require("starttls.smtp").connect(
        options { port = peer.port, timeout = limit, connect_timeout = limit, deadline = limit }))
      socket.sleep(limit * 1.2)
      assert.is_truthy(session:noop())
    end)

    it("leave the caller's own time out: a slow loop is not a slow server", function()
      local limit = patience.seconds(0.8)
      local peer <close> = start(logged_in("imap", expect "FETCH",
        say "* 1 FETCH (UID 1 FLAGS ())\r\n", { "sleep", 1.25 * limit },
        say "* 2 FETCH (UID 2 FLAGS ())\r\n%T OK done\r\n", silence))
      local session <close> = assert(require("starttls.imap").connect(
        options { port = peer.port, timeout = limit }))
      local uids = {}
      for msg in session:fetch("1:*", { "flags" }) do
        uids[#uids + 1] = msg.uid
        if msg.uid == 1 then socket.sleep(1.1 * limit) end
      end
      assert.are.same({ 1, 2 }, uids)
    end)

    it("must be positive numbers", function()
      for _, name in ipairs { "timeout", "connect_timeout", "deadline" } do
        for _, value in ipairs { 0, -1, 0 / 0, "soon" } do
          local ok, err = pcall(require("starttls.smtp").connect, options { [name] = value })
          assert.is_false(ok)
          assert.is_string(err)
          assert.matches(name, err)
        end
      end
    end)
  end)

  -- }======

  -- {====== Lost ======

  describe("for the answer to a whole message", function()
    for _, ending in ipairs { "close", "cut", "reset" } do
      it("ends with delivery unknown when the connection ends: " .. ending, function()
        local err = failure("smtp", at_content({ "read_to_dot" }, { ending }), send())
        assert.are.equal("closed", err.kind)
        assert.are.equal("delivery", err.during)
        assert.are.equal("unknown", err.delivery)
        assert.is_true(err.temporary)
        assert.matches("unknown", err.message .. err.delivery)
      end)

      it("knows that a message without its end is not delivered: " .. ending, function()
        local err = failure("smtp", at_content({ "hear" }, { ending }), send(long_source(1 << 24)))
        assert.are.equal("closed", err.kind, tostring(err))
        assert.are.equal("content", err.during)
        assert.is_nil(err.delivery)
      end)
    end

    it("takes a refusal of the server for what it is", function()
      local err = failure("smtp",
        at_content({ "read_to_dot" }, say "451 4.3.0 try later\r\n", silence), send())
      assert.are.equal("rejected", err.kind)
      assert.are.equal("delivery", err.during)
      assert.is_nil(err.delivery)
      assert.is_true(err.temporary)
    end)

    it("takes 421 for the end of the session, and for no delivery", function()
      local err = failure("smtp",
        at_content({ "read_to_dot" }, say "421 4.3.2 bye\r\n", { "close" }), send())
      assert.are.equal("closed", err.kind)
      assert.are.equal(421, err.code)
      assert.is_nil(err.delivery)
    end)
  end)

  it("for the answer to POP3's QUIT fails when none comes: deletions may not be done", function()
    for _, ending in ipairs { "close", "cut", "reset" } do
      local err = failure("pop3", logged_in("pop3", expect "QUIT", { ending }),
        function(session) return session:quit() end)
      assert.are.equal("closed", err.kind)
      assert.are.equal("quit", err.during)
    end
  end)

  it("for the answer to QUIT and LOGOUT takes the end of the connection for an answer", function()
    for name, verb in pairs { smtp = "quit", imap = "logout" } do
      local peer <close> = start(logged_in(name, expect(verb:upper()), { "close" }))
      local session <close> = assert(require("starttls." .. name).connect(
        options { port = peer.port }))
      assert.is_true(session[verb](session))
    end
  end)

  describe("while a message is on its way", function()
    local big = 1 << 26

    local function append(session)
      return session:append("INBOX", (("x"):rep(998) .. "\r\n"):rep(8000))
    end

    local refusals = {
      { "smtp", "552 5.3.4 too big\r\n", "rejected", "content", code = 552, status = "5.3.4" },
      { "smtp", "451 4.3.0 disk full\r\n", "rejected", "content", code = 451, temporary = true },
      { "smtp", "421 4.4.2 too slow\r\n", "closed", "content", code = 421, temporary = true },
      { "imap", "%T NO [OVERQUOTA] too big\r\n", "rejected", "append", status = "OVERQUOTA" },
      { "imap", "%T BAD too big\r\n", "rejected", "append", text = "too big" },
      { "imap", "* BYE too slow\r\n", "closed", "append", text = "too slow" },
    }
    for _, case in ipairs(refusals) do
      local name, words, kind, during = table.unpack(case)
      for _, ending in ipairs { "close", "reset", "wait_for_close" } do
        it(("the server's words are reported: %q, then %s"):format(words, ending), function()
          local steps = { { "hear" }, say(words), { ending } }
          if name == "smtp" then steps = at_content(table.unpack(steps))
          else
            steps = logged_in("imap", expect "APPEND", say "+ go ahead\r\n", table.unpack(steps))
          end
          local err = failure(name, steps, name == "smtp" and send(long_source(big)) or append)
          assert.are.equal(kind, err.kind, tostring(err))
          assert.are.equal(during, err.during, tostring(err))
          for _, field in ipairs { "code", "status", "text", "temporary" } do
            if case[field] then assert.are.equal(case[field], err[field]) end
          end
        end)
      end
    end

    it("no more of it is asked for than the server wants", function()
      local source, given = long_source(1 << 20)
      local peer <close> = start(at_content({ "hear" }, say "552 5.3.4 too big\r\n", silence))
      local session <close> = assert(require("starttls.smtp").connect(options { port = peer.port }))
      local result, err = session:send(message(function()
        if given() == 1 << 18 then socket.sleep(patience.seconds(0.2)) end -- the refusal arrives
        return source()
      end))
      assert.is_nil(result)
      assert.are.equal(552, err.code)
      assert.are.equal("content", err.during)
      assert.is_true(given() < 1 << 19, ("%d octets"):format(given()))
    end)

    it("an early yes is no yes", function()
      local err = failure("smtp", at_content(say "250 queued\r\n", silence), send(long_source(big)))
      assert.are.equal("protocol", err.kind)
      assert.are.equal("content", err.during)
    end)
  end)

  -- }======

  -- {====== The process ======

  describe("in a process of its own", function()
    -- A program without LuaSocket, which would switch SIGPIPE off.
    local function program(text, ...)
      local path = stage.path .. "/program.lua"
      process.write_file(path, ("package.path, package.cpath = %q, %q\n%s"):format(
        package.path, package.cpath, text:format(...)))
      return path
    end

    local interpreter = os.getenv "LUA" or "lua5.4"

    it("never meets SIGPIPE", function()
      local text = [[
        local smtp = require "starttls.smtp"
        local session <close> = assert(smtp.connect { host = "127.0.0.1", port = %d, tls = %q,
          ca_file = %q, timeout = 10 })
        local pieces = 0
        local result, err = session:send { from = "a@b", to = "c@d", message = function()
          pieces = pieces + 1
          if pieces == 3 then os.execute "sleep 0.4" end -- the server goes meanwhile
          return ("x"):rep(65536)
        end }
        print(result, err.kind, (session:noop()))
      ]]
      for tls, upgrade in pairs { implicit = { implicit = true }, none = { secure = false } } do
        upgrade.after, upgrade.auth = { "8BITMIME" }, false
        local peer <close> = start { { "smtp_upgrade", upgrade },
          expect "^MAIL", say "250 ok\r\n", expect "^RCPT", say "250 ok\r\n",
          expect "^DATA", say "354 go ahead\r\n",
          { "hear" }, { "sleep", 0.1 }, { "shutdown" }, { "reset" } }
        local output = process.run { "env", "--default-signal=PIPE", interpreter,
          program(text, peer.port, tls, stage.ca.cert) }
        assert.are.equal("nil\tclosed\tnil\n", output)
      end
    end)

    it("lets Ctrl-C through at once", function()
      local silent <close> = Peer.listen_silently()
      local path = program([[
        io.stdout:setvbuf "no"
        print "connecting"
        print(require("starttls.smtp").connect { host = "127.0.0.1", port = %d, timeout = %g })
      ]], silent.port, patience.seconds(15))
      local command = ("echo $$; exec %s %s 2>&1"):format(interpreter, path)
      local pipe <close> = assert(io.popen(command))
      local pid = pipe:read "l"
      assert.are.equal("connecting", pipe:read "l")
      socket.sleep(patience.seconds(0.1)) -- into the wait, most likely
      local began = socket.gettime()
      process.run { "kill", "-INT", pid }
      assert.matches("interrupted!", pipe:read "a")
      assert.is_true(socket.gettime() - began < patience.seconds(10))
    end)
  end)

  -- }======
end)
