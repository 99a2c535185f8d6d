#!/bin/sh
# libraries.sh NAME... - fails, and says what to install, when pkg-config does not find
# one of the libraries. One that LuaRocks has found (X_INCDIR is set) is taken as it is.
set -eu

#     pkg-config  least  LuaRocks  Debian           Fedora          Alpine       Homebrew
table='
      gnutls      3.7.2  GNUTLS    libgnutls28-dev  gnutls-devel    gnutls-dev   gnutls
      libgsasl    2.0    GSASL     libgsasl-dev     libgsasl-devel  gsasl-dev    gsasl
      libidn2     2.0    IDN2      libidn2-dev      libidn2-devel   libidn2-dev  libidn2
      zlib        1.2.11 ZLIB      zlib1g-dev       zlib-devel      zlib-dev     zlib
      gmime-3.0   3.2    GMIME     libgmime-3.0-dev gmime30-devel   gmime-dev    gmime
'

status=0
for name in "$@"; do
  # shellcheck disable=SC2046 # a row of words
  set -- $(echo "$table" | grep -w "^ *$name ")
  pkg-config --exists "$name >= $2" 2>/dev/null && continue
  if version=$(pkg-config --modversion "$name" 2>/dev/null); then
    found="has version $version"
  else
    eval "given=\${$3_INCDIR:-}"
    [ -z "$given" ] || continue
    found="does not find it"
  fi
  cat >&2 <<TEXT
starttls needs the library $name, version $2 or later, and pkg-config $found.
Install its development package:
  Debian, Ubuntu  apt-get install pkg-config $4
  Fedora          dnf install pkgconf $5
  Alpine          apk add pkgconf $6
  macOS           brew install pkgconf $7
or, if it is in a place of its own, set PKG_CONFIG_PATH, or $3_DIR for LuaRocks.
TEXT
  if [ "$1" = gmime-3.0 ]; then
    echo "Only starttls.message needs it: make MESSAGE=no builds the rest." >&2
  fi
  echo >&2
  status=1
done
exit $status
