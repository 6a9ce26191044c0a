//! `rate-limiting`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use serde_json::{Value, json};
use sluice_dp::proxy::Options;
use std::sync::atomic::{AtomicU64, Ordering};

fn rate_limiting(id: u128, config: Value) -> Entity {
    plugin(id, json!({ "name": "rate-limiting", "config": config }))
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
async fn a_group_of_consumers_has_a_limit_for_each_of_them() {
    let mut entities = key_auth(json!({}));
    entities.extend([
        consumer(20, json!({ "username": "bob" })),
        key_credential(21, 20, json!({ "key": "other" })),
        consumer(22, json!({ "username": "eve" })),
        key_credential(23, 22, json!({ "key": "third" })),
        entity("consumer_group", 40, json!({ "name": "gold" })),
        scoped(
            50,
            "rate-limiting",
            json!({ "minute": 9 }),
            &[("consumer_group", 40)],
        ),
        scoped(51, "rate-limiting", json!({ "minute": 3 }), &[]),
    ]);
    for (id, member) in [(60, 10), (61, 20)] {
        let fields = json!({ "consumer_group": reference(40), "consumer": reference(member) });
        entities.push(entity("consumer_group_consumer", id, fields));
    }
    let (_origin, gateway) = gateway_with(&entities).await;
    let mut client = gateway.client().await;
    for (key, remaining) in [
        ("secret", "8"),
        ("secret", "7"),
        ("other", "8"),
        ("third", "2"),
    ] {
        let reply = client.get_with("/", &[("apikey", key)]).await;
        assert_eq!(
            reply.header("ratelimit-remaining"),
            Some(remaining),
            "{key}"
        );
    }
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
async fn rate_limiting_is_consistent() {
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
