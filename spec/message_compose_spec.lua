-- What starttls.message composes, read back by an independent reader: Python's email package
-- with its modern policy. Over the product of scripts and lengths, with line ends, kinds of
-- attachments and both forms of a header taking turns.

local message = require "starttls.message"
local process = require "spec.support.process"

local reader = "spec/support/read_mail.py"

-- Reading what Python prints --------------------------------------------------------------------

local function unhex(word)
  if word == "-" then return "" end
  return (word:gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end))
end

-- Each kind of line as a table; all values are text.
local lines = {
  field = function(it, name, value)
    it.fields[name] = it.fields[name] or {}
    table.insert(it.fields[name], unhex(value))
  end,
  address = function(it, name, display, address)
    it.addresses[name] = it.addresses[name] or {}
    table.insert(it.addresses[name], { name = unhex(display), address = unhex(address) })
  end,
  group = function(it, _, name) table.insert(it.groups, unhex(name)) end,
  part = function(it, path, kind, disposition, name, id, content)
    table.insert(it.parts, { path = path, type = kind, disposition = disposition,
      name = unhex(name), id = unhex(id), content = unhex(content) })
  end,
  defect = function(it, text) table.insert(it.defects, unhex(text)) end,
}

-- What the reader makes of files: an array, in their order.
local function read_files(paths, form)
  local all = {}
  local command = { "python3", reader, form }
  table.move(paths, 1, #paths, #command + 1, command)
  for line in process.run(command):gmatch "[^\n]+" do
    local words = {}
    for word in line:gmatch "%S+" do words[#words + 1] = word end
    if words[1] == "message" then
      all[#all + 1] = { fields = {}, addresses = {}, groups = {}, parts = {}, defects = {} }
    else
      lines[words[1]](all[#all], table.unpack(words, 2))
    end
  end
  return all
end

-- The cases -------------------------------------------------------------------------------------

local scripts = {
  { "ASCII", "The quick brown fox jumps over the lazy dog. " },
  { "Latin", "Ünïcödé straße façade, Łódź – “naïve” élan. " },
  { "Cyrillic", "Съешь же ещё этих мягких французских булок. " },
  { "CJK", "色は匂へど散りぬるを我が世誰ぞ常ならむ。" },
  { "Arabic", "نص حكيم له سر قاطع وذو شأن عظيم. " },
  { "emoji", "👩‍👩‍👧‍👦🏳️‍🌈😀👍🏽" },
  { "combining", "e\u{301}a\u{308}o\u{302}\u{323} n\u{303}" },
  { "ASCII and CJK by turns", "word 色は word. 匂へど x " },
  { "specials", [[a "quoted" \ (comment) <b@c>, d; e: =?UTF-8?Q?f?= %41 ' * = ? _ ]] },
  { "an unbroken word", "abcdefghijklmnopqrstuvwxyz0123456789" },
}

local lengths = { 1, 17, 60, 76, 140, 700 }

-- That many characters of a script; where they end in a blank, the last is another.
local function text_of(sample, length)
  local text = sample:rep(length // utf8.len(sample) + 1)
  return (text:sub(1, utf8.offset(text, length + 1) - 1):gsub(" $", "."))
end

local line_ends = { "\n", "\r\n", "\r", "\n\r\n" }

local octets = {}
for i = 0, 255 do octets[#octets + 1] = string.char(i) end
octets = table.concat(octets)

-- Bodies, by turns: what is given, and the tree that must come of it. `X` is the text, `H` the
-- html, both with this case's line ends; `N` the file name.
local shapes = {
  { { text = "X" }, "text/plain" },
  { { html = "H" }, "text/html" },
  { { text = "X", html = "H" }, "multipart/alternative(text/plain text/html)" },
  { { html = "H", inline = { logo = { content = octets, type = "image/png", name = "N" } } },
    "multipart/related(text/html image/png)" },
  { { text = "X", html = "H", inline = { ["a@b"] = { content = "", type = "image/gif" } } },
    "multipart/alternative(text/plain multipart/related(text/html image/gif))" },
  { { text = "X", attachments = { { content = octets, name = "N" } } },
    "multipart/mixed(text/plain application/octet-stream)" },
  { { text = "X", html = "H", attachments = { { content = "a,b\r\nc,d\n", name = "N",
    type = "text/csv" }, { content = ("x"):rep(60000) .. octets, type = "x-a/b" } } },
    "multipart/mixed(multipart/alternative(text/plain text/html) text/csv x-a/b)" },
  { { attachments = { { file = "F" }, { file = "F", name = "N", type = "application/pdf" } } },
    "multipart/mixed(application/octet-stream application/pdf)" },
  { { text = "X", attachments = { { message = "M", name = "N" } } },
    "multipart/mixed(text/plain message/rfc822)" },
  { { text = "X", html = "H", inline = { logo = { file = "F", name = "N" } },
    attachments = { { content = "", name = "N" } } },
    "multipart/mixed(multipart/alternative(text/plain multipart/related(text/html "
      .. "application/octet-stream)) application/octet-stream)" },
}

-- The tree that was read, in the same notation.
local function shape_of(parts)
  local out, depth = {}, 0
  for index, part in ipairs(parts) do
    local level = select(2, part.path:gsub("%.", ""))
    out[#out + 1] = (")"):rep(depth - level)
    if index > 1 then out[#out + 1] = level > depth and "(" or " " end
    out[#out + 1] = part.type
    depth = level
  end
  return table.concat(out) .. (")"):rep(depth)
end

-- What a text is once it was a mail's: lines that end, and in the way of Python.
local function as_read(text)
  text = text:gsub("\r\n?", "\n")
  return text:sub(-1) == "\n" and text or text .. "\n"
end

local function file_name(text)
  return (text:sub(1, (utf8.offset(text, 200) or #text + 1) - 1):gsub(" $", "."))
end

-- Puts the values of a case into a shape.
local function fill(shape, values)
  if type(shape) ~= "table" then return values[shape] or shape end
  local copy = {}
  for key, value in pairs(shape) do copy[key] = key == "type" and value or fill(value, values) end
  return copy
end

local function make_case(script, length, number, file, other)
  local text = text_of(script[2], length)
  local stop = line_ends[number // 3 % #line_ends + 1]
  local shape = shapes[number % #shapes + 1]
  local values = { X = text .. stop .. stop .. "  " .. text .. " \t" .. stop .. ".",
    H = "<p>" .. text .. "</p>" .. stop, N = file_name(text), F = file, M = other }
  return {
    title = ("%s, %d characters, line end %q, %s"):format(script[1], length, stop, shape[2]),
    text = text, values = values, body = fill(shape[1], values), shape = shape[2],
    raw = number // #shapes % 2 == 1,
  }
end

local function given_for(case)
  local given = { from = { name = case.text, address = "alice@example.com" },
    to = { "bob@example.net", { name = case.text, address = "o'neil@example.org" },
      { name = case.text, group = { "x@example.org", { name = "Z", address = '"a b"@y.org' } } } },
    cc = "Ann <ann@example.com>, undisclosed:;", bcc = "secret@example.org",
    subject = case.text, date = 86400 * 365, headers = { ["X-Case"] = case.text },
    references = { "<a@b>", "<" .. ("c"):rep(70) .. "@d>", "<e@f>" }, in_reply_to = "e@f" }
  for name, value in pairs(case.body) do given[name] = value end
  return given
end

describe("a composed message, read by Python's email", function()
  local directory, file, other, cases

  setup(function()
    directory = process.temporary_directory()
    file = directory.path .. "/attached"
    process.write_file(file, octets:rep(300))
    other = assert(message.new { from = "x@example.com", to = "y@example.com",
      subject = "Été", text = "inner\n" })
    cases = {}
    local paths = { [true] = {}, [false] = {} }
    for _, script in ipairs(scripts) do
      for _, length in ipairs(lengths) do
        for _ = 1, 4 do
          local case = make_case(script, length, #cases, file, other)
          case.message = assert(message.new(given_for(case)))
          case.path = ("%s/%03d.eml"):format(directory.path, #cases + 1)
          local source, parts = case.message:source { utf8 = case.raw }, {}
          for piece in source do parts[#parts + 1] = piece end
          case.octets = table.concat(parts)
          process.write_file(case.path, case.octets)
          cases[#cases + 1] = case
          table.insert(paths[case.raw], case.path)
        end
      end
    end
    for raw, form in pairs { [true] = "utf8", [false] = "encoded" } do
      local read = read_files(paths[raw], form)
      local at = 0
      for _, case in ipairs(cases) do
        if case.raw == raw then
          at = at + 1
          case.read = read[at]
        end
      end
    end
  end)

  teardown(function() directory:close() end)

  -- Calls `check` with each case, and says which one failed.
  local function for_each(check)
    assert.is_true(#cases >= 200)
    for _, case in ipairs(cases) do
      local ok, why = pcall(check, case, case.read)
      if not ok then
        why = type(why) == "table" and why.message or why
        error(("%s\n%s\n%s"):format(case.title, why, case.octets:sub(1, 1000)), 0)
      end
    end
  end

  it("has no defect", function()
    for_each(function(_, read) assert.same({}, read.defects) end)
  end)

  it("has the subject, and other text in the header", function()
    for_each(function(case, read)
      assert.same({ case.text }, read.fields.Subject)
      assert.same({ case.text }, read.fields["X-Case"])
    end)
  end)

  it("has the names and addresses, the groups, and no blind copy", function()
    for_each(function(case, read)
      assert.same({ { name = case.text, address = "alice@example.com" } }, read.addresses.From)
      assert.same({ { name = "", address = "bob@example.net" },
        { name = case.text, address = "o'neil@example.org" },
        { name = "", address = "x@example.org" }, { name = "Z", address = '"a b"@y.org' } },
        read.addresses.To)
      assert.same({ { name = "Ann", address = "ann@example.com" } }, read.addresses.Cc)
      -- The same parser reads these: see read_mail.py.
      for index, name in ipairs { case.text, "undisclosed" } do
        assert.equal(name:gsub(" ", ""), (read.groups[index]:gsub(" ", "")))
      end
      assert.is_nil(case.octets:lower():find("\nbcc:", 1, true))
      assert.is_nil(case.octets:find("secret@", 1, true))
      assert.same({ "bob@example.net", "o'neil@example.org", "x@example.org", '"a b"@y.org',
        "ann@example.com", "secret@example.org" }, case.message:envelope().to)
    end)
  end)

  it("has the date and the ids", function()
    for_each(function(case, read)
      assert.same({ "Fri, 01 Jan 1971 00:00:00 +0000" }, read.fields.Date)
      assert.same({ case.message.message_id }, read.fields["Message-ID"])
      assert.same({ "<e@f>" }, read.fields["In-Reply-To"])
      assert.same({ "<a@b> <" .. ("c"):rep(70) .. "@d> <e@f>" }, read.fields.References)
    end)
  end)

  it("has the tree of parts, the texts, the octets and the names of files", function()
    for_each(function(case, read)
      assert.equal(case.shape, shape_of(read.parts))
      local body = case.body
      local expected = { ["text/plain"] = body.text and as_read(body.text),
        ["text/html"] = body.html and as_read(body.html) }
      local files = {}
      for _, it in pairs(body.inline or {}) do files[#files + 1] = it end
      for _, it in ipairs(body.attachments or {}) do files[#files + 1] = it end
      local at = 0
      for _, part in ipairs(read.parts) do
        if part.disposition == "-" then
          if not part.type:find "^multipart" then
            assert.equal(expected[part.type], (part.content:gsub("\r\n", "\n")))
          end
        else
          at = at + 1
          local it = files[at]
          assert.equal(it.name or it.file and "attached" or "", part.name)
          if it.message then
            assert.equal(tostring(other):gsub("\r\n", "\n"), (part.content:gsub("\r\n", "\n")))
          else
            assert.is_true(part.content == (it.content or octets:rep(300)), part.path)
          end
        end
      end
      assert.equal(#files, at)
      if body.inline then assert.matches(next(body.inline), case.octets, 1, true) end
    end)
  end)

  it("keeps to 7bit, to CRLF, and to the lengths of lines", function()
    for_each(function(case)
      local octets_sent = case.octets
      assert.equal(#octets_sent, case.message:size { utf8 = case.raw })
      if not case.raw then assert.is_nil(octets_sent:find "[\x80-\xff]") end
      assert.is_nil(octets_sent:find "\0")
      local whole = octets_sent:gsub("\r\n", "")
      assert.is_nil(whole:find "[\r\n]")
      local in_header = true
      for line in octets_sent:gmatch "([^\n]*)\r\n" do
        if line == "" then in_header = false end
        assert.is_true(#line <= 998)
        -- What can be folded is: a line that is longer has one word, or a name in quotes.
        if in_header and #line > 78 and not line:find '"' then
          assert.is_nil(line:find("[^:] .* "), line)
        end
      end
    end)
  end)
end)
