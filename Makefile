# `make` lists the targets.
SHELL     := bash
CARGO     ?= cargo
BUILD     := target/policies
POLICIES  := geoip ips agent-acl sso-cors
GUESTS    := $(notdir $(patsubst %/,%,$(wildcard tests/fixtures/guests/*/)))
WASM      := --profile policies --target wasm32-wasip2
OUT       := $(or $(CARGO_TARGET_DIR),target)/wasm32-wasip2/policies

FUZZ      := head response chunks http2 frames proxy_header client_hello
FUZZ_DIR  := $(abspath $(or $(CARGO_TARGET_DIR),target))/fuzz
FUZZ_SECONDS ?= 600
HOST      = $(shell rustc -vV | sed -n 's/^host: //p')
# Coverage counters for libFuzzer from the stable compiler.
COVERAGE  := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing

.PHONY: help demo test lint build policies guests bench chaos soak fuzz clean toolchain

help: ## This list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: build ## Build everything and try it: a sample origin behind four policies on 127.0.0.1:8443
	./target/release/weir demo

test: lint guests build ## Format, lints and every test, against the real binary and real components
	@set -o pipefail; $(CARGO) test --release --workspace 2>&1 | tee target/test.log
	@awk '/^test result:/ { passed += $$4; failed += $$6 } END { print passed " passed, " failed " failed" }' target/test.log

lint: policies ## Formatting and clippy, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) fmt --all --check --manifest-path tests/fuzz/Cargo.toml
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

build: policies ## target/release/weir
	$(CARGO) build --release --workspace --bins

policies: toolchain ## target/policies/*.wasm
	$(CARGO) build $(WASM) $(addprefix -p ,$(POLICIES))
	@mkdir -p $(BUILD)
	@for name in $(POLICIES); do cmp -s $(OUT)/$$(echo $$name | tr - _).wasm $(BUILD)/$$name.wasm || cp $(OUT)/$$(echo $$name | tr - _).wasm $(BUILD)/$$name.wasm; done

guests: toolchain ## target/guests/*.wasm: the plugins that tests use
	$(CARGO) build $(WASM) $(addprefix -p guest-,$(GUESTS))
	@mkdir -p target/guests
	@for name in $(GUESTS); do cp $(OUT)/guest_$$(echo $$name | tr - _).wasm target/guests/$$name.wasm; done

bench: build guests ## CPU per request beside nginx and HAProxy, when they are installed
	$(CARGO) run --release -p weir-tests --bin bench -- $(BENCH)

chaos: build ## Kill, black-hole, reload and upgrade under load beside nginx and HAProxy, when they are installed
	$(CARGO) run --release -p weir-tests --bin chaos -- $(CHAOS)

soak: build guests ## Ten minutes (SOAK_SECONDS) of reloads, swaps, dying upstreams and rude clients: memory and descriptors stay flat
	$(CARGO) run --release -p weir-tests --bin chaos -- soak

fuzz: ## Whatever reads bytes from the network, given any bytes, for FUZZ_SECONDS in all (600)
	@mkdir -p $(FUZZ_DIR)
	RUSTFLAGS="$(COVERAGE)" CARGO_TARGET_DIR=$(FUZZ_DIR) $(CARGO) build --release --bins --locked --target $(HOST) --manifest-path tests/fuzz/Cargo.toml
	@found=; for target in $(FUZZ); do \
		corpus=$(FUZZ_DIR)/corpus/$$target; log=$(FUZZ_DIR)/$$target.log; mkdir -p $$corpus; \
		WEIR_SEEDS=$$corpus $(FUZZ_DIR)/$(HOST)/release/$$target $$corpus -max_len=2048 -timeout=10 -rss_limit_mb=1024 -verbosity=0 \
			-max_total_time=$$(( $(FUZZ_SECONDS) / $(words $(FUZZ)) )) -print_final_stats=1 -artifact_prefix=$(FUZZ_DIR)/$$target- \
			> $$log 2>&1 || found="$$found $$target"; \
		echo "fuzz $$target: $$(sed -n 's/^stat::number_of_executed_units: *//p' $$log) inputs"; \
		grep -E 'panicked|ERROR: libFuzzer|Test unit written' -A 3 $$log || true; \
	done; test -z "$$found" || { echo "fuzz: see target/fuzz/*.log of$$found"; exit 1; }

clean: ## Remove everything that was built
	$(CARGO) clean

toolchain:
	@(rustup target list --installed | grep -q wasm32-wasip2 && $(CARGO) clippy --version && $(CARGO) fmt --version) >/dev/null 2>&1 \
		|| rustup toolchain install
