//! What data planes report, and what is said of plugins that none of them runs.

use crate::server::Server;
use serde_json::{Value, json};
use sluice_cp::fleet::Node;
use sluice_replica::node::{Ailing, Report};
use sluice_schema::digest::Digest;
use sluice_schema::version::{Cursor, Time, Version};
use std::collections::BTreeSet;

impl Server {
    /// Reports as a data plane that runs these plugins, and waits until that is known.
    async fn report(&self, node: &str, plugins: &[&str]) {
        self.report_with(node, plugins, Vec::new()).await;
    }

    /// The same, with what is not well there.
    pub(crate) async fn report_with(&self, node: &str, plugins: &[&str], ailing: Vec<Ailing>) {
        let report = Report {
            ailing: ailing.clone(),
            plugins: plugins.iter().map(|name| (*name).to_owned()).collect(),
            ..report(node, Cursor::default(), Digest::default())
        };
        let log = &self.control_plane.source.log;
        log.report(node, report.encode()).await.unwrap();
        let known = || self.control_plane.fleet.nodes();
        let is_it = |known: &Node| known.report.node == node && known.report.ailing == ailing;
        while !known().iter().any(is_it) {
            tokio::task::yield_now().await;
        }
    }
}

/// What a data plane reports that serves this.
pub(crate) fn report(node: &str, cursor: Cursor, digest: Digest) -> Report {
    Report {
        node: node.to_owned(),
        hostname: "machine".to_owned(),
        software: "1".to_owned(),
        groups: BTreeSet::new(),
        cursor,
        digest,
        durable: Version::ZERO,
        entities: 0,
        rejected: Vec::new(),
        phase: "following".to_owned(),
        last_error: None,
        keyring: 0,
        ailing: Vec::new(),
        leaving: false,
        plugins: Vec::new(),
        time: Time(0),
    }
}

#[tokio::test]
async fn a_plugin_that_no_data_plane_runs_is_stored_with_a_warning() {
    let server = Server::start().await;
    let cors = json!({"name": "cors", "instance_name": "c"});
    let key_auth = json!({"name": "key-auth", "instance_name": "k"});
    let alone = server.send("POST", "/plugins", &[], key_auth).await;
    assert_eq!(alone.status, 201);
    let warning = alone.header("sluice-warning").unwrap();
    assert!(
        warning.contains("key-auth") && warning.contains("not active"),
        "{warning}"
    );
    assert_eq!(
        alone.header("warning"),
        Some(&*format!("199 sluice \"{warning}\""))
    );

    server.report("a", &["key-auth", "rate-limiting"]).await;
    let again = server
        .send("PATCH", "/plugins/k", &[], json!({"tags": ["x"]}))
        .await;
    assert_eq!((again.status, again.header("warning")), (200, None));
    let tried = server
        .send("POST", "/plugins?dry_run=1", &[], cors.clone())
        .await;
    assert!(tried.header("sluice-warning").unwrap().contains("cors"));
    let created = server.send("POST", "/plugins", &[], cors).await;
    assert!(created.header("sluice-warning").unwrap().contains("cors"));
    let (_, nodes) = server.check("GET", "/nodes", Value::Null).await;
    assert_eq!(
        nodes["data"][0]["plugins_missing"],
        json!(["cors"]),
        "{nodes}"
    );
    assert!(nodes["warnings"][0].as_str().unwrap().contains("cors"));

    let off = server
        .send("PATCH", "/plugins/c", &[], json!({"enabled": false}))
        .await;
    assert_eq!((off.status, off.header("sluice-warning")), (200, None));
    let (_, nodes) = server.check("GET", "/nodes", Value::Null).await;
    assert_eq!(nodes["warnings"], json!([]));
    let file = "_format_version: '3.0'\nplugins: [{name: cors}, {name: zipkin}]\n";
    let applied = server.send_text("POST", "/apply", &[], file).await;
    let warning = applied.header("sluice-warning").unwrap();
    assert!(warning.contains("cors, zipkin"), "{warning}");
}

#[tokio::test]
async fn data_planes_are_shown_in_kongs_form() {
    let server = Server::start().await;
    for node in ["a", "b", "c"] {
        server.report(node, &[]).await;
    }
    let (_, page) = server
        .check("GET", "/clustering/data-planes?size=2", Value::Null)
        .await;
    let next = page["next"].as_str().unwrap();
    let (_, rest) = server.check("GET", next, Value::Null).await;
    assert_eq!(
        (&rest["data"][0]["id"], &rest["next"]),
        (&json!("c"), &Value::Null)
    );
    let (status, one) = server
        .check("GET", "/clustering/data-planes/b", Value::Null)
        .await;
    assert_eq!((status, &one["hostname"]), (200, &json!("machine")));
    for field in [
        "ip",
        "version",
        "config_hash",
        "last_seen",
        "sync_status",
        "labels",
        "ttl",
    ] {
        assert!(one.get(field).is_some(), "{field}: {one}");
    }
    let all = server
        .send("GET", "/clustering/status", &[], Value::Null)
        .await;
    assert_eq!(all.header("deprecation"), Some("true"));
    assert_eq!(all.json()["a"]["hostname"], "machine");
}
