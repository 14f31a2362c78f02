#!/usr/bin/env bash
# Training steps of examples/vit.yaml against PyTorch, on this machine's CPU.
#
#   bench/cpu/run.sh              about 7 minutes; the machine must be quiet
#   bench/cpu/run.sh --quick      shows that everything works, measures nothing
#   bench/cpu/run.sh --help       all flags
#
# Needs Go, g++ and Python 3; installs PyTorch into .venv when it is not there.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

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

trainer() { # NAME PACKAGE FLAG…
  _build/bench/vitgen-compiler compile examples/vit.yaml --target cpu -o "$2" "${@:3}"
  go build -o "_build/bench/$1" "./$2/trainer"
}
trainer vitgen _build/bench_vit
trainer vitgen-unpruned _build/bench_vit_noprune --disable prune

exec _build/bench/cpu steps --python $python "$@"
