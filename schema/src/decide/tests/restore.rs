//! Entities brought back to what they were.

use super::*;
use crate::decide::{Former, Restoration, Restore};
use std::collections::BTreeSet;

/// The way from one state back to an earlier one.
fn way_back(now: &State, then: &State) -> Vec<Restoration> {
    let keys: BTreeSet<_> = now.changed_since(then);
    let one = |key: &Key| Restoration {
        key: key.clone(),
        expected: now.get(key).map(|entry| entry.version),
        to: then
            .get(key)
            .map_or(Former::Absent, |entry| Former::Body(entry.body.clone())),
    };
    keys.iter().map(one).collect()
}

fn restore(world: &mut World, entities: Vec<Restoration>) -> String {
    let workspace = Workspace::DEFAULT;
    let restore = Restore {
        workspace,
        entities,
    };
    told(world.decide(Command::Restore(Box::new(restore))))
}

fn shop() -> World {
    World::with(&[
        (
            "POST services",
            json!({"id": id(1), "name": "a", "host": "a.example"}),
        ),
        (
            "POST services/a/routes",
            json!({"id": id(2), "name": "r", "paths": ["/r"]}),
        ),
        ("POST consumers", json!({"id": id(3), "username": "ann"})),
    ])
}

#[test]
fn a_state_brought_back_has_the_digest_it_had() {
    let mut world = shop();
    let then = world.state.clone();
    world.request("PATCH services/a", json!({"host": "b.example"}), None);
    world.request("DELETE routes/r", json!({}), None);
    world.request(
        "POST services",
        json!({"id": id(4), "name": "new", "host": "x"}),
        None,
    );
    world.request(
        "POST services/new/routes",
        json!({"id": id(5), "paths": ["/n"]}),
        None,
    );
    let back = way_back(&world.state, &then);
    let told = restore(&mut world, back);
    assert!(told.starts_with("+1 ~1 -2 =0"), "{told}");
    assert_eq!(world.state.digest(), then.digest());
    let back = way_back(&world.state, &then);
    assert_eq!(restore(&mut world, back), "+0 ~0 -0 =2");
}

#[test]
fn two_entities_may_swap_a_name_on_the_way_back() {
    let mut world = shop();
    world.request(
        "POST services",
        json!({"id": id(4), "name": "b", "host": "b.example"}),
        None,
    );
    let then = world.state.clone();
    for (name, new) in [("a", "c"), ("b", "a"), ("c", "b")] {
        let path = format!("PATCH services/{name}");
        world.request(&path, json!({"name": new}), None);
    }
    let back = way_back(&world.state, &then);
    let told = restore(&mut world, back);
    assert!(told.starts_with("+0 ~2 -0 =0"), "{told}");
    assert_eq!(world.state.digest(), then.digest());
}

#[test]
fn what_does_not_fit_what_is_there_is_told_and_changes_nothing() {
    let mut world = shop();
    let then = world.state.clone();
    world.request("DELETE routes/r", json!({}), None);
    world.request("DELETE services/a", json!({}), None);
    let back = way_back(&world.state, &then);
    let only = |kind: &str, back: &[Restoration]| -> Vec<Restoration> {
        let own = back.iter().filter(|one| one.key.kind.as_str() == kind);
        own.cloned().collect()
    };
    let (route, service) = (only("route", &back), only("service", &back));
    let told = restore(&mut world, route);
    assert!(told.contains("route Rejected"), "{told}");
    assert!(told.contains("foreign"), "{told}");
    // Its name has been taken meanwhile.
    world.request(
        "POST services",
        json!({"id": id(9), "name": "a", "host": "x"}),
        None,
    );
    let told = restore(&mut world, service);
    assert!(told.contains("service Rejected"), "{told}");
    assert!(told.contains("UNIQUE"), "{told}");
}

#[test]
fn nothing_goes_that_others_refer_to() {
    let mut world = World::new();
    let then = world.state.clone();
    world.request(
        "POST services",
        json!({"id": id(1), "name": "a", "host": "a"}),
        None,
    );
    let created = way_back(&world.state, &then);
    world.request(
        "POST services/a/routes",
        json!({"id": id(2), "paths": ["/r"]}),
        None,
    );
    let told = restore(&mut world, created);
    assert!(told.contains("service Referred"), "{told}");
    let all = way_back(&world.state, &then);
    assert!(restore(&mut world, all).starts_with("+0 ~0 -2 =0"));
    assert!(world.state.is_empty());
}

#[test]
fn a_plan_made_on_another_state_is_refused() {
    let mut world = shop();
    let then = world.state.clone();
    world.request("PATCH services/a", json!({"host": "b.example"}), None);
    let back = way_back(&world.state, &then);
    world.request("PATCH services/a", json!({"retries": 1}), None);
    let told = restore(&mut world, back);
    assert!(told.contains("Moved"), "{told}");
    let fields = world
        .state
        .iter()
        .find(|(key, _)| key.kind.as_str() == "service");
    let fields = fields.unwrap().1.body.fields().unwrap();
    assert_eq!(
        (&fields["host"], &fields["retries"]),
        (&json!("b.example"), &json!(1))
    );
}

#[test]
fn fields_that_no_version_had_together_are_checked_and_stamped() {
    let mut world = shop();
    let (key, entry) = world
        .state
        .iter()
        .find(|(key, _)| key.kind.as_str() == "service")
        .unwrap();
    let (key, expected) = (key.clone(), Some(entry.version));
    let mut fields = entry.body.fields().unwrap();
    let before = fields["updated_at"].as_u64().unwrap();
    fields.insert("retries".to_owned(), json!(99_999));
    let wrong = Restoration {
        key: key.clone(),
        expected,
        to: Former::Fields(fields.clone()),
    };
    let told = restore(&mut world, vec![wrong]);
    assert!(told.contains("retries"), "{told}");
    fields.insert("retries".to_owned(), json!(7));
    let right = Restoration {
        key: key.clone(),
        expected,
        to: Former::Fields(fields),
    };
    assert!(restore(&mut world, vec![right]).starts_with("+0 ~1 -0 =0"));
    let fields = world.state.get(&key).unwrap().body.fields().unwrap();
    assert_eq!(fields["retries"], 7);
    assert!(fields["updated_at"].as_u64().unwrap() > before);
}
