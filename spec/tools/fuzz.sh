#!/bin/sh
# fuzz.sh NAME SECONDS - runs build/fuzz/NAME, and prints its output only when it fails.
set -eu

dir=build/fuzz
given=spec/fuzz/corpus/$1
dictionary=spec/fuzz/$1.dict
mkdir -p "$dir/corpus/$1"

# New inputs go into the first folder, which is ours; the given ones are only read.
set -- "$1" "-max_total_time=$2" -timeout=10 -rss_limit_mb=1024 "-artifact_prefix=$dir/$1-" \
  "$dir/corpus/$1"
[ ! -d "$given" ] || set -- "$@" "$given"
[ ! -f "$dictionary" ] || set -- "$@" "-dict=$dictionary"

name=$1
shift
if ! "$dir/$name" "$@" >"$dir/$name.log" 2>&1; then
  cat "$dir/$name.log" >&2
  exit 1
fi
echo "$name: $(grep '^Done' "$dir/$name.log")"
