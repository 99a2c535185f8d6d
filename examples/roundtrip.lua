--- Sends a message over SMTP, fetches it back over IMAP and over POP3, and compares the bytes.
--
--   MAIL_PASSWORD=... lua5.4 examples/roundtrip.lua host=mail.example.com user=alice \
--     address=alice@example.com
--
-- Each session begins in the clear, is upgraded with STARTTLS, and authenticates. The dialogue
-- is printed as it goes: C: is this client, S: the server, and each line says whether it
-- travelled in the clear or inside TLS. In the end the message is deleted again.
--
-- Settings are arguments NAME=VALUE or environment variables MAIL_NAME: host, user, password,
-- address, ca_file, smtp_port, imap_port, pop3_port. Give the password as MAIL_PASSWORD:
-- everybody on a machine can read command lines.
-- Exit status: 0 when the message came back as it was sent, else 1.
local smtp = require "starttls.smtp"
local imap = require "starttls.imap"
local pop3 = require "starttls.pop3"

-- Settings --------------------------------------------------------------

local given = {}
for _, argument in ipairs(arg) do
  local name, value = argument:match "^([%w_]+)=(.*)$"
  if not name then error(("not NAME=VALUE: %s"):format(argument), 0) end
  given[name] = value
end

local function setting(name, needed)
  local value = given[name] or os.getenv("MAIL_" .. name:upper())
  if needed and not value then
    error(("missing: argument %s=... or variable MAIL_%s"):format(name, name:upper()), 0)
  end
  return value
end

local address = setting("address", true)

-- The dialogue, for people ----------------------------------------------

local coloured = not os.getenv "NO_COLOR" and os.execute "test -t 1"
local colours = { clear = "\27[31m", sent = "\27[32m", received = "\27[36m", note = "\27[1m" }
local width = 100

local function paint(colour, text)
  return coloured and colours[colour] .. text .. "\27[0m" or text
end

-- Whatever a server says, it does not control the terminal.
local function printable(text, columns)
  text = text:gsub("%c", "?")
  return #text <= columns and text or text:sub(1, columns - 3) .. "..."
end

local function rule(text)
  print(paint("note", ("---- %s %s"):format(text, ("-"):rep(width - 6 - #text))))
end

local content -- of the message, in several pieces: direction and count

local function write_line(event, text)
  local who = event.direction == "sent" and "C: " or "S: "
  print(("%s  %s"):format(event.encrypted and "TLS  " or paint("clear", "clear"),
    paint(event.direction, who .. printable(text, width - 10))))
end

-- The trace option: called with each line, in both directions. Credentials are blanked, and of
-- the message there are only counts.
local function show(event)
  if event.bytes then
    content = { event = event, bytes = event.bytes + (content and content.bytes or 0) }
    return
  end
  if content then
    write_line(content.event, ("(%d bytes of the message)"):format(content.bytes))
    content = nil
  end
  if event.direction == "note" then rule(event.text) else write_line(event, event.text) end
end

local function connect(protocol, name)
  print(paint("note", ("\n%s"):format(name)))
  return assert(protocol.connect {
    host = setting("host", true), port = tonumber(setting(name:lower() .. "_port")),
    user = setting("user", true), password = setting("password", true),
    ca_file = setting "ca_file", trace = show,
  })
end

-- The message -----------------------------------------------------------

local id = ("<%d.%d@roundtrip.invalid>"):format(os.time(), math.random(1 << 30))

local message = table.concat({
  "From: <" .. address .. ">",
  "To: <" .. address .. ">",
  "Subject: There and back again",
  "Date: " .. os.date "!%a, %d %b %Y %H:%M:%S +0000",
  "Message-ID: " .. id,
  "MIME-Version: 1.0",
  "Content-Type: text/plain; charset=utf-8",
  "Content-Transfer-Encoding: 8bit",
  "",
  "Some lines that a careless client or server would spoil:",
  ".a line that begins with a dot",
  ".",
  "..",
  "h\u{E9}ll\u{F6}, w\u{F6}rld",
  "a long line: " .. ("0123456789"):rep(98),
  "  blanks at both ends  ",
  "",
}, "\r\n")

local function is_header(text)
  if text ~= "" and text:sub(-2) ~= "\r\n" then return false end
  for line in text:gmatch "(.-)\r\n" do
    if not line:find "^[%w-]+:" and not line:find "^[ \t]" then return false end
  end
  return true
end

-- Servers put header fields of their own on top (Received and the like); nothing else may differ.
local function is_as_sent(fetched)
  local on_top = #fetched - #message
  return on_top >= 0 and fetched:sub(on_top + 1) == message and is_header(fetched:sub(1, on_top))
end

-- Three sessions --------------------------------------------------------

local function send()
  local session <close> = connect(smtp, "SMTP")
  assert(session:send { from = address, to = address, message = message })
  assert(session:quit())
end

-- Delivery takes its time, so the search is repeated for some 20 seconds.
local function fetch_over_imap()
  local session <close> = connect(imap, "IMAP")
  assert(session:select "INBOX")
  for _ = 1, 100 do
    local uids = assert(session:search(('HEADER Message-ID "%s"'):format(id)))
    if uids[1] then
      local found = assert(session:fetch_all(uids[1], { "body" }))
      assert(session:logout())
      return found[1].body
    end
    assert(os.execute "sleep 0.2", "interrupted")
  end
  error("the message did not arrive within 20 seconds", 0)
end

local function fetch_over_pop3()
  local session <close> = connect(pop3, "POP3")
  for msg in session:messages() do
    if assert(msg:top(0)):find(id, 1, true) then
      local bytes = assert(msg:retr())
      assert(msg:delete())
      assert(session:quit())
      return bytes
    end
  end
  error("POP3 does not show the message that IMAP has shown", 0)
end

send()
local fetched = { IMAP = fetch_over_imap(), POP3 = fetch_over_pop3() }

print ""
local equal = true
for _, name in ipairs { "IMAP", "POP3" } do
  if is_as_sent(fetched[name]) then
    print(paint("sent", ("%s: all %d bytes are as they were sent (behind %d bytes of header)")
      :format(name, #message, #fetched[name] - #message)))
  else
    equal = false
    print(paint("clear", ("%s: the message is NOT as it was sent"):format(name)))
  end
end
os.exit(equal, true)
