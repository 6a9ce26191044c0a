//! Any sequence of commands: what was decided, folded, is what its author saw. (`World` checks that on every step.)

use super::*;
use crate::entity::Entry;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Request {
        method: &'static str,
        path: String,
        body: Value,
    },
    Apply {
        text: String,
        prune: bool,
    },
}

fn name(prefix: &'static str) -> impl Strategy<Value = String> {
    (0..3_u8).prop_map(move |number| format!("{prefix}{number}"))
}

fn request(
    path: impl Strategy<Value = String>,
    body: impl Strategy<Value = Value>,
) -> impl Strategy<Value = Step> {
    (
        prop::sample::select(vec!["POST", "PUT", "PUT", "PATCH", "DELETE"]),
        path,
        body,
    )
        .prop_map(|(method, path, body)| {
            let (collection, _) = path.rsplit_once('/').unwrap();
            let path = if method == "POST" {
                collection.to_owned()
            } else {
                path
            };
            Step::Request { method, path, body }
        })
}

fn parent() -> impl Strategy<Value = (&'static str, Value)> {
    prop_oneof![
        name("s").prop_map(|name| ("service", json!({ "name": name }))),
        name("r").prop_map(|name| ("route", json!({ "name": name }))),
        name("c").prop_map(|name| ("consumer", json!({ "username": name }))),
        Just(("service", Value::Null)),
    ]
}

fn route() -> impl Strategy<Value = Value> {
    (name("r"), prop::option::of(name("s")), name("/p")).prop_map(|(name, service, path)| {
        json!({"name": name, "paths": [path], "service": service.map(|name| json!({"name": name}))})
    })
}

fn plugin() -> impl Strategy<Value = Value> {
    (parent(), any::<bool>(), name("i")).prop_map(|((parent, reference), limits, name)| {
        let mut body = match limits {
            true => json!({"name": "rate-limiting", "config": {"minute": 5, "policy": "local"}}),
            false => json!({"name": "key-auth"}),
        };
        body["instance_name"] = name.into();
        body[parent] = reference;
        body
    })
}

fn step() -> impl Strategy<Value = Step> {
    let service =
        || (name("s"), name("h")).prop_map(|(name, host)| json!({"name": name, "host": host}));
    let consumer = (name("c"), prop::option::of(name("x")))
        .prop_map(|(name, custom)| json!({"username": name, "custom_id": custom}));
    let credential =
        (name("c"), name("k")).prop_map(|(c, k)| format!("consumers/{c}/keyauth_credentials/{k}"));
    let target = (name("u"), name("t")).prop_map(|(u, t)| format!("upstreams/{u}/targets/{t}:80"));
    let file = (
        prop::collection::vec(service(), 0..3),
        prop::collection::vec(route(), 0..3),
        any::<bool>(),
    );
    prop_oneof![
        4 => request(name("services/s"), service()),
        4 => request(name("routes/r"), route()),
        3 => request(name("consumers/c"), consumer),
        4 => request(name("plugins/i"), plugin()),
        2 => request(credential, name("k").prop_map(|key| json!({"key": key, "ttl": 9}))),
        2 => request(name("upstreams/u"), name("u").prop_map(|name| json!({"name": name}))),
        2 => request(target, name("t").prop_map(|name| json!({"target": name + ":80"}))),
        3 => file.prop_map(|(services, routes, prune)| {
            let text = json!({"_format_version": "3.0", "services": services, "routes": routes}).to_string();
            Step::Apply { text, prune }
        }),
    ]
}

/// The indexes answer as a walk over all entities does.
fn check_lookups(state: &State) {
    let entities: Vec<(&Key, &Entry)> = state.iter().collect();
    for (key, entry) in &entities {
        let kind = Kind::from_name(key.kind.as_str()).unwrap();
        let fields = entry.body.fields().unwrap();
        for unique in kind.schema().unique {
            let holder = state.holder(kind, &key.workspace, unique, &fields);
            assert!(
                holder.is_none_or(|holder| holder == key.id),
                "{key} shares {}",
                unique.name
            );
        }
        for (field, foreign) in kind.schema().foreign() {
            let Some(parent) = fields.get(field).and_then(crate::state::reference_id) else {
                continue;
            };
            assert!(
                state.entity(foreign.kind, &key.workspace, parent).is_some(),
                "{key} dangles"
            );
            let children: Vec<Id> = state
                .children((foreign.kind, parent), &key.workspace, kind, field, None)
                .collect();
            assert!(children.contains(&key.id));
            assert!(
                state
                    .referrers(foreign.kind, &key.workspace, parent)
                    .any(|link| link.child_id == key.id)
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// I5 and I7, as far as deciding goes.
    #[test]
    fn what_was_decided_folds_to_what_its_author_saw(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            match step {
                Step::Request { method, path, body } => {
                    world.request(&format!("{method} {path}"), body.clone(), None);
                }
                Step::Apply { text, prune } => {
                    world.apply_file(text, *prune);
                }
            }
        }
        check_lookups(&world.state);
        let entities = world.folded.iter().map(|(key, entry)| (key.clone(), entry.clone()));
        let restored = State::restore(world.folded.cursor(), entities);
        prop_assert_eq!(restored.digest(), world.state.digest());
        // A dump is the state.
        world.now += 100;
        let dump = world.dump();
        let unchanged = format!("+0 ~0 -0 ={}", world.state.len());
        prop_assert_eq!(world.apply_file(&dump, true), unchanged);
    }
}
