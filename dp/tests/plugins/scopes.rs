//! Which instance of a plugin runs.

use crate::common::*;
use crate::support::*;
use serde_json::json;

#[tokio::test]
async fn a_plugin_of_a_consumer_replaces_the_global_one_once_the_consumer_is_known() {
    let mut entities = key_auth(json!({}));
    entities.push(global(30, "rate-limiting", json!({ "minute": 100 })));
    entities.push(scoped(
        31,
        "rate-limiting",
        json!({ "minute": 7 }),
        &[("consumer", 10)],
    ));
    let (_origin, gateway) = gateway_with(&entities).await;
    let reply = gateway
        .client()
        .await
        .get_with("/", &[("apikey", "secret")])
        .await;
    assert_eq!(reply.header("ratelimit-limit"), Some("7"));
}

#[tokio::test]
async fn a_plugin_of_a_consumer_group_runs_for_its_members() {
    let mut entities = key_auth(json!({}));
    let limit = |id: u128, minute: u64, scope: &[(&str, u128)]| {
        scoped(id, "rate-limiting", json!({ "minute": minute }), scope)
    };
    let group = |id: u128, name: &str| entity("consumer_group", id, json!({ "name": name }));
    let member = |id: u128, group: u128| {
        let fields = json!({ "consumer_group": reference(group), "consumer": reference(10) });
        entity("consumer_group_consumer", id, fields)
    };
    entities.extend([
        limit(30, 100, &[]),
        group(40, "silver"),
        group(41, "gold"),
        limit(31, 40, &[("consumer_group", 40)]),
        limit(32, 41, &[("consumer_group", 41)]),
        limit(33, 42, &[("consumer_group", 41), ("route", 2)]),
    ]);
    let (_origin, gateway) = gateway_with(&entities).await;
    let check = async |expected: &str| {
        let reply = gateway
            .client()
            .await
            .get_with("/", &[("apikey", "secret")])
            .await;
        assert_eq!(reply.header("ratelimit-limit"), Some(expected));
    };
    check("100").await;
    gateway.apply(&[member(50, 40)]);
    check("40").await;
    gateway.apply(&[member(51, 41)]);
    check("42").await;
    gateway.remove(&[limit(33, 42, &[])]);
    // Of two groups the first by name.
    check("41").await;
    gateway.apply(&[group(40, "bronze")]);
    check("40").await;
    gateway.apply(&[limit(34, 50, &[("consumer", 10)])]);
    check("50").await;
    gateway.remove(&[limit(34, 50, &[]), member(50, 40), member(51, 41)]);
    check("100").await;
}
