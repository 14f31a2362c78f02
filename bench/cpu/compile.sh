#!/usr/bin/env bash
# What `vitgen compile examples/vit.yaml` takes, and the C++ build after it.
#
#   bench/cpu/compile.sh [--quick] [--runs N] [--builds N]
#
# Needs Go and g++.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# The packages that trainers import are compiled once, outside the timing.
_build/bench/vitgen-compiler compile examples/vit.yaml --target cpu -o _build/bench_vit
go build -o _build/bench/vitgen ./_build/bench_vit/trainer

exec _build/bench/cpu compile "$@"
