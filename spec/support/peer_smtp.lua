-- An SMTP or LMTP server for the scripted peer's scripts, which is as strict as servers may be,
-- and whose opinion of a message depends on what it says, so that a spec needs no script for
-- each of many messages:
--
--   p:smtp_upgrade { secure = false, auth = false, after = { "PIPELINING", "CHUNKING" } }
--   local seen = p:smtp_serve {}
--
-- Senders: bad@ is refused. Recipients: no...@ are refused, later...@ deferred. Content with
-- REJECT is refused at its end, with DEFER deferred; with HALFWAY in a chunk that is not the
-- last one, that chunk is refused. In LMTP full...@ is told so at the end of the content.
-- MAIL inside a transaction is refused, and so is content for nobody, which leaves the
-- transaction open; so does a refused BDAT. RSET ends it.
--
-- Answers go out when nothing that was sent waits to be read.
--
-- `smtp_serve` goes on until QUIT, or until the client leaves, and returns the messages it took,
-- each with `from`, `to` (addresses), `content`, `chunks` (sizes; none behind DATA), and in
-- `verbs` the commands it has heard. Options: `lmtp = true`; `most`: so many recipients in a
-- transaction, the others get `full` ("452 4.5.3 too many recipients").

local smtp = {}

--- Expects BDAT and takes the chunk. Returns the content, and whether it was the last one.
function smtp.smtp_chunk(p)
  local line = p:expect "^BDAT %d+"
  local size, last = line:match "^BDAT (%d+)( ?%u*)\r\n$"
  if not size or (last ~= "" and last ~= " LAST") then p:fail("not a BDAT command: %q", line) end
  return p:read(math.tointeger(tonumber(size))), last ~= ""
end

local Server = {}
Server.__index = Server

function Server:answer(text)
  self.out[#self.out + 1] = text .. "\r\n"
end

function Server:flush()
  if #self.out > 0 then self.p:send(table.concat(self.out)) end
  self.out = {}
end

function Server:forget()
  self.mail, self.broken = nil, nil
end

local function address_of(line)
  return line:match "<(.-)>"
end

function Server:MAIL(line)
  if self.mail then return self:answer "503 5.5.1 nested MAIL" end
  if line:find "<bad@" then return self:answer "550 5.7.1 not from you" end
  self.mail = { from = address_of(line), line = line, to = {}, pieces = {}, chunks = {} }
  self:answer "250 2.1.0 OK"
end

function Server:RCPT(line)
  local address = address_of(line)
  if not self.mail then return self:answer "503 5.5.1 need MAIL" end
  if self.most and #self.mail.to == self.most then return self:answer(self.full) end
  if address:find "^no" then return self:answer "550 5.1.1 no such user" end
  if address:find "^later" then return self:answer "451 4.2.1 busy" end
  table.insert(self.mail.to, address)
  self:answer "250 2.1.5 OK"
end

local function verdict(content)
  if content:find "REJECT" then return "554 5.6.0 I don't like it" end
  if content:find "DEFER" then return "451 4.3.0 later" end
end

-- The answer, or in LMTP the answers, to the end of the content.
function Server:judge()
  local mail = self.mail
  mail.content = table.concat(mail.pieces)
  local refusal = verdict(mail.content)
  if not refusal then table.insert(self.taken, mail) end
  local number = #self.taken
  if not self.lmtp then
    return self:answer(refusal or ("250 2.0.0 queued as %d"):format(number)), refusal
  end
  for _, address in ipairs(mail.to) do
    self:answer(refusal or address:find "^full" and "452 4.2.2 mailbox full"
      or ("250 2.0.0 <%s> saved as %d"):format(address, number))
  end
end

function Server:DATA()
  if not self.mail or #self.mail.to == 0 then return self:answer "503 5.5.1 no recipients" end
  self:answer "354 go on"
  self:flush()
  local whole, content = pcall(self.p.read_to_dot, self.p)
  if not whole then
    self.over = true -- the client left: this message is none
    return
  end
  self.mail.pieces = { ("\r\n" .. content):gsub("\r\n%.", "\r\n"):sub(3) }
  self:judge()
  self:forget()
end

function Server:BDAT(line)
  local size, last = line:match "^BDAT (%d+)( ?%u*)"
  local piece = self.p:read(math.tointeger(tonumber(size)))
  local mail = self.mail
  if not mail or self.broken or #mail.to == 0 then
    return self:answer "503 5.5.1 no transaction for that"
  end
  table.insert(mail.pieces, piece)
  table.insert(mail.chunks, #piece)
  if last == "" then
    self.broken = piece:find "HALFWAY" ~= nil
    return self:answer(self.broken and "552 5.3.4 too big" or "250 2.0.0 so far")
  end
  local _, refusal = self:judge()
  if refusal then self.broken = true
  else self:forget() end
end

function Server:RSET()
  self:forget()
  self:answer "250 2.0.0 reset"
end

function Server:NOOP()
  self:answer "250 2.0.0 OK"
end

function Server:QUIT()
  self:answer "221 2.0.0 bye"
  self:flush()
  self.over = true
end

function smtp.smtp_serve(p, options)
  local server = setmetatable({ p = p, out = {}, taken = {}, lmtp = options.lmtp,
    most = options.most, full = options.full or "452 4.5.3 too many recipients" }, Server)
  server.taken.verbs = {}
  while not server.over do
    if not p.buffer:find("\n", 1, true) then server:flush() end
    local ok, line = pcall(p.line, p)
    if not ok then break end
    local verb = line:match "^%u+"
    table.insert(server.taken.verbs, verb)
    if Server[verb] then Server[verb](server, line)
    else server:answer "500 5.5.1 what?" end
  end
  for _, mail in ipairs(server.taken) do mail.pieces = nil end
  return server.taken
end

return smtp
