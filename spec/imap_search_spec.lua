-- Searching: what criteria become on the wire, what the answers become, and searches by Dovecot.
-- What Dovecot lacks is played by scripted peers with the lines of the RFCs.

local clients = require "spec.support.clients"
local errors = require "starttls.error"
local imap_talk = require "spec.support.imap_talk"
local servers = require "spec.support.servers"

local imap = require "starttls.imap"

local converse = imap_talk.converse

local function search(...)
  local arguments = table.pack(...)
  return function(session)
    return session:search(table.unpack(arguments, 1, arguments.n))
  end
end

-- Runs the call in a session of a server with these capabilities that expects no command.
local function with_no_command(call, capabilities)
  local results
  converse({}, function(session) results = table.pack(pcall(call, session)) end,
    { capabilities = capabilities })
  return table.unpack(results, 1, results.n)
end

-- {====== Criteria ======

-- Criteria, and the keys that they are in RFC 9051's words.
local keys = {
  { "nothing, which is all", {}, "ALL" },
  { "a flag", { unseen = true }, "UNSEEN" },
  { "a flag that must not be", { answered = false }, "NOT ANSWERED" },
  { "every flag", { all = true, answered = true, deleted = true, draft = true, flagged = true,
    new = true, old = true, recent = true, seen = true, unanswered = true, undeleted = true,
    undraft = true, unflagged = true, unseen = true }, "ALL ANSWERED DELETED DRAFT FLAGGED NEW "
    .. "OLD RECENT SEEN UNANSWERED UNDELETED UNDRAFT UNFLAGGED UNSEEN" },
  { "keywords", { keyword = "$Junk", unkeyword = "x" }, "KEYWORD $Junk UNKEYWORD x" },
  { "texts", { bcc = "a", body = "b", cc = "c", from = "d", subject = "e", text = "f", to = "g" },
    'BCC "a" BODY "b" CC "c" FROM "d" SUBJECT "e" TEXT "f" TO "g"' },
  { "a text with all that is special", { subject = 'a" OR "b\\ {3} (*%)' },
    [[SUBJECT "a\" OR \"b\\ {3} (*%)"]] },
  { "an empty text", { subject = "" }, 'SUBJECT ""' },
  { "a text with a tab", { body = "a\tb" }, "BODY {3+}\r\na\tb" },
  { "header fields", { header = { ["X-Spam"] = "", ["List-Id"] = 'a"b' } },
    [[HEADER "List-Id" "a\"b" HEADER "X-Spam" ""]] },
  { "sizes", { larger = 0, smaller = math.maxinteger }, "LARGER 0 SMALLER 9223372036854775807" },
  { "dates as seconds", { since = 760665600, before = 760665599.9 }, "BEFORE 7-Feb-1994 "
    .. "SINCE 8-Feb-1994" },
  { "dates in parts", { on = { 1994, 2, 1 }, sent_on = { 2024, 12, 31 } },
    "ON 1-Feb-1994 SENTON 31-Dec-2024" },
  { "dates as text", { sent_before = "01-feb-1994", sent_since = "1994-02-01" },
    "SENTBEFORE 1-Feb-1994 SENTSINCE 1-Feb-1994" },
  { "UIDs", { uid = { 3, 1, 2, 7 } }, "UID 3,1:2,7" },
  { "sequence numbers", { seq = "1:*" }, "1:*" },
  { "a set that is empty", { uid = {} }, "NOT ALL" },
  { "a set that must not be", { ["not"] = { seq = {} } }, "NOT NOT ALL" },
  { "what must not be", { ["not"] = { from = "a", seen = true } }, 'NOT (FROM "a" SEEN)' },
  { "two alternatives", { ["or"] = { { seen = true }, { from = "a", to = "b" } } },
    'OR SEEN (FROM "a" TO "b")' },
  { "five alternatives", { ["or"] = { { seq = 1 }, { seq = 2 }, { seq = 3 }, { seq = 4 }, {} } },
    "OR OR OR 1 2 3 OR 4 ALL" },
  { "one alternative", { ["or"] = { { seen = true } } }, "SEEN" },
  { "several tables, all of which must hold", { { from = "a" }, { from = "b", seen = true },
    unseen = true }, 'UNSEEN FROM "a" (FROM "b" SEEN)' },
  { "tables in tables", { ["not"] = { ["not"] = { { { draft = true } } } } }, "NOT NOT DRAFT" },
  { "ages (RFC 5032)", { older = 86400, younger = 259200.0 }, "OLDER 86400 YOUNGER 259200",
    "WITHIN" },
  { "a mod-sequence (RFC 7162)", { modseq = 620162338 }, "MODSEQ 620162338", "CONDSTORE" },
  { "a flag's mod-sequence", { modseq = { 620162338, flag = "\\Draft" } },
    'MODSEQ "/flags/\\\\Draft" all 620162338', "QRESYNC" },
  { "what is like it (RFC 6203)", { fuzzy = { body = "hello", subject = "x" } },
    'FUZZY (BODY "hello" SUBJECT "x")', "SEARCH=FUZZY" },
  { "the date of saving (RFC 8514)", { saved_before = { 2017, 5, 1 }, saved_on = "28-Dec-2014",
    saved_since = "31-Jul-2014", save_date_supported = true },
    "SAVEDATESUPPORTED SAVEDBEFORE 1-May-2017 SAVEDON 28-Dec-2014 SAVEDSINCE 31-Jul-2014",
    "SAVEDATE" },
  { "identifiers (RFC 8474)", { emailid = "M6d99ac3275bb4e", threadid = "T64b478a75b7ea9" },
    "EMAILID M6d99ac3275bb4e THREADID T64b478a75b7ea9", "OBJECTID" },
  { "Gmail's", { gm_raw = 'has:attachment "x"', gm_labels = "a b", gm_msgid = 1278455344230334865,
    gm_thrid = "18446744073709551615" }, 'X-GM-LABELS "a b" X-GM-MSGID 1278455344230334865 '
    .. [[X-GM-RAW "has:attachment \"x\"" X-GM-THRID 18446744073709551615]], "X-GM-EXT-1" },
  { "a filter (RFC 5466)", { filter = "on-the-road" }, "FILTER on-the-road", "FILTERS" },
  { "what was saved (RFC 5182)", { saved = true, smaller = 4096 }, "$ SMALLER 4096", "SEARCHRES" },
}

-- Criteria that are none, and a word of the error.
local odd = {
  { "an unknown key", { unsen = true }, "no search key 'unsen'" },
  { "an unknown key within", { ["not"] = { { SEEN = true } } }, "no search key 'SEEN'" },
  { "a hole", { [2] = { seen = true } }, "no search key '2'" },
  { "criteria of no kind", 5, "string or a table" },
  { "a flag with a text", { seen = "yes" }, "seen must be true or false" },
  { "a text that is none", { from = 5 }, "from must be a string" },
  { "a text that is not UTF-8", { from = "M\xfcller" }, "from must be valid UTF%-8" },
  { "a CR", { from = "a\rb" }, "CR, LF or NUL" },
  { "an LF", { text = "a\nA9 LOGOUT" }, "CR, LF or NUL" },
  { "a NUL", { subject = "a\0b" }, "CR, LF or NUL" },
  { "a keyword with a blank", { keyword = "a b" }, "keyword must be" },
  { "a keyword with a parenthesis", { keyword = "a)" }, "keyword must be" },
  { "a system flag as a keyword", { unkeyword = "\\Seen" }, "unkeyword must be" },
  { "a filter with a slash", { filter = "a/b" }, "filter must be" },
  { "an identifier with a blank", { emailid = "a OR" }, "emailid must be" },
  { "a header that is no table", { header = "x" }, "header must be" },
  { "a header without fields", { header = {} }, "header must be" },
  { "a field with a colon", { header = { ["a:"] = "b" } }, "header must be" },
  { "a field with a line's end", { header = { ["a\r\n"] = "b" } }, "header must be" },
  { "a field's text that is none", { header = { a = true } }, "header.a must be a string" },
  { "a negative size", { larger = -1 }, "larger must be" },
  { "half a size", { smaller = 1.5 }, "smaller must be" },
  { "an age of nothing", { older = 0 }, "older must be" },
  { "a mod-sequence that is none", { modseq = "1" }, "modseq must be" },
  { "a mod-sequence's unknown type", { modseq = { 1, flag = "x", type = "y" } },
    "modseq must be" },
  { "a date that is none", { since = "yesterday" }, "since must be a date" },
  { "a date with a time", { since = "1-Feb-1994 00:00" }, "since must be a date" },
  { "an unknown month", { on = "1-Foo-1994" }, "on must be a date" },
  { "a month beyond the year", { on = { 1994, 13, 1 } }, "on must be a date" },
  { "seconds that are none", { before = 0 / 0 }, "before must be a date" },
  { "seconds without end", { before = math.huge }, "before must be a date" },
  { "a set that is none", { uid = true }, "uid: the set must have" },
  { "a set with a key in it", { uid = "1 SEEN" }, "set has a character" },
  { "alternatives without a table", { ["or"] = { "SEEN" } }, "or must be a table" },
  { "no alternatives", { ["or"] = {} }, "or must be an array" },
  { "what must not be, without a table", { ["not"] = "SEEN" }, "not must be a table" },
  { "what to return, in a string", "RETURN (COUNT) ALL", "settings.returns" },
}
local endless = {}
endless["not"] = endless
odd[#odd + 1] = { "a table in itself", endless, "nested too deep" }
local scattered = {}
for n = 1, 5000 do scattered[n] = 2 * n end
odd[#odd + 1] = { "a set that is too long", { uid = scattered }, "fits into one command" }

describe("search criteria", function()
  for _, case in ipairs(keys) do
    local what, given, words, capability = table.unpack(case)
    it("have " .. what, function()
      converse({ { "UID SEARCH " .. words, "* SEARCH 2\r\n%T OK done\r\n" } }, function(session)
        assert.same({ 2 }, session:search(given))
      end, { capabilities = { "LITERAL+", capability } })
    end)

    if capability then
      it("have " .. what .. " only where the server can", function()
        local _, found, err = with_no_command(search(given))
        assert.is_nil(found)
        assert.equal("unsupported", err.kind)
        local named = capability == "QRESYNC" and "CONDSTORE" or capability
        assert.matches(named, err.message, 1, true)
      end)
    end
  end

  for _, case in ipairs(odd) do
    it("are refused before a byte is sent with " .. case[1], function()
      local ok, why = with_no_command(search(case[2]))
      assert.is_false(ok)
      assert.is_false(errors.is(why))
      assert.matches(case[3], why)
    end)
  end
end)

-- }======

-- {====== Charsets ======

describe("search for text beyond ASCII", function()
  local found = "* SEARCH 2\r\n%T OK done\r\n"
  local umlaut = { from = "Müller", to = "x" }

  it("sends literals of UTF-8 and says so", function()
    converse({ { 'UID SEARCH CHARSET UTF-8 FROM {7}\r\nMüller TO "x"', found } }, function(session)
      assert.same({ 2 }, session:search(umlaut))
    end)
  end)

  it("says so behind what to return", function()
    converse({ { "UID SEARCH RETURN (COUNT) CHARSET UTF-8 OR SEEN SUBJECT {2+}\r\nü",
      "* ESEARCH (TAG %T) UID COUNT 3\r\n%T OK done\r\n" } }, function(session)
      local told = assert(session:search({ ["or"] = { { seen = true }, { subject = "ü" } } },
        { returns = { "count" } }))
      assert.equal(3, told.count)
    end, { capabilities = { "ESEARCH", "LITERAL+" } })
  end)

  for _, capability in ipairs { "UTF8=ACCEPT", "IMAP4rev2" } do
    it(("quotes UTF-8 and names no charset after ENABLE %s"):format(capability), function()
      local exchanges = { { "ENABLE " .. capability,
        ("* ENABLED %s\r\n%%T OK done\r\n"):format(capability) } }
      local answer = capability == "IMAP4rev2"
        and "* ESEARCH (TAG %T) UID ALL 2\r\n%T OK done\r\n" or found
      exchanges[2] = { 'UID SEARCH '
        .. (capability == "IMAP4rev2" and "RETURN (ALL) " or "") .. 'FROM "Müller" TO "x"', answer }
      converse(exchanges, function(session)
        session:pipeline(function(p)
          p:enable(capability)
          assert.same({ 2 }, p:search(umlaut):get())
        end)
      end, { capabilities = { "ENABLE", capability } })
    end)
  end

  it("tells when the server can't, and what it can", function()
    converse({ { "UID SEARCH CHARSET UTF-8 SUBJECT {2+}\r\nü",
      "%T NO [BADCHARSET (US-ASCII KOI8-R)] no\r\n" }, { "NOOP", "%T OK done\r\n" } },
      function(session)
        local numbers, err = session:search { subject = "ü" }
        assert.is_nil(numbers)
        assert.equal("rejected", err.kind)
        assert.equal("BADCHARSET", err.status)
        assert.matches("text beyond ASCII; it knows US%-ASCII, KOI8%-R", err.hint)
        assert(session:noop())
      end, { capabilities = { "LITERAL+" } })
  end)
end)

-- }======

-- {====== Results ======

local all_four = { returns = { "min", "max", "count", "all" } }

-- What a search is asked for, the command, the answer, and the result.
local results = {
  -- From servers that have SEARCH only (RFC 3501)
  { "numbers", search { seen = true }, "UID SEARCH SEEN", "* SEARCH 2 84 882\r\n", {},
    { 2, 84, 882 } },
  { "no numbers", search { seen = true }, "UID SEARCH SEEN", "", {}, {} },
  { "a mod-sequence beside them (RFC 7162 3.1.5)",
    search({ modseq = 620162338 }, { seq = true }), "SEARCH MODSEQ 620162338",
    "* SEARCH 2 5 6 7 11 12 18 19 20 23 (MODSEQ 917162500)\r\n", { "CONDSTORE" },
    { 2, 5, 6, 7, 11, 12, 18, 19, 20, 23, modseq = 917162500 } },
  { "what it can't return, computed", search({}, all_four), "UID SEARCH ALL",
    "* SEARCH 7 3 4\r\n* SEARCH 5 12\r\n", {},
    { uid = true, min = 3, max = 12, count = 5, all = "3:5,7,12", tag = "A2" } },
  { "what it can't return, of nothing", search({}, all_four), "UID SEARCH ALL", "* SEARCH\r\n", {},
    { uid = true, count = 0, tag = "A2" } },
  { "some of that, by sequence numbers",
    search("UNSEEN", { seq = true, returns = { "count", "max" } }), "SEARCH UNSEEN",
    "* SEARCH 9 8\r\n", {}, { uid = false, count = 2, max = 9, tag = "A2" } },

  -- From those that have ESEARCH (RFC 4731 3.1)
  { "numbers of a set", search { flagged = true }, "UID SEARCH RETURN (ALL) FLAGGED",
    '* ESEARCH (TAG "%T") UID ALL 17,900:902\r\n', { "ESEARCH" }, { 17, 900, 901, 902 } },
  { "no numbers of no set", search { flagged = true }, "UID SEARCH RETURN (ALL) FLAGGED",
    '* ESEARCH (TAG "%T") UID\r\n', { "ESEARCH" }, {} },
  { "a set in two answers", search {}, "UID SEARCH RETURN (ALL) ALL",
    '* ESEARCH (TAG "%T") UID ALL 1:2\r\n* ESEARCH (TAG "%T") UID ALL 9\r\n', { "ESEARCH" },
    { 1, 2, 9 } },
  { "a mod-sequence beside a set", search { modseq = 1 }, "UID SEARCH RETURN (ALL) MODSEQ 1",
    '* ESEARCH (TAG "%T") UID ALL 1:2 MODSEQ 1236\r\n', { "ESEARCH", "CONDSTORE" },
    { 1, 2, modseq = 1236 } },
  { "min and count", search({ flagged = true, since = { 1994, 2, 1 },
    ["not"] = { from = "Smith" } }, { seq = true, returns = { "min", "count" } }),
    'SEARCH RETURN (MIN COUNT) FLAGGED NOT FROM "Smith" SINCE 1-Feb-1994',
    '* ESEARCH (TAG "%T") MIN 2 COUNT 3\r\n', { "ESEARCH" },
    { uid = false, tag = "A2", min = 2, count = 3 } },
  { "a part of it (RFC 9394 3.1)", search({ deleted = false }, { returns = { "count",
    partial = "-1:-100" } }), "UID SEARCH RETURN (COUNT PARTIAL -1:-100) NOT DELETED",
    '* ESEARCH (TAG "%T") UID COUNT 23764 PARTIAL (-1:-100 23500:24000)\r\n',
    { "ESEARCH", "PARTIAL" }, { uid = true, tag = "A2", count = 23764,
      partial = { range = "-1:-100", set = "23500:24000" } } },
  { "an empty part of it (RFC 5267 4.4)", search({}, { returns = { partial = "24000:24500" } }),
    "UID SEARCH RETURN (PARTIAL 24000:24500) ALL",
    '* ESEARCH (TAG "%T") UID PARTIAL (24000:24500 NIL)\r\n', { "ESEARCH", "CONTEXT=SEARCH" },
    { uid = true, tag = "A2", partial = { range = "24000:24500" } } },
  { "how relevant it is (RFC 6203 4)", search({ fuzzy = { text = "Helo" } },
    { seq = true, returns = { "relevancy", "all" } }),
    'SEARCH RETURN (RELEVANCY ALL) FUZZY TEXT "Helo"',
    '* ESEARCH (TAG "%T") ALL 1,5,10 RELEVANCY (4 99 42)\r\n', { "ESEARCH", "SEARCH=FUZZY" },
    { uid = false, tag = "A2", all = "1,5,10", relevancy = { 4, 99, 42 } } },
  { "nothing, where it is saved (RFC 5182 2.1)", search({ from = "x" }, { returns = { "save" } }),
    'UID SEARCH RETURN (SAVE) FROM "x"', "", { "ESEARCH", "SEARCHRES" },
    { uid = true, tag = "A2" } },

  -- From those of IMAP4rev2, which have it all and know no SEARCH (RFC 9051 7.3.4)
  { "numbers", search { seen = true }, "UID SEARCH RETURN (ALL) SEEN",
    "* ESEARCH (TAG %T) UID ALL 1:3\r\n", { "IMAP4rev2" }, { 1, 2, 3 } },
  { "numbers for a string", search 'FROM "x"', 'UID SEARCH FROM "x"',
    '* ESEARCH (TAG "%T") UID ALL 4,2\r\n', { "IMAP4rev2" }, { 4, 2 } },
  { "numbers for a string, though it hides what it is", search("SEEN", { seq = true }),
    "SEARCH SEEN", '* ESEARCH (TAG "%T") ALL 4,2\r\n', {}, { 4, 2 } },
  { "numbers without a tag", search "SEEN", "UID SEARCH SEEN", "* ESEARCH UID ALL 4\r\n", {},
    { 4 } },
  { "count and what is saved", search({}, { returns = { "count", "save" } }),
    "UID SEARCH RETURN (COUNT SAVE) ALL", "* ESEARCH (TAG %T) UID COUNT 7\r\n", { "IMAP4rev2" },
    { uid = true, tag = "A2", count = 7 } },
}

describe("search gives", function()
  for _, case in ipairs(results) do
    local what, call, command, answer, capabilities, result = table.unpack(case)
    it(("%s, with %s"):format(what, table.concat(capabilities, ", ")), function()
      converse({ { command, answer .. "%T OK done\r\n" } }, function(session)
        assert.same(result, assert(call(session)))
      end, { capabilities = capabilities })
    end)
  end

  it("its own answers, and not those to others", function()
    local told = {}
    converse({ { "UID SEARCH RETURN (ALL) ALL", '* ESEARCH (TAG "A1") UID ALL 1:9\r\n'
      .. '* SEARCH 8\r\n* ESEARCH (TAG "%T") UID ALL 3\r\n%T OK done\r\n' } }, function(session)
      assert.same({ 3 }, session:search {})
      assert.same({ "A1" }, told)
    end, { capabilities = { "ESEARCH" },
      on = { search = function(value) told[#told + 1] = value.tag end } })
  end)

  for _, case in ipairs {
    { "more numbers than the limit allows", "1:600", "limit" },
    { "numbers without end", "1:*", "protocol" },
  } do
    it("an error for " .. case[1], function()
      converse({ { "UID SEARCH RETURN (ALL) ALL",
        ('* ESEARCH (TAG "%%T") UID ALL %s\r\n%%T OK done\r\n'):format(case[2]) } },
        function(session)
          local numbers, err = session:search {}
          assert.is_nil(numbers)
          assert.equal(case[3], err.kind)
          assert.equal("search", err.during)
        end, { capabilities = { "ESEARCH" }, limits = { reply = 1000 } })
    end)
  end

  it("an error of its own where nothing is saved (RFC 5182 2.1)", function()
    converse({ { "UID SEARCH RETURN (SAVE) SEEN", "%T NO [NOTSAVED] too many\r\n" } },
      function(session)
        local told, err = session:search({ seen = true }, { returns = { "save" } })
        assert.is_nil(told)
        assert.equal("NOTSAVED", err.status)
        assert.matches("%$ names no messages", err.hint)
      end, { capabilities = { "ESEARCH", "SEARCHRES" } })
  end)
end)

describe("what a search is to return", function()
  local lacking = {
    { { "save" }, "SEARCHRES", { "ESEARCH" } }, { { "count", "save" }, "ESEARCH", { "SEARCHRES" } },
    { { partial = "1:2" }, "PARTIAL", { "ESEARCH" } },
    { { partial = "-1:-2" }, "PARTIAL", { "ESEARCH", "CONTEXT=SEARCH" } },
    { { "relevancy" }, "SEARCH=FUZZY", { "ESEARCH" } },
    { { "context" }, "CONTEXT=SEARCH", { "ESEARCH" } },
    { { "update" }, "CONTEXT=SEARCH", { "ESEARCH" } },
  }
  for _, case in ipairs(lacking) do
    it(("is unsupported without %s: %s"):format(case[2], case[1][1] or case[1].partial), function()
      local _, told, err = with_no_command(search({}, { returns = case[1] }), case[3])
      assert.is_nil(told)
      assert.equal("unsupported", err.kind)
      assert.matches(case[2] .. ",", err.message, 1, true)
    end)
  end

  local nothing = { "count", {}, { "COUNT" }, { "partial" }, { "base" }, { 5 }, { count = true },
    { partial = 5 }, { partial = "1" }, { partial = "1:-2" }, { partial = "0:1" },
    { partial = "1:2)" }, { "all", partial = "1:2" } }
  for number, given in ipairs(nothing) do
    it(("must be something that there is (%d)"):format(number), function()
      local ok, why = with_no_command(search({}, { returns = given }), { "ESEARCH", "PARTIAL" })
      assert.is_false(ok)
      assert.matches("^search: ", why)
    end)
  end
end)

-- }======

-- {====== Later ======

describe("a search that is kept up to date (RFC 5267)", function()
  local capabilities = { "ESEARCH", "CONTEXT=SEARCH" }

  it("tells what joins and leaves it, until that is ended", function()
    local told = {}
    converse({
      { "UID SEARCH RETURN (UPDATE COUNT) UNSEEN", '* ESEARCH (TAG "%1") UID ADDTO (0 9)\r\n'
        .. '* ESEARCH (TAG "%1") UID COUNT 3\r\n%T OK done\r\n' },
      { "NOOP", '* ESEARCH (TAG "%1") UID REMOVEFROM (0 2)\r\n%T OK done\r\n' },
      { 'CANCELUPDATE "A2" "A1"', "%T OK done\r\n" },
    }, function(session)
      local result = assert(session:search("UNSEEN", { returns = { "update", "count" } }))
      assert.same({ uid = true, tag = "A2", count = 3 }, result)
      assert(session:noop())
      assert.same({ { uid = true, tag = "A2", addto = { 0, 9 } },
        { uid = true, tag = "A2", removefrom = { 0, 2 } } }, told)
      assert(session:cancel_update(result.tag, "A1"))
    end, { capabilities = capabilities,
      on = { search = function(value) told[#told + 1] = value end } })
  end)

  it("says why it will not be", function()
    converse({ { "UID SEARCH RETURN (UPDATE ALL) ALL", '* ESEARCH (TAG "%T") UID ALL 3\r\n'
      .. '* NO [NOUPDATE "%T"] Too many contexts\r\n%T OK done\r\n' } }, function(session)
      assert.same({ uid = true, tag = "A2", all = "3", no_update = "Too many contexts" },
        session:search({}, { returns = { "update", "all" } }))
    end, { capabilities = capabilities })
  end)

  it("is ended by its tag alone, where the server has contexts", function()
    local ok, why = with_no_command(function(session) return session:cancel_update() end,
      capabilities)
    assert.is_false(ok)
    assert.matches("cancel_update", why)
    local _, ended, err = with_no_command(function(session) return session:cancel_update "A1" end)
    assert.is_nil(ended)
    assert.equal("unsupported", err.kind)
  end)
end)

describe("several searches in flight", function()
  it("are told apart by their tags", function()
    converse({
      { "UID SEARCH RETURN (ALL) SEEN", "" },
      { "UID SEARCH RETURN (COUNT) DRAFT", "" },
      { "UID SEARCH RETURN (ALL) NEW", '* ESEARCH (TAG "%3") UID ALL 3\r\n%3 OK c\r\n'
        .. '* ESEARCH (TAG "%1") UID ALL 1\r\n* ESEARCH (TAG "%2") UID COUNT 2\r\n'
        .. "%2 OK b\r\n%1 OK a\r\n" },
    }, function(session)
      assert(session:pipeline(function(p)
        local seen, drafts = p:search { seen = true },
          p:search({ draft = true }, { returns = { "count" } })
        local new = p:search { new = true }
        assert.same({ 1 }, seen:get())
        assert.equal(2, drafts:get().count)
        assert.same({ 3 }, new:get())
      end))
    end, { capabilities = { "ESEARCH" } })
  end)

  it("are held back where their answers look alike", function()
    converse({
      { "UID SEARCH SEEN", "* SEARCH 1\r\n%T OK done\r\n" },
      { "UID SEARCH NEW", "* SEARCH 3\r\n%T OK done\r\n" },
    }, function(session)
      assert(session:pipeline(function(p)
        local seen, new = p:search { seen = true }, p:search { new = true }
        assert.same({ 3 }, new:get())
        assert.same({ 1 }, seen:get())
      end))
    end)
  end)

  it("wait for each literal's turn", function()
    converse({
      { "UID SEARCH RETURN (ALL) SEEN", '* ESEARCH (TAG "%T") UID ALL 1\r\n%T OK done\r\n' },
      { "UID SEARCH RETURN (ALL) CHARSET UTF-8 SUBJECT {2}\r\nü",
        '* ESEARCH (TAG "%T") UID ALL 2\r\n%T OK done\r\n' },
    }, function(session)
      assert(session:pipeline(function(p)
        local seen, umlaut = p:search { seen = true }, p:search { subject = "ü" }
        assert.same({ 1 }, seen:get())
        assert.same({ 2 }, umlaut:get())
      end))
    end, { capabilities = { "ESEARCH" } })
  end)
end)

-- }======

-- {====== Several mailboxes ======

describe("a search in several mailboxes (RFC 7377)", function()
  local capabilities = { "MULTISEARCH", "WITHIN" }

  it("gives what was found in each", function()
    converse({ { 'ESEARCH IN (inboxes subtree-one ("folder2" "a b") mailboxes ("folder1")) '
      .. 'RETURN (ALL) NOT SEEN OLDER 60', '* ESEARCH (TAG "%T" MAILBOX "folder1" UIDVALIDITY 1) '
      .. 'UID ALL 4001,4003\r\n* ESEARCH (TAG "A0" MAILBOX x UIDVALIDITY 1) UID ALL 1\r\n'
      .. '* ESEARCH (TAG "%T" MAILBOX "folder2/salmon" UIDVALIDITY 33) UID ALL 50003\r\n'
      .. "%T OK done\r\n" } }, function(session)
      assert.same({
        { tag = "A2", mailbox = "folder1", uidvalidity = 1, uid = true, all = "4001,4003" },
        { tag = "A2", mailbox = "folder2/salmon", uidvalidity = 33, uid = true, all = "50003" },
      }, session:multisearch({ "inboxes", mailboxes = { "folder1" },
        subtree_one = { "folder2", "a b" } }, { ["not"] = { seen = true }, older = 60 }))
    end, { capabilities = capabilities })
  end)

  it("can be asked to count", function()
    converse({ { 'ESEARCH IN (personal subtree ("x")) RETURN (COUNT MIN) CHARSET UTF-8 '
      .. "TEXT {2}\r\nü", "%T OK done\r\n" } }, function(session)
      assert.same({}, session:multisearch({ "personal", subtree = { "x" } }, { text = "ü" },
        { returns = { "count", "min" } }))
    end, { capabilities = capabilities })
  end)

  it("is unsupported without MULTISEARCH", function()
    local _, found, err = with_no_command(function(session)
      return session:multisearch({ "personal" }, {})
    end, { "ESEARCH", "IMAP4rev2" })
    assert.is_nil(found)
    assert.equal("unsupported", err.kind)
    assert.matches("MULTISEARCH", err.message)
  end)

  for number, source in ipairs { "personal", {}, { "everything" }, { subtree = "x" },
    { mailboxes = {} }, { "personal)" } } do
    it(("is refused in what is no source (%d)"):format(number), function()
      local ok, why = with_no_command(function(session)
        return session:multisearch(source, {})
      end, capabilities)
      assert.is_false(ok)
      assert.matches("^multisearch: ", why)
    end)
  end

  for _, given in ipairs { { "save" }, { partial = "1:2" }, { "update" } } do
    it("can't be asked to " .. (given[1] or "page"), function()
      local ok, why = with_no_command(function(session)
        return session:multisearch({ "personal" }, {}, { returns = given })
      end, capabilities)
      assert.is_false(ok)
      assert.matches("^multisearch: ", why)
    end)
  end
end)

-- }======

-- {====== Dovecot ======

describe("search by Dovecot", function()
  local mail, session, uids

  local function letter(subject, rest)
    return ("Message-ID: <%s@x.test>\r\nDate: Mon, 7 Feb 1994 21:52:25 -0800\r\nSubject: %s\r\n%s")
      :format(tostring(#subject), subject, rest)
  end

  setup(function()
    mail = servers.shared()
    clients.empty(mail, "alice")
    mail:deliver("alice", letter("one", "From: Bob <bob@x.test>\r\nX-Spam: yes\r\n\r\nfirst\r\n"))
    mail:deliver("alice", letter("=?utf-8?q?M=C3=BCll?= two", "Content-Type: text/plain; "
      .. "charset=utf-8\r\n\r\nfünf\r\n"))
    mail:deliver("alice", letter("three (\"x\") \\ *", "\r\n" .. ("y"):rep(2000) .. "\r\n"))
    session = clients.connect(mail, "imap")
    assert(session:select "INBOX")
    uids = {}
    for message in session:fetch("1:*", { "uid" }) do uids[message.seq] = message.uid end
    assert(session:store(uids[1], { add = { "\\Flagged", "$Work" } }))
  end)

  teardown(function()
    session:close()
    clients.empty(mail, "alice")
  end)

  -- Criteria, and the sequence numbers of what they find.
  local found = {
    { {}, { 1, 2, 3 } }, { { flagged = true }, { 1 } }, { { keyword = "$Work" }, { 1 } },
    { { unkeyword = "$Work", seen = false }, { 2, 3 } }, { { from = "bob" }, { 1 } },
    { { subject = "MÜLL" }, { 2 } }, { { body = "fünf" }, { 2 } },
    { { subject = '("X") \\ *' }, { 3 } }, { { header = { ["x-spam"] = "" } }, { 1 } },
    { { larger = 1000 }, { 3 } }, { { smaller = 1000, subject = "o" }, { 1, 2 } },
    { { sent_on = { 1994, 2, 7 } }, { 1, 2, 3 } }, { { sent_before = "7-Feb-1994" }, {} },
    { { since = os.time() - 172800 }, { 1, 2, 3 } }, { { before = os.time() - 172800 }, {} },
    { { younger = 86400 }, { 1, 2, 3 } }, { { older = 86400 }, {} },
    { { seq = { 1, 3 } }, { 1, 3 } }, { { uid = {} }, {} }, { { ["not"] = { uid = {} } },
      { 1, 2, 3 } },
    { { ["or"] = { { subject = "one" }, { subject = "two" }, { from = "nobody" } } }, { 1, 2 } },
    { { ["not"] = { ["or"] = { { subject = "one" }, { subject = "two" } } } }, { 3 } },
    { { { subject = "t" }, { subject = "w" } }, { 2 } },
  }
  for number, case in ipairs(found) do
    it(("finds what fits (%d)"):format(number), function()
      local expected = {}
      for index, seq in ipairs(case[2]) do expected[index] = uids[seq] end
      local numbers = assert(session:search(case[1]))
      numbers.modseq = nil
      assert.same(expected, numbers)
      assert.same(case[2], session:search(case[1], { seq = true }))
    end)
  end

  it("returns numbers, and parts of them", function()
    local told = assert(session:search({ subject = "o" }, { seq = true, returns = { "min", "max",
      "count", "all" } }))
    assert.same({ uid = false, tag = told.tag, min = 1, max = 2, count = 2, all = "1:2" }, told)
    told = assert(session:search({}, { returns = { "count", partial = "2:3" } }))
    assert.equal(3, told.count)
    assert.same({ uids[2], uids[3] }, imap.numbers_of(told.partial.set))
  end)

  it("tells what has changed", function()
    local numbers = assert(session:search { modseq = 1 })
    assert.equal(3, #numbers)
    assert.is_true(numbers.modseq > 1)
  end)

  it("saves what it finds, for fetch, copy, store and search", function()
    assert(session:search({ subject = "o" }, { returns = { "save" } }))
    local messages = assert(session:fetch_all("$", { "uid" }))
    assert.same({ uids[1], uids[2] }, { messages[1].uid, messages[2].uid })
    assert.same({ uids[1] }, session:search { saved = true, flagged = true })
    assert(session:search({ subject = "o" }, { returns = { "save" } }))
    assert.equal(2, #assert(session:store("$", { add = { "$Saved" } })))
    assert(session:copy("$", "INBOX"))
    assert(session:search({ uid = "$", keyword = "$Saved" }, { seq = true }))
    assert(session:search({ seq = "4:*" }, { returns = { "save" } }))
    assert(session:store("$", { add = { "\\Deleted" } }))
    assert.equal(2, #assert(session:expunge()))
  end)

  it("runs many at a time", function()
    assert(session:pipeline(function(p)
      local promises = {}
      for number = 1, 40 do promises[number] = p:search { seq = tostring(number % 3 + 1) } end
      for number = 1, 40 do assert.same({ uids[number % 3 + 1] }, promises[number]:get()) end
    end))
  end)
end)

-- }======
