//! `correlation-id`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use serde_json::json;

fn correlation_id(header: Option<&str>, generator: &str, echo: bool) -> Entity {
    let config = json!({ "header_name": header, "generator": generator, "echo_downstream": echo });
    global(10, "correlation-id", config)
}

#[tokio::test]
async fn correlation_id_gives_every_request_an_id() {
    let (_origin, gateway) = gateway_with(&[correlation_id(None, "uuid#counter", false)]).await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let reply = gateway.get("/").await;
        assert_eq!(reply.header("kong-request-id"), None);
        ids.push(reply.received("kong-request-id").unwrap());
    }
    let (one, two) = (
        ids[0].split_once('#').unwrap(),
        ids[1].split_once('#').unwrap(),
    );
    assert_eq!((one.0, one.1, two.1), (two.0, "1", "2"));
    assert!(uuid::Uuid::try_parse(one.0).is_ok());
    let reply = ask(&gateway, "GET", "/", &[("kong-request-id", "mine")]).await;
    assert_eq!(reply.received("kong-request-id").as_deref(), Some("mine"));
    let reply = ask(&gateway, "GET", "/", &[("kong-request-id", "")]).await;
    assert!(reply.received("kong-request-id").unwrap().ends_with("#3"));
}

#[tokio::test]
async fn correlation_id_tells_the_client_if_it_is_to() {
    for generator in ["uuid", "uuid#counter", "tracker"] {
        let (_origin, gateway) =
            gateway_with(&[correlation_id(Some("X-Id"), generator, true)]).await;
        let reply = gateway.get("/").await;
        assert_eq!(sent(&reply, "x-id"), reply.received("x-id"), "{generator}");
        let id = reply.header("x-id").unwrap();
        match generator {
            "uuid" => assert!(uuid::Uuid::try_parse(id).is_ok(), "{id}"),
            "tracker" => assert!(
                id.starts_with(&format!("127.0.0.1-{}-", gateway.address.port())),
                "{id}"
            ),
            _ => assert!(id.contains('#'), "{id}"),
        }
    }
}

#[tokio::test]
async fn correlation_id_is_on_refusals_too() {
    let all = [
        correlation_id(Some("X-Id"), "uuid", true),
        global(11, "key-auth", json!({})),
    ];
    let (_origin, gateway) = gateway_with(&all).await;
    let reply = ask(&gateway, "GET", "/", &[("x-id", "mine")]).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("x-id")),
        (401, Some("mine"))
    );
    gateway.remove(&[route(2, json!({}))]);
    let reply = ask(&gateway, "GET", "/", &[("x-id", "mine")]).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("x-id")),
        (404, Some("mine"))
    );
    assert!(gateway.get("/").await.header("x-id").is_some());
}

#[tokio::test]
async fn correlation_id_is_consistent() {
    is_consistent(
        |n| vec![correlation_id(Some(&format!("x-v{n}")), "uuid", true)],
        async |client: &mut Client| client.get("/").await,
        |reply| {
            let received = reply.json()["headers"].as_object().unwrap().clone();
            let received = received.keys().map(String::as_str);
            let names = reply
                .headers
                .keys()
                .map(http::HeaderName::as_str)
                .chain(received);
            let shown = names
                .filter(|name| name.starts_with("x-v"))
                .map(|name| Some(name.to_owned()));
            numbers(&shown.collect::<Vec<_>>(), "x-v")
        },
    )
    .await;
}
