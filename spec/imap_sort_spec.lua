-- Messages in order and in threads: the wire form of SORT and THREAD, what becomes of the answers,
-- and Dovecot's.

local clients = require "spec.support.clients"
local errors = require "starttls.error"
local imap_talk = require "spec.support.imap_talk"
local servers = require "spec.support.servers"

local imap = require "starttls.imap"

local converse = imap_talk.converse

local function sort(...)
  local arguments = table.pack(...)
  return function(session) return session:sort(table.unpack(arguments, 1, arguments.n)) end
end

local function thread(...)
  local arguments = table.pack(...)
  return function(session) return session:thread(table.unpack(arguments, 1, arguments.n)) end
end

local all_four = { returns = { "min", "max", "count", "all" } }
local deep = ("(1"):rep(150) .. (")"):rep(150)

-- What is asked for, the command, the answer, the capabilities, and the result.
local cases = {
  -- RFC 5256 3
  { "numbers in order", sort({ "subject" }, { since = { 1994, 2, 1 } }, { seq = true }),
    "SORT (SUBJECT) UTF-8 SINCE 1-Feb-1994", "* SORT 2 84 882\r\n", { "SORT" }, { 2, 84, 882 } },
  { "numbers in the other order", sort({ "reverse date", "from" }),
    "UID SORT (REVERSE DATE FROM) UTF-8 ALL", "* SORT 5 3 4 1 2\r\n", { "SORT" },
    { 5, 3, 4, 1, 2 } },
  { "numbers in one key's order", sort("arrival", "UNSEEN"), "UID SORT (ARRIVAL) UTF-8 UNSEEN",
    "* SORT\r\n", { "SORT" }, {} },
  { "numbers in several answers", sort { "cc", "size", "to" },
    "UID SORT (CC SIZE TO) UTF-8 ALL", "* SORT 9 2\r\n* 4 EXISTS\r\n* SORT 5\r\n", { "SORT" },
    { 9, 2, 5 } },
  { "numbers of text beyond ASCII", sort("size", { subject = "ü" }),
    "UID SORT (SIZE) UTF-8 SUBJECT {2}\r\nü", "* SORT 9 2\r\n", { "SORT" }, { 9, 2 } },
  { "a mod-sequence beside them (RFC 7162)", sort("size", { modseq = 17 }),
    "UID SORT (SIZE) UTF-8 MODSEQ 17", "* SORT 9 2 (MODSEQ 99)\r\n", { "SORT", "CONDSTORE" },
    { 9, 2, modseq = 99 } },
  { "numbers by the names shown (RFC 5957)", sort { "displayfrom", "reverse displayto" },
    "UID SORT (DISPLAYFROM REVERSE DISPLAYTO) UTF-8 ALL", "* SORT 1 2\r\n",
    { "SORT", "SORT=DISPLAY" }, { 1, 2 } },
  { "numbers by relevancy (RFC 6203)", sort({ "relevancy" }, { fuzzy = { subject = "x" } }),
    'UID SORT (RELEVANCY) UTF-8 FUZZY SUBJECT "x"', "* SORT 1 2\r\n",
    { "SORT", "SEARCH=FUZZY" }, { 1, 2 } },

  -- RFC 5267 3
  { "what a server returns in order", sort("reverse date", { undeleted = true },
    { returns = { "count", partial = "1:5" } }),
    "UID SORT RETURN (COUNT PARTIAL 1:5) (REVERSE DATE) UTF-8 UNDELETED",
    '* ESEARCH (TAG "%T") UID COUNT 23765 PARTIAL (1:5 23500,2,9:11)\r\n',
    { "SORT", "ESORT", "CONTEXT=SORT" }, { uid = true, tag = "A2", count = 23765,
      partial = { range = "1:5", set = "23500,2,9:11" } } },
  { "what it can't return, computed", sort("size", {}, all_four), "UID SORT (SIZE) UTF-8 ALL",
    "* SORT 5 3 4 1 9\r\n", { "SORT" },
    { uid = true, tag = "A2", min = 5, max = 9, count = 5, all = "5,3,4,1,9" } },
  { "what it can't return, of nothing", sort("size", {}, all_four), "UID SORT (SIZE) UTF-8 ALL",
    "* SORT\r\n", { "SORT" }, { uid = true, tag = "A2", count = 0 } },

  -- RFC 5256 4
  { "threads", thread("orderedsubject", { since = { 2000, 3, 5 } }, { seq = true }),
    "THREAD ORDEREDSUBJECT UTF-8 SINCE 5-Mar-2000",
    "* THREAD (166)(167)(168)(169)(172)(170)(171)(173)(174 (175)(176)(178)(181)(180))(179)"
      .. "(177 (183)(182)(188)(184)(185)(186)(187)(189))\r\n", { "THREAD=ORDEREDSUBJECT" },
    { { number = 166 }, { number = 167 }, { number = 168 }, { number = 169 }, { number = 172 },
      { number = 170 }, { number = 171 }, { number = 173 },
      { number = 174, { number = 175 }, { number = 176 }, { number = 178 }, { number = 181 },
        { number = 180 } }, { number = 179 },
      { number = 177, { number = 183 }, { number = 182 }, { number = 188 }, { number = 184 },
        { number = 185 }, { number = 186 }, { number = 187 }, { number = 189 } } } },
  { "threads of answers to answers", thread("References", { text = "gewp" }),
    'UID THREAD REFERENCES UTF-8 TEXT "gewp"', "* THREAD (2)(3 6 (4 23)(44 7 96))\r\n",
    { "THREAD=REFERENCES" }, { { number = 2 }, { number = 3, { number = 6,
      { number = 4, { number = 23 } }, { number = 44, { number = 7, { number = 96 } } } } } } },
  { "threads whose first message is missing", thread "refs", "UID THREAD REFS UTF-8 ALL",
    "* THREAD ((3)(5))\r\n* THREAD (9)\r\n", { "THREAD=REFS" },
    { { { number = 3 }, { number = 5 } }, { number = 9 } } },
  { "no threads", thread "refs", "UID THREAD REFS UTF-8 ALL", "* THREAD\r\n", { "THREAD=REFS" },
    {} },
}

-- Calls that can't be, and a word of the error.
local odd = {
  { "no order", sort(), "order must be an array" },
  { "an empty order", sort {}, "order must be an array" },
  { "an order that is none", sort { "subject", "colour" }, "no sort key 'colour'" },
  { "an order with more in it", sort { "subject) UTF-8 ALL" }, "no sort key" },
  { "an order turned twice", sort { "reverse reverse date" }, "no sort key" },
  { "an order by nothing", sort { true }, "no sort key 'true'" },
  { "criteria that are none", sort("date", { unsen = true }), "sort: there is no search key" },
  { "something to save", sort("date", {}, { returns = { "save" } }), "sort: there is nothing" },
  { "no algorithm", thread(), "algorithm must be" },
  { "an algorithm with more in it", thread "REFS UTF-8 ALL", "algorithm must be" },
  { "criteria of a thread that are none", thread("refs", 5), "thread: the criteria" },
}

-- Calls that the server can't do, what it can, and what it lacks.
local lacking = {
  { sort "date", { "ESORT" }, "SORT" },
  { sort { "date", "displayfrom" }, { "SORT" }, "SORT=DISPLAY" },
  { sort "relevancy", { "SORT" }, "SEARCH=FUZZY" },
  { sort("date", {}, { returns = { partial = "1:2" } }), { "SORT", "ESORT" }, "CONTEXT=SORT" },
  { sort("date", {}, { returns = { "context" } }), { "SORT", "ESORT" }, "CONTEXT=SORT" },
  { sort("date", { younger = 5 }), { "SORT" }, "WITHIN" },
  { thread "references", { "THREAD=REFS", "THREAD" }, "THREAD=REFERENCES" },
}

-- Runs the call in a session of a server with these capabilities that expects no command.
local function with_no_command(call, capabilities)
  local results
  converse({}, function(session) results = table.pack(pcall(call, session)) end,
    { capabilities = capabilities })
  return table.unpack(results, 1, results.n)
end

describe("sort and thread", function()
  for _, case in ipairs(cases) do
    local what, call, command, answer, capabilities, result = table.unpack(case)
    it("give " .. what, function()
      converse({ { command, answer .. "%T OK done\r\n" } }, function(session)
        assert.same(result, assert(call(session)))
      end, { capabilities = capabilities })
    end)
  end

  it("give a thread of many answers to answers", function()
    converse({ { "UID THREAD REFS UTF-8 ALL", "* THREAD " .. deep .. "\r\n%T OK done\r\n" } },
      function(session)
        local here, depth = assert(session:thread "refs")[1], 0
        while here do here, depth = here[1], depth + 1 end
        assert.equal(150, depth)
      end, { capabilities = { "THREAD=REFS" } })
  end)

  for _, case in ipairs(odd) do
    it("are refused before a byte is sent with " .. case[1], function()
      local ok, why = with_no_command(case[2], { "SORT", "THREAD=REFS", "ESORT" })
      assert.is_false(ok)
      assert.is_false(errors.is(why))
      assert.matches(case[3], why)
    end)
  end

  for _, case in ipairs(lacking) do
    it(("are unsupported without %s, with %s"):format(case[3], table.concat(case[2], ", ")),
      function()
        local _, found, err = with_no_command(case[1], case[2])
        assert.is_nil(found)
        assert.equal("unsupported", err.kind)
        assert.matches(case[3] .. ",", err.message, 1, true)
      end)
  end

  for name, call in pairs { sort = sort "date", thread = thread "refs" } do
    it("tell when the server can't read UTF-8: " .. name, function()
      local command = name == "sort" and "UID SORT (DATE) UTF-8 ALL" or "UID THREAD REFS UTF-8 ALL"
      converse({ { command, "%T NO [BADCHARSET] no\r\n" } }, function(session)
        local found, err = call(session)
        assert.is_nil(found)
        assert.equal("BADCHARSET", err.status)
        assert.equal(name, err.during)
        assert.matches("beyond ASCII", err.hint)
      end, { capabilities = { "SORT", "THREAD=REFS" } })
    end)
  end

  it("wait for a change of flags that they may tell of", function()
    converse({
      { "UID STORE 1 +FLAGS.SILENT (x)", "%T OK done\r\n" },
      { "UID SORT (DATE) UTF-8 KEYWORD x", "* SORT 1\r\n%T OK done\r\n" },
      { "UID THREAD REFS UTF-8 KEYWORD x", "* THREAD (1)\r\n%T OK done\r\n" },
    }, function(session)
      assert(session:pipeline(function(p)
        p:store(1, { add = { "x" } }, { silent = true })
        local sorted, threads = p:sort("date", { keyword = "x" }), p:thread("refs", "KEYWORD x")
        assert.same({ { number = 1 } }, threads:get())
        assert.same({ 1 }, sorted:get())
      end))
    end, { capabilities = { "SORT", "THREAD=REFS" } })
  end)
end)

describe("Dovecot's sort and thread", function()
  local mail, session

  local function letter(number, subject, rest)
    return ("Message-ID: <%d@x.test>\r\nDate: Mon, %d Feb 1994 21:52:25 -0800\r\nSubject: %s\r\n%s"
      .. "\r\ntext\r\n"):format(number, 10 - number, subject, rest)
  end

  setup(function()
    mail = servers.shared()
    clients.empty(mail, "alice")
    mail:deliver("alice", letter(1, "b", "From: Zoe <a@x.test>\r\n"))
    mail:deliver("alice", letter(2, "Re: b", "From: Bob <c@x.test>\r\nIn-Reply-To: <1@x.test>\r\n"))
    mail:deliver("alice", letter(3, "=?utf-8?q?=C3=A4?=", "From: Yves <b@x.test>\r\n"))
    session = clients.connect(mail, "imap")
    assert(session:select "INBOX")
  end)

  teardown(function()
    session:close()
    clients.empty(mail, "alice")
  end)

  local by_seq = { seq = true }

  it("order by any key", function()
    assert.same({ 3, 2, 1 }, session:sort("date", nil, by_seq))
    assert.same({ 1, 2, 3 }, session:sort({ "reverse date" }, {}, by_seq))
    assert.same({ 1, 3, 2 }, session:sort({ "from" }, "ALL", by_seq))
    assert.same({ 2, 3, 1 }, session:sort({ "displayfrom" }, {}, by_seq))
    assert.same({ 2, 1 }, session:sort({ "date" }, { subject = "b" }, by_seq))
    assert.same({ 3 }, session:sort({ "subject", "size" }, { subject = "ä" }, by_seq))
    assert.equal(3, #assert(session:sort "arrival"))
  end)

  it("return what is asked for", function()
    local told = assert(session:sort("date", {}, { seq = true,
      returns = { "min", "max", "count", "all" } }))
    assert.same({ 3, 1, 3 }, { told.min, told.max, told.count })
    assert.same({ 3, 2, 1 }, imap.numbers_of(told.all))
  end)

  it("find threads", function()
    for _, algorithm in ipairs { "references", "refs" } do
      assert.same({ { number = 3 }, { number = 1, { number = 2 } } },
        session:thread(algorithm, {}, by_seq), algorithm)
    end
    assert.same({ { number = 3 }, { number = 2, { number = 1 } } }, -- by date
      session:thread("orderedsubject", {}, by_seq))
    assert.same({ { number = 3 } }, session:thread("references", { subject = "ä" }, by_seq))
  end)
end)
