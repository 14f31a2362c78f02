# Everything that is done to vitgen from a shell. `make` alone lists it.
# Needs Go 1.26 and g++; `make golden` and `make bench-cpu` also need Python 3.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# (bin/vitgen is Go's business to keep fresh: FORCE asks it every time.)
.PHONY: help demo test vet fmt lint generate golden golden-check fuzz race bench-cpu clean

# Version stamping asks git, which refuses in a checkout that another user owns.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 20s
TESTFLAGS   ?=
VENV        := .venv
# Files of this repository, not what tools put beside them.
GOFILES = $(shell find . \( -name '.?*' -o -name _build -o -name runs \) -prune -o -name '*.go' -print)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z\/-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

bin/vitgen: FORCE ## build the compiler
	go build -o $@ ./cmd/vitgen
FORCE:

demo: ## compile, verify and train, from nothing; about two minutes on two cores
	@./scripts/demo.sh

test: vet ## go vet and every test that needs no GPU; ends with a list of what was skipped
	go test -json -timeout 40m $(TESTFLAGS) ./... | go run ./internal/testreport

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
	go test -race -timeout 20m ./runtime/...

bench-cpu: ## a training step against PyTorch, on this machine; needs it to be quiet
	./bench/cpu/run.sh

clean: ## remove bin/ and _build/; runs/ holds your training runs and stays
	rm -rf bin _build
