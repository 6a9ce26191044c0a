//! Every plugin against random edits during traffic: no response is of two versions, or of one that is over.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::consistency::is_consistent;
use common::*;
use serde_json::json;

fn numbers(texts: &[Option<String>], prefix: &str) -> Vec<u64> {
    let number = |text: &Option<String>| {
        let text = text.as_deref().unwrap_or_default();
        text.strip_prefix(prefix).and_then(|text| text.parse().ok())
    };
    // What does not show a number is no number that was ever active.
    texts
        .iter()
        .map(|text| number(text).unwrap_or(u64::MAX))
        .collect()
}

fn sent(reply: &Reply, name: &str) -> Option<String> {
    reply.header(name).map(str::to_owned)
}

#[tokio::test]
async fn key_auth() {
    is_consistent(
        |n| {
            let config = json!({ "hide_credentials": n % 2 == 0, "realm": format!("{n}") });
            vec![
                consumer(
                    10,
                    json!({ "username": format!("v{n}"), "custom_id": format!("v{n}") }),
                ),
                key_credential(11, 10, json!({ "key": "secret" })),
                plugin(12, json!({ "name": "key-auth", "config": config })),
            ]
        },
        async |client: &mut Client| client.get_with("/", &[("apikey", "secret")]).await,
        |reply| {
            let names = ["x-consumer-username", "x-consumer-custom-id"];
            let shown = numbers(&names.map(|name| reply.received(name)), "v");
            // The plugin and the consumer are of one version.
            let hidden = reply.received("apikey").is_none();
            assert_eq!(hidden, shown[0].is_multiple_of(2), "{shown:?}");
            shown
        },
    )
    .await;
}

#[tokio::test]
async fn key_auth_in_bodies() {
    is_consistent(
        |n| {
            let config = json!({ "key_in_body": true, "key_names": ["k", format!("v{n}")] });
            vec![
                consumer(10, json!({ "username": format!("v{n}") })),
                key_credential(11, 10, json!({ "key": "secret" })),
                plugin(12, json!({ "name": "key-auth", "config": config })),
            ]
        },
        async |client: &mut Client| {
            let request = http::Request::post("/")
                .header("host", "a.test")
                .header("content-type", "application/json");
            let request = request.body(full("{\"k\":\"secret\"}")).unwrap();
            client.send(request).await
        },
        |reply| numbers(&[reply.received("x-consumer-username")], "v"),
    )
    .await;
}

#[tokio::test]
async fn rate_limiting() {
    is_consistent(
        |n| {
            let config = json!({ "hour": 1_000_000 + n, "day": 1_000_000 + n });
            vec![plugin(
                10,
                json!({ "name": "rate-limiting", "config": config }),
            )]
        },
        async |client: &mut Client| client.get("/").await,
        |reply| {
            let names = ["x-ratelimit-limit-hour", "x-ratelimit-limit-day"];
            let limits = numbers(&names.map(|name| sent(reply, name)), "");
            limits
                .into_iter()
                .map(|limit| limit.wrapping_sub(1_000_000))
                .collect()
        },
    )
    .await;
}
