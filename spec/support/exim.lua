-- Exim for the specs: submission with STARTTLS and with TLS from the first byte,
-- delivery at once into the maildirs of the users. servers.lua calls it.
--
-- Mechanisms, offered after TLS: PLAIN, LOGIN, CRAM-MD5, and by way of Dovecot's
-- authentication service SCRAM-SHA-256, SCRAM-SHA-1, XOAUTH2, OAUTHBEARER; with
-- a client's certificate from the specs' CA also EXTERNAL. Debian's Exim 4.96 is
-- built without GNU SASL, so there is no channel binding (-PLUS).
--
-- What Exim 4.96 does to a message (each tried): it puts one Received field on
-- top and adds nothing else, neither From nor Date. It stores lines with LF; so
-- a file in a maildir has LF where CRLF was sent, and Dovecot sends CRLF again.
-- Lines of any length, 8-bit and NUL pass unchanged. After DATA a bare CR
-- becomes a line ending, a bare LF in a body becomes a space, and "LF . LF" or
-- "LF . CRLF" does not end the message; in a header field both become a folded
-- line. After BDAT a bare CR and a bare LF in a body become line endings, and a
-- missing last line ending is added. An empty message and one without header
-- are taken.
--
-- What Dovecot does to it: bare CR stays; bare LF gets its CR; IMAP sends a NUL
-- as 0x80 (POP3 as it is); RETR adds a missing last line ending, IMAP does not.

local process = require "spec.support.process"

local exim = {}

local template = [[
primary_hostname = mail.example.test
spool_directory = @dir@/spool
log_file_path = @dir@/log/%slog
pid_file_path = @dir@/exim.pid
local_interfaces = 127.0.0.1 : @far@
daemon_smtp_ports = @smtp@ : @smtps@
tls_on_connect_ports = @smtps@
domainlist local_domains = example.test
log_selector = +smtp_protocol_error +smtp_syntax_error +tls_peerdn +received_recipients
smtp_banner = mail.example.test ESMTP Exim
never_users =
keep_environment =
smtp_receive_timeout = 1m
host_lookup =
rfc1413_hosts =
rfc1413_query_timeout = 0s
helo_allow_chars = _
deliver_drop_privilege = true
smtp_accept_queue_per_connection = 0
smtp_accept_max = 0
smtp_accept_max_nonmail = 10000
check_spool_space = 0
check_spool_inodes = 0
message_size_limit = 200M
accept_8bitmime = true
smtputf8_advertise_hosts = *
chunking_advertise_hosts = *
pipelining_advertise_hosts = *
dsn_advertise_hosts = *
prdr_enable = true
smtp_max_synprot_errors = 100
smtp_max_unknown_commands = 100
bounce_return_body = false
ignore_bounce_errors_after = 0s
timeout_frozen_after = 0s
disable_ipv6 = true
dns_again_means_nonexist = *
tls_advertise_hosts = *
tls_certificate = @cert@
tls_privatekey = @key@
tls_verify_certificates = @ca@
tls_try_verify_hosts = *
tls_require_ciphers = @priority@
tls_dhparam = none
auth_advertise_hosts = ${if eq{$tls_in_cipher}{}{}{*}}
acl_smtp_rcpt = check_recipient
acl_smtp_data = accept
acl_smtp_predata = accept
acl_smtp_vrfy = accept
acl_smtp_expn = accept
acl_smtp_etrn = accept
smtp_etrn_command = /bin/true
smtp_etrn_serialize = false

begin acl
check_recipient:
  deny
    !authenticated = *
    message = 5.7.1 authentication required
  deny
    local_parts = refused
    message = 5.1.1 no such user here
  defer
    local_parts = deferred
    message = 4.2.1 mailbox busy, try again later
  accept
    domains = +local_domains
    local_parts = @locals@
  deny
    message = 5.7.1 relaying denied

begin routers
mailing_list:
  driver = redirect
  domains = +local_domains
  local_parts = staff
  data = alice@example.test, bob@example.test

local_users:
  driver = accept
  domains = +local_domains
  local_parts = @locals@
  transport = maildir

begin transports
maildir:
  driver = appendfile
  directory = @mail@/$local_part_data
  maildir_format
  create_directory = false
  user = @uid@
  group = @gid@
  delivery_date_add = false
  envelope_to_add = false
  return_path_add = false
  message_prefix =
  message_suffix =

begin authenticators
@authenticators@
]]

local function fill(text, values)
  return (text:gsub("@([%l_]+)@", values))
end

local authenticators = [[
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if eq{$auth3}{${lookup{$auth2}lsearch{@dir@/users}{$value}fail}}}
  server_set_id = $auth2

login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = <| Username: | Password:
  server_condition = ${if eq{$auth2}{${lookup{$auth1}lsearch{@dir@/users}{$value}fail}}}
  server_set_id = $auth1

cram_md5:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${lookup{$auth1}lsearch{@dir@/users}{$value}fail}
  server_set_id = $auth1

scram_sha_256:
  driver = dovecot
  public_name = SCRAM-SHA-256
  server_socket = @socket@
  server_set_id = $auth1

scram_sha_1:
  driver = dovecot
  public_name = SCRAM-SHA-1
  server_socket = @socket@
  server_set_id = $auth1

xoauth2:
  driver = dovecot
  public_name = XOAUTH2
  server_socket = @socket@
  server_set_id = $auth1

oauthbearer:
  driver = dovecot
  public_name = OAUTHBEARER
  server_socket = @socket@
  server_set_id = $auth1

external:
  driver = external
  public_name = EXTERNAL
  server_advertise_condition = $tls_in_certificate_verified
  server_param2 = ${certextract{subject,CN}{$tls_in_peercert}}
  server_condition = ${if or{ {eq{$auth1}{}} {eq{$auth1}{$auth2}} }}
  server_set_id = $auth2
]]

local function write_users(servers, path)
  local lines = {}
  for name, user in pairs(servers.users) do lines[#lines + 1] = name .. ": " .. user.password end
  process.write_file(path, table.concat(lines, "\n") .. "\n")
end

local function names(servers)
  local list = {}
  for name in pairs(servers.users) do list[#list + 1] = name end
  table.sort(list)
  return table.concat(list, " : ")
end

-- GnuTLS's priority string for a range of versions.
local function priority(servers)
  local versions = {}
  for _, version in ipairs { "TLSv1.2", "TLSv1.3" } do
    if version >= servers.tls_min and version <= servers.tls_max then
      versions[#versions + 1] = "+VERS-" .. version:gsub("v", "")
    end
  end
  return "NORMAL:-VERS-ALL:" .. table.concat(versions, ":")
end

--- Writes the configuration into servers.dir/exim.
function exim.configure(servers)
  local dir = servers.dir .. "/exim"
  process.run { "mkdir", "-p", dir .. "/spool", dir .. "/log" }
  write_users(servers, dir .. "/users")
  local values = {
    dir = dir, far = servers.far_host,
    mail = servers.dir .. "/mail", cert = servers.cert, key = servers.key,
    ca = servers.ca_file, uid = servers.owner.uid, gid = servers.owner.gid,
    smtp = servers.smtp.port, smtps = servers.smtp.tls_port,
    priority = priority(servers), locals = names(servers), socket = servers.auth_socket,
  }
  values.authenticators = fill(authenticators, values)
  process.write_file(dir .. "/exim.conf", fill(template, values))
end

function exim.start(servers)
  local dir = servers.dir .. "/exim"
  local program = process.find("exim4", "exim4-daemon-heavy")
  return process.start {
    words = { program, "-C", dir .. "/exim.conf", "-bdf" },
    log = dir .. "/output",
  }
end

return exim
