//! `grpc-web`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::{Value, json};

/// A gRPC service that answers with what it received: two messages and trailers, or only a head for `/fails`.
async fn service_of_grpc() -> Origin {
    let manner = Manner {
        http2: true,
        ..Manner::default()
    };
    Origin::serve_as(manner, |request| {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            assert_eq!(head.headers["content-type"], "application/grpc");
            let body = body.collect().await.unwrap().to_bytes();
            let response = Response::builder().header("content-type", "application/grpc");
            if head.uri.path().ends_with("/fails") {
                let response = response
                    .header("grpc-status", "5")
                    .header("grpc-message", "gone");
                return response.body(reply("")).unwrap();
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let path = Bytes::from(head.uri.path().to_owned());
            let frames = [
                Frame::data(path),
                Frame::data(body),
                Frame::trailers(trailers),
            ];
            in_frames(response, frames)
        })
    })
    .await
}

async fn gateway(config: Value) -> (Origin, Gateway) {
    let origin = service_of_grpc().await;
    let gateway = Gateway::with(
        options(),
        &[
            service(1, origin.address, json!({ "protocol": "grpc" })),
            route(2, json!({ "paths": ["/pre"] })),
            global(10, "grpc-web", config),
        ],
    );
    (origin, gateway)
}

async fn call(gateway: &Gateway, path: &str, content_type: &str, body: &[u8]) -> Reply {
    let request = Request::post(path)
        .header("host", "a.test")
        .header("content-type", content_type);
    gateway
        .client()
        .await
        .send(request.body(full(body.to_vec())).unwrap())
        .await
}

fn trailers(lines: &str) -> Vec<u8> {
    let mut frame = vec![0x80, 0, 0, 0, u8::try_from(lines.len()).unwrap()];
    frame.extend_from_slice(lines.as_bytes());
    frame
}

#[tokio::test]
async fn messages_go_through_and_trailers_are_the_last_frame() {
    let (_origin, gateway) = gateway(json!({})).await;
    let end = trailers("grpc-status:0\r\n");
    for kind in ["application/grpc-web", "application/grpc-web+proto"] {
        let reply = call(&gateway, "/pre/s.S/M", kind, b"\0\x01\xffmessage").await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("content-type")),
            (200, Some(kind))
        );
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
        assert_eq!(
            &reply.body[..],
            [b"/pre/s.S/M\0\x01\xffmessage", &end[..]].concat()
        );
    }
    let text = "application/grpc-web-text";
    // Padded between its parts, as clients send it.
    let sent = STANDARD.encode("on") + &STANDARD.encode("etwo");
    let reply = call(&gateway, "/pre/s.S/M", text, sent.as_bytes()).await;
    let expected =
        STANDARD.encode("/pre/s.S/M") + &STANDARD.encode("onetwo") + &STANDARD.encode(&end);
    assert_eq!(&reply.body[..], expected.as_bytes());
    assert_eq!(reply.header("content-type"), Some(text));
    let reply = call(&gateway, "/pre/fails", "application/grpc-web", b"x").await;
    let told = String::from_utf8_lossy(&reply.body[5..]).into_owned();
    assert!(
        told.contains("grpc-status:5\r\n") && told.contains("grpc-message:gone\r\n"),
        "{told}"
    );
    for (kind, body, expected) in [
        ("application/json", "{}", "Unknown Content-Type"),
        (text, "!", "Bad request"),
    ] {
        let reply = call(&gateway, "/pre/s.S/M", kind, body.as_bytes()).await;
        let body = String::from_utf8_lossy(&reply.body).into_owned();
        assert_eq!(reply.status, 400);
        assert!(body.contains(expected), "{body}");
    }
}

#[tokio::test]
async fn grpc_web_answers_as_configured() {
    let config = json!({ "pass_stripped_path": true, "allow_origin_header": "a.test" });
    let (_origin, gateway) = gateway(config).await;
    let reply = call(&gateway, "/pre/s.S/M", "application/grpc-web", b"x").await;
    assert!(reply.body.starts_with(b"/s.S/Mx"));
    let request = Request::options("/pre")
        .header("host", "a.test")
        .body(empty())
        .unwrap();
    let reply = gateway.client().await.send(request).await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
    for (name, value) in [
        ("access-control-allow-origin", "a.test"),
        ("access-control-allow-methods", "POST"),
        (
            "access-control-allow-headers",
            "content-type,x-grpc-web,x-user-agent",
        ),
    ] {
        assert_eq!(reply.header(name), Some(value));
    }
}

#[tokio::test]
async fn grpc_web_is_consistent() {
    is_consistent(
        |n| {
            vec![global(
                10,
                "grpc-web",
                json!({ "allow_origin_header": n.to_string() }),
            )]
        },
        async |client: &mut Client| {
            let request = Request::options("/")
                .header("host", "a.test")
                .body(empty())
                .unwrap();
            client.send(request).await
        },
        |reply| numbers(&[sent(reply, "access-control-allow-origin")], ""),
    )
    .await;
}
