use super::*;
use crate::check::{Base, complete};
use crate::entropy::Entropy;
use crate::kind::Kind;
use crate::version::Time;
use serde_json::{Map, Value, json};

fn completed(input: Value, base: Base<'_>) -> Result<Map<String, Value>, Map<String, Value>> {
    let input = input.as_object().unwrap().clone();
    let mut entropy = Entropy::new([7; 32]);
    complete(
        Kind::Plugin.schema(),
        input,
        base,
        Time(1_000_000),
        &mut entropy,
    )
    .map_err(|rejection| rejection.fields)
}

/// `expected` is the whole of an error's fields, or, for a valid input, a part of the config.
fn check(input: Value, expected: Value) {
    match completed(input.clone(), Base::New) {
        Err(fields) => assert_eq!(Value::Object(fields), expected, "{input}"),
        Ok(body) => {
            for (name, expected) in expected.as_object().unwrap() {
                let found = body["config"].get(name).unwrap_or(&Value::Null);
                assert_eq!(found, expected, "{name} of {input}");
            }
        }
    }
}

fn rate_limiting(config: Value, expected: Value) {
    check(json!({"name": "rate-limiting", "config": config}), expected);
}

#[test]
fn the_table_names_each_plugin_once() {
    for schema in PLUGINS {
        assert!(std::ptr::eq(plugin(schema.name).unwrap(), *schema));
        assert_eq!(schema.config.name, "config");
    }
}

#[test]
fn the_name_decides_before_anything_else() {
    check(
        json!({"config": {"x": 1}}),
        json!({"name": "required field missing"}),
    );
    check(json!({"name": 1}), json!({"name": "expected a string"}));
    check(
        json!({"name": "x", "enabled": 1}),
        json!({"name": "plugin 'x' not enabled; add it to the 'plugins' configuration property"}),
    );
}

#[test]
fn key_auth_has_defaults_and_no_consumer() {
    check(
        json!({"name": "key-auth"}),
        json!({
            "key_names": ["apikey"], "hide_credentials": false, "anonymous": null, "realm": null,
            "key_in_header": true, "key_in_query": true, "key_in_body": false, "run_on_preflight": true,
        }),
    );
    check(
        json!({"name": "key-auth", "consumer": {"id": uuid::Uuid::nil()}, "protocols": ["tcp"]}),
        json!({
            "consumer": "value must be null",
            "protocols": ["expected one of: grpc, grpcs, http, https"],
        }),
    );
    check(
        json!({"name": "key-auth", "config": {"key_names": ["a b"], "x": 1, "key_in_body": null}}),
        json!({"config": {
            "key_names": ["bad header name 'a b', allowed characters are A-Z, a-z, 0-9, '_', and '-'"],
            "x": "unknown field",
            "key_in_body": "required field missing",
        }}),
    );
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
fn a_patch_of_the_name_checks_the_config_by_the_new_rules() {
    let before = completed(json!({"name": "key-auth"}), Base::New).unwrap();
    let base = Base::Merge(&before);
    let errors = completed(json!({"name": "rate-limiting"}), base).unwrap_err();
    assert_eq!(errors["config"]["key_names"], "unknown field");
    let body = completed(
        json!({"name": "rate-limiting", "config": {"hour": 1}}),
        base,
    )
    .unwrap();
    assert_eq!(body["config"].get("key_names"), None);
    let body = completed(json!({"config": {"realm": "r"}}), base).unwrap();
    assert_eq!(body["config"]["realm"], "r");
    assert_eq!(body["config"]["key_names"], json!(["apikey"]));
}
