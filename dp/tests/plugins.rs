//! Plugins on requests through a real proxy.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::*;
use serde_json::{Value, json};
use sluice_dp::proxy::Options;
use std::sync::atomic::{AtomicU64, Ordering};

/// 2023-11-14 22:13:20 UTC: 40 seconds before the end of the minute.
const NOW: u64 = 1_700_000_000;

fn options() -> Options {
    Options {
        clock: || NOW,
        ..Options::default()
    }
}

async fn gateway_with(entities: &[Entity]) -> (Origin, Gateway) {
    let origin = Origin::echo().await;
    let base = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ];
    let gateway = Gateway::with(options(), &[&base, entities].concat());
    (origin, gateway)
}

fn key_auth(config: Value) -> Vec<Entity> {
    vec![
        consumer(10, json!({ "username": "alice", "custom_id": "a-1" })),
        key_credential(11, 10, json!({ "key": "secret" })),
        plugin(12, json!({ "name": "key-auth", "config": config })),
    ]
}

fn rate_limiting(id: u128, config: Value) -> Entity {
    plugin(id, json!({ "name": "rate-limiting", "config": config }))
}

#[tokio::test]
async fn key_auth_asks_for_a_key_and_tells_the_upstream_who_it_is() {
    let (_origin, gateway) = gateway_with(&key_auth(json!({ "realm": "here" }))).await;
    let mut client = gateway.client().await;
    let reply = client.get("/").await;
    assert_eq!(
        (reply.status.as_u16(), &*reply.message()),
        (401, "No API key found in request")
    );
    assert_eq!(reply.header("www-authenticate"), Some("Key realm=\"here\""));
    let reply = client.get_with("/", &[("apikey", "wrong")]).await;
    assert_eq!(
        (reply.status.as_u16(), &*reply.message()),
        (401, "Unauthorized")
    );
    let reply = client
        .get_with("/", &[("apikey", "secret"), ("apikey", "secret")])
        .await;
    assert_eq!(
        (reply.status.as_u16(), &*reply.message()),
        (401, "Duplicate API key found")
    );
    assert_eq!(client.get("/?apikey=").await.status, 401);
    assert_eq!(client.get("/?apikey").await.status, 401);

    for reply in [
        client
            .get_with("/", &[("apikey", "secret"), ("x-consumer-id", "forged")])
            .await,
        client.get("/?a=b&api%6bey=secre%74").await,
    ] {
        assert_eq!(reply.status, 200);
        let id = uuid::Uuid::from_u128(10).to_string();
        assert_eq!(reply.received("x-consumer-id"), Some(id));
        assert_eq!(
            reply.received("x-consumer-username").as_deref(),
            Some("alice")
        );
        assert_eq!(
            reply.received("x-consumer-custom-id").as_deref(),
            Some("a-1")
        );
        let id = uuid::Uuid::from_u128(11).to_string();
        assert_eq!(reply.received("x-credential-identifier"), Some(id));
        assert_eq!(reply.received("x-anonymous-consumer"), None);
    }
}

#[tokio::test]
async fn key_auth_hides_the_key_if_told_to() {
    let config = json!({ "hide_credentials": true, "key_names": ["x-key", "k"] });
    let (_origin, gateway) = gateway_with(&key_auth(config)).await;
    let mut client = gateway.client().await;
    let reply = client.get_with("/p?b=1", &[("x-key", "secret")]).await;
    assert_eq!(
        (reply.received("x-key"), &reply.json()["uri"]),
        (None, &json!("/p?b=1"))
    );
    let reply = client.get("/p?a=%201&k=secret&b").await;
    assert_eq!(reply.json()["uri"], "/p?a=%201&b");
    assert_eq!(client.get("/p?k=secret").await.json()["uri"], "/p");
}

#[tokio::test]
async fn key_auth_lets_anonymous_clients_in_as_their_consumer() {
    let config = json!({ "anonymous": "guest" });
    let (_origin, gateway) = gateway_with(&key_auth(config)).await;
    assert_eq!(gateway.get("/").await.status, 500);
    gateway.apply(&[consumer(20, json!({ "username": "guest" }))]);
    let reply = gateway.get("/").await;
    assert_eq!(
        reply.received("x-consumer-username").as_deref(),
        Some("guest")
    );
    assert_eq!(
        reply.received("x-anonymous-consumer").as_deref(),
        Some("true")
    );
    assert_eq!(reply.received("x-credential-identifier"), None);
    let reply = gateway
        .client()
        .await
        .get_with("/", &[("apikey", "secret")])
        .await;
    assert_eq!(
        reply.received("x-consumer-username").as_deref(),
        Some("alice")
    );
    assert_eq!(reply.received("x-anonymous-consumer"), None);
}

#[tokio::test]
async fn a_credential_dies_with_its_ttl_and_its_consumer() {
    let dead = [
        consumer(10, json!({ "username": "alice" })),
        key_credential(
            11,
            10,
            json!({ "key": "old", "created_at": NOW - 60, "ttl": 60 }),
        ),
        key_credential(
            12,
            10,
            json!({ "key": "young", "created_at": NOW - 60, "ttl": 61 }),
        ),
        key_credential(13, 99, json!({ "key": "orphan" })),
        plugin(14, json!({ "name": "key-auth" })),
    ];
    let (_origin, gateway) = gateway_with(&dead).await;
    let mut client = gateway.client().await;
    for (key, status) in [("old", 401), ("young", 200), ("orphan", 401)] {
        assert_eq!(
            client.get_with("/", &[("apikey", key)]).await.status,
            status,
            "{key}"
        );
    }
}

#[tokio::test]
async fn rate_limiting_refuses_what_is_over_the_limit_and_says_so() {
    let (_origin, gateway) =
        gateway_with(&[rate_limiting(10, json!({ "minute": 2, "hour": 100 }))]).await;
    let mut client = gateway.client().await;
    for remaining in ["1", "0"] {
        let reply = client.get("/").await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("x-ratelimit-limit-minute"), Some("2"));
        assert_eq!(
            reply.header("x-ratelimit-remaining-minute"),
            Some(remaining)
        );
        assert_eq!(reply.header("x-ratelimit-limit-hour"), Some("100"));
        assert_eq!(reply.header("ratelimit-limit"), Some("2"));
        assert_eq!(reply.header("ratelimit-remaining"), Some(remaining));
        assert_eq!(reply.header("ratelimit-reset"), Some("40"));
    }
    let reply = client.get("/").await;
    assert_eq!(
        (reply.status.as_u16(), &*reply.message()),
        (429, "API rate limit exceeded")
    );
    assert_eq!(reply.header("retry-after"), Some("40"));
    assert_eq!(reply.header("x-ratelimit-remaining-minute"), Some("0"));
    assert_eq!(reply.header("x-ratelimit-remaining-hour"), Some("98"));
}

#[tokio::test]
async fn rate_limiting_answers_as_configured() {
    let config = json!({
        "second": 1, "hide_client_headers": true, "error_code": 503, "error_message": "slow \"down\"",
    });
    let (_origin, gateway) = gateway_with(&[rate_limiting(10, config)]).await;
    let mut client = gateway.client().await;
    let reply = client.get("/").await;
    assert_eq!(
        (
            reply.header("ratelimit-limit"),
            reply.header("x-ratelimit-limit-second")
        ),
        (None, None)
    );
    let reply = client.get("/").await;
    assert_eq!(
        (reply.status.as_u16(), &*reply.message()),
        (503, "slow \"down\"")
    );
    assert_eq!(reply.header("retry-after"), None);
}

#[tokio::test]
async fn counts_survive_changes_of_the_configuration() {
    let (origin, gateway) = gateway_with(&[rate_limiting(10, json!({ "minute": 3 }))]).await;
    let mut client = gateway.client().await;
    assert_eq!(
        client.get("/").await.header("ratelimit-remaining"),
        Some("2")
    );
    gateway.apply(&[service(50, origin.address, json!({}))]);
    assert_eq!(
        client.get("/").await.header("ratelimit-remaining"),
        Some("1")
    );
    gateway.apply(&[rate_limiting(10, json!({ "minute": 10, "hour": 100 }))]);
    let reply = client.get("/").await;
    assert_eq!(reply.header("x-ratelimit-remaining-minute"), Some("7"));
    assert_eq!(reply.header("x-ratelimit-remaining-hour"), Some("99"));
}

#[tokio::test]
async fn each_identity_is_counted_by_itself() {
    let check = async |config: Value, headers: [(&str, &str); 2], same: bool| {
        let mut entities = key_auth(json!({}));
        entities.push(consumer(20, json!({ "username": "bob" })));
        entities.push(key_credential(21, 20, json!({ "key": "other" })));
        entities.push(key_credential(22, 20, json!({ "key": "another" })));
        let mut config = config;
        config["minute"] = json!(1);
        entities.push(rate_limiting(30, config.clone()));
        let (_origin, gateway) = gateway_with(&entities).await;
        let mut client = gateway.client().await;
        for (index, header) in headers.iter().enumerate() {
            let mut sent = vec![("apikey", "secret"), *header];
            if header.0 == "apikey" {
                sent.remove(0);
            }
            let reply = client.get_with("/p", &sent).await;
            let expected = if same && index == 1 { 429 } else { 200 };
            assert_eq!(reply.status, expected, "{config} {headers:?}");
        }
    };
    let keys = |one, two| [("apikey", one), ("apikey", two)];
    check(
        json!({ "limit_by": "consumer" }),
        keys("secret", "other"),
        false,
    )
    .await;
    check(
        json!({ "limit_by": "consumer" }),
        keys("other", "another"),
        true,
    )
    .await;
    check(
        json!({ "limit_by": "credential" }),
        keys("other", "another"),
        false,
    )
    .await;
    check(json!({ "limit_by": "ip" }), keys("secret", "other"), true).await;
    check(
        json!({ "limit_by": "service" }),
        keys("secret", "other"),
        true,
    )
    .await;
    let header = json!({ "limit_by": "header", "header_name": "x-tenant" });
    check(
        header.clone(),
        [("x-tenant", "a"), ("x-tenant", "b")],
        false,
    )
    .await;
    check(header, [("x-tenant", "a"), ("x-tenant", "a")], true).await;
    check(
        json!({ "limit_by": "path", "path": "/p" }),
        keys("secret", "other"),
        true,
    )
    .await;
}

#[tokio::test]
async fn a_new_window_starts_from_zero() {
    static CLOCK: AtomicU64 = AtomicU64::new(NOW);
    let origin = Origin::echo().await;
    let options = Options {
        clock: || CLOCK.load(Ordering::Relaxed),
        ..Options::default()
    };
    let entities = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
        rate_limiting(3, json!({ "minute": 1 })),
    ];
    let gateway = Gateway::with(options, &entities);
    let mut client = gateway.client().await;
    assert_eq!(client.get("/").await.status, 200);
    CLOCK.store(NOW + 39, Ordering::Relaxed);
    assert_eq!(client.get("/").await.header("retry-after"), Some("1"));
    CLOCK.store(NOW + 40, Ordering::Relaxed);
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn workers_count_together_and_let_exactly_the_limit_pass() {
    let origin = Origin::echo().await;
    let entities = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
        rate_limiting(3, json!({ "hour": 50 })),
    ];
    let gateway = Gateway::with(
        Options {
            workers: 2,
            ..options()
        },
        &entities,
    );
    let clients = (0..8).map(|_| async {
        let mut client = gateway.client().await;
        let mut passed = 0;
        for _ in 0..20 {
            passed += usize::from(client.get("/").await.status == 200);
        }
        passed
    });
    let passed: usize = futures::future::join_all(clients).await.into_iter().sum();
    assert_eq!(passed, 50);
}

#[tokio::test]
async fn a_plugin_of_a_consumer_replaces_the_global_one_once_the_consumer_is_known() {
    let mut entities = key_auth(json!({}));
    entities.push(rate_limiting(30, json!({ "minute": 100 })));
    let mut own = json!({ "name": "rate-limiting", "config": { "minute": 7 } });
    own["consumer"] = reference(10);
    entities.push(plugin(31, own));
    let (_origin, gateway) = gateway_with(&entities).await;
    let reply = gateway
        .client()
        .await
        .get_with("/", &[("apikey", "secret")])
        .await;
    assert_eq!(reply.header("ratelimit-limit"), Some("7"));
}

#[tokio::test]
async fn key_auth_finds_keys_in_bodies_and_can_hide_them() {
    let config = json!({ "key_in_body": true, "hide_credentials": true, "key_in_query": false });
    let (_origin, gateway) = gateway_with(&key_auth(config)).await;
    let check = async |kind: &str, body: &'static str, expected: Result<&str, &str>| {
        let request = http::Request::post("/")
            .header("host", "a.test")
            .header("content-type", kind);
        let request = request.body(full(body)).unwrap();
        let reply = gateway.client().await.send(request).await;
        match expected {
            Ok(body) => {
                assert_eq!(reply.json()["body"], body);
                let length = body.len().to_string();
                assert_eq!(reply.received("content-length"), Some(length));
            }
            Err(message) => assert_eq!((reply.status.as_u16(), &*reply.message()), (401, message)),
        }
    };
    let form = "application/x-www-form-urlencoded";
    check(form, "a=1&apikey=secret&b", Ok("a=1&b")).await;
    check(
        form,
        "apikey=secret&apikey=secret",
        Err("Duplicate API key found"),
    )
    .await;
    check(form, "a=1", Err("No API key found in request")).await;
    check(
        "application/json",
        "{\"apikey\":\"secret\",\"a\":1}",
        Ok("{\"a\":1}"),
    )
    .await;
    check(
        "application/json; charset=utf-8",
        "{\"apikey\":\"no\"}",
        Err("Unauthorized"),
    )
    .await;
    check(
        "text/plain",
        "apikey=secret",
        Err("No API key found in request"),
    )
    .await;
    let reply = gateway.get("/?apikey=secret").await;
    assert_eq!(reply.message(), "No API key found in request");
}

#[tokio::test]
async fn a_plugin_of_a_consumer_group_runs_for_its_members() {
    let mut entities = key_auth(json!({}));
    let limit = |id: u128, minute: u64, scope: &[(&str, u128)]| {
        let mut fields = json!({ "name": "rate-limiting", "config": { "minute": minute } });
        for (part, id) in scope {
            fields[*part] = reference(*id);
        }
        plugin(id, fields)
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
