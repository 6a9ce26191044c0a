use super::*;

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
