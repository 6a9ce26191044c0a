# Recipes are plain commands: copy one and run it by hand if you like.

.PHONY: run test soak lint fmt doc bench ci clean

# Builds, starts control plane and data plane in one process with an example shop, and says what to try.
run:
	cargo run --bin sluice -- up --demo

# All tests. They run real nats-server processes; scripts/nats-server finds one or says why not.
test:
	@server=$$(scripts/nats-server) && export SLUICE_TEST_NATS_SERVER="$$server" && \
	echo "nats-server: $$server" && \
	cargo build --workspace --bins && \
	cargo test --workspace

# The whole-system tests for hours instead of minutes: make soak SOAK="chaos --kills 5000 --minutes 120"
SOAK ?= chaos
soak:
	@server=$$(scripts/nats-server) && export SLUICE_TEST_NATS_SERVER="$$server" && \
	cargo build --workspace --bins && \
	target/debug/soak $(SOAK)

lint:
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt:
	cargo fmt

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace

# From a POST to the first request that shows it, on a real NATS server.
bench:
	cargo build --release --bins
	target/release/sluice bench propagate

# What a change must pass.
ci:
	.ci/run

clean:
	cargo clean
