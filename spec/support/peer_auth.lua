-- Authentication as a scripted peer's script sees it, the same for all protocols:
--
--   local auth = require "spec.support.peer_auth".open(p, args)
--   local response = auth:begins "SCRAM-SHA-256"
--   local answer = auth:asks "a challenge"
--   auth:accepts()
--
-- Arguments of the peer: `protocol`; `offers`, the list of mechanisms; `capabilities`, a list
-- of further ones; and those of the dialogues in peer_dialogues.lua (`cert`, `key`, `secure`,
-- `implicit`, `max` ...).

local mime = require "mime"
local scram = require "spec.support.peer_scram"

local peer_auth = {}

local Auth = {}
Auth.__index = Auth

local words = {
  smtp = { challenge = "334 ", yes = "235 2.7.0 ", no = "535 5.7.8 " },
  imap = { challenge = "+ ", yes = "OK [CAPABILITY IMAP4rev1] ",
    no = "NO [AUTHENTICATIONFAILED] " },
  pop3 = { challenge = "+ ", yes = "+OK ", no = "-ERR [AUTH] " },
}

-- The capabilities that offer the mechanisms.
local function capabilities(protocol, offers, further)
  local list = table.move(further, 1, #further, 1, {})
  if protocol == "imap" then
    for _, name in ipairs(offers) do list[#list + 1] = "AUTH=" .. name end
  elseif #offers > 0 then
    list[#list + 1] = (protocol == "smtp" and "AUTH " or "SASL ") .. table.concat(offers, " ")
  end
  if #list == 0 then list[1] = "X-NOTHING" end
  return list
end

local function decode(base64)
  if base64 == "=" then return "" end
  return mime.unb64(base64) or ""
end

--- Speaks up to the capabilities inside TLS.
function peer_auth.open(p, args)
  args.after = capabilities(args.protocol, args.offers or {}, args.capabilities or { "SASL-IR" })
  args.auth = false
  p[args.protocol .. "_upgrade"](p, args)
  return setmetatable({ p = p, args = args, words = words[args.protocol] }, Auth)
end

--- Reads a command. Returns it without its tag and line end.
function Auth:command()
  local line = self.p:line():gsub("\r\n$", "")
  if self.args.protocol == "imap" then
    self.tag, line = line:match "^(%S+) (.*)$"
  end
  return line
end

--- Reads an AUTH command. Returns the mechanism, and the initial response as it was sent.
function Auth:mechanism()
  local line = self:command()
  local mechanism, response = line:match "^AUTH%a* (%S+) ?(.*)$"
  if not mechanism then self.p:fail("expected AUTH, got %q", line) end
  return mechanism, response
end

--- Reads an AUTH command for that mechanism. Returns the initial response: asked for with an
-- empty challenge when the client sent none.
function Auth:begins(expected)
  local mechanism, response = self:mechanism()
  if mechanism ~= expected then self.p:fail("expected AUTH %s, got %s", expected, mechanism) end
  if response == "" then return self:asks "" end
  return decode(response)
end

--- Sends a challenge. Returns the answer.
function Auth:asks(challenge)
  return self:asks_raw(mime.b64(challenge) or "")
end

--- Sends a challenge that is encoded already, or is not base64 at all.
function Auth:asks_raw(challenge)
  self.p:send(self.words.challenge, challenge, "\r\n")
  return decode((self.p:line():gsub("\r\n$", "")))
end

function Auth:says(words_of, text)
  local tag = self.tag and self.tag .. " " or ""
  self.p:send(tag, words_of, text, "\r\n")
end

--- Says yes, and sees that the client closes without another word.
function Auth:accepts(text)
  self:says(self.words.yes, text or "welcome")
  self.p:expect_eof()
end

--- Says no.
function Auth:refuses(text)
  self:says(self.words.no, text or "wrong credentials")
end

--- Says no, and sees that the client closes without another word.
function Auth:refuses_for_good(text)
  self:refuses(text)
  self.p:expect_eof()
end

--- A SCRAM exchange up to the client's last message. Options: see peer_scram.lua.
-- Returns the exchange and the server's last message.
function Auth:scram_to_proof(mechanism, options)
  local p = self.p
  local data = options.binding and p:channel_binding(options.binding)
  local exchange = scram.new(options, data)
  local reply = exchange:first(self:begins(mechanism))
  return exchange, exchange:final(self:asks(reply))
end

--- A whole SCRAM exchange. Returns what the client said about channel binding.
function Auth:scram(mechanism, options)
  local exchange, final = self:scram_to_proof(mechanism, options)
  self:asks(final)
  return exchange.flag
end

return peer_auth
