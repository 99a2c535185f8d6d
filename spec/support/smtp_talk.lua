-- What specs of SMTP sessions share: sessions in clear text with scripted peers, the server of
-- peer_smtp.lua, and a few assertions.

local assert = require "luassert"
local Peer = require "spec.support.peer"

local talk = {}

function talk.connect(port, more)
  local options = { host = "127.0.0.1", port = port, tls = "none" }
  for name, value in pairs(more or {}) do options[name] = value end
  return require("starttls.smtp").connect(options)
end

function talk.envelope(to, message, binary)
  return { from = "sender@example.test", to = to or "a@example.test",
    message = message or "x\r\n", body = binary and "binarymime" or nil }
end

-- Uses a session with the peer, which then has to end well. Returns what its script returns.
local function use_with(peer, use)
  local session <close> = assert(talk.connect(peer.port))
  use(session)
  session:close()
  local record = peer:finish()
  assert.is_true(record.ok, record.error)
  return record.result
end

--- Runs `use(session)` against a peer that offers `extensions` and runs `script(p)` then.
-- Returns what the script returns.
function talk.converse(extensions, script, use)
  local peer <close> = Peer.start(function(p, args)
    p:smtp_upgrade { secure = false, auth = false, after = args.extensions }
    return load(args.script, "=script", "b")(p)
  end, { extensions = extensions, script = string.dump(script) })
  return use_with(peer, use)
end

--- The same against the server of peer_smtp.lua. Returns the messages that it took.
function talk.serve(extensions, use, options)
  local peer <close> = Peer.start(function(p, args)
    p:smtp_upgrade { secure = false, auth = false, after = args.extensions }
    return p:smtp_serve(args.options)
  end, { extensions = extensions, options = options or {} })
  return use_with(peer, use)
end

--- The fields of an error, or of anything, that the case names.
function talk.assert_fields(expected, actual)
  for name, value in pairs(expected) do
    assert.same(value, actual[name], ("%s of %s"):format(name, tostring(actual)))
  end
end

--- The session goes on.
function talk.assert_alive(session)
  assert(session:noop())
  assert.is_true(session:quit())
end

--- What send_all says, as an array of { result or false, error, message }.
function talk.outcomes(session, messages, settings)
  local list = {}
  for number, result, err, message in session:send_all(messages, settings) do
    list[#list + 1] = { result or false, err, message }
    assert.equals(#list, number)
  end
  return list
end

--- The content of each message that the server took.
function talk.contents(taken)
  local list = {}
  for i, mail in ipairs(taken) do list[i] = mail.content end
  return list
end

--- Extensions with which messages go out in different ways.
talk.ways = {
  ["in chunks"] = { "PIPELINING", "CHUNKING" }, ["as text"] = { "PIPELINING" },
  ["one at a time"] = {}, ["one at a time in chunks"] = { "CHUNKING" },
}

return talk
