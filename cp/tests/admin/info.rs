//! What the control plane tells of itself, its schemas and its nodes.

use crate::server::Server;
use serde_json::{Value, json};

#[tokio::test]
async fn kongs_clients_find_what_they_look_for() {
    let server = Server::start().await;
    server.create("/plugins", json!({"name": "key-auth"})).await;
    let answer = server.send("GET", "/", &[], Value::Null).await;
    let root = answer.json();
    assert_eq!(
        (&root["version"], &root["edition"]),
        (&json!("3.10.0"), &json!("community"))
    );
    assert_eq!(
        root["configuration"]["router_flavor"],
        "traditional_compatible"
    );
    assert!(root["plugins"]["available_on_server"]["key-auth"].is_object());
    assert_eq!(root["plugins"]["enabled_in_cluster"], json!(["key-auth"]));
    assert_eq!(
        answer.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert!(answer.header("server").unwrap().starts_with("sluice/"));
    assert!(
        answer
            .header("x-kong-admin-latency")
            .unwrap()
            .parse::<u64>()
            .is_ok()
    );
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.version(), server.version());

    let (_, status) = server.check("GET", "/status", Value::Null).await;
    assert_eq!(status["database"]["reachable"], true);
    assert_eq!(status["sluice"]["version"], server.version());
    assert_eq!(
        (&status["sluice"]["lag"], &status["sluice"]["phase"]),
        (&json!(0), &json!("following"))
    );
    let (_, enabled) = server.check("GET", "/plugins/enabled", Value::Null).await;
    assert!(
        enabled["enabled_plugins"]
            .as_array()
            .unwrap()
            .contains(&json!("rate-limiting"))
    );
    let (_, endpoints) = server.check("GET", "/endpoints", Value::Null).await;
    let paths = endpoints["data"].as_array().unwrap();
    for path in [
        "/services",
        "/services/{services}/routes/{routes}",
        "/upstreams/{upstreams}/targets",
        "/consumers/{consumers}/key-auth/{key-auth}",
        "/routes/{routes}/service",
        "/log/head",
    ] {
        assert!(paths.contains(&json!(path)), "{path}");
    }
    assert!(!paths.contains(&json!("/targets")));
    for path in ["/nodes", "/clustering/data-planes"] {
        let (status, list) = server.check("GET", path, Value::Null).await;
        assert_eq!((status, &list["data"]), (200, &json!([])), "{path}");
    }
    let metrics = server.send("GET", "/metrics", &[], Value::Null).await.text;
    assert!(metrics.contains(&format!(
        "\nsluice_cp_applied_version {}\n",
        server.version()
    )));
    assert!(metrics.contains("\nsluice_cp_requests_total{method=\"POST\",status=\"201\"} 1\n"));
}

/// The field with this name in a schema's list.
fn field<'a>(schema: &'a Value, name: &str) -> &'a Value {
    let fields = schema["fields"].as_array().unwrap();
    &fields
        .iter()
        .find(|field| field.get(name).is_some())
        .unwrap()[name]
}

#[tokio::test]
async fn schemas_tell_types_defaults_and_rules() {
    let server = Server::start().await;
    let (_, services) = server.check("GET", "/schemas/services", Value::Null).await;
    assert_eq!(
        field(&services, "id"),
        &json!({"type": "string", "uuid": true, "auto": true})
    );
    let retries = json!({"type": "integer", "between": [0, 32767], "default": 5});
    assert_eq!(field(&services, "retries"), &retries);
    assert_eq!(
        services["shorthand_fields"],
        json!([{"url": {"type": "string"}}])
    );
    assert_eq!(field(&services, "tags")["elements"]["type"], "string");
    let (_, routes) = server.check("GET", "/schemas/routes", Value::Null).await;
    assert_eq!(field(&routes, "service")["reference"], "services");
    assert_eq!(
        field(&routes, "protocols")["default"],
        json!(["http", "https"])
    );
}

#[tokio::test]
async fn schemas_of_plugins_tell_their_configuration() {
    let server = Server::start().await;
    let (_, plugin) = server
        .check("GET", "/schemas/plugins/rate-limiting", Value::Null)
        .await;
    let config = field(&plugin, "config");
    assert_eq!(
        (&config["type"], &config["required"]),
        (&json!("record"), &json!(true))
    );
    assert_eq!(field(config, "policy")["default"], "local");
    assert_eq!(field(config, "second")["gt"], 0);
    assert_eq!(field(field(config, "redis"), "port")["default"], 6379);
    let shorthand = &config["shorthand_fields"][0]["redis_host"];
    let replaced = json!([{"path": ["redis", "host"]}]);
    assert_eq!(shorthand["deprecation"]["replaced_with"], replaced);
    let (_, plugin) = server
        .check("GET", "/schemas/plugins/key-auth", Value::Null)
        .await;
    assert_eq!(field(&plugin, "consumer").get("eq"), Some(&Value::Null));
    let elements = &field(&plugin, "protocols")["elements"];
    assert_eq!(
        elements["one_of"],
        json!(["grpc", "grpcs", "http", "https"])
    );
    for (path, message) in [
        ("/schemas/nope", "No entity named 'nope'"),
        ("/schemas/plugins/nope", "No plugin named 'nope'"),
    ] {
        let found = server.check("GET", path, Value::Null).await;
        assert_eq!(found, (404, json!({ "message": message })));
    }
}

#[tokio::test]
async fn schemas_of_plugins_tell_their_rules_by_kongs_names() {
    let server = Server::start().await;
    for (plugin, path, rule, expected) in [
        ("http-log", "http_endpoint", "referenceable", json!(true)),
        ("http-log", "http_endpoint", "encrypted", json!(true)),
        (
            "opentelemetry",
            "queue",
            "default",
            json!({"max_batch_size": 200}),
        ),
        ("file-log", "path", "err", json!("not a valid filename")),
        ("zipkin", "sample_ratio", "between", json!([0, 1])),
        ("zipkin", "sample_ratio", "default", json!(0.001)),
        (
            "bot-detection",
            "allow",
            "elements",
            json!({"type": "string", "is_regex": true}),
        ),
        ("session", "secret", "auto", json!(true)),
    ] {
        let schema = format!("/schemas/plugins/{plugin}");
        let (_, schema) = server.check("GET", &schema, Value::Null).await;
        let found = &field(field(&schema, "config"), path)[rule];
        assert_eq!(*found, expected, "{rule} of {path} of {plugin}");
    }
}

#[tokio::test]
async fn an_entity_can_be_validated_without_being_stored() {
    let server = Server::start().await;
    let before = server.version();
    let valid = (200, json!({"message": "schema validation successful"}));
    for (entity, body) in [
        ("services", json!({"host": "a.example"})),
        (
            "plugins",
            json!({"name": "rate-limiting", "config": {"minute": 1}}),
        ),
        (
            "routes",
            json!({"id": uuid::Uuid::nil().to_string(), "paths": ["/"]}),
        ),
    ] {
        let path = format!("/schemas/{entity}/validate");
        assert_eq!(server.check("POST", &path, body).await, valid, "{entity}");
    }
    for (entity, body) in [
        ("services", json!({})),
        (
            "plugins",
            json!({"name": "rate-limiting", "config": {"minute": "x"}}),
        ),
        ("routes", json!({"id": "x", "paths": ["/"]})),
    ] {
        let path = format!("/schemas/{entity}/validate");
        let (status, answer) = server.check("POST", &path, body).await;
        assert_eq!(
            (status, &answer["code"]),
            (400, &json!(2)),
            "{entity}: {answer}"
        );
    }
    assert_eq!(server.version(), before);
}
