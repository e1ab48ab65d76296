# SPDX-License-Identifier: Apache-2.0
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X main.version=$(VERSION)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build ringfence, ringfenced and ringfence-init into bin/
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ringfence ./cmd/ringfence
	CGO_ENABLED=1 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ringfenced ./cmd/ringfenced
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/ringfence-init ./cmd/ringfence-init
