-- What the library makes of responses, whatever they are: a scripted peer says them in answer to
-- NOOP, one NOOP for each text, and they come back as the core's values.
--
--   local answers = responses.read { "* SEARCH 1 2\r\n", "* 3 EXISTS\r\n" }
--   answers[1].values[1]   { 1, 2 };   answers[2].names[1], answers[2].numbers[1]   "EXISTS", 3
--
-- A text is followed by a tagged OK, unless it has one itself ("%T" is the tag). An answer also
-- has `reply`, or `err`; after an error there are no more answers.

local Peer = require "spec.support.peer"

local imap = require "starttls.imap"

local responses = {}

local function follow(p, args)
  p:imap_upgrade { secure = false, auth = false, after = {} }
  for _, text in ipairs(args.texts) do
    local tag = p:imap_expect "^NOOP"
    local answer = text:find("%T", 1, true) and text or text .. "%T OK done\r\n"
    answer = answer:gsub("%%T", tag)
    if args.slow then p:send_slowly(answer, 0) else p:send(answer) end
  end
end

-- Fields of an answer by the events of the core's operation.
local take = {}

function take.untagged(answer, name, number, value)
  local at = #answer.names + 1
  answer.names[at], answer.numbers[at], answer.values[at] = name, number, value
end

function take.content(answer, piece, _, _, section)
  answer.content[section] = (answer.content[section] or "") .. piece
end

function take.reply(answer, reply)
  answer.reply = reply
end

local function ask(core)
  local answer = { names = {}, numbers = {}, values = {}, content = {} }
  local operation <close> = core:command("noop", "reply", "atom", "NOOP")
  while true do
    local event, a, b, c, d = operation:next()
    if event == "done" then return answer end
    if not event then
      answer.err = a
      return answer
    end
    if take[event] then take[event](answer, a, b, c, d) end
  end
end

--- Reads the texts, in one session.
-- @param texts    an array
-- @param options  slow = true: byte by byte; limits as in connect
-- @return an array of answers
function responses.read(texts, options)
  options = options or {}
  local peer <close> = Peer.start(follow, { texts = texts, slow = options.slow })
  local session <close> = assert(imap.connect { host = "127.0.0.1", port = peer.port, tls = "none",
    limits = options.limits })
  local answers = {}
  for index in ipairs(texts) do
    answers[index] = ask(session.core)
    if answers[index].err then break end
  end
  return answers
end

--- The value of the first response in a text.
function responses.value(text, options)
  local answer = responses.read({ text }, options)[1]
  assert(not answer.err, tostring(answer.err))
  return answer.values[1]
end

return responses
