-- Throw-away certificates, made with the `openssl` command in a directory of
-- the caller's:
--
--   local ca = certificates.ca(dir)
--   local good = ca:issue { name = "good", dns = { "localhost" }, ip = { "127.0.0.1" } }
--   ... good.cert, good.key, ca.cert: paths of PEM files ...

local process = require "spec.support.process"

local certificates = {}

local CA = {}
CA.__index = CA

local key_kinds = {
  ec = { "EC", "ec_paramgen_curve:P-256" },
  ec384 = { "EC", "ec_paramgen_curve:P-384" },
  rsa1024 = { "RSA", "rsa_keygen_bits:1024" },
  rsa2048 = { "RSA", "rsa_keygen_bits:2048" },
  ed25519 = { "ED25519" },
}

local function make_key(path, kind)
  local algorithm, option = table.unpack((assert(key_kinds[kind], "unknown kind of key")))
  local words = { "openssl", "genpkey", "-algorithm", algorithm, "-out", path }
  if option then
    words[#words + 1] = "-pkeyopt"
    words[#words + 1] = option
  end
  process.run(words)
end

-- The time for `openssl ca`: UTC, seconds since the epoch plus days.
local function days_from_now(days)
  return os.date("!%Y%m%d%H%M%SZ", os.time() + days * 86400)
end

local config_text = [[
[ca]
default_ca = throwaway
[throwaway]
database = %s/index.txt
serial = %s/serial
new_certs_dir = %s
unique_subject = no
email_in_dn = no
policy = any
[any]
commonName = optional
organizationName = optional
[extensions]
%s
]]

local function write_database(dir, extensions)
  process.write_file(dir .. "/index.txt", "")
  if not process.read_file(dir .. "/serial") then process.write_file(dir .. "/serial", "01\n") end
  local path = dir .. "/openssl.cnf"
  process.write_file(path, config_text:format(dir, dir, dir, extensions))
  return path
end

local function make_request(base, subject, config)
  process.run { "openssl", "req", "-new", "-config", config, "-key", base .. ".key",
    "-subj", subject, "-out", base .. ".csr" }
end

-- Signs base.csr into base.pem.
local function sign(dir, base, options)
  local config = write_database(dir, options.extensions)
  make_request(base, options.subject, certificates.request_config(dir))
  local words = { "openssl", "ca", "-batch", "-notext", "-config", config,
    "-in", base .. ".csr", "-out", base .. ".pem", "-md", options.digest or "sha256",
    "-startdate", days_from_now(options.not_before or -1),
    "-enddate", days_from_now(options.not_after or 30),
    "-extensions", "extensions", "-keyfile", options.signer_key }
  if options.signer_cert then
    table.move({ "-cert", options.signer_cert }, 1, 2, #words + 1, words)
  else
    words[#words + 1] = "-selfsign"
  end
  process.run(words)
end

-- `openssl req` wants a configuration file; this one says nothing.
function certificates.request_config(dir)
  local path = dir .. "/request.cnf"
  process.write_file(path, "[req]\ndistinguished_name = names\n[names]\n")
  return path
end

--- A certification authority in `dir`: `cert`, `key`. Options: `name` (of the
-- files, "ca" unless told), `cn`, `key` (kind).
function certificates.ca(dir, options)
  options = options or {}
  local base = dir .. "/" .. (options.name or "ca")
  make_key(base .. ".key", options.key or "ec")
  sign(dir, base, {
    subject = "/CN=" .. (options.cn or "Throw-away test CA"), signer_key = base .. ".key",
    extensions = "basicConstraints = critical,CA:true\nkeyUsage = critical,keyCertSign,cRLSign\n"
      .. "subjectKeyIdentifier = hash",
  })
  return setmetatable({ dir = dir, cert = base .. ".pem", key = base .. ".key" }, CA)
end

local function alternative_names(options)
  local names = {}
  for _, name in ipairs(options.dns or {}) do names[#names + 1] = "DNS:" .. name end
  for _, address in ipairs(options.ip or {}) do names[#names + 1] = "IP:" .. address end
  return table.concat(names, ",")
end

local function extensions_of(options)
  local lines = {
    "basicConstraints = critical,CA:false",
    "keyUsage = critical,digitalSignature",
    "extendedKeyUsage = " .. (options.client and "clientAuth" or "serverAuth"),
    "subjectKeyIdentifier = hash",
  }
  local names = alternative_names(options)
  if names ~= "" then lines[#lines + 1] = "subjectAltName = " .. names end
  return table.concat(lines, "\n")
end

--- Issues a certificate: `{ cert = path, key = path }`. Options:
-- `name`: of the files; `dns`, `ip`: lists of alternative names; `cn`: common
-- name, `name` unless told; `key`: "ec" (default), "ec384", "rsa1024",
-- "rsa2048", "ed25519"; `digest`: "sha256" unless told, "sha1" is weak;
-- `not_before`, `not_after`: days from now, -1 and 30 unless told;
-- `client = true`: a client's certificate; `self_signed = true`: not by the CA.
function CA:issue(options)
  local base = self.dir .. "/" .. options.name
  make_key(base .. ".key", options.key or "ec")
  sign(self.dir, base, {
    subject = "/CN=" .. (options.cn or options.name), extensions = extensions_of(options),
    digest = options.digest, not_before = options.not_before, not_after = options.not_after,
    signer_key = options.self_signed and base .. ".key" or self.key,
    signer_cert = not options.self_signed and self.cert or nil,
  })
  return { cert = base .. ".pem", key = base .. ".key" }
end

return certificates
