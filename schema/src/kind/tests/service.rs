use super::*;

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
