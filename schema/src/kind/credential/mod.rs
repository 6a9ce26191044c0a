//! Credentials of consumers: one file for each way to be known.

mod acl;
mod basicauth;
mod hmacauth;
mod jwt;
mod keyauth;
mod oauth2;

pub use acl::Acl;
pub use basicauth::{BasicauthCredential, is_password};
pub use hmacauth::HmacauthCredential;
pub use jwt::JwtSecret;
pub use keyauth::KeyauthCredential;
pub use oauth2::{Oauth2Credential, Oauth2Token};

pub(super) use acl::SCHEMA as ACL_SCHEMA;
pub(super) use basicauth::SCHEMA as BASICAUTH_SCHEMA;
pub(super) use hmacauth::SCHEMA as HMACAUTH_SCHEMA;
pub(super) use jwt::SCHEMA as JWT_SCHEMA;
pub(super) use keyauth::SCHEMA as KEYAUTH_SCHEMA;
pub(super) use oauth2::{SCHEMA as OAUTH2_SCHEMA, TOKEN_SCHEMA as OAUTH2_TOKEN_SCHEMA};

use super::{Finishing, Kind};
use crate::check::Errors;
use crate::field::{Field, OnDelete};
use serde_json::{Map, Value};

/// The longest life of a credential, in seconds: Kong's.
const TTL_MAX: u64 = 100_000_000;

/// Whose it is.
const CONSUMER: Field = Field::foreign("consumer", Kind::Consumer, OnDelete::Cascade).required();
/// Seconds of life from `created_at`.
const TTL: Field = Field::integer("ttl").between(0, i64::MAX);

/// Bounds the life that a client asks for; the stored value counts from the creation and may be more.
fn bound_ttl(input: &mut Map<String, Value>, errors: &mut Errors) {
    if let Some(ttl) = input.get("ttl").and_then(Value::as_f64)
        && !(0.0..=TTL_MAX as f64).contains(&ttl)
    {
        errors.set("ttl", format!("value should be between 0 and {TTL_MAX}"));
        input.remove("ttl");
    }
}

/// Clients give a time to live from now; it is stored as one from `created_at`. Zero is for ever.
fn count_ttl(body: &mut Map<String, Value>, finishing: Finishing<'_>) {
    if finishing.given.get("ttl").is_none_or(Value::is_null) {
        return;
    }
    let number = |name: &str| body.get(name).and_then(Value::as_u64).unwrap_or_default();
    let age = finishing.now.seconds().saturating_sub(number("created_at"));
    match number("ttl") {
        0 => body.remove("ttl"),
        ttl => body.insert("ttl".to_owned(), (ttl + age).into()),
    };
}
