//! A proxy that ends and one that begins on the same socket, and what a change of the configuration does to requests
//! that are under way.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::*;
use http::Response;
use serde_json::json;
use sluice_dp::proxy::{Inherited, Options};
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

fn on(listener: &std::net::TcpListener, entities: &[Entity]) -> Gateway {
    let address = listener.local_addr().unwrap();
    let options = Options {
        listen: vec![address.into()],
        inherited: Inherited::of([listener.try_clone().unwrap()]).unwrap(),
        workers: 2,
        ..Options::default()
    };
    Gateway::with(options, entities)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_in_the_queue_of_one_is_served_by_the_next() {
    let origin = Origin::echo().await;
    let entities = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ];
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let first = on(&listener, &entities);
    assert_eq!(first.get("/").await.status, 200);
    let address = first.address;
    first.shutdown.cancel();
    let stopped = tokio::time::timeout(PATIENCE, first.running.stopped()).await;
    stopped.unwrap().unwrap();
    // Nobody accepts now.
    let waiting: Vec<_> =
        futures::future::join_all((0..20).map(|_| TcpStream::connect(address))).await;
    let second = on(&listener, &entities);
    assert_eq!(second.address, address);
    for stream in waiting {
        let mut client = Client::over(stream.unwrap()).await;
        assert_eq!(client.get("/").await.status, 200);
    }
}

/// An origin that answers when it is told to.
async fn held(arrived: &Arc<Notify>, go: &Arc<Notify>) -> Origin {
    let (arrived, go) = (Arc::clone(arrived), Arc::clone(go));
    Origin::serve(move |_| {
        let (arrived, go) = (Arc::clone(&arrived), Arc::clone(&go));
        Box::pin(async move {
            arrived.notify_one();
            go.notified().await;
            Response::new(reply("held"))
        })
    })
    .await
}

#[tokio::test]
async fn a_request_ends_on_the_version_it_began_with() {
    let (arrived, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (old, new) = (held(&arrived, &go).await, Origin::named("new").await);
    let before = [
        service(1, old.address, json!({})),
        route(2, json!({ "paths": ["/x"] })),
    ];
    let gateway = Gateway::start(&before);
    let address = gateway.address;
    let asking = tokio::spawn(async move { Client::connect(address).await.get("/x").await });
    arrived.notified().await;
    // Another address, an end of its plugins' patience, another path: nothing of that is the old request's.
    gateway.apply(&[
        service(1, new.address, json!({ "read_timeout": 1 })),
        route(2, json!({ "paths": ["/y"] })),
        plugin(3, json!({ "name": "key-auth", "route": reference(2) })),
    ]);
    assert_eq!(gateway.get("/x").await.status, 404);
    assert_eq!(gateway.get("/y").await.status, 401);
    go.notify_one();
    let reply = asking.await.unwrap();
    assert_eq!((reply.status.as_u16(), &*reply.body), (200, &b"held"[..]));
}

#[tokio::test]
async fn an_entity_that_cannot_be_used_leaves_traffic_as_it_was() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/x"] })),
    ]);
    let mut client = gateway.client().await;
    assert_eq!(client.get("/x").await.status, 200);
    let refused = gateway.try_apply(&[
        route(2, json!({ "paths": ["~/(["] })),
        service(1, origin.address, json!({ "protocol": "carrier-pigeon" })),
        route(4, json!({ "paths": ["/y"] })),
    ]);
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert_eq!(
        client.get("/x").await.status,
        200,
        "the last good form stays"
    );
    assert_eq!(
        client.get("/y").await.status,
        200,
        "what is good is taken up"
    );
    assert_eq!(
        origin.accepted.load(std::sync::atomic::Ordering::Relaxed),
        1,
        "connections stay"
    );
}

#[tokio::test]
async fn who_has_connected_may_still_ask_when_the_drain_has_begun() {
    let origin = Origin::echo().await;
    let entities = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ];
    for flags in ["", "http2", "ssl"] {
        let gateway = Gateway::listening(flags, &entities);
        let connected = TcpStream::connect(gateway.address).await.unwrap();
        while gateway.shared.metrics.connections().active == 0 {
            tokio::task::yield_now().await;
        }
        gateway.shutdown.cancel();
        let stopping = tokio::spawn(gateway.running.stopped());
        // Long enough for the drain to have begun.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let reply = if flags == "ssl" {
            let connector = tokio_rustls::TlsConnector::from(Arc::new(secure::believing_all()));
            let stream = connector
                .connect("a.test".try_into().unwrap(), connected)
                .await
                .unwrap();
            Client::over(stream).await.get("/").await
        } else {
            Client::over(connected).await.get("/").await
        };
        assert_eq!(reply.status, 200, "{flags}");
        tokio::time::timeout(PATIENCE, stopping)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn a_listener_is_left_only_when_its_queue_is_empty() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ]);
    // Connected, perhaps not accepted: each gets its answer or an orderly end, none a reset.
    let streams =
        futures::future::join_all((0..50).map(|_| TcpStream::connect(gateway.address))).await;
    gateway.shutdown.cancel();
    for stream in streams {
        let mut received = Vec::new();
        let reading = stream
            .unwrap()
            .read_to_end(&mut received)
            .await
            .map_err(|error| error.kind());
        assert_eq!(reading, Ok(0));
    }
}
