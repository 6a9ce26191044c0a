//! The programs themselves, over TLS with certificates and keys.

use crate::support::{Authority, example, include, nkey_conf};
use nkeys::KeyPair;
use serde_json::json;
use sluice_replica::log::jetstream::Identity;
use sluice_tests::nats::Nats;
use sluice_tests::processes::{ControlPlane, DataPlane, binary};
use sluice_tools::admin::Connection;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

fn wait_until(what: &str, said: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not in time\n{}", said());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn seed_file(identity: Identity) -> PathBuf {
    match identity {
        Identity::Nkey(file) => file,
        Identity::Address
        | Identity::Password { .. }
        | Identity::Token(_)
        | Identity::Credentials(_) => panic!("not an nkey"),
    }
}

/// A broker that asks for certificates and keys, and a control plane and a data plane that have them.
struct Fleet {
    nats: Nats,
    control: ControlPlane,
    data: DataPlane,
    known: String,
    /// The files with the seeds.
    seeds: [PathBuf; 2],
    _authority: Authority,
    _directory: TempDir,
}

impl Fleet {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (authority, path) = (Authority::new(), directory.path());
        authority.issue("client", &["client"]);
        let (files, cp, dp) = nkey_conf(path);
        let seeds = [seed_file(cp), seed_file(dp)];
        let extra = include("nkey.conf") + &authority.broker_tls("verify: true");
        let nats = Nats::start_with_files(&extra, &files).unwrap();
        let url = format!("tls://localhost:{}", nats.client_port());
        let setting = |name: &str, file: &Path| format!("--nats-{name}={}", file.display());
        let settings = |seed: &Path, user: &str| {
            [
                setting("nkey", seed),
                setting("tls-ca", &authority.path("ca.pem")),
                setting("tls-cert", &authority.path("client.pem")),
                setting("tls-key", &authority.path("client.key")),
                format!("--nats-inbox-prefix=_INBOX_{user}"),
            ]
        };
        let keys = path.join("keys");
        let (of_cp, of_dp) = (settings(&seeds[0], "cp"), settings(&seeds[1], "dp-1"));
        let more: Vec<&str> = of_cp.iter().map(String::as_str).collect();
        let control = ControlPlane::start(&url, &path.join("cp-0"), &keys, &more).unwrap();
        let mut more: Vec<&str> = of_dp.iter().map(String::as_str).collect();
        more.extend(["--node-id=dp-1", "--workers=1"]);
        let data = DataPlane::start(&url, &path.join("dp-0"), &keys, &more).unwrap();
        Self {
            _directory: directory,
            nats,
            control,
            data,
            known: files[0].1.clone(),
            seeds,
            _authority: authority,
        }
    }

    fn restart_broker(&mut self, nkey_conf: &str) {
        self.nats.kill();
        let file = ("nkey.conf".to_owned(), nkey_conf.to_owned());
        self.nats.write_files(&[file]).unwrap();
        self.nats.restart().unwrap();
    }

    /// Makes a service, as soon as that works.
    fn create(&self, name: &str) {
        let body = json!({ "name": name, "host": "127.0.0.1" }).to_string();
        wait_until(
            "a service is made",
            || self.control.said(),
            || {
                let answer = Connection::to(self.control.url()).post(
                    "/services",
                    "application/json",
                    &[],
                    body.as_bytes(),
                );
                answer.is_ok_and(|answer| answer.status == 201)
            },
        );
    }

    /// The version the data plane serves.
    fn version(&self) -> u64 {
        let status = Connection::to(self.data.status_url()).get("/status");
        status.map_or(0, |status| status["log"]["version"].as_u64().unwrap_or(0))
    }

    fn wait_for_data(&self, what: &str, holds: impl FnMut() -> bool) {
        wait_until(what, || self.data.said(), holds);
    }
}

#[test]
fn a_change_is_served_over_tls_with_keys_and_a_node_the_broker_forgets_goes_on_serving() {
    let mut fleet = Fleet::start();
    fleet.create("one");
    fleet.wait_for_data("it is served", || fleet.version() >= 2);
    fleet.wait_for_data("the node reports by its name", || {
        let nodes = Connection::to(fleet.control.url()).get("/nodes");
        nodes.is_ok_and(|nodes| nodes.to_string().contains("\"dp-1\""))
    });

    // The broker comes back and knows the data plane no more.
    let seeds: Vec<String> = fleet
        .seeds
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap().trim().to_owned())
        .collect();
    let public = KeyPair::from_seed(&seeds[1]).unwrap().public_key();
    let known = fleet.known.clone();
    fleet.restart_broker(&known.replace(&public, &KeyPair::new_user().public_key()));
    fleet.create("two");
    fleet.data.restart().unwrap();
    assert!(fleet.version() >= 2, "it starts with what it has");
    fleet.wait_for_data("it says why it hears nothing", || {
        let status = Connection::to(fleet.data.status_url()).get("/status");
        status.is_ok_and(|status| status.to_string().contains("authorization violation"))
    });
    fleet.restart_broker(&known);
    fleet.wait_for_data("it catches up", || fleet.version() >= 3);

    for said in [fleet.control.said(), fleet.data.said()] {
        for seed in &seeds {
            assert!(!said.contains(seed), "a seed stands in a log");
        }
    }
}

#[test]
fn settings_of_the_connection_that_cannot_be_used_end_a_program_with_64() {
    let check = |program: &str, arguments: &[&str], expected: &str| {
        let directory = tempfile::tempdir().unwrap();
        let ended = Command::new(binary(program).unwrap())
            .args(arguments)
            .args(["--data-dir", directory.path().to_str().unwrap()])
            .args(if program == "sluice-dp" {
                &["--trusted-keys=/nowhere"][..]
            } else {
                &["--admin-listen=127.0.0.1:0"]
            })
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(64), "{said}");
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains("hush"), "{said}");
    };
    for program in ["sluice-cp", "sluice-dp"] {
        check(
            program,
            &["--nats-nkey=a", "--nats-creds=b"],
            "nats_nkey and nats_creds",
        );
        check(
            program,
            &["--nats-url=nats://a:hush@h", "--nats-nkey=a"],
            "nats_url",
        );
        check(program, &["--nats-password-file=/x"], "nats_user");
        check(
            program,
            &["--nats-tls-ca=/nowhere"],
            "nats_tls_ca '/nowhere'",
        );
    }
}

#[test]
fn the_broker_understands_every_example() {
    let authority = Authority::new();
    authority.issue("route", &["nats-1.example.com"]);
    std::fs::copy(authority.path("ca.pem"), authority.path("route-ca.pem")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let tls = format!("{}/", authority.directory.path().display());
    let store = directory.path().join("store");
    for name in [
        "roles.conf",
        "password.conf",
        "certificate.conf",
        "server.conf",
        "cluster.conf",
    ] {
        let text = example(name)
            .replace("/etc/nats/tls/", &tls)
            .replace("/var/lib/nats", &store.display().to_string());
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let (files, _, _) = nkey_conf(directory.path());
    std::fs::write(directory.path().join("nkey.conf"), &files[0].1).unwrap();
    for name in [
        "password.conf",
        "nkey.conf",
        "certificate.conf",
        "server.conf",
        "cluster.conf",
    ] {
        let checked = Command::new(sluice_tests::nats::binary().unwrap())
            .arg("-t")
            .arg("-c")
            .arg(directory.path().join(name))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{name}: {said}");
        assert!(!said.to_lowercase().contains("warn"), "{name}: {said}");
    }
}
