rockspec_format = "3.0"
package = "starttls"
version = "scm-1"

-- This one builds the checkout it lies in (`luarocks make`); a release names its archive.
source = { url = "git+file:." }

description = {
  summary = "Mail sessions (SMTP, IMAP, POP3) that are encrypted, verified and authenticated",
  detailed = [[
    Sends and fetches mail over STARTTLS or implicit TLS. A session is encrypted, verified
    and authenticated, or there is a clear error; nothing in between unless asked for by
    name. The core is C on GnuTLS and GNU SASL.]],
  license = "MIT",
  labels = { "mail", "smtp", "imap", "pop3", "tls" },
}

supported_platforms = { "linux" } -- epoll, eventfd

dependencies = { "lua >= 5.4, < 5.6" }

external_dependencies = {
  GNUTLS = { header = "gnutls/gnutls.h" },
  GSASL = { header = "gsasl.h" },
  IDN2 = { header = "idn2.h" },
  ZLIB = { header = "zlib.h" },
  GMIME = { header = "gmime-3.0/gmime/gmime.h" }, -- where it is, and GLib, pkg-config tells
}

build = {
  type = "make",
  variables = {
    CC = "$(CC)",
    CFLAGS = "$(CFLAGS)",
    LIBFLAG = "$(LIBFLAG)",
    LUA_INCDIR = "$(LUA_INCDIR)",
    GNUTLS_INCDIR = "$(GNUTLS_INCDIR)",
    GNUTLS_LIBDIR = "$(GNUTLS_LIBDIR)",
    GSASL_INCDIR = "$(GSASL_INCDIR)",
    GSASL_LIBDIR = "$(GSASL_LIBDIR)",
    IDN2_INCDIR = "$(IDN2_INCDIR)",
    IDN2_LIBDIR = "$(IDN2_LIBDIR)",
    ZLIB_INCDIR = "$(ZLIB_INCDIR)",
    ZLIB_LIBDIR = "$(ZLIB_LIBDIR)",
  },
  install_variables = {
    INST_LIBDIR = "$(LIBDIR)",
    INST_LUADIR = "$(LUADIR)",
  },
}

test = { type = "command", command = "busted" }
