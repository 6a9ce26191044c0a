# Recipes are plain commands: copy one and run it by hand if you like.

.PHONY: run test soak fuzz lint fmt doc dist bench instructions ci clean

# Builds, starts control plane and data plane in one process with an example shop, and says what to try.
run:
	cargo run --bin sluice -- up --demo

# All tests. They run real nats-server processes; scripts/nats-server finds one or says why not. nginx, node, h2load and
# Chromium, which the proxy is tested with, are installed if that is possible (scripts/upstreams); else it says what is not run.
test:
	@scripts/upstreams
	@server=$$(scripts/nats-server) && export SLUICE_TEST_NATS_SERVER="$$server" && \
	echo "nats-server: $$server" && \
	cargo build --workspace --bins && \
	cargo test --workspace

# The whole-system tests for hours instead of minutes: make soak SOAK="chaos --kills 5000 --minutes 120", make soak SOAK=sim
SOAK ?= chaos
soak:
	@server=$$(scripts/nats-server) && export SLUICE_TEST_NATS_SERVER="$$server" && \
	cargo build --workspace --bins && \
	target/debug/soak $(SOAK)

# What is decoded, fed with anything: make fuzz FUZZ=snapshot SECONDS=600. Targets: event, snapshot, head, file. Needs
# cargo-fuzz; the sanitizers it uses are a feature of nightly compilers, which this one is asked to take for allowed.
FUZZ ?= event
SECONDS ?= 60
fuzz:
	mkdir -p tests/fuzz/corpus/$(FUZZ)
	RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir tests/fuzz $(FUZZ) tests/fuzz/corpus/$(FUZZ) schema/tests/golden/v1 -- -max_total_time=$(SECONDS)

lint:
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt:
	cargo fmt

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace

# The programs as they are shipped, in target/dist: the data plane by a profile of it under load.
dist:
	scripts/dist

# From a POST to the first request that shows it, back from a restart, the Admin API at size, and proxying, on a real NATS server and
# beside the other proxies that are installed (docs/reference/benchmarks.md). Takes long; sluice bench --help tells of its parts.
bench:
	scripts/dist
	target/dist/sluice bench propagate
	target/dist/sluice bench recover
	target/dist/sluice bench admin
	target/dist/sluice bench proxy peers shapes plugins memory connections
	target/dist/sluice bench proxy churn --seconds 20

# Whether a request takes more instructions than docs/reference/instructions.txt says. Needs valgrind.
instructions:
	cargo build --release --bins
	target/release/sluice bench proxy instructions --check

# What a change must pass.
ci:
	.ci/run

clean:
	cargo clean
