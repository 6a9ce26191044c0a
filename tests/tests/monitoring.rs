//! The shipped dashboard, the alert rules and the guide name no metric that is not there.

#![cfg(test)]

use serde_json::{Value, json};
use sluice_tests::cluster::Cluster;
use sluice_tools::admin::Connection;
use std::collections::BTreeSet;
use std::path::Path;

/// What a histogram's series end with.
const OF_HISTOGRAMS: [&str; 3] = ["_bucket", "_sum", "_count"];

#[test]
fn every_metric_that_the_dashboard_the_alerts_and_the_guide_name_exists() {
    // Nobody takes the spans; but they are counted.
    let traces = [vec!["--traces-endpoint=http://127.0.0.1:9"]];
    let cluster = Cluster::start_with(&traces, &traces).unwrap();
    let service = json!({
        "name": "shop", "host": cluster.origin.ip().to_string(), "port": cluster.origin.port(),
        "routes": [{ "name": "shop", "paths": ["/shop"] }],
    });
    let file = json!({ "_format_version": "3.0", "services": [service], "upstreams": [{ "name": "pool" }] });
    cluster.apply(0, &file).unwrap();
    cluster.converge().unwrap();
    assert_eq!(cluster.request(0, "/shop", "").unwrap(), 200);
    let data = Connection::to(cluster.datas[0].status_url())
        .get_text("/metrics")
        .unwrap();
    let control = cluster.admin(0).get_text("/metrics").unwrap();
    let known: BTreeSet<&str> = [&data, &control]
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    for stage in ["received", "stored", "active", "served"] {
        let line = format!("sluice_dp_propagation_seconds_count{{stage=\"{stage}\"}} ");
        assert!(data.contains(&line), "{stage}:\n{data}");
    }
    for stage in ["acknowledged", "active"] {
        let line = format!("sluice_cp_propagation_seconds_count{{stage=\"{stage}\"}} ");
        assert!(control.contains(&line), "{stage}:\n{control}");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    for name in [
        "examples/monitoring/alerts.yaml",
        "examples/monitoring/grafana.json",
        "guide/operating.md",
    ] {
        let text = std::fs::read_to_string(root.join(name)).unwrap();
        let named = named(&text);
        assert!(named.len() > 10, "{name} names only {named:?}");
        let missing: Vec<_> = named.iter().filter(|name| !exists(&known, name)).collect();
        assert!(
            missing.is_empty(),
            "{name}: {missing:?} are not among {known:?}"
        );
    }
}

#[test]
fn the_dashboard_is_json_with_a_query_in_each_panel() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/monitoring/grafana.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 10);
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        assert!(
            targets.iter().all(|target| target["expr"].is_string()),
            "{panel}"
        );
    }
}

#[test]
fn every_alert_has_a_section_in_the_runbook_and_every_section_an_alert() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let alerts = std::fs::read_to_string(docs.join("examples/monitoring/alerts.yaml")).unwrap();
    let runbook = std::fs::read_to_string(docs.join("guide/runbook.md")).unwrap();
    let after = |text: &str, start: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim);
        lines
            .filter_map(|line| line.strip_prefix(start))
            .map(str::to_owned)
            .collect()
    };
    let names = after(&alerts, "- alert: ");
    assert!(names.len() > 10, "{names:?}");
    assert_eq!(after(&runbook, "## "), names, "in the order of the rules");
    let urls: Vec<String> = names
        .iter()
        .map(|name| format!("docs/guide/runbook.md#{}", name.to_lowercase()))
        .collect();
    assert_eq!(after(&alerts, "runbook_url: "), urls);
}

fn exists(known: &BTreeSet<&str>, name: &str) -> bool {
    let base = OF_HISTOGRAMS
        .iter()
        .find_map(|ending| name.strip_suffix(ending));
    known.contains(name) || base.is_some_and(|base| known.contains(base))
}

/// The words that look like metrics of ours.
fn named(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| {
            let metric = ["sluice_dp_", "sluice_cp_", "kong_"];
            metric
                .iter()
                .any(|prefix| word.starts_with(prefix) && word.len() > prefix.len())
        })
        .collect()
}
