--- One look into a mailbox, from connecting to the goodbye, in as few round trips as there can be.
-- May rely on starttls.imap.class and starttls.arguments.
--
-- EXAMINE, UID FETCH and LOGOUT leave in one flight. That is no ambiguity in the sense of RFC 9051
-- 5.5, as nothing here has sequence numbers: where the mailbox can't be opened, FETCH is answered
-- with BAD, for no mailbox is open.
local Imap = require "starttls.imap.class"
local arguments = require "starttls.arguments"

local function goodbye()
  return { during = "logout", form = "goodbye", args = arguments.of "LOGOUT" }
end

--- Sends all of it and takes the answers.
-- @return the messages, or nil and an error
local function talk(session, mailbox, set, items, settings)
  local fetch, err = Imap.builders.fetch(session, set, items, settings)
  if not fetch then return nil, err end
  local opened, fetched, left
  local lived, lost = session:pipeline(function(p)
    opened = p:examine(mailbox)
    fetch.rides = true
    fetched = p:add(fetch)
    local farewell = goodbye()
    farewell.rides = not fetch.follow -- a long set takes several commands
    left = p:add(farewell)
  end)
  if not lived then return nil, lost end
  local is_open, refused = opened:get()
  if not is_open then return nil, refused end
  local messages, failure = fetched:get()
  if not messages then return nil, failure end
  local gone, unfriendly = left:get()
  if not gone then return nil, unfriendly end
  return messages
end

--- Connects, fetches and says goodbye.
-- @param connect   imap.connect
-- @param options   for it
-- @param mailbox   is opened without the right to change it
-- @param set       UIDs as in session:fetch; by sequence number is not possible here
-- @param items     as in session:fetch
-- @param settings  as in session:fetch; also each = function(message), which is called with each
--                  message in place of gathering them
-- @return an array of messages, or nil and an error
return function(connect, options, mailbox, set, items, settings)
  settings = settings or {}
  if settings.seq then error("fetch: a mailbox that is not open yet has no sequence numbers", 0) end
  local session <close>, err = connect(options) -- luacheck: ignore
  if not session then return nil, err end
  local messages, failure = talk(session, mailbox, set, items, settings)
  if not messages then return nil, failure end
  return messages
end
