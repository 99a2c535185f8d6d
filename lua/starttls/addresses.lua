--- Address lists of message headers (RFC 5322 3.4, with the obsolete forms of 4.4) as the
-- addresses that an envelope takes (RFC 5321 4.1.2).
-- May rely on starttls.core.
--
-- Strict about what decides where a message goes, tolerant about the rest: display names,
-- comments, groups, routes and empty elements are read over; "a..b"@example.net comes out
-- quoted, as RFC 5321 wants it. What could be read in two ways is refused. UTF-8 is taken
-- anywhere (RFC 6532). One pass over the text, and one over its tokens: the time is linear.
local core = require "starttls.core"

local addresses = {}

local atext = "A-Za-z0-9!#$%%&'*+/=?^_`{|}~\x80-\xff-" -- RFC 5322 3.2.3, RFC 6532 3.2

-- Tokens --------------------------------------------------------------------------------------
-- { kind =, value = }: "word", "quoted", "literal", "encoded" (an encoded word with specials in
-- it, as some programs write them), or a special, which is its own kind.

--- Where a comment ends (RFC 5322 3.2.2); it may have others in it. Nil when it does not.
local function after_comment(text, at)
  local depth = 0
  while true do
    at = text:find("[()\\]", at)
    if not at then return nil end
    local c = text:sub(at, at)
    if c == "(" then depth = depth + 1
    elseif c == ")" then depth = depth - 1
    else at = at + 1 end
    at = at + 1
    if depth == 0 then return at end
  end
end

--- What a quoted string stands for, and where it ends; nil when it does not (RFC 5322 3.2.4).
local function read_quoted(text, at)
  local parts = {}
  at = at + 1
  while true do
    local stop = text:find('["\\]', at)
    if not stop then return nil end
    parts[#parts + 1] = text:sub(at, stop - 1)
    if text:byte(stop) == 34 then return table.concat(parts), stop + 1 end
    parts[#parts + 1] = text:sub(stop + 1, stop + 1)
    at = stop + 2
  end
end

--- RFC 2047 2. Specials may not be in it where a word of a phrase is meant, and yet are.
local function encoded_word(text, at)
  local word = text:match("^=%?[^?%s]+%?[BbQq]%?[^?%s]*%?=", at)
  return word and word:find("[^" .. atext .. "]") and word
end

local readers = {}

readers["("] = function(text, at)
  local after = after_comment(text, at)
  if not after then return nil, "a comment has no end" end
  return after
end

readers['"'] = function(text, at)
  local value, after = read_quoted(text, at)
  if not value then return nil, "a quoted string has no end" end
  return after, { kind = "quoted", value = value }
end

readers["["] = function(text, at)
  local value, after = text:match("^%[([^%[%]\\]*)%]()", at)
  if not value then return nil, "a domain literal has no end" end
  return after, { kind = "literal", value = value:gsub("[ \t]", "") }
end

for special in ("<>@,;:."):gmatch "." do
  local token = { kind = special, value = special }
  readers[special] = function(_, at) return at + 1, token end
end

--- Everything else: blanks and words.
local function read_other(text, at)
  local after = text:match("^[ \t]+()", at)
  if after then return after end
  local word = encoded_word(text, at)
  if word then return at + #word, { kind = "encoded", value = word } end
  word = text:match("^[" .. atext .. "]+", at)
  if word then return at + #word, { kind = "word", value = word } end
  return nil, "it has a character that belongs into quotes"
end

--- @param places  filled with where each token begins, if given
-- @return an array of tokens, or nil and the reason
local function tokens_of(text, places)
  local tokens, at = {}, 1
  while at <= #text do
    local read = readers[text:sub(at, at)] or read_other
    local after, token = read(text, at)
    if not after then return nil, token end
    tokens[#tokens + 1] = token
    if places and token then places[#tokens] = at end
    at = after
  end
  return tokens
end

-- Addresses -----------------------------------------------------------------------------------

local function kind_at(tokens, at)
  return tokens[at] and tokens[at].kind
end

--- The local part as RFC 5321 4.1.2 writes it: in quotes only where it must be.
-- @param first, last  its tokens: words with dots between them, blanks around any
local function local_part(tokens, first, last)
  local parts, after_word = {}, false
  for at = first, last do
    local token = tokens[at]
    local is_word = token.kind ~= "."
    if token.kind == "encoded" then return nil, "a local part has a character that needs quotes" end
    if is_word and after_word then return nil, "a local part has a blank outside of quotes" end
    after_word = is_word
    parts[#parts + 1] = token.value
  end
  local text = table.concat(parts)
  if text == "" then return nil, "an address lacks its local part" end
  if text:find "%c" then return nil, "a local part has a control character" end
  if text:find("^[" .. atext .. ".]+$") and not ("." .. text .. "."):find("..", 1, true) then
    return text
  end
  return '"' .. text:gsub('["\\]', "\\%0") .. '"'
end

--- The domain at a token.
-- @return the domain and the token behind it; or nil and the reason
local function domain(tokens, at)
  local token = tokens[at]
  if kind_at(tokens, at) == "literal" then
    if not token.value:find "^[%w:.-]+$" then return nil, "a domain literal is no address" end
    return "[" .. token.value .. "]", at + 1
  end
  local labels = {}
  repeat
    if kind_at(tokens, at) ~= "word" then return nil, "an address has an incomplete domain" end
    labels[#labels + 1] = tokens[at].value
    at = at + 2
  until kind_at(tokens, at - 1) ~= "."
  local name = table.concat(labels, ".")
  if name:find "[^%w_.\x80-\xff-]" then
    return nil, "a domain has a character that domains can't have"
  end
  return name, at - 1
end

--- The address whose local part are the tokens from `first` to the one before the "@" at `at`.
-- @return the address and the token behind it; or nil and the reason
local function addr_spec(tokens, first, at)
  local name, why = local_part(tokens, first, at - 1)
  if not name then return nil, why end
  local host, after = domain(tokens, at + 1)
  if not host then return nil, after end
  local address = name .. "@" .. host
  if not utf8.len(address) then return nil, "an address is not valid UTF-8" end
  if #name > 64 then return nil, "an address has a local part of more than 64 octets" end
  if #address > 254 then return nil, "an address is longer than 254 octets" end
  return address, after
end

local in_words = { word = true, quoted = true, encoded = true, ["."] = true }

--- The first token at or behind `at` that is no word.
local function after_words(tokens, at)
  while in_words[kind_at(tokens, at)] do at = at + 1 end
  return at
end

--- Where an obsolete route ends (RFC 5322 4.4): "@a,@b:" before the address, to be ignored.
local function after_route(tokens, at)
  while kind_at(tokens, at) == "@" or kind_at(tokens, at) == "," do
    if kind_at(tokens, at) == "@" then
      local host, after = domain(tokens, at + 1)
      if not host then return nil, after end
      at = after
    else
      at = at + 1
    end
  end
  if kind_at(tokens, at) ~= ":" then return nil, "a route has no end" end
  return at + 1
end

--- The address in the angle brackets that begin at `at`.
local function angle_address(tokens, at)
  local why
  at = at + 1
  if kind_at(tokens, at) == "@" then
    at, why = after_route(tokens, at)
    if not at then return nil, why end
  end
  local sign = after_words(tokens, at)
  if kind_at(tokens, sign) ~= "@" then return nil, "an address lacks its domain" end
  local address, after = addr_spec(tokens, at, sign)
  if not address then return nil, after end
  if kind_at(tokens, after) ~= ">" then return nil, "an address lacks its closing bracket" end
  return address, after + 1
end

--- A mailbox: an address, or a name and an address in brackets.
-- @return the address and the token behind it; or nil and the reason
local function mailbox(tokens, first)
  local at = after_words(tokens, first)
  local address
  if kind_at(tokens, at) == "@" then
    address, at = addr_spec(tokens, first, at)
    if not address then return nil, at end
    -- bob@example.net <bob@example.net>: many programs forget to quote such a name.
    if kind_at(tokens, at) == "<" then address = nil end
  end
  if not address then
    if kind_at(tokens, at) ~= "<" then return nil, "an address lacks its domain" end
    address, at = angle_address(tokens, at)
    if not address then return nil, at end
  end
  local next_kind = kind_at(tokens, at)
  if next_kind and next_kind ~= "," and next_kind ~= ";" then
    return nil, "there is more behind an address than a comma"
  end
  return address, at
end

--- Goes over the mailboxes and groups of a list.
-- A semicolon between addresses counts as a comma, as some programs write it.
-- @param take  called with "mailbox", its first token, its address, and the token behind it;
--              "group", the first token of its name, and the colon's; "end" of the group
-- @return true; or nil and the reason in words
local function walk(tokens, take)
  local at, in_group = 1, false
  while tokens[at] do
    local kind = tokens[at].kind
    local behind = after_words(tokens, at)
    if kind == "," or kind == ";" then
      if in_group and kind == ";" then
        in_group = false
        take "end"
      end
      at = at + 1
    elseif behind > at and kind_at(tokens, behind) == ":" then -- "name: a, b;"
      if in_group then return nil, "a group is in another" end
      take("group", at, behind)
      in_group, at = true, behind + 1
    else
      local address, after = mailbox(tokens, at)
      if not address then return nil, after end
      take("mailbox", at, address, after)
      at = after
    end
  end
  return true
end

--- Reads an address list: the unfolded body of a To field, say.
-- @param text  the list
-- @return an array of addresses, empty for empty groups; or nil and the reason in words
function addresses.parse(text)
  local tokens, why = tokens_of(text)
  if not tokens then return nil, why end
  local list = {}
  local ok
  ok, why = walk(tokens, function(event, _, address)
    if event == "mailbox" then list[#list + 1] = address end
  end)
  if not ok then return nil, why end
  return list
end

--- The words of a name from one token to the one before another, with a blank where one was.
-- Encoded words stay as they are.
local function name_of(text, tokens, places, first, stop)
  local parts = {}
  for at = first, stop - 1 do
    if at > first and text:find("^[ \t)]", places[at] - 1) then parts[#parts + 1] = " " end
    parts[#parts + 1] = tokens[at].value
  end
  return #parts > 0 and table.concat(parts) or nil
end

--- Reads an address list with its names.
-- @param text  the list
-- @return an array of { name, address }, where the name may be missing, and of
--         { name, group = array }; or nil and the reason in words
function addresses.mailboxes(text)
  local places = {}
  local tokens, why = tokens_of(text, places)
  if not tokens then return nil, why end
  local all = {}
  local list = all
  local ok
  ok, why = walk(tokens, function(event, first, it, after)
    if event == "mailbox" then
      local bracket = first
      while bracket < after and tokens[bracket].kind ~= "<" do bracket = bracket + 1 end
      local name = bracket < after and name_of(text, tokens, places, first, bracket)
      list[#list + 1] = { name = name or nil, address = it }
    elseif event == "group" then
      all[#all + 1] = { name = name_of(text, tokens, places, first, it), group = {} }
      list = all[#all].group
    else
      list = all
    end
  end)
  if not ok then return nil, why end
  return all
end

--- An address for one that is not to see UTF-8: its domain in A-labels (RFC 5891).
-- @return the address, or nil and why there is none
function addresses.to_ascii(address)
  local at = address:find "@[^@]*$" or #address + 1
  if core.is_8bit(address:sub(1, at - 1)) then
    return nil, "its local part is not ASCII"
  elseif not core.is_8bit(address) then
    return address
  end
  local labels, why = core.to_ascii(address:sub(at + 1))
  if not labels then return nil, why end
  return address:sub(1, at) .. labels
end

return addresses
