-- examples/mirror.lua: whenever it is killed, nothing is lost and nothing is there twice.

local clients = require "spec.support.clients"
local lfs = require "lfs"
local process = require "spec.support.process"
local servers = require "spec.support.servers"
local shell = require "spec.support.shell"
local socket = require "socket"

local lua = os.getenv "LUA" or "lua5.4"
local kills = 50

local function letter(number, lines)
  return ("Subject: Message %d\r\n\r\n%s"):format(number, ("A line of text.\r\n"):rep(lines))
end

describe("examples/mirror.lua", function()
  local mail, directory, dir, session, number

  setup(function() mail = servers.shared() end)

  before_each(function()
    clients.empty(mail, "bob")
    directory = process.temporary_directory()
    dir = directory.path .. "/mirror"
    session = clients.connect(mail, "imap", { user = "bob", password = mail.users.bob.password })
    number = 0
    assert(session:select "INBOX")
  end)

  after_each(function()
    session:close()
    directory:close()
  end)

  local function append(count, lines)
    for _ = 1, count do
      number = number + 1
      assert(session:append("INBOX", letter(number, lines)))
    end
  end

  local function command(rest)
    local words = { "env" }
    for name, value in pairs {
      MAIL_HOST = mail.host, MAIL_PORT = mail.imap.port, MAIL_CA_FILE = mail.ca_file,
      MAIL_USER = "bob", MAIL_PASSWORD = mail.users.bob.password,
      LUA_PATH_5_4 = package.path, LUA_CPATH_5_4 = package.cpath,
    } do
      words[#words + 1] = shell.quote(name .. "=" .. value)
    end
    return ("%s %s examples/mirror.lua %s %s"):format(table.concat(words, " "), shell.quote(lua),
      shell.quote(dir), rest or "")
  end

  local function mirror(rest)
    return shell.must("%s", command(rest))
  end

  -- Lets it run for that long at most, and then kills it.
  local function mirror_killed_after(seconds)
    shell.run("timeout -s KILL %.4f %s", seconds, command())
  end

  -- What the mirror has of INBOX: UID -> { flags, text }. Fails when a UID is there twice.
  local function mirrored()
    local messages = {}
    if lfs.attributes(dir .. "/INBOX/cur", "mode") ~= "directory" then return messages end
    for name in lfs.dir(dir .. "/INBOX/cur") do
      local uid, flags = name:match "^%d+%.(%d+):2,(%u*)$"
      if uid then
        uid = math.tointeger(tonumber(uid))
        assert.is_nil(messages[uid], "there twice: " .. name)
        messages[uid] = { flags, (process.read_file(dir .. "/INBOX/cur/" .. name)) }
      end
    end
    return messages
  end

  -- What the server has.
  local function truth()
    local messages = {}
    assert(session:noop())
    if session.mailbox.exists == 0 then return messages end
    for message in session:fetch("1:*", { "flags", "body" }) do
      local flags = (message.flags["\\Flagged"] and "F" or "")
        .. (message.flags["\\Seen"] and "S" or "")
      messages[message.uid] = { flags, message.body }
    end
    return messages
  end

  it("mirrors what is there, and then only what has changed", function()
    append(5, 3)
    assert.equal("INBOX: 5 new", mirror "INBOX")
    assert.same(truth(), mirrored())
    assert.equal("INBOX: 0 new", mirror "INBOX")
    local uids = assert(session:search "ALL")
    assert(session:store(uids[1], { add = { "\\Seen", "\\Flagged" } }))
    assert(session:store(uids[2], { add = { "\\Deleted" } }))
    assert(session:expunge())
    append(2, 3)
    assert.equal("INBOX: 2 new", mirror "INBOX")
    local now = truth()
    assert.equal("FS", now[uids[1]][1])
    assert.same(now, mirrored())
  end)

  it("mirrors all mailboxes, whatever their names", function()
    append(1, 1)
    local names = { "a%b", "Entw\u{fc}rfe" }
    for _, name in ipairs(names) do
      assert(session:create(name))
      assert(session:append(name, letter(7, 1)))
    end
    mirror()
    for _, path in ipairs { "INBOX", "a%25b", "Entw\u{fc}rfe" } do
      local found = 0
      for file in lfs.dir(dir .. "/" .. path .. "/cur") do
        if file:find "^%d" then found = found + 1 end
      end
      assert.equal(1, found, path)
    end
    for _, name in ipairs(names) do assert(session:delete(name)) end
  end)

  it("shows how far it is, to a terminal", function()
    append(3, 3)
    local shown = shell.must("%s", "script -qec " .. shell.quote(command "INBOX") .. " /dev/null")
    for done = 0, 3 do assert.matches((" %d/3 INBOX"):format(done), shown, 1, true) end
    assert.matches(("#"):rep(40), shown, 1, true)
    assert.equal("INBOX: 0 new", mirror "INBOX")
  end)

  it("throws away what UIDVALIDITY has made void, once the new is there", function()
    append(3, 3)
    mirror "INBOX"
    local path = dir .. "/INBOX/.mirror"
    local state = process.read_file(path):gsub('(%["uidvalidity"%] = )%d+', "%17")
    process.write_file(path, state)
    for name in lfs.dir(dir .. "/INBOX/cur") do
      local rest = name:match "^%d+(%..*)$"
      if rest and rest ~= "." then
        os.rename(dir .. "/INBOX/cur/" .. name, dir .. "/INBOX/cur/7" .. rest)
      end
    end
    assert.equal("INBOX: 3 new", mirror "INBOX")
    assert.same(truth(), mirrored())
  end)

  it(("may be killed at any moment: %d times here"):format(kills), function()
    local generator = 4711
    local function random()
      generator = (generator * 1103515245 + 12345) & 0x7fffffff
      return (generator >> 8) / 0x7fffff
    end
    append(60, 400)
    local began = socket.gettime()
    mirror "INBOX"
    local whole = socket.gettime() - began
    shell.must("rm -rf %s", shell.quote(dir))
    for _ = 1, kills do
      mirror_killed_after(whole * (0.1 + random()))
      local now = truth()
      for uid, message in pairs(mirrored()) do
        -- It may have gone from the server since; but half a message it is not.
        if now[uid] then assert.equal(now[uid][2], message[2]) end
        assert.matches("A line of text.\r\n$", message[2])
      end
      local uids = assert(session:search "ALL")
      assert(session:store(uids[math.floor(random() * #uids) + 1], { add = { "\\Seen" } }))
      assert(session:store(uids[math.floor(random() * #uids) + 1], { add = { "\\Deleted" } }))
      assert(session:expunge())
      append(2, 400)
      if random() < 0.1 then shell.must("rm -rf %s", shell.quote(dir)) end
    end
    mirror "INBOX"
    assert.same(truth(), mirrored())
  end)
end)
