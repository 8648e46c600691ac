# make run    a private, throw-away Redis with the proxy in front of it
# make test   everything that must hold before a change is taken
#
# Both install what they lack from the system's packages (apt-get, through sudo unless root). Neither uses a Redis that
# already runs on this machine: each starts its own on a socket or a free port.

LISTEN ?= 127.0.0.1:6380
CLI = redis-cli -h $(firstword $(subst :, ,$(LISTEN))) -p $(lastword $(subst :, ,$(LISTEN)))
SUDO = $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# $(call need,program,packages): installs the packages unless the program is there.
define need
@command -v $(1) >/dev/null || { \
	command -v apt-get >/dev/null || { echo "$(1) is missing, and there is no apt-get to install $(2) with" >&2; exit 69; }; \
	$(SUDO) apt-get update && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(2); }
endef

# $(call component,name): a part of the Rust toolchain that minimal installations leave out.
define component
@cargo $(1) --version >/dev/null 2>&1 || rustup component add $(2)
endef

.PHONY: run test redis tools

run: redis
	cargo build --release
	@printf '\nIn another terminal:\n\n  %s SET greeting hello\n  %s GET greeting\n  %s\n\nCtrl-C here stops both.\n\n' "$(CLI)" "$(CLI)" "$(CLI) INFO"
	@cargo run --release --quiet -- --listen $(LISTEN) --upstream spawn:

# The tests run last, so that what the runner counts is the last thing printed.
test: redis tools
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	cargo test --doc
	@if cargo nextest --version >/dev/null 2>&1; then \
		echo cargo nextest run; cargo nextest run; \
	else \
		echo cargo test --lib --bins --tests; cargo test --lib --bins --tests; \
	fi

redis:
	$(call need,cc,gcc libc6-dev)
	$(call need,redis-server,redis-server)
	$(call need,redis-cli,redis-tools)

tools:
	$(call need,tclsh,tcl)
	$(call component,fmt,rustfmt)
	$(call component,clippy,clippy)
