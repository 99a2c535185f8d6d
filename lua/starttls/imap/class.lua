--- The class of IMAP sessions: what the server says unasked, and how a command is run.
-- May rely on starttls.session, starttls.error and starttls.imap.sets. The other files of this
-- folder add methods.
--
-- A command is built as a *request*, a table that says what to send and what becomes of the
-- answer; Imap.define makes it both a method of the session, which runs it at once, and one of
-- the pipeline (pipeline.lua), which sends several before it waits. Fields of a request:
--
--   during   the phase, for errors: "store"
--   args     the command, from starttls.arguments
--   form     what the answer brings (csrc/mail/dialogue.h); default "reply"
--   wanted   the name of the untagged responses that are its answer; gathered into `values`
--   take     instead of gathering: function(name, number, value, weight) -> true when the response
--            was its own, false when not, nil and an error to give up
--   claims   function(value) -> whether a wanted response is its own; by default those of FETCH are
--            told apart by the set, those about a mailbox by its name
--   expects  function(section, message so far) -> whether content that begins is its own
--   handlers further handlers of events: content, want_content
--   accepts  function(reply) -> whether a refusal is an answer all the same
--   finish   function(reply, values) -> what the caller gets; default the reply
--   follow   function(reply, values) -> the request that goes on from here, or nil and an error
--   done     function(fields): adds to the fields of an error what was done before this request
--   result   instead of all these: nothing is to be asked, this is what the caller gets
--   by_seq   the arguments have message sequence numbers
--   alone    nothing may be in flight beside it: see order.lua
--   tag      set once the command is on its way: what its answers may name (RFC 4466 2.6.2)
local session = require "starttls.session"
local errors = require "starttls.error"
local sets = require "starttls.imap.sets"

local Imap = session.class "imap"

--- The methods of pipelines that run commands: name -> function that builds the request.
Imap.builders = {}

-- {====== What the server says unasked ======

--- What a response becomes for on[name] and for an iterator of events: name -> function(session,
-- number, value) -> the event's type and what it tells, or nil when it is none of this.
local events = {}

function events.EXISTS(self, number)
  if not number then return end
  if self.mailbox then self.mailbox.exists = number end
  return "exists", number
end

function events.RECENT(self, number)
  if not number then return end
  if self.mailbox then self.mailbox.recent = number end
  return "recent", number
end

function events.EXPUNGE(self, number)
  if not number then return end
  local mailbox = self.mailbox
  if mailbox then mailbox.exists = math.max(0, mailbox.exists - 1) end
  return "expunge", number
end

--- RFC 7162 3.2.10: with EARLIER the messages are gone already from the count.
function events.VANISHED(self, _, value)
  local mailbox = self.mailbox
  if mailbox and not value.earlier then
    mailbox.exists = math.max(0, mailbox.exists - Imap.count_of(value.uids or ""))
  end
  return "vanished", value
end

function events.FETCH(_, _, value) return "fetch", value end
function events.BYE(_, _, value) return "bye", value.text end
function events.LIST(_, _, value) return "list", value end
function events.STATUS(_, _, value) return "status", value end
function events.METADATA(_, _, value) return "metadata", value end
function events.ESEARCH(_, _, value) return "search", value end -- RFC 5267 4.3

function events.FLAGS(self, _, value)
  if self.mailbox then self.mailbox.flags = value end
  return "flags", value
end

--- The selected mailbox's fields that a response code tells anew.
local told_by_code = {
  UIDNEXT = "uidnext", UIDVALIDITY = "uidvalidity", HIGHESTMODSEQ = "highestmodseq",
  PERMANENTFLAGS = "permanent_flags",
}

function events.OK(self, _, value)
  local code = value.code
  if code == "ALERT" then return "alert", value.text end
  if code == "REFERRAL" then return "referral", value.referral end
  if code == "INPROGRESS" then
    local progress = value.inprogress -- true where the server tells nothing else
    return "progress", type(progress) == "table" and progress or {}
  end
  if code == "NOTIFICATIONOVERFLOW" then
    self.notified = nil -- RFC 5465 5.8: as if the client had said NOTIFY NONE
    return "overflow", value.text
  end
  local field = told_by_code[code]
  local told = field and value[code:lower()]
  if told and told ~= true and self.mailbox then self.mailbox[field] = told end
end

events.NO = events.OK
events.BAD = events.OK

--- How many numbers a set text has: "1:3,7" has 4.
function Imap.count_of(set)
  local count = 0
  for first, last in set:gmatch "(%d+):?(%d*)" do
    local from = math.tointeger(first)
    count = count + math.abs((math.tointeger(last) or from) - from) + 1
  end
  return count
end

--- Keeps the selected mailbox's counts right, and tells the caller's functions.
-- @return the event's type and what it tells; nil when it is none
function Imap:unasked(name, number, value)
  local event = events[name]
  local kind, told
  if event then kind, told = event(self, number, value) end
  if not kind then return end
  local handler = self.on[kind]
  if handler then handler(told) end
  return kind, told
end

local judge = Imap.judge

--- The reply, or nil and an error when it is a refusal. With either may come an alert, which is
-- for a person to see (RFC 9051 7.1), or a referral (RFC 2193), which is never followed.
function Imap:judge(during, reply)
  if reply.status == "ALERT" and self.on.alert then self.on.alert(reply.text) end
  if reply.status == "REFERRAL" and self.on.referral then self.on.referral(reply.referral) end
  return judge(self, during, reply)
end

-- }======

-- {====== Running commands ======

--- Bounds what a command gathers, like one reply: a server may never stop.
-- @return function(weight) -> true, or nil and an error
function Imap:bounded(during)
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

--- The first argument of a type in a request's command.
local function argument_of(request, kind)
  for index = 1, #request.args, 2 do
    if request.args[index] == kind then return request.args[index + 1] end
  end
end

--- Responses that name the mailbox they are about.
local about_mailbox = {
  STATUS = true, ACL = true, MYRIGHTS = true, LISTRIGHTS = true, METADATA = true, QUOTAROOT = true,
}

--- RFC 9051 5.1: INBOX in any case is the same mailbox.
local function folded(mailbox)
  return mailbox:upper() == "INBOX" and "INBOX" or mailbox
end

--- Notes the set or the mailbox that tells a request's answers from those of others, and how.
local function learn_claims(request)
  if request.args[2] == "STATUS" then request.wanted = "STATUS" end
  if request.wanted == "FETCH" then
    request.ranges = sets.ranges(argument_of(request, "set") or "*")
    local has = sets.membership(request.ranges)
    local field = request.by_seq and "seq" or "uid"
    request.claims = request.claims or function(message)
      return not message[field] or has(message[field])
    end
  elseif request.wanted == "ESEARCH" then -- RFC 4466 2.6.2: it says the command's tag
    request.claims = request.claims or function(value)
      return not value.tag or not request.tag or value.tag == request.tag
    end
  elseif about_mailbox[request.wanted] then
    request.about = folded(argument_of(request, "mailbox") or "")
    request.claims = request.claims or function(value)
      return folded(value.name or "") == request.about
    end
  end
end

--- Makes a request ready to take untagged responses.
-- @return the array of values that it gathers
function Imap:prepare(request)
  local values, weigh = {}, self:bounded(request.during)
  learn_claims(request)
  request.takes_any = request.take ~= nil and not request.wanted
  local take = request.take or function(name, number, value, weight)
    if name ~= request.wanted then return false end
    values[#values + 1] = value or number
    return weigh(weight)
  end
  request.take = function(name, number, value, weight, loosely)
    if name == request.wanted and request.claims and not request.claims(value) then
      -- A server may write a mailbox's name in another way than we do; but with NOTIFY it may
      -- also tell of other mailboxes at any time.
      if not (loosely and request.about) or self.notified then return false end
    end
    return take(name, number, value, weight)
  end
  return values
end

--- An error that also tells what of the call was done before.
function Imap.blamed(request, err)
  return request.done and errors.is(err) and errors.with(err, request.done) or err
end

--- What a request's reply means for the caller.
-- @return the next request, or nil and then the caller's results
function Imap:complete(request, reply, values)
  local accepted = request.accepts and request.accepts(reply)
  if not accepted then
    local ok, err = self:judge(request.during, reply)
    if not ok then return nil, nil, Imap.blamed(request, err) end
  end
  if request.follow then
    local next_request, err = request.follow(reply, values)
    if next_request then return next_request end
    return nil, nil, err
  end
  if request.finish then return nil, request.finish(reply, values) end
  return nil, reply
end

--- Sends a request's command and waits for its reply.
local function exchange(self, request)
  local handlers = {}
  for name, handler in pairs(request.handlers or {}) do handlers[name] = handler end
  function handlers.untagged(_, name, number, value, weight)
    local taken, err = request.take(name, number, value, weight, true)
    if taken == false then
      self:unasked(name, number, value)
      return true
    end
    return taken, err
  end
  function handlers.begun(operation) request.tag = operation:tag() end
  return session.exchange(self, request.during, request.form or "reply", handlers,
    request.args:unpack())
end

--- Runs a request, and those that follow from it.
-- @return what the request's finish gives; or nil and an error
function Imap:perform(request, err)
  local result, failure = nil, err
  while request do
    if request.result ~= nil then return request.result end
    local values = self:prepare(request)
    local reply, lost = exchange(self, request)
    if not reply then return nil, Imap.blamed(request, lost) end
    request, result, failure = self:complete(request, reply, values)
  end
  return result, failure
end

--- Adds a command to the session and to pipelines.
-- @param name   of the method
-- @param build  function(session, ...) -> a request, or nil and an error
function Imap.define(name, build)
  Imap.builders[name] = build
  Imap[name] = function(self, ...) return self:perform(build(self, ...)) end
end

--- The error for what the server can't do.
-- @param what    the call that asked for it
-- @param lacks   the capability's name
function Imap.unsupported(what, lacks)
  return errors.new { kind = "unsupported", during = what,
    message = ("the server does not offer %s, which %s needs"):format(lacks, what) }
end

--- Whether the server has one of these capabilities.
-- @param what  the call that needs it
-- @param ...   names; any of them will do
-- @return true, or nil and an error of kind unsupported that names the first; or the session's own
--         when it is closed
function Imap:needs(what, ...)
  for _, name in ipairs { ... } do
    if self:has(name) then return true end
  end
  return nil, self.core:error() or Imap.unsupported(what, (...))
end

-- }======

return Imap
