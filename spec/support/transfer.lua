-- Turns Lua values into bytes and back, to carry them between two processes
-- that run the same Lua: strings, numbers, booleans, tables (without cycles)
-- and Lua functions. A function may use globals and its own arguments, but no
-- local of the place where it was written: such a use is refused by name.
-- Built-in functions such as `print` are globals and so available on both sides.

local transfer = {}

local function environment_index(fn)
  local found = 0
  for i = 1, math.huge do
    local name = debug.getupvalue(fn, i)
    if not name then return found end
    if name ~= "_ENV" then
      local info = debug.getinfo(fn, "S")
      error(("the function at %s:%d uses the outer local '%s'; pass it as an argument")
        :format(info.short_src, info.linedefined, name), 0)
    end
    found = i
  end
end

local encoders = {}

local function encode(value, out)
  local encoder = encoders[math.type(value) or type(value)]
  if not encoder then error("cannot pass a " .. type(value) .. " to another process", 0) end
  encoder(value, out)
end

encoders["nil"] = function(_, out) out[#out + 1] = "N" end
encoders.boolean = function(value, out) out[#out + 1] = value and "T" or "F" end
encoders.integer = function(value, out) out[#out + 1] = string.pack("<c1i8", "I", value) end
encoders.float = function(value, out) out[#out + 1] = string.pack("<c1d", "D", value) end
encoders.string = function(value, out)
  out[#out + 1] = string.pack("<c1I8", "S", #value)
  out[#out + 1] = value
end

encoders["function"] = function(value, out)
  out[#out + 1] = string.pack("<c1I1s8", "L", environment_index(value), string.dump(value))
end

function encoders.table(value, out)
  out[#out + 1] = "{"
  for k, v in pairs(value) do
    encode(k, out)
    encode(v, out)
  end
  out[#out + 1] = "}"
end

local decoders = {}

local function decode(bytes, at)
  local decoder = decoders[bytes:sub(at, at)]
  if not decoder then error("not a transferred value", 0) end
  return decoder(bytes, at + 1)
end

function decoders.N(_, at) return nil, at end
function decoders.T(_, at) return true, at end
function decoders.F(_, at) return false, at end
function decoders.I(bytes, at) return string.unpack("<i8", bytes, at) end
function decoders.D(bytes, at) return string.unpack("<d", bytes, at) end
function decoders.S(bytes, at) return string.unpack("<s8", bytes, at) end

function decoders.L(bytes, at)
  local index, code, after = string.unpack("<I1s8", bytes, at)
  local fn = assert(load(code, "transferred function", "b"))
  if index > 0 then debug.setupvalue(fn, index, _G) end
  return fn, after
end

decoders["{"] = function(bytes, at)
  local result = {}
  while bytes:sub(at, at) ~= "}" do
    local key, value
    key, at = decode(bytes, at)
    value, at = decode(bytes, at)
    result[key] = value
  end
  return result, at + 1
end

--- Any number of values -> one string.
function transfer.pack(...)
  local out = { string.pack("<I4", select("#", ...)) }
  for i = 1, select("#", ...) do encode((select(i, ...)), out) end
  return table.concat(out)
end

--- The string of `pack` -> the values.
function transfer.unpack(bytes)
  local count, at = string.unpack("<I4", bytes)
  local values = {}
  for i = 1, count do values[i], at = decode(bytes, at) end
  return table.unpack(values, 1, count)
end

return transfer
