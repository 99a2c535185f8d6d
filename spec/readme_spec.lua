-- That README.md is true: every code block of it is run, and those of docs/.
--
-- The Lua blocks of one section are one program, with the line numbers of the page, run by an
-- interpreter of its own; in docs/, behind those at the page's head. It runs as printed, except
-- that
--  - example.com and example.net are written example.test, the domain of the test servers;
--  - connect() to a host that only the README knows goes to the test servers instead: other
--    host, port and ca_file, and not another option.
-- Where a line ends in `--> text`, the program must print that.

local lfs = require "lfs"
local process = require "spec.support.process"
local servers = require "spec.support.servers"
local shell = require "spec.support.shell"

local lua = os.getenv "LUA" or "lua5.4"
local root = lfs.currentdir()

-- Reading ---------------------------------------------------------------

local function lines_of(path)
  local lines = {}
  for line in io.lines(path) do lines[#lines + 1] = line end
  return lines
end

-- The section's name of each line: the heading of the second level above it.
local function blocks_of(lines)
  local blocks, section, open = {}, "", nil
  for number, line in ipairs(lines) do
    if open and line == "```" then
      blocks[#blocks + 1], open = open, nil
    elseif open then
      open.lines[#open.lines + 1] = line
    elseif line:find "^```" then
      open = { section = section, language = line:sub(4), first = number + 1, lines = {} }
    elseif line:find "^## " then
      section = line:sub(4)
    end
  end
  return blocks
end

local function page_of(path)
  local lines = lines_of(path)
  return { path = path, lines = lines, blocks = blocks_of(lines) }
end

local readme = page_of "README.md"
local lines, blocks = readme.lines, readme.blocks

-- The Lua of a section, each line where it is in the page; and what it says is printed.
local function program_of(page, section)
  local code, printed = {}, {}
  for number = 1, #page.lines do code[number] = "" end
  for _, block in ipairs(page.blocks) do
    local is_head = block.section == "" and page ~= readme
    if (block.section == section or is_head) and block.language == "lua" then
      for index, line in ipairs(block.lines) do
        code[block.first + index - 1] = line:gsub("example%.com", "example.test")
          :gsub("example%.net", "example.test")
        printed[#printed + 1] = line:match "%-%-> (.*)$"
      end
    end
  end
  return table.concat(code, "\n") .. "\n", printed
end

-- Running ---------------------------------------------------------------

-- What comes first in the program's interpreter: the detour to the test servers.
local detour = [[
package.preload["starttls.lmtp"] = function(name)
  local path = assert(package.searchpath(name, package.path))
  local module = assert(loadfile(path))(name, path)
  local connect = module.connect
  function module.connect(options)
    assert(options.path, "not a Unix socket")
    return connect { path = os.getenv "SPEC_LMTP_PATH" }
  end
  return module
end
local hosts = { ["mail.example.test"] = true, ["imap.gmail.com"] = true }
for _, protocol in ipairs { "smtp", "imap", "pop3" } do
  package.preload["starttls." .. protocol] = function(name)
    local path = assert(package.searchpath(name, package.path))
    local module = assert(loadfile(path))(name, path)
    local connect = module.connect
    function module.connect(options)
      local given = {}
      for key, value in pairs(options) do given[key] = value end
      assert(hosts[given.host], "a host that the spec does not know")
      local implicit = ({ [465] = true, [993] = true, [995] = true })[given.port]
      if implicit and not given.tls then given.tls = "implicit" end
      local port = "SPEC_" .. protocol:upper() .. (given.tls == "implicit" and "_TLS" or "")
      given.host, given.port = "localhost", math.tointeger(tonumber(os.getenv(port)))
      given.ca_file = os.getenv "SPEC_CA_FILE"
      return connect(given)
    end
    return module
  end
end]]

local function environment(mail)
  local variables = {
    MAIL_PASSWORD = mail.users.alice.password, SPEC_TOKEN = mail:token "alice",
    LUA_PATH_5_4 = package.path:gsub("%f[^;\0]%./", root .. "/"):gsub("^%./", root .. "/"),
    LUA_CPATH_5_4 = package.cpath:gsub("%f[^;\0]%./", root .. "/"):gsub("^%./", root .. "/"),
    LUA_INIT_5_4 = detour, SPEC_CA_FILE = mail.ca_file, SPEC_LMTP_PATH = mail.lmtp.path,
  }
  for _, protocol in ipairs { "smtp", "imap", "pop3" } do
    variables["SPEC_" .. protocol:upper()] = mail[protocol].port
    variables["SPEC_" .. protocol:upper() .. "_TLS"] = mail[protocol].tls_port
  end
  local words = { "env" }
  for name, value in pairs(variables) do
    words[#words + 1] = shell.quote(("%s=%s"):format(name, value))
  end
  return table.concat(words, " ")
end

-- The spec ----------------------------------------------------------------

local function letter(subject, size)
  return "From: carol@example.test\r\nTo: alice@example.test\r\nSubject: " .. subject
    .. "\r\n\r\n" .. ("0123456789abcdef\r\n"):rep((size or 18) // 18)
end

describe("README.md", function()
  local mail, directory, dir, words

  setup(function()
    mail = servers.shared()
    words = environment(mail)
  end)

  before_each(function()
    mail:empty "alice"
    mail:empty "bob"
    directory = process.temporary_directory()
    dir = directory.path
    process.write_file(dir .. "/message.eml", letter "From a file")
    process.write_file(dir .. "/password.txt", mail.users.alice.password .. "\n")
    process.write_file(dir .. "/mail-token", "#!/bin/sh\necho $SPEC_TOKEN\n")
    process.run { "chmod", "755", dir .. "/mail-token" }
  end)

  after_each(function() directory:close() end)

  local function run_program(page, section)
    local code, printed = program_of(page, section)
    local name = page.path:match "[^/]+$"
    process.write_file(dir .. "/" .. name, code)
    local command = ("cd %s && PATH=.:$PATH %s %s %s"):format(dir, words, shell.quote(lua), name)
    local ok, output = shell.run(command:gsub("%%", "%%%%"))
    assert.is_true(ok, output)
    local from = 1
    for _, text in ipairs(printed) do
      local _, last = output:find(text, from, true)
      assert.is_truthy(last, ("not printed: %s\nin\n%s"):format(text, output))
      from = last + 1
    end
    return output
  end

  local function wait_for_mail(user, count)
    shell.must(("for i in $(seq 200); do [ $(ls %s/mail/%s/new | wc -l) -ge %d ] && exit 0; "
      .. "sleep 0.05; done; exit 1"):format(mail.dir, user, count))
    return mail:inbox(user)
  end

  -- What is there before a section's program runs, and what is to be seen behind it.
  local sections = {
    [""] = {
      before = function() mail:deliver("alice", letter "Minutes of Tuesday") end,
      after = function(output)
        assert.matches("^1\t%d+\tMinutes of Tuesday\n$", (output:gsub("^%d+", "1")))
        local found = wait_for_mail("bob", 1)
        assert.matches("Subject: Hello\n\nHello Bob\n$", process.read_file(found[1].path))
      end,
    },
    ["Sending"] = {
      after = function(output)
        assert.equal("accepted\tbob@example.test\n"
          .. "refused\trefused@example.test\t550\tno such user here\n", output)
        local found = wait_for_mail("bob", 1)
        assert.matches("Subject: From a file\n", process.read_file(found[1].path), 1, true)
      end,
    },
    ["The envelope"] = {
      after = function()
        for _, user in ipairs { "alice", "bob" } do
          local text = process.read_file(wait_for_mail(user, 1)[1].path)
          assert.matches("\nSubject: Lunch\n\nAt noon?\n", text, 1, true)
          assert.is_nil(text:find("\nBcc:", 1, true))
        end
      end,
    },
    ["Sending many messages"] = {
      after = function(output)
        assert.matches("^1\tbob@example.test\t.*OK id=", output)
        assert.matches("\n2\trefused@example.test\tthe server refuses .*no such user", output)
        assert.matches("\n3\talice@example.test\t.*OK id=", output)
        for _, user in ipairs { "alice", "bob" } do
          assert.matches("\n\nHello\n$", process.read_file(wait_for_mail(user, 1)[1].path))
        end
      end,
    },
    ["Delivering with LMTP"] = {
      after = function(output)
        assert.matches("^alice@example.test\t<alice@example.test> .* Saved\n$", output)
        assert.matches("Subject: Hello\n", process.read_file(wait_for_mail("alice", 1)[1].path))
      end,
    },
    ["Fetching with IMAP"] = {
      before = function()
        mail:deliver("alice", letter "Small")
        mail:deliver("alice", letter("Big", 200000))
      end,
      after = function(output)
        assert.matches("^2\t%d+\tfalse\n%d+\tnil\tcarol@example.test\t%d+\n"
          .. "%d+\tnil\tcarol@example.test\t20%d%d%d%d\n%d+\n$", output)
        assert.matches("Subject: Big\r\n", shell.must("cat %s/[0-9]*.eml", dir), 1, true)
        local found = mail:inbox "alice"
        assert.equal(2, #found)
        for _, it in ipairs(found) do assert.matches(":2,[^,]*S", it.name) end
      end,
    },
    ["Fetching with POP3"] = {
      before = function()
        mail:deliver("alice", letter "Small")
        mail:deliver("alice", letter("Large", 1200000))
      end,
      after = function(output)
        assert.matches("^2\t120%d%d%d%d\n1\t%x+\t%d+\n1\nsaved\t%./%x+%.eml\n$", output)
        assert.equal(letter("Large", 1200000), process.read_file(dir .. "/large-2.eml"))
        assert.equal(1, #mail:inbox "alice")
      end,
    },
    ["Authentication"] = {
      before = function()
        local certificate = mail.ca:issue { name = "alice", client = true }
        process.run { "cp", certificate.cert, dir .. "/alice.pem" }
        process.run { "cp", certificate.key, dir .. "/alice.key" }
      end,
      after = function(output) assert.equal("SCRAM-SHA-256\nEXTERNAL\n", output) end,
    },
    ["Errors"] = { after = function() assert.same({}, mail:inbox "bob") end },
    ["Waiting"] = {
      after = function(output)
        assert.matches("sent to\tbob@example.test\n", output, 1, true)
        assert.matches("sent to\talice@example.test\n", output, 1, true)
        for _, user in ipairs { "alice", "bob" } do
          assert.matches("Subject: Hello\n", process.read_file(wait_for_mail(user, 1)[1].path))
        end
      end,
    },
    ["Trace"] = {
      after = function(output)
        assert.matches("\nclear\tsent\tSTARTTLS\n", output, 1, true)
        assert.matches("\nTLS\tnote\tencrypted: TLS1.3, ", output, 1, true)
        assert.matches("\nTLS\tsent\tAUTH SCRAM-SHA-256 <secret>\n", output, 1, true)
      end,
    },
    ["Gmail, Outlook and the like"] = {
      after = function(output) assert.equal("OAUTHBEARER\n", output) end,
    },
  }

  local seen = {}
  for _, block in ipairs(blocks) do
    if block.language == "lua" and not seen[block.section] then
      seen[block.section] = true
      local name = block.section == "" and "the first example" or "the program of " .. block.section
      it("has an expectation for, and runs: " .. name, function()
        local section = assert(sections[block.section], "no expectation for this section")
        if section.before then section.before() end
        section.after(run_program(readme, block.section))
      end)
    end
  end

  -- What these print is all that is expected of them.
  for name in lfs.dir "docs" do
    local page, known = name:find "%.md$" and page_of("docs/" .. name), {}
    for _, block in ipairs(page and page.blocks or {}) do
      if block.language == "lua" and block.section ~= "" and not known[block.section] then
        known[block.section] = true
        it(("has in docs/%s a program that runs: %s"):format(name, block.section), function()
          for number = 1, 3 do mail:deliver("alice", letter("Message " .. number)) end
          run_program(page, block.section)
        end)
      end
    end
  end

  it("begins with an example of 15 lines", function()
    assert.equal("lua", blocks[1].language)
    assert.equal(15, #blocks[1].lines)
    assert.is_true(blocks[1].first < 10)
  end)

  it("has a program for every expectation, and no block of a kind that is not run", function()
    for section in pairs(sections) do assert.is_true(seen[section], section) end
    for _, block in ipairs(blocks) do
      assert.is_true(block.language == "lua" or block.language == "sh", block.language)
    end
  end)

  -- Commands of the shell blocks: what each is checked by. package_spec.lua installs the rock.
  local clean = "env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL "
  local commands = {
    { "^make (%S+)$", function(target) shell.must(clean .. "make -n " .. target) end },
    { "^apt%-get install (.*)$", function(names)
      for name in names:gmatch "%S+" do
        shell.must("dpkg-query -W -f='${db:Status-Status}' %s | grep -x installed", name)
      end
    end },
    { "^luarocks %-%-lua%-version 5%.4 make$", function()
      shell.must(clean .. "luarocks --lua-version 5.4 --tree %s make --deps-only", dir)
    end },
  }

  for _, block in ipairs(blocks) do
    for _, line in ipairs(block.language == "sh" and block.lines or {}) do
      it("gives a command that works: " .. line, function()
        for _, command in ipairs(commands) do
          local argument = line:match(command[1])
          if argument then return command[2](argument) end
        end
        error "a command that the spec does not know"
      end)
    end
  end

  it("names the packages that the Makefile builds with", function()
    local names = shell.must "sed -n 's/^BUILD_PACKAGES := //p' Makefile"
    assert.is_truthy(table.concat(lines, "\n"):find("apt-get install " .. names .. "\n", 1, true))
  end)

  it("links to files and headings that are there", function()
    local text = table.concat(lines, "\n")
    local headings = {}
    for heading in text:gmatch "\n##+ ([^\n]+)" do
      headings["#" .. heading:lower():gsub("[^%w%- ]", ""):gsub(" ", "-")] = true
    end
    for target in text:gmatch "%]%(([^)]+)%)" do
      assert.is_truthy(headings[target] or lfs.attributes(target), target)
    end
  end)

  -- The tables of the reference, against the code.

  -- The part of the README from one text to the next that follows.
  local function part(from, to)
    local text = table.concat(lines, "\n")
    local _, first = assert(text:find(from .. "\n", 1, true))
    return text:sub(first, assert(text:find("\n" .. to, first, true)))
  end

  -- The names in `backquotes` in the first cell of each row of the part's tables.
  local function first_names(from, to)
    local found = {}
    for cell in part(from, to):gmatch "\n| ([^|]+) |" do
      for name in cell:gmatch "`([%a_%d]+)" do found[name] = true end
    end
    return found
  end

  it("lists the options that connect() takes, and no other", function()
    local source = process.read_file "lua/starttls/options.lua"
    local taken = {}
    for _, protocol in ipairs { "smtp", "imap", "pop3" } do -- what only one of them has
      local extra = process.read_file(("lua/starttls/%s.lua"):format(protocol))
        :match "session%.connect%(%u%w+, given, (%b{})"
      for name in extra:gmatch "([%w_]+) =" do taken[name] = true end
    end
    for name in source:match("local common = (%b{})"):gmatch "([%a_]+) =" do taken[name] = true end
    assert.same(taken, first_names("### Options of `connect`", "### All sessions"))
  end)

  it("lists the options that send() takes, and no other", function()
    local source = process.read_file "lua/starttls/smtp/parameters.lua"
    local taken, rows = {}, { "| option of `send` | needs | what it is |", "A recipient's" }
    for name in source:match("local known = (%b{})"):gmatch "([%l_%d]+) =" do taken[name] = true end
    for name in source:gmatch '{ name = "([%l_]+)",' do taken[name] = true end
    for name, extension in source:gmatch '{ name = "([%l_]+)", needs = "([%u%d-]+)"' do
      local told = part(table.unpack(rows)):match("| `" .. name .. "` | ([^|]+) |")
      assert.equal(extension, told, name)
    end
    assert.same(taken, first_names(table.unpack(rows)))
  end)

  it("lists the limits, with their defaults", function()
    local header = process.read_file "csrc/base/limits.h"
    local source = process.read_file "lua/starttls/session.lua"
    local values = { string = source:match "default_string_limit = ([%d* ]+)" }
    values.line, values.reply, values.depth, values.greeting =
      header:match "STLS_LIMITS_DEFAULT.-{ ([%d* ]+), ([%d* ]+), ([%d* ]+), ([%d* ]+) }"
    for name, value in pairs(values) do
      local told = part("### Limits", "## License"):match("| `" .. name .. "` | ([%d,]+) |")
      assert.equal(load("return " .. value)(), tonumber((told:gsub(",", ""))), name)
    end
  end)

  it("lists the kinds of errors, and no other", function()
    local source = process.read_file "lua/starttls/error.lua"
    local kinds = {}
    for kind in source:match("kind%s+(.-)%-%-   message"):gsub("%-%-", ""):gmatch "%a+" do
      kinds[kind] = true
    end
    assert.same(kinds, first_names("| `kind` | what happened |", "A session that can't be trusted"))
  end)

  it("tells the mechanisms in the order in which they are chosen", function()
    local order = part("## Authentication", "## Errors"):match "offers:(.-)Of these"
    local table_of_them = process.read_file("csrc/mail/sasl.c"):match "stls_mechanisms%[%] = (%b{})"
    local from = 1
    for name in table_of_them:gmatch '{"([%u%d-]+)", ' do
      if name ~= "ANONYMOUS" then
        local _, last = order:find("%f[%u]" .. name:gsub("%-", "%%-") .. "%f[^%w-]", from)
        assert.is_truthy(last, name)
        from = last
      end
    end
  end)

  -- Methods of lua/starttls/session.lua that are for the protocols' modules, not for scripts.
  local internal = { unasked = true, run = true, take = true, handle = true, drain = true,
    command = true, ask = true, judge = true, say_goodbye = true, describe = true, survey = true,
    walk = true, retr_may_delete = true, retr_and_quit = true, capa_request = true }

  -- The files that hold the methods of each class.
  local method_files = { session = { "session" }, smtp = { "smtp" }, imap = { "imap" },
    pop3 = { "pop3" } }
  for _, protocol in ipairs { "smtp", "imap", "pop3" } do
    for name in lfs.dir("lua/starttls/" .. protocol) do
      local file = name:match "^(.*)%.lua$"
      if file and file ~= "class" then
        table.insert(method_files[protocol], protocol .. "/" .. file)
      end
    end
  end

  local function sources(files)
    local texts = {}
    for index, file in ipairs(files) do
      texts[index] = process.read_file(("lua/starttls/%s.lua"):format(file))
    end
    return "\n" .. table.concat(texts, "\n")
  end

  -- The methods that a class has for scripts: name -> true.
  local function methods_of(protocol)
    local names = {}
    local source = sources(method_files[protocol])
    for class, name in source:gmatch "\nfunction (%u%w+)[:.]([%l_]+)%(" do
      if (" Session Smtp Queries Imap Pop3 Message "):find(class) and not internal[name] then
        names[name] = true
      end
    end
    for name in source:gmatch '\nImap%.define%("([%l_]+)"' do names[name] = true end
    return names
  end

  for protocol, from_to in pairs {
    session = { "### All sessions", "### SMTP" }, smtp = { "### SMTP", "### IMAP" },
    imap = { "### IMAP", "### POP3" }, pop3 = { "### POP3", "### Limits" },
  } do
    it(("names each method of %s sessions"):format(protocol), function()
      local text = part(table.unpack(from_to)) .. part("### All sessions", "### SMTP")
        .. part("## Waiting", "## Trace")
        .. (process.read_file(("docs/%s.md"):format(protocol)) or "")
      local count = 0
      for name in pairs(methods_of(protocol)) do
        count = count + 1
        assert.is_truthy(text:find("`" .. name .. "%f[^%w_]"), name)
      end
      assert.is_true(count > 4)
    end)
  end

  it("names no method that is not there", function()
    local there = {}
    for protocol in pairs(method_files) do
      for name in pairs(methods_of(protocol)) do there[name] = true end
    end
    for name in pairs(first_names("### All sessions", "### Limits")) do
      assert.is_true(there[name], name)
    end
  end)
end)

describe("csrc/README.md", function()
  it("names every file of csrc/, and none that is not there", function()
    local text = process.read_file "csrc/README.md"
    local told = {}
    for cell in text:gmatch "\n| (`[^|]+) |" do
      for name in cell:gmatch "`(%l+/[%w_.]+)`" do told[name] = true end
    end
    for name in pairs(told) do
      local path = "csrc/" .. name
      assert.is_truthy(lfs.attributes(path) or lfs.attributes(path .. ".h"), name)
    end
    for name in shell.must("cd csrc && find * -name '*.[ch]'"):gmatch "[^\n]+" do
      assert.is_true(told[name] or told[name:gsub("%.[ch]$", "")], name)
    end
  end)

  it("is no longer than 200 lines", function()
    assert.is_true(#lines_of "csrc/README.md" <= 200)
  end)

  it("names functions, types and values that are there", function()
    local sources = shell.must "cat csrc/*/*.[ch]"
    local placeholders = { l_verb = true, x_r = true }
    for name in process.read_file("csrc/README.md"):gmatch "`[%a ]-([%a]+_[%a_]+)`" do
      if not placeholders[name] and not name:find "THING" then
        assert.is_truthy(sources:find(name, 1, true), name)
      end
    end
  end)
end)
