# SPDX-License-Identifier: Apache-2.0
GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -X main.version=$(VERSION)
PREFIX   ?= /usr/local
ETC      ?= /etc/ringfence
UNITDIR  ?= $(PREFIX)/lib/systemd/system
DEV      ?= /run/ringfence-dev
FUZZTIME ?= 30s
BENCH    ?= .

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: quickstart
quickstart: deps build ## as root: install what is missing, build, run the demo agent, show what happened
	$(GO) run -trimpath ./tools/quickstart

.PHONY: deps
deps: ## install from apt what building needs, if it is not there
	@tools/deps.sh build

.PHONY: deps-test
deps-test: ## install from apt what building, testing and generating need
	@tools/deps.sh build test generate

.PHONY: build
build: ## build ringfence, ringfence-policy, ringfenced and ringfence-init into bin/
	@tools/deps.sh --check build || { echo "run: make deps" >&2; exit 1; }
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ringfence ./cmd/ringfence
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ringfence-policy ./cmd/ringfence-policy
	CGO_ENABLED=1 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ringfenced ./cmd/ringfenced
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/ringfence-init ./cmd/ringfence-init

.PHONY: generate
generate: ## rebuild the kernel programs' bindings (needs clang 14)
	@tools/deps.sh --check generate || { echo "run: make deps-test" >&2; exit 1; }
	$(GO) generate ./bpf

.PHONY: docs
docs: build ## regenerate the reference pages in docs/reference, and the tables of docs/THREATS.md
	$(GO) run -trimpath ./tools/gendocs -bin bin -out docs/reference -threats docs/THREATS.md

.PHONY: test
test: ## the whole test suite (root; RINGFENCE_CI=1 turns missing things into failures)
	@tools/deps.sh --check build || { echo "run: make deps" >&2; exit 1; }
	@tools/deps.sh --check test || { echo "the tests that need these are skipped; to install them run: make deps-test" >&2; [ -z "$$RINGFENCE_CI" ]; }
	@[ "$$(id -u)" = 0 ] || { echo "not root: everything that needs the kernel is skipped" >&2; [ -z "$$RINGFENCE_CI" ]; }
	@$(GO) run ./tools/testsum -race '2:./bpf/... ./cmd/... ./pkg/... ./profiles/... ./tools/...' '1:./test/...'

.PHONY: test-restarts
test-restarts: ## 200 restarts and upgrades under load: minutes; RESTARTS=N for another number
	RINGFENCE_RESTARTS=$(or $(RESTARTS),200) $(GO) test -count=1 -timeout 60m -v -run '^TestRestarts$$' ./test/faults

.PHONY: deps-kernels
deps-kernels: ## install from apt what test-kernels needs
	@tools/deps.sh build kernels

.PHONY: test-kernels
test-kernels: ## the tests that need the kernel, on Debian's kernels in QEMU; KERNELS='-short' or '-only 6.1' for less, '-systemd' for the unit
	@tools/deps.sh --check build kernels || { echo "run: make deps-kernels" >&2; exit 1; }
	$(GO) run ./test/kernels $(KERNELS)

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (30s)
	@GO='$(GO)' tools/fuzz.sh $(FUZZTIME)

.PHONY: deps-bench
deps-bench: ## install from apt what the benchmarks compare with
	@tools/deps.sh build bench

.PHONY: bench
bench: ## the benchmarks as a report; BENCH=TITLE chooses sections
	$(GO) run ./tools/benchreport $(if $(BENCH),-only '$(BENCH)')

.PHONY: bench-inference
bench-inference: ## model calls beside nginx and a plain proxy, the gateway on a core of its own; SHORT=1 only shows that it works
	$(if $(SHORT),$(GO) test -short -run '^$$' -bench '^BenchmarkInference$$' -benchtime 1x ./test/bench,$(GO) run ./tools/benchreport -only '^Inference gateway$$')

.PHONY: peers
peers: ## the policy engine beside cedar-go, OPA and cel-go: all agree, then figures. A module of its own (building OPA takes minutes), so neither make test nor CI has it
	$(GO) -C test/peers test -count=1 .
	$(GO) run ./tools/benchreport -only 'beside other engines'

.PHONY: lint
lint: ## formatting, vet, staticcheck, licence lines, file sizes
	@GO='$(GO)' tools/lint.sh

.PHONY: start
start: build ## run a daemon from this checkout in the background, below DEV; CONFIG=FILE for its configuration
	@tools/daemon.sh start $(DEV) $(CONFIG)

.PHONY: stop
stop: ## stop it, and its sandboxes
	@tools/daemon.sh stop $(DEV)

.PHONY: install
install: build ## programs and completions to PREFIX, the systemd unit to UNITDIR, a configuration to ETC if there is none; DESTDIR goes before all
	@BIN=bin DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' ETC='$(ETC)' UNITDIR='$(UNITDIR)' tools/install.sh install

.PHONY: uninstall
uninstall: ## take that out again; configuration and state stay
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' ETC='$(ETC)' UNITDIR='$(UNITDIR)' tools/install.sh uninstall

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
