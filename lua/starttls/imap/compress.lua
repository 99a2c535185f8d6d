--- IMAP: compression of all that is said (COMPRESS=DEFLATE, RFC 4978).
-- May rely on starttls.imap.class, starttls.session, starttls.arguments and starttls.error.
local Imap = require "starttls.imap.class"
local session = require "starttls.session"
local arguments = require "starttls.arguments"
local errors = require "starttls.error"

local function fail(kind, message)
  return nil, errors.new { kind = kind, during = "compress", message = message }
end

--- Why a session can't begin to compress: nil and an error; or true.
-- Compression tells by the length of what is sent what is in it, so that no credential may ever
-- be: it begins behind authentication, and as long as it lasts there is no way back before that.
local function check(self)
  local failed = self.core:error()
  if failed then return nil, failed end
  if self.core:is_compressed() then
    return fail("rejected", "the session is compressed already")
  elseif not self.core:is_authenticated() then
    return fail("auth", "a session is compressed only when it is authenticated")
  elseif not self:has "COMPRESS=DEFLATE" then
    return fail("unsupported", "the server can't compress: it lacks COMPRESS=DEFLATE")
  end
  return true
end

--- Compresses everything from here on, in both directions, inside of TLS (RFC 4978).
-- Worth it for text over a slow link; it costs processor time on both sides. It lasts as long
-- as the session: security().compressed is true then, and UNAUTHENTICATE is not possible.
-- @return the reply; or nil and an error: `unsupported` when the server doesn't offer
--         COMPRESS=DEFLATE, `auth` when the session isn't authenticated, `rejected` when it is
--         compressed already or the server says no, with the status COMPRESSIONACTIVE where a
--         layer below compresses. Later, data that can't be decoded is of kind `protocol`.
function Imap:compress()
  local ready, err = self:drain()
  if ready then ready, err = check(self) end
  if not ready then return nil, err end
  local reply, why = session.exchange(self, "compress", "compress", {},
    arguments.of("COMPRESS", "DEFLATE"):unpack())
  if not reply then return nil, why end
  if reply.status == "COMPRESSIONACTIVE" then
    return nil, errors.from_reply("rejected", "compress",
      "a layer below the session compresses already", reply)
  end
  return self:judge("compress", reply)
end
