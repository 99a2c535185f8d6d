--- Messages in order, and in threads (RFC 5256, RFC 5267, RFC 5957).
-- May rely on starttls.imap.class, starttls.imap.criteria, starttls.imap.returns,
-- starttls.arguments and starttls.settings.
local Imap = require "starttls.imap.class"
local criteria = require "starttls.imap.criteria"
local returns = require "starttls.imap.returns"
local arguments = require "starttls.arguments"
local check_settings = require("starttls.settings").check

-- {====== SORT ======

--- What to sort by, and the capability that it needs beyond SORT (RFC 5256 3, 5957 3, 6203 5).
local sort_keys = {
  arrival = "SORT", cc = "SORT", date = "SORT", from = "SORT", size = "SORT", subject = "SORT",
  to = "SORT", displayfrom = "SORT=DISPLAY", displayto = "SORT=DISPLAY",
  relevancy = "SEARCH=FUZZY",
}

--- "reverse date" becomes REVERSE DATE.
local function add_order(args, self, order)
  if type(order) == "string" then order = { order } end
  if type(order) ~= "table" or #order == 0 then
    error("sort: the order must be an array of keys such as \"date\" or \"reverse size\"", 0)
  end
  local able, err = self:needs("sort", "SORT")
  args:add("(", "")
  for _, key in ipairs(order) do
    local name, reversed = tostring(key):gsub("^reverse ", "")
    if not sort_keys[name] then
      error(("sort: there is no sort key '%s'"):format(tostring(key)), 0)
    end
    if reversed > 0 then args:add("atom", "REVERSE") end
    args:add("atom", name:upper())
    if able then able, err = self:needs("sort", sort_keys[name]) end
  end
  args:add(")", "")
  return able, err
end

--- Adds the charset, which SORT and THREAD always have, and the criteria.
local function add_criteria(args, self, given, what)
  local list, err = criteria.build(self, given, what)
  if not list then return nil, err end
  args:add("atom", "UTF-8")
  table.move(list, 1, #list, #args + 1, args)
  return args
end

--- Finds messages, in order (SORT, RFC 5256).
-- @param order     a key or an array of keys: "arrival", "cc", "date", "from", "size", "subject",
--                  "to"; "displayfrom", "displayto" (SORT=DISPLAY); "relevancy" (SEARCH=FUZZY);
--                  each may have "reverse " before it
-- @param given     criteria as for search; default all messages
-- @param settings  seq = true: sequence numbers instead of UIDs; returns as for search, but not
--                  "save": min is then the first, max the last, and `all` in order. "partial",
--                  "context" and "update" need CONTEXT=SORT.
-- @return an array of numbers in order; or with `returns` a table as search returns it; or nil and
--         an error, of kind unsupported where the server lacks SORT
Imap.define("sort", function(self, order, given, settings)
  settings = check_settings("sort", settings, "seq returns")
  local by_seq, asked = settings.seq, settings.returns
  local args = by_seq and arguments.of "SORT" or arguments.of("UID", "SORT")
  local able, err = false
  if asked then
    able, err = returns.add_to(args, self, asked, "sort")
    if able == nil then return nil, err end
  end
  local sorts, lacking = add_order(args, self, order)
  if not sorts then return nil, lacking end
  args, err = add_criteria(args, self, given or {}, "sort")
  if not args then return nil, err end
  return returns.gather(self, { during = "sort", by_seq = by_seq, args = args },
    asked, able, "SORT")
end)

-- }======

-- {====== THREAD ======

--- Finds messages, in threads (THREAD, RFC 5256).
-- @param algorithm  "references", "orderedsubject", "refs", ...: one that the server has, as it
--                   says by a capability such as THREAD=REFERENCES
-- @param given      criteria as for search; default all messages
-- @param settings   seq = true: sequence numbers instead of UIDs
-- @return an array of threads: { number = 3, answer, answer, ... }, where an answer is a thread
--         itself; `number` is absent where a message is missing that others answer. Or nil and an
--         error, of kind unsupported where the server lacks the algorithm.
Imap.define("thread", function(self, algorithm, given, settings)
  if type(algorithm) ~= "string" or not algorithm:find "^[%w.-]+$" then
    error("thread: the algorithm must be a name such as \"references\"", 0)
  end
  algorithm = algorithm:upper()
  local by_seq = check_settings("thread", settings, "seq").seq
  local args = by_seq and arguments.of("THREAD", algorithm)
    or arguments.of("UID", "THREAD", algorithm)
  local able, err = self:needs("thread", "THREAD=" .. algorithm)
  if not able then return nil, err end
  args, err = add_criteria(args, self, given or {}, "thread")
  if not args then return nil, err end
  return returns.explain {
    during = "thread", wanted = "THREAD", by_seq = by_seq, args = args,
    finish = function(_, values)
      local threads = values[1] or {}
      for index = 2, #values do
        table.move(values[index], 1, #values[index], #threads + 1, threads)
      end
      return threads
    end,
  }
end)

-- }======
