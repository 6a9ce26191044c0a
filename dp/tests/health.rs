//! The health of targets: what passes shows it, checks find it out, and it outlives changes of the configuration.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::secure::Ca;
use common::*;
use http::Response;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sluice_dp::balance::SetHealthError;
use sluice_dp::proxy::{Options, load_authorities};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use tokio::net::TcpListener;

const NO_PEER: &str = "failure to get a peer from the ring-balancer";

/// An upstream `pool` with id 3 and these health checks, behind a service and a route.
fn pool(healthchecks: &Value) -> Vec<Entity> {
    vec![
        service(
            1,
            ([127, 0, 0, 1], 1).into(),
            json!({ "host": "pool", "read_timeout": 300 }),
        ),
        route(2, json!({ "paths": ["/"] })),
        checked(healthchecks),
    ]
}

fn checked(healthchecks: &Value) -> Entity {
    upstream(3, json!({ "name": "pool", "healthchecks": healthchecks }))
}

fn passive(unhealthy: Value) -> Value {
    json!({ "passive": { "unhealthy": unhealthy } })
}

/// Answers by a status that can be changed, and counts.
struct Moody {
    origin: Origin,
    status: Arc<AtomicU16>,
    count: Arc<AtomicUsize>,
}

impl Moody {
    async fn start(status: u16) -> Self {
        Self::start_as(status, Manner::default()).await
    }

    async fn start_as(status: u16, manner: Manner) -> Self {
        let (status, count) = (
            Arc::new(AtomicU16::new(status)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (shown, counted) = (Arc::clone(&status), Arc::clone(&count));
        let origin = Origin::serve_as(manner, move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut response = Response::new(reply("x"));
            let status = shown.load(Ordering::SeqCst);
            *response.status_mut() = status.try_into().unwrap();
            Box::pin(std::future::ready(response))
        })
        .await;
        Self {
            origin,
            status,
            count,
        }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    fn set(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }
}

/// The addresses that are well.
fn healthy(gateway: &Gateway) -> BTreeSet<SocketAddr> {
    let views = gateway.shared.upstreams.views();
    let targets = views.into_iter().flat_map(|view| view.targets);
    let healthy = targets.filter(|target| target.is_healthy);
    healthy.filter_map(|target| target.address).collect()
}

async fn is_healthy(gateway: &Gateway, address: SocketAddr, expected: bool) {
    until(async || healthy(gateway).contains(&address) == expected).await;
}

#[tokio::test]
async fn a_target_that_answers_badly_is_left_out() {
    let (good, bad) = (Moody::start(200).await, Moody::start(500).await);
    let mut entities = pool(&passive(json!({ "http_failures": 3 })));
    entities.push(target(11, 3, good.origin.address, 100));
    entities.push(target(12, 3, bad.origin.address, 100));
    let gateway = Gateway::start(&entities);
    let mut client = gateway.client().await;
    for _ in 0..20 {
        client.get("/").await;
    }
    assert_eq!((good.count(), bad.count()), (17, 3));
    assert_eq!(healthy(&gateway), BTreeSet::from([good.origin.address]));
    // It does not come back by itself.
    bad.set(200);
    for _ in 0..20 {
        client.get("/").await;
    }
    assert_eq!(bad.count(), 3);
    let set = |target: &str, healthy| {
        gateway
            .shared
            .upstreams
            .set_health("pool", target, None, healthy)
    };
    set(&bad.origin.address.to_string(), true).unwrap();
    assert_eq!(set("10.0.0.1:1", true), Err(SetHealthError::NotFound));
    for _ in 0..20 {
        client.get("/").await;
    }
    assert_eq!(bad.count(), 13);
}

#[tokio::test]
async fn only_the_listed_statuses_count() {
    let origin = Moody::start(500).await;
    let mut entities = pool(&passive(
        json!({ "http_failures": 2, "http_statuses": [503] }),
    ));
    entities.push(target(11, 3, origin.origin.address, 100));
    let gateway = Gateway::start(&entities);
    let mut client = gateway.client().await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.status, 500);
    }
    origin.set(503);
    assert_eq!(client.get("/").await.status, 503);
    origin.set(200);
    assert_eq!(client.get("/").await.status, 200);
    origin.set(503);
    for _ in 0..2 {
        assert_eq!(client.get("/").await.body, "x");
    }
    let reply = client.get("/").await;
    assert_eq!((reply.status.as_u16(), &*reply.message()), (503, NO_PEER));
}

#[tokio::test]
async fn refused_connections_and_timeouts_count_try_by_try() {
    let good = Moody::start(200).await;
    let refusing = refused().await;
    let mut entities = pool(&passive(json!({ "tcp_failures": 2 })));
    entities.push(target(11, 3, good.origin.address, 100));
    entities.push(target(12, 3, refusing, 100));
    let gateway = Gateway::start(&entities);
    let mut client = gateway.client().await;
    for _ in 0..6 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(healthy(&gateway), BTreeSet::from([good.origin.address]));

    let stuck = Origin::serve(|_| Box::pin(std::future::pending())).await;
    let mut entities = pool(&passive(json!({ "timeouts": 1 })));
    entities.push(target(11, 3, good.origin.address, 100));
    entities.push(target(12, 3, stuck.address, 100));
    let gateway = Gateway::start(&entities);
    let mut client = gateway.client().await;
    for _ in 0..6 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(healthy(&gateway), BTreeSet::from([good.origin.address]));
}

#[tokio::test]
async fn below_its_threshold_the_whole_upstream_is_unusable() {
    let (a, b) = (Moody::start(200).await, Moody::start(200).await);
    let mut checks = passive(json!({ "http_failures": 1 }));
    for (threshold, usable) in [(49.0, true), (50.0, false), (100.0, false), (0.0, true)] {
        checks["threshold"] = threshold.into();
        let mut entities = pool(&checks);
        entities.push(target(11, 3, a.origin.address, 100));
        entities.push(target(12, 3, b.origin.address, 100));
        let gateway = Gateway::start(&entities);
        let before = gateway.get("/").await.status;
        assert_eq!(before == 200, threshold < 100.0);
        let b = b.origin.address.to_string();
        gateway
            .shared
            .upstreams
            .set_health("pool", &b, None, false)
            .unwrap();
        let reply = gateway.get("/").await;
        assert_eq!(reply.status == 200, usable, "{threshold}: {reply:?}");
        assert!(usable || reply.message() == NO_PEER);
    }
}

#[tokio::test]
async fn health_counts_only_while_something_is_checked() {
    let bad = Moody::start(500).await;
    let mut entities = pool(&passive(json!({ "http_failures": 1 })));
    entities.push(target(11, 3, bad.origin.address, 100));
    let gateway = Gateway::start(&entities);
    assert_eq!(gateway.get("/").await.status, 500);
    assert_eq!(gateway.get("/").await.status, 503);
    gateway.apply(&[checked(&json!({}))]);
    assert_eq!(gateway.get("/").await.status, 500);
    let set =
        gateway
            .shared
            .upstreams
            .set_health("pool", &bad.origin.address.to_string(), None, false);
    assert_eq!(set, Err(SetHealthError::NotChecked));
}

fn active(kind: &str, fields: Value) -> Value {
    let mut active = json!({
        "type": kind, "http_path": "/health", "timeout": 1, "concurrency": 2,
        "healthy": { "interval": 0.02, "successes": 2 },
        "unhealthy": { "interval": 0.02, "http_failures": 2, "tcp_failures": 2, "timeouts": 2 },
    });
    active
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    json!({ "active": active })
}

#[tokio::test]
async fn checks_find_targets_that_fail_and_recover() {
    let origin = Moody::start(200).await;
    let mut entities = pool(&active("http", json!({ "headers": { "x-probe": ["1"] } })));
    entities.push(target(11, 3, origin.origin.address, 100));
    let gateway = Gateway::start(&entities);
    let address = origin.origin.address;
    until(async || origin.count() > 3).await;
    assert!(healthy(&gateway).contains(&address));
    origin.set(500);
    is_healthy(&gateway, address, false).await;
    assert_eq!(gateway.get("/").await.message(), NO_PEER);
    origin.set(302);
    is_healthy(&gateway, address, true).await;
    assert_eq!(gateway.get("/").await.status, 302);
    // Without an interval nobody asks any more.
    gateway.apply(&[checked(&json!({}))]);
    let mut before = origin.count();
    until(async || {
        let still = before == origin.count();
        before = origin.count();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        still && before == origin.count()
    })
    .await;
}

#[tokio::test]
async fn a_check_by_tcp_asks_for_a_connection_only() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut entities = pool(&active("tcp", json!({})));
    entities.push(target(11, 3, address, 100));
    let gateway = Gateway::start(&entities);
    let (stream, _) = listener.accept().await.unwrap();
    drop((stream, listener));
    is_healthy(&gateway, address, false).await;
    let listener = TcpListener::bind(address).await.unwrap();
    is_healthy(&gateway, address, true).await;
    drop(listener);
}

#[tokio::test]
async fn a_check_that_gets_no_answer_in_time_fails() {
    let stuck = Origin::serve(|_| Box::pin(std::future::pending())).await;
    let mut entities = pool(&active("http", json!({ "timeout": 0.05 })));
    entities.push(target(11, 3, stuck.address, 100));
    let gateway = Gateway::start(&entities);
    is_healthy(&gateway, stuck.address, false).await;
}

#[tokio::test]
async fn a_check_by_https_verifies_the_target_unless_told_not_to() {
    let (ca, other) = (Ca::new(), Ca::new());
    let manner = Manner {
        tls: Some(ca.issue(&["shop.test"]).server(&[], None)),
        http2: false,
    };
    let origin = Moody::start_as(200, manner).await;
    let file = |pem: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem).unwrap();
        file
    };
    let cases = [
        (&ca, json!({ "https_sni": "shop.test" }), true),
        (&ca, json!({ "https_sni": "other.test" }), false),
        (&other, json!({ "https_sni": "shop.test" }), false),
        (&other, json!({ "https_verify_certificate": false }), true),
    ];
    for (trusted, fields, expected) in cases {
        let mut entities = pool(&active("https", fields.clone()));
        entities.push(target(11, 3, origin.origin.address, 100));
        let file = file(&trusted.pem);
        let mut options = Options::default();
        options.tls.trusted = load_authorities(&[file.path().to_owned()]).unwrap();
        let before = origin.count();
        let gateway = Gateway::with(options, &entities);
        if expected {
            until(async || origin.count() > before + 4).await;
        }
        is_healthy(&gateway, origin.origin.address, expected).await;
    }
}

#[tokio::test]
async fn a_check_by_grpc_asks_the_health_service() {
    let status = Arc::new(AtomicU16::new(1));
    let shown = Arc::clone(&status);
    let manner = Manner {
        tls: None,
        http2: true,
    };
    let origin = Origin::serve_as(manner, move |request| {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let serving = u8::try_from(shown.load(Ordering::SeqCst)).unwrap();
        let mut response = Response::new(reply(vec![0, 0, 0, 0, 2, 8, serving]));
        let headers = response.headers_mut();
        headers.insert("content-type", "application/grpc".parse().unwrap());
        headers.insert("grpc-status", "0".parse().unwrap());
        Box::pin(std::future::ready(response))
    })
    .await;
    let mut entities = pool(&active("grpc", json!({})));
    entities.push(target(11, 3, origin.address, 100));
    let gateway = Gateway::start(&entities);
    status.store(2, Ordering::SeqCst);
    is_healthy(&gateway, origin.address, false).await;
    status.store(1, Ordering::SeqCst);
    is_healthy(&gateway, origin.address, true).await;
}

#[tokio::test]
async fn a_removed_target_takes_its_state_along() {
    let bad = Moody::start(500).await;
    let mut entities = pool(&passive(json!({ "http_failures": 2 })));
    let own = target(11, 3, bad.origin.address, 100);
    entities.push(own.clone());
    let gateway = Gateway::start(&entities);
    let mut client = gateway.client().await;
    for _ in 0..2 {
        assert_eq!(client.get("/").await.status, 500);
    }
    assert_eq!(client.get("/").await.status, 503);
    gateway.remove(std::slice::from_ref(&own));
    assert_eq!(healthy(&gateway).len(), 0);
    gateway.apply(&[own]);
    assert_eq!(client.get("/").await.status, 500);
    gateway.remove(&[checked(&json!({}))]);
    assert_eq!(gateway.shared.upstreams.views(), []);
}

/// Random edits of a pool, and what should come of them.
struct Edits<'a> {
    gateway: &'a Gateway,
    targets: &'a [Moody],
    checks: Value,
    /// Present, and healthy.
    model: Vec<(bool, bool)>,
    random: StdRng,
}

impl Edits<'_> {
    fn put(&self, index: usize, weight: u16) -> Entity {
        target(
            11 + index as u128,
            3,
            self.targets[index].origin.address,
            weight,
        )
    }

    fn step(&mut self) {
        let index = self.random.random_range(0..self.targets.len());
        let (present, well) = self.model[index];
        match self.random.random_range(0..6) {
            0 if present => {
                self.gateway.remove(&[self.put(index, 0)]);
                self.model[index] = (false, true);
            }
            1 | 2 => {
                let weight = self.random.random_range(1..200);
                self.gateway.apply(&[self.put(index, weight)]);
                self.model[index] = (true, well || !present);
            }
            3 => {
                let slots = self.random.random_range(10..1000);
                let algorithms = [
                    "round-robin",
                    "least-connections",
                    "latency",
                    "consistent-hashing",
                ];
                let algorithm = algorithms[self.random.random_range(0..4)];
                self.gateway.apply(&[upstream(3, json!({
                    "name": "pool", "slots": slots, "algorithm": algorithm, "healthchecks": self.checks,
                }))]);
            }
            4 if present => {
                let name = self.targets[index].origin.address.to_string();
                let healthy = self.random.random_bool(0.5);
                let upstreams = &self.gateway.shared.upstreams;
                upstreams.set_health("pool", &name, None, healthy).unwrap();
                self.model[index] = (true, healthy);
            }
            _ => {
                let same = service(1, ([127, 0, 0, 1], 1).into(), json!({ "host": "pool" }));
                self.gateway.apply(&[same]);
            }
        }
    }

    fn expected(&self) -> BTreeSet<SocketAddr> {
        let all = self.targets.iter().zip(&self.model);
        let healthy = all.filter(|(_, state)| **state == (true, true));
        healthy.map(|(target, _)| target.origin.address).collect()
    }
}

/// A target that stays keeps its health, one that goes and comes back begins anew.
#[tokio::test]
async fn health_follows_identity_through_random_edits_during_traffic() {
    let seed = rand::random::<u64>();
    eprintln!("seed {seed}");
    let mut targets = Vec::new();
    for _ in 0..6 {
        targets.push(Moody::start(200).await);
    }
    let checks = passive(json!({ "http_failures": 3 }));
    let options = Options {
        workers: 2,
        ..Options::default()
    };
    let gateway = Gateway::with(options, &pool(&checks));
    let mut edits = Edits {
        gateway: &gateway,
        targets: &targets,
        checks,
        model: vec![(true, true); targets.len()],
        random: StdRng::seed_from_u64(seed),
    };
    let all: Vec<_> = (0..targets.len())
        .map(|index| edits.put(index, 100))
        .collect();
    gateway.apply(&all);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let (address, stop) = (gateway.address, shutdown.clone());
    let traffic = tokio::spawn(async move {
        let mut count = 0;
        let mut client = Client::connect(address).await;
        while !stop.is_cancelled() {
            let status = client.get("/").await.status;
            assert!(status == 200 || status == 503, "{status}");
            count += 1;
        }
        count
    });
    for step in 0..300 {
        edits.step();
        assert_eq!(
            healthy(&gateway),
            edits.expected(),
            "seed {seed}, step {step}"
        );
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    assert!(traffic.await.unwrap() > 0);
}

#[tokio::test]
async fn half_counted_failures_outlive_changes_of_the_configuration() {
    let bad = Moody::start(500).await;
    let mut entities = pool(&passive(json!({ "http_failures": 10 })));
    entities.push(target(11, 3, bad.origin.address, 100));
    let gateway = Gateway::start(&entities);
    let mut client = gateway.client().await;
    for weight in 1..=10 {
        assert_eq!(client.get("/").await.status, 500);
        gateway.apply(&[target(11, 3, bad.origin.address, weight)]);
    }
    assert_eq!(client.get("/").await.status, 503);
}
