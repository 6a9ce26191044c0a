//! Snapshots as they are cut, by one control plane or several, and what is left of them after cleaning up.

use crate::support::{Fault, Shelf, entities, first_life, key, put};
use sluice_replica::environment::Environment;
use sluice_replica::keys::SigningKey;
use sluice_replica::log::{ChunkUse, Chunks};
use sluice_replica::snapshot::{
    Cleaned, Cut, Cutter, GRACE, ROOTS_KEPT, Root, clean, fetch_tree, verify,
};
use sluice_schema::entity::{Body, Change, Entry};
use sluice_schema::state::State;
use sluice_schema::version::{Chain, Cursor, Version};
use std::time::Duration;
use uuid::Uuid;

const ENTITIES: u128 = if cfg!(debug_assertions) {
    20_000
} else {
    100_000
};
const CHANGES: u128 = 100;

fn signer() -> SigningKey {
    SigningKey::from_seed([1; 32])
}

fn cursor(version: u64) -> Cursor {
    Cursor {
        epoch: first_life(),
        version: Version(version),
        chain: Chain::ZERO.extend(&version.to_be_bytes()),
    }
}

/// About 500 bytes.
fn body(number: u128, mark: &str) -> Body {
    put(number, &format!("{mark}{}", "x".repeat(460)))
        .body()
        .unwrap()
        .clone()
}

fn state(count: u128) -> State {
    let entry = |number| Entry {
        version: Version(1),
        body: body(number, "a"),
    };
    State::restore(
        cursor(1),
        (0..count).map(|number| (key(number), entry(number))),
    )
}

/// The state one version on, with other bodies of these entities.
fn changed(state: &State, numbers: impl Iterator<Item = u128>) -> State {
    let next = cursor(state.version().0 + 1);
    let change = |number| Change {
        key: key(number),
        before: None,
        after: Some(Entry {
            version: next.version,
            body: body(number, &next.version.0.to_string()),
        }),
    };
    let changes: Vec<Change> = numbers.map(change).collect();
    state.advance(next, &changes)
}

fn cutter(author: u128) -> Cutter {
    Cutter::new(Uuid::from_u128(author), Environment::system())
}

async fn cut(cutter: &mut Cutter, shelf: &Shelf, state: &State) -> Cut {
    let (key, trusted) = (signer(), signer().trusted());
    let cut = cutter.cut(shelf, state, &key, &trusted);
    cut.await.unwrap()
}

/// The snapshots that can be believed, oldest first; each is whole.
async fn whole_snapshots(shelf: &Shelf) -> Vec<Root> {
    let stored = shelf.roots().await.unwrap();
    let roots = Root::open_all(&stored, &signer().trusted());
    for root in &roots {
        verify(shelf, root, |_, _| {}).await.unwrap();
    }
    roots
}

fn inner_nodes(cut: &Cut, tree: &sluice_schema::chunk::Tree) -> usize {
    cut.chunks - tree.leaves().len()
}

#[tokio::test]
async fn a_cut_writes_what_has_changed_since_the_last() {
    let shelf = Shelf::new();
    let first = state(ENTITIES);
    let mut own = cutter(1);
    let whole = cut(&mut own, &shelf, &first).await;
    assert_eq!(whole.written, whole.chunks);
    assert_eq!(shelf.written().len(), whole.written);

    // Here and there, and side by side.
    let scattered = (0..CHANGES).map(|number| number * (ENTITIES / CHANGES));
    let second = changed(&first, scattered);
    let cut_again = cut(&mut own, &shelf, &second).await;
    let tree = fetch_tree(&shelf, &cut_again.root).await.unwrap();
    let inner = inner_nodes(&cut_again, &tree);
    assert!(
        cut_again.written <= CHANGES as usize + inner,
        "{cut_again:?}"
    );
    assert_eq!(shelf.written().len(), cut_again.written);

    let third = changed(&second, 0..CHANGES);
    let clustered = cut(&mut own, &shelf, &third).await;
    assert!(
        clustered.written <= 4 + usize::from(clustered.root.height),
        "{} chunks",
        clustered.written
    );
    // Another control plane, which has cut nothing yet, writes nothing twice.
    shelf.written();
    let fourth = changed(&third, 7..8);
    let other = cut(&mut cutter(2), &shelf, &fourth).await;
    assert!(other.written <= 2 + usize::from(other.root.height));
    assert_eq!(shelf.written().len(), other.written);
    let again = cut(&mut cutter(3), &shelf, &fourth).await;
    assert_eq!((again.written, shelf.written().len()), (0, 0));
    assert_eq!(again.root.tree, other.root.tree);
    assert_eq!(whole_snapshots(&shelf).await.len(), 5);
}

#[tokio::test]
async fn two_control_planes_that_cut_at_once_do_each_other_no_harm() {
    let shelf = Shelf::new();
    let first = state(2_000);
    let second = changed(&first, 10..400);
    let (mut one, mut two) = (cutter(1), cutter(2));
    tokio::join!(cut(&mut one, &shelf, &first), cut(&mut two, &shelf, &first));
    tokio::join!(
        cut(&mut one, &shelf, &first),
        cut(&mut two, &shelf, &second)
    );
    let roots = whole_snapshots(&shelf).await;
    let versions: Vec<u64> = roots.iter().map(|root| root.cursor.version.0).collect();
    assert_eq!(versions, [1, 1, 2]);
    assert_eq!(roots[0].tree, roots[1].tree);
    assert_ne!(roots[0].name(), roots[1].name());
}

#[tokio::test]
async fn a_chunk_that_was_lost_is_written_by_the_next_cut() {
    let shelf = Shelf::new();
    let first = state(2_000);
    let mut own = cutter(1);
    let lost_from = cut(&mut own, &shelf, &first).await.root;
    let leaf = fetch_tree(&shelf, &lost_from).await.unwrap().leaves()[2].clone();
    shelf.spoil(leaf.pieces[0], Fault::Lost);
    assert!(verify(&shelf, &lost_from, |_, _| {}).await.is_err());
    cut(&mut own, &shelf, &changed(&first, 0..1)).await;
    assert_eq!(whole_snapshots(&shelf).await.len(), 2);
}

#[tokio::test]
async fn an_empty_state_has_a_snapshot_too() {
    let shelf = Shelf::new();
    let empty = State::restore(cursor(1), []);
    let cut = cut(&mut cutter(1), &shelf, &empty).await;
    assert_eq!((cut.chunks, cut.written, cut.root.entities), (0, 0, 0));
    assert_eq!(whole_snapshots(&shelf).await, [cut.root]);
    assert!(entities(&empty).is_empty());
}

/// A shelf with a snapshot of each of so many states, cut one hour and a half apart.
async fn history(count: usize) -> (Shelf, Cutter, State) {
    let shelf = Shelf::new();
    let mut own = cutter(1);
    let mut state = state(1_000);
    for _ in 0..count {
        cut(&mut own, &shelf, &state).await;
        shelf.pass(GRACE + GRACE / 2);
        state = changed(&state, 0..300);
    }
    (shelf, own, state)
}

async fn clean_now(shelf: &Shelf) -> Cleaned {
    let trusted = signer().trusted();
    clean(shelf, &trusted, shelf.now()).await.unwrap()
}

#[tokio::test]
async fn cleaning_removes_what_no_kept_snapshot_needs_and_nothing_else() {
    let (shelf, _, _) = history(ROOTS_KEPT + 2).await;
    let before = shelf.list(ChunkUse::Snapshot).await.unwrap();
    let cleaned = clean_now(&shelf).await;
    assert_eq!(cleaned.roots, 2);
    let kept = whole_snapshots(&shelf).await;
    assert_eq!(kept.len(), ROOTS_KEPT);
    let after = shelf.list(ChunkUse::Snapshot).await.unwrap();
    assert_eq!(before.len() - after.len(), cleaned.chunks);
    let mut needed = std::collections::BTreeSet::new();
    for root in &kept {
        let tree = fetch_tree(&shelf, root).await.unwrap();
        needed.extend(tree.nodes().flat_map(|node| node.pieces.clone()));
    }
    assert_eq!(after, needed);
    assert!(cleaned.chunks > 0);
    assert_eq!(clean_now(&shelf).await, Cleaned::default());
}

#[tokio::test]
async fn what_is_young_stays() {
    let (shelf, mut own, state) = history(ROOTS_KEPT).await;
    // One more: the oldest has been replaced only just now.
    cut(&mut own, &shelf, &state).await;
    let content = b"a chunk of a cut that is under way";
    let hash = sluice_schema::hash::Hash32::of(content);
    shelf.put(ChunkUse::Snapshot, hash, content).await.unwrap();
    shelf.pass(GRACE / 2);
    clean_now(&shelf).await;
    let there = shelf.list(ChunkUse::Snapshot).await.unwrap();
    assert!(there.contains(&hash));
    whole_snapshots(&shelf).await;
    // Nobody has referred to it for long.
    shelf.pass(GRACE);
    clean_now(&shelf).await;
    let there = shelf.list(ChunkUse::Snapshot).await.unwrap();
    assert!(!there.contains(&hash));
    assert_eq!(whole_snapshots(&shelf).await.len(), ROOTS_KEPT);
}

#[tokio::test]
async fn two_that_clean_at_once_and_one_that_cuts_do_each_other_no_harm() {
    let (shelf, mut own, state) = history(ROOTS_KEPT + 3).await;
    let (one, two, cut) = tokio::join!(
        clean_now(&shelf),
        clean_now(&shelf),
        cut(&mut own, &shelf, &state)
    );
    assert!(one.chunks + two.chunks > 0);
    let roots = whole_snapshots(&shelf).await;
    assert_eq!(roots.last().unwrap().cursor, cut.root.cursor);
    assert!(roots.len() >= ROOTS_KEPT);
}

#[tokio::test]
async fn a_root_that_nobody_believes_goes_when_it_is_old() {
    let (shelf, _, state) = history(1).await;
    let stranger = SigningKey::from_seed([9; 32]);
    let mut foreign = cutter(2);
    let trusted = stranger.trusted();
    let foreign = foreign.cut(&shelf, &state, &stranger, &trusted);
    foreign.await.unwrap();
    shelf.put_root("rubbish", b"rubbish").await.unwrap();
    assert_eq!(clean_now(&shelf).await.roots, 0);
    shelf.pass(GRACE + Duration::from_secs(1));
    let cleaned = clean_now(&shelf).await;
    assert_eq!(cleaned.roots, 2);
    assert_eq!(shelf.roots().await.unwrap().len(), 1);
    assert_eq!(whole_snapshots(&shelf).await.len(), 1);
}

#[tokio::test]
async fn nothing_is_removed_while_a_kept_snapshot_cannot_be_read() {
    let (shelf, _, _) = history(ROOTS_KEPT + 2).await;
    let before = shelf.list(ChunkUse::Snapshot).await.unwrap();
    shelf.fail_after(0);
    let trusted = signer().trusted();
    clean(&shelf, &trusted, shelf.now()).await.unwrap_err();
    assert_eq!(shelf.list(ChunkUse::Snapshot).await.unwrap(), before);
}
