//! basic-auth: a name and a password.

use super::CONSUMER;
use crate::check::Values;
use crate::field::Field;
use crate::kind::common::{CREATED_AT, TAGS};
use crate::kind::{Finishing, Kind, Reference, Schema, Unique};
use crate::state::reference_id;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha1_smol::Sha1;
use uuid::Uuid;

/// A basic-auth credential.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct BasicauthCredential {
    /// Whose it is.
    pub consumer: Reference,
    /// Unique.
    pub username: String,
    /// Kong's hash of the password: see [`is_password`].
    pub password: String,
}

impl std::fmt::Debug for BasicauthCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BasicauthCredential(of {})", self.consumer.id)
    }
}

pub(in crate::kind) static SCHEMA: Schema = Schema {
    path: Some("basic-auths"),
    nested_path: Some("basic-auth"),
    endpoint_key: Some("username"),
    cache_key: &["username"],
    unique: &[Unique::field("username", &["username"])],
    finish: Some(hash_password),
    ..Schema::new(Kind::BasicauthCredential, "basicauth_credentials", FIELDS)
};

const FIELDS: &[Field] = &[
    CREATED_AT,
    CONSUMER,
    Field::string("username").required().unique(),
    Field::string("password").required().encrypted(),
    TAGS,
];

/// Whether `stored` is the hash of this consumer's `password`.
pub fn is_password(stored: &str, consumer: Uuid, password: &str) -> bool {
    let hash = hash(consumer, password);
    // In a time that does not tell how much of it is right.
    let pairs = hash.bytes().zip(stored.bytes());
    let difference = pairs.fold(0, |difference, (one, two)| difference | (one ^ two));
    hash.len() == stored.len() && std::hint::black_box(difference) == 0
}

/// Kong's hash: SHA-1 of the password and the consumer's id, in hex.
fn hash(consumer: Uuid, password: &str) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(password.as_bytes());
    sha1.update(consumer.to_string().as_bytes());
    sha1.digest().to_string()
}

/// What is stored is never the password. The stored hash, read and written back, stays as it is.
fn hash_password(body: &mut Map<String, Value>, finishing: Finishing<'_>) {
    let Finishing {
        given,
        before,
        values,
        now: _,
        entropy: _,
    } = finishing;
    let password = given.get("password").and_then(Value::as_str);
    let (Values::Plain, Some(password)) = (values, password) else {
        return;
    };
    let known = before.and_then(|before| before.get("password")?.as_str());
    let consumer = body.get("consumer").and_then(reference_id);
    if let Some(consumer) = consumer
        && known != Some(password)
    {
        body.insert("password".to_owned(), hash(consumer.0, password).into());
    }
}
