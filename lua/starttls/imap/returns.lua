--- What a search is to return, and what it returned (RFC 4731, RFC 9051 6.4.4 and 7.3.4, RFC 5267).
-- May rely on starttls.core and starttls.error.
--
-- An answer comes as SEARCH or SORT, an array of numbers; or as ESEARCH, a table that names the
-- command it answers. Servers of IMAP4rev2 answer every search with ESEARCH.
local core = require "starttls.core"
local errors = require "starttls.error"

local returns = {}

-- {====== What is asked for ======

--- The options of each command, and the capabilities that they need.
local families = {
  search = {
    base = { "ESEARCH", "IMAP4rev2" },
    save = { "SEARCHRES", "IMAP4rev2" }, relevancy = { "SEARCH=FUZZY" },
    partial = { "PARTIAL", "CONTEXT=SEARCH" }, context = { "CONTEXT=SEARCH" },
    update = { "CONTEXT=SEARCH" },
  },
  sort = {
    base = { "ESORT" },
    relevancy = { "SEARCH=FUZZY" }, partial = { "CONTEXT=SORT" }, context = { "CONTEXT=SORT" },
    update = { "CONTEXT=SORT" },
  },
  multisearch = { base = { "MULTISEARCH" }, relevancy = { "SEARCH=FUZZY" } },
}

--- What can be told from the numbers as well.
local computable = { min = true, max = true, count = true, all = true }

--- RFC 9394 4: two positive numbers, or two negative ones, which count from the last.
local function check_range(range, what)
  local sign, other = tostring(range):match "^(%-?)[1-9]%d*:(%-?)[1-9]%d*$"
  if type(range) ~= "string" or not sign or sign ~= other then
    error(what .. ": returns.partial must be a range such as \"1:100\" or \"-1:-100\"", 0)
  end
  return sign == "-"
end

--- The options' names in the order given, "partial" last.
local function names_of(given, family, what)
  if type(given) ~= "table" then error(what .. ": returns must be a table", 0) end
  local names = {}
  for key, name in pairs(given) do
    if math.type(key) ~= "integer" and key ~= "partial" then
      error(("%s: returns must be an array, which may have the field 'partial'"):format(what), 0)
    end
    if key ~= "partial" and (name == "partial" or not (computable[name] or family[name])
        or name == "base") then
      error(("%s: there is nothing to return by the name of '%s'"):format(what, tostring(name)), 0)
    end
  end
  for index, name in ipairs(given) do names[index] = name end
  if given.partial then names[#names + 1] = "partial" end
  if #names == 0 then error(what .. ": returns is empty", 0) end
  return names
end

--- RFC 9394 3.1: PARTIAL and ALL exclude each other.
local function check_partial(given, family, what)
  if not given.partial then return false end
  if not family.partial then error(what .. ": returns.partial does not go with it", 0) end
  for _, name in ipairs(given) do
    if name == "all" then error(what .. ": returns has both 'all' and 'partial'", 0) end
  end
  return check_range(given.partial, what)
end

--- Whether the server can return all of that.
-- @return true; false when it has to be computed from the numbers; or nil and an error
local function ability(self, names, family, what, is_negative)
  local all_computable = true
  for _, name in ipairs(names) do
    local needed = family[name]
    if name == "partial" and is_negative then needed = { "PARTIAL" } end
    if needed then
      local able, err = self:needs(what, table.unpack(needed))
      if not able then return nil, err end
      all_computable = false
    end
  end
  local able, err = self:needs(what, table.unpack(family.base))
  if able or (all_computable and what ~= "multisearch") then return able or false end
  return nil, err
end

--- Adds RETURN (...) to a command.
-- @param args   the command so far
-- @param given  the caller's settings.returns; nil for none
-- @param what   "search", "sort" or "multisearch"
-- @return true, or false when the server can't but what is asked for can be computed; or nil and
--         an error of kind unsupported. Raises on misuse.
function returns.add_to(args, self, given, what)
  local family = families[what]
  local is_negative = type(given) == "table" and check_partial(given, family, what)
  local names = names_of(given, family, what)
  local able, err = ability(self, names, family, what, is_negative)
  if not able then return able, err end
  args:add("atom", "RETURN"):add("(", "")
  for _, name in ipairs(names) do
    args:add("atom", name:upper())
    if name == "partial" then args:add("atom", given.partial) end
  end
  args:add(")", "")
  return true
end

-- }======

-- {====== What came ======

local Results = {}
Results.__index = Results

--- Another answer to the same command: a set goes on, anything else replaces.
local function merge(into, value)
  for name, part in pairs(value) do
    if name == "all" and into.all then into.all = into.all .. "," .. part
    else into[name] = part end
  end
end

--- RFC 5267 4.3: what a context tells later is news, and not the answer.
local function is_update(value)
  return value.addto ~= nil or value.removefrom ~= nil
end

function Results:add_numbers(value)
  local numbers = self.numbers
  if #numbers == 0 then self.numbers = value
  else table.move(value, 1, #value, #numbers + 1, numbers) end
  self.numbers.modseq = value.modseq or numbers.modseq
end

--- @param during  the phase
-- @param plain   the name of the answer that has numbers only: "SEARCH", "SORT"; nil: none
local function new_results(self, during, plain)
  return setmetatable({ numbers = {}, plain = plain, limit = self.reply_limit, during = during,
    weigh = self:bounded(during) }, Results)
end

--- RFC 5267 4.3.1: the search is answered, but there will be no updates.
local function refuses_updates(value, tag)
  return type(value) == "table" and value.code == "NOUPDATE" and value.noupdate == tag
end

--- Takes an untagged response: see `take` in starttls.imap.class.
-- @param tag  the command's
function Results:take(tag, name, value, weight)
  if name == "ESEARCH" and not is_update(value) and (value.tag or tag) == tag then
    self.table = self.table or {}
    merge(self.table, value)
  elseif name == self.plain then self:add_numbers(value)
  elseif refuses_updates(value, tag) then self.no_update = value.text
  else return false end
  return self.weigh(weight)
end

--- As many as a SEARCH within limits.reply could bring: two octets each, at least.
function Results:numbers_of(set)
  local numbers, why = core.numbers_of(set, self.limit // 2)
  if numbers then return numbers end
  local is_limit = why:find "more than" ~= nil
  return nil, errors.new { kind = is_limit and "limit" or "protocol", during = self.during,
    message = "the server's answer has numbers that can't be taken: " .. why,
    hint = is_limit and "ask for less, or raise limits.reply" or nil }
end

--- @return an array of numbers, with field `modseq` if the server told one; or nil and an error
function Results:as_numbers()
  local told = self.table
  if not told or not told.all then
    if told then self.numbers.modseq = told.modseq end
    return self.numbers
  end
  local numbers, err = self:numbers_of(told.all)
  if not numbers then return nil, err end
  numbers.modseq = told.modseq
  return numbers
end

local function least_and_most(numbers)
  local least, most = numbers[1], numbers[1]
  for index = 2, #numbers do
    local number = numbers[index]
    if number < least then least = number elseif number > most then most = number end
  end
  return least, most
end

--- What the server can't return, from the numbers. Where it sorted, least is first, most is last
-- (RFC 5267 3.1).
local function compute(numbers, given, by_uid, is_sorted)
  local told = { uid = by_uid, modseq = numbers.modseq }
  local least, most = numbers[1], numbers[#numbers]
  if not is_sorted then least, most = least_and_most(numbers) end
  for _, name in ipairs(given) do
    if name == "min" then told.min = least
    elseif name == "max" then told.max = most
    elseif name == "count" then told.count = #numbers
    elseif #numbers > 0 then told.all = is_sorted and table.concat(numbers, ",")
      or core.set_of(numbers) end
  end
  return told
end

-- }======

-- {====== Refusals ======

--- What a person can do about a refusal of a search.
local hints = {
  BADCHARSET = "the server can't search for text beyond ASCII",
  NOTSAVED = "$ names no messages now: search again",
}

local function explains(reply)
  return reply.class ~= "positive" and hints[reply.status] ~= nil
end

local function explained(during, reply)
  local err = errors.from_reply("rejected", during,
    "the server refuses " .. during:upper(), reply)
  err.hint = hints[reply.status]
  local known = reply.badcharset
  if type(known) == "table" and #known > 0 then
    err.hint = ("%s; it knows %s"):format(err.hint, table.concat(known, ", "))
  end
  return err
end

--- Makes a request give more words to refusals that only searches have.
-- @param request  with `during` and `finish`
-- @return the request
function returns.explain(request)
  local finish = request.finish
  request.accepts = explains
  request.finish = function(reply, values)
    if explains(reply) then return nil, explained(request.during, reply) end
    return finish(reply, values)
  end
  return request
end

-- }======

-- {====== Requests ======

--- Makes the request of a command that finds messages.
-- @param self     the session
-- @param request  during, kind, by_seq, args
-- @param given    the caller's settings.returns, or nil: the result is an array
-- @param able     what add_to returned: whether the server was asked to return that
-- @param plain    the name of the answer that has numbers only
-- @return the request
function returns.gather(self, request, given, able, plain)
  local results = new_results(self, request.during, not able and plain or nil)
  request.wanted = results.plain or "ESEARCH"
  request.take = function(name, _, value, weight)
    return results:take(request.tag, name, value, weight)
  end
  request.finish = function()
    local by_uid, told = not request.by_seq, results.table
    if not given then return results:as_numbers() end
    -- "save" alone is answered with OK (RFC 5182 2.1).
    if able then told = told or { uid = by_uid } end
    told = told or compute(results.numbers, given, by_uid, plain == "SORT")
    told.tag, told.no_update = told.tag or request.tag, results.no_update
    return told
  end
  return returns.explain(request)
end

--- Makes the request of a command whose answers are one for each mailbox (RFC 7377 2.1).
-- @param request  during, kind, args
-- @return the request, whose result is an array of the tables of ESEARCH
function returns.gather_each(self, request)
  local found, weigh = {}, self:bounded(request.during)
  request.wanted = "ESEARCH"
  request.take = function(name, _, value, weight)
    if name ~= "ESEARCH" or value.tag ~= request.tag then return false end
    found[#found + 1] = value
    return weigh(weight)
  end
  request.finish = function() return found end
  return returns.explain(request)
end

-- }======

return returns
