//! The health of targets, as data planes report it.

use crate::server::Server;
use serde_json::{Value, json};
use sluice_replica::node::Ailing;

fn ailing(upstream: &str, target: Option<&str>, address: Option<&str>) -> Ailing {
    Ailing {
        upstream: upstream.parse().unwrap(),
        target: target.map(str::to_owned),
        address: address.map(str::to_owned),
    }
}

/// An upstream `u` with targets `a:80` and `b:80`; its id.
async fn pool(server: &Server, checks: Value) -> String {
    let upstream = json!({"name": "u", "healthchecks": checks});
    let upstream = server.create("/upstreams", upstream).await;
    for target in ["a:80", "b:80"] {
        server
            .create("/upstreams/u/targets", json!({"target": target}))
            .await;
    }
    upstream["id"].as_str().unwrap().to_owned()
}

async fn healths(server: &Server) -> Vec<(String, String)> {
    let (_, shown) = server
        .check("GET", "/upstreams/u/health", Value::Null)
        .await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let data = shown["data"].as_array().unwrap();
    let mut healths: Vec<_> = data
        .iter()
        .map(|one| (text(&one["target"]), text(&one["health"])))
        .collect();
    healths.sort();
    healths
}

fn expected(a: &str, b: &str) -> Vec<(String, String)> {
    vec![
        ("a:80".to_owned(), a.to_owned()),
        ("b:80".to_owned(), b.to_owned()),
    ]
}

fn checks() -> Value {
    json!({"passive": {"unhealthy": {"http_failures": 1}}})
}

#[tokio::test]
async fn what_one_data_plane_says_is_shown() {
    let server = Server::start().await;
    let id = pool(&server, checks()).await;
    assert_eq!(
        healths(&server).await,
        expected("HEALTHCHECKS_OFF", "HEALTHCHECKS_OFF")
    );
    server.report_with("one", &[], Vec::new()).await;
    assert_eq!(healths(&server).await, expected("HEALTHY", "HEALTHY"));
    let bad = vec![
        ailing(&id, Some("a:80"), Some("10.0.0.1:80")),
        ailing(&id, Some("b:80"), None),
        ailing(&uuid::Uuid::nil().to_string(), Some("a:80"), None),
    ];
    server.report_with("two", &[], bad).await;
    assert_eq!(healths(&server).await, expected("UNHEALTHY", "DNS_ERROR"));
    let (_, shown) = server
        .check("GET", "/upstreams/u/health", Value::Null)
        .await;
    let a = shown["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["target"] == "a:80")
        .unwrap();
    let address = json!({"address": "10.0.0.1:80", "health": "UNHEALTHY", "node_id": "two"});
    assert_eq!(a["data"]["addresses"], json!([address]));
    assert_eq!(
        a["data"]["weight"],
        json!({"total": 100, "available": 0, "unavailable": 100})
    );
    server.report_with("two", &[], Vec::new()).await;
    assert_eq!(healths(&server).await, expected("HEALTHY", "HEALTHY"));
}

#[tokio::test]
async fn an_upstream_without_enough_healthy_weight_is_unhealthy() {
    let server = Server::start().await;
    let id = pool(&server, checks()).await;
    server.report_with("one", &[], Vec::new()).await;
    let path = "/upstreams/u/health?balancer_health=1";
    let (_, whole) = server.check("GET", path, Value::Null).await;
    assert_eq!(whole["data"]["health"], "HEALTHY");
    server
        .report_with("one", &[], vec![ailing(&id, None, None)])
        .await;
    let (_, whole) = server.check("GET", path, Value::Null).await;
    assert_eq!(whole["data"]["health"], "UNHEALTHY");
    assert_eq!(whole["data"]["details"]["unhealthy_on"], json!(["one"]));
}

#[tokio::test]
async fn health_is_set_at_the_data_plane() {
    let server = Server::start().await;
    pool(&server, checks()).await;
    let path = "/upstreams/u/targets/a:80/unhealthy";
    let answer = server.send("PUT", path, &[], Value::Null).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("status listener"), "{}", answer.text);
}
