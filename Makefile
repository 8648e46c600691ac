# make run      a private, throw-away Redis with the proxy in front of it
# make test     formatting, lints, documentation and all tests
# make compat   Redis's own test suite through the release build (COMPAT=--half for the shorter half)
# make bench    everything measured: the table, the sweeps with their pictures (benches/pictures), invalidation, parts, hit ratios
#               (BENCH=--quick: to see that it works, not to quote)
# make bench-peers  installs what the proxy is compared with: nutcracker and haproxy
# make newer    the tests that hold for any server, with Redis 8 and Valkey 8 from Debian's next release
# make clients  redis-py, node-redis, ioredis and redis-cli through the release build (CLIENTS="--only redis-cli")
# make page     the admin page in headless Chromium, through the release build
# make rules    Prometheus's own check of the alert rules
#
# What must hold before a change is taken is all of it: .ci/run. All install what they lack from the system's packages
# (apt-get, through sudo unless root). None uses a Redis that already runs on this machine: each starts its own on a
# socket or a free port, and ends it.

LISTEN ?= 127.0.0.1:6380
CLI = redis-cli -h $(firstword $(subst :, ,$(LISTEN))) -p $(lastword $(subst :, ,$(LISTEN)))
SUDO = $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# $(call need,program,packages): installs the packages unless the program is there.
need = $(call unless,command -v $(1) >/dev/null,$(1),$(2))

# $(call unless,test,what,packages): installs the packages unless the test succeeds.
define unless
@$(1) || { \
	command -v apt-get >/dev/null || { echo "$(2) is missing, and there is no apt-get to install $(3) with" >&2; exit 69; }; \
	$(SUDO) apt-get update && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(3); }
endef

# $(call component,name): a part of the Rust toolchain that minimal installations leave out.
define component
@cargo $(1) --version >/dev/null 2>&1 || rustup component add $(2)
endef

.PHONY: run test lint compat newer clients page rules bench bench-peers release redis tools suite libraries browser promtool

run: release
	@printf '\nIn another terminal:\n\n  %s SET greeting hello\n  %s GET greeting\n  %s\n\nCtrl-C here stops both.\n\n' "$(CLI)" "$(CLI)" "$(CLI) INFO"
	@cargo run --release --quiet -- --listen $(LISTEN) --upstream spawn:

# The tests run last, so that what the runner counts is the last thing printed.
test: lint
	cargo test --doc
	@if cargo nextest --version >/dev/null 2>&1; then \
		echo cargo nextest run --no-fail-fast; cargo nextest run --no-fail-fast; \
	else \
		echo cargo test --no-fail-fast --lib --bins --tests; cargo test --no-fail-fast --lib --bins --tests; \
	fi

lint: redis tools
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

compat: release suite
	tests/compat/selftest
	tests/compat/run $(COMPAT)

newer: redis
	$(call need,python3,python3)
	tests/newer/run

clients: release libraries
	tests/clients/run $(CLIENTS)

page: release browser
	tests/page/run

rules: promtool
	promtool check rules src/admin/grafana/alerts.yml

bench: redis
	cargo bench --bench side_by_side -- --pictures --json target/side_by_side.json $(BENCH)
	cargo bench --bench invalidation -- --json target/invalidation.json $(filter --quick,$(BENCH))
	cargo bench --bench hit_ratio -- --json target/hit_ratio.json
	cargo bench --bench micro

# Debian starts haproxy once it is installed; nobody asked for that.
bench-peers:
	$(call unless,command -v nutcracker >/dev/null || [ -x /usr/sbin/nutcracker ],nutcracker,nutcracker)
	$(call unless,command -v haproxy >/dev/null || [ -x /usr/sbin/haproxy ],haproxy,haproxy)
	@! command -v systemctl >/dev/null || ! systemctl is-active --quiet haproxy 2>/dev/null || \
		echo "haproxy runs as a service now; systemctl disable --now haproxy ends it"

release: redis
	cargo build --release

redis:
	$(call need,cc,gcc libc6-dev)
	$(call need,redis-server,redis-server)
	$(call need,redis-cli,redis-tools)

tools:
	$(call need,tclsh,tcl)
	$(call component,fmt,rustfmt)
	$(call component,clippy,clippy)

suite:
	$(call need,tclsh,tcl)
	$(call need,python3,python3)
	$(call need,dpkg-source,dpkg-dev)

libraries:
	$(call unless,python3 -c "import ensurepip" 2>/dev/null,Python's venv,python3-venv)
	$(call need,node,nodejs)
	$(call need,npm,npm)
	$(call need,openssl,openssl)

browser:
	$(call need,node,nodejs)
	$(call need,npm,npm)
	$(call need,chromium,chromium fonts-dejavu-core)

# The package starts a server where there is systemd; nobody asked for that.
promtool:
	$(call need,promtool,prometheus)
	@! command -v systemctl >/dev/null || ! systemctl is-active --quiet prometheus 2>/dev/null || \
		echo "prometheus runs as a service now; systemctl disable --now prometheus ends it"
