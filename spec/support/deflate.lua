-- Raw DEFLATE (RFC 1951) for scripted peers, without a library for it:
--
--   deflate.stored "* 1 EXISTS\r\n"   -- as it is, in blocks that say so; any number may follow
--   deflate.squeezed(("x"):rep(1e6))  -- by gzip(1): small, and the end of the stream
--   deflate.read(bytes)               -- what a stream says, however unfinished it is

local process = require "spec.support.process"
local shell = require "spec.support.shell"

local deflate = {}

local longest = 65535 -- of a stored block (RFC 1951 3.2.4)
local header = "\x1f\x8b\8\0\0\0\0\0\0\3" -- of gzip's format (RFC 1952 2.3)

--- A block that says nothing, as a flush leaves behind.
deflate.empty = "\0\0\0\xff\xff"

--- The text in blocks that are not compressed.
function deflate.stored(text)
  local blocks = {}
  for from = 1, #text, longest do
    local piece = text:sub(from, from + longest - 1)
    blocks[#blocks + 1] = "\0" .. string.pack("<I2I2", #piece, ~#piece & 0xffff) .. piece
  end
  return table.concat(blocks)
end

-- What a gzip command makes of the bytes, be it complete or not.
local function gzip(options, bytes)
  local directory <close> = process.temporary_directory()
  process.write_file(directory.path .. "/in", bytes)
  shell.run("gzip %s < %s/in > %s/out 2>/dev/null", options, directory.path, directory.path)
  return process.read_file(directory.path .. "/out")
end

--- The text as small as it gets. Behind it the stream is at its end.
function deflate.squeezed(text)
  return gzip("-9 -n", text):sub(#header + 1, -9)
end

--- The text of a stream from its beginning, as far as it goes.
function deflate.read(bytes)
  return gzip("-d", header .. bytes)
end

return deflate
