-- Scripted IMAP dialogues for specs: what the client must say, line by line, and what it is told.
--
--   converse({ "IDLE", { "+ idling\r\n* 1 EXISTS\r\n" }, "DONE", { "%T OK done\r\n" } },
--     function(session) ... end, { capabilities = { "IDLE" }, options = { on = ... } })
--
-- In the clear and without a login, as neither makes a difference to what is tested with it.

local patience = require "spec.support.patience"
local Peer = require "spec.support.peer"

local imap_script = {}

-- The peer's part. Steps: a line without its tag that must come next ("DONE" has none); or what
-- is said: { "..." }, in which "%T" is the tag of the last command; { cut = true } hangs up,
-- { silent = true } says nothing more,
-- { pause = seconds } waits, { quiet = true } makes sure that nothing has come.
local function play(p, args)
  p:imap_upgrade { secure = false, auth = false, after = args.capabilities }
  local tag = ""
  for number, step in ipairs(args.steps) do
    if type(step) == "string" then
      local line = p:line()
      if step ~= "DONE" then tag = line:match "^%S+" end
      local command = step == "DONE" and line or line:sub(#tag + 2)
      if command ~= step .. "\r\n" then
        p:fail("step %d: expected %q, got %q", number, step, line)
      end
    elseif step.cut then return p:cut()
    elseif step.pause then p:sleep(step.pause)
    elseif step.silent then return p:wait_for_close()
    elseif step.quiet then
      p:sleep(0.01)
      if p.buffer ~= "" or p:receive_now() then p:fail("step %d: not quiet", number) end
    else
      p:send((step[1]:gsub("%%T", tag)))
    end
  end
end

--- Runs `use(session)` against a peer that plays the steps; an error unless both end well.
-- `more`: the peer's `capabilities`, { "IDLE" } unless told; `options` for connect().
function imap_script.converse(steps, use, more)
  more = more or {}
  local peer <close> = Peer.start(play,
    { steps = steps, capabilities = more.capabilities or { "IDLE" } })
  local options = { host = "127.0.0.1", port = peer.port, tls = "none",
    timeout = patience.seconds(10) }
  for name, value in pairs(more.options or {}) do options[name] = value end
  local session <close> = assert(require("starttls.imap").connect(options))
  local fine, why = pcall(use, session)
  session:close()
  local record = peer:finish()
  if not record.ok then error(("%s\n%s"):format(record.error, why), 0) end
  if not fine then error(why, 0) end
end

--- "exists 5", "vanished 3:4": an event, in short.
function imap_script.short(event)
  local value = event.value
  if type(value) == "table" then
    value = value.uids or value.name or value.done or value.uid or value.seq
      or table.concat(value, ",")
  end
  return event.type .. " " .. tostring(value)
end

return imap_script
