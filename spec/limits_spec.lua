-- A server that never stops talking, announces more than there can be, or talks nonsense:
-- an error of kind limit or protocol, and never more memory than the limits allow.

local errors = require "starttls.error"
local memory_probe = require "spec.support.memory_probe"
local patience = require "spec.support.patience"
local peer_steps = require "spec.support.peer_steps"
local Stage = require "spec.support.stage"

local mib = 1024 * 1024
local endless = 256 * mib -- what a peer sends at most, far beyond every limit

-- Steps of a peer.
local say, expect, silence = peer_steps.say, peer_steps.expect, peer_steps.silence
local logged_in = peer_steps.logged_in
local function flood(text, total) return { "flood", text, total or endless } end

-- Steps that answer one command of that name.
local function answers(name, command, ...)
  return logged_in(name, expect(command), ...)
end

local function call(method, ...)
  local arguments = table.pack(...)
  return function(session)
    return session[method](session, table.unpack(arguments, 1, arguments.n))
  end
end

describe("a server without end", function()
  local stage

  setup(function() stage = Stage.open() end)
  teardown(function() stage:close() end)

  local function options(peer, given)
    local all = stage:options(given or {})
    all.port = peer.port
    return all
  end

  local function start(steps, slow) return stage:start(steps, slow) end

  -- Connects to a peer that plays the steps. Returns what `action(session)` returns; without
  -- an action, or where connecting fails, nil and the error.
  local function try(name, steps, action, given, slow)
    local peer <close> = start(steps, slow)
    local session <close>, err = require("starttls." .. name).connect(options(peer, given))
    if not session then return nil, err end
    assert(action, "a session was handed out")
    return action(session)
  end

  local function fails(kind, during, name, steps, action, given)
    local result, err = try(name, steps, action, given)
    assert.is_nil(result)
    assert.is_true(errors.is(err), tostring(err))
    assert.are.equal(kind, err.kind, tostring(err))
    if during then assert.are.equal(during, err.during, tostring(err)) end
    return err
  end

  -- {====== Without end ======

  describe("is stopped by a limit:", function()
    local lines, numbers = {}, {}
    for n = 1, 4000 do
      lines[n] = ("%d %d\r\n"):format(n, n)
      numbers[n] = ("%d "):format(n)
    end
    lines, numbers = table.concat(lines), table.concat(numbers)
    local small = { reply = mib // 4 } -- where the default takes long

    local cases = {
      { "a greeting of one line", "smtp", "greeting", { say "220 ", flood "x" } },
      { "a greeting of one line", "imap", "greeting", { say "* OK ", flood "x" } },
      { "a greeting of one line", "pop3", "greeting", { say "+OK ", flood "x" } },
      { "a greeting of a tag", "imap", "greeting", { flood "x" } },
      { "a greeting of many lines", "smtp", "greeting", { flood "220-x\r\n" } },
      { "a greeting of many short lines", "smtp", "greeting", { flood "220-\n" } },
      { "extensions", "smtp", "capabilities",
        { say "220 a\r\n", expect "^EHLO", flood "250-X\r\n" } },
      { "extensions inside of TLS", "smtp", "capabilities",
        { { "smtp_upgrade", { auth = false, after = { ("X"):rep(70000) } } }, silence } },
      { "untagged data before the capabilities", "imap", "capabilities",
        { say "* OK hi\r\n", expect "CAPABILITY", flood "* OK hi\r\n" } },
      { "untagged data before the upgrade", "imap", "starttls",
        { say "* OK [CAPABILITY STARTTLS] hi\r\n", expect "STARTTLS", flood "* 1 EXISTS\r\n" } },
      { "blanks before the upgrade", "imap", "starttls",
        { say "* OK [CAPABILITY STARTTLS] hi\r\n", expect "STARTTLS", say "* X", flood " " } },
      { "a line", "smtp", "noop", answers("smtp", "NOOP", say "250 ", flood "x"), call "noop" },
      { "lines", "smtp", "noop", answers("smtp", "NOOP", flood "250-x\r\n"), call "noop" },
      { "short lines", "smtp", "noop", answers("smtp", "NOOP", flood "250-\n"), call "noop" },
      { "a line", "pop3", "noop", answers("pop3", "NOOP", say "+OK ", flood "x"), call "noop" },
      { "a line of a list", "pop3", "list", answers("pop3", "LIST", say "+OK\r\n1 ", flood "1"),
        call "list" },
      { "a list", "pop3", "list", answers("pop3", "LIST", say "+OK\r\n", flood(lines)),
        call "list", limits = small },
      { "a list of one number", "pop3", "uidl", answers("pop3", "UIDL", say "+OK\r\n",
        flood "1 x\r\n"), call "uidl", limits = small },
      { "a list of empty lines", "pop3", "uidl", answers("pop3", "UIDL", say "+OK\r\n",
        flood "\n"), call "uidl", limits = small },
      { "capabilities", "pop3", "capa", answers("pop3", "CAPA", say "+OK\r\n", flood "X\r\n"),
        call "capabilities", limits = small },
      { "a message", "pop3", "retr", answers("pop3", "RETR", say "+OK\r\n", flood "x\r\n"),
        call("retr", 1), limits = { string = mib } },
      { "a line of a message", "pop3", "retr", answers("pop3", "RETR", say "+OK\r\n", flood "x"),
        call("retr", 1), limits = { string = mib } },
      { "a text", "imap", "noop", answers("imap", "NOOP", say "%T OK ", flood "x"), call "noop" },
      { "a response code", "imap", "noop", answers("imap", "NOOP", say "%T OK [X ", flood "x "),
        call "noop" },
      { "an atom", "imap", "noop", answers("imap", "NOOP", say "* X ", flood "x"), call "noop" },
      { "a quoted string", "imap", "noop", answers("imap", "NOOP", say '* X "', flood "\\\\"),
        call "noop" },
      { "blanks", "imap", "noop", answers("imap", "NOOP", say "* X", flood " "), call "noop" },
      { "empty lists", "imap", "noop", answers("imap", "NOOP", say "* X ", flood "()"),
        call "noop" },
      { "a section", "imap", "fetch", answers("imap", "FETCH", say "* 1 FETCH (BODY[", flood "1."),
        call("fetch_all", 1, { "body" }) },
      { "small literals", "imap", "fetch", answers("imap", "FETCH", say "* 1 FETCH (UID 1",
        flood " X {1}\r\nx"), call("fetch_all", 1, { "body" }) },
      { "small sections", "imap", "fetch", answers("imap", "FETCH", say "* 1 FETCH (UID 1",
        flood " BODY[1] {1}\r\nx"), call("fetch_all", 1, { "body" }), limits = small },
      { "large sections", "imap", "fetch", answers("imap", "FETCH", say "* 1 FETCH (UID 1",
        flood(" BODY[1] {1000}\r\n" .. ("x"):rep(1000))),
        call("fetch_all", 1, { "body" }), limits = { string = mib } },
      { "responses", "imap", "list", answers("imap", "LIST", flood '* LIST () "/" x\r\n'),
        call "list", limits = small },
      { "responses", "imap", "expunge", answers("imap", "EXPUNGE", flood "* 1 EXPUNGE\r\n"),
        call "expunge", limits = small },
      { "responses", "imap", "store", answers("imap", "STORE", flood "* 1 FETCH (UID 1)\r\n"),
        call("store", 1, { add = { "\\Seen" } }), limits = small },
      { "numbers", "imap", "search", answers("imap", "SEARCH", say "* SEARCH ", flood(numbers)),
        call("search", "ALL") },
      { "numbers in many responses", "imap", "search", answers("imap", "SEARCH",
        flood("* SEARCH 1 2 3 4 5 6 7 8 9\r\n")), call("search", "ALL"), limits = small },
    }
    for _, case in ipairs(cases) do
      local what, name, during, steps, action = table.unpack(case)
      it(("%s, %s during %s"):format(name, what, during), function()
        local err = fails("limit", during, name, steps, action, { limits = case.limits })
        assert.is_false(err.temporary)
        assert.matches("limit", err.message)
      end)
    end

    it("then the session is at its end", function()
      local peer <close> = start(answers("pop3", "RETR", say "+OK\r\n", flood "x\r\n"))
      local session <close> = assert(require("starttls.pop3").connect(
        options(peer, { limits = { string = mib } })))
      local _, err = session:retr(1)
      assert.are.equal("limit", err.kind)
      assert.matches("closed", tostring(session))
      local done
      done, err = session:noop()
      assert.is_nil(done)
      assert.are.equal("closed", err.kind)
    end)
  end)

  describe("is stopped by the deadline where nothing is kept:", function()
    local longer = 64 * endless -- than any client reads before the deadline
    local cases = {
      { "untagged data", "imap", "noop", answers("imap", "NOOP", flood("* 1 EXISTS\r\n", longer)),
        call "noop" },
      { "lines of content", "pop3", "retr",
        answers("pop3", "RETR", say "+OK\r\n", flood("x\r\n", longer)),
        function(session) return session:retr(1, function() return true end) end },
    }
    for _, case in ipairs(cases) do
      local what, name, during, steps, action = table.unpack(case)
      it(("%s, %s"):format(name, what), function()
        fails("timeout", during, name, steps, action, { deadline = patience.seconds(0.4) })
      end)
    end
  end)

  -- }======

  -- {====== Announced ======

  describe("that announces a literal of 4 GiB", function()
    local huge = "{4294967296}\r\n"

    for _, text in ipairs { '* LIST () "/" ', "* X ", "* OK [X ", "* 1 FETCH (UID 1 X ",
      "* 1 FETCH (ENVELOPE (", "* 1 FETCH ((BODY[] " } do
      it(("is refused at once, where it would be kept: %q"):format(text), function()
        fails("limit", "list", "imap", answers("imap", "LIST", say(text .. huge), silence),
          call "list")
      end)
    end

    for _, item in ipairs { "BODY[]", "BODY[1.2]<0>", "RFC822", "BINARY[1]" } do
      it("is refused at once, as content for a string: " .. item, function()
        local err = fails("limit", "fetch", "imap",
          answers("imap", "FETCH", say(("* 1 FETCH (%s %sx"):format(item, huge)), silence),
          call("fetch_all", 1, { "body" }))
        assert.matches("limits.string", err.hint)
      end)
    end

    it("is taken by a sink, as far as it comes", function()
      local size = 0
      local function count(piece)
        size = size + (piece and #piece or 0)
        if size >= mib then return nil, "enough" end
        return true
      end
      local result, err = try("imap",
        answers("imap", "FETCH", say("* 1 FETCH (BODY[] " .. huge), flood "x"),
        call("fetch_all", 1, { "body" }, { sink = function() return count end }))
      assert.is_nil(result)
      assert.are.equal("cancelled", err.kind)
      assert.matches("enough", err.message)
      assert.is_true(size >= mib and size < 2 * mib)
    end)

    local impossible = { "{99999999999999999999999}", "{18446744073709551616}", "{-1}", "{}", "{1",
      "{ 1}", "{1 }", "{0x10}", "{1++}", "{1}x" }
    for _, text in ipairs(impossible) do
      it("or an impossible one is refused: " .. text, function()
        local err = fails("protocol", "fetch", "imap",
          answers("imap", "FETCH", say("* 1 FETCH (BODY[] " .. text .. "\r\n"), silence),
          call("fetch_all", 1, { "body" }), { timeout = patience.seconds(2) })
        assert.matches("literal", err.message)
      end)
    end
  end)

  -- }======

  -- {====== Nonsense ======

  describe("that talks nonsense", function()
    it("is stopped at the limit of depth", function()
      local opened, closed = ("("):rep(10000), (")"):rep(10000)
      for _, text in ipairs { opened, opened .. closed .. "\r\n" } do
        local err = fails("limit", "noop", "imap",
          answers("imap", "NOOP", say("* X " .. text), silence), call "noop")
        assert.matches("nested", err.message)
      end
    end)

    local broken = {
      "* X (a\r\n", "* X a)\r\n", "* X (a))\r\n", "* X )(\r\n", "* OK [X (a] b\r\n",
      "* 1 FETCH (BODY[\r\n", '* X "a\r\nb"\r\n', '* X "a\rb"\r\n', '* X "a\nb"\r\n', '* X "a\r\n',
      "* X a\rb\r\n", "* OK a\rb\r\n", "*\r\n", "* \r\n", "* 1\r\n", "\r\n", " \r\n", "x\r\n",
      "ZZ9 OK done\r\n", "A99 OK done\r\n", "a OK done\r\n", "%T\r\n", "%T \r\n", "%T FETCH\r\n",
      "%T 1 OK\r\n", "%N OK done\r\n", "* OK [X\r\n", "250 OK\r\n", "+OK\r\n", "+ go ahead\r\n",
    }
    for _, text in ipairs(broken) do
      it(("is told so: imap, %q"):format(text), function()
        fails("protocol", "noop", "imap", answers("imap", "NOOP", say(text), silence),
          call "noop", { timeout = patience.seconds(3) })
      end)
    end

    local replies = {
      smtp = { "\r\n", "2\r\n", "25\r\n", "2500 x\r\n", "250x\r\n", "250_x\r\n", "abc def\r\n",
        "+OK\r\n", "* OK\r\n", "250-a\r\n251 b\r\n", "250-a\r\nb\r\n", "000 x\r\n", "199 x\r\n",
        "600 x\r\n",
        "-50 x\r\n", "\0250 x\r\n" },
      pop3 = { "\r\n", "+\r\n", "+O\r\n", "+OKAY\r\n", "ok\r\n", "-ER\r\n", "-ERRx\r\n",
        "250 OK\r\n",
        "* OK\r\n", "\0+OK\r\n" },
    }
    for name, list in pairs(replies) do
      for _, text in ipairs(list) do
        it(("is told so: %s, %q"):format(name, text), function()
          fails("protocol", "noop", name, answers(name, "NOOP", say(text), silence), call "noop",
            { timeout = patience.seconds(3) })
        end)
      end
    end

    local lists = { "x\r\n", "1\r\n", "1 x\r\n", "0x1 1\r\n", "-1 1\r\n",
      "99999999999999999999 1\r\n",
      "1 99999999999999999999\r\n", "\0\r\n", "\r\n" }
    for _, text in ipairs(lists) do
      it(("is told so: pop3, a list with %q"):format(text), function()
        fails("protocol", "list", "pop3",
          answers("pop3", "LIST", say("+OK\r\n1 1\r\n" .. text .. ".\r\n"), silence), call "list")
      end)
    end

    for _, text in ipairs { "+OK\r\n", "+OK 1\r\n", "+OK x 1\r\n", "+OK 99999999999999999999 1\r\n",
      "+OK 1 99999999999999999999\r\n" } do
      it(("is told so: pop3, STAT answered with %q"):format(text), function()
        fails("protocol", "stat", "pop3", answers("pop3", "STAT", say(text), silence), call "stat")
      end)
    end

    -- Responses that are well-formed as such, and not what they should be.
    local odd = {
      "* EXISTS\r\n", "* EXPUNGE\r\n", "* FETCH\r\n", "* 1 FETCH\r\n", "* 1 FETCH NIL\r\n",
      "* 1 FETCH ()\r\n", "* 1 FETCH (UID)\r\n", "* 1 FETCH (UID (1))\r\n",
      "* 1 FETCH (UID NIL)\r\n", "* 1 FETCH ((UID) 1)\r\n", "* 1 FETCH (FLAGS)\r\n",
      "* 1 FETCH (FLAGS x)\r\n", "* 1 FETCH (FLAGS NIL)\r\n", "* 1 FETCH (FLAGS ((x)))\r\n",
      "* 1 FETCH (ENVELOPE NIL)\r\n", "* 1 FETCH (ENVELOPE (a))\r\n",
      "* 1 FETCH (ENVELOPE (a b c d e f g h i j k l))\r\n",
      "* 1 FETCH (ENVELOPE (a b ((1 2 3 4) (1 2 3) x (((())))) NIL NIL NIL NIL NIL NIL NIL))\r\n",
      "* 1 FETCH (INTERNALDATE x)\r\n", "* 1 FETCH (INTERNALDATE NIL)\r\n",
      '* 1 FETCH (INTERNALDATE "99-XXX-9999 99:99:99 +9999")\r\n', "* 1 FETCH (RFC822.SIZE x)\r\n",
      "* 1 FETCH (RFC822.SIZE 99999999999999999999)\r\n", "* 1 FETCH (BODYSTRUCTURE NIL)\r\n",
      "* 1 FETCH (BODY[] NIL)\r\n", "* 1 FETCH (BODY[] (a b))\r\n",
      "* 1 FETCH (BODY[]<0> \"\")\r\n", "* 1 FETCH (BODY[] {0}\r\n)\r\n",
      "* 1 FETCH (BODY[]] x)\r\n", "* 1 FETCH (BODY[] BODY[] {1}\r\nx)\r\n",
      "* 1 FETCH (UID 1) (UID 2)\r\n", "* 1 FETCH (UID 1 UID)\r\n",
      "* 4294967296 FETCH (UID 1)\r\n", "* 0 FETCH (UID 0)\r\n", "* 1 FETCH (MODSEQ (1))\r\n",
      "* LIST\r\n", "* LIST x\r\n", "* LIST () NIL\r\n", "* LIST () () ()\r\n",
      "* LIST (()) \"/\" &AOQ\r\n", "* LIST () \"/\" &\r\n", "* LIST () \"/\" {0}\r\n\r\n",
      "* STATUS\r\n", "* STATUS x\r\n", "* STATUS x y\r\n", "* STATUS x (MESSAGES)\r\n",
      "* STATUS x (MESSAGES () UNSEEN 1)\r\n", "* STATUS (x) (() 1)\r\n", "* SEARCH\r\n",
      "* SEARCH x\r\n", "* SEARCH (1 2)\r\n", "* SEARCH NIL\r\n", "* FLAGS\r\n", "* FLAGS x\r\n",
      "* CAPABILITY\r\n", "* CAPABILITY (x)\r\n", "* CAPABILITY NIL \"\"\r\n", "* OK\r\n",
      "* OK []\r\n", "* OK [()] x\r\n", "* OK [UIDNEXT]\r\n", "* OK [UIDVALIDITY x]\r\n",
      "* OK [PERMANENTFLAGS]\r\n", "* OK [PERMANENTFLAGS x]\r\n", "* OK [\"ALERT\"] x\r\n",
      "* OK [ALERT]\r\n", "* NO\r\n", "* BAD\r\n", "* PREAUTH hi\r\n", "* \0 \0\r\n", "* X \0\r\n",
      "* X \"\0\"\r\n", "* X {1}\r\n\0\r\n", "* \"X\" y\r\n", "* 1 2 3\r\n", "* X ~{1}\r\nx\r\n",
      "* X {1+}\r\nx\r\n", "* X\ty\r\n",
    }
    local everything = {
      { "noop", "NOOP" }, { "list", "LIST" }, { "status", "STATUS", "INBOX" },
      { "select", "SELECT", "INBOX" }, { "search", "SEARCH", "ALL" }, { "expunge", "EXPUNGE" },
      { "store", "STORE", 1, { add = { "x" } } }, { "copy", "COPY", 1, "x" },
      { "fetch_all", "FETCH", 1, { "uid", "flags", "envelope", "size", "date", "structure" } },
      { "fetch_all", "FETCH", 1, { "body", "headers" }, { sink = function() return nil end } },
      { "append", "APPEND", "INBOX", "hello\r\n" },
    }
    it("in well-formed responses does no harm", function()
      local steps = {}
      local noise = table.concat(odd)
      for _, case in ipairs(everything) do
        steps[#steps + 1] = expect(case[2])
        steps[#steps + 1] = say(noise)
        if case[2] == "APPEND" then steps[#steps + 1] = say "+ go\r\n" end
        steps[#steps + 1] = say "%T OK [APPENDUID] done\r\n"
      end
      steps[#steps + 1] = silence
      local result, err = try("imap", logged_in("imap", table.unpack(steps)), function(session)
        for _, case in ipairs(everything) do
          local value, why = session[case[1]](session, table.unpack(case, 3))
          assert.is_truthy(value, ("%s: %s"):format(case[1], why))
          assert.is_nil(why)
        end
        return "done"
      end, { on = { bye = error } })
      assert.is_nil(err)
      assert.are.equal("done", result)
    end)
  end)

  -- }======

  -- {====== Whole and in pieces ======

  describe("that splits its responses", function()
    local function answers_of(session)
      local list = assert(session:list())
      local messages = assert(session:fetch_all(1, { "body" }))
      return { list, messages[1].body, messages[1].sections["1"], messages[1].sections["2"] }
    end

    local expected = {
      { { name = 'a"b', delimiter = "/", flags = { "\\X", ["\\X"] = true } },
        { name = "c\\d", delimiter = ".", flags = {} }, { name = "", flags = {} },
        { name = "\0e", delimiter = "/", flags = {} } },
      "hello\0\r\nworld", "", "quoted",
    }

    for _, slow in ipairs { false, true } do
      it(slow and "at every byte is understood" or "nowhere is understood", function()
        local result = try("imap", logged_in("imap",
          expect "LIST",
          say('* LIST (\\X) "/" "a\\"b"\r\n* LIST () "." {3}\r\nc\\d\r\n* LIST () NIL {0}\r\n\r\n'),
          say '* list () "/" {2}\r\n\0e\r\n%T OK done\r\n',
          expect "FETCH",
          say "* 1 FETCH (UID 1 BODY[] {13}\r\nhello\0\r\nworld BODY[1] {0}\r\n",
          say " BODY[2] \"quoted\")\r\n%T OK done\r\n", silence), answers_of, nil, slow)
        assert.are.same(expected, result)
      end)
    end
  end)

  -- }======

  -- {====== The limits ======

  describe("meets the limit", function()
    local function reply(octets) -- an SMTP reply line without its line end
      return say("250 " .. ("x"):rep(octets - 4) .. "\r\n")
    end

    it("line: what is as long passes, what is longer doesn't", function()
      for _, limit in ipairs { 100, 5000, 200000 } do
        local given = { limits = { line = limit, reply = 1000000 } }
        local smtp = { [true] = reply(limit - 1), [false] = reply(limit + 1) }
        local pop3 = { [true] = say("+OK " .. ("x"):rep(limit - 5) .. "\r\n"),
          [false] = say("+OK " .. ("x"):rep(limit) .. "\r\n") }
        local imap = { [true] = say("%T OK " .. ("x"):rep(limit) .. "\r\n"),
          [false] = say("%T OK " .. ("x"):rep(limit + 1) .. "\r\n") }
        for name, lines in pairs { smtp = smtp, pop3 = pop3, imap = imap } do
          local passing = answers(name, "NOOP", lines[true], silence)
          assert.is_truthy(try(name, passing, call "noop", given))
          local failing = answers(name, "NOOP", lines[false], silence)
          fails("limit", "noop", name, failing, call "noop", given)
        end
      end
    end)

    it("reply: what is as long passes, what is longer doesn't", function()
      local given = { limits = { reply = 20000 } }
      for passes, count in pairs { [true] = 190, [false] = 210 } do -- lines of 100 octets
        local reply_lines = ("250-" .. ("x"):rep(94) .. "\r\n"):rep(count)
        local list_lines = ("1 " .. ("x"):rep(96) .. "\r\n"):rep(count)
        local smtp = answers("smtp", "NOOP", say(reply_lines .. "250 x\r\n"), silence)
        local imap = answers("imap", "NOOP", say("* X " .. ("x"):rep(100 * count) .. "\r\n"),
          say "%T OK done\r\n", silence)
        local pop3 = answers("pop3", "UIDL", say("+OK\r\n" .. list_lines .. ".\r\n"), silence)
        if passes then
          assert.is_truthy(try("smtp", smtp, call "noop", given))
          assert.is_truthy(try("imap", imap, call "noop", given))
          assert.is_truthy(try("pop3", pop3, call "uidl", given))
        else
          fails("limit", "noop", "smtp", smtp, call "noop", given)
          fails("limit", "noop", "imap", imap, call "noop", given)
          fails("limit", "uidl", "pop3", pop3, call "uidl", given)
        end
      end
    end)

    it("depth: what is as deep passes, what is deeper doesn't", function()
      for _, limit in ipairs { 1, 10, 1000 } do
        local function nested(depth)
          local text = ("("):rep(depth) .. (")"):rep(depth)
          return answers("imap", "NOOP", say("* X " .. text .. "\r\n%T OK done\r\n"), silence)
        end
        local given = { limits = { depth = limit } }
        assert.is_truthy(try("imap", nested(limit), call "noop", given))
        fails("limit", "noop", "imap", nested(limit + 1), call "noop", given)
      end
    end)

    it("greeting: counts all that is said before the session is open", function()
      local given = { limits = { greeting = 3000 } }
      local function talk(octets)
        local noise = ("* OK " .. ("x"):rep(93) .. "\r\n"):rep(octets // 100)
        return { say "* OK [CAPABILITY STARTTLS] hi\r\n",
          expect "STARTTLS", say(noise .. "%T OK go\r\n"), { "starttls", {} },
          expect "CAPABILITY", say "* CAPABILITY AUTH=PLAIN SASL-IR\r\n%T OK\r\n",
          expect "AUTHENTICATE", say "%T OK [CAPABILITY IMAP4rev1] done\r\n", silence }
      end
      assert.is_truthy(try("imap", talk(2000), function() return true end, given))
      fails("limit", "starttls", "imap", talk(4000), nil, given)
    end)

    it("string: what is as long passes, what is longer doesn't", function()
      local given = { limits = { string = 10000 } }
      for _, more in ipairs { 0, 1 } do
        local text = ("x"):rep(9998 + more) .. "\r\n"
        local pop3 = answers("pop3", "RETR", say("+OK\r\n" .. text .. ".\r\n"), silence)
        local imap = answers("imap", "FETCH",
          say(("* 1 FETCH (UID 1 BODY[] {%d}\r\n%s)\r\n"):format(#text, text)),
          say "%T OK done\r\n", silence)
        if more == 0 then
          assert.are.equal(text, try("pop3", pop3, call("retr", 1), given))
          assert.are.equal(text, try("imap", imap, call("fetch_all", 1, { "body" }), given)[1].body)
        else
          fails("limit", nil, "pop3", pop3, call("retr", 1), given)
          fails("limit", "fetch", "imap", imap, call("fetch_all", 1, { "body" }), given)
        end
      end
    end)

    it("string: counts for each message, not for all", function()
      local text = ("x"):rep(6000)
      local one = ("* %%d FETCH (UID %%d BODY[] {%d}\r\n%s)\r\n"):format(#text, text)
      local steps = answers("imap", "FETCH", say(one:format(1, 1)), say(one:format(2, 2)),
        say "%T OK done\r\n", silence)
      local messages = try("imap", steps, call("fetch_all", "1:*", { "body" }),
        { limits = { string = 10000 } })
      assert.are.equal(2, #messages)
      assert.are.equal(text, messages[2].body)
    end)
  end)

  it("is not met with limits that can't be", function()
    local smtp = require "starttls.smtp"
    for _, name in ipairs { "line", "reply", "depth", "greeting", "string" } do
      for _, value in ipairs { 0, -1, 1.5, 0 / 0, math.huge, "1", "x", true, {} } do
        local ok, err = pcall(smtp.connect, { host = "127.0.0.1", limits = { [name] = value } })
        assert.is_false(ok)
        assert.matches("limit '" .. name .. "'", err)
      end
    end
    local too_large = { line = 1 << 28, reply = 1 << 32, depth = 1001, greeting = 1 << 62 }
    for name, value in pairs(too_large) do
      local ok, err = pcall(smtp.connect, { host = "127.0.0.1", limits = { [name] = value } })
      assert.is_false(ok)
      assert.matches("limit '" .. name .. "'", err)
    end
    for _, name in ipairs { "lines", "Line", 1 } do
      local ok, err = pcall(smtp.connect, { host = "127.0.0.1", limits = { [name] = 1 } })
      assert.is_false(ok)
      assert.matches("unknown limit", err)
    end
  end)

  -- }======

  -- {====== Memory ======

  describe("takes no more memory than the limits allow #memory:", function()
    -- Runs the action in a process of its own; the growth of that process.
    local function growth(name, steps, action, given)
      local peer <close> = start(steps)
      return memory_probe.run(function(mark, args)
        local protocol = require("starttls." .. args.name)
        if args.opening then mark() end
        local session, err = protocol.connect(args.options)
        if session then
          mark()
          err = args.action(session)
        end
        return type(err) == "table" and err.kind or err
      end, { name = name, action = action, options = options(peer, given), opening = not action })
    end

    local function of(method, ...)
      local text = table.concat({ ... }, ", ")
      return load(("local session = ...; return select(2, session:%s(%s))"):format(method, text))
    end

    local cases = {
      { "untagged data while opening", "imap", { say "* OK hi\r\n", expect "CAPABILITY",
        flood "* OK hi\r\n" }, nil, "limit", 6 },
      { "a line while opening", "smtp", { flood "x" }, nil, "limit", 6 },
      { "a literal of 4 GiB for a sink", "imap", answers("imap", "FETCH",
        say "* 1 FETCH (BODY[] {4294967296}\r\n", flood "x"), function(session)
          local size = 0
          local function count(piece)
            size = size + #(piece or "")
            return size < 64 * 1024 * 1024 or nil, "enough"
          end
          local _, err = session:fetch_all(1, { "body" }, { sink = function() return count end })
          return err
        end, "cancelled", 2 },
      { "a literal of 4 GiB for a string", "imap", answers("imap", "FETCH",
        say "* 1 FETCH (BODY[] {4294967296}\r\n", flood "x"), of("fetch_all", 1, '{ "body" }'),
        "limit", 2 },
      { "a message for a sink", "pop3", answers("pop3", "RETR", say "+OK\r\n", flood "x\r\n"),
        function(session)
          local size = 0
          local _, err = session:retr(1, function(piece)
            size = size + #(piece or "")
            return size < 64 * 1024 * 1024 or nil, "enough"
          end)
          return err
        end, "cancelled", 2 },
      { "a message for a string", "pop3", answers("pop3", "RETR", say "+OK\r\n", flood "x\r\n"),
        of("retr", 1), "limit", 8, limits = { string = mib } },
      { "responses that nobody waits for", "imap", answers("imap", "NOOP",
        flood("* 1 EXISTS\r\n* 2 FETCH (FLAGS (\\Seen) UID 2)\r\n", 12 * mib),
        say "%T OK done\r\n"), of "noop", nil, 4 },
      { "messages in a loop", "imap", answers("imap", "FETCH",
        flood("* 2 FETCH (FLAGS (\\Seen) UID 2)\r\n", 12 * mib), say "%T OK done\r\n"),
        function(session) for _ in session:fetch("1:*", { "flags" }) do end end, nil, 4 },
      { "a reply", "smtp", answers("smtp", "NOOP", flood "250-x\r\n"), of "noop", "limit", 6,
        limits = { reply = mib } },
      { "small sections, in time that grows with their number only", "imap", answers("imap",
        "FETCH", say "* 1 FETCH (UID 1", flood " BODY[1] {1}\r\nx"),
        of("fetch_all", 1, '{ "body" }'),
        "limit", 64, deadline = patience.seconds(15) },
      { "a list", "pop3", answers("pop3", "LIST", say "+OK\r\n", flood "1 1\r\n"),
        of "list", "limit", 6, limits = { reply = mib } },
      { "mailboxes", "imap", answers("imap", "LIST", flood '* LIST () "/" x\r\n'),
        of "list", "limit", 16, limits = { reply = mib } },
      { "empty lists", "imap", answers("imap", "NOOP", say "* X ", flood "()"),
        of "noop", "limit", 6, limits = { reply = mib } },
      { "empty lists, short of the limit", "imap", answers("imap", "NOOP", say "* X ",
        say(("()"):rep(30000)), say "\r\n%T OK done\r\n"), of "noop", nil, 12,
        limits = { reply = mib } },
      { "blanks, recorded for a trace", "imap", answers("imap", "NOOP", say "* X", flood " "),
        of "noop", "limit", 6, limits = { reply = mib }, trace = function() end },
    }
    for _, case in ipairs(cases) do
      local what, name, steps, action, kind, most = table.unpack(case, 1, 6)
      it(("%s, %s"):format(name, what), function()
        local grown, result = growth(name, steps, action,
          { limits = case.limits, trace = case.trace, deadline = case.deadline })
        assert.are.equal(tostring(kind), tostring(result))
        assert.is_true(grown < most * mib, ("%.1f MiB"):format(grown / mib))
      end)
    end
  end)

  -- }======
end)
