--- What has been downloaded into a directory, so that nothing is lost and nothing comes twice.
-- May rely on starttls.core and starttls.content.
--
-- One file, `.pop3-download`, only ever appended to and locked while it is open. A message goes
-- through four steps, each of which is on disk before the next one begins:
--
--   1. it is written into a partial file,
--   2. a line here says that it is whole, and which name it shall have,
--   3. the partial file is renamed to that name,
--   4. it may be deleted from the server.
--
-- Killed before 2, the message is new to the next run, which writes over the partial file. Killed
-- behind it, the next run finds the last line's partial file, if step 3 was not done, and does it.
-- A line that was cut short does not end in " ok", and says nothing.
--
-- The first line names the account, since identifiers mean nothing in another one:
--
--   account alice@mail.example.com ok
--   PARTIAL SECONDS SIZE IDENTIFIER NAME ok
local core = require "starttls.core"
local content = require "starttls.content"

local files = core.files
local ledger_name = ".pop3-download"

local Ledger = {}
Ledger.__index = Ledger

local function failure(what, reason)
  return content.failure(what, "download", reason)
end

local function escape(text)
  return (text:gsub("[^!-$&-~]", function(c) return ("%%%02X"):format(c:byte()) end))
end

local function unescape(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

--- Two messages of one identifier and of different sizes are two: RFC 1939 7 lets copies alone
-- share one, and a server that uses one again must not make us lose what it then names.
local function key(uid, size)
  return size .. " " .. uid
end

function Ledger:path(name)
  return self.directory .. "/" .. name
end

function Ledger:partial_path(partial)
  return self:path(("%s.%d.part"):format(ledger_name, partial))
end

-- {====== Reading ======

local function read_line(self, line)
  local partial, time, size, uid, name = line:match "^(%d+) (%d+) (%d+) (%S+) (%S+) ok$"
  if partial then
    partial = math.tointeger(tonumber(partial))
    self.partial = math.max(self.partial, partial)
    self.last = { partial = partial, name = unescape(name) }
    self.times[key(unescape(uid), size)] = math.tointeger(tonumber(time))
  else
    self.account = self.account or line:match "^account (%S+) ok$"
  end
end

local function append(self, line)
  local written, reason = self.file:write(line)
  if written then written, reason = files.sync(self.file) end
  if not written then return nil, failure("writing down what is downloaded", reason) end
  return true
end

--- Ends a line that was cut short, and begins with the account.
local function begin(self, text, account)
  for line in text:gmatch "[^\n]*" do read_line(self, line) end
  local cut = text ~= "" and text:sub(-1) ~= "\n"
  if cut then
    local ended, err = append(self, "\n")
    if not ended then return nil, err end
  end
  if not self.account and not self.last then
    self.account = escape(account)
    return append(self, ("account %s ok\n"):format(self.account))
  end
  if self.account == escape(account) then return true end
  return nil, failure("the download", ("%s has the messages of %s, and not of %s"):format(
    self.directory, unescape(self.account or "another account"), account))
end

-- }======

-- {====== Saving ======

--- Gives the last partial file its name, where that is still to be done. A name that somebody else
-- has taken in the meantime becomes another.
-- @return the name, or nil and an error
local function publish(self)
  local partial = self:partial_path(self.last.partial)
  local name = self.last.name
  local done, reason, number = files.rename(partial, self:path(name))
  while number == 17 do -- EEXIST
    name, reason = self:free_name(name)
    if not name then return nil, reason end
    done, reason, number = files.rename(partial, self:path(name))
  end
  if done then done, reason = files.sync_directory(self.directory) end
  if done then return name end
  return nil, failure("renaming the file", reason)
end

--- Completes what a run that was killed has left.
local function complete(self)
  local file = self.last and io.open(self:partial_path(self.last.partial))
  if not file then return true end
  file:close()
  return publish(self)
end

--- A name that no file has: "a.eml", "a-2.eml", ...
-- @return the name; or nil and an error where no file can have it
function Ledger:free_name(wanted)
  local stem, extension = wanted:match "^(.+)(%.[^.]*)$"
  local name, count = wanted, 1
  while true do
    local file, reason, number = io.open(self:path(name))
    if not file and number == 2 then return name end -- ENOENT
    if not file then return nil, failure("naming the file", reason) end
    file:close()
    count = count + 1
    name = ("%s-%d%s"):format(stem or wanted, count, extension or "")
  end
end

--- Opens a partial file to write a message into.
-- @return the file and its path; or nil and an error
function Ledger:open_partial()
  local path = self:partial_path(self.partial + 1)
  local file, reason = io.open(path, "wb")
  if not file then return nil, failure("opening the file", reason) end
  return file, path
end

--- Closes it when all is written.
-- @return true, or nil and an error
function Ledger:close_partial(file)
  local done, reason = files.sync(file)
  local closed, why = file:close()
  if done and closed then done, reason = files.sync_directory(self.directory) end
  if done and closed then return true end
  return nil, failure("writing the file", reason or why)
end

--- Says that the partial file is a whole message, and gives it its name.
-- @return the name that it got, or nil and an error
function Ledger:commit(uid, size, name)
  local partial, now = self.partial + 1, os.time()
  self.unsure = true -- a line that could not be written may still be when the file is closed
  local written, err = append(self, ("%d %d %d %s %s ok\n"):format(partial, now, size,
    escape(uid), escape(name)))
  if not written then return nil, err end
  self.unsure = false
  self.partial, self.last = partial, { partial = partial, name = name }
  self.times[key(uid, size)] = now
  return publish(self)
end

-- }======

--- When a message was downloaded.
-- @return seconds since the epoch, or nil when it was not
function Ledger:time_of(uid, size)
  return self.times[key(uid, size)]
end

--- Ends the use of the directory.
function Ledger:close()
  if not self.unsure then os.remove(self:partial_path(self.partial + 1)) end
  self.file:close()
end

Ledger.__close = Ledger.close

--- Opens a directory's list, and completes what a run that was killed has left.
-- @param directory  which has to be there
-- @param account    whose messages these are
-- @return the list; or nil and an error, of kind "busy" when another process uses it
function Ledger.open(directory, account)
  local self = setmetatable({ directory = directory, times = {}, partial = 0 }, Ledger)
  local file, reason = io.open(self:path(ledger_name), "a+b")
  if not file then return nil, failure("opening the directory", reason) end
  self.file = file
  local locked, why = files.lock(file)
  if not locked then
    file:close()
    local err = failure("locking the directory", why or "another download into it is at work")
    if locked == false then err.kind = "busy" end
    return nil, err
  end
  local begun, err = begin(self, file:read "a", account)
  if begun then begun, err = files.sync_directory(directory) end
  if begun then begun, err = complete(self) end
  if begun then return self end
  file:close()
  return nil, failure("opening the directory", err)
end

return Ledger
