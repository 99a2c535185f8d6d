--- Fetching data of messages (RFC 9051 6.4.5).
-- May rely on starttls.imap.class, starttls.imap.sets, starttls.imap.gatherer, starttls.error and
-- starttls.settings.
local Imap = require "starttls.imap.class"
local sets = require "starttls.imap.sets"
local gatherer = require "starttls.imap.gatherer"
local errors = require "starttls.error"
local check_settings = require("starttls.settings").check

-- {====== Data items ======

--- Names for data items. Bodies are always peeked: \Seen stays as it is.
local item_names = {
  uid = "UID", flags = "FLAGS", envelope = "ENVELOPE", size = "RFC822.SIZE", date = "INTERNALDATE",
  structure = "BODYSTRUCTURE", headers = "BODY.PEEK[HEADER]", body = "BODY.PEEK[]",
  text = "BODY.PEEK[TEXT]", save_date = "SAVEDATE", gm_msgid = "X-GM-MSGID",
  gm_thrid = "X-GM-THRID", gm_labels = "X-GM-LABELS",
}

--- The fields of a message that every server gives for an item: what lacks one is no answer yet.
local item_fields = {
  UID = "uid", FLAGS = "flags", ENVELOPE = "envelope", ["RFC822.SIZE"] = "size",
  INTERNALDATE = "date", BODYSTRUCTURE = "structure",
}

--- The capability that an item needs, by how it begins.
local item_capabilities = {
  { "^MODSEQ$", "CONDSTORE", "QRESYNC" }, { "^PREVIEW", "PREVIEW" }, { "^SAVEDATE$", "SAVEDATE" },
  { "^EMAILID$", "OBJECTID" }, { "^THREADID$", "OBJECTID" }, { "^X%-GM%-", "X-GM-EXT-1" },
  { "^BINARY", "BINARY", "IMAP4rev2" },
}

local function wire_item(item)
  if type(item) ~= "string" then error("fetch: items must be strings", 0) end
  local name = item_names[item]
  if name then return name end
  return (item:upper():gsub("^BODY%[", "BODY.PEEK["):gsub("^BINARY%[", "BINARY.PEEK["))
end

--- The items as on the wire, UID among them unless by sequence number.
local function wire_items(items, by_seq)
  local names = { not by_seq and "UID" or nil }
  for _, item in ipairs(items) do
    local name = wire_item(item)
    if name ~= names[1] then names[#names + 1] = name end
  end
  return names
end

local function check_items(self, names)
  for _, name in ipairs(names) do
    for _, entry in ipairs(item_capabilities) do
      if name:find(entry[1]) then
        local able, err = self:needs("fetch", table.unpack(entry, 2))
        if not able then return nil, err end
      end
    end
  end
  return true
end

--- The data items that a caller names, for other commands that have some.
-- @return an array of items as on the wire, UID first; or nil and an error
Imap.fetch_items = function(self, items)
  local names = wire_items(items, false)
  local able, err = check_items(self, names)
  if not able then return nil, err end
  return names
end

-- }======

-- {====== One fetch ======

local Fetch = {}
Fetch.__index = Fetch

--- @param deliver  function(message), called for each message
local function new_fetch(self, names, settings, deliver)
  local fetch = setmetatable({
    session = self, deliver = deliver, messages = {}, required = {}, partial = {},
    gatherer = gatherer.new(settings.sink, self.string_limit),
  }, Fetch)
  for _, name in ipairs(names) do
    fetch.required[#fetch.required + 1] = item_fields[name]
    fetch.wants_flags = fetch.wants_flags or name == "FLAGS"
    if name:find "^BODY%.PEEK%[" or name:find "^BINARY%.PEEK%[" or name:find "^RFC822$"
        or name:find "^RFC822%.[HT]" then
      fetch.wants_sections = true
    end
  end
  return fetch
end

--- Whether all items that every server gives are there.
function Fetch:is_whole(message)
  for _, field in ipairs(self.required) do
    if message[field] == nil then return false end
  end
  return not self.wants_sections or message.sections ~= nil
end

--- Whether a response has something of what was asked for, beyond the flags that servers tell
-- unasked.
function Fetch:answers(message)
  if self.wants_sections and message.sections then return true end
  for _, field in ipairs(self.required) do
    if field ~= "uid" and field ~= "flags" and message[field] ~= nil then return true end
  end
  return false
end

--- Whether a response may be a part of the answer.
function Fetch:concerns(message)
  return self.wants_flags and message.flags ~= nil or self:answers(message)
end

--- A server may answer in several responses about one message (RFC 9051 7.5.2).
-- @return the message so far
function Fetch:join(message)
  for index, earlier in ipairs(self.partial) do
    if earlier.uid and message.uid and earlier.uid == message.uid
        or earlier.seq and earlier.seq == message.seq and not (earlier.uid and message.uid) then
      table.remove(self.partial, index)
      for name, value in pairs(message) do
        if name ~= "sections" or not earlier.sections then
          earlier[name] = value
        else
          for section, text in pairs(value) do earlier.sections[section] = text end
        end
      end
      return earlier
    end
  end
  return message
end

--- Messages that a server leaves incomplete are not waited for without end.
local most_partial = 100

--- Keeps what more is to come of.
function Fetch:keep(message)
  local partial = self.partial
  partial[#partial + 1] = message
  if #partial > most_partial then self:hand_out(table.remove(partial, 1)) end
end

--- EXPUNGE may come amid the answers to UID FETCH, and shifts the numbers of what is kept.
function Fetch:shift(gone)
  for _, message in ipairs(self.partial) do
    if message.seq == gone then message.seq = nil
    elseif message.seq and message.seq > gone then message.seq = message.seq - 1 end
  end
end

--- What never became whole is handed out as it is, if it can be told whose it is, and was no mere
-- news of flags.
function Fetch:hand_out(message)
  local is_known = message.uid or self.required[1] ~= "uid"
  if is_known and self:answers(message) then self.deliver(message)
  else self.session:unasked("FETCH", message.seq, message) end
end

--- Whether a response is a whole message by itself, as nearly all are, and nothing more is to be
-- done about it.
function Fetch:is_simple(message)
  local required = self.required
  if self.wants_sections or message.sections or self.partial[1] then return false end
  for index = 1, #required do
    if message[required[index]] == nil then return false end
  end
  return self.claims(message)
end

--- Takes an untagged response: see `take` in starttls.imap.class.
function Fetch:take(name, number, value)
  if name == "EXPUNGE" and self.partial[1] then self:shift(number) end
  if name ~= "FETCH" or not self.claims(value) then return false end
  local message, err = self.gatherer:finish(value)
  if not message then return nil, err end
  if self.partial[1] then message = self:join(message) end
  if self:is_whole(message) then
    self.deliver(message)
    return true
  end
  if not self:concerns(message) then return false end
  self:keep(message)
  return true
end

--- Whether the content that begins is part of what was asked for.
function Fetch:expects(message)
  return self.wants_sections and self.claims(message)
end

function Fetch:finish()
  local partial = self.partial
  self.partial = {}
  for _, message in ipairs(partial) do self:hand_out(message) end
end

-- }======

-- {====== Requests ======

--- RFC 7162 3.1.4, 3.2.6; RFC 9394 3.2: modifiers of FETCH.
local function modifiers_of(self, settings)
  local words = {}
  if settings.changed_since then
    local able, err = self:needs("fetch", "CONDSTORE", "QRESYNC")
    if not able then return nil, err end
    words[1] = ("CHANGEDSINCE %d"):format(settings.changed_since)
  end
  if settings.vanished then
    if not self.enabled.QRESYNC then
      return nil, Imap.unsupported("fetch", "QRESYNC (see enable)")
    end
    if not settings.changed_since then error("fetch: vanished needs changed_since", 0) end
    words[2] = "VANISHED"
  end
  if settings.partial then
    local able, err = self:needs("fetch", "PARTIAL")
    if not able then return nil, err end
    words[#words + 1] = "PARTIAL " .. settings.partial
  end
  return words
end

--- The request for one text of the set.
local function request_for(fetch, text, names, modifiers, settings)
  local args = sets.command("FETCH", text, settings.seq):add_list("raw", names)
  if #modifiers > 0 then args:add_list("raw", modifiers) end
  local has, field = sets.membership(sets.ranges(text)), settings.seq and "seq" or "uid"
  function fetch.claims(message) return not message[field] or has(message[field]) end
  return {
    during = "fetch", wanted = "FETCH", by_seq = settings.seq, args = args, fetch = fetch,
    gathers = not settings.sink, claims = fetch.claims,
    expects = function(_, message) return fetch:expects(message) end,
    take = function(...) return fetch:take(...) end,
    handlers = { content = function(_, ...) return fetch.gatherer:content(...) end },
    finish = function()
      fetch:finish()
      return fetch.messages
    end,
  }
end

local known_settings = "seq sink changed_since vanished partial"

--- The request for a fetch that delivers each message to a function.
local function fetch_request(self, set, items, settings, deliver)
  local names = wire_items(items, settings.seq)
  local able, err = check_items(self, names)
  if not able then return nil, err end
  local modifiers, lacking = modifiers_of(self, settings)
  if not modifiers then return nil, lacking end
  local fetch = new_fetch(self, names, settings, deliver)
  return sets.in_turn(set, "fetch", function(text)
    return request_for(fetch, text, names, modifiers, settings)
  end, function() end)
end

--- In a pipeline: an array of messages, which is empty when settings.each takes each one.
function Imap.builders.fetch(self, set, items, settings)
  settings = check_settings("fetch", settings, known_settings .. " each")
  local messages = {}
  if sets.is_empty(set) then return { result = messages } end
  local request, err = fetch_request(self, set, items, settings, settings.each or function(message)
    messages[#messages + 1] = message
  end)
  if request then request.fetch.messages = messages end
  return request, err
end

-- }======

--- Takes events of a fetch until there is a message.
local Stream = {}
Stream.__index = Stream

--- Sends the request's command. Raises when the session can't.
function Stream:begin(request)
  local operation, err = self.session:command("fetch", "reply", request.args:unpack())
  if not operation then error(err, 0) end
  if request.gathers then operation:gather(self.session.string_limit) end
  self.operation, self.request = operation, request
  self.handlers.content = request.handlers.content
end

--- Ends the operation in progress; what is left of its answer is dropped by the next call.
function Stream:close()
  local operation <close> = self.operation -- luacheck: ignore
  self.operation = nil
end

function Stream:fail(err)
  self:close()
  self.request.fetch.gatherer:abort(err)
  error(err, 0)
end

--- The command is answered: the next one is sent, or the loop ends.
function Stream:go_on()
  self.operation = nil
  local request, _, err = self.session:complete(self.request, self.reply, {})
  if err then error(err, 0) end
  if request and request.result == nil then self:begin(request) end
end

function Stream:next()
  while true do
    local ready = self.ready
    if ready[self.first] then
      local message = ready[self.first]
      ready[self.first] = nil
      self.first = self.first + 1
      return message
    end
    self.first, self.count = 1, 0
    if not self.operation then return nil end
    local event, a, b, c, d, e = self.operation:next()
    if event == "untagged" and a == "FETCH" and self.request.fetch:is_simple(c) then return c end
    local going, failure = self.session:handle(self.operation, self.handlers, event, a, b, c, d, e)
    if not going then self:fail(failure) end
    if going == "done" then self:go_on() end
  end
end

--- Fetches data of messages (RFC 9051 6.4.5), one at a time as they arrive.
-- @param set      "1:*", a UID, or an array of UIDs; with an empty array nothing is asked for
-- @param items    names: uid flags envelope size date structure headers body text; or raw data
--                 items such as "BODY.PEEK[1.2]<0.512>"
-- @param settings seq = true: the set has sequence numbers;
--                 sink = function(message, section) -> open file, LTN12 sink, or nil: where that
--                 section's content goes instead of into a string;
--                 changed_since = n, vanished = true, partial = "1:100": see README.md
-- @return an iterator for a generic for. Each message has uid, seq and what was asked for; content
--         is in body, headers, text and sections["1.2"] (true where a sink took it). A failure
--         raises the error object, as a loop has no other way to tell; fetch_all returns it.
function Imap:fetch(set, items, settings)
  settings = check_settings("fetch", settings, known_settings)
  if sets.is_empty(set) then return function() end end
  local stream = setmetatable({ session = self, ready = {}, first = 1, count = 0 }, Stream)
  local request, err = fetch_request(self, set, items, settings, function(message)
    stream.count = stream.count + 1
    stream.ready[stream.count] = message
  end)
  if not request then error(err, 0) end
  stream.handlers = {
    untagged = function(_, name, number, value)
      local taken, failure = stream.request.take(name, number, value)
      if taken == false then return self:unasked(name, number, value) end
      return taken, failure
    end,
    reply = function(_, given) stream.reply = given end,
  }
  stream:begin(request)
  -- The closing value ends whatever operation is in progress when the loop is left.
  local guard = setmetatable({}, { __close = function() stream:close() end })
  return function() return stream:next() end, nil, nil, guard
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
