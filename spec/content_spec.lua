-- Message content on its way in and out: strings, files and functions as sources and sinks,
-- what happens when they fail, and what a session can do afterwards.

local Peer = require "spec.support.peer"
local clients = require "spec.support.clients"
local process = require "spec.support.process"
local servers = require "spec.support.servers"

local head = "From: alice@example.test\r\nSubject: specs\r\n\r\n"

-- A source of these pieces, then nil and `err`.
local function pieces_of(pieces, err)
  local at = 0
  return function()
    at = at + 1
    if pieces[at] then return pieces[at] end
    return nil, err
  end
end

-- The text in pieces of `size` octets.
local function cut(text, size)
  local pieces = {}
  for at = 1, #text, size do pieces[#pieces + 1] = text:sub(at, at + size - 1) end
  return pieces
end

-- A sink that gathers, and fails or raises after `most` calls.
local function gathering(most, fail)
  local got = { calls = 0, pieces = {}, ends = 0 }
  function got.sink(piece, why)
    got.calls = got.calls + 1
    if not piece then
      got.ends, got.why = got.ends + 1, why
      return true
    end
    if most and got.calls > most then return fail() end
    got.pieces[#got.pieces + 1] = piece
    return true
  end
  function got.text() return table.concat(got.pieces) end
  return got
end

local function disk_full() return nil, "the disk is full" end
local function raise() error("my own error", 0) end

describe("Message content", function()
  local mail, directory

  setup(function()
    mail = servers.shared()
    directory = process.temporary_directory()
  end)

  teardown(function() directory:close() end)

  before_each(function() clients.empty(mail, "alice") end)

  local function file_of(text, mode)
    local path = directory.path .. "/content"
    process.write_file(path, text)
    return assert(io.open(path, mode or "rb"))
  end

  local give = {
    smtp = function(session, message)
      return session:send {
        from = "alice@example.test", to = "alice@example.test", message = message,
      }
    end,
    imap = function(session, message) return session:append("INBOX", message) end,
  }

  -- The messages in alice's mailbox, without what Exim puts on top.
  local function arrived(count)
    mail:wait_for_mail("alice", count)
    local session <close> = clients.connect(mail, "imap")
    session:select "INBOX"
    local texts = {}
    for i, message in ipairs(assert(session:fetch_all("1:*", { "body" }))) do
      texts[i] = message.body:match "^Received:.-\r\n(From: .*)$" or message.body
    end
    return texts
  end

  describe("on its way out", function()
    local text = head .. "one\r\n.two\r\n\r\n" .. ("x"):rep(70000) .. "\r\nend\r\n"

    local sources = {
      { "a string", function() return text end },
      { "an open file", function() return file_of(text) end },
      { "a file with LF", function() return file_of((text:gsub("\r\n", "\n"))) end },
      { "a file from where it stands", function()
        local file = file_of("skip this" .. text)
        file:seek("set", #"skip this")
        return file
      end },
      { "a pipe, which can't be read twice", function()
        file_of(text):close()
        return assert(io.popen("cat " .. directory.path .. "/content"))
      end },
      { "a function", function() return pieces_of(cut(text, 4096)) end },
      { "a function with one piece", function() return pieces_of { text } end },
      { "a function with single octets", function() return pieces_of(cut(text, 1)) end },
      { "a function with empty pieces", function()
        local pieces = { "" }
        for _, piece in ipairs(cut(text, 10000)) do
          table.move({ piece, "", "" }, 1, 3, #pieces + 1, pieces)
        end
        return pieces_of(pieces)
      end },
    }

    for _, case in ipairs(sources) do
      local what, source = table.unpack(case)
      for _, protocol in ipairs { "smtp", "imap" } do
        it(("comes from %s by %s"):format(what, protocol), function()
          local session <close> = clients.connect(mail, protocol)
          local message = source()
          assert(give[protocol](session, message))
          if io.type(message) then assert.equal("file", io.type(message)) end
          assert.is_true(text == arrived(1)[1])
        end)
      end
    end

    it("follows other content in one session, after refusals too", function()
      local session <close> = clients.connect(mail, "smtp")
      assert(give.smtp(session, head .. "1\r\n"))
      local done, err = session:send { from = "alice@example.test", to = mail.refused,
        message = pieces_of { head, "nobody is to have it" } }
      assert.is_nil(done)
      assert.equal("rcpt", err.during)
      assert(give.smtp(session, file_of(head .. "2\r\n")))
      assert(session:reset())
      assert(give.smtp(session, pieces_of { head, "3\r\n" }))
      assert(session:quit())
      local texts = arrived(3)
      table.sort(texts)
      assert.same({ head .. "1\r\n", head .. "2\r\n", head .. "3\r\n" }, texts)
    end)

    it("follows other content in one session by IMAP, after refusals too", function()
      local session <close> = clients.connect(mail, "imap")
      assert(give.imap(session, head .. "1\r\n"))
      local done, err = session:append("no such mailbox", head .. "none\r\n")
      assert.is_nil(done)
      assert.same({ "rejected", "append", "TRYCREATE" }, { err.kind, err.during, err.status })
      assert(give.imap(session, pieces_of { head, "2\r\n" }))
      assert(session:logout())
      assert.same({ head .. "1\r\n", head .. "2\r\n" }, arrived(2))
    end)

    local failing = {
      { "a function that fails", function() return pieces_of({ head, "half" }, "no more") end,
        "the message's source failed: no more" },
      { "a function that fails at once", function() return pieces_of({}, "no more") end,
        "the message's source failed: no more" },
      { "a file that can't be read", function() return file_of("", "wb") end,
        "the message's source failed: Bad file descriptor" },
    }

    for _, case in ipairs(failing) do
      local what, source, message = table.unpack(case)
      -- Exim has CHUNKING, with which a message can be taken back; a file's header is looked at
      -- before anything is sent.
      it("is not delivered from " .. what .. ", and the session goes on", function()
        local session <close> = clients.connect(mail, "smtp")
        local done, err = give.smtp(session, source())
        assert.is_nil(done)
        local during = what:find "file" and "envelope" or "content"
        assert.same({ "cancelled", during, message }, { err.kind, err.during, err.message })
        assert(session:noop())
        assert(give.smtp(session, head .. "whole\r\n"))
        assert.same({ head .. "whole\r\n" }, arrived(1))
      end)

      it("is not appended from " .. what .. ", and the session goes on", function()
        local session <close> = clients.connect(mail, "imap")
        local done, err = give.imap(session, source())
        assert.is_nil(done)
        assert.same({ "cancelled", "append", message }, { err.kind, err.during, err.message })
        assert(give.imap(session, head .. "whole\r\n"))
        assert.same({ head .. "whole\r\n" }, arrived(1))
      end)
    end

    it("is not delivered from a function that raises, and the session goes on", function()
      local session <close> = clients.connect(mail, "smtp")
      local next_piece = pieces_of { head, "half" }
      assert.has_error(function()
        give.smtp(session, function() return next_piece() or raise() end)
      end, "my own error")
      assert(session:noop())
      assert(give.smtp(session, head .. "whole\r\n"))
      assert.same({ head .. "whole\r\n" }, arrived(1))
    end)

    it("is not appended from a function that raises, and the session goes on", function()
      local session <close> = clients.connect(mail, "imap")
      local next_piece = pieces_of { head, "half" }
      assert.has_error(function()
        give.imap(session, function() return next_piece() or raise() end)
      end, "my own error")
      assert(give.imap(session, head .. "whole\r\n"))
      assert.same({ head .. "whole\r\n" }, arrived(1))
    end)

    it("ends the session when the file changes while it is appended", function()
      for change, what in pairs { shorter = head, longer = text .. text } do
        local file <close> = file_of(text)
        -- The size is told by then, and the server wants to have it.
        local session <close> = clients.connect(mail, "imap", { trace = function(event)
          if event.direction == "received" and event.text:find "^%+ OK" then
            file_of(what):close()
          end
        end })
        local done, err = give.imap(session, file)
        assert.is_nil(done)
        assert.equal("unsupported", err.kind)
        assert.matches(change .. " than its announced size", err.message)
        assert.is_nil((session:noop()))
        assert.equal(0, #mail:inbox "alice")
      end
    end)

    it("passes an error object of the source on as it is", function()
      local own = require "starttls.error".new { kind = "limit", during = "mine", message = "mine" }
      local session <close> = clients.connect(mail, "smtp")
      local done, err = give.smtp(session, pieces_of({ head }, own))
      assert.is_nil(done)
      assert.equal(own, err)
    end)

    it("can be nothing but a string, an open file or a function", function()
      local closed = file_of "x"
      closed:close()
      for _, protocol in ipairs { "smtp", "imap" } do
        local session <close> = clients.connect(mail, protocol)
        for name, value in pairs { ["closed file"] = closed, table = {}, number = 1,
          boolean = true } do
          assert.error_matches(function() give[protocol](session, value) end,
            "'message' must be a string, an open file or a source function, not " .. name)
        end
        assert(session:noop())
      end
    end)
  end)

  describe("on the wire", function()
    local text = "a\r\n.b\r\n..\r\n.\r\nc\r.\n.\r\r\n\n.d"
    local normal = "a\r\n.b\r\n..\r\n.\r\nc\r\n.\r\n.\r\n\r\n\r\n.d"
    local stuffed = "a\r\n..b\r\n...\r\n..\r\nc\r\n..\r\n..\r\n\r\n\r\n..d\r\n"

    local function connect(peer, protocol)
      return clients.connect(mail, protocol, { port = peer.port })
    end

    -- Every way to cut the text in two, and single octets.
    local function all_cuts()
      local cuts = { cut(text, 1) }
      for at = 0, #text do cuts[#cuts + 1] = { text:sub(1, at), text:sub(at + 1) } end
      return cuts
    end

    it("is the same by SMTP, wherever the source cuts it", function()
      local cuts = all_cuts()
      local peer <close> = Peer.start(function(p, args)
        p:smtp_upgrade(args)
        local contents = {}
        for i = 1, args.count do contents[i] = p:smtp_receive().content end
        return contents
      end, { cert = mail.cert, key = mail.key, count = #cuts })
      local session <close> = connect(peer, "smtp")
      for _, pieces in ipairs(cuts) do assert(give.smtp(session, pieces_of(pieces))) end
      local record = peer:finish()
      assert.is_nil(record.error)
      assert.equal(#cuts, #record.result)
      for _, content in ipairs(record.result) do assert.equal(stuffed, content) end
    end)

    it("is the same by IMAP, wherever the source cuts it, and as long as announced", function()
      local cuts = all_cuts()
      local peer <close> = Peer.start(function(p, args)
        p:imap_upgrade(args)
        local tag = p:imap_expect "^CAPABILITY"
        p:send("* CAPABILITY IMAP4rev1\r\n", tag, " OK done\r\n")
        local contents = {}
        for i = 1, args.count do
          local line
          tag, line = p:imap_expect "^APPEND "
          p:send "+ go on\r\n"
          contents[i] = p:read(math.tointeger(line:match "{(%d+)}\r\n$"))
          p:expect "^\r\n$"
          p:send(tag, " OK done\r\n")
        end
        return contents
      end, { cert = mail.cert, key = mail.key, count = #cuts })
      local session <close> = connect(peer, "imap")
      for _, pieces in ipairs(cuts) do assert(give.imap(session, pieces_of(pieces))) end
      local record = peer:finish()
      assert.is_nil(record.error)
      assert.equal(#cuts, #record.result)
      for _, content in ipairs(record.result) do assert.equal(normal, content) end
    end)

    it("is read the same by POP3, wherever the server cuts it", function()
      local peer <close> = Peer.start(function(p, args)
        p:pop3_upgrade(args)
        local reply = "+OK here it is\r\n" .. args.stuffed .. ".\r\n"
        for at = 1, #reply - 1 do
          p:expect "^RETR 1\r\n"
          p:send(reply:sub(1, at))
          p:send(reply:sub(at + 1))
        end
        p:expect "^RETR 1\r\n"
        p:send_slowly(reply, 0.0001)
      end, { cert = mail.cert, key = mail.key, stuffed = stuffed })
      local session <close> = connect(peer, "pop3")
      local expected = normal .. "\r\n"
      for _ = 1, #"+OK here it is\r\n" + #stuffed + #".\r\n" do
        assert.equal(expected, (assert(session:retr(1))))
      end
      assert.is_nil(peer:finish().error)
    end)

    it("is read the same by IMAP, wherever the server cuts it", function()
      local peer <close> = Peer.start(function(p, args)
        p:imap_upgrade(args)
        local tag = p:imap_expect "^CAPABILITY"
        p:send("* CAPABILITY IMAP4rev1\r\n", tag, " OK done\r\n")
        local function reply()
          tag = p:imap_expect "^UID FETCH"
          return ("* 1 FETCH (UID 7 BODY[] {%d}\r\n%s FLAGS (\\Seen))\r\n%s OK done\r\n"):format(
            #args.content, args.content, tag)
        end
        for at = 1, args.count do
          local bytes = reply()
          p:send(bytes:sub(1, at))
          p:send(bytes:sub(at + 1))
        end
        p:send_slowly(reply(), 0.0001)
      end, { cert = mail.cert, key = mail.key, content = text, count = #text + 60 })
      local session <close> = connect(peer, "imap")
      for _ = 1, #text + 61 do
        local messages = assert(session:fetch_all(7, { "body", "flags" }))
        assert.same({ 1, 7, text, true }, { #messages, messages[1].uid, messages[1].body,
          messages[1].flags["\\Seen"] })
      end
      assert.is_nil(peer:finish().error)
    end)

    it("that goes on behind its end is noticed, and closes the session", function()
      local peer <close> = Peer.start(function(p, args)
        p:pop3_upgrade(args)
        p:expect "^RETR 1\r\n"
        p:send "+OK here it is\r\n.\r\nmore\r\n.\r\n"
        p:wait_for_close()
      end, { cert = mail.cert, key = mail.key })
      local session <close> = connect(peer, "pop3")
      assert.equal("", (session:retr(1)))
      for _ = 1, 2 do
        local done, err = session:noop()
        assert.is_nil(done)
        assert.equal("protocol", err.kind)
      end
    end)
  end)

  describe("on its way in", function()
    -- Longer than any buffer, so that a break leaves some of it unread.
    local big = head .. ("0123456789abcdef"):rep(3) .. "\r\n"
    big = big .. (".23456789abcdef\r\n"):rep(60000)

    -- Puts messages into the mailbox, in this order. Returns a session that can fetch them.
    local function with_messages(protocol, texts, extra)
      do
        local session <close> = clients.connect(mail, "imap")
        for _, text in ipairs(texts) do assert(session:append("INBOX", text)) end
      end
      local session = clients.connect(mail, protocol, extra)
      if protocol == "imap" then assert(session:select "INBOX") end
      return session
    end

    -- Fetches message n into the sink. Returns as retr() and fetch_all() do.
    local take = {
      pop3 = function(session, n, sink) return session:retr(n, sink) end,
      imap = function(session, n, sink)
        local messages, err = session:fetch_all(n, { "body" }, { seq = true,
          sink = sink and function() return sink end })
        if not messages then return nil, err end
        return messages[1].body
      end,
    }

    for _, protocol in ipairs { "imap", "pop3" } do
      describe("by " .. protocol, function()
        it("becomes a string without a sink", function()
          local session <close> = with_messages(protocol, { big })
          assert.is_true(big == take[protocol](session, 1))
        end)

        it("goes to an open file, which stays open", function()
          local session <close> = with_messages(protocol, { big })
          local file <close> = file_of("", "w+b")
          file:write "before"
          assert.is_true(take[protocol](session, 1, file))
          file:write "after"
          file:seek "set"
          assert.is_true("before" .. big .. "after" == file:read "a")
        end)

        it("goes to a function in pieces, which is told of the end once", function()
          local session <close> = with_messages(protocol, { big })
          local got = gathering()
          assert.is_true(take[protocol](session, 1, got.sink))
          assert.is_true(big == got.text())
          assert.is_true(#got.pieces > 1)
          assert.same({ 1 }, { got.ends, got.why })
        end)

        it("goes to a sink in short, too", function()
          local session <close> = with_messages(protocol, { "a: b\n\nc\n" })
          local got = gathering()
          assert.is_true(take[protocol](session, 1, got.sink))
          assert.same({ "a: b\r\n\r\nc\r\n", 1 }, { got.text(), got.ends })
        end)

        for _, most in ipairs { 0, 3 } do
          it(("is dropped when the sink fails after %d pieces, and the session goes on")
            :format(most), function()
            local session <close> = with_messages(protocol, { big, "a: b\n\nc\n" })
            local got = gathering(most, disk_full)
            local done, err = take[protocol](session, 1, got.sink)
            assert.is_nil(done)
            assert.same({ "cancelled", "the sink failed: the disk is full" },
              { err.kind, err.message })
            assert.equal(most, #got.pieces)
            assert(session:noop())
            assert.equal("a: b\r\n\r\nc\r\n", (assert(take[protocol](session, 2))))
            assert.is_true(big == take[protocol](session, 1))
          end)
        end

        it("is dropped when the sink raises, and the session goes on", function()
          local session <close> = with_messages(protocol, { big, "a: b\n\nc\n" })
          assert.has_error(function()
            local messages, err = take[protocol](session, 1, gathering(1, raise).sink)
            if not messages then error(err, 0) end
          end, "my own error")
          assert.equal("a: b\r\n\r\nc\r\n", (assert(take[protocol](session, 2))))
        end)

        it("is dropped when the file can't be written, and the session goes on", function()
          local session <close> = with_messages(protocol, { big, "a: b\n\nc\n" })
          local file <close> = file_of("", "rb")
          local done, err = take[protocol](session, 1, file)
          assert.is_nil(done)
          assert.same({ "cancelled", "the sink failed: Bad file descriptor" },
            { err.kind, err.message })
          assert.equal("a: b\r\n\r\nc\r\n", (assert(take[protocol](session, 2))))
        end)

        it("can go to nothing but an open file or a function", function()
          local session <close> = with_messages(protocol, { "a: b\n\nc\n" })
          local closed = file_of "x"
          closed:close()
          for name, value in pairs { ["closed file"] = closed, string = "x", table = {} } do
            assert.error_matches(function()
              local _, err = take[protocol](session, 1, value)
              error(err, 0)
            end, "sink must be an open file or a function, not " .. name)
          end
          assert.equal("a: b\r\n\r\nc\r\n", (assert(take[protocol](session, 1))))
        end)

        it("is limited as a string, and closes the session beyond that", function()
          local limited = { limits = { string = 1000 } }
          local at_most = head .. ("x"):rep(1000 - #head - 2) .. "\r\n"
          local session <close> = with_messages(protocol, { at_most, "y" .. at_most }, limited)
          assert.equal(at_most, (assert(take[protocol](session, 1))))
          local got = gathering()
          assert.is_true(take[protocol](session, 2, got.sink))
          assert.equal("y" .. at_most, got.text())
          local done, err = take[protocol](session, 2)
          assert.is_nil(done)
          assert.equal("limit", err.kind)
          assert.matches("longer than the limit of 1000 bytes for a string", err.message)
          assert.matches("limits.string", err.hint, 1, true)
          done, err = session:noop()
          assert.is_nil(done)
          assert.is_string(err.kind)
        end)
      end)
    end

    describe("in a fetch loop", function()
      local small = "a: b\r\n\r\nc\r\n"

      it("may be left by a break; the next command has its own answers", function()
        local session <close> = with_messages("imap", { big, small, big })
        for _, seen in ipairs { 1, 2 } do
          local count = 0
          for message in session:fetch("1:*", { "body" }, { seq = true }) do
            count = count + 1
            assert.equal(count, message.seq)
            if count == seen then break end
          end
          assert.same({ 1, 2, 3 }, (session:search("ALL", { seq = true })))
        end
        for message in session:fetch("2", { "body" }, { seq = true }) do
          assert.equal(small, message.body)
        end
        assert(session:logout())
      end)

      it("may be left by an error, and by the end of the session", function()
        local session <close> = with_messages("imap", { big, small })
        assert.has_error(function()
          for _ in session:fetch("1:*", { "body" }) do raise() end
        end, "my own error")
        assert.same({ 1, 2 }, (session:search("ALL", { seq = true })))
        for _ in session:fetch("1:*", { "body" }) do break end -- luacheck: ignore 512
        assert(session:logout())
      end)

      it("keeps the session busy until it ends", function()
        local session <close> = with_messages("imap", { small, small })
        local count = 0
        for message in session:fetch("1:*", { "body" }) do
          count = count + 1
          assert.equal(small, message.body)
          local done, err = session:noop()
          assert.is_nil(done)
          assert.equal("busy", err.kind)
        end
        assert.equal(2, count)
        assert(session:noop())
      end)

      it("goes where the caller chooses, message by message and section by section", function()
        local session <close> = with_messages("imap", { small, "d: e\n\nf\n" })
        local asked, first = {}, gathering()
        local messages = assert(session:fetch_all("1:*", { "headers", "text", "flags" }, {
          seq = true,
          sink = function(message, section)
            asked[#asked + 1] = message.seq .. section
            return message.seq == 1 and section == "TEXT" and first.sink or nil
          end,
        }))
        table.sort(asked)
        assert.same({ "1HEADER", "1TEXT", "2HEADER", "2TEXT" }, asked)
        assert.same({ "c\r\n", 1 }, { first.text(), first.ends })
        assert.same({ "a: b\r\n\r\n", true }, { messages[1].headers, messages[1].text })
        assert.same({ "d: e\r\n\r\n", "f\r\n" }, { messages[2].headers, messages[2].text })
      end)
    end)

    describe("by POP3's messages()", function()
      local texts = { "a: 1\r\n\r\none\r\n", big, "a: 3\r\n\r\nthree\r\n" }

      it("comes message by message, with numbers, sizes and identifiers", function()
        local session <close> = with_messages("pop3", texts)
        local uids = assert(session:uidl())
        local seen = 0
        for message in session:messages() do
          seen = seen + 1
          assert.same({ seen, #texts[seen], uids[seen] }, { message.n, message.size, message.uid })
          assert.is_true(texts[seen] == message:retr())
          assert.equal(texts[seen]:match "^.-\r\n\r\n", (assert(message:top())))
        end
        assert.equal(3, seen)
      end)

      it("is none in an empty mailbox", function()
        local session <close> = clients.connect(mail, "pop3")
        for _ in session:messages() do error "there is none" end
      end)

      it("is saved under its name when it is complete", function()
        local session <close> = with_messages("pop3", texts)
        for message in session:messages() do
          local path = ("%s/saved-%d"):format(directory.path, message.n)
          process.write_file(path, "what was there before")
          assert.is_true(message:save(path))
          assert.is_true(texts[message.n] == process.read_file(path))
          assert.is_nil(process.read_file(path .. ".part"))
        end
      end)

      it("is not saved where that is impossible, and the session goes on", function()
        local session <close> = with_messages("pop3", texts)
        local first = session:messages()()
        local done, err = first:save(directory.path .. "/no/such/folder")
        assert.is_nil(done)
        assert.same({ "cancelled", "retr" }, { err.kind, err.during })
        assert.matches("^opening the file failed: .*No such file", err.message)
        assert.is_true(first:save(directory.path .. "/saved"))
      end)

      it("leaves what was there when it can't be had", function()
        local session <close> = with_messages("pop3", texts)
        local path = directory.path .. "/kept"
        process.write_file(path, "what was there before")
        local first = session:messages()()
        assert(first:delete())
        local done, err = first:save(path)
        assert.is_nil(done)
        assert.equal("rejected", err.kind)
        assert.equal("what was there before", process.read_file(path))
        assert.is_nil(process.read_file(path .. ".part"))
        assert(session:reset())
      end)

      it("is deleted only by a quit", function()
        do
          local session <close> = with_messages("pop3", texts)
          for message in session:messages() do assert(message:delete()) end
        end
        local session <close> = clients.connect(mail, "pop3")
        assert.equal(3, (session:stat()))
        for message in session:messages() do
          if message.n ~= 2 then assert(message:delete()) end
        end
        assert(session:quit())
        local again <close> = clients.connect(mail, "pop3")
        assert.same({ 1, #big }, { again:stat() })
      end)
    end)

    it("tells a sink of what can't be had", function()
      local session <close> = with_messages("pop3", { "a: b\n\nc\n" })
      local got = gathering()
      local done, err = session:retr(2, got.sink)
      assert.is_nil(done)
      assert.same({ "rejected", "retr" }, { err.kind, err.during })
      assert.same({ 0, 1, tostring(err) }, { #got.pieces, got.ends, got.why })
      assert(session:noop())
    end)
  end)
end)
