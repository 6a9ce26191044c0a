//! HTTP and JSON in front of a gRPC service. With a server that others wrote: dp/tests/clients.rs.

#![cfg(feature = "grpc-gateway")]

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt;
use hyper::body::Frame;
use serde_json::{Value, json};
use std::fmt::Write;

const PROTO: &str = r#"
    syntax = "proto3";
    package shop;
    import "google/api/annotations.proto";
    import "google/protobuf/timestamp.proto";

    service Cart {
      rpc Get(Item) returns (Item) {
        option (google.api.http) = {
          get: "/v1/items/{id}"
          additional_bindings { get: "/v1/{place.shelf=shelves/*}/items/{id}" }
        };
      }
      rpc Put(Item) returns (Item) { option (google.api.http) = { put: "/v1/items/{id}" body: "*" }; }
      rpc Place(Item) returns (Item) {
        option (google.api.http) = { post: "/v1/items/{id}:place" body: "place" response_body: "place" };
      }
      rpc List(Item) returns (stream Item) { option (google.api.http) = { get: "/v1/items" }; }
      rpc Gone(Item) returns (Item) { option (google.api.http) = { delete: "/v1/gone" }; }
      rpc Late(Item) returns (Item) { option (google.api.http) = { delete: "/v1/late" }; }
      rpc Hidden(Item) returns (Item);
    }
    message Item {
      string id = 1;
      int32 count = 2;
      bool gift = 3;
      repeated string tags = 4;
      Size size = 5;
      uint64 big_number = 6;
      Place place = 7;
      google.protobuf.Timestamp at = 8;
    }
    message Place { string shelf = 1; double height = 2; }
    enum Size { ANY = 0; SMALL = 1; }
"#;

/// Tells in headers what it was sent, and sends the message back: once, or twice for a list.
async fn shop() -> Origin {
    let manner = Manner {
        http2: true,
        ..Manner::default()
    };
    Origin::serve_as(manner, |request| {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let path = head.uri.path_and_query().unwrap().as_str().to_owned();
            let kind = head.headers.get("content-type").cloned().unwrap();
            assert_eq!(
                (head.method.as_str(), kind.as_bytes()),
                ("POST", &b"application/grpc"[..])
            );
            assert_eq!(head.headers["te"], "trailers");
            let frame = body.collect().await.unwrap().to_bytes();
            assert_eq!(frame[0], 0);
            let length = usize::try_from(u32::from_be_bytes(frame[1..5].try_into().unwrap()));
            assert_eq!(length, Ok(frame.len() - 5));
            let sent = frame[5..].iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap();
                hex
            });
            let response = Response::builder()
                .header("content-type", "application/grpc")
                .header("x-path", &path)
                .header("x-sent", sent);
            if path.ends_with("/Gone") {
                let response = response
                    .header("grpc-status", "5")
                    .header("grpc-message", "not here%21");
                return response.body(reply("")).unwrap();
            }
            let late = path.ends_with("/Late");
            let mut trailers = HeaderMap::new();
            let status = if late { "9" } else { "0" };
            trailers.insert("grpc-status", HeaderValue::from_static(status));
            let times = match path.as_str() {
                "/shop.Cart/List" => 2,
                _ => usize::from(!late),
            };
            // In parts that are no frames.
            let data = frame.repeat(times);
            let middle = data.len() / 3;
            let (first, second) = data.split_at(middle);
            let frames = [
                Frame::data(Bytes::copy_from_slice(first)),
                Frame::data(Bytes::copy_from_slice(second)),
                Frame::trailers(trailers),
            ];
            in_frames(response, frames)
        })
    })
    .await
}

async fn gateway(config: Value) -> (Origin, Gateway) {
    let origin = shop().await;
    let gateway = Gateway::with(
        options(),
        &[
            service(1, origin.address, json!({ "protocol": "grpc" })),
            route(2, json!({ "paths": ["/"] })),
            global(10, "grpc-gateway", config),
        ],
    );
    (origin, gateway)
}

/// `shown` are the fields of the answer that are not their defaults.
async fn check(gateway: &Gateway, request: &str, body: Value, sent: &str, shown: Value) {
    let (method, path) = request.split_once(' ').unwrap();
    let body = if body.is_null() {
        empty()
    } else {
        full(body.to_string())
    };
    let reply = send(gateway, method, path, &[], body).await;
    assert_eq!(reply.status, 200, "{request}: {reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    assert_eq!(reply.header("x-sent"), Some(sent), "{request}");
    let mut expected = json!({
        "id": "", "count": 0, "gift": false, "tags": [], "size": "ANY", "big_number": 0,
    });
    let fields = expected.as_object_mut().unwrap();
    fields.extend(shown.as_object().unwrap().clone());
    assert_eq!(reply.json(), expected, "{request}");
}

#[tokio::test]
async fn paths_queries_and_bodies_become_messages() {
    let (_origin, gateway) = gateway(json!({ "proto": PROTO })).await;
    let none = Value::Null;
    check(
        &gateway,
        "GET /v1/items/7",
        none.clone(),
        "0a0137",
        json!({ "id": "7" }),
    )
    .await;
    check(
        &gateway,
        "GET /v1/items/a%20b?count=3&gift=true&tags=x&tags=y&size=SMALL&bigNumber=5&place.height=0.5&other=1&id=z",
        none.clone(),
        "0a036120621003180122017822017928013005\
         3a0911000000000000e03f",
        json!({
            "id": "a b", "count": 3, "gift": true, "tags": ["x", "y"], "size": "SMALL", "big_number": 5,
            "place": { "shelf": "", "height": 0.5 },
        }),
    )
    .await;
    check(
        &gateway,
        "GET /v1/shelves/3/items/7",
        none.clone(),
        "0a01373a0b0a097368656c7665732f33",
        json!({ "id": "7", "place": { "shelf": "shelves/3", "height": 0.0 } }),
    )
    .await;
    // The path counts, not what the body says of the same field.
    check(
        &gateway,
        "PUT /v1/items/7?count=9",
        json!({ "id": "8", "tags": ["t"], "bigNumber": "6", "at": "1970-01-01T00:00:01.5Z", "other": {} }),
        "0a01372201743006420808011080cab5ee01",
        json!({ "id": "7", "tags": ["t"], "big_number": 6, "at": "1970-01-01T00:00:01.500Z" }),
    )
    .await;
    let path = ask(&gateway, "GET", "/v1/items/7?count=1", &[]).await;
    assert_eq!(path.header("x-path"), Some("/shop.Cart/Get"));
}

#[tokio::test]
async fn a_body_can_be_one_field_of_the_message_and_of_the_answer() {
    let (_origin, gateway) = gateway(json!({ "proto": PROTO })).await;
    let body = full(json!({ "shelf": "s" }).to_string());
    let reply = send(&gateway, "POST", "/v1/items/7:place?count=2", &[], body).await;
    assert_eq!(reply.header("x-sent"), Some("0a013710023a030a0173"));
    assert_eq!(reply.json(), json!({ "shelf": "s", "height": 0.0 }));
}

#[tokio::test]
async fn messages_of_a_stream_follow_each_other() {
    let (_origin, gateway) = gateway(json!({ "proto": PROTO })).await;
    let reply = ask(&gateway, "GET", "/v1/items?id=7", &[]).await;
    let messages = serde_json::Deserializer::from_slice(&reply.body).into_iter::<Value>();
    let ids: Vec<_> = messages
        .map(|message| message.unwrap()["id"].clone())
        .collect();
    assert_eq!(ids, ["7", "7"]);
}

#[tokio::test]
async fn failures_have_the_status_kong_gives_them() {
    let (_origin, gateway) = gateway(json!({ "proto": PROTO })).await;
    let reply = ask(&gateway, "DELETE", "/v1/gone", &[]).await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.header("grpc-status"), Some("5"));
    assert_eq!(reply.json(), json!({ "code": 5, "message": "not here!" }));
    // Its head had gone by then.
    let reply = ask(&gateway, "DELETE", "/v1/late", &[]).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json(), json!({ "code": 9, "message": "" }));
}

#[tokio::test]
async fn what_is_no_call_is_refused() {
    let (_origin, gateway) = gateway(json!({ "proto": PROTO })).await;
    let refused = async |request: &str, body: &'static str, expected: &str| {
        let (method, path) = request.split_once(' ').unwrap();
        let reply = send(&gateway, method, path, &[], full(body)).await;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert_eq!(reply.status, 400, "{request}: {text}");
        assert!(text.contains(expected), "{request}: {text}");
    };
    refused(
        "GET /v2",
        "",
        r#"failed to transcode .proto file Unknown path "/v2""#,
    )
    .await;
    refused("HEAD /v1/items", "", "").await;
    refused(
        "REPORT /v1",
        "",
        r#"failed to transcode .proto file Unknown method "report""#,
    )
    .await;
    refused("PUT /v1/items/7", "[1]", "body must be a table").await;
    refused("PUT /v1/items/7", "{", "the body cannot be read").await;
    refused(
        "PUT /v1/items/7",
        r#"{"count":"x"}"#,
        "this makes no shop.Item",
    )
    .await;
    refused("GET /v1/items?gift=maybe", "", "bool").await;
    let reply = ask(&gateway, "OPTIONS", "/v2", &[]).await;
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &b"OK"[..]));
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET,POST,PATCH,DELETE"),
        ("access-control-allow-headers", "content-type"),
    ] {
        assert_eq!(reply.header(name), Some(value));
    }
}

#[tokio::test]
async fn the_service_is_described_by_a_file_of_the_host_or_by_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("parts")).unwrap();
    let (head, messages) = PROTO.split_once("message Item").unwrap();
    let parts = format!(
        "syntax = \"proto3\"; package shop; import \"google/protobuf/timestamp.proto\"; message Item{messages}"
    );
    std::fs::write(path("parts/item.proto"), parts).unwrap();
    let head = head.replace(
        "import \"google/protobuf/timestamp.proto\"",
        "import \"parts/item.proto\"",
    );
    std::fs::write(path("shop.proto"), head).unwrap();
    let (_origin, gateway) = gateway(json!({ "proto": path("shop.proto") })).await;
    let reply = ask(&gateway, "GET", "/v1/items/7", &[]).await;
    assert_eq!(reply.json()["id"], "7");
    for (proto, expected) in [
        (path("none.proto"), "none.proto"),
        (
            "syntax = \"proto3\";\nmessage A {".to_owned(),
            "proto cannot be used",
        ),
        (
            "syntax = \"proto3\";\nservice A {}".to_owned(),
            "no option google.api.http",
        ),
    ] {
        let told = gateway.try_apply(&[global(10, "grpc-gateway", json!({ "proto": proto }))]);
        assert!(told[0].contains(expected), "{told:?}");
    }
    // The last good form stays.
    assert_eq!(ask(&gateway, "GET", "/v1/items/7", &[]).await.status, 200);
    gateway.apply(&[global(10, "grpc-gateway", json!({}))]);
    let reply = ask(&gateway, "GET", "/v1/items/7", &[]).await;
    let expected = "transcoding requests require a .proto file defining the service";
    assert_eq!(
        (reply.status.as_u16(), &reply.body[..]),
        (400, expected.as_bytes())
    );
}

#[tokio::test]
async fn grpc_gateway_is_consistent() {
    is_consistent(
        |n| {
            let proto = format!(
                r#"
                syntax = "proto3";
                import "google/api/annotations.proto";
                service S {{ rpc V{n}(M) returns (M) {{ option (google.api.http) = {{ get: "/v" }}; }} }}
                message M {{}}
                "#
            );
            vec![global(10, "grpc-gateway", json!({ "proto": proto }))]
        },
        async |client: &mut Client| client.get("/v").await,
        |reply| {
            let uri = reply.json()["uri"].as_str().map(str::to_owned);
            numbers(&[uri], "/S/V")
        },
    )
    .await;
}
