#!/usr/bin/env bash
# What `make demo` does: from a fresh clone to a verified and a trained model.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
if [ ! -t 1 ]; then say() { printf '\n%s\n' "$*"; }; fi
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
run() { printf '$ %s\n' "$*"; "$@"; }

wanted=$(awk '$1 == "go" {print $2}' go.mod)
command -v go >/dev/null || fail "Go is missing: install Go $wanted or later from https://go.dev/dl/ and run make demo again"
# go itself refuses, or fetches a newer one, if it is too old for go.mod.
run go version

if ! command -v g++ >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "g++ is missing; installing it"
    run apt-get update -qq
    DEBIAN_FRONTEND=noninteractive run apt-get install -y -qq --no-install-recommends g++ libc6-dev
  else
    fail "g++ is missing: install it (Debian, Ubuntu: sudo apt-get install g++; Fedora: sudo dnf install gcc-c++) and run make demo again"
  fi
fi
# Without a compiler in CC, cgo would be off and the kernels left out.
export CGO_ENABLED=1

say "1. The compiler"
run go build -o bin/vitgen ./cmd/vitgen

say "2. From 40 lines of YAML to a trainer: the Vision Transformer of d2l.ai"
run bin/vitgen compile examples/vit.yaml
run go build -o bin/vit ./generated/vit/trainer

say "3. Its logits, loss, gradients and updates against PyTorch's, computed in float64"
run bin/vit verify --golden golden/vit.safetensors

say "4. A small one learns to read handwritten digits"
run go build -o bin/vit_tiny ./generated/vit_tiny/trainer
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run bin/vit_tiny train --data digits --out runs/demo --overwrite | tee "$log"

accuracy=$(sed -n 's/^final validation accuracy \([0-9.]*\) .*/\1/p' "$log")
[ -n "$accuracy" ] || fail "training printed no validation accuracy"
awk -v a="$accuracy" 'BEGIN {exit !(a >= 95)}' || fail "validation accuracy $accuracy % is below 95 %"
say "Done: $accuracy % of the validation digits read correctly."
cat <<END
Look at runs/demo/curves.png; the weights are runs/demo/best.safetensors.
Next: bin/vit help, examples/*.yaml, docs/SPEC.md
END
