//! Which target of an upstream gets a request, by each algorithm.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::*;
use http::{HeaderValue, Response};
use serde_json::{Value, json};
use sluice_dp::proxy::Options;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// An upstream `pool` with id 3, behind a service and a route for any path.
fn pool(mut fields: Value) -> Vec<Entity> {
    fields["name"] = "pool".into();
    vec![
        service(1, ([127, 0, 0, 1], 1).into(), json!({ "host": "pool" })),
        route(
            2,
            json!({ "paths": ["~/(?<first>[a-z0-9]*)"], "strip_path": false }),
        ),
        upstream(3, fields),
    ]
}

fn hashing(fields: Value) -> Vec<Entity> {
    let mut fields = fields;
    fields["algorithm"] = "consistent-hashing".into();
    pool(fields)
}

/// Targets that say their name, from id 11 on.
async fn origins() -> (Vec<Origin>, Vec<Entity>) {
    let mut origins = Vec::new();
    for name in NAMES {
        origins.push(Origin::named(name).await);
    }
    let ids = 11..;
    let targets = origins
        .iter()
        .zip(ids)
        .map(|(origin, id)| target(id, 3, origin.address, 100));
    let targets = targets.collect();
    (origins, targets)
}

fn name(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["name"].as_str().unwrap().to_owned()
}

/// An origin that holds its requests.
struct Holding {
    origin: Origin,
    arrived: Arc<AtomicUsize>,
    go: Arc<Semaphore>,
}

impl Holding {
    async fn start() -> Self {
        let (arrived, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (counted, released) = (Arc::clone(&arrived), Arc::clone(&go));
        let origin = Origin::serve(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            let released = Arc::clone(&released);
            Box::pin(async move {
                released.acquire().await.unwrap().forget();
                Response::new(reply("done"))
            })
        })
        .await;
        Self {
            origin,
            arrived,
            go,
        }
    }

    fn arrived(&self) -> usize {
        self.arrived.load(Ordering::SeqCst)
    }
}

/// Sends a request that will be held, and waits until it is with one of these.
async fn hold(gateway: &Gateway, held: &[&Holding]) {
    let count = || held.iter().map(|one| one.arrived()).sum::<usize>();
    let before = count();
    let mut client = gateway.client().await;
    tokio::spawn(async move { client.get("/").await });
    until(async || count() > before).await;
}

#[tokio::test]
async fn the_least_loaded_target_by_weight_is_next() {
    let (a, b) = (Holding::start().await, Holding::start().await);
    let mut entities = pool(json!({ "algorithm": "least-connections" }));
    entities.push(target(11, 3, a.origin.address, 300));
    entities.push(target(12, 3, b.origin.address, 100));
    let gateway = Gateway::start(&entities);
    for _ in 0..8 {
        hold(&gateway, &[&a, &b]).await;
    }
    assert_eq!((a.arrived(), b.arrived()), (6, 2));
    // Room at one target is filled first.
    a.go.add_permits(4);
    until(async || gateway.shared.metrics.connections().requests == 4).await;
    for _ in 0..4 {
        hold(&gateway, &[&a, &b]).await;
    }
    assert_eq!((a.arrived(), b.arrived()), (10, 2));
}

#[tokio::test]
async fn requests_in_flight_count_across_workers_and_changes_of_the_configuration() {
    let (a, b) = (Holding::start().await, Holding::start().await);
    let mut entities = pool(json!({ "algorithm": "round-robin" }));
    entities.push(target(11, 3, a.origin.address, 100));
    let options = Options {
        workers: 3,
        ..Default::default()
    };
    let gateway = Gateway::with(options, &entities);
    for _ in 0..4 {
        hold(&gateway, &[&a]).await;
    }
    gateway.apply(&[
        upstream(
            3,
            json!({ "name": "pool", "algorithm": "least-connections" }),
        ),
        target(12, 3, b.origin.address, 100),
    ]);
    for count in 1..=4 {
        gateway.apply(&[target(11, 3, a.origin.address, 100)]);
        hold(&gateway, &[&a, &b]).await;
        assert_eq!((a.arrived(), b.arrived()), (4, count));
    }
}

#[tokio::test]
async fn the_quicker_target_gets_most_requests() {
    let quick = Origin::named("quick").await;
    let slow = Origin::serve(|request| {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(30)).await;
            describe(request, "slow").await
        })
    })
    .await;
    let mut entities = pool(json!({ "algorithm": "latency" }));
    entities.push(target(11, 3, quick.address, 100));
    entities.push(target(12, 3, slow.address, 100));
    let gateway = Gateway::start(&entities);
    let mut client = gateway.client().await;
    let mut slow = 0;
    for _ in 0..100 {
        slow += usize::from(name(&client.get("/").await) == "slow");
    }
    assert!(
        (1..10).contains(&slow),
        "{slow} of 100 requests went to the slow target"
    );
}

/// Sends each request twice: equal ones must meet, and different ones must not all.
async fn check_hash(entities: &[Entity], requests: &[(&str, &[(&str, &str)])], spread: bool) {
    check_hash_with(Options::default(), entities, requests, spread).await;
}

async fn check_hash_with(
    options: Options,
    entities: &[Entity],
    requests: &[(&str, &[(&str, &str)])],
    spread: bool,
) {
    let (_origins, targets) = origins().await;
    let gateway = Gateway::with(options, &[entities, &targets].concat());
    let mut found = BTreeSet::new();
    for (path, headers) in requests {
        let mut own = BTreeSet::new();
        for _ in 0..3 {
            own.insert(name(&gateway.client().await.get_with(path, headers).await));
        }
        assert_eq!(own.len(), 1, "{path} {headers:?}: {own:?}");
        found.extend(own);
    }
    assert_eq!(found.len() > 1, spread, "{found:?}");
}

#[tokio::test]
async fn equal_values_of_what_is_hashed_meet_at_one_target() {
    let none: &[(&str, &str)] = &[];
    let paths = ["/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h"].map(|path| (path, none));
    let by = |fields: Value| hashing(fields);
    check_hash(&by(json!({ "hash_on": "path" })), &paths, true).await;
    check_hash(&by(json!({ "hash_on": "ip" })), &paths, false).await;
    let captured = by(json!({ "hash_on": "uri_capture", "hash_on_uri_capture": "first" }));
    check_hash(&captured, &paths, true).await;
    let numbered = by(json!({ "hash_on": "uri_capture", "hash_on_uri_capture": "1" }));
    check_hash(&numbered, &paths, true).await;
    let args = [
        "/?x=1&k=a",
        "/?k=b",
        "/?k=c",
        "/?k=d",
        "/?k=e",
        "/?k=f",
        "/?k=g",
    ];
    let args = args.map(|path| (path, none));
    let query = by(json!({ "hash_on": "query_arg", "hash_on_query_arg": "k" }));
    check_hash(&query, &args, true).await;
    let values = ["1", "2", "3", "4", "5", "6", "7", "8"];
    let headers = values.map(|value| [("x-key", value)]);
    let headers: Vec<_> = headers.iter().map(|headers| ("/", &headers[..])).collect();
    let header = by(json!({ "hash_on": "header", "hash_on_header": "X-Key" }));
    check_hash(&header, &headers, true).await;
    let fallback = by(json!({
        "hash_on": "query_arg", "hash_on_query_arg": "k",
        "hash_fallback": "header", "hash_fallback_header": "x-key",
    }));
    check_hash(&fallback, &headers, true).await;
    // Nothing to hash is the same nothing for all.
    let missing = by(json!({ "hash_on": "header", "hash_on_header": "x-other" }));
    check_hash(&missing, &paths, false).await;
}

#[tokio::test]
async fn clients_meet_at_one_target_by_the_address_that_a_trusted_proxy_tells() {
    let said = ["1", "2", "3", "4", "5", "6", "7", "8"].map(|host| format!("10.0.0.{host}"));
    let headers: Vec<_> = said.iter().map(|ip| [("x-real-ip", ip.as_str())]).collect();
    let headers: Vec<_> = headers.iter().map(|headers| ("/", &headers[..])).collect();
    let by_address = hashing(json!({ "hash_on": "ip" }));
    let mut trusting = Options::default();
    trusting.trust.networks = vec!["127.0.0.1".parse().unwrap()];
    check_hash_with(trusting, &by_address, &headers, true).await;
    check_hash(&by_address, &headers, false).await;
}

#[tokio::test]
async fn consumers_meet_at_one_target() {
    let mut entities = hashing(json!({ "hash_on": "consumer", "hash_fallback": "path" }));
    let keys = ["k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8"];
    entities.push(plugin(
        20,
        json!({
            "name": "key-auth", "route": reference(2),
            "config": { "key_names": ["apikey"], "key_in_header": true, "key_in_query": true,
                        "key_in_body": false, "hide_credentials": false, "run_on_preflight": true },
        }),
    ));
    for (key, id) in keys.into_iter().zip(100..) {
        entities.push(consumer(id, json!({ "username": key })));
        entities.push(key_credential(id + 100, id, json!({ "key": key })));
    }
    let headers = keys.map(|key| [("apikey", key)]);
    let headers: Vec<_> = headers.iter().map(|headers| ("/", &headers[..])).collect();
    check_hash(&entities, &headers, true).await;
}

#[tokio::test]
async fn a_missing_cookie_is_made_and_leads_back() {
    let (_origins, targets) = origins().await;
    let fields =
        json!({ "hash_on": "cookie", "hash_on_cookie": "at", "hash_on_cookie_path": "/x" });
    let gateway = Gateway::start(&[hashing(fields), targets].concat());
    let mut found = BTreeSet::new();
    for _ in 0..12 {
        let first = gateway.get("/").await;
        let cookie = first.header("set-cookie").unwrap();
        assert!(
            cookie.ends_with("; Path=/x; HttpOnly; SameSite=Lax"),
            "{cookie}"
        );
        let pair = format!("other=1; {}", cookie.split(';').next().unwrap());
        for _ in 0..3 {
            let again = gateway
                .client()
                .await
                .get_with("/", &[("cookie", &pair)])
                .await;
            assert_eq!(name(&again), name(&first), "{cookie}");
            assert_eq!(again.header("set-cookie"), None);
        }
        found.insert(name(&first));
    }
    assert!(found.len() > 1, "{found:?}");
}

#[tokio::test]
async fn the_upstreams_own_cookies_stay_beside_the_one_that_is_made() {
    let origin = Origin::serve(|_| {
        Box::pin(async {
            let mut response = Response::new(reply("x"));
            let cookie = HeaderValue::from_static("own=1");
            response.headers_mut().insert("set-cookie", cookie);
            response
        })
    })
    .await;
    let mut entities = hashing(json!({ "hash_on": "cookie", "hash_on_cookie": "at" }));
    entities.push(target(11, 3, origin.address, 100));
    let gateway = Gateway::start(&entities);
    let reply = gateway.get("/").await;
    let cookies: Vec<_> = reply.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    assert_eq!(cookies[0], "own=1");
}

#[tokio::test]
async fn a_change_of_one_target_moves_few_requests() {
    let (_origins, targets) = origins().await;
    let gateway =
        Gateway::start(&[hashing(json!({ "hash_on": "path" })), targets.clone()].concat());
    let mut client = gateway.client().await;
    let mut before = BTreeMap::new();
    for key in 0..200 {
        before.insert(key, name(&client.get(&format!("/{key}")).await));
    }
    gateway.remove(&targets[4..]);
    for (key, owner) in &before {
        let now = name(&client.get(&format!("/{key}")).await);
        if owner == "e" {
            assert_ne!(now, "e");
        } else {
            assert_eq!(now, *owner, "{key}");
        }
    }
    gateway.apply(&targets[4..]);
    for (key, owner) in &before {
        assert_eq!(name(&client.get(&format!("/{key}")).await), *owner);
    }
}

#[tokio::test]
async fn a_further_try_goes_to_another_target_whatever_the_algorithm() {
    let alive = Origin::named("alive").await;
    for fields in [
        json!({ "algorithm": "round-robin" }),
        json!({ "algorithm": "least-connections" }),
        json!({ "algorithm": "latency" }),
        json!({ "algorithm": "consistent-hashing", "hash_on": "path" }),
    ] {
        let mut entities = pool(fields.clone());
        for id in 11..15 {
            entities.push(target(id, 3, refused().await, 100));
        }
        entities.push(target(20, 3, alive.address, 100));
        let gateway = Gateway::start(&entities);
        let mut client = gateway.client().await;
        for key in 0..10 {
            assert_eq!(
                name(&client.get(&format!("/{key}")).await),
                "alive",
                "{fields}"
            );
        }
    }
}
