//! The dependency arrows of ARCHITECTURE.md, and that every crate keeps the workspace's lints.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Which of our crates each may depend on, in its code, its tests and its build.
const ARROWS: &[(&str, &[&str])] = &[
    ("sluice-schema", &[]),
    ("sluice-replica", &["sluice-schema"]),
    ("sluice-cp", &["sluice-schema", "sluice-replica"]),
    ("sluice-dp", &["sluice-schema", "sluice-replica"]),
    (
        "sluice",
        &["sluice-schema", "sluice-replica", "sluice-cp", "sluice-dp"],
    ),
    (
        "sluice-tests",
        &[
            "sluice-schema",
            "sluice-replica",
            "sluice-cp",
            "sluice-dp",
            "sluice",
        ],
    ),
];

/// What the schema must not be able to reach: IO, clocks, randomness.
const IMPURE: &[&str] = &[
    "anyhow",
    "async-nats",
    "async-trait",
    "axum",
    "clap",
    "futures",
    "hyper",
    "hyper-util",
    "rand",
    "rustix",
    "sled",
    "socket2",
    "tokio",
    "tokio-util",
    "tracing",
    "ureq",
];

/// Who may name a library that stands for a side of the system.
const OWNERS: &[(&str, &[&str])] = &[
    ("async-nats", &["sluice-replica", "sluice-tests"]),
    ("sled", &["sluice-replica"]),
    ("axum", &["sluice-cp"]),
    (
        "clap",
        &[
            "sluice-replica",
            "sluice-cp",
            "sluice-dp",
            "sluice",
            "sluice-tests",
        ],
    ),
];

#[test]
fn dependencies_point_only_where_the_architecture_says() {
    let found = dependencies();
    let known: Vec<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for (name, depends_on) in &found {
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| known == name) else {
            panic!(
                "crate '{name}' is not in ARROWS; a further crate needs a decision in docs/decisions"
            );
        };
        for dependency in depends_on
            .iter()
            .filter(|dependency| known.contains(&dependency.as_str()))
        {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
    for (name, _) in ARROWS {
        assert!(
            found.contains_key(*name),
            "crate '{name}' is gone; correct ARROWS"
        );
    }
}

#[test]
fn the_schema_cannot_reach_the_world() {
    let schema = &dependencies()["sluice-schema"];
    for impure in IMPURE {
        assert!(
            !schema.iter().any(|name| name == impure),
            "sluice-schema must not depend on {impure}"
        );
    }
}

#[test]
fn the_broker_the_store_and_the_admin_api_have_one_owner_each() {
    for (name, depends_on) in dependencies() {
        for (library, owners) in OWNERS {
            let uses = depends_on.iter().any(|dependency| dependency == library);
            assert!(
                !uses || owners.contains(&name.as_str()),
                "{name} must not depend on {library}"
            );
        }
    }
}

#[test]
fn every_crate_keeps_the_lints_of_the_workspace() {
    for package in packages() {
        let path = package["manifest_path"]
            .as_str()
            .expect("a package has a manifest");
        let manifest = std::fs::read_to_string(path).expect("the manifest can be read");
        let keeps = manifest
            .split("\n[")
            .any(|table| table.starts_with("lints]") && table.contains("workspace = true"));
        assert!(keeps, "{path} has no '[lints] workspace = true'");
    }
}

/// Each of our crates with the names of everything it depends on directly.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names = |package: &Value| {
        let list = package["dependencies"]
            .as_array()
            .expect("a package has dependencies");
        list.iter()
            .map(|dependency| text(&dependency["name"]))
            .collect()
    };
    packages()
        .iter()
        .map(|package| (text(&package["name"]), names(package)))
        .collect()
}

fn packages() -> Vec<Value> {
    let run = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()
        .expect("cargo runs");
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let metadata: Value = serde_json::from_slice(&run.stdout).expect("cargo answers in JSON");
    metadata["packages"]
        .as_array()
        .expect("the workspace has packages")
        .clone()
}
