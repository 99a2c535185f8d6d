-- What servers write that the RFCs don't allow, and what becomes of it: each line as a server
-- says it. What can't be told is an error; where a response ends is never lost.

local peer_steps = require "spec.support.peer_steps"
local responses = require "spec.support.responses"

local imap = require "starttls.imap"

local function flags(...)
  local set = { ... }
  for _, flag in ipairs { ... } do set[flag] = true end
  return set
end

local function message(fields)
  fields.seq = 1
  return fields
end

local function fetch(items)
  return "* 1 FETCH (" .. items .. ")\r\n"
end

local function with_envelope(fields)
  for _, name in ipairs { "from", "sender", "reply_to", "to", "cc", "bcc" } do
    fields[name] = fields[name] or {}
  end
  return message { envelope = fields }
end

local function address(name, mailbox, host)
  return { name = name, mailbox = mailbox, host = host, address = mailbox .. "@" .. host }
end

local a, b = address(nil, "a", "x"), address(nil, "b", "x")

local function structure(text)
  return fetch("BODYSTRUCTURE " .. text)
end

local function part(fields)
  local all = { section = "1", parameters = {} }
  for name, value in pairs(fields) do all[name] = value end
  return message { structure = all }
end

local function text_part(fields)
  fields.type, fields.subtype, fields.encoding = "text", "plain", "7bit"
  return part(fields)
end

local function attached(fields)
  fields.type, fields.subtype, fields.encoding, fields.size = "message", "rfc822", "7bit", 9
  return part(fields)
end

local function multipart(fields)
  local all = { section = "", type = "multipart", parts = {} }
  for name, value in pairs(fields) do all[name] = value end
  return part(all)
end

-- What it is, the line, and the first response's value.
local cases = {
  -- anywhere
  { "trailing blanks", "* SEARCH 1 2  \r\n", { 1, 2 } },
  { "nothing found, and a blank", "* SEARCH \r\n", {} },
  { "several blanks", "*  1  FETCH  (UID  5   FLAGS  ( \\Seen  ) )\r\n",
    message { uid = 5, flags = flags "\\Seen" } },
  { "bare line feeds", "* SEARCH 7\n* 3 EXISTS\n%T OK\n", { 7 } },
  { "lower case", "* 1 fetch (uid 5 flags nil)\r\n", message { uid = 5, flags = {} } },
  { "literals for anything", "* 1 FETCH ({3}\r\nUID {1}\r\n5 FLAGS ({5}\r\n\\Seen) RFC822.SIZE "
      .. "{2+}\r\n12)\r\n", message { uid = 5, flags = flags "\\Seen", size = 12 } },
  { "an untagged OK without text", "* OK\r\n", { text = "" } },
  { "a status with a code and no blank", "* OK [UIDNEXT 5]next\r\n",
    { code = "UIDNEXT", uidnext = 5, arguments = { 5 }, code_text = "UIDNEXT 5", text = "next" } },
  { "backslashes that escape nothing", '* LIST () "/" "C:\\temp\\\\x"\r\n',
    { name = "C:\\temp\\x", delimiter = "/", flags = {} } },
  { "a mailbox that is NIL", '* STATUS NIL (MESSAGES 1)\r\n', { name = "NIL", messages = 1 } },
  { "a mailbox in 8-bit text", '* LIST () "/" "Gr\xfc\xdfe"\r\n',
    { name = "Gr\u{fc}\u{df}e", delimiter = "/", flags = {} } },
  { "no blank in front of a list", '* STATUS "x"(MESSAGES 1 UIDNEXT 2)\r\n',
    { name = "x", messages = 1, uidnext = 2 } },
  { "no blank behind NIL", '* LIST ()NIL"x"\r\n', { name = "x", flags = {} } },

  -- numbers
  { "a negative size", fetch "UID 5 RFC822.SIZE -1", message { uid = 5 } },
  { "a size beyond 63 bits", fetch "RFC822.SIZE 99999999999999999999 UID 5",
    message { uid = 5 } },
  { "numbers in quotes", fetch 'UID "5" RFC822.SIZE " 12 "', message { uid = 5, size = 12 } },
  { "sizes that are NIL", fetch "RFC822.SIZE NIL MODSEQ NIL UID 5", message { uid = 5 } },
  { "a sequence without its list", fetch "MODSEQ 7 EMAILID M1", message { modseq = 7,
    emailid = "M1" } },

  -- flags
  { "flags that are NIL", fetch "FLAGS NIL UID 5", message { flags = {}, uid = 5 } },
  { "odd keywords", fetch "FLAGS (\\Seen $a[1] b]c [d $ e\"f) UID 5",
    message { uid = 5, flags = flags("\\Seen", "$a[1]", "b]c", "[d", "$", 'e"f') } },
  { "odd keywords that may be kept", "* OK [PERMANENTFLAGS ($a[1] b]c \\*)] x\r\n",
    { code = "PERMANENTFLAGS", permanentflags = flags("$a[1]", "b]c", "\\*"), text = "x",
      code_text = "PERMANENTFLAGS ($a[1] b]c \\*)", arguments = { { "$a[1]", "b]c", "\\*" } } } },
  { "flags in quotes", '* FLAGS ("\\\\Seen" "\\Draft")\r\n', flags("\\Seen", "\\Draft") },

  -- ENVELOPE
  { "an envelope that is NIL", fetch "ENVELOPE NIL UID 5", (function()
    local m = with_envelope {}
    m.uid = 5
    return m
  end)() },
  { "fewer than ten fields", fetch 'ENVELOPE ("d" "s" ((NIL NIL "a" "x")))',
    with_envelope { date = "d", subject = "s", from = { a } } },
  { "more than ten fields", fetch('ENVELOPE (NIL "s" NIL NIL NIL NIL NIL NIL NIL "<m>" "more" '
    .. '("and" 5))'), with_envelope { subject = "s", message_id = "<m>" } },
  { "address lists that are \"\" and ()", fetch 'ENVELOPE (NIL NIL "" () NIL "" () NIL NIL NIL)',
    with_envelope {} },
  { "one address in no list", fetch 'ENVELOPE (NIL NIL (NIL NIL "a" "x") NIL NIL NIL)',
    with_envelope { from = { a } } },
  { "addresses of three, five and two elements", fetch('ENVELOPE (NIL NIL (("n" "a" "x")'
    .. '(NIL NIL "b" "x" "more")("c" "d")) NIL NIL NIL NIL NIL NIL NIL)'),
    with_envelope { from = { address("n", "a", "x"), b } } },
  { "no blanks between anything",
    fetch 'ENVELOPE ("d""s"((NIL NIL "a""x")(NIL NIL"b" "x"))NIL NIL NIL NIL NIL NIL"<m>")',
    with_envelope { date = "d", subject = "s", from = { a, b }, message_id = "<m>" } },
  { "quotes in a name", fetch('ENVELOPE (NIL "x" (("Terry "T" Gray" NIL "a" "x")'
    .. '("the "Joe"" NIL "b" "x")) NIL NIL NIL NIL NIL NIL NIL)'),
    with_envelope { subject = "x", from = { address('Terry "T" Gray', "a", "x"),
      address('the "Joe"', "b", "x") } } },
  { "quotes in a subject", fetch('ENVELOPE (NIL "the "best" of "all"" NIL NIL NIL NIL NIL NIL '
    .. "NIL NIL)"), with_envelope { subject = 'the "best" of "all"' } },
  { "a group that does not end", fetch('ENVELOPE (NIL NIL ((NIL NIL "g" NIL)(NIL NIL "a" "x")) '
    .. "((NIL NIL NIL NIL)) NIL NIL NIL NIL NIL NIL)"),
    with_envelope { from = { { name = "g", group = { a } } } } },
  { "an address without a host", fetch 'ENVELOPE (NIL NIL ((NIL NIL "root" "")) NIL NIL NIL)',
    with_envelope { from = { { mailbox = "root", host = "" } } } },
  { "an odd date", fetch 'INTERNALDATE "1-Jan-2024 1:02:03 GMT" UID 5',
    message { date = "1-Jan-2024 1:02:03 GMT", time = 1704070923, uid = 5 } },

  -- BODYSTRUCTURE
  { "a text without lines (Exchange)",
    structure '("TEXT" "PLAIN" NIL NIL NIL "7BIT" 9 NIL ("inline" NIL) NIL NIL)',
    text_part { size = 9, disposition = "inline", disposition_parameters = {} } },
  { "a text whose lines are NIL",
    structure '("TEXT" "PLAIN" NIL NIL NIL "7BIT" 9 NIL NIL ("inline" NIL) NIL NIL)',
    text_part { size = 9, disposition = "inline", disposition_parameters = {} } },
  { "a text with -1 lines, of which no size is known",
    structure '("TEXT" "PLAIN" "" NIL NIL "7BIT" NIL -1 NIL NIL "en" NIL)',
    text_part { language = { "en" } } },
  { "parameters that are no list, or too few",
    structure '("TEXT" "PLAIN" ("charset" "x" "name") NIL NIL "7BIT" "9" 1)',
    text_part { size = 9, lines = 1, parameters = { charset = "x" } } },
  { "a part of two words", structure '("TEXT" "PLAIN")',
    part { type = "text", subtype = "plain" } },
  { "a part without a type", structure '(NIL NIL NIL NIL NIL "7BIT" 9)',
    part { encoding = "7bit", size = 9 } },
  { "a disposition without parameters", structure
    '("IMAGE" "GIF" NIL NIL NIL "7BIT" 9 NIL "attachment" NIL NIL)',
    part { type = "image", subtype = "gif", encoding = "7bit", size = 9,
      disposition = "attachment", disposition_parameters = {} } },
  { "a message without envelope and structure (Gmail)",
    structure '("MESSAGE" "RFC822" ("NAME" "a.eml") NIL NIL "7BIT" 9 NIL ("attachment" NIL) NIL)',
    attached { parameters = { name = "a.eml" }, filename = "a.eml", disposition = "attachment",
      disposition_parameters = {} } },
  { "a message whose envelope and structure are NIL",
    structure '("MESSAGE" "RFC822" NIL NIL NIL "7BIT" 9 NIL NIL 3 NIL NIL)',
    attached { lines = 3 } },
  { "a message without an envelope (Exchange)",
    structure '("MESSAGE" "RFC822" NIL NIL NIL "7BIT" 9 ("TEXT" "PLAIN" NIL NIL NIL "7BIT" 5 1) 3)',
    attached { lines = 3, structure = { section = "1.1", type = "text", subtype = "plain",
      parameters = {}, encoding = "7bit", size = 5, lines = 1 } } },
  { "a multipart without parts", structure '("multipart" "mixed" ("boundary" "b") NIL NIL NIL)',
    multipart { subtype = "mixed", parameters = { boundary = "b" } } },
  { "a multipart without parts or type", structure '("MIXED" ("boundary" "b") NIL NIL)',
    multipart { subtype = "mixed", parameters = { boundary = "b" } } },
  { "a multipart whose parts are NIL", structure '(NIL "mixed" ("boundary" "b") NIL NIL NIL)',
    multipart { subtype = "mixed", parameters = { boundary = "b" } } },
  { "a multipart whose parts are ()", structure '(() "mixed" ("boundary" "b") NIL NIL NIL)',
    multipart { subtype = "mixed", parameters = { boundary = "b" } } },
  { "a multipart without a subtype", structure "((NIL NIL NIL NIL NIL NIL 5))",
    multipart { parts = { { section = "1", parameters = {}, size = 5 } } } },
  { "a structure that is NIL", fetch "BODYSTRUCTURE NIL UID 5",
    message { structure = {}, uid = 5 } },
  { "a structure that is a word", fetch "BODYSTRUCTURE x UID 5",
    message { structure = {}, uid = 5 } },

  -- response codes
  { "a copy of nothing", "* OK [COPYUID 5  ] x\r\n", { code = "COPYUID", text = "x",
    copyuid = { uidvalidity = 5, source = "", destination = "" }, code_text = "COPYUID 5  ",
    arguments = { 5 } } },
  { "a copy of nothing, in quotes", '* OK [COPYUID 5 "" ""] x\r\n', { code = "COPYUID",
    copyuid = { uidvalidity = 5, source = "", destination = "" }, code_text = 'COPYUID 5 "" ""',
    arguments = { 5, "", "" }, text = "x" } },
  { "a number that is none", "* OK [UIDNEXT x] y\r\n", { code = "UIDNEXT", uidnext = true,
    code_text = "UIDNEXT x", arguments = { "x" }, text = "y" } },
}

-- Continuations that are not "+ text".
local continuations = { "+\r\n", "+ \r\n", "+go on\r\n", "+\n" }

describe("what servers write, though they may not:", function()
  local by_text = {}

  setup(function()
    local texts = {}
    for index, case in ipairs(cases) do texts[index] = case[2] end
    for _, slow in ipairs { false, true } do
      for index, answer in ipairs(responses.read(texts, { slow = slow })) do
        local answers = by_text[texts[index]] or {}
        answers[slow] = answer
        by_text[texts[index]] = answers
      end
    end
  end)

  for _, case in ipairs(cases) do
    it(case[1], function()
      local answers = assert(by_text[case[2]], "the session ended before")
      for _, slow in ipairs { false, true } do
        assert.is_nil(answers[slow].err, tostring(answers[slow].err))
        assert.same(case[3], answers[slow].values[1])
        assert.equals("positive", answers[slow].reply.class)
      end
    end)
  end

  for _, continuation in ipairs(continuations) do
    it(("a continuation %q"):format(continuation), function()
      local peer <close> = peer_steps.start({ { "imap_upgrade", { secure = false, auth = false,
        after = {} } }, peer_steps.expect "APPEND", peer_steps.say(continuation),
        { "read", #"text\r\n\r\n" }, peer_steps.say "%T OK [APPENDUID 1 2] done\r\n" }, {})
      local session <close> = assert(imap.connect { host = "127.0.0.1", port = peer.port,
        tls = "none" })
      assert(session:append("INBOX", "text\r\n"))
    end)
  end
end)
