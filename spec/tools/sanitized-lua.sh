#!/bin/sh
# sanitized-lua.sh FILE - writes a Lua interpreter that can load a module built with ASan.
#
# It is the ordinary interpreter with the sanitizers' run-time preloaded. A small
# third library takes LD_PRELOAD out of the environment again, so that the servers and
# tools which the specs start run without it.
set -eu

mkdir -p "$(dirname "$1")"
dir=$(cd "$(dirname "$1")" && pwd)
here=$(cd "$(dirname "$0")/../.." && pwd)

echo '#include <stdlib.h>
__attribute__((constructor)) static void unpreload(void) { unsetenv("LD_PRELOAD"); }' |
  "$CC" -shared -fPIC -x c - -o "$dir/unpreload.so"

cat >"$1" <<TEXT
#!/bin/sh
export ASAN_OPTIONS="\${ASAN_OPTIONS:-detect_leaks=1}"
export LSAN_OPTIONS=suppressions=$here/spec/check/lsan.supp:print_suppressions=0
export UBSAN_OPTIONS=print_stacktrace=1
export LD_PRELOAD="$("$CC" -print-file-name=libasan.so) $("$CC" -print-file-name=libubsan.so) $dir/unpreload.so"
exec $LUA "\$@"
TEXT
chmod 755 "$1"
