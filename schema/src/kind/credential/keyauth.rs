//! key-auth: a key that the client sends.

use super::{CONSUMER, TTL, bound_ttl, count_ttl};
use crate::field::{Auto, Field};
use crate::kind::common::{CREATED_AT, TAGS};
use crate::kind::{Kind, Reference, Schema, Unique};
use serde::Deserialize;

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

pub(in crate::kind) static SCHEMA: Schema = Schema {
    path: Some("key-auths"),
    nested_path: Some("key-auth"),
    endpoint_key: Some("key"),
    unique: &[Unique::field("key", &["key"])],
    prepare: Some(bound_ttl),
    finish: Some(count_ttl),
    ..Schema::new(Kind::KeyauthCredential, "keyauth_credentials", FIELDS)
};

const FIELDS: &[Field] = &[
    CREATED_AT,
    CONSUMER,
    Field::string("key").unique().auto(Auto::Random).encrypted(),
    TAGS,
    TTL,
];
