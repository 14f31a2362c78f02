#!/usr/bin/env bash
# Runs every fuzz target of the module for a while each, one after the other.
# Usage: fuzz.sh [TIME], a Go duration; 20s if not given.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-20s}

grep -rHo --include='*_test.go' --exclude-dir='.?*' --exclude-dir=_build '^func Fuzz[A-Za-z0-9_]*' . | sort |
while IFS=: read -r file func; do
  target=${func#func }
  printf '\n== %s in %s\n' "$target" "${file%/*}"
  # The minimizer's default of a minute for each find would eat the time given.
  go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "${file%/*}" </dev/null
done
