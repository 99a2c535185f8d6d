--- Limits of what an account may hold (QUOTA, RFC 9208; RFC 2087 before it).
-- May rely on starttls.imap.class and starttls.arguments.
local Imap = require "starttls.imap.class"
local arguments = require "starttls.arguments"

local function quota_request(verb, root)
  return {
    during = verb:lower(), wanted = "QUOTA",
    args = arguments.of(verb):add("string", root),
    finish = function(_, values)
      for _, quota in ipairs(values) do
        if quota.root == root then return quota end
      end
      return { root = root, resources = {} }
    end,
  }
end

--- Tells a quota root's limits (GETQUOTA, RFC 9208 4.1.1).
-- @param root  its name, often ""
-- @return { root, resources = { STORAGE = { usage, limit }, ... } }: STORAGE in units of 1024
--         octets; without resources nothing is limited. Or nil and an error
Imap.define("getquota", function(self, root)
  local able, err = self:needs("getquota", "QUOTA")
  if not able then return nil, err end
  return quota_request("GETQUOTA", root)
end)

--- Tells a mailbox's quota roots and their limits (GETQUOTAROOT, RFC 9208 4.1.2).
-- @param mailbox  its name
-- @return { name, roots = array of names, quotas = { [root] = as getquota } }; or nil and an error
Imap.define("getquotaroot", function(self, mailbox)
  local able, err = self:needs("getquotaroot", "QUOTA")
  if not able then return nil, err end
  local found, quotas = { name = mailbox, roots = {} }, {}
  local weigh = self:bounded "getquotaroot"
  return {
    during = "getquotaroot", wanted = "QUOTA",
    args = arguments.of("GETQUOTAROOT"):add("mailbox", mailbox),
    take = function(name, _, value, weight)
      if name == "QUOTAROOT" then found = value
      elseif name == "QUOTA" and value.root then quotas[value.root] = value
      else return false end
      return weigh(weight)
    end,
    finish = function()
      found.quotas = quotas
      return found
    end,
  }
end)

--- Whether a resource may be limited: true, or nil and an error. A server of RFC 2087 tells
-- nothing of what it can limit, and has SETQUOTA all the same (RFC 9208 3.1).
local function check_settable(self, resources)
  local told = self:capabilities().QUOTA
  if type(told) ~= "string" then return self:needs("setquota", "QUOTA") end
  local able, err = self:needs("setquota", "QUOTASET")
  if not able then return nil, err end
  for name in pairs(resources) do
    able, err = self:needs("setquota", "QUOTA=RES-" .. name:upper())
    if not able then return nil, err end
  end
  return true
end

--- Sets a quota root's limits (SETQUOTA, RFC 9208 4.1.3).
-- @param root       its name
-- @param resources  { STORAGE = limit, MESSAGE = limit, ... }; those left out are not limited
-- @return as getquota; or nil and an error
Imap.define("setquota", function(self, root, resources)
  local request, names = quota_request("SETQUOTA", root), {}
  if type(resources) ~= "table" then error("setquota: the resources must be a table", 0) end
  for name, limit in pairs(resources) do
    if type(name) ~= "string" or not name:find "^%a[%w-]*$" then
      error("setquota: a resource must be a name such as \"STORAGE\"", 0)
    elseif math.type(limit) ~= "integer" or limit < 0 then
      error(("setquota: the limit of %s must be an integer"):format(name), 0)
    end
    names[#names + 1] = name
  end
  table.sort(names)
  request.args:add("(", "")
  for _, name in ipairs(names) do
    request.args:add("atom", name:upper()):add("number", ("%d"):format(resources[name]))
  end
  request.args:add(")", "")
  local able, err = check_settable(self, resources)
  if not able then return nil, err end
  return request
end)
