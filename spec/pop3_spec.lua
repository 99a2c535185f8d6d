-- What a POP3 session does with what the server says: lists, messages in every form and in
-- every piece, refusals, response codes, and deletions that count when quit() succeeds.

local lfs = require "lfs"

local clients = require "spec.support.clients"
local Peer = require "spec.support.peer"
local peer_steps = require "spec.support.peer_steps"
local process = require "spec.support.process"
local servers = require "spec.support.servers"

local pop3 = require "starttls.pop3"

-- Dialogues -----------------------------------------------------------------------------------

-- Steps from what is expected and what is answered, in turn.
local function steps_of(dialogue)
  local steps = {}
  for i = 1, #dialogue, 2 do
    steps[#steps + 1] = { "expect", dialogue[i] }
    if dialogue[i + 1] then steps[#steps + 1] = { "send", dialogue[i + 1] .. "\r\n" } end
  end
  return steps
end

local function connect(port, more)
  local options = { host = "127.0.0.1", port = port, tls = "none" }
  for name, value in pairs(more or {}) do options[name] = value end
  return pop3.connect(options)
end

-- Runs `use(session)` against a peer that follows the dialogue. Returns the peer's record.
local function converse(dialogue, use)
  local steps = { { "pop3_upgrade", { secure = false, auth = false } },
    table.unpack(steps_of(dialogue)) }
  local peer <close> = peer_steps.start(steps, {})
  local session <close> = assert(connect(peer.port))
  use(session)
  session:close()
  local record = peer:finish()
  assert.is_true(record.ok, record.error)
  return record
end

-- The fields of an error, or of anything, that the case names.
local function assert_fields(expected, actual)
  for name, value in pairs(expected) do
    assert.same(value, actual[name], ("%s of %s"):format(name, tostring(actual)))
  end
end

-- What a method returns, packed, and that the session goes on behind it.
local function answer_to(dialogue, call)
  local results
  local all = { table.unpack(dialogue) }
  table.move({ "^NOOP\r\n", "+OK", "^QUIT\r\n", "+OK bye" }, 1, 4, #all + 1, all)
  converse(all, function(session)
    results = table.pack(call(session))
    assert(session:noop())
    assert(session:quit())
  end)
  return table.unpack(results, 1, results.n)
end

local function list(session) return session:list() end

-- Every method, the command that it sends, and its name in errors.
local methods = {
  { "stat", "^STAT\r\n", function(session) return session:stat() end },
  { "list", "^LIST\r\n", list },
  { "list", "^LIST 2\r\n", function(session) return session:list(2) end },
  { "uidl", "^UIDL\r\n", function(session) return session:uidl() end },
  { "uidl", "^UIDL 2\r\n", function(session) return session:uidl(2) end },
  { "retr", "^RETR 1\r\n", function(session) return session:retr(1) end },
  { "top", "^TOP 1 0\r\n", function(session) return session:top(1) end },
  { "top", "^TOP 1 5\r\n", function(session) return session:top(1, 5) end },
  { "dele", "^DELE 3\r\n", function(session) return session:dele(3) end },
  { "rset", "^RSET\r\n", function(session) return session:reset() end },
  { "noop", "^NOOP\r\n", function(session) return session:noop() end },
}

describe("a POP3 session", function()
  describe("asks for", function()
    for _, case in ipairs {
      { "+OK 2 320", 2, 320 }, { "+OK 0 0", 0, 0 }, { "+OK 2 320 and more", 2, 320 },
      { "+OK  2   320", 2, 320 }, { "+ok 2 5000000000", 2, 5000000000 },
    } do
      it(("the count and octets: %q"):format(case[1]), function()
        local count, octets = answer_to({ "^STAT\r\n", case[1] }, methods[1][3])
        assert.equals(case[2], count)
        assert.equals(case[3], octets)
      end)
    end

    it("the size of each message", function()
      assert.same({ 120, 200, [7] = 5000000000 }, answer_to({ "^LIST\r\n",
        "+OK 3 messages\r\n1 120\r\n2  200 more\r\n7 5000000000\r\n." }, list))
      assert.same({}, answer_to({ "^LIST\r\n", "+OK\r\n." }, list))
    end)

    it("the size of one message", function()
      assert.equals(200, answer_to({ "^LIST 2\r\n", "+OK 2 200" }, methods[3][3]))
    end)

    it("what servers say in their own way, where it does no harm", function()
      local sizes, uids = { 120, 200, 300 }, { "one", "two words\t.", "\xff/..\x01" }
      for _, case in ipairs {
        { list, sizes, "+OK 3 messages (620 octets)\r\n1 120 new\r\n 2\t200\r\n3  300  \r\n." },
        { list, {}, "+OK\r\n." },
        { methods[3][3], 200, "+OK  2  200 octets" },
        { methods[4][3], uids,
          "+OK\r\n1 one \r\n 2  two words\t.\r\n3\t\xff/..\x01\r\n." },
        { methods[4][3], { nil, "b" }, "+OK\r\n2 b\r\n." }, -- one message without
        { methods[5][3], "..", "+OK 2 .." },
      } do
        local command = case[1] == list and "LIST" or case[1] == methods[4][3] and "UIDL" or "%u+ 2"
        assert.same(case[2], answer_to({ ("^%s\r\n"):format(command), case[3] }, case[1]))
      end
    end)

    it("the identifier of each message, and of one", function()
      assert.same({ "whqtswO00WBw418f9t5JxYwZ", "!~." }, answer_to({ "^UIDL\r\n",
        "+OK\r\n1 whqtswO00WBw418f9t5JxYwZ\r\n2 !~.\r\n." }, methods[4][3]))
      assert.equals("0x1f", answer_to({ "^UIDL 2\r\n", "+OK 2 0x1f" }, methods[5][3]))
    end)

    it("the capabilities, again and again", function()
      local dialogue = { "^CAPA\r\n", "+OK\r\nTOP\r\nuidl\r\nEXPIRE 60 USER\r\n.",
        "^CAPA\r\n", "+OK\r\n." }
      local first, second = answer_to(dialogue, function(session)
        return session:capabilities(), session:capabilities()
      end)
      assert.same({ TOP = true, UIDL = true, EXPIRE = "60 USER" }, first)
      assert.same({}, second)
    end)
  end)

  describe("reports", function()
    for _, method in ipairs(methods) do
      it(("a refusal of %s, and goes on"):format(method[2]:sub(2, -3)), function()
        local result, err = answer_to({ method[2], "-ERR no such thing" }, method[3])
        assert.is_nil(result)
        assert_fields({ kind = "rejected", during = method[1], text = "no such thing",
          temporary = false }, err)
        assert.is_nil(err.status)
      end)
    end

    -- the answer, its response code (RFC 2449 8, RFC 3206), its text, and whether it may pass
    for _, case in ipairs {
      { "-ERR [IN-USE] locked", "IN-USE", "locked", true },
      { "-ERR [LOGIN-DELAY] wait", "LOGIN-DELAY", "wait", true },
      { "-ERR [SYS/TEMP] later", "SYS/TEMP", "later", true },
      { "-ERR [SYS/PERM] never", "SYS/PERM", "never", false },
      { "-ERR [AUTH]", "AUTH", "", false },
      { "-ERR [in-use/by-us] x", "in-use/by-us", "x", true },
      { "-ERR [IN-USEFUL] x", "IN-USEFUL", "x", false },
      { "-ERR [SYS] x", "SYS", "x", false },
      { "-ERR [open", nil, "[open", false },
      { "-ERR", nil, "", false },
      { "-err  no", nil, "no", false },
    } do
      it(("the response code of %q"):format(case[1]), function()
        local reply, err = answer_to({ "^DELE 3\r\n", case[1] }, methods[9][3])
        assert.is_nil(reply)
        assert.equals(case[2], err.status)
        assert.equals(case[3], err.text)
        assert.equals(case[4], err.temporary)
      end)
    end

    for _, case in ipairs {
      { "stat", "+OK" }, { "stat", "+OK many" }, { "stat", "+OK 2" }, { "stat", "+OK -1 5" },
      { "stat", "+OK 99999999999999999999 1" }, { "stat", "+OK 2 99999999999999999999" },
      { "stat", "+OK 0x2 1e3" },
    } do
      it(("an answer to STAT that says nothing: %q"):format(case[2]), function()
        local count, err = answer_to({ "^STAT\r\n", case[2] }, methods[1][3])
        assert.is_nil(count)
        assert_fields({ kind = "protocol", during = "stat" }, err)
        assert.equals(case[2]:match "^%S+ ?(.*)", err.text)
      end)
    end

    for _, line in ipairs { "", "1", "x 1", "1 x", "-1 5", "99999999999999999999 5",
      "1 99999999999999999999", "1 0x10", "1 1e3", "1.0 5" } do
      it(("a list with a line that says nothing: %q"):format(line), function()
        local sizes, err = answer_to({ "^LIST\r\n", "+OK\r\n" .. line .. "\r\n2 5\r\n." }, list)
        assert.is_nil(sizes)
        assert_fields({ kind = "protocol", during = "list", text = line }, err)
      end)
    end

    for _, line in ipairs {
      "", "OK", "+OKAY", "-ERROR", "250 OK", "* OK", "+ challenge", "+", "\0",
    } do
      it(("an answer that is none, and is closed: %q"):format(line), function()
        converse({ "^NOOP\r\n", line }, function(session)
          for _ = 1, 2 do
            local reply, err = session:noop()
            assert.is_nil(reply)
            assert_fields({ kind = "protocol", during = "noop" }, err)
          end
        end)
      end)
    end

    it("a server that hung up while nobody asked", function()
      converse({ "^NOOP\r\n", "+OK\r\n-ERR Disconnected for inactivity." }, function(session)
        assert(session:noop())
        local reply, err = session:noop()
        assert.is_nil(reply)
        assert_fields({ kind = "closed", temporary = true,
          text = "-ERR Disconnected for inactivity." }, err)
      end)
    end)

    it("an answer about another message than was asked for", function()
      for _, method in ipairs { methods[3], methods[5] } do
        local value, err = answer_to({ method[2], "+OK 3 5" }, method[3])
        assert.is_nil(value)
        assert_fields({ kind = "protocol", text = "3 5" }, err)
      end
    end)

    it("an answer to nothing, and is closed", function()
      converse({ "^NOOP\r\n", "+OK\r\n+OK and another" }, function(session)
        assert(session:noop())
        local reply, err = session:noop()
        assert.is_nil(reply)
        assert_fields({ kind = "protocol", text = "+OK and another" }, err)
      end)
    end)

    for _, method in ipairs(methods) do
      it("a server that closes behind " .. method[2]:sub(2, -3), function()
        converse({ method[2] }, function(session)
          local result, err = method[3](session)
          assert.is_nil(result)
          assert_fields({ kind = "closed", during = method[1], temporary = true }, err)
          result, err = session:noop()
          assert.is_nil(result)
          assert.equals("closed", err.kind)
        end)
      end)
    end

    it("a server that closes in the middle of a list, or of a message", function()
      for _, case in ipairs {
        { "^LIST\r\n", "+OK\r\n1 5\r\n2", list },
        { "^RETR 1\r\n", "+OK\r\nhalf a message\r\n", methods[6][3] },
        { "^RETR 1\r\n", "+OK\r\nalmost\r\n.", methods[6][3] },
      } do
        local peer <close> = peer_steps.start({
          { "pop3_upgrade", { secure = false, auth = false } },
          { "expect", case[1] }, { "send", case[2] },
        }, {})
        local session <close> = assert(connect(peer.port))
        local result, err = case[3](session)
        assert.is_nil(result)
        assert.equals("closed", err.kind)
      end
    end)
  end)

  describe("fetches", function()
    -- On the wire, and what that is.
    local messages = {
      { "", "" },
      { "\r\n", "\r\n" },
      { "Subject: x\r\n\r\nx\r\n", "Subject: x\r\n\r\nx\r\n" },
      { "..\r\n", ".\r\n" },
      { "...\r\n....\r\n", "..\r\n...\r\n" },
      { "..x\r\ny.\r\n.. \r\n", ".x\r\ny.\r\n. \r\n" },
      { "a\n.\nb\r\n", "a\n.\nb\r\n" },
      { "a\r.\rb\r\n", "a\r.\rb\r\n" },
      { "a\r\n..\r.\r\nb\r\n", "a\r\n.\r.\r\nb\r\n" },
      { "a\n..\r\n", "a\n..\r\n" },
      { "\0\xff\r\n", "\0\xff\r\n" },
      { ".x\r\n", "x\r\n" }, -- a server that does not stuff: the dot is a stuffed one all the same
    }

    it("messages, whatever their dots and line ends", function()
      local dialogue = {}
      for _, message in ipairs(messages) do
        table.move({ "^RETR 1\r\n", "+OK\r\n" .. message[1] .. "." }, 1, 2, #dialogue + 1, dialogue)
      end
      converse(dialogue, function(session)
        for _, message in ipairs(messages) do
          assert.equals(message[2], assert(session:retr(1)))
        end
      end)
    end)

    it("messages, in whatever two pieces they come", function()
      local wire = "+OK here\r\n..\r\n...\r\na\r\n.b\r\n\r\n..\r..\n.\n\r\n.\r\n"
      local expected = ".\r\n..\r\na\r\nb\r\n\r\n.\r..\n.\n\r\n"
      local peer <close> = Peer.start(function(p, args)
        p:pop3_upgrade { secure = false, auth = false }
        for at = 0, #args.wire do
          p:expect "^RETR 1\r\n"
          p:send(args.wire:sub(1, at))
          p:sleep(0.002)
          p:send(args.wire:sub(at + 1))
        end
        p:expect "^RETR 1\r\n"
        p:send_slowly(args.wire, 0.0005)
      end, { wire = wire })
      local session <close> = assert(connect(peer.port))
      for at = 0, #wire + 1 do
        assert.equals(expected, assert(session:retr(1)), ("cut at %d"):format(at))
      end
    end)

    it("lists and the first lines of messages, byte by byte", function()
      local peer <close> = Peer.start(function(p)
        p:pop3_upgrade { secure = false, auth = false }
        p:expect "^LIST\r\n" p:send_slowly("+OK\r\n1 120\r\n2 200\r\n.\r\n", 0.0005)
        p:expect "^TOP 1 2\r\n" p:send_slowly("+OK\r\na: b\r\n\r\n..\r\n.\r\n", 0.0005)
        p:expect "^STAT\r\n" p:send_slowly("+OK 2 320\r\n", 0.0005)
      end)
      local session <close> = assert(connect(peer.port))
      assert.same({ 120, 200 }, assert(session:list()))
      assert.equals("a: b\r\n\r\n.\r\n", assert(session:top(1, 2)))
      assert.equals(2, (assert(session:stat())))
    end)

    local one = { "^RETR 1\r\n", "+OK\r\nSubject: x\r\n\r\nx\r\n." }
    local text = "Subject: x\r\n\r\nx\r\n"

    it("into a file", function()
      local file <close> = assert(io.tmpfile())
      assert.is_true(answer_to(one, function(session) return session:retr(1, file) end))
      file:seek "set"
      assert.equals(text, file:read "a")
    end)

    it("into a function, which learns of the end", function()
      local pieces, ends = {}, 0
      assert.is_true(answer_to(one, function(session)
        return session:retr(1, function(piece, err)
          assert(not err)
          if piece then pieces[#pieces + 1] = piece else ends = ends + 1 end
          return true
        end)
      end))
      assert.equals(text, table.concat(pieces))
      assert.equals(1, ends)
    end)

    it("into a function, which learns of a failure", function()
      local given = {}
      local done, err = answer_to({ "^RETR 1\r\n", "-ERR gone" }, function(session)
        return session:retr(1, function(...)
          given[#given + 1] = table.pack(...)
          return true
        end)
      end)
      assert.is_nil(done)
      assert.equals("rejected", err.kind)
      assert.equals(1, #given)
      assert.is_nil(given[1][1])
      assert.matches("gone", given[1][2])
    end)

    it("into a function that fails, behind which the session goes on", function()
      local done, err = answer_to(one, function(session)
        return session:retr(1, function() return nil, "disk full" end)
      end)
      assert.is_nil(done)
      assert_fields({ kind = "cancelled", during = "retr" }, err)
      assert.matches("disk full", tostring(err))
    end)

    it("into a function that raises, behind which the session goes on", function()
      local ok, err = answer_to(one, function(session)
        return pcall(session.retr, session, 1, function() error "boom" end)
      end)
      assert.is_false(ok)
      assert.matches("boom", err)
    end)

    it("into nothing that is no sink", function()
      answer_to({}, function(session)
        assert.error_matches(function() session:retr(1, "file") end, "sink")
        assert.error_matches(function() session:top(1, 0, {}) end, "sink")
      end)
    end)
  end)

  describe("walks through", function()
    local sizes = { "^LIST\r\n", "+OK\r\n3 30\r\n1 10\r\n7 70\r\n." }
    local lists = { sizes[1], sizes[2], "^UIDL\r\n", "+OK\r\n1 one\r\n3 three\r\n7 seven\r\n." }

    it("all messages in order, with their size and identifier", function()
      answer_to(lists, function(session)
        local seen = {}
        for message in session:messages() do
          seen[#seen + 1] = { message.n, message.size, message.uid }
        end
        assert.same({ { 1, 10, "one" }, { 3, 30, "three" }, { 7, 70, "seven" } }, seen)
      end)
    end)

    it("all messages of a server without UIDL", function()
      answer_to({ lists[1], lists[2], lists[3], "-ERR what?" }, function(session)
        local count = 0
        for message in session:messages() do
          count = count + 1
          assert.is_nil(message.uid)
        end
        assert.equals(3, count)
      end)
    end)

    it("nothing where the lists are refused", function()
      answer_to({ lists[1], "-ERR [SYS/TEMP] later" }, function(session)
        local ok, err = pcall(session.messages, session)
        assert.is_false(ok)
        assert_fields({ kind = "rejected", during = "list", temporary = true }, err)
      end)
    end)

    it("messages that can be fetched, looked into and deleted", function()
      local dialogue = { table.unpack(sizes) }
      table.move({ "^RETR 1\r\n", "+OK\r\nbody\r\n.", "^TOP 3 1\r\n", "+OK\r\ntop\r\n.",
        "^DELE 7\r\n", "+OK" }, 1, 6, #dialogue + 1, dialogue)
      answer_to(dialogue, function(session)
        local next_message = session:messages()
        assert.equals("body\r\n", assert(next_message():retr()))
        assert.equals("top\r\n", assert(next_message():top(1)))
        assert(next_message():delete())
        assert.is_nil(next_message())
      end)
    end)

    it("messages that are saved, of which no half is left behind", function()
      local directory <close> = process.temporary_directory()
      local dialogue = { table.unpack(sizes) }
      table.move({ "^RETR 1\r\n", "+OK\r\nbody\r\n.", "^RETR 3\r\n", "-ERR gone",
        "^RETR 7\r\n", "+OK\r\nhalf" }, 1, 6, #dialogue + 1, dialogue)
      converse(dialogue, function(session)
        local next_message = session:messages()
        assert.is_true(next_message():save(directory.path .. "/1"))
        for _, kind in ipairs { "rejected", "closed" } do
          local done, err = next_message():save(directory.path .. "/half")
          assert.is_nil(done)
          assert.equals(kind, err.kind)
        end
      end)
      assert.equals("body\r\n", process.read_file(directory.path .. "/1"))
      local names = {}
      for name in lfs.dir(directory.path) do names[#names + 1] = name end
      assert.equals(3, #names) -- with "." and ".."
    end)

    it("messages that can't be saved where nothing can be written", function()
      local dialogue = { table.unpack(sizes) }
      answer_to(dialogue, function(session)
        local done, err = session:messages()():save "/nowhere/at/all"
        assert.is_nil(done)
        assert.matches("No such file", tostring(err))
      end)
    end)
  end)

  describe("begins", function()
    local function greeted(line)
      local peer <close> = peer_steps.start({ { "send", line .. "\r\n" }, { "expect", "^CAPA\r\n" },
        { "send", "-ERR what?\r\n" } }, {})
      local session, err = connect(peer.port)
      if session then session:close() end
      return session, err
    end

    it("with a server that has no CAPA, with or without a timestamp for APOP", function()
      assert(greeted "+OK")
      assert(greeted "+OK ready <1896.697170952@dbc.mtview.ca.us>")
      assert(greeted "+ok")
    end)

    for _, case in ipairs {
      { "-ERR [SYS/TEMP] too busy", "rejected", true }, { "-ERR go away", "rejected", false },
      { "220 SMTP", "protocol", false }, { "* OK IMAP", "protocol", false },
      { "+ ", "protocol", false },
    } do
      it(("not with one that greets with %q"):format(case[1]), function()
        local session, err = greeted(case[1])
        assert.is_nil(session)
        assert_fields({ kind = case[2], during = "greeting", temporary = case[3] }, err)
      end)
    end

    it("with USER and PASS where the server has no CAPA", function()
      local peer <close> = peer_steps.start({ { "send", "+OK\r\n" }, table.unpack(steps_of {
        "^CAPA\r\n", "-ERR", "^USER alice\r\n", "+OK", "^PASS pass word\r\n", "+OK welcome",
      }) }, {})
      local session <close> = assert(connect(peer.port, { user = "alice",
        password = "pass word", insecure_auth = true }))
      assert.equals("USER", session:security().mechanism)
    end)
  end)

  describe("ends", function()
    local function quit(answer)
      local done, err
      converse({ "^QUIT\r\n", answer }, function(session)
        done, err = session:quit()
        local reply, closed = session:noop()
        assert.is_nil(reply)
        assert.equals("closed", closed.kind)
      end)
      return done, err
    end

    it("well only when the server says so, as that is when it deletes", function()
      assert.same({ deleted = 0, refused = {} }, quit "+OK bye")
      local done, err = quit "-ERR [SYS/TEMP] some messages not deleted"
      assert.is_nil(done)
      assert_fields({ kind = "rejected", during = "quit", status = "SYS/TEMP", temporary = true },
        err)
      done, err = quit()
      assert.is_nil(done)
      assert_fields({ kind = "closed", during = "quit" }, err)
    end)

    it("without a word when it is closed", function()
      local record = converse({}, function(session) session:close() end)
      assert.equals("CAPA\r\n", record.clear)
    end)
  end)

  describe("with Dovecot", function()
    local mail
    local first = "Subject: one\r\n\r\n.\r\n..dots\r\n"
    local second = "Subject: two\r\n\r\nx\r\ny\r\nz\r\n"

    before_each(function()
      mail = servers.shared()
      clients.empty(mail, "alice")
      mail:deliver("alice", first)
      mail:deliver("alice", second)
    end)

    after_each(function()
      clients.empty(mail, "alice")
    end)

    local function subjects(session)
      local found = {}
      for message in session:messages() do
        found[#found + 1] = message:top():match "Subject: (%w+)"
      end
      return found
    end

    it("counts, lists and fetches", function()
      local session <close> = clients.connect(mail, "pop3")
      local count, octets = assert(session:stat())
      assert.equals(2, count)
      assert.equals(#first + #second, octets)
      assert.same({ #first, #second }, session:list())
      assert.equals(#second, session:list(2))
      local uids = assert(session:uidl())
      assert.equals(2, #uids)
      assert.equals(uids[1], session:uidl(1))
      assert.equals(first, session:retr(1))
      assert.equals("Subject: two\r\n\r\nx\r\n", session:top(2, 1))
      local nothing, err = session:retr(3)
      assert.is_nil(nothing)
      assert_fields({ kind = "rejected", during = "retr" }, err)
      assert(session:capabilities().UIDL)
      assert(session:quit())
    end)

    it("deletes when quit() succeeds", function()
      local session <close> = clients.connect(mail, "pop3")
      assert(session:dele(1))
      local nothing, err = session:retr(1)
      assert.is_nil(nothing)
      assert.equals("rejected", err.kind)
      assert.same({ deleted = 1, refused = {} }, session:quit())
      local again <close> = clients.connect(mail, "pop3")
      assert.same({ "two" }, subjects(again))
    end)

    it("deletes nothing behind reset(), or without quit()", function()
      local session <close> = clients.connect(mail, "pop3")
      assert(session:dele(1))
      assert(session:reset())
      assert.equals(0, assert(session:quit()).deleted)
      local closed <close> = clients.connect(mail, "pop3")
      assert(closed:dele(1))
      assert(closed:dele(2))
      closed:close()
      local again <close> = clients.connect(mail, "pop3")
      assert.same({ "one", "two" }, subjects(again))
    end)
  end)
end)
