//! Plugins on requests through a real proxy: a module for each, with what its clients see and its consistency under edits.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "../common/mod.rs"]
mod common;
mod support;

mod acl;
mod basic_auth;
mod bot_detection;
mod correlation_id;
mod cors;
mod grpc_web;
mod ip_restriction;
mod key_auth;
mod phases;
mod proxy_cache;
mod rate_limiting;
mod redirect;
mod redis;
mod request_size_limiting;
mod request_termination;
mod request_transformer;
mod response_ratelimiting;
mod response_transformer;
mod scopes;
mod visits;
