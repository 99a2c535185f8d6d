--- IMAP: mailboxes and messages (RFC 9051, RFC 3501).
-- May rely on starttls.session, starttls.arguments, starttls.content and starttls.error.
--
-- Messages are named by UID everywhere, by sequence number only on request.
local session = require "starttls.session"
local arguments = require "starttls.arguments"
local content = require "starttls.content"
local errors = require "starttls.error"

local imap = {}
local Imap = session.class "imap"

--- Opens a session: encrypted, verified and, when credentials are given, authenticated.
-- @param given  options as in README.md; also on = { alert = f, exists = f, expunge = f,
--               fetch = f, bye = f }: functions for what the server says unasked
-- @return a session, or nil and an error
function imap.connect(given)
  return session.connect(Imap, given, { on = "table" })
end

-- {====== What the server says unasked ======

local function call(self, name, ...)
  local handler = self.on[name]
  if handler then handler(...) end
end

--- Keeps the mailbox's counts right, and tells the caller's handlers.
function Imap:unasked(name, number, value)
  local mailbox = self.mailbox
  if name == "EXISTS" and number then
    if mailbox then mailbox.exists = number end
    call(self, "exists", number)
  elseif name == "EXPUNGE" and number then
    if mailbox then mailbox.exists = math.max(0, mailbox.exists - 1) end
    call(self, "expunge", number)
  elseif name == "FETCH" then
    call(self, "fetch", value)
  elseif name == "BYE" then
    call(self, "bye", value.text)
  elseif value.code == "ALERT" then
    call(self, "alert", value.text)
  end
end

local judge = Imap.judge

--- The reply, or nil and an error when it is a refusal. An alert may come with either, and is
-- for a person to see (RFC 9051 7.1).
function Imap:judge(during, reply)
  if reply.status == "ALERT" then call(self, "alert", reply.text) end
  return judge(self, during, reply)
end

-- }======

--- Bounds what a command gathers, like one reply: a server may never stop.
-- @return function(weight) -> true, or nil and an error
local function bounded(self, during)
  local left = self.reply_limit
  return function(weight)
    left = left - weight
    if left >= 0 then return true end
    return nil, errors.new { kind = "limit", during = during,
      message = ("the server's responses are longer than the limit of %d bytes")
        :format(self.reply_limit),
      hint = "ask for less, or raise limits.reply" }
  end
end

--- Runs a command, collecting the untagged responses of one name.
-- @param wanted  response name, or nil
-- @param args    the command, from starttls.arguments
-- @return the reply and the array of collected values; or nil and an error
local function collect(self, during, wanted, args)
  local values, take = {}, bounded(self, during)
  local reply, err = self:ask(during, {
    untagged = function(_, name, number, value, weight)
      if name ~= wanted then return self:unasked(name, number, value) end
      values[#values + 1] = value or number
      return take(weight)
    end,
  }, args:unpack())
  if not reply then return nil, err end
  return reply, values
end

--- Runs a command that gathers nothing.
-- @return the reply, or nil and an error
local function run(self, during, args)
  local reply, values_or_error = collect(self, during, nil, args)
  return reply, not reply and values_or_error or nil
end

-- {====== Mailboxes ======

--- Lists mailboxes (RFC 9051 6.3.9).
-- @param reference  usually ""
-- @param pattern    "*" for all, "%" for one level; default "*"
-- @return an array of { name, delimiter, flags }; or nil and an error
function Imap:list(reference, pattern)
  local args = arguments.of("LIST"):add("mailbox", reference or ""):add("mailbox", pattern or "*")
  local reply, values = collect(self, "list", "LIST", args)
  if not reply then return nil, values end
  return values
end

local status_items = { "MESSAGES", "UIDNEXT", "UIDVALIDITY", "UNSEEN" }

--- Asks for a mailbox's counts without selecting it (RFC 9051 6.3.11).
-- @param name   the mailbox
-- @param items  names; default messages, uidnext, uidvalidity, unseen
-- @return a table with these in lower case; or nil and an error
function Imap:status(name, items)
  local names = {}
  for index, item in ipairs(items or status_items) do
    if type(item) ~= "string" or not item:find "^[%a%d.-]+$" then
      error("status: the items must be names such as \"messages\"", 0)
    end
    names[index] = item:upper()
  end
  local args = arguments.of("STATUS"):add("mailbox", name):add_list("atom", names)
  local reply, values = collect(self, "status", "STATUS", args)
  if not reply then return nil, values end
  return values[1] or {}
end

--- Notes what SELECT's untagged responses say of the mailbox.
local function note_mailbox(mailbox, name, number, value)
  if name == "EXISTS" then mailbox.exists = number or mailbox.exists
  elseif name == "RECENT" then mailbox.recent = number
  elseif name == "FLAGS" then mailbox.flags = value
  elseif name == "OK" and value.code then
    local argument = value.arguments[1]
    if value.code == "PERMANENTFLAGS" then mailbox.permanent_flags = argument or {}
    elseif value.code == "UIDVALIDITY" or value.code == "UIDNEXT" or value.code == "UNSEEN"
        or value.code == "HIGHESTMODSEQ" then mailbox[value.code:lower()] = argument
    else return false end
  else return false end
  return true
end

local function open_mailbox(self, verb, name)
  local mailbox = { name = name, exists = 0, flags = {}, permanent_flags = {} }
  local args = arguments.of(verb):add("mailbox", name)
  local reply, err = self:ask(verb:lower(), {
    untagged = function(_, response, number, value)
      if note_mailbox(mailbox, response, number, value) then return end
      self:unasked(response, number, value)
    end,
  }, args:unpack())
  self.mailbox = nil -- whatever the answer, what was selected before is not any more
  if not reply then return nil, err end
  mailbox.read_only = reply.status == "READ-ONLY" or verb == "EXAMINE"
  self.mailbox = mailbox
  return mailbox
end

--- Opens a mailbox (RFC 9051 6.3.2).
-- @return a table: name, exists, uidvalidity, uidnext, flags, permanent_flags, highestmodseq,
--         read_only; `exists` is kept right as the server tells; or nil and an error
function Imap:select(name)
  return open_mailbox(self, "SELECT", name)
end

--- Opens a mailbox without the right to change it (RFC 9051 6.3.3); returns as select does.
function Imap:examine(name)
  return open_mailbox(self, "EXAMINE", name)
end

-- }======

-- {====== Fetching ======

--- Names for data items (RFC 9051 6.4.5). Bodies are always peeked: \Seen stays as it is.
local item_names = {
  uid = "UID", flags = "FLAGS", envelope = "ENVELOPE", size = "RFC822.SIZE", date = "INTERNALDATE",
  structure = "BODYSTRUCTURE", headers = "BODY.PEEK[HEADER]", body = "BODY.PEEK[]",
  text = "BODY.PEEK[TEXT]",
}

--- The fields of a message that show that a response answers an item.
local item_fields = {
  FLAGS = "flags", ENVELOPE = "envelope", ["RFC822.SIZE"] = "size", INTERNALDATE = "date",
  BODYSTRUCTURE = "structure",
}

local function wire_item(item)
  if type(item) ~= "string" then error("fetch: items must be strings", 0) end
  return item_names[item] or (item:upper():gsub("^BODY%[", "BODY.PEEK["))
end

local function set_text(set, what)
  local parts = {}
  for index, part in ipairs(type(set) == "table" and set or { set }) do
    if math.type(part) == "integer" and part > 0 then parts[index] = ("%d"):format(part)
    elseif type(part) == "string" then parts[index] = part
    else error(what .. ": the set must have positive integers or strings such as \"1:*\"", 0) end
  end
  if #parts == 0 then error(what .. ": the set is empty", 0) end
  return table.concat(parts, ",")
end

--- Whether a set is what a search that found nothing returns. IMAP has no empty set; for the
-- caller it means that nothing is to be done, and above all not "all".
local function is_empty(set)
  return type(set) == "table" and #set == 0
end

--- A command about messages: by UID unless by_seq.
local function message_command(verb, set, by_seq)
  local args = by_seq and arguments.of(verb) or arguments.of("UID", verb)
  return args:add("set", set_text(set, verb:lower()))
end

local function fetch_command(set, items, by_seq)
  local names = {}
  if not by_seq then names[1] = "UID" end
  for _, item in ipairs(items) do
    local name = wire_item(item)
    if by_seq or name ~= "UID" then names[#names + 1] = name end
  end
  return message_command("FETCH", set, by_seq):add_list("raw", names)
end

--- Whether a FETCH response answers us, or tells a change of flags that nobody asked for.
local function answers(message, items, by_seq)
  if message.sections then return true end
  if not by_seq and not message.uid then return false end
  for _, item in ipairs(items) do
    local field = item_fields[wire_item(item)]
    if field and message[field] == nil then return false end
    if not field and wire_item(item):find "^BODY" then return false end
  end
  return true
end

--- Content of the message being received, gathered by section.
local Gatherer = {}
Gatherer.__index = Gatherer

--- Keeps the message so far, by which the caller chooses a sink.
-- @param fresh  the items that came since the literal before
function Gatherer:learn(fresh)
  local so_far = self.so_far
  if not so_far then
    self.so_far = fresh
    return
  end
  for name, value in pairs(fresh) do
    if name ~= "sections" then so_far[name] = value end
  end
  for section, text in pairs(fresh.sections) do so_far.sections[section] = text end
end

function Gatherer:begin(section, fresh, size)
  if self.choose then self:learn(fresh) end
  local target = self.choose and self.choose(self.so_far, section) or nil
  if not target then self.left = self.left - size end
  if self.left < 0 then return nil, content.too_long("fetch", self.limit) end
  self.section, self.unfinished = section, true
  self.take, self.result = content.sink(target, self.limit, "fetch")
  return true
end

--- A piece of a literal: to the sink that the caller chose, or into a string.
function Gatherer:content(piece, size, offset, section, fresh)
  if offset == 0 then
    local begun, too_long = self:begin(section, fresh, size)
    if not begun then return nil, too_long end
  end
  local taken, err = self.take(piece)
  if not taken then return nil, content.failure("the sink", "fetch", err) end
  if offset + #piece < size then return true end
  taken, err = self.take(nil)
  if not taken and err then return nil, content.failure("the sink", "fetch", err) end
  self.sections[self.section] = self.result() or true
  self.unfinished = false
  return true
end

--- Tells the caller's sink that the rest does not come, as LTN12 has it.
function Gatherer:abort(err)
  if self.unfinished then self.take(nil, tostring(err)) end
  self.unfinished = false
end

--- Puts what was gathered into the message that is complete now.
-- @return the message, or nil and an error
function Gatherer:finish(message)
  local gathered = self.sections
  self.left, self.so_far, self.sections = self.limit, nil, {}
  if next(gathered) then
    message.sections = message.sections or {}
    for section, text in pairs(gathered) do message.sections[section] = text end
  end
  local sections = message.sections
  if not sections then return message end
  -- A short section may come as a quoted string: the sink is to have it all the same.
  for section, text in pairs(sections) do
    local quoted = gathered[section] == nil
    local target = quoted and self.choose and self.choose(message, section)
    if target then
      local take = content.sink(target, self.limit, "fetch")
      local taken, err = take(text)
      if taken then taken, err = take(nil) end
      if not taken and err then return nil, content.failure("the sink", "fetch", err) end
      sections[section] = true
    end
  end
  message.body, message.headers, message.text = sections[""], sections.HEADER, sections.TEXT
  return message
end

--- Fetches data of messages (RFC 9051 6.4.5), one at a time as they arrive.
-- @param set      "1:*", a UID, or an array of UIDs; with an empty array nothing is asked for
-- @param items    names: uid flags envelope size date structure headers body text; or raw data
--                 items such as "BODY.PEEK[1.2]<0.512>"
-- @param options  seq = true: the set has sequence numbers;
--                 sink = function(message, section) -> open file, LTN12 sink, or nil: where that
--                 section's content goes instead of into a string
-- @return an iterator for a generic for. Each message has uid, seq and what was asked for; content
--         is in body, headers, text and sections["1.2"] (true where a sink took it). A failure
--         raises the error object, as a loop has no other way to tell; fetch_all returns it.
function Imap:fetch(set, items, settings)
  settings = settings or {}
  if is_empty(set) then return function() end end
  local args = fetch_command(set, items, settings.seq)
  local operation, err = self:command("fetch", "reply", nil, args:unpack())
  if not operation then error(err, 0) end
  if not settings.sink then operation:gather(self.string_limit) end
  local gatherer = { choose = settings.sink, limit = self.string_limit, left = self.string_limit,
    sections = {} }
  setmetatable(gatherer, Gatherer)
  local ready, reply
  local handlers = {
    content = function(_, ...) return gatherer:content(...) end,
    untagged = function(_, name, number, value)
      if name ~= "FETCH" then return self:unasked(name, number, value) end
      local message, failure = gatherer:finish(value)
      if not message then return nil, failure end
      if answers(message, items, settings.seq) then ready = message
      else self:unasked(name, number, value) end
    end,
    reply = function(_, given) reply = given end,
  }
  local function next_message()
    ready = nil
    while not ready do
      if not operation then return nil end
      local going, failure = self:take(operation, handlers)
      if not going then
        operation = nil
        gatherer:abort(failure)
        error(failure, 0)
      end
      if going == "done" then
        operation = nil
        local judged, refused = self:judge("fetch", reply)
        if not judged then error(refused, 0) end
      end
    end
    return ready
  end
  return next_message, nil, nil, operation
end

--- Fetches data of messages into an array; arguments as fetch.
-- @return an array of messages; or nil and an error
function Imap:fetch_all(...)
  local messages = {}
  local ok, err = pcall(function(...)
    for message in self:fetch(...) do messages[#messages + 1] = message end
  end, ...)
  if ok then return messages end
  if not errors.is(err) then error(err, 0) end
  return nil, err
end

-- }======

-- {====== Searching and changing ======

--- Searches the mailbox (RFC 9051 6.4.4).
-- @param criteria  as on the wire: "UNSEEN SINCE 1-Feb-2026"
-- @param settings  seq = true: sequence numbers instead of UIDs
-- @return an array of UIDs; or nil and an error
function Imap:search(criteria, settings)
  local by_seq = settings and settings.seq
  local args = by_seq and arguments.of "SEARCH" or arguments.of("UID", "SEARCH")
  local reply, values = collect(self, "search", "SEARCH", args:add("raw", criteria))
  if not reply then return nil, values end
  local found = {}
  for _, numbers in ipairs(values) do table.move(numbers, 1, #numbers, #found + 1, found) end
  return found
end

--- Changes flags (RFC 9051 6.4.6).
-- @param set       UIDs as in fetch
-- @param change    one of add = { flags }, remove = { flags }, replace = { flags }
-- @param settings  seq = true: sequence numbers; silent = true: don't report the new flags
-- @return an array of messages with their new flags (empty when silent); or nil and an error
function Imap:store(set, change, settings)
  settings = settings or {}
  local item, flags
  if change.add then item, flags = "+FLAGS", change.add
  elseif change.remove then item, flags = "-FLAGS", change.remove
  elseif change.replace then item, flags = "FLAGS", change.replace
  else error("store: the change must be add, remove or replace", 0) end
  if is_empty(set) then return {} end
  if settings.silent then item = item .. ".SILENT" end
  local args = message_command("STORE", set, settings.seq):add("atom", item):add_list("flag", flags)
  local reply, values = collect(self, "store", "FETCH", args)
  if not reply then return nil, values end
  return values
end

--- Copies messages to another mailbox (RFC 9051 6.4.7).
-- @param set  UIDs as in fetch
-- @return the reply, whose `arguments` are those of COPYUID where the server has UIDPLUS;
--         or nil and an error
function Imap:copy(set, mailbox)
  if is_empty(set) then return { class = "positive", text = "", arguments = {} } end
  return run(self, "copy", message_command("COPY", set):add("mailbox", mailbox))
end

--- Removes the messages that have the flag \Deleted (RFC 9051 6.4.3).
-- @param set  UIDs to confine it to, which needs UIDPLUS (RFC 4315); nil: all
-- @return an array of the sequence numbers that went, as the server told them; or nil and an error
function Imap:expunge(set)
  local gone, take = {}, bounded(self, "expunge")
  if is_empty(set) then return gone end
  local args = arguments.of "EXPUNGE"
  if set then
    if not (self:has "UIDPLUS" or self:has "IMAP4rev2") then
      return nil, errors.new { kind = "unsupported", during = "expunge",
        message = "the server can't expunge by UID: it lacks UIDPLUS" }
    end
    args = message_command("EXPUNGE", set)
  end
  local reply, err = self:ask("expunge", {
    untagged = function(_, name, number, value, weight)
      self:unasked(name, number, value)
      if name ~= "EXPUNGE" then return true end
      gone[#gone + 1] = number
      return take(weight)
    end,
  }, args:unpack())
  if not reply then return nil, err end
  return gone
end

local function append_date(date)
  if type(date) == "number" then return os.date("!%d-%b-%Y %H:%M:%S +0000", date) end
  return date
end

--- Adds a message to a mailbox (RFC 9051 6.3.12). Line ends become CRLF.
-- @param mailbox   its name
-- @param message   string, open file or LTN12 source
-- @param settings  flags = { "\\Seen" }; date = seconds since the epoch, or a date-time of RFC 9051
-- @return a table with uid and uidvalidity where the server tells (UIDPLUS); or nil and an error
function Imap:append(mailbox, message, settings)
  settings = settings or {}
  local source, size = content.measured(message, "append: 'message'")
  if not source then return nil, content.failure("the message's source", "append", size) end
  if type(message) == "string" and message:find("\0", 1, true) then
    return nil, errors.new { kind = "unsupported", during = "append",
      message = "the message has a NUL octet, which IMAP can't carry here" }
  end
  local args = arguments.of("APPEND"):add("mailbox", mailbox)
  if settings.flags then args:add_list("flag", settings.flags) end
  if settings.date then args:add("string", append_date(settings.date)) end
  local handlers = { want_content = session.feeder(source, "append") }
  local reply, err = session.exchange(self, "append", "reply", size, handlers, args:unpack())
  if reply then reply, err = self:judge("append", reply) end
  if not reply then return nil, err end
  if reply.status ~= "APPENDUID" then return {} end
  return { uidvalidity = reply.arguments[1], uid = reply.arguments[2] }
end

-- }======

--- Does nothing, and lets the server tell what has changed (NOOP).
function Imap:noop()
  return run(self, "noop", arguments.of "NOOP")
end

require "starttls.imap.compress" (Imap)

--- Says goodbye, waits for the answer and closes (LOGOUT).
function Imap:logout()
  return self:say_goodbye "LOGOUT"
end

return imap
