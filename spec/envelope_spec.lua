-- Whom a message is from and for by its own header, and what of the header is sent: addresses of
-- every form, the examples of RFC 5322 among them, and text that is none.

local clients = require "spec.support.clients"
local peer_steps = require "spec.support.peer_steps"
local process = require "spec.support.process"
local servers = require "spec.support.servers"

local addresses = require "starttls.addresses"
local envelope = require "starttls.envelope"
local smtp = require "starttls.smtp"

-- Instructions of the Lua machine, in thousands: a measure that no other work changes.
local function work_of(f, ...)
  local thousands = 0
  debug.sethook(function() thousands = thousands + 1 end, "", 1000)
  f(...)
  debug.sethook()
  return thousands
end

-- Address lists -------------------------------------------------------------------------------

local deep = 5000

-- { text, addresses ... }
local lists = {
  { "" }, { " \t" }, { "," }, { " , ,\t,," }, { "(nobody)" }, { ";" },
  { "a@b", "a@b" }, { " a@b ", "a@b" }, { "<a@b>", "a@b" }, { "a@b,c@d", "a@b", "c@d" },
  { ",a@b,,c@d,", "a@b", "c@d" }, { "a@b; c@d;", "a@b", "c@d" },
  -- RFC 5322 A.1
  { "John Doe <jdoe@machine.example>", "jdoe@machine.example" },
  { '"Joe Q. Public" <john.q.public@example.com>', "john.q.public@example.com" },
  { "Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>", "mary@x.test",
    "jdoe@example.org", "one@y.test" },
  { '<boss@nil.test>, "Giant; \\"Big\\" Box" <sysservices@example.net>', "boss@nil.test",
    "sysservices@example.net" },
  { "A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;", "c@a.test",
    "joe@where.test", "jdoe@one.test" },
  { "Undisclosed recipients:;" },
  -- RFC 5322 A.5
  { "Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", "pete@silly.test" },
  { "A Group(Some people)     :Chris Jones <c@(Chris's host.)public.example>,         "
    .. "joe@example.org,  John <jdoe@one.test> (my dear friend); (the end of the group)",
    "c@public.example", "joe@example.org", "jdoe@one.test" },
  { "(Empty list)(start)Hidden recipients  :(nobody(that I know))  ;" },
  -- RFC 5322 A.6
  { "Joe Q. Public <john.q.public@example.com>", "john.q.public@example.com" },
  { "Mary Smith <@node.test:mary@example.net>, , jdoe@test  . example", "mary@example.net",
    "jdoe@test.example" },
  { "<@a.test,@[127.0.0.1],,@b.test:c@d.test>", "c@d.test" },
  { "John .(none) Doe <a . (x) b @ c . d>", "a.b@c.d" },
  -- groups
  { "g:;" }, { "g:,;" }, { "g: a@b", "a@b" }, { "g:a@b;,h:c@d;e@f", "a@b", "c@d", "e@f" },
  { '"a, b": c@d, "e" <f@g>;', "c@d", "f@g" }, { "g h:<a@b>,;c@d", "a@b", "c@d" },
  -- display names
  { '"a@b" <c@d>', "c@d" }, { "a@b <c@d>", "c@d" }, { '"<a@b>,"<c@d>', "c@d" },
  { '"" <a@b>', "a@b" }, { '"x\\"y" z <a@b>', "a@b" }, { "J\u{fc}rgen <a@b>", "a@b" },
  { "J\xfcrgen <a@b>", "a@b" }, { "(J\xfcrgen) a@b", "a@b" },
  { "=?UTF-8?Q?J=C3=BCrgen?= =?utf-8?b?w7w=?= <a@b>", "a@b" },
  { "=?UTF-8?Q?Doe,_John_<x@y>?= <a@b>", "a@b" }, { "=?x?= <a@b>", "a@b" },
  -- comments
  { "(a(b(c)d)e)a@b(f)", "a@b" }, { "(\\() a@b (\\))", "a@b" }, { "(<x@y>, \") a@b", "a@b" },
  { ("("):rep(deep) .. (")"):rep(deep) .. "a@b", "a@b" },
  -- local parts
  { "o'neil+tag=x@b", "o'neil+tag=x@b" }, { "!#$%&*-/?^_`{|}~@b", "!#$%&*-/?^_`{|}~@b" },
  { '"a"@b', "a@b" }, { '"a b"@c', '"a b"@c' }, { '"a\\b"@c', "ab@c" }, { '""@b' , err = "lacks" },
  { '"a@b"@c', '"a@b"@c' }, { '"a\\"\\\\b"@c', '"a\\"\\\\b"@c' }, { '"<>"@b', '"<>"@b' },
  { '"a".b."c d"@e', '"a.b.c d"@e' }, { "a..b@c", '"a..b"@c' }, { "a.@c", '"a."@c' },
  { ".a@c", '".a"@c' }, { "\u{fc}@b", "\u{fc}@b" }, { '"\u{fc} x"@b', '"\u{fc} x"@b' },
  { "=?utf-8?q?a?=@b", "=?utf-8?q?a?=@b" }, { ("l"):rep(64) .. "@b", ("l"):rep(64) .. "@b" },
  -- domains
  { "a@[127.0.0.1]", "a@[127.0.0.1]" }, { "a@[ IPv6:::1 ]", "a@[IPv6:::1]" },
  { "a@B\u{fc}cher.TEST", "a@B\u{fc}cher.TEST" }, { "a@x_y.1-2", "a@x_y.1-2" },
  -- none
  { "a", err = "domain" }, { "Alice Smith", err = "domain" }, { "<a>", err = "domain" },
  { "a@", err = "domain" }, { "@b", err = "local part" }, { "<@b>", err = "route" },
  { "<>", err = "domain" }, { "a@b c@d", err = "comma" }, { "a b@c", err = "blank" },
  { '"a" "b"@c', err = "blank" }, { "<a@b", err = "bracket" }, { "a@b>", err = "comma" },
  { "<a@b> c", err = "comma" }, { "<<a@b>>", err = "domain" }, { "<a@b>, c", err = "domain" },
  { "Smith, John <a@b>", err = "domain" }, { "a@b@c", err = "comma" }, { "a@b.", err = "domain" },
  { "a@b..c", err = "domain" }, { "a@.b", err = "domain" }, { "a@b!c", err = "domain" },
  { 'a@"b"', err = "domain" }, { "a@[b", err = "literal" }, { "a@[b\\]]", err = "literal" },
  { "a@[<b>]", err = "literal" }, { "a@[]", err = "literal" }, { "a@b[c]", err = "comma" },
  { "(a@b", err = "comment" }, { "a@b)", err = "quotes" }, { '"a@b', err = "quoted string" },
  { '"a@b\\"', err = "quoted string" }, { "(a\\", err = "comment" }, { "a\\b@c", err = "quotes" },
  { "a\0@b", err = "quotes" }, { '"a\0"@b', err = "control" }, { '"a\\\rb"@c', err = "control" },
  { "a\127@b", err = "quotes" }, { "g:h:a@b;;", err = "group" }, { ":a@b;", err = "domain" },
  { "a@b:c@d;", err = "comma" }, { "<@a@b>", err = "route" }, { "<@a:b>", err = "domain" },
  { "\xff@b", err = "UTF-8" }, { "a@\xc3", err = "UTF-8" }, { '"\xff"@b', err = "UTF-8" },
  { "=?x?q?,?=@b", err = "quotes" }, { ("l"):rep(65) .. "@b", err = "64 octets" },
  { "a@" .. ("d"):rep(253), err = "254 octets" }, { ("("):rep(deep), err = "comment" },
}

describe("an address list", function()
  for _, case in ipairs(lists) do
    local text = case[1]
    local shown = #text > 80 and text:sub(1, 80) .. "..." or text
    it(("is read, or refused: %q"):format(shown), function()
      local list, why = addresses.parse(text)
      if not case.err then return assert.same({ table.unpack(case, 2) }, list, why) end
      assert.is_nil(list)
      assert.matches(case.err, why, 1, true)
    end)
  end

  local strewn = [[<>@,;:."()[]\ =?ab]] .. "\t\r\n\0\xc3\xbc\xff"

  -- Text that is nearly a list: two of the table's, with a few octets put in, replaced or removed.
  local function random_text(random)
    local text = lists[random(#lists)][1]:sub(1, 100) .. "," .. lists[random(#lists)][1]:sub(1, 100)
    for _ = 1, random(0, 3) do
      local at, c = random(#text), random(#strewn)
      local put = random(3) == 1 and "" or strewn:sub(c, c)
      text = text:sub(1, at - 1) .. put .. text:sub(at + random(0, 1))
    end
    return text
  end

  it("never yields what is no address, however it is mutilated", function()
    math.randomseed(5322)
    local yielded = 0
    for _ = 1, 10000 do
      local text = random_text(math.random)
      local list, why = addresses.parse(text)
      if list then
        for _, address in ipairs(list) do
          yielded = yielded + 1
          -- It says the same when it is read again, and has nothing that ends a path.
          assert.same({ address }, addresses.parse(address), text)
          assert.same({ address }, addresses.parse("<" .. address .. ">"), text)
          assert.is_nil(address:find "[%c]", text)
          local rest = address:gsub('^"[^"\\]*"@', "x@"):gsub('^"[^@]*"@', "x@")
          assert.is_truthy(rest:find '^[^@%s<>()"\\]+@[^@%s<>()"\\]+$'
            or address:find '^".*"@[^@%s<>()"\\]+$', address)
        end
      else
        assert.is_string(why, text)
      end
    end
    assert.is_true(yielded > 1000)
  end)

  for _, unit in ipairs { "a@b,", "(", "()", '"', '"\\"', "\\", "<", "<@a:", "a", "a.", ".", "@",
      ":", ";", "g:", "[", "[]", "=?", "=?x?q?", "=?x?q?,?=", ",", " ", "a@b <", "\xff",
      "(\\" } do
    it(("takes time in proportion to its length: %q"):format(unit), function()
      local small = work_of(addresses.parse, unit:rep(10000))
      local large = work_of(addresses.parse, unit:rep(100000))
      assert.is_true(large <= 11 * small + 20, ("%d, %d"):format(small, large))
    end)
  end
end)

-- Headers -------------------------------------------------------------------------------------

local function complete(message, fields)
  local letter = { message = message }
  for name, value in pairs(fields or {}) do letter[name] = value end
  local ok, err = envelope.complete(letter)
  return ok and letter, err
end

local function pieces_of(text, size)
  local at = 1
  return function()
    if at > #text then return nil end
    local piece = text:sub(at, at + size - 1)
    at = at + size
    return piece
  end
end

local from, to = "From: a@b\n", "To: c@d\n"
local header_limit = 1024 * 1024

-- { what, header, sender, recipients ... }
local headers = {
  { "the plain case", from .. to, "a@b", "c@d" },
  { "CRLF", "From: a@b\r\nTo: c@d\r\n", "a@b", "c@d" },
  { "bare CR, which ends a line on the wire", "From: a@b\rTo: c@d\r\r", "a@b", "c@d" },
  { "names in any case, blanks before the colon", "FROM : a@b\ntO\t:c@d\n", "a@b", "c@d" },
  { "To, Cc and Bcc in this order", "Bcc: g@h\nCc: e@f\n" .. from .. to, "a@b", "c@d", "e@f",
    "g@h" },
  { "several fields of a name", from .. to .. "Cc: e@f\nTo: g@h\n", "a@b", "c@d", "g@h", "e@f" },
  { "folded lines", "From:\n a\n @\n\tb\nTo: c@d,\r\n e@f,\r g@h\n", "a@b", "c@d", "e@f", "g@h" },
  { "folding inside quotes", 'From: a@b\nTo: "x\n y"@d\n', "a@b", '"x y"@d' },
  { "a folded line of blanks alone", from .. "To: c@d,\n \n e@f\n", "a@b", "c@d", "e@f" },
  { "Sender before From", from .. "Sender: s@t\n" .. to, "s@t", "c@d" },
  { "many authors and a Sender", "From: a@b, x@y\nSender: s@t\n" .. to, "s@t", "c@d" },
  { "a group for From (RFC 6854)", "From: Staff: a@b;\n" .. to, "a@b", "c@d" },
  { "mailboxes that come again", from .. "To: c@d, C <c@D>\nCc: c@d, C@d\n", "a@b", "c@d", "C@d" },
  { "Bcc alone", from .. "Bcc: c@d\n", "a@b", "c@d" },
  { "groups, some empty", from .. "To: none:;\nCc: g: c@d, e@f;\n", "a@b", "c@d", "e@f" },
  { "fields whose names are longer or shorter", from .. to .. "Tos: x\nT: y\nX-To: z@z\n", "a@b",
    "c@d" },
  { "a long field", "X: " .. ("x"):rep(5000) .. "\n" .. from .. to, "a@b", "c@d" },
  -- RFC 5322 A.3, and A.6.3
  { "a resent message", "Resent-From: Mary Smith <mary@example.net>\n"
    .. "Resent-To: Jane Brown <j-brown@other.example>\n"
    .. "Resent-Date: Mon, 24 Nov 1997 14:22:01 -0800\nResent-Message-ID: <78910@example.net>\n"
    .. "From: John Doe <jdoe@machine.example>\nTo: Mary Smith <mary@example.net>\n",
    "mary@example.net", "j-brown@other.example" },
  { "blanks where none are any more", "From  : John Doe <jdoe@machine(comment).  example>\n"
    .. "To    : Mary Smith\n  \n          <mary@example.net>\n", "jdoe@machine.example",
    "mary@example.net" },
  { "the last resending only", "Resent-From: a@b\nResent-To: c@d\nReceived: x\n"
    .. "Resent-To: e@f\nResent-Cc: g@h\nResent-From: i@j\n", "a@b", "c@d" },
  { "resendings one on the other", "Resent-From: a@b\nResent-To: c@d\nResent-From: i@j\n"
    .. "Resent-To: e@f\nResent-Bcc: g@h\n", "a@b", "c@d" },
  { "Resent-Sender, -Cc, -Bcc", "Received: x\nResent-Cc: c@d\nResent-Bcc: e@f\nResent-From: x@y\n"
    .. "Resent-Sender: a@b\n" .. "From: z@z\nTo: z@z\n", "a@b", "c@d", "e@f" },
  -- what does not tell
  { "no sender", to, err = "who sends it" }, { "no recipient", from, err = "no recipient" },
  { "nothing but a body", "", err = "who sends it" },
  { "two authors and no Sender", "From: a@b, c@d\n" .. to, err = "2 addresses in from" },
  { "two From fields", from .. from .. to, err = "2 addresses in from" },
  { "an empty Sender", from .. "Sender:\n" .. to, err = "0 addresses in sender" },
  { "empty groups only", from .. "To: nobody:;\nCc: x:;\n", err = "no recipient" },
  { "no address", from .. "To: Bob\n",
    err = "field to can't be read: an address lacks its domain" },
  { "one address of many", from .. "To: c@d, e@f g@h\n", err = "field to can't be read" },
  { "a resending for nobody", "Resent-From: a@b\nX: y\nResent-To: c@d\n" .. from .. to,
    err = "no recipient" },
  { "a line that is no field", from .. "this is no field\n" .. to, err = "no header field" },
  { "an mbox line", "From a@b Mon Nov 24 14:22:01 1997\n" .. from .. to, err = "no header field" },
  { "a line folded from nothing", " x\n" .. from .. to, err = "no header field" },
  { "a name with a NUL", "X\0: y\n" .. from .. to, err = "no header field" },
  { "a body without its blank line", from .. to .. "Hello\n", err = "blank line" },
}

describe("a message's header", function()
  for _, case in ipairs(headers) do
    local what, header = case[1], case[2]
    for _, ending in ipairs { "", "\nTo: nobody@example.test\n" } do
      local message = header .. ending
      it(("is read with %s (%s body)"):format(what, ending == "" and "no" or "a"), function()
        local letter, err = complete(message)
        if case.err then
          assert.is_nil(letter or nil)
          assert.same({ "rejected", "envelope", false }, { err.kind, err.during, err.temporary })
          return assert.matches(case.err, err.message, 1, true)
        end
        assert(letter, err)
        assert.equal(case[3], letter.from)
        assert.same({ table.unpack(case, 4) }, letter.to)
      end)
    end
  end

  it("is asked only for what the caller left out", function()
    local letter = assert(complete(to, { from = "x@y" }))
    assert.same({ "x@y", { "c@d" } }, { letter.from, letter.to })
    letter = assert(complete(from, { to = { "x@y" } }))
    assert.same({ "a@b", { "x@y" } }, { letter.from, letter.to })
    letter = assert(complete("From: a@b\nTo: Bob\n", { from = "", to = { "x@y" } }))
    assert.same({ "", { "x@y" } }, { letter.from, letter.to })
  end)

  it("is read within 1 MiB", function()
    local long = "X: " .. ("x"):rep(header_limit - 4 - #from - #to) .. "\n" .. from .. to
    assert.equal(header_limit, #long)
    for _, ending in ipairs { "", "\n", "\nbody" } do assert(complete(long .. ending)) end
    local _, err = complete("X" .. long)
    assert.same({ "limit", "envelope" }, { err.kind, err.during })
  end)

  for what, size in pairs { ["single octets"] = 1, ["pieces of 100 octets"] = 100 } do
    it("takes time in proportion to its length, in " .. what, function()
      local function read(length)
        local header = from .. to .. ("X: y\n"):rep(length // 5) .. "\n"
        return work_of(complete, pieces_of(header, size))
      end
      local small, large = read(20000), read(200000)
      assert.is_true(large <= 11 * small + 20, ("%d, %d"):format(small, large))
    end)
  end

  it("takes memory in proportion to its length, in single octets", function()
    local header = from .. to .. ("X: y\n"):rep(4000) .. "\n"
    collectgarbage()
    collectgarbage "stop"
    local before = collectgarbage "count"
    assert(complete(pieces_of(header, 1)))
    local taken = collectgarbage "count" - before
    collectgarbage "restart"
    assert.is_true(taken < 10000, taken)
  end)

  it("is not looked for without end", function()
    for _, endless in ipairs { "x: y\n", "x:", " ", "\r\nx", "x" } do
      local taken = 0
      local letter, err = complete(function()
        taken = taken + 1
        return taken == 1 and from or endless:rep(1000)
      end)
      assert.is_nil(letter or nil)
      assert.is_truthy(err.kind == "limit" or err.kind == "rejected", err.kind)
      assert.is_true(taken * 1000 * #endless < 4 * header_limit)
    end
  end)

  it("is not read where the source fails, or gives something else than text", function()
    local _, err = complete(function() return nil, "disk on fire" end)
    assert.same({ "cancelled", "envelope" }, { err.kind, err.during })
    assert.matches("disk on fire", err.message)
    assert.has_error(function() complete(function() return 5 end) end,
      "send: the message's source gave a number")
  end)
end)

-- Blind copies --------------------------------------------------------------------------------

-- { what, message, what is left of it }; `*` stands for each kind of line end.
local blind = {
  { "one", "Bcc: x@y*From: a@b*To: c@d**text*", "From: a@b*To: c@d**text*" },
  { "the last", "From: a@b*To: c@d*Bcc: x@y**text*", "From: a@b*To: c@d**text*" },
  { "a folded one", "From: a@b*Bcc: x@y,* z@z,*\tu@v*To: c@d**", "From: a@b*To: c@d**" },
  { "several, in any case", "bcc: x@y*From: a@b*BCC : x@y*To: c@d*BcC\t:*Resent-Bcc: q@r**",
    "From: a@b*To: c@d**", given = true },
  { "a header that ends with it", "From: a@b*To: c@d*Bcc: x@y*", "From: a@b*To: c@d*" },
  { "a header that ends in the middle of it", "From: a@b*To: c@d*Bcc: x@y", "From: a@b*To: c@d*" },
  { "an unreadable one", "From: a@b*To: c@d*Bcc: x y z**", "From: a@b*To: c@d**", given = true },
  { "only names that resemble it", "From: a@b*To: c@d*X-Bcc: x@y*Bccc: x@y**",
    "From: a@b*To: c@d*X-Bcc: x@y*Bccc: x@y**" },
  { "only text that resembles it", "From: a@b*To: c@d*X: y* Bcc: x@y**Bcc: x@y*",
    "From: a@b*To: c@d*X: y* Bcc: x@y**Bcc: x@y*" },
  { "none, and no header", "Hello Bob*Bcc: x@y**", "Hello Bob*Bcc: x@y**", given = true },
}

local function drain(source)
  local parts = {}
  for piece in source do parts[#parts + 1] = piece end
  return table.concat(parts)
end

local function file_of(text, skipped)
  local file = assert(io.tmpfile())
  file:write(skipped or "", text)
  file:seek("set", #(skipped or ""))
  return file
end

local function pipe_of(text)
  local path = os.tmpname()
  process.write_file(path, text)
  return assert(io.popen(("cat %s; rm %s"):format(path, path)))
end

-- The ways to give a message: how to make it, and whether its size is known.
local ways = {
  { "a string", function(text) return text end, true },
  { "a file", file_of, true },
  { "a file, from its middle", function(text) return file_of(text, "Bcc: no\n") end, true },
  { "a pipe", pipe_of },
  { "a function", function(text) return pieces_of(text, 5000) end },
  { "a function, octet by octet", function(text) return pieces_of(text, 1) end },
}

local function content_of(message)
  if type(message) == "string" then return message end
  if type(message) == "function" then return drain(message) end
  return message:read "a"
end

describe("blind copies", function()
  for _, case in ipairs(blind) do
    for _, line_end in ipairs { "\n", "\r\n", "\r" } do
      it(("don't stay with %s, where %q ends a line"):format(case[1], line_end), function()
        local text, left = case[2]:gsub("%*", line_end), case[3]:gsub("%*", line_end)
        for _, way in ipairs(ways) do
          local envelopes = { { from = "a@b", to = { "c@d" } }, not case.given and {} or nil }
          for _, given in ipairs(envelopes) do
            local what, make, is_sized = table.unpack(way)
            given.size = is_sized and #text or nil
            local letter = assert(complete(make(text), given))
            assert.equal(is_sized and #left or nil, letter.size, what)
            assert.equal(left, content_of(letter.message), what)
          end
        end
      end)
    end
  end

  it("don't stay in anything that may be a header, whole or in pieces", function()
    math.randomseed(822)
    local lines = { "Bcc: x@y", "bcc:", "Resent-Bcc : x@y", "To: c@d", " folded", "\t", "", "Hello",
      "Bcc", "X-Bcc: x@y", ": x", "Bcc x: y" }
    local ends = { "\n", "\r\n", "\r", "" }
    for _ = 1, 3000 do
      -- The first 1,024 octets are read at once: so a piece may end anywhere behind them.
      local parts = {}
      if math.random(2) == 1 then parts = { "X: " .. ("x"):rep(math.random(980, 1018)), "\n" } end
      for at = #parts + 1, math.random(14), 2 do
        parts[at] = lines[math.random(#lines)]
        parts[at + 1] = ends[math.random(#ends)]
      end
      local text = table.concat(parts)
      local function left_of(message)
        return content_of(assert(complete(message, { from = "a@b", to = { "c@d" } })).message)
      end
      local left = left_of(text)
      assert.equal(left, left_of(pieces_of(text, math.random(1, 3))), text)
      local file <close> = file_of(text)
      assert.equal(left, left_of(file), text)
      -- What the wire makes of line ends, up to the first blank line or what is no field.
      local header = left:gsub("\r\n?", "\n"):gsub("^[ \t\n].*", ""):gsub("\n\n.*", "\n")
      for line in header:gmatch "[^\n]+" do
        if not line:find "^[!-9;-~]+[ \t]*:" and not line:find "^[ \t]" then break end
        assert.is_nil(line:lower():find "^bcc%s*:", text)
        assert.is_nil(line:lower():find "^resent%-bcc%s*:", text)
      end
    end
  end)

  it("stay where they are wanted, and count as recipients all the same", function()
    local text = "Bcc: x@y\nFrom: a@b\nTo: c@d\n\ntext\n"
    for _, way in ipairs(ways) do
      local letter = assert(complete(way[2](text), { keep_bcc = true, size = #text }))
      assert.same({ "c@d", "x@y" }, letter.to)
      assert.equal(text, content_of(letter.message))
      assert.equal(#text, letter.size)
      letter = assert(complete(way[2](text), { keep_bcc = true, from = "a@b", to = { "c@d" } }))
      assert.equal(text, content_of(letter.message))
    end
  end)

  it("are looked for where nothing was taken of a file or a function yet", function()
    local file <close> = file_of("Bcc: x@y\n" .. from .. to)
    assert(complete(file))
    assert.equal(0, file:seek())
    local called = false
    assert(complete(function() called = true end, { from = "a@b", to = { "c@d" } }))
    assert.is_false(called)
  end)
end)

-- On the wire ---------------------------------------------------------------------------------

describe("send", function()
  -- Runs `use(session)` against a server that takes one message. Returns what was said to it.
  local function converse(extensions, steps, use)
    local peer <close> = peer_steps.start({
      { "smtp_upgrade", { secure = false, auth = false, after = extensions } },
      table.unpack(steps) }, {})
    local session <close> = assert(smtp.connect { host = "127.0.0.1", port = peer.port,
      tls = "none" })
    use(session)
    session:close()
    local record = peer:finish()
    assert.is_true(record.ok, record.error)
    return record.clear:match "^EHLO [^\r]+\r\n(.*)$"
  end

  local text = 'From: A <a@b>\nTo: "c d"@e (C), (x) f@g\nBcc: h@i\nSubject: s\n\nBcc: body\n'

  for _, way in ipairs(ways) do
    it(("takes the envelope out of %s"):format(way[1]), function()
      local said = converse({ "SIZE 100" }, { { "smtp_receive" } }, function(session)
        local result = assert(session:send { message = way[2](text) })
        assert.same({ '"c d"@e', "f@g", "h@i" }, result.accepted)
      end)
      local size = way[3] and (" SIZE=%d"):format(#text - #"Bcc: h@i\n") or ""
      assert.equal("MAIL FROM:<a@b>" .. size .. '\r\nRCPT TO:<"c d"@e>\r\nRCPT TO:<f@g>\r\n'
        .. "RCPT TO:<h@i>\r\nDATA\r\n"
        .. text:gsub("Bcc: h@i\n", ""):gsub("\n", "\r\n") .. ".\r\n", said)
    end)
  end

  it("asks for notifications of recipients that the header names", function()
    local said = converse({ "DSN" }, { { "smtp_receive" } }, function(session)
      assert(session:send { message = from .. to .. "\n", notify = "never" })
    end)
    assert.matches("\r\nRCPT TO:<c@d> NOTIFY=NEVER\r\n", said, 1, true)
  end)

  it("sends nothing of a header that tells nobody, and goes on", function()
    local said = converse({ "PIPELINING" }, { { "expect", "^NOOP" }, { "send", "250 OK\r\n" } },
      function(session)
        for _, message in ipairs { "Hello\n", "", from, to, from .. "To: c@d\0\n\n",
            from .. "To: \xff@d\n\n", from .. "To: \u{fc}@d\n\n" } do
          local result, err = session:send { message = message }
          assert.is_nil(result)
          assert.is_truthy(err.kind == "rejected" or err.kind == "unsupported", err)
        end
        assert(session:noop())
      end)
    assert.equal("NOOP\r\n", said)
  end)

  -- What a header says in odd ways can't add a command, nor a parameter.
  it("sends no line of its header's making", function()
    math.randomseed(5321)
    local odd = { "\r", "\n", "\0", ">", "<", " ", '"', "\\", "SIZE=1", "@", ",", "x@y", "RSET",
      "(" }
    local said = converse({ "PIPELINING" }, { { "expect", "^NOOP" }, { "send", "250 OK\r\n" } },
      function(session)
        for _ = 1, 2000 do
          local parts = { "To: " }
          for _ = 1, math.random(8) do parts[#parts + 1] = odd[math.random(#odd)] end
          local letter = complete(from .. table.concat(parts) .. "\n\n")
          for _, address in ipairs(letter and letter.to or {}) do
            -- The second recipient is refused, before a byte is sent; the first one was not.
            assert.has_error(function()
              session:send { from = "a@b", to = { address, "" }, message = "\n" }
            end, "send: recipient is an empty address")
          end
        end
        assert(session:noop())
      end)
    assert.equal("NOOP\r\n", said)
  end)

  it("delivers to those whom a blind copy names, who don't see it (Exim)", function()
    local mail = servers.shared()
    mail:empty "alice"
    mail:empty "bob"
    local session <close> = clients.connect(mail, "smtp")
    local result = assert(session:send { message = "From: Alice <alice@example.test>\r\n"
      .. "To: undisclosed-recipients:;\r\nBcc: Bob <bob@example.test>,\r\n alice@example.test\r\n"
      .. "Subject: secret\r\n\r\nBcc: nobody\r\n" })
    assert.same({ "bob@example.test", "alice@example.test" }, result.accepted)
    for _, user in ipairs { "alice", "bob" } do
      local found = process.read_file(mail:wait_for_mail(user, 1)[1].path)
      assert.matches("\nTo: undisclosed%-recipients:;\nSubject: secret\n\nBcc: nobody\n$", found)
      assert.is_nil(found:find "bob@example.test>")
    end
  end)
end)
