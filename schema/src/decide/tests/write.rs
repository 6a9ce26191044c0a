//! Single writes.

use super::*;

const NO_MATCH: &str = "412 the entity is not at the version in If-Match";
const NOTHING: &str = "412 there is no entity for If-Match to match";

fn not_found(field: &str, value: &str) -> String {
    format!("404 could not find the entity with '{{{field}=\"{value}\"}}'")
}

fn not_found_id(number: u128) -> String {
    format!(
        "404 could not find the entity with primary key '{{id=\"{}\"}}'",
        id(number)
    )
}

#[test]
fn an_entity_is_created_with_the_id_given_or_a_new_one() {
    let mut world = World::new();
    world.check(
        "POST services",
        json!({"id": id(1), "name": "a", "host": "h"}),
        "created: put service 1",
    );
    world.check(
        "POST services",
        json!({"host": "h"}),
        "created: put service",
    );
    let taken = format!("400 primary key violation on key '{{id=\"{}\"}}'", id(1));
    world.check("POST services", json!({"id": id(1), "host": "h"}), &taken);
    world.check(
        "POST services",
        json!({"id": "x", "host": "h"}),
        "400 schema violation (id: expected a valid UUID)",
    );
    world.check(
        "POST services",
        json!({"id": 7, "host": "h"}),
        "400 schema violation (id: expected a string)",
    );
    world.check(
        "POST services",
        json!({}),
        "400 schema violation (host: required field missing)",
    );
    assert_eq!(world.fields(Kind::Service, 1)["created_at"], START + 1);
}

#[test]
fn a_put_inserts_or_replaces_and_keeps_when_it_was_created() {
    let mut world = World::new();
    world.check(
        "PUT services/a",
        json!({"host": "h", "retries": 7}),
        "created: put service",
    );
    let request = format!("PUT services/{}", id(1));
    world.check(
        &request,
        json!({"name": "b", "host": "h", "retries": 7}),
        "created: put service 1",
    );
    let created = world.fields(Kind::Service, 1)["created_at"].clone();
    world.check(
        "PUT services/b",
        json!({"name": "c", "host": "i"}),
        "updated: put service 1",
    );
    let fields = world.fields(Kind::Service, 1);
    assert_eq!(
        (&fields["host"], &fields["retries"], &fields["name"]),
        (&json!("i"), &json!(5), &json!("c"))
    );
    assert_eq!(fields["created_at"], created);
    assert_ne!(fields["updated_at"], created);
}

#[test]
fn a_patch_changes_what_it_names() {
    let mut world = gateway();
    world.check(
        "PATCH services/a",
        json!({"retries": 9}),
        "updated: put service 1",
    );
    world.check(
        &format!("PATCH services/{}", id(1)),
        json!({"port": 81}),
        "updated: put service 1",
    );
    let fields = world.fields(Kind::Service, 1);
    assert_eq!(
        (&fields["retries"], &fields["port"], &fields["host"]),
        (&json!(9), &json!(81), &json!("a.internal"))
    );
    world.check("PATCH services/b", json!({}), &not_found("name", "b"));
    world.check(
        &format!("PATCH services/{}", id(9)),
        json!({}),
        &not_found_id(9),
    );
    let moved = "400 schema violation (id: immutable field cannot be updated)";
    world.check("PATCH services/a", json!({"id": id(2)}), moved);
    world.check(
        "PATCH services/a",
        json!({"id": id(1)}),
        "updated: put service 1",
    );
}

#[test]
fn a_write_that_changes_nothing_is_no_event() {
    let mut world = gateway();
    world.check(
        "PATCH services/a",
        json!({"retries": 9}),
        "updated: put service 1",
    );
    world.now -= 1;
    let version = world.state.version();
    world.check("PATCH services/a", json!({"retries": 9}), "updated");
    world.check("DELETE services/nobody", Value::Null, "deleted");
    assert_eq!(world.state.version(), version);
}

#[test]
fn a_name_stands_for_the_id_in_references() {
    let mut world = gateway();
    let route = |service: Value| json!({"id": id(20), "paths": ["/x"], "service": service});
    world.check(
        "POST routes",
        route(json!({"name": "a"})),
        "created: put route 20",
    );
    assert_eq!(
        world.fields(Kind::Route, 20)["service"],
        json!({"id": id(1)})
    );
    world.check(
        "PATCH routes/r",
        json!({"service": {"name": "b"}}),
        "400 foreign key unresolved (service.name: b)",
    );
    let missing = format!(
        "400 the foreign key '{{id=\"{}\"}}' does not reference an existing 'services' entity.",
        id(9)
    );
    world.check(
        "PATCH routes/r",
        json!({"service": {"id": id(9)}}),
        &missing,
    );
    world.check(
        "PATCH routes/r",
        json!({"service": {"id": id(9), "name": "a"}}),
        &missing,
    );
    world.check(
        "PATCH routes/r",
        json!({"service": null}),
        "updated: put route 2",
    );
    assert!(!world.fields(Kind::Route, 2).contains_key("service"));
}

#[test]
fn a_nested_path_names_the_parent() {
    let mut world = gateway();
    let route = |number| json!({"id": id(number), "paths": ["/x"], "service": {"id": id(99)}});
    world.check("POST services/a/routes", route(20), "created: put route 20");
    assert_eq!(
        world.fields(Kind::Route, 20)["service"],
        json!({"id": id(1)})
    );
    world.check("POST services/b/routes", route(21), &not_found("name", "b"));
    world.check(
        "PATCH services/a/routes/r",
        json!({"tags": ["t"]}),
        "updated: put route 2",
    );
    world.check(
        "POST services",
        json!({"id": id(30), "name": "b", "host": "h"}),
        "created: put service 30",
    );
    // It is there, but not below that parent.
    world.check(
        "PATCH services/b/routes/r",
        json!({}),
        &not_found("name", "r"),
    );
    world.check(
        "DELETE services/b/routes/r",
        Value::Null,
        &not_found("name", "r"),
    );
    world.check(
        &format!("PUT services/b/routes/{}", id(2)),
        json!({"paths": ["/x"]}),
        &not_found_id(2),
    );
    world.check(
        "PUT services/b/routes/r",
        json!({"paths": ["/x"]}),
        "409 UNIQUE violation detected on '{name=\"r\"}'",
    );
    world.check(
        "PUT services/b/routes/s",
        json!({"paths": ["/x"]}),
        "created: put route",
    );
    world.check(
        "DELETE services/a/routes/r",
        Value::Null,
        "deleted: delete plugin 5, delete plugin 6, delete route 2",
    );
}

#[test]
fn if_match_is_the_version_that_last_wrote_the_entity() {
    let mut world = gateway();
    // Genesis is 1, the service 2.
    world.check_if(3, "PATCH services/a", json!({"retries": 1}), NO_MATCH);
    world.check_if(
        2,
        "PATCH services/a",
        json!({"retries": 1}),
        "updated: put service 1",
    );
    world.check_if(2, "PATCH services/a", json!({"retries": 2}), NO_MATCH);
    world.check_if(2, "PUT services/a", json!({"host": "h"}), NO_MATCH);
    world.check_if(
        9,
        "PUT services/a",
        json!({"host": "h", "name": "a"}),
        "updated: put service 1",
    );
    world.check_if(9, "DELETE routes/r", Value::Null, NO_MATCH);
    // What is not there has no version.
    world.check_if(1, "POST services", json!({"host": "h"}), NOTHING);
    world.check_if(1, "PUT services/new", json!({"host": "h"}), NOTHING);
    world.check_if(1, "DELETE services/new", Value::Null, NOTHING);
    world.check_if(
        3,
        "DELETE routes/r",
        Value::Null,
        "deleted: delete plugin 5, delete plugin 6, delete route 2",
    );
}

#[test]
fn a_delete_takes_what_cascades_and_is_refused_by_what_does_not() {
    let mut world = gateway();
    let refused = "400 an existing 'routes' entity references this 'services' entity";
    world.check("DELETE services/a", Value::Null, refused);
    world.check(
        "DELETE consumers/u",
        Value::Null,
        "deleted: delete consumer 3, delete keyauth_credential 7, delete plugin 6",
    );
    world.check(
        "DELETE routes/r",
        Value::Null,
        "deleted: delete plugin 5, delete route 2",
    );
    world.check(
        "DELETE services/a",
        Value::Null,
        "deleted: delete plugin 4, delete service 1",
    );
    assert!(world.state.is_empty());
    let mut world = World::with(&[
        ("POST upstreams", json!({"id": id(1), "name": "up"})),
        (
            "POST upstreams/up/targets",
            json!({"id": id(2), "target": "x:80"}),
        ),
        (
            "POST upstreams/up/targets",
            json!({"id": id(3), "target": "y:80"}),
        ),
    ]);
    world.check(
        "DELETE upstreams/up",
        Value::Null,
        "deleted: delete target 2, delete target 3, delete upstream 1",
    );
}

#[test]
fn unique_values_are_unique_in_their_workspace() {
    let mut world = gateway();
    let taken = "409 UNIQUE violation detected on '{name=\"a\"}'";
    world.check("POST services", json!({"name": "a", "host": "h"}), taken);
    world.check(
        "POST services",
        json!({"id": id(30), "name": "b", "host": "h"}),
        "created: put service 30",
    );
    world.check("PATCH services/b", json!({"name": "a"}), taken);
    world.check(
        "PATCH services/a",
        json!({"name": "a"}),
        "updated: put service 1",
    );
    world.check(
        "POST consumers",
        json!({"username": "w", "custom_id": "u-1"}),
        "409 UNIQUE violation detected on '{custom_id=\"u-1\"}'",
    );
    world.check(
        "POST keyauth_credentials",
        json!({"key": "k", "consumer": {"id": id(3)}}),
        "409 UNIQUE violation detected on '{key=\"k\"}'",
    );
    // A freed name can be taken, and only by one.
    world.check(
        "PATCH services/a",
        json!({"name": "c"}),
        "updated: put service 1",
    );
    world.check(
        "PATCH services/b",
        json!({"name": "a"}),
        "updated: put service 30",
    );
    world.check("PATCH services/c", json!({"name": "a"}), taken);
    let scope = json!({"name": "key-auth", "service": {"id": id(1)}});
    let refused = world.request("POST plugins", scope, None);
    assert!(
        refused.starts_with(
            "409 UNIQUE violation detected on '{consumer=null,consumer_group=null,name=\"key-auth\""
        ),
        "{refused}"
    );
    // Elsewhere nobody holds it.
    world.check(
        "POST workspaces",
        json!({"name": "team"}),
        "created: put workspace",
    );
    let write = Write {
        kind: Kind::Service,
        workspace: Workspace::parse("team").unwrap(),
        scope: None,
        action: Action::Create,
        body: json!({"name": "a", "host": "h"})
            .as_object()
            .unwrap()
            .clone(),
        precondition: Precondition::default(),
    };
    assert_eq!(
        told(world.decide(Command::Write(Box::new(write)))),
        "created: put service"
    );
}

#[test]
fn a_put_of_a_target_is_a_patch() {
    let mut world = World::with(&[
        ("POST upstreams", json!({"id": id(1), "name": "up"})),
        (
            "POST upstreams/up/targets",
            json!({"id": id(2), "target": "x", "weight": 7, "tags": ["t"]}),
        ),
    ]);
    assert_eq!(world.fields(Kind::Target, 2)["target"], "x:8000");
    world.check(
        "PUT upstreams/up/targets/x:8000",
        json!({"weight": 3}),
        "updated: put target 2",
    );
    let fields = world.fields(Kind::Target, 2);
    assert_eq!(
        (&fields["weight"], &fields["tags"]),
        (&json!(3), &json!(["t"]))
    );
    world.check(
        "PUT upstreams/up/targets/y:80",
        json!({"weight": 3}),
        &not_found("target", "y:80"),
    );
    world.check(
        "POST upstreams/up/targets",
        json!({"target": "x:8000"}),
        &format!(
            "409 UNIQUE violation detected on '{{target=\"x:8000\",upstream={{id=\"{}\"}}}}'",
            id(1)
        ),
    );
}

#[test]
fn a_plugin_shares_a_protocol_with_its_route_or_service() {
    let mut world = gateway();
    let https = json!({"id": id(20), "name": "s", "paths": ["/s"], "protocols": ["https"], "service": {"id": id(1)}});
    world.check("POST routes", https, "created: put route 20");
    let plugin = |parent: &str, name: &str, protocol: &str| json!({"id": id(40), "name": "rate-limiting", "config": {"minute": 1, "policy": "local"}, parent: {"name": name}, "protocols": [protocol]});
    let route = "400 schema violation (protocols: must match the associated route's protocols)";
    let service = "400 schema violation (protocols: must match the protocols of at least one route pointing to this Plugin's service)";
    world.check("POST plugins", plugin("route", "s", "http"), route);
    world.check("POST plugins", plugin("service", "a", "grpc"), service);
    world.check(
        "POST plugins",
        plugin("service", "a", "https"),
        "created: put plugin 40",
    );
    world.check(
        &format!("PATCH plugins/{}", id(40)),
        json!({"protocols": ["grpc"]}),
        service,
    );
    world.check(
        "POST services",
        json!({"name": "no-routes", "host": "h"}),
        "created: put service",
    );
    let connections = "400 schema violation (protocols: Sluice runs plugins on requests only, not on the connections of routes with tcp, tls, tls_passthrough or udp)";
    let tls = json!({"id": id(21), "name": "t", "snis": ["t"], "protocols": ["tls"]});
    world.check("POST routes", tls, "created: put route 21");
    let log = |parent: Value, protocols: &[&str]| json!({"id": id(42), "name": "syslog", "route": parent, "protocols": protocols});
    let route = json!({"name": "t"});
    world.check("POST plugins", log(route, &["https", "tls"]), connections);
    world.check(
        "POST plugins",
        log(Value::Null, &["tls", "udp"]),
        connections,
    );
    let some = log(Value::Null, &["https", "tls"]);
    world.check("POST plugins", some, "created: put plugin 42");
    let mut other = plugin("service", "no-routes", "grpc");
    other["id"] = id(41).into();
    world.check("POST plugins", other, "created: put plugin 41");
}
