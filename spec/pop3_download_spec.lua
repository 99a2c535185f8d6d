-- Downloading each message once: what is remembered, what is deleted, and that a process which is
-- killed anywhere loses nothing and leaves nothing twice.

local lfs = require "lfs"

local clients = require "spec.support.clients"
local peer_steps = require "spec.support.peer_steps"
local process = require "spec.support.process"
local servers = require "spec.support.servers"
local shell = require "spec.support.shell"

local core = require "starttls.core"
local pop3 = require "starttls.pop3"

local lua = os.getenv "LUA" or "lua5.4"

-- The directory's files by name, but those that begin with a dot.
local function files_of(path)
  local files = {}
  for name in lfs.dir(path) do
    if not name:find "^%." then files[name] = process.read_file(path .. "/" .. name) end
  end
  return files
end

local function names_of(path)
  local names = {}
  for name in pairs(files_of(path)) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- Also the partial files.
local function leftovers_of(path)
  local names = {}
  for name in lfs.dir(path) do
    if name:find "part" then names[#names + 1] = name end
  end
  return names
end

describe("pop3.download", function()
  local directory

  before_each(function() directory = process.temporary_directory() end)
  after_each(function() directory:close() end)

  local function download(session, more)
    local settings = { directory = directory.path }
    for name, value in pairs(more or {}) do settings[name] = value end
    return pop3.download(session, settings)
  end

  describe("from Dovecot", function()
    local mail

    before_each(function()
      mail = servers.shared()
      clients.empty(mail, "alice")
    end)
    after_each(function() clients.empty(mail, "alice") end)

    local function letter(n) return ("Subject: letter %d\r\n\r\n.\r\n..%d\r\n"):format(n, n) end

    local function run(more)
      local session <close> = clients.connect(mail, "pop3")
      local result = assert(download(session, more))
      return result, assert(session:quit())
    end

    it("fetches each message once", function()
      for n = 1, 3 do mail:deliver("alice", letter(n)) end
      local result, quit = run()
      assert.equals(3, #result.saved)
      assert.equals(0, result.known + result.marked + #result.failed + quit.deleted)
      for _, it in ipairs(result.saved) do
        assert.equals(letter(it.n), process.read_file(it.path))
        assert.equals(#letter(it.n), it.size)
        os.remove(it.path) -- moved away by whoever reads it
      end
      mail:deliver("alice", letter(4))
      result = run()
      assert.equals(3, result.known)
      assert.equals(1, #result.saved)
      assert.equals(letter(4), process.read_file(result.saved[1].path))
      assert.equals(1, #names_of(directory.path))
      assert.same({}, leftovers_of(directory.path))
    end)

    it("deletes what is on disk, at once or after days", function()
      for n = 1, 3 do mail:deliver("alice", letter(n)) end
      local result, quit = run { delete = 1 }
      assert.same({ 3, 0, 0 }, { #result.saved, result.marked, quit.deleted })
      -- two of them a day and more ago
      local path = directory.path .. "/.pop3-download"
      local changed = 0
      local text = process.read_file(path):gsub("\n(%d+) (%d+)", function(number, time)
        if number == "2" then return end
        changed = changed + 1
        return ("\n%s %d"):format(number, time - 86401)
      end)
      assert.equals(2, changed)
      process.write_file(path, text)
      result, quit = run { delete = 1 }
      assert.same({ 0, 3, 2, 2 }, { #result.saved, result.known, result.marked, quit.deleted })
      result, quit = run { delete = true }
      assert.same({ 0, 1, 1, 1 }, { #result.saved, result.known, result.marked, quit.deleted })
      mail:deliver("alice", letter(4))
      result, quit = run { delete = true }
      assert.same({ 1, 0, 1, 1 }, { #result.saved, result.known, result.marked, quit.deleted })
      assert.equals(4, #names_of(directory.path))
    end)

    it("deletes nothing without quit()", function()
      mail:deliver("alice", letter(1))
      local session <close> = clients.connect(mail, "pop3")
      assert.equals(1, assert(download(session, { delete = true })).marked)
      session:close()
      local result, quit = run { delete = true }
      assert.same({ 0, 1, 1 }, { #result.saved, result.known, quit.deleted })
    end)

    it("gives files the names that the caller wants, and none over another's", function()
      process.write_file(directory.path .. "/letter.eml", "mine")
      for n = 1, 3 do mail:deliver("alice", letter(n)) end
      local subjects = {}
      run { name = function(msg)
        subjects[msg.n] = msg.headers:match "Subject: ([^\r]+)\r\n\r\n$"
        assert.is_string(msg.uid)
        assert.is_number(msg.size)
        return "letter.eml"
      end }
      assert.same({ "letter 1", "letter 2", "letter 3" }, subjects)
      assert.same({ ["letter.eml"] = "mine", ["letter-2.eml"] = letter(1),
        ["letter-3.eml"] = letter(2), ["letter-4.eml"] = letter(3) }, files_of(directory.path))
    end)

    it("leaves what can't have its name on the server", function()
      for n = 1, 2 do mail:deliver("alice", letter(n)) end
      for _, name in ipairs { "", "../x", "a/b", ".hidden", "a\0b", ("x"):rep(300) } do
        local result, quit = run { delete = true, name = function() return name end }
        assert.same({ 0, 2, 0 }, { #result.saved, #result.failed, quit.deleted })
        assert.matches("naming the file", tostring(result.failed[1].err))
      end
      assert.same({}, names_of(directory.path))
      assert.same({}, leftovers_of(directory.path))
      assert.equals(2, #run().saved)
    end)

    it("refuses a directory of another account, or in use, or none at all", function()
      mail:deliver("alice", letter(1))
      run()
      local session <close> = clients.connect(mail, "pop3")
      local result, err = download(session, { account = "bob@example.test" })
      assert.is_nil(result)
      assert.matches("bob@example.test", tostring(err))
      local used <close> = assert(io.open(directory.path .. "/.pop3-download", "a"))
      assert(core.files.lock(used))
      result, err = download(session)
      assert.is_nil(result)
      assert.equals("busy", err.kind)
      result, err = download(session, { directory = directory.path .. "/none" })
      assert.is_nil(result)
      assert.matches("No such file", tostring(err))
      assert(session:noop())
    end)

    it("loses nothing and leaves nothing twice when it is killed at 50 points", function()
      math.randomseed(20)
      local program = assert(package.searchpath("spec.support.pop3_downloader", package.path))
      local delivered, taken, count = {}, {}, 0

      local function deliver()
        count = count + 1
        local text = ("Subject: %d\r\n\r\n"):format(count)
          .. ("%d of many\r\n"):format(count):rep(math.random(0, 3000))
        mail:deliver("alice", text)
        delivered[text] = true
      end

      -- What it printed, and the signal that ended it, or nil.
      local function start(unit, limit)
        local words = { lua, program, mail.pop3.port, mail.ca_file, mail.users.alice.password,
          directory.path, unit, limit }
        for i = 1, #words do words[i] = shell.quote(tostring(words[i])) end
        local pipe = assert(io.popen("exec " .. table.concat(words, " ") .. " 2>&1"))
        local output = pipe:read "a"
        local ok, how, number = pipe:close()
        if not ok and how ~= "signal" then error(output) end
        return output, not ok and number or nil
      end

      -- Takes the files away, as a reader of the directory would.
      local function take()
        for name, text in pairs(files_of(directory.path)) do
          assert.is_true(delivered[text], "half a message: " .. name)
          assert.is_nil(taken[text], "twice: " .. name)
          taken[text] = true
          os.remove(directory.path .. "/" .. name)
        end
      end

      local most = {}
      for _, unit in ipairs { "instruction", "file" } do
        for _ = 1, 2 do deliver() end
        most[unit] = math.tointeger(tonumber((start(unit, 0))))
        take()
      end
      local kills, rounds = 0, 0
      while kills < 50 and rounds < 150 do
        rounds = rounds + 1
        for _ = 1, math.random(0, 2) do deliver() end
        local unit = rounds % 3 == 0 and "instruction" or "file"
        local _, signal = start(unit, math.random(most[unit]))
        assert(signal == nil or signal == 9, signal)
        if signal then kills = kills + 1 end
        if math.random(2) == 1 then take() end
      end
      assert.equals(50, kills)
      start("instruction", 0)
      take()
      assert.same(delivered, taken)
      assert.equals(0, #mail:inbox "alice")
      assert.same({}, leftovers_of(directory.path))
    end)
  end)

  describe("from a server of its own kind", function()
    -- The maildrop is an array of { uid, text [, size] }; `expected` are the commands behind LIST
    -- and UIDL, in order. What is downloaded, and what use(session) says.
    local function run(maildrop, expected, more, options)
      options = options or {}
      local sizes, ids = { "+OK" }, { "+OK" }
      for n, it in ipairs(maildrop) do
        sizes[#sizes + 1] = ("%d %d"):format(n, it[3] or #it[2])
        if it[1] then ids[#ids + 1] = ("%d %s"):format(n, it[1]) end
      end
      local steps = { { "pop3_upgrade", { secure = false, auth = false,
        after = options.after or { "PIPELINING" } } }, { "expect", "^LIST\r\n" } }
      local function say(text) steps[#steps + 1] = { "send", text .. "\r\n" } end
      local function hear(command) steps[#steps + 1] = { "expect", "^" .. command .. "\r\n" } end
      if not options.after then hear "UIDL" end
      say(table.concat(sizes, "\r\n") .. "\r\n.")
      if options.after then hear "UIDL" end
      say(options.uidl or table.concat(ids, "\r\n") .. "\r\n.")
      for _, command in ipairs(expected) do
        hear(command)
        local n = math.tointeger(tonumber(command:match "^RETR (%d)"))
        if n and maildrop[n][2] then say("+OK\r\n" .. maildrop[n][2] .. ".")
        elseif n then say "-ERR [SYS/TEMP] not now"
        else say "+OK" end
      end
      local peer <close> = peer_steps.start(steps, {})
      local session <close> = assert(pop3.connect { host = "127.0.0.1", port = peer.port,
        tls = "none" })
      local result, err = download(session, more)
      local quit, lost
      if not options.no_quit then quit, lost = session:quit() end
      session:close()
      local record = peer:finish()
      assert.is_true(record.ok, record.error)
      return result, err, quit, lost
    end

    local function texts()
      local list = {}
      for _, text in pairs(files_of(directory.path)) do list[#list + 1] = text:match "^%S*" end
      table.sort(list)
      return table.concat(list, " ")
    end

    it("takes identifiers of any kind for file names", function()
      local ids = { "../../etc/passwd", ".", "a b", "a  c", "\xff\xfe", "%41", "A", "a/b",
        ("z"):rep(70) }
      local maildrop, expected = {}, {}
      for n, id in ipairs(ids) do
        maildrop[n], expected[n] = { id, n .. "\r\n" }, "RETR " .. n
      end
      expected[#expected + 1] = "QUIT"
      assert.equals(9, #assert(run(maildrop, expected)).saved)
      assert.equals("1 2 3 4 5 6 7 8 9", texts())
      assert.is_truthy(files_of(directory.path)["%2E%2E%2F%2E%2E%2Fetc%2Fpasswd.eml"])
      assert.equals(9, assert(run(maildrop, { "QUIT" })).known)
    end)

    it("takes one of identical copies, and both of what only shares its identifier", function()
      local maildrop = { { "x", "one\r\n" }, { "x", "one\r\n" }, { "x", "other\r\n" } }
      local result, _, quit = run(maildrop, { "RETR 1", "RETR 3", "DELE 1", "DELE 3", "QUIT" },
        { delete = true })
      assert.same({ 2, 2, 2 }, { #result.saved, result.marked, quit.deleted })
      assert.equals("one other", texts())
      result = run({ maildrop[2] }, { "DELE 1", "QUIT" }, { delete = true })
      assert.same({ 0, 1 }, { #result.saved, result.marked })
      -- the server begins to count anew
      assert.equals(1, #run({ { "x", "third time\r\n" } }, { "RETR 1", "QUIT" }).saved)
      assert.equals("one other third", texts())
    end)

    it("leaves what the server does not give, and goes on", function()
      local result, _, quit = run({ { "a", "a\r\n" }, { "b", nil, 5 }, { "c", "c\r\n" },
        { nil, "d\r\n" } }, { "RETR 1", "RETR 2", "RETR 3", "DELE 1", "DELE 3", "QUIT" },
        { delete = true })
      assert.same({ 2, 2, 2 }, { #result.saved, #result.failed, quit.deleted })
      assert.equals("uidl", result.failed[1].err.during)
      assert.equals("b", result.failed[2].uid)
      assert.equals("SYS/TEMP", result.failed[2].err.status)
    end)

    it("fails without UIDL, and does nothing where there is nothing", function()
      local result, err = run({ { "a", "a\r\n" } }, { "QUIT" }, {}, { uidl = "-ERR what?" })
      assert.is_nil(result)
      assert.equals("unsupported", err.kind)
      assert.matches("UIDL", err.message)
      assert.same({ saved = {}, failed = {}, known = 0, marked = 0 },
        run({}, { "QUIT" }, {}, { uidl = "-ERR what?" }))
    end)

    it("works one by one without PIPELINING", function()
      local result, _, quit = run({ { "a", "a\r\n" }, { "b", "b\r\n" } },
        { "RETR 1", "DELE 1", "RETR 2", "DELE 2", "QUIT" }, { delete = true },
        { after = { "UIDL" } })
      assert.same({ 2, 2 }, { #result.saved, quit.deleted })
    end)

    it("fails where nothing can be written; without QUIT where RETR may delete", function()
      lfs.mkdir(directory.path .. "/.pop3-download.1.part")
      local maildrop = { { "a", "a\r\n" } }
      local result, err = run(maildrop, { "QUIT" }, {}, { after = { "UIDL" } })
      assert.is_nil(result)
      assert.matches("Is a directory", tostring(err))
      assert.same({}, err.result.saved)
      lfs.mkdir(directory.path .. "/.pop3-download.1.part")
      local _, lost
      result, err, _, lost = run(maildrop, {}, {}, { after = { "UIDL", "EXPIRE 0" } })
      assert.is_nil(result)
      assert.matches("Is a directory", tostring(err))
      assert.equals("closed", lost.kind)
    end)

    it("tells how far it came when the connection is lost", function()
      local result, err = run({ { "a", "a\r\n" }, { "b", "b\r\n" } }, { "RETR 1" }, {},
        { no_quit = true, after = { "UIDL" } })
      assert.is_nil(result)
      assert.equals("closed", err.kind)
      assert.equals(1, #err.result.saved)
      assert.same({}, leftovers_of(directory.path))
    end)

    it("goes on from a list that was cut short anywhere in its last line", function()
      local maildrop = { { "a", "a\r\n" }, { "b", "b\r\n" } }
      local path = directory.path .. "/.pop3-download"
      run(maildrop, { "RETR 1", "RETR 2", "QUIT" })
      local whole = process.read_file(path)
      local cut = whole:find("2 %d+ %d+ b")
      for _, last in ipairs { cut, cut + 5, #whole - 7, #whole - 2 } do
        os.remove(directory.path .. "/b.eml")
        process.write_file(path, whole:sub(1, last))
        process.write_file(directory.path .. "/.pop3-download.2.part", "half")
        local result = run(maildrop, { "RETR 2", "QUIT" })
        assert.same({ 1, 1 }, { #result.saved, result.known }, whole:sub(cut, last))
        assert.same({ ["a.eml"] = "a\r\n", ["b.eml"] = "b\r\n" }, files_of(directory.path))
      end
      -- whole but for the line's end: the message is whole too, and gets its name
      os.remove(directory.path .. "/b.eml")
      process.write_file(directory.path .. "/.pop3-download.2.part", "b\r\n")
      process.write_file(path, whole:sub(1, -2))
      assert.equals(2, run(maildrop, { "QUIT" }).known)
      assert.same({ ["a.eml"] = "a\r\n", ["b.eml"] = "b\r\n" }, files_of(directory.path))
      -- or another, when somebody has taken that
      process.write_file(directory.path .. "/.pop3-download.2.part", "mine")
      assert.equals(2, run(maildrop, { "QUIT" }).known)
      assert.equals("mine", files_of(directory.path)["b-2.eml"])
      -- cut in the account's line, before there was anything
      process.write_file(path, whole:sub(1, 9))
      assert.equals(2, #run(maildrop, { "RETR 1", "RETR 2", "QUIT" }).saved)
    end)
  end)

  it("raises on misuse", function()
    local session = setmetatable({}, { __index = function() error "used" end })
    for words, settings in pairs {
      ["must be a table"] = 5, ["'directory' is missing"] = {},
      ["is empty or has a NUL"] = { directory = "" }, ["or has a NUL"] = { directory = "a\0b" },
      ["unknown setting 'dir'"] = { dir = "x" },
      ["'delete' must be a boolean or number"] = { directory = "x", delete = "yes" },
      ["'delete' must not be negative"] = { directory = "x", delete = -1 },
      ["'name' must be a function"] = { directory = "x", name = "x" },
    } do
      assert.error_matches(function() pop3.download(session, settings) end, words)
    end
  end)
end)
