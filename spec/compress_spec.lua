-- Compression of an IMAP session (COMPRESS=DEFLATE, RFC 4978): with Dovecot, where everything goes
-- on as before, and with scripted servers that begin early, break off, or compress too well.

local clients = require "spec.support.clients"
local deflate = require "spec.support.deflate"
local memory_probe = require "spec.support.memory_probe"
local patience = require "spec.support.patience"
local peer_steps = require "spec.support.peer_steps"
local servers = require "spec.support.servers"
local Stage = require "spec.support.stage"

local imap = require "starttls.imap"

local mib = 1024 * 1024
local say, expect, silence = peer_steps.say, peer_steps.expect, peer_steps.silence
local hear = { "hear" }

-- Text that compresses badly.
local function random(size)
  local bytes = {}
  for index = 1, size do bytes[index] = string.char(33 + math.random(0, 90)) end
  return table.concat(bytes)
end

-- {====== With Dovecot ======

describe("compress, with Dovecot,", function()
  local mail, session, events

  setup(function() mail = servers.shared() end)

  before_each(function()
    clients.empty(mail, "alice")
    events = {}
    session = clients.connect(mail, "imap", { trace = function(event)
      events[#events + 1] = event.text
    end })
    assert(session:compress())
    assert(session:select "INBOX")
  end)

  after_each(function() session:close() end)

  it("is told by security() and the trace, whose lines are as before", function()
    assert.is_true(session:security().compressed)
    assert(session:logout())
    assert.is_false(session:security().compressed)
    local text = table.concat(events, "\n")
    assert.matches("\nA3 COMPRESS DEFLATE\nA3 OK [^\n]+\ncompressed: DEFLATE\nA4 SELECT", text)
    assert.matches("\nA5 LOGOUT\n%* BYE [^\n]+\nA5 OK [^\n]+$", text)
  end)

  -- Text that compresses well and badly, around the size of one piece.
  local head = "Subject: large\r\n\r\n"
  local contents = {
    ["nothing"] = "", ["one octet"] = "x", ["5 MB of one line"] = ("hello world\r\n"):rep(400000),
    ["2 MB that compress badly"] = (random(998) .. "\r\n"):rep(40) .. random(2 * mib),
  }
  for _, size in ipairs { 16383, 16384, 16385, 32768, 65536, 65537 } do
    contents[size .. " octets"] = random(size - #head)
  end

  for name, content in pairs(contents) do
    it("takes and gives a message of " .. name, function()
      local message = head .. content
      local uid = assert(session:append("INBOX", message)).uid
      local got = {}
      assert.equal(message, assert(session:fetch_all(uid, { "body" }))[1].body)
      assert(session:fetch_all(uid, { "body" }, { sink = function()
        return function(piece) got[#got + 1] = piece return true end
      end }))
      assert.equal(message, table.concat(got))
      assert(session:logout())
    end)
  end

  it("goes on through any number of commands, also behind a break", function()
    for _ = 1, 20 do assert(session:append("INBOX", head .. ("x\r\n"):rep(20000))) end
    for _ = 1, 100 do assert(session:noop()) end
    local count = 0
    for message in session:fetch("1:*", { "body" }) do
      assert.equal(#head + 60000, #message.body)
      count = count + 1
      if count == 3 then break end
    end
    assert.equal(20, #assert(session:search "ALL"))
    assert.same({}, assert(session:search "TEXT missing"))
    assert.is_false(session:dirty())
  end)

  it("returns refusals as before", function()
    local result, err = session:select "no such mailbox"
    assert.is_nil(result)
    assert.equal("rejected", err.kind)
    assert(session:noop())
  end)
end)

-- }======

-- {====== With scripted servers ======

describe("compress", function()
  local stage

  setup(function() stage = Stage.open() end)
  teardown(function() stage:close() end)

  -- Steps up to what follows the command COMPRESS, whose tag is A4.
  local function asked(...)
    return { { "imap_upgrade", { after = { "AUTH=PLAIN", "SASL-IR" } } }, expect "CAPABILITY",
      say "* CAPABILITY IMAP4rev1 COMPRESS=DEFLATE UIDPLUS\r\n%T OK done\r\n",
      expect "^A4 COMPRESS DEFLATE\r\n$", ... }
  end

  -- Steps up to what follows the first command behind compression, whose tag is A5.
  local function compressed(...)
    return asked(say "%T OK go\r\n", hear, ...)
  end

  -- Runs `use(session)` with a server that plays the steps. Returns what `use` does, and what
  -- the server received inside of TLS.
  local function converse(steps, use, given, slow)
    local peer <close> = stage:start(steps, slow)
    given = given or {}
    given.port = peer.port
    local session <close> = assert(imap.connect(stage:options(given)))
    local results = table.pack(use(session))
    session:close()
    local record = peer:finish()
    return record, table.unpack(results, 1, results.n)
  end

  -- The same behind a compress() that succeeds.
  local function talk(steps, use, given, slow)
    return converse(steps, function(session)
      assert(session:compress())
      return use(session)
    end, given, slow)
  end

  local function noop(session) return session:noop() end

  local function assert_failure(kind, words, _, result, err)
    assert.is_nil(result)
    assert.equal(kind, err.kind, tostring(err))
    assert.matches(words, tostring(err), 1, true)
  end

  -- {====== When it is not to be had ======

  describe("is refused", function()
    it("where the server does not offer it, and nothing is sent", function()
      local record, result, err = converse(peer_steps.logged_in("imap", silence),
        function(session) return session:compress() end)
      assert_failure("unsupported", "it lacks COMPRESS=DEFLATE", nil, result, err)
      assert.is_nil(record.encrypted:find "COMPRESS")
    end)

    it("before authentication, and nothing is sent", function()
      local record, result, err = converse({ { "imap_upgrade",
        { auth = false, after = { "COMPRESS=DEFLATE", "AUTH=PLAIN" } } }, silence },
        function(session) return session:compress() end, { user = false, password = false })
      assert_failure("auth", "authenticated", nil, result, err)
      assert.is_nil(record.encrypted:find "COMPRESS")
    end)

    it("the second time, and nothing is sent", function()
      local record, result, err = talk(asked(say "%T OK go\r\n", silence),
        function(session) return session:compress() end)
      assert_failure("rejected", "compressed already", nil, result, err)
      assert.matches("A4 COMPRESS DEFLATE\r\n$", record.encrypted)
    end)

    local answers = {
      { "NO [COMPRESSIONACTIVE] TLS compresses", "COMPRESSIONACTIVE", "a layer below" },
      { "NO not now", nil, "the server refuses COMPRESS" },
      { "BAD what", nil, "the server refuses COMPRESS" },
    }
    for _, case in ipairs(answers) do
      local answer, status, words = table.unpack(case)
      it(("where the server says %s, and the session goes on uncompressed"):format(answer),
        function()
          local record = converse(asked(say("%T " .. answer .. "\r\n"),
            expect "^A5 NOOP\r\n$", say "%T OK done\r\n", silence), function(session)
            local result, err = session:compress()
            assert_failure("rejected", words, nil, result, err)
            assert.equal(status, err.status)
            assert.is_false(session:security().compressed)
            assert(session:noop())
          end)
          assert.is_true(record.ok, record.error)
        end)
    end

    it("on a closed session, with that error", function()
      converse(asked(), function(session)
        session:close()
        assert_failure("closed", "closed", nil, session:compress())
      end)
    end)

    it("when the server hangs up in place of an answer", function()
      assert_failure("closed", "during compress", converse(asked(),
        function(session) return session:compress() end))
    end)
  end)

  it("is to be had on a session that the server greets as authenticated", function()
    local record = converse({
      { "starttls", {} }, say "* PREAUTH [CAPABILITY IMAP4rev1 COMPRESS=DEFLATE] hi\r\n",
      expect "^A1 COMPRESS DEFLATE\r\n$", say "%T OK go\r\n", silence }, function(session)
      assert(session:compress())
    end, { user = false, password = false, tls = "implicit" })
    assert.is_true(record.ok, record.error)
  end)

  -- }======

  -- {====== From the OK on ======

  it("sends nothing in the clear behind the OK", function()
    local record = talk(compressed(say(deflate.stored "A5 OK done\r\n"), hear,
      say(deflate.stored "A6 OK done\r\n"), silence), function(session)
      assert(session:noop())
      assert(session:status("INBOX", { "messages" }))
    end)
    local clear, rest = record.encrypted:match "^(.-A4 COMPRESS DEFLATE\r\n)(.*)$"
    assert.is_nil(clear:find "NOOP")
    assert.equal("A5 NOOP\r\nA6 STATUS \"INBOX\" (MESSAGES)\r\n", deflate.read(rest))
  end)

  it("takes no OK for a command that has not left it as a whole", function()
    local letters = random(65536):gsub("%A", "x")
    local peer <close> = stage:start(compressed(say(deflate.stored "A5 OK done\r\n"),
      { "sleep", patience.seconds(10) }))
    local session <close> = assert(imap.connect(stage:options { port = peer.port }))
    assert(session:compress())
    assert_failure("protocol", "a command that was not sent", nil,
      session:search("TEXT " .. letters:rep(600)))
  end)

  for _, slow in ipairs { false, true } do
    it("takes what comes with the OK for compressed, " .. (slow and "in single bytes"
      or "in one segment"), function()
      local seen = {}
      local record = talk(asked(
        say("A4 OK go\r\n" .. deflate.stored "* 7 EXISTS\r\n" .. deflate.empty
          .. deflate.stored "* 8 EXI"),
        hear, say(deflate.stored "STS\r\n* 9 EXISTS\r\n" .. deflate.stored "A5 OK done\r\n"),
        silence), noop,
        { on = { exists = function(count) seen[#seen + 1] = count end } }, slow)
      assert.is_true(record.ok, record.error)
      assert.same({ 7, 8, 9 }, seen)
    end)
  end

  it("reads no line in the clear that comes with the OK", function()
    local seen = 0
    assert_failure("protocol", "", talk(
      asked(say "A4 OK go\r\n* 7 EXISTS\r\nA5 OK done\r\n", silence), noop,
      { on = { exists = function() seen = seen + 1 end }, timeout = patience.seconds(2) }))
    assert.equal(0, seen)
  end)

  it("has begun when a function hears of an alert in the OK", function()
    local peer <close> = stage:start(asked(
      say("A4 OK [ALERT] look\r\n" .. deflate.stored "* 7 EXISTS\r\n"), hear,
      say(deflate.stored "A5 OK done\r\n"), silence))
    local session, heard
    session = assert(imap.connect(stage:options { port = peer.port,
      on = { alert = function() heard = session:noop() end } }))
    assert(session:compress())
    assert.equal("positive", heard.class)
    session:close()
  end)

  it("has begun even when the script's own function fails on the way", function()
    local fails = true
    local record = converse(compressed(say(deflate.stored "A5 OK done\r\n"), silence),
      function(session)
        assert.has_error(function() session:compress() end, "no more")
        fails = false
        assert(session:noop())
        assert.is_true(session:security().compressed)
        assert_failure("rejected", "compressed already", nil, session:compress())
      end, { trace = function(event)
        if fails and event.text == "A4 OK go" then error("no more", 0) end
      end })
    assert.matches("A5 NOOP", deflate.read(record.encrypted:match "DEFLATE\r\n(.*)"))
  end)

  -- }======

  -- {====== What was decoded needs no more from the socket ======

  local large = ("0123456789abcdef"):rep(mib // 16)
  local fetched = ("* 1 FETCH (UID 1 BODY[] {%d}\r\n%s)\r\nA5 OK done\r\n"):format(#large, large)

  it("decodes all of what came before it waits", function()
    local bytes = deflate.squeezed(fetched)
    assert.is_true(#bytes < 8192)
    local _, messages = talk(compressed(say(bytes), silence), function(session)
      return session:fetch_all(1, { "body" })
    end, { timeout = patience.seconds(5) })
    assert.equal(large, messages[1].body)
  end)

  it("lets an event loop know by dirty() that there is more to be had", function()
    local untagged, count = ("* 1 EXISTS\r\n"):rep(10000), 0
    talk(compressed(say(deflate.squeezed("A5 OK done\r\n" .. untagged .. "A6 OK done\r\n")),
      silence), function(session)
      assert.is_false(session:dirty())
      assert(session:noop())
      assert.is_true(session:dirty())
      assert.equal(0, count)
      assert(session:noop())
      assert.equal(10000, count)
      assert.is_false(session:dirty())
    end, { on = { exists = function() count = count + 1 end } })
  end)

  -- A reply that fills one piece (16 KiB) exactly, and behind it a line that is already said: all
  -- bits may be used up then, and octets left. Literals in between move the bits about.
  it("lets it know so even when nothing is left but to be copied", function()
    local line, reply = "* 1 EXISTS\r\n", "A5 OK "
    for moved = 1, 8 do
      local before = line:rep(1000) .. reply .. ("abcdefgh"):sub(1, moved)
      local text = before .. ("p"):rep(16384 - #before - 2) .. "\r\n" .. line
      local count = 0
      talk(compressed(say(deflate.squeezed(text)), silence), function(session)
        assert(session:noop())
        assert.equal(1000, count)
        assert.is_true(session:dirty())
        assert_failure("closed", "", nil, session:noop())
        assert.equal(1001, count)
      end, { on = { exists = function() count = count + 1 end } })
    end
  end)

  -- }======

  -- {====== Streams that end or break ======

  local done = deflate.stored "A5 OK done\r\n"
  local broken = {
    { "a block of no type", "\6" },
    { "a stored block whose length is wrong", "\0\5\0\5\0hello" },
    { "text in the clear", "A5 OK done\r\n* OK more\r\nA5 OK and more\r\n" },
    { "a distance that is too far back", "\x4b\x04\x40\0" },
    { "data behind the end of the stream", deflate.squeezed "* 1 EXISTS\r\n" .. "x" },
    { "nothing but empty blocks", deflate.empty:rep(100000) },
    { "nonsense that is well compressed", deflate.squeezed(("?"):rep(100) .. "\r\n") },
  }
  for _, case in ipairs(broken) do
    it("fails with kind protocol at " .. case[1], function()
      assert_failure("protocol", "during noop",
        talk(compressed(say(case[2]), silence), noop, { timeout = patience.seconds(5) }))
    end)

    it("uses what came before: a reply, and then " .. case[1], function()
      talk(compressed(say(done .. case[2]), silence), function(session)
        assert(session:noop())
        assert_failure("protocol", "during noop", nil, session:noop())
        assert_failure("protocol", "during noop", nil, session:noop())
      end, { timeout = patience.seconds(5) })
    end)
  end

  local ends = {
    { "in the middle of a block", say "\0\100\0\155\xffhello" },
    { "at the end of a block", say(deflate.stored "* 1 EXISTS\r\n") },
    { "at the end of the stream", say(deflate.squeezed "* 1 EXISTS\r\n"), silence },
    { "in a huge literal", say(deflate.stored "* 1 FETCH (BODY[] {10000000000}\r\nhello") },
    { "before anything", { "sleep", 0 } },
  }
  for _, case in ipairs(ends) do
    it("fails with kind closed when the connection ends " .. case[1], function()
      assert_failure("closed", "during noop", talk(compressed(table.unpack(case, 2)), noop))
    end)
  end

  it("ends well when the server ends the stream with its goodbye", function()
    local record = talk(compressed(
      say(deflate.squeezed "* BYE see you\r\nA5 OK done\r\n")), function(session)
      assert.is_true(session:logout())
    end)
    assert.is_true(record.ok, record.error)
  end)

  -- }======

  -- {====== Bombs ======

  describe("of a thousand to one", function()
    local bomb = ("x"):rep(64 * mib)

    -- Fetches from a server that answers with the text; returns the growth of the process, and
    -- the kind of the error or how much the sink took.
    local function growth(text, limits, to_sink)
      local peer <close> = stage:start(compressed(say(deflate.squeezed(text)), silence))
      return memory_probe.run(function(mark, args)
        local session = assert(require("starttls.imap").connect(args.options))
        assert(session:compress())
        local size = 0
        local settings = args.to_sink and { sink = function()
          return function(piece) size = size + #(piece or "") return true end
        end }
        mark()
        local result, err = session:fetch_all(1, { "body" }, settings)
        return result and size or err.kind
      end, { options = stage:options { port = peer.port, limits = limits }, to_sink = to_sink })
    end

    local cases = {
      { "a response costs what limits.reply allows", "* X " .. bomb, { reply = mib // 4 },
        "limit" },
      { "a text costs what limits.line allows", "* OK " .. bomb, { reply = mib // 4 }, "limit" },
      { "a literal costs nothing where limits.string forbids it",
        ("* 1 FETCH (UID 1 BODY[] {%d}\r\n"):format(#bomb) .. bomb, { string = mib }, "limit" },
      { "a literal costs nothing in a sink",
        ("* 1 FETCH (UID 1 BODY[] {%d}\r\n%s)\r\nA5 OK done\r\n"):format(#bomb, bomb), nil, #bomb,
        true },
    }
    for _, case in ipairs(cases) do
      local name, text, limits, expected, to_sink = table.unpack(case, 1, 5) -- one may be nil
      it(name .. " #memory", function()
        local grown, result = growth(text, limits, to_sink)
        assert.equal(expected, result)
        assert.is_true(grown < 4 * mib, grown)
      end)
    end
  end)

  -- }======
end)

-- }======
