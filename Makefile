# Everything that is done to vitgen from a shell. `make` alone lists it.
# Needs Go 1.26 and g++; `make golden` and `make bench-cpu` also need Python 3.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# (bin/vitgen is Go's business to keep fresh: FORCE asks it every time.)
.PHONY: help demo test vet fmt lint generate golden golden-check fuzz race bench-cpu bench-roofline bench-gpu-binaries bench-gpu cuda-stub vet-cuda test-cuda cuda-toolchain check-cuda python-check clean

# Version stamping asks git, which refuses in a checkout that another user owns.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 20s
TESTFLAGS   ?=
VENV        := .venv
VENV_CUDA   := .venv-cuda
VENV_CHECK  := .venv-check
# Files of this repository, not what tools put beside them.
GOFILES = $(shell find . \( -name '.?*' -o -name _build -o -name runs \) -prune -o -name '*.go' -print)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z\/-]+:.*## / {printf "make %-18s %s\n", $$1, $$2}' Makefile

bin/vitgen: FORCE ## build the compiler
	go build -o $@ ./cmd/vitgen
FORCE:

demo: ## compile, verify and train, from nothing; about two minutes on two cores
	@./scripts/demo.sh

test: vet ## go vet and every test that needs no GPU; ends with a list of what was skipped
	{ go test -json -timeout 40m $(TESTFLAGS) ./...; \
	  $(CUDA_ENV) && go test -tags $(CUDA_TAGS) -json -timeout 20m $(TESTFLAGS) ./runtime/cuda; } | go run ./internal/testreport

vet: ## go vet
	go vet ./...

fmt: ## gofmt every file
	gofmt -l -w $(GOFILES)

lint: vet ## gofmt, go vet and staticcheck, changing nothing
	@stale=$$(gofmt -l $(GOFILES)); [ -z "$$stale" ] || { echo "not gofmt-ed; run make fmt:" $$stale; exit 1; }
	go run $(STATICCHECK) ./...

generate: ## make generated/, docs and the JSON Schema again from their sources
	go generate ./...

golden: $(VENV)/golden.stamp ## make the golden tensors again, with PyTorch
	$(VENV)/bin/python golden/make.py

golden-check: $(VENV)/golden.stamp ## recompute the golden tensors and compare, writing nothing
	$(VENV)/bin/python golden/make.py --check

$(VENV)/golden.stamp: golden/requirements.txt
	@python3 -c 'import venv, ensurepip' 2>/dev/null || { echo "Python 3 with venv is missing: install it (Debian: apt-get install python3-venv)"; exit 1; }
	[ -x $(VENV)/bin/python ] || python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -r golden/requirements.txt
	touch $@

fuzz: ## run each fuzz target for FUZZTIME (20s)
	./scripts/fuzz.sh $(FUZZTIME)

race: ## the runtime's tests under the race detector
	go test -race -short -timeout 20m ./runtime/...

bench-cpu: ## the goals on the CPU, against PyTorch and JAX on this machine; needs it to be quiet
	./bench/cpu/run.sh

bench-roofline: ## FMA peak, bandwidths, and how near matrix products alone come to the peak
	go run ./bench/roofline
	go run ./bench/roofline --spec examples/vit.yaml

bench-gpu-binaries: ## what bench/gpu.sh needs on a machine with a GPU and no Go
	./bench/gpu.sh --build

bench-gpu: ## everything about a GPU: goldens, sanitizer, speed beside PyTorch and JAX
	./bench/gpu.sh

# What -tags cuda needs in place of an installed CUDA: a header, and a library
# that loads the driver when it is called. The kernels for the CPU are not what
# these targets are about: one instruction set of them will do.
CUDA_TAGS := cuda,vitgen_plain
CUDA_ENV = settings=$$(./scripts/cuda-env.sh) && eval "$$settings"

cuda-stub: ## make _build/cuda: the header and the library for building with -tags cuda
	@./scripts/cuda-env.sh

vet-cuda: ## go vet with -tags cuda; no CUDA needed
	$(CUDA_ENV) && go vet -tags $(CUDA_TAGS) ./...

test-cuda: ## of make test, what is built with -tags cuda: the run time, on the simulated driver
	$(CUDA_ENV) && go test -tags $(CUDA_TAGS) -timeout 20m $(TESTFLAGS) ./runtime/...

cuda-toolchain: $(VENV_CUDA)/stamp ## install the pinned nvcc from PyPI into .venv-cuda (0.3 GB), where vitgen finds it

$(VENV_CUDA)/stamp: bench/ptxas/requirements.txt
	@python3 -c 'import venv, ensurepip' 2>/dev/null || { echo "Python 3 with venv is missing: install it (Debian: apt-get install python3-venv)"; exit 1; }
	[ -x $(VENV_CUDA)/bin/python ] || python3 -m venv $(VENV_CUDA)
	$(VENV_CUDA)/bin/pip install --quiet -r bench/ptxas/requirements.txt
	touch $@

python-check: $(VENV_CHECK)/stamp ## install Pillow, ONNX Runtime, TensorBoard from PyPI into .venv-check, for the tests that use them

$(VENV_CHECK)/stamp: internal/python/requirements.txt
	@python3 -c 'import venv, ensurepip' 2>/dev/null || { echo "Python 3 with venv is missing: install it (Debian: apt-get install python3-venv)"; exit 1; }
	[ -x $(VENV_CHECK)/bin/python ] || python3 -m venv $(VENV_CHECK)
	$(VENV_CHECK)/bin/pip install --quiet -r internal/python/requirements.txt
	touch $@

check-cuda: ## compile the CUDA kernels of all examples; no spills, and registers as in bench/ptxas/table.md
	go run ./bench/ptxas

clean: ## remove bin/ and _build/; runs/ holds your training runs and stays
	rm -rf bin _build
