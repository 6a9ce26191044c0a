//! The JetStream log when the broker misbehaves, is misconfigured, or does not let us.

#![cfg(test)]

use bytes::Bytes;
use sluice_replica::log::jetstream::{JetStream, Options, Role};
use sluice_replica::log::{AppendError, ChunkUse, Interest, Log, LogError, TailItem};
use sluice_schema::hash::Hash32;
use sluice_schema::version::{Time, Version};
use sluice_tests::nats::Nats;
use sluice_tests::processes::freeze;
use sluice_tests::tail::{PATIENCE, connected, event, wait_until};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Between attempts against a broker that may be away.
const PACE: Duration = Duration::from_millis(10);

fn options(url: String, role: Role) -> Options {
    Options {
        servers: vec![url],
        cluster: "test".into(),
        append_timeout: Duration::from_secs(1),
        ping_interval: Duration::from_millis(200),
        ..Options::new(role, "broker-test")
    }
}

/// Appends `texts` as one batch, whatever it takes, the way a writer does: an unknown outcome is looked up, nothing
/// found is sent again. Gives up (`false`) if another event is there.
async fn append_surely(log: &dyn Log, at: Version, texts: &[String]) -> bool {
    let events: Vec<_> = texts.iter().map(|text| event(text)).collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(
            Instant::now() < deadline,
            "an append at {at} has no outcome"
        );
        match log.append(at, events.clone()).await {
            Ok(()) => return true,
            Err(AppendError::Refused(_)) => {}
            Err(AppendError::Conflict { .. } | AppendError::Unknown { .. }) => {
                if let Some(found) = look_up(log, at.next(), deadline).await {
                    return found == texts[0];
                }
            }
        }
        tokio::time::sleep(PACE).await;
    }
}

async fn look_up(log: &dyn Log, version: Version, deadline: Instant) -> Option<Bytes> {
    loop {
        match log.get(version).await {
            Ok(record) => return record.map(|record| record.event),
            Err(error) => assert!(Instant::now() < deadline, "version {version}: {error}"),
        }
        tokio::time::sleep(PACE).await;
    }
}

async fn contents(log: &dyn Log) -> Vec<String> {
    let mut texts = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = match log.read(Version(texts.len() as u64 + 1)).await {
            Ok(page) => page,
            // A cluster may be choosing a leader.
            Err(error) => {
                assert!(Instant::now() < deadline, "{error}");
                tokio::time::sleep(PACE).await;
                continue;
            }
        };
        for record in &page.records {
            assert_eq!(record.version, Version(texts.len() as u64 + 1), "a hole");
            texts.push(String::from_utf8(record.event.to_vec()).unwrap());
        }
        if !page.more {
            return texts;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_connection_is_lost_does_not_wait_for_its_time_out() {
    let mut nats = Nats::start().unwrap();
    let patient = Options {
        append_timeout: 10 * PATIENCE,
        ..options(nats.url(), Role::ControlPlane)
    };
    let source = connected(patient).await;
    source
        .log
        .append(Version(0), vec![event("x")])
        .await
        .unwrap();
    freeze(nats.process_id()).unwrap();
    let log = source.log.clone();
    let append = tokio::spawn(async move { log.append(Version(1), vec![event("y")]).await });
    // Long enough for the message to be on its way, and too short for the client to miss the broker's pongs.
    tokio::time::sleep(Duration::from_millis(100)).await;
    nats.kill();
    let outcome = tokio::time::timeout(PATIENCE, append)
        .await
        .unwrap()
        .unwrap();
    assert!(
        matches!(outcome, Err(AppendError::Unknown { .. })),
        "{outcome:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_append_over_a_killed_broker_has_an_outcome_that_can_be_found_out() {
    let mut nats = Nats::start().unwrap();
    let source = connected(options(nats.url(), Role::ControlPlane)).await;
    let (progress, mut done) = mpsc::channel(1);
    let log = source.log.clone();
    let writer = tokio::spawn(async move {
        let mut expected = Vec::new();
        for round in 0..120_usize {
            let texts: Vec<_> = (0..=round % 4)
                .map(|part| format!("{round}/{part}"))
                .collect();
            let at = Version(expected.len() as u64);
            assert!(append_surely(&*log, at, &texts).await, "round {round}");
            expected.extend(texts);
            // The broker is killed at rounds the test chooses by reading this.
            let _ = progress.try_send(round);
        }
        expected
    });
    for _ in 0..4 {
        let round = done.recv().await.unwrap();
        while done.recv().await.is_some_and(|now| now < round + 12) {}
        nats.restart().unwrap();
    }
    let expected = tokio::time::timeout(PATIENCE, writer)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(contents(&*source.log).await, expected);
}

#[tokio::test]
async fn a_lost_connection_shows_and_comes_back_by_itself() {
    let mut nats = Nats::start().unwrap();
    let source = connected(options(nats.url(), Role::ControlPlane)).await;
    source
        .log
        .append(Version::ZERO, vec![event("one")])
        .await
        .unwrap();
    let mut tail = source.log.tail(Interest::Follow).await.unwrap();
    nats.kill();
    wait_until(&mut tail, |item| matches!(item, TailItem::Disconnected)).await;
    let refused = source.log.append(Version(1), vec![event("two")]).await;
    assert!(
        matches!(refused, Err(AppendError::Refused(LogError::Unavailable(_)))),
        "{refused:?}"
    );
    assert!(matches!(
        source.log.announce("x".into()).await,
        Err(LogError::Unavailable(_))
    ));
    nats.restart().unwrap();
    wait_until(&mut tail, |item| matches!(item, TailItem::Connected)).await;
    source
        .log
        .append(Version(1), vec![event("two")])
        .await
        .unwrap();
    wait_until(
        &mut tail,
        |item| matches!(item, TailItem::Record(record) if record.version == Version(2)),
    )
    .await;
    assert_eq!(contents(&*source.log).await, ["one", "two"]);
}

#[tokio::test]
async fn a_frozen_broker_is_noticed_and_the_append_meanwhile_is_resolved() {
    let nats = Nats::start().unwrap();
    let source = connected(options(nats.url(), Role::ControlPlane)).await;
    source
        .log
        .append(Version::ZERO, vec![event("one")])
        .await
        .unwrap();
    let mut tail = source.log.tail(Interest::Follow).await.unwrap();
    signal(&nats, "-STOP");
    let unknown = source.log.append(Version(1), vec![event("lost")]).await;
    assert!(
        matches!(unknown, Err(AppendError::Unknown { .. })),
        "{unknown:?}"
    );
    wait_until(&mut tail, |item| matches!(item, TailItem::Disconnected)).await;
    signal(&nats, "-CONT");
    wait_until(&mut tail, |item| matches!(item, TailItem::Connected)).await;
    let ours = append_surely(&*source.log, Version(1), &["two".to_owned()]).await;
    assert_eq!(
        contents(&*source.log).await,
        ["one", if ours { "two" } else { "lost" }]
    );
}

fn signal(nats: &Nats, signal: &str) {
    let id = nats.process_id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args([signal, &id])
            .status()
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn a_log_may_be_opened_before_its_broker_runs() {
    let mut nats = Nats::start().unwrap();
    nats.kill();
    let source = JetStream::connect(options(nats.url(), Role::ControlPlane))
        .await
        .unwrap();
    let mut tail = source.log.tail(Interest::FollowAndReports).await.unwrap();
    assert!(matches!(
        source.log.bounds().await,
        Err(LogError::Unavailable(_))
    ));
    nats.restart().unwrap();
    wait_until(&mut tail, |item| matches!(item, TailItem::Connected)).await;
    source
        .log
        .append(Version::ZERO, vec![event("one")])
        .await
        .unwrap();
    wait_until(&mut tail, |item| matches!(item, TailItem::Record(_))).await;
}

#[tokio::test]
async fn a_stream_that_could_lose_events_is_not_used() {
    let nats = Nats::start().unwrap();
    let client = async_nats::connect(nats.url()).await.unwrap();
    let good = |cluster: &str| {
        let [log, tail] = ["log", "tail"].map(|part| format!("sluice.{cluster}.{part}.>"));
        serde_json::json!({
            "name": format!("SLUICE_{cluster}"), "subjects": [log], "storage": "file", "num_replicas": 1,
            "discard": "new", "deny_delete": true, "allow_direct": true, "allow_atomic": true,
            "republish": { "src": log, "dest": tail },
        })
    };
    let opened = |cluster: &str| {
        connected(Options {
            cluster: cluster.to_owned(),
            ..options(nats.url(), Role::ControlPlane)
        })
    };
    let cases = [
        ("discard", serde_json::json!("old"), "'discard' is \"old\""),
        (
            "max_age",
            serde_json::json!(3_600_000_000_000_u64),
            "'max_age'",
        ),
        ("max_msgs", serde_json::json!(1000), "'max_msgs' is 1000"),
        (
            "storage",
            serde_json::json!("memory"),
            "'storage' is \"memory\"",
        ),
        ("allow_atomic", serde_json::json!(false), "'allow_atomic'"),
        ("allow_direct", serde_json::json!(false), "'allow_direct'"),
        ("deny_delete", serde_json::json!(false), "'deny_delete'"),
        ("republish", serde_json::Value::Null, "'republish' is null"),
        (
            "allow_rollup_hdrs",
            serde_json::json!(true),
            "'allow_rollup_hdrs' is true",
        ),
    ];
    for (field, value, expected) in cases {
        let mut config = good(field);
        config[field] = value;
        ask(&client, &format!("STREAM.CREATE.SLUICE_{field}"), &config).await;
        let source = opened(field).await;
        let refused = source.log.append(Version::ZERO, vec![event("one")]).await;
        let Err(AppendError::Refused(LogError::Unusable(reason))) = refused else {
            panic!("{field}: {refused:?}");
        };
        assert!(reason.contains(expected), "{reason}");
    }
    ask(&client, "STREAM.CREATE.SLUICE_good", &good("good")).await;
    opened("good")
        .await
        .log
        .append(Version::ZERO, vec![event("one")])
        .await
        .unwrap();
}

async fn ask(client: &async_nats::Client, operation: &str, body: &serde_json::Value) {
    let payload = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let answer = client
        .request(format!("$JS.API.{operation}"), payload.into())
        .await
        .unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer.get("error").is_none(), "{answer}");
}

/// What a control plane and a data plane ask for. One account for both is not safe: broker_trust shows why.
const USERS: &str = r#"
authorization {
  users: [
    { user: cp, password: secret, permissions: {
        publish: [
          "sluice.test.log.>", "sluice.test.chunk.>", "sluice.test.head",
          "$JS.API.STREAM.INFO.SLUICE_test", "$JS.API.STREAM.INFO.SLUICE_test_chunks",
          "$JS.API.STREAM.CREATE.SLUICE_test", "$JS.API.STREAM.CREATE.SLUICE_test_chunks",
          "$JS.API.STREAM.MSG.GET.SLUICE_test", "$JS.API.STREAM.MSG.GET.SLUICE_test_chunks",
          "$JS.API.STREAM.MSG.DELETE.SLUICE_test_chunks", "$JS.API.STREAM.PURGE.SLUICE_test",
          "$JS.API.DIRECT.GET.SLUICE_test", "$JS.API.DIRECT.GET.SLUICE_test_chunks"
        ]
        subscribe: ["sluice.test.tail.>", "sluice.test.head", "sluice.test.node.*", "_INBOX.>"]
    } }
    { user: dp, password: secret, permissions: {
        publish: [
          "$JS.API.DIRECT.GET.SLUICE_test", "$JS.API.DIRECT.GET.SLUICE_test_chunks",
          "sluice.test.node.n1"
        ]
        subscribe: ["sluice.test.tail.>", "sluice.test.head", "_INBOX_dp.>"]
    } }
  ]
}
"#;

#[tokio::test]
async fn a_data_plane_needs_no_more_rights_than_it_is_given() {
    let nats = Nats::start_with(USERS).unwrap();
    let cp = connected(options(nats.url_as("cp", "secret"), Role::ControlPlane)).await;
    let (content, one) = (b"piece".to_vec(), event("one"));
    let hash = Hash32::of(&content);
    let part = ChunkUse::Transaction;
    cp.chunks.put(part, hash, &content).await.unwrap();
    cp.chunks.put_root("newest", b"root").await.unwrap();
    cp.log
        .append(Version::ZERO, vec![one.clone()])
        .await
        .unwrap();
    let mut reports = cp.log.tail(Interest::FollowAndReports).await.unwrap();

    let restricted = Options {
        inbox_prefix: Some("_INBOX_dp".into()),
        ..options(nats.url_as("dp", "secret"), Role::DataPlane)
    };
    let dp = connected(restricted).await;
    let mut tail = dp.log.tail(Interest::Follow).await.unwrap();
    assert_eq!(contents(&*dp.log).await, ["one"]);
    assert!(dp.log.read(Version(2)).await.unwrap().records.is_empty());
    assert_eq!(
        dp.log.get(Version(1)).await.unwrap().unwrap().event,
        one.event
    );
    assert_eq!(dp.log.get(Version(2)).await.unwrap(), None);
    assert_eq!(dp.chunks.get(part, hash).await.unwrap().unwrap(), content);
    let none = dp.chunks.get(part, Hash32::of(b"none"));
    assert_eq!(none.await.unwrap(), None);
    let roots = dp.chunks.roots().await.unwrap();
    assert_eq!((roots.len(), &*roots[0].root), (1, &b"root"[..]));
    cp.log
        .append(Version(1), vec![event("two"), event("three")])
        .await
        .unwrap();
    assert_eq!(
        cp.log.get(Version(1)).await.unwrap().unwrap().event,
        one.event
    );
    let two = |item: &TailItem| matches!(item, TailItem::Record(r) if r.version == Version(2));
    wait_until(&mut tail, two).await;
    cp.log.announce("head".into()).await.unwrap();
    wait_until(&mut tail, |item| matches!(item, TailItem::Head(_))).await;
    dp.log.report("n1", "well".into()).await.unwrap();
    wait_until(&mut reports, |item| matches!(item, TailItem::Report(_))).await;

    // What it may not do, it cannot; and it hears why.
    assert!(
        dp.log
            .append(Version(2), vec![event("forged")])
            .await
            .is_err()
    );
    let violation =
        |item: &TailItem| matches!(item, TailItem::Warning(w) if w.contains("ermission"));
    wait_until(&mut tail, violation).await;
    assert!(dp.log.bounds().await.is_err());
    assert_eq!(contents(&*cp.log).await, ["one", "two", "three"]);
    assert!(dp.chunks.put_root("newest", b"forged").await.is_err());
    assert_eq!(cp.chunks.roots().await.unwrap(), roots);

    // What a control plane cleans up, it may.
    assert_eq!(cp.chunks.list(part).await.unwrap().len(), 1);
    let removed = cp.chunks.remove(part, hash, Time(u64::MAX));
    assert!(removed.await.unwrap());
    cp.chunks.remove_root("newest").await.unwrap();
    cp.log.trim(Version(2)).await.unwrap();
    assert_eq!(cp.log.bounds().await.unwrap().first, Version(2));
}

#[tokio::test]
async fn a_wrong_password_is_told_once_and_is_no_reason_to_stop() {
    let nats = Nats::start_with(USERS).unwrap();
    let url = nats.url_as("cp", "guess");
    let source = JetStream::connect(options(url, Role::ControlPlane))
        .await
        .unwrap();
    let mut tail = source.log.tail(Interest::Follow).await.unwrap();
    let told = |item: &TailItem| matches!(item, TailItem::Warning(w) if w.contains("uthorization"));
    wait_until(&mut tail, told).await;
    assert!(matches!(
        source.log.bounds().await,
        Err(LogError::Unavailable(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_brokers_keep_one_log_while_two_are_killed_in_turn() {
    let mut servers = Nats::cluster(3).unwrap();
    let all = Options {
        servers: servers.iter().map(Nats::url).collect(),
        replicas: 3,
        append_timeout: Duration::from_secs(2),
        ..options(String::new(), Role::ControlPlane)
    };
    let first = connected(all.clone()).await;
    // A new cluster elects its leaders first, which takes a while.
    let deadline = Instant::now() + 3 * PATIENCE;
    while let Err(error) = first.log.bounds().await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(PACE).await;
    }
    let (progress, mut done) = mpsc::channel(1);
    let mut writers = Vec::new();
    for writer in 0..3 {
        let (log, progress) = (connected(all.clone()).await.log, progress.clone());
        writers.push(tokio::spawn(compete(log, writer, progress)));
    }
    drop(progress);
    for server in servers.iter_mut().take(2) {
        for _ in 0..6 {
            done.recv().await;
        }
        server.kill();
        for _ in 0..3 {
            done.recv().await;
        }
        server.restart().unwrap();
    }
    while done.recv().await.is_some() {}
    let mut stored = BTreeMap::new();
    for writer in writers {
        stored.extend(writer.await.unwrap());
    }
    // Any copy may answer, and one that was away may still be behind.
    let deadline = Instant::now() + PATIENCE;
    let contents = loop {
        let contents = contents(&*first.log).await;
        let last = first
            .log
            .bounds()
            .await
            .map_or(Version(u64::MAX), |bounds| bounds.last);
        if contents.len() as u64 == last.0 {
            break contents;
        }
        assert!(Instant::now() < deadline, "{} of {last}", contents.len());
        tokio::time::sleep(PACE).await;
    };
    assert!(!stored.is_empty());
    for (version, texts) in stored {
        let start = usize::try_from(version.0).unwrap();
        assert_eq!(
            contents[start..start + texts.len()],
            texts,
            "after {version}"
        );
    }
}

/// Appends batches in competition with others. Gives back what it knows to be stored, by the version before it.
async fn compete(
    log: Arc<dyn Log>,
    writer: usize,
    progress: mpsc::Sender<()>,
) -> BTreeMap<Version, Vec<String>> {
    let mut stored = BTreeMap::new();
    let deadline = Instant::now() + 2 * PATIENCE;
    while stored.len() < 12 {
        assert!(
            Instant::now() < deadline,
            "writer {writer} stored only {}",
            stored.len()
        );
        let Ok(bounds) = log.bounds().await else {
            tokio::time::sleep(PACE).await;
            continue;
        };
        let round = stored.len();
        let texts: Vec<_> = (0..=round % 3)
            .map(|part| format!("{writer}/{round}/{part}/{}", bounds.last))
            .collect();
        if append_surely(&*log, bounds.last, &texts).await {
            stored.insert(bounds.last, texts);
            let _ = progress.try_send(());
        }
    }
    stored
}
