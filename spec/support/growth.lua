-- How the time of large IMAP answers grows with their size: cases for imap_growth_spec.lua, and
-- for `make bench`, which prints them. Each case asks a scripted peer for `n` of something.

local Peer = require "spec.support.peer"

local imap = require "starttls.imap"

local growth = {}

-- The peer's part: answers every command with the same text, built once.
local function answer_all(p, args)
  local builders = {
    search = function(n)
      local numbers = {}
      for i = 1, n do numbers[i] = i end
      return "* SEARCH " .. table.concat(numbers, " ") .. "\r\n"
    end,
    longest = function(n)
      local numbers = {}
      for i = 1, n do numbers[i] = 4290000000 + i end
      return "* SEARCH " .. table.concat(numbers, " ") .. "\r\n"
    end,
    ranges = function(n)
      local numbers = {}
      for i = 1, n do numbers[i] = 4280000000 + 2 * i end
      return "* ESEARCH UID ALL " .. table.concat(numbers, ",") .. "\r\n"
    end,
    structure = function(n)
      local part = '("TEXT" "PLAIN" ("CHARSET" "UTF-8" "NAME" "a.txt") NIL NIL "BASE64" 1152 23)'
      return "* 1 FETCH (UID 1 BODYSTRUCTURE (" .. part:rep(n) .. ' "MIXED"))\r\n'
    end,
    list = function(n)
      local lines = {}
      for i = 1, n do
        lines[i] = ('* LIST (\\HasNoChildren) "/" "Archive/%d/Entw&APw-rfe"\r\n'):format(i)
      end
      return table.concat(lines)
    end,
    header = function(n)
      local field = "Received: from a.example by b.example; Tue, 24 Nov 2026 00:00:00 +0000\r\n"
      local text = field:rep(n // #field) .. "\r\n"
      return ("* 1 FETCH (UID 1 BODY[HEADER] {%d}\r\n%s)\r\n"):format(#text, text)
    end,
    envelope = function(n)
      local one = '* %d FETCH (UID %d ENVELOPE ("Tue, 24 Nov 2026 00:00:00 +0000" "a" NIL NIL NIL '
        .. '(%s) NIL NIL NIL "<a@b>"))\r\n'
      return one:format(1, 1, ('("Bob" NIL "bob" "example.test")'):rep(n))
    end,
  }
  local text = builders[args.what](args.n)
  p:imap_upgrade { secure = false, auth = false, after = {} }
  for _ = 1, args.times do
    local tag = p:imap_expect ""
    p:send(text, tag, " OK done\r\n")
  end
end

local function fetch(item)
  return function(session) return assert(session:fetch_all("1:*", { item }))[1] end
end

-- `sizes` at 1x, 10x, 100x; `ask` gives what `count` counts in.
growth.cases = {
  { what = "search", name = "UIDs in a search", sizes = { 10000, 100000, 1000000 },
    ask = function(session) return assert(session:search "ALL") end,
    count = function(found) return #found end },
  { what = "longest", name = "UIDs of ten digits in a search", sizes = { 10000, 100000, 1000000 },
    ask = function(session) return assert(session:search {}) end,
    count = function(found) return #found end },
  { what = "ranges", name = "UIDs in the set of a search", sizes = { 10000, 100000, 1000000 },
    ask = function(session) return assert(session:search {}) end,
    count = function(found) return #found end },
  { what = "structure", name = "parts in a body structure", sizes = { 100, 1000, 10000 },
    ask = fetch "structure",
    count = function(message)
      local structure = message.structure
      return structure.parts and #structure.parts or #structure - 1
    end },
  { what = "list", name = "mailboxes in a list", sizes = { 100, 1000, 10000 },
    ask = function(session) return assert(session:list()) end,
    count = function(mailboxes) return #mailboxes end },
  { what = "header", name = "octets of a header", sizes = { 10240, 102400, 1048576 },
    ask = fetch "headers", count = function(message) return #message.headers end },
  { what = "envelope", name = "addresses in an envelope", sizes = { 100, 1000, 10000 },
    ask = fetch "envelope", count = function(message) return #message.envelope.to end },
}

-- Asks for `n` of it, some times over.
-- Returns the CPU seconds of the quickest time, and how many were counted.
function growth.measure(case, n, times)
  local peer <close> = Peer.start(answer_all, { what = case.what, n = n, times = times })
  local session <close> = assert(imap.connect {
    host = "127.0.0.1", port = peer.port, tls = "none",
  })
  local quickest, counted = math.huge, nil
  for _ = 1, times do
    collectgarbage()
    local before = os.clock()
    local got = case.ask(session)
    quickest = math.min(quickest, os.clock() - before)
    counted = case.count(got)
  end
  return quickest, counted
end

return growth
