-- The sockets and event descriptors that this process has open, to see that none is left:
--
--   local before = descriptors.open()
--   ...
--   descriptors.assert_same(before)

local lfs = require "lfs"
local luassert = require "luassert"
local patience = require "spec.support.patience"
local socket = require "socket"

local descriptors = {}

--- An array such as { "12 socket:[345]" }.
function descriptors.open()
  local found = {}
  for name in lfs.dir "/proc/self/fd" do
    local target = lfs.symlinkattributes("/proc/self/fd/" .. name, "target")
    if target and (target:find "^socket" or target:find "^anon_inode") then
      found[#found + 1] = name .. " " .. target
    end
  end
  table.sort(found)
  return found
end

--- A thread that looks a name up lets go of its descriptor when it is done.
function descriptors.assert_same(before)
  local stop = socket.gettime() + patience.seconds(5)
  local now = descriptors.open()
  while #now ~= #before and socket.gettime() < stop do
    socket.sleep(0.01)
    now = descriptors.open()
  end
  luassert.are.same(before, now)
end

return descriptors
