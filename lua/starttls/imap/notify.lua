--- What the server is to tell unasked (NOTIFY, RFC 5465).
-- May rely on starttls.imap.class and starttls.arguments.
local Imap = require "starttls.imap.class"
local arguments = require "starttls.arguments"

local function misuse(what)
  error("notify: " .. what, 0)
end

--- RFC 5465 5: the events; `message` ones are all that may be asked of the selected mailbox.
local message_events = {
  MessageNew = true, MessageExpunge = true, FlagChange = true, AnnotationChange = true,
}
local other_events = {
  MailboxName = true, SubscriptionChange = true, MailboxMetadataChange = true,
  ServerMetadataChange = true,
}

local default_events = { "MessageNew", "MessageExpunge", "FlagChange" }

local filters = {
  selected = true, ["selected-delayed"] = true, inboxes = true, personal = true, subscribed = true,
}

local function is_selected(group)
  return group.mailboxes == "selected" or group.mailboxes == "selected-delayed"
end

-- {====== Checking ======

--- RFC 5465 5.1, 5.2: these come together, or the server must answer BAD.
local function check_events(group)
  local asked = {}
  for _, event in ipairs(group.events or default_events) do
    if not message_events[event] and (is_selected(group) or not other_events[event]) then
      misuse(("there is no event %s for these mailboxes"):format(tostring(event)))
    end
    asked[event] = true
  end
  if (asked.MessageNew or asked.FlagChange or asked.AnnotationChange or asked.MessageExpunge)
      and not (asked.MessageNew and asked.MessageExpunge) then
    misuse "events about messages need both MessageNew and MessageExpunge"
  end
  if group.fetch and not (is_selected(group) and asked.MessageNew) then
    misuse "fetch is for MessageNew of the selected mailbox only"
  end
end

local group_fields = { mailboxes = true, subtree = true, events = true, fetch = true }

local function check_group(group)
  if type(group) ~= "table" then misuse "the groups must be tables" end
  for name in pairs(group) do
    if not group_fields[name] then misuse("there is no " .. tostring(name)) end
  end
  if (group.mailboxes == nil) == (group.subtree == nil) then
    misuse "a group has either mailboxes or subtree"
  end
  if type(group.mailboxes) == "string" and not filters[group.mailboxes] then
    misuse(("there is no kind of mailboxes called %q; names go into an array")
      :format(group.mailboxes))
  end
  for _, name in ipairs { "events", "fetch" } do
    if group[name] ~= nil and type(group[name]) ~= "table" then
      misuse(name .. " must be an array")
    end
  end
  check_events(group)
end

--- RFC 5465 6: the selected mailbox is named by one group at most.
local function check_groups(groups)
  if type(groups) ~= "table" or #groups == 0 then misuse "it needs an array of groups, or false" end
  local selected = 0
  for _, group in ipairs(groups) do
    check_group(group)
    if is_selected(group) then selected = selected + 1 end
  end
  if selected > 1 then misuse "the selected mailbox can be in one group only" end
end

-- }======

-- {====== On the wire ======

local function add_mailboxes(args, group)
  if type(group.mailboxes) == "string" then return args:add("atom", group.mailboxes) end
  local names = group.mailboxes or group.subtree
  if type(names) == "string" then names = { names } end
  if type(names) ~= "table" or #names == 0 then misuse "the mailboxes must be names" end
  args:add("atom", group.subtree and "subtree" or "mailboxes")
  return args:add_list("mailbox", names)
end

local function add_events(args, group, items)
  local events = group.events or default_events
  if #events == 0 then return args:add("atom", "NONE") end
  args:add("(", "")
  for _, event in ipairs(events) do
    args:add("atom", event)
    if event == "MessageNew" and items then args:add_list("raw", items) end
  end
  return args:add(")", "")
end

local function add_group(self, args, group)
  local items, err
  if group.fetch then
    items, err = Imap.fetch_items(self, group.fetch)
    if not items then return nil, err end
  end
  args:add("(", "")
  add_mailboxes(args, group)
  add_events(args, group, items)
  args:add(")", "")
  return true
end

-- }======

--- How the selected mailbox's news come: see Watch:way.
local function manner(groups)
  for _, group in ipairs(groups) do
    if group.mailboxes == "selected-delayed" then return "delayed" end
  end
  return "at once"
end

--- Says what the server is to tell unasked from now on, in place of what was said before
-- (RFC 5465). It comes as events, with `idle` and with every other call: news of the selected
-- mailbox as "exists", "expunge" or "vanished" and "fetch", of others as "status", "list" and
-- "metadata"; "overflow" when the server gave up, as if false had been given.
-- @param groups  false: nothing any more. Or an array of groups:
--                mailboxes = "selected", "selected-delayed" (in answer to commands only),
--                "inboxes" (where mail is delivered), "personal", "subscribed", or an array of
--                names; or subtree = a name or an array of them;
--                events = names as in RFC 5465 5, default MessageNew, MessageExpunge and
--                FlagChange; none of them: nothing of these mailboxes, whatever later groups say;
--                fetch = items as in `fetch`, which are told of a new message when selected.
--                A field status = true beside the groups asks how the other mailboxes are now.
-- @return an array of what `status` returns, empty unless asked for; or nil and an error: of kind
--         rejected with the status BADEVENT when the server doesn't know an event
Imap.define("notify", function(self, groups)
  if groups ~= false then check_groups(groups) end
  local able, err = self:needs("notify", "NOTIFY")
  if not able then return nil, err end
  local args = arguments.of("NOTIFY", groups and "SET" or "NONE")
  if groups and groups.status then args:add("atom", "STATUS") end
  for _, group in ipairs(groups or {}) do
    local added, lacks = add_group(self, args, group)
    if not added then return nil, lacks end
  end
  local told, weigh = {}, self:bounded "notify"
  return {
    during = "notify", args = args,
    take = function(name, _, value, weight)
      if name ~= "STATUS" or not (groups and groups.status) then return false end
      told[#told + 1] = value
      return weigh(weight)
    end,
    finish = function()
      self.notified = groups and manner(groups) or nil
      return told
    end,
  }
end)
