--- Finding messages (RFC 9051 6.4.4).
-- May rely on starttls.imap.class and starttls.arguments.
local Imap = require "starttls.imap.class"
local arguments = require "starttls.arguments"

--- Finds messages.
-- @param criteria  search keys as in RFC 9051 6.4.4: 'UNSEEN FROM "bob"'
-- @param settings  seq = true: sequence numbers instead of UIDs
-- @return an array of numbers; or nil and an error
Imap.define("search", function(_, criteria, settings)
  local by_seq = settings and settings.seq
  local args = by_seq and arguments.of "SEARCH" or arguments.of("UID", "SEARCH")
  return {
    during = "search", wanted = "SEARCH", kind = "search", by_seq = by_seq,
    args = args:add("raw", criteria),
    finish = function(_, values)
      local found = values[1] or {}
      for index = 2, #values do table.move(values[index], 1, #values[index], #found + 1, found) end
      return found
    end,
  }
end)
