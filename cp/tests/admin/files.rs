//! Declarative files: apply and dump; and what would be if.

use crate::server::{Answer, Server};
use serde_json::{Value, json};

const FILE: &str = r#"
_format_version: "3.0"
services:
- name: s
  host: a.example
  routes:
  - name: r
    paths: ["/r"]
consumers:
- username: ann
"#;

async fn apply(server: &Server, query: &str, text: &str) -> Answer {
    let headers = [("content-type", "application/yaml")];
    server
        .send_text("POST", &format!("/apply{query}"), &headers, text)
        .await
}

#[tokio::test]
async fn a_file_is_one_transaction_and_its_dump_changes_nothing() {
    let server = Server::start().await;
    let start = server.version();
    let answer = apply(&server, "", FILE).await;
    let counts = |version: u64, created, updated, deleted, unchanged| {
        json!({
            "version": version, "created": created, "updated": updated, "deleted": deleted,
            "unchanged": unchanged,
        })
    };
    assert_eq!(
        (answer.status, answer.json()),
        (200, counts(start + 1, 3, 0, 0, 0))
    );
    assert_eq!(answer.version(), start + 1);

    let dump = server.send("GET", "/dump", &[], Value::Null).await;
    assert_eq!(dump.json()["routes"][0]["paths"], json!(["/r"]));
    let again = apply(&server, "?prune=1", &dump.text).await;
    assert_eq!(again.json(), counts(start + 1, 0, 0, 0, 3));

    server
        .create("/services", json!({"name": "more", "host": "b.example"}))
        .await;
    let pruned = apply(&server, "?prune=1", &FILE.replace("/r\"", "/q\"")).await;
    assert_eq!(pruned.json(), counts(start + 3, 0, 1, 1, 2));
}

#[tokio::test]
async fn every_mistake_in_a_file_is_told_with_its_line() {
    let server = Server::start().await;
    let before = server.version();
    let file = "_format_version: \"3.0\"\nservices:\n- name: s\n  port: x\n  host: a.example\n- name: t\nplugins:\n- name: no-such\n";
    let answer = apply(&server, "", file).await;
    let body = answer.json();
    assert_eq!((answer.status, &body["code"]), (400, &json!(14)), "{body}");
    assert_eq!(body["name"], "invalid declarative configuration");
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .starts_with("declarative config is invalid: ")
    );
    let mistakes = body["mistakes"].as_array().unwrap();
    let lines: Vec<_> = mistakes
        .iter()
        .map(|mistake| mistake["line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, [4, 6, 8], "{body}");
    assert_eq!(mistakes[0]["path"], "services[0].port");
    assert_eq!(mistakes[0]["message"], "expected an integer");

    let broken = apply(&server, "", "services: [").await;
    assert_eq!(
        (broken.status, &broken.json()["code"]),
        (400, &json!(14)),
        "{}",
        broken.text
    );
    let odd = apply(&server, "?prune=maybe", FILE).await;
    assert_eq!(odd.status, 400);
    assert_eq!(server.version(), before, "nothing was appended");
}

#[tokio::test]
async fn a_dry_run_shows_the_event_and_appends_nothing() {
    let server = Server::start().await;
    let before = server.version();
    let service = json!({"name": "s", "host": "a.example"});
    let reason = [("sluice-reason", "to see")];
    let answer = server
        .send("POST", "/services?dry_run=1", &reason, service.clone())
        .await;
    let body = answer.json();
    assert_eq!(
        (answer.status, &body["outcome"]),
        (200, &json!("created")),
        "{body}"
    );
    assert_eq!(
        (&body["event"]["version"], &body["event"]["reason"]),
        (&json!(before + 1), &json!("to see"))
    );
    let mutation = &body["event"]["mutations"][0];
    assert_eq!(
        (&mutation["op"], &mutation["name"]),
        (&json!("put"), &json!("s"))
    );
    assert_eq!(mutation["body"]["host"], "a.example");

    let (_, body) = server
        .check("DELETE", "/services/nobody?dry_run=1", Value::Null)
        .await;
    assert_eq!(
        (&body["outcome"], &body["event"]),
        (&json!("deleted"), &Value::Null)
    );
    let body = apply(&server, "?dry_run=1", FILE).await.json();
    assert_eq!(
        (&body["created"], &body["event"]["mutations_count"]),
        (&json!(3), &json!(3))
    );
    let (status, _) = server.check("POST", "/services?dry_run=1", json!({})).await;
    assert_eq!(status, 400);
    assert_eq!(server.version(), before, "nothing was appended");
    assert_eq!(server.check("GET", "/services/s", Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_large_file_is_one_event_of_which_each_entity_can_be_read_and_taken_back() {
    let server = Server::start().await;
    let name = "x".repeat(500);
    let consumers: Vec<Value> = (0..1500)
        .map(|number| json!({"username": format!("{name}{number}")}))
        .collect();
    let file = json!({"_format_version": "3.0", "consumers": consumers}).to_string();
    let answer = apply(&server, "", &file).await;
    assert_eq!(answer.json()["created"], 1500, "{}", answer.text);
    let path = format!("/log/events/{}", answer.version());
    let (_, event) = server.check("GET", &path, Value::Null).await;
    let shown = event["mutations"].as_array().unwrap().len();
    assert_eq!((shown, &event["mutations_count"]), (1000, &json!(1500)));
    let (_, list) = server.check("GET", "/log/events?size=1", Value::Null).await;
    let counted = &list["data"][0];
    assert_eq!(
        (&counted["mutations"], &counted["mutations_count"]),
        (&Value::Null, &json!(1500))
    );
    for number in [0, 700, 1499] {
        let path = format!("/log/history/consumer/{name}{number}");
        let (_, history) = server.check("GET", &path, Value::Null).await;
        let step = &history["data"][0];
        assert_eq!(
            (&step["op"], &step["version"]),
            (&json!("created"), &json!(answer.version()))
        );
        let changes = step["changes"].as_array().unwrap();
        let username = changes.iter().find(|change| change["path"] == "username");
        assert_eq!(username.unwrap()["after"], format!("{name}{number}"));
    }
    let one = format!("/consumers/{name}700");
    server.check("DELETE", &one, Value::Null).await;
    let back = json!({"to": answer.version()});
    let (status, done) = server.check("POST", "/log/rollback", back).await;
    assert_eq!((status, &done["created"]), (200, &json!(1)), "{done}");
    assert_eq!(server.check("GET", &one, Value::Null).await.0, 200);
}

#[tokio::test]
async fn a_dry_run_tells_what_changes_field_by_field_without_secrets() {
    let server = Server::start().await;
    let file = |host: &str, key: &str, secret: &str| {
        format!(
            "_format_version: '3.0'\nservices:\n- {{name: s, url: 'http://{host}/', host: other}}\nconsumers:\n- username: ann\n  keyauth_credentials: [{{id: {}, key: {key}}}]\nplugins:\n- {{name: session, service: s, config: {{secret: {secret}, cookie_name: c}}}}\n",
            uuid::Uuid::from_u128(7)
        )
    };
    let applied = apply(&server, "", &file("a", "first-key", "first-secret")).await;
    assert_eq!(applied.status, 200, "{}", applied.text);
    let warning = &applied.json()["warnings"][0];
    assert_eq!(
        (&warning["line"], &warning["path"]),
        (&json!(3), &json!("services[0].host")),
        "{}",
        applied.text
    );
    let text = file("b", "second-key", "second-secret").replace("cookie_name: c", "cookie_name: d");
    let text = text + "upstreams: [{name: new}]\n";
    let answer = apply(&server, "?dry_run=1", &text).await;
    let body = answer.json();
    assert_eq!(
        (
            &body["created"],
            &body["updated"],
            &body["deleted"],
            &body["unchanged"]
        ),
        (&json!(1), &json!(3), &json!(0), &json!(1)),
        "{body}"
    );
    for secret in ["first-key", "second-key", "first-secret", "second-secret"] {
        assert!(
            !answer.text.contains(secret),
            "{secret} is in {}",
            answer.text
        );
    }
    let mutations = body["event"]["mutations"].as_array().unwrap();
    let of_kind = |kind: &str| {
        mutations
            .iter()
            .find(|mutation| mutation["kind"] == kind)
            .unwrap()
    };
    assert_eq!(
        of_kind("service")["changes"],
        json!([{"path": "host", "before": "a", "after": "b"}])
    );
    assert_eq!(
        of_kind("keyauth_credential")["changes"],
        json!([{"path": "key", "before": "(secret)", "after": "(another secret)"}])
    );
    assert_eq!(
        of_kind("plugin")["changes"],
        json!([
            {"path": "config.cookie_name", "before": "c", "after": "d"},
            {"path": "config.secret", "before": "(secret)", "after": "(another secret)"},
        ])
    );
    assert_eq!(of_kind("plugin")["of"], json!({"service": "s"}));
    let new = of_kind("upstream");
    assert_eq!(
        (&new["before"], &new["body"]["slots"]),
        (&Value::Null, &json!(10000))
    );
}

#[tokio::test]
async fn dumps_are_yaml_if_wanted_and_may_be_of_some_tags_only() {
    let server = Server::start().await;
    let text =
        "_format_version: '3.0'\n_info: {select_tags: [team]}\nservices:\n- {name: s, host: h}\n";
    assert_eq!(apply(&server, "", text).await.status, 200);
    server
        .create("/services", json!({"name": "other", "host": "h"}))
        .await;
    let dump = server
        .send(
            "GET",
            "/dump?format=yaml&select_tags=team",
            &[],
            Value::Null,
        )
        .await;
    assert!(
        dump.text
            .starts_with("_format_version: \"3.0\"\n_info:\n  select_tags:\n  - team\n"),
        "{}",
        dump.text
    );
    assert!(!dump.text.contains("other"), "{}", dump.text);
    let again = apply(&server, "?prune=1", &dump.text).await.json();
    assert_eq!(
        (&again["unchanged"], &again["deleted"]),
        (&json!(1), &json!(0))
    );
    let odd = server
        .send("GET", "/dump?format=xml", &[], Value::Null)
        .await;
    assert_eq!(odd.status, 400);
}
