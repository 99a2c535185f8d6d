--- Certificate authorities and client certificates, loaded once for many sessions.
-- May rely on starttls.core only.
--
-- The system's store takes some 10 ms and 4 MB to load, so what is loaded is kept,
-- and loaded afresh when it is older than `lifetime` seconds: certificates get
-- replaced, and authorities revoked, while a program runs.
local core = require "starttls.core"

local trust = { lifetime = 300 }

local kept = {} -- key -> { trust =, loaded_at = }
local count = 0
local most = 16 -- then all are dropped, rather than growing for ever

--- The trust that these options describe.
-- @param given  ca_file, ca_path, client_cert, client_key
-- @return the core's trust object, or nil and an error of kind "certificate"
function trust.load(given)
  local key_file = given.client_cert and (given.client_key or given.client_cert)
  local key = table.concat({
    given.ca_file or "", given.ca_path or "", given.client_cert or "", key_file or "",
  }, "\0")
  local entry = kept[key]
  local age = entry and os.time() - entry.loaded_at
  if age and age >= 0 and age < trust.lifetime then return entry.trust end
  local loaded, err = core.trust(given.ca_file, given.ca_path, given.client_cert, key_file)
  if not loaded then return nil, err end
  if not entry then count = count + 1 end
  if count > most then kept, count = {}, 1 end
  kept[key] = { trust = loaded, loaded_at = os.time() }
  return loaded
end

return trust
