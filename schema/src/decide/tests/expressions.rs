//! Routes with expressions.

use super::*;
use crate::kind::RouterFlavor;

const FAILED: &str = "400 schema violation (Router Expression failed validation: ";

fn world() -> World {
    World {
        router_flavor: RouterFlavor::Expressions,
        ..World::new()
    }
}

#[test]
fn without_the_flavor_expressions_are_not_known() {
    World::new().check(
        "POST routes",
        json!({"expression": "net.dst.port == 1", "hosts": ["a.b"]}),
        "400 schema violation (expression: unknown field)",
    );
}

#[test]
fn an_expression_stands_alone_and_has_a_priority() {
    let mut world = world();
    world.check(
        "POST routes",
        json!({"id": id(1), "expression": "http.path ^= \"/a\" && net.src.ip in 10.0.0.0/8"}),
        "created: put route 1",
    );
    assert_eq!(world.fields(Kind::Route, 1)["priority"], 0);
    world.check(
        &format!("PATCH routes/{}", id(1)),
        json!({"priority": 70_368_744_177_663_u64}),
        "updated: put route 1",
    );
    world.check(
        "POST routes",
        json!({"expression": "net.dst.port == 1", "priority": -1}),
        "400 schema violation (priority: value should be between 0 and 70368744177663)",
    );
    for (body, error) in [
        (
            json!({"expression": "net.dst.port == 1", "hosts": ["a.b"]}),
            "cannot set 'expression' with 'methods', 'hosts', 'paths', 'headers', 'snis', 'sources' or 'destinations' simultaneously)",
        ),
        (
            json!({"priority": 1, "hosts": ["a.b"]}),
            "cannot set 'priority' with 'methods', 'hosts', 'paths', 'headers', 'snis', 'sources' or 'destinations' simultaneously)",
        ),
        (
            json!({"expression": "net.dst.port == 1", "regex_priority": 1}),
            "cannot set 'regex_priority' with 'expression' simultaneously)",
        ),
        (
            json!({"protocols": ["tcp"], "expression": "http.path == \"/\""}),
            " --> 1:1\n  |\n1 | http.path == \"/\"\n  | ^---\n  |\n  = Unknown LHS field: http.path)",
        ),
    ] {
        world.check("POST routes", body, &format!("{FAILED}{error}"));
    }
}

#[test]
fn classic_routes_are_as_before() {
    let mut world = world();
    world.check(
        "POST routes",
        json!({"id": id(1), "paths": ["/a"]}),
        "created: put route 1",
    );
    // Addresses are for all routes here.
    world.check(
        "POST routes",
        json!({"id": id(2), "paths": ["/a"], "sources": [{"port": 1}]}),
        "created: put route 2",
    );
    world.check(
        "POST routes",
        json!({}),
        "400 schema violation (must set one of 'methods', 'hosts', 'headers', 'paths', 'snis', 'expression' when 'protocols' is 'https')",
    );
}
