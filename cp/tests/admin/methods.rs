//! Every endpoint with every method: the table that the OpenAPI document is, and Kong's own.

use crate::server::{Answer, Server};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// What to put into the variable segments of paths so that something is there.
async fn with_everything() -> Server {
    let server = Server::start().await;
    for (path, body) in [
        ("/services", json!({"name": "x", "host": "a.example"})),
        ("/services/x/routes", json!({"name": "x", "paths": ["/"]})),
        ("/upstreams", json!({"name": "x"})),
        ("/upstreams/x/targets", json!({"target": "x:80"})),
        ("/consumers", json!({"username": "x"})),
        ("/consumers/x/key-auth", json!({"key": "x"})),
        (
            "/consumers/x/basic-auth",
            json!({"username": "x", "password": "p"}),
        ),
        ("/consumers/x/acls", json!({"group": "x"})),
        (
            "/plugins",
            json!({"name": "key-auth", "instance_name": "x"}),
        ),
        ("/key-sets", json!({"name": "x"})),
        ("/vaults", json!({"name": "env", "prefix": "xx"})),
        ("/consumer_groups", json!({"name": "x"})),
        ("/workspaces", json!({"name": "x"})),
    ] {
        server.create(path, body).await;
    }
    server
}

fn filled(path: &str) -> String {
    let fill = |segment: &str| match segment {
        "{level}" => "info".to_owned(),
        "{version}" => "1".to_owned(),
        "{entity}" => "services".to_owned(),
        "{plugin}" => "key-auth".to_owned(),
        "{vault}" => "env".to_owned(),
        "{vaults}" => "xx".to_owned(),
        "{targets}" => "x:80".to_owned(),
        variable if variable.starts_with('{') => "x".to_owned(),
        other => other.to_owned(),
    };
    path.split('/').map(fill).collect::<Vec<_>>().join("/")
}

/// The statuses that the document says may come, if the method is there.
fn documented(operation: Option<&Value>) -> Option<BTreeSet<u16>> {
    let responses = operation?["responses"].as_object().unwrap();
    Some(
        responses
            .keys()
            .map(|status| status.parse().unwrap())
            .collect(),
    )
}

fn allowed(item: &Value) -> String {
    let mut methods: Vec<String> = item
        .as_object()
        .unwrap()
        .keys()
        .filter(|key| *key != "parameters")
        .map(|method| method.to_uppercase())
        .collect();
    methods.sort_unstable();
    methods.join(", ")
}

async fn ask(server: &Server, method: &str, path: &str) -> Answer {
    let path = match path {
        "/nodes/wait" => "/nodes/wait?timeout=0",
        path => path,
    };
    let body = match method {
        "POST" | "PUT" | "PATCH" => json!({}),
        _ => Value::Null,
    };
    server.send(method, path, &[], body).await
}

#[tokio::test]
async fn every_endpoint_answers_every_method_as_documented() {
    let server = with_everything().await;
    let (status, document) = server.check("GET", "/openapi.json", Value::Null).await;
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 140, "{}", paths.len());
    let mut asked = 0;
    for (template, item) in paths {
        let path = filled(template);
        let allow = allowed(item);
        let options = ask(&server, "OPTIONS", &path).await;
        assert_eq!((options.status, options.text.as_str()), (204, ""), "{path}");
        assert_eq!(options.header("allow"), Some(allow.as_str()), "{path}");
        for method in METHODS {
            if template == "/log/watch" && item.get(method.to_lowercase()).is_some() {
                // Its answer has no end.
                continue;
            }
            asked += 1;
            // Deletes last, and nothing that ends the log.
            let operation = item.get(method.to_lowercase());
            let answer = ask(&server, method, &path).await;
            let Some(documented) = documented(operation) else {
                let message = json!({"message": "Method not allowed"});
                let wrong = (
                    405,
                    if method == "HEAD" {
                        Value::Null
                    } else {
                        message
                    },
                );
                assert_eq!((answer.status, answer.json()), wrong, "{method} {path}");
                assert_eq!(answer.header("allow"), Some(allow.as_str()), "{path}");
                continue;
            };
            let status = answer.status;
            assert!(
                documented.contains(&status),
                "{method} {path}: {status} {}",
                answer.text
            );
            let empty = answer.text.is_empty();
            assert_eq!(
                empty,
                method == "HEAD" || [204, 304].contains(&status),
                "{method} {path}"
            );
        }
    }
    assert!(asked > 840, "{asked}");
}

#[tokio::test]
async fn what_is_listed_is_what_is_documented() {
    let server = Server::start().await;
    let (_, document) = server.check("GET", "/openapi.json", Value::Null).await;
    let (_, endpoints) = server.check("GET", "/endpoints", Value::Null).await;
    let listed: Vec<&str> = endpoints["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path.as_str().unwrap())
        .collect();
    let listed_once: BTreeSet<&str> = listed.iter().copied().collect();
    let documented = document["paths"].as_object().unwrap();
    assert_eq!(listed.len(), listed_once.len());
    assert_eq!(listed_once, documented.keys().map(String::as_str).collect());
    let position = |path: &str| listed.iter().position(|listed| *listed == path);
    assert!(position("/tags/{tag}") < position("/targets").or(position("/timers")));
}

/// Kong's statuses: path, then those of GET, POST (an empty object), PUT, PATCH, DELETE. `x` is there, `none` is not.
const KONG: &[(&str, [u16; 5])] = &[
    ("/", [200, 405, 405, 405, 405]),
    ("/status", [200, 405, 405, 405, 405]),
    ("/endpoints", [200, 405, 405, 405, 405]),
    ("/timers", [200, 405, 405, 405, 405]),
    ("/cache", [405, 405, 405, 405, 204]),
    ("/cache/none", [404, 405, 405, 405, 204]),
    ("/plugins/enabled", [200, 405, 405, 405, 405]),
    ("/plugins/schema/key-auth", [200, 405, 405, 405, 405]),
    ("/schemas/services", [200, 405, 405, 405, 405]),
    ("/schemas/keyauth_credentials", [200, 405, 405, 405, 405]),
    ("/schemas/none", [404, 405, 405, 405, 405]),
    ("/schemas/plugins/cors", [200, 405, 405, 405, 405]),
    ("/schemas/vaults/env", [200, 405, 405, 405, 405]),
    ("/schemas/services/validate", [405, 400, 405, 405, 405]),
    ("/schemas/plugins/validate", [405, 400, 405, 405, 405]),
    ("/tags", [200, 405, 405, 405, 405]),
    ("/tags/none", [200, 405, 405, 405, 405]),
    ("/services", [200, 400, 405, 405, 405]),
    ("/services/x", [200, 405, 400, 200, 400]),
    ("/services/none", [404, 405, 400, 404, 204]),
    ("/services/x/routes", [200, 400, 405, 405, 405]),
    ("/services/none/routes", [404, 404, 405, 405, 405]),
    ("/services/x/routes/x", [200, 405, 400, 200, 204]),
    ("/services/x/routes/none", [404, 405, 400, 404, 404]),
    ("/services/x/plugins", [200, 400, 405, 405, 405]),
    ("/services/x/client_certificate", [404, 405, 404, 404, 405]),
    ("/routes/x/service", [200, 405, 400, 200, 405]),
    ("/consumers", [200, 400, 405, 405, 405]),
    ("/consumers/x", [200, 405, 200, 200, 204]),
    ("/consumers/x/key-auth", [200, 201, 405, 405, 405]),
    ("/consumers/x/basic-auth", [200, 400, 405, 405, 405]),
    ("/consumers/x/acls", [200, 400, 405, 405, 405]),
    ("/consumers/x/jwt", [200, 201, 405, 405, 405]),
    ("/consumers/x/jwt/none", [404, 405, 200, 404, 204]),
    ("/key-auths/x/consumer", [200, 405, 400, 200, 405]),
    ("/upstreams/x/health", [200, 405, 405, 405, 405]),
    ("/upstreams/none/health", [404, 405, 405, 405, 405]),
    ("/upstreams/x/targets", [200, 400, 405, 405, 405]),
    ("/upstreams/x/targets/all", [200, 405, 405, 405, 405]),
    ("/upstreams/x/targets/x:80", [200, 405, 200, 200, 204]),
    ("/upstreams/x/targets/none:80", [404, 405, 404, 404, 404]),
    (
        "/upstreams/x/targets/x:80/healthy",
        [405, 400, 400, 405, 405],
    ),
    (
        "/upstreams/x/targets/none:1/unhealthy",
        [405, 404, 404, 405, 405],
    ),
    ("/targets", [404, 404, 404, 404, 404]),
    ("/filter-chains", [400, 400, 405, 405, 405]),
    ("/snis/none/certificate", [404, 404, 404, 404, 404]),
    ("/clustering/data-planes", [200, 405, 405, 405, 405]),
    ("/clustering/data-planes/none", [404, 405, 405, 405, 405]),
    ("/clustering/status", [200, 405, 405, 405, 405]),
    ("/debug/node/log-level", [200, 405, 405, 405, 405]),
    ("/debug/node/log-level/nonsense", [405, 405, 400, 405, 405]),
    ("/workspaces", [200, 400, 405, 405, 405]),
    ("/workspaces/none", [404, 405, 200, 404, 204]),
    // Kong's Enterprise edition has these; others answer as to any unknown path.
    ("/partials", [404, 404, 404, 404, 404]),
    ("/mtls-auths", [404, 404, 404, 404, 404]),
    ("/cloned-plugins", [404, 404, 404, 404, 404]),
    ("/custom-plugins", [404, 404, 404, 404, 404]),
    ("/licenses", [404, 404, 404, 404, 404]),
];

#[tokio::test]
async fn kongs_endpoints_answer_with_kongs_statuses() {
    for (path, [get, post, put, patch, delete]) in KONG {
        let server = with_everything().await;
        // In an order in which what one method does is not seen by the next.
        for (method, status) in [
            ("GET", get),
            ("PATCH", patch),
            ("POST", post),
            ("PUT", put),
            ("DELETE", delete),
        ] {
            let answer = ask(&server, method, path).await;
            assert_eq!(answer.status, *status, "{method} {path}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn the_health_of_targets_is_told_to_be_unknown() {
    let server = with_everything().await;
    server
        .create(
            "/upstreams/x/targets",
            json!({"target": "y:80", "weight": 0}),
        )
        .await;
    let (_, health) = server
        .check("GET", "/upstreams/x/health", Value::Null)
        .await;
    let data = health["data"].as_array().unwrap();
    assert_eq!((data.len(), &health["next"]), (2, &Value::Null), "{health}");
    assert!(
        data.iter()
            .all(|target| target["health"] == "HEALTHCHECKS_OFF")
    );
    assert!(data.iter().any(|target| target["target"] == "x:80"));
    assert!(health["node_id"].is_string());
    let (_, page) = server
        .check("GET", "/upstreams/x/health?size=1", Value::Null)
        .await;
    let next = page["next"].as_str().unwrap();
    let (_, rest) = server.check("GET", next, Value::Null).await;
    assert_eq!(rest["data"].as_array().map(Vec::len), Some(1));
    let path = "/upstreams/x/health?balancer_health=1";
    let (_, whole) = server.check("GET", path, Value::Null).await;
    assert_eq!(whole["data"]["health"], "HEALTHCHECKS_OFF", "{whole}");
}

#[tokio::test]
async fn a_whole_configuration_is_replaced_as_without_a_database() {
    let server = with_everything().await;
    let file = "_format_version: '3.0'\nservices: [{name: s, host: b.example}]\n";
    let form = format!("config={}", file.replace('\n', "%0A").replace(' ', "+"));
    let form_type = [("content-type", "application/x-www-form-urlencoded")];
    let answer = server.send_text("POST", "/config", &form_type, &form).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.json()["services"][0]["name"], "s");
    let (_, routes) = server.check("GET", "/routes", Value::Null).await;
    assert_eq!(routes["data"], json!([]));
    let version = server.version();
    let same = server
        .send(
            "POST",
            "/config?check_hash=1",
            &[],
            json!({ "config": file }),
        )
        .await;
    assert_eq!((same.status, server.version()), (304, version));
    let (_, shown) = server.check("GET", "/config", Value::Null).await;
    assert!(shown["config"].as_str().unwrap().contains("b.example"));
    let broken = server
        .send_text("POST", "/config", &[], "services: {")
        .await;
    assert_eq!((broken.status, &broken.json()["code"]), (400, &json!(14)));
}
