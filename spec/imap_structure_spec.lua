-- What BODYSTRUCTURE becomes in Lua: a tree of parts with named fields (RFC 9051 7.5.2), from
-- what RFCs show, from Dovecot, and in time that grows with the number of parts.

local responses = require "spec.support.responses"
local servers = require "spec.support.servers"

local imap = require "starttls.imap"

local function fetch(structure)
  return "* 1 FETCH (BODYSTRUCTURE " .. structure .. ")\r\n"
end

local function text(section, fields)
  local part = { section = section, type = "text", subtype = "plain", parameters = {} }
  for name, value in pairs(fields or {}) do part[name] = value end
  return part
end

local plain = '("TEXT" "PLAIN" NIL NIL NIL "7BIT" 5 1)'

local function plain_part(section)
  return text(section, { encoding = "7bit", size = 5, lines = 1 })
end

local empty_envelope = "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"
local nobody = { from = {}, sender = {}, reply_to = {}, to = {}, cc = {}, bcc = {} }

local function with_parameters(wire, parameters, filename)
  return { wire, ('("TEXT" "PLAIN" (%s) NIL NIL "7BIT" 5 1)'):format(wire),
    text("1", { encoding = "7bit", size = 5, lines = 1, parameters = parameters,
      filename = filename }) }
end

local cases = {
  { "a text (RFC 9051 7.5.2)", '("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7BIT" 2279 48)',
    text("1", { parameters = { charset = "US-ASCII" }, encoding = "7bit", size = 2279,
      lines = 48 }) },
  { "a multipart (RFC 9051 7.5.2)",
    '(("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7BIT" 1152 23)'
      .. '("TEXT" "PLAIN" ("CHARSET" "US-ASCII" "NAME" "cc.diff") '
      .. '"<960723163407.20117h@cac.washington.edu>" "Compiler diff" "BASE64" 4554 73) "MIXED")',
    { section = "", type = "multipart", subtype = "mixed", parameters = {}, parts = {
      text("1", { parameters = { charset = "US-ASCII" }, encoding = "7bit", size = 1152,
        lines = 23 }),
      text("2", { parameters = { charset = "US-ASCII", name = "cc.diff" }, filename = "cc.diff",
        id = "<960723163407.20117h@cac.washington.edu>", description = "Compiler diff",
        encoding = "base64", size = 4554, lines = 73 }) } } },
  { "all fields of a part", '("Image" "PNG" ("Name" "=?utf-8?Q?=C3=BC=2Epng?=") "<id>" '
      .. '"=?iso-8859-1?Q?=E9?=" "BASE64" 9223372036854775807 "bWQ1" '
      .. '("ATTACHMENT" ("FileName" "a/../b.png" "SIZE" "5")) ("en" "de") "http://x.test/y" '
      .. '("more" (1 NIL)) 7)',
    { section = "1", type = "image", subtype = "png", parameters = { name = "\u{fc}.png" },
      id = "<id>", description = "\u{e9}", encoding = "base64", size = math.maxinteger,
      md5 = "bWQ1", disposition = "attachment",
      disposition_parameters = { filename = "a/../b.png", size = "5" }, filename = "a/../b.png",
      language = { "en", "de" }, location = "http://x.test/y",
      extensions = { { "more", { 1, false } }, 7 } } },
  { "all fields of a multipart", "(" .. plain .. ' "alternative" ("boundary" "x") ("inline" NIL) '
      .. '"en" "loc" NIL)',
    { section = "", type = "multipart", subtype = "alternative", parameters = { boundary = "x" },
      parts = { plain_part "1" }, disposition = "inline", disposition_parameters = {},
      language = { "en" }, location = "loc", extensions = { false } } },
  -- RFC 9051 6.4.5.1's example: a message that holds two messages
  { "sections of messages in messages", "(" .. plain
      .. '("APPLICATION" "OCTET-STREAM" NIL NIL NIL "BASE64" 9)'
      .. '("MESSAGE" "RFC822" NIL NIL NIL "7BIT" 99 ' .. empty_envelope .. "(" .. plain
      .. '("APPLICATION" "OCTET-STREAM" NIL NIL NIL "BASE64" 9) "MIXED") 42 NIL NIL NIL NIL)'
      .. '(("IMAGE" "GIF" NIL NIL NIL "BASE64" 9)("MESSAGE" "GLOBAL" NIL NIL NIL "8BIT" 99 '
      .. empty_envelope .. plain .. ' 7) "MIXED") "MIXED")',
    { section = "", type = "multipart", subtype = "mixed", parameters = {}, parts = {
      plain_part "1",
      { section = "2", type = "application", subtype = "octet-stream", parameters = {},
        encoding = "base64", size = 9 },
      { section = "3", type = "message", subtype = "rfc822", parameters = {}, encoding = "7bit",
        size = 99, lines = 42, envelope = nobody,
        structure = { section = "3", type = "multipart", subtype = "mixed", parameters = {},
          parts = { plain_part "3.1", { section = "3.2", type = "application",
            subtype = "octet-stream", parameters = {}, encoding = "base64", size = 9 } } } },
      { section = "4", type = "multipart", subtype = "mixed", parameters = {}, parts = {
        { section = "4.1", type = "image", subtype = "gif", parameters = {}, encoding = "base64",
          size = 9 },
        { section = "4.2", type = "message", subtype = "global", parameters = {},
          encoding = "8bit", size = 99, lines = 7, envelope = nobody,
          structure = plain_part "4.2.1" } } } } } },
  { "a message that is all there is", '("MESSAGE" "RFC822" NIL NIL NIL "7BIT" 99 '
      .. empty_envelope .. plain .. " 3)",
    { section = "1", type = "message", subtype = "rfc822", parameters = {}, encoding = "7bit",
      size = 99, lines = 3, envelope = nobody, structure = plain_part "1.1" } },
  { "nothing", "NIL", {} },

  -- RFC 2231 3 and 4
  with_parameters('"URL*0" "ftp://" "URL*1" "cs.utk.edu/pub/moore/"',
    { url = "ftp://cs.utk.edu/pub/moore/" }),
  with_parameters([["title*" "us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A"]],
    { title = "This is ***fun***" }),
  with_parameters([["title*0*" "us-ascii'en'This%20is%20even%20more%20" ]]
    .. [["title*1*" "%2A%2A%2Afun%2A%2A%2A%20" "title*2" "isn't it!"]],
    { title = "This is even more ***fun*** isn't it!" }),
  with_parameters([["NAME*2" "c" "name*10" "k" "Name*1*" "%c3%bc" "name*0*" "utf-8''%"]],
    { name = "%\u{fc}c" }, "%\u{fc}c"),
  with_parameters([["name" "old" "name*" "utf-8''%e2%82%ac"]], { name = "\u{20ac}" }, "\u{20ac}"),
  with_parameters([["name*" "iso-8859-1''%a3"]], { name = "\u{a3}" }, "\u{a3}"),
  with_parameters([["name*" "x-none''%fc"]], { name = "\u{fc}" }, "\u{fc}"),
  with_parameters([["name*" "no quotes %41"]], { name = "no quotes A" }, "no quotes A"),
  with_parameters([["name*0" "=?utf-8?Q?=C3?=" "name*1" " =?utf-8?Q?=BC?="]],
    { name = "\u{fc}" }, "\u{fc}"),
  with_parameters('"a*x" "b" "*" "c" "d*1" "e"', { ["a*x"] = "b", ["*"] = "c", d = "" }),
}

-- A structure of `count` parts, `nested` of each in a multipart of their own.
local function many(count)
  return "(" .. plain:rep(count) .. ' "MIXED")'
end

local function nested(depth)
  return ("("):rep(depth) .. plain .. (' "MIXED")'):rep(depth)
end

-- The time that reading takes, in seconds of this process.
local function time_of(count)
  local line = fetch(many(count))
  local limits = { reply = 2 ^ 26 | 0 }
  responses.value(fetch(plain), { limits = limits }) -- what is slow once is not counted
  local before = os.clock()
  local value = responses.value(line, { limits = limits })
  local took = os.clock() - before
  assert.equals(count, #value.structure.parts)
  assert.equals(("%d"):format(count), value.structure.parts[count].section)
  return took
end

describe("a structure", function()
  local answers

  setup(function()
    local texts = {}
    for index, case in ipairs(cases) do texts[index] = fetch(case[2]) end
    answers = responses.read(texts)
  end)

  for index, case in ipairs(cases) do
    it("is made of " .. case[1], function()
      assert.is_nil(answers[index].err)
      assert.same(case[3], answers[index].values[1].structure)
    end)
  end

  it("comes by the name BODY, too", function()
    local value = responses.value("* 1 FETCH (BODY " .. plain .. ")\r\n")
    assert.same(plain_part "1", value.structure)
  end)

  it("may be as deep as the limit allows", function()
    local part = responses.value(fetch(nested(190))).structure
    for depth = 1, 189 do
      part = part.parts[1]
      assert.equals(("1"):rep(depth, "."), part.section)
    end
    assert.equals("text", part.parts[1].type)
    local answer = responses.read { fetch(nested(300)) }[1]
    assert.equals("limit", answer.err.kind)
  end)

  it("of 1,000 parts is read, and 100 times as many take about 100 times as long", function()
    local few, many_parts = time_of(1000), time_of(100000)
    assert.is_true(many_parts < 400 * math.max(few, 0.002), ("%.4f s, %.4f s"):format(few,
      many_parts))
  end)

  it("is what Dovecot says of a message", function()
    local mail = servers.shared()
    mail:empty "alice"
    mail:deliver("alice", table.concat({ "Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=",
      "From: =?utf-8?B?SsO8cmdlbg==?= <j@example.test>", "MIME-Version: 1.0",
      'Content-Type: multipart/mixed; boundary="b"', "", "--b", "Content-Type: text/plain", "",
      "hello", "--b", "Content-Type: application/pdf",
      "Content-Disposition: attachment; filename*0*=utf-8''%e2%82%ac;", " filename*1=.pdf", "",
      "x", "--b", "Content-Type: message/rfc822", "", "Subject: inner", "", "text", "--b--", "" },
      "\r\n"))
    local session <close> = assert(imap.connect { host = "localhost", port = mail.imap.port,
      ca_file = mail.ca_file, user = "alice", password = mail.users.alice.password })
    assert(session:select "INBOX")
    local message = assert(session:fetch_all("1:*", { "envelope", "structure" }))[1]
    assert.equals("Gr\u{fc}\u{df}e", message.envelope.subject)
    assert.equals("J\u{fc}rgen", message.envelope.from[1].name)
    local parts = message.structure.parts
    assert.equals("mixed", message.structure.subtype)
    assert.same({ "1", "text" }, { parts[1].section, parts[1].type })
    assert.same({ "attachment", "\u{20ac}.pdf" }, { parts[2].disposition, parts[2].filename })
    assert.equals("inner", parts[3].envelope.subject)
    assert.equals("3.1", parts[3].structure.section)
    mail:empty "alice"
  end)
end)
