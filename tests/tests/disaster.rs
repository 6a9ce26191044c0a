//! The log is lost, goes back, or is edited: what the `sluice` command finds, and how it is put right without a restart.

#![cfg(test)]

use async_nats::jetstream;
use bytes::Bytes;
use serde_json::{Value, json};
use sluice_tests::cluster::Cluster;
use sluice_tests::processes::binary;
use sluice_tools::admin::Connection;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn service(name: &str, cluster: &Cluster) -> Value {
    let mut service = json!({ "name": name, "host": cluster.origin.ip().to_string(), "port": cluster.origin.port() });
    service["routes"] = json!([{ "name": name, "paths": [format!("/{name}")] }]);
    service
}

/// A cluster with a log of some events that serves `/shop`.
fn started() -> Cluster {
    let cluster = Cluster::start(2, 2).unwrap();
    let file = json!({ "_format_version": "3.0", "services": [service("shop", &cluster)] });
    cluster.apply(0, &file).unwrap();
    for number in 0..5 {
        write(&cluster, &format!("early-{number}"));
    }
    cluster.converge().unwrap();
    cluster
}

fn write(cluster: &Cluster, name: &str) {
    let answer = cluster
        .post(0, "/consumers", &json!({ "username": name }))
        .unwrap();
    assert_eq!(answer.status, 201, "{}", answer.body);
}

/// The `sluice` command with the cluster's broker and keys.
fn sluice(cluster: &Cluster, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("sluice").unwrap());
    command
        .args(arguments)
        .env("SLUICE_NATS_URL", cluster.nats.url())
        .env("SLUICE_ADMIN_URL", cluster.controls[0].url())
        .env("SLUICE_TRUSTED_KEYS", cluster.directory.path().join("keys"))
        .output()
        .unwrap()
}

/// What it says if it succeeds.
fn said(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = sluice(cluster, arguments);
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {out}\n{error}");
    out
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn archive(cluster: &Cluster, name: &str) -> String {
    cluster.directory.path().join(name).display().to_string()
}

fn import(cluster: &Cluster, file: &str, more: &[&str]) -> String {
    let key = archive(cluster, "keys/cp-0.key");
    let signing = format!("--signing-key={key}");
    let arguments = ["log", "import", file, "--reason=lost", "--yes", &signing];
    said(cluster, &[&arguments, more].concat())
}

fn epoch(cluster: &Cluster, control: usize) -> String {
    let head = cluster.admin(control).get("/log/head");
    head.map_or_else(|_| String::new(), |head| head["epoch"].to_string())
}

/// Waits until everybody has left `old` and agrees again, and checks that writing and serving work.
fn comes_over(cluster: &Cluster, old: &str) {
    cluster
        .wait_until("everybody is in the new epoch", |cluster| {
            let controls = (0..cluster.controls.len()).all(|number| {
                let found = epoch(cluster, number);
                !found.is_empty() && found != old
            });
            let datas = (0..cluster.datas.len()).all(|number| {
                let status = cluster.data_status(number);
                status.is_ok_and(|status| *old != *status["log"]["epoch"].to_string())
            });
            Ok(controls && datas)
        })
        .unwrap();
    for control in 0..cluster.controls.len() {
        cluster
            .wait_until("writes work again", |cluster| {
                let name = format!("late-{control}");
                let body = json!({ "username": name });
                let status = cluster.post(control, "/consumers", &body)?.status;
                Ok(status == 201 || status == 409)
            })
            .unwrap();
    }
    cluster.converge().unwrap();
    serves(cluster);
    let verified = said(cluster, &["log", "verify"]);
    assert!(verified.ends_with("good\n"), "{verified}");
}

fn serves(cluster: &Cluster) {
    for data in 0..cluster.datas.len() {
        assert_eq!(cluster.request(data, "/shop", "").unwrap(), 200);
    }
}

fn forked(cluster: &Cluster, data: usize) -> bool {
    let status = cluster.data_status(data).unwrap();
    let phase = status["log"]["phase"].as_str().unwrap_or_default();
    phase.starts_with("forked")
}

/// Does something with the streams, as an operator with the `nats` command would.
fn with_broker<T>(cluster: &Cluster, work: impl AsyncFnOnce(jetstream::Context) -> T) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(cluster.nats.url()).await.unwrap();
        work(jetstream::new(client)).await
    })
}

#[test]
fn a_log_that_was_deleted_is_begun_anew_from_an_archive() {
    let cluster = started();
    let file = archive(&cluster, "nightly.sluice");
    said(&cluster, &["snapshot", "cut"]);
    said(&cluster, &["log", "export", &file]);
    let verified = said(&cluster, &["log", "verify", &file]);
    assert!(verified.ends_with("good\n"), "{verified}");
    let old = epoch(&cluster, 0);
    with_broker(&cluster, async |context| {
        context.delete_stream("SLUICE_main").await.unwrap();
        context.delete_stream("SLUICE_main_chunks").await.unwrap();
    });
    serves(&cluster);
    let shown = sluice(
        &cluster,
        &[
            "log",
            "import",
            &file,
            "--reason=lost",
            &format!("--signing-key={}", archive(&cluster, "keys/cp-0.key")),
            "--dry-run",
        ],
    );
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let imported = import(&cluster, &file, &[]);
    assert!(imported.contains("at version 1:"), "{imported}");
    comes_over(&cluster, &old);
}

/// Copies what the broker has stored, and writes something more. Gives back where it stores and where the copy is.
fn copied_and_written_on(cluster: &mut Cluster) -> (PathBuf, PathBuf) {
    let store = cluster.nats.directory().join("jetstream");
    let copy = cluster.directory.path().join("old-copy");
    cluster.nats.kill();
    copy_tree(&store, &copy);
    cluster.nats.restart().unwrap();
    cluster
        .wait_until("writes work again", |cluster| {
            let status = cluster
                .post(0, "/consumers", &json!({ "username": "later" }))?
                .status;
            Ok(status == 201 || status == 409)
        })
        .unwrap();
    (store, copy)
}

#[test]
fn a_log_restored_from_an_old_copy_is_replaced_by_the_newer_archive() {
    let mut cluster = started();
    let (store, copy) = copied_and_written_on(&mut cluster);
    for number in 0..5 {
        write(&cluster, &format!("later-{number}"));
    }
    cluster.converge().unwrap();
    let file = archive(&cluster, "nightly.sluice");
    said(&cluster, &["log", "export", &file]);

    cluster.nats.kill();
    std::fs::remove_dir_all(&store).unwrap();
    copy_tree(&copy, &store);
    cluster.nats.restart().unwrap();
    cluster
        .wait_until("everybody stops", |cluster| {
            Ok((0..2).all(|data| forked(cluster, data)))
        })
        .unwrap();
    serves(&cluster);
    let old = epoch(&cluster, 0);
    import(&cluster, &file, &[]);
    comes_over(&cluster, &old);
}

#[test]
fn a_control_plane_with_nothing_does_not_write_over_what_a_restored_log_has_lost() {
    let mut cluster = started();
    let (store, copy) = copied_and_written_on(&mut cluster);
    let version = cluster.converge().unwrap();

    cluster.controls[1].kill();
    cluster.nats.kill();
    std::fs::remove_dir_all(&store).unwrap();
    copy_tree(&copy, &store);
    std::fs::remove_dir_all(cluster.directory.path().join("cp-1/store")).unwrap();
    cluster.nats.restart().unwrap();
    cluster.controls[1].restart().unwrap();
    cluster
        .wait_until("the new one has read the log", |cluster| {
            let status = cluster.admin(1).get("/status")?;
            Ok(status["sluice"]["version"].as_u64() > Some(1))
        })
        .unwrap();
    let answer = cluster
        .post(1, "/consumers", &json!({ "username": "over" }))
        .unwrap();
    assert_eq!(answer.status, 503, "{}", answer.body);
    let bounds = cluster.admin(1).get("/log/head").unwrap();
    assert!(bounds["last"].as_u64() < Some(version), "{bounds}");
    serves(&cluster);
}

#[test]
fn an_event_that_nobody_trusts_is_named_and_passed_over_by_a_new_epoch() {
    let cluster = started();
    let file = archive(&cluster, "nightly.sluice");
    said(&cluster, &["log", "export", &file]);
    let last = cluster.converge().unwrap();
    with_broker(&cluster, async |context| {
        let subject = "sluice.main.log.default.service.forged";
        let sent = context
            .publish(subject, Bytes::from_static(b"garbage"))
            .await;
        sent.unwrap().await.unwrap();
    });
    cluster
        .wait_until("everybody stops", |cluster| {
            Ok((0..2).all(|data| forked(cluster, data)))
        })
        .unwrap();
    let found = sluice(&cluster, &["log", "verify", "--json"]);
    assert_eq!(found.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(report["fault"]["version"], last + 1, "{report}");
    let old = epoch(&cluster, 0);
    let imported = import(&cluster, &file, &[]);
    assert!(
        imported.contains(&format!("at version {}:", last + 2)),
        "{imported}"
    );
    comes_over(&cluster, &old);
}

#[test]
fn an_edited_log_and_an_unreachable_one_are_told_apart() {
    let cluster = started();
    with_broker(&cluster, async |context| {
        let mut stream = context.get_stream("SLUICE_main").await.unwrap();
        let last = stream.info().await.unwrap().state.last_sequence;
        let config = stream.cached_info().config.clone();
        let mut messages = Vec::new();
        for sequence in 1..=last {
            let message = stream.get_raw_message(sequence).await.unwrap();
            messages.push((message.subject, message.headers, message.payload));
        }
        context.delete_stream("SLUICE_main").await.unwrap();
        context.create_stream(config).await.unwrap();
        for (sequence, (subject, headers, payload)) in (1..).zip(messages) {
            let mut payload = payload.to_vec();
            if sequence == 3 {
                let name = payload
                    .windows(7)
                    .position(|part| part == b"early-0")
                    .unwrap();
                payload[name + 6] = b'X';
            }
            let mut kept = async_nats::HeaderMap::new();
            for (name, values) in headers.iter() {
                if name.to_string().starts_with("Sluice-") {
                    values
                        .iter()
                        .for_each(|value| kept.append(name.clone(), value.clone()));
                }
            }
            let sent = context
                .publish_with_headers(subject, kept, payload.into())
                .await;
            sent.unwrap().await.unwrap();
        }
    });
    let found = sluice(&cluster, &["log", "verify"]);
    let told = text(&found.stdout);
    assert_eq!(found.status.code(), Some(1), "{told}");
    assert!(
        told.contains("BAD: version 3: the state after it has digest"),
        "{told}"
    );
    let away = sluice(
        &cluster,
        &["log", "verify", "--nats-url=nats://127.0.0.1:1"],
    );
    assert_eq!(away.status.code(), Some(2));
}

#[test]
fn without_any_archive_a_data_planes_store_begins_the_new_epoch() {
    let mut cluster = started();
    let old = epoch(&cluster, 0);
    with_broker(&cluster, async |context| {
        context.delete_stream("SLUICE_main").await.unwrap();
        context.delete_stream("SLUICE_main_chunks").await.unwrap();
    });
    cluster.datas[1].kill();
    let file = archive(&cluster, "rescued.sluice");
    let store = archive(&cluster, "dp-1/store");
    said(&cluster, &["log", "export", &file, "--store", &store]);
    let key = format!("--signing-key={}", archive(&cluster, "keys/cp-0.key"));
    let refused = sluice(
        &cluster,
        &["log", "import", &file, "--reason=lost", &key, "--yes"],
    );
    assert!(text(&refused.stderr).contains("--accept-unsigned"));
    import(&cluster, &file, &["--accept-unsigned"]);
    cluster.datas[1].restart().unwrap();
    comes_over(&cluster, &old);
}

#[test]
fn a_trimmed_log_is_verified_exported_and_followed_by_a_new_data_plane() {
    let cluster = started();
    let cut = said(&cluster, &["snapshot", "cut"]);
    assert!(cut.contains("chunks"), "{cut}");
    write(&cluster, "after");
    let listed = said(&cluster, &["snapshot", "list"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let checked = said(&cluster, &["snapshot", "verify"]);
    assert!(checked.contains("is whole"), "{checked}");
    let last = cluster.converge().unwrap();
    let refused = sluice(&cluster, &["log", "trim", &format!("--before={last}")]);
    assert!(
        text(&refused.stderr).contains("nothing was trimmed: "),
        "{}",
        text(&refused.stderr)
    );
    let before = archive(&cluster, "before.sluice");
    let trimmed = said(
        &cluster,
        &["log", "trim", "--before=4", "--export", &before],
    );
    assert!(trimmed.contains("keeps versions 4 to"), "{trimmed}");
    for file in [
        archive(&cluster, "after.sluice"),
        archive(&cluster, "snapshot.sluice"),
    ] {
        match file.contains("snapshot") {
            true => said(&cluster, &["snapshot", "fetch", &file]),
            false => said(&cluster, &["log", "export", &file]),
        };
        assert!(said(&cluster, &["log", "verify", &file]).ends_with("good\n"));
    }
    assert!(said(&cluster, &["log", "verify", &before]).ends_with("good\n"));
    assert!(said(&cluster, &["log", "verify"]).ends_with("good\n"));
    let status = Connection::to(cluster.controls[0].url())
        .get("/log/head")
        .unwrap();
    assert_eq!(status["first"], 4);
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}
