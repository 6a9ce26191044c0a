//! Replicas that take up snapshots: what they fetch, and what becomes of them when that goes wrong.

use crate::support::{
    Author, Fault, Node, Seen, Shelf, Tampered, entities, later_life, put, put_large, remove,
};
use sluice_replica::follow::{Fork, Phase};
use sluice_replica::log::{Chunks, TailItem};
use sluice_replica::node::SyncMode;
use sluice_replica::snapshot::{Charter, Root, fetch_tree};
use sluice_replica::store::Store;
use sluice_schema::hash::Hash32;
use sluice_schema::version::{Time, Version};
use std::collections::BTreeSet;
use std::sync::Arc;

/// As many entities as make up several leaves.
const SEVERAL_LEAVES: u128 = 1_000;
const MANY: u128 = 20_000;
const PER_EVENT: u128 = 2_000;

fn following(version: u64) -> impl Fn(&sluice_replica::run::Status) -> bool {
    move |status| status.phase == Phase::Following && status.cursor.version == Version(version)
}

/// The leaves of a snapshot, one piece each.
async fn leaves(shelf: &Shelf, root: &Root) -> BTreeSet<Hash32> {
    let tree = fetch_tree(shelf, root).await.unwrap();
    let pieces = tree.leaves().iter().flat_map(|leaf| leaf.pieces.clone());
    pieces.collect()
}

/// An author whose log begins after version 5, where a snapshot stands for the rest. Its end is at 7.
async fn trimmed() -> (Author, Arc<Shelf>, Root) {
    let (mut author, shelf) = Author::with_shelf().await;
    author
        .append((0..SEVERAL_LEAVES).map(put_large).collect())
        .await;
    author.append(vec![put(1, "a"), remove(2)]).await;
    author.append(vec![put(3, "a")]).await;
    author.append(vec![put(4, "a")]).await;
    let root = author.cut(None).await;
    author.append(vec![put(1, "b")]).await;
    author.append(vec![put(5, "b")]).await;
    author.trim(Version(6)).await;
    shelf.fetched();
    (author, shelf, root)
}

#[tokio::test]
async fn a_new_replica_begins_with_the_snapshot_behind_which_the_log_was_trimmed() {
    let (mut author, _, _) = trimmed().await;
    for sync in [SyncMode::Incremental, SyncMode::Full] {
        let node = Node::start(&author.source, &author, sync);
        let end = author.version().0;
        author.assert_is(&node.until(following(end)).await);
        author.append(vec![put(9, "live")]).await;
        author.assert_is(&node.until(following(end + 1)).await);
        let seen = node.seen();
        let commit = Seen::Commit { version: 5 };
        let committed = seen.iter().position(|seen| *seen == commit).unwrap();
        let staged = |seen: &Seen| matches!(seen, Seen::Stage { .. });
        assert!(seen[..committed].iter().all(staged), "seen before its end");
        assert!(!seen[committed + 1..].iter().any(staged));
        author.assert_kept(node).await;
    }
}

#[tokio::test]
async fn a_replica_far_behind_fetches_only_what_differs() {
    let (mut author, shelf) = Author::with_shelf().await;
    for from in (0..MANY).step_by(PER_EVENT as usize) {
        let body = "x".repeat(400);
        let mutations = (from..from + PER_EVENT).map(|number| put(number, &body));
        author.append(mutations.collect()).await;
    }
    let node = Node::start(&author.source, &author, SyncMode::Incremental);
    node.until(following(author.version().0)).await;
    let directory = node.stop().await;
    // One entity changes, and the log is trimmed behind that.
    author.append(vec![put(MANY / 2, "changed")]).await;
    author.append(vec![]).await;
    let root = author.cut(None).await;
    author.append(vec![]).await;
    author.trim(author.version()).await;
    let leaves = leaves(&shelf, &root).await;
    assert!(leaves.len() > 50, "{} leaves", leaves.len());
    shelf.fetched();

    let node = Node::start_in(directory, &author.source, &author, SyncMode::Incremental);
    node.until(|status| status.connected).await;
    author.announce(Some(&root)).await;
    author.assert_is(&node.until(following(author.version().0)).await);
    let fetched = shelf.fetched();
    let is_leaf = |hash: &Hash32| leaves.contains(hash);
    let (of_leaves, inner): (Vec<_>, Vec<_>) = fetched.into_iter().partition(is_leaf);
    assert!(
        !of_leaves.is_empty() && of_leaves.len() <= 4,
        "{of_leaves:?}"
    );
    assert!(inner.len() <= usize::from(root.height), "{inner:?}");
    let ids = |seen: &Seen| match seen {
        Seen::Stage { ids } => ids.clone(),
        Seen::Change { .. } | Seen::Reload { .. } | Seen::Commit { .. } | Seen::Abandon => vec![],
    };
    let staged: Vec<u128> = node.seen().iter().flat_map(ids).collect();
    assert_eq!(staged, [MANY / 2]);
    author.assert_kept(node).await;
}

#[tokio::test]
async fn a_damaged_snapshot_is_passed_over_for_the_one_before_it() {
    for fault in [Fault::Flipped, Fault::Lost] {
        let (mut author, shelf, older) = trimmed().await;
        author.append(vec![put(6, "c")]).await;
        let newest = author.cut(None).await;
        author.append(vec![put(7, "d")]).await;
        let old = leaves(&shelf, &older).await;
        let new = leaves(&shelf, &newest).await;
        let of_newest_alone = *new.difference(&old).next().unwrap();
        shelf.spoil(of_newest_alone, fault);
        let node = Node::start(&author.source, &author, SyncMode::Incremental);
        author.assert_is(&node.until(following(author.version().0)).await);
        let seen = node.seen();
        let version = older.cursor.version.0;
        assert!(seen.contains(&Seen::Commit { version }), "{fault:?}");
        assert!(seen.contains(&Seen::Abandon));
        author.assert_kept(node).await;
    }
}

#[tokio::test]
async fn a_replica_without_a_whole_snapshot_waits_for_one() {
    let (mut author, shelf, root) = trimmed().await;
    let broken = *leaves(&shelf, &root).await.last().unwrap();
    shelf.spoil(broken, Fault::Lost);
    let node = Node::start(&author.source, &author, SyncMode::Incremental);
    let status = node
        .until(|status| matches!(status.phase, Phase::Forked(_)))
        .await;
    let missing = Version::GENESIS;
    assert_eq!(status.phase, Phase::Forked(Fork::Hole { missing }));
    assert_eq!((status.cursor.version, status.entities), (Version::ZERO, 0));
    // The next cut writes what is missing.
    author.append(vec![put(8, "e")]).await;
    author.cut(None).await;
    author.assert_is(&node.until(following(author.version().0)).await);
    author.assert_kept(node).await;
}

#[tokio::test]
async fn a_load_that_fails_half_way_leaves_the_old_state_active_and_stored() {
    let (mut author, shelf) = Author::with_shelf().await;
    author
        .append((0..SEVERAL_LEAVES).map(put_large).collect())
        .await;
    let node = Node::start(&author.source, &author, SyncMode::Incremental);
    node.until(following(2)).await;
    let (old, directory) = (author.state.clone(), node.stop().await);
    let changed = (0..SEVERAL_LEAVES).map(|number| put(number, &"y".repeat(1_000)));
    author.append(changed.collect()).await;
    author.append(vec![]).await;
    let root = author.cut(None).await;
    author.append(vec![]).await;
    author.trim(author.version()).await;
    let tree = fetch_tree(&*shelf, &root).await.unwrap();
    let last = &tree.leaves().last().unwrap().pieces;
    shelf.spoil(last[0], Fault::Lost);

    let node = Node::start_in(directory, &author.source, &author, SyncMode::Incremental);
    node.until(|status| status.connected).await;
    author.announce(None).await;
    let failed = |error: &str| error.contains("could not load the snapshot");
    let status = node
        .until(|status| status.last_error.as_deref().is_some_and(failed))
        .await;
    assert_eq!(
        (status.cursor, status.digest, status.entities),
        (old.cursor(), old.digest(), old.len() as u64)
    );
    let seen = node.seen();
    let staged = |seen: &Seen| matches!(seen, Seen::Stage { .. });
    assert!(seen.iter().any(staged), "it failed before it had begun");
    assert!(seen.contains(&Seen::Abandon));
    let visible = |seen: &Seen| !staged(seen) && *seen != Seen::Abandon;
    assert!(!seen.iter().any(visible), "half of it was seen");
    let directory = node.stop().await;
    let opened = Store::open(&directory.path().join("store")).unwrap();
    assert_eq!(opened.moved_aside, None);
    assert_eq!(opened.store.cursor(), old.cursor());
    assert_eq!(opened.store.digest(), old.digest());
    drop(opened);

    shelf.heal();
    let node = Node::start_in(directory, &author.source, &author, SyncMode::Incremental);
    node.until(|status| status.connected).await;
    author.announce(None).await;
    author.assert_is(&node.until(following(author.version().0)).await);
    author.assert_kept(node).await;
}

#[tokio::test]
async fn a_log_made_again_is_followed_only_with_a_charter() {
    let (mut author, shelf) = Author::with_shelf().await;
    for number in 0..4 {
        author.append(vec![put(number, "a")]).await;
    }
    let node = Node::start(&author.source, &author, SyncMode::Incremental);
    node.until(following(5)).await;
    let (old, directory) = (author.state.clone(), node.stop().await);
    let mut author = author.found().await;
    author.append(vec![put(9, "b")]).await;
    // Signed by a control plane, but not chartered.
    author.cut(None).await;
    let tampered = Tampered::new(&author.source);
    let node = Node::start_in(
        directory,
        &tampered.source(),
        &author,
        SyncMode::Incremental,
    );
    node.until(|status| status.connected).await;
    author.announce(None).await;
    let forked = |phase: &Phase| matches!(phase, Phase::Forked(Fork::Epoch { .. }));
    node.until(|status| forked(&status.phase)).await;
    let asked = shelf.times_asked();
    tampered.inject(TailItem::Connected);
    shelf.until_asked(asked).await;
    let status = node.status();
    assert!(forked(&status.phase));
    assert_eq!((status.cursor, status.digest), (old.cursor(), old.digest()));

    let charter = Charter {
        epoch: later_life(),
        time: Time(2),
        reason: "the broker's disk was lost".into(),
    };
    author.cut(Some(charter.seal(&author.key))).await;
    tampered.inject(TailItem::Connected);
    let status = node
        .until(|status| status.cursor == author.state.cursor())
        .await;
    author.assert_is(&status);
    assert_eq!(status.cursor.epoch, later_life());
    author.append(vec![put(10, "c")]).await;
    author.assert_is(&node.until(following(author.version().0)).await);
    author.assert_kept(node).await;
}

#[tokio::test]
async fn a_state_that_went_wrong_is_put_right() {
    for snapshot in [true, false] {
        let (mut author, _) = Author::with_shelf().await;
        author
            .append((0..SEVERAL_LEAVES).map(put_large).collect())
            .await;
        author.append(vec![put(1, "a")]).await;
        if snapshot {
            author.cut(None).await;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut wrong = entities(&author.state);
        wrong.remove(7);
        let opened = Store::open(&directory.path().join("store")).unwrap();
        let mut store = opened.store;
        store.replace(author.state.cursor(), wrong).unwrap();
        store.syncer().sync().unwrap();
        drop(store);
        let node = Node::start_in(directory, &author.source, &author, SyncMode::Incremental);
        node.until(following(3)).await;
        author.append(vec![put(2, "b")]).await;
        author.assert_is(&node.until(following(4)).await);
        let committed = node.seen().contains(&Seen::Commit { version: 3 });
        assert_eq!(committed, snapshot);
        author.assert_kept(node).await;
    }
}

#[tokio::test]
async fn a_shelf_that_is_asked_too_early_is_asked_again() {
    // The log was trimmed, and the copy that answers does not know the snapshot yet.
    let (author, shelf, root) = trimmed().await;
    let stored = shelf.roots().await.unwrap().remove(0);
    shelf.remove_root(&stored.name).await.unwrap();
    let node = Node::start(&author.source, &author, SyncMode::Incremental);
    shelf.until_asked(shelf.times_asked() + 2).await;
    shelf.put_root(&root.name(), &stored.root).await.unwrap();
    author.assert_is(&node.until(following(author.version().0)).await);
    assert_eq!(node.status().last_error, None);
    author.assert_kept(node).await;
}
