//! Waiting for a change to be live: over real processes that stop, are killed and cut off.

#![cfg(test)]

use serde_json::{Value, json};
use sluice_tests::cluster::Cluster;
use sluice_tests::processes::{binary, freeze, terminate, thaw};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

/// Until a control plane that has just started knows all data planes, and one that was killed is gone.
const LEASE: Duration = Duration::from_secs(5);

fn service(cluster: &Cluster, name: &str) -> Value {
    json!({
        "name": name, "host": cluster.origin.ip().to_string(), "port": cluster.origin.port(),
        "routes": [{ "name": name, "paths": [format!("/{name}")] }],
    })
}

fn file(cluster: &Cluster, names: &[&str]) -> Value {
    let services: Vec<Value> = names.iter().map(|name| service(cluster, name)).collect();
    json!({ "_format_version": "3.0", "services": services })
}

/// POSTs a file with `Sluice-Wait`.
fn apply(cluster: &Cluster, wait: &str, file: &Value) -> sluice_tools::admin::Answer {
    let body = file.to_string();
    let headers = [("sluice-wait", wait)];
    let admin = cluster.admin(0);
    admin
        .post("/apply", "application/json", &headers, body.as_bytes())
        .unwrap()
}

#[test]
fn what_was_waited_for_is_served_by_everybody_and_who_is_gone_is_not_waited_for() {
    let mut cluster = Cluster::start(1, 2).unwrap();
    let first = apply(&cluster, "all; timeout=30", &file(&cluster, &["a"]));
    assert_eq!(first.status, 200, "{}", first.body);
    for round in 0..20 {
        let name = format!("r{round}");
        let answer = apply(&cluster, "all; timeout=10", &file(&cluster, &[&name]));
        assert_eq!(answer.status, 200, "{}", answer.body);
        // No time to catch up: they serve it now.
        for data in 0..2 {
            assert_eq!(cluster.request(data, &format!("/{name}"), "").unwrap(), 200);
        }
    }

    cluster.datas[1].kill();
    let killed = Instant::now();
    let behind = apply(&cluster, "all; timeout=500ms", &file(&cluster, &["b"]));
    assert_eq!(behind.status, 202, "{}", behind.body);
    assert_eq!(behind.body["wait"]["behind_total"], 1, "{}", behind.body);
    let wait = cluster.admin(0).get_any("/nodes/wait?timeout=20").unwrap();
    assert_eq!(
        (wait.status, wait.body["live"].as_u64()),
        (200, Some(1)),
        "{}",
        wait.body
    );
    assert!(
        killed.elapsed() >= LEASE - Duration::from_secs(1),
        "gone after {:?}",
        killed.elapsed()
    );

    // One that is stopped says so.
    terminate(cluster.datas[0].process_id()).unwrap();
    let url = "/nodes/wait?timeout=100ms";
    let stopped = Instant::now();
    cluster
        .wait_until("nobody is alive", |cluster| {
            Ok(cluster.admin(0).get_any(url)?.body["outcome"] == "no_nodes")
        })
        .unwrap();
    assert!(
        stopped.elapsed() < LEASE - Duration::from_secs(1),
        "gone after {:?}",
        stopped.elapsed()
    );
}

#[test]
fn a_node_says_again_where_it_is_when_it_finds_the_broker_again() {
    let mut cluster = Cluster::start(1, 1).unwrap();
    let first = apply(&cluster, "all; timeout=30", &file(&cluster, &["a"]));
    assert_eq!(first.status, 200, "{}", first.body);
    cluster.nats.kill();
    cluster
        .wait_until("the control plane notices", |cluster| {
            let wait = cluster.admin(0).get_any("/nodes/wait?timeout=0")?;
            Ok(wait.body["outcome"] == "listening" || wait.body["outcome"] == "no_nodes")
        })
        .unwrap();
    cluster.nats.restart().unwrap();
    let wait = cluster.admin(0).get_any("/nodes/wait?timeout=60").unwrap();
    assert_eq!(
        (wait.status, wait.body["live"].as_u64()),
        (200, Some(1)),
        "{}",
        wait.body
    );
}

#[test]
fn the_command_waits_says_who_is_behind_and_exits_by_it() {
    let mut cluster = Cluster::start(1, 1).unwrap();
    let url = format!("--admin-url={}", cluster.admin(0).admin_url);
    let sluice = |arguments: &[&str]| {
        let output = Command::new(binary("sluice").unwrap())
            .args(arguments)
            .arg(&url)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (
            output.status.code().unwrap(),
            said,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let path = cluster.directory.path().join("shop.json");
    std::fs::write(&path, file(&cluster, &["shop"]).to_string()).unwrap();
    let applied = sluice(&["apply", "--wait", path.to_str().unwrap()]);
    assert_eq!(applied.0, 0, "{applied:?}");
    assert!(
        applied.1.contains("1 of 1 live nodes serve version"),
        "{applied:?}"
    );
    assert_eq!(cluster.request(0, "/shop", "").unwrap(), 200);
    assert_eq!(sluice(&["wait", "latest", "--quorum", "100%"]).0, 0);
    let early = sluice(&["wait", "4711", "--timeout", "200ms"]);
    assert_eq!(early.0, 2, "{early:?}");
    assert_eq!(sluice(&["wait", "soon"]).0, 1);
    cluster.datas[0].kill();
    cluster.apply(0, &file(&cluster, &["more"])).unwrap();
    let behind = sluice(&["wait", "latest", "--timeout", "300ms"]);
    assert!(behind.0 == 2 && behind.1.contains("1 behind"), "{behind:?}");
    let none = sluice(&["wait", "latest", "--timeout", "20s"]);
    assert!(
        none.0 == 3 && none.1.contains("no data plane is alive"),
        "{none:?}"
    );
}

/// A cluster of two data planes, one in `edge-eu`, the other in three groups; both are live.
fn grouped() -> Cluster {
    let europe = vec!["--group=edge-eu"];
    let america = vec!["--group=edge-us,canary", "--group=blue"];
    let cluster = Cluster::start_with(&[vec![]], &[europe, america]).unwrap();
    let first = apply(&cluster, "all; timeout=30", &file(&cluster, &["a"]));
    assert_eq!(first.status, 200, "{}", first.body);
    cluster
}

#[test]
fn a_group_of_nodes_is_waited_for_by_itself_and_one_without_nodes_is_no_success() {
    let cluster = grouped();
    let nodes = |path: &str| {
        let nodes = cluster.admin(0).get(path).unwrap()["data"].clone();
        let mut groups: Vec<Value> = nodes.as_array().unwrap().clone();
        groups
            .iter_mut()
            .for_each(|node| *node = node["groups"].take());
        groups
    };
    assert_eq!(nodes("/nodes").len(), 2);
    assert_eq!(nodes("/nodes?group=edge-eu"), [json!(["edge-eu"])]);
    let several = json!(["blue", "canary", "edge-us"]);
    assert_eq!(nodes("/nodes?group=blue"), [several]);
    assert!(nodes("/nodes?group=nowhere").is_empty());

    // One that does not answer holds up its own group and everybody, and no other.
    freeze(cluster.datas[1].process_id()).unwrap();
    let there = apply(
        &cluster,
        "100%; group=edge-eu; timeout=10",
        &file(&cluster, &["b"]),
    );
    assert_eq!(there.status, 200, "{}", there.body);
    assert_eq!(cluster.request(0, "/b", "").unwrap(), 200);
    let not_there = cluster
        .admin(0)
        .get_any("/nodes/wait?group=canary&timeout=0");
    let not_there = not_there.unwrap();
    assert_eq!(
        (not_there.status, not_there.body["behind_total"].as_u64()),
        (202, Some(1)),
        "{}",
        not_there.body
    );
    thaw(cluster.datas[1].process_id()).unwrap();

    let unknown = apply(
        &cluster,
        "all; group=nowhere; timeout=100ms",
        &file(&cluster, &["c"]),
    );
    assert_eq!(unknown.status, 202, "{}", unknown.body);
    assert_eq!(unknown.body["wait"]["outcome"], "no_nodes");
    let message = unknown.body["message"].as_str().unwrap();
    assert!(
        message.contains("no data plane of group nowhere"),
        "{message}"
    );
}

#[test]
fn the_commands_wait_for_a_group_and_list_its_nodes() {
    let cluster = grouped();
    let url = format!("--admin-url={}", cluster.admin(0).admin_url);
    let sluice = |arguments: &[&str]| {
        let mut command = Command::new(binary("sluice").unwrap());
        command.args(arguments).arg(&url);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said)
    };
    let canary = sluice(&["wait", "latest", "--group", "canary"]);
    assert!(
        canary.0 == Some(0) && canary.1.contains("1 of 1 live nodes of group canary"),
        "{canary:?}"
    );
    let nowhere = sluice(&["wait", "latest", "--group=nowhere", "--timeout=200ms"]);
    assert_eq!(nowhere.0, Some(3), "{nowhere:?}");
    let listed = sluice(&["nodes", "--group", "canary"]).1;
    assert!(listed.contains("blue,canary,edge-us"), "{listed}");
    let path = cluster.directory.path().join("shop.json");
    std::fs::write(&path, file(&cluster, &["shop"]).to_string()).unwrap();
    let path = path.to_str().unwrap();
    let applied = sluice(&["apply", "--wait", "--group=edge-eu", path]);
    assert_eq!(applied.0, Some(0), "{applied:?}");
}

#[test]
fn a_request_is_not_served_by_an_older_configuration_than_it_asks_for() {
    let cluster = Cluster::start(1, 1).unwrap();
    cluster.apply(0, &file(&cluster, &["a"])).unwrap();
    cluster.converge().unwrap();
    for round in 0..20 {
        let name = format!("r{round}");
        let version = cluster.apply(0, &file(&cluster, &[&name])).unwrap();
        let header = format!("sluice-min-version: {version}\r\n");
        assert_eq!(
            cluster.request(0, &format!("/{name}"), &header).unwrap(),
            200
        );
    }
    let asked = Instant::now();
    assert_eq!(
        cluster
            .request(0, "/a", "sluice-min-version: 4711\r\n")
            .unwrap(),
        503
    );
    assert!(asked.elapsed() >= Duration::from_secs(1) && asked.elapsed() < Duration::from_secs(5));
    assert_eq!(
        cluster
            .request(0, "/a", "sluice-min-version: soon\r\n")
            .unwrap(),
        400
    );
}

#[test]
fn whoever_watches_the_log_sees_every_event_and_resumes_where_it_was() {
    let cluster = Cluster::start(1, 0).unwrap();
    cluster.apply(0, &file(&cluster, &["a"])).unwrap();
    let last = cluster.apply(0, &file(&cluster, &["b"])).unwrap();
    let ids = |header: &str, count: usize| -> Vec<u64> {
        let address = cluster.admin(0).admin_url.replace("http://", "");
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        write!(
            stream,
            "GET /log/watch?from=1 HTTP/1.1\r\nhost: localhost\r\n{header}\r\n"
        )
        .unwrap();
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        let ids = lines.filter_map(|line| line.strip_prefix("id: ")?.parse().ok());
        ids.take(count).collect()
    };
    let all: Vec<u64> = (1..=last).collect();
    assert_eq!(ids("", all.len()), all);
    assert_eq!(ids(&format!("last-event-id: {}\r\n", last - 1), 1), [last]);
}
