use super::*;

fn rate_limiting(config: Value, expected: Value) {
    check(json!({"name": "rate-limiting", "config": config}), expected);
}

#[test]
fn rate_limiting_needs_limits_that_ascend() {
    let periods = "'config.second', 'config.minute', 'config.hour', 'config.day', 'config.month', 'config.year'";
    rate_limiting(
        json!({}),
        json!({"@entity": [format!("at least one of these fields must be non-empty: {periods}")]}),
    );
    rate_limiting(
        json!({"second": 10, "minute": 5}),
        json!({"config": "The limit for minute(5.0) cannot be lower than the limit for second(10.0)"}),
    );
    rate_limiting(
        json!({"second": 0, "hour": "x"}),
        json!({"config": {"second": "value must be greater than 0", "hour": "expected a number"}}),
    );
    rate_limiting(
        json!({"minute": 5.0}),
        json!({"minute": 5, "policy": "local", "limit_by": "consumer", "error_code": 429, "sync_rate": -1,
               "redis": {"port": 6379, "timeout": 2000, "database": 0, "ssl": false, "ssl_verify": false}}),
    );
}

#[test]
fn rate_limiting_fields_depend_on_each_other() {
    let failed =
        |field: &str| format!("failed conditional validation given value of field '{field}'");
    rate_limiting(
        json!({"minute": 5, "policy": "redis"}),
        json!({
            "@entity": [failed("config.policy")],
            "config": {"redis": {"host": "required field missing"}},
        }),
    );
    rate_limiting(
        json!({"minute": 5, "limit_by": "header"}),
        json!({
            "@entity": [failed("config.limit_by")],
            "config": {"header_name": "required field missing"},
        }),
    );
}

#[test]
fn deprecated_names_become_the_new_ones() {
    rate_limiting(
        json!({"minute": 5, "policy": "redis", "redis_host": "a", "redis_port": 1, "redis_ssl": null}),
        json!({
            "redis_host": null,
            "redis": {"host": "a", "port": 1, "timeout": 2000, "database": 0, "ssl_verify": false},
        }),
    );
    rate_limiting(
        json!({"minute": 5, "redis_port": 1, "redis": {"port": 2}}),
        json!({"config": {"redis_port": "both deprecated and new field are used but their values \
                                         mismatch: redis_port = 1 vs redis.port = 2"}}),
    );
    rate_limiting(
        json!({"minute": 5, "redis_port": "x"}),
        json!({"config": {"redis_port": "expected an integer"}}),
    );
}

#[test]
fn rate_limiting_has_kongs_defaults() {
    defaults(
        "rate-limiting",
        json!({"minute": 5}),
        json!({
            "minute": 5, "limit_by": "consumer", "policy": "local", "fault_tolerant": true,
            "redis": redis(), "hide_client_headers": false, "error_code": 429,
            "error_message": "API rate limit exceeded", "sync_rate": -1,
        }),
    );
}

#[test]
fn response_ratelimiting_has_kongs_defaults() {
    defaults(
        "response-ratelimiting",
        json!({"limits": {"video": {"hour": 5}}}),
        json!({
            "header_name": "x-kong-limit", "limit_by": "consumer", "policy": "local",
            "fault_tolerant": true, "redis": redis(), "block_on_first_violation": false,
            "hide_client_headers": false, "limits": {"video": {"hour": 5}},
        }),
    );
}

#[test]
fn rate_limiting_takes_numbers_and_names_that_fit() {
    let host = json!({"config": {"redis": {"host": "must not have a port"}}});
    rate_limiting(json!({"minute": 5, "redis": {"host": "a:1"}}), host);
    refused(
        "rate-limiting",
        &[
            (
                json!({"minute": 5, "limit_by": "x", "policy": "y"}),
                json!({
                    "limit_by": one_of("consumer, credential, ip, service, header, path"),
                    "policy": one_of("local, cluster, redis"),
                }),
            ),
            (
                json!({"minute": 5, "path": "a", "header_name": "a b", "error_code": 0}),
                json!({
                    "path": "should start with: /",
                    "header_name": "bad header name 'a b', allowed characters are A-Z, a-z, 0-9, '_', and '-'",
                    "error_code": "value must be greater than 0",
                }),
            ),
            (
                json!({"minute": 5, "redis": {"port": 65536, "timeout": -1, "server_name": "1.1.1.1"}}),
                json!({"redis": {
                    "port": "value should be between 0 and 65535",
                    "timeout": "value should be between 0 and 2147483646",
                    "server_name": "must not be an IP",
                }}),
            ),
        ],
    );
}

#[test]
fn response_ratelimiting_needs_limits_that_ascend() {
    let periods = "'second', 'minute', 'hour', 'day', 'month', 'year'";
    refused(
        "response-ratelimiting",
        &[
            (json!({}), json!({"limits": "required field missing"})),
            (
                json!({"limits": {}}),
                json!({"limits": "length must be at least 1"}),
            ),
            (
                json!({"limits": {"video": 1}}),
                json!({"limits": "expected a record"}),
            ),
            (
                json!({"limits": {"video": {}}}),
                json!({"limits": {"@entity": [
                    format!("at least one of these fields must be non-empty: {periods}"),
                ]}}),
            ),
            (
                json!({"limits": {"video": {"second": 0}}}),
                json!({"limits": {"second": "value must be greater than 0"}}),
            ),
            (
                json!({"limits": {"video": {"second": 10, "minute": 5}}}),
                json!({"limits":
                    "the limit for minute(5.0) cannot be lower than the limit for second(10.0)"}),
            ),
            (
                json!({"limits": {"video": {"hour": 1}}, "policy": "redis"}),
                json!({
                    "@entity": [conditional("config.policy")],
                    "config": {"redis": {"host": "required field missing"}},
                }),
            ),
        ],
    );
    defaults(
        "response-ratelimiting",
        json!({"limits": {"v": {"hour": 1}}, "policy": "redis", "redis_host": "a", "redis_database": 2}),
        json!({
            "header_name": "x-kong-limit", "limit_by": "consumer", "policy": "redis",
            "fault_tolerant": true, "block_on_first_violation": false, "hide_client_headers": false,
            "limits": {"v": {"hour": 1}},
            "redis": {
                "host": "a", "port": 6379, "timeout": 2000, "database": 2, "ssl": false,
                "ssl_verify": false,
            },
        }),
    );
}
