//! The chunk store: chunks of each use, and roots.

use super::{PATIENCE, Subject, connected, options, subjects};
use bytes::Bytes;
use sluice_replica::log::jetstream::{Options, Role};
use sluice_replica::log::{
    CHUNK_BYTES_MAX, ChunkUse, Chunks, LogError, ROOT_BYTES_MAX, StoredRoot,
};
use sluice_schema::hash::Hash32;
use sluice_schema::version::Time;
use std::collections::BTreeSet;
use std::time::Duration;

const USES: [ChunkUse; 2] = [ChunkUse::Transaction, ChunkUse::Snapshot];

/// The time by the store's own clock.
async fn store_time(chunks: &dyn Chunks) -> Time {
    chunks.put_root("clock", b"").await.unwrap();
    let roots = chunks.roots().await.unwrap();
    let root = roots.last().unwrap();
    assert_eq!(root.name, "clock");
    root.stored
}

async fn put(chunks: &dyn Chunks, part: ChunkUse, content: &[u8]) -> Hash32 {
    let hash = Hash32::of(content);
    chunks.put(part, hash, content).await.unwrap();
    hash
}

fn names(roots: &[StoredRoot]) -> Vec<(&str, &[u8])> {
    roots
        .iter()
        .map(|root| (root.name.as_str(), &*root.root))
        .collect()
}

fn is_unusable<T>(result: &Result<T, LogError>) -> bool {
    matches!(result, Err(LogError::Unusable(_)))
}

#[tokio::test]
async fn a_chunk_comes_back_and_a_wrong_one_does_not() {
    for Subject { name, source, .. } in &subjects().await {
        let chunks = &*source.chunks;
        let content = b"sluice ".repeat(60_000);
        let hash = Hash32::of(&content);
        for part in USES {
            assert_eq!(chunks.get(part, hash).await.unwrap(), None, "{name}");
            chunks.put(part, hash, &content).await.unwrap();
            chunks.put(part, hash, &content).await.unwrap();
            let found = chunks.get(part, hash).await.unwrap().unwrap();
            assert_eq!(found, content, "{name}");
        }
        let wrong = Hash32::of(b"other");
        let put = chunks.put(ChunkUse::Snapshot, wrong, &content).await;
        assert!(is_unusable(&put), "{name}: {put:?}");
        let got = chunks.get(ChunkUse::Snapshot, wrong).await.unwrap();
        assert_eq!(got, None, "{name}");
        let large = vec![0; CHUNK_BYTES_MAX + 1];
        let put = chunks.put(USES[0], Hash32::of(&large), &large).await;
        assert!(is_unusable(&put), "{name}: {put:?}");
    }
}

#[tokio::test]
async fn chunks_of_half_a_mebibyte_fit_even_if_they_do_not_compress() {
    for Subject { name, source, .. } in &subjects().await {
        let noise = (0..16_384_u32).map(|part| Hash32::of(&part.to_le_bytes()).0);
        let noise: Vec<u8> = noise.flatten().collect();
        assert_eq!(noise.len(), 512 * 1024);
        for content in [&noise[..], &noise[..1], &[]] {
            let hash = put(&*source.chunks, ChunkUse::Snapshot, content).await;
            let found = source.chunks.get(ChunkUse::Snapshot, hash).await.unwrap();
            assert_eq!(found.unwrap(), content, "{name}");
        }
    }
}

#[tokio::test]
async fn each_use_has_its_own_chunks() {
    for Subject { name, source, .. } in &subjects().await {
        let chunks = &*source.chunks;
        let both = put(chunks, ChunkUse::Transaction, b"both").await;
        assert_eq!(
            chunks.get(ChunkUse::Snapshot, both).await.unwrap(),
            None,
            "{name}"
        );
        put(chunks, ChunkUse::Snapshot, b"both").await;
        let transaction = put(chunks, ChunkUse::Transaction, b"transaction").await;
        let snapshot = put(chunks, ChunkUse::Snapshot, b"snapshot").await;
        chunks.put_root("root", b"both").await.unwrap();
        let list = |part| chunks.list(part);
        assert_eq!(
            list(ChunkUse::Transaction).await.unwrap(),
            BTreeSet::from([both, transaction]),
            "{name}"
        );
        assert_eq!(
            list(ChunkUse::Snapshot).await.unwrap(),
            BTreeSet::from([both, snapshot]),
            "{name}"
        );
        let removed = chunks.remove(ChunkUse::Snapshot, both, Time(u64::MAX));
        assert!(removed.await.unwrap(), "{name}");
        assert_eq!(
            chunks.get(ChunkUse::Snapshot, both).await.unwrap(),
            None,
            "{name}"
        );
        let kept = chunks.get(ChunkUse::Transaction, both).await.unwrap();
        assert_eq!(kept.unwrap(), Bytes::from_static(b"both"), "{name}");
        assert_eq!(
            list(ChunkUse::Snapshot).await.unwrap(),
            BTreeSet::from([snapshot]),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_chunk_is_removed_only_if_it_was_stored_before_the_time_given() {
    for subject in subjects().await {
        let (name, part) = (subject.name, ChunkUse::Snapshot);
        let chunks = &*subject.source.chunks;
        let none = chunks.remove(part, Hash32::of(b"none"), Time(u64::MAX));
        assert!(!none.await.unwrap(), "{name}");
        let before = store_time(chunks).await;
        let (a, b) = (put(chunks, part, b"a").await, put(chunks, part, b"b").await);
        let after = store_time(chunks).await;
        assert!(before < after, "{name}");
        for early in [Time(0), before] {
            assert!(!chunks.remove(part, a, early).await.unwrap(), "{name}");
        }
        assert!(chunks.get(part, a).await.unwrap().is_some(), "{name}");
        assert!(chunks.remove(part, a, after).await.unwrap(), "{name}");
        assert!(!chunks.remove(part, a, after).await.unwrap(), "{name}");
        assert_eq!(chunks.get(part, a).await.unwrap(), None, "{name}");
        assert_eq!(
            chunks.list(part).await.unwrap(),
            BTreeSet::from([b]),
            "{name}"
        );
        // What is gone stays gone, and can be stored again.
        let subject = subject.reopen().await;
        let chunks = &*subject.source.chunks;
        assert_eq!(chunks.get(part, a).await.unwrap(), None, "{name}");
        put(chunks, part, b"a").await;
        assert!(!chunks.remove(part, a, after).await.unwrap(), "{name}");
        assert!(chunks.get(part, a).await.unwrap().is_some(), "{name}");
        assert!(chunks.remove(part, b, after).await.unwrap(), "{name}");
    }
}

#[tokio::test]
async fn a_chunk_is_stored_again_once_it_is_old_and_not_before() {
    for Subject {
        name, source, nats, ..
    } in &subjects().await
    {
        let part = ChunkUse::Snapshot;
        let hash = put(&*source.chunks, part, b"a").await;
        let mark = store_time(&*source.chunks).await;
        put(&*source.chunks, part, b"a").await;
        if let Some(nats) = nats {
            let at_once = Options {
                refresh_after: Duration::ZERO,
                ..options(nats.url(), Role::ControlPlane)
            };
            let eager = connected(at_once).await;
            put(&*eager.chunks, part, b"a").await;
            let removed = source.chunks.remove(part, hash, mark).await.unwrap();
            assert!(!removed, "{name}: it has been stored again");
            continue;
        }
        let removed = source.chunks.remove(part, hash, mark).await.unwrap();
        assert!(removed, "{name}: it has not been stored again");
    }
}

#[tokio::test]
async fn roots_come_in_the_order_in_which_they_were_stored() {
    for subject in subjects().await {
        let (name, chunks) = (subject.name, subject.source.chunks.clone());
        assert_eq!(chunks.roots().await.unwrap(), [], "{name}");
        let longest = "z".repeat(64);
        for root in ["c", "a", "b-2", &longest, "0"] {
            chunks.put_root(root, root.as_bytes()).await.unwrap();
        }
        // One that is replaced is the newest again.
        chunks.put_root("a", b"second").await.unwrap();
        let roots = chunks.roots().await.unwrap();
        let (long, second) = ((&*longest, longest.as_bytes()), ("a", &b"second"[..]));
        let expected = [("c", &b"c"[..]), ("b-2", b"b-2"), long, ("0", b"0"), second];
        assert_eq!(names(&roots), expected, "{name}");
        assert!(roots.is_sorted_by_key(|root| root.stored), "{name}");
        chunks.remove_root("b-2").await.unwrap();
        chunks.remove_root("b-2").await.unwrap();
        chunks.remove_root("never-there").await.unwrap();
        drop(chunks);
        let subject = subject.reopen().await;
        let found = subject.source.chunks.roots().await.unwrap();
        let expected: Vec<_> = roots
            .into_iter()
            .filter(|root| root.name != "b-2")
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[tokio::test]
async fn many_large_roots_come_in_one_answer() {
    for Subject { name, source, .. } in &subjects().await {
        let mut expected = Vec::new();
        for number in 0..32_u8 {
            let root = vec![number; ROOT_BYTES_MAX];
            let root_name = format!("snapshot-{number}");
            source.chunks.put_root(&root_name, &root).await.unwrap();
            expected.push((root_name, root));
        }
        let roots = source.chunks.roots().await.unwrap();
        let found: Vec<_> = roots
            .into_iter()
            .map(|root| (root.name, root.root.to_vec()))
            .collect();
        assert!(found == expected, "{name}");
    }
}

#[tokio::test]
async fn a_root_with_a_bad_name_or_too_large_is_refused() {
    for Subject { name, source, .. } in &subjects().await {
        let chunks = &*source.chunks;
        let long = "a".repeat(65);
        let bad = [
            "", ".", "a.b", "*", ">", "a*", "A", "a b", "a_b", "ä", "a\r\n", "a/b", &long,
        ];
        for bad in bad {
            let put = chunks.put_root(bad, b"x").await;
            assert!(is_unusable(&put), "{name}: {bad:?}: {put:?}");
            let removed = chunks.remove_root(bad).await;
            assert!(is_unusable(&removed), "{name}: {bad:?}: {removed:?}");
        }
        let large = vec![0; ROOT_BYTES_MAX + 1];
        assert!(is_unusable(&chunks.put_root("a", &large).await), "{name}");
        assert_eq!(chunks.roots().await.unwrap(), [], "{name}");
    }
}

#[tokio::test]
async fn chunks_survive_a_chunk_being_put_and_removed_at_the_same_time() {
    for Subject { name, source, .. } in &subjects().await {
        let part = ChunkUse::Snapshot;
        for round in 0..20_u8 {
            let content = [round; 9];
            let hash = put(&*source.chunks, part, &content).await;
            let old = store_time(&*source.chunks).await;
            let remove = source.chunks.remove(part, hash, old);
            let get = source.chunks.get(part, hash);
            let both = async { tokio::join!(remove, get) };
            let (removed, got) = tokio::time::timeout(PATIENCE, both).await.unwrap();
            assert!(removed.unwrap(), "{name}");
            let got = got.unwrap();
            assert!(got.is_none_or(|found| *found == content), "{name}");
            put(&*source.chunks, part, &content).await;
            let removed = source.chunks.remove(part, hash, old).await.unwrap();
            assert!(!removed, "{name}: it was put after the time given");
        }
    }
}
