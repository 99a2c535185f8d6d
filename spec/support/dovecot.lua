-- Dovecot for the specs: IMAP and POP3, each with STARTTLS and with TLS from
-- the first byte, and LMTP with STARTTLS and on a Unix socket. It reads nothing
-- outside its directory; servers.lua calls it.
--
-- Mechanisms, offered after TLS: SCRAM-SHA-256, SCRAM-SHA-1, CRAM-MD5, PLAIN,
-- LOGIN, ANONYMOUS, XOAUTH2 and OAUTHBEARER (tokens are JWTs with an HMAC that
-- Dovecot checks itself), EXTERNAL (the user is the common name of the client's
-- certificate, from the specs' CA). Dovecot 2.3 has no channel binding (-PLUS).

local process = require "spec.support.process"
local mime = require "mime"

local dovecot = {}

dovecot.mechanisms = {
  "scram-sha-256", "scram-sha-1", "cram-md5", "plain", "login", "anonymous", "xoauth2",
  "oauthbearer", "external",
}

local template = [[
base_dir = @dir@/run
state_dir = @dir@/state
log_path = @dir@/log
instance_name = starttls-spec-@imap@
protocols = imap pop3 lmtp
listen = 127.0.0.1, @far@
ssl = yes
ssl_cert = <@cert@
ssl_key = <@key@
ssl_ca = <@ca@
ssl_require_crl = no
ssl_verify_client_cert = yes
ssl_min_protocol = @tls_min@
ssl_cipher_list = ALL:@SECLEVEL=0
import_environment = TZ OPENSSL_CONF
disable_plaintext_auth = yes
auth_mechanisms = @mechanisms@
auth_anonymous_username = anonymous
auth_ssl_username_from_cert = yes
auth_failure_delay = 0
auth_cache_size = 0
auth_verbose = yes
auth_realms =
auth_username_format = %n
mail_location = maildir:@mail@/%n
mail_plugins = quota acl
mail_attribute_dict = file:@mail@/%n/dovecot-attributes
mail_uid = @uid@
mail_gid = @gid@
first_valid_uid = 1
first_valid_gid = 1
mail_fsync = never
mail_max_userip_connections = 0
login_log_format_elements = user=<%u> method=%m %c %k
default_process_limit = 200
default_client_limit = 2000
maildir_stat_dirs = no
mailbox_list_index = yes
pop3_uidl_format = %08Xu%08Xv
passdb {
  driver = static
  mechanisms = external
  args = nopassword=y
}
passdb {
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = @dir@/oauth2.conf
}
passdb {
  driver = passwd-file
  mechanisms = scram-sha-256 scram-sha-1 cram-md5 plain login
  args = scheme=PLAIN username_format=%n @dir@/users
}
userdb {
  driver = static
  args = uid=@uid@ gid=@gid@ home=@mail@/%n allow_all_users=yes
}
protocol imap {
  mail_plugins = $mail_plugins imap_zlib imap_quota imap_acl
  imap_metadata = yes
}
namespace inbox {
  inbox = yes
  mailbox Sent {
    special_use = \Sent
  }
}
plugin {
  acl = vfile
  quota = count:User quota
  quota_rule = *:storage=1G:messages=100000
  quota_vsizes = yes
  quota_set = dict:file:@mail@/%n/dovecot-quota
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service imap-login {
  process_min_avail = 1
  service_count = 0
  inet_listener imap {
    address = 127.0.0.1 @far@
    port = @imap@
  }
  inet_listener imaps {
    address = 127.0.0.1 @far@
    port = @imaps@
    ssl = yes
  }
}
service pop3-login {
  process_min_avail = 1
  service_count = 0
  inet_listener pop3 {
    address = 127.0.0.1 @far@
    port = @pop3@
  }
  inet_listener pop3s {
    address = 127.0.0.1 @far@
    port = @pop3s@
    ssl = yes
  }
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1
    port = @lmtp@
  }
  unix_listener lmtp {
    mode = 0666
  }
}
service auth {
  unix_listener exim {
    mode = 0666
  }
}
]]

local function fill(text, values)
  return (text:gsub("@([%l_%d]+)@", values))
end

local function write_users(servers, path)
  local lines = {}
  for name, user in pairs(servers.users) do
    lines[#lines + 1] = ("%s:{PLAIN}%s::::::"):format(name, user.password)
  end
  lines[#lines + 1] = "anonymous:{PLAIN}::::::"
  process.write_file(path, table.concat(lines, "\n") .. "\n")
end

-- Dovecot checks tokens by itself, with a key per algorithm in a directory.
local function write_oauth2(dir)
  process.run { "mkdir", "-p", dir .. "/keys/default/HS256" }
  process.write_file(dir .. "/keys/default/HS256/default", (mime.b64(dovecot.token_key)))
  process.write_file(dir .. "/oauth2.conf", table.concat({
    "introspection_mode = local",
    ("local_validation_key_dict = fs:posix:prefix=%s/keys/"):format(dir),
    "username_attribute = sub", "",
  }, "\n"))
end

local function base64url(bytes)
  return (mime.b64(bytes):gsub("[+/=]", { ["+"] = "-", ["/"] = "_", ["="] = "" }))
end

dovecot.token_key = "not a secret at all, for specs only"

--- A JSON web token for the user.
function dovecot.token(servers, user, seconds)
  local head = '{"alg":"HS256","typ":"JWT"}'
  local now = os.time()
  local claims = ('{"sub":"%s","iat":%d,"exp":%d}'):format(user, now - 10, now + seconds)
  local signed = base64url(head) .. "." .. base64url(claims)
  local path = servers.dir .. "/dovecot/token"
  process.write_file(path, signed)
  process.run { "openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt",
    "key:" .. dovecot.token_key, "-binary", "-out", path .. ".mac", path }
  return signed .. "." .. base64url(process.read_file(path .. ".mac"))
end

local function values_for(servers, dir)
  return {
    dir = dir, mail = servers.dir .. "/mail", cert = servers.cert, key = servers.key,
    far = servers.far_host, ca = servers.ca_file,
    uid = servers.owner.uid, gid = servers.owner.gid, tls_min = servers.tls_min,
    imap = servers.imap.port, imaps = servers.imap.tls_port,
    lmtp = servers.lmtp.port,
    pop3 = servers.pop3.port, pop3s = servers.pop3.tls_port,
    mechanisms = table.concat(dovecot.mechanisms, " "),
  }
end

--- Writes the configuration into servers.dir/dovecot.
function dovecot.configure(servers)
  local dir = servers.dir .. "/dovecot"
  servers.auth_socket = dir .. "/run/exim"
  servers.lmtp.path = dir .. "/run/lmtp"
  process.run { "mkdir", "-p", dir .. "/run", dir .. "/state" }
  write_users(servers, dir .. "/users")
  write_oauth2(dir)
  process.write_file(dir .. "/dovecot.conf", fill(template, values_for(servers, dir)))
end

-- Dovecot 2.3 has no setting for the highest version of TLS; OpenSSL's
-- configuration has.
local function write_openssl_config(servers)
  local path = servers.dir .. "/dovecot/openssl.cnf"
  process.write_file(path, table.concat({
    "openssl_conf = all", "[all]", "ssl_conf = modules", "[modules]", "system_default = limits",
    "[limits]", "MaxProtocol = " .. servers.tls_max, "",
  }, "\n"))
  return path
end

function dovecot.start(servers)
  local dir = servers.dir .. "/dovecot"
  return process.start {
    words = { "env", "OPENSSL_CONF=" .. write_openssl_config(servers),
      process.find("dovecot", "dovecot-core (with dovecot-imapd, dovecot-pop3d and dovecot-lmtpd)"),
      "-F", "-c", dir .. "/dovecot.conf" },
    log = dir .. "/output",
  }
end

return dovecot
