use super::*;

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
