//! The Admin API over the broker, with the permissions that admin-service.conf ships: who may use it, who may not, and that
//! an answer goes nowhere but into an inbox.

use crate::support::{PATIENCE, include, shipped};
use async_nats::{Client, ConnectOptions, Event, HeaderMap};
use serde_json::{Value, json};
use sluice_tests::nats::Nats;
use sluice_tests::processes::ControlPlane;
use std::time::Duration;
use tokio::sync::mpsc;

const SUBJECT: &str = "sluice.main.admin";

struct Fleet {
    nats: Nats,
    control: ControlPlane,
    _directory: tempfile::TempDir,
}

impl Fleet {
    fn start(more: &[&str]) -> Self {
        let files = shipped("admin-service.conf", &[]);
        let nats = Nats::start_with_files(&include("admin-service.conf"), &files).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let flags = [&["--nats-inbox-prefix=_INBOX_cp"], more].concat();
        let url = nats.url_as("cp", "change-me-cp");
        let control = ControlPlane::start(&url, &path.join("cp-0"), &path.join("keys"), &flags);
        Self {
            nats,
            control: control.unwrap(),
            _directory: directory,
        }
    }

    /// A client, and what the broker complains about to it.
    async fn client(&self, user: &str) -> (Client, mpsc::UnboundedReceiver<String>) {
        let (sender, said) = mpsc::unbounded_channel();
        let client = ConnectOptions::new()
            .custom_inbox_prefix(format!("_INBOX_{user}"))
            .request_timeout(Some(Duration::from_secs(5)))
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    let _ = sender.send(error.to_string());
                }
                std::future::ready(())
            })
            .user_and_password(user.to_owned(), format!("change-me-{user}"))
            .connect(self.nats.url())
            .await
            .unwrap();
        (client, said)
    }
}

async fn ask(
    client: &Client,
    method: &str,
    path: &str,
    body: &Value,
) -> Option<(u16, HeaderMap, Value)> {
    let mut headers = HeaderMap::new();
    headers.insert("Sluice-Method", method);
    headers.insert("Sluice-Path", path);
    headers.insert("Sluice-Actor", "deploy");
    let payload = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let asked = client
        .request_with_headers(SUBJECT, headers, payload.into())
        .await
        .ok()?;
    let headers = asked.headers.unwrap_or_default();
    let status = headers.get("Sluice-Status")?.as_str().parse().ok()?;
    let body = serde_json::from_slice(&asked.payload).unwrap_or(Value::Null);
    Some((status, headers, body))
}

/// The same once somebody answers.
async fn ask_surely(
    client: &Client,
    method: &str,
    path: &str,
    body: &Value,
) -> (u16, HeaderMap, Value) {
    let asking = async {
        loop {
            match ask(client, method, path, body).await {
                // The control plane may not have reached the log yet.
                Some((503, ..)) | None => tokio::time::sleep(Duration::from_millis(50)).await,
                Some(answer) => return answer,
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .expect("no answer in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_with_the_right_may_do_what_the_admin_api_does_and_is_told_the_same() {
    let fleet = Fleet::start(&["--admin-over-nats=on"]);
    let (tool, _said) = fleet.client("tool").await;
    let service = json!({ "name": "a", "host": "h" });
    let (status, headers, body) = ask_surely(&tool, "POST", "/services", &service).await;
    assert_eq!((status, &body["name"]), (201, &json!("a")), "{body}");
    let version: u64 = headers
        .get("sluice-version")
        .unwrap()
        .as_str()
        .parse()
        .unwrap();
    let (status, headers, body) = ask_surely(&tool, "POST", "/services", &service).await;
    assert_eq!((status, &body["code"]), (409, &json!(5)), "{body}");
    assert_eq!(
        headers.get("Nats-Service-Error-Code").unwrap().as_str(),
        "409"
    );
    let (_, _, event) = ask_surely(
        &tool,
        "GET",
        &format!("/log/events/{version}"),
        &Value::Null,
    )
    .await;
    assert_eq!(
        (&event["actor"]["name"], &event["actor"]["via"]),
        (&json!("deploy"), &json!("nats")),
        "{event}"
    );
    let (status, ..) = ask_surely(&tool, "DELETE", "/services/a", &Value::Null).await;
    assert_eq!(status, 204);
    let (status, ..) = ask_surely(&tool, "GET", "/log/watch", &Value::Null).await;
    assert_eq!(status, 400);
    let asked = tool.request(SUBJECT, "".into()).await.unwrap();
    assert_eq!(
        asked
            .headers
            .unwrap()
            .get("Sluice-Status")
            .unwrap()
            .as_str(),
        "400"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_may_ask_and_no_answer_goes_into_the_log() {
    let fleet = Fleet::start(&["--admin-over-nats=on"]);
    let (tool, mut said) = fleet.client("tool").await;
    ask_surely(&tool, "GET", "/status", &Value::Null).await;
    for user in ["dp-1", "dps", "auditor"] {
        let (client, mut said) = fleet.client(user).await;
        client.publish(SUBJECT, "{}".into()).await.unwrap();
        client.flush().await.unwrap();
        let violation = tokio::time::timeout(PATIENCE, said.recv())
            .await
            .unwrap()
            .unwrap();
        assert!(
            violation.contains("Permissions Violation") && violation.contains(SUBJECT),
            "{user}: {violation}"
        );
    }
    // A tool may do what the service does, and nothing besides.
    for subject in [
        "sluice.main.log.default.service.x",
        "sluice.main.head",
        "$JS.API.STREAM.PURGE.SLUICE_main",
        "sluice.main.node.dp-1",
    ] {
        tool.publish(subject, "{}".into()).await.unwrap();
        tool.flush().await.unwrap();
        let violation = tokio::time::timeout(PATIENCE, said.recv())
            .await
            .unwrap()
            .unwrap();
        assert!(
            violation.to_lowercase().contains("permissions violation"),
            "{subject}: {violation}"
        );
    }
    // The log begins with an event of the control plane's own.
    let begun = async {
        loop {
            let (_, _, head) = ask_surely(&tool, "GET", "/log/head", &Value::Null).await;
            if head["last"] == 1 {
                return head;
            }
        }
    };
    let before = tokio::time::timeout(PATIENCE, begun)
        .await
        .expect("the log did not begin");
    // The control plane itself could be made to write there: by naming the log as the place of the answer.
    for reply in [
        "sluice.main.log.default.service.x",
        "$JS.API.STREAM.PURGE.SLUICE_main",
        "_INBOX_cp.x",
    ] {
        tool.publish_with_reply(SUBJECT, reply, "{}".into())
            .await
            .unwrap();
    }
    tool.flush().await.unwrap();
    let (_, _, after) = ask_surely(&tool, "GET", "/log/head", &Value::Null).await;
    assert_eq!(
        (&before["last"], &before["first"]),
        (&after["last"], &after["first"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers_unless_it_was_switched_on() {
    let fleet = Fleet::start(&[]);
    let (tool, _said) = fleet.client("tool").await;
    let admin = sluice_tools::admin::Connection::to(fleet.control.url());
    while admin.get("/status").is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(ask(&tool, "GET", "/status", &Value::Null).await.is_none());
}
