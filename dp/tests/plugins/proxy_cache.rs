//! `proxy-cache`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use http::{Request, Response};
use serde_json::{Value, json};
use sluice_dp::proxy::Options;
use sluice_dp::status::{self, Node, NodeState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// An origin that counts its answers. They are as the request's headers say: `x-status`, `x-type`, `x-control`.
async fn origin() -> Origin {
    let count = AtomicUsize::new(0);
    Origin::serve(move |request| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let header = |name: &str| request.headers().get(name).cloned();
            let status =
                header("x-status").map_or(200, |status| status.to_str().unwrap().parse().unwrap());
            let content = header("x-type").unwrap_or("text/plain".parse().unwrap());
            let mut response = Response::builder()
                .status(status)
                .header("content-type", content);
            if let Some(control) = header("x-control") {
                response = response.header("cache-control", control);
            }
            let response = response
                .header("x-origin", "1")
                .header("connection", "keep-alive");
            response.body(reply(number.to_string())).unwrap()
        })
    })
    .await
}

async fn gateway_at(clock: fn() -> u64, entities: &[Entity]) -> (Origin, Gateway) {
    let origin = origin().await;
    let base = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
        route(3, json!({ "paths": ["/other"] })),
    ];
    let options = Options {
        clock,
        ..Options::default()
    };
    let gateway = Gateway::with(options, &[&base, entities].concat());
    (origin, gateway)
}

fn cache(config: Value) -> Entity {
    let mut config = config;
    config["strategy"] = json!("memory");
    global(10, "proxy-cache", config)
}

async fn outcome(client: &mut Client, target: &str, headers: &[(&str, &str)]) -> String {
    let reply = client.get_with(target, headers).await;
    reply.header("x-cache-status").unwrap_or("none").to_owned()
}

#[tokio::test]
async fn an_answer_is_given_again_as_it_was() {
    static CLOCK: AtomicU64 = AtomicU64::new(NOW);
    let (_origin, gateway) = gateway_at(
        || CLOCK.load(Ordering::Relaxed),
        &[cache(json!({ "cache_ttl": 10 }))],
    )
    .await;
    let mut client = gateway.client().await;
    let first = client.get("/a?b=c").await;
    assert_eq!(
        (first.header("x-cache-status"), first.header("age")),
        (Some("Miss"), None)
    );
    let key = first.header("x-cache-key").unwrap().to_owned();
    assert_eq!(key.len(), 64);
    CLOCK.store(NOW + 7, Ordering::Relaxed);
    let again = client.get("/a?b=c").await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(
        (again.header("x-cache-status"), again.header("age")),
        (Some("Hit"), Some("7"))
    );
    assert_eq!(again.header("x-cache-key"), Some(&*key));
    assert_eq!(
        (again.header("content-type"), again.header("x-origin")),
        (Some("text/plain"), Some("1"))
    );
    assert_eq!(again.header("content-length"), Some("1"));
    // It is over.
    CLOCK.store(NOW + 11, Ordering::Relaxed);
    let later = client.get("/a?b=c").await;
    assert_eq!(later.header("x-cache-status"), Some("Miss"));
    assert_ne!(later.body, first.body);
}

#[tokio::test]
async fn what_is_kept_longer_than_it_is_fresh_is_refreshed() {
    static CLOCK: AtomicU64 = AtomicU64::new(NOW);
    let config = json!({ "cache_ttl": 10, "storage_ttl": 100 });
    let (_origin, gateway) = gateway_at(|| CLOCK.load(Ordering::Relaxed), &[cache(config)]).await;
    let mut client = gateway.client().await;
    for (seconds, expected) in [
        (0, "Miss"),
        (10, "Hit"),
        (11, "Refresh"),
        (12, "Hit"),
        (120, "Miss"),
    ] {
        CLOCK.store(NOW + seconds, Ordering::Relaxed);
        assert_eq!(outcome(&mut client, "/", &[]).await, expected, "{seconds}");
    }
}

#[tokio::test]
async fn what_is_kept_and_asked_for_is_as_configured() {
    let answers = |name, value| -> Vec<(&str, &str)> { vec![(name, value)] };
    // Configuration; two requests, and what becomes of the second.
    let cases = [
        (json!({}), ("/", vec![]), ("/", vec![]), "Hit"),
        (
            json!({}),
            ("/?a=1&b=2", vec![]),
            ("/?b=2&a=1", vec![]),
            "Hit",
        ),
        (json!({}), ("/?a=1", vec![]), ("/?a=2", vec![]), "Miss"),
        (json!({}), ("/a", vec![]), ("/A", vec![]), "Miss"),
        (json!({}), ("/a", vec![]), ("/other", vec![]), "Miss"),
        (
            json!({ "ignore_uri_case": true }),
            ("/a", vec![]),
            ("/A", vec![]),
            "Hit",
        ),
        (
            json!({ "vary_query_params": ["a"] }),
            ("/?a=1&b=2", vec![]),
            ("/?a=1&b=3", vec![]),
            "Hit",
        ),
        (
            json!({ "vary_query_params": ["a"] }),
            ("/?a=1", vec![]),
            ("/?a=2", vec![]),
            "Miss",
        ),
        (
            json!({}),
            ("/", answers("x-v", "1")),
            ("/", answers("x-v", "2")),
            "Hit",
        ),
        (
            json!({ "vary_headers": ["X-V"] }),
            ("/", answers("x-v", "1")),
            ("/", answers("x-v", "2")),
            "Miss",
        ),
        (
            json!({}),
            ("/", answers("x-status", "500")),
            ("/", vec![]),
            "Miss",
        ),
        (
            json!({}),
            ("/", answers("x-status", "404")),
            ("/", vec![]),
            "Hit",
        ),
        (
            json!({}),
            ("/", answers("x-type", "text/html")),
            ("/", vec![]),
            "Miss",
        ),
        (
            json!({}),
            ("/", answers("x-type", "application/json; charset=utf-8")),
            ("/", vec![]),
            "Hit",
        ),
        (
            json!({ "response_code": [500], "content_type": ["text/*"] }),
            ("/", vec![("x-status", "500"), ("x-type", "text/html")]),
            ("/", vec![]),
            "Hit",
        ),
        (
            json!({ "request_method": ["POST"] }),
            ("/", vec![]),
            ("/", vec![]),
            "Bypass",
        ),
        (
            json!({}),
            ("/", vec![]),
            ("/", answers("cache-control", "no-cache")),
            "Hit",
        ),
        (
            json!({ "cache_control": true }),
            ("/", answers("x-control", "max-age=9")),
            ("/", vec![]),
            "Hit",
        ),
        (
            json!({ "cache_control": true }),
            ("/", vec![]),
            ("/", vec![]),
            "Bypass",
        ),
        (
            json!({ "cache_control": true }),
            ("/", answers("x-control", "private, max-age=9")),
            ("/", answers("x-control", "max-age=9")),
            "Miss",
        ),
        (
            json!({ "cache_control": true }),
            ("/", answers("x-control", "max-age=9")),
            ("/", answers("cache-control", "no-store")),
            "Bypass",
        ),
        (
            json!({ "cache_control": true }),
            ("/", answers("x-control", "max-age=9")),
            ("/", answers("authorization", "x")),
            "Bypass",
        ),
        (
            json!({ "cache_control": true }),
            ("/", answers("x-control", "max-age=9")),
            (
                "/",
                vec![
                    ("cache-control", "min-fresh=10"),
                    ("x-control", "max-age=9"),
                ],
            ),
            "Refresh",
        ),
        (
            json!({ "cache_control": true }),
            ("/", vec![]),
            ("/", answers("cache-control", "only-if-cached")),
            "none",
        ),
        (
            json!({ "response_headers": { "X-Cache-Status": false } }),
            ("/", vec![]),
            ("/", vec![]),
            "none",
        ),
    ];
    for (config, first, second, expected) in cases {
        let (_origin, gateway) = gateway_at(|| NOW, &[cache(config.clone())]).await;
        let mut client = gateway.client().await;
        client.get_with(first.0, &first.1).await;
        assert_eq!(
            outcome(&mut client, second.0, &second.1).await,
            expected,
            "{config} {first:?} {second:?}"
        );
    }
}

#[tokio::test]
async fn consumers_do_not_see_each_others_answers_and_heads_have_no_body() {
    let mut entities = key_auth(json!({}));
    entities.extend([
        consumer(20, json!({ "username": "bob" })),
        key_credential(21, 20, json!({ "key": "other" })),
        global(
            30,
            "proxy-cache",
            json!({ "response_headers": { "age": false, "X-Cache-Key": false } }),
        ),
    ]);
    let (_origin, gateway) = gateway_at(|| NOW, &entities).await;
    let mut client = gateway.client().await;
    for (key, expected) in [("secret", "Miss"), ("other", "Miss"), ("secret", "Hit")] {
        assert_eq!(
            outcome(&mut client, "/", &[("apikey", key)]).await,
            expected
        );
    }
    for expected in ["Miss", "Hit"] {
        let request = Request::head("/")
            .header("host", "a.test")
            .header("apikey", "secret");
        let reply = client.send(request.body(empty()).unwrap()).await;
        assert_eq!(reply.header("x-cache-status"), Some(expected));
        assert_eq!(
            (
                reply.header("age"),
                reply.header("x-cache-key"),
                reply.body.len()
            ),
            (None, None, 0)
        );
    }
}

/// The status listener of a gateway.
async fn status_page(gateway: &Gateway) -> Client {
    let node = Node {
        id: "dp-1".parse().unwrap(),
        hostname: "here".into(),
    };
    let shared = gateway.shared.clone();
    let state = NodeState::new(node, shared.metrics, shared.state, shared.upstreams);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(status::serve(
        listener,
        Arc::new(state),
        CancellationToken::new(),
    ));
    Client::connect(address).await
}

#[tokio::test]
async fn what_is_kept_is_counted_shown_and_purged() {
    let (_origin, gateway) = gateway_at(|| NOW, &[cache(json!({}))]).await;
    let mut client = gateway.client().await;
    let mut page = status_page(&gateway).await;
    for expected in ["Miss", "Hit", "Hit"] {
        assert_eq!(outcome(&mut client, "/", &[]).await, expected);
    }
    let metrics = async |page: &mut Client| {
        let reply = page.get("/metrics").await;
        String::from_utf8(reply.body.to_vec()).unwrap()
    };
    let text = metrics(&mut page).await;
    for line in [
        "requests_total{status=\"Hit\"} 2",
        "requests_total{status=\"Miss\"} 1",
        "entries 1",
    ] {
        assert!(
            text.contains(&format!("sluice_dp_proxy_cache_{line}\n")),
            "{text}"
        );
    }
    // Another form of the plugin has another cache; without it nothing is kept.
    gateway.apply(&[cache(json!({ "cache_ttl": 5 }))]);
    let reply = client.get("/").await;
    assert_eq!(reply.header("x-cache-status"), Some("Miss"));
    let key = reply.header("x-cache-key").unwrap().to_owned();
    let plugin = "00000000-0000-0000-0000-00000000000a";
    let own = format!("/proxy-cache/{plugin}/caches/{key}");
    for path in [format!("/proxy-cache/{key}"), own.clone()] {
        let shown = page.get(&path).await;
        assert_eq!(
            (shown.status.as_u16(), &shown.json()["body"]),
            (200, &json!("1"))
        );
        assert_eq!(
            (&shown.json()["ttl"], &shown.json()["plugin"]),
            (&json!(5), &json!(plugin))
        );
    }
    let mut delete = async |path: &str| {
        let request = Request::delete(path).header("host", "a.test");
        page.send(request.body(empty()).unwrap())
            .await
            .status
            .as_u16()
    };
    assert_eq!(delete(&own).await, 204);
    assert_eq!(delete(&own).await, 404);
    assert_eq!(outcome(&mut client, "/", &[]).await, "Miss");
    assert_eq!(delete("/proxy-cache").await, 204);
    assert_eq!(outcome(&mut client, "/", &[]).await, "Miss");
    gateway.remove(&[cache(json!({}))]);
    let text = metrics(&mut page).await;
    assert!(text.contains("sluice_dp_proxy_cache_entries 0\n"), "{text}");
}

#[tokio::test]
async fn proxy_cache_is_consistent() {
    is_consistent(
        |n| {
            vec![
                global(
                    10,
                    "proxy-cache",
                    json!({ "strategy": "memory", "cache_ttl": 1000 + n }),
                ),
                // What is kept shows the edit at which it came.
                global(
                    11,
                    "response-transformer",
                    json!({ "add": { "json": [format!("edit:{n}")] } }),
                ),
            ]
        },
        async |client: &mut Client| client.get("/").await,
        |reply| numbers(&[reply.json()["edit"].as_str().map(str::to_owned)], ""),
    )
    .await;
}
