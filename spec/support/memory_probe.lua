-- Runs a function in a process of its own and measures how much memory that
-- process takes at its peak:
--
--   local growth, result = memory_probe.run(function(mark, args)
--     local session = ...
--     mark()             -- from here on it counts
--     ...
--     return "result"
--   end, { ... })
--
-- `growth` is in bytes: the highest resident size after `mark` less the size at it.
-- As with the scripted peers, the function sees its arguments and Lua's globals.
-- It works where /proc does (Linux).

local process = require "spec.support.process"
local transfer = require "spec.support.transfer"

local memory_probe = {}

local function interpreter()
  local first = 0
  while arg and arg[first - 1] do first = first - 1 end
  return first < 0 and arg[first] or "lua5.4"
end

-- A line such as "VmHWM:    1234 kB" of /proc/self/status, in bytes.
local function status(name)
  local text = assert(process.read_file "/proc/self/status")
  return math.tointeger(text:match(name .. ":%s*(%d+) kB")) * 1024
end

-- Sets the peak back to the present size (proc(5), clear_refs).
local function forget_peak()
  collectgarbage()
  local file <close> = assert(io.open("/proc/self/clear_refs", "w"))
  assert(file:write "5\n")
end

--- The other process's part: runs the job of that file, and prints the outcome.
function memory_probe.serve(path)
  local script, args = transfer.unpack(process.read_file(path))
  local before
  local function mark()
    forget_peak()
    before = status "VmRSS"
  end
  local outcome = table.pack(pcall(script, mark, args))
  local growth = before and status "VmHWM" - before
  local text = outcome[1] and outcome[2] or tostring(outcome[2])
  process.write_file(path, transfer.pack(outcome[1], text, growth))
end

local starter = [[
package.path, package.cpath = %q, %q
require("spec.support.memory_probe").serve(%q)
]]

--- Runs `script(mark, args)`. Returns the growth and what the script returned;
-- raises the script's error.
function memory_probe.run(script, args)
  local directory = process.temporary_directory()
  local job = directory.path .. "/job"
  process.write_file(job, transfer.pack(script, args))
  local code = starter:format(package.path, package.cpath, job)
  local ran, output = pcall(process.run, { interpreter(), "-e", code })
  local answer = process.read_file(job)
  directory:close()
  if not ran then error(output, 2) end
  local ok, result, growth = transfer.unpack(answer)
  if not ok then error(result, 2) end
  assert(growth, "the script did not call mark()")
  return growth, result
end

return memory_probe
