-- house.lua ROOT BUILD MODULE... - proves that the code keeps to the floors of csrc/README.md.
--
-- Reads what the sources include, and what the built objects call, define and export.
-- MODULE: core.so, and mime.so where that is built; without it, csrc/message/ has no objects.
-- Prints one line per offence, "FILE:LINE: what is wrong", and fails if there is any.

local root, build = arg[1] or ".", arg[2] or "build/5.4"

-- --- The rules -------------------------------------------------------------------

-- Which floors a floor may include from. The wings, mail and net, never meet.
local may_include = {
  base = { base = true },
  mail = { base = true, mail = true },
  net = { base = true, net = true },
  session = { base = true, mail = true, net = true, session = true },
  lua = { base = true, mail = true, net = true, session = true, lua = true },
  message = { base = true, message = true },
}

-- Who may touch what. `headers` and `symbols` are patterns for a whole name;
-- `only` and `never` are patterns for a file below csrc/.
local rules = {
  {
    what = "Lua",
    headers = { "lua%.h", "lauxlib%.h", "lualib%.h", "luaconf%.h" },
    symbols = { "lua_.*", "luaL_.*" },
    only = { "^lua/", "^message/" },
  },
  {
    what = "GMime and GLib",
    headers = { "gmime/.*", "glib.*", "gobject/.*", "gio/.*" },
    symbols = { "g_.*", "gmime_.*", "internet_address_.*" },
    only = { "^message/" },
  },
  {
    what = "GnuTLS",
    headers = { "gnutls/.*" },
    symbols = { "gnutls_.*" },
    only = { "^net/tls" },
  },
  {
    what = "GNU SASL",
    headers = { "gsasl.*" },
    symbols = { "gsasl_.*" },
    only = { "^mail/sasl" },
  },
  {
    what = "zlib",
    headers = { "zlib%.h", "zconf%.h" },
    symbols = { "deflate[%w_]*", "inflate[%w_]*", "compress2?", "uncompress2?", "gz%l+" },
    only = { "^net/deflate" },
  },
  {
    what = "a socket",
    headers = { "sys/socket%.h", "netdb%.h", "netinet/.*", "arpa/inet%.h", "sys/un%.h" },
    symbols = {
      "socket", "socketpair", "connect", "bind", "listen", "accept4?", "shutdown",
      "send", "sendto", "sendm?msg", "recv", "recvfrom", "recvm?msg",
      "[gs]etsockopt", "getsockname", "getpeername", "getaddrinfo", "getnameinfo",
    },
    only = { "^net/" },
  },
  {
    -- net/dial.c looks at its attempts through an epoll descriptor, and never waits there.
    what = "waiting, which is for lua/drive.c and lua/poller.c",
    symbols = {
      "p?poll", "p?select", "epoll_p?wait2?", "sleep", "usleep", "nanosleep", "clock_nanosleep",
    },
    only = { "^lua/drive", "^lua/poller", "^net/dial" },
  },
  {
    what = "a file, a descriptor or a thread",
    headers = { "unistd%.h", "fcntl%.h", "poll%.h", "sys/epoll%.h", "pthread%.h" },
    symbols = {
      "read", "write", "readv", "writev", "open", "openat", "close", "pipe2?", "eventfd", "fcntl",
      "ioctl", "fopen", "fread", "fwrite", "fputs", "fprintf", "printf", "puts", "pthread_.*",
    },
    never = { "^base/", "^mail/" },
  },
  {
    what = "the clock",
    headers = { "time%.h", "sys/time%.h", "base/clock%.h" },
    symbols = { "time", "clock", "clock_gettime", "gettimeofday" },
    never = { "^mail/" },
  },
}

-- --- Helpers ---------------------------------------------------------------------

local offences = 0

local function offence(file, line, text, ...)
  offences = offences + 1
  local place = line and ("csrc/%s:%d"):format(file, line) or "csrc/" .. file
  print(place .. ": " .. text:format(...))
end

local function matches(name, patterns, whole)
  for _, pattern in ipairs(patterns or {}) do
    if name:find(whole and "^" .. pattern .. "$" or pattern) then
      return true
    end
  end
  return false
end

local function forbidden(rule, file)
  if rule.only then
    return not matches(file, rule.only)
  end
  return matches(file, rule.never)
end

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- The lines that a command prints; stops everything when it fails.
local function lines_of(command)
  local pipe = assert(io.popen(command))
  local lines = {}
  for line in pipe:lines() do
    lines[#lines + 1] = line
  end
  if not pipe:close() then
    io.stderr:write("house: this failed: ", command, "\n")
    os.exit(2)
  end
  return lines
end

-- The first line of a source file that has `name` as a word, or nil.
local function line_with(file, name)
  local number = 0
  for line in io.lines(root .. "/csrc/" .. file) do
    number = number + 1
    if line:find("%f[%w_]" .. name:gsub("%p", "%%%0") .. "%f[^%w_]") then
      return number
    end
  end
  return nil
end

-- --- What the sources include ------------------------------------------------------

local function check_include(file, number, open, name)
  if open == '"' then
    local floor, target = file:match "^[^/]+", name:match "^([^/]+)/[^/]+$"
    if not target or not may_include[target] then
      offence(file, number, 'include "%s" is not written as "FLOOR/NAME.h"', name)
      return
    elseif not may_include[floor][target] then
      offence(file, number, 'includes "%s": %s/ must not know %s/', name, floor, target)
      return
    end
  end
  for _, rule in ipairs(rules) do
    if matches(name, rule.headers, true) and forbidden(rule, file) then
      offence(file, number, "includes %s: no business here with %s", name, rule.what)
    end
  end
end

local function check_includes(file)
  local number = 0
  for line in io.lines(root .. "/csrc/" .. file) do
    number = number + 1
    local open, name = line:match '^%s*#%s*include%s*([<"])([^>"]+)'
    if name then
      check_include(file, number, open, name)
    end
  end
end

-- --- What the objects call and keep -----------------------------------------------

local function check_calls(file, object)
  for _, line in ipairs(lines_of("nm -u " .. quote(object))) do
    local symbol = line:match "%S+$"
    -- _FORTIFY_SOURCE calls read as __read_chk.
    local name = symbol:match "^__(.+)_chk$" or symbol
    for _, rule in ipairs(rules) do
      if matches(name, rule.symbols, true) and forbidden(rule, file) then
        offence(file, line_with(file, name), "uses %s: no business here with %s", name, rule.what)
      end
    end
  end
end

-- Mutable static data would be shared by all Lua states of all threads. (.data.rel.ro
-- holds constants with addresses in them; the loader makes it read-only.)
local function check_data(file, object)
  for _, line in ipairs(lines_of("objdump -t " .. quote(object))) do
    local section, name = line:match "(%S+)\t%x+%s+(.*)$"
    local mutable = section == "*COM*"
      or matches(section or "", { "^%.t?data", "^%.t?bss" })
        and not section:find "^%.data%.rel%.ro"
    if mutable and name ~= section then
      name = name:gsub("^%.hidden ", ""):gsub("%.%d+$", "")
      offence(file, line_with(file, name), "%s is mutable static data", name)
    end
  end
end

-- --- What the module exports -------------------------------------------------------

local function check_exports(module)
  local opens = false
  for _, line in ipairs(lines_of("nm -D --defined-only " .. quote(module))) do
    local symbol = line:match "%S+$"
    opens = opens or symbol:find "^luaopen_"
    if not symbol:find "^luaopen_" then
      offences = offences + 1
      print(("%s: exports %s, and only luaopen_* should be seen"):format(module, symbol))
    end
  end
  if not opens then
    offences = offences + 1
    print(("%s: exports no luaopen_*, so Lua can't load it"):format(module))
  end
end

local modules = table.move(arg, 3, #arg, 1, {})

-- Whether the objects of a file are there.
local function is_built(file)
  return not file:find "^message/" or table.concat(modules, " "):find("mime.so", 1, true)
end

-- --- All of it -----------------------------------------------------------------------

local sources = lines_of(
  "cd " .. quote(root .. "/csrc") .. " && find * -name '*.[ch]' | LC_ALL=C sort")
for _, file in ipairs(sources) do
  local floor = file:match "^([^/]+)/[^/]+$"
  if not may_include[floor] then
    offence(file, nil, "belongs to no floor: put it in csrc/FLOOR/")
  else
    check_includes(file)
    if file:find "%.c$" and is_built(file) then
      local object = ("%s/%s/obj/%s.o"):format(root, build, file:sub(1, -3))
      check_calls(file, object)
      check_data(file, object)
    end
  end
end
for _, module in ipairs(modules) do
  check_exports(("%s/%s/starttls/%s"):format(root, build, module))
end

if offences > 0 then
  print(("house: %d offence(s) in %d files"):format(offences, #sources))
  os.exit(1)
end
print(("house: %d files keep to their floors"):format(#sources))
