//! Vaults: stores of secrets that configuration refers to as `{vault://<prefix>/<name>}`.

use super::common::{CREATED_AT, TAGS, UPDATED_AT};
use super::{Kind, Schema, Unique, Variant};
use crate::check::{Errors, Shape};
use crate::field::{Field, Type};
use serde_json::{Map, Value};

pub(super) static SCHEMA: Schema = Schema {
    endpoint_key: Some("prefix"),
    cache_key: &["prefix"],
    unique: &[Unique::field("prefix", &["prefix"])],
    vary: Some(vary),
    variant: Some(Variant {
        key: "name",
        record: "config",
        config,
    }),
    ..Schema::new(Kind::Vault, "vaults", FIELDS)
};

const FIELDS: &[Field] = &[
    Field::string("prefix")
        .required()
        .unique()
        .pattern("^[a-z][a-z%d-]-[a-z%d]+$", is_prefix)
        .not_one_of(&[ENV]),
    Field::string("name").required(),
    Field::string("description"),
    Field::new("config", Type::Config),
    CREATED_AT,
    UPDATED_AT,
    TAGS,
];

/// The one kind of vault that Kong brings along: variables of the process.
const ENV: &str = "env";
static ENV_CONFIG: Field = Field::record(
    "config",
    &[Field::string("prefix").pattern("^[%a_-][%a%d_-]*$", is_variable)],
);

fn config(name: &str) -> Option<&'static Field> {
    (name == ENV).then_some(&ENV_CONFIG)
}

fn is_prefix(text: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    match text.as_bytes() {
        [first, middle @ .., last] => {
            first.is_ascii_lowercase()
                && plain(last)
                && middle.iter().all(|byte| plain(byte) || *byte == b'-')
        }
        _ => false,
    }
}

fn is_variable(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(allowed)
}

/// Puts the rules of the kind of vault in place of the general ones.
fn vary(body: &Map<String, Value>, shape: &mut Shape) -> Result<(), Errors> {
    let mut errors = Errors::default();
    match body.get("name") {
        None | Some(Value::Null) => errors.set("name", "required field missing"),
        Some(Value::String(name)) => match config(name) {
            Some(config) => {
                shape.refine(*config);
                return Ok(());
            }
            None => errors.set("name", format!("vault '{name}' is not installed")),
        },
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            errors.set("name", "expected a string");
        }
    }
    Err(errors)
}
