-- What send() asks of the server by the parameters of MAIL and RCPT, and what a session can ask
-- it besides (VRFY, EXPN, HELP, ETRN, LIMITS). Scripted peers show the exact lines; Exim does what
-- it is asked for. Most peers speak clear text, as the encryption makes no difference here.

local clients = require "spec.support.clients"
local peer_steps = require "spec.support.peer_steps"
local process = require "spec.support.process"
local servers = require "spec.support.servers"
local Stage = require "spec.support.stage"

local smtp = require "starttls.smtp"

local say, expect = peer_steps.say, peer_steps.expect
local letter = "Subject: x\r\n\r\nx\r\n"

-- Runs `use(session)` against a peer that offers `extensions` and plays the steps. Returns the
-- lines that the client said behind EHLO.
local function converse(extensions, steps, use)
  local all = { { "smtp_upgrade", { secure = false, auth = false, after = extensions } },
    table.unpack(steps) }
  local peer <close> = peer_steps.start(all, {})
  local options = { host = "127.0.0.1", port = peer.port, tls = "none" }
  local session <close> = assert(smtp.connect(options))
  use(session)
  session:close()
  local record = peer:finish()
  assert.is_true(record.ok, record.error)
  local lines = {}
  for line in record.clear:match("^EHLO [^\r]+\r\n(.*)$"):gmatch "([^\r]*)\r\n" do
    lines[#lines + 1] = line
  end
  return lines
end

-- An envelope: the given fields, and defaults for what every one has.
local function envelope(fields)
  local all = { from = "a@example.test", to = "b@example.test", message = letter }
  for name, value in pairs(fields) do all[name] = value end
  return all
end

-- The commands of one message that a server takes.
local function commands(extensions, fields)
  local result
  local lines = converse(extensions, { { "smtp_receive" } }, function(session)
    result = assert(session:send(envelope(fields)))
  end)
  local found = {}
  for _, line in ipairs(lines) do
    if line:find "^MAIL" or line:find "^RCPT" then found[#found + 1] = line end
  end
  return found, result
end

-- What is sent --------------------------------------------------------------------------------

local MAIL, RCPT = "MAIL FROM:<a@example.test>", "RCPT TO:<b@example.test>"

-- { the parameters' extension as it is listed, fields, what follows MAIL_, what follows RCPT_ }
local sent = {
  { "DSN", { ret = "headers" }, " RET=HDRS" },
  { "DSN", { ret = "Full" }, " RET=FULL" },
  { "dsn", { envid = "QQ314159" }, " ENVID=QQ314159" },
  { "DSN", { envid = "a b+c=d\\" }, " ENVID=a+20b+2Bc+3Dd\\" },
  { "DSN", { envid = ("+"):rep(33) }, " ENVID=" .. ("+2B"):rep(33) },
  { "DSN", { notify = "never" }, "", " NOTIFY=NEVER" },
  { "DSN", { notify = "delay" }, "", " NOTIFY=DELAY" },
  { "DSN", { notify = { "delay", "SUCCESS", "failure", "delay" } }, "",
    " NOTIFY=SUCCESS,FAILURE,DELAY" },
  { "DSN", { to = { address = "b@example.test", notify = { "failure" } } }, "", " NOTIFY=FAILURE" },
  { "DSN", { notify = "never", to = { { address = "b@example.test", notify = "delay" } } }, "",
    " NOTIFY=DELAY" },
  { "DSN", { to = { { address = "b@example.test", orcpt = "c+d=e@example.test" } } }, "",
    " ORCPT=rfc822;c+2Bd+3De@example.test" },
  { "DSN", { to = { { address = "b@example.test", orcpt = '"c d"@example.test' } } }, "",
    ' ORCPT=rfc822;"c+20d"@example.test' },
  { "DSN", { to = { { address = "b@example.test", orcpt = "X400;/S=c/C=de/" } } }, "",
    " ORCPT=x400;/S+3Dc/C+3Dde/" },
  { "DSN", { to = { { address = "b@example.test", orcpt = "c\u{fc}+\\@\u{4f8b}.test" } } }, "",
    " ORCPT=utf-8;c\\x{FC}\\x{2B}\\x{5C}@\\x{4F8B}.test" },
  { "DSN", { to = { { address = "b@example.test", orcpt = "utf-8;c@example.test" } } }, "",
    " ORCPT=utf-8;c@example.test" },
  { "DSN", { ret = "full", envid = "1", notify = "never",
      to = { address = "b@example.test", orcpt = "c@example.test" } },
    " RET=FULL ENVID=1", " NOTIFY=NEVER ORCPT=rfc822;c@example.test" },
  { "DELIVERBY", { deliver_by = { seconds = 1, mode = "return" } }, " BY=1;R" },
  { "DELIVERBY 240", { deliver_by = { seconds = 240, mode = "return", trace = true } },
    " BY=240;RT" },
  { "DELIVERBY 240,X", { deliver_by = { seconds = -60, mode = "notify", trace = false } },
    " BY=-60;N" },
  { "FUTURERELEASE", { hold_for = 999999999 }, " HOLDFOR=999999999" },
  { "FUTURERELEASE 3600 2030-01-01T00:00:00Z", { hold_for = 3600 }, " HOLDFOR=3600" },
  { "FUTURERELEASE 3600 2030-01-01T00:00:00Z", { hold_until = 1893456000 },
    " HOLDUNTIL=2030-01-01T00:00:00Z" },
  { "FUTURERELEASE 3600 2030-01-01T00:00:00Z", { hold_until = "2029-12-31t23:59:59.5z" },
    " HOLDUNTIL=2029-12-31T23:59:59.5Z" },
  { "FUTURERELEASE 3600 2030-01-01T00:00:00Z", { hold_until = "2030-01-01T05:30:00+05:30" },
    " HOLDUNTIL=2030-01-01T05:30:00+05:30" },
  { "FUTURERELEASE x y", { hold_until = "2028-02-29T00:00:00Z" },
    " HOLDUNTIL=2028-02-29T00:00:00Z" },
  { "MT-PRIORITY MIXER", { priority = -9 }, " MT-PRIORITY=-9" },
  { "MT-PRIORITY", { priority = 0 }, " MT-PRIORITY=0" },
  { "AUTH PLAIN", { auth = "<>" }, " AUTH=<>" },
  { "AUTH PLAIN", { auth = "e+mc2=@example.test" }, " AUTH=e+2Bmc2+3D@example.test" },
  { "AUTH PLAIN", { auth = "a@b\u{fc}cher.test" }, " AUTH=a@xn--bcher-kva.test" },
  { "8BITMIME", { body = "7bit" }, " BODY=7BIT" },
  { "8BITMIME", { body = "8bitmime" }, " BODY=8BITMIME" },
  { "8BITMIME", { body = "8bitmime", message = "\u{fc}\r\n" }, " BODY=8BITMIME" },
  { "SMTPUTF8", { smtputf8 = true }, " SMTPUTF8" },
  { "SMTPUTF8", { smtputf8 = false }, "" },
  { "REQUIRETLS", { require_tls = false }, "" },
}

describe("send", function()
  for _, case in ipairs(sent) do
    local extension, fields, mail, rcpt = table.unpack(case)
    it(("says %q and %q where the server lists %s"):format(mail, rcpt or "", extension), function()
      assert.same({ MAIL .. mail, RCPT .. (rcpt or "") }, (commands({ extension }, fields)))
    end)
  end

  it("says everything that it is asked for, in one go or command by command", function()
    local offer = { "8BITMIME", "SIZE", "DSN", "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY",
      "AUTH X", "SMTPUTF8" }
    local fields = { ret = "headers", envid = "1", deliver_by = { seconds = 5, mode = "notify" },
      hold_for = 1, priority = 1, auth = "<>", body = "8bitmime", smtputf8 = true,
      to = { "c@example.test", { address = "d@example.test", notify = "never" },
        "e@example.test" } }
    local expected = {
      MAIL .. " SMTPUTF8 SIZE=17 RET=HDRS ENVID=1 BY=5;N HOLDFOR=1 MT-PRIORITY=1 AUTH=<>"
        .. " BODY=8BITMIME",
      "RCPT TO:<c@example.test>", "RCPT TO:<d@example.test> NOTIFY=NEVER",
      "RCPT TO:<e@example.test>",
    }
    assert.same(expected, (commands(offer, fields)))
    offer[#offer + 1] = "PIPELINING"
    assert.same(expected, (commands(offer, fields)))
  end)

  it("sends the domains of addresses as A-labels where there is no SMTPUTF8", function()
    local to = { "b@B\u{dc}CHER.test", { address = "c@[127.0.0.1]" }, '"d@e"@\u{4f8b}.test' }
    local found, result = commands({}, { from = "a@b\u{fc}cher.test", to = to })
    assert.same({ "MAIL FROM:<a@xn--bcher-kva.test>", "RCPT TO:<b@xn--bcher-kva.test>",
      "RCPT TO:<c@[127.0.0.1]>", 'RCPT TO:<"d@e"@xn--fsq.test>' }, found)
    assert.same({ to[1], "c@[127.0.0.1]", to[3] }, result.accepted)
    assert.same(found,
      (commands({ "SMTPUTF8" }, { from = "a@b\u{fc}cher.test", to = to, smtputf8 = false })))
  end)

  it("sends addresses as they are where there is SMTPUTF8", function()
    assert.same({ "MAIL FROM:<a@b\u{fc}cher.test> SMTPUTF8", RCPT },
      (commands({ "SMTPUTF8" }, { from = "a@b\u{fc}cher.test" })))
    assert.same({ MAIL .. " SMTPUTF8", "RCPT TO:<\u{fc}@b\u{fc}cher.test>" },
      (commands({ "SMTPUTF8" }, { to = "\u{fc}@b\u{fc}cher.test" })))
  end)

  it("tells refused recipients by the addresses that it was given", function()
    local _, err
    converse({ "DSN" }, { expect "^MAIL", say "250 OK\r\n",
      expect "^RCPT TO:<b@xn%-%-bcher%-kva.test> NOTIFY=NEVER\r\n", say "550 5.1.1 no\r\n",
      expect "^RSET", say "250 OK\r\n" }, function(session)
      _, err = session:send(envelope { notify = "never", to = "b@b\u{fc}cher.test" })
    end)
    assert.equals("b@b\u{fc}cher.test", err.rejected[1].address)
  end)

  it("declares a stream as it is told to, and holds it to that", function()
    local function source(text)
      local pieces = { text, "Subject: x\r\n\r\n" }
      return function() return table.remove(pieces) end
    end
    assert.same({ MAIL .. " BODY=7BIT", RCPT },
      (commands({ "8BITMIME" }, { body = "7bit", message = source "x\r\n" })))
    local _, err
    local lines = converse({ "8BITMIME" }, { expect "^MAIL", say "250 OK\r\n", expect "^RCPT",
      say "250 OK\r\n", expect "^DATA", say "354 go on\r\n", peer_steps.silence }, function(session)
      _, err = session:send(envelope { body = "7bit", message = source "\u{fc}\r\n" })
    end)
    assert.same({ "unsupported", "content" }, { err.kind, err.during })
    assert.not_equals(".", lines[#lines])
  end)
end)

-- What is refused -----------------------------------------------------------------------------

local twelve_hours = { seconds = 43200, mode = "return" }

-- { fields, the server's extensions, words of the error }. Nothing of these may be sent.
local refused = {
  { { ret = "full" }, {}, "'ret' needs DSN" },
  { { envid = "1" }, {}, "'envid' needs DSN" },
  { { notify = "never" }, {}, "'notify' needs DSN" },
  { { to = { "c@d", { address = "b@c", orcpt = "b@c" } } }, {}, "'orcpt' needs DSN" },
  { { deliver_by = twelve_hours }, {}, "'deliver_by' needs DELIVERBY" },
  { { hold_for = 1 }, {}, "'hold_for' needs FUTURERELEASE" },
  { { hold_until = 1 }, {}, "'hold_until' needs FUTURERELEASE" },
  { { priority = 3 }, { "MT-PRIORITYX" }, "'priority' needs MT-PRIORITY" },
  { { require_tls = true }, {}, "'require_tls' needs REQUIRETLS" },
  { { require_tls = true }, { "REQUIRETLS" }, "the channel is not encrypted and verified" },
  { { auth = "<>" }, {}, "'auth' needs AUTH" },
  { { body = "7bit" }, {}, "'body' needs 8BITMIME" },
  { { body = "8bitmime" }, {}, "'body' needs 8BITMIME" },
  { { body = "7bit", message = "\u{fc}" }, { "8BITMIME" }, "8-bit text, and 'body' says 7bit" },
  { { smtputf8 = true }, {}, "does not offer SMTPUTF8" },
  { { from = "\u{fc}@b" }, {}, "without SMTPUTF8 the address \u{fc}@b can't be sent" },
  { { to = "\u{fc}@b" }, {}, "its local part is not ASCII" },
  { { to = { "a@b", "\u{fc}" } }, {}, "its local part is not ASCII" },
  { { to = "\u{fc}@b", smtputf8 = false }, { "SMTPUTF8" }, "without SMTPUTF8" },
  { { to = "a@-\u{fc}.test" }, {}, "IDNA" },
  { { to = ("a"):rep(64) .. "@" .. ("\u{fc}aaaaaaaaa."):rep(11) .. "test" }, {}, "longer than" },
  { { deliver_by = { seconds = 239, mode = "return" } }, { "DELIVERBY 240" }, "240 seconds" },
  { { hold_for = 3601 }, { "FUTURERELEASE 3600 2030-01-01T00:00:00Z" }, "3600 seconds" },
  { { hold_until = 1893456001 }, { "FUTURERELEASE 9 2030-01-01T00:00:00Z" }, "until 2030-01-01" },
  { { hold_until = "2030-01-01T00:00:01Z" }, { "FUTURERELEASE 1 2030-01-01T00:00:00Z" },
    "until 2030-01-01" },
  { { hold_until = "2029-12-31T23:00:00-01:01" }, { "FUTURERELEASE 1 2030-01-01T00:00:00Z" },
    "until 2030-01-01" },
}

local misused = {
  { { ret = "body" }, "'ret' must be \"full\" or \"headers\"" },
  { { ret = true }, "'ret' must be" },
  { { envid = "" }, "'envid' is empty" },
  { { envid = "a\r\nb" }, "can't be printed" },
  { { envid = "\u{fc}" }, "must be ASCII" },
  { { envid = ("+"):rep(34) }, "100 octets" },
  { { envid = 7 }, "must be a string" },
  { { notify = {} }, "'notify' is empty" },
  { { notify = { "never", "delay" } }, "'notify' must be" },
  { { notify = "sometimes" }, "'notify' must be" },
  { { notify = 1 }, "must be a table" },
  { { to = { { address = "b@c", notfy = "never" } } }, "unknown field 'notfy'" },
  { { to = { {} } }, "must be a string" },
  { { to = 7 }, "'to' must be an address" },
  { { to = { address = 7 } }, "must be a string" },
  { { to = { { address = "b@c", orcpt = "b@c\n" } } }, "can't be printed" },
  { { to = { { address = "b@c", orcpt = "x400;\u{fc}" } } }, "must be ASCII" },
  { { to = { { address = "b@c", orcpt = ("+"):rep(165) } } }, "500 octets" },
  { { to = { { address = "b@c", orcpt = "\xff@c" } } }, "can't be printed" },
  { { deliver_by = 5 }, "must be a table" },
  { { deliver_by = { seconds = 5 } }, "deliver_by.mode must be" },
  { { deliver_by = { seconds = 0, mode = "return" } }, "from 1 to" },
  { { deliver_by = { seconds = 1000000000, mode = "notify" } }, "to 999999999" },
  { { deliver_by = { seconds = 5.5, mode = "notify" } }, "an integer" },
  { { deliver_by = { 5, mode = "notify" } }, "unknown field '1'" },
  { { deliver_by = { seconds = 5, mode = "notify", trace = 1 } }, "boolean" },
  { { hold_for = 0 }, "from 1 to" },
  { { hold_for = "5" }, "an integer" },
  { { hold_for = 5, hold_until = 5 }, "exclude each other" },
  { { hold_until = -1 }, "from 0 to" },
  { { hold_until = "tomorrow" }, "RFC 3339" },
  { { hold_until = "2029-02-29T00:00:00Z" }, "RFC 3339" },
  { { hold_until = "2100-02-29T00:00:00Z" }, "RFC 3339" },
  { { hold_until = "2030-13-01T00:00:00Z" }, "RFC 3339" },
  { { hold_until = "2030-01-01T24:00:00Z" }, "RFC 3339" },
  { { hold_until = "2030-01-01T00:00:00" }, "RFC 3339" },
  { { hold_until = "2030-01-01T00:00:00Z X=Y" }, "RFC 3339" },
  { { hold_until = "2030-01-01T00:00:00+24:00" }, "RFC 3339" },
  { { priority = 10 }, "from -9 to 9" },
  { { priority = -10 }, "from -9 to 9" },
  { { priority = 1.0 }, "an integer" },
  { { require_tls = 1 }, "boolean" },
  { { auth = "alice" }, "must be an address" },
  { { auth = "a@b\r\nRSET" }, "can't be printed" },
  { { auth = "\u{fc}@b" }, "must be ASCII" },
  { { body = "binary" }, "'body' must be" },
  { { smtputf8 = "yes" }, "boolean" },
  { { keep_bcc = 1 }, "boolean" },
  { { size = 5 }, "unknown field 'size'" },
}

describe("send fails before MAIL, and the session goes on,", function()
  for _, case in ipairs(refused) do
    local fields, extensions, words = table.unpack(case)
    it(("with \"... %s ...\""):format(words), function()
      local lines = converse(extensions, { expect "^NOOP", say "250 OK\r\n" }, function(session)
        local result, err = session:send(envelope(fields))
        assert.is_nil(result)
        assert.same({ "unsupported", "mail", false }, { err.kind, err.during, err.temporary })
        assert.is_truthy(err.message:find(words, 1, true), err.message)
        assert(session:noop())
      end)
      assert.same({ "NOOP" }, lines)
    end)
  end

  it("but says of a closed session that it is closed", function()
    local session
    converse({}, {}, function(open) session = open end)
    for _, fields in ipairs { { notify = "never" }, { from = "\u{fc}@b" }, {} } do
      local result, err = session:send(envelope(fields))
      assert.is_nil(result)
      assert.equals("closed", err.kind)
    end
  end)

  it("by raising for each value that no server could take", function()
    local everything = { "DSN", "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY", "REQUIRETLS", "AUTH X",
      "8BITMIME", "SMTPUTF8" }
    local lines = converse(everything, { expect "^NOOP", say "250 OK\r\n" }, function(session)
      for _, case in ipairs(misused) do
        local ok, err = pcall(session.send, session, envelope(case[1]))
        assert.is_false(ok, case[2])
        assert.is_truthy(err:find("send: ", 1, true) == 1 and err:find(case[2], 1, true), err)
      end
      assert(session:noop())
    end)
    assert.same({ "NOOP" }, lines)
  end)
end)

describe("REQUIRETLS", function()
  local stage
  setup(function() stage = Stage.open() end)
  teardown(function() stage:close() end)

  local upgrade = { "smtp_upgrade", { after = { "REQUIRETLS", "AUTH PLAIN" } } }

  it("goes out where the channel is verified", function()
    local peer <close> = stage:start { upgrade, expect "^MAIL FROM:<a@example.test> REQUIRETLS\r\n",
      say "250 OK\r\n", expect "^RCPT", say "250 OK\r\n", expect "^DATA", say "354 go on\r\n",
      { "read_to_dot" }, say "250 OK\r\n" }
    local session <close> = assert(smtp.connect(stage:options { port = peer.port }))
    assert(session:send(envelope { require_tls = true }))
  end)

  it("is refused where the server may be somebody else", function()
    local peer <close> = stage:start {
      { "smtp_upgrade", { after = { "REQUIRETLS" }, auth = false } }, peer_steps.silence }
    local session <close> = assert(smtp.connect(stage:options { port = peer.port, user = false,
      password = false, insecure_no_verify = true, ca_file = false }))
    assert.is_true(session:has "REQUIRETLS")
    local result, err = session:send(envelope { require_tls = true })
    assert.is_nil(result)
    assert.same({ "unsupported", "mail" }, { err.kind, err.during })
  end)
end)

-- Queries -------------------------------------------------------------------------------------

-- { method, argument, command, answer, fields of the reply } or, with `err`, of the error.
local asked = {
  { "verify", "crispin", "VRFY crispin", "250 Mark Crispin <Admin.MRC@foo.com>",
    { verified = true, addresses = { { name = "Mark Crispin", address = "Admin.MRC@foo.com" } } } },
  { "verify", "a@b.test", "VRFY a@b.test", "250 2.1.5 a@b.test",
    { verified = true, status = "2.1.5", addresses = { { address = "a@b.test" } } } },
  { "verify", "a@b.test", "VRFY a@b.test", "251 User not local; will forward to <c@d.test>",
    { verified = true, code = 251,
      addresses = { { name = "User not local; will forward to", address = "c@d.test" } } } },
  { "verify", "a@b.test", "VRFY a@b.test", "252 2.5.2 Cannot VRFY, but will try",
    { verified = false, code = 252, addresses = {} } },
  { "verify", "smith", "VRFY smith", "553-Ambiguous; possibilities are\r\n"
    .. "553-Joe Smith <jsmith@foo.com>\r\n553 Harry Smith <hsmith@foo.com>",
    err = { kind = "rejected", during = "vrfy", code = 553, addresses = {
      { name = "Joe Smith", address = "jsmith@foo.com" },
      { name = "Harry Smith", address = "hsmith@foo.com" } } } },
  { "verify", "x", "VRFY x", "550 String does not match anything",
    err = { kind = "rejected", during = "vrfy", code = 550, temporary = false } },
  { "verify", "x", "VRFY x", "450 later", err = { kind = "rejected", temporary = true } },
  { "verify", "x", "VRFY x", "502 5.5.1 VRFY disabled",
    err = { kind = "unsupported", during = "vrfy", code = 502, status = "5.5.1" } },
  { "verify", "\u{fc}@b.test", "VRFY \u{fc}@b.test SMTPUTF8", "250 <\u{fc}@b.test>",
    { addresses = { { address = "\u{fc}@b.test" } } }, extensions = { "SMTPUTF8" } },
  { "verify", "a@b\u{fc}cher.test", "VRFY a@xn--bcher-kva.test", "252 perhaps",
    { verified = false } },
  { "expand", "Example-People", "EXPN Example-People", "250-Jon Postel <Postel@isi.edu>\r\n"
    .. "250-Fred Fonebone <Fonebone@physics.foo-u.edu>\r\n250 Sam Q. Smith <SQSmith@specific.edu>",
    { addresses = { { name = "Jon Postel", address = "Postel@isi.edu" },
      { name = "Fred Fonebone", address = "Fonebone@physics.foo-u.edu" },
      { name = "Sam Q. Smith", address = "SQSmith@specific.edu" } } } },
  { "expand", "x", "EXPN x", "500 what?", err = { kind = "unsupported", during = "expn" } },
  { "expand", "x", "EXPN x", "550 Access Denied to You.", err = { kind = "rejected" } },
  { "help", nil, "HELP", "214-Commands:\r\n214 NOOP", { code = 214, text = "Commands:\nNOOP" } },
  { "help", "MAIL", "HELP MAIL", "211 2.0.0 see RFC 5321", { text = "see RFC 5321" } },
  { "help", "XYZ", "HELP XYZ", "504 no such topic",
    err = { kind = "unsupported", during = "help" } },
  { "etrn", "foo.com", "ETRN foo.com", "250 OK, queuing for node foo.com started",
    { code = 250 }, extensions = { "ETRN" } },
  { "etrn", "@foo.com", "ETRN @foo.com", "251 OK, no messages waiting for node foo.com",
    { pending = 0 }, extensions = { "ETRN" } },
  { "etrn", "foo.com", "ETRN foo.com", "253 OK, 14 pending messages for node foo.com started",
    { pending = 14 }, extensions = { "ETRN" } },
  { "etrn", "@b\u{fc}cher.test", "ETRN @xn--bcher-kva.test", "252 OK", { code = 252 },
    extensions = { "ETRN" } },
  { "etrn", "#q", "ETRN #q", "458 Unable to queue messages",
    err = { kind = "rejected", during = "etrn", temporary = true }, extensions = { "ETRN" } },
}

describe("a session asks", function()
  for _, case in ipairs(asked) do
    local method, argument, command, answer, fields = table.unpack(case, 1, 5)
    it(("%q and makes something of %q"):format(command, answer:match "^[^\r]*"), function()
      local lines = converse(case.extensions or {}, { expect ".", say(answer .. "\r\n"),
        expect "^NOOP", say "250 OK\r\n" }, function(session)
        local reply, err = session[method](session, argument)
        if case.err then assert.is_nil(reply) else assert(reply, err) end
        for name, value in pairs(case.err or fields) do
          assert.same(value, (case.err and err or reply)[name], name)
        end
        assert(session:noop())
      end)
      assert.same({ command, "NOOP" }, lines)
    end)
  end

  it("nothing that the server can't do", function()
    local lines = converse({}, { expect "^NOOP", say "250 OK\r\n" }, function(session)
      for method, argument in pairs { etrn = "foo.com", verify = "\u{fc}@b", expand = "\u{fc}" } do
        local reply, err = session[method](session, argument)
        assert.is_nil(reply)
        assert.equals("unsupported", err.kind)
        assert.is_truthy(("etrn vrfy expn"):find(err.during, 1, true), err.during)
      end
      assert(session:noop())
    end)
    assert.same({ "NOOP" }, lines)
  end)

  it("nothing that is no argument", function()
    local lines = converse({ "ETRN" }, { expect "^NOOP", say "250 OK\r\n" }, function(session)
      for _, wrong in ipairs { "a\r\nRSET", "a\0b", "", " ", "\xff", 5 } do
        for _, method in ipairs { "verify", "expand", "etrn" } do
          assert.is_false(pcall(session[method], session, wrong))
        end
      end
      assert.is_false(pcall(session.help, session, "a\nb"))
      assert.is_false(pcall(session.etrn, session, "foo.com bar"))
      assert(session:noop())
    end)
    assert.same({ "NOOP" }, lines)
  end)

  for announced, expected in pairs {
    ["LIMITS RCPTMAX=100 MAILMAX=7 RCPTDOMAINMAX=3"] =
      { rcptmax = 100, mailmax = 7, rcptdomainmax = 3 },
    ["limits rcptmax=1 X-NEW=5 MAILMAX=0 RCPTDOMAINMAX=ten FLAG X=RCPTMAX=9"] =
      { rcptmax = 1, ["x-new"] = 5 },
    ["LIMITS"] = {}, ["SIZE 5"] = {},
  } do
    it("nothing to tell the limits of " .. announced, function()
      assert.same({}, converse({ announced }, {}, function(session)
        assert.same(expected, session:limits())
      end))
    end)
  end
end)

describe("Exim", function()
  local mail, session
  setup(function() mail = servers.shared() end)
  before_each(function()
    mail:empty "alice"
    mail:empty "bob"
    session = clients.connect(mail, "smtp")
  end)
  after_each(function() session:close() end)

  it("reports the delivery that it was asked to report, and how it was asked", function()
    assert(session:send { from = "alice@example.test", ret = "headers", envid = "no. 1+1=2",
      to = { { address = "bob@example.test", notify = { "success", "delay" },
        orcpt = "b+b@example.test" } },
      message = "From: alice@example.test\nSubject: x\n\nthe body\n" })
    mail:wait_for_mail("bob", 1)
    local report = process.read_file(mail:wait_for_mail("alice", 1)[1].path)
    assert.matches("\nOriginal-Envelope-ID: no.+201+2B1+3D2\n", report, 1, true)
    assert.matches("\nOriginal-Recipient: rfc822;b+2Bb@example.test\n", report, 1, true)
    assert.matches("\nAction: delivered\n", report, 1, true)
    assert.is_nil(report:find("the body", 1, true))
  end)

  it("reports nothing where it was asked not to", function()
    assert(session:send { from = "alice@example.test", to = "bob@example.test", notify = "never",
      message = letter })
    mail:wait_for_mail("bob", 1)
    assert.same({}, mail:inbox "alice")
  end)

  it("takes addresses in UTF-8, and A-labels", function()
    for utf8, with in pairs { [true] = "utf8esmtp", [false] = "esmtp" } do
      assert(session:send { from = "alice@b\u{fc}cher.test", to = "bob@example.test",
        message = "Subject: x\n\nx\n", smtputf8 = utf8 })
      local text = process.read_file(mail:wait_for_mail("bob", 1)[1].path)
      assert.matches(" with " .. with, text, 1, true)
      assert.equal(not utf8, text:find("xn--bcher-kva", 1, true) ~= nil)
      mail:empty "bob"
    end
  end)

  it("answers VRFY, EXPN, HELP and ETRN", function()
    local found = assert(session:verify "alice@example.test")
    assert.same({ { address = "alice@example.test" } }, found.addresses)
    assert.is_true(found.verified)
    local _, err = session:verify "nobody@example.test"
    assert.equal("rejected", err.kind)
    assert.same({ { address = "alice@example.test" }, { address = "bob@example.test" } },
      assert(session:expand "staff@example.test").addresses)
    assert.matches("VRFY", assert(session:help()).text)
    assert.equal(250, assert(session:etrn "example.test").code)
    assert(session:noop())
  end)
end)
