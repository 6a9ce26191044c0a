//! What an account that may only read is enough for.

use crate::support::{include, shipped};
use sluice_tests::nats::Nats;
use sluice_tests::processes::{ControlPlane, binary};
use sluice_tools::admin::Connection;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn who_may_only_read_exports_and_verifies_and_a_control_planes_account_imports() {
    let directory = tempfile::tempdir().unwrap();
    let nats = Nats::start_with_files(&include("password.conf"), &shipped("password.conf", &[]));
    let nats = nats.unwrap();
    let (cp, keys) = (
        nats.url_as("cp", "change-me-cp"),
        directory.path().join("keys"),
    );
    let place = directory.path().join("cp-0");
    let inbox = ["--nats-inbox-prefix=_INBOX_cp"];
    let control = ControlPlane::start(&cp, &place, &keys, &inbox).unwrap();
    let admin = Connection::to(control.url());
    let began = Instant::now();
    let created = || admin.post("/services", "application/json", &[], br#"{"host": "a"}"#);
    while created().unwrap().status != 201 {
        assert!(began.elapsed() < PATIENCE, "{}", control.said());
        std::thread::sleep(Duration::from_millis(50));
    }

    let sluice = |user: &str, arguments: &[&str]| -> Output {
        let inbox = format!("--nats-inbox-prefix=_INBOX_{user}");
        Command::new(binary("sluice").unwrap())
            .args(arguments)
            .arg(inbox)
            .env(
                "SLUICE_NATS_URL",
                nats.url_as(user, &format!("change-me-{user}")),
            )
            .env("SLUICE_TRUSTED_KEYS", &keys)
            .env("SLUICE_ADMIN_URL", control.url())
            .output()
            .unwrap()
    };
    let said = |user: &str, arguments: &[&str]| {
        let output = sluice(user, arguments);
        let out = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {out}\n{error}");
        (out, error)
    };
    let cut = admin
        .post("/log/snapshots", "application/json", &[], b"{}")
        .unwrap();
    assert_eq!(cut.status, 201, "{}", cut.body);
    let file = directory.path().join("archive").display().to_string();
    said("auditor", &["log", "export", &file]);
    said("auditor", &["snapshot", "verify"]);
    let snapshot = directory.path().join("snapshot").display().to_string();
    said("auditor", &["snapshot", "fetch", &snapshot]);
    let (out, error) = said("auditor", &["log", "verify"]);
    assert!(out.ends_with("good\n") && out.contains("any copy"), "{out}");
    assert!(
        error.contains("the leader does not answer this account"),
        "{error}"
    );
    let (out, _) = said("cp", &["log", "verify"]);
    assert!(
        out.ends_with("good\n") && out.contains("the leader's copy"),
        "{out}"
    );

    let key = format!("--signing-key={}", keys.join("cp-0.key").display());
    let import = ["log", "import", &file, "--reason=a test", &key, "--yes"];
    let refused = sluice("auditor", &import);
    assert!(!refused.status.success());
    let (out, _) = said("cp", &import);
    assert!(out.contains("began epoch"), "{out}");
    let (out, _) = said("auditor", &["log", "verify"]);
    assert!(out.ends_with("good\n"), "{out}");
}
