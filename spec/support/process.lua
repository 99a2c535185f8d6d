-- Programs in the background, free TCP ports and temporary directories.
--
-- A shell of its own guards every program and every directory: when this Lua
-- process gives it up, or ends in any way, even by a crash, the guard sends TERM,
-- after a bounded time KILL, and reaps the program, or removes the directory.
-- Only process ids that the guard itself started are used.

local socket = require "socket"
local patience = require "spec.support.patience"

local process = {}

local function quote(word)
  return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

local function quote_all(words)
  local quoted = {}
  for i, word in ipairs(words) do quoted[i] = quote(word) end
  return table.concat(quoted, " ")
end

--- Runs a command (a list of words) to its end. Returns what it printed on both
-- streams; raises an error with it when the command fails.
function process.run(words)
  local pipe = assert(io.popen(quote_all(words) .. " 2>&1 </dev/null"))
  local output = pipe:read "a"
  if not pipe:close() then
    error(("failed: %s\n%s"):format(table.concat(words, " "), output), 2)
  end
  return output
end

--- The path of a program; an error that names the Debian package without it.
function process.find(program, package_name)
  local pipe = assert(io.popen("PATH=$PATH:/usr/sbin:/sbin; command -v " .. quote(program)))
  local path = pipe:read "l"
  pipe:close()
  if not path then
    error(("%s is missing: install the Debian package %s"):format(program, package_name), 2)
  end
  return path
end

-- Files -----------------------------------------------------------------

function process.write_file(path, bytes)
  local file = assert(io.open(path, "wb"))
  assert(file:write(bytes))
  assert(file:close())
end

--- The file's bytes, or nil and a reason.
function process.read_file(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local bytes = file:read "a"
  file:close()
  return bytes
end

local Directory = {}
Directory.__index = Directory

-- After a crash the programs in the directory get some time to end first. It reads the path
-- from us, so that whoever looks for processes that name it does not find this one.
local remover = [[
trap : INT TERM HUP
read -r directory
read -r word
[ "$word" ] || sleep 3
tries=20
until rm -rf -- "$directory" || [ $tries = 0 ]; do sleep 0.5; tries=$((tries - 1)); done
]]

--- A new temporary directory: `path`, and `close` removes it with its contents,
-- as does the end of this Lua process, even by a crash.
function process.temporary_directory()
  local pattern = (os.getenv "TMPDIR" or "/tmp") .. "/starttls-spec.XXXXXX"
  local path = process.run({ "mktemp", "-d", pattern }):match "^[^\n]+"
  local pipe = assert(io.popen("exec sh -c " .. quote(remover) .. " >/dev/null 2>&1", "w"))
  pipe:write(path, "\n")
  pipe:flush()
  return setmetatable({ path = path, pipe = pipe }, Directory)
end

function Directory:close()
  if not self.pipe then return end
  self.pipe:write "remove\n"
  self.pipe:close()
  self.path, self.pipe = nil, nil
end

Directory.__close = Directory.close
Directory.__gc = Directory.close

-- Ports -----------------------------------------------------------------

--- `count` different TCP ports that nobody uses at the moment.
function process.free_ports(count)
  local holders, ports = {}, {}
  for i = 1, count do
    holders[i] = assert(socket.bind("127.0.0.1", 0))
    ports[i] = math.tointeger(tonumber((select(2, holders[i]:getsockname()))))
  end
  for _, holder in ipairs(holders) do holder:close() end
  return table.unpack(ports)
end

-- Programs --------------------------------------------------------------

local guard = [[
trap : INT TERM HUP
%s >%s 2>&1 </dev/null 9>&- &
pid=$!
echo $pid >%s
cat >/dev/null
kill -TERM $pid 2>/dev/null
(
  sleeper=
  trap '[ "$sleeper" ] && kill $sleeper && wait $sleeper; exit' TERM
  sleep %d & sleeper=$!
  wait $sleeper; kill -KILL $pid
) 2>/dev/null &
killer=$!
while :; do wait $pid; [ $? -gt 128 ] && kill -0 $pid 2>/dev/null || break; done
kill -TERM $killer 2>/dev/null
wait $killer
kill -TERM -$pid 2>/dev/null
tries=0
while pgrep -g $pid -r RSD >/dev/null && [ $tries -lt 100 ]; do
  tries=$((tries + 1))
  sleep 0.02
done
kill -KILL -$pid 2>/dev/null
]]

local Program = {}
Program.__index = Program

local function read_pid(path)
  local stop = socket.gettime() + patience.seconds(10)
  repeat
    local pid = (process.read_file(path) or ""):match "^(%d+)\n"
    if pid then return math.tointeger(pid) end
    socket.sleep(0.002)
  until socket.gettime() > stop
  error("no process id in " .. path, 0)
end

--- Starts a command in the background. Options:
-- `words`: the command; `log`: the file for its output; `grace`: seconds
-- between TERM and KILL, 10 unless told. Returns an object with `pid`.
function process.start(options)
  local pid_path = os.tmpname()
  -- A session of its own: what a terminal signals (Ctrl-C, hang-up) reaches the guard alone,
  -- and not servers that would take it for a wish to reload; and the guard knows the program's
  -- children, which outlive it for a moment, as a group.
  local script = guard:format("exec setsid " .. quote_all(options.words), quote(options.log),
    quote(pid_path), patience.seconds(options.grace or 10) // 1)
  local pipe = assert(io.popen("exec sh -c " .. quote(script) .. " >/dev/null 2>&1", "w"))
  local program = setmetatable({ pipe = pipe, log = options.log, name = options.words[1] }, Program)
  program.pid = read_pid(pid_path)
  os.remove(pid_path)
  return program
end

--- Stops the program and waits until it is gone.
function Program:stop()
  if not self.pipe then return end
  self.pipe:close()
  self.pipe = nil
end

Program.__close = Program.stop
Program.__gc = Program.stop

--- Is it still there?
function Program:running()
  local pipe = assert(io.popen(("ps -o stat= -p %d"):format(self.pid)))
  local state = pipe:read "l"
  pipe:close()
  return state ~= nil and not state:find "^%s*Z"
end

--- What it has printed so far.
function Program:output()
  return process.read_file(self.log) or ""
end

--- Waits until `host:port` accepts a connection; an error with the program's
-- output when it ends before or takes too long.
function Program:wait_for_port(host, port)
  local stop = socket.gettime() + patience.seconds(20)
  repeat
    local conn = socket.connect(host, port)
    if conn then
      conn:close()
      return
    end
    socket.sleep(0.02)
  until not self:running() or socket.gettime() > stop
  error(("%s does not listen on %s:%d\n%s"):format(self.name, host, port, self:output()), 2)
end

return process
