//! hmac-auth: a name, and a secret to sign with.

use super::CONSUMER;
use crate::field::{Auto, Field};
use crate::kind::common::{CREATED_AT, TAGS};
use crate::kind::{Kind, Reference, Schema, Unique};
use serde::Deserialize;

/// An hmac-auth credential.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct HmacauthCredential {
    /// Whose it is.
    pub consumer: Reference,
    /// Unique.
    pub username: String,
    /// What requests are signed with.
    pub secret: String,
}

impl std::fmt::Debug for HmacauthCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HmacauthCredential(of {})", self.consumer.id)
    }
}

pub(in crate::kind) static SCHEMA: Schema = Schema {
    path: Some("hmac-auths"),
    nested_path: Some("hmac-auth"),
    endpoint_key: Some("username"),
    cache_key: &["username"],
    unique: &[Unique::field("username", &["username"])],
    ..Schema::new(Kind::HmacauthCredential, "hmacauth_credentials", FIELDS)
};

const FIELDS: &[Field] = &[
    CREATED_AT,
    CONSUMER,
    Field::string("username").required().unique(),
    Field::string("secret").auto(Auto::Random).encrypted(),
    TAGS,
];
