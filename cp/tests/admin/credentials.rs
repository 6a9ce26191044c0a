//! Credentials of consumers, at the top, below their consumer and back to it.

use crate::server::Server;
use serde_json::{Value, json};

/// Each credential: its paths, what to send, and the name that may stand for the id.
const CREDENTIALS: &[(&str, &str, &str, Option<&str>)] = &[
    ("key-auths", "key-auth", r#"{"key": "k"}"#, Some("k")),
    (
        "basic-auths",
        "basic-auth",
        r#"{"username": "b", "password": "p"}"#,
        Some("b"),
    ),
    ("jwts", "jwt", r#"{"key": "j", "secret": "s"}"#, Some("j")),
    (
        "hmac-auths",
        "hmac-auth",
        r#"{"username": "h", "secret": "s"}"#,
        Some("h"),
    ),
    ("acls", "acls", r#"{"group": "a"}"#, None),
    (
        "oauth2",
        "oauth2",
        r#"{"name": "o", "client_id": "i"}"#,
        Some("i"),
    ),
];

#[tokio::test]
async fn every_credential_is_reached_from_the_top_and_from_its_consumer() {
    let server = Server::start().await;
    let ann = server
        .create("/consumers", json!({"username": "ann"}))
        .await;
    server
        .create("/consumers", json!({"username": "bob"}))
        .await;
    for (top, nested, input, name) in CREDENTIALS {
        let input: Value = serde_json::from_str(input).unwrap();
        let collection = format!("/consumers/ann/{nested}");
        let created = server.create(&collection, input).await;
        assert_eq!(created["consumer"], json!({"id": ann["id"]}));
        assert!(created["created_at"].is_u64() && created.get("updated_at").is_none());
        let id = created["id"].as_str().unwrap();
        let own = if *nested == "acls" { Some("a") } else { *name };
        let paths = [Some(id), own].into_iter().flatten();
        let paths = paths.map(|key| format!("{collection}/{key}"));
        let above = [Some(id), *name].into_iter().flatten();
        for path in paths.chain(above.map(|key| format!("/{top}/{key}"))) {
            let found = server.check("GET", &path, Value::Null).await;
            assert_eq!(found, (200, created.clone()), "{path}");
        }
        let (_, list) = server.check("GET", &format!("/{top}"), Value::Null).await;
        assert_eq!(list["data"], json!([created]));
        assert_eq!(
            server
                .check("GET", &format!("/{top}/{id}/consumer"), Value::Null)
                .await,
            (200, ann.clone())
        );
        let others = format!("/consumers/bob/{nested}/{id}");
        assert_eq!(server.check("GET", &others, Value::Null).await.0, 404);
        // What was read may be written back, and nothing changes.
        let mut same = created.clone();
        same.as_object_mut().unwrap().remove("consumer");
        let before = server.version();
        let (status, replaced) = server
            .check("PUT", &format!("{collection}/{id}"), same)
            .await;
        assert_eq!((status, replaced), (200, created.clone()), "{top}");
        assert_eq!(server.version(), before, "{top}");
        let (status, _) = server
            .check(
                "PATCH",
                &format!("{collection}/{id}"),
                json!({"tags": ["x"]}),
            )
            .await;
        assert_eq!(status, 200);
        let path = format!("/{top}/{id}");
        assert_eq!(server.check("DELETE", &path, Value::Null).await.0, 204);
    }
}

#[tokio::test]
async fn a_password_is_neither_stored_nor_shown() {
    let server = Server::start().await;
    server
        .create("/consumers", json!({"username": "ann"}))
        .await;
    let input = json!({"username": "b", "password": "open sesame"});
    let created = server.create("/consumers/ann/basic-auth", input).await;
    assert_eq!(created["password"].as_str().unwrap().len(), 40);
    for path in ["/log/events", "/dump", "/basic-auths"] {
        let answer = server.send("GET", path, &[], Value::Null).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.text.contains("open sesame"), "{path}");
    }
    let path = "/consumers/ann/basic-auth/b";
    let (_, changed) = server
        .check("PATCH", path, json!({"password": "other"}))
        .await;
    assert_ne!(changed["password"], created["password"]);
    assert_ne!(changed["password"], "other");
}

#[tokio::test]
async fn tokens_hang_on_applications() {
    let server = Server::start().await;
    server
        .create("/consumers", json!({"username": "ann"}))
        .await;
    let application = server
        .create(
            "/consumers/ann/oauth2",
            json!({"name": "o", "client_id": "i"}),
        )
        .await;
    let token =
        json!({"expires_in": 60, "access_token": "t", "credential": {"id": application["id"]}});
    let token = server.create("/oauth2_tokens", token).await;
    assert_eq!(token["token_type"], "bearer");
    assert_eq!(
        server.check("GET", "/oauth2_tokens/t", Value::Null).await,
        (200, token.clone())
    );
    assert_eq!(
        server
            .check("GET", "/oauth2_tokens/t/credential", Value::Null)
            .await,
        (200, application)
    );
    let (_, list) = server
        .check("GET", "/oauth2/i/oauth2_tokens", Value::Null)
        .await;
    assert_eq!(list["data"], json!([token]));
}
