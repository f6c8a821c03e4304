# Everything that is done with parlour, by name. `make help` lists it.

.DEFAULT_GOAL := help
.PHONY: help run test lint bench bench-peers deb

# Options for `make run`: make run ARGS="--listen 0.0.0.0:8080"
ARGS ?=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build and serve http://127.0.0.1:8080/ (ARGS="--help" explains the options)
	cargo run --release --locked --quiet -- $(ARGS)

test: ## run all tests
	cargo test --locked

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
