# `make` alone lists the targets. Everything is in target/ and in temporary folders, except that
# `deps` installs Debian packages that are missing, and `install` the module.

SHELL := /bin/sh
export PATH := $(PATH):$(HOME)/.cargo/bin
LIBDIR = /usr/lib/$(shell gcc -print-multiarch)/pkcs11
BINDIR = /usr/local/bin

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

quickstart: deps ## four programs use keys of a vault and a Managed HSM, on this machine
	@scripts/quickstart

test: deps ## every test, those with real clients too
	cargo build --workspace --all-targets
	cargo test --workspace --no-fail-fast

conformance: deps ## others' test suites on both services: pkcs11-tool, p11test, pkcs11-check
	cargo build --workspace --bins --lib
	@scripts/conformance

failover: ## ten minutes of signatures while two endpoints come and go (SECONDS=600)
	cargo build --workspace --bins --lib
	AKV_FAILOVER_SECONDS=$(or $(SECONDS),600) cargo test --test it -- --nocapture \
		no_signature_fails_while_endpoints_come_and_go

soak: ## half an hour of everything at once, with trouble, expiring tokens and reloads (SECONDS=1800)
	cargo build --workspace --bins --lib
	AKV_SOAK_SECONDS=$(or $(SECONDS),1800) cargo test --test it -- --nocapture \
		nothing_fails_that_need_not_fail

fuzz-smoke: ## a minute of libFuzzer: every target, from the corpus that is here
	@scripts/fuzz smoke

fuzz: ## one target for longer (TARGET=calls SECONDS=600 SANITIZER=address)
	@SANITIZER=$(SANITIZER) scripts/fuzz run $(or $(TARGET),calls) $(or $(SECONDS),60)

races: deps ## 64 threads under ThreadSanitizer
	cargo build --workspace --bins
	@scripts/races

lint: ## formatting, clippy, and licences where cargo-deny is there
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	if command -v cargo-deny >/dev/null; then cargo deny --offline check licenses bans sources; fi

fmt: ## format all Rust code
	cargo fmt --all

docs: ## rewrite the parts of docs/ that come from tables
	UPDATE_DOCS=1 cargo test --workspace --quiet -- docs documentation

emulator: deps ## serve a vault and a Managed HSM until Ctrl-C
	cargo run --quiet --package akv-emulator -- run --vault contoso --hsm contoso-hsm --seed demo

bench-emulator: ## signatures per second that the emulator makes over warm TLS
	cargo bench --package akv-emulator

bench: deps ## what the module costs beside the wire, in about five minutes; rewrites docs/performance.md
	cargo build --release --package akv-pkcs11 --package akv-pkcs11-bench
	target/release/akv-pkcs11-bench --markdown docs/performance.md --json target/bench.json

bench-quick: deps ## the same in under a minute, printed only
	cargo build --release --package akv-pkcs11 --package akv-pkcs11-bench
	target/release/akv-pkcs11-bench --quick

bench-instructions: deps ## instructions of one signature, compared with benches/instructions.txt
	cargo build --profile instructions --package akv-pkcs11
	cargo run --quiet --package akv-pkcs11-bench -- \
		--module target/instructions/libakv_pkcs11.so \
		instructions --recorded benches/instructions.txt $(UPDATE)

release: ## the module and the tool, in target/release
	cargo build --release --package akv-pkcs11 --package akv-pkcs11-tools

install: ## those, the module where the examples look for it (DESTDIR, LIBDIR, BINDIR); as root
	install -D -m 644 target/release/libakv_pkcs11.so $(DESTDIR)$(LIBDIR)/libakv_pkcs11.so
	install -D -m 755 target/release/akv-pkcs11 $(DESTDIR)$(BINDIR)/akv-pkcs11

deps: ## install what is missing for all this
	@scripts/install-deps

.PHONY: help quickstart test conformance failover soak fuzz-smoke fuzz races lint fmt docs emulator bench bench-quick bench-instructions bench-emulator release install deps
