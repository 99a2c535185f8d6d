--- Keeps a mirror of an IMAP account: a Maildir for each mailbox.
--
--   lua5.4 examples/mirror.lua DIRECTORY [MAILBOX ...]
--
-- Without mailboxes: all of the account. Only what has changed since the last time is fetched;
-- what has gone from the server goes from the mirror. It may be killed at any moment and started
-- again: a message has its name in cur/ only when it is complete, and what is known of a mailbox
-- is written down only when all of it is on disk. Run one at a time.
--
-- The account is in the environment: MAIL_HOST, MAIL_USER, MAIL_PASSWORD, and where needed
-- MAIL_PORT and MAIL_CA_FILE. Needs LuaFileSystem.
local imap = require "starttls.imap"
local ranges = require "starttls.imap.ranges"
local lfs = require "lfs"

local directory = arg[1]
if not directory then error("usage: mirror.lua DIRECTORY [MAILBOX ...]", 0) end

local batch_size = 100 -- messages that one command asks for

-- Progress, for people --------------------------------------------------

local on_terminal = os.execute "test -t 2"

local function show_progress(mailbox, done, total)
  if not on_terminal then return end
  local width = 40
  local filled = total > 0 and done * width // total or width
  io.stderr:write(("\r\27[K[%s%s] %d/%d %s"):format(
    ("#"):rep(filled), ("."):rep(width - filled), done, total, mailbox))
end

local function end_progress()
  if on_terminal then io.stderr:write "\r\27[K" end
end

-- What is on disk -------------------------------------------------------

local Maildir = {}
Maildir.__index = Maildir

-- A mailbox's name may have "/" or be "..": it is no file name as it is.
local function directory_of(mailbox)
  local name = mailbox:gsub("[/%%%c]", function(c) return ("%%%02X"):format(c:byte()) end)
    :gsub("^%.", "%%2E")
  return directory .. "/" .. name
end

local function make_directory(path)
  if lfs.attributes(path, "mode") ~= "directory" then assert(lfs.mkdir(path)) end
end

local function open_maildir(mailbox)
  local self = setmetatable({ path = directory_of(mailbox), files = {}, stale = {} }, Maildir)
  make_directory(self.path)
  for _, name in ipairs { "cur", "new", "tmp" } do make_directory(self.path .. "/" .. name) end
  return self
end

-- What is known of the mailbox since the last complete run; nil at the first one.
function Maildir:read_state()
  local chunk = loadfile(self.path .. "/.mirror", "t", {})
  return chunk and chunk() or nil
end

local function literal(value)
  if type(value) ~= "table" then return ("%q"):format(value) end
  local fields = {}
  for name, field in pairs(value) do
    fields[#fields + 1] = ("[%q] = %s"):format(name, literal(field))
  end
  return "{ " .. table.concat(fields, ", ") .. " }"
end

function Maildir:write_state(state)
  local path = self.path .. "/.mirror"
  local file = assert(io.open(path .. ".new", "w"))
  assert(file:write("return ", literal(state), "\n"))
  assert(file:close())
  assert(os.rename(path .. ".new", path))
end

-- Finds out which messages there are. Names are UIDVALIDITY.UID:2,FLAGS.
function Maildir:index(uidvalidity)
  self.uidvalidity, self.files, self.stale = uidvalidity, {}, {}
  for name in lfs.dir(self.path .. "/cur") do
    local validity, uid = name:match "^(%d+)%.(%d+):2,%u*$"
    if validity and math.tointeger(tonumber(validity)) == uidvalidity then
      self.files[math.tointeger(tonumber(uid))] = name
    elseif validity then
      self.stale[#self.stale + 1] = name
    end
  end
end

-- The letters stand in the order of ASCII, as Maildir has it.
local letters = { { "\\Draft", "D" }, { "\\Flagged", "F" }, { "\\Answered", "R" },
  { "\\Seen", "S" }, { "\\Deleted", "T" } }

function Maildir:name_of(uid, flags)
  local text = {}
  for _, pair in ipairs(letters) do
    if flags[pair[1]] then text[#text + 1] = pair[2] end
  end
  return ("%d.%d:2,%s"):format(self.uidvalidity, uid, table.concat(text))
end

-- Gives a message that is there the name that its flags make.
function Maildir:rename(uid, flags)
  local name = self:name_of(uid, flags)
  if not self.files[uid] or self.files[uid] == name then return end
  assert(os.rename(self.path .. "/cur/" .. self.files[uid], self.path .. "/cur/" .. name))
  self.files[uid] = name
end

function Maildir:remove(uid)
  if self.files[uid] then assert(os.remove(self.path .. "/cur/" .. self.files[uid])) end
  self.files[uid] = nil
end

-- Removes what is not on the server: what a run that was killed had fetched, and has gone since;
-- and what has another UIDVALIDITY, which makes it another message, whatever its UID.
function Maildir:remove_others(uids)
  for _, name in ipairs(self.stale) do assert(os.remove(self.path .. "/cur/" .. name)) end
  for uid in pairs(self.files) do
    if not uids:contains(uid) then self:remove(uid) end
  end
end

-- Where the message being received goes until it is complete.
function Maildir:begin_message()
  self.arriving = assert(io.open(self.path .. "/tmp/arriving", "wb"))
  return self.arriving
end

function Maildir:end_message(uid, flags)
  assert(self.arriving:close())
  local name = self:name_of(uid, flags)
  assert(os.rename(self.path .. "/tmp/arriving", self.path .. "/cur/" .. name))
  self.files[uid] = name
end

-- One mailbox -----------------------------------------------------------

-- Applies what has changed, but for what is gone, which goes last; returns the UIDs of the
-- messages to fetch.
local function apply(maildir, changes)
  local missing = {}
  for change in changes do
    if change.type == "new" and not maildir.files[change.uid] then
      missing[#missing + 1] = change.uid
    elseif change.uid then
      maildir:rename(change.uid, change.flags)
    end
  end
  return missing
end

-- Fetches messages in batches, of which several are asked for at a time.
local function fetch(session, maildir, mailbox, uids)
  local done, promises = 0, {}
  local settings = {
    sink = function() return maildir:begin_message() end,
    each = function(msg)
      maildir:end_message(msg.uid, msg.flags)
      done = done + 1
      show_progress(mailbox, done, #uids)
    end,
  }
  show_progress(mailbox, 0, #uids)
  assert(session:pipeline(function(p)
    for first = 1, #uids, batch_size do
      local batch = table.move(uids, first, math.min(first + batch_size - 1, #uids), 1, {})
      promises[#promises + 1] = p:fetch(batch, { "flags", "body" }, settings)
    end
  end, { window = 4 }))
  for _, promise in ipairs(promises) do assert(promise:get()) end
  end_progress()
end

local function mirror(session, mailbox)
  local maildir = open_maildir(mailbox)
  local before = maildir:read_state()
  local changes, state = imap.sync(session, mailbox, before, { read_only = true })
  if not changes then error(state, 0) end
  maildir:index(state.uidvalidity)
  local missing = apply(maildir, changes)
  fetch(session, maildir, mailbox, missing)
  maildir:remove_others(ranges.parse(state.uids))
  maildir:write_state(state)
  print(("%s: %d new"):format(mailbox, #missing))
end

-- All of them -----------------------------------------------------------

-- The mailboxes that can be opened.
local function all_mailboxes(session)
  local names = {}
  for _, entry in ipairs(assert(session:list())) do
    if not entry.flags["\\Noselect"] and not entry.flags["\\NonExistent"] then
      names[#names + 1] = entry.name
    end
  end
  return names
end

local session <close> = assert(imap.connect {
  host = os.getenv "MAIL_HOST", port = tonumber(os.getenv "MAIL_PORT"),
  user = os.getenv "MAIL_USER", password = os.getenv "MAIL_PASSWORD",
  ca_file = os.getenv "MAIL_CA_FILE",
})
make_directory(directory)
local mailboxes = #arg > 1 and table.move(arg, 2, #arg, 1, {}) or all_mailboxes(session)
for _, mailbox in ipairs(mailboxes) do mirror(session, mailbox) end
assert(session:logout())
