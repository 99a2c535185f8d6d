--- starttls: mail sessions over SMTP, LMTP, IMAP and POP3 that are encrypted, verified
-- and authenticated, or a clear error.
--
-- The protocols are modules of their own, loaded when they are first used:
-- `require "starttls.smtp"`, or `require "starttls".smtp`.
-- May rely on nothing but them.
local starttls = { _VERSION = "starttls scm" }

local modules = { smtp = true, lmtp = true, imap = true, pop3 = true, error = true, loop = true }

return setmetatable(starttls, {
  __index = function(_, name)
    if modules[name] then
      local module = require("starttls." .. name)
      rawset(starttls, name, module)
      return module
    end
  end,
})
