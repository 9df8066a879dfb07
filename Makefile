# `make` lists what there is. What CI runs is what a laptop runs: .ci/run calls `check` and `test`.

export PATH := $(HOME)/.cargo/bin:$(PATH)
ringway := target/release/ringway

.PHONY: help demo run test check sim bench doctor profile schema services setup build

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "%-16s %s\n", $$1, $$2 }'

demo: setup build ## a gateway, a group of 500, 100 messages to the 300 online, everything counted
	$(ringway) bench group

run: setup build ## a gateway on 127.0.0.1:7400, its data in ./ringway-data, until Ctrl-C
	$(ringway) serve

test: ## all tests
	@scripts/setup.sh tests
	scripts/services.sh during cargo test

check: ## format, lints as errors, documentation as errors
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

# SEED, RUNS and STEPS, given to make, reach the simulator as environment.
sim: ## the simulator: make sim SEED=7 replays one seed, make sim RUNS=1000 tries so many
	cargo test --release --test sim

bench: setup build ## the microbenchmarks, then every scenario with its target beside what was measured
	cargo bench
	$(ringway) bench targets

doctor: setup build ## is this host fit? make doctor CONNECTIONS=500000; exit code 1: warnings, 2: it is not
	$(ringway) doctor $(if $(CONNECTIONS),--connections $(CONNECTIONS))

profile: ## a flame graph of the gateway under load: target/profile/flame.svg (BENCH="group --flood 5")
	scripts/profile.sh $(BENCH)

schema: ## src/wire/generated.rs from src/wire/ringway.fbs
	scripts/schema.sh

services: ## a private MariaDB and a private Redis under target/services (scripts/services.sh down stops them)
	@scripts/services.sh up
	@scripts/services.sh status

setup: ## installs what is missing, or says what to do
	@scripts/setup.sh

build:
	cargo build --release
