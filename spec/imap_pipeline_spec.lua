-- Several IMAP commands in flight: what goes out together and what is held back (RFC 9051 5.5),
-- whose answer is whose, and what becomes of the others when one fails. The peers are scripted and
-- see every command in the order of the wire; Dovecot says what the results ought to be.

local clients = require "spec.support.clients"
local Peer = require "spec.support.peer"
local process = require "spec.support.process"
local servers = require "spec.support.servers"

local arguments = require "starttls.arguments"
local imap = require "starttls.imap"
local order = require "starttls.imap.order"

-- Dialogues -----------------------------------------------------------------------------------

-- The peer's part. A flight is an array of commands, as they must come behind their tags, with
-- nothing behind the last of them until `answer` is sent: "%3" in it is the tag of the third
-- command of all. `cut`: the connection is lost instead.
local function play(p, args)
  local tags = {}
  p:imap_upgrade { secure = false, auth = false, after = args.capabilities }
  for number, flight in ipairs(args.flights) do
    for _, command in ipairs(flight) do
      local tag, line = p:imap_expect ""
      tags[#tags + 1] = tag
      if line:sub(#tag + 2, -3) ~= command then
        p:fail("flight %d: expected %q, got %q", number, command, line)
      end
    end
    p:sleep(0.01)
    local more = p.buffer .. (p:receive_now() or "")
    if more ~= "" then p:fail("behind flight %d: %q", number, more) end
    if flight.cut then return p:cut() end
    p:send((flight.answer:gsub("%%(%d+)", function(index) return tags[math.tointeger(index)] end)))
  end
end

local function connect(port, more)
  local options = { host = "127.0.0.1", port = port, tls = "none" }
  for name, value in pairs(more or {}) do options[name] = value end
  return assert(imap.connect(options))
end

-- Runs `use(session)` against a peer that expects these flights and no other.
-- `more`: the peer's `capabilities`; options for the session.
local function converse(flights, use, more)
  local peer <close> = Peer.start(play,
    { flights = flights, capabilities = more and more.capabilities or { "UIDPLUS" }})
  local session <close> = connect(peer.port, more and more.options)
  local fine, why = pcall(use, session)
  session:close()
  local record = peer:finish()
  if not record.ok then error(("%s\n%s"):format(record.error, why), 0) end
  if not fine then error(why, 0) end
end

-- The answer to commands from one number to another: OK to each.
local function ok(from, to)
  local lines = {}
  for number = from, to or from do lines[#lines + 1] = ("%%%d OK done\r\n"):format(number) end
  return table.concat(lines)
end

local status_items = "(MESSAGES UIDNEXT UIDVALIDITY UNSEEN)"

local function status_of(mailbox)
  return ('STATUS "%s" %s'):format(mailbox, status_items)
end

local seq = { seq = true }
local seen = { add = { "\\Seen" } }

-- What goes together, and what is held back: the calls, and the flights they become ------------

local orders = {
  { "FETCH + NOOP + STORE is invalid (RFC 9051 5.5)",
    { { "fetch", "1", { "flags" }, seq }, { "noop" }, { "store", "2", seen, seq } },
    { { "FETCH 1 (FLAGS)", "NOOP" }, { "STORE 2 +FLAGS (\\Seen)" } } },
  { "STORE + COPY + FETCH is invalid (RFC 9051 5.5)",
    { { "store", "1", seen, seq }, { "copy", "1", "x" }, { "fetch", "3", { "flags" }, seq } },
    { { "STORE 1 +FLAGS (\\Seen)", "UID COPY 1 \"x\"" }, { "FETCH 3 (FLAGS)" } } },
  { "FETCH + STORE + NOOP is valid (RFC 9051 5.5)",
    { { "fetch", "1", { "flags" }, seq }, { "store", "2", seen, seq }, { "noop" } },
    { { "FETCH 1 (FLAGS)", "STORE 2 +FLAGS (\\Seen)", "NOOP" } } },
  { "STORE + COPY + EXPUNGE is valid (RFC 9051 5.5)",
    { { "store", "1", seen, seq }, { "copy", "1", "x" }, { "expunge" } },
    { { "STORE 1 +FLAGS (\\Seen)", "UID COPY 1 \"x\"", "EXPUNGE" } } },
  { "a flag's STORE and FETCH are the most obvious ambiguity (RFC 9051 5.5)",
    { { "store", "1:3", seen }, { "fetch", "3:5", { "flags" } } },
    { { "UID STORE 1:3 +FLAGS (\\Seen)" }, { "UID FETCH 3:5 (UID FLAGS)" } } },
  { "the same the other way round",
    { { "fetch", "3:5", { "flags" } }, { "store", { 9, 1, 4 }, seen } },
    { { "UID FETCH 3:5 (UID FLAGS)" }, { "UID STORE 9,1,4 +FLAGS (\\Seen)" } } },
  { "UID SEARCH with sequence numbers waits for UID commands (RFC 9051 5.5)",
    { { "fetch", "1", { "size" } }, { "search", "NOT 2:4" } },
    { { "UID FETCH 1 (UID RFC822.SIZE)" }, { "UID SEARCH NOT 2:4" } } },
  { "UID SEARCH without them does not",
    { { "fetch", "1", { "size" } }, { "search", "uid 2:4 SINCE 1-Feb-1994" } },
    { { "UID FETCH 1 (UID RFC822.SIZE)", "UID SEARCH uid 2:4 SINCE 1-Feb-1994" } } },
  { "SEARCH with sequence numbers goes behind FETCH of the same kind",
    { { "fetch", "1", { "size" }, seq }, { "search", "1:4", seq } },
    { { "FETCH 1 (RFC822.SIZE)", "SEARCH 1:4" } } },
  { "sequence numbers wait for every UID command",
    { { "fetch", "1", { "size" } }, { "fetch", "2", { "size" }, seq } },
    { { "UID FETCH 1 (UID RFC822.SIZE)" }, { "FETCH 2 (RFC822.SIZE)" } } },
  { "fetches of different messages go together",
    { { "fetch", "1:3,7", { "size" } }, { "fetch", "4:6", { "size" } },
      { "fetch", 8, { "flags" } } },
    { { "UID FETCH 1:3,7 (UID RFC822.SIZE)", "UID FETCH 4:6 (UID RFC822.SIZE)",
      "UID FETCH 8 (UID FLAGS)" } } },
  { "fetches that may share a message do not",
    { { "fetch", "7,1:3", { "size" } }, { "fetch", "5,3", { "flags" } },
      { "fetch", "9:*", { "flags" } } },
    { { "UID FETCH 7,1:3 (UID RFC822.SIZE)" }, { "UID FETCH 5,3 (UID FLAGS)" },
      { "UID FETCH 9:* (UID FLAGS)" } } },
  { "stores of different messages go together, of the same ones they do not",
    { { "store", 1, seen }, { "store", 2, seen }, { "store", 2, { remove = { "x" } } } },
    { { "UID STORE 1 +FLAGS (\\Seen)", "UID STORE 2 +FLAGS (\\Seen)" },
      { "UID STORE 2 -FLAGS (x)" } } },
  { "a search waits for a store, and a store for a search",
    { { "store", 1, seen }, { "search", "SEEN" }, { "store", 1, seen } },
    { { "UID STORE 1 +FLAGS (\\Seen)" }, { "UID SEARCH SEEN" },
      { "UID STORE 1 +FLAGS (\\Seen)" } } },
  { "the answers to two searches look alike",
    { { "search", "SEEN" }, { "search", "UNSEEN" } },
    { { "UID SEARCH SEEN" }, { "UID SEARCH UNSEEN" } } },
  { "so do those to two lists, and to two questions about one mailbox",
    { { "list", "", "a%" }, { "list", "", "b%" }, { "status", "inbox" }, { "status", "INBOX" } },
    { { 'LIST "" "a%"' }, { 'LIST "" "b%"', status_of "inbox" }, { status_of "INBOX" } } },
  { "what reads waits for what removes, and for what adds",
    { { "fetch", 1, { "size" } }, { "expunge", 2 }, { "expunge", 3 }, { "fetch", 4, { "size" } },
      { "copy", 4, "x" }, { "search", "ALL" }, { "status", "x" } },
    { { "UID FETCH 1 (UID RFC822.SIZE)" }, { "UID EXPUNGE 2" }, { "UID EXPUNGE 3" },
      { "UID FETCH 4 (UID RFC822.SIZE)" }, { "UID COPY 4 \"x\"" },
      { "UID SEARCH ALL", status_of "x" } } },
  { "opening a mailbox waits for all, and all for it",
    { { "status", "x" }, { "select", "y" }, { "noop" } },
    { { status_of "x" }, { 'SELECT "y"' }, { "NOOP" } } },
  { "what is held back is not overtaken",
    { { "search", "SEEN" }, { "search", "UNSEEN" }, { "noop" }, { "status", "x" } },
    { { "UID SEARCH SEEN" }, { "UID SEARCH UNSEEN", "NOOP", status_of "x" } } },
}

describe("the order of commands in flight", function()
  for _, case in ipairs(orders) do
    it("is such that " .. case[1], function()
        local flights, sent = case[3], 0
        for _, flight in ipairs(flights) do
          flight.answer = ok(sent + 1, sent + #flight)
          sent = sent + #flight
        end
        converse(flights, function(session)
          local promises = {}
          assert.is_true(session:pipeline(function(p)
            for _, call in ipairs(case[2]) do
              promises[#promises + 1] = p[call[1]](p, table.unpack(call, 2))
            end
          end))
          for index, promise in ipairs(promises) do
            local result, err = promise:get()
            assert.is_truthy(result, ("%d: %s"):format(index, tostring(err)))
          end
        end)
    end)
  end

  local function request(words, by_seq)
    local made = { args = {}, by_seq = by_seq }
    for word in words:gmatch "%S+" do
      table.move({ "atom", word }, 1, 2, #made.args + 1, made.args)
    end
    order.classify(made)
    return made
  end

  it("holds COPY with sequence numbers back behind COPY (RFC 9051 5.5)", function()
    assert.is_true(order.collide(request("COPY 1 x", true), request("COPY 2 x", true)))
    assert.is_false(order.collide(request "UID COPY 1 x", request "UID COPY 2 x"))
  end)

  it("lets nothing of its kind go beside what takes answers of several kinds", function()
    local list = request 'LIST "" "*" RETURN (STATUS (MESSAGES))'
    list.takes_any = true
    assert.is_true(order.collide(list, request "STATUS x (MESSAGES)"))
    assert.is_true(order.collide(request "STATUS x (MESSAGES)", list))
    assert.is_false(order.collide(list, request "NOOP"))
  end)

  it("knows nothing of other commands, and sends them alone", function()
    for _, other in ipairs { "NOOP", "X-NEW 1", "UID FETCH 1", "STATUS x" } do
      assert.is_true(order.collide(request(other), request "X-NEW 1"), other)
      assert.is_true(order.collide(request "X-NEW 1", request(other)), other)
    end
  end)
end)

describe("a flight", function()
  it("of twenty STATUS takes two round trips, and each promise gets its own", function()
    local flights, names = { {}, {} }, {}
    for number = 1, 20 do
      names[number] = ("box%d"):format(number)
      local flight = flights[number <= 16 and 1 or 2]
      flight[#flight + 1] = status_of(names[number])
      flight.answer = (flight.answer or "") .. ("* STATUS %s (MESSAGES %d)\r\n%%%d OK done\r\n")
        :format(names[number], number * 10, number)
    end
    converse(flights, function(session)
      local promises = {}
      assert.is_true(session:pipeline(function(p)
        for number, name in ipairs(names) do promises[number] = p:status(name) end
      end))
      for number, promise in ipairs(promises) do
        assert.equal(number * 10, assert(promise:get()).messages)
      end
    end)
  end)

  it("has no more commands than the window", function()
    local flights = { { status_of "a", status_of "b", answer = ok(1, 2) },
      { status_of "c", answer = ok(3) } }
    converse(flights, function(session)
      assert.is_true(session:pipeline(function(p)
        for _, name in ipairs { "a", "b", "c" } do p:status(name) end
      end, { window = 2 }))
    end)
    for _, window in ipairs { 0, 65, 1.5, "4" } do
      local session <close> = setmetatable({}, { __index = require "starttls.imap.class",
        __close = function() end })
      assert.error_matches(function() session:pipeline(function() end, { window = window }) end,
        "the window must be an integer from 1 to 64")
    end
  end)

  it("may be answered in any order, and its data told apart", function()
    local answer = "* STATUS c (MESSAGES 3)\r\n%3 OK done\r\n"
      .. "* 2 FETCH (FLAGS (\\Seen))\r\n* 8 FETCH (UID 12 RFC822.SIZE 7)\r\n%4 NO [INUSE] later\r\n"
      .. "* STATUS {5}\r\nInBoX (MESSAGES 2)\r\n* STATUS a (MESSAGES 1)\r\n"
      .. "* 5 FETCH (RFC822.SIZE 9 UID 4)\r\n* 9 FETCH (UID 99 FLAGS ())\r\n"
      .. "%2 OK done\r\n%1 OK done\r\n%5 OK done\r\n"
    local told = {}
    converse({ { status_of "a", status_of "INBOX", status_of "c", "UID FETCH 1:9 (UID RFC822.SIZE)",
      "UID FETCH 10:20 (UID RFC822.SIZE)", answer = answer } }, function(session)
      local promises = {}
      assert.is_true(session:pipeline(function(p)
        for index, name in ipairs { "a", "INBOX", "c" } do promises[index] = p:status(name) end
        promises[4] = p:fetch("1:9", { "size" })
        promises[5] = p:fetch("10:20", { "size" })
        assert.equal(3, promises[3]:get().messages)
      end))
      assert.equal(1, promises[1]:get().messages)
      assert.equal(2, promises[2]:get().messages)
      local refused, err = promises[4]:get()
      assert.is_nil(refused)
      assert.equal("rejected", err.kind)
      assert.equal("INUSE", err.status)
      local messages = promises[5]:get()
      assert.equal(1, #messages)
      assert.equal(12, messages[1].uid)
    end, { options = { on = { fetch = function(message) told[#told + 1] = message.seq end } } })
    assert.same({ 2, 5, 9 }, told) -- the refused fetch's message is told as well
  end)

  for _, case in ipairs {
    { "a command that is not sent yet", "%1 OK done\r\nA99 OK done\r\n" },
    { "the next one, which is held back", "A4 OK done\r\n" },
    { "one that is answered already", "%1 OK done\r\n%1 OK done\r\n" },
    { "nobody", "%1 OK done\r\nB2 OK done\r\n" },
  } do
    it("is lost when the server says OK to " .. case[1], function()
      converse({ { "UID SEARCH SEEN", answer = case[2] } }, function(session)
        local promises = {}
        local done, err = session:pipeline(function(p)
          promises[1], promises[2] = p:search "SEEN", p:search "ALL"
        end)
        assert.is_nil(done)
        assert.equal("protocol", err.kind)
        assert.matches("a command that was not sent", err.message)
        assert.same({ nil, err }, { promises[2]:get() })
      end)
    end)
  end
end)


-- The second command is more than the buffers on the way hold, and the peer reads none of it.
describe("a tagged OK", function()
  for _, case in ipairs {
    { "in the middle of the flight", 1 }, { "at its end, which has not left", 2 },
  } do
    it("to a command " .. case[1] .. " is no answer before it is sent as a whole", function()
      local peer <close> = Peer.start(function(p, args)
        p:imap_upgrade { secure = false, auth = false, after = {} }
        local tag = p:imap_expect "^NOOP"
        p:keep(false)
        p:send(tag, " OK done\r\nA", math.tointeger(tag:sub(2)) + args.distance, " OK forged\r\n")
        p:sleep(10)
      end, { distance = case[2] })
      local session <close> = connect(peer.port)
      local promises
      local done, err = session:pipeline(function(p)
        promises = { p:noop(), p:search("SUBJECT " .. ("x"):rep(24 * 1024 * 1024)), p:noop() }
      end)
      assert.is_nil(done)
      assert.equal("protocol", err.kind)
      assert.matches("a command that was not sent", err.message)
      assert.is_truthy(promises[1]:get())
      for index = 2, 3 do assert.same({ nil, err }, { promises[index]:get() }) end
    end)
  end
end)

describe("a command with a synchronising literal", function()
  it("waits for those before it, and those behind for it", function()
    local peer <close> = Peer.start(function(p)
      p:imap_upgrade { secure = false, auth = false, after = {} }
      local function quiet()
        p:sleep(0.01)
        local more = p.buffer .. (p:receive_now() or "")
        if more ~= "" then p:fail("too early: %q", more) end
      end
      local first = p:imap_expect "^STATUS .x. "
      quiet()
      p:send("* STATUS x (MESSAGES 1)\r\n", first, " OK done\r\n")
      local second = p:imap_expect "^NOOP {3}\r\n$"
      quiet()
      p:send "+ go on\r\n"
      p:expect "^b\u{fc}\r\n$"
      quiet()
      p:send(second, " OK done\r\n")
      local third = p:imap_expect "^STATUS .y. "
      p:send("* STATUS y (MESSAGES 2)\r\n", third, " OK done\r\n")
    end)
    local session <close> = connect(peer.port)
    local last
    assert.is_true(session:pipeline(function(p)
      p:status "x"
      p:add { during = "probe", args = arguments.of("NOOP"):add("string", "b\u{fc}") }
      last = p:status "y"
    end))
    assert.equal(2, last:get().messages)
    local record = peer:finish()
    assert.is_true(record.ok, record.error)
  end)
end)

-- Failures ------------------------------------------------------------------------------------

local function literal(text)
  return ("{%d}\r\n%s"):format(#text, text)
end

describe("in a pipeline", function()
  it("a refusal is of one command alone", function()
    converse({ { status_of "a", status_of "b", status_of "c",
      answer = "%1 NO [NONEXISTENT] none\r\n* STATUS b (MESSAGES 2)\r\n%2 OK done\r\n"
        .. "%3 BAD what\r\n" },
      { "NOOP", answer = ok(4) } }, function(session)
        local promises = {}
        assert.is_true(session:pipeline(function(p)
          for index, name in ipairs { "a", "b", "c" } do promises[index] = p:status(name) end
        end))
        assert.equal("NONEXISTENT", select(2, promises[1]:get()).status)
        assert.equal(2, promises[2]:get().messages)
        assert.equal("what", select(2, promises[3]:get()).text)
        assert.is_truthy(session:noop())
      end)
  end)

  it("a command that the session would refuse is refused without being sent", function()
    converse({ { status_of "a", answer = ok(1) } }, function(session)
      local refused
      assert.is_true(session:pipeline(function(p)
        p:status "a"
        refused = p:expunge "1"
        assert.same({}, p:fetch({}, { "uid" }):get())
      end))
      assert.equal("unsupported", select(2, refused:get()).kind)
    end, { capabilities = {} })
  end)

  it("misuse raises in the call, however long the command would have to wait", function()
    converse({ { "UID SEARCH SEEN", answer = ok(1) } }, function(session)
      assert.is_true(session:pipeline(function(p)
        p:search "SEEN"
        assert.error_matches(function() p:search "a\r\nb" end, "^search: ")
        assert.error_matches(function() p:fetch("1", { 3 }) end, "items must be strings")
        assert.error_matches(function() p:idle() end, "nil value")
      end))
    end)
  end)

  it("a sink that fails is the failure of its fetch alone", function()
    local content = "* %d FETCH (UID %d BODY[] " .. literal(("x"):rep(100000)) .. ")\r\n"
    local answer = content:format(1, 1) .. "* 7 EXISTS\r\n" .. content:format(2, 2)
      .. content:format(3, 3) .. ok(1, 2)
    local events = {}
    converse({ { "UID FETCH 1:2 (UID BODY.PEEK[])", "UID FETCH 3 (UID BODY.PEEK[])",
      answer = answer } }, function(session)
        local broken, whole
        assert.is_true(session:pipeline(function(p)
          broken = p:fetch("1:2", { "body" }, { sink = function()
            return function() return nil, "the disk is full" end
          end })
          whole = p:fetch(3, { "body" })
        end))
        local _, err = broken:get()
        assert.matches("the disk is full", tostring(err))
        assert.equal(100000, #whole:get()[1].body)
      end, { options = { on = { exists = function(number) events[#events + 1] = number end } } })
    assert.same({ 7 }, events)
  end)

  it("content finds its fetch by UID, or else by who asked for content", function()
    local answer = "* 5 FETCH (UID 5 BODY[] " .. literal "five" .. ")\r\n"
      .. "* 1 FETCH (BODY[] " .. literal "one" .. " UID 1)\r\n* 9 FETCH (UID 9 FLAGS ())\r\n"
      .. ok(1, 3)
    converse({ { "UID FETCH 9 (UID FLAGS)", "UID FETCH 1 (UID BODY.PEEK[])",
      "UID FETCH 5 (UID BODY.PEEK[])", answer = answer } }, function(session)
        local got = {}
        local function into(name)
          return { sink = function() return function(piece)
            got[name] = (got[name] or "") .. (piece or "")
            return true
          end end }
        end
        assert.is_true(session:pipeline(function(p)
          p:fetch(9, { "flags" })
          p:fetch(1, { "body" }, into "first")
          p:fetch(5, { "body" }, into "second")
        end))
        assert.same({ first = "one", second = "five" }, got)
      end)
  end)

  it("a long set is fetched to its end before what comes behind it", function()
    local uids = {}
    for uid = 1, 4000 do uids[uid] = uid * 2 end
    local peer <close> = Peer.start(function(p)
      p:imap_upgrade { secure = false, auth = false, after = {} }
      local verbs = {}
      repeat
        local tag, line = p:imap_expect ""
        verbs[#verbs + 1] = line:match "^%S+ (UID %u+)" or line:match "^%S+ (%u+)"
        p:send(tag, " OK done\r\n")
      until line:find "NOOP"
      return table.concat(verbs, " ")
    end)
    local session <close> = connect(peer.port)
    assert.is_true(session:pipeline(function(p)
      p:fetch(uids, { "size" })
      p:fetch(9999, { "size" })
      p:noop()
    end))
    assert.matches("^UID FETCH UID FETCH [UIDFETCH ]*UID FETCH NOOP$", peer:finish().result)
  end)

  for _, case in ipairs {
    { "the link is lost", { "UID SEARCH SEEN", status_of "x", cut = true }, "closed" },
    { "the server says BYE", { "UID SEARCH SEEN", status_of "x", answer = "* BYE enough\r\n" },
      "closed" },
    { "the server talks nonsense", { "UID SEARCH SEEN", status_of "x", answer = "nonsense\r\n" },
      "protocol" },
  } do
    it("every promise gets the error when " .. case[1], function()
      converse({ case[2] }, function(session)
        local promises, later = {}, nil
        local done, err = session:pipeline(function(p)
          promises = { p:search "SEEN", p:status "x", p:search "ALL" }
          assert.equal(case[3], select(2, promises[2]:get()).kind)
          later = p:noop()
        end)
        assert.is_nil(done)
        assert.equal(case[3], err.kind)
        promises[4] = later
        for _, promise in ipairs(promises) do assert.same({ nil, err }, { promise:get() }) end
        assert.equal(case[3], select(2, session:noop()).kind)
      end)
    end)
  end

  it("a source that fails ends the session, and all promises with its error", function()
    local path = os.tmpname()
    process.write_file(path, ("x"):rep(100))
    local file <close> = assert(io.open(path, "rb"))
    converse({ { "NOOP", answer = ok(1) } }, function(session)
      local promises
      local done, err = session:pipeline(function(p)
        promises = { p:noop(), p:append("x", file), p:noop() }
        process.write_file(path, "short")
      end)
      assert.is_nil(done)
      assert.matches("shorter than its announced size", err.message)
      assert.is_truthy(promises[1]:get())
      for index = 2, 3 do assert.same({ nil, err }, { promises[index]:get() }) end
    end, { capabilities = { "LITERAL+" } })
    os.remove(path)
  end)

  it("an error of the body leaves the session usable, and nothing behind", function()
    local promises = {}
    converse({ { "UID SEARCH SEEN", answer = "* SEARCH 1\r\n" .. ok(1) },
      { "NOOP", answer = ok(2) } }, function(session)
        assert.error_matches(function()
          session:pipeline(function(p)
            promises = { p:search "SEEN", p:search "ALL" }
            error "enough"
          end)
        end, "enough")
        assert.equal("cancelled", select(2, promises[1]:get()).kind)
        assert.equal("cancelled", select(2, promises[2]:get()).kind)
        assert.is_truthy(session:noop())
      end)
  end)

  it("an error of a handler or of `each` passes, and leaves the session usable", function()
    local data = { exists = "* 3 EXISTS\r\n", each = "* 1 FETCH (UID 1 FLAGS ())\r\n" }
    for what, text in pairs(data) do
      converse({ { "UID FETCH 1 (UID FLAGS)", status_of "x", answer = text .. ok(1, 2) },
        { "NOOP", answer = ok(3) } }, function(session)
          assert.error_matches(function()
            session:pipeline(function(p)
              p:fetch(1, { "flags" }, { each = function() error "each failed" end })
              p:status "x"
            end)
          end, what .. " failed")
          assert.is_truthy(session:noop())
        end, { options = { on = { exists = function() error "exists failed" end } } })
    end
  end)

  it("commands can depend on answers", function()
    converse({ { "UID SEARCH SEEN", answer = "* SEARCH 4 5\r\n" .. ok(1) },
      { "UID FETCH 4:5 (UID RFC822.SIZE)", status_of "x",
        answer = "* 1 FETCH (UID 4 RFC822.SIZE 1)\r\n* STATUS x (MESSAGES 9)\r\n"
          .. "* 2 FETCH (UID 5 RFC822.SIZE 2)\r\n" .. ok(2, 3) } }, function(session)
        local sum = 0
        assert.is_true(session:pipeline(function(p)
          p:fetch(p:search("SEEN"):get(), { "size" },
            { each = function(message) sum = sum + message.size end })
          assert.equal(9, p:status("x"):get().messages)
        end))
        assert.equal(3, sum)
      end)
  end)

  it("nothing can be asked after the end", function()
    converse({ { "NOOP", answer = ok(1) } }, function(session)
      local kept
      assert.is_true(session:pipeline(function(p)
        kept = p
        p:noop()
      end))
      assert.error_matches(function() kept:noop() end, "pipeline: it has ended")
    end)
  end)

  it("memory does not grow with the number of commands", function()
    local peer <close> = Peer.start(function(p)
      p:imap_upgrade { secure = false, auth = false, after = {} }
      p:keep(false)
      for _ = 1, 6000 do
        local tag = p:imap_expect "^STATUS"
        p:send("* STATUS x (MESSAGES 1)\r\n", tag, " OK done\r\n")
      end
    end)
    local session <close> = connect(peer.port)
    local early
    assert.is_true(session:pipeline(function(p)
      for number = 1, 6000 do
        p:status(number % 2 == 0 and "x" or "y")
        if number == 1000 then
          collectgarbage()
          early = collectgarbage "count"
        end
      end
      collectgarbage()
      assert.is_true(collectgarbage "count" < early + 100)
    end))
    assert.is_true(peer:finish().ok)
  end)
end)

describe("a pipeline in a coroutine", function()
  -- Each wait is handed to the spec, which lets the session wait by itself between two steps.
  local loop = {
    wait = function()
      coroutine.yield "waits"
      return true
    end,
    forget = function() end,
  }

  local flights = { { "UID SEARCH SEEN", answer = "* SEARCH 4\r\n" .. ok(1) },
    { "UID SEARCH ALL", answer = "* SEARCH 4 5\r\n" .. ok(2) } }

  it("waits in the loop, and works unchanged", function()
    local socket = require "socket"
    converse(flights, function(session)
      local found
      local thread = coroutine.create(function()
        assert(session:pipeline(function(p)
          local seen_ones, all = p:search "SEEN", p:search "ALL"
          found = { seen_ones:get(), all:get() }
        end))
      end)
      local waits = 0
      while coroutine.status(thread) ~= "dead" do
        local fine, what = coroutine.resume(thread)
        assert.is_true(fine, what)
        if what == "waits" then
          waits = waits + 1
          socket.select({ session }, nil, 1)
        end
      end
      assert.same({ { 4 }, { 4, 5 } }, found)
      assert.is_true(waits > 1)
    end, { options = { loop = loop } })
  end)

  it("can be abandoned: the session is closed, not busy for ever", function()
    local peer <close> = Peer.start(play, { flights = { { "UID SEARCH SEEN", answer = "" } },
      capabilities = {} })
    local session <close> = connect(peer.port, { loop = loop })
    do
      local thread = coroutine.create(function()
        session:pipeline(function(p) p:search("SEEN"):get() end)
      end)
      assert.same({ true, "waits" }, { coroutine.resume(thread) })
      assert.equal("busy", select(2, session:noop()).kind)
    end
    collectgarbage()
    collectgarbage()
    assert.equal("cancelled", select(2, session:noop()).kind)
  end)
end)

-- Dovecot -------------------------------------------------------------------------------------

describe("with Dovecot, commands in flight", function()
  local mail

  setup(function() mail = servers.shared() end)

  it("give what they give one after the other", function()
    clients.empty(mail, "alice")
    for number = 1, 30 do
      mail:deliver("alice", ("Subject: %d\r\n\r\n%s\r\n"):format(number, ("x"):rep(number * 500)))
    end
    local session <close> = clients.connect(mail, "imap")
    assert(session:select "INBOX")
    local calls, plain, promises = {}, {}, {}
    for uid = 1, 30 do
      calls[#calls + 1] = { "fetch_all", uid, { "size", "body" } }
      calls[#calls + 1] = { "status", uid % 2 == 0 and "INBOX" or "inbox" }
      calls[#calls + 1] = { "store", uid, { replace = { "\\Seen", "k" .. uid } } }
      if uid % 5 == 0 then calls[#calls + 1] = { "search", "KEYWORD k" .. uid } end
    end
    local uids = assert(session:search "ALL")
    for _, call in ipairs(calls) do
      if type(call[2]) == "number" then call[2] = uids[call[2]] end
    end
    for index, call in ipairs(calls) do
      plain[index] = assert(session[call[1]](session, table.unpack(call, 2)))
    end
    assert(session:store("1:*", { replace = {} }))
    assert.is_true(session:pipeline(function(p)
      for index, call in ipairs(calls) do
        local name = call[1] == "fetch_all" and "fetch" or call[1]
        promises[index] = p[name](p, table.unpack(call, 2))
      end
    end))
    for index, promise in ipairs(promises) do
      local result = assert(promise:get())
      assert.same(plain[index], result, calls[index][1] .. " " .. tostring(calls[index][2]))
    end
  end)
end)
