//! Views hold still while the store changes, and the tree is that of what is held.

use super::*;
use sluice_schema::chunk::Entities as _;

/// More entities than a page has, so that changes come between pages.
const KEYS: u64 = 400;

#[derive(Clone, Debug)]
enum Step {
    Change(Vec<Mutation>),
    Save,
    Load {
        differing: u64,
        mutations: Vec<Mutation>,
    },
    View,
    /// Reads this many entities more of every view.
    Read(usize),
    Tree,
}

fn step() -> impl Strategy<Value = Step> {
    let mutations = || {
        let mutation = prop_oneof![
            2 => (0..KEYS, "[a-c]{0,3}").prop_map(|(number, content)| put(number, &content)),
            1 => (0..KEYS).prop_map(delete),
        ];
        proptest::collection::vec(mutation, 0..40)
    };
    prop_oneof![
        6 => mutations().prop_map(Step::Change),
        2 => Just(Step::Save),
        1 => (prop_oneof![Just(0), Just(u64::MAX)], mutations())
            .prop_map(|(differing, mutations)| Step::Load { differing, mutations }),
        3 => Just(Step::View),
        6 => (1_usize..150).prop_map(Step::Read),
        1 => Just(Step::Tree),
    ]
}

/// A view that is read bit by bit, and what it should give.
struct Reading {
    state: State,
    read: Vec<(Key, Entry)>,
    rest: Box<dyn Iterator<Item = Result<(Key, Entry), StoreError>>>,
}

fn reading(view: View, state: &State) -> Reading {
    assert_eq!(
        (view.cursor(), view.digest(), view.len()),
        (state.cursor(), state.digest(), state.len() as u64)
    );
    // Lives as long as the test: an iterator that owns its view.
    let view: &'static View = Box::leak(Box::new(view));
    Reading {
        state: state.clone(),
        read: Vec::new(),
        rest: Box::new(view.entities_from(None)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_view_gives_what_was_held_when_it_was_made(steps in proptest::collection::vec(step(), 1..40)) {
        let disk = FaultDisk::default();
        let mut store = Store::open_on(disk.shared()).unwrap().store;
        let mut history = History::new();
        history.push((0..KEYS).step_by(2).map(|number| put(number, "first")).collect());
        history.applied_to(&mut store, 0, 2);
        let mut views: Vec<Reading> = Vec::new();
        for step in steps {
            let last = history.events.len();
            match step {
                Step::Change(mutations) => {
                    history.push(mutations);
                    store.stage(history.events(last, last + 1)).unwrap();
                }
                Step::Save => store.save().unwrap(),
                Step::Load { differing, mutations } => {
                    history.push(mutations);
                    load(&mut store, history.end(), differing).unwrap();
                }
                Step::View => views.push(reading(store.view(), history.end())),
                Step::Read(count) => for view in &mut views {
                    view.read.extend(view.rest.by_ref().take(count).map(Result::unwrap));
                },
                Step::Tree => assert_eq!(store.tree().unwrap(), &tree(history.end())),
            }
        }
        for view in views {
            let all: Vec<_> = view.read.into_iter().chain(view.rest.map(Result::unwrap)).collect();
            prop_assert_eq!(all, entities(&view.state));
        }
        assert_store_holds(&store, history.end());
        prop_assert_eq!(store.tree().unwrap(), &tree(history.end()));
    }
}

#[test]
fn a_view_can_be_read_from_any_key_on() {
    let disk = FaultDisk::default();
    let mut store = Store::open_on(disk.shared()).unwrap().store;
    let mut history = sample();
    let last = history.events.len();
    history.applied_to(&mut store, 0, last);
    let view = store.view();
    let state = history.end().clone();
    history.push((0..50).map(|number| put(number, "later")).collect());
    store.stage(history.events(last, last + 1)).unwrap();
    for number in 0..120 {
        let from = key(number);
        let found: Vec<_> = view
            .entities_from(Some(&from))
            .map(Result::unwrap)
            .collect();
        let mut expected = entities(&state);
        expected.retain(|(key, _)| *key >= from);
        assert_eq!(found, expected);
    }
}

#[test]
fn a_view_of_a_real_database_outlives_a_load_that_replaces_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = open(&path).store;
    let mut history = sample();
    history.applied_to(&mut store, 0, history.events.len());
    let (view, state) = (store.view(), history.end().clone());
    history.push(vec![delete(0), put(1, "new")]);
    load(&mut store, history.end(), u64::MAX).unwrap();
    store.begin_sync().unwrap().sync().unwrap();
    let found: Vec<_> = view.entities_from(None).map(Result::unwrap).collect();
    assert_eq!(found, entities(&state));
    assert!(path.join("db.0").is_dir() && path.join("db.1").is_dir());
    drop(view);
    store.save().unwrap();
    assert!(!path.join("db.0").exists());
    assert_store_holds(&store, history.end());
}
