--- Commands that this library does not know.
-- May rely on starttls.imap.class, starttls.imap.gatherer, starttls.imap.sets, starttls.session,
-- starttls.arguments and starttls.content.
--
-- What a Lua value becomes: a string an IMAP string (quoted, or a literal where quotes can't carry
-- it), an integer a number, an array a list in parentheses. All else is said by a mark.
local Imap = require "starttls.imap.class"
local gatherer = require "starttls.imap.gatherer"
local sets = require "starttls.imap.sets"
local session = require "starttls.session"
local arguments = require "starttls.arguments"
local content = require "starttls.content"

-- {====== Marks ======

local Mark = { __name = "starttls.imap.argument" }

local function mark(kind, value)
  return setmetatable({ kind = kind, value = value }, Mark)
end

local function check_string(what, value)
  if type(value) ~= "string" then
    error(("imap.%s: the value must be a string, not %s"):format(what, type(value)), 0)
  end
  return value
end

local marks = { null = mark("atom", "NIL") }

--- A word as it is: no blanks, quotes, parentheses and the like. "[" and "]" may be in it, as in
-- the names of data items.
function marks.atom(word)
  -- RFC 9051 9, atom-specials; "{5}" at a line's end would announce a literal.
  if check_string("atom", word) == "" or word:find '[%c "(){%%*\\\128-\255]' then
    error("imap.atom: the word is empty or has a character that words can't have", 0)
  end
  return mark("atom", word)
end

--- A mailbox's name, in UTF-8.
function marks.mailbox(name) return mark("mailbox", check_string("mailbox", name)) end

--- A flag: "\\Seen", "$Forwarded".
function marks.flag(name) return mark("flag", check_string("flag", name)) end

--- A set of messages: "1:*", a number, or an array of these.
function marks.set(set)
  local texts = not sets.is_empty(set) and sets.texts(set, "imap.set") or {}
  if #texts ~= 1 then error("imap.set: the set is empty, or too long for one command", 0) end
  return mark("set", texts[1])
end

--- A message, sent as a literal: string, open file or LTN12 source. Line ends become CRLF.
function marks.content(message) return mark("content", message) end

-- }======

-- {====== Arguments ======

local add_value

local function add_list(args, list, sources)
  local count = 0
  for _ in pairs(list) do count = count + 1 end
  if count ~= #list then error("execute: a table must be an array without holes", 0) end
  args:add("(", "")
  for _, value in ipairs(list) do add_value(args, value, sources) end
  args:add(")", "")
end

local function add_mark(args, marked, sources)
  if marked.kind ~= "content" then return args:add(marked.kind, marked.value) end
  local source, size = content.measured(marked.value, "imap.content")
  if not source then error(content.failure("the message's source", "execute", size), 0) end
  sources[#sources + 1] = source
  args:add("content", ("%d"):format(size))
end

function add_value(args, value, sources)
  if type(value) == "string" then
    args:add("octets", value)
  elseif math.type(value) == "integer" and value >= 0 then
    args:add("number", ("%d"):format(value))
  elseif getmetatable(value) == Mark then
    add_mark(args, value, sources)
  elseif type(value) == "table" then
    add_list(args, value, sources)
  else
    error(("execute: %s can't be an argument"):format(tostring(value)), 0)
  end
end

--- Answers each want_content with the next source.
local function feeder(sources)
  local at = 1
  return session.feeder(function()
    local piece, err = sources[at]()
    if not piece and not err then at = at + 1 end
    return piece, err
  end, "execute")
end

-- }======

-- {====== The command ======

--- Verbs that change the state of the session or of the connection: the method that knows of it.
local methods = {
  STARTTLS = 'connect, with tls = "starttls"', LOGIN = "authenticate",
  AUTHENTICATE = "authenticate", UNAUTHENTICATE = "unauthenticate", LOGOUT = "logout",
  ENABLE = "enable", COMPRESS = "compress", IDLE = "idle", DONE = "idle", SELECT = "select",
  EXAMINE = "examine", CLOSE = "close_mailbox", UNSELECT = "unselect", DELETE = "delete",
  RENAME = "rename",
}

--- The words of a verb such as "UID FETCH".
local function check_verb(verb)
  if type(verb) ~= "string" or not verb:find "^%a[%w.=+-]*[%w ]*$" or verb:find "  " then
    error("execute: the verb must be a word such as \"XLIST\" or \"UID FETCH\"", 0)
  end
  local words = {}
  for word in verb:gmatch "%S+" do words[#words + 1] = word:upper() end
  local method = methods[words[1]]
  if method then error(("execute: use %s instead of %s"):format(method, words[1]), 0) end
  return words
end

--- What a session must hear of in any case, to keep its counts right.
local for_session = {
  EXISTS = true, RECENT = true, EXPUNGE = true, VANISHED = true, FLAGS = true,
  OK = true, NO = true, BAD = true, BYE = true,
}

--- Runs any command.
-- @param verb  "XAPPLEPUSHSERVICE"; "UID FETCH" as well. Those that have a method of their own
--              because they change the session's state are refused: SELECT, ENABLE, IDLE, ...
-- @param ...   its arguments: strings are sent as strings, integers as numbers, arrays as lists in
--              parentheses; imap.atom "X", imap.mailbox "x", imap.flag "\\Seen", imap.set "1:*",
--              imap.content(message) and imap.null (NIL) say what they are
-- @return { reply, untagged = array of { name, number, value } }: all that came before the reply,
--         with values as other methods have them; or nil and an error
Imap.define("execute", function(self, verb, ...)
  local args, sources = arguments.of(table.unpack(check_verb(verb))), {}
  local given = table.pack(...)
  for index = 1, given.n do add_value(args, given[index], sources) end
  local untagged, weigh = {}, self:bounded "execute"
  local sections = gatherer.new(nil, self.string_limit)
  return {
    during = "execute", alone = true, args = args,
    handlers = {
      want_content = feeder(sources),
      content = function(_, ...) return sections:content(...) end,
    },
    take = function(name, number, value, weight)
      if name == "FETCH" then
        local message, err = sections:finish(value)
        if not message then return nil, err end
      end
      untagged[#untagged + 1] = { name = name, number = number, value = value }
      if for_session[name] then self:unasked(name, number, value) end
      return weigh(weight)
    end,
    finish = function(reply) return { reply = reply, untagged = untagged } end,
  }
end)

-- }======

return marks
