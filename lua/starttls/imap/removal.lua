--- Removing messages that were put elsewhere, where no one command does both.
-- May rely on starttls.imap.sets and starttls.imap.chain.
local sets = require "starttls.imap.sets"
local chain = require "starttls.imap.chain"

local function expunge_request(during, text, result)
  return {
    during = during, wanted = "EXPUNGE", args = sets.command("EXPUNGE", text),
    take = function() return false end, -- what goes is told like what others remove
    finish = function() return result end,
  }
end

--- UID STORE +FLAGS.SILENT (\Deleted) and UID EXPUNGE (RFC 4315 2.1), which the caller has made
-- sure that the server has. When one of them fails, the error says what was done before.
-- @param during  the call, for errors
-- @param text    the UIDs
-- @param words   what was done before, for a person
-- @param result  the same, for a program: the error's field `copied`, and what the request gives
-- @return a request
return function(during, text, words, result)
  local args = sets.command("STORE", text):add("atom", "+FLAGS.SILENT")
  return chain.telling({
    during = during, args = args:add_list("flag", { "\\Deleted" }),
    follow = function() return expunge_request(during, text, result) end,
  }, function(fields)
    fields.message = ("%s; before that, %s"):format(fields.message, words)
    fields.copied = result
  end)
end
