#!/usr/bin/env bash
# Runs every fuzz target of the module for a while each, one after the other.
# Usage: fuzz.sh [TIME], a Go duration; 20s if not given.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-20s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# fuzz PACKAGE TARGET FUZZTIME. The minimizer's default of a minute for each
# find would eat the time given.
fuzz() {
  go test -run '^$' -fuzz "^$2\$" -fuzztime "$3" -fuzzminimizetime 10x "$1" </dev/null 2>&1 | tee "$log"
}

# Before Go 1.27 the end of a -fuzztime given as a duration may be reported as a
# failure, "context deadline exceeded", though no input failed
# (https://go.dev/issue/75804). A number of runs has no deadline.
only_deadline() {
  grep -qx ' *context deadline exceeded' "$log" &&
    ! grep -qE 'Failing input written|panic:|_test\.go:[0-9]+|DATA RACE|fuzzing process (hung|terminated)' "$log"
}

grep -rHo --include='*_test.go' --exclude-dir='.?*' --exclude-dir=_build '^func Fuzz[A-Za-z0-9_]*' . | sort |
while IFS=: read -r file func; do
  target=${func#func }
  printf '\n== %s in %s\n' "$target" "${file%/*}"
  fuzz "${file%/*}" "$target" "$time" && continue
  only_deadline || exit 1
  echo "no input failed: Go took the end of the time for a failure; once more, 2000 inputs"
  fuzz "${file%/*}" "$target" 2000x
done
