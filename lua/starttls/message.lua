--- Messages: composed from a table of what they say.
-- May rely on starttls.mime (the C module over GMime) and what is in starttls/message/.
if not package.loaded["starttls.mime"] and not package.searchpath("starttls.mime", package.cpath)
  and not package.preload["starttls.mime"] then
  error("starttls is built without starttls.message (MESSAGE=no)", 0)
end
local compose = require "starttls.message.compose"

local message = {}

--- Makes a message of a table of what it says; see starttls.message.compose.
message.new = compose.new

return message
