--- Sets of messages as callers give them, and the commands that have one.
-- May rely on starttls.arguments, starttls.imap.chain and starttls.imap.ranges.
--
-- Messages are named by UID everywhere, by sequence number only on request.
local arguments = require "starttls.arguments"
local chain = require "starttls.imap.chain"
local ranges = require "starttls.imap.ranges"

local sets = {}

--- RFC 7162 4: a command line has at most 8192 octets; the rest of it must fit beside the set.
local longest_text = 7000

--- Whether a set is what a search that found nothing returns. IMAP has no empty set; for the
-- caller it means that nothing is to be done, and above all not "all".
function sets.is_empty(set)
  return type(set) == "table" and #set == 0
end

local function text_of(part, what)
  if math.type(part) == "integer" and part > 0 then return ("%d"):format(part) end
  if type(part) == "string" and part ~= "" then return part end
  error(what .. ": the set must have positive integers or strings such as \"1:*\"", 0)
end

--- Runs of numbers that follow each other become ranges.
local function parts_of(set, what)
  local parts, from, to = {}, nil, nil
  local function close_range()
    if not from then return end
    parts[#parts + 1] = (from == to and "%d" or "%d:%d"):format(from, to)
    from = nil
  end
  for _, part in ipairs(set) do
    if from and part == to + 1 then
      to = part
    elseif math.type(part) == "integer" and part > 0 then
      close_range()
      from, to = part, part
    else
      close_range()
      parts[#parts + 1] = text_of(part, what)
    end
  end
  close_range()
  return parts
end

--- The texts of a set, each short enough for a command line.
-- @param set   "1:*", a number, or an array of these; not empty
-- @param what  the call, for errors
-- @return an array of set texts
function sets.texts(set, what)
  if type(set) ~= "table" then return { text_of(set, what) } end
  local texts, line, length = {}, {}, 0
  for _, part in ipairs(parts_of(set, what)) do
    if length + #part + 1 > longest_text and #line > 0 then
      texts[#texts + 1] = table.concat(line, ",")
      line, length = {}, 0
    end
    line[#line + 1] = part
    length = length + #part + 1
  end
  if #line == 0 then error(what .. ": the set is empty", 0) end
  texts[#texts + 1] = table.concat(line, ",")
  return texts
end

-- {====== Which messages a set has ======

--- The numbers of a set text.
-- @return a set of starttls.imap.ranges; nil when it can't be told which: "*" and "$"
sets.ranges = ranges.parse

--- Whether two sets may have a message in common.
-- @param left, right  from sets.ranges
function sets.overlap(left, right)
  return not left or not right or left:overlaps(right)
end

--- @param held  from sets.ranges
-- @return function(number) -> whether the set may have it
function sets.membership(held)
  return function(number) return not held or held:contains(number) end
end

-- }======

--- A command about messages.
-- @param verb    "FETCH"
-- @param text    from sets.texts
-- @param by_seq  the set has sequence numbers, not UIDs
function sets.command(verb, text, by_seq)
  local args = by_seq and arguments.of(verb) or arguments.of("UID", verb)
  return args:add("set", text)
end

--- What only reads leaves nothing done.
local reads = { fetch = true, search = true }

--- The requests that a command with a long set becomes, as one. When one of them fails, the error
-- has in `done` what those before it gave, unless they only read.
-- @param set    as texts
-- @param what   the call
-- @param build  function(text) -> request, or a chain of them, whose result is a table
-- @param merge  function(all, result): adds one request's result to the first one's
-- @return a request
function sets.in_turn(set, what, build, merge)
  local texts, all = sets.texts(set, what), nil
  if #texts == 1 then return build(texts[1]) end
  local function tell(fields)
    if all and fields.done then merge(all, fields.done) end
    fields.done = all or fields.done
  end
  local function request_for(index)
    local request = build(texts[index])
    if not reads[request.kind] then request = chain.telling(request, tell) end
    return chain.behind(request, function(result)
      if all then merge(all, result) else all = result end
      if index == #texts then return { result = all } end
      return request_for(index + 1)
    end)
  end
  return request_for(1)
end

return sets
