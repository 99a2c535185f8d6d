-- One download in a process of its own, for pop3_download_spec.lua:
--
--   lua5.4 pop3_downloader.lua PORT CA_FILE PASSWORD DIRECTORY UNIT COUNT
--
-- COUNT is after how many it kills itself, with a signal that can't be caught: instructions of the
-- virtual machine (UNIT "instruction"), or calls of functions that change files ("file"). With 0 it
-- never does, and prints how many it took.

local core = require "starttls.core"
local pop3 = require "starttls.pop3"

local port, ca_file, password, directory, unit, limit = table.unpack(arg)
limit = math.tointeger(tonumber(limit))

-- The shell's parent is this process.
local function kill()
  os.execute "kill -KILL $PPID"
end

local steps = 0
local file_methods = getmetatable(io.stdout).__index
local changing = { [io.open] = true, [os.remove] = true, [file_methods.write] = true,
  [file_methods.close] = true }
for _, action in pairs(core.files) do changing[action] = true end

if unit == "file" then
  debug.sethook(function()
    if not changing[debug.getinfo(2, "f").func] then return end
    steps = steps + 1
    if steps == limit then kill() end
  end, "c")
elseif limit > 0 then
  debug.sethook(kill, "", limit)
else
  debug.sethook(function() steps = steps + 100 end, "", 100)
end

local session <close> = assert(pop3.connect {
  host = "127.0.0.1", port = math.tointeger(tonumber(port)), ca_file = ca_file,
  user = "alice", password = password,
})
local result = assert(pop3.download(session, { directory = directory, delete = true }))
assert(#result.failed == 0)
assert(session:quit().deleted == result.marked)
debug.sethook()
print(steps)
