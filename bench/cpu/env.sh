# What run.sh and compile.sh share. Sourced, never started.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# Without a compiler in CC, cgo would be off and the kernels left out.
export CGO_ENABLED=1
# Version stamping asks git, which refuses in a checkout that another user owns.
export GOFLAGS="${GOFLAGS:-} -buildvcs=false"

mkdir -p _build/bench
# Left behind by runs that were killed.
rm -rf _build/bench/{inductor,compile,build}-*
go build -o _build/bench/vitgen-compiler ./cmd/vitgen
go build -o _build/bench/cpu ./bench/cpu
