-- What an IMAP server says unasked: the functions of on = { ... }, alerts, progress, NOTIFY
-- (RFC 5465), and data of FETCH that comes in several responses amid other data.

local clients = require "spec.support.clients"
local imap_script = require "spec.support.imap_script"
local patience = require "spec.support.patience"
local peer_steps = require "spec.support.peer_steps"
local servers = require "spec.support.servers"
local Stage = require "spec.support.stage"

local imap = require "starttls.imap"

local converse, short = imap_script.converse, imap_script.short
local going = { "%T OK done\r\n" }

-- The functions of on ---------------------------------------------------------------------------

describe("on = { ... }", function()
  local stage

  setup(function() stage = Stage.open() end)
  teardown(function() stage:close() end)

  it("hears of a command's progress (RFC 9585)", function()
    local told = {}
    converse({ "NOOP", {
      '* OK [INPROGRESS ("A2" 454 1000)] Processed 45%\r\n'
        .. '* OK [INPROGRESS ("A2" 999 NIL)] Nearly\r\n* OK [INPROGRESS (NIL NIL NIL)] Hm\r\n'
        .. "* OK [INPROGRESS] Still here\r\n%T OK done\r\n" } },
      function(session) assert.is_truthy(session:noop()) end,
      { options = { on = { progress = function(at) told[#told + 1] = at end } } })
    assert.same({ { tag = "A2", done = 454, goal = 1000 }, { tag = "A2", done = 999 }, {}, {} },
      told)
  end)

  it("hears of alerts, in whatever status they come", function()
    local told = {}
    converse({ "NOOP", { "* OK [ALERT] one\r\n* NO [ALERT] two\r\n* BAD [ALERT] three\r\n"
      .. "%T OK [ALERT] four\r\n" }, "NOOP", { "%T NO [ALERT] five\r\n" } }, function(session)
        assert.is_truthy(session:noop())
        assert.equal("five", select(2, session:noop()).text)
      end, { options = { on = { alert = function(text) told[#told + 1] = text end } } })
    assert.same({ "one", "two", "three", "four", "five" }, told)
  end)

  it("hears of alerts during opening, but for those said in the clear", function()
    local told = {}
    local say, expect = peer_steps.say, peer_steps.expect
    local peer <close> = stage:start {
      say "* OK [ALERT] greeting\r\n", expect "CAPABILITY",
      say "* OK [ALERT] clear\r\n* CAPABILITY IMAP4rev1 STARTTLS\r\n%T OK [ALERT] clear\r\n",
      expect "STARTTLS", say "%T OK [ALERT] clear\r\n", { "starttls", {} }, expect "CAPABILITY",
      say "* OK [ALERT] one\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\r\n%T OK [ALERT] two\r\n",
      expect "AUTHENTICATE PLAIN", say "* OK [ALERT] three\r\n%T OK [ALERT] four\r\n",
      expect "CAPABILITY", say "* CAPABILITY IMAP4rev1\r\n%T OK done\r\n", peer_steps.silence }
    local _ <close> = assert(imap.connect(stage:options { port = peer.port,
      on = { alert = function(text) told[#told + 1] = text end } }))
    assert.same({ "one", "two", "three", "four" }, told)
  end)

  it("hears of an alert with which authentication is refused", function()
    local told = {}
    local peer <close> = stage:start { { "imap_upgrade", { auth = false,
        after = { "AUTH=PLAIN", "SASL-IR" } } }, peer_steps.expect "AUTHENTICATE",
      peer_steps.say "%T NO [ALERT] Log in by web first\r\n", peer_steps.silence }
    local session, err = imap.connect(stage:options { port = peer.port,
      on = { alert = function(text) told[#told + 1] = text end } })
    assert.is_nil(session)
    assert.equal("auth", err.kind)
    assert.same({ "Log in by web first" }, told)
  end)

  it("may raise, which passes to the caller and leaves the session usable", function()
    local fails = true
    local on = { exists = function()
      if fails then error "the function failed" end
    end }
    converse({ 'STATUS "x" (MESSAGES UIDNEXT UIDVALIDITY UNSEEN)',
      { "* 1 EXISTS\r\n* STATUS x (MESSAGES 1)\r\n%T OK done\r\n" },
      "UID FETCH 1:2 (UID BODY.PEEK[])", { "* 1 FETCH (UID 1 BODY[] {3}\r\none)\r\n* 2 EXISTS\r\n"
        .. "* 2 FETCH (UID 2 BODY[] {3}\r\ntwo)\r\n%T OK done\r\n" },
      'STATUS "x" (MESSAGES)', { "* 3 EXISTS\r\n* STATUS x (MESSAGES 2)\r\n%T OK done\r\n" } },
      function(session)
        assert.error_matches(function() session:status "x" end, "the function failed")
        local bodies = {}
        assert.error_matches(function()
          for message in session:fetch("1:2", { "body" }) do bodies[#bodies + 1] = message.body end
        end, "the function failed")
        assert.same({ "one" }, bodies)
        fails = false
        assert.equal(2, session:status("x", { "messages" }).messages)
      end, { options = { on = on } })
  end)

  it("may close the session", function()
    converse({ "NOOP", { "* 1 EXISTS\r\n%T OK done\r\n" } }, function(session)
      session.on.exists = function() session:close() end
      local done, err = session:noop()
      assert.is_nil(done)
      assert.equal("closed", err.kind)
    end)
  end)

  it("gets `busy` when it begins another call", function()
    local inner
    converse({ "NOOP", { "* 1 EXISTS\r\n%T OK done\r\n" }, "NOOP", going }, function(session)
      session.on.exists = function() inner = table.pack(session:noop()) end
      assert.is_truthy(session:noop())
      assert.equal("busy", inner[2].kind)
      assert.is_truthy(session:noop())
    end)
  end)
end)

-- Data of FETCH in several responses ------------------------------------------------------------

local function body(text)
  return ("BODY[] {%d}\r\n%s"):format(#text, text)
end

-- What is fetched, the server's answer, what comes of it, and the events beside it.
local joined = {
  { "joins what comes in pieces, amid other messages", { "flags", "size", "body" },
    "* 1 FETCH (UID 11 FLAGS (x))\r\n* 2 FETCH (UID 12 RFC822.SIZE 2)\r\n"
      .. "* 1 FETCH (UID 11 RFC822.SIZE 1)\r\n* 1 FETCH (UID 11 " .. body "one" .. ")\r\n"
      .. "* 2 FETCH (UID 12 " .. body "two" .. " FLAGS ())\r\n",
    { "11 1 one x", "12 2 two " }, {} },
  { "joins pieces of which only one has the UID", { "size", "body" },
    "* 1 FETCH (RFC822.SIZE 1)\r\n* 1 FETCH (UID 11 " .. body "one" .. ")\r\n"
      .. "* 2 FETCH (UID 12 RFC822.SIZE 2)\r\n* 2 FETCH (" .. body "two" .. ")\r\n",
    { "11 1 one -", "12 2 two -" }, {} },
  { "follows the numbers when EXPUNGE comes between", { "size", "body" },
    "* 2 FETCH (RFC822.SIZE 2)\r\n* 1 EXPUNGE\r\n* 1 FETCH (UID 12 " .. body "two" .. ")\r\n"
      .. "* 2 FETCH (RFC822.SIZE 3)\r\n* 2 EXPUNGE\r\n* 2 FETCH (UID 14 " .. body "four"
      .. " RFC822.SIZE 4)\r\n",
    { "12 2 two -", "14 4 four -" }, { "expunge 1", "expunge 2", "fetch " } },
  { "hands out what never becomes whole, if it can be told whose it is", { "size", "body" },
    "* 1 FETCH (UID 11 RFC822.SIZE 1)\r\n* 2 FETCH (RFC822.SIZE 2)\r\n",
    { "11 1 nil -" }, { "fetch 2" } },
  { "leaves alone what is told of other messages, or of flags", { "size" },
    "* 1 FETCH (FLAGS (x))\r\n* 5 FETCH (UID 99 RFC822.SIZE 9)\r\n"
      .. "* 1 FETCH (UID 11 RFC822.SIZE 1)\r\n* 1 FETCH (UID 11 FLAGS ())\r\n",
    { "11 1 nil -" }, { "fetch 1", "fetch 99", "fetch 11" } },
  { "joins flags that come by themselves, and tells those that are news", { "flags", "size" },
    "* 1 FETCH (UID 11 RFC822.SIZE 1 FLAGS ())\r\n* 2 FETCH (FLAGS (y))\r\n"
      .. "* 1 FETCH (UID 11 FLAGS (z))\r\n* 2 FETCH (UID 12 RFC822.SIZE 2)\r\n",
    { "11 1 nil ", "12 2 nil y" }, { "fetch 11" } },
}

describe("fetch", function()
  for _, case in ipairs(joined) do
    it(case[1], function()
      local names = { flags = "FLAGS", size = "RFC822.SIZE", body = "BODY.PEEK[]" }
      local items = { "UID" }
      for _, name in ipairs(case[2]) do items[#items + 1] = names[name] end
      local events, found = {}, {}
      local function note(kind)
        return function(value) events[#events + 1] = short { type = kind, value = value } end
      end
      converse({ ("UID FETCH 11:19 (%s)"):format(table.concat(items, " ")),
        { case[3] .. "%T OK done\r\n" } }, function(session)
          for message in session:fetch("11:19", case[2]) do
            found[#found + 1] = ("%s %s %s %s"):format(message.uid, message.size, message.body,
              message.flags and table.concat(message.flags, " ") or "-")
          end
        end, { options = { on = { fetch = note "fetch", expunge = note "expunge" } } })
      assert.same(case[4], found)
      assert.same(case[5], events)
    end)
  end

  it("does not hold an endless number of incomplete messages", function()
    local lines = {}
    for number = 1, 1000 do
      lines[number] = ("* %d FETCH (UID %d RFC822.SIZE 1)\r\n"):format(number, number)
    end
    converse({ "UID FETCH 1:1000 (UID RFC822.SIZE INTERNALDATE)",
      { table.concat(lines) }, { silent = true } }, function(session)
        local next_uid = 1
        for message in session:fetch("1:1000", { "size", "date" }) do
          assert.equal(next_uid, message.uid)
          next_uid = next_uid + 1
          if next_uid == 900 then break end
        end
        assert.equal(900, next_uid)
      end)
  end)
end)

-- NOTIFY ----------------------------------------------------------------------------------------

local notify = { capabilities = { "NOTIFY", "IDLE" } }

-- Groups, and the command that they become (RFC 5465 3.1, 8).
local commands = {
  { false, "NOTIFY NONE" },
  { { { mailboxes = "selected" } },
    "NOTIFY SET (selected (MessageNew MessageExpunge FlagChange))" },
  { { { mailboxes = "selected", fetch = { "flags", "body" },
      events = { "MessageNew", "MessageExpunge" } }, status = true },
    "NOTIFY SET STATUS (selected (MessageNew (UID FLAGS BODY.PEEK[]) MessageExpunge))" },
  { { { mailboxes = "selected-delayed", events = { "MessageNew", "MessageExpunge" } },
      { mailboxes = { "Lists/Lua", "Entw\u{fc}rfe" }, events = {} },
      { subtree = "Lists", events = { "MessageNew", "MessageExpunge" } },
      { mailboxes = "personal", events = { "MailboxName", "SubscriptionChange" } } },
    'NOTIFY SET (selected-delayed (MessageNew MessageExpunge)) (mailboxes ("Lists/Lua" '
      .. '"Entw&APw-rfe") NONE) (subtree ("Lists") (MessageNew MessageExpunge)) '
      .. "(personal (MailboxName SubscriptionChange))" },
}

local refused_groups = {
  { "an array of groups", {} }, { "an array of groups", "selected" }, { "must be tables", { 1 } },
  { "there is no folder", { { folder = "x" } } },
  { "either mailboxes or subtree", { {} } },
  { "either mailboxes or subtree", { { mailboxes = "personal", subtree = "x" } } },
  { 'no kind of mailboxes called "INBOX"', { { mailboxes = "INBOX" } } },
  { "the mailboxes must be names", { { mailboxes = {} } } },
  { "events must be an array", { { mailboxes = "personal", events = "MessageNew" } } },
  { "no event MessageOld", { { mailboxes = "personal", events = { "MessageOld" } } } },
  { "no event MailboxName", { { mailboxes = "selected", events = { "MailboxName" } } } },
  { "need both", { { mailboxes = "personal", events = { "MessageNew" } } } },
  { "need both", { { mailboxes = "personal", events = { "FlagChange" } } } },
  { "selected mailbox only", { { mailboxes = "personal", fetch = { "flags" } } } },
  { "in one group only", { { mailboxes = "selected" }, { mailboxes = "selected-delayed" } } },
}

describe("NOTIFY", function()
  for _, case in ipairs(commands) do
    it("sends " .. case[2], function()
      converse({ case[2], going }, function(session)
        assert.same({}, (assert(session:notify(case[1]))))
      end, notify)
    end)
  end

  it("refuses groups that RFC 5465 does not allow, and servers without it", function()
    converse({ "NOOP", going }, function(session)
      for _, case in ipairs(refused_groups) do
        assert.error_matches(function() session:notify(case[2]) end, case[1], 1, true)
      end
      assert.is_truthy(session:noop())
    end, notify)
    converse({ "NOOP", going }, function(session)
      local done, err = session:notify(false)
      assert.is_nil(done)
      assert.equal("unsupported", err.kind)
      assert.matches("NOTIFY", err.message)
      assert.is_truthy(session:noop())
    end)
  end)

  it("returns how the mailboxes are, and a refusal with its words", function()
    converse({ "NOTIFY SET STATUS (personal (MessageNew MessageExpunge FlagChange))",
      { "* STATUS a (MESSAGES 1)\r\n* STATUS b (MESSAGES 2)\r\n* 3 EXISTS\r\n%T OK done\r\n" },
      "NOTIFY SET (personal (MessageNew MessageExpunge AnnotationChange))",
      { "%T NO [BADEVENT (MessageNew MessageExpunge)] no annotations\r\n" } }, function(session)
        local told = assert(session:notify { { mailboxes = "personal" }, status = true })
        assert.equal(2, #told)
        assert.same({ "b", 2 }, { told[2].name, told[2].messages })
        local done, err = session:notify { { mailboxes = "personal",
          events = { "MessageNew", "MessageExpunge", "AnnotationChange" } } }
        assert.is_nil(done)
        assert.equal("BADEVENT", err.status)
      end, notify)
  end)

  local selected = "NOTIFY SET (selected (MessageNew MessageExpunge FlagChange))"

  it("makes idle wait without a command where there is no IDLE, and ask now and then", function()
    converse({ selected, going, { quiet = true }, { "* 4 EXISTS\r\n" }, "NOOP",
      { "* STATUS other (MESSAGES 5)\r\n%T OK done\r\n" }, "NOTIFY NONE", going, "NOOP", going },
      function(session)
        assert(session:notify { { mailboxes = "selected" } })
        local told = {}
        for event in session:idle { renew = 0.1 } do
          told[#told + 1] = short(event)
          if #told == 2 then break end
        end
        assert.same({ "exists 4", "status other" }, told)
        assert(session:notify(false))
        assert.is_truthy(session:noop())
      end, { capabilities = { "NOTIFY" } })
  end)

  it("brings content of new messages", function()
    converse({ "NOTIFY SET (selected (MessageNew (UID BODY.PEEK[]) MessageExpunge FlagChange))",
      going, "IDLE", { "+ idling\r\n* 4 EXISTS\r\n* 4 FETCH (UID 9 BODY[] {5}\r\nhello)\r\n" },
      "DONE", going, "NOOP", going }, function(session)
        assert(session:notify { { mailboxes = "selected", fetch = { "body" } } })
        for event in session:idle() do
          if event.type == "fetch" then
            assert.equal("hello", event.value.body)
            break
          end
        end
        assert.is_truthy(session:noop())
      end, notify)
  end)

  it("is no way to wait for selected-delayed, nor when the server gives up", function()
    converse({ "NOTIFY SET (selected-delayed (MessageNew MessageExpunge FlagChange))", going,
      "NOOP", { "* 1 EXISTS\r\n%T OK done\r\n" }, selected,
      { "%T OK done\r\n* OK [NOTIFICATIONOVERFLOW] too much\r\n" }, "NOOP", going, "NOOP",
      { "* 2 EXISTS\r\n%T OK done\r\n" } }, function(session)
        assert(session:notify { { mailboxes = "selected-delayed" } })
        assert.is_true(session:idle { interval = 0.05, each = function(event)
          assert.equal("exists 1", short(event))
          return false
        end })
        assert(session:notify { { mailboxes = "selected" } })
        local told = {}
        for event in session:idle { interval = 0.05 } do
          told[#told + 1] = short(event)
          if event.type == "exists" then break end
        end
        assert.same({ "overflow too much", "exists 2" }, told)
      end, { capabilities = { "NOTIFY" } })
  end)

  it("keeps what is told of other mailboxes apart from the answer to STATUS", function()
    local told = {}
    local on = { status = function(status) told[#told + 1] = status.name end }
    converse({ selected, going, 'STATUS "x" (MESSAGES)',
      { "* STATUS y (MESSAGES 1)\r\n* STATUS x (MESSAGES 2)\r\n%T OK done\r\n" } },
      function(session)
        assert(session:notify { { mailboxes = "selected" } })
        assert.equal(2, session:status("x", { "messages" }).messages)
      end, { capabilities = { "NOTIFY" }, options = { on = on } })
    assert.same({ "y" }, told)
  end)

  it("of Dovecot tells of other mailboxes, and of new messages with their data", function()
    local mail = servers.shared()
    clients.empty(mail, "alice")
    local other <close> = clients.connect(mail, "imap")
    local elsewhere <close> = clients.connect(mail, "imap")
    local here <close> = clients.connect(mail, "imap")
    assert(here:select "INBOX")
    assert.is_truthy(here:has "NOTIFY")
    assert(here:notify { { mailboxes = "selected", fetch = { "flags", "headers" } } })
    local now = assert(elsewhere:notify { { mailboxes = "personal" }, status = true })
    assert.is_true(#now > 0)
    assert(other:append("INBOX", "Subject: News\r\n\r\nHello\r\n"))
    local headers
    for event in here:idle { seconds = patience.seconds(15) } do
      headers = event.type == "fetch" and event.value.headers
      if headers then break end
    end
    assert.equal("Subject: News\r\n\r\n", headers)
    assert.equal(1, here.mailbox.exists)
    local told
    for event in elsewhere:idle { seconds = patience.seconds(15) } do
      told = event.type == "status" and event.value
      if told then break end
    end
    assert.same({ "INBOX", 1 }, { told.name, told.messages })
    assert(here:notify(false))
  end)
end)
