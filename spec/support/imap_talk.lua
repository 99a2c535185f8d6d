-- An IMAP session that talks with a scripted peer, in the clear, command by command:
--
--   imap_talk.converse({
--     { "UID SEARCH SUBJECT {3}\r\na\nb", "* SEARCH 1\r\n%T OK done\r\n" },
--   }, function(session)
--     assert.same({ 1 }, session:search { subject = "a\nb" })
--   end, { capabilities = { "ESEARCH" } })
--
-- The peer takes each command with its literals, in the order of the list: a number of octets
-- that waits ("{3}") gets its "+ ". The command that comes must be the one of the list, from
-- behind its tag on and without the line's end. In the answer "%T" is the tag; "%1" is the tag
-- of the first command, "%2" that of the second.

local Peer = require "spec.support.peer"

local imap_talk = {}

-- A command, and its tag.
local function read_command(p)
  local tag, line = p:imap_expect ""
  local parts = { line:sub(#tag + 2) }
  while true do
    local size, plus = parts[#parts]:match "{(%d+)(%+?)}\r\n$"
    if not size then break end
    if plus == "" then p:send "+ go on\r\n" end
    parts[#parts + 1] = p:read(math.tointeger(size))
    parts[#parts + 1] = p:line()
  end
  return table.concat(parts):sub(1, -3), tag
end

--- The peer's part.
function imap_talk.play(p, args)
  local tags = {}
  p:imap_upgrade { secure = false, auth = false, after = args.capabilities }
  for _, exchange in ipairs(args.exchanges) do
    local command, tag = read_command(p)
    if command ~= exchange[1] then p:fail("expected %q, got %q", exchange[1], command) end
    tags[#tags + 1], tags.T = tag, tag
    p:send((exchange[2]:gsub("%%(%w)", function(name)
      return tags[name] or tags[math.tointeger(tonumber(name))]
    end)))
  end
end

--- Runs `use(session)` against a peer that expects these commands and gives these answers.
-- @param exchanges  array of { command, answer }; an answer may be ""
-- @param use        function(session)
-- @param more       optional: `capabilities` of the peer, `on` and `limits` of the session
function imap_talk.converse(exchanges, use, more)
  local imap = require "starttls.imap" -- not in the peer's process, which has no sanitizers
  more = more or {}
  local peer <close> = Peer.start(function(p, args)
    require("spec.support.imap_talk").play(p, args)
  end, { exchanges = exchanges, capabilities = more.capabilities or {} })
  local session <close> = assert(imap.connect { host = "127.0.0.1", port = peer.port, tls = "none",
    on = more.on, limits = more.limits })
  local used, why = pcall(use, session)
  session:close()
  local record = peer:finish()
  assert(record.ok, record.error) -- where the command was wrong, all that follows is
  if not used then error(why, 0) end
end

return imap_talk
