//! jwt: what a consumer's tokens are verified with.

use super::CONSUMER;
use crate::field::{Auto, Check, Field, Literal, Match};
use crate::kind::common::{CREATED_AT, TAGS};
use crate::kind::{Kind, Reference, Schema, Unique};
use crate::pki;
use serde::Deserialize;

/// A jwt credential.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct JwtSecret {
    /// Whose it is.
    pub consumer: Reference,
    /// Unique; the tokens' `iss`, or another claim.
    pub key: String,
    /// For HS* algorithms.
    pub secret: String,
    /// A public key in PEM, of any kind of key, for the other algorithms.
    pub rsa_public_key: Option<String>,
    /// `HS256`, `RS256`, ...
    pub algorithm: Option<String>,
}

impl std::fmt::Debug for JwtSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JwtSecret(of {})", self.consumer.id)
    }
}

pub(in crate::kind) static SCHEMA: Schema = Schema {
    path: Some("jwts"),
    nested_path: Some("jwt"),
    endpoint_key: Some("key"),
    unique: &[Unique::field("key", &["key"])],
    checks: &[Check::Conditional {
        if_field: "algorithm",
        if_match: Match::OneOf(WITH_PUBLIC_KEY),
        then_field: "rsa_public_key",
        then_match: Match::Text(public_key),
        error: None,
    }],
    ..Schema::new(Kind::JwtSecret, "jwt_secrets", FIELDS)
};

/// Kong does not ask for the key of ES* algorithms.
const WITH_PUBLIC_KEY: &[&str] = &[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA",
];

const FIELDS: &[Field] = &[
    CREATED_AT,
    CONSUMER,
    Field::string("key").unique().auto(Auto::Random),
    Field::string("secret").auto(Auto::Random).encrypted(),
    Field::string("rsa_public_key"),
    Field::string("algorithm")
        .default(Literal::Text("HS256"))
        .one_of(&[
            "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512",
            "PS256", "PS384", "PS512", "EdDSA",
        ]),
    TAGS,
];

fn public_key(pem: &str) -> Result<(), String> {
    match pki::any_key(pem) {
        Ok(_) => Ok(()),
        Err(_) => Err("invalid key".to_owned()),
    }
}
