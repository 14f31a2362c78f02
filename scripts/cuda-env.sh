#!/usr/bin/env bash
# Prints the settings with which the Go tool builds with -tags cuda, whether or
# not CUDA is installed:
#
#   settings=$(scripts/cuda-env.sh) && eval "$settings"
#   go vet -tags cuda ./...
set -euo pipefail
cd "$(dirname "$0")/.."
exec go run ./internal/cudaenv/cmd _build/cuda
