-- Adding messages: one, several at once, from parts, in place of another; in every form that
-- IMAP has for it. Dovecot plays what it can, scripted peers all else.

local clients = require "spec.support.clients"
local errors = require "starttls.error"
local imap_talk = require "spec.support.imap_talk"
local process = require "spec.support.process"
local servers = require "spec.support.servers"

local converse = imap_talk.converse

-- The fields of an error, or of anything, that the case names.
local function assert_fields(expected, actual)
  for name, value in pairs(expected) do
    assert.same(value, actual[name], ("%s of %s"):format(name, tostring(actual)))
  end
end

local ok = "%T OK done\r\n"

-- A source that gives these pieces, and then, if there is one, an error.
local function source_of(pieces, err)
  local index = 0
  return function()
    index = index + 1
    if pieces[index] then return pieces[index] end
    return nil, err
  end
end

-- Runs the case in a session, and in a pipeline. A case has a name, the server's capabilities, the
-- exchanges, function() -> the method's name and its arguments, and the result.
local function play(case, judge)
  local more = { capabilities = case[2] }
  local function arguments(session)
    session.enabled["UTF8=ACCEPT"] = session:has "UTF8=ACCEPT" or nil
    return case[4]()
  end
  local function call(target, name, ...) return target[name](target, ...) end
  converse(case[3], function(session) judge(call(session, arguments(session))) end, more)
  converse(case[3], function(session)
    local promise
    assert(session:pipeline(function(p) promise = call(p, arguments(session)) end))
    judge(promise:get())
  end, more)
end

local function plays(cases)
  for _, case in ipairs(cases) do
    it(case[1], function()
      play(case, function(result, err) assert.same(case[5], assert(result, err)) end)
    end)
  end
end

-- Cases whose last value is the error's fields.
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

local function method(...)
  local arguments = table.pack(...)
  return function() return table.unpack(arguments, 1, arguments.n) end
end

-- {====== One message ======

local appends = {
  { "a message, with flags and a date", { "LITERAL+" },
    { { 'APPEND "x" (\\Seen $Junk) "17-Jul-1996 09:44:25 +0000" {3+}\r\na\r\n',
      "%T OK [APPENDUID 38505 3955] done\r\n" } },
    method("append", "x", "a\n", { flags = { "\\Seen", "$Junk" }, date = 837596665 }),
    { uidvalidity = 38505, uid = 3955 } },
  { "a message of a day of one digit, and of a time between seconds", {},
    { { 'APPEND "x" "07-Feb-1994 21:52:25 +0000" {1}\r\na', ok } },
    method("append", "x", "a", { date = 760657945.75 }), {} },
  { "a message without a place, where the server tells none that makes sense", {},
    { { 'APPEND "x" {1}\r\na', "%T OK [APPENDUID 1 5:6] done\r\n" } }, method("append", "x", "a"),
    {} },
  { "a message without a place, where the server's code is empty", {},
    { { 'APPEND "x" {1}\r\na', "%T OK [APPENDUID] done\r\n" } }, method("append", "x", "a"), {} },
  { "octets of any kind where the server takes them", { "BINARY", "LITERAL+" },
    { { 'APPEND "x" ~{5+}\r\na\0b\nc', ok } }, method("append", "x", "a\0b\nc"), {} },
  { "binary octets that have no NUL, line ends and all", { "BINARY" },
    { { 'APPEND "x" ~{3}\r\na\nb', ok } }, method("append", "x", "a\nb", { binary = true }), {} },
  { "octets of any kind from a source", { "BINARY" },
    { { 'APPEND "x" ~{5}\r\na\n\0\nb', ok } },
    function() return "append", "x", source_of { "a\n", "\0\nb" } end, {} },
  { "a source whose size is known, as it comes", {}, { { 'APPEND "x" {4}\r\na\nbc', ok } },
    function() return "append", "x", source_of { "a\n", "", "bc" }, { size = 4 } end, {} },
  { "a message that is empty", {}, { { 'APPEND "x" {0}\r\n', ok } }, method("append", "x", ""),
    {} },
  { "UTF-8 in the header, said to be there", { "UTF8=ACCEPT", "LITERAL-" }, -- RFC 6855 4
    { { 'APPEND "x" (\\Seen) UTF8 (~{15+}\r\nSubject: \u{fc}\r\n\r\n)', ok } },
    method("append", "x", "Subject: \u{fc}\n\n", { utf8 = true, flags = { "\\Seen" } }), {} },
  { "UTF-8 in the header, without a word", { "UTF8=ACCEPT" }, -- RFC 9755, RFC 9051
    { { 'APPEND "x" {15}\r\nSubject: \u{fc}\r\n\r\n', ok } },
    method("append", "x", "Subject: \u{fc}\n\n"), {} },
}

local refused_appends = {
  { "binary octets where there is no BINARY", { "IMAP4rev2" }, {},
    method("append", "x", "a", { binary = true }), { kind = "unsupported", during = "append",
      message = "the message is binary, and the server does not offer BINARY" } },
  { "a NUL from a source where there is no BINARY", {}, {},
    function() return "append", "x", source_of { "a", "\0" } end,
    { kind = "unsupported", during = "append" } },
  { "UTF8 where it is not enabled", {}, {}, method("append", "x", "a", { utf8 = true }),
    { kind = "unsupported",
      message = "the server does not offer UTF8=ACCEPT (see enable), which append needs" } },
  { "a source that fails, before anything is sent", {}, {},
    function() return "append", "x", source_of({ "a" }, "disk on fire") end,
    { kind = "cancelled", message = "the message's source failed: disk on fire" } },
  { "a mailbox that could be created", { "LITERAL+" },
    { { 'APPEND "x" {1+}\r\na', "%T NO [TRYCREATE] no such mailbox\r\n" } },
    method("append", "x", "a"), { kind = "rejected", status = "TRYCREATE" } },
  { "a message too big for the server", {}, -- RFC 7889 4
    { { 'APPEND "x" {1}\r\na', "%T NO [TOOBIG] Message exceeds limit\r\n" } },
    method("append", "x", "a"), { kind = "rejected", status = "TOOBIG" } },
}

-- }======

-- {====== The largest message ======

local function limit_of(value)
  return { 'STATUS "x" (APPENDLIMIT)', ('* STATUS "x" (APPENDLIMIT %s)\r\n'):format(value) .. ok }
end

local too_large = { kind = "rejected", during = "append",
  message = "the message has 11 octets, and the mailbox takes at most 10" }

local limits = {
  { "a message as large as the server takes", { "APPENDLIMIT=10" },
    { { 'APPEND "x" {10}\r\n0123456789', ok } }, method("append", "x", "0123456789"), {} },
  { "a message as large as the mailbox takes, which is asked", { "APPENDLIMIT" },
    { limit_of(10), { 'APPEND "x" {10}\r\n0123456789', ok } }, method("append", "x", "0123456789"),
    {} },
  { "a message to a mailbox that has no limit", { "APPENDLIMIT" },
    { limit_of "NIL", { 'APPEND "x" {1}\r\na', ok } }, method("append", "x", "a"), {} },
  { "a message to a mailbox of which nothing is told", { "APPENDLIMIT" },
    { { 'STATUS "x" (APPENDLIMIT)', "%T NO what mailbox?\r\n" }, { 'APPEND "x" {1}\r\na', ok } },
    method("append", "x", "a"), {} },
}

local refused_sizes = {
  { "a message too large for the server", { "APPENDLIMIT=10" }, {},
    method("append", "x", "0123456789\n"), { kind = "rejected", during = "append",
      message = "the message has 12 octets, and the mailbox takes at most 10" } },
  { "a message too large for the mailbox", { "APPENDLIMIT" }, { limit_of(10) },
    method("append", "x", "01234567890"), too_large },
  { "several of which one is too large", { "APPENDLIMIT=10", "MULTIAPPEND" }, {},
    method("append_all", "x", { { message = "a" }, { message = "01234567890" } }),
    { kind = "rejected", during = "append_all", message = too_large.message } },
  { "a replacement that is too large", { "APPENDLIMIT=10", "REPLACE" }, {},
    method("replace", 1, "x", "01234567890"),
    { kind = "rejected", during = "replace", message = too_large.message } },
}

-- }======

-- {====== Several messages ======

local two = { { message = "a\n", flags = { "\\Seen" } },
  { message = "bc", flags = { "\\Seen" }, date = " 7-Feb-1994 22:43:04 -0800" } }

local multi = 'APPEND "saved-messages" (\\Seen) {3}\r\na\r\n (\\Seen) '
  .. '" 7-Feb-1994 22:43:04 -0800" {2}\r\nbc' -- RFC 3502 3
local first = 'APPEND "x" (\\Seen) {3}\r\na\r\n'
local second = 'APPEND "x" (\\Seen) " 7-Feb-1994 22:43:04 -0800" {2}\r\nbc'

local several = {
  { "all of them with one command", { "MULTIAPPEND" },
    { { multi, "%T OK [APPENDUID 5 7:8] APPEND completed\r\n" } },
    method("append_all", "saved-messages", two),
    { { uidvalidity = 5, uid = 7 }, { uidvalidity = 5, uid = 8 } } },
  { "all of them, of which the server tells too little", { "MULTIAPPEND" },
    { { multi, "%T OK [APPENDUID 5 7] APPEND completed\r\n" } },
    method("append_all", "saved-messages", two), { {}, {} } },
  { "one", {}, { { 'APPEND "x" {1}\r\na', "%T OK [APPENDUID 5 7] done\r\n" } },
    method("append_all", "x", { { message = "a" } }), { { uidvalidity = 5, uid = 7 } } },
  { "none, for which nothing is sent", {}, {}, method("append_all", "x", {}), {} },
  { "one after the other, when that will do", {},
    { { first, "%T OK [APPENDUID 5 7] done\r\n" }, { second, ok } },
    method("append_all", "x", two, { separately = true }), { { uidvalidity = 5, uid = 7 }, {} } },
  { "all of them at once, if that is possible", { "MULTIAPPEND" }, { { multi, ok } },
    method("append_all", "saved-messages", two, { separately = true }), { {}, {} } },
  { "parts and octets of any kind among them", { "MULTIAPPEND", "CATENATE", "BINARY" },
    { { 'APPEND "x" CATENATE (TEXT {1}\r\na URL "/y/;UID=1") ~{2}\r\nb\0 {1}\r\nc', ok } },
    method("append_all", "x", { { message = { "a", { mailbox = "y", uid = 1 } } },
      { message = "b\0" }, { message = "c" } }), { {}, {}, {} } },
}

local refused_several = {
  { "several where there is no MULTIAPPEND", {}, {}, method("append_all", "x", two),
    { kind = "unsupported", during = "append_all",
      message = "the server does not offer MULTIAPPEND, which append_all needs" } },
  { "several, none of which is added", { "MULTIAPPEND" },
    { { multi, "%T NO [OVERQUOTA] full\r\n" } }, method("append_all", "saved-messages", two),
    { kind = "rejected", status = "OVERQUOTA" } },
  { "the second of several: the first is added", {},
    { { first, "%T OK [APPENDUID 5 7] done\r\n" }, { second, "%T NO [OVERQUOTA] full\r\n" } },
    method("append_all", "x", two, { separately = true }),
    { kind = "rejected", status = "OVERQUOTA", done = { { uidvalidity = 5, uid = 7 } } } },
}

-- }======

-- {====== From parts ======

-- What names a part, and its URL.
local urls = {
  { { mailbox = "Drafts", uidvalidity = 385759045, uid = 20, section = "HEADER" }, -- RFC 4469 5
    "/Drafts;UIDVALIDITY=385759045/;UID=20/;SECTION=HEADER" },
  { { mailbox = "Drafts", uid = 20, section = "1.MIME", partial = "0.100" },
    "/Drafts/;UID=20/;SECTION=1.MIME/;PARTIAL=0.100" },
  { { mailbox = "a", uid = 4294967295, partial = "9" }, "/a/;UID=4294967295/;PARTIAL=9" },
  { { mailbox = "a/;UID=1?b#c%41 d", uid = 2 }, "/a%2F%3BUID%3D1%3Fb%23c%2541%20d/;UID=2" },
  { { mailbox = "/etc", uid = 2 }, "/%2Fetc/;UID=2" },
  { { mailbox = "..", uid = 2 }, "/%2E%2E/;UID=2" },
  { { mailbox = "Entw\u{fc}rfe\r\n\"", uid = 2 }, "/Entw%C3%BCrfe%0D%0A%22/;UID=2" },
  { { mailbox = "a", uid = 2, section = "HEADER.FIELDS (To)" },
    "/a/;UID=2/;SECTION=HEADER.FIELDS%20%28To%29" },
}

local catenations = {
  { "texts and parts of other messages", { "CATENATE", "LITERAL+" },
    { { 'APPEND "x" (\\Draft) CATENATE (URL "/y/;UID=1/;SECTION=HEADER" TEXT {3+}\r\n\r\na'
      .. ' URL "/y/;UID=1/;SECTION=1" TEXT {2+}\r\nbc)', "%T OK [APPENDUID 1 2] done\r\n" } },
    function()
      return "append", "x", { { mailbox = "y", uid = 1, section = "HEADER" }, "\na",
        { mailbox = "y", uid = 1, section = "1" }, source_of { "b", "c" } },
        { flags = { "\\Draft" } }
    end, { uidvalidity = 1, uid = 2 } },
}

for _, case in ipairs(urls) do
  catenations[#catenations + 1] = { "the part " .. case[2], { "CATENATE", "URL-PARTIAL" },
    { { ('APPEND "x" CATENATE (URL "%s")'):format(case[2]), ok } },
    method("append", "x", { case[1] }), {} }
end

local part = { mailbox = "y", uid = 1 }

local refused_catenations = {
  { "parts where there is no CATENATE", {}, {}, method("append", "x", { part }),
    { kind = "unsupported", message = "the server does not offer CATENATE, which append needs" } },
  { "some octets of a part where there is no URL-PARTIAL", { "CATENATE" }, {},
    method("append", "x", { { mailbox = "y", uid = 1, partial = "0.1" } }),
    { kind = "unsupported" } },
  { "a part with a NUL", { "CATENATE", "BINARY" }, {}, method("append", "x", { "a\0" }),
    { kind = "unsupported", message = "a part has a NUL octet, which CATENATE can't carry" } },
  { "a part that is not there", { "CATENATE" }, -- RFC 4469 4
    { { 'APPEND "x" CATENATE (URL "/y/;UID=1" TEXT {1}\r\na)',
      '%T NO [BADURL "/y/;UID=1"] CATENATE append has failed\r\n' } },
    method("append", "x", { part, "a" }), { kind = "rejected", status = "BADURL" } },
}

-- }======

-- {====== In place of another ======

local added = { 'APPEND "Drafts" (\\Seen \\Draft) {1}\r\na', "%T OK [APPENDUID 1 2001] done\r\n" }
local flagged = { "UID STORE 2000 +FLAGS.SILENT (\\Deleted)", ok }
local draft = method("replace", 2000, "Drafts", "a", { flags = { "\\Seen", "\\Draft" } })
local place = { uidvalidity = 1, uid = 2001 }

local replacements = {
  { "a message", { "REPLACE" }, -- RFC 8508 3.5
    { { 'UID REPLACE 2000 "Drafts" (\\Seen \\Draft) {1}\r\na',
      "* OK [APPENDUID 1 2001] Replacement Message ready\r\n* 5 EXISTS\r\n* 4 EXPUNGE\r\n"
      .. "%T OK Replace completed\r\n" } }, draft, place },
  { "a message where there is no REPLACE, with three commands", { "UIDPLUS" },
    { added, flagged, { "UID EXPUNGE 2000", "* 4 EXPUNGE\r\n" .. ok } }, draft, place },
  { "a message by parts of it", { "REPLACE", "CATENATE" },
    { { 'UID REPLACE 1 "y" CATENATE (URL "/y/;UID=1" TEXT {1}\r\na)', ok } },
    method("replace", 1, "y", { part, "a" }), {} },
}

local refused_replacements = {
  { "a replacement where there is neither REPLACE nor UIDPLUS", {}, {}, draft,
    { kind = "unsupported", during = "replace",
      message = "the server does not offer REPLACE or UIDPLUS, which replace needs" } },
  { "a replacement", { "REPLACE" },
    { { 'UID REPLACE 2000 "Drafts" (\\Seen \\Draft) {1}\r\na', "%T NO [TRYCREATE] no\r\n" } },
    draft, { kind = "rejected", during = "replace", status = "TRYCREATE" } },
  { "a replacement that can't be added: nothing is done", { "UIDPLUS" },
    { { added[1], "%T NO [OVERQUOTA] full\r\n" } }, draft,
    { kind = "rejected", during = "replace", status = "OVERQUOTA" } },
  { "a replacement of what can't be flagged: the new one is there", { "UIDPLUS" },
    { added, { flagged[1], "%T NO [NOPERM] no\r\n" } }, draft,
    { kind = "rejected", during = "replace", status = "NOPERM", copied = place,
      message = "the server refuses REPLACE; before that, the new message was added" } },
  { "a replacement of what can't be removed: the new one is there", { "UIDPLUS" },
    { added, flagged, { "UID EXPUNGE 2000", "%T NO no\r\n" } }, draft,
    { kind = "rejected", during = "replace", copied = place } },
}

-- }======

describe("an IMAP session", function()
  describe("appends", function() plays(appends) end)
  describe("does not append", function() fails(refused_appends) end)
  describe("appends", function() plays(limits) end)
  describe("sends nothing of", function() fails(refused_sizes) end)
  describe("appends of several", function() plays(several) end)
  describe("does not append", function() fails(refused_several) end)
  describe("puts together", function() plays(catenations) end)
  describe("does not put together", function() fails(refused_catenations) end)
  describe("replaces", function() plays(replacements) end)
  describe("reports the refusal of", function() fails(refused_replacements) end)

  it("asks for a mailbox's limit once", function()
    converse({ limit_of(10), { 'APPEND "x" {1}\r\na', ok }, { 'APPEND "x" {1}\r\nb', ok } },
      function(session)
        assert(session:append("x", "a"))
        assert(session:append("x", "b"))
        assert_fields(too_large, select(2, session:append("x", "01234567890")))
      end, { capabilities = { "APPENDLIMIT" } })
  end)

  it("raises what is misused, and sends nothing", function()
    converse({ { "NOOP", ok } }, function(session)
      local function bad(name, ...)
        local arguments = table.pack(...)
        assert.has_error(function()
          session[name](session, table.unpack(arguments, 1, arguments.n))
        end)
      end
      for _, date in ipairs { "yesterday", {}, "1-Jan-1970 00:00:00 +0000", 1e15, true } do
        bad("append", "x", "a", { date = date })
      end
      for _, size in ipairs { -1, "1", 1.5 } do bad("append", "x", "a", { size = size }) end
      bad("append", "x", "a", { flags = "\\Seen" })
      bad("append", nil, "a")
      bad("append", "x", nil)
      bad("append", "x", {})
      bad("append", "x", { "a" }, { binary = true })
      for _, wrong in ipairs {
        { uid = 1 }, { mailbox = "", uid = 1 }, { mailbox = "\xff", uid = 1 },
        { mailbox = "a\0b", uid = 1 }, { mailbox = "x" }, { mailbox = "x", uid = 0 },
        { mailbox = "x", uid = "1/;SECTION=2" }, { mailbox = "x", uid = 1, uidvalidity = "1" },
        { mailbox = "x", uid = 1, section = 1 }, { mailbox = "x", uid = 1, partial = "1-2" },
      } do
        bad("append", "x", { wrong })
      end
      bad("append_all", "x", "a")
      bad("append_all", "x", { "a", "b" })
      for _, uid in ipairs { 0, "1", 1.5 } do bad("replace", uid, "x", "a") end
      assert(session:noop())
    end, { capabilities = { "CATENATE", "URL-PARTIAL", "MULTIAPPEND", "BINARY", "REPLACE" } })
  end)

  it("tells of an encoding that the server can't undo", function() -- RFC 3516 4.3
    converse({ { "UID FETCH 1 (UID BINARY.PEEK[1])", "%T NO [UNKNOWN-CTE] x-odd?\r\n" } },
      function(session)
        local result, err = session:fetch_all(1, { "BINARY[1]" })
        assert.is_nil(result)
        assert_fields({ kind = "rejected", status = "UNKNOWN-CTE" }, err)
      end, { capabilities = { "BINARY" } })
  end)

  describe("with Dovecot", function()
    local mail, session

    setup(function() mail = servers.shared() end)

    before_each(function()
      clients.empty(mail, "alice")
      session = clients.connect(mail, "imap")
      assert(session:select "INBOX")
    end)

    after_each(function() session:close() end)

    local function body_of(result)
      local message = assert(session:fetch_all(result.uid, { "body", "flags", "date" }))[1]
      return message.body, message
    end

    it("appends several at once, or none", function()
      local places = assert(session:append_all("INBOX", {
        { message = "Subject: 1\n\none\n", flags = { "\\Draft", "\\Seen" } },
        { message = source_of { "Subject: 2\n", "\ntwo\n" }, date = 837596665 },
        { message = "Subject: 3\n\n" .. ("three\n"):rep(20000) },
      }))
      assert.equals(3, #places)
      local first_body, message = body_of(places[1])
      assert.equals("Subject: 1\r\n\r\none\r\n", first_body)
      assert.is_true(message.flags["\\Draft"] and message.flags["\\Seen"])
      assert.equals(837596665, select(2, body_of(places[2])).time)
      assert.equals(14 + 7 * 20000, #body_of(places[3]))
      assert.equals(session.mailbox.uidvalidity, places[3].uidvalidity)
      local result, err = session:append_all("nowhere", { { message = "a" }, { message = "b" } })
      assert.is_nil(result)
      assert.equals("TRYCREATE", err.status)
      assert.equals(3, session.mailbox.exists)
    end)

    it("puts messages together from others", function()
      local name = "Entw\u{fc}rfe; 100% & ?#=" -- all that URLs would take for something else
      assert(session:ask("create", {}, "atom", "CREATE", "mailbox", name))
      local text = ("0123456789\r\n"):rep(1000)
      local origin = assert(session:append(name, "Subject: first\r\n\r\n" .. text))
      local made = assert(session:append("INBOX", { "Subject: second\n\nBegin\n",
        { mailbox = name, uidvalidity = origin.uidvalidity, uid = origin.uid, section = "TEXT" },
        { mailbox = name, uid = origin.uid, section = "TEXT", partial = "2.4" }, "\nEnd\n" },
        { flags = { "\\Draft" } }))
      assert.equals("Subject: second\r\n\r\nBegin\r\n" .. text .. "2345\r\nEnd\r\n", body_of(made))
      local result, err = session:append("INBOX", { { mailbox = name, uid = 4711 }, "x" })
      assert.is_nil(result)
      assert_fields({ kind = "rejected", status = "BADURL" }, err)
      assert(session:ask("delete", {}, "atom", "DELETE", "mailbox", name))
    end)

    it("appends the same file twice", function()
      local directory <close> = process.temporary_directory()
      process.write_file(directory.path .. "/message", "skipped\nSubject: x\n\nsame\n")
      local file <close> = assert(io.open(directory.path .. "/message", "rb"))
      file:read "l"
      local places = assert(session:append_all("INBOX", { { message = file }, { message = file } }))
      assert(session:pipeline(function(p)
        file:seek("set", 8)
        places[3], places[4] = p:append("INBOX", file), p:append("INBOX", file)
      end))
      for index, added_at in ipairs(places) do
        if index > 2 then added_at = assert(added_at:get()) end
        assert.equals("Subject: x\r\n\r\nsame\r\n", (body_of(added_at)))
      end
    end)

    it("appends octets of any kind, and fetches them into a sink", function()
      local octets = {}
      for octet = 0, 255 do octets[#octets + 1] = string.char(octet) end
      local head = "Content-Transfer-Encoding: binary\r\n\r\n"
      local content = table.concat(octets):rep(300)
      local directory <close> = process.temporary_directory()
      process.write_file(directory.path .. "/message", head .. content)
      local file <close> = assert(io.open(directory.path .. "/message", "rb"))
      local result = assert(session:append("INBOX", file))
      local pieces = {}
      for message in session:fetch(result.uid, { "BINARY[1]", "BINARY.SIZE[1]" }, {
        sink = function(_, section)
          assert.equals("1", section)
          return function(piece)
            pieces[#pieces + 1] = piece
            return true
          end
        end,
      }) do
        assert.is_true(message.sections["1"])
      end
      assert.is_true(#pieces > 0)
      assert.is_true(table.concat(pieces) == content, "content differs")
    end)

    it("fetches what an encoding stands for", function()
      local result = assert(session:append("INBOX", "Content-Transfer-Encoding: base64\n\nYQBi\n"))
      local message = assert(session:fetch_all(result.uid, { "BINARY[1]", "BINARY[1]<1.2>" }))[1]
      assert.equals("a\0b", message.sections["1"])
      assert.equals("\0b", message.sections["1<1>"])
      local strange = assert(session:append("INBOX", "Content-Transfer-Encoding: x-odd\n\nx\n"))
      local none, err = session:fetch_all(strange.uid, { "BINARY[1]" })
      assert.is_nil(none)
      assert.equals("UNKNOWN-CTE", err.status)
    end)

    it("replaces a draft", function()
      local draft_place = assert(session:append("INBOX", "Subject: 1\n\n"))
      assert(session:append("INBOX", "Subject: other\n\n", { flags = { "\\Deleted" } }))
      local new = assert(session:replace(draft_place.uid, "INBOX", "Subject: 2\n\n",
        { flags = { "\\Draft" } }))
      assert.equals("Subject: 2\r\n\r\n", (body_of(new)))
      assert.same({}, session:fetch_all(draft_place.uid, { "flags" }))
      assert.equals(2, session.mailbox.exists) -- what another has deleted is still there
    end)

    it("does all that in a pipeline, one after the other", function()
      local promises = {}
      assert(session:pipeline(function(p)
        promises[1] = p:append("INBOX", "Subject: 1\n\n")
        promises[2] = p:append_all("INBOX", { { message = "a\n\n" }, { message = "b\n\n" } })
        promises[3] = p:append("INBOX", { "Subject: 2\n", { mailbox = "INBOX", uid = 1 } })
        promises[4] = p:replace(1, "INBOX", "Subject: 3\n\n" .. ("x"):rep(100000))
      end))
      for index, promise in ipairs(promises) do
        local result = assert(promise:get())
        assert.equals(({ 1, 2, 4, 5 })[index], (result[1] or result).uid)
      end
      assert.equals(4, session.mailbox.exists)
    end)
  end)
end)
