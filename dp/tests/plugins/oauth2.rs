//! `oauth2`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use serde_json::{Value, json};
use sluice_dp::proxy::Options;
use sluice_schema::pki::pbkdf2;
use std::sync::atomic::{AtomicU64, Ordering};

const FORM: &str = "application/x-www-form-urlencoded";

fn oauth2(id: u128, config: Value, scope: &[(&str, u128)]) -> Entity {
    let mut all = json!({ "enable_client_credentials": true, "provision_key": "provision", "scopes": ["read", "write"] });
    all.as_object_mut()
        .unwrap()
        .extend(config.as_object().unwrap().clone());
    scoped(id, "oauth2", all, scope)
}

fn application(id: u128, client_id: &str, fields: Value) -> Entity {
    let mut all = json!({
        "consumer": reference(10), "name": "app", "client_id": client_id, "client_secret": "secret",
        "hash_secret": false, "client_type": "confidential", "redirect_uris": ["https://a.test/back"],
    });
    all.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    entity("oauth2_credential", id, all)
}

fn entities(config: Value) -> Vec<Entity> {
    vec![
        consumer(10, json!({ "username": "alice", "custom_id": "a-1" })),
        application(11, "app", json!({})),
        oauth2(12, config, &[]),
    ]
}

/// A gateway that believes who says it ended TLS.
async fn gateway(clock: fn() -> u64, entities: &[Entity]) -> (Origin, Gateway) {
    let origin = Origin::echo().await;
    let mut options = Options {
        clock,
        ..Options::default()
    };
    options.trust.networks = vec!["127.0.0.1".parse().unwrap()];
    let base = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ];
    let gateway = Gateway::with(options, &[&base[..], entities].concat());
    (origin, gateway)
}

async fn post(gateway: &Gateway, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let headers = [
        &[("x-forwarded-proto", "https"), ("content-type", FORM)][..],
        headers,
    ]
    .concat();
    send(gateway, "POST", path, &headers, full(body.to_owned())).await
}

const GRANT: &str = "grant_type=client_credentials&client_id=app&client_secret=secret";

async fn token_of(gateway: &Gateway, more: &str) -> String {
    let reply = post(gateway, "/oauth2/token", &[], &format!("{GRANT}{more}")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["access_token"].as_str().unwrap().to_owned()
}

async fn with_token(gateway: &Gateway, path: &str, token: &str) -> Reply {
    ask(
        gateway,
        "GET",
        path,
        &[("authorization", &format!("Bearer {token}"))],
    )
    .await
}

fn is_invalid(reply: &Reply) {
    let error = json!({ "error": "invalid_token", "error_description": "The access token is invalid or has expired" });
    assert_eq!((reply.status.as_u16(), reply.json()), (401, error));
    let challenge = reply.header("www-authenticate").unwrap();
    assert!(
        challenge.starts_with("Bearer") && challenge.contains("error=\"invalid_token\""),
        "{challenge}"
    );
}

#[tokio::test]
async fn an_application_gets_a_token_and_is_known_by_it() {
    let (_origin, gateway) = gateway(|| NOW, &entities(json!({}))).await;
    let reply = post(
        &gateway,
        "/any/oauth2/token",
        &[],
        &format!("{GRANT}&scope=read&state=s1"),
    )
    .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("pragma"), Some("no-cache"));
    let body = reply.json();
    assert_eq!(
        (&body["token_type"], &body["expires_in"], &body["state"]),
        (&json!("bearer"), &json!(7200), &json!("s1"))
    );
    let token = body["access_token"].as_str().unwrap();
    let headers = [
        ("authorization", &*format!("bearer {token}")),
        ("x-authenticated-userid", "forged"),
    ];
    let reply = ask(&gateway, "GET", "/", &headers).await;
    for (name, value) in [
        ("x-consumer-username", Some("alice")),
        ("x-consumer-custom-id", Some("a-1")),
        ("x-credential-identifier", Some("app")),
        ("x-authenticated-scope", Some("read")),
        ("x-authenticated-userid", None),
        ("x-anonymous-consumer", None),
    ] {
        assert_eq!(reply.received(name).as_deref(), value, "{name}");
    }
    let by_user = token_of(
        &gateway,
        "&authenticated_userid=bob&provision_key=provision",
    )
    .await;
    let reply = with_token(&gateway, "/", &by_user).await;
    assert_eq!(
        reply.received("x-authenticated-userid").as_deref(),
        Some("bob")
    );
    assert_eq!(reply.received("x-authenticated-scope"), None);
}

const NO_REDIRECT: &str =
    "Invalid redirect_uri that does not match with any redirect_uri created with the application";

/// What is sent in body and headers, and the error.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], u16, (&'a str, &'a str));

const CLIENT: (&str, &str) = ("invalid_client", "Invalid client authentication");
const GRANT_TYPE: (&str, &str) = ("unsupported_grant_type", "Invalid grant_type");

const UNKNOWN: &[Row<'_>] = &[
    (
        "grant_type=password&client_id=app&client_secret=secret&scope=read",
        &[],
        400,
        GRANT_TYPE,
    ),
    ("client_id=app&client_secret=secret", &[], 400, GRANT_TYPE),
    ("grant_type=client_credentials", &[], 400, CLIENT),
    (
        "grant_type=client_credentials&client_id=app&client_secret=x",
        &[],
        400,
        CLIENT,
    ),
    (
        "grant_type=client_credentials&client_id=none&client_secret=secret",
        &[],
        400,
        CLIENT,
    ),
    (
        "grant_type=client_credentials&client_id=open&client_secret=secret",
        &[],
        400,
        CLIENT,
    ),
    // app:wrong
    (
        "grant_type=client_credentials",
        &[("authorization", "Basic YXBwOndyb25n")],
        401,
        CLIENT,
    ),
];

#[tokio::test]
async fn who_asks_wrongly_gets_an_error_of_the_standard() {
    let config = json!({ "mandatory_scope": true });
    let (_origin, gateway) = gateway(|| NOW, &entities(config)).await;
    gateway.apply(&[application(13, "open", json!({ "client_type": "public" }))]);
    let rows: &[Row<'_>] = &[
        (
            GRANT,
            &[],
            400,
            ("invalid_scope", "You must specify a scope"),
        ),
        (
            &format!("{GRANT}&scope=read+admin"),
            &[],
            400,
            ("invalid_scope", "\"admin\" is an invalid scope"),
        ),
        (
            &format!("{GRANT}&scope=read&authenticated_userid=bob&provision_key=x"),
            &[],
            400,
            ("invalid_provision_key", "Invalid provision_key"),
        ),
        (
            &format!("{GRANT}&scope=read&redirect_uri=https://b.test"),
            &[],
            400,
            ("invalid_request", NO_REDIRECT),
        ),
    ];
    for (body, headers, status, (error, description)) in UNKNOWN.iter().chain(rows) {
        let reply = post(&gateway, "/oauth2/token", headers, body).await;
        let expected = json!({ "error": error, "error_description": description });
        assert_eq!(
            (reply.status.as_u16(), reply.json()),
            (*status, expected),
            "{body}"
        );
        let challenge = (*status == 401).then_some("Basic realm=\"OAuth2.0\"");
        assert_eq!(reply.header("www-authenticate"), challenge, "{body}");
    }
    let body = format!("{GRANT}&scope=read");
    let reply = send(
        &gateway,
        "POST",
        "/oauth2/token",
        &[("content-type", FORM)],
        full(body),
    )
    .await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["error_description"]),
        (400, &json!("You must use HTTPS"))
    );
}

#[tokio::test]
async fn an_application_may_ask_in_several_ways() {
    let config = json!({ "mandatory_scope": true });
    let (_origin, gateway) = gateway(|| NOW, &entities(config)).await;
    // In the query, in JSON, in the header: app:secret
    let good = [("authorization", "Basic YXBwOnNlY3JldA==")];
    let reply = post(
        &gateway,
        "/oauth2/token?grant_type=client_credentials&scope=read",
        &good,
        "",
    )
    .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let headers = [
        ("x-forwarded-proto", "https"),
        ("content-type", "application/json"),
    ];
    let body = json!({ "grant_type": "client_credentials", "client_id": "app", "client_secret": "secret", "scope": "read write" });
    let reply = send(
        &gateway,
        "POST",
        "/oauth2/token",
        &headers,
        full(body.to_string()),
    )
    .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    // A secret that is stored as a hash.
    let hash = pbkdf2::hash("secret", [7; 16]);
    gateway.apply(&[application(
        11,
        "app",
        json!({ "hash_secret": true, "client_secret": hash }),
    )]);
    let token = token_of(&gateway, "&scope=read").await;
    assert_eq!(with_token(&gateway, "/", &token).await.status, 200);
    let reply = post(
        &gateway,
        "/oauth2/token",
        &[],
        &format!("grant_type=client_credentials&client_id=app&client_secret={hash}&scope=read"),
    )
    .await;
    assert_eq!(reply.status, 400);
}

#[tokio::test]
async fn a_token_is_found_and_hidden_where_clients_put_it() {
    let config = json!({ "hide_credentials": true, "auth_header_name": "x-auth", "realm": "here" });
    let (_origin, gateway) = gateway(|| NOW, &entities(config)).await;
    let token = token_of(&gateway, "").await;
    let value = format!("token {token}");
    let reply = ask(&gateway, "GET", "/", &[("x-auth", &value)]).await;
    assert_eq!(
        (reply.status.as_u16(), reply.received("x-auth")),
        (200, None)
    );
    let reply = gateway.get(&format!("/p?a=1&access_token={token}")).await;
    assert_eq!(reply.json()["uri"], "/p?a=1");
    let reply = post(
        &gateway,
        "/",
        &[],
        &format!("a=1&access_token={token}&b=%26"),
    )
    .await;
    assert_eq!(reply.json()["body"], "a=1&b=%26");
    for headers in [
        &[][..],
        &[("authorization", &*value)],
        &[("x-auth", "Basic x")],
        &[("x-auth", "Bearer")],
    ] {
        let reply = ask(&gateway, "GET", "/", headers).await;
        let error = json!({ "error": "invalid_request", "error_description": "The access token is missing" });
        assert_eq!((reply.status.as_u16(), reply.json()), (401, error));
        assert_eq!(
            reply.header("www-authenticate"),
            Some("Bearer realm=\"here\"")
        );
    }
}

static CLOCK: AtomicU64 = AtomicU64::new(NOW);

#[tokio::test]
async fn a_token_ends_with_its_time_and_with_what_it_depends_on() {
    let config = json!({ "token_expiration": 100 });
    let (_origin, gateway) = gateway(|| CLOCK.load(Ordering::SeqCst), &entities(config)).await;
    let token = token_of(&gateway, "").await;
    let status = async || with_token(&gateway, "/", &token).await.status.as_u16();
    CLOCK.store(NOW + 99, Ordering::SeqCst);
    assert_eq!(status().await, 200);
    CLOCK.store(NOW + 100, Ordering::SeqCst);
    is_invalid(&with_token(&gateway, "/", &token).await);
    CLOCK.store(NOW, Ordering::SeqCst);
    // Another secret of the application, another key of the plugin, no application, no consumer: and back again.
    let whole = entities(json!({ "token_expiration": 100 }));
    for broken in [
        application(11, "app", json!({ "client_secret": "new" })),
        oauth2(12, json!({ "provision_key": "new" }), &[]),
    ] {
        gateway.apply(&[broken]);
        is_invalid(&with_token(&gateway, "/", &token).await);
        gateway.apply(&whole);
        assert_eq!(status().await, 200);
    }
    for gone in [&whole[1], &whole[0]] {
        gateway.remove(std::slice::from_ref(gone));
        is_invalid(&with_token(&gateway, "/", &token).await);
        gateway.apply(&whole);
    }
    for forged in [
        "x",
        "s1.e30.AAAA",
        &format!("{token}A"),
        &token[..token.len() - 1],
    ] {
        is_invalid(&with_token(&gateway, "/", forged).await);
    }
    gateway.apply(&[oauth2(12, json!({ "token_expiration": 0 }), &[])]);
    let reply = post(&gateway, "/oauth2/token", &[], GRANT).await;
    assert_eq!(reply.json().get("expires_in"), None);
    CLOCK.store(NOW + 1_000_000, Ordering::SeqCst);
    let token = reply.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(with_token(&gateway, "/", &token).await.status, 200);
}

#[tokio::test]
async fn a_token_is_for_its_service_unless_credentials_are_global() {
    let (origin, gateway) = gateway(|| NOW, &entities(json!({}))).await;
    gateway.remove(&entities(json!({}))[2..]);
    let plugins = |global: bool| {
        let config = |key: &str| json!({ "global_credentials": global, "provision_key": key });
        [
            oauth2(40, config("one"), &[("service", 1)]),
            oauth2(41, config("two"), &[("service", 5)]),
        ]
    };
    gateway.apply(&[
        service(5, origin.address, json!({})),
        route(6, json!({ "paths": ["/five"], "service": reference(5) })),
    ]);
    for (is_global, status) in [(false, 401), (true, 200)] {
        gateway.apply(&plugins(is_global));
        let token = token_of(&gateway, "").await;
        assert_eq!(with_token(&gateway, "/", &token).await.status, 200);
        assert_eq!(
            with_token(&gateway, "/five", &token).await.status.as_u16(),
            status
        );
        if is_global {
            gateway.remove(&plugins(true)[..1]);
            is_invalid(&with_token(&gateway, "/five", &token).await);
        }
    }
}

#[tokio::test]
async fn tokens_that_are_entities_are_good_too() {
    let (_origin, gateway) = gateway(|| NOW, &entities(json!({}))).await;
    let token = |id: u128, fields: Value| {
        let mut all = json!({
            "credential": reference(11), "service": reference(1), "access_token": format!("t{id}"), "expires_in": 100,
            "created_at": NOW - 50, "scope": "read", "authenticated_userid": "bob",
        });
        all.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        entity("oauth2_token", id, all)
    };
    for (id, fields, is_good) in [
        (50, json!({}), true),
        (51, json!({ "expires_in": 49 }), false),
        (52, json!({ "expires_in": 0, "created_at": 1 }), true),
        (53, json!({ "service": reference(5) }), false),
        (54, json!({ "service": null }), false),
        (55, json!({ "credential": reference(99) }), false),
        (56, json!({ "ttl": 49 }), false),
    ] {
        gateway.apply(&[token(id, fields)]);
        let reply = with_token(&gateway, "/", &format!("t{id}")).await;
        if is_good {
            assert_eq!(
                reply.received("x-authenticated-scope").as_deref(),
                Some("read"),
                "{id}"
            );
            assert_eq!(
                reply.received("x-authenticated-userid").as_deref(),
                Some("bob"),
                "{id}"
            );
        } else {
            is_invalid(&reply);
        }
    }
}

#[tokio::test]
async fn oauth2_is_consistent() {
    let (_origin, even) = gateway(
        || NOW,
        &entities(json!({ "provision_key": "even", "token_expiration": 0 })),
    )
    .await;
    let token = format!("Bearer {}", token_of(&even, "").await);
    is_consistent(
        |n| {
            let key = if n % 2 == 0 { "even" } else { "odd" };
            vec![
                consumer(10, json!({ "username": format!("v{n}") })),
                application(11, "app", json!({})),
                oauth2(
                    12,
                    json!({ "provision_key": key, "realm": format!("v{n}") }),
                    &[],
                ),
            ]
        },
        async |client: &mut Client| client.get_with("/", &[("authorization", &token)]).await,
        named_or_challenged,
    )
    .await;
}
