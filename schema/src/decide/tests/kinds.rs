//! What refers to what among certificates, credentials, groups and keys.

use super::*;
use crate::decide::{Membership, MembershipChange};

fn pem(name: &str) -> String {
    let path = format!("{}/tests/pem/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Certificate 1 with the names `a.test` and `b.test`.
fn certified() -> World {
    World::with(&[(
        "POST certificates",
        json!({
            "id": id(1), "cert": pem("p256.crt"), "key": pem("p256.key"),
            "snis": ["b.test", "a.test"],
        }),
    )])
}

impl World {
    fn names(&self, number: u128) -> Vec<String> {
        let names = Kind::Certificate.schema().names.unwrap();
        let owner = Id(Uuid::from_u128(number));
        let mut found: Vec<String> = self
            .state
            .names(names, Kind::Certificate, &Workspace::DEFAULT, owner)
            .map(|(name, _)| name)
            .collect();
        found.sort();
        found
    }

    fn change(&mut self, group: u128, consumers: &[u128], change: MembershipChange) -> String {
        let ids = |numbers: &[u128]| {
            numbers
                .iter()
                .map(|one| Id(Uuid::from_u128(*one)))
                .collect()
        };
        let membership = Membership {
            workspace: Workspace::DEFAULT,
            groups: ids(&[group]),
            consumers: ids(consumers),
            change,
        };
        told(self.decide(Command::Membership(Box::new(membership))))
    }
}

#[test]
fn the_names_of_a_certificate_are_entities_of_their_own() {
    let mut world = certified();
    assert_eq!(world.names(1), ["a.test", "b.test"]);
    assert!(!world.fields(Kind::Certificate, 1).contains_key("snis"));
    // A patch without names leaves them, one with names replaces them, a PUT without has none.
    world.check(
        "PATCH certificates/a.test",
        json!({"tags": ["x"]}),
        "updated: put certificate 1",
    );
    let body = json!({"snis": ["b.test", "c.test"]});
    let told = world.request("PATCH certificates/a.test", body, None);
    assert!(told.starts_with("updated: put certificate 1, "), "{told}");
    assert!(
        told.contains("put sni") && told.contains("delete sni"),
        "{told}"
    );
    assert_eq!(world.names(1), ["b.test", "c.test"]);
    let pair = json!({"cert": pem("p256.crt"), "key": pem("p256.key")});
    world.request(&format!("PUT certificates/{}", id(1)), pair.clone(), None);
    assert_eq!(world.names(1), Vec::<String>::new());
    // At a name that nobody has, a PUT makes a certificate that has it.
    world.check(
        "PUT certificates/new.test",
        pair.clone(),
        "created: put certificate, put sni",
    );
    world.check(
        "PUT certificates/new.test",
        pair,
        "updated: put certificate",
    );
    world.check(
        "PATCH certificates/nobody.test",
        json!({}),
        "404 could not find the entity with '{id=\"nobody.test\"}'",
    );
}

#[test]
fn a_name_belongs_to_one_certificate() {
    let mut world = certified();
    let with = |names: Value| json!({"id": id(2), "cert": pem("rsa.crt"), "key": pem("rsa.key"), "snis": names});
    world.check(
        "POST certificates",
        with(json!(["a.test"])),
        &format!(
            "400 schema violation (snis: a.test already associated with existing certificate '{}')",
            id(1)
        ),
    );
    world.check(
        "POST certificates",
        with(json!(["x.test", "x.test"])),
        "400 schema violation (snis: x.test is duplicated)",
    );
    world.check(
        "POST certificates",
        with(json!(["x.*.test"])),
        "400 schema violation (name: wildcard must be leftmost or rightmost character)",
    );
    world.check(
        "POST certificates",
        with(json!([5])),
        "400 schema violation (snis.1: expected a string)",
    );
    world.check(
        "POST snis",
        json!({"name": "a.test", "certificate": {"id": id(1)}}),
        "409 UNIQUE violation detected on '{name=\"a.test\"}'",
    );
    world.check(
        "POST snis",
        json!({"name": "x.test", "certificate": {"id": id(9)}}),
        &format!("400 the foreign key '{{id=\"{}\"}}' does not reference an existing 'certificates' entity.", id(9)),
    );
}

#[test]
fn a_certificate_in_use_stays_and_its_names_go_with_it() {
    let mut world = certified();
    world.request(
        "POST services",
        json!({"id": id(5), "host": "a", "protocol": "https", "client_certificate": {"id": id(1)}}),
        None,
    );
    let delete = format!("DELETE certificates/{}", id(1));
    world.check(
        &delete,
        Value::Null,
        "400 an existing 'services' entity references this 'certificates' entity",
    );
    world.check(
        &format!("PATCH services/{}", id(5)),
        json!({"client_certificate": null}),
        "updated: put service 5",
    );
    world.request(
        "POST upstreams",
        json!({"name": "u", "client_certificate": {"id": id(1)}}),
        None,
    );
    world.check(
        &delete,
        Value::Null,
        "400 an existing 'upstreams' entity references this 'certificates' entity",
    );
    world.check(
        "DELETE upstreams/u",
        Value::Null,
        "deleted: delete upstream",
    );
    world.check(
        &delete,
        Value::Null,
        "deleted: delete certificate 1, delete sni, delete sni",
    );
}

#[test]
fn a_list_of_authorities_names_what_is_there_and_keeps_it() {
    let mut world = World::with(&[(
        "POST ca_certificates",
        json!({"id": id(1), "cert": pem("ca.crt")}),
    )]);
    let service = |ids: &[u128]| {
        let ids: Vec<String> = ids.iter().map(|one| id(*one)).collect();
        json!({"id": id(5), "host": "a", "protocol": "https", "ca_certificates": ids})
    };
    world.check(
        "POST services",
        service(&[1, 2]),
        &format!(
            "400 schema violation (ca_certificates.2: the CA certificate '{}' does not exist)",
            id(2)
        ),
    );
    world.check("POST services", service(&[1]), "created: put service 5");
    let delete = format!("DELETE ca_certificates/{}", id(1));
    world.check(
        &delete,
        Value::Null,
        &format!(
            "400 ca certificate {} is still referenced by services (id = {})",
            id(1),
            id(5)
        ),
    );
    let refused = world.request("POST ca_certificates", json!({"cert": pem("ca.crt")}), None);
    assert!(
        refused.starts_with("409 UNIQUE violation detected on '{cert_digest="),
        "{refused}"
    );
    world.check(
        &format!("DELETE services/{}", id(5)),
        Value::Null,
        "deleted: delete service 5",
    );
    world.check(&delete, Value::Null, "deleted: delete ca_certificate 1");
}

#[test]
fn credentials_and_memberships_go_with_their_consumer() {
    let owner = json!({"id": id(1)});
    let mut world = World::with(&[
        ("POST consumers", json!({"id": id(1), "username": "u"})),
        ("POST consumer_groups", json!({"id": id(2), "name": "g"})),
        (
            "POST basicauth_credentials",
            json!({"username": "b", "password": "p", "consumer": owner}),
        ),
        ("POST jwt_secrets", json!({"consumer": owner})),
        (
            "POST hmacauth_credentials",
            json!({"username": "h", "consumer": owner}),
        ),
        ("POST acls", json!({"group": "a", "consumer": owner})),
        (
            "POST oauth2_credentials",
            json!({"id": id(3), "name": "o", "consumer": owner}),
        ),
        (
            "POST oauth2_tokens",
            json!({"expires_in": 1, "credential": {"id": id(3)}}),
        ),
        (
            "POST plugins",
            json!({"name": "rate-limiting", "config": {"minute": 1}, "consumer_group": {"id": id(2)}}),
        ),
    ]);
    assert_eq!(
        world.change(2, &[1], MembershipChange::Join),
        "created: put consumer_group_consumer"
    );
    world.check(
        "DELETE consumers/u",
        Value::Null,
        "deleted: delete acl, delete basicauth_credential, delete consumer 1, \
         delete consumer_group_consumer, delete hmacauth_credential, delete jwt_secret, \
         delete oauth2_credential 3, delete oauth2_token",
    );
    world.check(
        "DELETE consumer_groups/g",
        Value::Null,
        "deleted: delete consumer_group 2, delete plugin",
    );
}

#[test]
fn consumers_join_a_group_once_and_leave_it() {
    let mut world = World::with(&[
        ("POST consumers", json!({"id": id(1), "username": "u"})),
        ("POST consumers", json!({"id": id(3), "username": "v"})),
        ("POST consumer_groups", json!({"id": id(2), "name": "g"})),
    ]);
    assert_eq!(
        world.change(2, &[1, 3], MembershipChange::Join),
        "created: put consumer_group_consumer, put consumer_group_consumer"
    );
    let again = world.change(2, &[1], MembershipChange::Join);
    assert!(
        again.starts_with("409 UNIQUE violation detected on '{consumer="),
        "{again}"
    );
    let nobody = world.change(2, &[9], MembershipChange::Join);
    assert!(
        nobody.ends_with("does not reference an existing 'consumers' entity."),
        "{nobody}"
    );
    assert_eq!(
        world.change(2, &[1, 9], MembershipChange::Leave),
        "deleted: delete consumer_group_consumer"
    );
    assert_eq!(world.change(2, &[1], MembershipChange::Leave), "deleted");
}

#[test]
fn values_that_are_unique_together_are() {
    let owner = json!({"id": id(1)});
    let mut world = World::with(&[
        ("POST consumers", json!({"id": id(1), "username": "u"})),
        ("POST consumers", json!({"id": id(2), "username": "v"})),
        ("POST acls", json!({"group": "a", "consumer": owner})),
        (
            "POST basicauth_credentials",
            json!({"username": "b", "password": "p", "consumer": owner}),
        ),
        ("POST key_sets", json!({"id": id(3), "name": "s"})),
        (
            "POST keys",
            json!({"id": id(4), "name": "k", "kid": "1", "pem": {"public_key": pem("rsa.pub")}}),
        ),
        ("POST vaults", json!({"prefix": "my-env", "name": "env"})),
    ]);
    let taken = |pair: &str| format!("409 UNIQUE violation detected on '{{{pair}}}'");
    world.check(
        "POST acls",
        json!({"group": "a", "consumer": owner}),
        &taken(&format!("consumer={{id=\"{}\"}},group=\"a\"", id(1))),
    );
    world.check(
        "POST acls",
        json!({"id": id(6), "group": "a", "consumer": {"id": id(2)}}),
        "created: put acl 6",
    );
    world.check(
        "POST basicauth_credentials",
        json!({"username": "b", "password": "q", "consumer": {"id": id(2)}}),
        &taken("username=\"b\""),
    );
    let key = |more: Value| {
        let mut key = json!({"kid": "1", "pem": {"public_key": pem("p256.pub")}});
        key.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        key
    };
    world.check("POST keys", key(json!({})), &taken("kid=\"1\",set=null"));
    world.check(
        "POST keys",
        key(json!({"id": id(7), "set": {"name": "s"}})),
        "created: put key 7",
    );
    world.check(
        "POST vaults",
        json!({"prefix": "my-env", "name": "env"}),
        &taken("prefix=\"my-env\""),
    );
    world.check(
        "DELETE key_sets/s",
        Value::Null,
        "deleted: delete key 7, delete key_set 3",
    );
}

#[test]
fn a_file_may_nest_what_hangs_on_certificates_and_consumers() {
    let mut world = World::new();
    let indent = |name: &str| pem(name).replace('\n', "\n    ");
    let file = format!(
        "_format_version: '3.0'
certificates:
- cert: |
    {}
  key: |
    {}
  snis: [a.test, {{name: b.test, tags: [x]}}]
ca_certificates:
- cert: |
    {}
consumer_groups:
- name: gold
  plugins:
  - name: rate-limiting
    config: {{minute: 1}}
- name: silver
  consumers: [{{username: v}}]
consumers:
- username: u
  groups: [{{name: gold}}, silver]
  basicauth_credentials:
  - {{username: b, password: p}}
  acls:
  - group: a
  oauth2_credentials:
  - {{name: o, client_id: i, client_secret: s, hash_secret: true}}
- username: v
vaults:
- {{prefix: my-env, name: env}}
key_sets:
- name: s
  keys:
  - kid: '1'
    pem:
      public_key: |
        {}
",
        indent("p256.crt"),
        indent("p256.key"),
        indent("ca.crt"),
        pem("rsa.pub").replace('\n', "\n        "),
    );
    let told = world.apply_file(&file, false);
    assert!(told.starts_with("+18 ~0 -0 =0: "), "{told}");
    world.now += 1000;
    world.check_prune(&file, "+0 ~0 -0 =18");
    // What is dumped is as it is stored, and says the same.
    let dump = world.dump();
    world.check_prune(&dump, "+0 ~0 -0 =18");
    assert!(!dump.contains("\"password\":\"p\""), "{dump}");
    world.check_apply(
        "_format_version: '3.0'\nconsumers:\n- username: u\n  groups: [nobody]\n",
        "4:12: consumers[0].groups[0].consumer_group: there is no consumer_group 'nobody'",
    );
}

#[test]
fn the_ids_of_entities_in_files_are_kongs() {
    // Python: uuid5(uuid5(UUID("fd02801f-0957-4a15-a55a-c8d9606f30b5"), entity), key)
    let mut world = World::new();
    let file = "_format_version: '3.0'
consumers:
- username: u
  basicauth_credentials: [{username: b, password: p}]
  acls: [{group: a}]
services:
- name: s
  host: h
  plugins: [{name: key-auth}]
upstreams:
- name: up
  targets: [{target: 'x:1'}]
vaults:
- {prefix: my-env, name: env}
";
    world.apply_file(file, false);
    let ids: Vec<String> = world
        .state
        .iter()
        .map(|(key, _)| format!("{} {}", key.kind, key.id))
        .collect();
    assert_eq!(
        ids,
        [
            "acl 392deffb-52bd-56fe-84d7-999d08760603",
            "basicauth_credential 6b373417-278e-5253-9f9e-70ef129d499f",
            "consumer 006a59a7-8eb1-5cc5-9890-db96d542fcca",
            "plugin dc800b0d-0e3f-5465-a384-5e1cc32d4daf",
            "service b268827a-8f7f-551f-8769-e6bceb2f3ec6",
            "target d198e9b0-a48e-55c5-bbb1-3307f1f4af42",
            "upstream 152df2f3-4eb2-505d-ba48-f128b77c4e89",
            "vault 4ab84dc2-c7cb-5ffe-8f0c-d1f3f32d8c46",
        ]
    );
}
