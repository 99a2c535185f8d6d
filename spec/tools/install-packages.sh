#!/bin/sh
# install-packages.sh PACKAGE... - installs the Debian packages that are not there yet.
#
# It does that and nothing else to the machine: no service is started or enabled,
# no package is removed, and a mail server that is installed stays.
set -eu

say() { echo "$*" >&2; }

# --- What is missing? ---

if ! command -v dpkg-query >/dev/null; then
  say "This system has no dpkg. Not checked, but needed here are what Debian calls: $*"
  exit 0
fi

is_installed() {
  dpkg-query -W -f='${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

missing=
for package in "$@"; do
  is_installed "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

# --- May we? ---

# Debian lets one mail server be installed at a time, and a machine's own must stay.
case $missing in *exim4-daemon-heavy*)
  mta=$(dpkg-query -W -f='${db:Status-Status} ${Package} ${Provides}\n' |
    awk '$1 == "installed" && /mail-transport-agent/ { print $2; exit }')
  if [ -n "$mta" ]; then
    say "The tests need Exim (package exim4-daemon-heavy), and installing it would remove $mta,"
    say "which is this machine's mail server. Nothing was changed."
    say "Please run this in a container or a virtual machine instead."
    exit 1
  fi
esac

if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null; then
    say "Installing with sudo:$missing"
    exec sudo sh "$0" "$@"
  fi
  say "These Debian packages are missing, and installing them takes root:"
  say "  apt-get install --no-install-recommends$missing"
  exit 1
fi

# --- Install, with services kept still ---

policy=/usr/sbin/policy-rc.d
log=$(mktemp)
kept=
restore() {
  rm -f "$policy" "$log"
  if [ -n "$kept" ]; then mv "$kept" "$policy"; fi
}
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if [ -e "$policy" ]; then
  kept=$policy.before-starttls
  mv "$policy" "$kept"
fi
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

new_services=
for service in exim4 dovecot; do
  [ -e "/etc/init.d/$service" ] || new_services="$new_services $service"
done

apt() {
  DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" >>"$log" 2>&1
}
install() {
  # shellcheck disable=SC2086 # a list of words
  apt --no-install-recommends --no-remove install $missing
}

say "Installing:$missing"
# The package lists may be absent or out of date; only then are they fetched.
if ! install && ! { apt update && install; }; then
  cat "$log" >&2
  say "apt-get could not install:$missing"
  exit 1
fi

# Installing a server also enables it for the next boot; we start our own by hand.
for service in $new_services; do
  update-rc.d "$service" disable >/dev/null 2>&1 || true
  command -v systemctl >/dev/null || continue
  for unit in "$service.service" "$service.socket" "$service-base.timer"; do
    systemctl disable "$unit" >/dev/null 2>&1 || true
  done
done
