//! The table as a whole: changes in any order, quarantine, plugin chains, garbage.

use super::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use sluice_schema::entity::{Body, Change, Entry, Id};
use sluice_schema::kind::Kind;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn key(kind: Kind, number: u128) -> Key {
    Key {
        kind: kind.key_name(),
        workspace: Workspace::DEFAULT,
        id: Id(id(number)),
    }
}

fn put(kind: Kind, number: u128, fields: &Value) -> Change {
    let body = Body::encode(fields.as_object().unwrap());
    Change {
        key: key(kind, number),
        before: None,
        after: Some(Entry {
            version: Version(1),
            body,
        }),
    }
}

fn delete(kind: Kind, number: u128) -> Change {
    Change {
        key: key(kind, number),
        before: None,
        after: None,
    }
}

fn apply(table: &Table, changes: &[Change]) -> Table {
    let (table, rejected) = table.apply(table.version().next(), changes);
    assert_eq!(rejected, []);
    table
}

fn reference(number: u128) -> Value {
    json!({"id": id(number).to_string()})
}

fn upstream(name: &str) -> Value {
    json!({"name": name, "algorithm": "round-robin", "slots": 10000})
}

fn target(text: &str, upstream: u128) -> Value {
    json!({"target": text, "weight": 100, "upstream": reference(upstream)})
}

fn route(paths: &[&str]) -> Value {
    json!({
        "protocols": ["http"], "paths": paths, "https_redirect_status_code": 426, "regex_priority": 0,
        "strip_path": true, "path_handling": "v0", "preserve_host": false, "request_buffering": true,
        "response_buffering": true,
    })
}

fn plugin<const N: usize>(name: &str, scope: [Option<u128>; N]) -> Value {
    let mut fields =
        json!({"name": name, "protocols": ["http"], "enabled": true, "config": {"minute": 5}});
    let parts = ["route", "service", "consumer", "consumer_group"];
    for (field, number) in parts.into_iter().zip(scope) {
        if let Some(number) = number {
            fields[field] = reference(number);
        }
    }
    fields
}

fn find(table: &Table, path: &str) -> Option<Uuid> {
    let anywhere = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let request = RequestHead {
        method: "GET",
        host: "a.b",
        port: 80,
        path,
        query: None,
        headers: &http::HeaderMap::new(),
        sni: None,
        tls: false,
        source: anywhere,
        destination: anywhere,
    };
    table.find(&request).map(|found| found.route.id)
}

fn addresses(table: &Table, name: &str) -> Vec<String> {
    let upstream = table.upstream(&Workspace::DEFAULT, name).unwrap();
    upstream
        .targets
        .iter()
        .map(|target| format!("{}:{}", target.host, target.port))
        .collect()
}

#[test]
fn targets_find_their_upstream_whichever_comes_first() {
    let early = [
        put(Kind::Target, 1, &target("b:2", 9)),
        put(Kind::Target, 2, &target("a:1", 9)),
    ];
    let table = apply(&Table::empty(), &early);
    assert!(table.upstream(&Workspace::DEFAULT, "up").is_none());
    let table = apply(&table, &[put(Kind::Upstream, 9, &upstream("up"))]);
    assert_eq!(addresses(&table, "up"), ["a:1", "b:2"]);
    let table = apply(&table, &[put(Kind::Upstream, 8, &upstream("other"))]);
    let moved = [
        put(Kind::Target, 1, &target("c:3", 8)),
        delete(Kind::Target, 2),
    ];
    let table = apply(&table, &moved);
    assert_eq!(addresses(&table, "up"), [""; 0]);
    assert_eq!(addresses(&table, "other"), ["c:3"]);
}

#[test]
fn names_may_change_hands_in_one_change_set_in_any_order() {
    let old = [
        put(Kind::Upstream, 1, &upstream("a")),
        put(Kind::Upstream, 2, &upstream("b")),
    ];
    let table = apply(&Table::empty(), &old);
    let mut swap = [
        put(Kind::Upstream, 1, &upstream("b")),
        put(Kind::Upstream, 2, &upstream("a")),
    ];
    for _ in 0..2 {
        swap.reverse();
        let swapped = apply(&table, &swap);
        let named = |name| {
            swapped
                .upstream(&Workspace::DEFAULT, name)
                .map(|upstream| upstream.id)
        };
        assert_eq!((named("a"), named("b")), (Some(id(2)), Some(id(1))));
    }
    let mut replace = [
        delete(Kind::Upstream, 1),
        put(Kind::Upstream, 3, &upstream("a")),
    ];
    for _ in 0..2 {
        replace.reverse();
        let replaced = apply(&table, &replace);
        let found = replaced
            .upstream(&Workspace::DEFAULT, "a")
            .map(|upstream| upstream.id);
        assert_eq!(found, Some(id(3)));
    }
}

#[test]
fn an_entity_that_cannot_be_compiled_keeps_its_last_good_form_and_is_listed_until_it_changes() {
    let table = apply(&Table::empty(), &[put(Kind::Route, 1, &route(&["/a"]))]);
    let bad = [
        put(Kind::Route, 1, &route(&["~/("])),
        put(Kind::Route, 2, &route(&["/b"])),
    ];
    let (table, rejected) = table.apply(Version(2), &bad);
    assert_eq!(
        rejected
            .iter()
            .map(|rejected| rejected.key.clone())
            .collect::<Vec<_>>(),
        [key(Kind::Route, 1)]
    );
    assert_eq!(
        (find(&table, "/a"), find(&table, "/b")),
        (Some(id(1)), Some(id(2)))
    );
    let table = apply(&table, &[put(Kind::Route, 3, &route(&["/c"]))]);
    assert_eq!(table.rejected().count(), 1);
    let mended = apply(&table, &[put(Kind::Route, 1, &route(&["/d"]))]);
    assert_eq!(mended.rejected().count(), 0);
    assert_eq!(
        (find(&mended, "/a"), find(&mended, "/d")),
        (None, Some(id(1)))
    );
    let deleted = apply(&table, &[delete(Kind::Route, 1)]);
    assert_eq!(deleted.rejected().count(), 0);
    assert_eq!(find(&deleted, "/a"), None);
}

#[test]
fn plugins_this_build_does_not_know_are_listed() {
    let change = put(Kind::Plugin, 1, &plugin("soap-auth", [None; 3]));
    let (table, rejected) = Table::empty().apply(Version(1), &[change]);
    assert_eq!(
        rejected[0].reason,
        "this data plane does not run plugin `soap-auth`"
    );
    assert!(table.scoped(None, None, None).is_empty());
}

#[test]
fn a_plugin_of_a_consumer_group_runs_for_nobody_else() {
    let mut grouped = plugin("rate-limiting", [None; 3]);
    grouped["consumer_group"] = reference(9);
    let table = apply(&Table::empty(), &[put(Kind::Plugin, 1, &grouped)]);
    assert!(table.scoped(None, None, None).is_empty());
    assert!(table.scoped(None, None, Some(id(20))).is_empty());
    let membership = json!({ "consumer_group": reference(9), "consumer": reference(20) });
    let group = [
        put(Kind::ConsumerGroupConsumer, 3, &membership),
        put(Kind::ConsumerGroup, 9, &json!({ "name": "g" })),
    ];
    let table = apply(&table, &group);
    assert_eq!(table.scoped(None, None, Some(id(20))).len(), 1);
    assert!(table.scoped(None, None, Some(id(21))).is_empty());
}

#[test]
fn kinds_that_no_request_needs_change_nothing() {
    let table = apply(&Table::empty(), &[put(Kind::Route, 1, &route(&["/a"]))]);
    let unused = [Kind::FilterChain, Kind::KeySet, Kind::Key];
    // Whatever is in them.
    let changes = unused.map(|kind| put(kind, 1, &json!({"x": 1})));
    let table = apply(&table, &changes);
    assert_eq!(find(&table, "/a"), Some(id(1)));
    let table = apply(&table, &unused.map(|kind| delete(kind, 1)));
    assert_eq!(find(&table, "/a"), Some(id(1)));
}

#[test]
fn reasons_never_quote_what_may_be_secret() {
    let credential =
        json!({"consumer": reference(1), "key": "canary", "ttl": "canary", "created_at": 1});
    let mut limited = plugin("rate-limiting", [None; 3]);
    limited["config"] = json!({"minute": "canary"});
    let changes = [
        put(Kind::KeyauthCredential, 1, &credential),
        put(Kind::Plugin, 2, &limited),
    ];
    let (table, rejected) = Table::empty().apply(Version(1), &changes);
    assert_eq!(rejected.len(), 2);
    assert!(!format!("{:?}", table.rejected().collect::<Vec<_>>()).contains("canary"));
}

#[test]
fn a_key_belongs_to_the_credential_that_has_it_now() {
    let credential = |key: &str| json!({"consumer": reference(7), "key": key, "created_at": 1});
    let table = apply(
        &Table::empty(),
        &[put(Kind::KeyauthCredential, 1, &credential("one"))],
    );
    let owner = |table: &Table, workspace: &Workspace, key: &str| {
        table
            .key_credential(workspace, key)
            .map(|credential| credential.id)
    };
    assert_eq!(owner(&table, &Workspace::DEFAULT, "one"), Some(id(1)));
    assert_eq!(owner(&table, &Workspace::DEFAULT, "two"), None);
    assert_eq!(
        owner(&table, &Workspace::parse("other").unwrap(), "one"),
        None
    );
    let mut moved = [
        put(Kind::KeyauthCredential, 2, &credential("one")),
        put(Kind::KeyauthCredential, 1, &credential("two")),
    ];
    for _ in 0..2 {
        moved.reverse();
        let table = apply(&table, &moved);
        assert_eq!(owner(&table, &Workspace::DEFAULT, "one"), Some(id(2)));
        assert_eq!(owner(&table, &Workspace::DEFAULT, "two"), Some(id(1)));
    }
    let table = apply(&table, &[delete(Kind::KeyauthCredential, 1)]);
    assert_eq!(owner(&table, &Workspace::DEFAULT, "one"), None);
}

#[test]
fn every_kind_of_credential_is_found_by_what_clients_show() {
    let consumer = reference(7);
    let kinds = [
        (
            Kind::KeyauthCredential,
            json!({"consumer": consumer, "key": "a", "created_at": 1}),
        ),
        (
            Kind::BasicauthCredential,
            json!({"consumer": consumer, "username": "a", "password": "p"}),
        ),
        (
            Kind::JwtSecret,
            json!({"consumer": consumer, "key": "a", "secret": "s"}),
        ),
        (
            Kind::HmacauthCredential,
            json!({"consumer": consumer, "username": "a", "secret": "s"}),
        ),
        (
            Kind::Oauth2Credential,
            json!({
                "consumer": consumer, "name": "n", "client_id": "a", "client_secret": "s", "hash_secret": false,
                "client_type": "public",
            }),
        ),
        (
            Kind::Oauth2Token,
            json!({"credential": consumer, "access_token": "a", "expires_in": 5, "created_at": 1}),
        ),
    ];
    let changes: Vec<_> = (1..)
        .zip(&kinds)
        .map(|(number, (kind, fields))| put(*kind, number, fields))
        .collect();
    let table = apply(&Table::empty(), &changes);
    let found = |table: &Table, shown: &str| {
        let workspace = &Workspace::DEFAULT;
        [
            table.key_credential(workspace, shown).map(|found| found.id),
            table
                .basic_credential(workspace, shown)
                .map(|found| found.id),
            table.jwt_credential(workspace, shown).map(|found| found.id),
            table
                .hmac_credential(workspace, shown)
                .map(|found| found.id),
            table
                .oauth2_application(workspace, shown)
                .map(|found| found.id),
            table.oauth2_token(workspace, shown).map(|found| found.id),
        ]
    };
    assert_eq!(
        found(&table, "a"),
        [1, 2, 3, 4, 5, 6].map(|number| Some(id(number)))
    );
    assert_eq!(found(&table, "b"), [None; 6]);
    assert_eq!(table.oauth2_application_by_id(id(5)).unwrap().name, "n");
    let gone: Vec<_> = (1..)
        .zip(&kinds)
        .map(|(number, (kind, _))| delete(*kind, number))
        .collect();
    let table = apply(&table, &gone);
    assert_eq!(found(&table, "a"), [None; 6]);
}

#[test]
fn access_lists_name_the_groups_of_a_consumer() {
    let acl = |group: &str| json!({"consumer": reference(7), "group": group});
    let table = apply(
        &Table::empty(),
        &[put(Kind::Acl, 1, &acl("a")), put(Kind::Acl, 2, &acl("b"))],
    );
    let groups = |table: &Table| {
        let mut groups: Vec<_> = table
            .acl_groups(id(7))
            .iter()
            .map(|group| group.to_string())
            .collect();
        groups.sort_unstable();
        groups
    };
    assert_eq!(groups(&table), ["a", "b"]);
    let table = apply(
        &table,
        &[put(Kind::Acl, 1, &acl("c")), delete(Kind::Acl, 2)],
    );
    assert_eq!(groups(&table), ["c"]);
}

#[test]
fn consumers_are_found_by_id_or_name_in_their_workspace() {
    let table = apply(
        &Table::empty(),
        &[put(Kind::Consumer, 1, &json!({"username": "ann"}))],
    );
    let found = |workspace: &str, name: &str| {
        table
            .consumer_named(&Workspace::parse(workspace).unwrap(), name)
            .map(|consumer| consumer.id)
    };
    assert_eq!(found("default", "ann"), Some(id(1)));
    assert_eq!(found("default", &id(1).to_string()), Some(id(1)));
    assert_eq!(found("other", "ann"), None);
    assert_eq!(found("other", &id(1).to_string()), None);
}

#[test]
fn global_plugins_stay_in_their_workspace() {
    let mut foreign = put(Kind::Plugin, 5, &plugin("rate-limiting", [None; 3]));
    foreign.key.workspace = Workspace::parse("other").unwrap();
    let table = apply(
        &Table::empty(),
        &[foreign, put(Kind::Route, 1, &route(&["/"]))],
    );
    assert!(table.scoped(Some(id(1)), None, None).is_empty());
    let own = put(Kind::Plugin, 6, &plugin("rate-limiting", [None; 3]));
    let table = apply(&table, &[own]);
    assert_eq!(
        table
            .scoped(Some(id(1)), None, None)
            .iter()
            .map(|plugin| plugin.id)
            .collect::<Vec<_>>(),
        [id(6)]
    );
}

#[test]
fn disabled_plugins_do_not_run() {
    let mut fields = plugin("key-auth", [Some(1), None, None]);
    let table = apply(&Table::empty(), &[put(Kind::Plugin, 5, &fields)]);
    assert_eq!(table.scoped(Some(id(1)), None, None).len(), 1);
    fields["enabled"] = json!(false);
    let table = apply(&table, &[put(Kind::Plugin, 5, &fields)]);
    assert_eq!(table.scoped(Some(id(1)), None, None).len(), 0);
}

/// Kong's order of scopes: which of route, service, consumer, consumer group an instance names; the first that fits wins.
const SPECIFIC: [[bool; 4]; 12] = [
    [true, true, true, false],
    [true, true, false, true],
    [true, false, true, false],
    [false, true, true, false],
    [true, false, false, true],
    [false, true, false, true],
    [true, true, false, false],
    [false, false, true, false],
    [false, false, false, true],
    [true, false, false, false],
    [false, true, false, false],
    [false, false, false, false],
];

type Instance = (&'static str, [Option<u128>; 4]);

fn naive_chain(plugins: &[Instance], request: [Option<u128>; 4]) -> Vec<Uuid> {
    let mut chain = Vec::new();
    for name in ["key-auth", "rate-limiting"] {
        let best = SPECIFIC.iter().find_map(|parts| {
            let wanted = [0, 1, 2, 3].map(|part| request[part].filter(|_| parts[part]));
            let whole = (0..4).all(|part| wanted[part].is_some() == parts[part]);
            let found = plugins
                .iter()
                .position(|(other, scope)| *other == name && *scope == wanted);
            found.filter(|_| whole)
        });
        chain.extend(best.map(|index| id(100 + index as u128)));
    }
    chain
}

fn body() -> impl Strategy<Value = Body> {
    let valid = select(vec![
        upstream("u"),
        target("a:1", 1),
        route(&["/a", "~/b"]),
        plugin("key-auth", [None; 3]),
        json!({"username": "u"}),
        json!({"consumer": reference(1), "key": "k", "created_at": 1}),
        json!({"name": "rate-limiting", "protocols": [], "enabled": true, "config": {"minute": [[]]}}),
        json!({"name": 7, "host": {}, "protocol": []}),
    ]);
    let damaged = (valid.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(
        |(fields, index, byte)| {
            let mut bytes = Body::encode(fields.as_object().unwrap())
                .as_bytes()
                .to_vec();
            let at = index.index(bytes.len());
            bytes[at] = byte;
            Body::from_bytes(&bytes)
        },
    );
    prop_oneof![
        valid.prop_map(|fields| Body::encode(fields.as_object().unwrap())),
        damaged,
        vec(any::<u8>(), 0..64).prop_map(|bytes| Body::from_bytes(&bytes)),
    ]
}

proptest! {
    #[test]
    fn no_body_of_any_kind_can_panic_and_the_table_stays_usable(
        edits in vec((select(Kind::ALL), 0u128..3, option::weighted(0.8, body())), 0..24),
    ) {
        let mut table = Table::empty();
        for (kind, number, body) in edits {
            let after = body.map(|body| Entry { version: Version(1), body });
            let change = Change { key: key(kind, number), before: None, after };
            table = table.apply(table.version().next(), &[change]).0;
            find(&table, "/a");
        }
        let all: Vec<_> = Kind::ALL.iter().flat_map(|kind| (0..3).map(|number| delete(*kind, number))).collect();
        let (table, rejected) = table.apply(table.version().next(), &all);
        prop_assert!(rejected.is_empty() && table.rejected().next().is_none());
        prop_assert!(table.routes.is_empty() && table.targets.is_empty() && table.target_upstreams.is_empty());
        prop_assert!(table.groups.is_empty() && table.credentials.is_empty() && table.acls.is_empty() && table.upstreams.is_empty() && table.consumers.is_empty());
        prop_assert_eq!(find(&table, "/a"), None);
    }

    #[test]
    fn chains_hold_the_most_specific_instance_of_each_plugin(
        plugins in vec((select(vec!["key-auth", "rate-limiting"]), 0usize..12), 0..10),
        others in vec((select(vec!["key-auth", "rate-limiting"]), [option::of(11u128..13), option::of(21..23), option::of(31..33), option::of(41..43)]), 0..6),
        with_service in any::<bool>(),
        with_consumer in any::<bool>(),
        with_group in any::<bool>(),
    ) {
        let scope = |parts: [bool; 4]| [11, 21, 31, 41].map(Some).into_iter().zip(parts).map(|(id, part)| id.filter(|_| part)).collect::<Vec<_>>().try_into().unwrap();
        let mut instances: Vec<Instance> = plugins.into_iter().map(|(name, parts)| (name, scope(SPECIFIC[parts]))).collect();
        instances.extend(others);
        instances.sort_unstable();
        instances.dedup();
        let mut changes: Vec<_> = instances.iter().enumerate().map(|(index, (name, scope))| put(Kind::Plugin, 100 + index as u128, &plugin(name, *scope))).collect();
        changes.push(put(Kind::Route, 11, &route(&["/"])));
        changes.push(put(Kind::ConsumerGroup, 41, &json!({ "name": "g" })));
        if with_group {
            let membership = json!({ "consumer_group": reference(41), "consumer": reference(31) });
            changes.push(put(Kind::ConsumerGroupConsumer, 1, &membership));
        }
        let table = apply(&Table::empty(), &changes);
        let with_group = with_consumer && with_group;
        let request = [Some(11), with_service.then_some(21), with_consumer.then_some(31), with_group.then_some(41)];
        let chain = table.scoped(request[0].map(id), request[1].map(id), request[2].map(id));
        prop_assert_eq!(chain.iter().map(|plugin| plugin.id).collect::<Vec<_>>(), naive_chain(&instances, request));
    }
}
