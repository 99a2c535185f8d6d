--- Adding messages to a mailbox (RFC 9051 6.3.12).
-- May rely on starttls.imap.class, starttls.session, starttls.arguments, starttls.content and
-- starttls.error.
local Imap = require "starttls.imap.class"
local session = require "starttls.session"
local arguments = require "starttls.arguments"
local content = require "starttls.content"
local errors = require "starttls.error"

local function append_date(date)
  if type(date) == "number" then return os.date("!%d-%b-%Y %H:%M:%S +0000", date) end
  return date
end

--- Adds a message to a mailbox (RFC 9051 6.3.12). Line ends become CRLF.
-- @param mailbox   its name
-- @param message   string, open file, LTN12 source, or a message of starttls.message
-- @param settings  flags = { "\\Seen" }; date = seconds since the epoch, or a date-time of RFC 9051
-- @return a table with uid and uidvalidity where the server tells (UIDPLUS); or nil and an error
Imap.define("append", function(_, mailbox, message, settings)
  settings = settings or {}
  local source, size = content.measured(message, "append: 'message'")
  if not source then return nil, content.failure("the message's source", "append", size) end
  if type(message) == "string" and message:find("\0", 1, true) then
    return nil, errors.new { kind = "unsupported", during = "append",
      message = "the message has a NUL octet, which IMAP can't carry here" }
  end
  local args = arguments.of("APPEND"):add("mailbox", mailbox)
  if settings.flags then args:add_list("flag", settings.flags) end
  if settings.date then args:add("string", append_date(settings.date)) end
  return {
    during = "append", alone = true, args = args:add("content", ("%d"):format(size)),
    handlers = { want_content = session.feeder(source, "append") },
    finish = function(reply)
      if reply.status ~= "APPENDUID" then return {} end
      return { uidvalidity = reply.arguments[1], uid = reply.arguments[2] }
    end,
  }
end)
