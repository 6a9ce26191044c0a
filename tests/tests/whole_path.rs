//! From the Admin API to the proxied request, over real processes, while they are killed.

#![cfg(test)]

use serde_json::{Value, json};
use sluice_replica::keys::SigningKey;
use sluice_tests::cluster::Cluster;
use sluice_tests::processes::ControlPlane;
use sluice_tools::admin::Connection;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn service(name: &str, cluster: &Cluster) -> Value {
    json!({ "name": name, "host": cluster.origin.ip().to_string(), "port": cluster.origin.port() })
}

fn file(cluster: &Cluster) -> Value {
    let mut service = service("shop", cluster);
    service["routes"] = json!([{ "name": "shop", "paths": ["/shop"] }]);
    json!({ "_format_version": "3.0", "services": [service] })
}

#[test]
fn a_change_is_served_by_every_data_plane_and_every_replica_agrees() {
    let cluster = Cluster::start(2, 2).unwrap();
    assert_eq!(cluster.request(0, "/shop", "").unwrap(), 404);
    cluster.apply(0, &file(&cluster)).unwrap();
    cluster.converge().unwrap();
    assert_eq!(cluster.request(0, "/shop", "").unwrap(), 200);
    assert_eq!(cluster.request(1, "/shop", "").unwrap(), 200);

    let plugin = cluster
        .post(1, "/routes/shop/plugins", &json!({ "name": "key-auth" }))
        .unwrap();
    assert_eq!(plugin.status, 201, "{}", plugin.body);
    cluster
        .post(0, "/consumers", &json!({ "username": "anna" }))
        .unwrap();
    // The other control plane would refuse keys of a consumer that it has not heard of yet.
    cluster.converge().unwrap();
    let key = cluster
        .post(1, "/consumers/anna/key-auth", &json!({ "key": "secret" }))
        .unwrap();
    assert_eq!(key.status, 201, "{}", key.body);
    cluster.converge().unwrap();
    for data in 0..2 {
        assert_eq!(cluster.request(data, "/shop", "").unwrap(), 401);
        assert_eq!(
            cluster
                .request(data, "/shop", "apikey: secret\r\n")
                .unwrap(),
            200
        );
    }
    for data in &cluster.datas {
        assert!(!data.said().contains("\"secret\""), "a key stands in a log");
    }
}

#[test]
fn a_configuration_of_real_size_and_shape_is_applied_and_proxied() {
    let cluster = Cluster::start(1, 1).unwrap();
    let example = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/examples/platform.yaml"
    );
    let port = format!(":{}", cluster.origin.port());
    let file = std::fs::read_to_string(example)
        .unwrap()
        .replace(":9000", &port);
    let apply = || {
        cluster
            .admin(0)
            .post("/apply", "application/yaml", &[], file.as_bytes())
            .unwrap()
    };
    let first = apply();
    assert_eq!(first.status, 200, "{}", first.body);
    assert!(
        first.body["created"].as_u64() >= Some(150),
        "{}",
        first.body
    );
    let again = apply();
    assert_eq!(
        again.body["unchanged"], first.body["created"],
        "{}",
        again.body
    );
    assert_eq!(again.version, first.version);
    cluster.converge().unwrap();

    let status = cluster.data_status(0).unwrap();
    assert_eq!(status["log"]["rejected_total"], 0, "{status}");
    let ask = |path, headers| {
        cluster
            .request_to("api.platform.example", 0, path, headers)
            .unwrap()
    };
    assert_eq!(ask("/v1/products/42", ""), 200);
    assert_eq!(ask("/v1/orders/1234567", ""), 401);
    assert_eq!(ask("/v1/orders/1234567", "apikey: ios-app-2026\r\n"), 200);
    assert_eq!(ask("/v1/orders/1234567", "apikey: wrong\r\n"), 401);
    assert_eq!(ask("/v9/nowhere", ""), 404);
}

#[test]
fn what_a_data_plane_finds_of_a_target_is_shown_by_every_control_plane() {
    let cluster = Cluster::start(2, 1).unwrap();
    // Nobody listens on port 1.
    let file = json!({
        "_format_version": "3.0",
        "services": [{ "name": "shop", "host": "pool", "routes": [{ "name": "shop", "paths": ["/shop"] }] }],
        "upstreams": [{
            "name": "pool",
            "healthchecks": { "passive": { "unhealthy": { "tcp_failures": 1 } } },
            "targets": [{ "target": cluster.origin.to_string() }, { "target": "127.0.0.1:1" }],
        }],
    });
    cluster.apply(0, &file).unwrap();
    cluster.converge().unwrap();
    for _ in 0..4 {
        assert_eq!(cluster.request(0, "/shop", "").unwrap(), 200);
    }
    let origin = cluster.origin.to_string();
    let expected = BTreeMap::from(
        [
            (json!(origin), json!("HEALTHY")),
            (json!("127.0.0.1:1"), json!("UNHEALTHY")),
        ]
        .map(|(target, health)| (target.to_string(), health.to_string())),
    );
    for control in 0..2 {
        let seen = |cluster: &Cluster| {
            let health = cluster.admin(control).get("/upstreams/pool/health")?;
            let data = health["data"].as_array().into_iter().flatten();
            let seen = data.map(|one| (one["target"].to_string(), one["health"].to_string()));
            Ok(seen.collect::<BTreeMap<_, _>>() == expected)
        };
        cluster.wait_until("the health of targets", seen).unwrap();
    }
}

/// What writers were told, by route name: the version of an acknowledged write.
#[derive(Default)]
struct Told {
    acknowledged: Mutex<BTreeMap<String, u64>>,
    failed: AtomicUsize,
}

const WRITERS: usize = 200;

/// Each writer posts routes until it is told to stop, at least `least` each.
fn write_concurrently(cluster: &Cluster, told: &Told, least: usize, stop: &AtomicBool, name: &str) {
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                for round in 0.. {
                    if round >= least && stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("{name}-{writer}-{round}");
                    let body = json!({ "name": name, "paths": [format!("/{name}")], "service": { "name": "shop" } });
                    match cluster.post(writer % cluster.controls.len(), "/routes", &body) {
                        Ok(answer) if answer.status == 201 => {
                            let version = answer.version.expect("Sluice-Version");
                            told.acknowledged.lock().unwrap().insert(name, version);
                        }
                        Ok(answer) => {
                            assert_eq!(answer.status, 503, "{}", answer.body);
                            told.failed.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => {
                            told.failed.fetch_add(1, Ordering::Relaxed);
                            std::thread::yield_now();
                        }
                    }
                }
            });
        }
    });
}

/// Every acknowledged write is in the state of every control plane, at the version it was acknowledged with.
fn check_acknowledged(cluster: &Cluster, told: &Told) {
    let acknowledged = told.acknowledged.lock().unwrap();
    let mut versions: Vec<u64> = acknowledged.values().copied().collect();
    versions.sort_unstable();
    let count = versions.len();
    versions.dedup();
    assert_eq!(
        versions.len(),
        count,
        "two acknowledged writes share a version"
    );
    for control in 0..cluster.controls.len() {
        let mut found = BTreeMap::new();
        let mut path = "/routes?size=1000".to_owned();
        loop {
            let page = cluster.admin(control).get(&path).unwrap();
            for route in page["data"].as_array().unwrap() {
                found.insert(route["name"].as_str().unwrap().to_owned(), ());
            }
            match page["next"].as_str() {
                Some(next) => path = next.to_owned(),
                None => break,
            }
        }
        for name in acknowledged.keys() {
            assert!(
                found.contains_key(name),
                "control plane {control} has lost {name}"
            );
        }
    }
}

#[test]
fn two_hundred_concurrent_writers_through_two_control_planes_lose_nothing() {
    let cluster = Cluster::start(2, 2).unwrap();
    cluster.apply(0, &file(&cluster)).unwrap();
    // The other control plane would refuse routes of a service that it has not heard of yet.
    cluster.converge().unwrap();
    let told = Told::default();
    write_concurrently(&cluster, &told, 3, &AtomicBool::new(true), "calm");
    assert_eq!(told.failed.load(Ordering::Relaxed), 0, "{}", cluster.said());
    assert_eq!(told.acknowledged.lock().unwrap().len(), WRITERS * 3);
    cluster.converge().unwrap();
    check_acknowledged(&cluster, &told);
    for name in told.acknowledged.lock().unwrap().keys().step_by(37) {
        assert_eq!(cluster.request(0, &format!("/{name}"), "").unwrap(), 200);
        assert_eq!(cluster.request(1, &format!("/{name}"), "").unwrap(), 200);
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_everybody_is_killed_in_turn() {
    let cluster = Cluster::start(2, 2).unwrap();
    cluster.apply(0, &file(&cluster)).unwrap();
    // The other control plane would refuse routes of a service that it has not heard of yet.
    cluster.converge().unwrap();
    let told = Told::default();
    let stop = AtomicBool::new(false);
    let reached = |count: usize| {
        let target = told.acknowledged.lock().unwrap().len() + count;
        cluster.wait_until("writes go on", |_| {
            Ok(told.acknowledged.lock().unwrap().len() >= target)
        })
    };
    let Cluster {
        nats,
        controls,
        datas,
        ..
    } = &cluster;
    // The processes are restarted by their ids alone, so that the writers can go on using the cluster meanwhile.
    let (nats, control, data) = (
        nats.process_id().unwrap(),
        controls[1].process_id().unwrap(),
        datas[1].process_id().unwrap(),
    );
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| write_concurrently(&cluster, &told, 1, &stop, "storm"));
        let killing = (|| {
            reached(200)?;
            kill(data);
            reached(100)?;
            kill(control);
            reached(100)?;
            kill(nats);
            anyhow::Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        writing.join().unwrap();
        killing.unwrap();
    });
    let mut cluster = cluster;
    cluster.nats.restart().unwrap();
    cluster.controls[1].restart().unwrap();
    cluster.datas[1].restart().unwrap();
    // Writing works again, through both control planes.
    for control in 0..2 {
        cluster
            .wait_until("writes work again", |cluster| {
                let name = format!("after-{control}");
                let body = json!({ "name": name, "paths": [format!("/{name}")], "service": { "name": "shop" } });
                let answer = cluster.post(control, "/routes", &body)?;
                Ok(answer.status == 201 || answer.status == 409)
            })
            .unwrap();
    }
    cluster.converge().unwrap();
    check_acknowledged(&cluster, &told);
}

fn kill(process: u32) {
    let process = rustix::process::Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn with_the_broker_away_reads_and_traffic_go_on_and_writes_say_so() {
    let mut cluster = Cluster::start(1, 1).unwrap();
    cluster.apply(0, &file(&cluster)).unwrap();
    let version = cluster.converge().unwrap();
    cluster.nats.kill();

    cluster
        .wait_until("the control plane notices", |cluster| {
            let answer = cluster.post(0, "/consumers", &json!({ "username": "nobody" }))?;
            Ok(answer.status == 503)
        })
        .unwrap();
    assert_eq!(
        cluster.admin(0).get("/services/shop").unwrap()["name"],
        "shop"
    );
    assert_eq!(cluster.request(0, "/shop", "").unwrap(), 200);

    // A data plane that starts now serves from its store.
    cluster.datas[0].restart().unwrap();
    assert_eq!(cluster.request(0, "/shop", "").unwrap(), 200);
    assert_eq!(cluster.data_status(0).unwrap()["log"]["version"], version);
    Connection::to(cluster.datas[0].status_url())
        .get("/status/ready")
        .unwrap();
    // And so does a control plane.
    cluster.controls[0].restart().unwrap();
    assert_eq!(
        cluster.admin(0).get("/services/shop").unwrap()["name"],
        "shop"
    );

    cluster.nats.restart().unwrap();
    cluster
        .wait_until("writes work again", |cluster| {
            Ok(cluster
                .post(0, "/consumers", &json!({ "username": "anna" }))?
                .status
                == 201)
        })
        .unwrap();
    cluster.converge().unwrap();
}

#[test]
fn a_control_plane_whose_key_nobody_trusts_changes_nothing() {
    let cluster = Cluster::start(1, 1).unwrap();
    cluster.apply(0, &file(&cluster)).unwrap();
    let version = cluster.converge().unwrap();

    let keys = tempfile::tempdir().unwrap();
    let own = cluster.directory.path().join("keys/cp-0.pub");
    std::fs::copy(own, keys.path().join("cp-0.pub")).unwrap();
    SigningKey::create(&keys.path().join("cp-x.key"), "stranger").unwrap();
    let directory = cluster.directory.path().join("cp-x");
    let stranger = ControlPlane::start(&cluster.nats.url(), &directory, keys.path(), &[]).unwrap();
    cluster
        .wait_until("the stranger writes", |_| {
            let admin = Connection::to(stranger.url());
            let body = br#"{"username": "mallory"}"#;
            Ok(admin
                .post("/consumers", "application/json", &[], body)?
                .status
                == 201)
        })
        .unwrap();

    cluster
        .wait_until("the data plane stops", |cluster| {
            let phase = cluster.data_status(0)?["log"]["phase"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            Ok(phase.starts_with("forked") && phase.contains("not to be trusted"))
        })
        .unwrap();
    let status = cluster.data_status(0).unwrap();
    assert_eq!(status["log"]["version"], version, "{status}");
    assert_eq!(cluster.request(0, "/shop", "").unwrap(), 200);
    cluster
        .wait_until("the data plane says so", |cluster| {
            Ok(cluster.datas[0]
                .said()
                .contains("stopped following the log"))
        })
        .unwrap();
}
