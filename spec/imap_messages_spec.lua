-- Changing messages: flags, labels, copies, moves, removal. What Dovecot has is done with Dovecot;
-- what it lacks, and what it never says, is played by scripted peers.

local clients = require "spec.support.clients"
local errors = require "starttls.error"
local imap_talk = require "spec.support.imap_talk"
local Peer = require "spec.support.peer"
local servers = require "spec.support.servers"

local imap = require "starttls.imap"

local converse = imap_talk.converse

-- The fields of an error, or of anything, that the case names.
local function assert_fields(expected, actual)
  for name, value in pairs(expected) do
    assert.same(value, actual[name], ("%s of %s"):format(name, tostring(actual)))
  end
end

local function flags(...)
  local set = { ... }
  for _, flag in ipairs { ... } do set[flag] = true end
  return set
end

local ok = "%T OK done\r\n"

local function connect(peer)
  return assert(imap.connect { host = "127.0.0.1", port = peer.port, tls = "none" })
end

-- Every second number: sets that no range makes short.
local function scattered(first, last)
  local numbers = {}
  for number = first, last, 2 do numbers[#numbers + 1] = number end
  return numbers
end

local function method(name, ...)
  local arguments = table.pack(...)
  return function(session)
    return session[name](session, table.unpack(arguments, 1, arguments.n))
  end
end

-- Runs the case's call in a session, and in a pipeline. A case has a name, the server's
-- capabilities, the exchanges, the call (a method's name and its arguments), and the result.
local function play(case, judge)
  local capabilities, exchanges, call = case[2], case[3], case[4]
  converse(exchanges, function(session)
    judge(method(table.unpack(call))(session))
  end, { capabilities = capabilities })
  converse(exchanges, function(session)
    local promise
    assert(session:pipeline(function(p) promise = method(table.unpack(call))(p) end))
    judge(promise:get())
  end, { capabilities = capabilities })
end

local function plays(cases)
  for _, case in ipairs(cases) do
    it(case[1], function()
      play(case, function(result, err)
        assert.same(case[5], assert(result, err))
      end)
    end)
  end
end

-- Cases whose last value is the error's fields; no exchanges: nothing may be sent.
local function fails(cases)
  for _, case in ipairs(cases) do
    it(case[1], function()
      play(case, function(result, err)
        assert.is_nil(result)
        assert.is_true(errors.is(err))
        assert_fields(case[5], err)
      end)
    end)
  end
end

-- {====== Flags and labels ======

local stores = {
  { "flags, and tells them", {}, { { "UID STORE 2:4 +FLAGS (\\Deleted)",
    "* 2 FETCH (UID 2 FLAGS (\\Deleted \\Seen))\r\n" .. ok } },
    { "store", "2:4", { add = { "\\Deleted" } } },
    { { seq = 2, uid = 2, flags = flags("\\Deleted", "\\Seen") } } },
  { "flags of sequence numbers", {}, { { "STORE 1,3 -FLAGS ($Junk)", ok } },
    { "store", { 1, 3 }, { remove = { "$Junk" } }, { seq = true } }, {} },
  { "flags away, all of them", {}, { { "UID STORE 5 FLAGS ()", ok } },
    { "store", 5, { replace = {} } }, {} },
  { "no flags, for which nothing is sent", {}, {}, { "store", 5, { add = {} } }, {} },
  { "no message, for which nothing is sent", {}, {}, { "store", {}, { add = { "x" } } }, {} },
  { "flags in silence: what else changes is another's doing", {},
    { { "UID STORE 5 FLAGS.SILENT (\\Seen)", "* 9 FETCH (FLAGS (\\Draft))\r\n" .. ok } },
    { "store", 5, { replace = { "\\Seen" } }, { silent = true } }, {} },
  -- RFC 7162 3.1.3, examples 3 and following
  { "flags of what has not changed", { "CONDSTORE" },
    { { "UID STORE 6,4,8 (UNCHANGEDSINCE 12121230045) +FLAGS.SILENT (\\Deleted)",
      "* 1 FETCH (UID 4 MODSEQ (12121231000))\r\n* 2 FETCH (UID 6 MODSEQ (12121230852))\r\n"
      .. "* 4 FETCH (UID 8 MODSEQ (12121130956))\r\n%T OK Conditional Store completed\r\n" } },
    { "store", { 6, 4, 8 }, { add = { "\\Deleted" } },
      { silent = true, unchanged_since = 12121230045 } },
    { { seq = 1, uid = 4, modseq = 12121231000 }, { seq = 2, uid = 6, modseq = 12121230852 },
      { seq = 4, uid = 8, modseq = 12121130956 } } },
  { "flags of some, as others have changed", { "CONDSTORE" },
    { { "STORE 7,5,9 (UNCHANGEDSINCE 320162338) +FLAGS.SILENT (\\Deleted)",
      "* 5 FETCH (MODSEQ (320162350))\r\n%T OK [MODIFIED 7,9] Conditional STORE failed\r\n" } },
    { "store", { 7, 5, 9 }, { add = { "\\Deleted" } },
      { silent = true, unchanged_since = 320162338, seq = true } },
    { { seq = 5, modseq = 320162350 }, modified = { 7, 9 } } },
  { "flags of none, which the server calls NO", { "QRESYNC" },
    { { "UID STORE 1:3 (UNCHANGEDSINCE 0) +FLAGS (x)", "%T NO [MODIFIED 1:3] all changed\r\n" } },
    { "store", "1:3", { add = { "x" } }, { unchanged_since = 0 } }, { modified = { 1, 2, 3 } } },
  { "Gmail's labels", { "X-GM-EXT-1" },
    { { 'UID STORE 3 +X-GM-LABELS (\\Inbox "Gr&APwA3w-e" "a b")',
      '* 3 FETCH (UID 3 X-GM-LABELS (\\Inbox "Gr&APwA3w-e" "a b"))\r\n' .. ok } },
    { "store", 3, { add_labels = { "\\Inbox", "Gr\u{fc}\u{df}e", "a b" } } },
    { { seq = 3, uid = 3, gm_labels = { "\\Inbox", "Gr\u{fc}\u{df}e", "a b" } } } },
  { "Gmail's labels away, in silence", { "X-GM-EXT-1" },
    { { "UID STORE 3 X-GM-LABELS.SILENT ()", ok } },
    { "store", 3, { replace_labels = {} }, { silent = true } }, {} },
}

local failing_stores = {
  { "on a condition where the server has none", {}, {},
    { "store", 1, { add = { "x" } }, { unchanged_since = 1 } },
    { kind = "unsupported", during = "store",
      message = "the server does not offer CONDSTORE, which store needs" } },
  { "of labels where the server has none", {}, {}, { "store", 1, { add_labels = { "x" } } },
    { kind = "unsupported", message = "the server does not offer X-GM-EXT-1, which store needs" } },
  { "that the server refuses", { "CONDSTORE" },
    { { "UID STORE 1 (UNCHANGEDSINCE 1) +FLAGS (x)", "%T BAD [CLIENTBUG] what?\r\n" } },
    { "store", 1, { add = { "x" } }, { unchanged_since = 1 } },
    { kind = "rejected", status = "CLIENTBUG", text = "what?" } },
}

-- }======

-- {====== Copies and moves ======

local mapping = { uidvalidity = 38505, source = { 304, 319, 320 },
  destination = { 3956, 3957, 3958 } }

local copies = {
  { "messages, and tells what became of them", {}, -- RFC 4315 4
    { { 'UID COPY 2:4 "meeting"', "%T OK [COPYUID 38505 304,319:320 3956:3958] Done\r\n" } },
    { "copy", "2:4", "meeting" }, mapping },
  { "by sequence number", {},
    { { 'COPY 2:4 "meeting"', "%T OK [COPYUID 38505 304,319:320 3956:3958] Done\r\n" } },
    { "copy", "2:4", "meeting", { seq = true } }, mapping },
  { "without being told what became of them", {}, { { 'UID COPY 2 "x"', ok } },
    { "copy", 2, "x" }, {} },
  { "with two sets that don't match, which tell nothing", {},
    { { 'UID COPY 1:4 "x"', "%T OK [COPYUID 1 1:4 1:3] Done\r\n" } }, { "copy", "1:4", "x" }, {} },
  { "with sets that are none, which tell nothing", {},
    { { 'UID COPY 1:4 "x"', "%T OK [COPYUID 1 1:* 1:*] Done\r\n" } }, { "copy", "1:4", "x" }, {} },
  { "in an order of the server's", {},
    { { 'UID COPY 1:3 "x"', "%T OK [COPYUID 1 3,1:2 10:12] Done\r\n" } }, { "copy", "1:3", "x" },
    { uidvalidity = 1, source = { 3, 1, 2 }, destination = { 10, 11, 12 } } },
  { "with codes that say nothing", {}, { { 'UID COPY 1 "x"', "%T OK [COPYUID] Done\r\n" } },
    { "copy", 1, "x" }, {} },
  { "with codes that say too little", {}, { { 'UID COPY 1 "x"', "%T OK [COPYUID 5 1] Done\r\n" } },
    { "copy", 1, "x" }, {} },
  { "nothing, for which nothing is sent", {}, {}, { "copy", {}, "x" }, {} },
}

local found = { "UID SEARCH UID 42:69", "* SEARCH 42 69\r\n" .. ok }
local copied = { 'UID COPY 42,69 "foo"', "%T OK [COPYUID 432432 42,69 1202:1203] Done\r\n" }
local flagged = { "UID STORE 42,69 +FLAGS.SILENT (\\Deleted)", ok }
local moved = { uidvalidity = 432432, source = { 42, 69 }, destination = { 1202, 1203 } }

local moves = {
  { "messages", { "MOVE" }, -- RFC 6851 3.3, 4.3
    { { 'UID MOVE 42:69 "foo"', "* OK [COPYUID 432432 42,69 1202:1203]\r\n* 22 EXPUNGE\r\n"
      .. "* 22 EXPUNGE\r\n%T OK Done\r\n" } }, { "move", "42:69", "foo" }, moved },
  { "messages where the server tells at the end", { "IMAP4rev2" },
    { { 'MOVE 22,23 "foo"', "* 22 EXPUNGE\r\n* 22 EXPUNGE\r\n"
      .. "%T OK [COPYUID 432432 42,69 1202:1203] Done\r\n" } },
    { "move", "22,23", "foo", { seq = true } }, moved },
  { "messages where the server tells twice", { "MOVE" },
    { { 'UID MOVE 42:69 "foo"', "* OK [COPYUID 432432 42,69 1202:1203]\r\n* VANISHED 42,69\r\n"
      .. "%T OK [COPYUID 432432 42,69 1202:1203] Done\r\n" } }, { "move", "42:69", "foo" }, moved },
  { "messages where there is no MOVE: those that are there, with three commands", { "UIDPLUS" },
    { found, copied, flagged, { "UID EXPUNGE 42,69", "* 22 EXPUNGE\r\n* 22 EXPUNGE\r\n" .. ok } },
    { "move", "42:69", "foo" }, moved },
  { "messages by number where there is no MOVE", { "UIDPLUS" },
    { { "UID SEARCH 1:2", "* SEARCH 42 69\r\n" .. ok }, copied, flagged,
      { "UID EXPUNGE 42,69", ok } }, { "move", "1:2", "foo", { seq = true } }, moved },
  { "messages that are not there", { "UIDPLUS" },
    { { "UID SEARCH UID 42:69", "* SEARCH\r\n" .. ok } }, { "move", "42:69", "foo" }, {} },
  { "nothing, for which nothing is sent", {}, {}, { "move", {}, "x" }, {} },
}

local failing_moves = {
  { "a copy to a mailbox that could be created", {},
    { { 'UID COPY 1 "x"', "%T NO [TRYCREATE] no such mailbox\r\n" } }, { "copy", 1, "x" },
    { kind = "rejected", during = "copy", status = "TRYCREATE" } },
  { "a move to a mailbox that could be created", { "MOVE" },
    { { 'UID MOVE 1 "x"', "%T NO [TRYCREATE] no such mailbox\r\n" } }, { "move", 1, "x" },
    { kind = "rejected", during = "move", status = "TRYCREATE" } },
  { "a move where there is neither MOVE nor UIDPLUS", {}, {}, { "move", 1, "x" },
    { kind = "unsupported", during = "move",
      message = "the server does not offer MOVE or UIDPLUS, which move needs" } },
  { "a move half-way: what is moved is told", { "MOVE" },
    { { 'UID MOVE 1:9 "x"', "* OK [COPYUID 5 1:2 7:8]\r\n* 1 EXPUNGE\r\n* 1 EXPUNGE\r\n"
      .. "%T NO [OVERQUOTA] full\r\n" } }, { "move", "1:9", "x" },
    { status = "OVERQUOTA",
      done = { uidvalidity = 5, source = { 1, 2 }, destination = { 7, 8 } } } },
  { "a move whose copies can't be made: nothing is done", { "UIDPLUS" },
    { found, { 'UID COPY 42,69 "foo"', "%T NO [TRYCREATE] no such mailbox\r\n" } },
    { "move", "42:69", "foo" }, { kind = "rejected", during = "move", status = "TRYCREATE" } },
  { "a move whose originals can't be flagged: what was copied is told", { "UIDPLUS" },
    { found, copied, { flagged[1], "%T NO [NOPERM] no\r\n" } }, { "move", "42:69", "foo" },
    { kind = "rejected", during = "move", status = "NOPERM", copied = moved,
      message = 'the server refuses MOVE; before that, the messages were copied to "foo"' } },
  { "a move whose originals can't be removed: what was copied is told", { "UIDPLUS" },
    { found, copied, flagged, { "UID EXPUNGE 42,69", "%T NO [INUSE] later\r\n" } },
    { "move", "42:69", "foo" },
    { kind = "rejected", status = "INUSE", temporary = true, copied = moved } },
}

-- }======

local removals = {
  { "all that is deleted", {}, { { "EXPUNGE", "* 3 EXPUNGE\r\n* 3 EXPUNGE\r\n" .. ok } },
    { "expunge" }, { 3, 3 } },
  { "some of it", { "UIDPLUS" }, -- RFC 4315 2.1
    { { "UID EXPUNGE 3000:3002", "* 3 EXPUNGE\r\n* 3 EXPUNGE\r\n* 3 EXPUNGE\r\n" .. ok } },
    { "expunge", "3000:3002" }, { 3, 3, 3 } },
  { "what the server names by UID", { "QRESYNC" }, -- RFC 7162 3.2.10
    { { "EXPUNGE", "* VANISHED (EARLIER) 1\r\n* VANISHED 405,407,410,425\r\n" .. ok } },
    { "expunge" }, { uids = { 405, 407, 410, 425 } } },
  { "nothing of no message, for which nothing is sent", {}, {}, { "expunge", {} }, {} },
}


describe("an IMAP session", function()
  describe("stores", function() plays(stores) end)
  describe("reports a store", function() fails(failing_stores) end)
  describe("copies", function() plays(copies) end)
  describe("moves", function() plays(moves) end)
  describe("reports", function() fails(failing_moves) end)
  describe("removes", function() plays(removals) end)

  it("raises what is misused, and sends nothing", function()
    converse({ { "NOOP", ok } }, function(session)
      for _, change in ipairs { {}, { add = "\\Seen" }, { add = {}, remove = {} }, { put = {} } } do
        assert.has_error(function() session:store(1, change) end)
      end
      for _, since in ipairs { -1, "1", 1.5 } do
        assert.has_error(function()
          session:store(1, { add = { "x" } }, { unchanged_since = since })
        end)
      end
      assert.has_error(function() session:copy(1, nil) end)
      assert.has_error(function() session:move(1, nil) end)
      assert(session:noop())
    end, { capabilities = { "UIDPLUS", "CONDSTORE" } })
  end)

  describe("does with a set too long for one command", function()
    -- The peer answers each command with the function of its number.
    local function with_long_sets(capabilities, answers, use)
      local peer <close> = Peer.start(function(p, args)
        p:imap_upgrade { secure = false, auth = false, after = args.capabilities }
        local lines = {}
        for _, answer in ipairs(args.answers) do
          local tag, line = p:imap_expect ""
          if #line > 8192 then p:fail("a line of %d octets", #line) end
          lines[#lines + 1] = line:sub(#tag + 2)
          p:send((answer:gsub("%%T", tag)))
        end
        return lines
      end, { capabilities = capabilities, answers = answers })
      local session <close> = connect(peer)
      use(session)
      session:close()
      local record = peer:finish()
      assert.is_true(record.ok, record.error)
      return record.result
    end

    local many = scattered(1, 3901)

    local cases = {
      { "store", { { add = { "x" } } },
        { "* 1 FETCH (UID 1 FLAGS (x))\r\n%T OK [MODIFIED 3] one\r\n",
          "* 2 FETCH (UID 3901 FLAGS (x))\r\n%T NO [MODIFIED 2999] two\r\n" },
        { { seq = 1, uid = 1, flags = flags "x" }, { seq = 2, uid = 3901, flags = flags "x" },
          modified = { 3, 2999 } }, { { seq = 1, uid = 1, flags = flags "x" }, modified = { 3 } } },
      { "expunge", {}, { "* 1 EXPUNGE\r\n" .. ok, "* VANISHED 3001\r\n" .. ok },
        { 1, uids = { 3001 } }, { 1 } },
      { "copy", { "x" }, { "%T OK [COPYUID 7 1,3 1:2]\r\n", "%T OK [COPYUID 7 3001 3]\r\n" },
        { uidvalidity = 7, source = { 1, 3, 3001 }, destination = { 1, 2, 3 } },
        { uidvalidity = 7, source = { 1, 3 }, destination = { 1, 2 } } },
      { "move", { "x" }, { "* OK [COPYUID 7 1,3 1:2]\r\n" .. ok, "%T OK [COPYUID 7 3001 3]\r\n" },
        { uidvalidity = 7, source = { 1, 3, 3001 }, destination = { 1, 2, 3 } },
        { uidvalidity = 7, source = { 1, 3 }, destination = { 1, 2 } } },
    }

    for _, case in ipairs(cases) do
      local name, answers = case[1], case[3]
      local function call(target) return target[name](target, many, table.unpack(case[2])) end

      it(name .. ": several commands, and one result", function()
        local lines = with_long_sets({ "UIDPLUS", "MOVE" }, answers, function(session)
          assert.same(case[4], assert(call(session)))
        end)
        assert.equals(2, #lines)
        assert.matches("^UID " .. name:upper() .. " 1,3,5,", lines[1])
        assert.matches(",3901[ \r]", lines[2])
      end)

      it(name .. ", which says what was done when a later command fails", function()
        with_long_sets({ "UIDPLUS", "MOVE" }, { answers[1], "%T NO no more\r\n" },
          function(session)
            local result, err = call(session)
            assert.is_nil(result)
            assert_fields({ kind = "rejected", during = name, text = "no more", done = case[5] },
              err)
          end)
      end)

      it(name .. " in a pipeline, before what comes behind it", function()
        local all = { answers[1], answers[2], ok }
        local lines = with_long_sets({ "UIDPLUS", "MOVE" }, all, function(session)
          assert(session:pipeline(function(p)
            local promise = call(p)
            p:expunge()
            assert.same(case[4], assert(promise:get()))
          end))
        end)
        assert.equals("EXPUNGE\r\n", lines[3])
      end)
    end

    it("a move without MOVE, of which half is done when the connection is lost", function()
      local numbers = table.concat(many, " ")
      local peer <close> = Peer.start(function(p, args)
        p:imap_upgrade { secure = false, auth = false, after = { "UIDPLUS" } }
        local answers = { ("* SEARCH %s\r\n"):format(args.numbers), "", "", "",
          "* OK x\r\n%T OK [COPYUID 7 3001 9]\r\n" }
        for _, answer in ipairs(answers) do
          local tag = p:imap_expect ""
          if not answer:find "%%T" then answer = answer .. "%T OK done\r\n" end
          p:send((answer:gsub("%%T", tag)))
        end
        p:imap_expect "^UID STORE"
      end, { numbers = numbers })
      local session <close> = connect(peer)
      local result, err = session:move("1:*", "x")
      assert.is_nil(result)
      assert_fields({ kind = "closed", done = {},
        copied = { uidvalidity = 7, source = { 3001 }, destination = { 9 } } }, err)
      assert.matches('before that, the messages were copied to "x"', err.message)
      assert.is_nil(select(2, session:noop()).copied)
    end)
  end)

  it("keeps the mailbox's count right whatever removes messages", function()
    local select = { 'SELECT "x"', "* 9 EXISTS\r\n" .. ok }
    converse({ select, { 'UID MOVE 1 "y"', "* OK [COPYUID 1 1 1]\r\n* 1 EXPUNGE\r\n" .. ok },
      { "EXPUNGE", "* 1 EXPUNGE\r\n* VANISHED 7:8\r\n" .. ok } }, function(session)
      local mailbox = assert(session:select "x")
      assert(session:move(1, "y"))
      assert.equals(8, mailbox.exists)
      assert(session:expunge())
      assert.equals(5, mailbox.exists)
    end, { capabilities = { "MOVE" } })
    converse({ select, found, copied, flagged,
      { "UID EXPUNGE 42,69", "* 2 EXPUNGE\r\n* 2 EXPUNGE\r\n" .. ok } }, function(session)
      local mailbox = assert(session:select "x")
      assert(session:move("42:69", "foo"))
      assert.equals(7, mailbox.exists)
    end, { capabilities = { "UIDPLUS" } })
  end)

  it("takes messages that are named by UID alone for what they are", function() -- RFC 9586 3
    converse({
      { "UID FETCH 25900:26600 (UID FLAGS)", "* 25996 UIDFETCH (FLAGS (\\Seen))\r\n"
        .. "* 25997 UIDFETCH (FLAGS (\\Flagged \\Answered))\r\n" .. ok },
      { "UID FETCH 5:6 (UID BODY.PEEK[TEXT] RFC822.SIZE)", "* 5 UIDFETCH (RFC822.SIZE 1)\r\n"
        .. "* 6 UIDFETCH (BODY[TEXT] {3}\r\nabc RFC822.SIZE 3)\r\n"
        .. "* 5 UIDFETCH (BODY[TEXT] \"x\")\r\n" .. ok },
      { "UID STORE 25996 +FLAGS (x)", "* 25996 UIDFETCH (FLAGS (x))\r\n" .. ok },
      { "UID EXPUNGE 25996", "* VANISHED 25996\r\n" .. ok },
      { "NOOP", "* 5 UIDFETCH (FLAGS (y))\r\n" .. ok },
    }, function(session)
      assert.same({ { uid = 25996, flags = flags "\\Seen" },
        { uid = 25997, flags = flags("\\Flagged", "\\Answered") } },
        assert(session:fetch_all("25900:26600", { "flags" })))
      local texts = {}
      for message in session:fetch("5:6", { "text", "size" }) do
        texts[message.uid] = message.text .. message.size
      end
      assert.same({ [5] = "x1", [6] = "abc3" }, texts)
      assert.same({ { uid = 25996, flags = flags "x" } },
        assert(session:store(25996, { add = { "x" } })))
      assert.same({ uids = { 25996 } }, assert(session:expunge(25996)))
      local heard
      session.on.fetch = function(message) heard = message end
      assert(session:noop())
      assert.same({ uid = 5, flags = flags "y" }, heard)
    end, { capabilities = { "UIDONLY", "UIDPLUS" } })
  end)

  describe("with Dovecot", function()
    local mail, session, box

    setup(function() mail = servers.shared() end)

    before_each(function()
      clients.empty(mail, "alice")
      for number = 1, 5 do mail:deliver("alice", ("Subject: %d\r\n\r\ntext\r\n"):format(number)) end
      session = clients.connect(mail, "imap")
      box = ("Box%d"):format(os.time() * 1000 + math.random(999))
      assert(session:ask("create", {}, "atom", "CREATE", "mailbox", box))
      assert(session:select "INBOX")
    end)

    after_each(function()
      assert(session:ask("delete", {}, "atom", "DELETE", "mailbox", box))
      session:close()
    end)

    local function subjects(mailbox)
      assert(session:select(mailbox))
      local found_subjects = {}
      for message in session:fetch("1:*", { "envelope" }) do
        found_subjects[#found_subjects + 1] = message.envelope.subject
      end
      return table.concat(found_subjects, " ")
    end

    it("copies and moves, and tells what became of what", function()
      local copy = assert(session:copy({ 1, 3 }, box))
      assert.same({ 1, 3 }, copy.source)
      assert.same({ 1, 2 }, copy.destination)
      local move = assert(session:move({ 5, 2 }, box))
      assert.equals(copy.uidvalidity, move.uidvalidity)
      assert.same({ 2, 5 }, move.source)
      assert.same({ 3, 4 }, move.destination)
      assert.equals(3, session.mailbox.exists)
      assert.equals("1 3 4", subjects "INBOX")
      assert.equals("1 3 2 5", subjects(box))
      assert.equals(copy.uidvalidity, session.mailbox.uidvalidity)
      assert.same({}, session:copy(4711, "INBOX"))
      assert.equals("TRYCREATE", select(2, session:move("1:*", "nowhere")).status)
    end)

    it("moves as much where MOVE is not to be used", function()
      local has = session.has
      function session.has(...) -- the same server, said to be an older one
        if select(2, ...) == "MOVE" then return false end
        return has(...)
      end
      local move = assert(session:move("2:4", box))
      assert.same({ 2, 3, 4 }, move.source)
      assert.same({ 1, 2, 3 }, move.destination)
      assert.same({}, assert(session:move("2:4", box)))
      assert.equals("1 5", subjects "INBOX")
      assert.equals("2 3 4", subjects(box))
    end)

    it("stores on the condition that nothing has changed", function()
      local other <close> = clients.connect(mail, "imap")
      assert(other:select "INBOX")
      local before = 0
      for message in session:fetch("1:*", { "MODSEQ" }) do
        before = math.max(before, message.modseq)
      end
      assert(other:store(2, { add = { "\\Flagged" } }))
      assert(session:noop())
      local stored = assert(session:store("1:3", { add = { "\\Seen" } },
        { unchanged_since = before }))
      assert.same({ 2 }, stored.modified)
      local uids = {}
      for _, message in ipairs(stored) do
        if message.modseq and message.flags and message.flags["\\Seen"] then
          uids[#uids + 1] = message.uid
        end
      end
      assert.same({ 1, 3 }, uids)
      local seen = {}
      for message in session:fetch("1:*", { "flags" }) do
        if message.flags["\\Seen"] then seen[#seen + 1] = message.uid end
      end
      assert.same({ 1, 3 }, seen)
    end)

    it("removes of what is deleted only what it is told", function()
      assert.same({}, assert(session:store("1:4", { add = { "\\Deleted" } }, { silent = true })))
      assert.equals(2, #assert(session:expunge { 2, 3, 5 }))
      assert.equals(3, session.mailbox.exists)
      assert.equals(2, #assert(session:expunge()))
      assert.equals("5", subjects "INBOX")
    end)

    it("does all that in a pipeline", function()
      local stored, copy, move, gone
      assert(session:pipeline(function(p)
        stored = p:store("1:2", { add = { "\\Deleted" } })
        copy = p:copy(1, box)
        move = p:move(3, box)
        gone = p:expunge "1:3"
      end))
      assert.equals(2, #assert(stored:get()))
      assert.same({ 1 }, assert(copy:get()).destination)
      assert.same({ 2 }, assert(move:get()).destination)
      assert.equals(2, #assert(gone:get()))
      assert.equals("4 5", subjects "INBOX")
    end)
  end)
end)
