--- Several commands in flight (RFC 9051 5.5).
-- May rely on starttls.imap.class, starttls.imap.order, starttls.error and starttls.settings.
--
-- Requests wait in a queue and are sent in the order of the calls, up to a window; the head of the
-- queue holds back what is behind it as long as it would be ambiguous (order.lua). What the server
-- says is offered to those in flight, the oldest first.
local Imap = require "starttls.imap.class"
local order = require "starttls.imap.order"
local errors = require "starttls.error"
local check_settings = require("starttls.settings").check

local default_window = 16

-- {====== What was asked for ======

local Promise = {}
Promise.__index = Promise

--- Waits until the command is answered.
-- @return what the session's method of this name returns
function Promise:get()
  local pipeline = self.pipeline
  if not self.results then pipeline:run(function() return self.results end) end
  if not self.results then
    return nil, pipeline.failure or errors.new { kind = "cancelled", during = "pipeline",
      message = "the pipeline ended before the command was answered" }
  end
  return table.unpack(self.results, 1, self.results.n)
end

function Promise:resolve(...)
  self.results = table.pack(...)
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

--- Adds a request behind all others. Waits while the queue is as long as the window, so that
-- memory does not grow with the number of commands.
-- @return a promise
function Pipeline:add(request, err)
  if self.ended then error("pipeline: it has ended", 0) end
  local promise = setmetatable({ pipeline = self }, Promise)
  if not request then
    promise:resolve(nil, err)
  elseif self.failure then
    promise:resolve(nil, self.failure)
  elseif self:enqueue(request, promise, #self.waiting + 1) then
    self:send()
    if not self.running then
      self:run(function() return #self.waiting < self.window end)
    end
  end
  return promise
end

--- Puts a request in line, or keeps the promise where nothing is to be asked.
-- @return whether it waits to be sent. Raises when its arguments can't be.
function Pipeline:enqueue(request, promise, position)
  if request.result ~= nil then
    promise:resolve(request.result)
    return false
  end
  self.session.core:check(request.during, request.args:unpack())
  request.promise, request.values = promise, self.session:prepare(request)
  order.classify(request)
  table.insert(self.waiting, position, request)
  return true
end

-- {====== Sending ======

function Pipeline:may_send(request)
  if self.failure or self.ended or #self.flight >= self.window then return false end
  for _, earlier in ipairs(self.flight) do
    if order.collide(earlier, request) then return false end
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

--- What goes into a sink is not to be gathered in memory before.
local function streams(request)
  return request.handlers and request.handlers.content and not request.gathers
end

--- Sends what may be sent now, in the order of the calls.
function Pipeline:send()
  while self.waiting[1] and self:may_send(self.waiting[1]) do
    local request = self.waiting[1]
    if not self:dispatch(request) then return end
    if streams(request) then self.operation:gather(0) end
    table.remove(self.waiting, 1)
    self.sent = self.sent + 1
    request.number, request.tag = self.sent, self.operation:tag()
    self.flight[#self.flight + 1] = request
  end
end

-- }======

-- {====== Receiving ======

--- Gives up on a request, but not on those behind it: what is its own is dropped.
local function give_up(request, err)
  local wanted, claims = request.wanted, request.claims
  request.failure = err
  request.take = function(name, _, value)
    return name == wanted and (not claims or claims(value))
  end
  request.handlers = { content = function() return true end }
end

--- What a request made of a response or of a piece of content.
-- @return true; or nil and an error that ends the pipeline
local function judge_taking(request, taken, err)
  if taken ~= nil or not err then return true end
  if errors.is(err) and err.kind == "limit" then return nil, err end -- it may have no end
  give_up(request, err)
  return true
end

--- Offers a response to those in flight: first for what is surely theirs, then for what may be.
function Pipeline:untagged(name, number, value, weight)
  self.receiver = nil
  for pass = 1, 2 do
    for _, request in ipairs(self.flight) do
      if pass == 1 or request.about then
        local taken, err = request.take(name, number, value, weight, pass == 2)
        if taken ~= false then return judge_taking(request, taken, err) end
      end
    end
  end
  self.session:unasked(name, number, value)
  return true
end

--- Who gets the content that begins: the oldest that asked for it.
function Pipeline:receiver_of(section, message)
  for _, request in ipairs(self.flight) do
    local expects = request.expects
    if expects and expects(section, message) then return request end
  end
end

--- A piece of a message's content.
function Pipeline:content(operation, piece, size, offset, section, fresh)
  if offset == 0 then self.receiver = self:receiver_of(section, fresh) end
  local request = self.receiver
  if not request then return true end
  return judge_taking(request,
    request.handlers.content(operation, piece, size, offset, section, fresh))
end

--- The server waits for the content of the command that is being sent, the last one.
function Pipeline:want_content(operation)
  local request = self.flight[#self.flight]
  return request.handlers.want_content(operation)
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
    self:send()
    return true
  end
  local results = table.pack(self.session:complete(request, reply, request.values))
  local follower = results[1]
  if follower then self:enqueue(follower, request.promise, 1)
  else request.promise:resolve(table.unpack(results, 2, math.max(2, results.n))) end
  self:send()
  return true
end

--- The session is lost, or can't go on: nobody gets an answer any more.
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
  local outermost <close> = setmetatable({}, { __close = function(was) -- luacheck: ignore
    self.running = was.running
  end })
  outermost.running, self.running = self.running, true
  self:send()
  while not enough() and self.operation do
    local going, err = self.session:take(self.operation, self.handlers)
    if going == "done" then
      self.operation = nil
      self:send()
    elseif not going then
      self:fail(err)
    end
  end
end

--- What is in flight is left to its end by the session's next call.
function Pipeline:finish()
  local operation <close> = self.operation -- luacheck: ignore
  self.ended, self.operation = true, nil
end

-- }======

local function new_pipeline(self, window)
  local pipeline = setmetatable({
    session = self, window = window, waiting = {}, flight = {}, sent = 0, base = 0,
    ended = false, running = false, failure = false, operation = false, receiver = false,
  }, Pipeline)
  pipeline.handlers = {
    reply = function(_, reply, number) return pipeline:answered(reply, number) end,
    untagged = function(_, ...) return pipeline:untagged(...) end,
    content = function(...) return pipeline:content(...) end,
    want_content = function(operation) return pipeline:want_content(operation) end,
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
--         or nil and an error. An error raised by `body` passes; what was in flight is left to its
--         end by the session's next call, and what was not sent is not sent any more.
function Imap:pipeline(body, settings)
  local window = check_settings("pipeline", settings, "window").window or default_window
  if math.type(window) ~= "integer" or window < 1 or window > 64 then
    error("pipeline: the window must be an integer from 1 to 64", 0)
  end
  local pipeline = new_pipeline(self, window)
  local guard <close> = setmetatable({}, { -- luacheck: ignore
    __close = function() pipeline:finish() end,
  })
  body(pipeline)
  pipeline:run(function() return false end)
  if pipeline.failure then return nil, pipeline.failure end
  return true
end
