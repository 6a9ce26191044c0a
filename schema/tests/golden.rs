//! Every event ever written stays readable: the files in `golden/` are only added to, never changed.
//!
//! A missing file is written when `UPDATE_GOLDEN=1` is set; an existing one never is.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

use serde_json::{Value, json};
use sluice_schema::chunk::{self, Child, Entities, Tree};
use sluice_schema::codec;
use sluice_schema::entity::{Body, Entry, Id, Key, KindName, Workspace};
use sluice_schema::event::{
    Actor, Event, EventId, MUTATIONS_FORMAT, Mutation, Mutations, StoredMutations,
};
use sluice_schema::hash::Hash32;
use sluice_schema::state::{ApplyError, State};
use sluice_schema::trace::TraceContext;
use sluice_schema::version::{Epoch, Time, Version};
use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use uuid::Uuid;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/v1")
        .join(name)
}

/// The file's bytes. If it is missing and that is asked for, it is made.
fn golden(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    #[expect(clippy::disallowed_methods, reason = "how tests take settings")]
    let update = std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1");
    let path = path(name);
    if update && !path.exists() {
        fs::write(&path, make()).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn key(kind: &str, number: u128) -> Key {
    let kind = KindName::parse(kind).unwrap();
    Key {
        kind,
        workspace: Workspace::DEFAULT,
        id: Id(Uuid::from_u128(number)),
    }
}

fn put(kind: &str, number: u128, fields: Value) -> Mutation {
    Mutation::put(key(kind, number), Body::encode(fields.as_object().unwrap()))
}

/// The event after `state` that does this.
fn event(state: &State, mutations: Vec<Mutation>) -> Event {
    let actor = Actor {
        name: "ann".into(),
        via: "admin-api".into(),
        address: Some("192.0.2.1:5000".into()),
    };
    let version = state.version();
    let id = EventId(Uuid::from_u128(
        0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(version.0),
    ));
    let mut event = Event {
        previous: version,
        previous_chain: state.chain(),
        reason: Some("golden".into()),
        request_id: Some("req-1".into()),
        mutations: Mutations::Inline(mutations),
        ..Event::genesis(
            Epoch(Uuid::from_u128(77)),
            id,
            Time(1_700_000_000_123_456),
            actor,
        )
    };
    if let Err(ApplyError::Diverged { found, .. }) = state.apply(&event, b"") {
        event.digest = found;
    }
    event
}

fn stored_mutations() -> Vec<Mutation> {
    vec![
        put("consumer", 3, json!({"username": "ü"})),
        Mutation::Delete(key("route", 2)),
    ]
}

/// The log as this build writes it: names and messages.
fn written() -> Vec<(&'static str, Vec<u8>)> {
    let mut state = State::default();
    let mut log = Vec::new();
    let mut push = |name, event: Event, resolved: Option<Vec<Mutation>>| {
        let bytes = event.encode().bytes;
        let mutations = resolved.map_or(event.mutations.clone(), Mutations::Inline);
        state = state
            .apply(&Event { mutations, ..event }, &bytes)
            .unwrap()
            .0;
        log.push((name, bytes));
        state.clone()
    };
    let actor = Actor {
        name: "cp-1".into(),
        via: "genesis".into(),
        address: None,
    };
    let first = Event::genesis(
        Epoch(Uuid::from_u128(77)),
        EventId(Uuid::nil()),
        Time(1),
        actor,
    );
    let state = push("genesis", first, None);
    let service = json!({"name": "a", "host": "a.internal", "port": 80, "tls_verify": null, "weight": 0.5, "tags": ["x"]});
    let state = push("put", event(&state, vec![put("service", 1, service)]), None);
    let several = vec![
        put(
            "route",
            2,
            json!({"paths": ["/r"], "service": {"id": Uuid::from_u128(1).to_string()}}),
        ),
        put(
            "not_invented_yet",
            9,
            json!({"deep": {"er": [true, -1, 1e300, u64::MAX]}}),
        ),
        Mutation::Delete(key("service", 1)),
    ];
    let state = push("multi", event(&state, several), None);
    let state = push(
        "delete",
        event(&state, vec![Mutation::Delete(key("not_invented_yet", 9))]),
        None,
    );
    let mutations = stored_mutations();
    let bytes = codec::encode(MUTATIONS_FORMAT, &mutations);
    let hash = Hash32::of(&bytes);
    let reference = StoredMutations {
        hash,
        bytes: bytes.len() as u64,
        count: mutations.len() as u64,
        chunks: vec![hash],
    };
    let large = Event {
        mutations: Mutations::Stored(reference),
        ..event(&state, mutations.clone())
    };
    push("stored", large, Some(mutations));
    log
}

/// An event as text, bodies as their fields.
fn shown(event: &Event) -> Vec<u8> {
    let mut value = serde_json::to_value(event).unwrap();
    if let Mutations::Inline(mutations) = &event.mutations {
        let shown = mutations.iter().map(|mutation| match mutation.body() {
            Some(body) => json!({"put": mutation.key(), "fields": body.fields().unwrap()}),
            None => json!({"delete": mutation.key()}),
        });
        value["muts"] = shown.collect();
    }
    (serde_json::to_string_pretty(&value).unwrap() + "\n").into_bytes()
}

#[test]
fn every_event_ever_written_is_read_as_it_was_meant() {
    let mut state = State::default();
    for (name, bytes) in written() {
        let stored = golden(&format!("{name}.bin"), || bytes.clone());
        let event = Event::decode(&stored).unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = golden(&format!("{name}.json"), || shown(&event));
        assert_eq!(
            String::from_utf8(shown(&event)),
            String::from_utf8(expected),
            "{name}"
        );
        let resolved = match &event.mutations {
            Mutations::Inline(mutations) => mutations.clone(),
            Mutations::Stored(reference) => {
                let chunk = golden("stored.chunk.bin", || {
                    codec::encode(MUTATIONS_FORMAT, &stored_mutations())
                });
                assert_eq!(reference.chunks, [Hash32::of(&chunk)]);
                reference.open(&chunk).unwrap()
            }
        };
        // Chain and digest come out as their author's did.
        let event = Event {
            mutations: Mutations::Inline(resolved),
            ..event
        };
        state = state.apply(&event, &stored).unwrap().0;
    }
    assert_eq!(state.version().0, 5);
    let end = format!("{} {}\n", state.chain(), state.digest());
    assert_eq!(
        golden("end.txt", || end.clone().into_bytes()),
        end.as_bytes()
    );
}

/// An event whose write is part of a trace. It stands alone: fields that were added later are not in the log above.
fn traced() -> Event {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    Event {
        trace: TraceContext::parse(trace),
        ..event(
            &State::default(),
            vec![put("service", 1, json!({"name": "a"}))],
        )
    }
}

#[test]
fn an_event_of_a_trace_is_read_as_it_was_meant() {
    let bytes = golden("traced.bin", || traced().encode().bytes);
    let event = Event::decode(&bytes).unwrap();
    let expected = golden("traced.json", || shown(&event));
    assert_eq!(
        String::from_utf8(shown(&event)),
        String::from_utf8(expected)
    );
    assert_eq!(event, traced());
    assert_eq!(event.encode().bytes, bytes);
}

/// As long as version 1 is what is written. A new format gets its own directory, and this test moves there.
#[test]
fn this_build_writes_version_1_to_the_byte() {
    for (name, bytes) in written() {
        assert_eq!(
            golden(&format!("{name}.bin"), || bytes.clone()),
            bytes,
            "{name}"
        );
    }
}

/// The entities of a leaf: several kinds and workspaces, one kind that is not known, an empty body and a longer one.
fn leaf() -> Vec<(Key, Entry)> {
    let entity = |kind, workspace, number, version, length| {
        let workspace = Workspace::parse(workspace).unwrap();
        let key = Key {
            workspace,
            ..key(kind, number)
        };
        let version = Version(version);
        let body = Body::from_bytes(&vec![0xa5; length]);
        (key, Entry { version, body })
    };
    vec![
        entity("consumer", "Other-1", 1, 1, 0),
        entity("consumer", "Other-1", 2, 300, 20),
        entity("consumer", "default", 1, 70_000, 300),
        entity("not_invented_yet", "default", 9, u64::MAX, 3),
        entity("route", "default", u128::MAX, 2, 1000),
    ]
}

/// The children of an inner node, one of them in two pieces.
fn children() -> Vec<Child> {
    let child = |kind, number, pieces: &[u8], entities, bytes| Child {
        first: key(kind, number),
        pieces: pieces.iter().map(|fill| Hash32([*fill; 32])).collect(),
        entities,
        bytes,
    };
    vec![
        child("consumer", 1, &[1], 200, 131_072),
        child("not_invented_yet", 7, &[2, 3], 1, 1_000_000),
        child("route", 0, &[4], u64::MAX, 1),
    ]
}

#[test]
fn every_node_of_a_tree_ever_written_is_read_as_it_was_meant() {
    let stored = golden("snapshot-leaf.bin", || chunk::encode_leaf(&leaf()));
    assert_eq!(chunk::decode_leaf(&stored).unwrap(), leaf());
    assert_eq!(chunk::encode_leaf(&leaf()), stored);
    let stored = golden("snapshot-inner.bin", || chunk::encode_inner(&children()));
    assert_eq!(chunk::decode_inner(&stored).unwrap(), children());
    assert_eq!(chunk::encode_inner(&children()), stored);
}

/// So many routes, of 400 bytes.
struct Routes(u128);

impl Entities for Routes {
    type Error = Infallible;

    fn entities_from(
        &self,
        from: Option<&Key>,
    ) -> impl Iterator<Item = Result<(Key, Entry), Infallible>> {
        let first = from.map_or(0, |from| from.id.0.as_u128());
        let entry = Entry {
            version: Version(1),
            body: Body::from_bytes(&[7; 400]),
        };
        (first..self.0).map(move |number| Ok((key("route", number), entry.clone())))
    }
}

/// With another tree for the same entities, replicas would fetch everything anew.
#[test]
fn entities_have_the_tree_they_always_had() {
    let tree = Tree::build(&Routes(3000), &mut |_, _| ()).unwrap();
    let shown = tree.nodes().map(|node| {
        let pieces: Vec<_> = node.pieces.iter().map(ToString::to_string).collect();
        let (entities, bytes) = (node.entities, node.bytes);
        format!("{} {entities} {bytes} {}\n", node.first, pieces.join(" "))
    });
    let shown: String = shown.collect();
    let stored = golden("snapshot-tree.txt", || shown.clone().into_bytes());
    assert_eq!(shown, String::from_utf8(stored).unwrap());
}
