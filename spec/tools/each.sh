#!/bin/sh
# each.sh COMMAND... -- STEP... - runs COMMAND STEP for each step, even after a failure,
# and ends with the line "N passed, N failed". Fails if any step did.
set -u

command=
while [ "$1" != -- ]; do
  command="$command $1"
  shift
done
shift

passed=0
failed=
for step in "$@"; do
  printf '\n== %s\n' "$step"
  if $command "$step"; then
    passed=$((passed + 1))
  else
    failed="$failed $step"
  fi
done

echo
[ -z "$failed" ] || echo "failed:$failed"
# shellcheck disable=SC2086 # counted as words
set -- $failed
echo "$passed passed, $# failed"
[ $# -eq 0 ]
