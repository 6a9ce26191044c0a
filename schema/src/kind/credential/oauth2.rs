//! oauth2: applications, and the tokens they were given.

use super::{CONSUMER, TTL, bound_ttl, count_ttl};
use crate::check::Values;
use crate::check::url::Url;
use crate::field::{Auto, Field, Literal, OnDelete};
use crate::kind::common::{CREATED_AT, TAGS};
use crate::kind::{Finishing, Kind, Reference, Schema, Unique};
use crate::pki::pbkdf2;
use serde::Deserialize;
use serde_json::{Map, Value};

/// An OAuth 2.0 application.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Oauth2Credential {
    /// Whose it is.
    pub consumer: Reference,
    /// For people.
    pub name: String,
    /// Unique.
    pub client_id: String,
    /// The secret, or its hash if `hash_secret` is set.
    pub client_secret: String,
    /// Whether `client_secret` is a hash.
    pub hash_secret: bool,
    /// Where answers may be sent.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    /// `confidential` or `public`.
    pub client_type: String,
}

impl std::fmt::Debug for Oauth2Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Oauth2Credential(of {})", self.consumer.id)
    }
}

/// A token that an application was given.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Oauth2Token {
    /// The application.
    pub credential: Reference,
    /// The service it is for; all if there is none.
    pub service: Option<Reference>,
    /// The secret the client sends.
    pub access_token: String,
    /// Seconds of validity from `created_at`; 0 is for ever.
    pub expires_in: i64,
    /// What it allows, words with spaces between.
    pub scope: Option<String>,
    /// Whom the application acts for.
    pub authenticated_userid: Option<String>,
    /// Seconds of life from `created_at`.
    pub ttl: Option<u64>,
    /// Seconds since the Unix epoch.
    pub created_at: u64,
}

impl std::fmt::Debug for Oauth2Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Oauth2Token(of {})", self.credential.id)
    }
}

pub(in crate::kind) static SCHEMA: Schema = Schema {
    path: Some("oauth2"),
    nested_path: Some("oauth2"),
    endpoint_key: Some("client_id"),
    unique: &[Unique::field("client_id", &["client_id"])],
    finish: Some(hash_secret),
    ..Schema::new(Kind::Oauth2Credential, "oauth2_credentials", FIELDS)
};

pub(in crate::kind) static TOKEN_SCHEMA: Schema = Schema {
    endpoint_key: Some("access_token"),
    unique: &[
        Unique::field("access_token", &["access_token"]),
        Unique::field("refresh_token", &["refresh_token"]),
    ],
    prepare: Some(bound_ttl),
    finish: Some(count_ttl),
    ..Schema::new(Kind::Oauth2Token, "oauth2_tokens", TOKEN_FIELDS)
};

const FIELDS: &[Field] = &[
    CREATED_AT,
    CONSUMER,
    Field::string("name").required(),
    Field::string("client_id").unique().auto(Auto::Random),
    Field::string("client_secret")
        .auto(Auto::Random)
        .encrypted(),
    Field::boolean("hash_secret")
        .required()
        .default(Literal::Bool(false)),
    Field::array("redirect_uris", &Field::string("").text(redirect_uri)),
    TAGS,
    Field::string("client_type")
        .required()
        .default(Literal::Text("confidential"))
        .one_of(&["confidential", "public"]),
];

const TOKEN_FIELDS: &[Field] = &[
    CREATED_AT,
    Field::foreign("service", Kind::Service, OnDelete::Cascade),
    Field::foreign("credential", Kind::Oauth2Credential, OnDelete::Cascade).required(),
    Field::string("token_type")
        .required()
        .default(Literal::Text("bearer"))
        .one_of(&["bearer"]),
    Field::integer("expires_in").required(),
    Field::string("access_token")
        .unique()
        .auto(Auto::Random)
        .encrypted(),
    Field::string("refresh_token").unique().encrypted(),
    Field::string("authenticated_userid"),
    Field::string("scope"),
    TTL,
];

/// A URI with a scheme and a host, and without a fragment.
fn redirect_uri(uri: &str) -> Result<(), String> {
    let url = Url::split(uri);
    if url.scheme.is_none() || url.host.is_none() {
        return Err(format!("cannot parse '{uri}'"));
    }
    if uri.contains('#') {
        return Err(format!("fragment not allowed in '{uri}'"));
    }
    Ok(())
}

/// With `hash_secret` the secret is not stored, but a hash of it. The stored hash, read and written back, stays as it is,
/// and so does that of the same secret: its salt is new each time.
fn hash_secret(body: &mut Map<String, Value>, finishing: Finishing<'_>) {
    let Finishing {
        given,
        before,
        values,
        entropy,
        now: _,
    } = finishing;
    let hashed =
        |fields: &Map<String, Value>| fields.get("hash_secret") == Some(&Value::Bool(true));
    let secret = body.get("client_secret").and_then(Value::as_str);
    let (Values::Plain, true, Some(secret)) = (values, hashed(body), secret) else {
        return;
    };
    let known = before
        .filter(|before| hashed(before))
        .and_then(|before| before.get("client_secret")?.as_str());
    let stored = match known {
        Some(known) if known == secret => return,
        Some(known) if given.contains_key("client_secret") && pbkdf2::is_secret(known, secret) => {
            known.to_owned()
        }
        Some(_) | None => pbkdf2::hash(secret, entropy.bytes()),
    };
    body.insert("client_secret".to_owned(), stored.into());
}
