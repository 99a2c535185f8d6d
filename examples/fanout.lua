--- Asks many IMAP accounts side by side how many messages are unseen, with a line of progress.
--
--   lua5.4 examples/fanout.lua [-n COUNT] FILE
--
-- Each line of FILE is an account: HOST PORT USER PASSWORD. COUNT of them (200 unless said) are
-- asked at the same time, in one process. What is known of an account goes to standard output, the
-- progress to standard error. MAIL_CA_FILE names an authority where one is needed.
local imap = require "starttls.imap"
local loop = require "starttls.loop.poll"

local function read_arguments()
  if arg[1] == "-n" then return math.tointeger(tonumber(arg[2])), arg[3] end
  return 200, arg[1]
end

local at_once, path = read_arguments()
if not path or not at_once or at_once < 1 then error("usage: fanout.lua [-n COUNT] FILE", 0) end

local accounts = {}
local number = 0
for line in io.lines(path) do
  number = number + 1
  if line:find "%S" and not line:find "^%s*#" then
    local host, port, user, password = line:match "^%s*(%S+)%s+(%d+)%s+(%S+)%s+(.+)$"
    if not host then error(("%s, line %d: not HOST PORT USER PASSWORD"):format(path, number), 0) end
    accounts[#accounts + 1] = { host = host, port = tonumber(port), user = user,
      password = password }
  end
end

io.stdout:setvbuf "line"
local unseen, checked, failed = 0, 0, 0

local function ask(account)
  local session <close>, err = imap.connect {
    host = account.host, port = account.port, user = account.user, password = account.password,
    ca_file = os.getenv "MAIL_CA_FILE", timeout = 30, loop = loop,
  }
  if not session then return nil, err end
  local status
  status, err = session:status("INBOX", { "unseen" })
  if not status then return nil, err end
  session:logout()
  return status.unseen
end

local function tell(account, count, err)
  checked = checked + 1
  if count then unseen = unseen + count else failed = failed + 1 end
  io.stderr:write("\r", (" "):rep(70), "\r") -- the line of progress makes room
  print(account.user, ("%s:%d"):format(account.host, account.port),
    count and count .. " unseen" or tostring(err))
  io.stderr:write(("%d of %d accounts, %d unseen messages, %d failure%s"):format(
    checked, #accounts, unseen, failed, failed == 1 and "" or "s"))
end

-- Takes accounts until there is none left: one of those that do so side by side.
local next_account = 1
local function worker()
  while next_account <= #accounts do
    local account = accounts[next_account]
    next_account = next_account + 1
    tell(account, ask(account))
  end
end

local workers = {}
for index = 1, math.min(at_once, #accounts) do workers[index] = worker end
loop.run(workers)
io.stderr:write "\n"
os.exit(failed == 0, true)
