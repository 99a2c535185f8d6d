--- Several commands in flight (RFC 9051 5.5).
-- May rely on starttls.imap.class and starttls.error.
--
-- What would be ambiguous is held back until the commands before it are answered:
--   * a command with sequence numbers behind one that permits EXPUNGE, and every command that
--     isn't FETCH, STORE or SEARCH (UID FETCH and the like among them) permits it;
--   * STORE beside FETCH, SEARCH and the like, as one changes what the other tells;
--   * two commands whose untagged answers look alike, unless the requests tell them apart;
--   * all but reading behind what goes on with further commands, which come first;
--   * what changes the session's state (`alone`), and what waits for "+" inside of itself.
local Imap = require "starttls.imap.class"
local errors = require "starttls.error"

local default_window = 16

-- {====== What was asked for ======

local Promise = {}
Promise.__index = Promise

--- Waits until the command is answered.
-- @return what the session's method of this name returns
function Promise:get()
  self.pipeline:run(function() return self.results end)
  return table.unpack(self.results, 1, self.results.n)
end

function Promise:resolve(...)
  self.results = table.pack(...)
end

-- }======

-- {====== What may be in flight beside what ======

local reads = { fetch = true, search = true, sort = true }
local seq_safe = { fetch = true, store = true, search = true }

--- Untagged responses that say which command they answer.
local tells_apart = { FETCH = true, ESEARCH = true }

local function collide(earlier, request)
  if earlier.alone or request.alone then return true end
  if earlier.follow and not (reads[earlier.kind] and reads[request.kind]) then return true end
  if request.by_seq and not (earlier.by_seq and seq_safe[earlier.kind]) then return true end
  if request.kind == "store" and reads[earlier.kind] then return true end
  if earlier.kind == "store" and reads[request.kind] then return true end
  local wanted = request.wanted
  return wanted and wanted == earlier.wanted and not tells_apart[wanted]
end

-- }======

local Pipeline = {}

function Pipeline.__index(_, name)
  local method = rawget(Pipeline, name)
  if method then return method end
  local build = Imap.builders[name]
  if not build then return nil end
  return function(pipeline, ...) return pipeline:add(build(pipeline.session, ...)) end
end

--- Adds a request behind all others.
-- @return a promise
function Pipeline:add(request, err)
  local promise = setmetatable({ pipeline = self }, Promise)
  if not request then
    promise:resolve(nil, err)
  elseif self:place(request, promise, #self.waiting + 1) then
    self:send()
  end
  return promise
end

--- Puts a request in line, or keeps the promise where nothing is to be asked.
-- @return whether it waits to be sent
function Pipeline:place(request, promise, position)
  if request.result ~= nil then
    promise:resolve(request.result)
    return false
  end
  request.promise, request.values = promise, self.session:prepare(request)
  table.insert(self.waiting, position, request)
  return true
end

-- {====== Sending ======

function Pipeline:may_send(request)
  if self.failure or #self.flight >= self.window then return false end
  for _, earlier in ipairs(self.flight) do
    if collide(earlier, request) then return false end
  end
  return true
end

--- Begins an operation, or adds to the one in progress.
-- @return whether the command is on its way
function Pipeline:dispatch(request)
  local form = request.form or "reply"
  if self.operation then
    return self.operation:push(request.during, form, request.args:unpack())
  end
  local operation, err = self.session:command(request.during, form, request.args:unpack())
  if not operation then
    self:fail(err)
    return false
  end
  operation:gather(self.session.string_limit)
  self.operation, self.base = operation, self.sent
  return true
end

--- Sends what may be sent now, in the order of the calls.
function Pipeline:send()
  while self.waiting[1] and self:may_send(self.waiting[1]) do
    local request = self.waiting[1]
    if not self:dispatch(request) then return end
    table.remove(self.waiting, 1)
    self.sent = self.sent + 1
    request.number, request.tag = self.sent, self.operation:tag()
    self.flight[#self.flight + 1] = request
  end
end

-- }======

-- {====== Receiving ======

--- Gives up on a request, but not on those behind it.
local function give_up(request, err)
  request.failure = err
  request.take = function() return true end
  request.handlers = nil
end

--- Offers a response to those in flight, the oldest first.
function Pipeline:untagged(name, number, value, weight)
  for _, request in ipairs(self.flight) do
    local taken, err = request.take(name, number, value, weight)
    if taken == nil and err then
      if errors.is(err) and err.kind == "limit" then return nil, err end
      give_up(request, err)
    end
    if taken ~= false then return true end
  end
  self.session:unasked(name, number, value)
  return true
end

--- Content and the like belong to the oldest command that can take them.
function Pipeline:hand_over(event, operation, ...)
  for _, request in ipairs(self.flight) do
    local handler = request.handlers and request.handlers[event]
    if handler then
      local taken, err = handler(operation, ...)
      if taken == nil and err then
        -- A message that was begun can't be taken back.
        local is_fatal = event == "want_content" or errors.is(err) and err.kind == "limit"
        if is_fatal then return nil, err end
        give_up(request, err)
      end
      return true
    end
  end
  return true
end

function Pipeline:take_number(number)
  for index, request in ipairs(self.flight) do
    if request.number == self.base + number then return table.remove(self.flight, index) end
  end
end

--- A command is answered: its promise is kept, or goes on with the request that follows.
function Pipeline:answered(reply, number)
  local request = self:take_number(number)
  if request.failure then
    request.promise:resolve(nil, Imap.blamed(request, request.failure))
    return true
  end
  local results = table.pack(self.session:complete(request, reply, request.values))
  if results[1] then self:place(results[1], request.promise, 1)
  else request.promise:resolve(table.unpack(results, 2, math.max(2, results.n))) end
  return true
end

--- The session is lost: nobody gets an answer any more.
function Pipeline:fail(err)
  local operation <close> = self.operation -- luacheck: ignore
  self.failure = err
  for _, request in ipairs(self.flight) do
    request.promise:resolve(nil, Imap.blamed(request, err))
  end
  if err.delivery then -- of what was sent only
    err = errors.with(err, function(fields) fields.delivery = nil end)
  end
  for _, request in ipairs(self.waiting) do
    request.promise:resolve(nil, Imap.blamed(request, err))
  end
  self.flight, self.waiting, self.operation = {}, {}, nil
end

--- Goes on until `enough` says so, or nothing is left to do.
function Pipeline:run(enough)
  self:send()
  while not enough() and self.operation do
    local going, err = self.session:take(self.operation, self.handlers)
    if going == "done" then self.operation = nil
    elseif not going then self:fail(err) end
    self:send()
  end
end

-- }======

local function new_pipeline(self, settings)
  local pipeline = setmetatable({
    session = self, window = settings and settings.window or default_window,
    waiting = {}, flight = {}, sent = 0, base = 0,
  }, Pipeline)
  pipeline.handlers = {
    reply = function(_, reply, number) return pipeline:answered(reply, number) end,
    untagged = function(_, ...) return pipeline:untagged(...) end,
    content = function(operation, ...) return pipeline:hand_over("content", operation, ...) end,
    want_content = function(operation) return pipeline:hand_over("want_content", operation) end,
  }
  return pipeline
end

--- Runs several commands without waiting for each one's answer, where RFC 9051 5.5 allows it;
-- what would be ambiguous is held back. What is sent, and in which order, is as if the calls
-- were made one after the other.
-- @param body      function(p): p has the session's methods that run commands, fetch (which
--                  gathers its messages, or calls settings.each for each of them) among them;
--                  each returns a promise at once, whose get() waits and returns what the
--                  session's method returns
-- @param settings  window = how many commands may be in flight, 1 to 64; default 16
-- @return true when the session has lived through it, whatever became of each command;
--         or nil and an error. An error raised by `body` passes, and closes the session when
--         commands were in flight that can't be left.
function Imap:pipeline(body, settings)
  local window = settings and settings.window or default_window
  if math.type(window) ~= "integer" or window < 1 or window > 64 then
    error("pipeline: the window must be an integer from 1 to 64", 0)
  end
  local pipeline = new_pipeline(self, settings)
  local guard <close> = setmetatable({}, { __close = function() -- luacheck: ignore
    local operation <close> = pipeline.operation -- luacheck: ignore
  end })
  body(pipeline)
  pipeline:run(function() return false end)
  if pipeline.failure then return nil, pipeline.failure end
  return true
end
