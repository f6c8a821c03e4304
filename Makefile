# Everything that is done with parlour, by name. `make help` lists it.

.DEFAULT_GOAL := help
.PHONY: help run test conformance fuzz lint bench bench-peers deb

# Options for `make run`: make run ARGS="--listen 0.0.0.0:8080"
ARGS ?=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build and serve http://127.0.0.1:8080/ (ARGS="--help" explains the options)
	cargo run --release --locked --quiet -- $(ARGS)

test: ## run all tests
	cargo test --locked

conformance: ## run the Autobahn cases, which takes Python and, once, the network
	cargo test --locked --test conformance

# For longer than a minute: make fuzz FUZZ_SECONDS=600
FUZZ_SECONDS ?= 60

fuzz: ## look for input that breaks a parser or a pump, a minute for each; installs cargo-fuzz if need be
	command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	cd tests/fuzz && for target in head query json frames; do \
	  mkdir -p $(CURDIR)/target/fuzz-found/$$target && \
	  RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$(CURDIR)/target/fuzz-build \
	    cargo fuzz run --fuzz-dir . $$target $(CURDIR)/target/fuzz-found/$$target corpus/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -verbosity=0 -print_final_stats=1 || exit; \
	done

lint: ## check format, clippy and docs; a warning is an error
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

bench: ## measure this machine: a table of throughput, latency, CPU and memory
	cargo bench --locked --quiet --bench chat

bench-peers: ## the same beside rooms in Go and on Bun, where these are found
	cargo bench --locked --quiet --bench chat -- --peers

deb: ## build a Debian package with a service, in target/debian (needs dpkg-dev; installs cargo-deb if it is missing)
	command -v cargo-deb >/dev/null || cargo install cargo-deb --locked
	cargo deb --locked
