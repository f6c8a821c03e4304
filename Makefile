# What you can do with parlour. `make help` lists it.

.DEFAULT_GOAL := help
.PHONY: help run test conformance fuzz lint bench bench-peers deb

# Options for `make run`: make run ARGS="--listen 0.0.0.0:8080"
ARGS ?=

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build and serve http://127.0.0.1:8080/ (ARGS="--help" explains the options)
	@test -e target/release/parlour || \
	  echo "Building parlour, which takes about two minutes the first time on two processors."
	cargo run --release --locked -- $(ARGS)

# Tests say themselves what they leave out, but cargo shows the output only of those that fail.
test: ## run all tests, after naming those that are left out because a tool is missing
	@need() { \
	  tests=$$1; shift; \
	  for tool; do command -v "$$tool" >/dev/null && return; done; \
	  echo "LEFT OUT, since $$1 is not here: $$tests"; \
	}; \
	need "the page in a browser" chromium chromium-browser google-chrome chrome; \
	need "the server behind a proxy" nginx /usr/sbin/nginx; \
	need "the service's unit" systemd-analyze; \
	need "the format of the metrics" promtool; \
	test "$$(id -u)" = 0 || \
	  echo "LEFT OUT, since this is not root: networks that break, and a limit on threads"
	cargo test --locked

conformance: ## run the Autobahn cases; needs Python and, once, the network
	cargo test --locked --test conformance

# For longer than a minute: make fuzz FUZZ_SECONDS=600
FUZZ_SECONDS ?= 60

fuzz: ## look for input that breaks a parser or a pump, a minute each; installs cargo-fuzz
	command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	cd tests/fuzz && for target in head query json frames; do \
	  mkdir -p $(CURDIR)/target/fuzz-found/$$target && \
	  RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$(CURDIR)/target/fuzz-build \
	    cargo fuzz run --fuzz-dir . $$target $(CURDIR)/target/fuzz-found/$$target corpus/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -verbosity=0 -print_final_stats=1 || exit; \
	done

lint: ## check format, clippy and documentation; a warning is an error
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --test conformance -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

bench: ## measure throughput, latency, CPU and memory on this machine
	cargo bench --locked --quiet --bench chat

bench-peers: ## the same, compared with rooms in Go and on Bun where these are installed
	cargo bench --locked --quiet --bench chat -- --peers

deb: ## build a Debian package, in target/debian; needs dpkg-dev, installs cargo-deb
	command -v cargo-deb >/dev/null || cargo install cargo-deb --locked
	cargo deb --locked
