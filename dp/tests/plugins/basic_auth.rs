//! `basic-auth`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use serde_json::{Value, json};
use sha1_smol::Sha1;

/// Kong's hash of a password of consumer 10.
fn hash(password: &str) -> String {
    let owner = uuid::Uuid::from_u128(10);
    Sha1::from(format!("{password}{owner}"))
        .digest()
        .to_string()
}

fn entities(config: Value) -> Vec<Entity> {
    let mut all = json!({ "hide_credentials": false, "realm": "service" });
    all.as_object_mut()
        .unwrap()
        .extend(config.as_object().unwrap().clone());
    let credential =
        json!({ "consumer": reference(10), "username": "alice", "password": hash("open: sesame") });
    vec![
        consumer(10, json!({ "username": "a", "custom_id": "a-1" })),
        entity("basicauth_credential", 11, credential),
        global(12, "basic-auth", all),
    ]
}

/// `alice:open: sesame`
const GOOD: &str = "Basic YWxpY2U6b3Blbjogc2VzYW1l";

#[tokio::test]
async fn basic_auth_asks_for_a_password_and_tells_the_upstream_who_it_is() {
    let (_origin, gateway) = gateway_with(&entities(json!({ "realm": "here" }))).await;
    for bad in [
        None,
        Some("Basic"),
        Some("Basic !"),
        Some("Basic YWxpY2U="),
        Some("Basic OnNlc2FtZQ=="),
        Some("Basic YWxpY2U6d3Jvbmc="),
        Some("Basic Ym9iOnNlc2FtZQ=="),
        Some("Bearer YWxpY2U6b3Blbjogc2VzYW1l"),
    ] {
        let headers: Vec<_> = bad.map(|bad| ("authorization", bad)).into_iter().collect();
        let reply = ask(&gateway, "GET", "/", &headers).await;
        is_refused(&reply, 401, "Unauthorized");
        assert_eq!(
            reply.header("www-authenticate"),
            Some("Basic realm=\"here\"")
        );
    }
    for (header, value) in [
        ("authorization", GOOD),
        ("authorization", "basic   YWxpY2U6b3Blbjogc2VzYW1l"),
        ("proxy-authorization", GOOD),
    ] {
        let reply = ask(&gateway, "GET", "/", &[(header, value)]).await;
        assert_eq!(reply.status, 200, "{header}: {value}");
        assert_eq!(reply.received("x-consumer-username").as_deref(), Some("a"));
        assert_eq!(
            reply.received("x-credential-identifier").as_deref(),
            Some("alice")
        );
        assert_eq!(reply.received("proxy-authorization"), None);
        assert_eq!(
            reply.received("authorization").is_some(),
            header == "authorization"
        );
    }
}

#[tokio::test]
async fn basic_auth_hides_what_it_was_told() {
    let (_origin, gateway) = gateway_with(&entities(json!({ "hide_credentials": true }))).await;
    let reply = ask(&gateway, "GET", "/", &[("authorization", GOOD)]).await;
    assert_eq!(
        (reply.status.as_u16(), reply.received("authorization")),
        (200, None)
    );
}

#[tokio::test]
async fn either_of_two_ways_to_be_known_is_enough_where_both_let_anonymous_clients_in() {
    let mut all = entities(json!({ "anonymous": "guest" }));
    all.push(consumer(20, json!({ "username": "guest" })));
    all.push(key_credential(21, 10, json!({ "key": "secret" })));
    all.push(global(22, "key-auth", json!({ "anonymous": "guest" })));
    let (_origin, gateway) = gateway_with(&all).await;
    for (header, value, name, anonymous) in [
        ("authorization", GOOD, "a", None),
        ("apikey", "secret", "a", None),
        ("authorization", "Basic wrong", "guest", Some("true")),
    ] {
        let reply = ask(&gateway, "GET", "/", &[(header, value)]).await;
        assert_eq!(
            reply.received("x-consumer-username").as_deref(),
            Some(name),
            "{header}"
        );
        assert_eq!(
            reply.received("x-anonymous-consumer").as_deref(),
            anonymous,
            "{header}"
        );
    }
}

#[tokio::test]
async fn basic_auth_is_consistent() {
    is_consistent(
        |n| {
            let mut all = entities(json!({ "hide_credentials": n % 2 == 0 }));
            all[0] = consumer(
                10,
                json!({ "username": format!("v{n}"), "custom_id": format!("v{n}") }),
            );
            all
        },
        async |client: &mut Client| client.get_with("/", &[("authorization", GOOD)]).await,
        |reply| {
            let names = ["x-consumer-username", "x-consumer-custom-id"];
            let shown = numbers(&names.map(|name| reply.received(name)), "v");
            let hidden = reply.received("authorization").is_none();
            assert_eq!(hidden, shown[0].is_multiple_of(2), "{shown:?}");
            shown
        },
    )
    .await;
}
