//! `response-transformer`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use http::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};

/// A gateway at an origin that answers with the request's header `x-body`, of the type in `x-type`.
async fn gateway(config: Value) -> (Origin, Gateway) {
    let origin = Origin::serve(|request| {
        Box::pin(async move {
            let header = |name: &str| request.headers().get(name).cloned().unwrap();
            let body = full(header("x-body").as_bytes().to_vec()).map_err(|never| match never {});
            Response::builder()
                .header("content-type", header("x-type"))
                .header("x-gone", "1")
                .header("x-from", "a")
                .header("x-from", "b")
                .header("x-replaced", "old")
                .header("x-kept", "kept")
                .body(body.boxed_unsync())
                .unwrap()
        })
    })
    .await;
    let gateway = Gateway::with(
        options(),
        &[
            service(1, origin.address, json!({})),
            route(2, json!({ "paths": ["/"] })),
            global(10, "response-transformer", config),
        ],
    );
    (origin, gateway)
}

#[tokio::test]
async fn answers_are_changed_as_configured() {
    let config = json!({
        "remove": { "headers": ["x-gone"], "json": ["a"] },
        "rename": { "headers": ["x-from:x-to"], "json": ["b:c"] },
        "replace": {
            "headers": ["x-replaced:new", "x-none:new"],
            "json": ["d:true", "e:1.5", "f:\"x\"", "none:1"], "json_types": ["boolean", "number", "string"],
        },
        "add": { "headers": ["x-added:1:2", "x-kept:new"], "json": ["g:7", "d:no", "h:8"], "json_types": ["number"] },
        "append": { "headers": ["x-kept:more", "x-fresh:1"], "json": ["i:1", "j:2"] },
    });
    let (_origin, gateway) = gateway(config).await;
    let get = async |content_type: &str, body: &str| {
        let headers = [("x-type", content_type), ("x-body", body)];
        gateway.client().await.get_with("/", &headers).await
    };
    let reply = get(
        "application/json; charset=utf-8",
        r#"{"a":1,"b":2,"d":"x","e":0,"f":0,"i":"0"}"#,
    )
    .await;
    let expected = json!({ "c": 2, "d": true, "e": 1.5, "f": "\"x\"", "g": 7, "h": "8", "i": ["0", "1"], "j": ["2"] });
    assert_eq!(reply.json(), expected);
    assert_eq!(reply.header("content-length"), None);
    let all = |name: &str| -> Vec<_> {
        let values = reply.headers.get_all(name).iter();
        values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect()
    };
    let expected: [(&str, &[&str]); 8] = [
        ("x-gone", &[]),
        ("x-from", &[]),
        ("x-to", &["a", "b"]),
        ("x-replaced", &["new"]),
        ("x-none", &[]),
        ("x-added", &["1:2"]),
        ("x-kept", &["kept", "more"]),
        ("x-fresh", &["1"]),
    ];
    for (name, values) in expected {
        assert_eq!(all(name), values, "{name}");
    }
    for (content_type, body) in [
        ("text/plain", "{}"),
        ("application/json", "[1]"),
        ("application/json", "{"),
    ] {
        let reply = get(content_type, body).await;
        assert_eq!(&reply.body[..], body.as_bytes());
        assert_eq!(reply.header("x-added"), Some("1:2"));
    }
}

#[tokio::test]
async fn response_transformer_is_consistent() {
    is_consistent(
        |n| {
            let config = json!({ "add": { "headers": [format!("x-edit:{n}")], "json": [format!("edit:{n}")] } });
            vec![global(10, "response-transformer", config)]
        },
        async |client: &mut Client| client.get("/").await,
        |reply| {
            let body = reply.json()["edit"].as_str().map(str::to_owned);
            numbers(&[sent(reply, "x-edit"), body], "")
        },
    )
    .await;
}
