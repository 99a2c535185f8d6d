-- Content in chunks (CHUNKING and BINARYMIME, RFC 3030): what goes out in one flight, how it is
-- cut, what becomes of it when the server refuses some or all, and what is said of it when the
-- connection is lost. The peers are scripted and speak clear text; Exim takes chunks in
-- content_spec.lua and roundtrip_spec.lua.

local Peer = require "spec.support.peer"
local talk = require "spec.support.smtp_talk"

local connect, converse, serve = talk.connect, talk.converse, talk.serve
local assert_fields, assert_alive = talk.assert_fields, talk.assert_alive

local a, b, c = "a@example.test", "b@example.test", "c@example.test"
local letter = "Subject: x\r\n\r\n.x\r\n"

local function envelope(to, message, binary)
  return talk.envelope(to or { a, b, c }, message or letter, binary)
end

local both, single = { "PIPELINING", "CHUNKING", "8BITMIME" }, { "CHUNKING", "8BITMIME" }

local function source_of(pieces, failure)
  local at = 0
  return function()
    at = at + 1
    if pieces[at] then return pieces[at] end
    return nil, failure
  end
end

local function file_of(text)
  local file = assert(io.tmpfile())
  file:write(text)
  file:seek "set"
  return file
end

describe("A message in chunks", function()
  it("goes out in one flight with its envelope", function()
    converse(both, function(p)
      p:expect "^MAIL" p:expect "^RCPT" p:expect "^RCPT" p:expect "^RCPT"
      local content, last = p:smtp_chunk()
      if content ~= "Subject: x\r\n\r\n.x\r\n" or not last then p:fail("got %q", content) end
      p:send(("250 OK\r\n"):rep(4), "250 2.6.0 queued\r\n")
    end, function(session)
      local result = assert(session:send(envelope()))
      assert.same({ a, b, c }, result.accepted)
      assert_fields({ code = 250, status = "2.6.0", text = "queued" }, result.reply)
    end)
  end)

  it("waits for each answer where the server lacks PIPELINING", function()
    converse(single, function(p)
      local function answer(what)
        p:sleep(0.02)
        if p.buffer ~= "" or p:receive_now() then p:fail("more behind %s", what) end
        p:send "250 OK\r\n"
      end
      for _, pattern in ipairs { "^MAIL", "^RCPT", "^RCPT", "^RCPT" } do
        p:expect(pattern)
        answer(pattern)
      end
      repeat
        local _, last = p:smtp_chunk()
        answer "BDAT"
      until last
    end, function(session)
      local long = ("x"):rep(98) .. "\r\n"
      assert.same({ a, b, c }, assert(session:send(envelope(nil, long:rep(5000)))).accepted)
    end)
  end)

  it("is no more than one chunk before the envelope is answered", function()
    local sizes = converse(both, function(p)
      p:keep(false)
      p:expect "^MAIL" p:expect "^RCPT"
      local sizes = { #p:smtp_chunk() }
      p:sleep(0.05)
      if p.buffer ~= "" or p:receive_now() then p:fail "more behind the first chunk" end
      p:send "250 OK\r\n250 OK\r\n"
      repeat
        local piece, last = p:smtp_chunk() -- without an answer to those before
        sizes[#sizes + 1] = #piece
      until last
      p:send(("250 OK\r\n"):rep(#sizes))
      return sizes
    end, function(session)
      assert(session:send(envelope(a, (("x"):rep(98) .. "\r\n"):rep(20000))))
    end)
    local sum = 0
    for _, size in ipairs(sizes) do
      assert(size <= 256 * 1024, size)
      sum = sum + size
    end
    assert.equals(2000000, sum)
    assert(#sizes < 16, #sizes)
  end)

  local long = (("y"):rep(70) .. "\r\n"):rep(9000)

  -- the message, and what arrives
  for what, case in pairs {
    ["as it is"] = { ".a\r\n..\r\n.\r\nb\r\n", ".a\r\n..\r\n.\r\nb\r\n" },
    ["with CRLF for every line end"] = { "a\nb\rc\r\n\r\r\n\n", "a\r\nb\r\nc\r\n\r\n\r\n\r\n" },
    ["with its last line ended"] = { "a\r\nb", "a\r\nb\r\n" },
    ["even when it is empty"] = { "", "" },
    ["in pieces of any size"] = { source_of { "a\r", "\nb", "", "\r", "\r\n", ".", "\r\n" },
      "a\r\nb\r\n\r\n.\r\n" },
    ["from a file"] = { file_of(long), long },
    ["from a file with LF"] = { file_of((long:gsub("\r\n", "\n"))), long },
    ["from a file with CR at a block's end"] = { file_of(("x"):rep(65535) .. "\r" .. long),
      ("x"):rep(65535) .. "\r\n" .. long },
    ["from a file that is empty"] = { file_of "", "" },
    ["from a long string"] = { long, long },
    ["from a source of one long piece"] = { source_of { long .. "z" }, long .. "z\r\n" },
  } do
    it("arrives " .. what, function()
      for _, extensions in ipairs { both, single } do
        if io.type(case[1]) then case[1]:seek "set" end
        if type(case[1]) ~= "function" or extensions == both then
          local taken = serve(extensions, function(session)
            assert(session:send(envelope(a, case[1])))
            assert_alive(session)
          end)
          assert.equals(1, #taken)
          assert.is_true(case[2] == taken[1].content)
        end
      end
    end)
  end

  -- What the server refuses, what the client says behind EHLO (where PIPELINING makes a
  -- difference, with and without), and the error, or the result's accepted recipients.
  local nobody = { "no-a@example.test", "no-b@example.test" }
  local MAIL, RCPT, BDAT, RSET, NOOP, QUIT = "MAIL", "RCPT", "BDAT", "RSET", "NOOP", "QUIT"
  local fates = {
    { "its sender", { from = "bad@x.test", to = { a, b }, message = letter },
      pipelined = { MAIL, RCPT, RCPT, BDAT, RSET, NOOP, QUIT }, single = { MAIL, NOOP, QUIT },
      err = { kind = "rejected", during = "mail", code = 550, status = "5.7.1", rejected = {} } },
    { "every recipient", envelope(nobody),
      pipelined = { MAIL, RCPT, RCPT, BDAT, RSET, NOOP, QUIT },
      single = { MAIL, RCPT, RCPT, RSET, NOOP, QUIT },
      err = { kind = "rejected", during = "rcpt", code = 550, text = "no such user",
        temporary = false } },
    { "every recipient of a long message", envelope(nobody, long),
      pipelined = { MAIL, RCPT, RCPT, BDAT, RSET, NOOP, QUIT },
      single = { MAIL, RCPT, RCPT, RSET, NOOP, QUIT },
      err = { kind = "rejected", during = "rcpt", code = 550 } },
    { "some recipients", envelope { "no-a@example.test", a, "later@example.test", b },
      pipelined = { MAIL, RCPT, RCPT, RCPT, RCPT, BDAT, NOOP, QUIT }, accepted = { a, b } },
    { "its end", envelope({ a, "no-b@example.test" }, "REJECT"),
      pipelined = { MAIL, RCPT, RCPT, BDAT, RSET, NOOP, QUIT },
      err = { kind = "rejected", during = "delivery", code = 554, status = "5.6.0",
        temporary = false, rejected = { { address = "no-b@example.test", code = 550,
          status = "5.1.1", text = "no such user", temporary = false } } } },
    { "its end for now", envelope(a, "DEFER"),
      pipelined = { MAIL, RCPT, BDAT, RSET, NOOP, QUIT },
      err = { kind = "rejected", during = "delivery", code = 451, temporary = true } },
  }

  for _, fate in ipairs(fates) do
    for way, extensions in pairs { pipelined = both, single = single } do
      it(("tells that the server refuses %s (%s), and the session goes on"):format(fate[1], way),
        function()
          local taken = serve(extensions, function(session)
            local result, err = session:send(fate[2])
            assert.same(fate.accepted, result and result.accepted)
            if fate.err then assert_fields(fate.err, err) end
            assert.is_nil(err and err.delivery)
            assert_alive(session)
          end)
          assert.equals(fate.accepted and 1 or 0, #taken)
          assert.same(fate[way] or fate.pipelined, taken.verbs)
        end)
    end
  end

  for way, extensions in pairs { pipelined = both, single = single } do
    it(("stops when the server refuses it half-way (%s), and the session goes on"):format(way),
      function()
        local given, piece = 0, "HALFWAY" .. ("x"):rep(65000) .. "\r\n"
        local taken = serve(extensions, function(session)
          local result, err = session:send(envelope(a, function()
            given = given + 1
            return given < 20000 and piece or nil
          end))
          assert.is_nil(result)
          assert_fields({ kind = "rejected", during = "content", code = 552, status = "5.3.4",
            temporary = false }, err)
          assert(given < 20000)
          assert(session:send(envelope(a)))
          assert_alive(session)
        end)
        assert.equals(letter, taken[1].content)
      end)

    for what, failing in pairs {
      ["whose source fails"] = { source_of({ "half" }, "disk on fire"),
        { kind = "cancelled", during = "content" } },
      ["whose source fails far behind"] = { source_of({ long, long, long }, "disk on fire"),
        { kind = "cancelled", during = "content" } },
      ["with a NUL"] = { source_of { "a\0b" }, { kind = "unsupported", during = "content" } },
      ["with a NUL in a file"] = { file_of(long .. "a\0b"), { kind = "unsupported" } },
    } do
      it(("is taken back when it is one %s (%s)"):format(what, way), function()
        local source = failing[1]
        if io.type(source) then source:seek "set"
        elseif way == "single" then return end -- the source is used up
        local taken = serve(extensions, function(session)
          local result, err = session:send(envelope(a, source))
          assert.is_nil(result)
          assert_fields(failing[2], err)
          assert(session:send(envelope(a)))
          assert_alive(session)
        end)
        assert.equals(1, #taken)
        assert.equals(letter, taken[1].content)
      end)
    end
  end

  it("is taken back when its source raises, and the session goes on", function()
    local taken = serve(both, function(session)
      assert.has_error(function()
        session:send(envelope(a, function() error("boom", 0) end))
      end, "boom")
      assert.error_matches(function() session:send(envelope(a, function() return 5 end)) end,
        "gave a number")
      assert_alive(session)
    end)
    assert.equals(0, #taken)
  end)

  it("is no more than 8 bits only where the server has 8BITMIME", function()
    local eight = "f\u{fc}r\r\n"
    local taken = serve({ "CHUNKING", "PIPELINING" }, function(session)
      for _, message in ipairs { eight, source_of { eight }, file_of(eight) } do
        assert.equals("unsupported", select(2, session:send(envelope(a, message))).kind)
      end
      assert_alive(session)
    end)
    assert.equals(0, #taken)
  end)

  describe("that is binary", function()
    local binary = "a\0b\r\r\n\n\r.\n\xff"

    it("goes as it is", function()
      for _, extensions in ipairs { { "BINARYMIME", "CHUNKING" },
        { "BINARYMIME", "CHUNKING", "PIPELINING" } } do
        for _, message in ipairs { binary, file_of(binary) } do
          local taken = serve(extensions, function(session)
            assert(session:send(envelope(a, message, true)))
            assert_alive(session)
          end)
          assert.equals(binary, taken[1].content)
          assert.matches("> BODY=BINARYMIME", taken[1].line)
        end
      end
    end)

    it("is refused before anything is sent where the server can't take it", function()
      for _, extensions in ipairs { { "CHUNKING" }, { "BINARYMIME" }, {} } do
        local taken = serve(extensions, function(session)
          local result, err = session:send(envelope(a, binary, true))
          assert.is_nil(result)
          assert.equals("unsupported", err.kind)
          assert.matches("BINARYMIME", err.message)
          assert_alive(session)
        end)
        assert.same({ "NOOP", "QUIT" }, taken.verbs)
      end
    end)

    it("is wanted by a boolean", function()
      serve(both, function(session)
        assert.error_matches(function()
          session:send { from = "f@example.test", to = a, message = "x", body = "binary" }
        end, "'body'")
      end)
    end)
  end)
end)

describe("When the connection is lost", function()
  -- A peer that takes what `upto` says of each client's message, says the first bytes of its
  -- answers, one byte more to each client, and hangs up.
  local function each_byte(extensions, answers, attempt)
    local total = 0
    for _, answer in ipairs(answers) do total = total + #answer end
    local peer <close> = Peer.start(function(p, args)
      for count = 0, args.total do
        if count > 0 then p:accept() end
        p:smtp_upgrade { secure = false, auth = false, after = args.extensions }
        for _, answer in ipairs(args.answers) do
          local taken = table.concat { p.buffer, p:receive "for what is to be answered" or "" }
          while not taken:find(args.ends[answer], 1, true) do
            taken = taken .. (p:receive "for more" or p:fail "left")
          end
          p.buffer = ""
          p:send(answer:sub(1, count))
          count = count - #answer
          if count <= 0 then break end
        end
        p:close()
      end
    end, { extensions = extensions, answers = answers, total = total,
      ends = { [answers[1]] = answers[2] and "DATA\r\n" or "the end\r\n",
        [answers[2] or 1] = "\r\n.\r\n" } })
    for count = 0, total do
      local session <close> = assert(connect(peer.port))
      attempt(session, count, total)
    end
    local record = peer:finish()
    assert.is_true(record.ok, record.error)
  end

  local message = "Subject: x\r\n\r\nthe end\r\n"

  it("at any byte of the answers to chunks, what is not known is called unknown", function()
    local answers = { "250 OK\r\n250 OK\r\n250 q\r\n" }
    each_byte({ "PIPELINING", "CHUNKING" }, answers, function(session, count, total)
      local result, err = session:send(envelope(a, message))
      if count >= total then -- the line end is there, or its last byte was not needed
        assert.same({ a }, assert(result, err).accepted)
      else
        assert.is_nil(result)
        assert_fields({ kind = "closed", delivery = "unknown" }, err)
      end
    end)
  end)

  it("at any byte of the answers to text, what is not known is called unknown", function()
    local answers = { "250 OK\r\n250 OK\r\n354 go\r\n", "250 q\r\n" }
    each_byte({ "PIPELINING" }, answers, function(session, count, total)
      local result, err = session:send(envelope(a, message))
      if count >= total then
        assert.same({ a }, assert(result, err).accepted)
      else
        assert.is_nil(result)
        assert.equals("closed", err.kind)
        assert.equals(count >= #answers[1] and "unknown" or nil, err.delivery)
      end
    end)
  end)

  it("behind any command, nothing is reported as sent", function()
    local steps = { "^MAIL", "^RCPT", "^BDAT" }
    for at = 1, #steps do
      for _, goodbye in ipairs { false, "421 4.3.2 shutting down\r\n" } do
        local peer <close> = Peer.start(function(p, args)
          p:smtp_upgrade { secure = false, auth = false, after = { "CHUNKING" } }
          for i = 1, args.at do
            p:expect(args.steps[i])
            if i < args.at then p:send "250 OK\r\n" end
          end
          if args.at == #args.steps then p:read(#"Subject: x\r\n\r\nthe end\r\n") end
          if args.goodbye then p:send(args.goodbye) end
        end, { at = at, steps = steps, goodbye = goodbye })
        local session <close> = assert(connect(peer.port))
        local result, err = session:send(envelope(a, message))
        assert.is_nil(result)
        assert_fields({ kind = "closed", temporary = true, code = goodbye and 421 or nil }, err)
        assert.equals(at == #steps and not goodbye and "unknown" or nil, err.delivery)
        assert.equals("closed", select(2, session:noop()).kind)
      end
    end
  end)

  it("nothing is unknown of what was refused before", function()
    for answer, phase in pairs { ["550 no\r\n"] = "mail", ["250 OK\r\n550 no\r\n"] = "rcpt",
      ["250 OK\r\n250 OK\r\n550 no\r\n"] = "delivery" } do
      local peer <close> = Peer.start(function(p, args)
        p:smtp_upgrade { secure = false, auth = false, after = { "CHUNKING", "PIPELINING" } }
        p:expect "^MAIL" p:expect "^RCPT"
        p:smtp_chunk()
        p:send(args.answer)
      end, { answer = answer })
      local session <close> = assert(connect(peer.port))
      local result, err = session:send(envelope(a, message))
      assert.is_nil(result)
      assert_fields({ kind = "rejected", during = phase, code = 550 }, err)
      assert.is_nil(err.delivery)
      result, err = session:noop()
      assert.is_nil(result)
      assert.equals("closed", err.kind)
      assert.is_nil(err.delivery)
    end
  end)

  it("is unknown, too, what the server answers with nonsense, late, or never", function()
    for answer, kind in pairs { ["what?\r\n"] = "protocol", ["354 go on\r\n"] = "protocol",
      [""] = "timeout" } do
      local peer <close> = Peer.start(function(p, args)
        p:smtp_upgrade { secure = false, auth = false, after = { "CHUNKING", "PIPELINING" } }
        p:expect "^MAIL" p:expect "^RCPT"
        p:smtp_chunk()
        p:send("250 OK\r\n250 OK\r\n", args.answer)
        p:wait_for_close()
      end, { answer = answer })
      local session <close> = assert(connect(peer.port, { timeout = 0.3 }))
      local result, err = session:send(envelope(a, message))
      assert.is_nil(result)
      assert_fields({ kind = kind, delivery = "unknown" }, err)
    end
  end)
end)
