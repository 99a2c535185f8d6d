-- Mailboxes: what the calls become on the wire and what the answers become, by scripted peers with
-- the lines of the RFCs; and the same calls on Dovecot, for what it has.

local clients = require "spec.support.clients"
local errors = require "starttls.error"
local imap_talk = require "spec.support.imap_talk"
local servers = require "spec.support.servers"

local imap = require "starttls.imap"

local converse = imap_talk.converse

local function flags(...)
  local set = { ... }
  for _, flag in ipairs { ... } do set[flag] = true end
  return set
end

local function entry(name, delimiter, ...)
  return { name = name, delimiter = delimiter, flags = flags(...) }
end

-- The entry with further fields.
local function with(listed, more)
  for name, value in pairs(more) do listed[name] = value end
  return listed
end

-- A call of the session's method.
local function call(name, ...)
  local arguments = table.pack(...)
  return function(session)
    return session[name](session, table.unpack(arguments, 1, arguments.n))
  end
end

local function is_refusal_of(kind, text)
  return function(err)
    return errors.is(err) and err.kind == kind and tostring(err):find(text, 1, true) ~= nil
  end
end

-- {====== On the wire ======

local rfc5258 = { "LIST-EXTENDED" }

-- What is called, what goes over the wire, and what comes back. `capabilities` of the server.
local dialogues = {
  -- LIST-EXTENDED: the examples of RFC 5258 5, with our order of options
  { "all mailboxes, with one command of old", call("list"), {
    { 'LIST "" "*"', "* LIST (\\Marked \\NoInferiors) \"/\" \"inbox\"\r\n"
      .. "* LIST () \"/\" \"Fruit\"\r\n%T OK done\r\n" } },
    { entry("inbox", "/", "\\Marked", "\\NoInferiors"), entry("Fruit", "/") },
    rfc5258 },
  { "those subscribed to, there or not",
    call("list", "", "*", { select = { subscribed = true } }), {
      { 'LIST (SUBSCRIBED) "" "*"',
        '* LIST (\\Marked \\NoInferiors \\Subscribed) "/" "inbox"\r\n'
        .. '* LIST (\\Subscribed \\NonExistent) "/" "Fruit/Peach"\r\n%T OK done\r\n' } },
    { entry("inbox", "/", "\\Marked", "\\NoInferiors", "\\Subscribed"),
      entry("Fruit/Peach", "/", "\\Subscribed", "\\NonExistent") },
    rfc5258 },
  { "children", call("list", "", "%", { returns = { children = true } }), {
    { 'LIST "" "%" RETURN (CHILDREN)',
      '* LIST (\\HasChildren) "/" "Fruit"\r\n* LIST (\\HasNoChildren) "/" "Tofu"\r\n'
      .. "%T OK done\r\n" } },
    { entry("Fruit", "/", "\\HasChildren"), entry("Tofu", "/", "\\HasNoChildren") },
    rfc5258 },
  { "remote ones, with their children and subscriptions",
    call("list", "", "%", { select = { remote = true },
      returns = { children = true, subscribed = true } }), {
      { 'LIST (REMOTE) "" "%" RETURN (SUBSCRIBED CHILDREN)',
        '* LIST (\\HasNoChildren \\Remote) "/" "Bread"\r\n%T OK done\r\n' } },
    { entry("Bread", "/", "\\HasNoChildren", "\\Remote") },
    rfc5258 },
  { "those that have subscribed ones below them",
    call("list", "", "%", { select = { subscribed = true, recursive_match = true } }), {
      { 'LIST (SUBSCRIBED RECURSIVEMATCH) "" "%"',
        '* LIST () "/" "Foo" ("CHILDINFO" ("SUBSCRIBED"))\r\n%T OK done\r\n' } },
    { with(entry("Foo", "/"), { childinfo = { "SUBSCRIBED" } }) },
    rfc5258 },
  { "several patterns", call("list", "", { "INBOX", "Drafts", "Sent/%" }), {
    { 'LIST "" ("INBOX" "Drafts" "Sent/%")', '* LIST () "/" "INBOX"\r\n%T OK done\r\n' } },
    { entry("INBOX", "/") }, rfc5258 },
  { "all that, as IMAP4rev2 has it", call("list", "", { "a", "b" },
    { returns = { status = { "deleted" } } }), {
    { 'LIST "" ("a" "b") RETURN (STATUS (DELETED))', "%T OK done\r\n" } },
    {}, { "IMAP4rev2" } },

  -- LIST-STATUS: RFC 5819 4
  { "counts beside the mailboxes",
    call("list", "", "%", { returns = { status = { "messages", "unseen" } } }), {
      { 'LIST "" "%" RETURN (STATUS (MESSAGES UNSEEN))',
        '* LIST () "." "INBOX"\r\n* STATUS "INBOX" (MESSAGES 17 UNSEEN 16)\r\n'
        .. '* LIST () "." "foo"\r\n* STATUS "foo" (MESSAGES 30 UNSEEN 29)\r\n'
        .. '* LIST (\\NoSelect) "." "bar"\r\n%T OK done\r\n' } },
    { with(entry("INBOX", "."), { status = { name = "INBOX", messages = 17, unseen = 16 } }),
      with(entry("foo", "."), { status = { name = "foo", messages = 30, unseen = 29 } }),
      entry("bar", ".", "\\NoSelect") },
    { "LIST-EXTENDED", "LIST-STATUS" } },

  -- LIST-METADATA: RFC 9590 4
  { "annotations beside the mailboxes",
    call("list", "", "%", { returns = { metadata = "/shared/vendor/cmu/cyrus-imapd/color" } }), {
      { 'LIST "" "%" RETURN (METADATA ("/shared/vendor/cmu/cyrus-imapd/color"))',
        '* LIST () "." "INBOX"\r\n'
        .. '* METADATA "INBOX" ("/shared/vendor/cmu/cyrus-imapd/color" "#b71c1c")\r\n'
        .. '* LIST () "." "foo"\r\n'
        .. '* METADATA "foo" ("/shared/vendor/cmu/cyrus-imapd/color" NIL)\r\n%T OK done\r\n' } },
    { with(entry("INBOX", "."),
      { metadata = { ["/shared/vendor/cmu/cyrus-imapd/color"] = "#b71c1c" } }),
      with(entry("foo", "."), { metadata = {} }) },
    { "LIST-EXTENDED", "LIST-METADATA" } },

  -- SPECIAL-USE: RFC 6154 5
  { "those that are for something",
    call("list", "", "%", { select = { special_use = true }, returns = { special_use = true } }), {
      { 'LIST (SPECIAL-USE) "" "%" RETURN (SPECIAL-USE)',
        '* LIST (\\Sent) "/" "SentMail"\r\n* LIST (\\Marked \\Drafts) "/" "MyDrafts"\r\n'
        .. "%T OK done\r\n" } },
    { entry("SentMail", "/", "\\Sent"), entry("MyDrafts", "/", "\\Marked", "\\Drafts") },
    { "LIST-EXTENDED", "SPECIAL-USE" } },
  { "the one for something", call("special", "\\trash"), {
    { 'LIST (SPECIAL-USE) "" "*" RETURN (SPECIAL-USE)',
      '* LIST (\\NonExistent \\Trash) "/" "Old"\r\n* LIST (\\Trash) "/" "Trash"\r\n'
      .. '* LIST (\\Trash) "/" "Bin"\r\n%T OK done\r\n' } },
    entry("Trash", "/", "\\Trash"), { "LIST-EXTENDED", "SPECIAL-USE" } },
  { "the one for something, from what plain LIST tells", call("special", "\\Sent"), {
    { 'LIST "" "*"', '* LIST () "/" "INBOX"\r\n* LIST (\\Sent) "/" "SentMail"\r\n'
      .. "%T OK done\r\n" } },
    entry("SentMail", "/", "\\Sent"), {} },

  -- Without LIST-EXTENDED
  { "several patterns, each by itself", call("list", "", { "a", "a*" }), {
    { 'LIST "" "a"', '* LIST () "/" a\r\n%T OK done\r\n' },
    { 'LIST "" "a*"', '* LIST () "/" a\r\n* LIST () "/" ab\r\n%T OK done\r\n' } },
    { entry("a", "/"), entry("ab", "/") }, {} },
  { "subscriptions by LSUB", call("list", "", "%", { returns = { subscribed = true } }), {
    { 'LIST "" "%"', '* LIST () "/" INBOX\r\n* LIST () "/" foo\r\n%T OK done\r\n' },
    { 'LSUB "" "%"', '* LSUB () "/" inbox\r\n* LSUB (\\Noselect) "/" foo\r\n'
      .. '* LSUB () "/" gone\r\n%T OK done\r\n' } },
    { entry("INBOX", "/", "\\Subscribed"), entry("foo", "/") }, {} },
  { "those subscribed to by LSUB", call("list", "", "%", { select = { subscribed = true } }), {
    { 'LIST "" "%"', '* LIST () "/" a\r\n* LIST (\\Marked) "/" b\r\n%T OK done\r\n' },
    { 'LSUB "" "%"', '* LSUB () "/" b\r\n* LSUB () "/" gone\r\n* LSUB (\\Noselect) "/" up\r\n'
      .. "%T OK done\r\n" } },
    { entry("b", "/", "\\Marked", "\\Subscribed"),
      entry("gone", "/", "\\NonExistent", "\\Subscribed") }, {} },
  { "those above subscribed ones by LSUB",
    call("list", "", "%", { select = { subscribed = true, recursive_match = true } }), {
      { 'LIST "" "%"', '* LIST () "/" up\r\n%T OK done\r\n' },
      { 'LSUB "" "%"', '* LSUB (\\Noselect) "/" up\r\n%T OK done\r\n' } },
    { with(entry("up", "/"), { childinfo = { "SUBSCRIBED" } }) }, {} },
  { "those that are for something, from what plain LIST tells",
    call("list", "", "*", { select = { special_use = true } }), {
      { 'LIST "" "*"', '* LIST () "/" a\r\n* LIST (\\junk) "/" b\r\n%T OK done\r\n' } },
    { entry("b", "/", "\\junk") }, { "SPECIAL-USE" } },
  { "counts by STATUS, several on their way",
    call("list", "", "*", { returns = { status = { "size" } } }), {
      { 'LIST "" "*"', '* LIST () "/" a\r\n* LIST (\\Noselect) "/" b\r\n* LIST () "/" INBOX\r\n'
        .. '* LIST () "/" c\r\n%T OK done\r\n' },
      { 'STATUS "a" (SIZE)', "" }, { 'STATUS "INBOX" (SIZE)', "" }, { 'STATUS "c" (SIZE)',
        "* STATUS c (SIZE 3)\r\n* STATUS inbox (SIZE 2)\r\n* STATUS a (SIZE 1)\r\n"
        .. "%4 NO gone\r\n%3 OK done\r\n%2 OK done\r\n" } },
    { with(entry("a", "/"), { status = { name = "a", size = 1 } }),
      entry("b", "/", "\\Noselect"),
      with(entry("INBOX", "/"), { status = { name = "inbox", size = 2 } }),
      entry("c", "/") }, { "STATUS=SIZE" } },

  -- LSUB
  { "subscriptions", call("lsub", "#news.", "comp.mail.*"), {
    { 'LSUB "#news." "comp.mail.*"', '* LSUB () "." #news.comp.mail.mime\r\n%T OK done\r\n' } },
    { entry("#news.comp.mail.mime", ".") }, {} },

  -- STATUS
  { "counts of every kind", call("status", "blurdybloop", { "messages", "uidnext", "size",
    "highestmodseq", "deleted", "deleted_storage", "appendlimit", "mailboxid" }), {
    { 'STATUS "blurdybloop" (MESSAGES UIDNEXT SIZE HIGHESTMODSEQ DELETED DELETED-STORAGE '
      .. "APPENDLIMIT MAILBOXID)",
      "* STATUS other (MESSAGES 1)\r\n* STATUS blurdybloop (MESSAGES 231 UIDNEXT 44292 "
      .. "SIZE 5000000000 HIGHESTMODSEQ 7011231777 DELETED 4 DELETED-STORAGE 8 APPENDLIMIT 257890 "
      .. "MAILBOXID (F2212ea87-6097-4256-9d51-71338625))\r\n%T OK done\r\n" } },
    { name = "blurdybloop", messages = 231, uidnext = 44292, size = 5000000000,
      highestmodseq = 7011231777, deleted = 4, deleted_storage = 8, appendlimit = 257890,
      mailboxid = "F2212ea87-6097-4256-9d51-71338625" },
    { "STATUS=SIZE", "CONDSTORE", "OBJECTID", "APPENDLIMIT", "QUOTA", "QUOTA=RES-STORAGE",
      "QUOTA=RES-MESSAGE" } },
  { "a limit of all mailboxes", call("status", "x", { "appendlimit" }), {
    { 'STATUS "x" (APPENDLIMIT)', "* STATUS x (APPENDLIMIT NIL)\r\n%T OK done\r\n" } },
    { name = "x" }, { "APPENDLIMIT=257890" } },

  -- NAMESPACE: RFC 2342 5.6
  { "namespaces", call("namespace"), {
    { "NAMESPACE", '* NAMESPACE (("" "/")("#mh/" "/" "X-PARAM" ("FLAG1" "FLAG2"))) NIL '
      .. '(("#shared/" "/"))\r\n%T OK done\r\n' } },
    { personal = { { prefix = "", delimiter = "/", extensions = {} },
      { prefix = "#mh/", delimiter = "/", extensions = { ["x-param"] = { "FLAG1", "FLAG2" } } } },
      other = {}, shared = { { prefix = "#shared/", delimiter = "/", extensions = {} } } },
    { "NAMESPACE" } },
}

-- Calls whose result is the reply: the call, the command, the response code, and what that gives.
local replies = {
  { "makes a mailbox", call("create", "R\u{e9}sum\u{e9}s/"), 'CREATE "R&AOk-sum&AOk-s/"', "", {} },
  { "makes a mailbox and tells its id", call("create", "foo"), 'CREATE "foo"',
    "[MAILBOXID (F2212ea87)] ", { mailboxid = "F2212ea87" }, { "OBJECTID" } },
  { "makes a mailbox for a use", call("create", "MyDrafts", { use = "\\Drafts" }),
    'CREATE "MyDrafts" (USE (\\Drafts))', "", {}, { "CREATE-SPECIAL-USE" } },
  { "makes a mailbox for two uses", call("create", "x", { use = { "\\Sent", "\\All" } }),
    'CREATE "x" (USE (\\Sent \\All))', "", {}, { "CREATE-SPECIAL-USE" } },
  { "deletes a mailbox", call("delete", "foo"), 'DELETE "foo"', "", {} },
  { "renames a mailbox", call("rename", "foo", "b\u{e4}r"), 'RENAME "foo" "b&AOQ-r"', "", {} },
  { "subscribes", call("subscribe", "foo"), 'SUBSCRIBE "foo"', "", {} },
  { "unsubscribes", call("unsubscribe", "foo"), 'UNSUBSCRIBE "foo"', "", {} },
  { "has a mailbox put in order", call("check"), "CHECK", "", {} },
}

-- What is refused before a byte is sent: with an error that names the capability.
local lacking = {
  { "LIST-EXTENDED", call("list", "", "*", { select = { remote = true } }) },
  { "LIST-EXTENDED", call("list", "", "*",
    { select = { special_use = true, recursive_match = true } }), { "SPECIAL-USE" } },
  { "LIST-METADATA", call("list", "", "*", { returns = { metadata = { "/private/x" } } }) },
  { "LIST-METADATA", call("list", "", "*", { returns = { metadata = { "/private/x" } } }),
    rfc5258 },
  { "SPECIAL-USE", call("list", "", "*", { select = { special_use = true } }), rfc5258 },
  { "SPECIAL-USE", call("list", "", "*", { returns = { special_use = true } }) },
  { "CHILDREN", call("list", "", "*", { returns = { children = true } }) },
  { "STATUS=SIZE", call("list", "", "*", { returns = { status = { "size" } } }) },
  { "STATUS=SIZE", call("list", "", "*", { returns = { status = { "size" } } }),
    { "LIST-EXTENDED", "LIST-STATUS" } },
  { "STATUS=SIZE", call("status", "x", { "size" }) },
  { "CONDSTORE", call("status", "x", { "highestmodseq" }) },
  { "IMAP4rev2", call("status", "x", { "deleted" }) },
  { "QUOTA=RES-STORAGE", call("status", "x", { "deleted_storage" }) },
  { "APPENDLIMIT", call("status", "x", { "appendlimit" }) },
  { "OBJECTID", call("status", "x", { "mailboxid" }) },
  { "CREATE-SPECIAL-USE", call("create", "x", { use = "\\Sent" }), { "SPECIAL-USE" } },
  { "NAMESPACE", call("namespace") },
}

-- What raises, and sends nothing.
local misuses = {
  { "select.x: there is no such option", call("list", "", "*", { select = { x = true } }) },
  { "returns.x: there is no such option", call("list", "", "*", { returns = { x = true } }) },
  { "x: there is no such setting", call("list", "", "*", { x = true }) },
  { "must be true or false", call("list", "", "*", { select = { subscribed = 1 } }) },
  { "recursive_match needs", call("list", "", "*", { select = { recursive_match = true } }) },
  { "recursive_match needs",
    call("list", "", "*", { select = { recursive_match = true, remote = true } }) },
  { "pattern must be", call("list", "", {}) },
  { "must be a string", call("list", "", { 5 }) },
  { "has a CR, LF or NUL", call("list", "", "a\r\nA9 LOGOUT") },
  { "items of the status", call("list", "", "*", { returns = { status = {} } }),
    { "LIST-STATUS", "LIST-EXTENDED" } },
  { "entry must be", call("list", "", "*", { returns = { metadata = "comment" } }),
    { "LIST-METADATA", "LIST-EXTENDED" } },
  { "must be names", call("status", "x", { "MESSAGES UNSEEN" }) },
  { "must be names", call("status", "x", { "messages)\r\nA9 LOGOUT" }) },
  { "use must be", call("create", "x", { use = {} }), { "CREATE-SPECIAL-USE" } },
  { "flag has a character", call("create", "x", { use = "\\Se nt" }), { "CREATE-SPECIAL-USE" } },
  { "must be a string", call("delete") },
  { "must be a string", call("rename", "x") },
  { "use must be", call("special", "Sent") },
}

-- }======

describe("IMAP mailboxes", function()
  describe("are told:", function()
    for _, case in ipairs(dialogues) do
      it(case[1], function()
        converse(case[3], function(session)
          assert.same(case[4], assert(case[2](session)))
        end, { capabilities = case[5] })
      end)
    end

    it("none for a use that no mailbox has", function()
      converse({ { 'LIST "" "*"', "* LIST () \"/\" INBOX\r\n%T OK done\r\n" } }, function(session)
        assert.same({ n = 2 }, table.pack(session:special "\\Archive"))
      end)
    end)

    it("by LIST where IMAP4rev2 alone has no LSUB", function()
      converse({
        { "CAPABILITY", "* CAPABILITY IMAP4rev2\r\n%T OK done\r\n" },
        { 'LIST (SUBSCRIBED) "" "*"', '* LIST (\\Subscribed) "/" a\r\n%T OK done\r\n' },
        { "NOOP", "%T OK done\r\n" },
      }, function(session)
        assert.same({ IMAP4rev2 = true }, session:capability())
        assert.same({ entry("a", "/", "\\Subscribed") }, session:lsub())
        assert(session:check()) -- which IMAP4rev2 has not either
      end)
    end)

    it("without counts of mailboxes that are not listed, which are told unasked", function()
      local heard = {}
      converse({ { 'LIST "" "%" RETURN (STATUS (MESSAGES))', '* STATUS b (MESSAGES 2)\r\n'
        .. '* LIST () "/" a\r\n* STATUS a (MESSAGES 1)\r\n%T OK done\r\n' } }, function(session)
        local found = session:list("", "%", { returns = { status = { "messages" } } })
        assert.same({ with(entry("a", "/"), { status = { name = "a", messages = 1 } }) }, found)
        assert.same({ { name = "b", messages = 2 } }, heard)
      end, { capabilities = { "LIST-EXTENDED", "LIST-STATUS" },
        on = { status = function(value) heard[#heard + 1] = value end } })
    end)

    it("with the refusal of one of several commands", function()
      converse({
        { 'LIST "" "a"', '* LIST () "/" a\r\n%T OK done\r\n' }, { 'LIST "" "b"', "%T NO no\r\n" },
        { 'LIST "" "a"', "%T NO no\r\n" },
      }, function(session)
        for _ = 1, 2 do
          local found, err = session:list("", { "a", "b" })
          assert.is_nil(found)
          assert.same({ "rejected", "list" }, { err.kind, err.during })
        end
      end)
    end)

    it("in a pipeline, each STATUS by its mailbox's name", function()
      converse({
        { 'STATUS "a" (MESSAGES)', "" },
        { 'STATUS "b" (MESSAGES)', "* STATUS b (MESSAGES 2)\r\n* STATUS a (MESSAGES 1)\r\n"
          .. "%2 OK done\r\n%1 OK done\r\n" },
        { 'LIST "" "x"', '* LIST () "/" x\r\n%T OK done\r\n' },
      }, function(session)
        assert(session:pipeline(function(p)
          local a, b = p:status("a", { "messages" }), p:status("b", { "messages" })
          local listed = p:list("", "x")
          local refused = p:list("", "x", { returns = { status = { "messages" } } })
          assert.same({ 1, 2 }, { a:get().messages, b:get().messages })
          assert.same({ entry("x", "/") }, listed:get())
          local _, err = refused:get()
          assert.is_true(is_refusal_of("unsupported", "LIST-STATUS")(err))
        end))
      end)
    end)

    it("within the limit on what a command gathers", function()
      local line = '* LIST () "/" "' .. ("x"):rep(100) .. '"\r\n'
      converse({ { 'LIST "" "*"', line:rep(100) .. "%T OK done\r\n" } }, function(session)
        local found, err = session:list()
        assert.is_nil(found)
        assert.equals("limit", err.kind)
      end, { limits = { reply = 4000 } })
    end)
  end)

  for _, case in ipairs(replies) do
    it(("one call %s"):format(case[1]), function()
      converse({ { case[3], "%T OK " .. case[4] .. "done\r\n" }, { case[3], "%T NO no\r\n" } },
        function(session)
          local reply = assert(case[2](session))
          assert.equals("positive", reply.class)
          for name, value in pairs(case[5]) do assert.same(value, reply[name]) end
          local refused, err = case[2](session)
          assert.is_nil(refused)
          assert.equals("rejected", err.kind)
        end, { capabilities = case[6] })
    end)
  end

  for _, case in ipairs(lacking) do
    it(("are refused by a server that lacks %s"):format(case[1]), function()
      converse({}, function(session)
        local result, err = case[2](session)
        assert.is_nil(result)
        assert.is_true(is_refusal_of("unsupported", case[1])(err), tostring(err))
      end, { capabilities = case[3] })
    end)
  end

  it("are not what a closed session speaks of", function()
    converse({}, function(session)
      session:close()
      local told, err = session:namespace()
      assert.is_nil(told)
      assert.equals("closed", err.kind)
    end)
  end)

  it("raise for what can't be asked, and send nothing", function()
    for _, case in ipairs(misuses) do
      converse({}, function(session)
        local ok, err = pcall(case[2], session)
        assert.is_false(ok, case[1])
        assert.is_truthy(tostring(err):find(case[1], 1, true), tostring(err))
      end, { capabilities = case[3] })
    end
  end)

  describe("when one is selected", function()
    -- Selects a mailbox, and runs `use` with what comes then.
    local function selected(name, exchanges, use, capabilities)
      table.insert(exchanges, 1, { ('SELECT "%s"'):format(name), "* 3 EXISTS\r\n%T OK done\r\n" })
      converse(exchanges, function(session)
        assert(session:select(name))
        use(session)
      end, { capabilities = capabilities })
    end

    for _, case in ipairs {
      { "delete", "a", 'DELETE "a"', "a" },
      { "delete", "inbox", 'DELETE "INBOX"', "INBOX" },
      { "close_mailbox", "a", "CLOSE" },
      { "unselect", "a", "UNSELECT" },
    } do
      it(("it is not after %s of %s, unless that is refused"):format(case[1], case[2]), function()
        selected(case[2], { { case[3], "%T NO no\r\n" }, { case[3], "%T OK done\r\n" } },
          function(session)
            assert.is_nil(session[case[1]](session, case[4]))
            assert.equals(case[2], session.mailbox.name)
            assert(session[case[1]](session, case[4]))
            assert.is_nil(session.mailbox)
          end, { "UNSELECT" })
      end)
    end

    it("it stays so when another is deleted", function()
      selected("a", { { 'DELETE "A"', "%T OK done\r\n" } }, function(session)
        assert(session:delete "A")
        assert.equals("a", session.mailbox.name)
      end)
    end)

    -- The selected mailbox, what is renamed into "new", the delimiter that LIST tells, and the
    -- selected mailbox's name after that.
    for _, case in ipairs {
      { "a", "a", nil, "new" }, { "a/b/c", "a", "/", "new/b/c" }, { "a.b", "a", "/", "a.b" },
      { "ab", "a", "/", "ab" }, { "b", "a", nil, "b" }, { "INBOX", "inbox", nil, "INBOX" },
      { "INBOX/x", "INBOX", nil, "INBOX/x" },
    } do
      it(("%s is %s when %s becomes new"):format(case[1], case[4], case[2]), function()
        local exchanges = { { ('RENAME "%s" "new"'):format(case[2]), "%T OK done\r\n" } }
        exchanges[2] = case[3] and { 'LIST "new" ""',
          ('* LIST (\\Noselect) "%s" ""\r\n%%T OK done\r\n'):format(case[3]) }
        selected(case[1], exchanges, function(session)
          assert.equals("positive", session:rename(case[2], "new").class)
          assert.equals(case[4], session.mailbox.name)
        end)
      end)
    end

    it("it is renamed in a pipeline as well", function()
      selected("a/b", { { 'RENAME "a" "new"', "%T OK done\r\n" },
        { 'LIST "new" ""', '* LIST (\\Noselect) "/" ""\r\n%T OK done\r\n' },
        { 'RENAME "x" "y"', "%T OK done\r\n" }, { "CHECK", "%T OK done\r\n" },
      }, function(session)
        assert(session:pipeline(function(p)
          p:rename("a", "new")
          local other, check = p:rename("x", "y"), p:check()
          assert.equals("positive", other:get().class)
          assert.equals("positive", check:get().class)
        end))
        assert.equals("new/b", session.mailbox.name)
      end)
    end)

    it("it is left by opening what is not there, where there is no UNSELECT", function()
      selected("a", { { 'EXAMINE "starttls: no mailbox has this name"', "%T NO no\r\n" } },
        function(session)
          assert(session:unselect())
          assert.is_nil(session.mailbox)
        end)
    end)

    it("it is left although the mailbox that is not there is there", function()
      local heard = {}
      converse({
        { 'EXAMINE "starttls: no mailbox has this name"',
          "* 0 EXISTS\r\n* FLAGS ()\r\n* OK [UIDVALIDITY 1] x\r\n%T OK [READ-ONLY] done\r\n" },
        { "CLOSE", "%T OK done\r\n" },
      }, function(session)
        assert(session:unselect())
        assert.is_nil(session.mailbox)
      end, { on = { exists = function(count) heard[#heard + 1] = count end } })
      assert.same({}, heard)
    end)
  end)
end)

describe("Dovecot's mailboxes", function()
  local mail, session

  setup(function() mail = servers.shared() end)

  before_each(function()
    mail:empty "alice"
    session = assert(clients.connect(mail, "imap"))
    for _, name in ipairs { "work.b\u{fc}cher", "work.2024", "Sent" } do
      assert(session:create(name))
    end
    assert(session:subscribe "work.2024")
  end)

  after_each(function()
    session:close()
    session = assert(clients.connect(mail, "imap"))
    for _, listed in ipairs(assert(session:list())) do
      if listed.name ~= "INBOX" then session:delete(listed.name) end
    end
    for _, listed in ipairs(assert(session:lsub())) do session:unsubscribe(listed.name) end
    session:close()
  end)

  local function names(entries)
    local all = {}
    for index, listed in ipairs(entries) do all[index] = listed.name end
    table.sort(all)
    return all
  end

  it("are listed by patterns", function()
    assert.same({ "INBOX", "Sent", "work", "work.2024", "work.b\u{fc}cher" },
      names(assert(session:list())))
    assert.same({ "INBOX", "work.b\u{fc}cher" }, names(session:list("", { "inbox", "*cher" })))
    assert.same({ "work.2024" }, names(session:list("work.", "2%")))
  end)

  it("are listed with subscriptions, children, uses and counts", function()
    mail:deliver("alice", "a: b\r\n\r\nc\r\n")
    local found = assert(session:list("", "*", { returns = { children = true, subscribed = true,
      special_use = true, status = { "messages", "size", "highestmodseq" } } }))
    local by_name = {}
    for _, listed in ipairs(found) do by_name[listed.name] = listed end
    assert.is_true(by_name["work.2024"].flags["\\Subscribed"])
    assert.is_true(by_name["work.2024"].flags["\\HasNoChildren"])
    assert.is_true(by_name.work.flags["\\HasChildren"])
    assert.is_nil(by_name.work.status)
    assert.is_true(by_name.Sent.flags["\\Sent"])
    assert.equals(0, by_name.Sent.status.messages)
    assert.equals(1, by_name.INBOX.status.messages)
    assert.is_true(by_name.INBOX.status.size > 10)
    assert.is_true(by_name.INBOX.status.highestmodseq >= 1)
  end)

  it("are listed by subscription, and by what is below them", function()
    local found = assert(session:list("", "*", { select = { subscribed = true } }))
    assert.same({ "work.2024" }, names(found))
    assert.same({ "work.2024" }, names(assert(session:lsub())))
    local select = { subscribed = true, recursive_match = true }
    found = assert(session:list("", "%", { select = select }))
    assert.same({ "work" }, names(found))
    assert.same({ "SUBSCRIBED" }, found[1].childinfo)
    assert(session:unsubscribe "work.2024")
    assert.same({}, session:list("", "*", { select = { subscribed = true } }))
  end)

  it("are found by their use", function()
    assert.equals("Sent", session:special("\\Sent").name)
    assert(session:delete "Sent")
    assert.is_nil(session:special "\\Sent")
    assert.is_nil(session:special "\\Archive")
  end)

  it("are selected, left and renamed", function()
    assert(session:select "work.b\u{fc}cher")
    assert(session:check())
    assert(session:unselect())
    assert.is_nil(session.mailbox)
    assert(session:rename("work", "play"))
    assert.same({ "INBOX", "Sent", "play", "play.2024", "play.b\u{fc}cher" },
      names(assert(session:list())))
    assert(session:examine "play.2024")
    assert(session:close_mailbox())
    local _, err = session:close_mailbox()
    assert.equals("rejected", err.kind)
  end)

  it("have a namespace, and can't be made twice", function()
    assert.same({ personal = { { prefix = "", delimiter = ".", extensions = {} } }, other = {},
      shared = {} }, session:namespace())
    local _, err = session:create "Sent"
    assert.same({ "rejected", "ALREADYEXISTS" }, { err.kind, err.status })
    _, err = session:delete "nothing"
    assert.same({ "rejected", "NONEXISTENT" }, { err.kind, err.status })
  end)

  it("are counted for many at once in a pipeline", function()
    assert(session:pipeline(function(p)
      local counts = {}
      for index, name in ipairs { "Sent", "work.2024", "INBOX" } do
        counts[index] = p:status(name, { "messages", "uidvalidity" })
      end
      for _, count in ipairs(counts) do assert.equals(0, count:get().messages) end
    end))
  end)

  it("raise for options that connect does not know", function()
    assert.has_error(function() imap.connect { host = mail.host, on = { lists = print } } end)
  end)
end)
