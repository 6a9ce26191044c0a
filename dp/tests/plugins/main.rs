//! Plugins on requests through a real proxy: a module for each, with what its clients see and its consistency under edits.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "../common/mod.rs"]
mod common;
mod support;

mod acl;
mod auth_chain;
mod basic_auth;
mod bot_detection;
mod cluster_limits;
mod correlation_id;
mod cors;
mod grpc_gateway;
mod grpc_web;
mod hmac_auth;
mod ip_restriction;
mod jwt;
mod key_auth;
mod ldap_auth;
mod oauth2;
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
mod session;
mod standard_webhooks;
mod visits;

#[test]
fn the_guide_tells_of_every_plugin_of_this_build() {
    let guide = include_str!("../../../docs/guide/plugins.md");
    let (there, _) = guide.split_once("## Not there").unwrap();
    let rows = there.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut told: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    let mut plugins: Vec<&str> = sluice_dp::plugin::STANDARD.names().collect();
    told.sort_unstable();
    plugins.sort_unstable();
    assert_eq!(told, plugins);
}
