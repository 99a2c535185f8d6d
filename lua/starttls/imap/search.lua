--- Finding messages (RFC 9051 6.4.4, RFC 7377).
-- May rely on starttls.imap.class, starttls.imap.criteria, starttls.imap.returns,
-- starttls.arguments and starttls.settings.
local Imap = require "starttls.imap.class"
local criteria = require "starttls.imap.criteria"
local returns = require "starttls.imap.returns"
local arguments = require "starttls.arguments"
local check_settings = require("starttls.settings").check

--- What is to be returned has a place of its own.
local function check_raw(given)
  if type(given) == "string" and given:upper():find "^%s*RETURN%s*%(" then
    error("search: what to return is said by settings.returns", 0)
  end
end

--- Finds messages (RFC 9051 6.4.4, RFC 4731).
-- @param given     criteria: a table of search keys as in docs/imap.md, or a string as in RFC 9051,
--                  'UNSEEN FROM "bob"', in ASCII, which is sent as it is
-- @param settings  seq = true: sequence numbers instead of UIDs; returns = array of "min", "max",
--                  "count", "all", "save", "relevancy", "context", "update", with the field
--                  partial = "1:100": what the server is to return instead of the numbers. The
--                  first four work with any server. "save" needs SEARCHRES, "partial" PARTIAL or
--                  CONTEXT=SEARCH, "relevancy" SEARCH=FUZZY, the others CONTEXT=SEARCH.
-- @return an array of numbers, with field `modseq` where the criteria have it; or with `returns` a
--         table of that: min, max and count are numbers, `all` and partial.set are sets as text
--         (imap.numbers_of makes numbers of them), and so is `tag`, which later updates name.
--         nil and an error: unsupported, or rejected with status BADCHARSET or NOTSAVED, ...
Imap.define("search", function(self, given, settings)
  settings = check_settings("search", settings, "seq returns")
  local by_seq, asked = settings.seq, settings.returns
  local args = by_seq and arguments.of "SEARCH" or arguments.of("UID", "SEARCH")
  local able, err = false
  check_raw(given)
  -- A set is shorter than its numbers, and tells which command it answers.
  if asked or type(given) == "table" then
    able, err = returns.add_to(args, self, asked or { "all" }, "search")
    if able == nil then return nil, err end
  end
  args, err = criteria.add_to(args, self, given, "search")
  if not args then return nil, err end
  return returns.gather(self, { during = "search", by_seq = by_seq, args = args },
    asked, able, "SEARCH")
end)

--- Ends the updates that search or sort was asked for with returns = { "update" } (RFC 5267 4.5).
-- @param ...  the tags of the searches, from their results; at least one
-- @return the reply; or nil and an error
Imap.define("cancel_update", function(self, ...)
  local able, err = self:needs("cancel_update", "CONTEXT=SEARCH", "CONTEXT=SORT")
  if select("#", ...) == 0 then error("cancel_update: which search's?", 0) end
  local args = arguments.of "CANCELUPDATE"
  for _, tag in ipairs { ... } do args:add("string", tag) end
  if not able then return nil, err end
  return { during = "cancel_update", args = args }
end)

-- {====== In several mailboxes (RFC 7377) ======

local filters = { selected = "selected", selected_delayed = "selected-delayed", inboxes = "inboxes",
  personal = "personal", subscribed = "subscribed" }
local listed = { "subtree", "subtree_one", "mailboxes" }

--- RFC 5465 6: filter-mailboxes, as far as RFC 7377 2.2 permits them
local function add_source(args, source)
  if type(source) ~= "table" then error("multisearch: the source must be a table", 0) end
  args:add("atom", "IN"):add("(", "")
  for _, name in ipairs(source) do
    if not filters[name] then
      error(("multisearch: there is no source '%s'"):format(tostring(name)), 0)
    end
    args:add("atom", filters[name])
  end
  for _, name in ipairs(listed) do
    local mailboxes = source[name]
    if mailboxes then
      if type(mailboxes) ~= "table" or #mailboxes == 0 then
        error(("multisearch: %s must be an array of mailboxes"):format(name), 0)
      end
      args:add("atom", (name:gsub("_", "-"))):add_list("mailbox", mailboxes)
    end
  end
  if args[#args - 1] == "(" then error("multisearch: the source is empty", 0) end
  return args:add(")", "")
end

--- Finds messages in several mailboxes, none of which need be selected (ESEARCH, RFC 7377).
-- @param source    array of "selected", "selected_delayed", "inboxes", "personal", "subscribed",
--                  with the fields subtree, subtree_one and mailboxes: arrays of mailboxes
-- @param given     criteria as for search
-- @param settings  returns = array of "min", "max", "count", "all", "relevancy"; default { "all" }
-- @return an array, with an element for each mailbox that has such messages: { mailbox,
--         uidvalidity, uid, min, max, count, all }, UIDs always; or nil and an error
Imap.define("multisearch", function(self, source, given, settings)
  local args = add_source(arguments.of "ESEARCH", source)
  local asked = check_settings("multisearch", settings, "returns").returns or { "all" }
  local able, err = returns.add_to(args, self, asked, "multisearch")
  if not able then return nil, err end
  args, err = criteria.add_to(args, self, given, "multisearch")
  if not args then return nil, err end
  return returns.gather_each(self, { during = "multisearch", kind = "multisearch", args = args })
end)

-- }======
