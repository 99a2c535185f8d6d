--- What may be in flight beside what (RFC 9051 5.5).
-- May rely on starttls.imap.sets.
--
-- Held back until the commands before it are answered is:
--   * a command with sequence numbers behind one that permits EXPUNGE, and every command that
--     isn't FETCH, STORE, SEARCH, SORT or THREAD (UID FETCH and the like among them) permits it;
--   * STORE beside STORE or FETCH about the same messages, and beside SEARCH;
--   * what reads the mailbox beside what adds or removes messages; what tells of mailboxes beside
--     what changes them or the messages in them;
--   * two commands whose untagged answers look alike, unless the set or the mailbox's name tells
--     them apart;
--   * everything behind a command that goes on with another one (a long set, a fall-back);
--   * what changes the session's state, and whatever isn't known here.
-- A request with `rides` is not held back: whoever made it knows what is before it (once.lua).
local sets = require "starttls.imap.sets"

local order = {}

--- What a command does, by its verb. None of these: it is alone.
local classes = {
  FETCH = "fetch", SEARCH = "find", SORT = "find", THREAD = "find", STORE = "store",
  COPY = "copy", MOVE = "remove", EXPUNGE = "remove", NOOP = "nothing", CHECK = "nothing",
  STATUS = "look", LIST = "look", LSUB = "look", NAMESPACE = "look", GETQUOTA = "look",
  GETQUOTAROOT = "look", GETACL = "look", MYRIGHTS = "look", LISTRIGHTS = "look",
  GETMETADATA = "look",
}

--- RFC 9051 5.5, 7.5.1; RFC 5256 3: no EXPUNGE while one of these is in progress, without UID.
local keeps_numbers = { FETCH = true, STORE = true, SEARCH = true, SORT = true, THREAD = true }

--- Classes that go together, in either order. A function is asked.
local function disjoint(a, b)
  return a.by_seq == b.by_seq and not sets.overlap(a.ranges, b.ranges)
end

local function always() return true end

local together = {
  fetch = { fetch = disjoint, store = disjoint, find = always, look = always },
  find = { find = always, look = always },
  store = { store = disjoint, copy = always, remove = always },
  copy = { copy = always, remove = always },
  look = { look = always },
  nothing = { fetch = always, find = always, store = always, copy = always, remove = always,
    look = always, nothing = always },
}

local function go_together(a, b)
  local rule = (together[a.class] or {})[b.class] or (together[b.class] or {})[a.class]
  return rule ~= nil and rule(a, b)
end

--- Searches whose criteria may have sequence numbers: a word of digits that isn't a UID set's.
local function has_numbers(args)
  for index = 1, #args, 2 do
    local kind, value = args[index], args[index + 1]
    if kind == "raw" then
      local text = (" " .. value .. " "):gsub("[Uu][Ii][Dd] +[%d*][%d:,*]*", "")
      if text:find "[%s(][%d*][%d:,*]*[%s)]" then return true end
    end
    if kind == "set" and args[index - 1] ~= "UID" then return true end
  end
  return false
end

--- Untagged answers that say which of two commands they belong to.
local function told_apart(a, b)
  if a.wanted == "FETCH" or a.wanted == "ESEARCH" then return true end
  return a.about ~= nil and b.about ~= nil and a.about ~= b.about
end

local function look_alike(a, b)
  if a.class ~= "look" and a.class ~= "find" then
    return a.class == "remove" and b.class == "remove"
  end
  if a.takes_any or b.takes_any then return a.class == b.class end
  if a.verb ~= b.verb and (not a.wanted or a.wanted ~= b.wanted) then return false end
  return not told_apart(a, b)
end

--- Notes of a request what `collide` asks.
function order.classify(request)
  local args = request.args
  local by_uid = args[2] == "UID"
  request.verb = args[by_uid and 4 or 2]
  request.class = not request.alone and classes[request.verb] or nil
  request.permits_expunge = by_uid or not keeps_numbers[request.verb]
  request.has_numbers = request.by_seq or request.class == "find" and has_numbers(args)
end

--- Whether a request must wait for the answer to one that was sent before it.
function order.collide(earlier, request)
  if request.rides then return false end -- whoever sends it knows better
  if earlier.follow or not request.class or not earlier.class then return true end
  if request.has_numbers and earlier.permits_expunge then return true end
  return not go_together(earlier, request) or look_alike(earlier, request)
end

return order
