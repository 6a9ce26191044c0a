//! Names of services and targets, looked up in the DNS.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::dns::Dns;
use common::*;
use hickory_resolver::proto::rr::RecordType;
use serde_json::json;
use sluice_dp::proxy::Options;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;

/// An upstream `pool` with id 3, behind a service and a route.
fn pool(fields: serde_json::Value) -> Vec<Entity> {
    let mut fields = fields;
    fields["name"] = "pool".into();
    vec![
        service(1, ([127, 0, 0, 1], 1).into(), json!({ "host": "pool" })),
        route(2, json!({ "paths": ["/"] })),
        upstream(3, fields),
    ]
}

fn service_of(name: &str, port: u16) -> Vec<Entity> {
    vec![
        service(
            1,
            ([127, 0, 0, 1], port).into(),
            json!({ "host": name, "retries": 0 }),
        ),
        route(2, json!({ "paths": ["/"] })),
    ]
}

async fn name_of(gateway: &Gateway) -> String {
    let reply = gateway.get("/").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["name"].as_str().unwrap().to_owned()
}

async fn names(gateway: &Gateway, count: usize) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for _ in 0..count {
        *names.entry(name_of(gateway).await).or_default() += 1;
    }
    names
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

#[tokio::test]
async fn all_addresses_of_a_service_take_turns() {
    let dns = Dns::start().await;
    let (one, _two) = pair("one", "two").await;
    dns.set("shop.test", 3600, &["127.0.0.1", "127.0.0.2"]);
    let gateway = Gateway::with(dns.options(), &service_of("shop.test", one.address.port()));
    assert_eq!(names(&gateway, 10).await, counts(&[("one", 5), ("two", 5)]));
    let reply = gateway.get("/").await;
    let host = format!("shop.test:{}", one.address.port());
    assert_eq!(reply.received("host"), Some(host));
}

#[tokio::test]
async fn an_answer_serves_for_its_time_and_is_then_asked_for_again() {
    let dns = Dns::start().await;
    let (one, _two) = pair("one", "two").await;
    dns.set("long.test", 3600, &["127.0.0.1"]);
    dns.set("short.test", 1, &["127.0.0.1"]);
    let port = one.address.port();
    let short = Gateway::with(dns.options(), &service_of("short.test", port));
    let long = Gateway::with(dns.options(), &service_of("long.test", port));
    assert_eq!(
        (name_of(&short).await, name_of(&long).await),
        ("one".into(), "one".into())
    );
    dns.set("long.test", 3600, &["127.0.0.2"]);
    dns.set("short.test", 1, &["127.0.0.2"]);
    until(async || name_of(&short).await == "two").await;
    assert_eq!(name_of(&long).await, "one");
    assert_eq!(dns.asked("long.test", RecordType::A), 1);
}

#[tokio::test]
async fn the_last_answer_serves_while_the_dns_fails() {
    let dns = Dns::start().await;
    let (one, _two) = pair("one", "two").await;
    dns.set("shop.test", 0, &["127.0.0.1"]);
    let gateway = Gateway::with(dns.options(), &service_of("shop.test", one.address.port()));
    assert_eq!(name_of(&gateway).await, "one");
    dns.fail(true);
    let before = dns.asked("shop.test", RecordType::A);
    until(async || {
        assert_eq!(name_of(&gateway).await, "one");
        dns.asked("shop.test", RecordType::A) > before + 1
    })
    .await;
    dns.set("shop.test", 0, &["127.0.0.2"]);
    dns.fail(false);
    until(async || name_of(&gateway).await == "two").await;
}

#[tokio::test]
async fn a_name_is_asked_for_once_however_many_use_it() {
    let dns = Dns::start().await;
    let origin = Origin::named("one").await;
    dns.set("shop.test", 3600, &["127.0.0.1"]);
    let port = origin.address.port();
    let mut entities = pool(json!({}));
    for id in 0..20 {
        entities.push(upstream(100 + id, json!({ "name": format!("pool-{id}") })));
        entities.push(named_target(
            200 + id,
            100 + id,
            &format!("shop.test:{port}"),
            10,
        ));
        entities.push(service(
            300 + id,
            ([127, 0, 0, 1], port).into(),
            json!({ "host": "SHOP.test" }),
        ));
    }
    entities.push(named_target(50, 3, &format!("shop.test:{port}"), 10));
    let options = Options {
        workers: 4,
        ..dns.options()
    };
    let gateway = Gateway::with(options, &entities);
    assert_eq!(names(&gateway, 20).await, counts(&[("one", 20)]));
    assert_eq!(dns.asked("shop.test", RecordType::A), 1);
}

#[tokio::test]
async fn a_name_is_looked_up_when_the_configuration_comes_to_name_it() {
    let dns = Dns::start().await;
    dns.set("shop.test", 3600, &["127.0.0.1"]);
    dns.set("pool.test", 3600, &["127.0.0.1"]);
    let gateway = Gateway::with(dns.options(), &service_of("shop.test", 1));
    until(async || dns.asked("shop.test", RecordType::A) == 1).await;
    gateway.apply(&[
        upstream(3, json!({ "name": "pool" })),
        named_target(11, 3, "pool.test:1", 1),
    ]);
    until(async || dns.asked("pool.test", RecordType::A) == 1).await;
}

#[tokio::test]
async fn a_request_does_not_wait_for_names_that_nobody_asked_for() {
    let dns = Dns::start().await;
    let origin = Origin::named("one").await;
    dns.set("shop.test", 3600, &["127.0.0.1"]);
    let port = origin.address.port();
    let mut entities: Vec<_> = (0..300)
        .map(|id| {
            let host = format!("silent-{id}.test");
            service(
                1000 + id,
                ([127, 0, 0, 1], port).into(),
                json!({ "host": host }),
            )
        })
        .collect();
    entities.extend(pool(json!({})));
    let gateway = Gateway::with(dns.options(), &entities);
    gateway.apply(&[named_target(50, 3, &format!("shop.test:{port}"), 10)]);
    let asked = std::time::Instant::now();
    assert_eq!(name_of(&gateway).await, "one");
    assert!(
        asked.elapsed() < std::time::Duration::from_secs(3),
        "{:?}",
        asked.elapsed()
    );
}

#[tokio::test]
async fn each_address_of_a_target_has_the_targets_weight() {
    let dns = Dns::start().await;
    let (one, _two) = pair("one", "two").await;
    let three = Origin::named("three").await;
    dns.set("pair.test", 3600, &["127.0.0.1", "127.0.0.2"]);
    let mut entities = pool(json!({}));
    entities.push(named_target(
        11,
        3,
        &format!("pair.test:{}", one.address.port()),
        100,
    ));
    entities.push(target(12, 3, three.address, 200));
    let gateway = Gateway::with(dns.options(), &entities);
    until(async || gateway.shared.upstreams.views()[0].targets.len() == 3).await;
    let expected = counts(&[("one", 5), ("two", 5), ("three", 10)]);
    assert_eq!(names(&gateway, 20).await, expected);
}

#[tokio::test]
async fn services_in_the_dns_bring_port_and_weight() {
    let dns = Dns::start().await;
    let (one, two) = (Origin::named("one").await, Origin::named("two").await);
    let spare = Origin::named("spare").await;
    dns.set("a.test", 3600, &["127.0.0.1"]);
    dns.set("b.test", 3600, &["127.0.0.1"]);
    let services = [
        (10, 30, one.address.port(), "a.test."),
        (10, 10, two.address.port(), "b.test."),
        (20, 90, spare.address.port(), "a.test."),
    ];
    dns.set_srv("_http._tcp.shop.test", 3600, &services);
    let mut entities = pool(json!({ "use_srv_name": true }));
    entities.push(named_target(11, 3, "_http._tcp.shop.test:1", 100));
    let gateway = Gateway::with(dns.options(), &entities);
    assert_eq!(names(&gateway, 8).await, counts(&[("one", 6), ("two", 2)]));
    let host = gateway.get("/").await.received("host").unwrap();
    assert!(
        host.starts_with("a.test:") || host.starts_with("b.test:"),
        "{host}"
    );
    gateway.apply(&[named_target(11, 3, "_http._tcp.shop.test:1", 0)]);
    let reply = gateway.get("/").await;
    assert_eq!(reply.status, 503);
}

#[tokio::test]
async fn ipv6_is_asked_for_where_there_is_no_ipv4() {
    let dns = Dns::start().await;
    let Ok(origin) = Origin::named_at("six", "[::1]:0".parse().unwrap()).await else {
        eprintln!("no IPv6 here");
        return;
    };
    dns.set("six.test", 3600, &["::1"]);
    let gateway = Gateway::with(
        dns.options(),
        &service_of("six.test", origin.address.port()),
    );
    assert_eq!(name_of(&gateway).await, "six");
}

#[tokio::test]
async fn a_target_that_does_not_resolve_is_left_out_until_it_does() {
    let dns = Dns::start().await;
    let (alive, late) = pair("alive", "late").await;
    let mut entities = pool(json!({}));
    entities.push(target(11, 3, alive.address, 100));
    entities.push(named_target(
        12,
        3,
        &format!("late.test:{}", late.address.port()),
        100,
    ));
    let gateway = Gateway::with(dns.options(), &entities);
    assert_eq!(names(&gateway, 5).await, counts(&[("alive", 5)]));
    until(async || gateway.shared.upstreams.unwell_views().len() == 1).await;
    dns.set("late.test", 3600, &["127.0.0.2"]);
    until(async || names(&gateway, 2).await.contains_key("late")).await;
    assert_eq!(gateway.shared.upstreams.unwell_views(), []);
}

#[tokio::test]
async fn an_upstream_without_a_target_that_resolves_has_no_peer() {
    let dns = Dns::start().await;
    let mut entities = pool(json!({}));
    entities.push(named_target(11, 3, "gone.test:80", 100));
    let gateway = Gateway::with(dns.options(), &entities);
    let reply = gateway.get("/").await;
    let expected = "failure to get a peer from the ring-balancer";
    assert_eq!((reply.status.as_u16(), &*reply.message()), (503, expected));
}

#[tokio::test]
async fn the_hosts_file_comes_first_and_is_read_again() {
    let dns = Dns::start().await;
    let (one, _two) = pair("one", "two").await;
    let mut hosts = tempfile::NamedTempFile::new().unwrap();
    writeln!(hosts, "127.0.0.1 shop.test").unwrap();
    dns.set("shop.test", 3600, &["127.0.0.9"]);
    let mut options = dns.options();
    options.dns.hosts = hosts.path().into();
    let gateway = Gateway::with(options, &service_of("shop.test", one.address.port()));
    assert_eq!(name_of(&gateway).await, "one");
    assert_eq!(dns.asked("shop.test", RecordType::A), 0);
    std::fs::write(hosts.path(), "127.0.0.2 shop.test\n").unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    hosts.as_file().set_modified(later).unwrap();
    until(async || name_of(&gateway).await == "two").await;
}

#[tokio::test]
async fn search_domains_of_resolv_conf_are_tried() {
    let dns = Dns::start().await;
    let origin = Origin::named("one").await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(
        file,
        "nameserver 127.0.0.1\nsearch cluster.test\noptions ndots:2"
    )
    .unwrap();
    dns.set("shop.cluster.test", 3600, &["127.0.0.1"]);
    let mut options = dns.options();
    options.dns.resolv_conf = file.path().into();
    let gateway = Gateway::with(options, &service_of("shop", origin.address.port()));
    assert_eq!(name_of(&gateway).await, "one");
}

#[tokio::test]
async fn requests_of_a_name_that_is_being_refreshed_do_not_wait() {
    // A server that answers once and then never.
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let silent: SocketAddr = socket.local_addr().unwrap();
    let dns = Dns::start().await;
    let origin = Origin::named("one").await;
    dns.set("shop.test", 1, &["127.0.0.1"]);
    let real = dns.address;
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        let (count, from) = socket.recv_from(&mut buffer).await.unwrap();
        let relay = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        relay.send_to(&buffer[..count], real).await.unwrap();
        let (count, _) = relay.recv_from(&mut buffer).await.unwrap();
        socket.send_to(&buffer[..count], from).await.unwrap();
        std::future::pending::<()>().await;
        drop(socket);
    });
    let mut options = dns.options();
    options.dns.servers = vec![silent];
    let gateway = Gateway::with(options, &service_of("shop.test", origin.address.port()));
    let begun = std::time::Instant::now();
    let mut slowest = std::time::Duration::ZERO;
    // Past the time to live, a look-up is on its way that never ends.
    until(async || {
        let asked = std::time::Instant::now();
        assert_eq!(name_of(&gateway).await, "one");
        if begun.elapsed() > std::time::Duration::from_millis(1200) {
            slowest = slowest.max(asked.elapsed());
        }
        begun.elapsed() > std::time::Duration::from_secs(3)
    })
    .await;
    assert!(slowest < std::time::Duration::from_secs(1), "{slowest:?}");
}
