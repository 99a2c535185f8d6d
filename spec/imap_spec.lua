-- What an IMAP session does with what the server says: responses of every form, in whatever
-- pieces they come, refusals, what is said unasked, and the end of a session. Most peers are
-- scripted and speak clear text, as the encryption makes no difference here; Dovecot is real.

local clients = require "spec.support.clients"
local Peer = require "spec.support.peer"
local peer_steps = require "spec.support.peer_steps"
local servers = require "spec.support.servers"

local imap = require "starttls.imap"

-- Dialogues -----------------------------------------------------------------------------------

local function connect(port, more)
  local options = { host = "127.0.0.1", port = port, tls = "none" }
  for name, value in pairs(more or {}) do options[name] = value end
  return imap.connect(options)
end

-- The peer's part: each command is answered. An exchange has `command` (all of the line behind
-- the tag, or nil for any) and `answer`, in which "%T" is the tag. `way`: how the answer comes.
local function follow(p, args)
  local ways = {
    whole = function(text) p:send(text) end,
    ["line by line"] = function(text)
      for line in text:gmatch "[^\n]*\n?" do
        if line ~= "" then p:send(line) p:sleep(0.0005) end
      end
    end,
    ["byte by byte"] = function(text) p:send_slowly(text, 0.0001) end,
  }
  p:imap_upgrade { secure = false, auth = false, after = args.capabilities }
  for _, exchange in ipairs(args.exchanges) do
    local tag, line = p:imap_expect ""
    local command = line:sub(#tag + 2, -3)
    if exchange.command and command ~= exchange.command then
      p:fail("expected %q, got %q", exchange.command, command)
    end
    ways[args.way](exchange.answer:gsub("%%T", tag) .. "")
  end
end

-- Runs `use(session)` against a peer that gives these answers. Returns the peer's record.
-- `more`: the `way` of the answers, the peer's `capabilities`, and `on` for the session.
local function converse(exchanges, use, more)
  more = more or {}
  local peer <close> = Peer.start(follow, { exchanges = exchanges, way = more.way or "whole",
    capabilities = more.capabilities or {} })
  local session <close> = assert(connect(peer.port, { on = more.on }))
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

local function flags(...)
  local set = { ... }
  for _, flag in ipairs { ... } do set[flag] = true end
  return set
end

-- Transcripts: the call, the command it sends, the answer, and what the call returns ------------

local function fetch_all(items, settings)
  return function(session) return session:fetch_all("1:*", items, settings) end
end

local nobody = { date = "Wed, 17 Jul 1996 02:23:25 -0700", time = 837595405, from = {},
  sender = {}, reply_to = {},
  to = {}, cc = {}, bcc = {} }

local transcripts = {
  -- LIST
  { "no mailbox", 'LIST "" "*"', "%T OK done\r\n",
    function(session) return session:list() end, {} },
  { "mailboxes of every spelling", 'LIST "x/" "%"',
    '* LIST (\\Noselect \\HasChildren) "/" foo\r\n'
      .. '* LIST () NIL INBOX\r\n'
      .. '* LIST () "/" "quo\\"te \\\\ back"\r\n'
      .. '* LIST () "\\\\" {7}\r\nlit"ral\r\n'
      .. '* LIST () "." "Entw&APw-rfe.&U,BTFw-.R&-D.&2D3eAA-"\r\n'
      .. '* LIST () "." Entw&APw-rfe\r\n'
      .. '* LIST () "/" "broken &AA utf7"\r\n'
      .. '* LIST () "/" "&&&"\r\n'
      .. '* LIST () "/" "b\u{fc}cher"\r\n'
      .. '* LIST () "/" "NIL"\r\n'
      .. '* LIST () "/" nil\r\n'
      .. '* LIST () "/" ""\r\n'
      .. '* LIST () "/" br]ack[et{3}\r\n'
      .. '* LIST (\\Subscribed) "/" foo ("CHILDINFO" ("SUBSCRIBED"))\r\n'
      .. '* list () "/" lower\r\n%T OK done\r\n',
    function(session) return session:list("x/", "%") end, {
      { name = "foo", delimiter = "/", flags = flags("\\Noselect", "\\HasChildren") },
      { name = "INBOX", flags = {} },
      { name = 'quo"te \\ back', delimiter = "/", flags = {} },
      { name = 'lit"ral', delimiter = "\\", flags = {} },
      { name = "Entw\u{fc}rfe.\u{53f0}\u{5317}.R&D.\u{1F600}", delimiter = ".", flags = {} },
      { name = "Entw\u{fc}rfe", delimiter = ".", flags = {} },
      { name = "broken &AA utf7", delimiter = "/", flags = {} },
      { name = "&&&", delimiter = "/", flags = {} },
      { name = "b\u{fc}cher", delimiter = "/", flags = {} },
      { name = "NIL", delimiter = "/", flags = {} },
      { name = "NIL", delimiter = "/", flags = {} },
      { name = "", delimiter = "/", flags = {} },
      { name = "br]ack[et{3}", delimiter = "/", flags = {} },
      { name = "foo", delimiter = "/", flags = flags "\\Subscribed", childinfo = { "SUBSCRIBED" } },
      { name = "lower", delimiter = "/", flags = {} },
    } },

  -- STATUS
  { "a mailbox's counts", 'STATUS "Entw&APw-rfe" (MESSAGES UIDNEXT UIDVALIDITY UNSEEN)',
    '* STATUS "Entw&APw-rfe" (MESSAGES 231 UIDNEXT 44292 unseen 0 UIDVALIDITY 4294967295)\r\n'
      .. "%T OK done\r\n",
    function(session) return session:status "Entw\u{fc}rfe" end,
    { name = "Entw\u{fc}rfe", messages = 231, uidnext = 44292, unseen = 0,
      uidvalidity = 4294967295 } },
  { "the counts that are asked for", 'STATUS "x" (SIZE HIGHESTMODSEQ)',
    "* STATUS {1}\r\nx (SIZE 5000000000 HIGHESTMODSEQ 9223372036854775807)\r\n%T OK done\r\n",
    function(session) return session:status("x", { "size", "highestmodseq" }) end,
    { name = "x", size = 5000000000, highestmodseq = 9223372036854775807 } },

  -- SELECT, EXAMINE
  { "a mailbox", 'SELECT "INBOX"',
    "* 172 EXISTS\r\n* 1 RECENT\r\n* OK [UNSEEN 12] Message 12 is first unseen\r\n"
      .. "* OK [UIDVALIDITY 3857529045] UIDs valid\r\n* OK [UIDNEXT 4392] Predicted next UID\r\n"
      .. "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n"
      .. "* OK [PERMANENTFLAGS (\\Deleted \\Seen \\*)] Limited\r\n"
      .. "* OK [HIGHESTMODSEQ 715194045007] Highest\r\n* OK [CLOSED] what?\r\n"
      .. "* LIST () \"/\" INBOX\r\n%T OK [READ-WRITE] SELECT completed\r\n",
    function(session) return session:select "INBOX" end,
    { name = "INBOX", exists = 172, recent = 1, unseen = 12, uidvalidity = 3857529045,
      uidnext = 4392, flags = flags("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft"),
      permanent_flags = { "\\Deleted", "\\Seen", "\\*" }, highestmodseq = 715194045007,
      read_only = false } },
  { "a mailbox that can't be changed", 'SELECT "x"',
    "* 0 EXISTS\r\n* FLAGS ()\r\n* OK [PERMANENTFLAGS ()] none\r\n* OK [NOMODSEQ] none\r\n"
      .. "%T OK [READ-ONLY] done\r\n",
    function(session) return session:select "x" end,
    { name = "x", exists = 0, flags = {}, permanent_flags = {}, read_only = true } },
  { "a mailbox that is examined, of which little is said", 'EXAMINE "x"', "%T OK done\r\n",
    function(session) return session:examine "x" end,
    { name = "x", exists = 0, flags = {}, permanent_flags = {}, read_only = true } },
  { "a mailbox in lower case", 'SELECT "x"',
    "* 3 exists\r\n* flags (\\Seen)\r\n* ok [uidvalidity 5] x\r\n%T ok [read-only] done\r\n",
    function(session) return session:select "x" end,
    { name = "x", exists = 3, flags = flags "\\Seen", permanent_flags = {}, uidvalidity = 5,
      read_only = true } },

  -- FETCH
  { "no message", "UID FETCH 1:* (UID FLAGS)", "%T OK done\r\n", fetch_all { "flags" }, {} },
  { "flags, size and date", "UID FETCH 1:* (UID FLAGS RFC822.SIZE INTERNALDATE)",
    '* 12 FETCH (UID 101 FLAGS (\\Seen \\Answered $Junk) RFC822.SIZE 44827 '
      .. 'INTERNALDATE "17-Jul-1996 02:44:25 -0700")\r\n'
      .. '* 13 FETCH (INTERNALDATE " 7-Jul-1996 02:44:25 +0000" RFC822.SIZE 4294967296 FLAGS () '
      .. 'UID 4294967295)\r\n'
      .. '* 14 fetch (uid 9 flags () rfc822.size 9223372036854775807 internaldate "some day")\r\n'
      .. "%T OK done\r\n",
    fetch_all { "uid", "flags", "size", "date" }, {
      { seq = 12, uid = 101, flags = flags("\\Seen", "\\Answered", "$Junk"), size = 44827,
        date = "17-Jul-1996 02:44:25 -0700", time = 837596665 },
      { seq = 13, uid = 4294967295, flags = {}, size = 4294967296,
        date = " 7-Jul-1996 02:44:25 +0000", time = 836707465 },
      { seq = 14, uid = 9, flags = {}, size = 9223372036854775807, date = "some day" },
    } },
  { "messages by their sequence numbers", "FETCH 1:* (FLAGS)",
    "* 2 FETCH (FLAGS (\\Seen))\r\n%T OK done\r\n", fetch_all({ "flags" }, { seq = true }),
    { { seq = 2, flags = flags "\\Seen" } } },
  { "an envelope", "UID FETCH 1:* (UID ENVELOPE)",
    '* 1 FETCH (UID 1 ENVELOPE ("Wed, 17 Jul 1996 02:23:25 -0700" {12}\r\nIMAP4 "news" '
      .. '(("Terry \\"T\\" Gray" NIL "gray" "cac.washington.edu")) '
      .. '((NIL NIL "gray" "cac.washington.edu")) '
      .. '(("J\u{fc}rgen" NIL "j" "x.test")(NIL NIL {3}\r\no"x "y.test")) '
      .. '((NIL NIL "friends" NIL)(NIL NIL "a" "x.test")("" NIL "b" "x.test")(NIL NIL NIL NIL)) '
      .. '((NIL NIL "MAILER-DAEMON" "")) NIL '
      .. '"<1@x.test>" "<B27397-0100000@cac.washington.edu>"))\r\n%T OK done\r\n',
    fetch_all { "envelope" }, { { seq = 1, uid = 1, envelope = {
      date = "Wed, 17 Jul 1996 02:23:25 -0700", time = 837595405, subject = 'IMAP4 "news"',
      from = { { name = 'Terry "T" Gray', mailbox = "gray", host = "cac.washington.edu",
        address = "gray@cac.washington.edu" } },
      sender = { { mailbox = "gray", host = "cac.washington.edu",
        address = "gray@cac.washington.edu" } },
      reply_to = { { name = "J\u{fc}rgen", mailbox = "j", host = "x.test", address = "j@x.test" },
        { mailbox = 'o"x', host = "y.test", address = 'o"x@y.test' } },
      to = { { name = "friends", group = {
        { mailbox = "a", host = "x.test", address = "a@x.test" },
        { name = "", mailbox = "b", host = "x.test", address = "b@x.test" } } } },
      cc = { { mailbox = "MAILER-DAEMON", host = "" } }, bcc = {},
      in_reply_to = "<1@x.test>", message_id = "<B27397-0100000@cac.washington.edu>",
    } } } },
  { "an envelope of which nothing is known", "UID FETCH 1:* (UID ENVELOPE)",
    '* 1 FETCH (ENVELOPE ("Wed, 17 Jul 1996 02:23:25 -0700" NIL NIL NIL NIL NIL NIL NIL NIL NIL) '
      .. "UID 1)\r\n%T OK done\r\n",
    fetch_all { "envelope" }, { { seq = 1, uid = 1, envelope = nobody } } },
  { "bodies as literals, quoted strings and NIL", "UID FETCH 1:* (UID BODY.PEEK[])",
    "* 1 FETCH (UID 1 BODY[] {12}\r\na: b\r\n\r\n{3}\r)\r\n"
      .. '* 2 FETCH (BODY[] "quoted \\"text\\" \u{fc}" UID 2)\r\n'
      .. "* 3 FETCH (UID 3 BODY[] {0}\r\n)\r\n"
      .. "* 4 FETCH (UID 4 BODY[] NIL)\r\n"
      .. "* 5 FETCH (UID 5 BODY[] \"\")\r\n"
      .. "* 6 FETCH (UID 6 BODY[] {5+}\r\n\0\xff\r\n))\r\n%T OK done\r\n",
    fetch_all { "body" }, {
      { seq = 1, uid = 1, body = "a: b\r\n\r\n{3}\r", sections = { [""] = "a: b\r\n\r\n{3}\r" } },
      { seq = 2, uid = 2, body = 'quoted "text" \u{fc}',
        sections = { [""] = 'quoted "text" \u{fc}' } },
      { seq = 3, uid = 3, body = "", sections = { [""] = "" } },
      { seq = 4, uid = 4, sections = {} },
      { seq = 5, uid = 5, body = "", sections = { [""] = "" } },
      { seq = 6, uid = 6, body = "\0\xff\r\n)", sections = { [""] = "\0\xff\r\n)" } },
    } },
  { "headers and text", "UID FETCH 1:* (UID BODY.PEEK[HEADER] BODY.PEEK[TEXT] FLAGS)",
    "* 1 FETCH (BODY[HEADER] {6}\r\na: b\r\n UID 1 BODY[TEXT] {3}\r\nxyz FLAGS ())\r\n"
      .. "%T OK done\r\n",
    fetch_all { "headers", "text", "flags" }, { { seq = 1, uid = 1, flags = {},
      headers = "a: b\r\n", text = "xyz", sections = { HEADER = "a: b\r\n", TEXT = "xyz" } } } },
  { "sections of every kind",
    "UID FETCH 1:* (UID BODY.PEEK[1.2]<0.5> BODY.PEEK[1.MIME] "
      .. "BODY.PEEK[HEADER.FIELDS (FROM TO)] BINARY.PEEK[2] BINARY.SIZE[2])",
    "* 1 FETCH (UID 1 BODY[1.2]<0> {5}\r\nhello BODY[1.MIME] \"mime\" "
      .. "BODY[HEADER.FIELDS (FROM TO)] {9}\r\nFrom: a\r\n BINARY[2] ~{4}\r\n\0\1\2\3 "
      .. "BINARY.SIZE[2] 4)\r\n%T OK done\r\n",
    fetch_all { "body[1.2]<0.5>", "BODY.PEEK[1.MIME]", "BODY[HEADER.FIELDS (From To)]",
      "BINARY.PEEK[2]", "BINARY.SIZE[2]" },
    { { seq = 1, uid = 1, binary_size = { ["2"] = 4 }, sections = { ["1.2<0>"] = "hello",
      ["1.MIME"] = "mime", ["HEADER.FIELDS (FROM TO)"] = "From: a\r\n", ["2"] = "\0\1\2\3" } } } },
  { "content by its old names", "UID FETCH 1:* (UID RFC822 RFC822.HEADER RFC822.TEXT)",
    "* 1 FETCH (UID 1 RFC822 {1}\r\nx RFC822.HEADER \"h\" RFC822.TEXT {1}\r\nt)\r\n%T OK done\r\n",
    fetch_all { "RFC822", "RFC822.HEADER", "RFC822.TEXT" }, { { seq = 1, uid = 1, body = "x",
      headers = "h", text = "t", sections = { [""] = "x", HEADER = "h", TEXT = "t" } } } },
  { "a structure", "UID FETCH 1:* (UID BODYSTRUCTURE)",
    '* 1 FETCH (UID 1 BODYSTRUCTURE (("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7BIT" 1152 23)'
      .. '("APPLICATION" "PDF" NIL NIL NIL {6}\r\nBASE64 4554) "MIXED"))\r\n%T OK done\r\n',
    fetch_all { "structure" }, { { seq = 1, uid = 1, structure = {
      section = "", type = "multipart", subtype = "mixed", parameters = {}, parts = {
        { section = "1", type = "text", subtype = "plain", parameters = { charset = "US-ASCII" },
          encoding = "7bit", size = 1152, lines = 23 },
        { section = "2", type = "application", subtype = "pdf", parameters = {},
          encoding = "base64", size = 4554 } } } } } },
  { "items of extensions", "UID FETCH 1:* (UID MODSEQ EMAILID X-GM-LABELS PREVIEW)",
    '* 1 FETCH (UID 1 MODSEQ (624140003) EMAILID (M6d99ac3275bb4e) X-GM-LABELS ("\\\\Inbox" a) '
      .. 'PREVIEW NIL)\r\n%T OK done\r\n',
    fetch_all { "modseq", "emailid", "x-gm-labels", "preview" }, { { seq = 1, uid = 1,
      modseq = 624140003, emailid = "M6d99ac3275bb4e", gm_labels = { "\\Inbox", "a" } } } },
  { "messages, and not what nobody asked for", "UID FETCH 1:* (UID BODY.PEEK[TEXT])",
    "* 5 EXISTS\r\n* 1 FETCH (FLAGS (\\Seen))\r\n* OK [ALERT] disk full\r\n"
      .. "* 1 FETCH (UID 1 BODY[TEXT] {1}\r\nx)\r\n* 2 EXPUNGE\r\n* 2 FETCH (UID 7 FLAGS ())\r\n"
      .. "* SEARCH 1 2 3\r\n* XYZZY (a (b)) \"c\"\r\n* 3 XYZZY\r\n%T OK done\r\n",
    fetch_all { "text" }, { { seq = 1, uid = 1, text = "x", sections = { TEXT = "x" } } } },

  -- SEARCH
  { "nothing", "UID SEARCH UNSEEN", "* SEARCH\r\n%T OK done\r\n",
    function(session) return session:search "UNSEEN" end, {} },
  { "nothing, without a word", "UID SEARCH UNSEEN", "%T OK done\r\n",
    function(session) return session:search "UNSEEN" end, {} },
  { "one", "UID SEARCH ALL", "* SEARCH 4294967295\r\n%T OK done\r\n",
    function(session) return session:search "ALL" end, { 4294967295 } },
  { "many, with blanks", 'UID SEARCH FROM "Smith" NOT SEEN',
    "* SEARCH 2  84 882 \r\n%T OK done\r\n",
    function(session) return session:search 'FROM "Smith" NOT SEEN' end, { 2, 84, 882 } },
  { "many, in several responses", "SEARCH ALL",
    "* SEARCH 2 3\r\n* 9 EXISTS\r\n* SEARCH\r\n* SEARCH 5\r\n%T OK done\r\n",
    function(session) return session:search("ALL", { seq = true }) end, { 2, 3, 5 } },

  -- STORE, COPY, EXPUNGE
  { "flags that are added", "UID STORE 2:4,7 +FLAGS (\\Deleted $x)",
    "* 2 FETCH (UID 2 FLAGS (\\Deleted \\Seen))\r\n* 3 FETCH (FLAGS (\\Deleted) UID 3)\r\n"
      .. "%T OK done\r\n",
    function(session) return session:store("2:4,7", { add = { "\\Deleted", "$x" } }) end,
    { { seq = 2, uid = 2, flags = flags("\\Deleted", "\\Seen") },
      { seq = 3, uid = 3, flags = flags "\\Deleted" } } },
  { "flags that are removed", "STORE 2,4 -FLAGS.SILENT (\\Seen)", "%T OK done\r\n",
    function(session)
      return session:store({ 2, 4 }, { remove = { "\\Seen" } }, { seq = true, silent = true })
    end, {} },
  { "flags that are replaced", "UID STORE 5 FLAGS ()", "%T OK done\r\n",
    function(session) return session:store(5, { replace = {} }) end, {} },
  { "a copy", 'UID COPY 2:4 "meeting"',
    "%T OK [COPYUID 38505 304,319:320 3956:3958] Done\r\n",
    function(session) return session:copy("2:4", "meeting") end,
    { uidvalidity = 38505, source = { 304, 319, 320 }, destination = { 3956, 3957, 3958 } } },
  { "what goes", "EXPUNGE", "* 3 EXPUNGE\r\n* 3 EXPUNGE\r\n* 5 EXPUNGE\r\n%T OK done\r\n",
    function(session) return session:expunge() end, { 3, 3, 5 } },
  { "what goes of some", "UID EXPUNGE 3000:3002", "* 3 EXPUNGE\r\n%T OK done\r\n",
    function(session) return session:expunge "3000:3002" end, { 3 } },

  -- The text of replies
  { "a reply without a code", "NOOP", "%T OK NOOP [not a code] done\r\n",
    function(session) return session:noop() end,
    { class = "positive", text = "NOOP [not a code] done", arguments = {} } },
  { "a reply without a text", "NOOP", "%T OK\r\n", function(session) return session:noop() end,
    { class = "positive", text = "", arguments = {} } },
  { "a reply with a code of which nothing is known", "NOOP",
    '%T OK [X-CODE 5 (a "]" (NIL)) {3}\r\n]\r\n "b"] text [x]\r\n',
    function(session) return session:noop() end, { class = "positive", status = "X-CODE",
      text = "text [x]", code_text = 'X-CODE 5 (a "]" (NIL)) {3}\r\n]\r\n "b"',
      arguments = { 5, { "a", "]", { false } }, "]\r\n", "b" } } },
  { "a reply with a code and no text", "NOOP", "%T OK [READ-ONLY]\r\n",
    function(session) return session:noop() end,
    { class = "positive", status = "READ-ONLY", text = "", arguments = {}, read_only = true,
      code_text = "READ-ONLY" } },
  { "a reply with a bare LF", "NOOP", "* 5 EXISTS\n%T OK done\n",
    function(session) return session:noop() end,
    { class = "positive", text = "done", arguments = {} } },
}

-- Commands that are refused, and what is told of that.
local commands = {
  { "list", function(session) return session:list() end },
  { "status", function(session) return session:status "x" end },
  { "select", function(session) return session:select "x" end },
  { "examine", function(session) return session:examine "x" end },
  { "fetch", function(session) return session:fetch_all("1:*", { "flags" }) end },
  { "search", function(session) return session:search "ALL" end },
  { "store", function(session) return session:store("1", { add = { "\\Seen" } }) end },
  { "copy", function(session) return session:copy("1", "x") end },
  { "expunge", function(session) return session:expunge() end },
  { "append", function(session) return session:append("x", "message\r\n") end },
  { "noop", function(session) return session:noop() end },
}

-- What the transcripts need.
local readable = { "UIDPLUS", "BINARY", "CONDSTORE", "OBJECTID", "PREVIEW", "SAVEDATE",
  "X-GM-EXT-1", "STATUS=SIZE" }

local noop = { command = "NOOP", answer = "%T OK done\r\n" }

describe("an IMAP session", function()
  describe("reads", function()
    for _, case in ipairs(transcripts) do
      it(case[1], function()
        converse({ { command = case[2], answer = case[3] } }, function(session)
          assert.same(case[5], assert(case[4](session)))
        end, { capabilities = readable })
      end)
    end

    for _, way in ipairs { "line by line", "byte by byte" } do
      it("all of that, when it comes " .. way, function()
        local exchanges = {}
        for i, case in ipairs(transcripts) do
          exchanges[i] = { command = case[2], answer = case[3] }
        end
        converse(exchanges, function(session)
          for _, case in ipairs(transcripts) do
            local result, err = case[4](session)
            assert(result, ("%s: %s"):format(case[1], err))
            assert.same(case[5], result, case[1])
          end
        end, { way = way, capabilities = readable })
      end)
    end

    it("a message, in whatever two pieces it comes", function()
      local answer = '* 3 FETCH (UID 8 FLAGS (\\Seen) BODY[] {9}\r\n{1}\r\n\r\n)\r '
        .. 'BODY[TEXT] "q\\"" ENVELOPE ("d" {2}\r\n)( NIL NIL NIL NIL NIL NIL NIL NIL))\r\n'
      local expected = { { seq = 3, uid = 8, flags = flags "\\Seen", body = "{1}\r\n\r\n)\r",
        text = 'q"', sections = { [""] = "{1}\r\n\r\n)\r", TEXT = 'q"' },
        envelope = { date = "d", subject = ")(", from = {}, sender = {}, reply_to = {}, to = {},
          cc = {}, bcc = {} } } }
      local peer <close> = Peer.start(function(p, args)
        p:imap_upgrade { secure = false, auth = false, after = {} }
        for at = 0, #args.answer do
          local tag = p:imap_expect "^UID FETCH"
          p:send(args.answer:sub(1, at))
          p:sleep(0.001)
          p:send(args.answer:sub(at + 1), tag, " OK done\r\n")
        end
      end, { answer = answer })
      local session <close> = assert(connect(peer.port))
      for at = 0, #answer do
        assert.same(expected, assert(session:fetch_all("8", { "body" })), ("cut at %d"):format(at))
      end
    end)
  end)

  describe("reports", function()
    for _, command in ipairs(commands) do
      it("a refusal of " .. command[1], function()
        converse({ { answer = "%T NO [X-WHY nothing] for no [good] reason\r\n" },
          { answer = "%T BAD what?\r\n" }, noop }, function(session)
          local result, err = command[2](session)
          assert.is_nil(result)
          assert_fields({ kind = "rejected", during = command[1], status = "X-WHY",
            text = "for no [good] reason", temporary = false }, err)
          result, err = command[2](session)
          assert.is_nil(result)
          assert_fields({ kind = "rejected", during = command[1], text = "what?" }, err)
          assert.is_nil(err.status)
          assert(session:noop())
        end)
      end)

      it(("a BYE to %s, which is the end"):format(command[1]), function()
        local heard = {}
        converse({ { answer = "* BYE [UNAVAILABLE] going down\r\n" } }, function(session)
          for _ = 1, 2 do
            local result, err = command[2](session)
            assert.is_nil(result)
            assert_fields({ kind = "closed", during = command[1], status = "UNAVAILABLE",
              text = "going down", temporary = true }, err)
          end
        end, { on = { bye = function(text) heard[#heard + 1] = text end } })
        assert.same({ "going down" }, heard)
      end)

      it("a server that closes behind " .. command[1], function()
        converse({ { answer = "* OK still here\r\n" } }, function(session)
          local result, err = command[2](session)
          assert.is_nil(result)
          assert_fields({ kind = "closed", during = command[1], temporary = true }, err)
        end)
      end)
    end

    it("what may pass", function()
      local codes = { UNAVAILABLE = true, INUSE = true, inuse = true, NONEXISTENT = false }
      for code, temporary in pairs(codes) do
        converse({ { answer = ("%%T NO [%s] x\r\n"):format(code) } }, function(session)
          local _, err = session:select "x"
          assert.equals(temporary, err.temporary)
          assert.equals(code:upper(), err.status)
        end)
      end
    end)

    -- What breaks the protocol, as the answer to NOOP.
    for _, answer in ipairs {
      "A1 OK an old tag\r\n", "a2 OK another tag\r\n", "A999 OK another tag\r\n",
      "%TX OK another tag\r\n", "%T MAYBE\r\n", "%T\r\n", "*\r\n", "* \r\n",
      "\r\n", "+ go on\r\n", "* LIST (\\A \"/\" x\r\n", "* LIST ) x\r\n",
      "* LIST () \"open\r\n", "* 5 FETCH (UID {x}\r\n", "* LIST () \"/\" {}\r\n",
      "* LIST () \"/\" {5\r\n", "* LIST () \"/\" {99999999999999999999}\r\n",
      "* OK [UNCLOSED x\r\n", "* OK [UNCLOSED (x] y\r\n", "* 5\r\n",
    } do
      it(("what is no response: %q"):format(answer), function()
        converse({ { answer = answer .. "%T OK done\r\n" } }, function(session)
          for _ = 1, 2 do
            local reply, err = session:noop()
            assert.is_nil(reply)
            assert_fields({ kind = "protocol", during = "noop", temporary = false }, err)
          end
        end)
      end)
    end

    it("an answer to a command that was not sent", function()
      converse({ { answer = "%T OK done\r\nA9 OK and another\r\n" } }, function(session)
        assert(session:noop())
        local reply, err = session:noop()
        assert.is_nil(reply)
        assert.equals("protocol", err.kind)
      end)
    end)
  end)

  describe("fetches", function()
    local two = "* 1 FETCH (UID 1 BODY[] {3}\r\none)\r\n* 2 FETCH (UID 2 BODY[] {3}\r\ntwo)\r\n"

    it("one message at a time", function()
      converse({ { command = "UID FETCH 1:* (UID BODY.PEEK[])", answer = two .. "%T OK done\r\n" },
        noop }, function(session)
        local seen = {}
        for message in session:fetch("1:*", { "body" }) do seen[#seen + 1] = message.body end
        assert.same({ "one", "two" }, seen)
        assert(session:noop())
      end)
    end)

    it("nothing of an empty array, and sends nothing", function()
      local record = converse({ noop }, function(session)
        for _ in session:fetch({}, { "flags" }) do error "a message" end
        assert.same({}, session:fetch_all({}, { "flags" }))
        assert.same({}, session:store({}, { add = { "\\Deleted" } }))
        assert.same({}, session:expunge {})
        assert(session:copy({}, "x"))
        assert(session:noop())
      end)
      assert.equals("A1 CAPABILITY\r\nA2 NOOP\r\n", record.clear)
    end)

    it("by one number, many, and what search found", function()
      converse({
        { command = "UID FETCH 7 (UID FLAGS)", answer = "%T OK done\r\n" },
        { command = "UID FETCH 3,5,9:*,$ (UID FLAGS)", answer = "%T OK done\r\n" },
      }, function(session)
        assert(session:fetch_all(7, { "flags" }))
        assert(session:fetch_all({ 3, 5, "9:*", "$" }, { "flags" }))
      end)
    end)

    it("until the server refuses: the loop raises the error, fetch_all returns it", function()
      local refused = { answer = two .. "%T NO [EXPUNGEISSUED] some are gone\r\n" }
      converse({ refused, refused, noop }, function(session)
        local seen = {}
        local ok, err = pcall(function()
          for message in session:fetch("1:*", { "body" }) do seen[#seen + 1] = message.body end
        end)
        assert.is_false(ok)
        assert_fields({ kind = "rejected", during = "fetch", status = "EXPUNGEISSUED" }, err)
        assert.same({ "one", "two" }, seen)
        local result, why = session:fetch_all("1:*", { "body" })
        assert.is_nil(result)
        assert_fields({ kind = "rejected", status = "EXPUNGEISSUED" }, why)
        assert(session:noop())
      end)
    end)

    it("until the connection is lost in the middle of a message", function()
      local answer = "* 1 FETCH (UID 1 BODY[] {3}\r\none)\r\n* 2 FETCH (UID 2 BODY[] {9}\r\nha"
      converse({ { answer = answer } }, function(session)
        local seen = 0
        local ok, err = pcall(function()
          for _ in session:fetch("1:*", { "body" }) do seen = seen + 1 end
        end)
        assert.is_false(ok)
        assert_fields({ kind = "closed", during = "fetch" }, err)
        assert.equals(1, seen)
      end)
    end)

    it("what a loop that breaks leaves behind, and drops it", function()
      converse({ { answer = two .. "* 7 EXISTS\r\n%T OK done\r\n" }, noop }, function(session)
        for message in session:fetch("1:*", { "body" }) do
          if message.uid == 1 then break end
        end
        assert(session:noop())
      end)
    end)

    it("while other calls have to wait", function()
      converse({ { answer = two .. "%T OK done\r\n" }, noop }, function(session)
        for _ in session:fetch("1:*", { "body" }) do
          local reply, err = session:noop()
          assert.is_nil(reply)
          assert_fields({ kind = "busy", during = "noop" }, err)
        end
        assert(session:noop())
      end)
    end)

    it("into sinks that are chosen by message and section", function()
      local answer = '* 1 FETCH (FLAGS (\\Seen) UID 4 BODY[HEADER] "head" BODY[TEXT] {9}\r\n'
        .. "some text)\r\n* 2 FETCH (BODY[HEADER] {2}\r\nhh UID 5 BODY[TEXT] {0}\r\n FLAGS ())\r\n"
      for _, way in ipairs { "whole", "byte by byte" } do
        local asked, pieces = {}, {}
        converse({ { answer = answer .. "%T OK done\r\n" } }, function(session)
          local messages = assert(session:fetch_all("1:*", { "headers", "text", "flags" }, {
            sink = function(message, section)
              asked[#asked + 1] = ("%d %s %s"):format(message.seq, section, message.uid)
              if section == "HEADER" and message.seq == 2 then return nil end
              local name = message.seq .. section
              pieces[name] = ""
              return function(piece)
                pieces[name] = pieces[name] .. (piece or "$")
                return true
              end
            end,
          }))
          assert.is_true(messages[1].headers)
          assert.is_true(messages[1].text)
          assert.equals("hh", messages[2].headers)
          assert.is_true(messages[2].text)
          assert.equals(4, messages[1].uid)
          assert.same(flags "\\Seen", messages[1].flags)
        end, { way = way })
        assert.same({ ["1HEADER"] = "head$", ["1TEXT"] = "some text$", ["2TEXT"] = "$" }, pieces)
        table.sort(asked)
        assert.same({ "1 HEADER 4", "1 TEXT 4", "2 HEADER nil", "2 TEXT 5" }, asked)
      end
    end)

    it("into a sink that fails, and goes on", function()
      local literal = "* 1 FETCH (UID 1 BODY[] {3}\r\none)\r\n"
      local quoted = '* 1 FETCH (UID 1 BODY[] "one")\r\n'
      for _, answer in ipairs { literal, quoted } do
        converse({ { answer = answer .. "%T OK done\r\n" }, noop }, function(session)
          local result, err = session:fetch_all("1", { "body" }, {
            sink = function() return function() return nil, "disk full" end end,
          })
          assert.is_nil(result)
          assert_fields({ kind = "cancelled", during = "fetch" }, err)
          assert.matches("disk full", tostring(err))
          assert(session:noop())
        end)
      end
    end)
  end)

  describe("appends", function()
    -- Takes one APPEND and returns the command's line and the literals.
    local function take_append(p, args)
      p:imap_upgrade { secure = false, auth = false, after = args.capabilities }
      local tag = p:read_until(" "):sub(1, -2)
      local seen = { lines = {}, literals = {} }
      repeat
        local line = p:line()
        seen.lines[#seen.lines + 1] = line
        local size, plus = line:match "{(%d+)(%+?)}\r\n$"
        if size and #seen.literals == args.refuse_at then
          p:send(tag, " NO [TRYCREATE] no such mailbox\r\n")
          break
        end
        if size then
          if plus == "" then p:send "+ go on\r\n" end
          seen.literals[#seen.literals + 1] = p:read(math.tointeger(tonumber(size)))
        end
      until not size
      if not args.refuse_at then p:send(tag, args.answer or " OK done\r\n") end
      p:send(p:imap_expect "^NOOP", " OK done\r\n")
      return seen
    end

    local function append(args, ...)
      local peer <close> = Peer.start(take_append, args)
      local session <close> = assert(connect(peer.port))
      local result, err = session:append(...)
      assert(session:noop())
      local record = peer:finish()
      assert(record.result, record.error)
      return record.result, result, err
    end

    -- Of a large message the server is asked first: it may refuse it before it is sent.
    local unasked = { ["LITERAL+"] = 64 * 1024, ["LITERAL-"] = 4096, ["none of that"] = -1 }
    for offered, most in pairs(unasked) do
      it("a message of any size, to a server that has " .. offered, function()
        for _, size in ipairs { 0, 4096, 4097, 64 * 1024, 64 * 1024 + 1 } do
          local message = ("x"):rep(size)
          local seen, result = append({ capabilities = { offered } }, "INBOX", message)
          assert.same({}, result)
          local plus = size <= most and "+" or ""
          assert.same({ ('APPEND "INBOX" {%d%s}\r\n'):format(size, plus), "\r\n" }, seen.lines)
          assert.same({ message }, seen.literals)
        end
      end)
    end

    it("flags and dates", function()
      local seen = append({ capabilities = {} }, "x", "a\r\n",
        { flags = { "\\Seen", "$Junk" }, date = 837596665 })
      assert.equals('APPEND "x" (\\Seen $Junk) "17-Jul-1996 09:44:25 +0000" {3}\r\n', seen.lines[1])
      seen = append({ capabilities = {} }, "x", "a\r\n",
        { flags = {}, date = " 7-Jul-1996 02:44:25 -0700" })
      assert.equals('APPEND "x" () " 7-Jul-1996 02:44:25 -0700" {3}\r\n', seen.lines[1])
    end)

    it("to a mailbox whose name needs a literal of its own", function()
      local name = ("n"):rep(2000)
      for offered, form in pairs { none = "{2000}", ["LITERAL+"] = "{2000+}",
        ["LITERAL-"] = "{2000+}" } do
        local seen, result = append({ capabilities = { offered } }, name, "a\r\n")
        assert.same({}, result)
        local plus = offered == "none" and "" or "+"
        assert.same({ "APPEND " .. form .. "\r\n", (" {3%s}\r\n"):format(plus), "\r\n" },
          seen.lines)
        assert.same({ name, "a\r\n" }, seen.literals)
      end
      local seen = append({ capabilities = { "LITERAL-" } }, name:rep(3), "a\r\n")
      assert.equals("APPEND {6000}\r\n", seen.lines[1])
    end)

    it("files and sources, whose size is found out first", function()
      local text = "a: b\n\n.\nc"
      local file <close> = assert(io.tmpfile())
      file:write("skipped", text)
      file:seek("set", 7)
      local at = 0
      local sources = { file, function()
        at = at + 1
        return at <= #text and text:sub(at, at) or nil
      end }
      for _, source in ipairs(sources) do
        local seen = append({ capabilities = {} }, "x", source)
        assert.same({ "a: b\r\n\r\n.\r\nc" }, seen.literals)
      end
    end)

    it("and tells the UID where the server does", function()
      local _, result = append({ capabilities = {},
        answer = " OK [APPENDUID 38505 3955] done\r\n" }, "x", "a\r\n")
      assert.same({ uidvalidity = 38505, uid = 3955 }, result)
    end)

    it("nothing where the server refuses before the literal", function()
      local seen, result, err = append({ capabilities = {}, refuse_at = 0 }, "x", "a\r\n")
      assert.is_nil(result)
      assert_fields({ kind = "rejected", during = "append", status = "TRYCREATE",
        text = "no such mailbox" }, err)
      assert.same({}, seen.literals)
    end)

    it("nothing where the server refuses between two literals", function()
      local args = { capabilities = {}, refuse_at = 1 }
      local seen, result, err = append(args, ("n"):rep(2000), "a\r\n")
      assert.is_nil(result)
      assert_fields({ kind = "rejected", during = "append", status = "TRYCREATE" }, err)
      assert.equals(1, #seen.literals)
    end)

    it("and hears a server that refuses behind the literal", function()
      local _, result, err = append({ capabilities = {}, answer = " NO [OVERQUOTA] full\r\n" },
        "x", "a\r\n")
      assert.is_nil(result)
      assert_fields({ kind = "rejected", during = "append", status = "OVERQUOTA" }, err)
    end)

    it("and hears a server that refuses half-way, and stops", function()
      local peer <close> = Peer.start(function(p)
        p:imap_upgrade { secure = false, auth = false, after = {} }
        local tag = p:imap_expect '^APPEND "x" {%d+}\r\n$'
        p:send "+ go on\r\n"
        p:keep(false)
        p:read(100000)
        p:send(tag, " NO [LIMIT] too big\r\n")
        p:wait_for_close()
      end)
      local session <close> = assert(connect(peer.port))
      local result, err = session:append("x", ("x"):rep(32 << 20))
      assert.is_nil(result)
      assert_fields({ kind = "rejected", during = "append", status = "LIMIT", text = "too big" },
        err)
      local reply, again = session:noop()
      assert.is_nil(reply)
      assert.equals(err.message, again.message)
    end)

    it("nothing of a source that fails, or has a NUL", function()
      converse({ noop }, function(session)
        local result, err = session:append("x", function() return nil, "disk on fire" end)
        assert.is_nil(result)
        assert_fields({ kind = "cancelled", during = "append" }, err)
        assert.matches("disk on fire", tostring(err))
        result, err = session:append("x", "a\0b")
        assert.is_nil(result)
        assert.equals("unsupported", err.kind)
        assert(session:noop())
      end)
    end)
  end)

  describe("has a mailbox", function()
    local select = { answer = "* 5 EXISTS\r\n%T OK done\r\n" }

    it("whose count is kept right", function()
      converse({ select, { answer = "* 7 EXISTS\r\n* 2 EXPUNGE\r\n* 1 EXPUNGE\r\n%T OK done\r\n" },
        { answer = "* 1 EXPUNGE\r\n%T OK done\r\n" } }, function(session)
        local mailbox = assert(session:select "x")
        assert.equals(5, mailbox.exists)
        assert.equals(mailbox, session.mailbox)
        assert(session:noop())
        assert.equals(5, mailbox.exists)
        assert(session:expunge())
        assert.equals(4, mailbox.exists)
      end)
    end)

    it("until another is selected, or is not to be had", function()
      converse({ select, { answer = "%T NO no such mailbox\r\n" }, select }, function(session)
        assert(session:select "x")
        assert.is_nil((session:select "y"))
        assert.is_nil(session.mailbox)
        assert(session:select "z")
        assert.equals("z", session.mailbox.name)
      end)
    end)

    it("whatever a call says that is misused", function()
      converse({ select }, function(session)
        local mailbox = assert(session:select "x")
        assert.has_error(function() session:select "a\nb" end)
        assert.equals(mailbox, session.mailbox)
      end)
    end)

    it("from which a set is expunged only where the server can do that", function()
      local record = converse({ noop }, function(session)
        local gone, err = session:expunge "1:5"
        assert.is_nil(gone)
        assert_fields({ kind = "unsupported", during = "expunge" }, err)
        assert(session:noop())
      end)
      assert.is_nil(record.clear:find "EXPUNGE")
    end)
  end)

  describe("tells what the server says unasked", function()
    it("to the functions in `on`", function()
      local heard = {}
      local on = {}
      for _, name in ipairs { "alert", "exists", "expunge", "fetch", "bye" } do
        on[name] = function(value)
          heard[#heard + 1] = { name, type(value) == "table" and value.seq or value }
        end
      end
      converse({
        { answer = "* OK [ALERT] disk [nearly] full\r\n* NO [alert] disk full\r\n* 5 EXISTS\r\n"
          .. "* 3 EXPUNGE\r\n* 2 FETCH (FLAGS (\\Seen))\r\n* 1 RECENT\r\n* OK nothing\r\n"
          .. "%T OK done\r\n" },
        { answer = "%T OK [ALERT] done, but beware\r\n" },
        { answer = "%T NO [ALERT] not today\r\n" },
        { answer = "* BYE logging out\r\n%T OK done\r\n" },
      }, function(session)
        assert(session:noop())
        assert(session:noop())
        assert.is_nil((session:noop()))
        assert(session:logout())
      end, { on = on })
      assert.same({ { "alert", "disk [nearly] full" }, { "alert", "disk full" }, { "exists", 5 },
        { "expunge", 3 }, { "fetch", 2 }, { "alert", "done, but beware" }, { "alert", "not today" },
        { "bye", "logging out" } }, heard)
    end)

    it("to nobody without them", function()
      converse({ { answer = "* OK [ALERT] x\r\n* 5 EXISTS\r\n* 3 EXPUNGE\r\n* 1 FETCH (UID 1)\r\n"
        .. "* EXISTS\r\n* EXPUNGE\r\n* FETCH\r\n* 5 FETCH\r\n* 5 FETCH ()\r\n* LIST\r\n* STATUS\r\n"
        .. "* STATUS x\r\n* SEARCH x\r\n* FLAGS\r\n* OK [] x\r\n%T OK done\r\n" } },
        function(session) assert(session:noop()) end)
    end)

    it("to a function that raises, behind which the session goes on", function()
      converse({ { answer = "* 5 EXISTS\r\n%T OK done\r\n" }, noop }, function(session)
        assert.error_matches(function() session:noop() end, "boom")
        assert(session:noop())
      end, { on = { exists = function() error "boom" end } })
    end)
  end)

  describe("begins", function()
    -- Connects to a peer that greets with that line and then answers commands.
    local function greeted(line, exchanges, more)
      local steps = { { "send", line .. "\r\n" } }
      for _, exchange in ipairs(exchanges or {}) do
        steps[#steps + 1] = { "expect", exchange[1] }
        steps[#steps + 1] = { "send", exchange[2] }
      end
      local peer <close> = peer_steps.start(steps, {})
      local session, err = connect(peer.port, more)
      local capabilities = session and session:capabilities()
      if session then session:close() end
      local record = peer:finish()
      if session then assert.is_true(record.ok, record.error) end
      return capabilities, err, record
    end

    local told = { "^A1 CAPABILITY\r\n", "* CAPABILITY IMAP4rev1 ID AUTH=PLAIN AUTH=LOGIN\r\n"
      .. "%T OK done\r\n" }
    local capabilities = { IMAP4REV1 = true, ID = true, AUTH = "PLAIN LOGIN" }

    local function upper(list)
      local all = {}
      for name, value in pairs(list) do all[name:upper()] = value end
      return all
    end

    it("by asking for the capabilities", function()
      assert.same(capabilities, upper(assert(greeted("* OK ready", { told }))))
    end)

    it("with the capabilities in the greeting, which are not asked for again", function()
      local list, _, record = greeted "* OK [CAPABILITY IMAP4rev1 ID AUTH=PLAIN AUTH=LOGIN] ready"
      assert.same(capabilities, upper(list))
      assert.equals("", record.clear)
    end)

    it("with a server that takes us for somebody already", function()
      assert.same(capabilities, upper(assert(greeted("* PREAUTH hello", { told }))))
      assert.same({ IMAP4REV1 = true },
        upper(assert(greeted "* PREAUTH [CAPABILITY IMAP4rev1] hello")))
    end)

    it("not with such a server where encryption is required", function()
      local list, err, record = greeted("* PREAUTH hello", {}, { tls = "starttls" })
      assert.is_nil(list)
      assert_fields({ kind = "downgrade", during = "greeting" }, err)
      assert.equals("", record.clear)
    end)

    -- Where the capabilities come from behind a login: the OK, an untagged response, or a question.
    for _, case in ipairs {
      { "the OK", "%T OK [CAPABILITY IMAP4rev1 AFTER] done\r\n" },
      { "an untagged response", "* CAPABILITY IMAP4rev1 AFTER\r\n%T OK done\r\n" },
      { "a question", "%T OK done\r\n",
        { "^A3 CAPABILITY\r\n", "* CAPABILITY IMAP4rev1 AFTER\r\n%T OK done\r\n" } },
    } do
      it("with the capabilities behind the login, from " .. case[1], function()
        local list = assert(greeted("* OK ready", { told,
          { "^A2 AUTHENTICATE PLAIN\r\n", "+ \r\n" },
          { "^%S+\r\n", (case[2]:gsub("%%T", "A2")) }, case[3],
        }, { user = "alice", password = "x", insecure_auth = true }))
        assert.same({ IMAP4REV1 = true, AFTER = true }, upper(list))
      end)
    end

    for _, case in ipairs {
      { "* BYE too many connections", "rejected", true }, { "* NO go away", "rejected", false },
      { "* BAD go away", "rejected", false }, { "220 SMTP ready", "protocol", false },
      { "+OK POP3 ready", "protocol", false }, { "+ ready", "protocol", false },
      { "* CAPABILITY IMAP4rev1", "protocol", false }, { "A1 OK ready", "protocol", false },
      { "* 5 EXISTS", "protocol", false }, { "", "protocol", false },
    } do
      it(("not with a server that greets with %q"):format(case[1]), function()
        local list, err = greeted(case[1])
        assert.is_nil(list)
        assert_fields({ kind = case[2], during = "greeting", temporary = case[3] }, err)
      end)
    end

    it("not with a server that does not tell its capabilities, or says BYE", function()
      local list, err = greeted("* OK ready", { { "^A1 CAPABILITY", "%T BAD what?\r\n" } })
      assert.is_nil(list)
      assert_fields({ kind = "rejected", during = "capabilities", text = "what?" }, err)
      list, err = greeted("* OK ready", { { "^A1 CAPABILITY", "* BYE idle\r\n" } })
      assert.is_nil(list)
      assert_fields({ kind = "closed", during = "capabilities", text = "idle" }, err)
    end)
  end)

  describe("ends", function()
    local function logout(answer)
      local done, err
      converse({ { command = "LOGOUT", answer = answer } }, function(session)
        done, err = session:logout()
        local reply, closed = session:noop()
        assert.is_nil(reply)
        assert.equals("closed", closed.kind)
      end)
      return done, err
    end

    it("with a goodbye, which servers answer in many ways", function()
      assert.is_true(logout "* BYE bye\r\n%T OK done\r\n")
      assert.is_true(logout "%T OK done\r\n")
      assert.is_true(logout "* BYE bye\r\n")
      assert.is_true(logout "* 5 EXISTS\r\n* BYE bye\r\n")
      assert.is_true(logout "")
    end)

    it("with an error where the goodbye is refused", function()
      local done, err = logout "%T BAD what?\r\n"
      assert.is_nil(done)
      assert_fields({ kind = "rejected", during = "logout", text = "what?" }, err)
    end)

    it("without a word when it is closed", function()
      local record = converse({}, function(session) session:close() end)
      assert.equals("A1 CAPABILITY\r\n", record.clear)
    end)
  end)

  describe("with Dovecot", function()
    local mail, first, second = nil, "Subject: one\r\n\r\nfirst\r\n",
      "From: A <a@x.test>\r\nSubject: two\r\n\r\nsecond\r\n"

    before_each(function()
      mail = servers.shared()
      clients.empty(mail, "alice")
      mail:deliver("alice", first)
      mail:deliver("alice", second)
    end)

    after_each(function()
      clients.empty(mail, "alice")
    end)

    it("lists, counts, selects, fetches, searches", function()
      local session <close> = clients.connect(mail, "imap")
      assert.equals("INBOX", assert(session:list("", "INBOX"))[1].name)
      assert.equals(2, assert(session:status "INBOX").messages)
      local mailbox = assert(session:examine "INBOX")
      assert.equals(2, mailbox.exists)
      assert.is_true(mailbox.read_only)
      assert.is_false(assert(session:select "INBOX").read_only)
      local messages = assert(session:fetch_all("1:*", { "body", "envelope", "size", "structure",
        "date", "BODY[TEXT]<1.3>" }))
      assert.equals(first, messages[1].body)
      assert.equals(second, messages[2].body)
      assert.equals(#second, messages[2].size)
      assert.equals("a@x.test", messages[2].envelope.from[1].address)
      assert.equals("two", messages[2].envelope.subject)
      assert.equals("text", messages[1].structure.type)
      assert.equals("irs", messages[1].sections["TEXT<1>"])
      assert.is_true(math.abs(messages[1].time - os.time()) < 3600)
      assert.same({ messages[2].uid }, session:search 'SUBJECT "two"')
      assert.same({ 1 }, session:search('SUBJECT "one"', { seq = true }))
      assert.same({}, session:search "SEEN") -- bodies were only peeked at
      assert(session:logout())
    end)

    it("appends, stores, copies and expunges", function()
      local session <close> = clients.connect(mail, "imap")
      local mailbox = assert(session:select "INBOX")
      local added = assert(session:append("INBOX", "Subject: three\r\n\r\n",
        { flags = { "\\Draft" }, date = 837596665 }))
      assert.equals(mailbox.uidvalidity, added.uidvalidity)
      assert(session:noop())
      assert.equals(3, mailbox.exists)
      local message = assert(session:fetch_all(added.uid, { "flags", "date" }))[1]
      assert.is_true(message.flags["\\Draft"])
      assert.equals(837596665, message.time)
      local stored = assert(session:store(added.uid, { add = { "\\Deleted" } }))
      assert.is_true(stored[1].flags["\\Deleted"])
      assert(session:store("1", { add = { "\\Deleted" } }, { seq = true, silent = true }))
      assert.same({ added.uid }, assert(session:copy(added.uid, "INBOX")).source)
      assert.same({ 3 }, session:expunge { added.uid })
      assert.equals(3, mailbox.exists)
      assert(session:store(mailbox.uidnext + 1, { remove = { "\\Deleted" } }))
      assert.same({ 1 }, session:expunge())
      assert.equals(2, mailbox.exists)
      local nowhere, err = session:append("nowhere", "Subject: x\r\n\r\n")
      assert.is_nil(nowhere)
      assert_fields({ kind = "rejected", during = "append", status = "TRYCREATE" }, err)
      assert(session:logout())
    end)
  end)
end)
