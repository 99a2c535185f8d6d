--- What an SMTP session can ask the server about: addresses (VRFY, EXPN), help, its limits, and
-- mail that waits there (ETRN). Methods, which smtp.lua takes into its class.
-- May rely on starttls.core, starttls.session, starttls.arguments, starttls.error and
-- starttls.smtp.parameters.
local core = require "starttls.core"
local arguments = require "starttls.arguments"
local errors = require "starttls.error"
local limits = require "starttls.smtp.limits"
local parameters = require "starttls.smtp.parameters"
local session = require "starttls.session"

local Queries = {}

--- RFC 5321 4.2.4: the server does not know, or does not do, what it was asked for.
local not_implemented = { [500] = true, [502] = true, [504] = true }

--- Runs one of these commands.
-- @return the reply; or nil and an error: "unsupported" where the server has no such command, else
--         "rejected", both with the addresses that a refusal may name (RFC 5321 3.5.3, code 553)
local function ask(self, args)
  local name = args.name
  local reply, err = session.exchange(self, name, "reply", {}, args:unpack())
  if not reply or reply.class == "positive" then return reply, err end
  if not_implemented[reply.code] then
    return nil, errors.from_reply("unsupported", name, "the server does not do " .. name:upper(),
      reply)
  end
  return self:judge(name, reply)
end

--- The addresses in a reply (RFC 5321 3.5.3): each line has one, alone or in angle brackets
-- behind a name; other lines are words for people.
local function addresses_in(text)
  local found = {}
  for line in text:gmatch "[^\n]+" do
    local name, address = line:match "^%s*(.-)%s*<([^<>%s]+@[^<>%s]+)>"
    if not address then address = line:match "^%s*([^<>%s]+@[^<>%s]+)%s*$" end
    if address then
      found[#found + 1] = { address = address, name = name and name ~= "" and name or nil }
    end
  end
  return found
end

--- The argument of VRFY or EXPN, with SMTPUTF8 behind it where it needs that (RFC 6531 3.7.4.2).
local function about(self, verb, text)
  local args = arguments.of(verb)
  if type(text) == "string" then
    if not text:find "%S" then error(args.name .. ": the text is empty", 0) end
    if not utf8.len(text) then error(args.name .. ": the text is not valid UTF-8", 0) end
  end
  args:add("text", text)
  if not core.is_8bit(text) then return args end
  local with_utf8 = self:has "SMTPUTF8"
  local address, err = parameters.wire_address(text, with_utf8)
  if not address then
    err.during = args.name
    return nil, err
  end
  args[#args] = address
  if with_utf8 then args:add("atom", "SMTPUTF8") end
  return args
end

local function query(self, verb, text)
  local args, err = about(self, verb, text)
  if not args then return nil, err end
  local reply
  reply, err = ask(self, args)
  if reply then reply.addresses = addresses_in(reply.text)
  elseif err.code == 553 then err.addresses = addresses_in(err.text) end
  return reply, err
end

--- Asks whether an address or a user's name is known (VRFY, RFC 5321 3.5). Most servers won't tell.
-- @param text  an address, or what the server may take for one
-- @return the reply { code, status, text } with `verified` (false for 252: the server takes mail
--         for it, but says nothing of it) and `addresses`, an array of { address, name }; or nil
--         and an error: "unsupported" where the server does not do VRFY, "rejected" where it does
--         not know the address (err.addresses has the possibilities of a 553)
function Queries:verify(text)
  local reply, err = query(self, "VRFY", text)
  if reply then reply.verified = reply.code ~= 252 end
  return reply, err
end

--- Asks who is on a mailing list (EXPN, RFC 5321 3.5).
-- @return the reply with `addresses`, an array of { address, name }; or nil and an error, as verify
function Queries:expand(list)
  return query(self, "EXPN", list)
end

--- Asks for help (HELP, RFC 5321 4.1.1.8).
-- @param topic  a command's name, say; default: help in general
-- @return the reply, whose `text` may have several lines; or nil and an error
function Queries:help(topic)
  local args = arguments.of "HELP"
  if topic ~= nil then args:add("text", topic) end
  return ask(self, args)
end

--- Asks the server to send what it keeps for a node (ETRN, RFC 1985).
-- @param node  a domain (UTF-8 as well), "@" and a domain for that and all below it, or "#" and
--              the name of a queue
-- @return the reply, with `pending`: how many messages the server says it is about to send
--         (code 253, and 0 for 251); or nil and an error
function Queries:etrn(node)
  local args = arguments.of("ETRN"):add("atom", node)
  if not self:has "ETRN" then
    return nil, errors.new { kind = "unsupported", during = "etrn",
      message = "the server does not offer ETRN" }
  end
  if core.is_8bit(node) then
    local sign, domain = node:match "^([@#]?)(.*)$"
    local ascii, why = core.to_ascii(domain)
    if not ascii then error("etrn: " .. why, 0) end
    args[#args] = sign .. ascii
  end
  local reply, err = ask(self, args)
  if not reply then return nil, err end
  if reply.code == 251 then reply.pending = 0 end
  if reply.code == 253 then reply.pending = math.tointeger(tonumber(reply.text:match "%d+")) end
  return reply
end

--- What the server limits, and says so (LIMITS, RFC 9422).
-- @return a table: mailmax (transactions in this session), rcptmax (recipients of one message),
--         rcptdomainmax (different domains of recipients in this session), and other limits that
--         are numbers, by their names in lower case; nil for each that is not announced
function Queries:limits()
  local _, announced = self:has "LIMITS"
  return limits.read(announced)
end

return Queries
