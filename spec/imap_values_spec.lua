-- What IMAP responses become in Lua: named fields, decoded texts. Where an RFC has an example
-- line, it is that.

local core = require "starttls.core"
local responses = require "spec.support.responses"

local function flags(...)
  local set = { ... }
  for _, flag in ipairs { ... } do set[flag] = true end
  return set
end

local function address(name, mailbox, host)
  return { name = name, mailbox = mailbox, host = host, address = mailbox .. "@" .. host }
end

local function fetch(items)
  return "* 12 FETCH (" .. items .. ")\r\n"
end

local function envelope(fields)
  return fetch("ENVELOPE (" .. fields .. ")")
end

local function message(fields)
  fields.seq = 12
  return fields
end

-- An envelope with these fields; the arrays of addresses are there in any case.
local function with_envelope(fields)
  for _, name in ipairs { "from", "sender", "reply_to", "to", "cc", "bcc" } do
    fields[name] = fields[name] or {}
  end
  return message { envelope = fields }
end

local gray = address("Terry Gray", "gray", "cac.washington.edu")

-- RFC 9051 8: the envelope of the sample session.
local rfc_envelope = '"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)" '
  .. '"IMAP4rev2 WG mtg summary and minutes" '
  .. '(("Terry Gray" NIL "gray" "cac.washington.edu")) '
  .. '(("Terry Gray" NIL "gray" "cac.washington.edu")) '
  .. '(("Terry Gray" NIL "gray" "cac.washington.edu")) '
  .. '((NIL NIL "imap" "cac.washington.edu")) '
  .. '((NIL NIL "minutes" "CNRI.Reston.VA.US")("John Klensin" NIL "KLENSIN" "MIT.EDU")) NIL NIL '
  .. '"<B27397-0100000@cac.washington.edu>"'

local function subject(wire, decoded)
  return { "a subject " .. wire, envelope(('NIL %s NIL NIL NIL NIL NIL NIL NIL NIL'):format(wire)),
    with_envelope { subject = decoded } }
end

local function date(text, seconds)
  return { "the date " .. text, envelope(('"%s" NIL NIL NIL NIL NIL NIL NIL NIL NIL'):format(text)),
    with_envelope { date = text, time = seconds } }
end

local messages = {
  { "an envelope", envelope(rfc_envelope), with_envelope {
    date = "Wed, 17 Jul 1996 02:23:25 -0700 (PDT)", time = 837595405,
    subject = "IMAP4rev2 WG mtg summary and minutes", from = { gray }, sender = { gray },
    reply_to = { gray }, to = { address(nil, "imap", "cac.washington.edu") },
    cc = { address(nil, "minutes", "CNRI.Reston.VA.US"),
      address("John Klensin", "KLENSIN", "MIT.EDU") },
    message_id = "<B27397-0100000@cac.washington.edu>" } },
  { "groups", envelope('NIL NIL NIL NIL NIL ((NIL NIL "=?utf-8?Q?Gr=C3=BCn?=" NIL)'
      .. '("=?utf-8?B?w6Q=?=" NIL "a" "x.test")(NIL NIL "b" "x.test")(NIL NIL NIL NIL)'
      .. '(NIL NIL "c" "x.test")(NIL NIL "empty" NIL)(NIL NIL NIL NIL)) NIL NIL NIL NIL'),
    with_envelope { to = {
      { name = "Gr\u{fc}n", group = { address("\u{e4}", "a", "x.test"),
        address(nil, "b", "x.test") } },
      address(nil, "c", "x.test"), { name = "empty", group = {} } } } },
  { "an address of 300 octets", envelope('NIL NIL ((NIL NIL "' .. ("a"):rep(300)
      .. '" "x.test")) NIL NIL NIL NIL NIL NIL NIL'),
    with_envelope { from = { address(nil, ("a"):rep(300), "x.test") } } },

  -- RFC 2047 8 and 5
  subject('"=?ISO-8859-1?Q?Andr=E9?= Pirard"', "Andr\u{e9} Pirard"),
  subject('"=?ISO-8859-1?Q?a?="', "a"),
  subject('"=?ISO-8859-1?Q?a?= b"', "a b"),
  subject('"=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?="', "ab"),
  subject('"=?ISO-8859-1?Q?a_b?="', "a b"),
  subject('"=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?="', "a b"),
  subject('"=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=   '
    .. '=?ISO-8859-2?B?dSB1bmRlcnN0YW5kIHRoZSBleGFtcGxlLg==?="',
    "If you can read this you understand the example."),
  subject('"=?utf-8?Q?=E2=82?= =?UTF-8?q?=AC_=f0=9f?= =?utf-8?b?mIA?="', "\u{20ac} \u{1f600}"),
  subject('"=?us-ascii*en-us?Q?RFC_2231?="', "RFC 2231"),
  subject('"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?="', "\u{65e5}\u{672c}"),
  subject('"=?koi8-r?B?8NLJ18XU?="', "\u{41f}\u{440}\u{438}\u{432}\u{435}\u{442}"),
  subject('"=?gb2312?B?1tDOxA==?="', "\u{4e2d}\u{6587}"),
  subject('"=?windows-1252?Q?=80=92?="', "\u{20ac}\u{2019}"),
  subject('"=?utf-8?Q?with blanks?="', "with blanks"),
  subject('"a=?utf-8?Q?b?=c"', "abc"),
  -- what is left as it stands
  subject('"=?x-unknown?Q?a?= =?utf-8?Q?b?= c"', "=?x-unknown?Q?a?= b c"),
  subject('"=?utf-8?Q?b?=  =?x-unknown?Q?a?="', "b  =?x-unknown?Q?a?="),
  subject('"=?utf-8?Q?a=Z1?= =?utf-8?B?*?= =?utf-8?Q?=FF?="',
    "=?utf-8?Q?a=Z1?= =?utf-8?B?*?= =?utf-8?Q?=FF?="),
  subject('"=?utf-8?Q?a?= =?utf-8?Q?=C3?= =?utf-8?Q?b?="', "a =?utf-8?Q?=C3?= b"),
  subject('"=?utf-8?X?a?= =?utf-8 =? ?= =?utf-8?Q?"', "=?utf-8?X?a?= =?utf-8 =? ?= =?utf-8?Q?"),
  subject('"=?UTF-8//IGNORE?Q?a?="', "=?UTF-8//IGNORE?Q?a?="),
  -- raw 8-bit text
  subject('"Gr\u{fc}\u{df}e"', "Gr\u{fc}\u{df}e"),
  subject('"Gr\xfc\xdfe \x80"', "Gr\u{fc}\u{df}e \u{20ac}"),
  subject('{8}\r\na\r\n b\r\nc', "a bc"),
  subject('""', ""),
  { "raw octets in addresses and ids", envelope('"\xff" NIL (("\xe4" NIL "\xfc" "\xf6.test")) '
      .. 'NIL NIL NIL NIL NIL "<\xdf>" "<a>"'),
    with_envelope { date = "\u{ff}", from = { address("\u{e4}", "\u{fc}", "\u{f6}.test") },
      in_reply_to = "<\u{df}>", message_id = "<a>" } },

  -- RFC 5322 A.1, A.6.2, and what is met besides
  date("Fri, 21 Nov 1997 09:55:06 -0600", 880127706),
  date("21 Nov 97 09:55:06 GMT", 880106106),
  date("Mon, 21 Nov 97 09:55 EST", 880124100),
  date("Fri, 21 Nov 1997 09(comment):   55  :  06 -0600", 880127706),
  date("Thu, 13 Feb 1969 23:32 -0330", -27723480),
  date("Fri Nov 21 09:55:06 1997", 880106106),
  date("1997-11-21T09:55:06.25+01:00", 880102506),
  date("21-Nov-1997", 880070400),
  date("Tue, 31 Feb 2023 10:00:00 +0000", nil),
  date("Tue, 29 Feb 2024 24:00:00 Z", 1709251200),
  date("some day", nil),
  date("", nil),

  -- RFC 9051 7.5.2, RFC 3501
  { "flags, size, date and UID", fetch('FLAGS (\\Seen $Junk) INTERNALDATE "17-Jul-1996 02:44:25 '
      .. '-0700" RFC822.SIZE 9223372036854775807 UID 4294967295'),
    message { flags = flags("\\Seen", "$Junk"), date = "17-Jul-1996 02:44:25 -0700",
      time = 837596665, size = math.maxinteger, uid = 4294967295 } },
  { "a modification sequence (RFC 7162 3.1.4.2)", fetch "UID 4 MODSEQ (12121231000) FLAGS ()",
    message { uid = 4, modseq = 12121231000, flags = {} } },
  { "object ids (RFC 8474 7.6)", fetch "EMAILID (M6d99ac3275bb4e) THREADID (T64b478a75b7ea9)",
    message { emailid = "M6d99ac3275bb4e", threadid = "T64b478a75b7ea9" } },
  { "no thread", fetch "EMAILID (M6d99ac3275bb4e) THREADID NIL",
    message { emailid = "M6d99ac3275bb4e" } },
  { "when it was saved (RFC 8514)", fetch 'SAVEDATE "26-Sep-2020 11:15:32 +0000"',
    message { save_date = "26-Sep-2020 11:15:32 +0000", save_time = 1601118932 } },
  { "no such date", fetch "SAVEDATE NIL UID 3", message { uid = 3 } },
  { "a preview (RFC 8970)", fetch 'PREVIEW "Preview text \u{263a}"',
    message { preview = "Preview text \u{263a}" } },
  { "sizes of sections (RFC 3516)", fetch "BINARY.SIZE[1.2] 42 BINARY.SIZE[] 7",
    message { binary_size = { ["1.2"] = 42, [""] = 7 } } },
  { "Gmail's items", fetch('X-GM-THRID 1278455344230334865 X-GM-MSGID 18446744073709551615 '
      .. 'X-GM-LABELS ("\\\\Inbox" \\Sent Entw&APw-rfe "Muy Importante")'),
    message { gm_thrid = 1278455344230334865, gm_msgid = "18446744073709551615",
      gm_labels = { "\\Inbox", "\\Sent", "Entw\u{fc}rfe", "Muy Importante" } } },
  { "sections in quotes", fetch 'BODY[HEADER.FIELDS (FROM)] "a" BODY[TEXT]<5> "b" BODY[2] NIL',
    message { sections = { ["HEADER.FIELDS (FROM)"] = "a", ["TEXT<5>"] = "b" } } },
  { "what nobody knows", fetch 'X-New-Item (a "b" (NIL 3)) Y 18446744073709551616',
    message { ["x-new-item"] = { "a", "b", { false, 3 } }, y = "18446744073709551616" } },
  { "a message by its UID (RFC 9586)", "* 25996 UIDFETCH (FLAGS (\\Seen))\r\n",
    { uid = 25996, flags = flags "\\Seen" } },
}

local function set_of(...) return { tag = "A1", uid = true, all = ... } end

local others = {
  -- mailboxes
  { "LIST (RFC 9051 6.3.9.8)", '* LIST (\\Marked \\NoInferiors) "/" "inbox"\r\n',
    { name = "inbox", delimiter = "/", flags = flags("\\Marked", "\\NoInferiors") } },
  { "what LIST extends (RFC 5258 5)",
    '* LIST (\\NonExistent) "/" "Foo" ("CHILDINFO" ("SUBSCRIBED" "X") "X-T" ((A 1) NIL))\r\n',
    { name = "Foo", delimiter = "/", flags = flags "\\NonExistent",
      childinfo = { "SUBSCRIBED", "X" }, ["x-t"] = { { "A", 1 }, false } } },
  { "a new name (RFC 9051 6.3.9.7)", '* LIST () "/" "NewMailbox" ("OLDNAME" ("Entw&APw-rfe"))\r\n',
    { name = "NewMailbox", delimiter = "/", flags = {}, old_name = "Entw\u{fc}rfe" } },
  { "LSUB", '* LSUB () "." #news.comp.mail.misc\r\n',
    { name = "#news.comp.mail.misc", delimiter = ".", flags = {} } },
  { "STATUS", "* STATUS blurdybloop (MESSAGES 231 UIDNEXT 44292 UIDVALIDITY 1 UNSEEN 0 RECENT 2 "
      .. "SIZE 9000000000 DELETED 3 DELETED-STORAGE 5000000000 HIGHESTMODSEQ 715194045007 "
      .. "APPENDLIMIT 257890 MAILBOXID (F2212ea87-6097-4256-9d51-71338625))\r\n",
    { name = "blurdybloop", messages = 231, uidnext = 44292, uidvalidity = 1, unseen = 0,
      recent = 2, size = 9000000000, deleted = 3, deleted_storage = 5000000000,
      highestmodseq = 715194045007, appendlimit = 257890,
      mailboxid = "F2212ea87-6097-4256-9d51-71338625" } },
  { "no limit", '* STATUS "a b" (APPENDLIMIT NIL MESSAGES 1)\r\n', { name = "a b", messages = 1 } },
  { "NAMESPACE (RFC 9051 6.3.10)", '* NAMESPACE (("" "/")("#mh/" "/" "X-PARAM" ("FLAG1" "FLAG2"))) '
      .. 'NIL (("#shared/" "/")("#ftp/" NIL))\r\n',
    { personal = { { prefix = "", delimiter = "/", extensions = {} },
        { prefix = "#mh/", delimiter = "/", extensions = { ["x-param"] = { "FLAG1", "FLAG2" } } } },
      other = {}, shared = { { prefix = "#shared/", delimiter = "/", extensions = {} },
        { prefix = "#ftp/", extensions = {} } } } },
  { "QUOTA (RFC 9208)", '* QUOTA "!partition/sda4" (STORAGE 104 10923847 message 1 2)\r\n',
    { root = "!partition/sda4", resources = { STORAGE = { usage = 104, limit = 10923847 },
      MESSAGE = { usage = 1, limit = 2 } } } },
  { "a quota of nothing", '* QUOTA "" ()\r\n', { root = "", resources = {} } },
  { "QUOTAROOT", '* QUOTAROOT INBOX "" "b c"\r\n', { name = "INBOX", roots = { "", "b c" } } },
  { "no QUOTAROOT", "* QUOTAROOT comp.mail.mime\r\n", { name = "comp.mail.mime", roots = {} } },
  { "ACL (RFC 4314)", '* ACL INBOX Fred rwipsldexta "anna b" lr\r\n',
    { name = "INBOX", rights = { Fred = "rwipsldexta", ["anna b"] = "lr" } } },
  { "LISTRIGHTS", '* LISTRIGHTS archive/imap anyone "" l r s w i p k x t e c d a\r\n',
    { name = "archive/imap", identifier = "anyone", required = "", optional = { "l", "r", "s", "w",
      "i", "p", "k", "x", "t", "e", "c", "d", "a" } } },
  { "MYRIGHTS", "* MYRIGHTS INBOX rwiptsldaex\r\n", { name = "INBOX", rights = "rwiptsldaex" } },
  { "METADATA (RFC 5464)", '* METADATA "INBOX" (/private/comment "My comment" '
      .. '/shared/comment {6}\r\nits ok /x NIL)\r\n',
    { name = "INBOX", entries = { "/private/comment", "/shared/comment", "/x" },
      values = { ["/private/comment"] = "My comment", ["/shared/comment"] = "its ok" } } },
  { "METADATA that changed", '* METADATA "" /shared/comment /private/comment\r\n',
    { name = "", entries = { "/shared/comment", "/private/comment" } } },
  { "FLAGS", "* FLAGS (\\Answered $MDNSent)\r\n", flags("\\Answered", "$MDNSent") },

  -- the server
  { "ID (RFC 2971)", '* ID ("Name" "Cyrus" "version" "1.5" "os" NIL)\r\n',
    { name = "Cyrus", version = "1.5" } },
  { "no ID", "* ID NIL\r\n", {} },
  { "ENABLED", "* ENABLED CONDSTORE X-GOOD-IDEA\r\n", { "CONDSTORE", "X-GOOD-IDEA" } },
  { "ENABLED nothing", "* ENABLED\r\n", {} },
  { "CAPABILITY", "* CAPABILITY IMAP4rev1 IMAP4rev2 AUTH=PLAIN\r\n",
    { "IMAP4rev1", "IMAP4rev2", "AUTH=PLAIN" } },
  { "LANGUAGE (RFC 5255)", "* LANGUAGE (EN DE IT i-default)\r\n",
    { "EN", "DE", "IT", "i-default" } },
  { "JMAPACCESS (RFC 9698)", '* JMAPACCESS "https://example.com/.well-known/jmap"\r\n',
    { url = "https://example.com/.well-known/jmap" } },
  { "what nobody knows", '* XYZZY (a (b)) "c" NIL 5\r\n', { { "a", { "b" } }, "c", false, 5 } },

  -- searching
  { "SEARCH", "* SEARCH 2 3 6\r\n", { 2, 3, 6 } },
  { "SEARCH with MODSEQ (RFC 7162)", "* SEARCH 2 5 6 7 (MODSEQ 917162500)\r\n",
    { 2, 5, 6, 7, modseq = 917162500 } },
  { "SORT", "* SORT 5 3 4 1 2\r\n", { 5, 3, 4, 1, 2 } },
  { "ESEARCH (RFC 4731)", '* ESEARCH (TAG "A1") UID ALL 5:6,10\r\n', set_of "5:6,10" },
  { "ESEARCH by sequence numbers",
    '* ESEARCH (TAG "a567") MIN 2 COUNT 23 MAX 99 ALL 7 MODSEQ 917162500\r\n',
    { tag = "a567", uid = false, min = 2, count = 23, max = 99, all = "7", modseq = 917162500 } },
  { "ESEARCH that found nothing", '* ESEARCH (TAG "A1") UID\r\n', set_of(nil) },
  { "PARTIAL (RFC 9394)", '* ESEARCH (TAG "A01") UID PARTIAL (-1:-100 200:250,300)\r\n',
    { tag = "A01", uid = true, partial = { range = "-1:-100", set = "200:250,300" } } },
  { "PARTIAL of nothing",
    '* ESEARCH (TAG "A02") UID PARTIAL (23500:24000 NIL) RELEVANCY (4 99)\r\n',
    { tag = "A02", uid = true, partial = { range = "23500:24000" }, relevancy = { 4, 99 } } },
  { "ESEARCH of several mailboxes (RFC 7377)",
    '* ESEARCH (TAG "t" MAILBOX "f&APw-r" UIDVALIDITY 1) UID ADDTO (1 2:3)\r\n',
    { tag = "t", mailbox = "f\u{fc}r", uidvalidity = 1, uid = true, addto = { 1, "2:3" } } },
  { "VANISHED (RFC 7162)", "* VANISHED (EARLIER) 300:310,405,411\r\n",
    { earlier = true, uids = "300:310,405,411" } },
  { "VANISHED just now", "* VANISHED 505,507\r\n", { earlier = false, uids = "505,507" } },
  { "THREAD (RFC 5256)", "* THREAD (2)(3 6 (4 23)(44 7 96))\r\n", {
    { number = 2 },
    { number = 3, { number = 6, { number = 4, { number = 23 } },
      { number = 44, { number = 7, { number = 96 } } } } } } },
  { "THREAD without its first message", "* THREAD ((3)(5 6))\r\n",
    { { { number = 3 }, { number = 5, { number = 6 } } } } },
  { "no THREAD", "* THREAD\r\n", {} },
}

-- Response codes: what stands in the brackets, and the field.
local codes = {
  { "APPENDUID 38505 3955", "appenduid", { uidvalidity = 38505, uids = "3955" } },
  { "COPYUID 38505 304,319:320 3956:3958", "copyuid",
    { uidvalidity = 38505, source = "304,319:320", destination = "3956:3958" } },
  { "PERMANENTFLAGS (\\Deleted \\*)", "permanentflags", flags("\\Deleted", "\\*") },
  { "UIDNEXT 4392", "uidnext", 4392 }, { "UIDVALIDITY 3857529045", "uidvalidity", 3857529045 },
  { "UNSEEN 12", "unseen", 12 }, { "HIGHESTMODSEQ 715194045007", "highestmodseq", 715194045007 },
  { "MODIFIED 7,9", "modified", "7,9" }, { "MODIFIED 7", "modified", "7" },
  { "BADCHARSET (UTF-8 KOI8-R)", "badcharset", { "UTF-8", "KOI8-R" } },
  { "BADCHARSET", "badcharset", true },
  { "METADATA LONGENTRIES 2199", "metadata", { longentries = 2199 } },
  { "METADATA MAXSIZE 1024", "metadata", { maxsize = 1024 } },
  { "METADATA TOOMANY", "metadata", { toomany = true } },
  { "METADATA NOPRIVATE", "metadata", { noprivate = true } },
  { 'INPROGRESS ("A001" 454 1000)', "inprogress", { tag = "A001", done = 454, goal = 1000 } },
  { 'INPROGRESS ("A001" 999 NIL)', "inprogress", { tag = "A001", done = 999 } },
  { "INPROGRESS", "inprogress", true },
  { "MAILBOXID (F2212ea87-6097)", "mailboxid", "F2212ea87-6097" },
  { "REFERRAL imap://[::1]/a%20(b)/;UID=20", "referral", "imap://[::1]/a%20(b)/;UID=20" },
  { "BADURL imap://x/;UID=1", "badurl", "imap://x/;UID=1" },
  { "BADEVENT (MessageNew MessageExpunge)", "badevent", { "MessageNew", "MessageExpunge" } },
  { "UNDEFINED-FILTER on-the-road", "undefined_filter", "on-the-road" },
  { "MESSAGELIMIT 1000 23221", "messagelimit", { limit = 1000, uid = 23221 } },
  { "CAPABILITY IMAP4rev1 LITERAL+", "capability", { "IMAP4rev1", "LITERAL+" } },
  { "ANNOTATE TOOBIG", "annotate", { toobig = true } },
  { "ANNOTATIONS 20480 NOPRIVATE", "annotations", { 20480, "NOPRIVATE" } },
  { 'NOUPDATE "B02"', "noupdate", "B02" },
  { "URLMECH INTERNAL X=y", "urlmech", { "INTERNAL", "X=y" } },
  { "MAXCONVERTPARTS 3", "maxconvertparts", 3 }, { "READ-ONLY", "read_only", true },
  { "trycreate", "trycreate", true }, { "UNKNOWN-CTE", "unknown_cte", true },
  { "UIDREQUIRED", "uidrequired", true }, { "OVERQUOTA", "overquota", true },
  { "NOTIFICATIONOVERFLOW", "notificationoverflow", true },
}

local function texts_of(...)
  local texts = {}
  for _, cases in ipairs { ... } do
    for _, case in ipairs(cases) do texts[#texts + 1] = case[2] end
  end
  return texts
end

describe("IMAP values", function()
  local by_text = {}

  setup(function()
    local texts = texts_of(messages, others)
    for index, answer in ipairs(responses.read(texts)) do by_text[texts[index]] = answer end
  end)

  for _, cases in ipairs { messages, others } do
    for _, case in ipairs(cases) do
      it("are made of " .. case[1], function()
        local answer = assert(by_text[case[2]], "the session ended before")
        assert.is_nil(answer.err)
        assert.same(case[3], answer.values[1])
      end)
    end
  end

  it("are the same when they come byte by byte", function()
    local texts = texts_of(messages, others)
    for index, answer in ipairs(responses.read(texts, { slow = true })) do
      assert.is_nil(answer.err)
      assert.same(by_text[texts[index]].values, answer.values)
    end
  end)

  it("are valid UTF-8 in every text field", function()
    for _, case in ipairs(messages) do
      local fields = by_text[case[2]].values[1].envelope or {}
      for _, value in pairs(fields) do
        if type(value) == "string" then assert.truthy(utf8.len(value), value) end
      end
    end
  end)

  describe("of response codes", function()
    local answers

    setup(function()
      local texts = {}
      for index, case in ipairs(codes) do
        texts[index] = ("* OK [%s] t\r\n%%T OK [%s] done\r\n"):format(case[1], case[1])
      end
      answers = responses.read(texts)
    end)

    for index, case in ipairs(codes) do
      it("are a field: " .. case[1], function()
        local value, reply = answers[index].values[1], answers[index].reply
        assert.same(case[3], value[case[2]])
        assert.same(case[3], reply[case[2]])
        assert.equals(case[1], value.code_text)
        assert.equals(case[1]:match "^%S+":upper(), value.code)
        assert.equals(value.code, reply.status)
        assert.equals("t", value.text)
        assert.equals("done", reply.text)
      end)
    end

    it("that are not known are text and nested arrays", function()
      local answer = responses.read { '%T OK [X-Why 5 (a "]" (NIL)) {3}\r\n]\r\n "b"] text\r\n' }[1]
      assert.same({ class = "positive", status = "X-WHY", text = "text",
        code_text = 'X-Why 5 (a "]" (NIL)) {3}\r\n]\r\n "b"',
        arguments = { 5, { "a", "]", { false } }, "]\r\n", "b" } }, answer.reply)
    end)
  end)

  it("name the section of streamed content", function()
    local answer = responses.read { "* 3 FETCH (UID 9 BODY[1.2]<0> {3}\r\nabc FLAGS ())\r\n" }[1]
    assert.same({ ["1.2<0>"] = "abc" }, answer.content)
    assert.same({ seq = 3, uid = 9, flags = {}, sections = {} }, answer.values[1])
  end)

  it("hold a thread of 20,000 messages, each the answer to the one before", function()
    local numbers = {}
    for i = 1, 20000 do numbers[i] = i end
    local thread = responses.value("* THREAD (" .. table.concat(numbers, " ") .. ")\r\n",
      { limits = { reply = 2 ^ 24 | 0 } })[1]
    for i = 1, 20000 do
      assert(thread.number == i and #thread <= 1)
      thread = thread[1]
    end
    assert.is_nil(thread)
  end)
end)

describe("sets of numbers", function()
  local sets = {
    { "", {} }, { "7", { 7 } }, { "1:3,7", { 1, 2, 3, 7 } }, { "1,2", { 1, 2 } },
    { "4294967294:4294967295", nil, { 4294967294, 4294967295 } },
    { "1,3,5:9", { 9, 1, 8, 3, 7, 6, 5, 3, 9 } },
  }
  for _, case in ipairs(sets) do
    it(("are written and read: %q"):format(case[1]), function()
      if case[2] then assert.equals(case[1], core.set_of(case[2])) end
      local numbers = case[3] or case[2]
      table.sort(numbers)
      local read = assert(core.numbers_of(case[1]))
      assert.equals(core.set_of(numbers), core.set_of(read))
    end)
  end

  it("keep their order, and may go down", function()
    assert.same({ 9, 2, 3, 4, 2 }, core.numbers_of "9,4:2,2")
  end)

  for _, set in ipairs { "*", "1:*", "0", "1:", ":1", "1,,2", "1,", ",1", "a", "1 2", "-1", "1:2:3",
    "99999999999999999999" } do
    it(("are not: %q"):format(set), function()
      local numbers, why = core.numbers_of(set)
      assert.is_nil(numbers)
      assert.equals("it is no set of numbers", why)
    end)
  end

  it("are read up to a limit", function()
    assert.equals(5, #core.numbers_of("1:5", 5))
    assert.same({ nil, "the set has more than 4 numbers" }, { core.numbers_of("1:5", 4) })
    assert.same({ nil, "the set has more than 10000000 numbers" },
      { core.numbers_of "1:9223372036854775807,1:9223372036854775807" })
  end)

  it("are made of positive integers only", function()
    for _, wrong in ipairs { 0, -1, 1.5, "x", true } do
      assert.has_error(function() core.set_of { 1, wrong } end)
    end
    assert.has_error(function() core.set_of "1" end)
  end)

  it("of a million numbers in any order take no time to speak of", function()
    local numbers = {}
    for i = 1, 1000000 do numbers[i] = (i * 7919) % 1000003 end
    local set = core.set_of(numbers)
    local count = #core.numbers_of(set)
    assert.equals(1000000, count)
  end)
end)
