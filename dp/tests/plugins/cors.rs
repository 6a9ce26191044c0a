//! `cors`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use serde_json::{Value, json};

fn cors(config: Value) -> Entity {
    let mut all = json!({
        "methods": ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT"],
        "credentials": false, "private_network": false, "preflight_continue": false, "allow_origin_absent": true,
    });
    all.as_object_mut()
        .unwrap()
        .extend(config.as_object().unwrap().clone());
    global(10, "cors", all)
}

const ORIGIN: &str = "access-control-allow-origin";
const CREDENTIALS: &str = "access-control-allow-credentials";

type Row = (Option<&'static str>, Option<&'static str>);

/// Asks with an origin, or none, and looks at what is allowed.
async fn check(config: Value, vary: Option<&str>, rows: &[Row]) {
    let (_origin, gateway) = gateway_with(&[cors(config.clone())]).await;
    for (origin, expected) in rows {
        let headers: Vec<_> = origin
            .map(|origin| ("origin", origin))
            .into_iter()
            .collect();
        let reply = ask(&gateway, "GET", "/", &headers).await;
        assert_eq!(reply.status, 200);
        let said = (reply.header(ORIGIN), reply.header("vary"));
        assert_eq!(said, (*expected, vary), "{config} {origin:?}");
    }
}

#[tokio::test]
async fn cors_tells_browsers_which_origins_may() {
    let everybody = [(None, Some("*")), (Some("http://a.test"), Some("*"))];
    check(json!({}), None, &everybody).await;
    check(json!({ "origins": ["*"] }), None, &everybody).await;
    check(
        json!({ "allow_origin_absent": false }),
        None,
        &[(None, None)],
    )
    .await;
    let one = Some("http://one.test");
    let rows = [(Some("http://a.test"), one), (None, one)];
    check(
        json!({ "origins": ["http://one.test"] }),
        Some("Origin"),
        &rows,
    )
    .await;
    let patterns = [r"(.*\.)?c\.test", r"^https://d\d\.test$"];
    let list = [
        "http://a.test",
        "https://b.test:443",
        patterns[0],
        patterns[1],
    ];
    let same = |origin| (Some(origin), Some(origin));
    let rows = [
        (Some("http://a.test:80"), Some("http://a.test")),
        (Some("https://a.test"), None),
        same("https://b.test"),
        same("http://x.c.test:8080"),
        (Some("http://xc.test"), None),
        same("https://d1.test"),
        (Some("https://d1.test.evil"), None),
        (None, None),
    ];
    check(json!({ "origins": list }), Some("Origin"), &rows).await;
}

#[tokio::test]
async fn cors_lets_an_origin_send_credentials_only_by_its_name() {
    let rows = [
        (
            json!({}),
            Some("http://a.test"),
            Some("http://a.test"),
            Some("true"),
        ),
        (json!({}), None, Some("*"), None),
        (
            json!({ "origins": ["http://one.test"] }),
            Some("http://a.test"),
            Some("http://one.test"),
            Some("true"),
        ),
    ];
    let (_origin, gateway) = gateway_with(&[]).await;
    for (mut config, origin, allowed, credentials) in rows {
        config["credentials"] = json!(true);
        config["exposed_headers"] = json!(["X-One", "X-Two"]);
        gateway.apply(&[cors(config.clone())]);
        let headers: Vec<_> = origin
            .map(|origin| ("origin", origin))
            .into_iter()
            .collect();
        let reply = ask(&gateway, "GET", "/", &headers).await;
        assert_eq!(
            (reply.header(ORIGIN), reply.header(CREDENTIALS)),
            (allowed, credentials),
            "{config}"
        );
        assert_eq!(
            reply.header("access-control-expose-headers"),
            Some("X-One,X-Two")
        );
    }
}

#[tokio::test]
async fn cors_answers_a_browser_that_asks_first() {
    let (_origin, gateway) =
        gateway_with(&[cors(json!({ "max_age": 3600, "private_network": true }))]).await;
    let preflight = [
        ("origin", "http://a.test"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-one"),
        ("access-control-request-private-network", "true"),
    ];
    let reply = ask(&gateway, "OPTIONS", "/", &preflight).await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
    let expected = [
        (ORIGIN, "*"),
        ("access-control-allow-headers", "x-one"),
        (
            "access-control-allow-methods",
            "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT",
        ),
        ("access-control-max-age", "3600"),
        ("access-control-allow-private-network", "true"),
        ("content-length", "0"),
    ];
    for (name, value) in expected {
        assert_eq!(reply.header(name), Some(value), "{name}");
    }
    assert_eq!(reply.header("x-origin"), None);
    // Without a method it is a request like others.
    assert_eq!(
        ask(&gateway, "OPTIONS", "/", &preflight[..1])
            .await
            .header("x-origin"),
        Some("yes")
    );
    gateway.apply(&[cors(
        json!({ "headers": ["x-a", "x-b"], "methods": ["GET", "PUT"] }),
    )]);
    let reply = ask(&gateway, "OPTIONS", "/", &preflight).await;
    assert_eq!(
        reply.header("access-control-allow-headers"),
        Some("x-a,x-b")
    );
    assert_eq!(
        reply.header("access-control-allow-methods"),
        Some("GET,PUT")
    );
    gateway.apply(&[cors(json!({ "preflight_continue": true }))]);
    let reply = ask(&gateway, "OPTIONS", "/", &preflight).await;
    assert_eq!(
        (reply.header("x-origin"), reply.header(ORIGIN)),
        (Some("yes"), None)
    );
}

#[tokio::test]
async fn cors_is_consistent() {
    is_consistent(
        |n| vec![cors(json!({ "origins": [format!("http://v{n}")], "exposed_headers": [format!("http://v{n}")] }))],
        async |client: &mut Client| client.get("/").await,
        |reply| {
            let names = [ORIGIN, "access-control-expose-headers"];
            numbers(&names.map(|name| sent(reply, name)), "http://v")
        },
    )
    .await;
}
