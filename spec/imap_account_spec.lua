-- What is around the mailboxes: ID, quotas, rights, annotations, languages, and commands that the
-- library does not know. By scripted peers with the lines of the RFCs, and on Dovecot for what it
-- has.

local clients = require "spec.support.clients"
local errors = require "starttls.error"
local imap_talk = require "spec.support.imap_talk"
local servers = require "spec.support.servers"

local imap = require "starttls.imap"

local converse = imap_talk.converse

-- A call of the session's method.
local function call(name, ...)
  local arguments = table.pack(...)
  return function(session)
    return session[name](session, table.unpack(arguments, 1, arguments.n))
  end
end

local function longer_than(count, what)
  return (what or "x"):rep(count + 1)
end

local function many_fields(count)
  local fields = {}
  for index = 1, count do fields["f" .. index] = "x" end
  return fields
end

-- {====== Tables of cases ======

-- What is called, the command, the answer, what comes back, and the capabilities.
local dialogues = {
  -- ID: RFC 2971 3.1, 3.2
  { "who the server is", call("id"), "ID NIL", '* ID ("name" "Cyrus" "Version" "1.5" '
    .. '"os" "sunos" "os-version" "5.5" "support-url" NIL)\r\n',
    { name = "Cyrus", version = "1.5", os = "sunos", ["os-version"] = "5.5" }, { "ID" } },
  { "nothing of the server", call("id", { name = "sodr", version = "19.34", vendor = false }),
    'ID ("name" "sodr" "vendor" NIL "version" "19.34")', "* ID NIL\r\n", {}, { "ID" } },
  { "fields of the greatest length", call("id", { [("n"):rep(30)] = ("v"):rep(1024) }),
    ('ID ("%s" "%s")'):format(("n"):rep(30), ("v"):rep(1024)), "* ID NIL\r\n", {}, { "ID" } },

  -- QUOTA: RFC 9208 4.1, with the capabilities of RFC 9208 3
  { "a quota", call("getquota", "!partition/sda4"), 'GETQUOTA "!partition/sda4"',
    '* QUOTA "!partition/sda4" (STORAGE 104 10923847 MESSAGE 42 1000)\r\n',
    { root = "!partition/sda4", resources = { STORAGE = { usage = 104, limit = 10923847 },
      MESSAGE = { usage = 42, limit = 1000 } } },
    { "QUOTA", "QUOTA=RES-STORAGE", "QUOTA=RES-MESSAGE" } },
  { "a quota without limits", call("getquota", ""), 'GETQUOTA ""', '* QUOTA "" ()\r\n',
    { root = "", resources = {} }, { "QUOTA" } },
  { "a mailbox's quotas", call("getquotaroot", "INBOX"), 'GETQUOTAROOT "INBOX"',
    '* QUOTAROOT INBOX "#user/alice" "#partition/sda4"\r\n'
      .. '* QUOTA "#user/alice" (MESSAGE 42 1000)\r\n'
      .. '* QUOTA "#partition/sda4" (STORAGE 104 10923847)\r\n',
    { name = "INBOX", roots = { "#user/alice", "#partition/sda4" }, quotas = {
      ["#user/alice"] = { root = "#user/alice",
        resources = { MESSAGE = { usage = 42, limit = 1000 } } },
      ["#partition/sda4"] = { root = "#partition/sda4",
        resources = { STORAGE = { usage = 104, limit = 10923847 } } } } },
    { "QUOTA", "QUOTA=RES-STORAGE" } },
  { "a quota that is set", call("setquota", "#user/alice", { STORAGE = 510, message = 5 }),
    'SETQUOTA "#user/alice" (STORAGE 510 MESSAGE 5)',
    '* QUOTA "#user/alice" (STORAGE 58 512)\r\n',
    { root = "#user/alice", resources = { STORAGE = { usage = 58, limit = 512 } } },
    { "QUOTA", "QUOTASET", "QUOTA=RES-STORAGE", "QUOTA=RES-MESSAGE" } },
  { "a quota that is set as of RFC 2087", call("setquota", "", {}), 'SETQUOTA "" ()',
    '* QUOTA "" ()\r\n', { root = "", resources = {} }, { "QUOTA" } },

  -- ACL: RFC 4314 3
  { "rights of all", call("getacl", "INBOX"), 'GETACL "INBOX"',
    "* ACL INBOX Fred rwipsldexta \"anyone\" l -bob w\r\n",
    { Fred = "rwipsldexta", anyone = "l", ["-bob"] = "w" }, { "ACL" } },
  { "rights that can be given", call("listrights", "~/Mail/saved", "smith"),
    'LISTRIGHTS "~/Mail/saved" "smith"', "* LISTRIGHTS ~/Mail/saved smith la r swicdkxte\r\n",
    { name = "~/Mail/saved", identifier = "smith", required = "la",
      optional = { "r", "swicdkxte" } }, { "ACL" } },
  { "our rights", call("myrights", "INBOX"), 'MYRIGHTS "INBOX"',
    "* MYRIGHTS INBOX rwiptsldaex\r\n", "rwiptsldaex", { "ACL" } },

  -- METADATA: RFC 5464 4.2
  { "an annotation", call("getmetadata", "INBOX", "/private/comment"),
    'GETMETADATA "INBOX" ("/private/comment")',
    '* METADATA "INBOX" (/shared/comment)\r\n'
      .. '* METADATA INBOX (/private/comment "My own comment")\r\n'
      .. '* METADATA other (/private/comment "no")\r\n',
    { ["/private/comment"] = "My own comment" }, { "METADATA" } },
  { "annotations of the server, in several responses",
    call("getmetadata", "", { "/shared/comment", "/private/x" }, { depth = 1 }),
    'GETMETADATA (DEPTH 1) "" ("/shared/comment" "/private/x")',
    '* METADATA "" (/shared/comment {5}\r\nab\r\nc)\r\n'
      .. '* METADATA "" (/private/x ~{2}\r\n\0\255 /private/x/y NIL)\r\n',
    { ["/shared/comment"] = "ab\r\nc", ["/private/x"] = "\0\255" }, { "METADATA-SERVER" } },

  -- LANGUAGE, COMPARATOR: RFC 5255 3.2, 4.7
  { "languages", call("language"), "LANGUAGE", "* LANGUAGE (EN DE IT i-default)\r\n",
    { "EN", "DE", "IT", "i-default" }, { "LANGUAGE" } },
  { "the language that is chosen", call("language", "FR-CA", "*"), 'LANGUAGE "FR-CA" "*"',
    '* LANGUAGE (FR)\r\n* NAMESPACE (("" "/")) NIL NIL\r\n', { "FR" }, { "LANGUAGE" } },
  { "a comparator", call("comparator"), "COMPARATOR", '* COMPARATOR "i;unicode-casemap"\r\n',
    { active = "i;unicode-casemap", matching = {} }, { "I18NLEVEL=2" } },
  { "a comparator that is chosen", call("comparator", "cz;*", "i;basic"),
    'COMPARATOR "cz;*" "i;basic"',
    "* COMPARATOR i;basic (i;basic i;ascii-casemap)\r\n",
    { active = "i;basic", matching = { "i;basic", "i;ascii-casemap" } }, { "I18NLEVEL=2" } },

  -- JMAPACCESS: RFC 9698 4
  { "where JMAP is", call("getjmapaccess"), "GETJMAPACCESS",
    '* JMAPACCESS "https://example.com/.well-known/jmap"\r\n',
    "https://example.com/.well-known/jmap", { "JMAPACCESS" } },
}

-- Calls whose result is the reply, and their commands.
local replies = {
  { call("setacl", "INBOX/Drafts", "John", "lrQswicda"), nil },
  { call("setacl", "INBOX/Drafts", "John", "lrswicda"),
    'SETACL "INBOX/Drafts" "John" "lrswicda"', { "ACL" } },
  { call("setacl", "x", "-fred", "+kt"), 'SETACL "x" "-fred" "+kt"', { "ACL", "RIGHTS=texk" } },
  { call("setacl", "x", "fred", ""), 'SETACL "x" "fred" ""', { "ACL" } },
  { call("deleteacl", "x", "fr\u{e9}d"), 'DELETEACL "x" {5}\r\nfr\u{e9}d', { "ACL" } },
  { call("setmetadata", "INBOX", { ["/private/comment"] = "My new comment" }),
    'SETMETADATA "INBOX" ("/private/comment" "My new comment")', { "METADATA" } },
  { call("setmetadata", "INBOX", { ["/private/comment"] = false, ["/shared/comment"] = "a\r\nb" }),
    'SETMETADATA "INBOX" ("/private/comment" NIL "/shared/comment" {4}\r\na\r\nb)',
    { "METADATA" } },
  { call("setmetadata", "", { ["/private/x"] = "\0\255\r\n" }),
    'SETMETADATA "" ("/private/x" ~{4}\r\n\0\255\r\n)', { "METADATA-SERVER" } },
}
table.remove(replies, 1)

-- What is refused before a byte is sent, with the capability that the error names.
local lacking = {
  { "ID", call("id") }, { "QUOTA", call("getquota", "") }, { "QUOTA", call("getquotaroot", "x") },
  { "QUOTA", call("setquota", "", {}) },
  { "QUOTASET", call("setquota", "", { STORAGE = 1 }), { "QUOTA", "QUOTA=RES-STORAGE" } },
  { "QUOTA=RES-MESSAGE", call("setquota", "", { MESSAGE = 1 }),
    { "QUOTA", "QUOTASET", "QUOTA=RES-STORAGE" } },
  { "ACL", call("setacl", "x", "y", "l") }, { "ACL", call("deleteacl", "x", "y") },
  { "ACL", call("getacl", "x") }, { "ACL", call("listrights", "x", "y") },
  { "ACL", call("myrights", "x") },
  { "RIGHTS=k", call("setacl", "x", "y", "lrk"), { "ACL" } },
  { "RIGHTS=z", call("setacl", "x", "y", "kz"), { "ACL", "RIGHTS=texk" } },
  { "METADATA", call("getmetadata", "x", "/private/a"), { "METADATA-SERVER" } },
  { "METADATA-SERVER", call("getmetadata", "", "/private/a") },
  { "METADATA", call("setmetadata", "x", { ["/private/a"] = "b" }) },
  { "LANGUAGE", call("language", "de") }, { "I18NLEVEL=2", call("comparator"), { "I18NLEVEL=1" } },
  { "JMAPACCESS", call("getjmapaccess") }, { "UNAUTHENTICATE", call("unauthenticate") },
}

-- What raises and sends nothing: words of the message, and the call.
local everything = { "ID", "QUOTA", "ACL", "METADATA", "LANGUAGE", "I18NLEVEL=2" }
local misuses = {
  { "fields must be a table", call("id", "name") },
  { "more than 30", call("id", many_fields(31)) },
  { "at most 30 octets", call("id", { [longer_than(30)] = "x" }) },
  { "at most 1024 octets", call("id", { name = longer_than(1024) }) },
  { "or false", call("id", { name = 5 }) },
  { "is there twice", call("id", { name = "a", Name = "b" }) },
  { "has a CR, LF or NUL", call("id", { name = "a\r\nA9 LOGOUT" }) },
  { "must be a string", call("getquota") },
  { "must be a name", call("setquota", "", { ["STORAGE 5"] = 1 }) },
  { "must be a name", call("setquota", "", { 5 }) },
  { "must be an integer", call("setquota", "", { STORAGE = -1 }) },
  { "must be an integer", call("setquota", "", { STORAGE = 1.5 }) },
  { "rights must be", call("setacl", "x", "y", "l r") },
  { "rights must be", call("setacl", "x", "y", "L") },
  { "rights must be", call("setacl", "x", "y") },
  { "identifier must be", call("setacl", "x", "", "l") },
  { "identifier must be", call("deleteacl", "x") },
  { "entry must be", call("getmetadata", "x", "comment") },
  { "entry must be", call("getmetadata", "x", "/other/comment") },
  { "entry must be", call("getmetadata", "x", { "/private/a*" }) },
  { "entry must be", call("getmetadata", "x", "/private/a/") },
  { "entry must be", call("getmetadata", "x", "/private//a") },
  { "entry must be", call("getmetadata", "x", "/private/\u{e9}") },
  { "there is no entry", call("getmetadata", "x", {}) },
  { "depth must be", call("getmetadata", "x", "/private/a", { depth = 2 }) },
  { "maxsize must be", call("getmetadata", "x", "/private/a", { maxsize = "5" }) },
  { "values must be", call("setmetadata", "x", {}) },
  { "must be a string", call("setmetadata", "x", { ["/private/a"] = true }) },
  { "is no name", call("language", "d e") }, { "is no name", call("comparator", '"') },
  { "verb must be", call("execute", "NO OP\r\n") }, { "verb must be", call("execute", "") },
  { "verb must be", call("execute", "NOOP  X") }, { "verb must be", call("execute") },
  { "use select instead of SELECT", call("execute", "select", "INBOX") },
  { "use authenticate instead of LOGIN", call("execute", "LOGIN", "a", "b") },
  { "use idle instead of IDLE", call("execute", "Idle") },
  { "use compress instead", call("execute", "COMPRESS", imap.atom "DEFLATE") },
  { "use logout instead", call("execute", "LOGOUT") },
  { "use enable instead", call("execute", "ENABLE", imap.atom "CONDSTORE") },
  { "use connect, with tls", call("execute", "STARTTLS") },
  { "use unauthenticate instead", call("execute", "UNAUTHENTICATE") },
  { "use authenticate instead", call("execute", "AUTHENTICATE", imap.atom "PLAIN") },
  { "can't be an argument", call("execute", "X", true) },
  { "can't be an argument", call("execute", "X", nil) },
  { "can't be an argument", call("execute", "X", 1.5) },
  { "can't be an argument", call("execute", "X", -1) },
  { "array without holes", call("execute", "X", { a = "b" }) },
  { "array without holes", call("execute", "X", { "a", nil, "b" }) },
  { "not valid UTF-8", call("execute", "X", imap.mailbox "\xff") },
  { "flag has a character", call("execute", "X", imap.flag "a b") },
  { "nothing to authenticate", call("authenticate", {}) },
  { "nothing to authenticate", call("authenticate", { authzid = "x" }) },
  { "takes a table", call("authenticate") },
  { "unknown option 'host'", call("authenticate", { host = "x", user = "a", password = "b" }) },
  { "needs option 'user'", call("authenticate", { password = "b" }) },
  { "needs a password", call("authenticate", { user = "b" }) },
  { "unknown SASL", call("authenticate", { user = "b", password = "c", sasl = "x" }) },
  { "not sent in the clear", call("authenticate", { user = "a", password = "b" }) },
}

-- }======

describe("An IMAP account", function()
  describe("is told", function()
    for _, case in ipairs(dialogues) do
      it(case[1], function()
        converse({ { case[3], case[4] .. "%T OK done\r\n" }, { case[3], "%T NO no\r\n" } },
          function(session)
            assert.same(case[5], assert(case[2](session)))
            local refused, err = case[2](session)
            assert.is_nil(refused)
            assert.same({ "rejected", case[3]:match "^%a+":lower() }, { err.kind, err.during })
          end, { capabilities = case[6] })
      end)
    end

    it("the size of what is too long to be told", function() -- RFC 5464 4.2.1
      converse({ { 'GETMETADATA (MAXSIZE 1024) "INBOX" ("/shared/comment" "/private/comment")',
        '* METADATA "INBOX" (/private/comment "My own comment")\r\n'
          .. "%T OK [METADATA LONGENTRIES 2199] GETMETADATA complete\r\n" } }, function(session)
        local found, longest = session:getmetadata("INBOX", { "/shared/comment",
          "/private/comment" }, { maxsize = 1024 })
        assert.same({ ["/private/comment"] = "My own comment" }, found)
        assert.equals(2199, longest)
      end, { capabilities = { "METADATA" } })
    end)

    it("why an annotation can't be set", function() -- RFC 5464 4.3
      converse({ { 'SETMETADATA "x" ("/private/a" "b")',
        "%T NO [METADATA MAXSIZE 1024] too long\r\n" } }, function(session)
        local _, err = session:setmetadata("x", { ["/private/a"] = "b" })
        assert.same({ "METADATA", { maxsize = 1024 } }, { err.status, err.reply.metadata })
      end, { capabilities = { "METADATA" } })
    end)

    it("within the limit on what a command gathers", function()
      local line = '* METADATA x ("/private/a" "' .. ("x"):rep(200) .. '")\r\n'
      converse({ { 'GETMETADATA "x" ("/private/a")', line:rep(40) .. "%T OK done\r\n" } },
        function(session)
          local _, err = session:getmetadata("x", "/private/a")
          assert.equals("limit", err.kind)
        end, { capabilities = { "METADATA" }, limits = { reply = 4000 } })
    end)
  end)

  for _, case in ipairs(replies) do
    it("is changed with " .. case[2]:match "^%u+ .*", function()
      converse({ { case[2], "%T OK done\r\n" }, { case[2], "%T NO no\r\n" } }, function(session)
        assert.equals("positive", assert(case[1](session)).class)
        local refused, err = case[1](session)
        assert.is_nil(refused)
        assert.equals("rejected", err.kind)
      end, { capabilities = case[3] })
    end)
  end

  for _, case in ipairs(lacking) do
    it(("is not asked where the server lacks %s"):format(case[1]), function()
      converse({}, function(session)
        local result, err = case[2](session)
        assert.is_nil(result)
        assert.equals("unsupported", err.kind)
        assert.is_truthy(err.message:find("offer " .. case[1], 1, true), err.message)
      end, { capabilities = case[3] })
    end)
  end

  it("raises for what can't be asked, and sends nothing", function()
    converse({}, function(session)
      for _, case in ipairs(misuses) do
        local ok, err = pcall(case[2], session)
        assert.is_false(ok, case[1])
        assert.is_false(errors.is(err))
        assert.is_truthy(tostring(err):find(case[1], 1, true), tostring(err))
      end
    end, { capabilities = everything })
  end)
end)

describe("An IMAP session that executes", function()
  local function executes(command, answer, expected, ...)
    local given = table.pack(...)
    converse({ { command, answer } }, function(session)
      assert.same(expected, assert(session:execute(table.unpack(given, 1, given.n))).untagged)
    end)
  end

  it("sends each value as what it is", function()
    executes('XMOVE "a b" 5 {4}\r\n\r\n\r\n ~{1}\r\n\0 ("x" () (7)) NIL \\Seen "B&APw-" 1:3,5 '
      .. 'BODY[TEXT]<0.5> {5}\r\nx\r\ny\n', "%T OK done\r\n", {},
      "xmove", "a b", 5, "\r\n\r\n", "\0", { "x", {}, { 7 } }, imap.null, imap.flag "\\Seen",
      imap.mailbox "B\u{fc}", imap.set { 1, 2, 3, 5 }, imap.atom "BODY[TEXT]<0.5>", "x\r\ny\n")
  end)

  it("sends messages from strings, files and functions, one after the other", function()
    local file <close> = assert(io.tmpfile())
    file:write "two\n"
    file:seek "set"
    local pieces = { "th", "ree" }
    executes("XPUT {5}\r\none\r\n ({5}\r\ntwo\r\n) {5}\r\nthree", "%T OK done\r\n", {}, "XPUT",
      imap.content "one\n", { imap.content(file) },
      imap.content(function() return table.remove(pieces, 1) end))
  end)

  it("returns all that came, and keeps the mailbox's count", function()
    local heard = {}
    converse({
      { 'SELECT "a"', "* 3 EXISTS\r\n%T OK done\r\n" },
      { "UID FETCH 1:* (FLAGS BODY.PEEK[])", "* 4 EXISTS\r\n* XYZZY (1 \"a\") NIL\r\n"
        .. "* 2 FETCH (UID 7 FLAGS (\\Seen) BODY[] {3}\r\nabc)\r\n* 1 EXPUNGE\r\n"
        .. "* OK [ALERT] look\r\n%T OK [X-CODE 5] done\r\n" },
    }, function(session)
      assert(session:select "a")
      local result = assert(session:execute("UID FETCH", imap.set "1:*",
        { imap.atom "FLAGS", imap.atom "BODY.PEEK[]" }))
      local untagged = result.untagged
      assert.same({ "EXISTS", 4 }, { untagged[1].name, untagged[1].number })
      assert.same({ name = "XYZZY", value = { { 1, "a" }, false } }, untagged[2])
      assert.same({ "FETCH", 2, 7, "abc", true }, { untagged[3].name, untagged[3].number,
        untagged[3].value.uid, untagged[3].value.body, untagged[3].value.flags["\\Seen"] })
      assert.same({ "EXPUNGE", 1 }, { untagged[4].name, untagged[4].number })
      assert.same({ "X-CODE", { 5 } }, { result.reply.status, result.reply.arguments })
      assert.same({ "look", 3 }, { heard[1], session.mailbox.exists })
    end, { on = { alert = function(text) heard[#heard + 1] = text end } })
  end)

  it("tells of a refusal", function()
    converse({ { "XYZZY", "* XYZZY 1\r\n%T BAD what?\r\n" } }, function(session)
      local result, err = session:execute "XYZZY"
      assert.is_nil(result)
      assert.same({ "rejected", "execute", "what?" }, { err.kind, err.during, err.text })
    end)
  end)

  it("gathers no more than the limits allow", function()
    local line = "* XYZZY " .. ("x"):rep(200) .. "\r\n"
    converse({ { "XYZZY", line:rep(40) } }, function(session)
      local _, err = session:execute "XYZZY"
      assert.equals("limit", err.kind)
    end, { limits = { reply = 4000 } })
    converse({ { "FETCH 1 BODY[]", "* 1 FETCH (BODY[] {5000}\r\n" .. ("x"):rep(5000) .. ")\r\n" } },
      function(session)
        local _, err = session:execute("FETCH", 1, imap.atom "BODY[]")
        assert.equals("limit", err.kind)
      end, { limits = { string = 4000 } })
  end)

  for _, word in ipairs { "", "a b", "(", ")", '"', "{5}", "x{5+}", "a\r\n", "\xe9", "\\Seen",
    "%" } do
    it(("takes no atom %q"):format(word), function()
      assert.has_error(function() imap.atom(word) end)
    end)
  end

  it("takes no set that is none, and no argument that is no string", function()
    for _, set in ipairs { {}, "", 0, true } do
      assert.has_error(function() imap.set(set) end)
    end
    for _, name in ipairs { "atom", "mailbox", "flag" } do
      assert.has_error(function() imap[name](5) end)
    end
  end)
end)

describe("Dovecot's account", function()
  local mail, session

  setup(function() mail = servers.shared() end)
  before_each(function()
    mail:empty "alice"
    session = assert(clients.connect(mail, "imap"))
  end)
  after_each(function() session:close() end)

  it("is at a server that says who it is", function()
    assert.equals("Dovecot", assert(session:id { name = "specs", vendor = false }).name)
  end)

  it("has a quota", function()
    mail:deliver("alice", "a: b\r\n\r\n" .. ("x"):rep(5000) .. "\r\n")
    assert(session:select "INBOX")
    local found = assert(session:getquotaroot "INBOX")
    assert.same({ "User quota" }, found.roots)
    local resources = found.quotas["User quota"].resources
    assert.same({ usage = 1, limit = 100000 }, resources.MESSAGE)
    assert.equals(1024 * 1024, resources.STORAGE.limit)
    assert.same(found.quotas["User quota"], session:getquota "User quota")
    local _, err = session:setquota("User quota", { STORAGE = 5 })
    assert.same({ "rejected", "setquota" }, { err.kind, err.during }) -- not ours to set
  end)

  it("has rights that can be given and taken", function()
    assert(session:create "shared")
    assert(session:setacl("shared", "bob", "lr"))
    assert(session:setacl("shared", "bob", "+k"))
    local rights = assert(session:getacl "shared")
    assert.same({ "k", "l", "r" }, { rights.bob:match "k", rights.bob:match "l",
      rights.bob:match "r" })
    assert.is_truthy(session:myrights("shared"):find "a")
    assert.equals("bob", session:listrights("shared", "bob").identifier)
    assert(session:deleteacl("shared", "bob"))
    assert.is_nil(session:getacl("shared").bob)
    assert(session:delete "shared")
  end)

  it("keeps annotations of any octets but NUL", function()
    local value = "\1\r\n\"\\\200\255"
    assert(session:setmetadata("INBOX", { ["/private/comment"] = value,
      ["/shared/comment"] = ("x"):rep(2000) }))
    local found, longest = session:getmetadata("INBOX", { "/private/comment", "/shared/comment" },
      { maxsize = 1000 })
    assert.same({ ["/private/comment"] = value }, found)
    assert.equals(2000, longest)
    found = assert(session:getmetadata("INBOX", "/private", { depth = "infinity" }))
    assert.equals(value, found["/private/comment"])
    assert(session:setmetadata("INBOX", { ["/private/comment"] = false }))
    assert.same({}, session:getmetadata("INBOX", "/private/comment"))
    assert(session:setmetadata("", { ["/private/comment"] = "of the server" }))
    assert.same({ ["/private/comment"] = "of the server" },
      session:getmetadata("", "/private/comment"))
  end)

  it("answers commands that are executed", function()
    local result = assert(session:execute("LIST", "", "*"))
    assert.equals("INBOX", result.untagged[1].value.name)
    result = assert(session:execute("APPEND", imap.mailbox "INBOX", { imap.flag "\\Seen" },
      imap.content "a: b\n\nc\n"))
    assert.equals("APPENDUID", result.reply.status)
    assert.equals(1, session:status("INBOX").messages)
    result = assert(session:execute("STATUS", imap.mailbox "INBOX", { imap.atom "UIDNEXT" }))
    assert.equals("STATUS", result.untagged[1].name)
  end)

  it("refuses what it lacks", function()
    for _, name in ipairs { "unauthenticate", "language", "comparator", "getjmapaccess" } do
      local result, err = session[name](session)
      assert.is_nil(result)
      assert.equals("unsupported", err.kind)
    end
  end)
end)
