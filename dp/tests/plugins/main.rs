//! Plugins on requests through a real proxy: a module for each, with what its clients see and its consistency under edits.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "../common/mod.rs"]
mod common;
mod support;

mod key_auth;
mod phases;
mod rate_limiting;
mod redis;
mod response_ratelimiting;
mod scopes;
