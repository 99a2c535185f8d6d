-- Where scripted peers play before the library under test: a throw-away authority, and a
-- certificate for 127.0.0.1 and localhost that the client trusts.
--
--   local stage
--   setup(function() stage = Stage.open() end)
--   teardown(function() stage:close() end)
--   ...
--   local peer <close> = stage:start { say "220 hi\r\n", silence }
--   local session, err = smtp.connect(stage:options { port = peer.port })

local certificates = require "spec.support.certificates"
local patience = require "spec.support.patience"
local peer_steps = require "spec.support.peer_steps"
local process = require "spec.support.process"

local Stage = {}
Stage.__index = Stage

--- Fields: `path` of a directory of its own, `ca` and `certificate` (see certificates.lua).
function Stage.open()
  local directory = process.temporary_directory()
  local ca = certificates.ca(directory.path)
  local certificate = ca:issue { name = "server", dns = { "localhost" }, ip = { "127.0.0.1" } }
  return setmetatable({
    directory = directory, path = directory.path, ca = ca, certificate = certificate,
  }, Stage)
end

function Stage:close()
  self.directory:close()
end

--- Starts a peer that plays the steps; `slow`: byte by byte.
function Stage:start(steps, slow)
  return peer_steps.start(steps,
    { cert = self.certificate.cert, key = self.certificate.key, slow = slow })
end

--- Options for connect(). `given` adds or replaces; a value of false takes an option away.
function Stage:options(given)
  local all = { host = "127.0.0.1", ca_file = self.ca.cert, user = "alice", password = "secret",
    timeout = patience.seconds(10) }
  for name, value in pairs(given) do all[name] = value or nil end
  return all
end

return Stage
