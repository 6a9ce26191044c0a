//! A whole replica on the embedded log: the log, the state machine, the store and a sink that records.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

#[path = "../common/mod.rs"]
mod common;

mod cuts;
mod loads;
mod records;
mod support;

use sluice_replica::follow::{Fork, Phase, Refused};
use sluice_replica::log::{Interest, Log, TailItem};
use sluice_replica::node::{Head, SyncMode};
use sluice_schema::entity::Id;
use sluice_schema::event::Mutations;
use sluice_schema::version::{Time, Version};
use std::sync::Arc;
use support::{Author, Node, Seen, Tampered, put, put_large, remove};
use uuid::Uuid;

fn versions(seen: &[Seen]) -> Vec<u64> {
    let version = |seen: &Seen| match seen {
        Seen::Change { version, .. } | Seen::Reload { version, .. } | Seen::Commit { version } => {
            Some(*version)
        }
        Seen::Stage { .. } | Seen::Abandon => None,
    };
    seen.iter().filter_map(version).collect()
}

#[tokio::test]
async fn an_empty_replica_catches_up_and_follows() {
    let mut author = Author::new().await;
    author.append(vec![put(1, "a"), put(2, "a")]).await;
    author.append(vec![put(1, "b")]).await;
    let node = Node::start(&author.source, &author, SyncMode::Incremental);
    let status = node.until(|status| status.phase == Phase::Following).await;
    author.assert_is(&status);
    let before = node.seen().len();
    author.append(vec![remove(2), put(3, "c")]).await;
    let status = node
        .until(|status| status.cursor.version == Version(4))
        .await;
    author.assert_is(&status);
    let seen = node.seen();
    let live = Seen::Change {
        version: 4,
        ids: vec![2, 3],
        events: vec![4],
    };
    assert_eq!(seen[before..], [live]);
    author.assert_kept(node).await;
}

#[tokio::test]
async fn the_durable_version_follows_the_applied_one() {
    let mut author = Author::new().await;
    let node = Node::start(&author.source, &author, SyncMode::Incremental);
    for number in 0..5 {
        author.append(vec![put(number, "a")]).await;
        let end = author.version();
        let status = node.until(|status| status.durable == end).await;
        assert!(status.durable <= status.cursor.version);
    }
    author.assert_kept(node).await;
}

#[tokio::test]
async fn a_restarted_replica_goes_on_from_its_store() {
    let mut author = Author::new().await;
    author.append(vec![put(1, "a")]).await;
    let node = Node::start(&author.source, &author, SyncMode::Incremental);
    node.until(|status| status.cursor.version == Version(2))
        .await;
    let directory = node.stop().await;
    author.append(vec![put(2, "b")]).await;
    let node = Node::start_in(directory, &author.source, &author, SyncMode::Incremental);
    assert_eq!(node.status().cursor.version, Version(2));
    assert_eq!(node.status().phase, Phase::Disconnected);
    let status = node
        .until(|status| status.cursor.version == Version(3))
        .await;
    author.assert_is(&status);
    assert_eq!(
        node.seen(),
        [Seen::Change {
            version: 3,
            ids: vec![2],
            events: vec![3]
        }]
    );
    author.assert_kept(node).await;
}

#[tokio::test]
async fn a_large_transaction_comes_through_the_chunk_store() {
    let mut author = Author::new().await;
    let node = Node::start(&author.source, &author, SyncMode::Incremental);
    let message = author.append((0..1200).map(put_large).collect()).await;
    assert!(matches!(message.mutations, Mutations::Stored(ref stored) if stored.chunks.len() > 1));
    let status = node
        .until(|status| status.cursor.version == Version(2))
        .await;
    author.assert_is(&status);
    assert_eq!(status.entities, 1200);
    author.assert_kept(node).await;
}

#[tokio::test]
async fn a_forged_record_in_the_log_stops_the_replica_with_what_it_had() {
    let mut author = Author::new().await;
    author.append(vec![put(1, "a")]).await;
    author.append(vec![put(1, "b")]).await;
    let (good, good_state) = (author.source.clone(), author.state.clone());
    author.append(vec![put(1, "c")]).await;
    for sync in [SyncMode::Incremental, SyncMode::Full] {
        let forged = Tampered::forging(&good, Version(4)).source();
        let node = Node::start(&forged, &author, sync);
        let status = node
            .until(|status| matches!(status.phase, Phase::Forked(_)))
            .await;
        let fork = Fork::Untrusted {
            version: Version(4),
            reason: Refused::Signature,
        };
        assert_eq!(status.phase, Phase::Forked(fork));
        assert!(status.last_error.unwrap().contains("not to be trusted"));
        let status = node
            .until(|status| status.cursor.version == Version(3))
            .await;
        assert_eq!(
            (status.cursor, status.digest),
            (good_state.cursor(), good_state.digest())
        );
        // Its store is good, and it goes on when the log is right again.
        let directory = node.stop().await;
        let node = Node::start_in(directory, &good, &author, sync);
        let status = node
            .until(|status| status.cursor.version == Version(4))
            .await;
        author.assert_is(&status);
        author.assert_kept(node).await;
    }
}

#[tokio::test]
async fn in_full_sync_mode_the_whole_configuration_is_taken_up() {
    let mut author = Author::new().await;
    author.append(vec![put(1, "a"), put(2, "a")]).await;
    let node = Node::start(&author.source, &author, SyncMode::Full);
    node.until(|status| status.cursor.version == Version(2))
        .await;
    author.append(vec![put(3, "a")]).await;
    let status = node
        .until(|status| status.cursor.version == Version(3))
        .await;
    author.assert_is(&status);
    let seen = node.seen();
    assert!(
        seen.iter().all(|seen| matches!(seen, Seen::Reload { .. })),
        "{seen:?}"
    );
    assert_eq!(
        seen.last(),
        Some(&Seen::Reload {
            version: 3,
            ids: vec![1, 2, 3]
        })
    );
    author.assert_kept(node).await;
}

#[tokio::test]
async fn a_head_may_ask_data_planes_for_full_sync_and_control_planes_keep_their_event_ids() {
    let mut author = Author::new().await;
    author.append(vec![put(1, "a")]).await;
    let data_plane = Node::start(&author.source, &author, SyncMode::Incremental);
    let control_plane = Node::start_as(Interest::FollowAndReports, &author.source, &author);
    let nodes = [&data_plane, &control_plane];
    for node in nodes {
        node.until(|status| status.phase == Phase::Following).await;
    }
    let cursor = author.state.cursor();
    let head = Head {
        epoch: cursor.epoch,
        version: cursor.version,
        chain: cursor.chain,
        first: Version::GENESIS,
        time: Time(1),
        announcer: Uuid::nil(),
        sync: SyncMode::Full,
        ring: 0,
        asks: Version::ZERO,
        snapshot: None,
    };
    author
        .source
        .log
        .announce(head.seal(&author.key))
        .await
        .unwrap();
    for node in nodes {
        node.until(|status| status.head.is_some()).await;
    }
    author.append(vec![put(2, "b")]).await;
    for node in nodes {
        node.until(|status| status.cursor.version == Version(3))
            .await;
    }
    assert_eq!(
        data_plane.seen().last(),
        Some(&Seen::Reload {
            version: 3,
            ids: vec![1, 2]
        })
    );
    let change = Seen::Change {
        version: 3,
        ids: vec![2],
        events: vec![3],
    };
    assert_eq!(control_plane.seen().last(), Some(&change));
}

#[tokio::test]
async fn a_lost_connection_shows_and_what_was_missed_is_read_when_it_is_back() {
    let mut author = Author::new().await;
    let tampered = Tampered::new(&author.source);
    let node = Node::start(&tampered.source(), &author, SyncMode::Incremental);
    node.until(|status| status.phase == Phase::Following && status.connected)
        .await;
    tampered.deafen();
    tampered.inject(TailItem::Disconnected);
    let status = node
        .until(|status| status.phase == Phase::Disconnected)
        .await;
    assert!(!status.connected);
    author.append(vec![put(1, "a")]).await;
    author.append(vec![put(1, "b")]).await;
    assert_eq!(node.status().cursor.version, Version(1));
    tampered.inject(TailItem::Connected);
    let status = node
        .until(|status| status.cursor.version == Version(3))
        .await;
    author.assert_is(&status);
    let mut expected: Vec<u64> = versions(&node.seen());
    expected.dedup();
    assert_eq!(expected, versions(&node.seen()));
    author.assert_kept(node).await;
}

#[tokio::test]
async fn a_forged_live_message_changes_nothing() {
    let mut author = Author::new().await;
    let tampered = Tampered::new(&author.source);
    let node = Node::start(&tampered.source(), &author, SyncMode::Incremental);
    node.until(|status| status.phase == Phase::Following).await;
    tampered.deafen();
    author.append(vec![put(1, "a")]).await;
    let log: Arc<dyn Log> = author.source.log.clone();
    let mut record = log.get(Version(2)).await.unwrap().unwrap();
    record.signature = None;
    tampered.inject(TailItem::Record(record));
    // It is dropped; the log itself has the event.
    let status = node
        .until(|status| status.cursor.version == Version(2))
        .await;
    author.assert_is(&status);
    assert!(
        status
            .last_error
            .unwrap()
            .contains("dropped a live message")
    );
    assert_eq!(
        author.state.iter().next().unwrap().0.id,
        Id(Uuid::from_u128(1))
    );
}
