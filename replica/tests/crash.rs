//! A process that is killed: what it said was durable is there.
//!
//! The test runs itself again as the process that is killed.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

use serde_json::json;
use sluice_replica::store::Store;
use sluice_schema::entity::{Body, Entry, Id, Key, KindName, Workspace};
use sluice_schema::event::{Actor, Event, EventId, Mutation, Mutations};
use sluice_schema::state::{ApplyError, State};
use sluice_schema::version::{Cursor, Epoch, Time};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use uuid::Uuid;

/// Names the store to the process that is killed.
const STORE: &str = "SLUICE_TEST_CRASH_STORE";
const ROUNDS: u64 = 5;

fn key(number: u64) -> Key {
    let id = Id(Uuid::from_u128(u128::from(number)));
    Key {
        kind: KindName::known("service"),
        workspace: Workspace::DEFAULT,
        id,
    }
}

fn put(number: u64, content: &str) -> Mutation {
    let fields = json!({ "name": content });
    Mutation::put(key(number), Body::encode(fields.as_object().unwrap()))
}

/// The mutations after a version: the same in every process.
fn mutations(version: u64) -> Vec<Mutation> {
    let number = version % 50;
    let large = (0..version % 4).map(|offset| put(100 + offset, &"y".repeat(3000)));
    let small = match version.is_multiple_of(7) {
        true => Mutation::Delete(key(number)),
        false => put(number, &format!("at {version}")),
    };
    large.chain([small]).collect()
}

/// The event after `state` and the state after that.
fn step(state: &State) -> (Event, State) {
    let (epoch, id) = (Epoch(Uuid::from_u128(1)), EventId(Uuid::from_u128(1)));
    let version = state.version();
    let mut event = Event {
        previous: version,
        previous_chain: state.chain(),
        mutations: Mutations::Inline(if version.0 == 0 {
            vec![]
        } else {
            mutations(version.0)
        }),
        ..Event::genesis(epoch, id, Time(1), Actor::default())
    };
    if let Err(ApplyError::Diverged { found, .. }) = state.apply(&event, b"") {
        event.digest = found;
    }
    let next = state.apply(&event, &event.encode().bytes).unwrap().0;
    (event, next)
}

/// Applies events until it is killed, and says each version that is synced.
fn write_until_killed(path: &Path) -> ! {
    let opened = Store::open(path).unwrap();
    let (mut store, mut state) = (opened.store, State::restore(Cursor::default(), []));
    if store.cursor() != Cursor::default() {
        let cursor = store.cursor();
        state = store
            .read_all(|entities| State::restore(cursor, entities))
            .unwrap();
    }
    let mut out = io::stdout();
    loop {
        let (event, next) = step(&state);
        store.apply([(&event, next.cursor())]).unwrap();
        state = next;
        if state.version().0.is_multiple_of(3) {
            store.syncer().sync().unwrap();
            writeln!(out, "synced {}", state.version()).unwrap();
            out.flush().unwrap();
        }
    }
}

#[test]
fn a_killed_process_leaves_what_it_called_durable() {
    if let Some(path) = std::env::var_os(STORE) {
        write_until_killed(Path::new(&path));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    for round in 0..ROUNDS {
        let name = "a_killed_process_leaves_what_it_called_durable";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(STORE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Killed after a few versions, while it goes on.
        let lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let synced = lines.filter_map(|line| line.split("synced ").nth(1)?.parse::<u64>().ok());
        let mut killed = false;
        let mut last = 0;
        for (count, version) in synced.enumerate() {
            last = version;
            if count as u64 >= 3 + 5 * round && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "it ended by itself after version {last}");
        let opened = Store::open(&path).unwrap();
        assert_eq!(opened.moved_aside, None);
        let version = opened.store.cursor().version.0;
        assert!(version >= last, "at {version} although {last} was synced");
        let expected = (0..version).fold(State::default(), |state, _| step(&state).1);
        assert_eq!(opened.store.cursor(), expected.cursor());
        assert_eq!(opened.store.digest(), expected.digest());
        let entities: Vec<(Key, Entry)> = expected
            .iter()
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect();
        let held: Vec<_> = opened.store.read_all(|held| held.collect()).unwrap();
        assert_eq!(held, entities);
    }
}
