-- The server's side of SCRAM (RFC 5802, RFC 7677) for the scripted peer, with
-- channel binding, which neither Dovecot 2.3 nor Debian's Exim has. `p:scram` in
-- peer_dialogues.lua carries its messages.
--
-- Options: `hash` ("sha1", "sha256"), `password`, `iterations` (4096), `salt`,
-- `binding` (nil: the mechanism without -PLUS); to misbehave `nonce` (replaces
-- the client's part of the nonce) and `signature` (replaces the server's).
-- `first` and `final` raise an error when the client's message is wrong.

local mime = require "mime"

local scram = {}

local Exchange = {}
Exchange.__index = Exchange

--- A new exchange; `binding_data`: what `options.binding` says of the channel.
function scram.new(options, binding_data)
  return setmetatable({
    hash = options.hash or "sha256", password = options.password,
    iterations = options.iterations or 4096, salt = options.salt or "salt of the specs",
    binding = options.binding, binding_data = binding_data or "",
    given_nonce = options.nonce, given_signature = options.signature,
  }, Exchange)
end

local sizes = { sha1 = 20, sha256 = 32 }

local function exclusive_or(a, b)
  local out = {}
  for i = 1, #a do out[i] = string.char(a:byte(i) ~ b:byte(i)) end
  return table.concat(out)
end

function Exchange:mac(key, text)
  return require "openssl.hmac".new(key, self.hash):final(text)
end

function Exchange:salted_password()
  return require "openssl.kdf".derive {
    type = "PBKDF2", pass = self.password, salt = self.salt, iter = self.iterations,
    md = self.hash, outlen = sizes[self.hash],
  }
end

--- Takes the client's first message, returns the server's. Sets `user` and
-- `flag`: "n", "y", or "p=..." as the client said about channel binding.
function Exchange:first(message)
  local header, flag, bare = message:match "^((%w[^,]*),[^,]*,)(.*)$"
  local user, nonce = (bare or ""):match "^n=([^,]*),r=([^,]+)"
  if not user then error(("not a SCRAM message: %q"):format(message), 2) end
  local wanted = self.binding and "p=" .. self.binding
  if wanted and flag ~= wanted or not wanted and flag:sub(1, 1) == "p" then
    error(("channel binding: expected %s, got %s"):format(wanted or "none", flag), 2)
  end
  self.header, self.flag, self.bare = header, flag, bare
  self.user = user:gsub("=2C", ","):gsub("=3D", "=")
  self.nonce = (self.given_nonce or nonce) .. "SERVER"
  self.reply = ("r=%s,s=%s,i=%d"):format(self.nonce, (mime.b64(self.salt)), self.iterations)
  return self.reply
end

--- Takes the client's final message, returns the server's.
function Exchange:final(message)
  local without_proof, proof = message:match "^(.*),p=(.*)$"
  local binding, nonce = (without_proof or ""):match "^c=([^,]*),r=([^,]*)"
  if not binding then error(("not a SCRAM message: %q"):format(message), 2) end
  if nonce ~= self.nonce then error("wrong nonce", 2) end
  if mime.unb64(binding) ~= self.header .. self.binding_data then
    error("the channel binding does not match", 2)
  end
  local text = table.concat({ self.bare, self.reply, without_proof }, ",")
  local salted = self:salted_password()
  local client_key = self:mac(salted, "Client Key")
  local stored = require "openssl.digest".new(self.hash):final(client_key)
  local expected = exclusive_or(client_key, self:mac(stored, text))
  if mime.unb64(proof) ~= expected then error("wrong password", 2) end
  local signature = self:mac(self:mac(salted, "Server Key"), text)
  return "v=" .. (mime.b64(self.given_signature or signature))
end

return scram
