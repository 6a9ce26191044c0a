//! A bad day and the way back, with the `sluice` command on a real cluster.

#![cfg(test)]

use serde_json::{Value, json};
use sluice_tests::cluster::Cluster;
use sluice_tests::processes::command;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

/// The command on control plane 0.
fn sluice(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = command("sluice").unwrap();
    command.args(arguments);
    command.arg(format!("--admin-url={}", cluster.controls[0].url()));
    command.env("USER", "ann");
    command
}

fn run(cluster: &Cluster, arguments: &[&str]) -> Output {
    sluice(cluster, arguments).output().unwrap()
}

/// What it prints if it succeeds.
fn said(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = run(cluster, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}\n{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What it complains about if it fails.
fn complaint(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = run(cluster, arguments);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

/// A change by somebody with a reason, which must be accepted. Gives back its version.
fn change(cluster: &Cluster, who: (&str, &str), path: &str, body: &Value) -> u64 {
    let headers = [("sluice-actor", who.0), ("sluice-reason", who.1)];
    let text = body.to_string();
    let answer = cluster
        .admin(0)
        .post(path, "application/json", &headers, text.as_bytes());
    let answer = answer.unwrap();
    assert!(answer.status < 300, "{path}: {}", answer.body);
    answer.version.unwrap()
}

fn file(cluster: &Cluster, path: &str, more: &[Value]) -> Value {
    let (host, port) = (cluster.origin.ip().to_string(), cluster.origin.port());
    let shop = json!({
        "name": "shop", "host": host, "port": port, "routes": [{"name": "cart", "paths": [path]}],
    });
    let services: Vec<Value> = [shop].into_iter().chain(more.iter().cloned()).collect();
    json!({ "_format_version": "3.0", "services": services })
}

/// A shop that works at one version and does not from another on, with other changes around. Gives back both.
fn bad_day(cluster: &Cluster) -> (u64, u64) {
    let good = change(
        cluster,
        ("ann", "open the shop"),
        "/apply",
        &file(cluster, "/cart", &[]),
    );
    cluster.converge().unwrap();
    assert_eq!(cluster.request(0, "/cart", "").unwrap(), 200);
    let other = json!({"name": "blog", "host": "blog.example"});
    change(cluster, ("carl", "a blog"), "/services", &other);
    let bad = change(
        cluster,
        ("bob", "tidy up the paths"),
        "/apply",
        &file(cluster, "/basket", &[]),
    );
    let consumer = json!({"username": "anna"});
    change(cluster, ("carl", ""), "/consumers", &consumer);
    cluster.converge().unwrap();
    assert_eq!(cluster.request(0, "/cart", "").unwrap(), 404);
    (good, bad)
}

#[test]
fn the_version_that_broke_a_request_is_found() {
    let cluster = Cluster::start(1, 1).unwrap();
    let (good, bad) = bad_day(&cluster);
    let broke = format!("version {bad} broke it");
    let request = ["bisect", "--request", "GET http://test/cart"];
    let bisected = said(&cluster, &[&request[..], &["--expect", "cart"]].concat());
    assert!(bisected.contains(&broke), "{bisected}");
    assert!(
        bisected.contains("by bob") && bisected.contains("tidy up the paths"),
        "{bisected}"
    );
    let from = format!("--from={good}");
    let by_status = said(&cluster, &[&request[..], &["--expect=200", &from]].concat());
    assert!(by_status.contains(&broke), "{by_status}");
    let never = [
        "bisect",
        "--request",
        "GET http://test/basket",
        "--expect",
        "shop",
    ];
    assert_eq!(run(&cluster, &never).status.code(), Some(1));
}

#[test]
fn a_bad_change_is_shown_blamed_and_found_in_the_log() {
    let cluster = Cluster::start(1, 1).unwrap();
    let (_, bad) = bad_day(&cluster);
    let shown = said(&cluster, &["show", &bad.to_string()]);
    assert!(
        shown.contains("bob") && shown.contains(r#"~ paths: ["/cart"] -> ["/basket"]"#),
        "{shown}"
    );
    let blamed = said(&cluster, &["blame", "route", "cart"]);
    let paths = blamed.lines().find(|line| line.starts_with("paths"));
    let paths = paths.unwrap();
    assert!(
        paths.contains("bob") && paths.contains("tidy up"),
        "{blamed}"
    );
    let logged = said(&cluster, &["log", "--entity", "route/cart"]);
    assert_eq!(logged.lines().count(), 2, "{logged}");
    let by_reason = said(&cluster, &["log", "--reason", "TIDY", "--json"]);
    let event: Value = serde_json::from_str(&by_reason).unwrap();
    assert_eq!(event["version"], bad);
    let newest = said(&cluster, &["log", "--newest-first", "-n", "2"]);
    let first = newest.lines().next().unwrap().trim_start();
    assert!(first.starts_with(&(bad + 1).to_string()), "{newest}");
}

#[test]
fn a_bad_change_is_taken_back_and_nothing_else() {
    let cluster = Cluster::start(2, 1).unwrap();
    let (good, bad) = bad_day(&cluster);
    let range = [format!("--from={good}"), format!("--to={bad}")];
    let differing = run(&cluster, &["diff", &range[0], &range[1]]);
    assert_eq!(differing.status.code(), Some(1));
    let differing = String::from_utf8(differing.stdout).unwrap();
    assert!(
        differing.contains("1 created, 1 updated, 0 deleted"),
        "{differing}"
    );
    let then = said(&cluster, &["dump", &format!("--at={good}")]);
    assert!(then.contains("/cart") && !then.contains("blog"), "{then}");

    let version = bad.to_string();
    let planned = said(&cluster, &["undo", &version, "--dry-run"]);
    assert!(
        planned.contains(r#"~ paths: ["/basket"] -> ["/cart"]"#),
        "{planned}"
    );
    let reason = "the cart is gone";
    let undone = said(&cluster, &["undo", &version, "--reason", reason]);
    assert!(undone.contains("1 put back"), "{undone}");
    cluster.converge().unwrap();
    assert_eq!(cluster.request(0, "/cart", "").unwrap(), 200);
    assert!(said(&cluster, &["dump"]).contains("blog"));
    let last = said(&cluster, &["log", "-n", "1"]);
    assert!(last.contains("ann") && last.contains(reason), "{last}");
}

#[test]
fn a_rollback_reaches_every_replica_with_the_digest_of_that_version() {
    let mut cluster = Cluster::start(2, 2).unwrap();
    let many: Vec<Value> = (0..300)
        .map(|number| json!({"name": format!("s{number}"), "host": format!("h{number}.example")}))
        .collect();
    let then = change(
        &cluster,
        ("ann", "the base"),
        "/apply",
        &file(&cluster, "/cart", &many),
    );
    let digest = cluster
        .admin(0)
        .get(&format!("/log/events/{then}"))
        .unwrap()["digest"]
        .clone();
    let moved: Vec<Value> = (0..300)
        .map(|number| json!({"name": format!("s{number}"), "host": "moved.example"}))
        .collect();
    change(
        &cluster,
        ("bob", "move all"),
        "/apply",
        &file(&cluster, "/other", &moved),
    );
    change(
        &cluster,
        ("bob", ""),
        "/services",
        &json!({"name": "extra", "host": "x"}),
    );
    let to = format!("--to={then}");
    let done = said(&cluster, &["rollback", &to, "--reason", "moved too early"]);
    assert!(
        done.contains("0 created again, 301 put back, 1 deleted"),
        "{done}"
    );
    cluster.converge().unwrap();
    let head = cluster.admin(1).get("/log/head").unwrap();
    assert_eq!(head["digest"], digest);
    assert_eq!(cluster.request(0, "/cart", "").unwrap(), 200);
    // The other control plane and one that starts anew tell the same past.
    let past = |control: usize| {
        cluster
            .admin(control)
            .get(&format!("/services/s7?at={}", then + 1))
            .unwrap()["host"]
            .clone()
    };
    assert_eq!(
        (past(0), past(1)),
        (json!("moved.example"), json!("moved.example"))
    );
    cluster.controls[0].restart().unwrap();
    cluster
        .wait_until("the history is whole again", |cluster| {
            let head = cluster.admin(0).get("/log/head");
            Ok(head.is_ok_and(|head| {
                head["history"]["complete"] == true && head["version"].as_u64() > Some(then)
            }))
        })
        .unwrap();
    let history = cluster.admin(0).get("/log/history/service/s7").unwrap();
    let ops: Vec<&str> = history["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["op"].as_str().unwrap())
        .collect();
    assert_eq!(ops, ["updated", "updated", "created"]);
}

#[test]
fn conflicts_are_shown_and_nothing_is_changed() {
    let cluster = Cluster::start(1, 0).unwrap();
    let made = change(
        &cluster,
        ("ann", "new"),
        "/services",
        &json!({"name": "s", "host": "x"}),
    );
    change(
        &cluster,
        ("bob", "needed"),
        "/services/s/routes",
        &json!({"name": "late", "paths": ["/late"]}),
    );
    let told = complaint(&cluster, &["undo", &made.to_string()]);
    assert!(
        told.contains("service s: route late refers to it and would stay"),
        "{told}"
    );
    assert!(told.contains("by bob") && told.contains("needed"), "{told}");
    let told = complaint(&cluster, &["rollback", "--to=999"]);
    assert!(told.contains("there is no version 999 yet"), "{told}");
    assert_eq!(
        cluster.admin(0).get("/services/s/routes").unwrap()["data"][0]["name"],
        "late"
    );
}

#[test]
fn new_events_are_followed_through_a_filter() {
    let cluster = Cluster::start(1, 0).unwrap();
    let mut child = sluice(&cluster, &["log", "--follow", "--actor", "bob", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let head = cluster.admin(0).get("/log/head").unwrap();
    // Until it follows, whoever begins to follow first decides what is new: each is a change of its own.
    let mut version = head["version"].as_u64().unwrap();
    let (sender, first) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let line = lines.next();
        let _ = sender.send(line);
    });
    let line = loop {
        for actor in ["ann", "bob"] {
            let name = format!("{actor}-{version}");
            version = change(
                &cluster,
                (actor, ""),
                "/services",
                &json!({"name": name, "host": "x"}),
            );
        }
        if let Ok(line) = first.recv_timeout(std::time::Duration::from_millis(50)) {
            break line.unwrap().unwrap();
        }
    };
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["actor"]["name"], "bob");
    child.kill().unwrap();
    child.wait().unwrap();
}
