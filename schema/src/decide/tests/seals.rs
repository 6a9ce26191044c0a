//! Writes whose secrets are sealed.

use super::*;
use crate::decide::{Former, Reseal, Restoration, Restore};
use crate::entity::Key;
use crate::seal::{KEY_BYTES, Ring, Seals, sealed_with};

const CONSUMER: u128 = 1;
const CREDENTIAL: u128 = 2;

fn ring(names: &[&str]) -> Ring {
    let line = |name: &&str| Ring::line(name, &[name.as_bytes()[1]; KEY_BYTES]);
    Ring::parse(&names.iter().map(line).collect::<String>()).unwrap()
}

/// A consumer and a key of its, decided with these keys of secrets.
fn world(names: &[&str]) -> World {
    let mut world = World::new();
    world.state = world.state.with_seals(Seals::new(ring(names)));
    world.check(
        "POST consumers",
        json!({"id": id(CONSUMER), "username": "ann"}),
        "created: put consumer 1",
    );
    world.check(
        "POST consumers/ann/keyauth_credentials",
        json!({"id": id(CREDENTIAL), "key": "geheim"}),
        "created: put keyauth_credential 2",
    );
    world
}

fn turn(world: &mut World, names: &[&str]) {
    world.state.seals().replace(ring(names));
}

fn key(kind: Kind, number: u128) -> Key {
    Key {
        kind: kind.key_name(),
        workspace: Workspace::DEFAULT,
        id: Id(Uuid::from_u128(number)),
    }
}

/// What the credential's key is sealed with.
fn sealed(world: &World) -> Option<String> {
    let fields = world.fields(Kind::KeyauthCredential, CREDENTIAL);
    sealed_with(fields["key"].as_str().unwrap()).map(str::to_owned)
}

fn shown(world: &World) -> String {
    let key = key(Kind::KeyauthCredential, CREDENTIAL);
    let fields = world
        .state
        .shown(&key, &world.state.get(&key).unwrap().body);
    fields.unwrap()["key"].as_str().unwrap().to_owned()
}

#[test]
fn no_event_and_no_state_has_a_secret_in_clear_text() {
    let world = world(&["k1"]);
    let everything: Vec<u8> = world
        .state
        .iter()
        .flat_map(|(_, entry)| entry.body.as_bytes().to_vec())
        .collect();
    assert!(!String::from_utf8_lossy(&everything).contains("geheim"));
    assert_eq!(world.state.secrets().clear, 0);
    assert_eq!(shown(&world), "geheim");
    assert!(world.dump().contains("\"geheim\""), "{}", world.dump());
}

#[test]
fn a_write_that_changes_nothing_is_no_event() {
    let mut world = world(&["k1"]);
    let request = "PATCH keyauth_credentials/geheim";
    world.check(request, json!({"key": "geheim"}), "updated");
    let before = world.fields(Kind::KeyauthCredential, CREDENTIAL)["key"].clone();
    world.check(
        request,
        json!({"tags": ["t"]}),
        "updated: put keyauth_credential 2",
    );
    assert_eq!(
        world.fields(Kind::KeyauthCredential, CREDENTIAL)["key"],
        before
    );
    let file = world.dump();
    world.check_prune(&file, "+0 ~0 -0 =2");
}

#[test]
fn a_sealed_value_is_as_unique_as_it_was() {
    let mut world = world(&["k1"]);
    let again = |world: &mut World| {
        world.request(
            "POST consumers/ann/keyauth_credentials",
            json!({"key": "geheim"}),
            None,
        )
    };
    let taken = again(&mut world);
    assert!(taken.starts_with("409 UNIQUE violation"), "{taken}");
    turn(&mut world, &["k2", "k1"]);
    assert_eq!(again(&mut world), taken);
    let resealed = reseal(&mut world);
    assert_eq!(resealed, "+0 ~1 -0 =0: put keyauth_credential 2");
    assert_eq!(again(&mut world), taken);
    assert_eq!(
        (sealed(&world).as_deref(), shown(&world).as_str()),
        (Some("k2"), "geheim")
    );
    assert_eq!(reseal(&mut world), "+0 ~0 -0 =1");
}

fn reseal(world: &mut World) -> String {
    let reseal = Reseal {
        workspace: Workspace::DEFAULT,
        entities: vec![key(Kind::KeyauthCredential, CREDENTIAL)],
    };
    told(world.decide(Command::Reseal(Box::new(reseal))))
}

#[test]
fn what_was_in_clear_text_stays_unique_and_can_be_sealed() {
    let mut world = World::with(&[
        (
            "POST consumers",
            json!({"id": id(CONSUMER), "username": "ann"}),
        ),
        (
            "POST consumers/ann/keyauth_credentials",
            json!({"id": id(CREDENTIAL), "key": "geheim"}),
        ),
    ]);
    assert_eq!(world.state.secrets().clear, 1);
    turn(&mut world, &["k1"]);
    let taken = world.request(
        "POST consumers/ann/keyauth_credentials",
        json!({"key": "geheim"}),
        None,
    );
    assert!(taken.starts_with("409 UNIQUE violation"), "{taken}");
    reseal(&mut world);
    assert_eq!(sealed(&world).as_deref(), Some("k1"));
    assert_eq!(world.state.secrets().clear, 0);
    assert_eq!(world.state.secrets().by_key["k1"], 1);
}

#[test]
fn who_lacks_a_key_that_is_in_use_takes_no_secrets_and_all_else() {
    for names in [&[] as &[&str], &["k2"]] {
        let mut world = world(&["k1"]);
        match names.is_empty() {
            true => world.state.seals().replace(Ring::default()),
            false => turn(&mut world, names),
        }
        let told = world.request(
            "POST consumers/ann/keyauth_credentials",
            json!({"key": "x"}),
            None,
        );
        assert!(told.contains("does not have the key 'k1'"), "{told}");
        let path = format!("PATCH keyauth_credentials/{}", id(CREDENTIAL));
        let told = world.request(&path, json!({"tags": ["t"]}), None);
        assert!(told.contains("sealed with the key 'k1'"), "{told}");
        world.check(
            "PATCH consumers/ann",
            json!({"tags": ["t"]}),
            "updated: put consumer 1",
        );
        let path = format!("DELETE keyauth_credentials/{}", id(CREDENTIAL));
        world.check(&path, json!({}), "deleted: delete keyauth_credential 2");
    }
}

#[test]
fn what_is_brought_back_is_sealed_with_the_key_of_today() {
    let mut world = world(&["k1"]);
    let key = key(Kind::KeyauthCredential, CREDENTIAL);
    let then = world.state.get(&key).unwrap().body.clone();
    let path = format!("DELETE keyauth_credentials/{}", id(CREDENTIAL));
    world.check(&path, json!({}), "deleted: delete keyauth_credential 2");
    let back = || {
        let restore = Restore {
            workspace: Workspace::DEFAULT,
            entities: vec![Restoration {
                key: key.clone(),
                expected: None,
                to: Former::Body(then.clone()),
            }],
        };
        Command::Restore(Box::new(restore))
    };
    turn(&mut world, &["k2"]);
    let told_without = told(world.decide(back()));
    assert!(
        told_without.contains("sealed with the key 'k1'"),
        "{told_without}"
    );
    turn(&mut world, &["k2", "k1"]);
    assert_eq!(
        told(world.decide(back())),
        "+1 ~0 -0 =0: put keyauth_credential 2"
    );
    assert_eq!(
        (sealed(&world).as_deref(), shown(&world).as_str()),
        (Some("k2"), "geheim")
    );
}

#[test]
fn an_id_that_is_derived_from_a_secret_gives_nothing_away() {
    let file = "{_format_version: '3.0', consumers: [{username: ben, keyauth_credentials: [{key: schwach}]}]}";
    let derived = |mut world: World| {
        world.apply_file(file, false);
        let mut list = world
            .state
            .list(Kind::KeyauthCredential, &Workspace::DEFAULT, None);
        list.find(|(id, _)| id.0.as_u128() != CREDENTIAL).unwrap().0
    };
    assert_ne!(derived(World::new()), derived(world(&["k1"])));
    let mut world = world(&["k1"]);
    world.apply_file(file, false);
    turn(&mut world, &["k2", "k1"]);
    // The same entity, whatever seals now; one that does not change is not sealed anew.
    world.check_apply(file, "+0 ~0 -0 =2");
    // Also where only its content says which it is.
    let file =
        "{_format_version: '3.0', consumers: [{username: ann, jwt_secrets: [{secret: schwach}]}]}";
    world.apply_file(file, false);
    let first = |world: &World| {
        let mut list = world.state.list(Kind::JwtSecret, &Workspace::DEFAULT, None);
        list.next().map(|(id, _)| id)
    };
    let mut clear = World::new();
    clear.apply_file(file, false);
    assert_ne!(first(&world).unwrap(), first(&clear).unwrap());
    turn(&mut world, &["k3", "k2", "k1"]);
    world.check_apply(file, "+0 ~0 -0 =2");
}

#[test]
fn a_write_that_leaves_nothing_sealed_with_a_lost_key_is_taken() {
    let mut world = world(&["k1"]);
    turn(&mut world, &["k2"]);
    let path = format!("PUT keyauth_credentials/{}", id(CREDENTIAL));
    let body = json!({"key": "neu", "consumer": {"id": id(CONSUMER)}});
    world.check(&path, body, "updated: put keyauth_credential 2");
    assert_eq!(
        (sealed(&world).as_deref(), shown(&world).as_str()),
        (Some("k2"), "neu")
    );
}

#[test]
fn what_is_hashed_for_others_to_see_cannot_be_tried_without_the_key() {
    let hash = [7; 32];
    assert_eq!(Ring::default().veil(hash), hash);
    let veiled = ring(&["k1"]).veil(hash);
    assert!(veiled != hash && veiled != ring(&["k2"]).veil(hash));
    assert_eq!(veiled, ring(&["k1", "k2"]).veil(hash));
}
