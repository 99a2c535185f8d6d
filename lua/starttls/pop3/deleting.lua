--- Deleting messages (RFC 1939 5 and 6): marked by DELE, gone when QUIT succeeds.
-- May rely on starttls.pop3.class.
local Pop3 = require "starttls.pop3.class"

--- Marks a message to be deleted when quit() succeeds, and waits for the answer.
-- @param n  message number
-- @return the reply; or nil and an error
function Pop3:dele(n)
  return self:perform(self:mark_request(n))
end

--- Takes all deletion marks back (RSET).
-- @return the reply; or nil and an error
function Pop3:reset()
  local reply, err = self:perform { "atom", "RSET", during = "rset" }
  if not reply then return nil, err end
  self.marked = nil
  return reply
end

--- Says goodbye, waits until the server has deleted what was marked (RFC 1939 6), and closes.
-- @return { deleted = how many messages, refused = array of { n, status, text }: what the server
--         did not let mark }; or nil and an error: then what was marked may not be deleted
function Pop3:quit()
  local done, err = self:say_goodbye "QUIT"
  if not done then return nil, err end
  local marks = self:marks()
  return { deleted = marks.count, refused = marks.refused }
end

return Pop3
