-- What sessions make of composed messages: the envelope, the form that a server can take,
-- appending; what Dovecot says of them; how much memory an attachment takes; and what composing
-- refuses. (message_compose_spec.lua reads messages back.)

local clients = require "spec.support.clients"
local memory_probe = require "spec.support.memory_probe"
local message = require "starttls.message"
local peer_steps = require "spec.support.peer_steps"
local process = require "spec.support.process"
local servers = require "spec.support.servers"
local smtp = require "starttls.smtp"

local function new(fields)
  local all = { from = "alice@example.test", to = "bob@example.test", text = "text\n" }
  for name, value in pairs(fields or {}) do all[name] = value or nil end
  return assert(message.new(all))
end

describe("a composed message with real servers", function()
  local mail, directory

  setup(function()
    mail = servers.shared()
    directory = process.temporary_directory()
  end)

  teardown(function() directory:close() end)

  before_each(function()
    clients.empty(mail, "alice")
    clients.empty(mail, "bob")
  end)

  it("is sent to all whom it names, and no blind copy is told of", function()
    local m = new { to = { name = "Team", group = { "bob@example.test" } }, subject = "Été",
      bcc = { "Alice <alice@example.test>", "bob@EXAMPLE.test" } }
    local session <close> = clients.connect(mail, "smtp")
    local result = assert(session:send { message = m })
    assert.same({ "bob@example.test", "alice@example.test" }, result.accepted)
    for _, user in ipairs { "alice", "bob" } do
      local text = process.read_file(mail:wait_for_mail(user, 1)[1].path)
      local sent = tostring(m):gsub("\r\n", "\n")
      assert.equal(sent, text:sub(-#sent))
      assert.is_nil(text:lower():find("bcc:", 1, true))
    end
  end)

  it("goes to others, and from nobody, where send() is told so", function()
    local session <close> = clients.connect(mail, "smtp")
    local m = new { to = "nobody@elsewhere.test", bcc = "nobody@elsewhere.test" }
    local result = assert(session:send { message = m, from = "", to = "alice@example.test" })
    assert.same({ "alice@example.test" }, result.accepted)
    assert.equal(1, #mail:wait_for_mail("alice", 1))
    assert.same({}, mail:inbox "bob")
  end)

  it("goes through send_all, with an attachment that is streamed, more than once", function()
    local path = directory.path .. "/attached"
    process.write_file(path, ("0123456789"):rep(30000))
    local m = new { attachments = { { file = path } } }
    local session <close> = clients.connect(mail, "smtp")
    for _, result, err in session:send_all { { message = m }, { message = m } } do
      assert.is_truthy(result, err)
    end
    local sent = tostring(m):gsub("\r\n", "\n")
    for _, found in ipairs(mail:wait_for_mail("bob", 2)) do
      assert.equal(sent, process.read_file(found.path):sub(-#sent))
    end
  end)

  it("is appended with its size, and Dovecot reads it as it was meant", function()
    local path = directory.path .. "/données.bin"
    process.write_file(path, ("\0\1\2\3"):rep(50000))
    local inner = new { subject = "Inner – 内", text = "inner\n" }
    local m = new {
      from = { name = "Ålice, \"A.\"", address = "alice@example.test" },
      sender = "post@example.test", reply_to = "Ответ <reply@example.test>",
      to = { { name = "Bob", address = "bob@example.test" },
        { name = "日本", group = { "x@example.test" } } },
      cc = "o'neil@example.test", bcc = "secret@example.test", subject = "Rapport – été 📈",
      date = 1700000000, in_reply_to = "<a@b>", message_id = "<id@example.test>",
      text = "Viele herzliche Grüße aus dem Sauerland im Dezember\n", html = "<img src='cid:logo'>",
      inline = { logo = { content = "GIF89a", type = "image/gif" } },
      attachments = { { file = path }, { message = inner, name = "a b.eml" } },
    }
    local session <close> = clients.connect(mail, "imap")
    assert(session:append("INBOX", m))
    assert(session:select "INBOX")
    local got = assert(session:fetch_all("1:*", { "envelope", "structure", "size", "body" }))[1]
    assert.equal(tostring(m), got.body)
    assert.equal(m:size(), got.size)
    local envelope = got.envelope
    assert.equal("Rapport – été 📈", envelope.subject)
    assert.equal(1700000000, envelope.time)
    assert.equal("<a@b>", envelope.in_reply_to)
    assert.equal("<id@example.test>", envelope.message_id)
    local function people(list)
      local all = {}
      for i, it in ipairs(list) do
        all[i] = it.group and { name = it.name, group = people(it.group) }
          or { name = it.name, address = it.address }
      end
      return all
    end
    assert.same({ { name = 'Ålice, "A."', address = "alice@example.test" } }, people(envelope.from))
    assert.same({ { address = "post@example.test" } }, people(envelope.sender))
    assert.same({ { name = "Ответ", address = "reply@example.test" } }, people(envelope.reply_to))
    assert.same({ { name = "Bob", address = "bob@example.test" },
      { name = "日本", group = { { address = "x@example.test" } } } }, people(envelope.to))
    assert.same({ { address = "o'neil@example.test" } }, people(envelope.cc))
    assert.same({}, people(envelope.bcc or {}))
    local function outline(part)
      local text = part.type .. "/" .. part.subtype
      local parts = {}
      for i, it in ipairs(part.parts or {}) do parts[i] = outline(it) end
      if #parts > 0 then return ("%s(%s)"):format(text, table.concat(parts, " ")) end
      return text .. ":" .. part.encoding:lower() .. (part.filename and ":" .. part.filename or "")
    end
    assert.equal("multipart/mixed(multipart/alternative(text/plain:quoted-printable "
      .. "multipart/related(text/html:7bit image/gif:base64)) "
      .. "application/octet-stream:base64:données.bin message/rfc822:7bit:a b.eml)",
      outline(got.structure))
    assert.equal("Inner – 内", got.structure.parts[3].envelope.subject)
  end)

  it("is sent in constant memory, with an attachment of 64 MiB #memory", function()
    local path = directory.path .. "/big"
    process.run { "truncate", "-s", "64M", path }
    local options = clients.options(mail, "smtp", { timeout = 60 })
    local growth, size = memory_probe.run(function(mark, args)
      local session <close> = assert(require("starttls.smtp").connect(args.options))
      local composer = require "starttls.message"
      mark()
      local m = assert(composer.new { from = "alice@example.test", to = "refused@example.test",
        text = "x", attachments = { { file = args.path } } })
      local source, size = m:source()
      local count = 0
      for piece in source do count = count + #piece end
      assert(count == size)
      assert(session:send { message = m, to = "bob@example.test" })
      return size
    end, { options = options, path = path })
    assert.is_true(growth < 6 * 1024 * 1024, growth)
    local found = mail:wait_for_mail("bob", 1)[1]
    local file <close> = assert(io.open(found.path, "rb"))
    assert.is_true(file:seek "end" > 64 * 1024 * 1024 * 4 // 3)
    assert.is_true(size > 64 * 1024 * 1024 * 4 // 3)
  end)
end)

describe("a composed message, for what the server can do", function()
  -- Sends to a peer that offers `extensions`. Returns the result, the error, and what it saw.
  local function send(extensions, fields)
    local peer <close> = peer_steps.start({
      { "smtp_upgrade", { secure = false, auth = false, after = extensions } },
      { "smtp_serve", {} } }, {})
    local options = { host = "127.0.0.1", port = peer.port, tls = "none" }
    local session <close> = assert(smtp.connect(options))
    local result, err = session:send(fields)
    session:close()
    return result, err, peer:finish().clear
  end

  local plain = { subject = "Été", text = "Grüße\n", to = "Bøb <bob@büro.example>" }

  it("is 7bit without 8BITMIME, and says nothing of it", function()
    local m = new(plain)
    for _, extensions in ipairs { {}, { "8BITMIME" }, { "8BITMIME", "SMTPUTF8" } } do
      local result, err, seen = send(extensions, { message = m, smtputf8 = false })
      assert.is_truthy(result, err)
      assert.is_nil(seen:find "[\x80-\xff]")
      assert.is_nil(seen:find("BODY=", 1, true))
      assert.matches("RCPT TO:<bob@xn--bro-hoa.example>\r\n", seen, 1, true)
      assert.matches("To: =?UTF-8?Q?B=C3=B8b?= <bob@xn--bro-hoa.example>\r\n", seen, 1, true)
    end
  end)

  it("says its size", function()
    local m = new(plain)
    local _, _, seen = send({ "SIZE" }, { message = m, smtputf8 = false })
    assert.matches((" SIZE=%d\r\n"):format(m:size()), seen, 1, true)
  end)

  it("is in UTF-8 where that is wanted, and the server has SMTPUTF8", function()
    local fields = { utf8 = true }
    for name, value in pairs(plain) do fields[name] = value end
    local m = new(fields)
    local result, err, seen = send({ "8BITMIME", "SMTPUTF8" }, { message = m })
    assert.is_truthy(result, err)
    assert.matches(" BODY=8BITMIME SMTPUTF8\r\n", seen, 1, true)
    assert.matches("\r\nTo: Bøb <bob@büro.example>\r\nSubject: Été\r\n", seen, 1, true)
    result, err, seen = send({ "8BITMIME" }, { message = m })
    assert.is_truthy(result, err)
    assert.is_nil(seen:find "[\x80-\xff]")
  end)

  it("is in UTF-8 where an address needs it, and unsupported where that can't be", function()
    local m = new { to = "bøb@example.test" }
    local result, err, seen = send({ "8BITMIME", "SMTPUTF8" }, { message = m })
    assert.is_truthy(result, err)
    assert.matches("\r\nTo: bøb@example.test\r\n", seen, 1, true)
    for _, it in ipairs { { {} }, { { "8BITMIME", "SMTPUTF8" }, false } } do
      result, err, seen = send(it[1], { message = m, smtputf8 = it[2], to = "x@example.test" })
      assert.is_nil(result)
      assert.equal("unsupported", err.kind)
      assert.matches("SMTPUTF8", tostring(err))
      assert.is_nil(seen:find "MAIL")
    end
  end)

  it("is rejected when it names no recipient", function()
    local result, err, seen = send({}, { message = new { to = false } })
    assert.is_nil(result)
    assert.equal("rejected", err.kind)
    assert.is_nil(seen:find "MAIL")
  end)

  it("that is of another kind is read for its envelope, and sent", function()
    local text = "From: a@example.test\r\nTo: b@example.test\r\nBcc: c@example.test\r\n\r\nx\r\n"
    local object = { source = function()
      local pieces = { text:sub(1, 30), text:sub(31) }
      return function() return table.remove(pieces, 1) end
    end }
    local result, err, seen = send({}, { message = object })
    assert.is_truthy(result, err)
    assert.same({ "b@example.test", "c@example.test" }, result.accepted)
    assert.is_nil(seen:find("Bcc", 1, true))
  end)

  it("that shrinks or grows on the way ends the session before its end is sent", function()
    local path = os.tmpname()
    for _, size in ipairs { 199999, 200001 } do
      process.write_file(path, ("x"):rep(200000))
      local m = new { attachments = { { file = path } } }
      process.write_file(path, ("x"):rep(size))
      local result, err, seen = send({}, { message = m })
      assert.is_nil(result)
      assert.equal("cancelled", err.kind)
      assert.matches("its size has changed", tostring(err))
      assert.is_nil(seen:find("\r\n.\r\n", 1, true))
    end
    os.remove(path)
  end)
end)

describe("message.new", function()
  -- { what is in the error, the fields }: misuse, which raises.
  local raised = {
    { "'from' is missing", { from = false } },
    { "'from' is missing", { from = {} } },
    { "'sender' must say which", { from = "a@b.c, d@e.f" } },
    { "'sender' must be one address", { sender = "a@b.c, d@e.f" } },
    { "'from' has a group", { from = "x: a@b.c;" } },
    { "unknown field 'too'", { too = "a@b.c" } },
    { "'text' must be a string", { text = 5 } },
    { "'text' is not valid UTF-8", { text = "\xff" } },
    { "'html' is not valid UTF-8", { html = "\xc3" } },
    { "'subject' is not valid UTF-8", { subject = "\xe9" } },
    { "'subject' has a control character", { subject = "a\0b" } },
    { "'subject' has a control character", { subject = "a\27b" } },
    { "'date' must be seconds", { date = "today" } },
    { "'to' can't be read: an address lacks its domain", { to = "bob" } },
    { "'to' can't be read", { to = "a@b.c d@e.f" } },
    { "can't be read", { to = { { address = "a@b.c, d@e.f" } } } },
    { "it must be one address, and nothing else", { to = { { address = "x <a@b.c>" } } } },
    { "unknown field 'mail' of an address", { to = { { mail = "a@b.c", address = "d@e.f" } } } },
    { "'to' has an entry without an address", { to = { { name = "x" } } } },
    { "'to' has a group in a group", { to = { { name = "x", group = { "y: a@b.c;" } } } } },
    { "'to' has a group without a name", { to = { { group = {} } } } },
    { "'message_id' is no message id", { message_id = "x" } },
    { "'message_id' is no message id", { message_id = "<a b@c>" } },
    { "'in_reply_to' is no message id", { in_reply_to = "<a@b" } },
    { "'references' is no message id", { references = { "<a@b>", "c" } } },
    { "'headers' must be a table", { headers = "X: y" } },
    { "can't be given in 'headers'", { headers = { Bcc = "a@b.c" } } },
    { "can't be given in 'headers'", { headers = { ["content-Type"] = "text/html" } } },
    { "can't be given in 'headers'", { headers = { { "Resent-To", "a@b.c" } } } },
    { "can't be the name of a header field", { headers = { ["X Y"] = "z" } } },
    { "can't be the name of a header field", { headers = { ["X:"] = "z" } } },
    { "can't be the name of a header field", { headers = { ["Xé"] = "z" } } },
    { "the header field X must be a string", { headers = { X = true } } },
    { "'inline' is for what 'html' shows", { inline = { a = { content = "" } } } },
    { "a name in 'inline' must be", { html = "", inline = { [">"] = { content = "" } } } },
    { "needs either 'file' or 'content'", { attachments = { {} } } },
    { "needs either 'file' or 'content'", { attachments = { { file = "x", content = "y" } } } },
    { "unknown field 'path' of attachments[1]", { attachments = { { path = "x" } } } },
    { "'attachments' must be an array", { attachments = { file = "x" } } },
    { "must be as in text/csv", { attachments = { { content = "", type = "text" } } } },
    { "must be as in text/csv", { attachments = { { content = "", type = "a/b; c=d" } } } },
    { "give a message as { message", { attachments = { { file = "x", type = "Message/x" } } } },
    { "must be a message, or the text of one", { attachments = { { message = {} } } } },
    { "unknown field 'type' of", { attachments = { { message = "", type = "a/b" } } } },
  }

  for _, case in ipairs(raised) do
    it(("raises: %s (%s)"):format(case[1], next(case[2])), function()
      local ok, err = pcall(new, case[2])
      assert.is_false(ok)
      assert.matches(case[1], err, 1, true)
    end)
  end

  -- Where a text goes into a header: what is given for it, by what it is called.
  local places = {
    ["'subject'"] = function(x) return { subject = x } end,
    ["'from'"] = function(x) return { from = "A <a@b.c>" .. x } end,
    ["a name in 'from'"] = function(x) return { from = { name = x, address = "a@b.c" } } end,
    ["an address in 'to'"] = function(x) return { to = { { address = "a@b.c" .. x } } } end,
    ["'to'"] = function(x) return { to = { '"a' .. x .. '" <a@b.c>' } } end,
    ["'cc'"] = function(x) return { cc = "x" .. x .. ": a@b.c;" } end,
    ["a name in 'bcc'"] = function(x) return { bcc = { name = x, group = { "a@b.c" } } } end,
    ["'reply_to'"] = function(x) return { reply_to = "a@b.c" .. x } end,
    ["'sender'"] = function(x) return { sender = x .. "a@b.c" } end,
    ["'message_id'"] = function(x) return { message_id = "<a" .. x .. "@b>" } end,
    ["'in_reply_to'"] = function(x) return { in_reply_to = "<a@b>" .. x } end,
    ["'references'"] = function(x) return { references = { "<a@b>", "<c@d" .. x .. ">" } } end,
    ["the header field X-Y"] = function(x) return { headers = { ["X-Y"] = { "z", "z" .. x } } } end,
    ["can't be the name of a header field"] = function(x)
      return { headers = { ["X" .. x .. "Bcc"] = "z" } }
    end,
    ["the name of attachments[1]"] = function(x)
      return { attachments = { { content = "", name = x .. ".txt" } } }
    end,
    ["the name of attachments[1] "] = function(x)
      return { attachments = { { message = "", name = "a" .. x } } }
    end,
    ["the name of inline.a"] = function(x)
      return { html = "", inline = { a = { content = "", name = x } } }
    end,
    ["of attachments[1]"] = function(x)
      return { attachments = { { file = "/nowhere/a" .. x } } }
    end,
    ["the type of attachments[1]"] = function(x)
      return { attachments = { { content = "", type = "text/x" .. x } } }
    end,
    ["the charset of attachments[1]"] = function(x)
      return { attachments = { { content = "", charset = "x" .. x } } }
    end,
    ["a name in 'inline'"] = function(x)
      return { html = "", inline = { ["a" .. x] = { content = "" } } }
    end,
  }

  for name, fields_with in pairs(places) do
    it("raises for a line break or NUL in " .. name, function()
      for _, text in ipairs { "\r", "\n", "\r\n", "\r\nBcc: x@example.test", "\nX: y\n\n", "\0" } do
        local ok, err = pcall(new, fields_with(text))
        assert.is_false(ok, ("%q"):format(text))
        assert.matches(name:gsub(" +$", ""), err, 1, true)
      end
    end)
  end

  it("raises for a line break that an encoded word hides", function()
    for _, word in ipairs { "=?utf-8?q?a=0D=0ABcc:_x?=", "=?utf-8?b?YQpi?=" } do
      local ok, err = pcall(new, { from = word .. " <a@b.c>" })
      assert.is_false(ok)
      assert.matches("a name in 'from' has a line break", err, 1, true)
    end
  end)

  it("decodes encoded words in an address list", function()
    local m = new { from = "=?iso-8859-1?q?=C5ngstr=F6m?= =?utf-8?b?w6k=?= <a@b.c>" }
    assert.matches("\r\nFrom: =?UTF-8?B?w4VuZ3N0csO2bcOp?= <a@b.c>\r\n", tostring(m), 1, true)
  end)

  it("fails when a file can't be read", function()
    for _, path in ipairs { "/nowhere/file.pdf", "/tmp" } do
      for _, fields in ipairs { { attachments = { { file = path } } },
        { html = "x", inline = { a = { file = path } } } } do
        fields.from = "a@b.c"
        local m, err = message.new(fields)
        assert.is_nil(m)
        assert.equal("cancelled", err.kind)
        assert.matches("the file " .. path .. " can't be read: ", tostring(err), 1, true)
      end
    end
  end)

  it("makes message ids in the sender's domain, each another", function()
    local first, second = new().message_id, new().message_id
    assert.matches("^<[%w]+@example%.test>$", first)
    assert.are_not.equal(first, second)
  end)

  it("attaches messages that can't be 7bit as message/global", function()
    local raw = "Subject: \xc3\xa9\n\n" .. ("x"):rep(100000) .. "\n"
    for _, other in ipairs { raw, "Subject: x\n\n" .. ("y"):rep(1200), "Subject: x\n\n\0",
      new { to = "bøb@example.test" } } do
      local m = new { attachments = { { message = other } } }
      local text = tostring(m)
      assert.equal(#text, m:size())
      assert.matches("Content-Type: message/global\r\nContent-Transfer-Encoding: base64\r\n", text,
        1, true)
      assert.is_nil(text:find "[\0\x80-\xff]")
    end
    assert.matches("Content-Type: message/rfc822\r\nContent-Disposition: attachment\r\n\r\n"
      .. "A: b\r\n", tostring(new { attachments = { { message = "A: b\n\n" } } }), 1, true)
  end)

  it("gives what it is told, again and again", function()
    local m = new { headers = { { "X-B", "1" }, { "X-A", "2" }, ["X-C"] = { "3", 4 } } }
    local text = tostring(m)
    assert.matches("X-B: 1\r\nX-A: 2\r\nX-C: 3\r\nX-C: 4\r\n", text, 1, true)
    assert.equal(text, tostring(m))
    assert.has_error(function() m:source { utf9 = true } end, "message: unknown field 'utf9' of "
      .. "a message's settings")
  end)
end)
