--- Fetching messages, and walking through all of them (RFC 1939 5 and 7).
-- May rely on starttls.content and starttls.pop3.class, .lists.
--
-- Asking ahead. A loop that fetches one message after the other would wait a round trip for each.
-- So where the server lists PIPELINING, the RETR of the messages that follow is sent together with
-- that of the message which the loop fetches; their content stays in the connection until the loop
-- comes to them, so that nothing of it is held in memory. What the loop then does not want has to
-- be read and dropped, and so it is bounded: `ahead` messages, and at most 64 KiB in all by the
-- server's own count, which doubles up to 1 MiB while the guesses are right. The first wrong guess
-- of a loop is its last, and a loop that looks at headers is one that chooses: nothing is asked
-- ahead from there on. Nor is it where RETR itself may delete a message.
local content = require "starttls.content"
local Pop3 = require "starttls.pop3.class"

local default_ahead, most_ahead = 16, 24
local first_allowance, most_allowance = 64 * 1024, 1024 * 1024 -- octets

-- {====== One message ======

--- Hands a request's content to the caller's sink.
-- @return function(reply, err) -> what the caller gets, to be called when it is answered
local function deliver(request, sink, limit)
  local during = request.during
  local take, result = content.sink(sink, limit, during)
  function request.take(piece)
    local taken, err = take(piece)
    if taken then return true end
    return nil, content.failure("the sink", during, err)
  end
  return function(reply, err)
    if not reply then
      if type(sink) == "function" then sink(nil, tostring(err)) end
      return nil, err
    end
    local ended, failure = take(nil)
    if not ended and failure then return nil, content.failure("the sink", during, failure) end
    return result() or true
  end
end

local function fetch(self, request, sink)
  local finish = deliver(request, sink, self.string_limit)
  return finish(self:perform(request))
end

local function retr_request(n)
  return { "atom", "RETR", "number", Pop3.number(n, "retr"), during = "retr", form = "content" }
end

--- Fetches a message.
-- @param n     message number
-- @param sink  an open file or an LTN12 sink, which then gets the message piece by piece;
--              none: it is returned as a string (at most limits.string octets)
-- @return the string, or true; or nil and an error
function Pop3:retr(n, sink)
  return fetch(self, retr_request(n), sink)
end

--- Fetches a message and says goodbye, in one flight where the server lists PIPELINING.
-- @return as retr
function Pop3:retr_and_quit(n, sink)
  local request, flight = retr_request(n), self:commands()
  local finish = deliver(request, sink, self.string_limit)
  local sent, err = flight:send(request)
  if not sent then return finish(nil, err) end
  local farewell = { "atom", "QUIT", during = "quit", form = "goodbye" }
  local rides = flight:push(farewell)
  local reply
  reply, err = flight:await(request)
  if reply then reply, err = self:judge("retr", reply) end
  if rides then flight:await(farewell) else self:quit() end -- the message is what counts
  return finish(reply, err)
end

--- Fetches a message's header and its first lines.
-- @param n      message number
-- @param lines  of the body; default 0
-- @param sink   as in retr
function Pop3:top(n, lines, sink)
  local count = lines or 0
  if math.type(count) ~= "integer" or count < 0 then
    error("top: the number of lines must be an integer that is not negative", 0)
  end
  return fetch(self, { "atom", "TOP", "number", Pop3.number(n, "top"),
    "number", ("%d"):format(count), during = "top", form = "content" }, sink)
end

-- }======

-- {====== A walk through all ======

local Walk = {}
Walk.__index = Walk

--- The request for a message that was asked for ahead; nil when it is of no use any more.
function Walk:take_asked(n)
  local request = self.asked[n]
  self.asked[n] = nil
  if not request then return nil end
  self.ahead_count, self.ahead_octets = self.ahead_count - 1, self.ahead_octets - self.sizes[n]
  if request.dropped or request.failure then return nil end
  self.allowance = math.min(2 * self.allowance, most_allowance)
  return request
end

--- Whether messages that were asked for are passed over: they will be dropped.
function Walk:passes_over(n)
  for asked in pairs(self.asked) do
    if asked < n then return true end
  end
  return false
end

--- Whether a message may be asked for ahead within the bounds.
function Walk:may_ask(n)
  return self.ahead_count < self.ahead and
    self.ahead_octets + self.sizes[n] <= self.allowance
end

--- Asks for one message ahead; the first that is dropped is the last.
-- @return whether it is on its way
function Walk:ask(n)
  local request = retr_request(n)
  function request.answered()
    if request.dropped then self.ahead = 0 end
  end
  if not self.session:commands():push(request) then return false end
  self.asked[n] = request
  self.ahead_count, self.ahead_octets = self.ahead_count + 1, self.ahead_octets + self.sizes[n]
  return true
end

--- Asks for messages behind number `index` of the walk, without waiting.
function Walk:ask_ahead(index)
  local marks = self.session:marks()
  for i = index + 1, #self.numbers do
    local n = self.numbers[i]
    if not (self.asked[n] or self.fetched[n] or marks[n]) then
      if not (self:may_ask(n) and self:ask(n)) then return end
    end
  end
end

--- Fetches a message that may have been asked for already.
function Walk:retr(message, sink)
  local owner, n = self.session, message.n
  if self.ahead == 0 and not next(self.asked) then return owner:retr(n, sink) end
  local request = self:take_asked(n)
  self.fetched[n] = true
  if self:passes_over(n) then self.ahead = 0 end
  local fresh = not request
  request = request or retr_request(n)
  local finish = deliver(request, sink, owner.string_limit)
  if fresh then
    local sent, err = owner:commands():send(request)
    if not sent then return finish(nil, err) end
  end
  if message.index then self:ask_ahead(message.index) end
  local reply, err = owner:commands():await(request)
  if reply then reply, err = owner:judge("retr", reply) end
  return finish(reply, err)
end

--- The identifiers of all messages, asked for once. An empty table where the server has none.
function Walk:identifiers()
  if not self.uids then
    local uids, err = self.session:uidl()
    if not uids and err.kind ~= "rejected" then error(err, 0) end
    self.uids = uids or {}
  end
  return self.uids
end

local Message = {}

--- Fields that are asked for when they are first looked at.
local lazy = {}

function lazy.size(message) return message.walk.sizes[message.n] end
function lazy.uid(message) return message.walk:identifiers()[message.n] end
function lazy.headers(message) return assert(message:top(0)) end
function lazy.body(message) return assert(message:retr()) end

Message.__index = function(message, name)
  if Message[name] then return Message[name] end
  local ask = lazy[name]
  local value = ask and ask(message)
  if value ~= nil then rawset(message, name, value) end
  return value
end

--- Fetches the message; see Pop3:retr.
function Message:retr(sink)
  return self.walk:retr(self, sink)
end

--- Fetches its header and first lines; see Pop3:top.
function Message:top(lines, sink)
  self.walk.ahead = 0
  return self.session:top(self.n, lines, sink)
end

--- Marks it to be deleted when quit() succeeds. Where the server lists PIPELINING, the answer is
-- not waited for: what it refuses is in the result of quit().
-- @return true; or nil and an error
function Message:delete()
  return self.session:mark(self.n)
end

--- Streams it into a file, which appears under its name only when it is complete.
-- @return true, or nil and an error
function Message:save(path)
  local partial = path .. ".part"
  local file, reason = io.open(partial, "wb")
  if not file then return nil, content.failure("opening the file", "retr", reason) end
  local done, err = self:retr(file)
  local closed, why = file:close()
  if done and not closed then done, err = nil, content.failure("writing the file", "retr", why) end
  if done then
    local renamed
    renamed, why = os.rename(partial, path)
    if not renamed then done, err = nil, content.failure("renaming the file", "retr", why) end
  end
  if not done then
    os.remove(partial)
    return nil, err
  end
  return true
end

--- RFC 2449 6.7: with EXPIRE 0 the server may take RETR for DELE; with USER the figure may be
-- another one after authentication, so that only an answer from then counts.
function Pop3:retr_may_delete()
  local listed, value = self:has "EXPIRE"
  if not listed then return false end
  if not self.told and value:upper():find "USER" then return true end
  return value:find "^0+%f[%D]" ~= nil
end

local function check_settings(settings)
  for name, value in pairs(settings) do
    if name == "ahead" then
      if math.type(value) ~= "integer" or value < 0 or value > most_ahead then
        error(("messages: 'ahead' must be an integer from 0 to %d"):format(most_ahead), 0)
      end
    elseif name ~= "only" then
      error(("messages: unknown setting '%s'"):format(tostring(name)), 0)
    elseif type(value) ~= "function" then
      error("messages: 'only' must be a function", 0)
    end
  end
end

--- The numbers of the messages in order, but those that the caller does not want.
local function numbers_of(walk, only)
  local numbers, wanted = {}, {}
  for n in pairs(walk.sizes) do numbers[#numbers + 1] = n end
  table.sort(numbers)
  for _, n in ipairs(numbers) do
    if not only or only(walk:message(n)) then wanted[#wanted + 1] = n end
  end
  return wanted
end

function Walk:message(n, index)
  return setmetatable({ session = self.session, walk = self, n = n, index = index }, Message)
end

--- Begins a walk. Raises the error object when the lists can't be had.
-- @return the walk; its `numbers` are those of the messages
function Pop3:walk(settings)
  check_settings(settings)
  local sizes, uids, why = self:survey()
  if not sizes then error(uids, 0) end
  if why and why.kind ~= "rejected" then error(why, 0) end
  local walk = setmetatable({
    session = self, sizes = sizes, uids = uids or why and {}, asked = {}, fetched = {},
    ahead = settings.ahead or default_ahead, ahead_count = 0, ahead_octets = 0,
    allowance = first_allowance,
  }, Walk)
  if not self:pipelines() or self:retr_may_delete() then walk.ahead = 0 end
  walk.numbers = numbers_of(walk, settings.only)
  return walk
end

--- All messages, for a generic for: each has n, size, uid (where the server has UIDL), headers
-- and body, asked for when they are first looked at, and the methods retr, top, delete and save.
-- Raises the error object when the lists or such a field can't be had, as a loop and a field have
-- no other way to tell.
-- @param settings  optional table:
--          only   function(msg) -> whether the loop wants this message at all
--          ahead  how many messages are asked for ahead of the one that the loop fetches, where
--                 the server lists PIPELINING: 0 to 24, default 16. See the head of this file for
--                 what that costs when the loop does not want them.
function Pop3:messages(settings)
  local walk = self:walk(settings or {})
  local index = 0
  return function()
    index = index + 1
    local n = walk.numbers[index]
    return n and walk:message(n, index) or nil
  end
end

-- }======

return Pop3
