# One image with the three programs: sluice-cp, sluice-dp, sluice.
FROM rust:1.95-bookworm AS builder
WORKDIR /src
# aws-lc-rs needs cmake for some targets, scripts/nats-server needs Python.
RUN apt-get update && apt-get install -y --no-install-recommends cmake python3 && rm -rf /var/lib/apt/lists/*
# What the profile is made with.
COPY --from=nats:2.14-alpine /usr/local/bin/nats-server /usr/local/bin/nats-server
COPY . .
RUN scripts/dist

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/sluice sluice \
    && mkdir -p /var/lib/sluice/data /var/lib/sluice/keys \
    && chown -R sluice:sluice /var/lib/sluice
COPY --from=builder /src/target/dist/sluice /src/target/dist/sluice-cp /src/target/dist/sluice-dp /usr/local/bin/
USER sluice
WORKDIR /var/lib/sluice
# proxy, Admin API, status
EXPOSE 8000 8001 8007 8443
CMD ["sluice", "--help"]
