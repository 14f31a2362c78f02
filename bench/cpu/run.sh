#!/usr/bin/env bash
# The project's goals on the CPU, measured: training steps and inference against
# PyTorch and JAX, peak memory, matrix products alone, and compiling.
#
#   bench/cpu/run.sh                     about 20 minutes; the machine must be quiet
#   bench/cpu/run.sh --rows vit,compile  some of it
#   bench/cpu/run.sh --quick             shows that everything works, measures nothing
#   bench/cpu/run.sh --help              all flags
#
# Needs Go, g++ and Python 3; installs PyTorch and JAX into .venv when they are not
# there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# Without a compiler in CC, cgo would be off and the kernels left out.
export CGO_ENABLED=1
# Version stamping asks git, which refuses in a checkout that another user owns.
export GOFLAGS="${GOFLAGS:-} -buildvcs=false"

# Only a missing or other version costs a call of pip.
python=.venv/bin/python
requirements=bench/cpu/requirements.txt
[ -x $python ] || python3 -m venv .venv
$python - $requirements <<'END' || .venv/bin/pip install --quiet -r $requirements
import importlib.metadata, sys
for line in open(sys.argv[1]):
    if line.strip() and not line.startswith("#"):
        name, version = line.strip().split("==")
        try:
            if importlib.metadata.version(name).partition("+")[0] != version:
                sys.exit(1)
        except importlib.metadata.PackageNotFoundError:
            sys.exit(1)
END

mkdir -p _build/bench
# Left behind by runs that were killed.
rm -rf _build/bench/{run,build}-*
go build -o _build/bench/vitgen-compiler ./cmd/vitgen
go build -o _build/bench/roofline ./bench/roofline
go build -o _build/bench/cpu ./bench/cpu
exec _build/bench/cpu --python $python "$@"
