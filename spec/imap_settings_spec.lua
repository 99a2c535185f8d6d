-- The table of settings that many methods take last: a name that they don't know is misuse, and is
-- told before anything is sent.

local imap = require "starttls.imap"
local servers = require "spec.support.servers"

describe("settings of IMAP methods", function()
  local mail, session
  local sent = {}

  setup(function()
    mail = servers.shared()
    session = assert(imap.connect {
      host = mail.host, port = mail.imap.port, ca_file = mail.ca_file, user = "alice",
      password = mail.users.alice.password,
      trace = function(event)
        if event.direction == "sent" then sent[#sent + 1] = event.text end
      end,
    })
    assert(session:select "INBOX")
    assert.is_true(#sent > 0)
  end)

  teardown(function() session:close() end)

  before_each(function() sent = {} end)

  local message = "Subject: Hello\r\n\r\nHello\r\n"

  -- What each takes before its settings.
  local calls = {
    append = { "INBOX", message }, append_all = { "INBOX", { { message = message } } },
    replace = { 1, "INBOX", message }, create = { "New" }, copy = { "1:*", "INBOX" },
    move = { "1:*", "INBOX" }, examine = { "INBOX" }, select = { "INBOX" },
    fetch = { "1:*", { "uid" } }, getmetadata = { "INBOX", "/private/comment" }, idle = {},
    list = { "", "*" }, multisearch = { { "personal" }, {} }, pipeline = { function() end },
    search = { {} }, sort = { "date", {} }, store = { "1:*", { add = { "\\Seen" } } },
    thread = { "references", {} },
  }

  local function call(name, settings)
    local arguments = table.pack(table.unpack(calls[name]))
    arguments[arguments.n + 1] = settings
    return pcall(session[name], session, table.unpack(arguments, 1, arguments.n + 1))
  end

  for name in pairs(calls) do
    it(("are known by name: %s"):format(name), function()
      local ok, err = call(name, { nonsense = true })
      assert.is_false(ok)
      assert.equal(name .. ": nonsense: there is no such setting", err)
      assert.same({}, sent)
    end)

    it(("are a table: %s"):format(name), function()
      local ok, err = call(name, 3)
      assert.is_false(ok)
      assert.equal(name .. ": the settings must be a table, not number", err)
      assert.same({}, sent)
    end)
  end

  it("are known by name in each message of append_all, too", function()
    local ok, err = pcall(session.append_all, session, "INBOX",
      { { message = message, flag = "\\Seen" } })
    assert.is_false(ok)
    assert.equal("append_all: flag: there is no such setting", err)
    assert.same({}, sent)
  end)

  it("are known by name in imap.sync and in a pipeline", function()
    assert.has_error(function() imap.sync(session, "INBOX", nil, { readonly = true }) end,
      "sync: readonly: there is no such setting")
    assert.has_error(function()
      session:pipeline(function(p) p:fetch("1:*", { "uid" }, { eech = print }) end)
    end, "fetch: eech: there is no such setting")
    assert.same({}, sent)
  end)
end)
