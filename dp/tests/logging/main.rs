//! Plugins that tell others of requests, through a real proxy and to real servers.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../plugins/support.rs"]
#[allow(dead_code, reason = "plugins of other families use the rest")]
mod support;

mod functions;
mod listen;
mod numbers;
mod outages;
mod sinks;
mod traces;
