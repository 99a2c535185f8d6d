--- Adding messages to a mailbox (RFC 9051 6.3.12), several at once (MULTIAPPEND, RFC 3502), from
-- parts that the server has (CATENATE, RFC 4469), in place of another (REPLACE, RFC 8508).
-- May rely on starttls.imap.class, starttls.imap.letter, starttls.imap.chain,
-- starttls.imap.removal, starttls.arguments, starttls.core, starttls.error and starttls.settings.
local Imap = require "starttls.imap.class"
local letter = require "starttls.imap.letter"
local chain = require "starttls.imap.chain"
local removal = require "starttls.imap.removal"
local arguments = require "starttls.arguments"
local core = require "starttls.core"
local errors = require "starttls.error"
local check_settings = require("starttls.settings").check

-- {====== The largest message that a mailbox takes (RFC 7889) ======

local function check_sizes(during, letters, limit)
  for _, made in ipairs(letters) do
    if limit and made.size > limit then
      return nil, errors.new { kind = "rejected", during = during,
        message = ("the message has %d octets, and the mailbox takes at most %d")
          :format(made.size, limit) }
    end
  end
  return true
end

--- RFC 7889 3.2: the mailbox's own limit. Whatever else is wrong with the mailbox, APPEND tells.
local function limit_request(during, mailbox)
  return {
    during = during, alone = true, wanted = "STATUS",
    args = arguments.of("STATUS"):add("mailbox", mailbox):add_list("atom", { "APPENDLIMIT" }),
    accepts = function() return true end,
    finish = function(reply, values)
      if reply.class ~= "positive" then return {} end
      local limit = values[1] and values[1].appendlimit
      return { limit = math.type(limit) == "integer" and limit or math.huge }
    end,
  }
end

--- The request, once it is known that the letters are not too large. A limit for all mailboxes
-- stands in the capability; one of each mailbox is asked for, once in a session.
local function within_limit(self, during, mailbox, letters, request)
  local offered, value = self:has "APPENDLIMIT"
  if not offered then return request end
  self.append_limits = self.append_limits or {}
  local limit = tonumber(value) or self.append_limits[mailbox]
  if limit then
    local small, err = check_sizes(during, letters, limit)
    return small and request, err
  end
  return chain.behind(limit_request(during, mailbox), function(told)
    self.append_limits[mailbox] = told.limit
    local small, err = check_sizes(during, letters, told.limit)
    return small and request, err
  end)
end

-- }======

-- {====== Requests ======

--- RFC 4315 3: one UID for each message, in their order; nothing is made of what is not so.
-- @return an array of { uid, uidvalidity }, which are empty where the server did not tell
local function places_of(told, count)
  local is_told = type(told) == "table" and told.uidvalidity -- a code may come without arguments
  local uids, places = is_told and core.numbers_of(told.uids), {}
  for index = 1, count do
    places[index] = uids and #uids == count
      and { uid = uids[index], uidvalidity = told.uidvalidity } or {}
  end
  return places
end

--- A command that adds letters. With URLs alone the core sees no message's end, behind which
-- nobody knows what became of it.
-- @param args  the command up to the mailbox's name
-- @return a request for an array as places_of gives
local function adding(during, args, letters)
  local sources, told = {}, nil
  for _, made in ipairs(letters) do letter.write(made, args, sources) end
  return chain.telling({
    during = during, alone = true, args = args,
    handlers = { want_content = letter.feeder(sources, during) },
    take = function(name, _, value) -- RFC 8508 3.3: of REPLACE it comes before the EXPUNGE
      if name ~= "OK" or not value.appenduid then return false end
      told = value.appenduid
      return true
    end,
    finish = function(reply) return places_of(reply.appenduid or told, #letters) end,
  }, function(fields)
    if #sources == 0 and (fields.kind == "closed" or fields.kind == "timeout") then
      fields.delivery = "unknown"
    end
  end)
end

local function append_request(self, during, mailbox, letters)
  local args = arguments.of("APPEND"):add("mailbox", mailbox)
  return within_limit(self, during, mailbox, letters, adding(during, args, letters))
end

local function only_place(places)
  return { result = places[1] }
end

-- }======

--- Adds a message to a mailbox (RFC 9051 6.3.12). Line ends become CRLF, unless it is binary.
-- @param mailbox   its name. Where it does not exist the error's `status` is "TRYCREATE" if it
--                  could be created
-- @param message   string, open file, LTN12 source or message of starttls.message; or an array of
--                  parts (CATENATE, RFC 4469):
--                  of these, and of tables that name a message or a part of one on this server:
--                  { mailbox, uid, uidvalidity, section = "1.2", partial = "0.1024" (octets from,
--                  how many; needs URL-PARTIAL) }, of which section, partial and uidvalidity may
--                  be left out
-- @param settings  flags = { "\\Seen" }; date = seconds since the epoch, or a date-time of RFC
--                  9051; binary = true: octets of any kind, left as they are (BINARY, RFC 3516
--                  4.4), which a message with a NUL octet is anyhow; utf8 = true: the message has
--                  UTF-8 in its header, and the server wants that said (RFC 6855 4, which RFC 9755
--                  took back), when UTF8=ACCEPT is enabled; size = octets of the message: it is
--                  sent as it comes, without being measured first
-- @return a table with uid and uidvalidity where the server tells (UIDPLUS); or nil and an error,
--         whose `delivery` is "unknown" when the connection was lost behind the message's end
Imap.define("append", function(self, mailbox, message, settings)
  local made, err = letter.new(self, "append", message, settings)
  if not made then return nil, err end
  local request, too_big = append_request(self, "append", mailbox, { made })
  if not request then return nil, too_big end
  return chain.behind(request, only_place)
end)

-- {====== Several at once ======

local function letters_of(self, messages)
  local letters = {}
  for index, given in ipairs(messages) do
    if type(given) ~= "table" then error("append_all: each message must be a table", 0) end
    local settings = {}
    for name, value in pairs(given) do settings[name] = name ~= "message" and value or nil end
    local made, err = letter.new(self, "append_all", given.message, settings)
    if not made then return nil, err end
    letters[index] = made
  end
  return letters
end

--- One APPEND for each letter. When one fails, the error's `done` has the places of those before.
local function append_in_turn(self, mailbox, letters)
  local places = {}
  local function tell(fields)
    fields.done = places
  end
  local function request_for(index)
    local request, err = append_request(self, "append_all", mailbox, { letters[index] })
    if not request then return nil, err end
    return chain.behind(chain.telling(request, tell), function(told)
      places[index] = told[1]
      if index == #letters then return { result = places } end
      return request_for(index + 1)
    end)
  end
  return request_for(1)
end

--- Adds several messages to a mailbox: all of them or none (MULTIAPPEND, RFC 3502).
-- @param mailbox   its name
-- @param messages  array of { message, flags, date, binary, utf8, size }: as for append
-- @param settings  separately = true: where the server lacks MULTIAPPEND, add one after the other;
--                  when one fails, those before it stay, and the error's `done` tells where
-- @return an array of tables as append returns; or nil and an error
Imap.define("append_all", function(self, mailbox, messages, settings)
  if type(messages) ~= "table" then error("append_all: the messages must be an array", 0) end
  local separately = check_settings("append_all", settings, "separately").separately
  if #messages == 0 then return { result = {} } end
  local able, lacking = self:needs("append_all", "MULTIAPPEND")
  local in_turn = #messages > 1 and not able
  if in_turn and not separately then return nil, lacking end
  local letters, err = letters_of(self, messages)
  if not letters then return nil, err end
  if in_turn then return append_in_turn(self, mailbox, letters) end
  return append_request(self, "append_all", mailbox, letters)
end)

-- }======

-- {====== In place of another ======

--- RFC 8508 3.2: what REPLACE is in terms of older commands.
local function append_and_remove(self, uid, mailbox, made)
  if not self:has "UIDPLUS" then return nil, Imap.unsupported("replace", "REPLACE or UIDPLUS") end
  local request, err = append_request(self, "replace", mailbox, { made })
  if not request then return nil, err end
  return chain.behind(request, function(places)
    return removal("replace", ("%d"):format(uid), "the new message was added", places[1])
  end)
end

--- Replaces a message of the selected mailbox by another one, as for a draft (REPLACE, RFC 8508).
-- Where the server lacks that, the new one is added, and then the old one removed with STORE and
-- UID EXPUNGE: in between both are there.
-- @param uid       of the message to be replaced
-- @param mailbox   where the new one goes, which may be another mailbox
-- @param message   as for append
-- @param settings  as for append
-- @return as append; or nil and an error, whose `copied` is the new one's place when it was added
--         and the old one could not be removed
Imap.define("replace", function(self, uid, mailbox, message, settings)
  if math.type(uid) ~= "integer" or uid < 1 then
    error("replace: the uid must be a positive integer", 0)
  end
  local made, err = letter.new(self, "replace", message, settings)
  if not made then return nil, err end
  if not self:has "REPLACE" then return append_and_remove(self, uid, mailbox, made) end
  local args = arguments.of("UID", "REPLACE"):add("number", ("%d"):format(uid))
  local request = adding("replace", args:add("mailbox", mailbox), { made })
  local allowed, too_big = within_limit(self, "replace", mailbox, { made }, request)
  if not allowed then return nil, too_big end
  return chain.behind(allowed, only_place)
end)

-- }======
