-- imap.sync: whatever happens to a mailbox, applying the changes to what was known gives what is
-- there; with QRESYNC, with CONDSTORE alone, and with neither, against Dovecot.

local clients = require "spec.support.clients"
local peer_steps = require "spec.support.peer_steps"
local servers = require "spec.support.servers"
local Stage = require "spec.support.stage"

local imap = require "starttls.imap"
local ranges = require "starttls.imap.ranges"

local methods = {
  { name = "with QRESYNC" },
  { name = "with CONDSTORE alone", avoid = { "QRESYNC" } },
  { name = "with neither", avoid = { "CONDSTORE" } },
}

local function letter(number)
  return ("Subject: Message %d\r\n\r\nText\r\n"):format(number)
end

-- A flag list as one text, in one order, without \Recent.
local function text_of(flags)
  local kept = {}
  for _, flag in ipairs(flags) do
    if flag ~= "\\Recent" then kept[#kept + 1] = flag end
  end
  table.sort(kept)
  return table.concat(kept, " ")
end

-- What one who follows the changes knows: UID -> flags.
local Replica = {}
Replica.__index = Replica

function Replica.new(session, mailbox, settings)
  return setmetatable({ session = session, mailbox = mailbox, settings = settings, flags = {} },
    Replica)
end

-- Synchronises; returns how many changes of each type were told.
function Replica:update()
  local changes, state = imap.sync(self.session, self.mailbox, self.state, self.settings)
  assert(changes, state)
  local told = { reset = 0, vanished = 0, flags = 0, new = 0 }
  for change in changes do
    if change.type == "reset" then
      self.flags = {}
      told.reset = told.reset + 1
    elseif change.type == "vanished" then
      for _, uid in ipairs(change.uids) do
        assert.is_truthy(self.flags[uid], "vanished, and never known")
        self.flags[uid] = nil
        told.vanished = told.vanished + 1
      end
    else
      assert.equal(change.type == "flags", self.flags[change.uid] ~= nil)
      self.flags[change.uid] = text_of(change.flags)
      told[change.type] = told[change.type] + 1
    end
  end
  self.state = state
  return told
end

local function fetch_truth(session, mailbox)
  assert(session:examine(mailbox))
  local truth = {}
  if session.mailbox.exists == 0 then return truth end
  for message in session:fetch("1:*", { "flags" }) do
    truth[message.uid] = text_of(message.flags)
  end
  return truth
end

local function count(map)
  local n = 0
  for _ in pairs(map) do n = n + 1 end
  return n
end

-- Does something to the mailbox, chosen by `random`.
local function disturb(session, random, number)
  local uids = assert(session:search "ALL")
  local function some() return uids[random(#uids)] end
  local deeds = {
    function() assert(session:append(session.mailbox.name, letter(number))) end,
    function()
      local flag = ({ "\\Seen", "\\Flagged", "$Work", "\\Answered" })[random(4)]
      assert(session:store(some(), { [random(2) == 1 and "add" or "remove"] = { flag } }))
    end,
    function()
      assert(session:store(some(), { add = { "\\Deleted" } }, { silent = true }))
      assert(session:expunge())
    end,
  }
  deeds[#uids < 3 and 1 or random(#deeds)]()
end

describe("synchronising", function()
  local mail, number

  setup(function()
    mail = servers.shared()
    number = 0
  end)

  for _, method in ipairs(methods) do
    describe(method.name, function()
      local session, other

      before_each(function()
        clients.empty(mail, "alice")
        session, other = clients.connect(mail, "imap"), clients.connect(mail, "imap")
        assert(other:select "INBOX")
      end)

      after_each(function()
        session:close()
        other:close()
      end)

      it("tells everything the first time, nothing the second", function()
        for i = 1, 3 do assert(other:append("INBOX", letter(i))) end
        local replica = Replica.new(session, "INBOX", { avoid = method.avoid })
        assert.same({ reset = 0, vanished = 0, flags = 0, new = 3 }, replica:update())
        assert.same({ reset = 0, vanished = 0, flags = 0, new = 0 }, replica:update())
        assert.same(fetch_truth(other, "INBOX"), replica.flags)
      end)

      it("tells no more than what has changed", function()
        for i = 1, 5 do assert(other:append("INBOX", letter(i))) end
        local replica = Replica.new(session, "INBOX", { avoid = method.avoid })
        replica:update()
        local uids = assert(other:search "ALL")
        assert(other:store(uids[2], { add = { "\\Deleted" } }))
        assert(other:expunge())
        assert(other:store(uids[4], { add = { "\\Seen" } }))
        assert(other:append("INBOX", letter(6)))
        assert.same({ reset = 0, vanished = 1, flags = 1, new = 1 }, replica:update())
        assert.same(fetch_truth(other, "INBOX"), replica.flags)
      end)

      it("follows a mailbox that empties", function()
        for i = 1, 3 do assert(other:append("INBOX", letter(i))) end
        local replica = Replica.new(session, "INBOX", { avoid = method.avoid })
        replica:update()
        assert(other:noop())
        assert(other:store("1:*", { add = { "\\Deleted" } }))
        assert(other:expunge())
        assert.same({ reset = 0, vanished = 3, flags = 0, new = 0 }, replica:update())
        assert.same({}, replica.flags)
        assert.equal("", replica.state.uids)
      end)

      it("keeps up with whatever happens, and through new sessions", function()
        local generator = 12345
        local function random(most)
          generator = (generator * 1103515245 + 12345) & 0x7fffffff
          return (generator >> 16) % most + 1
        end
        local replica = Replica.new(session, "INBOX", { avoid = method.avoid })
        for round = 1, 12 do
          for _ = 1, random(6) do
            number = number + 1
            disturb(other, random, number)
          end
          if round % 5 == 0 then
            session:close()
            session = clients.connect(mail, "imap")
            replica.session = session
          end
          replica:update()
          assert.same(fetch_truth(other, "INBOX"), replica.flags)
          assert.equal(count(replica.flags), ranges.parse(replica.state.uids):count())
        end
      end)
    end)
  end

  it("starts anew when UIDVALIDITY has changed", function()
    clients.empty(mail, "alice")
    local session <close> = clients.connect(mail, "imap")
    for i = 1, 3 do assert(session:append("INBOX", letter(i))) end
    for _, method in ipairs(methods) do
      local replica = Replica.new(session, "INBOX", { avoid = method.avoid })
      replica:update()
      replica.state.uidvalidity = replica.state.uidvalidity - 1
      assert.same({ reset = 1, vanished = 0, flags = 0, new = 3 }, replica:update())
    end
  end)

  it("keeps a state that is plain data", function()
    local function check(value)
      if type(value) ~= "table" then return end
      assert.is_nil(getmetatable(value))
      for name, field in pairs(value) do
        assert.equal("string", type(name))
        check(field)
      end
    end
    local session <close> = clients.connect(mail, "imap")
    for _, method in ipairs(methods) do
      local _, state = imap.sync(session, "INBOX", nil, { avoid = method.avoid })
      check(state)
      assert.equal("INBOX", state.mailbox)
    end
  end)

  it("goes from one way to the other without loss", function()
    clients.empty(mail, "alice")
    local session <close> = clients.connect(mail, "imap")
    local other <close> = clients.connect(mail, "imap")
    for i = 1, 4 do assert(other:append("INBOX", letter(i))) end
    assert(other:select "INBOX")
    local replica = Replica.new(session, "INBOX", {})
    for round = 1, 6 do
      replica.settings = { avoid = methods[round % 3 + 1].avoid }
      assert(other:noop())
      local uids = assert(other:search "ALL")
      assert(other:store(uids[1], { [round % 2 == 0 and "add" or "remove"] = { "\\Seen" } }))
      assert(other:append("INBOX", letter(round)))
      replica:update()
      assert.same(fetch_truth(other, "INBOX"), replica.flags)
      assert(other:select "INBOX")
    end
  end)

  it("refuses to avoid what it doesn't know", function()
    local session <close> = clients.connect(mail, "imap")
    assert.has_error(function() imap.sync(session, "INBOX", nil, { avoid = { "IDLE" } }) end,
      'sync: avoid may have "QRESYNC" and "CONDSTORE"')
  end)

  it("returns the error of a mailbox that is not there", function()
    local session <close> = clients.connect(mail, "imap")
    local changes, err = imap.sync(session, "No such mailbox")
    assert.is_nil(changes)
    assert.equal("rejected", err.kind)
  end)
end)

describe("synchronising with a server that has none of it", function()
  local stage
  local say, expect = peer_steps.say, peer_steps.expect

  setup(function() stage = Stage.open() end)
  teardown(function() stage:close() end)

  it("asks for flags, and compares", function()
    local peer <close> = stage:start(peer_steps.logged_in("imap",
      expect " SELECT \"INBOX\"\r\n",
      say "* 2 EXISTS\r\n* OK [UIDVALIDITY 7] valid\r\n%T OK [READ-WRITE] done\r\n",
      expect " UID FETCH 1:%* %(UID FLAGS%)\r\n",
      say "* 1 FETCH (UID 3 FLAGS ())\r\n* 2 FETCH (UID 5 FLAGS (\\Seen))\r\n%T OK done\r\n"))
    local session <close> = assert(imap.connect(stage:options { port = peer.port }))
    local changes, state = imap.sync(session, "INBOX",
      { mailbox = "INBOX", uidvalidity = 7, uids = "1:3", flags = { [""] = "1:3" } })
    assert(changes, state)
    assert.same({ type = "vanished", uids = { 1, 2 } }, changes())
    assert.same({ type = "new", uid = 5, flags = { "\\Seen", ["\\Seen"] = true } }, changes())
    assert.is_nil(changes())
    assert.same({ mailbox = "INBOX", uidvalidity = 7, uids = "3,5",
      flags = { [""] = "3", ["\\Seen"] = "5" } }, state)
  end)
end)

describe("sets of ranges", function()
  local function set(text) return assert(ranges.parse(text)) end

  it("are read and written in the shortest form", function()
    assert.equal("1:4,7", set("7,3:1,4,2"):text())
    assert.equal("", ranges.new():text())
    assert.equal("1:3,9", ranges.of({ 3, 9, 1, 2, 3 }):text())
    for _, text in ipairs { "*", "1:*", "0", "a", "1:", "1;2" } do
      assert.is_nil(ranges.parse(text), text)
    end
  end)

  it("do what sets do", function()
    local a, b = set "1:10,20,30:40", set "5:25,35"
    assert.equal("1:25,30:40", a:union(b):text())
    assert.equal("1:4,30:34,36:40", a:minus(b):text())
    assert.equal("5:10,20,35", a:common(b):text())
    assert.equal("11:19,21:25", b:minus(a):text())
    assert.equal(22, a:count())
    assert.equal(40, a:last())
    for number, there in pairs { [1] = true, [10] = true, [11] = false, [20] = true,
      [41] = false } do
      assert.equal(there, a:contains(number))
    end
  end)

  it("take numbers in any order", function()
    local a = ranges.new()
    for _, number in ipairs { 5, 6, 2, 9, 7, 5, 1 } do a:add(number) end
    assert.equal("1:2,5:7,9", a:text())
    assert.same({ 1, 2, 5, 6, 7, 9 }, a:numbers())
    local seen = {}
    for number in a:each() do seen[#seen + 1] = number end
    assert.same(a:numbers(), seen)
  end)
end)
