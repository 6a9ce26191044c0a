//! What a node says about itself over HTTP.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::*;
use http::Request;
use serde_json::json;
use sluice_dp::status::{self, Node, NodeState};
use sluice_schema::digest::Accumulator;
use sluice_schema::entity::{Body, Id, Key, KindName, Workspace};
use sluice_schema::version::Version;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

async fn serve(gateway: &Gateway) -> (SocketAddr, Arc<NodeState>) {
    let node = Node {
        id: Uuid::from_u128(7).to_string().parse().unwrap(),
        hostname: "here".into(),
    };
    let shared = gateway.shared.clone();
    let state = Arc::new(NodeState::new(
        node,
        shared.metrics,
        shared.state,
        shared.upstreams,
    ));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(status::serve(
        listener,
        Arc::clone(&state),
        CancellationToken::new(),
    ));
    (address, state)
}

fn apply(state: &NodeState, version: u64) {
    let key = Key {
        kind: KindName::known("service"),
        workspace: Workspace::DEFAULT,
        id: Id(Uuid::nil()),
    };
    let mut digest = Accumulator::default();
    digest.add(&key, &Body::from_bytes(b"body"));
    state.update(|facts| {
        facts.cursor.version = Version(version);
        facts.digest = digest.digest();
        facts.connected = true;
    });
}

#[tokio::test]
async fn a_node_is_ready_from_its_first_configuration_until_it_drains() {
    let gateway = Gateway::start(&[]);
    let (address, state) = serve(&gateway).await;
    let mut client = Client::connect(address).await;
    let reply = client.get("/status/ready").await;
    assert_eq!(reply.status, 503);
    assert!(reply.message().starts_with("no configuration available"));
    apply(&state, 12);
    let reply = client.get("/status/ready").await;
    assert_eq!((reply.status.as_u16(), &*reply.message()), (200, "ready"));
    state.update(|facts| facts.draining = true);
    let reply = client.get("/status/ready").await;
    assert_eq!(
        (reply.status.as_u16(), &*reply.message()),
        (503, "draining")
    );
}

#[tokio::test]
async fn the_status_names_version_digest_and_traffic() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({ "name": "shop" })),
        route(2, json!({ "paths": ["/"], "name": "all \"of\" it" })),
    ]);
    let (address, state) = serve(&gateway).await;
    apply(&state, 12);
    state.update(|facts| facts.head = Some(Version(15)));
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(
        gateway
            .client()
            .await
            .get_with("/", &[("host", "a/b")])
            .await
            .status,
        400
    );

    let mut client = Client::connect(address).await;
    let status = client.get("/status").await.json();
    assert_eq!(status["log"]["version"], 12);
    assert_eq!(status["log"]["lag_versions"], 3);
    assert_eq!(
        status["configuration_hash"],
        state.facts().digest.to_string()
    );
    assert_eq!(status["server"]["total_requests"], 2);
    assert_eq!(status["ready"], true);

    let metrics = client.get("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    for line in [
        r#"kong_http_requests_total{service="shop",route="all \"of\" it",code="200",source="service",workspace="default",consumer=""} 1"#,
        r#"kong_http_requests_total{service="",route="",code="400",source="kong",workspace="",consumer=""} 1"#,
        r#"kong_request_latency_ms_count{service="shop",route="all \"of\" it",workspace="default"} 1"#,
        "sluice_dp_applied_version 12",
        "sluice_dp_lag_versions 3",
        "sluice_dp_connected 1",
        "kong_nginx_requests_total 2",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let gateway = Gateway::start(&[]);
    let (address, _state) = serve(&gateway).await;
    let mut client = Client::connect(address).await;
    assert_eq!(client.get("/elsewhere").await.status, 404);
    let post = Request::post("/status")
        .header("host", "a")
        .body(empty())
        .unwrap();
    assert_eq!(client.send(post).await.status, 405);
}

fn checked_pool() -> Vec<Entity> {
    let checks = json!({ "passive": { "unhealthy": { "http_failures": 3 } } });
    vec![
        upstream(3, json!({ "name": "pool", "healthchecks": checks })),
        target(11, 3, ([127, 0, 0, 1], 81).into(), 100),
        target(12, 3, ([127, 0, 0, 2], 82).into(), 50),
        upstream(4, json!({ "name": "other" })),
        target(13, 4, ([127, 0, 0, 3], 83).into(), 100),
    ]
}

async fn put(address: SocketAddr, path: &str, status: u16) {
    let request = Request::put(path).header("host", "a");
    let request = request.body(empty()).unwrap();
    let reply = Client::connect(address).await.send(request).await;
    assert_eq!(reply.status, status, "{path}");
}

#[tokio::test]
async fn the_health_of_targets_is_shown_and_set_by_hand() {
    let gateway = Gateway::start(&checked_pool());
    let (address, _) = serve(&gateway).await;
    let mut client = Client::connect(address).await;
    put(
        address,
        "/upstreams/pool/targets/127.0.0.1:81/unhealthy",
        204,
    )
    .await;
    put(
        address,
        "/upstreams/pool/targets/127.0.0.9:81/unhealthy",
        404,
    )
    .await;
    put(
        address,
        "/upstreams/none/targets/127.0.0.1:81/unhealthy",
        404,
    )
    .await;
    put(
        address,
        "/upstreams/other/targets/127.0.0.3:83/unhealthy",
        400,
    )
    .await;
    let shown = client.get("/upstreams/pool/health").await.json();
    assert_eq!(shown["health"], "HEALTHY");
    let one = |ip: &str, weight: u16, health: &str| json!({ "target": ip, "address": ip, "weight": weight, "health": health });
    let expected = [
        one("127.0.0.1:81", 100, "UNHEALTHY"),
        one("127.0.0.2:82", 50, "HEALTHY"),
    ];
    assert_eq!(shown["data"], json!(expected));
    let other = client.get("/upstreams/other/health").await;
    assert_eq!(other.json()["health"], "HEALTHCHECKS_OFF");
    assert_eq!(client.get("/upstreams/none/health").await.status, 404);
    let metrics = client.get("/metrics").await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    let labels = "upstream=\"pool\",target=\"127.0.0.1:81\",address=\"127.0.0.1:81\"";
    for (state, value) in [("unhealthy", 1), ("healthy", 0), ("dns_error", 0)] {
        let line = format!(
            "kong_upstream_target_health{{{labels},state=\"{state}\",subsystem=\"http\"}} {value}\n"
        );
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    assert!(metrics.contains("sluice_dp_upstream_targets{state=\"healthchecks_off\"} 1\n"));
}

#[tokio::test]
async fn a_node_reports_what_is_not_well_and_no_more_than_asked() {
    let gateway = Gateway::start(&checked_pool());
    let (address, state) = serve(&gateway).await;
    assert_eq!(state.ailing(10), []);
    put(
        address,
        "/upstreams/pool/targets/127.0.0.1:81/unhealthy",
        204,
    )
    .await;
    let ailing = state.ailing(10);
    assert_eq!(ailing.len(), 1);
    assert_eq!(ailing[0].target.as_deref(), Some("127.0.0.1:81"));
    // Without a target that is well, the upstream comes first.
    put(
        address,
        "/upstreams/pool/targets/127.0.0.2:82/127.0.0.2:82/unhealthy",
        204,
    )
    .await;
    let ailing = state.ailing(10);
    assert_eq!((ailing.len(), ailing[0].target.as_deref()), (3, None));
    assert_eq!(state.ailing(2).len(), 2);
    put(
        address,
        "/upstreams/pool/targets/127.0.0.1:81/127.0.0.1/healthy",
        204,
    )
    .await;
    assert_eq!(state.ailing(10).len(), 1);
}
