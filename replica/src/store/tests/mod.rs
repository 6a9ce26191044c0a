//! The store against the schema's own state, against damage, and stopped at every operation. Being killed:
//! `tests/crash.rs`. How fast it opens: [`speed`].

mod crash;
mod damage;
mod fault;
mod good;
mod load;
mod speed;
mod views;

use super::*;
use fault::FaultDisk;
use proptest::prelude::*;
use sluice_schema::entity::{Body, Id, KindName, Workspace};
use sluice_schema::event::{Actor, EventId, Mutation};
use sluice_schema::state::State;
use sluice_schema::version::{Epoch, Time};
use std::path::Path;
use uuid::Uuid;

fn key(number: u64) -> Key {
    let kinds = ["service", "route", "not_invented_yet"];
    let kind = kinds[usize::try_from(number % 3).unwrap()];
    let workspace = if number.is_multiple_of(2) {
        "default"
    } else {
        "team-a"
    };
    Key {
        kind: KindName::parse(kind).unwrap(),
        workspace: Workspace::parse(workspace).unwrap(),
        id: Id(Uuid::from_u128(u128::from(number))),
    }
}

fn put(number: u64, content: &str) -> Mutation {
    let fields =
        serde_json::json!({ "name": content, "field_from_the_future": [1, null, {"a": content}] });
    Mutation::put(key(number), Body::encode(fields.as_object().unwrap()))
}

fn delete(number: u64) -> Mutation {
    Mutation::Delete(key(number))
}

/// A history and every state on its way, by the schema's own fold.
struct History {
    states: Vec<State>,
    events: Vec<Event>,
}

impl History {
    fn new() -> Self {
        let mut history = Self {
            states: vec![State::default()],
            events: Vec::new(),
        };
        history.push(vec![]);
        history
    }

    /// Appends an event with these mutations.
    fn push(&mut self, mutations: Vec<Mutation>) -> &mut Self {
        let state = self.end();
        let mut event = Event {
            previous: state.version(),
            previous_chain: state.chain(),
            mutations: Mutations::Inline(mutations),
            ..Event::genesis(
                Epoch(Uuid::from_u128(5)),
                EventId(Uuid::from_u128(u128::from(state.version().0))),
                Time(1),
                Actor::default(),
            )
        };
        if let Err(ApplyError::Diverged { found, .. }) = state.apply(&event, b"") {
            event.digest = found;
        }
        let next = state.apply(&event, &event.encode().bytes).unwrap().0;
        self.states.push(next);
        self.events.push(event);
        self
    }

    fn end(&self) -> &State {
        self.states.last().unwrap()
    }

    /// The events after version `from` up to `to`, as the store takes them.
    fn events(&self, from: usize, to: usize) -> Vec<(&Event, Cursor)> {
        (from..to)
            .map(|at| (&self.events[at], self.states[at + 1].cursor()))
            .collect()
    }

    fn applied_to(&self, store: &mut Store, from: usize, to: usize) -> Vec<Change> {
        store.apply(self.events(from, to)).unwrap()
    }
}

fn open(directory: &Path) -> Opened {
    let opened = Store::open(directory).unwrap();
    assert_eq!(opened.moved_aside, None);
    opened
}

#[track_caller]
fn assert_holds(opened: &Opened, state: &State) {
    assert_store_holds(&opened.store, state);
}

#[track_caller]
fn assert_store_holds(store: &Store, state: &State) {
    assert_eq!(
        (store.cursor(), store.digest()),
        (state.cursor(), state.digest())
    );
    assert_eq!(store.len(), state.len() as u64);
    let expected = entities(state);
    let held: Vec<_> = store.read_all(|entities| entities.collect()).unwrap();
    assert_eq!(held, expected);
    for (key, entry) in &expected {
        assert_eq!(store.get(key).unwrap().as_ref(), Some(entry));
    }
}

fn entities(state: &State) -> Vec<(Key, Entry)> {
    state
        .iter()
        .map(|(key, entry)| (key.clone(), entry.clone()))
        .collect()
}

fn tree(state: &State) -> Tree {
    let Ok(tree) = Tree::build(state, &mut |_, _| {});
    tree
}

/// Makes the store hold `new`, as a replica does that has fetched what differs.
fn load(store: &mut Store, new: &State, differing_bytes: u64) -> Result<Vec<Change>, StoreError> {
    let wanted = tree(new);
    let ranges = chunk::differing(store.tree()?, &wanted);
    store.begin(new.cursor(), differing_bytes)?;
    let mut changes = Vec::new();
    for range in ranges {
        let held = new.iter().filter(|(key, _)| range.holds(key));
        let held = held.map(|(key, entry)| (key.clone(), entry.clone()));
        changes.extend(store.take_range(range.from.as_ref(), range.to.as_ref(), held.collect())?);
    }
    store.commit(new.digest(), wanted)?;
    Ok(changes)
}

fn sample() -> History {
    let mut history = History::new();
    history.push((0..40).map(|number| put(number, "first")).collect());
    history
        .push(vec![put(3, "second"), delete(4), put(100, "x")])
        .push(vec![delete(5)]);
    history
}

#[test]
fn what_was_applied_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let history = sample();
    for version in 0..history.events.len() {
        let mut opened = open(&path);
        assert_holds(&opened, &history.states[version]);
        history.applied_to(&mut opened.store, version, version + 1);
    }
    assert_holds(&open(&path), history.end());
}

#[test]
fn what_is_handed_over_while_opening_is_the_store_or_is_said_not_to_be() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut history = History::new();
    history.push((0..3000).map(|number| put(number, "first")).collect());
    history.push(vec![put(3, "second")]);
    let mut opened = open(&path);
    history.applied_to(&mut opened.store, 0, 2);
    opened.store.begin_sync().unwrap().sync().unwrap();
    drop(opened);

    let mut taken = Vec::new();
    let mut opened = Store::open_into(&path, &mut |page| taken.extend(page)).unwrap();
    assert!(opened.handed_over);
    assert_eq!(taken, entities(&history.states[2]));
    opened.store.stage(history.events(2, 3)).unwrap();
    // Only the journal has the last event now.
    drop(opened);
    let opened = Store::open_into(&path, &mut |_| ()).unwrap();
    assert!(!opened.handed_over);
    assert_holds(&opened, history.end());
}

#[test]
fn events_in_one_batch_make_one_change_an_entity() {
    let directory = tempfile::tempdir().unwrap();
    let mut history = History::new();
    history.push(vec![put(1, "a"), put(2, "a"), put(3, "a")]);
    let mut store = open(directory.path()).store;
    history.applied_to(&mut store, 0, 2);
    // Put and taken away, changed twice, taken away and put back, changed and taken away.
    history.push(vec![put(9, "b"), put(1, "b"), delete(2), put(3, "b")]);
    history.push(vec![
        delete(9),
        put(1, "c"),
        put(2, "c"),
        delete(3),
        delete(77),
    ]);
    let changes = history.applied_to(&mut store, 2, 4);
    let expected: Vec<_> = [1, 2, 3, 9, 77]
        .map(|number| {
            let side = |version: usize| history.states[version].get(&key(number)).cloned();
            Change {
                key: key(number),
                before: side(2),
                after: side(4),
            }
        })
        .into();
    let sorted = |mut changes: Vec<Change>| {
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        changes
    };
    assert_eq!(sorted(changes), sorted(expected));
    drop(store);
    assert_holds(&open(directory.path()), history.end());
}

#[test]
fn an_event_that_does_not_follow_is_refused_and_nothing_changes() {
    let directory = tempfile::tempdir().unwrap();
    let mut history = History::new();
    history
        .push(vec![put(1, "a")])
        .push(vec![put(2, "a")])
        .push(vec![put(3, "a")]);
    let mut store = open(directory.path()).store;
    history.applied_to(&mut store, 0, 2);
    let cursor = history.states[3].cursor();
    let other_chain = Event {
        previous_chain: history.states[1].chain(),
        ..history.events[2].clone()
    };
    let other_epoch = Event {
        epoch: Epoch(Uuid::from_u128(6)),
        ..history.events[2].clone()
    };
    let unresolved = Event {
        mutations: stored(),
        ..history.events[2].clone()
    };
    let error = store.apply([(&history.events[3], cursor)]).unwrap_err();
    assert!(matches!(
        error,
        StoreError::Apply(ApplyError::OutOfOrder {
            previous: Version(3),
            ..
        })
    ));
    for (event, reason) in [
        (&history.events[1], "follows version 1"),
        (&other_chain, "chains"),
        (&other_epoch, "epochs"),
        (&unresolved, "not here yet"),
    ] {
        let Err(StoreError::Apply(error)) = store.apply([(event, cursor)]) else {
            panic!("{reason}")
        };
        assert!(error.to_string().contains(reason), "{error}");
        // Also behind one that follows.
        let batch = [(&history.events[2], cursor), (event, cursor)];
        assert!(matches!(
            store.apply(batch),
            Err(StoreError::Apply(ApplyError::OutOfOrder { .. }))
        ));
    }
    drop(store);
    assert_holds(&open(directory.path()), &history.states[2]);
}

fn stored() -> Mutations {
    let hash = sluice_schema::hash::Hash32::of(b"x");
    let chunks = vec![hash];
    Mutations::Stored(sluice_schema::event::StoredMutations {
        hash,
        bytes: 1,
        count: 1,
        chunks,
    })
}

#[test]
fn an_event_with_another_digest_is_refused_and_nothing_changes() {
    let directory = tempfile::tempdir().unwrap();
    let mut history = History::new();
    history.push(vec![put(1, "a")]).push(vec![put(2, "a")]);
    let mut store = open(directory.path()).store;
    history.applied_to(&mut store, 0, 1);
    let wrong = Event {
        digest: history.states[1].digest(),
        ..history.events[2].clone()
    };
    let batch = [
        (&history.events[1], history.states[2].cursor()),
        (&wrong, history.states[3].cursor()),
    ];
    let error = store.apply(batch).unwrap_err();
    let StoreError::Apply(ApplyError::Diverged {
        version,
        expected,
        found,
    }) = error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (version, expected),
        (Version(3), history.states[1].digest())
    );
    assert_eq!(found, history.states[3].digest());
    assert_eq!(store.cursor(), history.states[1].cursor());
    history.applied_to(&mut store, 1, 3);
    drop(store);
    assert_holds(&open(directory.path()), history.end());
}

#[test]
fn a_replacement_changes_exactly_what_differs() {
    let directory = tempfile::tempdir().unwrap();
    let mut history = sample();
    let mut store = open(directory.path()).store;
    let old = history.end().clone();
    history.applied_to(&mut store, 0, history.events.len());
    history.push(vec![delete(0), put(1, "new"), put(200, "new"), delete(39)]);
    let new = history.end();
    let changes = store.replace(new.cursor(), entities(new)).unwrap();
    let keys: Vec<Key> = changes.iter().map(|change| change.key.clone()).collect();
    let mut expected = [0, 1, 39, 200].map(key).to_vec();
    expected.sort();
    assert_eq!(keys, expected);
    for change in &changes {
        assert_eq!(change.before.as_ref(), old.get(&change.key));
        assert_eq!(change.after.as_ref(), new.get(&change.key));
    }
    assert_eq!(store.replace(new.cursor(), entities(new)).unwrap(), []);
    drop(store);
    assert_holds(&open(directory.path()), new);
}

#[test]
fn a_replacement_of_all_by_nothing_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let history = sample();
    let mut store = open(directory.path()).store;
    history.applied_to(&mut store, 0, history.events.len());
    let changes = store.replace(history.states[1].cursor(), []).unwrap();
    assert_eq!(changes.len(), history.end().len());
    drop(store);
    assert_holds(&open(directory.path()), &history.states[1]);
}

#[test]
fn a_store_in_use_is_not_taken_for_a_damaged_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let history = sample();
    let mut opened = open(&path);
    history.applied_to(&mut opened.store, 0, 2);
    assert!(matches!(
        Store::open(&path),
        Err(StoreError::Io {
            operation: "open",
            ..
        })
    ));
    drop(opened);
    assert_holds(&open(&path), &history.states[2]);
}

#[test]
fn synced_means_the_files_hold_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let history = sample();
    let mut store = open(&path).store;
    history.applied_to(&mut store, 0, 2);
    store.syncer().sync().unwrap();
    // The files as they are now, while the store is still open.
    let copy = directory.path().join("copy");
    damage::copy_tree(&path, &copy);
    assert_holds(&open(&copy), &history.states[2]);
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        3 => (0_u64..12, "[a-c]{0,3}").prop_map(|(number, content)| put(number, &content)),
        1 => (0_u64..12).prop_map(delete),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// I5, as far as the store goes.
    #[test]
    fn any_history_in_any_batches_with_any_restarts_folds_to_the_state(
        steps in proptest::collection::vec((proptest::collection::vec(mutation(), 0..6), any::<bool>(), 0_u8..10), 1..20),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut history = History::new();
        let mut opened = open(directory.path());
        let mut applied = 0;
        for (mutations, apply, reopen) in steps {
            history.push(mutations);
            if apply {
                history.applied_to(&mut opened.store, applied, history.events.len());
                applied = history.events.len();
            }
            if reopen == 0 {
                drop(opened);
                opened = open(directory.path());
                assert_holds(&opened, &history.states[applied]);
            }
        }
        history.applied_to(&mut opened.store, applied, history.events.len());
        drop(opened);
        assert_holds(&open(directory.path()), history.end());
    }
}

#[test]
fn what_was_staged_and_not_saved_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let history = sample();
    let last = history.events.len();
    let mut store = open(directory.path()).store;
    history.applied_to(&mut store, 0, 1);
    for version in 1..last {
        store.stage(history.events(version, version + 1)).unwrap();
        if version % 2 == 0 {
            store.begin_sync().unwrap().sync().unwrap();
        }
    }
    // Gone as in a kill: nothing is saved on the way out.
    drop(store);
    let opened = open(directory.path());
    assert_holds(&opened, history.end());
}

#[test]
fn a_journal_that_was_cut_off_is_used_up_to_the_cut() {
    let directory = tempfile::tempdir().unwrap();
    let history = sample();
    let mut store = open(directory.path()).store;
    history.applied_to(&mut store, 0, 1);
    store.stage(history.events(1, 2)).unwrap();
    store.stage(history.events(2, 3)).unwrap();
    drop(store);
    let journal = directory.path().join("journal.0");
    let length = std::fs::metadata(&journal).unwrap().len();
    let file = std::fs::File::options().write(true).open(&journal).unwrap();
    file.set_len(length - 5).unwrap();
    assert_holds(&open(directory.path()), &history.states[2]);
}
