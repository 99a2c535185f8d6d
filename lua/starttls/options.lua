--- The options of connect(), checked before anything is sent.
-- May rely on starttls.core, starttls.loop and starttls.trust only.
--
-- Unknown options and wrong types raise: a misspelt option that is silently
-- ignored is a hole in the security of whoever wrote it.
local event_loop = require "starttls.loop"
local trust = require "starttls.trust"

local options = {}

--- The options that all protocols share: name -> allowed types.
-- Documented in README.md, "Options".
local common = {
  host = "string", port = "number", path = "string", tls = "string",
  user = "string", password = "string function", token = "string function",
  authzid = "string", sasl = "string table", channel_binding = "string",
  timeout = "number", connect_timeout = "number", deadline = "number",
  ca_file = "string", ca_path = "string", server_name = "string",
  client_cert = "string", client_key = "string", tls_priority = "string", alpn = "boolean",
  loop = "table false", trace = "function", limits = "table",
  insecure_auth = "boolean", insecure_no_verify = "boolean",
}

local limit_names = { line = true, reply = true, depth = true, greeting = true, string = true }

local implicit_ports = { [465] = true, [993] = true, [995] = true }

local mechanisms = {
  ["SCRAM-SHA-256-PLUS"] = true, ["SCRAM-SHA-1-PLUS"] = true, ["SCRAM-SHA-256"] = true,
  ["SCRAM-SHA-1"] = true, OAUTHBEARER = true, XOAUTH2 = true, PLAIN = true, EXTERNAL = true,
  ["CRAM-MD5"] = true, LOGIN = true, ANONYMOUS = true, USER = true, APOP = true,
}

local function misuse(format, ...)
  error("starttls: " .. format:format(...), 0)
end

local function check_types(given, extra)
  for name, value in pairs(given) do
    local types = common[name] or extra[name]
    if not types then misuse("unknown option '%s'", tostring(name)) end
    local kind = value == false and types:find "false" and "false" or type(value)
    if not (" " .. types .. " "):find(" " .. kind .. " ", 1, true) then
      misuse("option '%s' must be a %s, not a %s", name, types:gsub(" ", " or "), type(value))
    end
  end
end

--- Texts whose form only the server, or the system, would complain of otherwise.
local function check_texts(given)
  for _, name in ipairs { "path", "ca_file", "ca_path", "client_cert", "client_key" } do
    local path = given[name]
    if path and path:find("\0", 1, true) then misuse("option '%s' has a NUL", name) end
  end
  for _, name in ipairs { "user", "password", "token" } do
    if given[name] == "" then misuse("option '%s' is empty", name) end
  end
  local client_name = given.client_name
  if client_name and (#client_name > 255 or not client_name:find "^[!-~]+$") then
    misuse "option 'client_name' must be one word of at most 255 ASCII characters"
  end
end

--- What `on` may have: functions for what an IMAP server says unasked.
local handler_names = {
  alert = true, bye = true, exists = true, expunge = true, fetch = true, flags = true, list = true,
  metadata = true, overflow = true, progress = true, recent = true, referral = true, search = true,
  status = true, vanished = true,
}

local function check_handlers(on)
  for name, handler in pairs(on) do
    if not handler_names[name] then
      misuse("unknown handler '%s' in option 'on'", tostring(name))
    end
    if type(handler) ~= "function" then
      misuse("handler '%s' in option 'on' must be a function, not a %s", name, type(handler))
    end
  end
end

local deepest = 1000 -- nested values become nested calls in C

local function check_limits(limits)
  for name, value in pairs(limits) do
    if not limit_names[name] then misuse("unknown limit '%s'", tostring(name)) end
    if math.type(value) ~= "integer" or value < 1 then
      misuse("limit '%s' must be a positive integer", name)
    end
    if name == "depth" and value > deepest then
      misuse("limit 'depth' can't be more than %d", deepest)
    end
  end
end

local function check_loop(loop)
  local complaint = event_loop.complaint(loop)
  if complaint then misuse("option 'loop' %s", complaint) end
end

--- The mechanisms as one string of names.
local function mechanism_list(sasl)
  if sasl == nil then return nil end
  if type(sasl) == "string" then sasl = { sasl } end
  local names = {}
  for index, name in ipairs(sasl) do
    names[index] = type(name) == "string" and name:upper() or tostring(name)
    if not mechanisms[names[index]] then misuse("unknown SASL mechanism '%s'", names[index]) end
  end
  if #names == 0 then misuse("option 'sasl' names no mechanism") end
  return table.concat(names, " ")
end

--- APOP digests the greeting's timestamp, and with STARTTLS that was said in the clear, where
-- whoever is in between may have chosen it.
local function check_apop(protocol, tls, names)
  if not (names and (" " .. names .. " "):find " APOP ") then return end
  if protocol ~= "pop3" then misuse "SASL mechanism 'APOP' is for POP3 alone" end
  if tls == "implicit" or tls == "none" then return end
  misuse("sasl = \"APOP\" needs tls = \"implicit\": what it digests would come in the clear")
end

local function breaks_line(text)
  return text:find("[\r\n\0]") ~= nil
end

local function check_credentials(given, tls)
  local has = given.password ~= nil or given.token ~= nil
  if given.password ~= nil and not given.user then
    misuse("option 'password' needs option 'user'")
  end
  if given.user and not has and not given.sasl and not given.client_cert then
    misuse("option 'user' needs a password, a token, or a mechanism named in 'sasl'")
  end
  for _, name in ipairs { "password", "token" } do
    if type(given[name]) == "string" and breaks_line(given[name]) then
      misuse("option '%s' has a CR, LF or NUL", name)
    end
  end
  if given.insecure_auth or not (has or given.sasl) then return end
  if tls == "none" then
    misuse("credentials are not sent in the clear: use tls = \"starttls\" or \"implicit\", "
      .. "or accept that anybody on the way can read them with insecure_auth = true")
  end
  if given.insecure_no_verify then
    misuse("credentials are not sent to a server whose certificate is not verified: give its "
      .. "authority as ca_file, or accept that anybody on the way can take them "
      .. "with insecure_auth = true")
  end
end

--- Capabilities that the caller knows beforehand, parted by tabs.
local function pinned_list(given, tls)
  if given.eager == nil then return nil end
  if tls ~= "starttls" and tls ~= "implicit" then
    misuse("option 'eager' needs tls = \"starttls\" or \"implicit\"")
  end
  if not (given.password or given.token or given.sasl or given.client_cert) then
    misuse("option 'eager' needs credentials")
  end
  for _, line in ipairs(given.eager) do
    if type(line) ~= "string" or line:find "[%c]" or not line:find "^%S" then
      misuse("option 'eager' must have capabilities as the server lists them")
    end
  end
  if #given.eager == 0 then misuse("option 'eager' names no capability") end
  return table.concat(given.eager, "\t")
end

local function default_tls(given)
  if given.tls then return given.tls end
  if given.path then return "none" end -- nobody is in between on a Unix socket
  return implicit_ports[given.port] and "implicit" or "starttls"
end

--- Where to connect to: a host, or the path of a Unix socket.
local function check_place(given)
  if not given.path then
    if not given.host then misuse("option 'host' is missing") end
  elseif given.port then
    misuse("options 'path' and 'port' exclude each other")
  elseif given.path == "" then
    misuse("option 'path' is empty")
  end
end

--- Copies what the core reads as it is.
local copied = {
  "port", "path", "channel_binding", "timeout", "connect_timeout", "deadline",
  "server_name", "tls_priority", "limits", "insecure_auth", "insecure_no_verify",
  "client_name", "utf8",
}

--- What decides where credentials may go, for as long as the session lives.
-- @param given  the caller's table, checked
function options.policy(given)
  return {
    tls = default_tls(given), client_cert = given.client_cert,
    insecure_auth = given.insecure_auth, insecure_no_verify = given.insecure_no_verify,
  }
end

local identity_names = { user = true, password = true, token = true, authzid = true, sasl = true }

--- Who we are, as core session:authenticate() takes it.
local function identity_of(given)
  return {
    user = given.user, authzid = given.authzid, sasl = mechanism_list(given.sasl),
    has_password = given.password ~= nil, has_token = given.token ~= nil,
  }
end

--- Checks who is to be logged in on a session that is open.
-- @param given   user, password, token, authzid, sasl
-- @param policy  from options.policy
-- @return what core session:authenticate() takes. Raises on misuse.
function options.identity(given, policy)
  if type(given) ~= "table" then misuse("authenticate() takes a table of options") end
  local all = {}
  for name, value in pairs(given) do
    if not identity_names[name] then misuse("unknown option '%s'", tostring(name)) end
    all[name] = value
  end
  check_types(given, {})
  check_texts(given)
  if not (given.user or given.password or given.token or given.sasl) then
    misuse("there is nothing to authenticate with")
  end
  local identity = identity_of(given)
  for name, value in pairs(policy) do all[name] = value end
  check_credentials(all, policy.tls)
  return identity
end

--- Checks the options given to connect() and makes what starttls.core.new takes.
-- @param protocol  "smtp", "lmtp", "imap" or "pop3"
-- @param given     the caller's table
-- @param extra     options that only this protocol has: name -> types
-- @return the core's configuration, or nil and an error when certificates can't be loaded.
--         Raises on misuse.
function options.check(protocol, given, extra)
  if type(given) ~= "table" then misuse("connect() takes a table of options") end
  check_types(given, extra)
  check_place(given)
  check_texts(given)
  if given.on then check_handlers(given.on) end
  if given.limits then check_limits(given.limits) end
  if given.loop then check_loop(given.loop) end
  if given.client_key and not given.client_cert then
    misuse("option 'client_key' needs option 'client_cert'")
  end
  local tls = default_tls(given)
  check_credentials(given, tls)
  local config = identity_of(given)
  config.protocol, config.tls, config.pinned = protocol, tls, pinned_list(given, tls)
  config.has_certificate = given.client_cert ~= nil
  config.trace, config.alpn = given.trace ~= nil, given.alpn ~= false
  check_apop(protocol, tls, config.sasl)
  for _, name in ipairs(copied) do config[name] = given[name] end
  config.host = given.host or "localhost"
  config.loop = event_loop.choose(given.loop)
  if tls ~= "none" then
    local err
    config.trust, err = trust.load(given)
    if not config.trust then return nil, err end
  end
  return config
end

return options
