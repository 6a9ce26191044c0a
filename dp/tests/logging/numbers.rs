//! `prometheus`, `statsd`, `datadog`.

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::listen::*;
use crate::support::*;
use serde_json::{Value, json};

#[tokio::test]
async fn prometheus_counts_by_consumer_and_bytes_only_if_told_so() {
    let mut entities = key_auth(json!({}));
    entities.push(global(30, "prometheus", json!({})));
    let (_origin, gateway) = gateway_with(&entities).await;
    let ask = async || {
        let mut client = gateway.client().await;
        client.get_with("/", &[("apikey", "secret")]).await
    };
    let requests = |consumer: &str| {
        let (service, route) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
        format!(
            "kong_http_requests_total{{service=\"{service}\",route=\"{route}\",code=\"200\",source=\"service\",workspace=\"default\",consumer=\"{consumer}\"}}"
        )
    };
    ask().await;
    let text = metrics(&gateway).await;
    assert_eq!(value(&text, &requests("")), 1);
    assert!(!text.contains("kong_bandwidth_bytes"));

    let told = json!({ "per_consumer": true, "bandwidth_metrics": true });
    gateway.apply(&[global(30, "prometheus", told)]);
    ask().await;
    ask().await;
    let mut text = String::new();
    until(async || {
        text = metrics(&gateway).await;
        text.contains("kong_bandwidth_bytes")
    })
    .await;
    assert_eq!(value(&text, &requests("")), 1);
    assert_eq!(value(&text, &requests("alice")), 2);
    for direction in ["ingress", "egress"] {
        let line = text
            .lines()
            .find(|line| line.contains(&format!("direction=\"{direction}\"")));
        let line = line.unwrap();
        assert!(
            line.contains("consumer=\"alice\"") && line.contains("workspace=\"default\""),
            "{line}"
        );
        assert!(
            line.rsplit(' ').next().unwrap().parse::<u64>().unwrap() > 100,
            "{line}"
        );
    }
    // Latencies are not by consumer.
    assert!(text.contains("kong_request_latency_ms_count"));
    assert!(
        !text
            .lines()
            .any(|line| line.starts_with("kong_request_latency_ms") && line.contains("alice"))
    );
}

fn statsd_metric(name: &str, kind: &str) -> Value {
    json!({ "name": name, "stat_type": kind, "sample_rate": 1 })
}

async fn ask_as_alice(gateway: &Gateway) {
    let mut client = gateway.client().await;
    assert_eq!(
        client.get_with("/", &[("apikey", "secret")]).await.status,
        200
    );
}

#[tokio::test]
async fn statsd_tells_each_metric_by_its_name() {
    let kept = Kept::default();
    let address = datagrams(&kept, "statsd").await;
    let metrics = [
        ("request_count", "counter"),
        ("latency", "timer"),
        ("request_size", "gauge"),
        ("response_size", "histogram"),
        ("status_count", "counter"),
        ("unique_users", "set"),
        ("request_per_user", "counter"),
        ("upstream_latency", "timer"),
        ("kong_latency", "meter"),
        ("status_count_per_user", "counter"),
        ("status_count_per_workspace", "counter"),
        ("status_count_per_user_per_route", "counter"),
        ("shdict_usage", "gauge"),
    ];
    let metrics: Vec<_> = metrics.map(|(name, kind)| statsd_metric(name, kind)).into();
    let config =
        json!({ "host": "127.0.0.1", "port": address.port(), "prefix": "gw", "metrics": metrics });
    let mut entities = key_auth(json!({}));
    entities.push(global(30, "statsd", config));
    let (_origin, gateway) = gateway_with(&entities).await;
    ask_as_alice(&gateway).await;
    let texts: Vec<_> = kept
        .wait(12)
        .await
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    let route = uuid::Uuid::from_u128(2);
    // The service has no name: its host stands for it.
    let scope = "gw.service.127_0_0_1";
    let expected = [
        (format!("{scope}.request.count:1"), "c"),
        (format!("{scope}.latency:"), "ms"),
        (format!("{scope}.request.size:"), "g"),
        (format!("{scope}.response.size:"), "h"),
        (format!("{scope}.status.200:1"), "c"),
        (format!("{scope}.user.uniques:a-1"), "s"),
        (format!("{scope}.user.a-1.request.count:1"), "c"),
        (format!("{scope}.upstream_latency:"), "ms"),
        (format!("{scope}.kong_latency:"), "m"),
        (format!("{scope}.user.a-1.status.200:1"), "c"),
        (format!("{scope}.workspace.default.status.200:1"), "c"),
        (format!("gw.route.{route}.user.a-1.status.200:1"), "c"),
    ];
    for (text, (begins, kind)) in texts.iter().zip(&expected) {
        assert!(
            text.starts_with(&**begins) && text.ends_with(&format!("|{kind}")),
            "{text} {begins}"
        );
    }
    assert_eq!(texts.len(), expected.len());
}

#[tokio::test]
async fn statsd_chooses_statuses_names_tags_and_transport() {
    let kept = Kept::default();
    let udp = datagrams(&kept, "udp").await;
    let metrics = [
        statsd_metric("request_count", "counter"),
        statsd_metric("latency", "timer"),
    ];
    let plugin = |fields: Value| {
        let mut config = json!({ "host": "127.0.0.1", "port": udp.port(), "metrics": metrics });
        config
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        global(30, "statsd", config)
    };
    let tagged = json!({ "tag_style": "dogstatsd", "udp_packet_size": 1000, "service_identifier_default": "service_host" });
    let (_origin, gateway) = gateway_with(&[plugin(tagged)]).await;
    gateway.get("/").await;
    // Both metrics share a datagram.
    let (_, text) = kept.wait(1).await.remove(0);
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with("kong.request.count:1|c|#service:127.0.0.1,route:"),
        "{text}"
    );
    assert!(
        lines[0].contains(",workspace:default,node:") && lines[0].ends_with(",status:200"),
        "{text}"
    );
    assert!(lines[1].starts_with("kong.latency:"), "{text}");

    gateway.apply(&[plugin(
        json!({ "allow_status_codes": ["400-404", "500-599"] }),
    )]);
    gateway.get("/").await;
    gateway.remove(&[route(2, json!({}))]);
    gateway.get("/").await;
    let (_, text) = kept.wait(2).await.remove(1);
    assert!(text.starts_with("kong.global.unmatched."), "{text}");
}

/// Whether what a plugin sends by UDP always has the prefix and the consumer's name of one version; `needle` is what a datagram has that tells
/// of a user.
async fn datagrams_are_consistent(
    name: &'static str,
    metric: Value,
    needle: impl Fn(&str) -> String,
) {
    let kept = Kept::default();
    let address = datagrams(&kept, name).await;
    is_consistent(
        |n| {
            let config = json!({
                "host": "127.0.0.1", "port": address.port(), "prefix": format!("v{n}"), "metrics": [metric],
            });
            let mut entities = key_auth(json!({}));
            entities.push(global(30, name, config));
            // A name that only this edit has, with the key of every request.
            entities[0] = consumer(10, json!({ "username": format!("u{n}") }));
            entities
        },
        async |client: &mut Client| {
            let mut reply = client.get_with("/", &[("apikey", "secret")]).await;
            let user = reply.received("x-consumer-username").unwrap();
            let (_, text) = kept.find(&needle(&user)).await;
            let prefix = text.split('.').next().unwrap().to_owned();
            reply.headers.insert("x-shown", prefix.parse().unwrap());
            reply
        },
        |reply| {
            let user = reply.received("x-consumer-username").unwrap().replace('u', "v");
            numbers(&[sent(reply, "x-shown"), Some(user)], "v")
        },
    )
    .await;
}

#[tokio::test]
async fn statsd_is_consistent() {
    let metric =
        json!({ "name": "unique_users", "stat_type": "set", "consumer_identifier": "username" });
    datagrams_are_consistent("statsd", metric, |user| format!("uniques:{user}|")).await;
}

#[tokio::test]
async fn datadog_tells_of_requests_with_a_service_and_its_tags() {
    let kept = Kept::default();
    let address = datagrams(&kept, "datadog").await;
    let metrics = json!([
        { "name": "request_count", "stat_type": "counter", "tags": ["app:kong", "bare"], "sample_rate": 1, "consumer_identifier": "username" },
        { "name": "upstream_latency", "stat_type": "distribution" },
    ]);
    let config = json!({ "host": "127.0.0.1", "port": address.port(), "service_name_tag": "svc", "metrics": metrics });
    let mut entities = key_auth(json!({}));
    entities.push(global(30, "datadog", config));
    let (_origin, gateway) = gateway_with(&entities).await;
    ask_as_alice(&gateway).await;
    let texts = kept.wait(2).await;
    assert_eq!(
        texts[0].1,
        "kong.request.count:1|c|#svc:127_0_0_1,status:200,consumer:alice,app:kong,bare"
    );
    assert!(
        texts[1].1.starts_with("kong.upstream_latency:"),
        "{texts:?}"
    );
    assert!(
        texts[1].1.ends_with("|d|#svc:127_0_0_1,status:200"),
        "{texts:?}"
    );
    gateway.remove(&[route(2, json!({}))]);
    gateway.get("/").await;
    gateway.apply(&[route(2, json!({ "paths": ["/"] }))]);
    ask_as_alice(&gateway).await;
    // Nothing of the request without a route came between.
    let texts = kept.wait(3).await;
    assert!(texts[2].1.contains("status:200"), "{texts:?}");
}

#[tokio::test]
async fn datadog_is_consistent() {
    let metric = json!({
        "name": "request_count", "stat_type": "counter", "sample_rate": 1, "consumer_identifier": "username",
    });
    datagrams_are_consistent("datadog", metric, |user| format!("consumer:{user}")).await;
}
