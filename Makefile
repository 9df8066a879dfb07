# `make` lists what there is. What CI runs is what a laptop runs: .ci/run calls `check` and `test`.

export PATH := $(HOME)/.cargo/bin:$(PATH)
ringway := target/release/ringway
# What `make demo`, `make cluster-demo` and `make run` build: quickly, and somewhat slower when it runs.
quick := target/demo/ringway

# Where `make install` puts things; DESTDIR goes in front of all of them, for packages.
PREFIX ?= /usr/local
bin := $(DESTDIR)$(PREFIX)/bin
share := $(DESTDIR)$(PREFIX)/share/ringway
lib := $(DESTDIR)$(PREFIX)/lib
scripts := apply.sh revert.sh status.sh
sourced := common.sh nic.sh persist.sh values.conf seccomp.json README.md
man := $(DESTDIR)$(PREFIX)/share/man/man1
bash := $(DESTDIR)$(PREFIX)/share/bash-completion/completions
zsh := $(DESTDIR)$(PREFIX)/share/zsh/site-functions
fish := $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
# Takes debugging information out of what is installed: 15 MB of 80 are left.
STRIP ?= strip

.PHONY: install uninstall tune
.PHONY: help demo cluster-demo run test check sim bench doctor soak soak-cluster soak-vm chaos profile schema services setup build

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "%-16s %s\n", $$1, $$2 }'

demo: setup $(quick) ## a gateway, a group of 500, 100 messages to the 300 online, everything counted
	$(quick) bench group

cluster-demo: setup $(quick) ## MariaDB, Redis and three gateways as one cluster: the demo over all of them
	RINGWAY=$(quick) scripts/cluster-demo.sh

run: setup $(quick) ## a gateway on 127.0.0.1:7400, its data in ./ringway-data, until Ctrl-C
	$(quick) serve

test: ## all tests
	@scripts/setup.sh tests
	scripts/services.sh during cargo test --locked

check: ## format, borders between modules, lints as errors, documentation as errors
	cargo fmt --check
	@mkdir -p target && CARGO_MANIFEST_DIR=$(CURDIR) rustc --edition 2024 --test -o target/borders src/tests/borders.rs && target/borders --quiet
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --all-features --no-deps --document-private-items

# SEED, RUNS, STEPS and KIND (alone or cluster), given to make, reach the simulator as environment.
sim: ## the simulator, of one gateway and of clusters: make sim SEED=7 replays one seed, make sim RUNS=1000 tries so many
	cargo test --locked --release --test sim

bench: setup build ## the microbenchmarks, then every scenario with its target beside what was measured
	cargo bench --locked
	$(ringway) bench targets

doctor: setup build ## is this host fit? make doctor CONNECTIONS=500000; exit code 1: warnings, 2: it is not
	$(ringway) doctor $(if $(CONNECTIONS),--connections $(CONNECTIONS))

soak: setup build ## doctor, tune (asks first), serve, soak, report, revert: SOAK="--connections 100000 --for 1h --yes"
	@scripts/soak.sh $(SOAK)

soak-cluster: build ## several gateways as one cluster, soaked together: SOAK="--gateways 4 --connections 15000 --for 2m"
	@scripts/soak-cluster.sh $(SOAK)

soak-vm: build ## half a million connections in a virtual machine of its own: make soak-vm CONNECTIONS=1000000
	@scripts/soak-vm.sh

chaos: setup ## a cluster's processes killed, stopped, cut off and emptied, every message checked: CHAOS="--for 1h --seed 7"
	@scripts/chaos.sh $(CHAOS)

profile: ## a flame graph of the gateway under load: target/profile/flame.svg (BENCH="group --flood 5")
	scripts/profile.sh $(BENCH)

schema: ## src/wire/generated.rs from src/wire/ringway.fbs
	scripts/schema.sh

services: ## a private MariaDB and a private Redis under target/services (scripts/services.sh down stops them)
	@scripts/services.sh up
	@scripts/services.sh status

setup: ## installs what is missing, or says what to do
	@scripts/setup.sh

build: ## the gateway as it is deployed: target/release/ringway
	cargo build --locked --release -p ringway

.PHONY: $(quick)
$(quick):
	cargo build --locked --profile demo -p ringway

tune: ## sets what Ringway wants of this host, as root: TUNE="--profile large --persist"; TUNE=--dry-run only looks
	@if [ "$$(id -u)" -eq 0 ] || [ "$(filter --dry-run,$(TUNE))" ]; then tuning/apply.sh $(TUNE); else sudo tuning/apply.sh $(TUNE); fi

install: ## what `make build` built, the tuning scripts, the service: PREFIX=/usr/local DESTDIR=
	@[ -x $(ringway) ] || { echo "install: there is no $(ringway) yet: run make build first, not as root"; exit 1; }
	install -d $(bin) $(share)/tuning $(lib)/systemd/system $(lib)/sysusers.d $(lib)/tmpfiles.d $(man) $(bash) $(zsh) $(fish)
	install -m 755 -s --strip-program=$(STRIP) $(ringway) $(bin)/ringway
	$(ringway) man --into $(man)
	$(ringway) completions bash >$(bash)/ringway
	$(ringway) completions zsh >$(zsh)/_ringway
	$(ringway) completions fish >$(fish)/ringway.fish
	chmod 644 $(man)/ringway.1 $(man)/ringway-*.1 $(bash)/ringway $(zsh)/_ringway $(fish)/ringway.fish
	install -m 755 $(addprefix tuning/,$(scripts)) $(share)/tuning
	install -m 644 $(addprefix tuning/,$(sourced)) $(share)/tuning
	install -m 644 tuning/ringway.toml $(share)/ringway.toml
	sed 's|/usr/local/|$(PREFIX)/|' tuning/ringway.service >$(lib)/systemd/system/ringway.service
	sed 's|/usr/local/|$(PREFIX)/|' tuning/ringway.tmpfiles >$(lib)/tmpfiles.d/ringway.conf
	install -m 644 tuning/ringway.sysusers $(lib)/sysusers.d/ringway.conf
	chmod 644 $(lib)/systemd/system/ringway.service $(lib)/tmpfiles.d/ringway.conf
	@[ -n "$(DESTDIR)" ] || echo "install: now, as root: systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload && systemctl enable --now ringway"

uninstall: ## what `make install` installed, with the same PREFIX and DESTDIR; settings and data stay
	rm -f $(bin)/ringway $(addprefix $(share)/tuning/,$(scripts) $(sourced)) $(share)/ringway.toml
	rm -f $(man)/ringway.1 $(man)/ringway-*.1 $(bash)/ringway $(zsh)/_ringway $(fish)/ringway.fish
	rm -f $(lib)/systemd/system/ringway.service $(lib)/sysusers.d/ringway.conf $(lib)/tmpfiles.d/ringway.conf
	@for dir in $(share)/tuning $(share); do [ ! -d $$dir ] || rmdir $$dir || true; done
	@[ ! -f $(DESTDIR)/var/lib/ringway-tuning/record ] || echo "uninstall: this host is still tuned: tuning/revert.sh of the source restores what was there"
