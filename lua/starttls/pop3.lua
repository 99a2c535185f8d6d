--- POP3: fetch and delete (RFC 1939).
-- May rely on starttls.session, starttls.content and starttls.error.
--
-- Deletions take effect when quit() succeeds, and only then: a session that is
-- closed or lost before leaves the mailbox as it was.
local session = require "starttls.session"
local content = require "starttls.content"
local errors = require "starttls.error"

local pop3 = {}
local Pop3 = session.class "pop3"

--- Opens a session: encrypted, verified and, when credentials are given, authenticated.
-- @param given  options as in README.md
-- @return a session, or nil and an error
function pop3.connect(given)
  return session.connect(Pop3, given, { eager = "table" })
end

local function check_number(n, what)
  if math.type(n) == "integer" and n > 0 then return ("%d"):format(n) end
  error(what .. ": the message number must be a positive integer", 0)
end

local function malformed(during, text)
  return nil, errors.new { kind = "protocol", during = during, text = text,
    message = "the server's answer is not what RFC 1939 says" }
end

--- What digits say; nil for anything else, and for more than an integer holds.
local function to_integer(text)
  return text and text:find "^%d+$" and math.tointeger(tonumber(text)) or nil
end

--- How much there is.
-- @return the number of messages and of octets; or nil and an error
function Pop3:stat()
  local reply, err = self:ask("stat", {}, "atom", "STAT")
  if not reply then return nil, err end
  local count, octets = reply.text:match "^(%d+) +(%d+)"
  count, octets = to_integer(count), to_integer(octets)
  if not (count and octets) then return malformed("stat", reply.text) end
  return count, octets
end

--- Runs a command that answers with a line for one message, or a list for all.
-- @param convert  function(text) -> value
-- @return one value, or an array indexed by message number
local function ask_list(self, during, n, convert)
  local verb = during:upper()
  if n then
    local reply, err = self:ask(during, {}, "atom", verb, "number", check_number(n, during))
    if not reply then return nil, err end
    local text = reply.text:match "^%d+ +(%S+)"
    local value = text and convert(text)
    if not value then return malformed(during, reply.text) end
    return value
  end
  local values, bad = {}, nil
  local reply, err = session.exchange(self, during, "lines", {
    line = function(_, line)
      local digits, text = line:match "^(%d+) +(%S+)"
      local number, value = to_integer(digits), text and convert(text)
      if number and value then values[number] = value else bad = bad or line end
    end,
  }, "atom", verb)
  if reply then reply, err = self:judge(during, reply) end
  if not reply then return nil, err end
  if bad then return malformed(during, bad) end
  return values
end

--- Sizes in octets.
-- @param n  message number, or nil for all
-- @return one size, or a table message number -> size; or nil and an error
function Pop3:list(n)
  return ask_list(self, "list", n, to_integer)
end

--- Identifiers that stay the same from session to session (RFC 1939 7).
-- @param n  message number, or nil for all
-- @return one identifier, or a table message number -> identifier; or nil and an error
function Pop3:uidl(n)
  return ask_list(self, "uidl", n, function(text) return text end)
end

--- Runs a command that answers with a message.
local function ask_content(self, during, sink, ...)
  local take, result = content.sink(sink, self.string_limit, during)
  local handlers = { content = session.filler(take, during) }
  local reply, err = session.exchange(self, during, "content", handlers, ...)
  if reply then reply, err = self:judge(during, reply) end
  if not reply then
    if type(sink) == "function" then sink(nil, tostring(err)) end
    return nil, err
  end
  local ended, failure = take(nil)
  if not ended and failure then return nil, content.failure("the sink", during, failure) end
  return result() or true
end

--- Fetches a message.
-- @param n     message number
-- @param sink  an open file or an LTN12 sink, which then gets the message piece by piece;
--              none: it is returned as a string (at most limits.string octets)
-- @return the string, or true; or nil and an error
function Pop3:retr(n, sink)
  return ask_content(self, "retr", sink, "atom", "RETR", "number", check_number(n, "retr"))
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
  return ask_content(self, "top", sink, "atom", "TOP", "number", check_number(n, "top"),
    "number", ("%d"):format(count))
end

--- Marks a message to be deleted when quit() succeeds.
function Pop3:dele(n)
  return self:ask("dele", {}, "atom", "DELE", "number", check_number(n, "dele"))
end

--- Takes all deletion marks back (RSET).
function Pop3:reset()
  return self:ask("rset", {}, "atom", "RSET")
end

--- Does nothing, and keeps the session alive (NOOP).
function Pop3:noop()
  return self:ask("noop", {}, "atom", "NOOP")
end

--- Says goodbye, waits until the server has deleted what was marked, and closes.
-- @return true; or nil and an error: then what was marked may not be deleted
function Pop3:quit()
  return self:say_goodbye "QUIT"
end

--- The server's capabilities; asked for again where authentication may have changed them.
-- @return a table name -> true or value; or nil and an error
function Pop3:capabilities()
  if not self.core:is_open() then return {} end
  local list = {}
  local reply, err = session.exchange(self, "capa", "lines", {
    line = function(_, line)
      local name, value = line:match "^(%S+)%s*(.-)%s*$"
      if name then list[name:upper()] = value ~= "" and value or true end
    end,
  }, "atom", "CAPA")
  if not reply then return nil, err end
  if reply.class ~= "positive" then return {} end
  return list
end

local Message = {}
Message.__index = Message

--- Fetches the message; see Pop3:retr.
function Message:retr(sink)
  return self.session:retr(self.n, sink)
end

--- Fetches its header and first lines; see Pop3:top.
function Message:top(lines, sink)
  return self.session:top(self.n, lines, sink)
end

--- Marks it to be deleted; see Pop3:dele.
function Message:delete()
  return self.session:dele(self.n)
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

--- All messages, for a generic for: each has n, size, uid (where the server has UIDL), and
-- the methods retr, top, delete and save. Raises the error object when the lists can't be had,
-- as a loop has no other way to tell.
function Pop3:messages()
  local sizes = assert(self:list())
  local uids, err = self:uidl()
  if not uids and err.kind ~= "rejected" then error(err, 0) end
  local numbers = {}
  for n in pairs(sizes) do numbers[#numbers + 1] = n end
  table.sort(numbers)
  local index = 0
  return function()
    index = index + 1
    local n = numbers[index]
    if not n then return nil end
    return setmetatable({ session = self, n = n, size = sizes[n], uid = uids and uids[n] }, Message)
  end
end

return pop3
