--- Extensions that a client must switch on (RFC 5161, RFC 9051 6.3.1).
-- May rely on starttls.imap.class and starttls.arguments.
local Imap = require "starttls.imap.class"
local arguments = require "starttls.arguments"

--- What else an extension switches on (RFC 7162 3.2.3).
local implied = { QRESYNC = "CONDSTORE" }

--- Switches extensions on for the rest of the session: "CONDSTORE", "QRESYNC", "UTF8=ACCEPT",
-- "IMAP4rev2", "UIDONLY", ... With UTF8=ACCEPT or IMAP4rev2 mailbox names and quoted strings
-- travel as UTF-8, which makes no difference to the caller.
-- @param ...  capabilities, each of which the server must list
-- @return what is on now: name in capitals -> true; or nil and an error
Imap.define("enable", function(self, ...)
  local able, err = self:needs("enable", "ENABLE", "IMAP4rev2")
  if not able then return nil, err end
  local args, missing = arguments.of "ENABLE", false
  for _, name in ipairs { ... } do
    able, err = self:needs("enable", name)
    if not able then return nil, err end
    args:add("atom", name)
    missing = missing or not self.enabled[name:upper()]
  end
  if not missing then return { result = self.enabled } end
  return {
    during = "enable", wanted = "ENABLED", alone = true, args = args,
    finish = function(_, values)
      for _, words in ipairs(values) do
        for _, word in ipairs(words) do
          local name = tostring(word):upper()
          self.enabled[name] = true
          if implied[name] then self.enabled[implied[name]] = true end
        end
      end
      return self.enabled
    end,
  }
end)
