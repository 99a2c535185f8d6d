--- Letters on their way through one session: several at a time, and in their order.
-- May rely on starttls.error, starttls.smtp.letter and starttls.smtp.limits.
--
-- The core asks for messages and their content, and tells in the order of the messages what
-- the server says to each. A letter leaves the outbox when all is known about it and about
-- those before it.
local errors = require "starttls.error"
local Letter = require "starttls.smtp.letter"
local limits = require "starttls.smtp.limits"

local Outbox = {}
Outbox.__index = Outbox

local function add(queue, item)
  queue.last = queue.last + 1
  queue[queue.last] = item
end

local function take(queue)
  local item = queue[queue.first]
  if item == nil then return nil end
  queue[queue.first] = nil
  queue.first = queue.first + 1
  return item
end

local function queue()
  return { first = 1, last = 0 }
end

--- What the server's LIMITS leave of a session, kept with it.
local function allowance(session)
  if not session.allowance then
    local _, value = session:has "LIMITS"
    session.allowance = limits.read(value)
    session.mails = 0
  end
  return session.allowance
end

-- Transactions --------------------------------------------------------------------------------

--- A transaction for some of a letter's recipients: by index, or nil for all. A transaction
-- is a table of `letter`, `indices`, and what comes of it: `void` when its content was not
-- sent, `refusal` and `phase`. One for all recipients is the letter itself.
local function add_part(self, letter, indices)
  letter.parts, letter.letter = letter.parts + 1, letter
  add(self.waiting, indices and { letter = letter, indices = indices } or letter)
end

local function all_indices(count)
  local indices = {}
  for i = 1, count do indices[i] = i end
  return indices
end

--- RFC 9422 4.3: recipients of further domains have to go by another session.
-- @return the indices of those who may go by this one
local function admit(self, letter)
  local most = self.allowance.rcptdomainmax
  if not most then return all_indices(#letter.to) end
  self.session.domains = self.session.domains or {}
  local may, may_not = limits.admit(letter.to, most, self.session.domains)
  for _, index in ipairs(may_not) do
    letter.fates = letter.fates or {}
    letter.fates[index] = { address = letter.to[index], temporary = true,
      text = ("the server takes recipients of at most %d domains in a session"):format(most) }
  end
  return may
end

--- Lines up the transactions of a letter.
local function line_up(self, letter)
  local is_limited = next(self.allowance) ~= nil
  local may = is_limited and admit(self, letter) or nil
  local parts = may and limits.split(may, self.allowance.rcptmax)
  -- RFC 5321 4.5.3.1.8: a server takes 100 at least. Beyond, it may send us round again.
  if parts or #letter.to > 100 then
    letter:make_repeatable()
    if letter.done then return end
  end
  if parts then
    for _, indices in ipairs(parts) do add_part(self, letter, indices) end
  elseif may and #may == 0 then
    letter.done = true
  else
    add_part(self, letter, may and #may < #letter.to and may or nil)
  end
end

--- A part of a letter is over, or won't be.
local function end_part(part, err)
  local letter = part.letter
  letter.failure = letter.failure or err
  letter.parts = letter.parts - 1
  if letter.parts == 0 then letter:finish() end
end

--- RFC 9422 4.1: so many transactions in a session, and no more.
local function too_many_mails(most)
  return errors.new { kind = "rejected", during = "mail", temporary = true,
    message = ("the server takes at most %d messages in a session"):format(most),
    hint = "connect again for more" }
end

local function recipients_of(part)
  local all = part.letter.recipients
  if not part.indices then return all end
  local some = {}
  for i, index in ipairs(part.indices) do some[i] = all[index] end
  return some
end

--- Sends the envelope of a part. False when that can't be: then the part is over.
local function begin_part(self, part)
  local letter, session = part.letter, self.session
  local most = self.allowance.mailmax
  if most and session.mails >= most then
    end_part(part, too_many_mails(most))
    return false
  end
  local sent, refusal = self.operation:message(recipients_of(part), letter.binary or false,
    table.unpack(letter.mail))
  if not sent then
    letter.raised = { "send: " .. refusal }
    end_part(part)
    return false
  end
  session.mails = session.mails + 1
  letter:rewind()
  add(self.flights, part)
  return true
end

--- Who has no fate yet was accepted. Returns whether anybody was, in this transaction.
local function settle(letter, indices)
  local fates, taken = letter.fates or {}, false
  letter.fates = fates
  for _, index in ipairs(indices) do
    if fates[index] == nil then fates[index] = true end
    taken = taken or fates[index] == true
  end
  return taken
end

--- The server has said its last word about the oldest transaction.
local function finish_part(self, part, reply)
  local letter = part.letter
  if part.refusal then
    letter.refusal, letter.phase = part.refusal, part.phase
  elseif not part.void and not part.indices and not letter.fates then
    letter.accepted = true
    letter:take(reply)
  elseif not part.void then
    local indices = part.indices or all_indices(#letter.to)
    if settle(letter, indices) then
      if not letter.delivered then letter:take(reply) end
      local left = not self.farewell and letter:left_over(indices)
      if left then add_part(self, letter, left) end
    end
  end
  end_part(part)
end

-- The core's events ---------------------------------------------------------------------------

--- The next letter from the caller; nil when there is none.
local function next_letter(self)
  if self.dry then return nil end
  local ok, letter = pcall(self.give)
  if not ok then letter = Letter.raising(letter) end
  if not ok or not letter then self.dry = true end
  if not letter then return nil end
  add(self.letters, letter)
  if not letter.done then line_up(self, letter) end
  return letter
end

local handlers = {}

function handlers.trace(self, event)
  if self.session.trace then self.session.trace(event) end
end

function handlers.want_message(self)
  repeat
    local part = take(self.waiting)
    if part and begin_part(self, part) then return end
  until not part and not next_letter(self)
  self.operation:no_message(false)
end

function handlers.want_content(self)
  local part = self.flights[self.flights.last]
  local letter = part.letter
  local fed = letter:feed(self.operation)
  if fed then return end
  part.void = letter.failure ~= nil or letter.raised ~= nil
  if fed == nil and not self.operation:content_abandon() then self.session.core:cancel() end
end

function handlers.recipient(self, index, reply, phase)
  local part = self.flights[self.flights.first]
  local letter = part.letter
  letter:note(part.indices and part.indices[index] or index, reply, phase)
  if phase == "delivery" then
    letter.delivered = true
    if reply.class == "positive" then letter:take(reply) end
  end
end

function handlers.refused(self, reply, phase)
  local part = self.flights[self.flights.first]
  if not part.refusal then part.refusal, part.phase = reply, phase end
end

function handlers.reply(self, reply)
  finish_part(self, take(self.flights), reply)
end

-- The end of the session ----------------------------------------------------------------------

--- Whether the server has refused every recipient of a transaction.
local function is_hopeless(part)
  local fates = part.letter.fates or {}
  for _, index in ipairs(part.indices or all_indices(#part.letter.to)) do
    local fate = fates[index]
    if fate == nil or fate == true then return false end
  end
  return true
end

--- The same error for a message of which more is known.
local function not_sent(err)
  local copy = {}
  for name, value in pairs(err) do copy[name] = value end
  if err.delivery then
    copy.delivery, copy.message = nil, "the session ended before the message was sent"
  end
  return errors.new(copy)
end

--- The session is lost: decides the fate of all that is under way. The oldest ones may have
-- been delivered, as many as the core has sent to their end without an answer.
local function lose(self, err)
  local unknown = err.delivery == "unknown" and self.session.core:unanswered() or 0
  for part in take, self.flights do
    if part.refusal or part.void or is_hopeless(part) then
      finish_part(self, part)
    elseif unknown > 0 then
      unknown = unknown - 1
      local copy = not_sent(err)
      copy.delivery, copy.message = err.delivery, err.message
      end_part(part, copy)
    else
      end_part(part, not_sent(err))
    end
  end
  for part in take, self.waiting do end_part(part, not_sent(err)) end
end

--- Whether a letter goes out in one transaction, as far as can be known.
function Outbox.fits(session, letter)
  local most = allowance(session)
  return #letter.to <= math.min(most.rcptmax or 100, 100) and not most.rcptdomainmax
end

-- For the session -----------------------------------------------------------------------------

--- Begins to send.
-- @param session  the session
-- @param window   how many transactions may be under way at a time
-- @param give     function that returns the next letter, or nil; what it raises is raised
--                 again when those before it are reported
-- @param farewell true: the first letter, which must fit into one transaction (Outbox.fits), is
--                 the session's last, and the goodbye rides along
-- @return an outbox, which is to be closed (its field `operation`); or nil and an error
function Outbox.open(session, window, give, farewell)
  local operation, err = session.core:sending(window)
  if not operation then return nil, err end
  if farewell then operation:farewell() end
  return setmetatable({
    session = session, farewell = farewell or false,
    operation = operation, give = give, letters = queue(),
    waiting = queue(), flights = queue(), allowance = allowance(session),
  }, Outbox)
end

--- The next letter about which all is known, in the order in which they were given.
-- @return the letter, or nil at the end
function Outbox:next()
  while true do
    local letter = self.letters[self.letters.first]
    if letter and letter.done then return take(self.letters) end
    if self.over then return nil end
    local event, a, b, c = self.operation:next()
    local handler = handlers[event]
    if handler then handler(self, a, b, c)
    elseif event then self.over = event == "done"
    else
      lose(self, a)
      self.over = true
    end
  end
end

return Outbox
