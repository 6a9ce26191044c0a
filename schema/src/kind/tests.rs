use super::*;
use crate::check::{Base, complete};
use crate::entity::Body;
use crate::entropy::Entropy;
use serde_json::json;

const NOW: Time = Time(1_700_000_000_123_456);

fn completed(kind: Kind, input: &Value) -> Result<Map<String, Value>, crate::rejection::Rejection> {
    let input = input.as_object().unwrap().clone();
    complete(
        kind.schema(),
        input,
        Base::New,
        NOW,
        &mut Entropy::new([7; 32]),
    )
}

/// `expected` is the whole of an error's fields, or, for a valid input, a part of the body (empty: any).
fn check(kind: Kind, input: Value, expected: Value) {
    match completed(kind, &input) {
        Err(rejection) => assert_eq!(Value::Object(rejection.fields), expected, "{input}"),
        Ok(body) => {
            for (name, expected) in expected.as_object().unwrap() {
                assert_eq!(
                    body.get(name).unwrap_or(&Value::Null),
                    expected,
                    "{name} of {input}"
                );
            }
        }
    }
}

fn reference() -> Value {
    json!({"id": Uuid::from_u128(1)})
}

#[test]
fn names_lead_to_kinds_and_back() {
    for kind in Kind::ALL.iter().copied() {
        assert_eq!(kind.schema().kind, kind);
        assert_eq!(Kind::from_name(kind.name()), Some(kind));
        assert_eq!(Kind::from_entity(kind.schema().entity), Some(kind));
        for unique in kind.schema().unique {
            assert!(
                unique
                    .fields
                    .iter()
                    .all(|name| kind.schema().field(name).is_some())
            );
        }
    }
    let foreign: Vec<_> = Kind::Plugin
        .schema()
        .foreign()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(foreign, ["route", "service", "consumer"]);
}

#[test]
fn every_view_decodes_what_is_completed() {
    fn view<T: for<'a> Deserialize<'a>>(kind: Kind, input: Value) -> T {
        Body::encode(&completed(kind, &input).unwrap())
            .view()
            .unwrap()
    }
    let service: Service = view(
        Kind::Service,
        json!({"url": "https://a.b/c", "retries": null}),
    );
    assert_eq!((service.port, service.retries), (443, 5));
    let route: Route = view(
        Kind::Route,
        json!({"paths": ["/a"], "regex_priority": null, "path_handling": null, "service": reference()}),
    );
    assert_eq!(route.service.unwrap().id, Uuid::from_u128(1));
    let route: Route = view(
        Kind::Route,
        json!({"protocols": ["tls"], "destinations": [{"ip": "10.0.0.0/8"}, {"port": 1}]}),
    );
    assert_eq!(route.destinations.len(), 2);
    let upstream: Upstream = view(Kind::Upstream, json!({"name": "u", "slots": null}));
    assert_eq!(upstream.slots, 10_000);
    let target: Target = view(
        Kind::Target,
        json!({"target": "a", "weight": null, "upstream": reference()}),
    );
    assert_eq!((target.target.as_str(), target.weight), ("a:8000", 100));
    let consumer: Consumer = view(Kind::Consumer, json!({"username": "a"}));
    assert_eq!(consumer.username.as_deref(), Some("a"));
    let plugin: Plugin = view(Kind::Plugin, json!({"name": "key-auth"}));
    assert_eq!(plugin.config["key_names"], json!(["apikey"]));
    let credential: KeyauthCredential = view(
        Kind::KeyauthCredential,
        json!({"consumer": reference(), "ttl": 5}),
    );
    assert_eq!(credential.ttl, Some(5));
}

#[test]
fn a_service_url_stands_for_its_parts() {
    for (url, expected) in [
        (
            "http://a.b:90/c?d",
            json!({"protocol": "http", "host": "a.b", "port": 90, "path": "/c"}),
        ),
        (
            "https://a.b",
            json!({"protocol": "https", "host": "a.b", "port": 443, "path": null}),
        ),
        (
            "tcp://a:5",
            json!({"protocol": "tcp", "host": "a", "port": 5, "path": null}),
        ),
        (
            "http://u:p@[::1]:8/",
            json!({"host": "::1", "port": 8, "path": "/"}),
        ),
        (
            "a.b",
            json!({"host": "required field missing", "path": "should start with: /"}),
        ),
        ("http://a:x", json!({"port": "expected an integer"})),
    ] {
        check(Kind::Service, json!({"url": url}), expected);
    }
    check(
        Kind::Service,
        json!({"url": 1}),
        json!({"url": "expected a string", "host": "required field missing"}),
    );
    check(
        Kind::Service,
        json!({"url": "http://a", "host": "b", "path": "/c"}),
        json!({"host": "a", "path": null}),
    );
}

#[test]
fn services_have_paths_and_tls_only_where_they_mean_something() {
    let failed = "failed conditional validation given value of field 'protocol'";
    check(
        Kind::Service,
        json!({"host": "a", "protocol": "tcp", "path": "/"}),
        json!({"@entity": [failed], "path": "value must be null"}),
    );
    check(
        Kind::Service,
        json!({"host": "a", "tls_verify": false, "tls_verify_depth": 1}),
        json!({
            "@entity": [failed, failed],
            "tls_verify": "value must be null",
            "tls_verify_depth": "value must be null",
        }),
    );
    check(
        Kind::Service,
        json!({"host": "a", "protocol": "tls", "tls_verify": true}),
        json!({}),
    );
    check(
        Kind::Service,
        json!({"host": "a:1"}),
        json!({"host": "must not have a port"}),
    );
}

#[test]
fn a_route_must_match_on_something_its_protocols_can_match_on() {
    let entity = |error: &str| json!({"@entity": [error]});
    for (protocols, error) in [
        (
            json!(["http"]),
            "must set one of 'methods', 'hosts', 'headers', 'paths' when 'protocols' is 'http'",
        ),
        (
            json!(["http", "https"]),
            "must set one of 'methods', 'hosts', 'headers', 'paths', 'snis' when 'protocols' is 'https'",
        ),
        (
            json!(["tcp"]),
            "must set one of 'sources', 'destinations', 'snis' when 'protocols' is 'tcp', 'tls' or 'udp'",
        ),
        (
            json!(["tls_passthrough"]),
            "must set snis when 'protocols' is 'tls_passthrough'",
        ),
        (
            json!(["grpc"]),
            "must set one of 'hosts', 'headers', 'paths' when 'protocols' is 'grpc'",
        ),
        (
            json!(["grpcs"]),
            "must set one of 'hosts', 'headers', 'paths', 'snis' when 'protocols' is 'grpcs'",
        ),
    ] {
        check(Kind::Route, json!({"protocols": protocols}), entity(error));
    }
    check(
        Kind::Route,
        json!({}),
        entity(
            "must set one of 'methods', 'hosts', 'headers', 'paths', 'snis' when 'protocols' is 'https'",
        ),
    );
    check(
        Kind::Route,
        json!({"protocols": ["http"], "paths": ["/"], "snis": ["a.b"]}),
        json!({
            "@entity": ["'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'"],
            "snis": "length must be 0",
        }),
    );
    check(
        Kind::Route,
        json!({"paths": ["/"], "sources": [{"port": 1}]}),
        json!({"sources": "cannot set 'sources' when 'protocols' is 'http' or 'https'"}),
    );
    check(
        Kind::Route,
        json!({"protocols": ["grpc"], "paths": ["/"], "strip_path": true}),
        json!({"strip_path": "cannot set 'strip_path' when 'protocols' is 'grpc' or 'grpcs'"}),
    );
    check(
        Kind::Route,
        json!({"protocols": ["grpc"], "paths": ["/"]}),
        json!({"strip_path": false}),
    );
}

#[test]
fn the_fields_of_a_route_are_checked() {
    for (input, expected) in [
        (
            json!({"protocols": ["ftp"]}),
            json!({"protocols": "unknown type: ftp"}),
        ),
        (
            json!({"protocols": null}),
            json!({"protocols": "required field missing"}),
        ),
        (
            json!({"protocols": [], "paths": ["/"]}),
            json!({"protocols": "length must be at least 1"}),
        ),
        (
            json!({"protocols": ["http", "tcp"], "paths": ["/"]}),
            json!({"protocols": "these sets are mutually exclusive: ('http', 'https'), ('tcp', 'tls', 'udp')"}),
        ),
        (
            json!({"methods": ["get"]}),
            json!({"methods": ["invalid value: get"]}),
        ),
        (
            json!({"paths": ["/a", "/b/../c"]}),
            json!({"paths": [null, "non-normalized path, consider use '/c' instead"]}),
        ),
        (
            json!({"paths": ["~/("]}),
            json!({"paths": ["invalid regex: '/(' (unclosed group)"]}),
        ),
        (
            json!({"headers": {"Host": ["a"]}}),
            json!({"headers": "cannot contain 'host' header, which must be specified in the 'hosts' attribute"}),
        ),
        (
            json!({"headers": {"a": ["~*("]}}),
            json!({"headers": "invalid regex: '(' (unclosed group)"}),
        ),
        (
            json!({"paths": ["/"], "https_redirect_status_code": 303}),
            json!({"https_redirect_status_code": "expected one of: 426, 301, 302, 307, 308"}),
        ),
        (
            json!({"protocols": ["tcp"], "sources": [{"port": 1}, {}]}),
            json!({"sources": [null, {"@entity": ["at least one of these fields must be non-empty: 'ip', 'port'"]}]}),
        ),
        (
            json!({"paths": ["/"], "expression": "x"}),
            json!({"expression": "unknown field"}),
        ),
        (
            json!({"paths": ["/"], "name": "a b"}),
            json!({"name": "invalid value 'a b': the only accepted ascii characters are alphanumerics or ., -, _, and ~"}),
        ),
    ] {
        check(Kind::Route, input, expected);
    }
}

#[test]
fn an_upstreams_hashing_needs_its_companion_fields() {
    let upstream = |more: Value| {
        let mut input = json!({"name": "u"});
        input
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        input
    };
    let failed =
        |field: &str| format!("failed conditional validation given value of field '{field}'");
    for (more, expected) in [
        (
            json!({}),
            json!({"algorithm": "round-robin", "hash_on": "none", "hash_on_cookie_path": "/"}),
        ),
        (
            json!({"hash_on": "header"}),
            json!({"@entity": [failed("hash_on")], "hash_on_header": "required field missing"}),
        ),
        (
            json!({"hash_on": "ip", "hash_fallback": "ip"}),
            json!({
                "@entity": [failed("hash_on")],
                "hash_fallback": "expected one of: none, consumer, header, cookie, path, query_arg, uri_capture",
            }),
        ),
        (
            json!({"hash_fallback": "ip"}),
            json!({"@entity": [failed("hash_on")], "hash_fallback": "expected one of: none"}),
        ),
        (
            json!({"hash_on": "header", "hash_on_header": "a", "hash_fallback": "header", "hash_fallback_header": "a"}),
            json!({"@entity": ["values of these fields must be distinct: 'hash_on_header', 'hash_fallback_header'"]}),
        ),
        (
            json!({"hash_on": "ip"}),
            json!({"algorithm": "consistent-hashing"}),
        ),
        (
            json!({"hash_on": "none", "algorithm": "consistent-hashing"}),
            json!({"algorithm": "round-robin"}),
        ),
        (
            json!({"hash_on": "ip", "algorithm": "latency"}),
            json!({"algorithm": "latency", "hash_on": "none"}),
        ),
        (
            json!({"slots": 9}),
            json!({"slots": "value should be between 10 and 65536"}),
        ),
        (
            json!({"name": "1.2.3.4"}),
            json!({"name": "Invalid name ('1.2.3.4'); no ip addresses allowed"}),
        ),
        (
            json!({"healthchecks": {"active": {"concurrency": 0, "healthy": {"http_statuses": [99]}}, "threshold": 101}}),
            json!({"healthchecks": {
                "active": {
                    "concurrency": "value should be between 1 and 2147483648",
                    "healthy": {"http_statuses": ["value should be between 100 and 999"]},
                },
                "threshold": "value should be between 0 and 100",
            }}),
        ),
    ] {
        check(Kind::Upstream, upstream(more), expected);
    }
}

#[test]
fn healthchecks_are_filled_with_kongs_defaults() {
    let expected = json!({
        "active": {
            "type": "http", "timeout": 1, "concurrency": 10, "http_path": "/",
            "https_verify_certificate": true,
            "healthy": {"interval": 0, "http_statuses": [200, 302], "successes": 0},
            "unhealthy": {
                "interval": 0, "http_statuses": [429, 404, 500, 501, 502, 503, 504, 505],
                "tcp_failures": 0, "timeouts": 0, "http_failures": 0,
            },
        },
        "passive": {
            "type": "http",
            "healthy": {
                "http_statuses": [200, 201, 202, 203, 204, 205, 206, 207, 208, 226,
                                  300, 301, 302, 303, 304, 305, 306, 307, 308],
                "successes": 0,
            },
            "unhealthy": {
                "http_statuses": [429, 500, 503], "tcp_failures": 0, "timeouts": 0, "http_failures": 0,
            },
        },
        "threshold": 0,
    });
    for given in [
        json!({}),
        json!(null),
        json!([]),
        json!({"active": {"healthy": null}}),
    ] {
        check(
            Kind::Upstream,
            json!({"name": "u", "healthchecks": given}),
            json!({"healthchecks": expected}),
        );
    }
}

#[test]
fn targets_are_stored_in_one_form() {
    for (target, expected) in [
        (
            "a",
            json!({"target": "a:8000", "created_at": 1_700_000_000.123, "weight": 100}),
        ),
        (
            "[::1]:80",
            json!({"target": "[0000:0000:0000:0000:0000:0000:0000:0001]:80"}),
        ),
        (
            "a b",
            json!({"target": "Invalid target ('a b'); not a valid hostname or ip address"}),
        ),
    ] {
        check(
            Kind::Target,
            json!({"target": target, "upstream": reference()}),
            expected,
        );
    }
    check(
        Kind::Target,
        json!({"target": "a"}),
        json!({"upstream": "required field missing"}),
    );
}

#[test]
fn a_credentials_time_to_live_counts_from_its_creation() {
    for (ttl, expected) in [
        (json!(10), json!({"ttl": 110, "created_at": 1_699_999_900})),
        (json!(0), json!({"ttl": null})),
        (json!(null), json!({"ttl": null})),
        (json!("x"), json!({"ttl": "expected an integer"})),
        (
            json!(-1),
            json!({"ttl": "value should be between 0 and 100000000"}),
        ),
        (
            json!(1e9),
            json!({"ttl": "value should be between 0 and 100000000"}),
        ),
    ] {
        check(
            Kind::KeyauthCredential,
            json!({"consumer": reference(), "ttl": ttl, "created_at": 1_699_999_900}),
            expected,
        );
    }
}
