//! What is refused, in Kong's words; nothing is appended then.

use crate::server::Server;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Method and path, body, status, code, fields. `$id` is the service `s`, `$nobody` an id of nothing.
const INVALID: &[(&str, &str, u16, u16, &str)] = &[
    (
        "POST /services",
        r#"{"name": "s", "host": "b"}"#,
        409,
        5,
        r#"{"name": "s"}"#,
    ),
    (
        "POST /services",
        r#"{"id": "$id", "host": "b"}"#,
        400,
        3,
        r#"{"id": "$id"}"#,
    ),
    (
        "POST /services",
        "{}",
        400,
        2,
        r#"{"host": "required field missing"}"#,
    ),
    (
        "POST /services",
        r#"{"host": "b", "x": 1}"#,
        400,
        2,
        r#"{"x": "unknown field"}"#,
    ),
    (
        "POST /services",
        r#"{"host": "b", "port": "x"}"#,
        400,
        2,
        r#"{"port": "expected an integer"}"#,
    ),
    (
        "POST /routes",
        r#"{"paths": ["/"], "service": {"id": "$nobody"}}"#,
        400,
        4,
        r#"{"service": {"id": "$nobody"}}"#,
    ),
    (
        "POST /routes",
        r#"{"paths": ["/"], "service": {"name": "x"}}"#,
        400,
        13,
        r#"{"service": {"name": "x"}}"#,
    ),
    (
        "PATCH /services/s",
        r#"{"id": "$nobody"}"#,
        400,
        2,
        r#"{"id": "immutable field cannot be updated"}"#,
    ),
    (
        "POST /plugins",
        r#"{"name": "no-such"}"#,
        400,
        2,
        r#"{"name": "plugin 'no-such' not enabled; add it to the 'plugins' configuration property"}"#,
    ),
];

#[tokio::test]
async fn invalid_entities_are_refused_with_kongs_errors() {
    let server = Server::start().await;
    let service = server
        .create("/services", json!({"name": "s", "host": "a.example"}))
        .await;
    let id = service["id"].as_str().unwrap();
    let nobody = Uuid::new_v4().to_string();
    let parse = |text: &str| -> Value {
        serde_json::from_str(&text.replace("$id", id).replace("$nobody", &nobody)).unwrap()
    };
    let before = server.version();
    for (request, body, status, code, fields) in INVALID {
        let (method, path) = request.split_once(' ').unwrap();
        let (found, answer) = server.check(method, path, parse(body)).await;
        assert_eq!(found, *status, "{request} {body}: {answer}");
        assert_eq!(
            (&answer["code"], &answer["fields"]),
            (&json!(code), &parse(fields)),
            "{body}"
        );
        assert!(answer["name"].is_string() && answer["message"].is_string());
    }
    let regex = json!({"paths": ["~/(("]});
    let (status, answer) = server.check("POST", "/routes", regex).await;
    assert_eq!((status, &answer["code"]), (400, &json!(2)), "{answer}");
    assert_eq!(server.version(), before, "nothing was appended");
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_refused() {
    let server = Server::start().await;
    let before = server.version();
    let (json_type, deep) = ("application/json", "[".repeat(10_000));
    let not_json = json!({"message": "Cannot parse JSON body"});
    for (content_type, text) in [
        (json_type, "{\"host\": "),
        (json_type, "[1]"),
        (json_type, "null"),
        (json_type, deep.as_str()),
        ("Application/JSON; charset=utf-8", "{"),
    ] {
        let headers = [("content-type", content_type)];
        let answer = server.send_text("POST", "/services", &headers, text).await;
        assert_eq!(
            (answer.status, answer.json()),
            (400, not_json.clone()),
            "{content_type}"
        );
    }
    for content_type in ["text/plain", "multipart/mixed; boundary=x", ""] {
        let headers = [("content-type", content_type)];
        let answer = server
            .send_text("POST", "/services", &headers, "{\"host\":\"a\"}")
            .await;
        assert_eq!(answer.status, 415, "{content_type}");
    }
    let two = [("content-type", json_type), ("content-type", "text/plain")];
    assert_eq!(
        server
            .send_text("POST", "/services", &two, "{}")
            .await
            .status,
        400
    );
    let large = [("content-type", json_type), ("content-length", "9000000")];
    let answer = server.send_text("POST", "/services", &large, "").await;
    assert_eq!(answer.status, 413);
    assert_eq!(server.version(), before, "nothing was appended");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_apart() {
    let server = Server::start().await;
    let (missing, wrong) = (
        json!({"message": "Not found"}),
        json!({"message": "Method not allowed"}),
    );
    for (method, path, status, body) in [
        ("GET", "/nope", 404, &missing),
        ("GET", "/other/no/such", 404, &missing),
        ("GET", "/services//", 404, &missing),
        ("GET", "/services/a/b/c/d", 404, &missing),
        ("GET", "/services/%ff", 404, &missing),
        ("GET", "/consumer-groups", 404, &missing),
        ("PUT", "/services", 405, &wrong),
        ("DELETE", "/services", 405, &wrong),
        ("POST", "/services/s", 405, &wrong),
        ("POST", "/", 405, &wrong),
        ("GET", "/apply", 405, &wrong),
        ("BREW", "/services", 405, &wrong),
    ] {
        let found = server.check(method, path, Value::Null).await;
        assert_eq!(found, (status, body.clone()), "{method} {path}");
    }
    let answer = server.send("DELETE", "/services", &[], Value::Null).await;
    assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS, POST"));
}

#[tokio::test]
async fn pages_of_other_sites_are_kept_out() {
    let server = Server::start().await;
    let service = json!({"host": "a.example"});
    for (headers, status) in [
        (vec![("origin", "http://evil.example")], 403),
        (vec![("sec-fetch-site", "cross-site")], 403),
        (vec![("host", "evil.example")], 403),
        (vec![("origin", "http://gui.example")], 201),
        (vec![("origin", "http://127.0.0.1:8002")], 201),
        (vec![("host", "gui.example:8001")], 201),
        (vec![], 201),
    ] {
        let answer = server
            .send("POST", "/services", &headers, service.clone())
            .await;
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text);
    }
    let origin = [
        ("origin", "http://gui.example"),
        ("access-control-request-headers", "x-a"),
    ];
    let asked = server
        .send("OPTIONS", "/services/s", &origin, Value::Null)
        .await;
    assert_eq!(asked.status, 204);
    assert_eq!(
        asked.header("allow"),
        Some("DELETE, GET, HEAD, OPTIONS, PATCH, PUT")
    );
    assert_eq!(
        asked.header("access-control-allow-methods"),
        asked.header("allow")
    );
    assert_eq!(asked.header("access-control-allow-headers"), Some("x-a"));
    assert_eq!(
        asked.header("access-control-allow-origin"),
        Some("http://gui.example")
    );
    assert_eq!(
        asked.header("access-control-allow-credentials"),
        Some("true")
    );
}

#[tokio::test]
async fn without_a_writer_reads_go_on_and_writes_say_when_to_come_back() {
    let mut server = Server::start().await;
    server
        .create("/services", json!({"name": "s", "host": "a.example"}))
        .await;
    // Another listener outlives the control plane's writer and log.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    server.address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let control_plane = server.control_plane.clone();
    let serving = tokio::spawn(sluice_cp::admin::serve(
        listener,
        None,
        None,
        control_plane,
        stop.clone(),
    ));
    server.shutdown.cancel();

    let mut refused = server.send("DELETE", "/services/s", &[], Value::Null).await;
    while refused.status == 204 {
        refused = server.send("DELETE", "/services/s", &[], Value::Null).await;
    }
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1"))
    );
    assert!(
        refused.json()["message"]
            .as_str()
            .unwrap()
            .contains("cannot be changed")
    );
    assert_eq!(server.check("GET", "/services", Value::Null).await.0, 200);
    stop.cancel();
    serving.await.unwrap().unwrap();
}
