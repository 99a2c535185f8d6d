-- Our side of spec/bench/compare.lua: ours.lua CASE, with the account in the environment.
local case, count = arg[1], tonumber(os.getenv "BENCH_COUNT")

local function options(port)
  return { host = "127.0.0.1", port = tonumber(os.getenv(port)), tls = "implicit",
    ca_file = os.getenv "BENCH_CA", user = "alice", password = os.getenv "BENCH_PASSWORD",
    sasl = "PLAIN" }
end

local function fetch(items, settings)
  local session = assert(require "starttls.imap".connect(options "BENCH_IMAPS"))
  assert(session:examine "INBOX")
  local got = 0
  for _ in session:fetch("1:*", items, settings) do got = got + 1 end
  assert(got == count, got)
  assert(session:logout())
end

local cases = {}

function cases.metadata()
  fetch({ "uid", "flags", "date", "size", "envelope", "structure" })
end

function cases.bodies()
  fetch({ "body" }, { sink = function() return function() return true end end })
end

function cases.send()
  local file <close> = assert(io.open(os.getenv "BENCH_MESSAGE", "rb"))
  local message = file:read "a"
  local session = assert(require "starttls.smtp".connect(options "BENCH_SMTPS"))
  for _ = 1, count do
    assert(session:send { from = "bob@example.test", to = "alice@example.test", message = message })
  end
  assert(session:quit())
end

cases[case]()
