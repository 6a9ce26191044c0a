//! Who may do what on the broker, with the configuration that docs/examples/nats ships.

#![cfg(test)]

mod admin;
mod auditor;
mod failures;
mod processes;
mod rights;
mod support;
mod ways;
