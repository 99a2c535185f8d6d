--- Search criteria: a Lua table becomes the typed arguments of SEARCH (RFC 9051 6.4.4).
-- May rely on starttls.arguments, starttls.imap.dates and starttls.imap.sets.
--
-- All keys of a table must hold, and so must the tables in its array part. What a key's value may
-- be, the key's kind says; a kind's function adds the key's arguments. Nothing is glued together,
-- so that no text that is searched for can become anything else.
local arguments = require "starttls.arguments"
local dates = require "starttls.imap.dates"
local sets = require "starttls.imap.sets"

local criteria = {}

--- Deeper than any search by hand; a table that holds itself has no end.
local deepest = 100

local Builder = {}
Builder.__index = Builder

--- @param what  the call, for errors
local function new_builder(session, what)
  return setmetatable({ session = session, what = what, depth = 0, list = arguments.of(),
    is_ascii = true }, Builder)
end

function Builder:add(kind, value)
  self.list:add(kind, value)
  return self
end

function Builder:misuse(name, should)
  error(("%s: %s must be %s"):format(self.what, name, should), 0)
end

--- Notes that the server can't do it; the first time counts.
function Builder:need(...)
  local able, err = self.session:needs(self.what, ...)
  if not able then self.lacking = self.lacking or err end
end

--- A string of the caller's: UTF-8, and anything in it but CR, LF and NUL.
function Builder:add_string(name, value)
  if type(value) ~= "string" then self:misuse(name, "a string") end
  if not utf8.len(value) then self:misuse(name, "valid UTF-8") end
  if value:find "[\x80-\xff]" then self.is_ascii = false end
  return self:add("string", value)
end

-- {====== Kinds of values: function(builder, name, value, word) ======

local kinds = {}

--- true: the key; false: NOT and the key.
function kinds.yes(builder, name, value, word)
  if type(value) ~= "boolean" then builder:misuse(name, "true or false") end
  if not value then builder:add("atom", "NOT") end
  builder:add("atom", word)
end

function kinds.string(builder, name, value, word)
  builder:add("atom", word):add_string(name, value)
end

--- An identifier or a name of an alphabet that needs no quotes.
local function kind_of_word(pattern, should)
  return function(builder, name, value, word)
    if type(value) ~= "string" or not value:find(pattern) then builder:misuse(name, should) end
    builder:add("atom", word):add("atom", value)
  end
end

--- RFC 8474 7: objectid = 1*255(ALPHA / DIGIT / "_" / "-")
kinds.object = kind_of_word("^[%w_-]+$", "an identifier such as a fetch gives")

--- RFC 5466 3.1: filter-name = 1*<any ATOM-CHAR except "/">
kinds.filter = kind_of_word("^[^%c\x80-\xff%s(){%%*\"\\%]/]+$", "the name of a filter")

--- RFC 9051 9: flag-keyword = "$MDNSent" / ... / atom
kinds.keyword = kind_of_word("^[^%c\x80-\xff%s(){%%*\"\\%]]+$",
  "a keyword, which has no backslash, blank or other special character")

--- Gmail's identifiers go beyond what a Lua integer can hold: digits in a string do as well.
function kinds.number(builder, name, value, word)
  local digits = type(value) == "string" and value:match "^%d+$"
  if math.type(value) == "integer" and value >= 0 then digits = ("%d"):format(value) end
  if not digits then builder:misuse(name, "an integer that is not negative") end
  builder:add("atom", word):add("number", digits)
end

--- RFC 5032 3: interval, in seconds
function kinds.seconds(builder, name, value, word)
  local seconds = type(value) == "number" and math.tointeger(value)
  if not seconds or seconds < 1 then builder:misuse(name, "a positive number of seconds") end
  builder:add("atom", word):add("number", ("%d"):format(seconds))
end

function kinds.date(builder, name, value, word)
  local text = dates.day(value)
  if not text then
    builder:misuse(name, "a date: seconds since the epoch, { year, month, day } or \"1-Feb-1994\"")
  end
  builder:add("atom", word):add("atom", text)
end

--- A set that is empty holds no message.
function kinds.set(builder, name, value, word)
  if sets.is_empty(value) then
    builder:add("atom", "NOT"):add("atom", "ALL")
    return
  end
  local texts = sets.texts(value, ("%s: %s"):format(builder.what, name))
  if #texts > 1 then
    builder:misuse(name, "a set that fits into one command: a range, or a search for each part")
  end
  if word then builder:add("atom", word) end
  builder:add("set", texts[1])
end

--- { name = value }: messages whose field `name` has `value` in it; "" for any.
function kinds.header(builder, name, value, word)
  if type(value) ~= "table" or not next(value) then builder:misuse(name, "a table") end
  local fields = {}
  for field in pairs(value) do
    if type(field) ~= "string" or not field:find "^[!-9;-~]+$" then -- RFC 5322 3.6.8
      builder:misuse(name, "a table of header fields' names and strings")
    end
    fields[#fields + 1] = field
  end
  table.sort(fields)
  for _, field in ipairs(fields) do
    builder:add("atom", word):add("string", field)
    builder:add_string(("%s.%s"):format(name, field), value[field])
  end
end

local entry_types = { all = true, shared = true, priv = true }

--- RFC 7162 3.1.5: a mod-sequence; or { value, flag = "\\Draft", type = "all" }, which looks at
-- that flag's alone.
function kinds.modseq(builder, name, value, word)
  local modseq, flag, entry_type = value, nil, nil
  if type(value) == "table" then
    modseq, flag, entry_type = value[1], value.flag, value.type or "all"
    if type(flag) ~= "string" or not entry_types[entry_type] then
      builder:misuse(name, "a number, or { number, flag = name, type = all, priv or shared }")
    end
  end
  if math.type(modseq) ~= "integer" or modseq < 0 then
    builder:misuse(name, "an integer that is not negative")
  end
  builder:add("atom", word)
  if flag then builder:add_string(name, "/flags/" .. flag):add("atom", entry_type) end
  builder:add("number", ("%d"):format(modseq))
end

--- Keys of which not one need hold, or not quite.
function kinds.group(builder, name, value, word)
  builder:add("atom", word):add_group(name, value)
end

--- Nested in the middle, so that many alternatives nest no deeper than they have to.
local function add_alternatives(builder, name, list, first, last)
  if first == last then return builder:add_group(name, list[first]) end
  local middle = (first + last) // 2
  builder:add("atom", "OR")
  add_alternatives(builder, name, list, first, middle)
  add_alternatives(builder, name, list, middle + 1, last)
end

kinds["or"] = function(builder, name, value)
  if type(value) ~= "table" or #value == 0 then
    builder:misuse(name, "an array of tables, one for each alternative")
  end
  add_alternatives(builder, name, value, 1, #value)
end

-- }======

-- {====== Keys ======

--- name -> the kind of its value, the word on the wire, and the capabilities it needs.
local keys = {
  -- RFC 9051 6.4.4, RFC 3501 6.4.4
  seq = { "set" }, uid = { "set", "UID" }, header = { "header", "HEADER" },
  keyword = { "keyword", "KEYWORD" }, unkeyword = { "keyword", "UNKEYWORD" },
  larger = { "number", "LARGER" }, smaller = { "number", "SMALLER" },
  before = { "date", "BEFORE" }, on = { "date", "ON" }, since = { "date", "SINCE" },
  sent_before = { "date", "SENTBEFORE" }, sent_on = { "date", "SENTON" },
  sent_since = { "date", "SENTSINCE" },
  ["or"] = { "or" }, ["not"] = { "group", "NOT" },
  -- RFC 5182 2.1, RFC 5032 3, RFC 7162 3.1.5, RFC 6203 3, RFC 5466 3.1
  saved = { "yes", "$", "SEARCHRES", "IMAP4rev2" },
  older = { "seconds", "OLDER", "WITHIN" }, younger = { "seconds", "YOUNGER", "WITHIN" },
  modseq = { "modseq", "MODSEQ", "CONDSTORE", "QRESYNC" },
  fuzzy = { "group", "FUZZY", "SEARCH=FUZZY" }, filter = { "filter", "FILTER", "FILTERS" },
  -- RFC 8514 4.3, RFC 8474 6
  saved_before = { "date", "SAVEDBEFORE", "SAVEDATE" },
  saved_on = { "date", "SAVEDON", "SAVEDATE" },
  saved_since = { "date", "SAVEDSINCE", "SAVEDATE" },
  save_date_supported = { "yes", "SAVEDATESUPPORTED", "SAVEDATE" },
  emailid = { "object", "EMAILID", "OBJECTID" }, threadid = { "object", "THREADID", "OBJECTID" },
  -- Gmail
  gm_raw = { "string", "X-GM-RAW", "X-GM-EXT-1" },
  gm_labels = { "string", "X-GM-LABELS", "X-GM-EXT-1" },
  gm_msgid = { "number", "X-GM-MSGID", "X-GM-EXT-1" },
  gm_thrid = { "number", "X-GM-THRID", "X-GM-EXT-1" },
}
for _, name in ipairs { "all", "answered", "deleted", "draft", "flagged", "new", "old", "recent",
  "seen", "unanswered", "undeleted", "undraft", "unflagged", "unseen" } do
  keys[name] = { "yes", name:upper() }
end
for _, name in ipairs { "bcc", "body", "cc", "from", "subject", "text", "to" } do
  keys[name] = { "string", name:upper() }
end

-- }======

--- The keys of a table by name, so that the same table is always the same command.
local function sorted_names(self, given)
  local names = {}
  for name in pairs(given) do
    if math.type(name) ~= "integer" or name < 1 or name > #given then
      if not keys[name] then
        error(("%s: there is no search key '%s'"):format(self.what, tostring(name)), 0)
      end
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

--- Adds all keys of a table.
function Builder:add_keys(given, names)
  for _, name in ipairs(names) do
    local key = keys[name]
    if key[3] then self:need(table.unpack(key, 3)) end
    kinds[key[1]](self, name, given[name], key[2])
  end
  for index, part in ipairs(given) do self:add_group(("criteria[%d]"):format(index), part) end
end

--- How many search keys a table becomes; header may have several, and is taken for them.
local function is_single(given, names)
  return #names + #given == 1 and not given.header
end

--- Adds a table as one search key.
function Builder:add_group(name, given)
  if type(given) ~= "table" then self:misuse(name, "a table of search keys") end
  local names = sorted_names(self, given)
  self.depth = self.depth + 1
  if self.depth > deepest then error(self.what .. ": the criteria are nested too deep", 0) end
  if #names + #given == 0 then self:add("atom", "ALL")
  elseif is_single(given, names) then self:add_keys(given, names)
  else
    self:add("(", "")
    self:add_keys(given, names)
    self:add(")", "")
  end
  self.depth = self.depth - 1
  return self
end

--- Makes arguments of search criteria.
-- @param session  for its capabilities
-- @param given    a table as docs/imap.md describes it; or a string as RFC 9051 writes it, which
--                 is sent as it is
-- @param what     the call, for errors: "search"
-- @return the arguments, and whether they are all ASCII; or nil and an error of kind unsupported.
--         Raises on misuse.
function criteria.build(session, given, what)
  local builder = new_builder(session, what)
  if type(given) == "string" then return builder:add("raw", given).list, true end
  if type(given) ~= "table" then
    error(("%s: the criteria must be a string or a table, not %s"):format(what, type(given)), 0)
  end
  local names = sorted_names(builder, given)
  if #names + #given == 0 then builder:add("atom", "ALL") end
  builder:add_keys(given, names)
  if builder.lacking then return nil, builder.lacking end
  return builder.list, builder.is_ascii
end

--- The charset of criteria, before them. Where UTF-8 is agreed upon, SEARCH must not name one
-- (RFC 9755 3): the encoder knows.
-- @param args  the command so far; gets the criteria
-- @return args, or nil and an error
function criteria.add_to(args, session, given, what)
  local list, is_ascii = criteria.build(session, given, what)
  if not list then return nil, is_ascii end
  if not is_ascii then args:add("charset", "UTF-8") end
  table.move(list, 1, #list, #args + 1, args)
  return args
end

return criteria
