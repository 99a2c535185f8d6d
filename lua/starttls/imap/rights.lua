--- Who may do what with a mailbox (ACL, RFC 4314).
-- May rely on starttls.imap.class and starttls.arguments.
--
-- Rights are letters: l look up, r read, s keep \Seen, w write flags, i insert, p post, k create
-- below, x delete the mailbox, t set \Deleted, e expunge, a administer (RFC 4314 2.1).
local Imap = require "starttls.imap.class"
local arguments = require "starttls.arguments"

local function check_identifier(what, identifier)
  if type(identifier) ~= "string" or identifier == "" then
    error(what .. ": the identifier must be a name such as \"anyone\"", 0)
  end
  return identifier
end

--- RFC 4314 2.2: rights beyond those of RFC 2086 only where RIGHTS= lists them.
local function check_rights(self, rights)
  local _, listed = self:has "RIGHTS"
  for right in rights:gmatch "%l" do
    if not ("lrswipcda"):find(right, 1, true) and not (listed or ""):find(right, 1, true) then
      return nil, Imap.unsupported("setacl", "RIGHTS=" .. right)
    end
  end
  return true
end

local function acl_request(verb, mailbox, identifier)
  local args = arguments.of(verb):add("mailbox", mailbox)
  if identifier then args:add("string", check_identifier(verb:lower(), identifier)) end
  return { during = verb:lower(), args = args }
end

--- The request, when the server has ACL.
local function with_acl(self, request)
  local able, err = self:needs(request.during, "ACL")
  if not able then return nil, err end
  return request
end

--- The request whose answer is one response.
local function asking(self, request, response, pick)
  request.wanted = response
  function request.finish(_, values) return pick(values[1] or {}) end
  return with_acl(self, request)
end

--- Gives somebody rights (SETACL, RFC 4314 3.1).
-- @param mailbox     its name
-- @param identifier  whom: a user, "anyone", "-fred" for what fred may not, ...
-- @param rights      "lrs" in place of what was there; "+w" more; "-w" fewer
-- @return the reply; or nil and an error
Imap.define("setacl", function(self, mailbox, identifier, rights)
  if type(rights) ~= "string" or not rights:find "^[+-]?[%l%d]*$" then
    error("setacl: the rights must be letters such as \"lrs\", \"+w\", \"-w\"", 0)
  end
  local request = acl_request("SETACL", mailbox, identifier or "")
  request.args:add("string", rights)
  local able, err = check_rights(self, rights)
  if not able then return nil, err end
  return with_acl(self, request)
end)

--- Removes somebody's entry (DELETEACL, RFC 4314 3.2).
-- @return the reply; or nil and an error
Imap.define("deleteacl", function(self, mailbox, identifier)
  return with_acl(self, acl_request("DELETEACL", mailbox, identifier or ""))
end)

--- Tells who has which rights (GETACL, RFC 4314 3.3).
-- @return identifier -> rights; or nil and an error
Imap.define("getacl", function(self, mailbox)
  return asking(self, acl_request("GETACL", mailbox), "ACL", function(value)
    return value.rights or {}
  end)
end)

--- Tells which rights somebody can be given (LISTRIGHTS, RFC 4314 3.4).
-- @return { name, identifier, required = rights that always come with it, optional = array of
--         rights, each of which is given or taken as a whole }; or nil and an error
Imap.define("listrights", function(self, mailbox, identifier)
  return asking(self, acl_request("LISTRIGHTS", mailbox, identifier or ""), "LISTRIGHTS",
    function(value) return value end)
end)

--- Tells what we may do (MYRIGHTS, RFC 4314 3.5).
-- @return the rights, as a string; or nil and an error
Imap.define("myrights", function(self, mailbox)
  return asking(self, acl_request("MYRIGHTS", mailbox), "MYRIGHTS", function(value)
    return value.rights or ""
  end)
end)
