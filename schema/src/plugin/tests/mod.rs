mod acme;
mod ai;
mod auth;
mod guard;
mod limits;
mod log;
mod metrics;
mod scope;
mod transformer;

use super::*;
use crate::check::{Base, complete, fill_nulls};
use crate::entity::Id;
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

/// What is stored of a valid `config`, whole; and that what the API shows of it can be put back and changes nothing.
fn defaults(name: &str, config: Value, expected: Value) {
    let body = completed(json!({"name": name, "config": config}), Base::New);
    let body = body.unwrap_or_else(|errors| panic!("{name} is refused: {errors:?}"));
    assert_eq!(body["config"], expected, "{name}");
    let mut shown = fill_nulls(Kind::Plugin.schema(), Id(uuid::Uuid::nil()), &body);
    shown.remove("id");
    let again = completed(shown.into(), Base::Replace(&body));
    assert_eq!(again.as_ref(), Ok(&body), "{name}");
}

/// The errors of each `config`, whole: those under `config`, or, where there are others, all of them.
fn refused(name: &str, cases: &[(Value, Value)]) {
    for (config, expected) in cases {
        let input = json!({"name": name, "config": config});
        let errors = match completed(input, Base::New) {
            Ok(body) => panic!("{name} takes {config}: {body:?}"),
            Err(errors) => errors,
        };
        let errors = match errors.get("config") {
            Some(config) if errors.len() == 1 => config.clone(),
            Some(_) | None => Value::Object(errors),
        };
        assert_eq!(errors, *expected, "{name} with {config}");
    }
}

/// Which errors a rule that depends on a field gives for the entity.
fn conditional(field: &str) -> String {
    format!("failed conditional validation given value of field '{field}'")
}

/// The error for a text that is none of these.
fn one_of(options: &str) -> String {
    format!("expected one of: {options}")
}

fn queue() -> Value {
    json!({
        "max_batch_size": 1, "max_coalescing_delay": 1, "max_entries": 10000, "max_retry_time": 60,
        "initial_retry_delay": 0.01, "max_retry_delay": 60, "concurrency_limit": 1,
    })
}

fn redis() -> Value {
    json!({"port": 6379, "timeout": 2000, "database": 0, "ssl": false, "ssl_verify": false})
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
