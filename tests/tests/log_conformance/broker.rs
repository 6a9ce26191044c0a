//! Removing and chunks where the broker has a say: a small one, one that forbids, one of three.

use super::{PATIENCE, connect, connected, event, options};
use serde_json::{Value, json};
use sluice_replica::log::jetstream::{Options, Role};
use sluice_replica::log::{ChunkUse, LogError};
use sluice_schema::hash::Hash32;
use sluice_schema::version::{Time, Version};
use sluice_tests::nats::Nats;
use std::time::Duration;
use tokio::time::Instant;

/// Between attempts against brokers that are not in step yet.
const PACE: Duration = Duration::from_millis(10);

#[tokio::test]
async fn a_chunk_that_does_not_fit_the_broker_is_refused_with_what_to_set() {
    let nats = Nats::start_with("max_payload: 64KB").unwrap();
    let source = connect(&nats, Role::ControlPlane).await;
    let noise = (0..4096_u32).map(|part| Hash32::of(&part.to_le_bytes()).0);
    let noise: Vec<u8> = noise.flatten().collect();
    for (content, fits) in [(&noise[..63_000], true), (&noise[..], false)] {
        let hash = Hash32::of(content);
        match source.chunks.put(ChunkUse::Snapshot, hash, content).await {
            Ok(()) => assert!(fits, "{}", content.len()),
            Err(LogError::Unusable(reason)) => {
                assert!(!fits, "{reason}");
                assert!(reason.contains("max_payload is 65536"), "{reason}");
            }
            Err(error @ LogError::Unavailable(_)) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_broker_that_forbids_removing_says_so() {
    let nats = Nats::start().unwrap();
    let client = async_nats::connect(nats.url()).await.unwrap();
    let source = connect(&nats, Role::ControlPlane).await;
    let events = ["one", "two"].map(event).to_vec();
    source.log.append(Version::ZERO, events).await.unwrap();
    for (stream, field) in [
        ("SLUICE_test", "deny_purge"),
        ("SLUICE_test_chunks", "deny_delete"),
    ] {
        let mut config =
            ask(&client, &format!("STREAM.INFO.{stream}"), &json!({})).await["config"].take();
        config[field] = true.into();
        ask(&client, &format!("STREAM.UPDATE.{stream}"), &config).await;
    }
    let refused = source.log.trim(Version(2)).await;
    assert!(matches!(refused, Err(LogError::Unusable(_))), "{refused:?}");
    let hash = Hash32::of(b"x");
    let part = ChunkUse::Snapshot;
    source.chunks.put(part, hash, b"x").await.unwrap();
    let refused = source.chunks.remove(part, hash, Time(u64::MAX)).await;
    assert!(matches!(refused, Err(LogError::Unusable(_))), "{refused:?}");
    assert!(source.chunks.get(part, hash).await.unwrap().is_some());
    assert_eq!(source.log.bounds().await.unwrap().first, Version(1));
}

async fn ask(client: &async_nats::Client, operation: &str, body: &Value) -> Value {
    let payload = body.to_string().into_bytes();
    let subject = format!("$JS.API.{operation}");
    let answer = client.request(subject, payload.into()).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer.get("error").is_none(), "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_of_three_brokers_acknowledged_soon_shows_on_each() {
    const POLLS_MAX: usize = 500;
    let servers = Nats::cluster(3).unwrap();
    let all = Options {
        servers: servers.iter().map(Nats::url).collect(),
        replicas: 3,
        ..options(String::new(), Role::ControlPlane)
    };
    let cp = connected(all).await;
    // A new cluster elects its leaders first, which takes a while.
    let deadline = Instant::now() + 3 * PATIENCE;
    while let Err(error) = cp.log.bounds().await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(PACE).await;
    }
    let mut readers = Vec::new();
    for server in &servers {
        readers.push(connect(server, Role::DataPlane).await);
    }
    let part = ChunkUse::Snapshot;
    for round in 0..10_u8 {
        let hash = Hash32::of(&[round]);
        cp.chunks.put(part, hash, &[round]).await.unwrap();
        cp.chunks.put_root("newest", &[round]).await.unwrap();
        for (server, reader) in servers.iter().zip(&readers) {
            let mut polls = 0;
            loop {
                let roots = reader.chunks.roots().await.unwrap();
                let found = roots.iter().any(|root| *root.root == [round]);
                if found && reader.chunks.get(part, hash).await.unwrap().is_some() {
                    break;
                }
                polls += 1;
                assert!(polls < POLLS_MAX, "{}: round {round}", server.name());
                tokio::time::sleep(PACE).await;
            }
        }
    }
    assert_eq!(cp.chunks.list(part).await.unwrap().len(), 10);
    for round in 0..10_u8 {
        let removed = cp.chunks.remove(part, Hash32::of(&[round]), Time(u64::MAX));
        assert!(removed.await.unwrap());
    }
    assert_eq!(cp.chunks.list(part).await.unwrap().len(), 0);
    let events = ["one", "two", "three"].map(event).to_vec();
    cp.log.append(Version::ZERO, events).await.unwrap();
    cp.log.trim(Version(3)).await.unwrap();
    assert_eq!(cp.log.bounds().await.unwrap().first, Version(3));
}
