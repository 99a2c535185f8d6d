-- Adding messages: what becomes of a message that is refused, or whose source or connection is
-- lost, anywhere on its way.

local Peer = require "spec.support.peer"

local imap = require "starttls.imap"

-- The fields of an error, or of anything, that the case names.
local function assert_fields(expected, actual)
  for name, value in pairs(expected) do
    assert.same(value, actual[name], ("%s of %s"):format(name, tostring(actual)))
  end
end

-- A source that gives these pieces, and then, if there is one, an error.
local function source_of(pieces, err)
  local index = 0
  return function()
    index = index + 1
    if pieces[index] then return pieces[index] end
    return nil, err
  end
end

local function method(...)
  local arguments = table.pack(...)
  return function() return table.unpack(arguments, 1, arguments.n) end
end

local part = { mailbox = "y", uid = 1 }

local function connect(peer)
  return assert(imap.connect { host = "127.0.0.1", port = peer.port, tls = "none" })
end

-- Each way to add, with the number of literals that it sends.
local forms = {
  append = { 1, {}, method("append", "x", "message") },
  ["append in binary"] = { 1, { "BINARY" }, method("append", "x", "mess\0ge") },
  ["append in UTF8 ( )"] = { 1, { "UTF8=ACCEPT" }, method("append", "x", "message",
    { utf8 = true }) },
  ["append from parts"] = { 2, { "CATENATE" },
    method("append", "x", { part, "text one", part, "text two" }) },
  append_all = { 2, { "MULTIAPPEND" }, method("append_all", "x", { { message = "one" },
    { message = "two" } }) },
  replace = { 1, { "REPLACE" }, method("replace", 1, "x", "message") },
}

-- The peer's part: takes so many literals, and then refuses or closes.
local function take_literals(p, args)
  p:imap_upgrade { secure = false, auth = false, after = args.capabilities }
  local tag, line = p:imap_expect ""
  for _ = 1, args.literals do
    local size, plus = line:match "{(%d+)(%+?)}\r\n$"
    if plus == "" then p:send "+ go on\r\n" end
    p:read(math.tointeger(tonumber(size)))
    line = p:line()
  end
  if args.closes then return end
  p:send(tag, " NO [LIMIT] enough\r\n")
  p:send(p:imap_expect "^NOOP", " OK done\r\n")
end

local function interrupt(form, args)
  args.capabilities = table.move(form[2], 1, #form[2], 2, { args.offers })
  local peer <close> = Peer.start(take_literals, args)
  local session <close> = connect(peer)
  session.enabled["UTF8=ACCEPT"] = session:has "UTF8=ACCEPT" or nil
  local function call(name, ...) return session[name](session, ...) end
  local result, err = call(form[3]())
  assert.is_nil(result)
  if not args.closes then assert(session:noop()) end
  session:close()
  local record = peer:finish()
  assert.is_true(record.ok, record.error)
  return err
end

describe("an IMAP session that appends", function()
  for name, form in pairs(forms) do
    local last = form[1]

    it(name .. ": hears a refusal before each literal, and goes on", function()
      for literals = 0, last do
        local err = interrupt(form, { offers = "IMAP4rev1", literals = literals })
        assert_fields({ kind = "rejected", status = "LIMIT", text = "enough" }, err)
      end
    end)

    it(name .. ": knows of a lost connection whether the message can have been added", function()
      for literals = 0, last - 1 do
        local err = interrupt(form, { offers = "IMAP4rev1", literals = literals, closes = true })
        assert.equals("closed", err.kind)
        assert.is_nil(err.delivery)
      end
      for _, offers in ipairs { "IMAP4rev1", "LITERAL+", "LITERAL-" } do
        local err = interrupt(form, { offers = offers, literals = last, closes = true })
        assert_fields({ kind = "closed", delivery = "unknown" }, err)
      end
    end)
  end

  it("does not know what became of parts alone when the connection is lost", function()
    local form = { 0, { "CATENATE" }, method("append", "x", { part }) }
    assert_fields({ kind = "closed", delivery = "unknown" },
      interrupt(form, { offers = "IMAP4rev1", literals = 0, closes = true }))
  end)

  it("stops in the middle of the second of several that are refused", function()
    local peer <close> = Peer.start(function(p)
      p:imap_upgrade { secure = false, auth = false, after = { "MULTIAPPEND" } }
      local tag = p:imap_expect "^APPEND"
      p:send "+ go on\r\n"
      p:read(1)
      p:expect " {%d+}\r\n$"
      p:send "+ go on\r\n"
      p:keep(false)
      p:read(100000)
      p:send(tag, " NO [LIMIT] too big\r\n")
      p:wait_for_close()
    end)
    local session <close> = connect(peer)
    local result, err = session:append_all("x", { { message = "a" },
      { message = ("x"):rep(32 << 20) } })
    assert.is_nil(result)
    assert_fields({ kind = "rejected", during = "append_all", status = "LIMIT" }, err)
    assert.is_nil(err.delivery)
    assert.equals(err.message, select(2, session:noop()).message)
  end)

  describe("closes the session, as what was begun can't be taken back:", function()
    local cases = {
      { "a source that fails midway", function() return source_of({ "abc" }, "disk on fire") end,
        { kind = "cancelled", message = "the message's source failed: disk on fire",
          hint = "the server waits for the rest of it, so the session is closed" } },
      { "a source that is too short", function() return source_of { "abc" } end,
        { kind = "unsupported", message = "the message is shorter than its announced size" } },
      { "a source that is too long", function() return source_of { "abc", "defghijk" } end,
        { kind = "unsupported", message = "the message is longer than its announced size" } },
      { "a NUL in what was not said to be binary", function() return source_of { "abc", "\0" } end,
        { kind = "unsupported" } },
    }

    local function serve(use)
      local peer <close> = Peer.start(function(p)
        p:imap_upgrade { secure = false, auth = false, after = {} }
        p:imap_expect '^APPEND "x" {8}'
        p:send "+ go on\r\n"
        p:wait_for_close()
      end)
      local session <close> = connect(peer)
      use(session)
      assert.is_nil((session:noop()))
      local record = peer:finish()
      assert.is_true(record.ok, record.error)
    end

    for _, case in ipairs(cases) do
      it(case[1], function()
        serve(function(session)
          local result, err = session:append("x", case[2](), { size = 8 })
          assert.is_nil(result)
          assert_fields(case[3], err)
          assert.is_nil(err.delivery)
        end)
        serve(function(session)
          local promise, later
          local lived, why = session:pipeline(function(p)
            promise = p:append("x", case[2](), { size = 8 })
            later = p:noop()
          end)
          assert.is_nil(lived)
          assert_fields(case[3], why)
          assert_fields(case[3], select(2, promise:get()))
          assert.is_nil((later:get()))
        end)
      end)
    end
  end)

  it("tells only the message on its way that its delivery is unknown", function()
    local peer <close> = Peer.start(function(p)
      p:imap_upgrade { secure = false, auth = false, after = {} }
      p:imap_expect "^APPEND"
      p:send "+ go on\r\n"
      p:read(3)
      p:line()
    end)
    local session <close> = connect(peer)
    local one, other
    assert.is_nil((session:pipeline(function(p)
      one, other = p:append("x", "abc"), p:append("x", "def")
    end)))
    assert_fields({ kind = "closed", delivery = "unknown" }, select(2, one:get()))
    local err = select(2, other:get())
    assert.equals("closed", err.kind)
    assert.is_nil(err.delivery)
  end)
end)
