//! `key-auth`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use serde_json::json;

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
async fn key_auth_is_consistent() {
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
async fn key_auth_in_bodies_is_consistent() {
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
