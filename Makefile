# What a person runs at the root. Everything here is plain cargo and the scripts under tests/.
.RECIPEPREFIX = >
SHELL := /bin/bash
CARGO ?= cargo
# The programs the end-to-end tests and the demo run (profile e2e in Cargo.toml).
E2E_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))/e2e
# In CI a test that lacks something fails instead of being skipped.
export LABSW_TEST_REQUIRE := $(or $(LABSW_TEST_REQUIRE),$(if $(filter true,$(CI)),1))

.PHONY: help build setup lint unit e2e-build e2e test demo bench bench-peers

help:
> @echo "make build        labswd and labsw-ctl, release"
> @echo "make demo         a whole lab on this machine, narrated; needs root"
> @echo "make test         format, clippy, unit tests, end-to-end tests; needs root"
> @echo "make lint         format and clippy only"
> @echo "make bench        criterion benches"
> @echo "make bench-peers  side by side with other switches"

build:
> $(CARGO) build --release -p labsw-control --bins

setup:
> tests/setup-debian.sh

lint:
> $(CARGO) fmt --all --check
> $(CARGO) clippy --workspace --all-targets -- -D warnings

unit:
> $(CARGO) test --workspace --exclude labsw-tests

e2e-build:
> $(CARGO) build --profile e2e -p labsw-control -p labsw-tests --bins

# One test at a time: two CPUs hold a switch, a guest or two, and not much more.
e2e: e2e-build
> LABSW_BIN_DIR=$(E2E_DIR) $(CARGO) test -p labsw-tests --no-fail-fast -- --test-threads=1

# One after the other, whatever -j says: lint first, it is the quickest to fail.
test:
> $(MAKE) setup
> $(MAKE) lint
> $(MAKE) unit
> $(MAKE) e2e

demo: setup e2e-build
> LABSW_BIN_DIR=$(E2E_DIR) tests/demo/demo.sh

bench:
> $(CARGO) bench -p labsw-benches

bench-peers: setup
> $(CARGO) build --release -p labsw-control --bins
> benches/peers.sh
