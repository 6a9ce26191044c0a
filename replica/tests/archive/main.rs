//! Archives, audits and foundings, on the embedded log.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

#[path = "../common/mod.rs"]
mod common;

mod audits;
mod files;
mod following;
mod foundings;
mod support;
