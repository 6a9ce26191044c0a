//! `request-size-limiting`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;

fn limit(size: u64, unit: &str, needs_length: bool) -> Entity {
    let config = json!({ "allowed_payload_size": size, "size_unit": unit, "require_content_length": needs_length });
    global(10, "request-size-limiting", config)
}

/// A body whose length is not told.
fn chunked(bytes: usize) -> ClientBody {
    let pieces = std::iter::repeat_n(1000, bytes / 1000).chain([bytes % 1000]);
    let pieces = pieces.map(|length| Ok(http_body::Frame::data(Bytes::from(vec![b'x'; length]))));
    StreamBody::new(futures::stream::iter(pieces)).boxed_unsync()
}

#[tokio::test]
async fn request_size_limiting_refuses_longer_bodies_however_they_are_told() {
    let message = "Request size limit exceeded";
    let (_origin, gateway) = gateway_with(&[]).await;
    for (size, unit, bytes) in [
        (10, "bytes", 10),
        (2, "kilobytes", 2048),
        (1, "megabytes", 1 << 20),
    ] {
        gateway.apply(&[limit(size, unit, false)]);
        for body in [full(vec![b'x'; bytes]), chunked(bytes), empty()] {
            let reply = send(&gateway, "POST", "/", &[], body).await;
            assert_eq!(reply.status, 200, "{size} {unit}");
        }
        for body in [full(vec![b'x'; bytes + 1]), chunked(bytes + 1)] {
            let reply = send(&gateway, "POST", "/", &[], body).await;
            is_refused(&reply, 413, message);
        }
    }
    gateway.apply(&[limit(10, "bytes", false)]);
    let body = full(vec![b'x'; 11]);
    let reply = send(&gateway, "POST", "/", &[("expect", "100-continue")], body).await;
    is_refused(&reply, 417, message);
}

#[tokio::test]
async fn request_size_limiting_can_want_a_length() {
    let (_origin, gateway) = gateway_with(&[limit(10, "bytes", true)]).await;
    assert_eq!(
        send(&gateway, "POST", "/", &[], full("1234567890"))
            .await
            .status,
        200
    );
    for body in [chunked(5), empty()] {
        let reply = send(&gateway, "GET", "/", &[], body).await;
        is_refused(&reply, 411, "A valid Content-Length header is required");
    }
}

#[tokio::test]
async fn request_size_limiting_is_consistent() {
    is_consistent(
        |n| vec![limit(4 + n % 2, "bytes", false), stamp(n)],
        async |client: &mut Client| {
            let request = http::Request::post("/").header("host", "a.test");
            // Every other request tells its length.
            let body = if rand::random() {
                full("short")
            } else {
                chunked(5)
            };
            client.send(request.body(body).unwrap()).await
        },
        |reply| {
            let shown = stamped(reply);
            assert_eq!(reply.status == 413, shown[0].is_multiple_of(2), "{shown:?}");
            shown
        },
    )
    .await;
}
