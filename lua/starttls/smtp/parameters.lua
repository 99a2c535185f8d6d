--- What an envelope asks of the server: the parameters of MAIL and RCPT that extensions define.
-- May rely on starttls.core, starttls.addresses, starttls.arguments, starttls.content and
-- starttls.error.
--
-- In two steps. `check` looks at what the caller gave, and raises on misuse. `mail` and
-- `recipients` hold it against what the server offers and announces, and fail with an error of
-- kind "unsupported": nothing that was asked for is ever left out silently. Both before MAIL.
local core = require "starttls.core"
local addresses = require "starttls.addresses"
local arguments = require "starttls.arguments"
local content = require "starttls.content"
local errors = require "starttls.error"

local parameters = {}

local function misuse(format, ...)
  error("send: " .. format:format(...), 0)
end

local function unsupported(format, ...)
  return nil, errors.new { kind = "unsupported", during = "mail", message = format:format(...) }
end

local function not_offered(name, extension)
  return unsupported("'%s' needs %s, which the server does not offer", name, extension)
end

-- Values --------------------------------------------------------------------------------------

local function check_type(value, expected, what)
  if type(value) ~= expected then
    misuse("%s must be a %s, not a %s", what, expected, type(value))
  end
  return value
end

local function check_flag(value, what)
  if value ~= nil then check_type(value, "boolean", what) end
  return value
end

local function check_integer(value, least, most, what)
  if math.type(value) ~= "integer" or value < least or value > most then
    misuse("%s must be an integer from %d to %d", what, least, most)
  end
  return value
end

local function check_choice(value, choices, what)
  local word = type(value) == "string" and choices[value:lower()]
  if word then return word end
  local names = {}
  for name in pairs(choices) do names[#names + 1] = ("%q"):format(name) end
  table.sort(names)
  misuse("%s must be %s", what, table.concat(names, " or "))
end

--- RFC 6531 3.3: what is not ASCII is UTF-8. All else is checked where it is encoded.
local function check_address(address, what)
  check_type(address, "string", what)
  if not utf8.len(address) then misuse("%s is not valid UTF-8", what) end
  return address
end

--- RFC 3461 4.2, 4.4: what xtext stands for is printable.
local function check_printable(text, what)
  check_type(text, "string", what)
  if text == "" or not utf8.len(text) or text:find "%c" then
    misuse("%s is empty or has a character that can't be printed", what)
  end
  return text
end

--- The octets that a text has as xtext (RFC 3461 4).
local function xtext_length(text)
  local _, escaped = text:gsub("[^!-*,-<>-~]", "")
  return #text + 2 * escaped
end

--- RFC 6533 3, utf-8-addr-xtext: good for any server.
local function utf8_xtext(text)
  return (text:gsub("[\\+= ]", function(c) return ("\\x{%02X}"):format(c:byte()) end)
    :gsub(utf8.charpattern, function(c)
      return #c > 1 and ("\\x{%X}"):format(utf8.codepoint(c)) or c
    end))
end

-- Time (RFC 3339) -----------------------------------------------------------------------------

--- Days from 1970-01-01 to a date of the Gregorian calendar.
local function days_to(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day
    - 719469
end

local month_lengths = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

local function is_date(year, month, day)
  if month < 1 or month > 12 or day < 1 or day > month_lengths[month] then return false end
  local leap = year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
  return month ~= 2 or day < 29 or leap
end

--- A date-time as RFC 3339 5.6 writes it, in seconds since the epoch; or nil.
local function seconds_of(text)
  local year, month, day, hour, minute, second, zone =
    text:match "^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt](%d%d):(%d%d):(%d%d)(.*)$"
  if not year then return nil end
  zone = zone:gsub("^%.%d+", "")
  local sign, hours, minutes = zone:match "^([+-])(%d%d):(%d%d)$"
  if not (sign or zone == "Z" or zone == "z") then return nil end
  year, month, day = tonumber(year), tonumber(month), tonumber(day)
  hour, minute, second = tonumber(hour), tonumber(minute), tonumber(second)
  if not is_date(year, month, day) or hour > 23 or minute > 59 or second > 60 then return nil end
  local offset = sign and tonumber(hours) * 3600 + tonumber(minutes) * 60 or 0
  if sign and (tonumber(hours) > 23 or tonumber(minutes) > 59) then return nil end
  return days_to(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
    - (sign == "-" and -offset or offset)
end

local last_second = 253402300799 -- of the year 9999, the last that RFC 3339 can write

local function check_time(value, what)
  if type(value) == "string" then
    local seconds = seconds_of(value)
    if not seconds then misuse("%s must be a time as in 2030-01-31T08:00:00Z (RFC 3339)", what) end
    return { text = value:upper(), seconds = seconds }
  end
  check_integer(value, 0, last_second, what)
  return { text = os.date("!%Y-%m-%dT%H:%M:%SZ", value), seconds = value }
end

-- The fields that become parameters of MAIL ---------------------------------------------------
-- In the order in which they are sent. `check` makes what is written of what the caller gave,
-- or raises. `within`: why the server's announcement (what follows the keyword in its answer to
-- EHLO), or the session itself, rules the value out, or nil.

local longest_hold = 999999999 -- RFC 2852 4, RFC 4865 4: nine digits

local function check_deliver_by(given)
  check_type(given, "table", "'deliver_by'")
  for name in pairs(given) do
    if name ~= "seconds" and name ~= "mode" and name ~= "trace" then
      misuse("unknown field '%s' in 'deliver_by'", tostring(name))
    end
  end
  local by = { seconds = given.seconds }
  by.mode = check_choice(given.mode, { ["return"] = "R", notify = "N" }, "deliver_by.mode")
  -- A time that is over is only to be told of, not to be met (RFC 2852 4.1).
  check_integer(by.seconds, by.mode == "R" and 1 or -longest_hold, longest_hold,
    "deliver_by.seconds")
  if given.trace ~= nil then by.trace = check_type(given.trace, "boolean", "deliver_by.trace") end
  return by
end

local function check_auth(value)
  check_printable(value, "'auth'")
  if value == "<>" then return value end
  if not value:find "[^@]@[^@]" then misuse "'auth' must be an address or \"<>\"" end
  local address, why = addresses.to_ascii(value)
  if not address then misuse("'auth' must be ASCII: %s", why) end
  return address
end

local function check_envid(value)
  check_printable(value, "'envid'")
  if core.is_8bit(value) then misuse "'envid' must be ASCII" end
  if xtext_length(value) > 100 then misuse "'envid' has more than 100 octets as xtext" end
  return value
end

local mail_fields = {
  { name = "ret", needs = "DSN", -- RFC 3461 4.3
    check = function(value)
      return check_choice(value, { headers = "HDRS", full = "FULL" }, "'ret'")
    end,
    write = function(args, value) args:add("atom", "RET=" .. value) end },

  { name = "envid", needs = "DSN", -- RFC 3461 4.4
    check = check_envid,
    write = function(args, value) args:add("keyword", "ENVID="):add("xtext", value) end },

  { name = "deliver_by", needs = "DELIVERBY", check = check_deliver_by,
    within = function(by, announced) -- RFC 2852 2: a list, whose first item is the least time
      local least = tonumber((announced:match "^%d+"))
      if by.mode == "R" and least and by.seconds < least then
        return ("the server takes no less than %d seconds"):format(least)
      end
    end,
    write = function(args, by)
      args:add("atom", ("BY=%d;%s%s"):format(by.seconds, by.mode, by.trace and "T" or ""))
    end },

  { name = "hold_for", needs = "FUTURERELEASE", -- RFC 4865 4
    check = function(value) return check_integer(value, 1, longest_hold, "'hold_for'") end,
    within = function(value, announced)
      local most = tonumber((announced:match "^%d+"))
      return most and value > most and ("the server holds for at most %d seconds"):format(most)
    end,
    write = function(args, value) args:add("atom", ("HOLDFOR=%d"):format(value)) end },

  { name = "hold_until", needs = "FUTURERELEASE",
    check = function(value) return check_time(value, "'hold_until'") end,
    within = function(value, announced)
      local last = announced:match "^%d+%s+(%S+)"
      local most = last and seconds_of(last)
      return most and value.seconds > most and ("the server holds until %s at most"):format(last)
    end,
    write = function(args, value) args:add("atom", "HOLDUNTIL=" .. value.text) end },

  -- RFC 6710 4.1: a server takes all of these values, however few its profile tells apart.
  { name = "priority", needs = "MT-PRIORITY",
    check = function(value) return check_integer(value, -9, 9, "'priority'") end,
    write = function(args, value) args:add("atom", ("MT-PRIORITY=%d"):format(value)) end },

  { name = "require_tls", needs = "REQUIRETLS",
    check = function(value) return check_type(value, "boolean", "'require_tls'") or nil end,
    within = function(_, _, session) -- RFC 8689 4.1: else anybody could have made the offer up
      local channel = session.core:security()
      if not (channel.encrypted and channel.verified) then
        return "the channel is not encrypted and verified"
      end
    end,
    write = function(args) args:add("atom", "REQUIRETLS") end },

  { name = "auth", needs = "AUTH", -- RFC 4954 5
    check = check_auth,
    write = function(args, value) args:add("keyword", "AUTH="):add("xtext", value) end },

  { name = "body", -- RFC 6152 2, RFC 3030 3
    needs = function(value) return value == "BINARYMIME" and "BINARYMIME" or "8BITMIME" end,
    check = function(value)
      return check_choice(value,
        { ["7bit"] = "7BIT", ["8bitmime"] = "8BITMIME", binarymime = "BINARYMIME" }, "'body'")
    end,
    within = function(value, _, session)
      if value == "BINARYMIME" and not session:has "CHUNKING" then
        return "the server does not offer CHUNKING, which it needs"
      end
    end,
    write = function(args, value) args:add("atom", "BODY=" .. value) end },
}

--- The fields of a recipient's table, which are parameters of RCPT (RFC 3461 4.1, 4.2).
local recipient_fields = { address = true, notify = true, orcpt = true }

local notify_words = { success = "SUCCESS", failure = "FAILURE", delay = "DELAY" }

--- "never", one of the words, or an array of them, as NOTIFY has it.
local function check_notify(value)
  if type(value) == "string" and value:lower() == "never" then return "NEVER" end
  if type(value) == "string" then value = { value } end
  check_type(value, "table", "'notify'")
  local asked, words = {}, {}
  for _, word in ipairs(value) do asked[check_choice(word, notify_words, "'notify'")] = true end
  for _, word in ipairs { "SUCCESS", "FAILURE", "DELAY" } do
    if asked[word] then words[#words + 1] = word end
  end
  if #words == 0 then misuse "'notify' is empty: say \"never\", or when to notify" end
  return table.concat(words, ",")
end

--- "rfc822;bob@example.net", or an address whose type is plain.
local function check_orcpt(value)
  check_printable(value, "'orcpt'")
  local kind, address = value:match "^(%w[%w-]*);(.+)$"
  kind, address = (kind or "rfc822"):lower(), address or value
  local is_8bit = core.is_8bit(address)
  if is_8bit and kind == "rfc822" then kind = "utf-8" end -- RFC 6533 3
  if is_8bit and kind ~= "utf-8" then misuse("'orcpt' of type %s must be ASCII", kind) end
  local orcpt = { keyword = "ORCPT=" .. kind .. ";", kind = "xtext", value = address }
  local length = xtext_length(address)
  if kind == "utf-8" then
    orcpt.kind, orcpt.value = "atom", utf8_xtext(address)
    length = #orcpt.value
  end
  if #kind + 1 + length > 500 then misuse "'orcpt' has more than 500 octets as xtext" end
  return orcpt
end

-- Checking what the caller gave ---------------------------------------------------------------

local known = { from = true, to = true, message = true, notify = true, smtputf8 = true,
  keep_bcc = true }
for _, field in ipairs(mail_fields) do known[field.name] = field end

--- A recipient: its address, where that is all that is said of it; else a table.
local function check_recipient(given, default)
  if type(given) ~= "table" then given = { address = given } end
  for name in pairs(given) do
    if not recipient_fields[name] then
      misuse("unknown field '%s' of a recipient", tostring(name))
    end
  end
  local address = check_address(given.address, "an address in 'to'")
  local notify = given.notify ~= nil and check_notify(given.notify) or default
  local orcpt = given.orcpt ~= nil and check_orcpt(given.orcpt) or nil
  return (notify or orcpt) and { address = address, notify = notify, orcpt = orcpt } or address
end

--- The recipients as they are sent, from what the caller gave, or the message's header has.
-- @param to      an address, a recipient { address, notify, orcpt }, or an array of both
-- @param notify  what NOTIFY says for those that have none of their own, or nil
-- @return an array of addresses, and of tables { address, notify, orcpt } where there is more
function parameters.recipient_list(to, notify)
  if type(to) == "string" or type(to) == "table" and to.address ~= nil then to = { to } end
  if type(to) ~= "table" then misuse "'to' must be an address or an array of recipients" end
  if #to == 0 then misuse "'to' is empty" end
  local list = {}
  for index, given in ipairs(to) do
    local is_plain = not notify and type(given) == "string" and utf8.len(given)
    list[index] = is_plain and given or check_recipient(given, notify)
  end
  return list
end

--- The address of a recipient.
function parameters.address_of(recipient)
  return type(recipient) == "string" and recipient or recipient.address
end

--- Checks an envelope as far as that needs no server.
-- @param given  the table that send() takes
-- @return a table: from, to (see recipient_list), message, notify, smtputf8, keep_bcc as they are
--         sent, and in `asked` the fields for MAIL. Raises on misuse.
function parameters.check(given)
  if type(given) ~= "table" then misuse "takes a table with from, to and message" end
  local letter = { message = given.message, asked = {}, from = nil, to = nil, size = nil }
  for name, value in pairs(given) do
    local field = known[name]
    if not field then misuse("unknown field '%s'", tostring(name)) end
    if field ~= true then letter.asked[name] = field.check(value) end
  end
  if given.from ~= nil then letter.from = check_address(given.from, "the address in 'from'") end
  if given.notify ~= nil then letter.notify = check_notify(given.notify) end
  if given.to ~= nil then letter.to = parameters.recipient_list(given.to, letter.notify) end
  letter.smtputf8 = check_flag(given.smtputf8, "'smtputf8'")
  letter.keep_bcc = check_flag(given.keep_bcc, "'keep_bcc'")
  if letter.asked.hold_for and letter.asked.hold_until then
    misuse "'hold_for' and 'hold_until' exclude each other"
  end
  return letter
end

-- Holding it against the server ---------------------------------------------------------------

--- What the server offers, which it says once and for all: looked up once for each word.
-- @return true and the value, or false
local function offers(session, word)
  local known_offers = session.offers
  if not known_offers then
    known_offers = {}
    session.offers = known_offers
  end
  local value = known_offers[word]
  if value == nil then
    local offered, said = session:has(word)
    value = offered and said or false
    known_offers[word] = value
  end
  return value ~= false, value
end

--- An address as the server can take it: as it is where UTF-8 is used (RFC 6531), else with its
-- domain in A-labels.
-- @param with_utf8  whether UTF-8 is used
-- @return the address, or nil and an error
function parameters.wire_address(address, with_utf8)
  if with_utf8 then return address end
  if not core.is_8bit(address) then return address end
  local ascii, why = addresses.to_ascii(address)
  if ascii and #ascii <= 254 then return ascii end
  why = why or "it is longer than 254 octets then"
  return unsupported("without SMTPUTF8 the address %s can't be sent: %s", address, why)
end

local function has_8bit_address(letter)
  if core.is_8bit(letter.from) then return true end
  for _, recipient in ipairs(letter.to) do
    if core.is_8bit(parameters.address_of(recipient)) then return true end
  end
  return false
end

--- Whether the transaction uses SMTPUTF8: asked for, or needed and to be had.
-- @return true or false; or nil and an error
local function decide_utf8(session, letter)
  local offered = offers(session, "SMTPUTF8")
  if letter.smtputf8 and not offered then
    return unsupported "the server does not offer SMTPUTF8"
  end
  if letter.smtputf8 ~= nil then return letter.smtputf8 end
  return offered and has_8bit_address(letter)
end

local function add_asked(session, args, letter)
  if not next(letter.asked) then return true end
  for _, field in ipairs(mail_fields) do
    local value = letter.asked[field.name]
    if value ~= nil then
      local needs = type(field.needs) == "function" and field.needs(value) or field.needs
      local offered, announced = session:has(needs)
      if not offered then return not_offered(field.name, needs) end
      local why = field.within and field.within(value, announced, session)
      if why then return unsupported("'%s' (%s): %s", field.name, needs, why) end
      field.write(args, value)
    end
  end
  return true
end

--- What the content needs of the server, as far as that can be told before it is sent.
local function add_body(session, args, letter)
  local message, body = letter.message, letter.asked.body
  local whole = type(message) == "string"
  if body == "BINARYMIME" then return true end
  if whole and message:find("\0", 1, true) then
    return unsupported "the message has a NUL octet, which only BINARYMIME can carry"
  end
  if body == "8BITMIME" then return true end
  -- A stream is declared as 8-bit where that is possible, as nobody can tell beforehand.
  if letter.is_7bit or whole and not core.is_8bit(message) then return true end
  if body == "7BIT" then
    if whole then return unsupported "the message has 8-bit text, and 'body' says 7bit" end
  elseif offers(session, "8BITMIME") then
    args:add("atom", "BODY=8BITMIME")
  elseif whole then
    return unsupported "the message has 8-bit text, and the server does not offer 8BITMIME"
  end
  return true
end

--- RFC 1870 6: what the server states is held against the size before it is sent.
local function add_size(session, args, letter)
  local size = letter.size
  local offered, limit = offers(session, "SIZE")
  if not (size and offered) then return true end
  limit = tonumber(limit) or 0
  if limit > 0 and size > limit then
    return nil, errors.new { kind = "rejected", during = "mail",
      message = ("the message has %d octets, and the server takes at most %d"):format(size, limit) }
  end
  args:add("atom", ("SIZE=%d"):format(size))
  return true
end

local function add_utf8(_, args, letter)
  if letter.with_utf8 then args:add("atom", "SMTPUTF8") end
  return true
end

local steps = { add_body, add_utf8, add_size, add_asked }

--- The MAIL command of an envelope that is complete.
-- @param session  the session, for what the server offers
-- @param letter   from `check`, with `from`, `to`, and `size` where that is known, `is_7bit` where
--                 the content is; `with_utf8` is set here, and `recipients` reads it
-- @return typed arguments; or nil and an error, before anything is sent
function parameters.mail(session, letter)
  local err, from, ok
  letter.with_utf8, err = decide_utf8(session, letter)
  if letter.with_utf8 == nil then return nil, err end
  from, err = parameters.wire_address(letter.from, letter.with_utf8)
  if not from then return nil, err end
  local args = arguments.named("send"):add("path", from)
  for _, step in ipairs(steps) do
    ok, err = step(session, args, letter)
    if not ok then return nil, err end
  end
  return args
end

--- A recipient that has parameters, for the core: its path, and typed arguments.
local function recipient_arguments(path, recipient)
  local args, orcpt = { path }, recipient.orcpt
  if recipient.notify then
    table.move({ "atom", "NOTIFY=" .. recipient.notify }, 1, 2, 2, args)
  end
  if orcpt then
    table.move({ "keyword", orcpt.keyword, orcpt.kind, orcpt.value }, 1, 4, #args + 1, args)
  end
  return args
end

--- The recipients for the core.
-- @return an array; or nil and an error, before anything is sent
function parameters.recipients(session, letter)
  local list = {}
  for index, recipient in ipairs(letter.to) do
    local is_plain = type(recipient) == "string"
    local path, err = parameters.wire_address(parameters.address_of(recipient), letter.with_utf8)
    if not path then return nil, err end
    if not is_plain and not offers(session, "DSN") then
      return not_offered(recipient.notify and "notify" or "orcpt", "DSN")
    end
    list[index] = is_plain and path or recipient_arguments(path, recipient)
  end
  return list
end

--- A letter's content, which holds a stream to what was said of it.
-- @return a string, an open file or a source
function parameters.content(letter)
  local is_checked = letter.is_7bit or type(letter.message) == "string"
  if letter.asked.body ~= "7BIT" or is_checked then return letter.message end
  local source = content.source(letter.message, "send: 'message'")
  return function()
    local piece, err = source()
    if not (piece and core.is_8bit(piece)) then return piece, err end
    return nil, errors.new { kind = "unsupported", during = "content",
      message = "the message has 8-bit text, and 'body' says 7bit" }
  end
end

return parameters
