# What a person runs at the root. Everything here is plain cargo and the scripts under tests/.
.RECIPEPREFIX = >
SHELL := /bin/bash
CARGO ?= cargo
# The programs the end-to-end tests and the demo run (profile e2e in Cargo.toml).
TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
E2E_DIR := $(TARGET_DIR)/e2e
HOST := x86_64-unknown-linux-gnu
RING_TESTS := vhost_differential vhost_hostile vhost_packed vhost_packed_hostile vhost_packed_resume vhost_reference \
    vhost_rings
# Not those that make hundreds of random cases.
MIRI_TESTS := fdb::tests::learning fdb::tests::a_slot fdb::tests::time header mac::
# In CI a test that lacks something fails instead of being skipped.
export LABSW_TEST_REQUIRE := $(or $(LABSW_TEST_REQUIRE),$(if $(filter true,$(CI)),1))

# Where `make install` puts things, and where it takes the programs from.
PREFIX ?= /usr/local
DESTDIR ?=
BIN_DIR ?= $(TARGET_DIR)/release
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

.PHONY: help build install install-files deb test-deb oci test-oci deny sbom setup lint generated unit models mutants sanitize e2e-build e2e test-labhost soak test demo bench bench-peers

help:
> @echo "make build        labswd and labsw-ctl, release"
> @echo "make install      programs, unit, completions, man pages under PREFIX=/usr/local; see docs/service.md"
> @echo "make generated    what is made from the configuration's model: see CONTRIBUTING.md"
> @echo "make deb          a Debian package; make test-deb installs, upgrades and purges it"
> @echo "make oci          an OCI image; make test-oci runs it with podman"
> @echo "make deny         licences, sources and known faults of the crates; see docs/releasing.md"
> @echo "make sbom         a bill of materials (CycloneDX): the crates that labswd and labsw-ctl are built of"
> @echo "make demo         a whole lab on this machine, narrated; needs root"
> @echo "make test         format, clippy, unit tests, end-to-end tests; needs root"
> @echo "make lint         format, clippy, links of the code's documentation"
> @echo "make test-labhost  the switch on emulated NICs with their real drivers, in a virtual machine"
> @echo "make soak         20 minutes of attacks at random beside a flow and its mirror; needs root"
> @echo "make models       what threads share and hand over, in all orders (loom) or many (shuttle)"
> @echo "make sanitize     unit and ring tests under address and thread sanitizer and Miri; takes minutes"
> @echo "make mutants      changes switch/ in 1895 places, one at a time, and asks its tests; takes hours"
> @echo "make bench        criterion benches"
> @echo "make bench-peers  side by side with other switches"

build:
> $(CARGO) build --release -p labsw-control --bins

install: build
> $(MAKE) install-files

# The unit names /usr/local; any other PREFIX is put in its place.
install-files:
> install -D -m755 -t $(DESTDIR)$(PREFIX)/bin $(BIN_DIR)/labswd $(BIN_DIR)/labsw-ctl
> install -D -m644 control/labsw.service $(DESTDIR)$(PREFIX)/lib/systemd/system/labsw.service
> sed -i 's#/usr/local/#$(PREFIX)/#g' $(DESTDIR)$(PREFIX)/lib/systemd/system/labsw.service
> install -D -m644 control/labsw.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/labsw.conf
> install -D -m644 -t $(DESTDIR)$(PREFIX)/share/doc/labsw docs/*.md docs/*.png control/examples/*.toml control/examples/*.yaml
> install -d $(DESTDIR)$(PREFIX)/share/labsw $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
>     $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
> $(BIN_DIR)/labsw-ctl completions bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/labsw-ctl
> $(BIN_DIR)/labsw-ctl completions zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_labsw-ctl
> $(BIN_DIR)/labsw-ctl completions fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/labsw-ctl.fish
> $(BIN_DIR)/labsw-ctl man $(DESTDIR)$(PREFIX)/share/man/man1
> install -D -m644 -t $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(PREFIX)/share/man/man1/labswd.8
> rm $(DESTDIR)$(PREFIX)/share/man/man1/labswd.8
> $(BIN_DIR)/labsw-ctl config schema >$(DESTDIR)$(PREFIX)/share/labsw/config.schema.json

# A Debian package under target/debian, of what `make install` lays out. Needs cargo-deb (cargo install cargo-deb).
deb: build
> rm -rf $(TARGET_DIR)/deb
> $(MAKE) install-files DESTDIR=$(TARGET_DIR)/deb PREFIX=/usr
> $(CARGO) deb -p labsw-control --no-build --no-strip

# Installs, upgrades, removes and purges the package in a copy of this machine's root that is thrown away; needs root.
test-deb: deb
> tests/test-deb.sh $(TARGET_DIR)/debian/labsw_*.deb

# An OCI image: the directory target/oci/labsw, and the archive labsw.tar beside it. Needs no container engine.
oci: build
> rm -rf $(TARGET_DIR)/oci
> $(MAKE) install-files DESTDIR=$(TARGET_DIR)/oci/root PREFIX=/usr
> control/oci/mkimage.sh $(TARGET_DIR)/oci/root $(VERSION) $(TARGET_DIR)/oci/labsw

# Runs the image in a network namespace; needs root and podman.
test-oci: oci
> tests/test-oci.sh $(TARGET_DIR)/oci/labsw.tar

# Licences, sources and known faults of the crates (deny.toml); needs cargo-deny (cargo install cargo-deny), and fetches
# the list of faults.
deny:
> $(CARGO) deny check

# A software bill of materials of the two programs: target/sbom/labsw.cdx.json. Needs cargo-cyclonedx (cargo install
# cargo-cyclonedx), which leaves a file in each directory of the workspace with a Cargo.toml. What names the build
# directory is cut off.
sbom:
> mkdir -p $(TARGET_DIR)/sbom
> $(CARGO) cyclonedx -q --manifest-path control/Cargo.toml --format json --spec-version 1.5 \
>     --override-filename labsw.cdx
> sed 's|$(CURDIR)||g' control/labsw.cdx.json >$(TARGET_DIR)/sbom/labsw.cdx.json
> rm $(patsubst %,%/labsw.cdx.json,switch dataplane control benches tests tests/testkit)

setup:
> tests/setup-debian.sh

lint:
> $(CARGO) fmt --all --check
> python3 tests/check-columns.py
> python3 tests/check-functions.py
> python3 tests/check-openings.py
> python3 tests/check-cycles.py
> $(CARGO) clippy --workspace --all-targets -- -D warnings
> RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --no-deps --document-private-items \
>     --workspace

# What is made from control/src/model: types of the .varlink file, options of the NixOS module, rows of a page.
generated:
> LABSW_BLESS=1 $(CARGO) test -p labsw-control --lib generated

unit:
> $(CARGO) test --workspace --exclude labsw-tests

# Every interleaving of small situations at the tables, and thousands of schedules of workers and control thread. Target
# directories of their own: each flag is another build of everything. Link-time optimisation would take longer than the
# tests.
models:
> RUSTFLAGS="--cfg loom" CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
>     CARGO_TARGET_DIR=$(TARGET_DIR)/models $(CARGO) test --release -p labsw-switch --lib models
> RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR=$(TARGET_DIR)/schedules $(CARGO) test -p labsw-dataplane --lib models

# Which changes of switch/ no test sees. SHARD=3/40 takes every fortieth; docs/mutants.md says how to read the outcome.
mutants:
> nice -n 10 $(CARGO) mutants --package labsw-switch --jobs 1 --shard $(or $(SHARD),0/1) --output $(TARGET_DIR)

# RUSTC_BOOTSTRAP lets a stable compiler take the flags. The standard library is built anew for the thread sanitizer,
# which needs `rustup component add rust-src`; Miri needs `rustup toolchain install nightly -c miri -c rust-src`.
sanitize: export RUSTC_BOOTSTRAP := 1
sanitize:
> RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=$(TARGET_DIR)/asan $(CARGO) test --target $(HOST) -p labsw-dataplane \
>     --lib $(RING_TESTS:%=--test %)
> RUSTFLAGS=-Zsanitizer=thread CARGO_TARGET_DIR=$(TARGET_DIR)/tsan $(CARGO) test -Zbuild-std --target $(HOST) \
>     -p labsw-switch --lib fdb::tests::threads
> CARGO_TARGET_DIR=$(TARGET_DIR)/miri $(CARGO) +nightly miri test -p labsw-switch --lib -- $(MIRI_TESTS)

e2e-build:
> $(CARGO) build --profile e2e -p labsw-control -p labsw-tests --bins

# One test at a time: two CPUs hold a switch, a guest or two, and not much more. Only those that mostly wait for guests
# to boot, and measure nothing, run two at a time.
e2e: e2e-build
> LABSW_BIN_DIR=$(E2E_DIR) CARGO="$(CARGO)" tests/run-e2e.sh

# LABHOST=all takes longer: a million numbered frames, more checks of older NICs, two more boots of the Debian system.
test-labhost: setup e2e-build
> LABSW_BIN_DIR=$(E2E_DIR) $(CARGO) test -p labsw-tests --test lab_host --test lab_service -- --nocapture

# Attackers at four ports at once: tests/tests/hostile_soak.rs. LABSW_SOAK_SECONDS says how long, LABSW_SOAK_SEED
# repeats a run.
soak: e2e-build
> LABSW_SOAK_SECONDS=$(or $(LABSW_SOAK_SECONDS),1200) LABSW_BIN_DIR=$(E2E_DIR) $(CARGO) test -p labsw-tests \
>     --test hostile_soak -- --nocapture

# One after the other, whatever -j says: lint first, it is the quickest to fail.
test:
> $(MAKE) setup
> $(MAKE) lint
> $(MAKE) unit
> $(MAKE) models
> $(MAKE) e2e

demo: setup e2e-build
> LABSW_BIN_DIR=$(E2E_DIR) tests/demo/demo.sh

bench:
> $(CARGO) bench -p labsw-benches

bench-peers: setup
> $(CARGO) build --release -p labsw-control --bins
> benches/peers.sh
