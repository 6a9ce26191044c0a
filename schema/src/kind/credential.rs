//! Credentials of consumers.

use super::common::{CREATED_AT, TAGS};
use super::{Kind, Reference, Schema, Unique};
use crate::check::Errors;
use crate::field::{Auto, Field, OnDelete};
use crate::version::Time;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A key-auth credential.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct KeyauthCredential {
    /// Whose it is.
    pub consumer: Reference,
    /// The secret the client sends.
    pub key: String,
    /// Seconds of life from `created_at`.
    pub ttl: Option<u64>,
    /// Seconds since the Unix epoch.
    pub created_at: u64,
}

impl std::fmt::Debug for KeyauthCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyauthCredential(of {})", self.consumer.id)
    }
}

/// The longest life of a credential, in seconds: Kong's.
const TTL_MAX: u64 = 100_000_000;

pub(super) static KEYAUTH_SCHEMA: Schema = Schema {
    path: Some("key-auths"),
    nested_path: "key-auth",
    endpoint_key: Some("key"),
    unique: &[Unique::field("key", &["key"])],
    prepare: Some(prepare),
    finish: Some(finish),
    ..Schema::new(
        Kind::KeyauthCredential,
        "keyauth_credentials",
        KEYAUTH_FIELDS,
    )
};

const KEYAUTH_FIELDS: &[Field] = &[
    CREATED_AT,
    Field::foreign("consumer", Kind::Consumer, OnDelete::Cascade).required(),
    Field::string("key").unique().auto(Auto::Random),
    TAGS,
    Field::integer("ttl").between(0, i64::MAX),
];

/// Bounds what the client asks for; the stored value counts from the creation and may be more.
fn prepare(input: &mut Map<String, Value>, errors: &mut Errors) {
    if let Some(ttl) = input.get("ttl").and_then(Value::as_f64)
        && !(0.0..=TTL_MAX as f64).contains(&ttl)
    {
        errors.set("ttl", format!("value should be between 0 and {TTL_MAX}"));
        input.remove("ttl");
    }
}

/// Clients give a time to live from now; it is stored as one from `created_at`. Zero is for ever.
fn finish(body: &mut Map<String, Value>, given: &Map<String, Value>, now: Time) {
    if given.get("ttl").is_none_or(Value::is_null) {
        return;
    }
    let number = |name: &str| body.get(name).and_then(Value::as_u64).unwrap_or_default();
    let age = now.seconds().saturating_sub(number("created_at"));
    match number("ttl") {
        0 => body.remove("ttl"),
        ttl => body.insert("ttl".to_owned(), (ttl + age).into()),
    };
}
