//! Writes that depend on what is there, that are only tried, or that are repeated.

use crate::server::{Answer, Server};
use serde_json::{Value, json};

async fn with_service() -> (Server, String) {
    let server = Server::start().await;
    let service = json!({"name": "s", "host": "a.example"});
    let created = server.send("POST", "/services", &[], service).await;
    let tag = created.header("etag").unwrap().to_owned();
    (server, tag)
}

/// Method and path, header, value (`$tag` is that of `s`), status.
const CONDITIONS: &[(&str, &str, &str, u16)] = &[
    ("PATCH /services/s", "if-match", "$tag", 200),
    ("PATCH /services/s", "if-match", "*", 200),
    ("PATCH /services/s", "if-match", "\"0\", $tag", 200),
    ("PATCH /services/s", "if-match", "\"0\"", 412),
    ("PATCH /services/s", "if-match", "W/$tag", 412),
    ("PATCH /services/s", "if-match", "", 412),
    ("PATCH /services/s", "if-none-match", "$tag", 412),
    ("PATCH /services/s", "if-none-match", "\"0\"", 200),
    ("PATCH /services/none", "if-match", "*", 404),
    ("PUT /services/s", "if-none-match", "*", 412),
    ("PUT /services/new", "if-none-match", "*", 200),
    ("PUT /services/new", "if-match", "*", 412),
    ("PUT /services/new", "if-match", "$tag", 412),
    ("POST /services", "if-match", "*", 412),
    ("POST /services", "if-none-match", "*", 201),
    ("DELETE /services/s", "if-match", "\"0\"", 412),
    ("DELETE /services/s", "if-match", "$tag", 204),
    ("DELETE /services/none", "if-match", "*", 412),
    ("DELETE /services/none", "if-none-match", "*", 204),
    ("GET /services/s", "if-none-match", "$tag", 304),
    ("GET /services/s", "if-none-match", "W/$tag", 304),
    ("GET /services/s", "if-none-match", "*", 304),
    ("HEAD /services/s", "if-none-match", "$tag", 304),
    ("GET /services/s", "if-none-match", "\"0\"", 200),
    ("GET /services/none", "if-none-match", "*", 404),
];

#[tokio::test]
async fn writes_and_reads_depend_on_the_tag_they_name() {
    for (request, header, value, status) in CONDITIONS {
        let (server, tag) = with_service().await;
        let before = server.version();
        let value = value.replace("$tag", &tag);
        let (method, path) = request.split_once(' ').unwrap();
        let body = match method {
            "GET" | "HEAD" | "DELETE" => Value::Null,
            _ => json!({"host": "b.example"}),
        };
        let answer = server
            .send(method, path, &[(header, value.as_str())], body)
            .await;
        assert_eq!(
            answer.status, *status,
            "{request} {header}: {value}: {}",
            answer.text
        );
        if *status == 412 {
            assert_eq!(server.version(), before, "{request} {header}: {value}");
            assert!(answer.json()["message"].is_string());
        }
        if *status == 304 {
            assert_eq!(
                (answer.text.as_str(), answer.header("etag")),
                ("", Some(tag.as_str()))
            );
        }
    }
}

#[tokio::test]
async fn the_tag_of_a_certificate_tells_its_names() {
    let server = Server::start().await;
    let pem = |name: &str| {
        let path = format!("{}/../schema/tests/pem/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let body = json!({"cert": pem("p256.crt"), "key": pem("p256.key"), "snis": ["a.example"]});
    let created = server.send("POST", "/certificates", &[], body).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let id = created.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/certificates/{id}");
    let tag = created.header("etag").unwrap().to_owned();
    let matching = [("if-match", tag.as_str())];
    server
        .create(&format!("{path}/snis"), json!({"name": "b.example"}))
        .await;
    let known = [("if-none-match", tag.as_str())];
    assert_eq!(
        server.send("GET", &path, &known, Value::Null).await.status,
        200
    );
    let stale = server
        .send("PATCH", &path, &matching, json!({"snis": ["a.example"]}))
        .await;
    assert_eq!(stale.status, 412, "the other name would be lost");
}

#[tokio::test]
async fn a_dry_run_tells_what_would_be_and_appends_nothing() {
    let (server, tag) = with_service().await;
    let before = server.version();
    let wanted = json!({"host": "b.example", "name": "t"});
    for (method, path, body, outcome) in [
        ("POST", "/services?dry_run=1", wanted.clone(), "created"),
        ("PUT", "/services/t?dry_run=1", wanted.clone(), "created"),
        (
            "PUT",
            "/services/s?dry_run=true",
            json!({"host": "b.example"}),
            "updated",
        ),
        (
            "PATCH",
            "/services/s?dry_run=1",
            json!({"host": "b.example"}),
            "updated",
        ),
        ("DELETE", "/services/s?dry_run=1", Value::Null, "deleted"),
    ] {
        let answer = server.send(method, path, &[], body).await;
        let shown = answer.json();
        assert_eq!(answer.status, 200, "{method} {path}: {shown}");
        assert_eq!(answer.header("sluice-dry-run"), Some("true"));
        assert_eq!(shown["outcome"], outcome, "{method} {path}");
        assert_eq!(shown["event"]["version"], before + 1, "{method} {path}");
        if outcome != "deleted" {
            assert_eq!(shown["entity"]["host"], "b.example", "{method} {path}");
        }
    }
    let refused = server
        .check("POST", "/services?dry_run=1", json!({"host": "-"}))
        .await;
    assert_eq!(refused.0, 400);
    let stale = [("if-match", "\"0\"")];
    let answer = server
        .send("DELETE", "/services/s?dry_run=1", &stale, Value::Null)
        .await;
    assert_eq!(answer.status, 412);
    assert_eq!(
        server
            .check("DELETE", "/services/s?dry_run=maybe", Value::Null)
            .await
            .0,
        400
    );
    assert_eq!(server.version(), before);
    let known = [("if-none-match", tag.as_str())];
    assert_eq!(
        server
            .send("GET", "/services/s", &known, Value::Null)
            .await
            .status,
        304
    );
}

async fn keyed(server: &Server, method: &str, path: &str, key: &str, body: Value) -> Answer {
    server
        .send(method, path, &[("idempotency-key", key)], body)
        .await
}

#[tokio::test]
async fn a_key_stands_for_one_request_only() {
    let server = Server::start().await;
    let ann = json!({"username": "ann"});
    let first = keyed(&server, "POST", "/consumers", "k", ann.clone()).await;
    assert_eq!(first.status, 201);
    let after = server.version();
    let again = keyed(&server, "POST", "/consumers", "k", ann.clone()).await;
    assert_eq!((again.status, again.json()), (201, first.json()));
    assert_eq!(
        (again.version(), server.version()),
        (first.version(), after)
    );
    for (method, path, body) in [
        ("POST", "/consumers", json!({"username": "bob"})),
        ("POST", "/consumers", json!({"username": ""})),
        ("PUT", "/consumers/ann", ann.clone()),
        ("POST", "/services", ann.clone()),
        ("DELETE", "/consumers/ann", Value::Null),
    ] {
        let reused = keyed(&server, method, path, "k", body).await;
        assert_eq!(reused.status, 422, "{method} {path}: {}", reused.text);
        let message = reused.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("Idempotency-Key"), "{message}");
    }
    assert_eq!(server.version(), after, "nothing was appended");
    let other = keyed(
        &server,
        "POST",
        "/consumers",
        "l",
        json!({"username": "bob"}),
    )
    .await;
    assert_eq!(other.status, 201);
}

#[tokio::test]
async fn of_two_requests_at_once_with_one_key_only_one_is_carried_out() {
    let server = Server::start().await;
    let before = server.version();
    let requests = (0..8).map(|number| {
        let body = json!({"username": format!("user-{}", number % 2)});
        keyed(&server, "POST", "/consumers", "k", body)
    });
    let answers = futures::future::join_all(requests).await;
    let created: Vec<String> = answers
        .iter()
        .filter(|answer| answer.status == 201)
        .map(|answer| answer.json()["username"].to_string())
        .collect();
    assert_eq!(created.len(), 4, "{answers:?}");
    assert!(
        created.iter().all(|name| *name == created[0]),
        "{created:?}"
    );
    assert!(
        answers
            .iter()
            .all(|answer| [201, 422].contains(&answer.status))
    );
    assert_eq!(server.version(), before + 1);
}
