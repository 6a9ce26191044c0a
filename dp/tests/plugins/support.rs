//! What tests of plugins have in common.

use crate::common::*;
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use sluice_dp::proxy::Options;

/// 2023-11-14 22:13:20 UTC: 40 seconds before the end of the minute.
pub(crate) const NOW: u64 = 1_700_000_000;

pub(crate) fn options() -> Options {
    Options {
        clock: || NOW,
        ..Options::default()
    }
}

/// A gateway with service 1 at an echoing origin, route 2 for everything, and these entities.
pub(crate) async fn gateway_with(entities: &[Entity]) -> (Origin, Gateway) {
    let origin = Origin::echo().await;
    let base = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ];
    let gateway = Gateway::with(options(), &[&base, entities].concat());
    (origin, gateway)
}

/// A plugin for everything, with this configuration.
pub(crate) fn global(id: u128, name: &str, config: Value) -> Entity {
    scoped(id, name, config, &[])
}

/// A plugin for what it is bound to.
pub(crate) fn scoped(id: u128, name: &str, config: Value, scope: &[(&str, u128)]) -> Entity {
    let mut fields = json!({ "name": name, "config": config });
    for (part, id) in scope {
        fields[*part] = reference(*id);
    }
    plugin(id, fields)
}

/// Consumer 10 with key 11, and key-auth.
pub(crate) fn key_auth(config: Value) -> Vec<Entity> {
    vec![
        consumer(10, json!({ "username": "alice", "custom_id": "a-1" })),
        key_credential(11, 10, json!({ "key": "secret" })),
        plugin(12, json!({ "name": "key-auth", "config": config })),
    ]
}

/// The numbers that texts show after a prefix; one that was never active for a text that shows none.
pub(crate) fn numbers(texts: &[Option<String>], prefix: &str) -> Vec<u64> {
    let number = |text: &Option<String>| {
        let text = text.as_deref().unwrap_or_default();
        text.strip_prefix(prefix).and_then(|text| text.parse().ok())
    };
    texts
        .iter()
        .map(|text| number(text).unwrap_or(u64::MAX))
        .collect()
}

/// A header of the response.
pub(crate) fn sent(reply: &Reply, name: &str) -> Option<String> {
    reply.header(name).map(str::to_owned)
}

/// Sends a request without a body on a connection of its own.
pub(crate) async fn ask(
    gateway: &Gateway,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Reply {
    send(gateway, method, path, headers, empty()).await
}

/// The same with a body.
pub(crate) async fn send(
    gateway: &Gateway,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: ClientBody,
) -> Reply {
    let request = http::Request::builder().method(method).uri(path);
    let request = headers.iter().fold(
        request.header("host", "a.test"),
        |request, (name, value)| request.header(*name, *value),
    );
    gateway
        .client()
        .await
        .send(request.body(body).unwrap())
        .await
}

/// Fails unless the response is a refusal with this message.
pub(crate) fn is_refused(reply: &Reply, status: u16, message: &str) {
    assert_eq!(
        (reply.status.as_u16(), &*reply.message()),
        (status, message),
        "{reply:?}"
    );
}

/// Makes every response, refusals too, say which version it is of: for plugins that cannot say it themselves.
pub(crate) fn stamp(n: u64) -> Entity {
    let config =
        json!({ "header_name": format!("x-v{n}"), "generator": "uuid", "echo_downstream": true });
    global(90, "correlation-id", config)
}

/// A response of an origin with its body in these frames.
pub(crate) fn in_frames<const N: usize>(
    response: http::response::Builder,
    frames: [Frame<Bytes>; N],
) -> http::Response<OriginBody> {
    let frames = futures::stream::iter(frames.map(Ok::<_, hyper::Error>));
    let body = StreamBody::new(frames).boxed_unsync();
    response.body(body).unwrap()
}

/// The versions that a refusal with the message `v1` and the status 401, and so on, is of.
pub(crate) fn refused_as(reply: &Reply) -> Vec<u64> {
    vec![
        numbers(&[Some(reply.message())], "v")[0],
        u64::from(reply.status.as_u16()) - 400,
    ]
}

/// The version that the consumer's name says where the request passed, which is in even ones, or else the challenge's realm.
pub(crate) fn named_or_challenged(reply: &Reply) -> Vec<u64> {
    let challenge = reply.header("www-authenticate");
    let realm = challenge
        .and_then(|text| text.split('"').nth(1))
        .map(str::to_owned);
    let shown = match reply.status.as_u16() {
        200 => numbers(&[reply.received("x-consumer-username")], "v"),
        _ => numbers(&[realm], "v"),
    };
    assert_eq!(shown[0].is_multiple_of(2), reply.status == 200, "{reply:?}");
    shown
}

/// The numbers that [`stamp`] has put on a response, which passed in even versions.
pub(crate) fn stamped_and_passed(reply: &Reply) -> Vec<u64> {
    let shown = stamped(reply);
    let is_even = shown.first().is_some_and(|number| number.is_multiple_of(2));
    assert_eq!(is_even, reply.status == 200, "{reply:?}");
    shown
}

/// The numbers that [`stamp`] has put on a response.
pub(crate) fn stamped(reply: &Reply) -> Vec<u64> {
    let names = reply.headers.keys().map(http::HeaderName::as_str);
    let names = names.filter(|name| name.starts_with("x-v"));
    numbers(
        &names.map(|name| Some(name.to_owned())).collect::<Vec<_>>(),
        "x-v",
    )
}
