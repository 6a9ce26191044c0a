use super::*;

#[test]
fn bot_detection_has_kongs_defaults() {
    defaults("bot-detection", json!({}), json!({"allow": [], "deny": []}));
}

#[test]
fn cors_has_kongs_defaults() {
    defaults(
        "cors",
        json!({}),
        json!({
            "methods": [
                "GET",
                "HEAD",
                "PUT",
                "PATCH",
                "POST",
                "DELETE",
                "OPTIONS",
                "TRACE",
                "CONNECT",
            ],
            "credentials": false, "private_network": false, "preflight_continue": false,
            "allow_origin_absent": true,
        }),
    );
}

#[test]
fn ip_restriction_has_kongs_defaults() {
    defaults(
        "ip-restriction",
        json!({"deny": ["10.0.0.0/8"]}),
        json!({"deny": ["10.0.0.0/8"]}),
    );
}

#[test]
fn request_size_limiting_has_kongs_defaults() {
    defaults(
        "request-size-limiting",
        json!({}),
        json!({
            "allowed_payload_size": 128, "size_unit": "megabytes",
            "require_content_length": false,
        }),
    );
}

#[test]
fn request_termination_has_kongs_defaults() {
    defaults(
        "request-termination",
        json!({}),
        json!({"status_code": 503, "echo": false}),
    );
}

#[test]
fn redirect_has_kongs_defaults() {
    defaults(
        "redirect",
        json!({"location": "https://a.example"}),
        json!({
            "status_code": 301, "location": "https://a.example", "keep_incoming_path": false,
        }),
    );
}

#[test]
fn proxy_cache_has_kongs_defaults() {
    defaults(
        "proxy-cache",
        json!({"strategy": "memory"}),
        json!({
            "response_code": [200, 301, 404], "request_method": ["GET", "HEAD"],
            "content_type": ["text/plain", "application/json"], "cache_ttl": 300,
            "strategy": "memory", "cache_control": false, "ignore_uri_case": false,
            "memory": {"dictionary_name": "kong_db_cache"},
            "response_headers": {"age": true, "X-Cache-Status": true, "X-Cache-Key": true},
        }),
    );
}

#[test]
fn bot_detection_and_cors_take_regular_expressions() {
    refused(
        "bot-detection",
        &[(
            json!({"allow": ["^curl", "(https?:/.*"], "deny": [""]}),
            json!({
                "allow": [null, "not a valid regex: (https?:/.*"],
                "deny": ["length must be at least 1"],
            }),
        )],
    );
    refused(
        "cors",
        &[(
            json!({"origins": ["*", "[a"], "methods": ["get"]}),
            json!({
                "origins": [null, "'[a' is not a valid regex"],
                "methods": [one_of("GET, HEAD, PUT, PATCH, POST, DELETE, OPTIONS, TRACE, CONNECT")],
            }),
        )],
    );
}

#[test]
fn ip_restriction_has_addresses() {
    let lists = "'config.allow', 'config.deny'";
    refused(
        "ip-restriction",
        &[
            (
                json!({}),
                json!({"@entity": [
                    format!("at least one of these fields must be non-empty: {lists}"),
                ]}),
            ),
            (
                json!({"allow": ["::1", "10.0.0.0/33"]}),
                json!({"allow": [null, "invalid ip or cidr range: '10.0.0.0/33'"]}),
            ),
        ],
    );
}

#[test]
fn request_size_limiting_knows_three_units() {
    refused(
        "request-size-limiting",
        &[(
            json!({"size_unit": "gigabytes", "allowed_payload_size": 1.5}),
            json!({
                "size_unit": one_of("megabytes, kilobytes, bytes"),
                "allowed_payload_size": "expected an integer",
            }),
        )],
    );
}

#[test]
fn request_termination_says_one_answer() {
    refused(
        "request-termination",
        &[
            (
                json!({"message": "m", "body": "b"}),
                json!("message cannot be used with content_type or body"),
            ),
            (
                json!({"content_type": "text/plain"}),
                json!("content_type requires a body"),
            ),
            (
                json!({"echo": true, "body": "b"}),
                json!("echo cannot be used with content_type and body"),
            ),
            (
                json!({"status_code": 99, "trigger": "a b", "message": "m", "body": "b"}),
                json!({
                    "status_code": "value should be between 100 and 599",
                    "trigger": "bad header name 'a b', allowed characters are A-Z, a-z, 0-9, '_', and '-'",
                }),
            ),
        ],
    );
}

#[test]
fn redirect_goes_to_a_url() {
    refused(
        "redirect",
        &[
            (json!({}), json!({"location": "required field missing"})),
            (
                json!({"location": "/a"}),
                json!({"location": "missing host in url"}),
            ),
            (
                json!({"location": "//a"}),
                json!({"location": "missing scheme in url"}),
            ),
            (
                json!({"location": "http://a", "status_code": 600}),
                json!({"status_code": "value should be between 100 and 599"}),
            ),
        ],
    );
}

#[test]
fn proxy_cache_keeps_in_memory() {
    refused(
        "proxy-cache",
        &[
            (json!({}), json!({"strategy": "required field missing"})),
            (
                json!({
                    "strategy": "redis", "response_code": [200, 99], "request_method": ["PUT", "LOCK"],
                    "cache_ttl": 0, "memory": {"dictionary_name": null},
                }),
                json!({
                    "strategy": one_of("memory"),
                    "response_code": [null, "value should be between 100 and 900"],
                    "request_method": [null, one_of("HEAD, GET, POST, PATCH, PUT")],
                    "cache_ttl": "value must be greater than 0",
                    "memory": {"dictionary_name": "required field missing"},
                }),
            ),
            (
                json!({"strategy": "memory", "response_code": []}),
                json!({"response_code": "length must be at least 1"}),
            ),
        ],
    );
}
