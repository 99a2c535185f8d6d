--- One message on its way: its content, what became of each recipient, and what the caller
-- is told in the end. It goes out in one transaction, or in several where the server does
-- not take all its recipients in one.
-- May rely on starttls.content and starttls.error.
local content = require "starttls.content"
local errors = require "starttls.error"

local Letter = {}
Letter.__index = Letter

--- Makes a letter.
-- @param from     the sender's address
-- @param to       array of the recipients' addresses
-- @param message  string, open file, source, or an object (see starttls.content)
-- @param binary   whether the content passes as it is
-- Fields that are its maker's to fill in:
--   mail            typed arguments of MAIL: "path", the sender's address, parameters
--   recipients      array of what RCPT takes, where that is more than the addresses in `to`:
--                   an address, or { address, type, value, ... }
-- and those that it gets on its way:
--   parts           how many transactions are to come, or under way
--   fates           of each recipient: true, or an entry for `rejected`; nil: all the same yet
--   accepted        there are no fates, as everybody was accepted
--   failure         the error that ended it on our side
--   raised          { what one of the caller's functions raised }
--   refusal, phase  the reply that refused it as a whole, and to what
--   surplus         of each recipient whether there was no room for it in a transaction
--   spool           the temporary file that its content is in
--   delivered       LMTP: the server has answered the content, for each recipient
--   done            nothing more is going to happen to it
function Letter.new(from, to, message, binary)
  local position = type(message) ~= "string" and io.type(message) == "file" and message:seek()
  -- Those that are to come stand here so that the table has room for them.
  return setmetatable({
    from = from, to = to, recipients = to, message = message, binary = binary, mail = nil,
    parts = 0, fates = nil, accepted = nil, reply = nil, piece = nil, at = nil, done = nil,
    position = position or nil, envelope = nil, void = nil,
    letter = nil,
  }, Letter)
end

-- Content -------------------------------------------------------------------------------------

--- Whether the content can be sent more than once.
function Letter:is_repeatable()
  local message = self.message
  return type(message) == "string" or self.position ~= nil or content.is_object(message)
end

--- Makes the content repeatable: what can be read only once is put into a temporary file.
-- When that fails, the letter is done.
function Letter:make_repeatable()
  if self:is_repeatable() then return end
  local ok, file, err = pcall(content.spool, content.source(self.message))
  if ok and file then
    self.message, self.position, self.spool = file, file:seek(), file
    return
  end
  if not ok then self.raised = { file }
  else self.failure = content.failure("the message's source", "content", err) end
  self.done = true
end

--- Lets go of what it holds: nothing more is going to happen to it.
function Letter:finish()
  self.done = true
  if self.spool then self.spool:close() end
end

--- To the content's beginning, for a transaction.
function Letter:rewind()
  local message = self.message
  if type(message) == "string" then
    self.piece, self.at, self.source = message, 1, nil
    return
  end
  self.piece, self.source, self.file = nil, nil, nil
  if io.type(message) ~= "file" then
    self.source = content.source(message)
  else
    self.file = message
    if self.position then message:seek("set", self.position) end
  end
end

--- The next piece of content, of which the rest is from `self.at` on.
-- @return true, false at the end, or nil when there is none to be had
function Letter:read()
  if self.piece then return true end
  if not self.source then return false end
  local ok, piece, err = pcall(self.source)
  if not ok then
    self.raised = { piece }
    return nil
  end
  if not piece and err then
    self.failure = content.failure("the message's source", "content", err)
    return nil
  end
  if piece ~= nil and type(piece) ~= "string" then
    self.raised = { ("the message's source gave a %s, not a string"):format(type(piece)) }
    return nil
  end
  self.piece, self.at = piece, 1
  return piece ~= nil
end

local function note_complaint(self, complaint)
  if not complaint then return end
  self.failure = errors.new { kind = "unsupported", during = "content", message = complaint }
end

--- Feeds an operation from an open file.
local function feed_file(self, operation)
  local fed, why = operation:content_file(self.file)
  if fed then return true end
  if fed == false then
    note_complaint(self, why)
    return false
  end
  self.failure = content.failure("the message's source", "content", why)
  return nil
end

--- Feeds an operation that wants content.
-- @return true; nil when there is no more to be had of this letter; or false when the core
--         has refused a piece, and knows what to do
function Letter:feed(operation)
  if self.file then return feed_file(self, operation) end
  local more = self:read()
  if more == nil then return nil end
  if more then
    local at, complaint = operation:content(self.piece, self.at)
    if not at then
      note_complaint(self, complaint)
      return false
    end
    self.at = at
    if at <= #self.piece then return true end
    self.piece = nil
  end
  if not more or not self.source then operation:content_end() end
  return true
end

-- Fates ---------------------------------------------------------------------------------------

--- RFC 5321 4.5.3.1.10: the server has as many recipients as it takes in one transaction.
-- Where the reply has no status (RFC 3463: x.5.3 says it), 452 means that, and 552 in old servers.
local function is_too_many(reply)
  if reply.status then return reply.status:find "^%d%.5%.3$" ~= nil end
  return reply.code == 452 or reply.code == 552
end

--- Notes what the server said to one recipient.
-- @param phase  "rcpt", or "delivery" when it is about the content
function Letter:note(index, reply, phase)
  local fates = self.fates or {}
  self.fates = fates
  fates[index] = reply.class == "positive" or { address = self.to[index], code = reply.code,
    status = reply.status, text = reply.text, temporary = reply.class == "transient" }
  if phase == "rcpt" and is_too_many(reply) then
    self.surplus = self.surplus or {}
    self.surplus[index] = true
  end
end

--- Notes a reply that took the message.
function Letter:take(reply)
  if self.reply then
    local replies = self.replies or { self.reply }
    self.replies = replies
    replies[#replies + 1] = reply
  end
  self.reply = reply
end

--- Takes back the refusals of those for whom another transaction may have room.
-- @param indices  of the recipients in question
-- @return their indices, or nil when there are none
function Letter:left_over(indices)
  local surplus, left = self.surplus, {}
  if not surplus or not self:is_repeatable() then return nil end
  self.surplus = nil
  for _, index in ipairs(indices) do
    if surplus[index] then
      left[#left + 1] = index
      self.fates[index] = nil
    end
  end
  return left
end

-- The end -------------------------------------------------------------------------------------

--- An entry of `rejected` for a recipient who was refused with all others, or lost.
local function common_fate(self, address)
  local reply, err = self.refusal, self.failure
  if reply then
    return { address = address, code = reply.code, status = reply.status, text = reply.text,
      temporary = reply.class == "transient" }
  end
  return { address = address, code = err.code, status = err.status, text = err.text or err.message,
    temporary = err.temporary, delivery = err.delivery }
end

local function sort_out(self)
  local fates, accepted, rejected = self.fates or {}, {}, {}
  if self.accepted then return table.move(self.to, 1, #self.to, 1, accepted), rejected end
  for index, address in ipairs(self.to) do
    local fate = fates[index]
    if fate == true then accepted[#accepted + 1] = address
    elseif fate then rejected[#rejected + 1] = fate end
  end
  if #accepted == 0 then return accepted, rejected end
  for index, address in ipairs(self.to) do
    if not fates[index] then rejected[#rejected + 1] = common_fate(self, address) end
  end
  return accepted, rejected
end

--- The error for a letter that was refused as a whole.
local function refused_by(self)
  local reply, phase = self.refusal, self.phase
  if phase ~= "mail" then
    return errors.from_reply("rejected", phase, "the server refuses the message", reply)
  end
  return errors.from_reply("rejected", "mail",
    self.from == "" and "the server refuses a message without a sender"
      or "the server refuses the sender " .. self.from, reply)
end

--- The error for a letter that was refused for each recipient.
local function refused_each(self, rejected)
  local first = rejected[1]
  return errors.new { kind = "rejected", during = self.delivered and "delivery" or "rcpt",
    message = #rejected == 1 and ("the server refuses the recipient %s"):format(first.address)
      or ("the server refuses all %d recipients; the first, %s"):format(#rejected, first.address),
    code = first.code, status = first.status, text = first.text, temporary = first.temporary }
end

--- What the caller is told.
-- @return the result; or nil and an error. Raises what the caller's own functions raised.
function Letter:outcome()
  if self.raised then error(self.raised[1], 0) end
  local accepted, rejected = sort_out(self)
  if #accepted > 0 then
    return { accepted = accepted, rejected = rejected, reply = self.reply, replies = self.replies }
  end
  local err = self.failure or (self.refusal and refused_by(self)) or refused_each(self, rejected)
  if self.refusal or #rejected > 0 then err.rejected = rejected end
  return nil, err
end

--- A letter that never was: reporting it raises.
function Letter.raising(what)
  local letter = Letter.new("", {}, "")
  letter.raised, letter.done = { what }, true
  return letter
end

return Letter
