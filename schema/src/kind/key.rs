//! Keys, for plugins that sign or verify, and sets of them.

use super::common::{CREATED_AT, TAGS, UPDATED_AT};
use super::{Kind, Nulls, Schema, Unique};
use crate::check::{check_value, text};
use crate::field::{Check, Field, OnDelete};
use crate::pki;
use crate::rejection::Rejection;
use serde_json::{Map, Value};

pub(super) static SET_SCHEMA: Schema = Schema {
    path: Some("key-sets"),
    nested_path: Some("key-sets"),
    unique: &[Unique::field("name", &["name"])],
    ..Schema::new(Kind::KeySet, "key_sets", SET_FIELDS)
};

pub(super) static SCHEMA: Schema = Schema {
    cache_key: &["kid", "set"],
    unique: &[
        Unique::field("name", &["name"]),
        Unique {
            name: "kid",
            fields: &["kid", "set"],
            nulls: Nulls::Equal,
        },
    ],
    checks: &[
        Check::MutuallyExclusive(&["jwk", "pem"]),
        Check::AtLeastOneOf(&["jwk", "pem"]),
        Check::Custom {
            fields: &["jwk", "kid"],
            test: jwk,
        },
    ],
    ..Schema::new(Kind::Key, "keys", FIELDS)
};

const SET_FIELDS: &[Field] = &[Field::string("name").unique(), TAGS, CREATED_AT, UPDATED_AT];

const FIELDS: &[Field] = &[
    Field::foreign("set", Kind::KeySet, OnDelete::Cascade),
    Field::string("name").unique(),
    Field::string("kid").required(),
    Field::string("jwk").referenceable().encrypted(),
    Field::record(
        "pem",
        &[
            Field::string("private_key").referenceable().encrypted(),
            Field::string("public_key").referenceable(),
        ],
    )
    .checks(&[Check::AtLeastOneOf(&["private_key", "public_key"])])
    .custom(pem),
    TAGS,
    CREATED_AT,
    UPDATED_AT,
];

const TEXT: Field = Field::string("");

/// What may stand in a JWK.
const JWK: Field = Field::record(
    "jwk",
    &[
        TEXT.named("issuer"),
        TEXT.named("kty"),
        TEXT.named("use"),
        Field::array("key_ops", &TEXT),
        TEXT.named("alg"),
        TEXT.named("kid").required(),
        TEXT.named("x5u"),
        Field::array("x5c", &TEXT),
        TEXT.named("x5t"),
        TEXT.named("x5t#S256"),
        TEXT.named("k"),
        TEXT.named("x"),
        TEXT.named("y"),
        TEXT.named("crv"),
        TEXT.named("n"),
        TEXT.named("e"),
        TEXT.named("d"),
        TEXT.named("p"),
        TEXT.named("q"),
        TEXT.named("dp"),
        TEXT.named("dq"),
        TEXT.named("qi"),
        TEXT.named("oth"),
        TEXT.named("r"),
        TEXT.named("t"),
    ],
);

/// A JWK is JSON, has the id of its entity, and is a key.
fn jwk(body: &Map<String, Value>) -> Result<(), String> {
    let Some(text) = body.get("jwk").and_then(Value::as_str) else {
        return Ok(());
    };
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
        return Err("could not json decode jwk string".to_owned());
    };
    if fields.get("kid") != body.get("kid") {
        return Err("kid in jwk.kid must be equal to keys.kid".to_owned());
    }
    if pki::jwk(&fields).is_err() {
        return Err("could not load JWK, likely not a valid key".to_owned());
    }
    match check_value(&JWK, &mut Value::Object(fields)) {
        Ok(()) => Ok(()),
        Err(Value::Object(errors)) => Err(Rejection::schema(errors).message),
        Err(error) => Err(error.to_string()),
    }
}

/// Both halves are keys, and of one pair.
fn pem(record: &Value) -> Result<(), String> {
    let half = |name: &str| record.get(name).and_then(Value::as_str);
    let [private, public] = [half("private_key"), half("public_key")];
    if [private, public]
        .into_iter()
        .flatten()
        .any(text::is_vault_reference)
    {
        return Ok(());
    }
    let public = public.map(pki::public_key).transpose();
    let public = public.map_err(|_| "could not load public key".to_owned())?;
    let private = private.map(pki::private_key).transpose();
    let private = private.map_err(|_| "could not load private key".to_owned())?;
    match (private, public) {
        (Some(private), Some(public)) if private != public => {
            Err("public key does not match private key".to_owned())
        }
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}
