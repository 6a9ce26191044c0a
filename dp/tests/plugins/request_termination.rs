//! `request-termination`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use serde_json::{Value, json};

fn termination(config: Value) -> Entity {
    let mut all = json!({ "status_code": 503, "echo": false });
    all.as_object_mut()
        .unwrap()
        .extend(config.as_object().unwrap().clone());
    global(10, "request-termination", all)
}

#[tokio::test]
async fn request_termination_answers_by_itself() {
    let json_type = "application/json; charset=utf-8";
    let rows = [
        (
            json!({}),
            503,
            Some(json_type),
            r#"{"message":"Service unavailable"}"#,
        ),
        (
            json!({ "status_code": 401 }),
            401,
            Some(json_type),
            r#"{"message":"Unauthorized"}"#,
        ),
        (json!({ "status_code": 418 }), 418, None, ""),
        (
            json!({ "message": "no" }),
            503,
            Some(json_type),
            r#"{"message":"no"}"#,
        ),
        (
            json!({ "body": "<a/>", "content_type": "text/xml" }),
            503,
            Some("text/xml"),
            "<a/>",
        ),
        (json!({ "body": "{}" }), 503, Some(json_type), "{}"),
    ];
    let (_origin, gateway) = gateway_with(&[]).await;
    for (config, status, content_type, body) in rows {
        gateway.apply(&[termination(config.clone())]);
        let reply = gateway.get("/").await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("content-type")),
            (status, content_type),
            "{config}"
        );
        assert_eq!(&reply.body[..], body.as_bytes());
    }
}

#[tokio::test]
async fn request_termination_waits_for_its_trigger() {
    let config = json!({ "trigger": "x-stop" });
    let (_origin, gateway) = gateway_with(&[termination(config)]).await;
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(gateway.get("/?a=b&x-stop").await.status, 503);
    assert_eq!(
        ask(&gateway, "GET", "/", &[("x-stop", "1")]).await.status,
        503
    );
}

#[tokio::test]
async fn request_termination_can_say_what_it_was_asked() {
    let (_origin, gateway) =
        gateway_with(&[termination(json!({ "echo": true, "status_code": 404 }))]).await;
    let headers = [("x-a", "1"), ("x-a", "2")];
    let reply = send(&gateway, "POST", "/p?q=1", &headers, full("body")).await;
    let said = reply.json();
    assert_eq!(
        (reply.status.as_u16(), &said["message"]),
        (404, &json!("Not found"))
    );
    let request = &said["request"];
    assert_eq!(request["headers"]["x-a"], json!(["1", "2"]));
    for (name, value) in [
        ("method", "POST"),
        ("path", "/p"),
        ("raw_body", "body"),
        ("host", "a.test"),
    ] {
        assert_eq!(request[name], value);
    }
    assert_eq!(request["query"], json!({ "q": "1" }));
    assert_eq!(said["matched_route"]["id"], json!(uuid::Uuid::from_u128(2)));
}

#[tokio::test]
async fn request_termination_is_consistent() {
    is_consistent(
        |n| {
            vec![termination(
                json!({ "status_code": 400 + n, "message": format!("v{n}") }),
            )]
        },
        async |client: &mut Client| client.get("/").await,
        refused_as,
    )
    .await;
}
