#!/usr/bin/env bash
# Everything about a GPU, in one command: are the numbers right on it, is memory
# used as it should be, how fast is it beside PyTorch and JAX.
#
#   bench/gpu.sh --build [FLAG…]      where there is Go: make the binaries, bench/gpu/bin,
#                                     and bench/gpu/bin.tar.gz to carry them in
#   bench/gpu.sh [FLAG…]              where there is a GPU: run all: an hour or two, by estimate
#   bench/gpu.sh --quick              a part of everything, into _build/bench
#   bench/gpu.sh --steps probes,goldens --budget 9m --add    some steps, so long, added to today's
#   bench/gpu.sh --rehearse [DIR]     the whole flow on a simulated device; no GPU needed
#   bench/gpu.sh --help               all flags
#
# A run needs this repository with the binaries, and a driver. What else there is it
# uses, and says what it had to skip: nvcc for the probes, python3 (or VITGEN_PYTHON)
# with PyTorch, JAX and timm for the peers, compute-sanitizer, ncu. No setting of the
# GPU is changed. Results go to bench/results/DATE-gpu.md, .json and, with logs, a
# folder of that name. bench/README.md has the method.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build() { # FLAG…
  command -v go >/dev/null || { echo "bench/gpu.sh: binaries are built with Go, and there is no go in PATH; build them elsewhere and bring bench/gpu/bin" >&2; exit 1; }
  export CGO_ENABLED=1 GOFLAGS="${GOFLAGS:-} -buildvcs=false"
  go run ./bench/gpu build "$@"
}

# The project's own Python, if it has been made; else the system's.
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
python=${VITGEN_PYTHON:-$python}

case "${1:-}" in
  --build)
    shift
    build "$@"
    # One file to carry; a run unpacks it.
    [ ! -x bench/gpu/bin/gpu ] || tar -czf bench/gpu/bin.tar.gz -C bench/gpu bin
    ;;
  --rehearse)
    shift
    dir=
    if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then dir=$1; shift; fi
    if [ -z "$dir" ]; then
      dir=$(mktemp -d -t vitgen-rehearsal-XXXXXX)
      trap 'rm -rf "$dir"' EXIT
    fi
    build --rehearsal --out "$dir/bin"
    "$dir/bin/gpu" run --bin "$dir/bin" --out "$dir/results" --cache "$dir/cache" --python "$python" --rounds 2 "$@"
    ;;
  -h | --help)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
    [ ! -x bench/gpu/bin/gpu ] || bench/gpu/bin/gpu run -h
    ;;
  *)
    [ -x bench/gpu/bin/gpu ] || [ ! -f bench/gpu/bin.tar.gz ] || tar -xzf bench/gpu/bin.tar.gz -C bench/gpu
    if [ ! -x bench/gpu/bin/gpu ]; then
      if command -v go >/dev/null; then build; else
        echo "bench/gpu.sh: there are no binaries in bench/gpu/bin; make them with bench/gpu.sh --build on a machine with Go and bring them here" >&2
        exit 1
      fi
    fi
    exec bench/gpu/bin/gpu run --python "$python" "$@"
    ;;
esac
