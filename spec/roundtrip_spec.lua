-- A message goes out by SMTP and comes back by IMAP and POP3, over every way to
-- TLS, through real servers: Exim delivers it, Dovecot hands it out. What comes
-- back is what was sent, with CRLF as its only line end, behind the one header
-- field that Exim puts on top.

local clients = require "spec.support.clients"
local memory_probe = require "spec.support.memory_probe"
local process = require "spec.support.process"
local servers = require "spec.support.servers"

-- Every octet but NUL, CR and LF.
local function all_octets()
  local octets = {}
  for code = 1, 255 do
    if code ~= 10 and code ~= 13 then octets[#octets + 1] = string.char(code) end
  end
  return table.concat(octets)
end

local head = "From: alice@example.test\r\nSubject: specs\r\n\r\n"

-- `sent` arrives as `arrives`; without it, unchanged. `smtp`: what SMTP and its server make of
-- it where that is more, as their messages end with a line end and have a header. `append`: false
-- where Dovecot is at fault: it refuses an empty message, and in POP3 it forgets to double a dot
-- that is the first octet of all.
local messages = {
  { name = "empty", sent = "", smtp = "\r\n", append = false },
  { name = "a header only", sent = "Subject: specs\r\n\r\n" },
  { name = "no header", sent = "just text\r\n", smtp = "\r\njust text\r\n" },
  { name = "no final newline", sent = head .. "last", arrives = head .. "last",
    smtp = head .. "last\r\n" },
  { name = "empty lines at the end", sent = head .. "text\r\n\r\n\r\n" },
  { name = "a dot on a line of its own", sent = head .. "before\r\n.\r\nafter\r\n" },
  { name = "a dot and nothing else", sent = ".", smtp = "\r\n.\r\n", append = false },
  { name = "a dot as the first line", sent = ".\r\nmore\r\n", smtp = "\r\n.\r\nmore\r\n",
    append = false },
  { name = "a dot as the last line", sent = head .. "text\r\n.\r\n" },
  { name = "a dot at the end without a newline", sent = head .. "text\r\n.",
    arrives = head .. "text\r\n.", smtp = head .. "text\r\n.\r\n" },
  { name = "lines that begin with dots", sent = head .. ".\r\n..\r\n...\r\n.x\r\n..x\r\n. \r\n" },
  { name = "200 kB of lines with a dot each", sent = head .. (".\r\n"):rep(70000) },
  { name = "200 kB of lines with two dots", sent = head .. ("..\r\n"):rep(50000) },
  { name = "dots elsewhere", sent = head .. "a.\r\n .\r\na..b\r\n" },
  { name = "what would end it and begin another message",
    sent = head .. "text\n.\nMAIL FROM:<mallory@example.test>\n",
    arrives = head .. "text\r\n.\r\nMAIL FROM:<mallory@example.test>\r\n" },
  { name = "the same with bare CR",
    sent = head .. "text\r.\rMAIL FROM:<mallory@example.test>\r",
    arrives = head .. "text\r\n.\r\nMAIL FROM:<mallory@example.test>\r\n" },
  { name = "bare LF", sent = "Subject: specs\n\na\nb\n",
    arrives = "Subject: specs\r\n\r\na\r\nb\r\n" },
  { name = "bare CR", sent = "Subject: specs\r\ra\rb\r",
    arrives = "Subject: specs\r\n\r\na\r\nb\r\n" },
  { name = "bare CR and LF, mixed", sent = head .. "a\rb\nc\r\nd\n\re\r\r\nf\n\nz",
    arrives = head .. "a\r\nb\r\nc\r\nd\r\n\r\ne\r\n\r\nf\r\n\r\nz",
    smtp = head .. "a\r\nb\r\nc\r\nd\r\n\r\ne\r\n\r\nf\r\n\r\nz\r\n" },
  { name = "a CR at the end", sent = head .. "text\r", arrives = head .. "text\r\n" },
  { name = "a line of 998 octets", sent = head .. ("x"):rep(998) .. "\r\nend\r\n" },
  { name = "a line of 100,000 octets", sent = head .. ("x"):rep(100000) .. "\r\nend\r\n" },
  { name = "a line of 100,000 dots", sent = head .. ("."):rep(100000) .. "\r\nend\r\n" },
  { name = "8-bit text", sent = head .. "Gr\xc3\xbc\xc3\x9fe, \xe2\x82\xac, \xff\xfe\x80\r\n" },
  { name = "every octet but NUL, CR and LF", sent = head .. all_octets() .. "\r\n" },
  { name = "1 MB of them", sent = head .. (all_octets() .. "\r\n"):rep(4096) },
}

for _, message in ipairs(messages) do
  message.arrives = message.arrives or message.sent
  message.smtp = message.smtp or message.arrives
end

local appended = {}
for _, message in ipairs(messages) do
  if message.append ~= false then appended[#appended + 1] = message end
end

local ways = {
  { how = "starttls", version = "TLS1.2" }, { how = "implicit", version = "TLS1.2" },
  { how = "starttls", version = "TLS1.3" }, { how = "implicit", version = "TLS1.3" },
}

local function way_options(way)
  return { tls = way.how, tls_priority = ("NORMAL:-VERS-ALL:+VERS-%s"):format(way.version) }
end

-- Opens a session and notes what its channel is.
local function connect(mail, protocol, way, walked)
  local session = clients.connect(mail, protocol, way_options(way))
  local security = session:security()
  walked.security[protocol] = {
    security.how, security.version, security.encrypted, security.verified,
  }
  return session
end

-- Splits what came back from Exim into the id that Exim gave it, and what was sent.
local function below_received(text)
  local field, rest = text:match "^(Received:[^\r\n]*\r\n)(.*)$"
  while rest and rest:find "^[ \t]" do
    local line
    line, rest = rest:match "^([^\r\n]*\r\n)(.*)$"
    field = field .. line
  end
  return field and field:match "%sid (%S+)", rest
end

-- Sends every message, in one session. Returns Exim's ids, message by message.
local function send_all(mail, way, walked)
  local session <close> = connect(mail, "smtp", way, walked)
  local ids = {}
  for i, message in ipairs(messages) do
    local result = assert(session:send {
      from = "alice@example.test", to = "alice@example.test", message = message.sent,
    })
    ids[i] = assert(result.reply.text:match "id=(%S+)")
  end
  assert(session:quit())
  return ids
end

-- Appends every message of `appended`. Returns their UIDs, message by message.
local function append_all(mail, way, walked)
  local session <close> = connect(mail, "imap", way, walked)
  local uids = {}
  for i, message in ipairs(appended) do
    uids[i] = assert(session:append("INBOX", message.sent)).uid
  end
  assert(session:logout())
  return uids
end

local function fetch_by_imap(mail, way, walked, take)
  local session <close> = connect(mail, "imap", way, walked)
  assert(session:examine "INBOX")
  for message in session:fetch("1:*", { "body", "size" }) do
    assert.equal(message.size, #message.body)
    take(message.body, message.uid)
  end
  assert(session:logout())
end

local function fetch_by_pop3(mail, way, walked, take)
  local session <close> = connect(mail, "pop3", way, walked)
  for message in session:messages() do take(assert(message:retr()), message.n) end
  assert(session:quit())
end

-- The whole way once; what came back by id.
local function walk_by_smtp(mail, way)
  local walked = { security = {}, imap = {}, pop3 = {} }
  clients.empty(mail, "alice")
  walked.ids = send_all(mail, way, walked)
  mail:wait_for_mail("alice", #messages)
  for _, protocol in ipairs { "imap", "pop3" } do
    local fetch = protocol == "imap" and fetch_by_imap or fetch_by_pop3
    fetch(mail, way, walked, function(text)
      local id, rest = below_received(text)
      walked[protocol][id] = rest
    end)
  end
  return walked
end

-- The same with IMAP APPEND in place of SMTP; what came back by UID, and in the order of POP3.
local function walk_by_append(mail, way)
  local walked = { security = {}, imap = {}, pop3 = {} }
  clients.empty(mail, "alice")
  walked.uids = append_all(mail, way, walked)
  fetch_by_imap(mail, way, walked, function(text, uid) walked.imap[uid] = text end)
  fetch_by_pop3(mail, way, walked, function(text, n) walked.pop3[n] = text end)
  return walked
end

-- RFC 1939 3: what POP3 sends ends with CRLF; Dovecot adds a missing one.
local function with_final_crlf(text)
  if text == "" or text:sub(-2) == "\r\n" then return text end
  return text .. "\r\n"
end

-- Equal, without two long strings in the message when they are not.
local function assert_same_octets(expected, got)
  assert.is_string(got)
  if expected == got then return end
  local at = 1
  while expected:byte(at) == got:byte(at) do at = at + 1 end
  error(("%d octets, not %d; different from octet %d on: expected %q, got %q"):format(
    #got, #expected, at, expected:sub(at - 20, at + 20), got:sub(at - 20, at + 20)), 2)
end

describe("A message that goes out and comes back", function()
  local mail

  setup(function() mail = servers.shared() end)

  for _, way in ipairs(ways) do
    describe(("over %s, %s,"):format(way.how, way.version), function()
      local secure = { way.how, way.version, true, true }

      describe("by SMTP", function()
        local walked

        lazy_setup(function() walked = walk_by_smtp(mail, way) end)

        it("went over encrypted and verified channels", function()
          assert.same({ smtp = secure, imap = secure, pop3 = secure }, walked.security)
        end)

        for i, message in ipairs(messages) do
          it("is the same: " .. message.name, function()
            local id = walked.ids[i]
            assert_same_octets(message.smtp, walked.imap[id])
            assert_same_octets(message.smtp, walked.pop3[id])
          end)
        end
      end)

      describe("by IMAP", function()
        local walked

        lazy_setup(function() walked = walk_by_append(mail, way) end)

        it("went over encrypted and verified channels", function()
          assert.same({ imap = secure, pop3 = secure }, walked.security)
        end)

        for i, message in ipairs(appended) do
          it("is the same: " .. message.name, function()
            assert_same_octets(message.arrives, walked.imap[walked.uids[i]])
            assert_same_octets(with_final_crlf(message.arrives), walked.pop3[i])
          end)
        end
      end)
    end)
  end

  it("may be refused, as an empty one is by Dovecot, and the session goes on", function()
    clients.empty(mail, "alice")
    local session <close> = clients.connect(mail, "imap")
    local done, err = session:append("INBOX", "")
    assert.is_nil(done)
    assert.equal("rejected", err.kind)
    assert.matches("zero byte", err.text)
    assert(session:append("INBOX", "."))
    assert(session:select "INBOX")
    assert.equal(".", assert(session:fetch_all("1:*", { "body" }))[1].body)
  end)

  it("needs no option to agree on the version that the server has", function()
    for _, version in ipairs { "TLSv1.2", "TLSv1.3" } do
      local own <close> = servers.start { tls_min = version, tls_max = version }
      for _, protocol in ipairs(clients.protocols) do
        local session <close> = clients.connect(own, protocol)
        assert.equal(version:gsub("v", ""), session:security().version)
      end
    end
  end)
end)

describe("A message with NUL", function()
  local mail
  local text = head .. "a\0b\r\n"

  setup(function() mail = servers.shared() end)

  before_each(function() clients.empty(mail, "alice") end)

  local function give(session, message)
    return session:send {
      from = "alice@example.test", to = "alice@example.test", message = message,
    }
  end

  local function as_source()
    local given = false
    return function()
      if given then return nil end
      given = true
      return text
    end
  end

  it("is refused by SMTP before anything is sent, as a string", function()
    local events = {}
    local session <close> = clients.connect(mail, "smtp",
      { trace = function(event) events[#events + 1] = event end })
    local heard = #events
    local done, err = give(session, text)
    assert.is_nil(done)
    assert.equal("unsupported", err.kind)
    assert.matches("NUL", err.message)
    assert.equal(heard, #events)
    assert.truthy(give(session, head .. "without\r\n"))
    mail:wait_for_mail("alice", 1)
  end)

  it("is not delivered by SMTP, in a stream", function()
    local session <close> = clients.connect(mail, "smtp")
    local done, err = give(session, as_source())
    assert.is_nil(done)
    assert.equal("unsupported", err.kind)
    assert.matches("NUL", err.message)
    assert(session:noop())
    assert.truthy(give(session, head .. "without\r\n"))
    assert.equal(1, #mail:wait_for_mail("alice", 1))
  end)

  it("is added by IMAP as it is, where the server has BINARY", function()
    local session <close> = clients.connect(mail, "imap")
    for _, message in ipairs { text, as_source() } do
      assert(session:append("INBOX", message))
    end
    assert(session:select "INBOX")
    local found = assert(session:fetch_all("1:*", { "BINARY[1]" }))
    assert.equal(2, #found)
    for _, message in ipairs(found) do assert.equal("a\0b\r\n", message.sections["1"]) end
  end)

  it("comes in by POP3 as it is, and by IMAP as the server has it", function()
    mail:deliver("alice", "Subject: specs\n\na\0b\n")
    local pop3 <close> = clients.connect(mail, "pop3")
    assert.equal("Subject: specs\r\n\r\na\0b\r\n", pop3:retr(1))
    local imap <close> = clients.connect(mail, "imap")
    imap:select "INBOX"
    local message = assert(imap:fetch_all("1:*", { "body" }))[1]
    assert.equal("Subject: specs\r\n\r\na\x80b\r\n", message.body) -- so does Dovecot
  end)
end)

describe("A message of 64 MiB #memory", function()
  local mail, directory, path
  local size = 64 * 1024 * 1024
  local most = 4 * 1024 * 1024

  -- Lines of many lengths, some with dots in front, and no final line end.
  local function write_message(to)
    local lines = {}
    for i = 0, 999 do lines[#lines + 1] = (i % 7 == 0 and "." or "") .. ("y"):rep(i) end
    local block = table.concat(lines, "\r\n") .. "\r\n"
    local file <close> = assert(io.open(to, "wb"))
    local left = size - #head
    file:write(head)
    while left > 0 do
      file:write(block:sub(1, left))
      left = left - #block
    end
  end

  setup(function()
    mail = servers.shared()
    directory = process.temporary_directory()
    path = directory.path .. "/message"
    write_message(path)
  end)

  teardown(function()
    clients.empty(mail, "alice")
    directory:close()
  end)

  local function probe(protocol, script, options)
    options = options or {}
    options.path, options.protocol = path, protocol
    options.connect = clients.options(mail, protocol)
    local growth, result = memory_probe.run(script, options)
    assert.is_true(growth < most, ("peak memory grew by %d bytes"):format(growth))
    return result
  end

  -- The file has the message, behind `above` octets and with `below` more octets.
  local function assert_arrived(file, above, below)
    process.run { "cmp", "-i", above .. ":0", "-n", tostring(size), file, path }
    local handle <close> = assert(io.open(file, "rb"))
    assert.equal(above + size, handle:seek("end") - #below)
    handle:seek("set", above + size)
    assert.equal(below, handle:read "a")
  end

  -- The size of what Exim puts on top.
  local function above(file)
    local handle <close> = assert(io.open(file, "rb"))
    return (handle:read(4096):find("From: alice", 1, true)) - 1
  end

  it("goes out by SMTP and comes in by IMAP and POP3 in constant memory", function()
    clients.empty(mail, "alice")
    probe("smtp", function(mark, args)
      local session <close> = assert(require "starttls.smtp".connect(args.connect))
      local file <close> = assert(io.open(args.path, "rb"))
      mark()
      assert(session:send {
        from = "alice@example.test", to = "alice@example.test", message = file,
      })
      assert(session:quit())
    end)
    mail:wait_for_mail("alice", 1)
    local by_imap, by_pop3 = directory.path .. "/imap", directory.path .. "/pop3"
    probe("imap", function(mark, args)
      local session <close> = assert(require "starttls.imap".connect(args.connect))
      local file <close> = assert(io.open(args.to, "wb"))
      mark()
      assert(session:select "INBOX")
      local found = assert(session:fetch_all("1:*", { "body" }, {
        sink = function() return file end,
      }))
      assert(#found == 1 and found[1].body == true)
    end, { to = by_imap })
    probe("pop3", function(mark, args)
      local session <close> = assert(require "starttls.pop3".connect(args.connect))
      local file <close> = assert(io.open(args.to, "wb"))
      mark()
      assert(session:retr(1, function(piece) return not piece or file:write(piece) end))
    end, { to = by_pop3 })
    assert_arrived(by_imap, above(by_imap), "\r\n")
    assert_arrived(by_pop3, above(by_pop3), "\r\n")
  end)

  for _, kind in ipairs { "file", "function" } do
    it(("is appended by IMAP from a %s in constant memory"):format(kind), function()
      clients.empty(mail, "alice")
      probe("imap", function(mark, args)
        local session <close> = assert(require "starttls.imap".connect(args.connect))
        local file <close> = assert(io.open(args.path, "rb"))
        mark()
        local source = args.kind == "file" and file or function() return file:read(8192) end
        assert(session:append("INBOX", source))
      end, { kind = kind })
      local by_imap = directory.path .. "/appended"
      probe("imap", function(mark, args)
        local session <close> = assert(require "starttls.imap".connect(args.connect))
        local file <close> = assert(io.open(args.to, "wb"))
        mark()
        assert(session:select "INBOX")
        for _ in session:fetch("1:*", { "body" }, { sink = function()
          return function(piece) return not piece or file:write(piece) end
        end }) do end -- luacheck: ignore 542
      end, { to = by_imap })
      assert_arrived(by_imap, 0, "")
    end)
  end
end)
