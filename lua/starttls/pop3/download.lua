--- Each message of a mailbox once, into a directory, and off the server when it is safe on disk.
-- May rely on starttls.content, starttls.error and starttls.pop3.class, .ledger, .messages.
local content = require "starttls.content"
local errors = require "starttls.error"
local Ledger = require "starttls.pop3.ledger"

local day = 24 * 60 * 60
local header_most = 256 * 1024 -- octets that the header of a message is looked for in

local function misuse(format, ...)
  error("download: " .. format:format(...), 0)
end

local function check_settings(settings)
  local types = { directory = "string", delete = "boolean number", name = "function",
    account = "string" }
  if type(settings) ~= "table" then misuse "the settings must be a table" end
  for name, value in pairs(settings) do
    if not types[name] then misuse("unknown setting '%s'", tostring(name)) end
    if not types[name]:find(type(value), 1, true) then
      misuse("'%s' must be a %s, not a %s", name, types[name]:gsub(" ", " or "), type(value))
    end
  end
  if not settings.directory then misuse "the setting 'directory' is missing" end
  if settings.directory == "" or settings.directory:find "%z" then
    misuse "'directory' is empty or has a NUL"
  end
  local delete = settings.delete
  if type(delete) == "number" and (delete < 0 or delete ~= delete) then
    misuse "'delete' must not be negative"
  end
end

-- {====== Names ======

--- The identifier is the server's word, and may have "/" or "..": it is no file name as it is.
local function default_name(message)
  return message.uid:gsub("[^%w_-]", function(c) return ("%%%02X"):format(c:byte()) end) .. ".eml"
end

local function read_header(path)
  local file <close> = assert(io.open(path, "rb"))
  local text = file:read(header_most) or ""
  local _, last = text:find("\r\n\r\n", 1, true)
  return text:sub(1, last)
end

--- What settings.name is called with: the header is read from disk when it is looked at.
local function described(message, path)
  local fields = { n = message.n, size = message.size, uid = message.uid }
  return setmetatable(fields, { __index = function(_, field)
    return field == "headers" and read_header(path) or nil
  end })
end

--- The name that the message shall have.
-- @return a name that is free; or nil and an error when it can't be a file's
local function name_for(self, message, path)
  local name = (self.settings.name or default_name)(described(message, path))
  if type(name) ~= "string" then misuse("'name' must return a string, not a %s", type(name)) end
  if name == "" or name:find "[/%z]" or name:find "^%." then
    return nil, content.failure("naming the file", "download",
      ("%q is empty, has a slash or NUL, or begins with a dot"):format(name))
  end
  return self.ledger:free_name(name)
end

-- }======

--- What was wrong with one message alone, so that the others go on.
local function note_failure(self, message, err)
  local failed = self.result.failed
  failed[#failed + 1] = { n = message.n, uid = message.uid, err = err }
  return true
end

local function mark(self, message)
  local marked, err = message:delete()
  if marked then self.result.marked = self.result.marked + 1 end
  if not marked and err.kind == "rejected" then return note_failure(self, message, err) end
  return marked, err
end

--- Whether a message that was downloaded at this time may go from the server.
local function is_due(self, time)
  local delete = self.settings.delete
  if type(delete) == "number" then return os.time() - time >= delete * day end
  return delete
end

--- Where RETR may delete, a message that was fetched and is not on disk must not see QUIT.
local function give_up(self, err)
  if self.session:retr_may_delete() then self.session:close() end
  return nil, err
end

--- @return the path of the partial file that has the message; or nil and an error
local function write(self, message)
  local file, path = self.ledger:open_partial()
  if not file then return nil, path end
  local done, err = message:retr(file)
  if not done then
    file:close()
    return nil, err
  end
  done, err = self.ledger:close_partial(file)
  if not done then return nil, err end
  return path
end

--- Downloads one message, and marks it when it is on disk.
-- @return true, or nil and an error that ends the download
local function save(self, message)
  local path, err = write(self, message)
  if not path and err.kind == "rejected" then return note_failure(self, message, err) end
  if not path then return give_up(self, err) end
  local name, why = name_for(self, message, path)
  if not name then
    if self.session:retr_may_delete() then return give_up(self, why) end
    return note_failure(self, message, why)
  end
  name, err = self.ledger:commit(message.uid, message.size, name)
  if not name then return give_up(self, err) end
  local saved = self.result.saved
  saved[#saved + 1] = { n = message.n, uid = message.uid, size = message.size,
    path = self.settings.directory .. "/" .. name }
  if is_due(self, os.time()) then return mark(self, message) end
  return true
end

--- Looks at what there is: marks what is known and due, and keeps what is new for later, but one
-- of several copies only.
-- @return the new messages' numbers; or nil and an error
local function sort_out(self, walk)
  local new, seen = {}, {}
  for _, n in ipairs(walk.numbers) do
    local message = walk:message(n)
    local time = message.uid and self.ledger:time_of(message.uid, message.size)
    if not message.uid then
      note_failure(self, message, errors.new { kind = "protocol", during = "uidl",
        message = ("the server has no identifier for message %d"):format(n) })
    elseif time then
      self.result.known = self.result.known + 1
      local marked, err = true, nil
      if is_due(self, time) then marked, err = mark(self, message) end
      if not marked then return nil, err end
    elseif not seen[message.size .. " " .. message.uid] then
      seen[message.size .. " " .. message.uid] = true
      new[#new + 1] = n
    end
  end
  return new
end

local function run(self)
  local walk = self.session:walk {}
  if not next(walk:identifiers()) and walk.numbers[1] then
    return nil, errors.new { kind = "unsupported", during = "download",
      message = "the server does not offer UIDL, which tells what has been downloaded" }
  end
  local new, err = sort_out(self, walk)
  if not new then return nil, err end
  walk.numbers = new
  for index, n in ipairs(new) do
    local done
    done, err = save(self, walk:message(n, index))
    if not done then return nil, err end
  end
  return self.result
end

--- Downloads each message once into a directory, as a file that appears when it is whole and on
-- disk. What has been downloaded is remembered there, in `.pop3-download`, so that files may be
-- moved away; killed at any point, the next call goes on without loss and without a second copy.
-- Deletions take effect when the session's quit() succeeds, as always.
-- @param session   from pop3.connect
-- @param settings  table:
--          directory  which has to be there; one for each account
--          delete     true: a message is marked when it is on disk; a number: when it has been
--                     there for that many days; default false
--          name       function(msg) -> the file's name; msg has n, size, uid and headers. Default:
--                     the identifier and ".eml". A name that a file has gets "-2", "-3", ...
--          account    whose messages these are; default USER@HOST. A directory of another account
--                     is refused, as identifiers mean nothing there.
-- @return { saved = array of { n, uid, size, path }, known = how many were downloaded before,
--         marked = how many go at quit(), failed = array of { n, uid, err }: messages that the
--         server did not give or that can't have their name }; or nil and an error, whose `result`
--         is that table so far: the session is lost, the disk is full, or (kind "busy") another
--         process downloads into this directory. Raises on misuse.
local function download(session, settings)
  check_settings(settings)
  local account = settings.account or ("%s@%s"):format(session.user or "", session.host)
  local ledger <close>, err = Ledger.open(settings.directory, account)
  if not ledger then return nil, err end
  local self = { session = session, settings = settings, ledger = ledger,
    result = { saved = {}, known = 0, marked = 0, failed = {} } }
  local ok, result, why = pcall(run, self)
  if not ok and not errors.is(result) then error(result, 0) end
  if ok and result then return result end
  why = ok and why or result
  why.result = self.result
  return nil, why
end

return download
