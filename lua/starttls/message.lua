--- Messages: composed from a table of what they say.
-- May rely on starttls.mime (the C module over GMime) and what is in starttls/message/.
if not package.loaded["starttls.mime"] and not package.searchpath("starttls.mime", package.cpath)
  and not package.preload["starttls.mime"] then
  error("starttls is built without starttls.message (MESSAGE=no)", 0)
end
local mime = require "starttls.mime"

local message = {}

--- How a text is transferred best: "7bit", "quoted-printable" or "base64".
message.text_encoding = mime.text_encoding

return message
