-- The program of a scripted peer's process; peer.lua starts it. It listens,
-- tells its port numbers, runs the script for the first client and hands the
-- record over. The control connection ends it: "finish" asks for the record
-- once the script is through, and its end means that nobody wants it any more.

local job_path = ...

local function read_job()
  local file = assert(io.open(job_path, "rb"))
  local bytes = file:read "a"
  file:close()
  os.remove(job_path)
  return bytes
end

local bytes = read_job()
local directory = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = directory .. "/../../?.lua;" .. package.path

local transfer = require "spec.support.transfer"
local job = transfer.unpack(bytes)
package.path, package.cpath = package.path .. ";" .. job.path, job.cpath

local socket = require "socket"
local Verbs = require "spec.support.peer_verbs"

local function listen(host)
  local listener = assert(socket.bind(host, 0))
  local _, port = listener:getsockname()
  return listener, math.tointeger(tonumber(port))
end

local listener, port = listen(job.host)
local control_listener, control_port = listen "127.0.0.1"
io.stdout:write(port, " ", control_port, "\n")
io.stdout:flush()

control_listener:settimeout(job.wait)
local control = assert(control_listener:accept())
control_listener:close()

local p = Verbs.new { listener = listener, control = control, wait = job.wait, total = job.total }

local function run()
  p:accept()
  return job.script(p, job.args)
end

local ok, result = xpcall(run, function(message) return tostring(message) end)
p:conclude()

local record = p:record()
record.ok = ok
if ok then record.result = result else record.error = result end

control:settimeout(job.wait)
local packed_ok, packed = pcall(transfer.pack, record)
if not packed_ok then
  record.ok, record.result, record.error = false, nil, packed
  packed = transfer.pack(record)
end
control:send(packed)
control:close()
