//! Waiting for data planes: `/nodes/wait` and `Sluice-Wait`.

use crate::nodes::report;
use crate::server::Server;
use serde_json::{Value, json};
use sluice_cp::View;
use sluice_replica::log::Source;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// A data plane that reports, every half a second and at each change, that it serves what the control plane does, or what
/// that did when it stopped following. Ends when dropped.
struct Simulated(JoinHandle<()>);

impl Simulated {
    fn start(server: &Server, node: &str, follows: bool) -> Self {
        let (source, view) = (
            server.control_plane.source.clone(),
            server.control_plane.view.clone(),
        );
        Self(tokio::spawn(run(source, view, node.to_owned(), follows)))
    }
}

async fn run(source: Source, view: View, node: String, follows: bool) {
    let mut status = view.watch();
    let mut served = status.borrow_and_update().clone();
    loop {
        let report = report(&node, served.cursor, served.digest);
        source.log.report(&node, report.encode()).await.unwrap();
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
            changed = status.changed() => changed.unwrap(),
        }
        if follows {
            served = status.borrow_and_update().clone();
        } else {
            status.borrow_and_update();
        }
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn wait(server: &Server, query: &str) -> (u16, Value) {
    server
        .check("GET", &format!("/nodes/wait?{query}"), Value::Null)
        .await
}

#[tokio::test]
async fn a_wait_ends_when_every_live_node_serves_the_version_and_a_node_that_is_gone_stops_counting()
 {
    let server = Server::start().await;
    let (status, early) = wait(&server, "timeout=100ms").await;
    // It may not know all nodes yet.
    assert_eq!(
        (status, &early["outcome"]),
        (202, &json!("listening")),
        "{early}"
    );

    let first = Simulated::start(&server, "first", true);
    let stuck = Simulated::start(&server, "stuck", false);
    let (status, all) = wait(&server, "version=latest&timeout=15").await;
    assert_eq!(
        (status, &all["outcome"], &all["live"]),
        (200, &json!("converged"), &json!(2)),
        "{all}"
    );

    server
        .create("/services", json!({ "name": "a", "host": "h" }))
        .await;
    let asked = Instant::now();
    let (status, behind) = wait(&server, "quorum=all&timeout=300ms").await;
    assert!(asked.elapsed() >= Duration::from_millis(300));
    assert_eq!(
        (status, &behind["converged"]),
        (202, &json!(false)),
        "{behind}"
    );
    assert_eq!(
        (
            &behind["behind"][0]["id"],
            &behind["behind"][0]["lag"],
            &behind["behind_total"]
        ),
        (&json!("stuck"), &json!(1), &json!(1)),
        "{behind}"
    );
    let (status, half) = wait(&server, "quorum=50%25&timeout=5").await;
    assert_eq!(
        (status, &half["needed"], &half["reached"]),
        (200, &json!(1), &json!(1)),
        "{half}"
    );
    let (status, two) = wait(&server, "quorum=2&timeout=100ms").await;
    assert_eq!((status, &two["outcome"]), (202, &json!("behind")), "{two}");

    drop(stuck);
    let (status, without) = wait(&server, "timeout=15").await;
    assert_eq!(
        (status, &without["live"], &without["gone"]),
        (200, &json!(1), &json!(["stuck"])),
        "{without}"
    );
    drop(first);
    let version = server.version() + 1;
    let (status, none) = wait(&server, &format!("version={version}&timeout=100ms")).await;
    assert_eq!(
        (status, &none["outcome"]),
        (202, &json!("unknown_version")),
        "{none}"
    );
}

#[tokio::test]
async fn a_write_with_sluice_wait_is_answered_when_the_nodes_have_it_or_says_who_has_not() {
    let server = Server::start().await;
    let follower = Simulated::start(&server, "follower", true);
    let (status, _) = wait(&server, "timeout=15").await;
    assert_eq!(status, 200);
    let create = |name: &str, wait: &'static str| {
        let body = json!({ "name": name, "host": "h" });
        let server = &server;
        async move {
            server
                .send("POST", "/services", &[("sluice-wait", wait)], body)
                .await
        }
    };

    let refused = create("a", "everybody").await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert_eq!(server.check("GET", "/services/a", Value::Null).await.0, 404);

    let served = create("a", "all; timeout=10").await;
    assert_eq!(served.status, 201, "{}", served.text);
    assert_eq!(
        served.header("sluice-wait-result"),
        Some("converged; reached=1; live=1")
    );
    assert_eq!(served.json()["name"], "a");

    let _stuck = Simulated::start(&server, "stuck", false);
    while wait(&server, "quorum=2&timeout=1").await.0 != 200 {}
    let stored = create("b", "all; timeout=200ms").await;
    let body = stored.json();
    assert_eq!(stored.status, 202, "{body}");
    assert_eq!(body["version"], stored.version());
    assert_eq!(body["wait"]["behind"][0]["id"], "stuck", "{body}");
    assert_eq!(body["result"]["name"], "b");
    assert_eq!(server.check("GET", "/services/b", Value::Null).await.0, 200);
    let one = create("c", "1").await;
    assert_eq!(one.status, 201, "{}", one.text);
    let deleted = server
        .send(
            "DELETE",
            "/services/c",
            &[("sluice-wait", "50%")],
            Value::Null,
        )
        .await;
    assert_eq!((deleted.status, &*deleted.text), (204, ""));
    let tried = server
        .send(
            "DELETE",
            "/services/a?dry_run=1",
            &[("sluice-wait", "2;timeout=100ms")],
            Value::Null,
        )
        .await;
    assert_eq!(tried.status, 200, "{}", tried.text);
    drop(follower);
}
