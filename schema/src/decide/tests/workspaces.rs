//! Workspaces: what is there without having been written, and what keeps one from being deleted.

use super::*;
use crate::entity::{Body, Entry, KindName};
use crate::kind::workspace::DEFAULT_ID;
use crate::version::Version;

#[test]
fn default_is_assumed_and_written_only_when_it_is_changed() {
    let mut world = World::with(&[]);
    let refused = "409 UNIQUE violation detected on '{name=\"default\"}'";
    world.check("POST workspaces", json!({"name": "default"}), refused);
    world.check(
        "POST workspaces",
        json!({"name": "team"}),
        "created: put workspace",
    );
    assert!(
        world
            .state
            .entity(Kind::Workspace, &Workspace::DEFAULT, DEFAULT_ID)
            .is_none()
    );
    let default = "updated: put workspace";
    world.check(
        "PATCH workspaces/default",
        json!({"comment": "ours"}),
        default,
    );
    let entry = world
        .state
        .entity(Kind::Workspace, &Workspace::DEFAULT, DEFAULT_ID);
    let fields = entry.unwrap().body.fields().unwrap();
    assert_eq!(
        (&fields["name"], &fields["comment"]),
        (&json!("default"), &json!("ours"))
    );
    assert_eq!(
        world.state.with_default_workspace().len(),
        world.state.len()
    );
}

#[test]
fn a_workspace_with_anything_in_it_stays() {
    let mut world = World::with(&[("POST workspaces", json!({"name": "team"}))]);
    let team = Workspace::parse("team").unwrap();
    for kind in ["aaa", "service", "zzz"] {
        assert!(!world.state.is_in_use(&team));
        // Also of a kind that this build does not know.
        let key = Key {
            kind: KindName::parse(kind).unwrap(),
            workspace: team.clone(),
            id: Id(Uuid::from_u128(1)),
        };
        let entry = Entry {
            version: Version(1),
            body: Body::encode(&Map::new()),
        };
        let empty = world.state.clone();
        world.state.insert(key, entry);
        assert!(world.state.is_in_use(&team), "{kind}");
        assert!(!world.state.is_in_use(&Workspace::parse("tea").unwrap()));
        world.state = empty;
    }
    world.check(
        "DELETE workspaces/team",
        Value::Null,
        "deleted: delete workspace",
    );
}

#[test]
fn nothing_is_written_into_a_workspace_that_is_not_there() {
    let world = World::with(&[]);
    let write = Write {
        kind: Kind::Consumer,
        workspace: Workspace::parse("nobody").unwrap(),
        scope: None,
        action: Action::Create,
        body: Map::from_iter([("username".to_owned(), json!("ann"))]),
        precondition: Precondition::default(),
    };
    let origin = Origin {
        id: EventId(Uuid::nil()),
        time: Time(1),
        actor: Actor::default(),
        reason: None,
        request_id: None,
        trace: None,
        seed: [0; 32],
        router_flavor: RouterFlavor::default(),
    };
    let refused = decide(&world.state, Command::Write(Box::new(write)), &origin);
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("Workspace 'nobody' not found"),
        "{refused}"
    );
}
