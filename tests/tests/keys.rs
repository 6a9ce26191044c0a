//! Keys are rotated and revoked while everything runs.

#![cfg(test)]

use serde_json::{Value, json};
use sluice_replica::keys::{Entry, Keyring, Role, SigningKey, Standing};
use sluice_schema::version::Time;
use sluice_tests::cluster::Cluster;
use sluice_tests::processes::{ControlPlane, DataPlane};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Writes that must be stored between two changes of keys.
const WRITES: usize = 20;

fn root() -> SigningKey {
    SigningKey::from_seed([100; 32])
}

fn ring(serial: u64, entries: &[(&SigningKey, Standing)]) -> Vec<u8> {
    let entries = entries.iter().map(|(key, standing)| Entry {
        key: key.public_key(),
        name: "cp".to_owned(),
        standing: *standing,
        note: String::new(),
    });
    let (made, entries) = (Time(serial), entries.collect());
    let ring = Keyring {
        serial,
        made,
        entries,
    };
    ring.seal(&root()).unwrap().to_vec()
}

/// Puts a file in its place whole.
fn put(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(&new, path).unwrap();
}

/// The directory of the root's public key and the keyring that everybody is given.
fn trusted(cluster: &Cluster) -> PathBuf {
    cluster.directory.path().join("trusted")
}

fn start_control(cluster: &mut Cluster, name: &str) {
    let directory = cluster.directory.path().join(name);
    let keys = cluster.directory.path().join("keys").join(name);
    let more = format!("--trusted-keys={}", trusted(cluster).display());
    let control = ControlPlane::start(&cluster.nats.url(), &directory, &keys, &[&more]).unwrap();
    cluster.controls.push(control);
}

fn start_data(cluster: &mut Cluster, name: &str) {
    let directory = cluster.directory.path().join(name);
    let trusted = trusted(cluster);
    let data =
        DataPlane::start(&cluster.nats.url(), &directory, &trusted, &["--workers=1"]).unwrap();
    cluster.datas.push(data);
}

fn make_key(cluster: &Cluster, name: &str) -> SigningKey {
    let directory = cluster.directory.path().join("keys").join(name);
    SigningKey::create(&directory.join(format!("{name}.key")), name).unwrap()
}

/// A ring comes to everybody as a file, and to control planes at once over the Admin API.
fn distribute(cluster: &Cluster, serial: u64, ring: &[u8]) {
    put(&trusted(cluster).join("keyring"), ring);
    for number in 0..cluster.controls.len() {
        let answer = cluster
            .admin(number)
            .post("/log/keyring", "application/octet-stream", &[], ring)
            .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    cluster
        .wait_until("the data plane has the keyring", |cluster| {
            Ok(cluster.data_status(0)?["log"]["keyring"] == serial)
        })
        .unwrap();
}

fn write(cluster: &Cluster, control: usize, name: &str) -> (u16, Value) {
    let body = json!({ "name": name, "host": "a.example" });
    let answer = cluster.post(control, "/services", &body).unwrap();
    (answer.status, answer.body)
}

#[test]
fn a_control_planes_key_is_rotated_and_the_old_one_revoked_under_writes() {
    let mut cluster = Cluster::start(0, 0).unwrap();
    let (old, other, new) = (
        make_key(&cluster, "cp-0"),
        make_key(&cluster, "cp-1"),
        make_key(&cluster, "cp-2"),
    );
    let pinned = format!("{}\n", root().public(Role::Root, "root"));
    put(&trusted(&cluster).join("root.pub"), pinned.as_bytes());
    let first = ring(1, &[(&old, Standing::Active), (&other, Standing::Active)]);
    put(&trusted(&cluster).join("keyring"), &first);
    start_control(&mut cluster, "cp-0");
    start_control(&mut cluster, "cp-1");
    start_data(&mut cluster, "dp-0");
    // Not in the keyring: it runs, but may not write.
    start_control(&mut cluster, "cp-2");
    cluster
        .wait_until("the log has begun", |cluster| {
            Ok(cluster.admin(0).get("/status")?["sluice"]["version"].as_u64() >= Some(1))
        })
        .unwrap();
    let (status, said) = write(&cluster, 2, "too-early");
    assert!(
        status == 503 && said.to_string().contains("is not trusted"),
        "{status} {said}"
    );

    // Somebody writes through the control plane that stays, all the time.
    let (stop, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (status, said) = write(&cluster, 1, &format!("always-{number}"));
                assert_eq!(status, 201, "{said}");
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
        let some_writes = || {
            let from = written.load(Ordering::Relaxed);
            cluster
                .wait_until("writes go on", |_| {
                    Ok(written.load(Ordering::Relaxed) >= from + WRITES)
                })
                .unwrap();
        };
        rotate(&cluster, &old, &other, &new, &some_writes);
        stop.store(true, Ordering::Relaxed);
    });

    cluster.converge().unwrap();
    // One that comes later reads what the revoked key signed: the others vouch for it by what they signed after it.
    start_data(&mut cluster, "dp-1");
    cluster.converge().unwrap();
    for data in &cluster.datas {
        assert!(
            !data.said().contains("stopped following"),
            "{}",
            data.said()
        );
    }
}

fn rotate(
    cluster: &Cluster,
    old: &SigningKey,
    other: &SigningKey,
    new: &SigningKey,
    some_writes: &dyn Fn(),
) {
    use Standing::{Active, Retired, Revoked};
    some_writes();
    assert_eq!(write(cluster, 0, "by-the-old-key").0, 201);
    let both = ring(2, &[(old, Active), (other, Active), (new, Active)]);
    distribute(cluster, 2, &both);
    assert_eq!(write(cluster, 2, "by-the-new-key").0, 201);
    assert_eq!(write(cluster, 0, "by-the-old-key-again").0, 201);
    some_writes();
    for (serial, standing) in [(3, Retired), (4, Revoked)] {
        let next = ring(serial, &[(old, standing), (other, Active), (new, Active)]);
        distribute(cluster, serial, &next);
        let (status, said) = write(cluster, 0, &format!("too-late-{serial}"));
        let reason = format!("signing key {} is {standing}", old.id());
        assert!(
            status == 503 && said.to_string().contains(&reason),
            "{status} {said}"
        );
        assert_eq!(
            write(cluster, 2, &format!("by-the-new-key-{serial}")).0,
            201
        );
        some_writes();
    }
    // Nobody can bring the old ring back.
    let answer = cluster
        .admin(1)
        .post("/log/keyring", "application/octet-stream", &[], &both)
        .unwrap();
    assert_eq!(answer.status, 400, "{}", answer.body);
}
