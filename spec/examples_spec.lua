-- That the programs in examples/ do what they say, run as a user would run them.
-- (demo_spec.lua has more on roundtrip.lua.)

local lfs = require "lfs"
local process = require "spec.support.process"
local servers = require "spec.support.servers"
local shell = require "spec.support.shell"

local lua = os.getenv "LUA" or "lua5.4"

local function letter(subject, body)
  return ("From: carol@example.test\r\nTo: bob@example.test\r\nSubject: %s\r\n\r\n%s"):format(
    subject, body or "Hello\r\n")
end

local function files_in(dir)
  local names = {}
  for name in lfs.dir(dir) do
    if not name:find "^%." then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

describe("examples/", function()
  local mail, directory, dir

  setup(function() mail = servers.shared() end)

  before_each(function()
    mail:empty "alice"
    mail:empty "bob"
    directory = process.temporary_directory()
    dir = directory.path
  end)

  after_each(function() directory:close() end)

  -- Runs an example with bob's account; `rest` is what stands behind its name in the shell.
  local function run(name, protocol, rest, settings)
    local variables = {
      MAIL_HOST = mail.host, MAIL_PORT = mail[protocol].port, MAIL_CA_FILE = mail.ca_file,
      MAIL_USER = "bob", MAIL_PASSWORD = mail.users.bob.password,
      LUA_PATH_5_4 = package.path, LUA_CPATH_5_4 = package.cpath,
    }
    for key, value in pairs(settings or {}) do variables[key] = value end
    local words = { "env" }
    for key, value in pairs(variables) do words[#words + 1] = shell.quote(key .. "=" .. value) end
    local command = ("%s %s examples/%s.lua %s"):format(
      table.concat(words, " "), shell.quote(lua), name, rest)
    return shell.run((command:gsub("%%", "%%%%")))
  end

  local function wait_for_mail(user)
    shell.must(("for i in $(seq 200); do [ -n \"$(ls %s/mail/%s/new)\" ] && exit 0; "
      .. "sleep 0.05; done; exit 1"):format(mail.dir, user))
    return process.read_file(mail:inbox(user)[1].path)
  end

  describe("send.lua", function()
    it("sends a file with -f", function()
      process.write_file(dir .. "/message", letter "A file")
      local ok, output = run("send", "smtp",
        ("-f %s/message bob@example.test alice@example.test"):format(dir))
      assert.is_true(ok, output)
      assert.equal("accepted\talice@example.test\n", output)
      assert.matches("Subject: A file\n\nHello\n$", wait_for_mail "alice")
    end)

    it("sends standard input, and fails when a recipient is refused", function()
      process.write_file(dir .. "/message", letter "Standard input")
      local ok, output = run("send", "smtp",
        ("bob@example.test alice@example.test refused@example.test < %s/message"):format(dir))
      assert.is_false(ok)
      assert.equal("accepted\talice@example.test\n"
        .. "refused\trefused@example.test\t550\tno such user here\n", output)
      assert.matches("Subject: Standard input\n\nHello\n$", wait_for_mail "alice")
    end)

    it("says what is wrong in one line, and fails", function()
      local ok, output = run("send", "smtp", "bob@example.test alice@example.test",
        { MAIL_PASSWORD = "wrong" })
      assert.is_false(ok)
      assert.matches("^%S+: the server refuses authentication with SCRAM%-SHA%-256 [^\n]*\n$",
        output)
    end)
  end)

  describe("send_report.lua", function()
    it("sends text and HTML with a picture, and the report, under readable names", function()
      process.write_file(dir .. "/logo.png", "\x89PNG\r\n")
      process.write_file(dir .. "/report.pdf", ("%PDF-1.7 \0\1\2\n"):rep(20000))
      local ok, output = run("send_report", "smtp", ("%s/logo.png %s/report.pdf "):format(dir, dir)
        .. "'Bob Bø <bob@example.test>' 'alice@example.test, refused@example.test'")
      assert.is_false(ok)
      assert.equal("accepted\talice@example.test\n"
        .. "refused\trefused@example.test\t550\tno such user here\n", output)
      wait_for_mail "alice"
      local read = shell.must("python3 spec/support/read_mail.py encoded %s",
        mail:inbox("alice")[1].path)
      local function hex(text)
        return (text:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
      end
      local today = os.date "!%Y-%m-%d"
      assert.matches("field Subject " .. hex("Report – " .. today), read, 1, true)
      assert.matches("part 1.1.2.2 image/png inline " .. hex "logo.png" .. " " .. hex "<logo>"
        .. " " .. hex "\x89PNG\r\n", read, 1, true)
      assert.matches("part 1.2 application/pdf attachment " .. hex("report – " .. today .. ".pdf")
        .. " - " .. hex(process.read_file(dir .. "/report.pdf")) .. "\n", read .. "\n", 1, true)
      assert.is_nil(read:find("defect", 1, true))
    end)
  end)

  describe("fetch.lua", function()
    it("lists the unseen messages, saves each, and leaves them unseen", function()
      local first, second = letter "First", letter("Second", ("0123456789abcd\r\n"):rep(20000))
      mail:deliver("bob", first)
      mail:deliver("bob", second)
      local ok, output = run("fetch", "imap", dir)
      assert.is_true(ok, output)
      local uid1, uid2 = output:match(("^(%%d+)\t%d\tcarol@example.test\tFirst\n"
        .. "(%%d+)\t%d\tcarol@example.test\tSecond\n$"):format(#first, #second))
      assert.is_truthy(uid1, output)
      assert.same({ uid1 .. ".eml", uid2 .. ".eml" }, files_in(dir))
      assert.equal(first, process.read_file(("%s/%s.eml"):format(dir, uid1)))
      assert.equal(second, process.read_file(("%s/%s.eml"):format(dir, uid2)))
      for _, it in ipairs(mail:inbox "bob") do assert.is_nil(it.name:find ":2,[^,]*S") end
    end)

    it("is content with a mailbox where nothing is unseen", function()
      local ok, output = run("fetch", "imap", dir)
      assert.is_true(ok, output)
      assert.equal("", output)
      assert.same({}, files_in(dir))
    end)

    it("fails on a mailbox that is not there", function()
      local ok, output = run("fetch", "imap", dir .. " Nowhere")
      assert.is_false(ok)
      assert.matches("the server refuses EXAMINE", output, 1, true)
    end)
  end)

  describe("pop3_download.lua", function()
    it("saves what is new, and only that", function()
      mail:deliver("bob", letter "Old")
      assert.is_true((run("pop3_download", "pop3", dir)))
      local old = files_in(dir)
      mail:deliver("bob", letter("New", ".dots\r\n..\r\n.\r\n"))
      local ok, output = run("pop3_download", "pop3", dir)
      assert.is_true(ok, output)
      local path = output:match "^saved\t%d+\t(%S+)\n$"
      assert.equal(letter("New", ".dots\r\n..\r\n.\r\n"), process.read_file(path))
      assert.equal(1, #old)
      assert.equal(2, #files_in(dir))
      assert.equal(2, #mail:inbox "bob")
    end)

    it("deletes on the server what is on disk when it is told to", function()
      mail:deliver("bob", letter "To be moved")
      local ok, output = run("pop3_download", "pop3", dir .. " delete")
      assert.is_true(ok, output)
      assert.equal(1, #files_in(dir))
      assert.same({}, mail:inbox "bob")
    end)
  end)

  describe("fanout.lua", function()
    local function check(lines, rest)
      process.write_file(dir .. "/accounts", table.concat(lines, "\n") .. "\n")
      return run("fanout", "imap", ("%s %s/accounts"):format(rest or "", dir))
    end

    local function account(user, password)
      return ("%s %d %s %s"):format(mail.host, mail.imap.port, user,
        password or mail.users[user].password)
    end

    it("tells for each account how many messages are unseen, and fails where one can't", function()
      mail:deliver("bob", letter "One")
      mail:deliver("bob", letter "Two")
      local ok, output = check { "# host port user password", account "bob", "", account "alice",
        account("bob", "wrong"), account "alice" }
      assert.is_false(ok)
      local told = {}
      for line in output:gmatch "[^\r\n]+" do
        if line:find "^bob" or line:find "^alice" then
          line = line:gsub("%s+", " "):gsub("the server refuses.*", "refused")
          told[#told + 1] = line
        end
      end
      table.sort(told)
      local place = (" %s:%d "):format(mail.host, mail.imap.port)
      for index, line in ipairs(told) do told[index] = (line:gsub(place, " ", 1)) end
      assert.same({ "alice 0 unseen", "alice 0 unseen", "bob 2 unseen", "bob refused" }, told)
      assert.matches("4 of 4 accounts, 2 unseen messages, 1 failure\n$", output)
    end)

    it("checks more accounts than it connects to at once", function()
      local lines = {}
      for index = 1, 7 do lines[index] = account(index % 2 == 0 and "bob" or "alice") end
      local ok, output = check(lines, "-n 2")
      assert.is_true(ok, output)
      assert.matches("7 of 7 accounts, 0 unseen messages, 0 failures\n$", output)
    end)

    it("says which line it can't read", function()
      local ok, output = check { account "bob", "mail.example.test bob" }
      assert.is_false(ok)
      assert.matches("line 2: not HOST PORT USER PASSWORD", output, 1, true)
    end)
  end)

  describe("roundtrip.lua", function()
    local settings

    setup(function()
      settings = { MAIL_ADDRESS = "bob@example.test", MAIL_SMTP_PORT = mail.smtp.port,
        MAIL_IMAP_PORT = mail.imap.port, MAIL_POP3_PORT = mail.pop3.port }
    end)

    local function run_with(more, rest)
      local all = {}
      for key, value in pairs(settings) do all[key] = value end
      for key, value in pairs(more) do all[key] = value end
      return run("roundtrip", "smtp", rest or "", all)
    end

    it("takes its settings from arguments, too, and leaves no message behind", function()
      local ok, output = run_with({ MAIL_USER = "nobody" }, "user=bob")
      assert.is_true(ok, output)
      assert.matches("IMAP: all %d+ bytes are as they were sent", output)
      assert.matches("POP3: all %d+ bytes are as they were sent", output)
      assert.same({}, mail:inbox "bob")
    end)

    it("says which setting is missing", function()
      local ok, output = shell.run("env -u MAIL_ADDRESS LUA_PATH_5_4=%s LUA_CPATH_5_4=%s %s "
        .. "examples/roundtrip.lua", shell.quote(package.path), shell.quote(package.cpath), lua)
      assert.is_false(ok)
      assert.matches("missing: argument address=... or variable MAIL_ADDRESS", output, 1, true)
    end)

    -- What makes the copy differ, on the way from the server to the comparison.
    local changes = {
      { "IMAP", "has one byte changed", [[bytes:sub(1, -2) .. "!"]] },
      { "POP3", "lacks its last byte", [[bytes:sub(1, -2)]] },
      { "IMAP", "has a line of text on top", [["no header field\r\n" .. bytes]] },
      { "POP3", "has something behind its end", [[bytes .. "\r\n"]] },
    }
    local getters = { IMAP = "fetch_all", POP3 = "retr" }

    for _, change in ipairs(changes) do
      local name, what, expression = table.unpack(change)
      it(("fails when the copy from %s %s"):format(name, what), function()
        local ok, output = run_with { LUA_INIT_5_4 = ([[
          local module = require "starttls.%s"
          local connect = module.connect
          function module.connect(...)
            local session = assert(connect(...))
            local get = session.%s
            function session.%s(...)
              local got = assert(get(...))
              local bytes = type(got) == "table" and got[1].body or got
              bytes = %s
              return type(got) == "table" and { { body = bytes } } or bytes
            end
            return session
          end]]):format(name:lower(), getters[name], getters[name], expression) }
        assert.is_false(ok)
        assert.matches(name .. ": the message is NOT as it was sent", output, 1, true)
      end)
    end

    it("is coloured on a terminal, and plain there with NO_COLOR", function()
      local function on_terminal(no_color)
        local variables = { "MAIL_HOST=" .. mail.host, "MAIL_CA_FILE=" .. mail.ca_file,
          "MAIL_USER=bob", "MAIL_PASSWORD=" .. mail.users.bob.password,
          "LUA_PATH_5_4=" .. package.path, "LUA_CPATH_5_4=" .. package.cpath, no_color }
        for key, value in pairs(settings) do variables[#variables + 1] = key .. "=" .. value end
        for index, text in ipairs(variables) do variables[index] = shell.quote(text) end
        local command = ("env -u NO_COLOR %s %s examples/roundtrip.lua"):format(
          table.concat(variables, " "), shell.quote(lua))
        return shell.must("%s", "script -qec " .. shell.quote(command) .. " /dev/null")
      end
      assert.matches("\27[31mclear\27[0m", on_terminal(), 1, true)
      assert.is_nil(on_terminal "NO_COLOR=1":find("\27", 1, true))
    end)
  end)

  it("are all run by a spec", function()
    local known = { ["send.lua"] = true, ["send_report.lua"] = true, ["fetch.lua"] = true,
      ["pop3_download.lua"] = true, ["roundtrip.lua"] = true, ["fanout.lua"] = true,
      ["mirror.lua"] = true, embed = true } -- by mirror_spec.lua, embed_spec.lua
    for _, name in ipairs(files_in "examples") do assert.is_true(known[name], name) end
  end)
end)
