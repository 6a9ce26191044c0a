//! Clients that other people wrote, against a control plane with a real broker: they must find what they know from Kong.
//!
//! They are Python programs in `tests/clients`; `scripts/python-clients` makes what they run on. `SLUICE_TEST_SEED` and
//! `SLUICE_TEST_EXAMPLES` (requests per operation) lead the made-up requests elsewhere, and further.

#![cfg(test)]

use serde_json::{Value, json};
use sluice_tests::cluster::Cluster;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Certificates with their keys that clients are given.
const CERTIFICATES: usize = 2;
/// Of an entity of each kind that made-up requests can hit.
const ID: &str = "00000000-0000-4000-8000-000000000001";

/// A file of this crate or of the repository.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The Python that has the clients, which is made if it is not there.
fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let script = file("../scripts/python-clients");
        let made = Command::new(&script).output();
        let made = made.unwrap_or_else(|error| panic!("could not run {script:?}: {error}"));
        let reason = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "no clients to test with: {reason}");
        String::from_utf8(made.stdout).unwrap().trim_end().into()
    })
}

/// Runs a program of `tests/clients`, which must succeed and leave no error in the control plane's log.
fn run(cluster: &Cluster, program: &str, more: &[(&str, &str)]) {
    let output = Command::new(python())
        // Nothing is written beside the sources.
        .args(["-B", "-u"])
        .arg(file("clients").join(program))
        .current_dir(cluster.directory.path())
        .env("KONG_ADMIN_URL", cluster.controls[0].url())
        .envs(more.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    eprintln!("{said}\n{complained}");
    assert!(output.status.success(), "{program}: {}", output.status);
    let errors = cluster.controls[0].said();
    let errors: Vec<&str> = errors.lines().filter(|line| is_error(line)).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

fn is_error(line: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|line| line["level"] == "ERROR")
}

#[test]
fn aio_kong_works_unchanged() {
    let cluster = Cluster::start(1, 0).unwrap();
    let directory = cluster.directory.path();
    for number in 1..=CERTIFICATES {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let write = |name: &str, pem: String| {
            std::fs::write(directory.join(format!("{name}-{number}.pem")), pem).unwrap();
        };
        write("cert", made.cert.pem());
        write("key", made.signing_key.serialize_pem());
    }
    let certificates = directory.display().to_string();
    run(
        &cluster,
        "aio_kong_walk.py",
        &[("CERTIFICATES", &certificates)],
    );
}

/// An entity of nearly every kind, all with the same id and name.
fn one_of_each() -> Value {
    let one = json!({ "id": ID, "name": "one", "host": "one.internal" });
    let mut service = one.clone();
    service["routes"] = json!([{ "id": ID, "name": "one", "paths": ["/one"] }]);
    let mut upstream = json!({ "id": ID, "name": "one" });
    upstream["targets"] = json!([{ "id": ID, "target": "one.internal:80" }]);
    json!({
        "_format_version": "3.0",
        "services": [service],
        "upstreams": [upstream],
        "plugins": [{ "id": ID, "name": "key-auth", "instance_name": "one" }],
        "vaults": [{ "id": ID, "name": "env", "prefix": "one" }],
        "key_sets": [{ "id": ID, "name": "one" }],
        "consumer_groups": [{ "id": ID, "name": "one" }],
        "consumers": [{
            "id": ID, "username": "one",
            "keyauth_credentials": [{ "id": ID, "key": "one" }],
            "basicauth_credentials": [{ "id": ID, "username": "one", "password": "one" }],
            "hmacauth_credentials": [{ "id": ID, "username": "one" }],
            "jwt_secrets": [{ "id": ID, "key": "one" }],
            "acls": [{ "id": ID, "group": "one" }],
            "oauth2_credentials": [{ "id": ID, "name": "one", "client_id": "one" }],
        }],
    })
}

#[test]
fn made_up_requests_get_only_documented_answers() {
    let cluster = Cluster::start(1, 0).unwrap();
    cluster.apply(0, &one_of_each()).unwrap();
    run(&cluster, "openapi_requests.py", &[("ID", ID)]);
}
