--- What sessions of all protocols have in common.
-- May rely on starttls.core, starttls.options, starttls.content and starttls.error.
--
-- A session is a table around a userdata of starttls.core. Each call begins an
-- operation there and takes its events until it is done; the operation is held in
-- a <close> variable, so that it ends with the call however the call ends.
local core = require "starttls.core"
local options = require "starttls.options"
local errors = require "starttls.error"
local content = require "starttls.content"

local session = {}

local Session = {}
Session.__index = Session

--- Makes a class of sessions.
-- @param protocol  "smtp", "lmtp", "imap" or "pop3"
-- @param parent    optional: a class whose methods it has, too
-- @return the class, whose methods the caller adds
function session.class(protocol, parent)
  local class = setmetatable({ protocol = protocol }, parent or Session)
  class.__index = class
  class.__name = "starttls." .. protocol
  class.__close = Session.close
  class.__tostring = Session.describe
  return class
end

local default_string_limit = 64 * 1024 * 1024

--- Gives the caller's password or token when the core asks for it.
local function give_credential(self, operation, given, which)
  local value = given[which]
  local err
  if type(value) == "function" then value, err = value() end
  if type(value) ~= "string" then
    self.core:close()
    return nil, errors.new { kind = "auth", during = "auth",
      message = ("the function for the %s gave none: %s")
        :format(which, tostring(err or type(value))) }
  end
  operation:credential(value)
  return true
end

--- Takes an operation that authenticates to its end. When it fails the session is closed.
-- @param self       the session
-- @param given      the caller's password or token
-- @param operation  from the core, or nil and an error that says why there is none
-- @return true, or nil and an error
function session.log_in(self, given, operation, err)
  if not operation then return nil, err end
  local done, failure = self:run(operation, {
    want_credential = function(op, which) return give_credential(self, op, given, which) end,
  })
  if not done then
    self.core:close()
    return nil, failure
  end
  self.secure = self.core:security()
  return true
end

--- Connects, encrypts and authenticates.
-- @param class  from session.class
-- @param given  the caller's options
-- @param extra  options of this protocol: name -> types
-- @return a session that is ready, or nil and an error. Raises on misuse.
function session.connect(class, given, extra)
  local config, err = options.check(class.protocol, given, extra)
  if not config then return nil, err end
  local limits = given.limits or {}
  local self = setmetatable({
    trace = given.trace, on = given.on or {},
    string_limit = limits.string or default_string_limit,
    reply_limit = limits.reply or core.reply_limit,
    host = given.host, path = given.path, policy = options.policy(given),
  }, class)
  config.object = self
  self.core = core.new(config)
  local done
  done, err = session.log_in(self, given, self.core:open())
  if not done then return nil, err end
  return self
end

--- Takes an operation's events until it is done.
-- @param operation  from the core, or nil and an error that says why there is none
-- @param handlers   event -> function(operation, ...); one that returns nil and an error
--                   ends the operation with that error
-- @return true, or nil and an error
function Session:run(operation, handlers, err)
  if not operation then return nil, err end
  local guard <close> = operation
  while true do
    local going, failure = self:take(guard, handlers)
    if going == "done" then return true end
    if not going then return nil, failure end
  end
end

--- Takes one event.
-- @return "done", true, or nil and an error
function Session:take(operation, handlers)
  return self:handle(operation, handlers, operation:next())
end

--- Does with an event what `take` does; what operation:next() gave is behind the handlers.
function Session:handle(operation, handlers, event, a, b, c, d, e)
  if event == "done" then return "done" end
  if not event then return nil, a end
  if event == "trace" then
    if self.trace then self.trace(a) end
    return true
  end
  local handler = handlers[event]
  if not handler then
    if event == "untagged" then self:unasked(a, b, c) end
    return true
  end
  local ok, err = handler(operation, a, b, c, d, e)
  if ok == nil and err ~= nil then
    -- What exceeds a limit may have no end: it is not waited for.
    if errors.is(err) and err.kind == "limit" then self.core:close() end
    return nil, err
  end
  return true
end

--- For what an IMAP server says unasked; the other protocols have none of it.
function Session.unasked() end

--- Takes an operation that a break or an error left behind to its end.
function Session:drain()
  local abandoned = self.core:drain()
  if not abandoned then return true end
  return self:run(abandoned, {})
end

--- Begins a command, behind what is left of an abandoned one.
-- Arguments as core session:command(). Returns the operation, or nil and an error.
function Session:command(...)
  local drained, err = self:drain()
  if not drained then return nil, err end
  return self.core:command(...)
end

--- Runs a command to its reply, be that a refusal.
-- @param self      the session
-- @param during    the phase, for errors
-- @param form      what the answer brings: "reply", "lines" or "content"
-- @param handlers  as for run; also `begun`, which is called when the command is on its way
-- @param ...       typed arguments
-- @return the reply, or nil and an error
function session.exchange(self, during, form, handlers, ...)
  local reply
  handlers.reply = function(_, given) reply = given end
  local operation, why = self:command(during, form, ...)
  if operation and handlers.begun then handlers.begun(operation) end
  local done, err = self:run(operation, handlers, why)
  if not done then return nil, err end
  return reply
end

--- Runs a command whose answer is one reply.
-- @return the reply, or nil and an error of kind "rejected" when the server said no
function Session:ask(during, handlers, ...)
  local reply, err = session.exchange(self, during, "reply", handlers, ...)
  if not reply then return nil, err end
  return self:judge(during, reply)
end

--- The reply, or nil and an error when it is a refusal.
function Session.judge(_, during, reply)
  if reply.class == "positive" then return reply end
  return nil, errors.from_reply("rejected", during, "the server refuses " .. during:upper(), reply)
end

--- Feeds a source to an operation that wants content.
-- @return a handler for "want_content"
function session.feeder(source, during)
  return function(operation)
    local piece, err = source()
    if piece then
      operation:content(piece)
      return true
    end
    if err then return nil, content.failure("the message's source", during, err) end
    operation:content_end()
    return true
  end
end

--- Hands content to a sink.
-- @return a handler for "content"
function session.filler(sink, during)
  return function(_, piece)
    local taken, err = sink(piece)
    if taken then return true end
    return nil, content.failure("the sink", during, err)
  end
end

--- Says goodbye and closes. The answer is waited for, within the session's timeout.
-- @return true, or nil and an error when the server did not take the goodbye well
function Session:say_goodbye(verb)
  local reply
  local operation, why = self:command(verb:lower(), "goodbye", "atom", verb)
  if not operation then return nil, why end -- busy: that call goes on
  local done, err = self:run(operation, { reply = function(_, given) reply = given end })
  self.core:close()
  if not done then return nil, err end
  if reply and reply.class ~= "positive" and reply.code ~= 421 then
    return nil, errors.from_reply("rejected", verb:lower(), "the server refuses " .. verb, reply)
  end
  return true
end

--- Closes at once, without a word to the server; never waits. Safe to call twice.
function Session:close()
  self.core:close()
end

--- Like close, for another coroutine to end a call that waits: that call returns
-- nil and an error of kind "cancelled".
function Session:cancel()
  self.core:cancel()
end

--- What the channel is.
-- @param what  optional table: { pem = true } adds the certificate in PEM
-- @return a table: encrypted, verified, how ("starttls" or "implicit"), version, cipher, group,
--         alpn, certificate { subject, issuer, names, not_before, not_after, sha256, pem },
--         mechanism, channel_binding, channel_binding_refused, compressed (IMAP), unverified (why,
--         when it is not)
function Session:security(what)
  local report = self.core:security()
  report.certificate = self.core:certificate(what and what.pem or false)
  return report
end

--- What the server says it can do: name -> true or its value.
-- @return a table; empty when the session is closed
function Session:capabilities()
  return self.core:capabilities() or {}
end

--- Whether the server lists a capability (a whole word, case ignored). IMAP's "AUTH=PLAIN"
-- counts both as itself and as AUTH with the value PLAIN.
-- @return true and its value ("" when it has none), or false
function Session:has(word)
  return self.core:has(word)
end

-- For event loops that poll a session themselves (cqueues, copas, select).
function Session:pollfd() return self.core:pollfd() end
function Session:getfd() return self.core:pollfd() end
function Session:events() return self.core:events() end
function Session:timeout() return self.core:timeout() end
function Session:dirty() return self.core:dirty() end

--- "starttls.smtp: mail.example.com:587 (TLS1.3)", or with the path of a Unix socket
function Session:describe()
  local state = "closed"
  if self.core and self.core:is_open() then
    state = self.secure and self.secure.version or "clear text"
  end
  local port = self.core and self.core:port() or 0
  local place = self.path or ("%s:%d"):format(self.host, port)
  return ("starttls.%s: %s (%s)"):format(self.protocol, place, state)
end

return session
