//! Declarative files.

use super::*;

const HEAD: &str = "_format_version: '3.0'\n";

fn file(text: &str) -> String {
    format!("{HEAD}{text}")
}

const SMALL: &str = "_format_version: '3.0'
services:
- name: a
  host: a.internal
  routes:
  - name: r
    paths: [/r]
    plugins:
    - name: key-auth
consumers:
- username: u
  keyauth_credentials:
  - key: k
    ttl: 100
upstreams:
- name: up
  targets:
  - target: x
";

#[test]
fn a_file_is_one_event_and_the_second_time_none() {
    let mut world = World::new();
    let all = "put consumer, put keyauth_credential, put plugin, put route, put service, put target, put upstream";
    world.check_apply(SMALL, &format!("+7 ~0 -0 =0: {all}"));
    world.now += 1000;
    world
        .check_apply(SMALL, "+0 ~0 -0 =7")
        .check_prune(SMALL, "+0 ~0 -0 =7");
    let text = SMALL.replace("a.internal", "b.internal");
    world.check_apply(&text, "+0 ~1 -0 =6: put service");
    // The same file means the same entities everywhere.
    let mut other = World::new();
    other.now += 77;
    other.apply_file(SMALL, false);
    let keys = |world: &World| {
        world
            .state
            .iter()
            .map(|(key, _)| key.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&world), keys(&other));
}

#[test]
fn what_is_not_in_the_file_stays_unless_it_is_pruned() {
    let mut world = gateway();
    let text = file("services:\n- {name: b, host: h}\n");
    world.check_apply(&text, "+1 ~0 -0 =0: put service");
    let gone = "delete consumer 3, delete keyauth_credential 7, delete plugin 4, delete plugin 5, delete plugin 6, delete route 2, delete service 1";
    world.check_prune(&text, &format!("+0 ~0 -7 =1: {gone}"));
}

#[test]
fn a_file_with_select_tags_speaks_of_entities_with_all_of_them() {
    let mut world = World::with(&[
        (
            "POST services",
            json!({"id": id(1), "name": "both", "host": "h", "tags": ["x", "team", "y"]}),
        ),
        (
            "POST services",
            json!({"id": id(2), "name": "one", "host": "h", "tags": ["team"]}),
        ),
        (
            "POST services",
            json!({"id": id(3), "name": "none", "host": "h"}),
        ),
    ]);
    let info = "_info: {select_tags: [team, x]}\n";
    let text = file(&format!(
        "{info}services:\n- {{name: new, host: h, tags: [own]}}\n"
    ));
    world.check_prune(&text, "+1 ~0 -1 =0: delete service 1, put service");
    let (_, new) = world
        .state
        .list(Kind::Service, &Workspace::DEFAULT, None)
        .last()
        .unwrap();
    assert_eq!(
        new.body.fields().unwrap()["tags"],
        json!(["own", "team", "x"])
    );
    world.check_prune(&text, "+0 ~0 -0 =1");
    world.check_prune(&file(info), "+0 ~0 -1 =0: delete service");
}

#[test]
fn what_stays_must_not_refer_to_what_is_pruned() {
    let mut world = gateway();
    let text = file(&format!(
        "routes:\n- {{id: {}, name: r, paths: [/r], service: {{id: {}}}}}\n",
        id(2),
        id(1)
    ));
    let stays = format!(
        "3:3: route {} stays and refers to service {}, which is not in the file",
        id(2),
        id(1)
    );
    world.check_prune(&text, &stays);
    // A tagged parent, an untagged child.
    let mut world = World::with(&[
        (
            "POST services",
            json!({"id": id(1), "name": "a", "host": "h", "tags": ["t"]}),
        ),
        (
            "POST routes",
            json!({"id": id(2), "name": "r", "paths": ["/r"], "service": {"id": id(1)}}),
        ),
    ]);
    let text = file("_info: {select_tags: [t]}\nservices:\n- {name: b, host: h}\n");
    let stays = format!(
        "4:3: route {} stays and refers to service {}, which is not in the file",
        id(2),
        id(1)
    );
    world.check_prune(&text, &stays);
}

#[test]
fn a_new_name_without_an_id_is_a_new_entity_and_the_old_one_is_pruned() {
    let mut world = World::with(&[(
        "POST services",
        json!({"id": id(1), "name": "old", "host": "h"}),
    )]);
    world.check_prune(
        &file("services:\n- {name: new, host: h}\n"),
        "+1 ~0 -1 =0: delete service 1, put service",
    );
}

#[test]
fn two_entities_may_swap_their_names_and_one_may_leave_its_name_to_another() {
    let mut world = World::with(&[
        (
            "POST services",
            json!({"id": id(1), "name": "a", "host": "h"}),
        ),
        (
            "POST services",
            json!({"id": id(2), "name": "b", "host": "h"}),
        ),
    ]);
    let swapped = format!(
        "services:\n- {{id: {}, name: b, host: h}}\n- {{id: {}, name: a, host: h}}\n",
        id(1),
        id(2)
    );
    world.check_apply(&file(&swapped), "+0 ~2 -0 =0: put service 1, put service 2");
    assert_eq!(world.fields(Kind::Service, 1)["name"], "b");
    world.check(
        "POST services",
        json!({"name": "a", "host": "h"}),
        "409 UNIQUE violation detected on '{name=\"a\"}'",
    );
    let left = format!(
        "services:\n- {{id: {}, name: c, host: h}}\n- {{name: b, host: h}}\n",
        id(1)
    );
    world.check_apply(&file(&left), "+1 ~1 -0 =0: put service 1, put service");
}

#[test]
fn references_by_name_find_entities_of_the_file_and_of_the_state() {
    let mut world = gateway();
    let text = file(&format!(
        "services:\n- {{name: new, host: h}}\nroutes:\n- {{id: {}, paths: [/1], service: a}}\n- {{id: {}, paths: [/2], service: {{name: new}}}}\n- {{id: {}, paths: [/3], service: {}}}\n",
        id(20),
        id(21),
        id(22),
        id(1)
    ));
    world.check_apply(
        &text,
        "+4 ~0 -0 =0: put route 20, put route 21, put route 22, put service",
    );
    assert_eq!(
        world.fields(Kind::Route, 20)["service"],
        json!({"id": id(1)})
    );
    assert_eq!(
        world.fields(Kind::Route, 22)["service"],
        json!({"id": id(1)})
    );
    assert_ne!(
        world.fields(Kind::Route, 21)["service"],
        json!({"id": id(1)})
    );
}

#[test]
fn a_reference_that_leads_nowhere_is_told_with_its_line() {
    let mut world = gateway();
    let text = file("routes:\n- name: x\n  paths: [/x]\n  service: nobody\n");
    world.check_apply(
        &text,
        "5:12: routes[0].service: there is no service 'nobody'",
    );
    let text = file(&format!(
        "routes:\n- name: x\n  paths: [/x]\n  service: {}\n",
        id(99)
    ));
    world.check_apply(
        &text,
        &format!("5:12: routes[0].service: there is no service '{}'", id(99)),
    );
}

#[test]
fn every_mistake_is_told_at_once() {
    let mut world = gateway();
    let text = file(
        "services:
- name: a b
  host: h
- name: twice
  host: h
- name: twice
  host: h
- name: c
  host: h
  port: 70000
  routes:
  - name: r2
    paths: [x]
    service_typo: 1
routes:
- name: r3
  paths: [/x]
  service: nobody
consumers:
- tags: [t]
",
    );
    let told = world.apply_file(&text, false);
    let places: Vec<&str> = told
        .lines()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        ["3:9", "7:3", "11:9", "14:13", "15:19", "19:12", "21:3"],
        "{told}"
    );
    assert!(told.contains("is in the file twice"), "{told}");
}

#[test]
fn a_unique_value_of_another_entity_is_a_mistake() {
    let mut world = gateway();
    let text = file(&format!(
        "services:\n- id: {}\n  name: a\n  host: h\n",
        id(9)
    ));
    world.check_apply(
        &text,
        "3:3: services[0].name: UNIQUE violation detected on '{name=\"a\"}'"
            .replace("3:3", "4:9")
            .as_str(),
    );
    let text = file(&format!(
        "services:\n- id: {}\n  name: x\n  host: h\n- id: {}\n  name: x\n  host: h\n",
        id(8),
        id(9)
    ));
    world.check_apply(
        &text,
        "7:9: services[1].name: UNIQUE violation detected on '{name=\"x\"}'",
    );
}

#[test]
fn credentials_are_nested_in_their_consumer() {
    let mut world = World::new();
    let text = file(&format!(
        "consumers:\n- id: {}\n  username: u\n  keyauth_credentials:\n  - {{id: {}, key: k}}\n",
        id(1),
        id(2)
    ));
    world.check_apply(
        &text,
        "+2 ~0 -0 =0: put consumer 1, put keyauth_credential 2",
    );
    assert_eq!(
        world.fields(Kind::KeyauthCredential, 2)["consumer"],
        json!({"id": id(1)})
    );
}

#[test]
fn a_target_is_known_by_its_address_also_without_its_port() {
    let mut world = World::with(&[
        ("POST upstreams", json!({"id": id(1), "name": "up"})),
        (
            "POST upstreams/up/targets",
            json!({"id": id(2), "target": "x"}),
        ),
    ]);
    let text = file("upstreams:\n- name: up\n  targets:\n  - {target: x, weight: 5}\n");
    world.check_apply(&text, "+0 ~1 -0 =1: put target 2");
}

#[test]
fn applying_a_dump_changes_nothing() {
    let mut world = gateway();
    world.apply_file(SMALL, false);
    world.now += 50;
    let credential = format!("PATCH keyauth_credentials/{}", id(7));
    // 30 seconds from now are more from the creation.
    world.check(
        &credential,
        json!({"ttl": 30}),
        "updated: put keyauth_credential 7",
    );
    let fields = world.fields(Kind::KeyauthCredential, 7);
    let age = world.now - fields["created_at"].as_u64().unwrap();
    assert_eq!(fields["ttl"], 30 + age);
    // The two fields that Kong ties to each other when they are written.
    world.check(
        "POST upstreams",
        json!({"name": "hash", "algorithm": "consistent-hashing"}),
        "created: put upstream",
    );
    world.now += 1000;
    let count = world.state.len();
    world.check_prune(&world.dump().clone(), &format!("+0 ~0 -0 ={count}"));
    // Another change to a credential leaves its end of life where it was.
    let dump = world
        .dump()
        .replace("\"key\":\"k\"", "\"key\":\"k2\"")
        .replace(&id(7), &id(8));
    world.apply_file(&dump, true);
    assert_eq!(world.fields(Kind::KeyauthCredential, 8)["ttl"], 30 + age);
    // And into an empty one it makes the same, Kong's two tied fields aside.
    world.check(
        "DELETE upstreams/hash",
        Value::Null,
        "deleted: delete upstream",
    );
    let mut other = World::new();
    other.now = world.now;
    other.apply_file(&world.dump(), true);
    let visible = |world: &World| {
        let entities = world.state.iter().map(|(key, entry)| {
            let mut fields = entry.body.fields().unwrap();
            fields.remove("updated_at");
            (key.clone(), fields)
        });
        entities.collect::<Vec<_>>()
    };
    assert_eq!(visible(&other), visible(&world));
}
