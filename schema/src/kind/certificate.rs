//! Certificates, the server names they are shown for, and the certificates of authorities.

use super::common::{CREATED_AT, TAGS, UPDATED_AT};
use super::{Kind, Names, Reference, Schema, Unique};
use crate::check::{Errors, text};
use crate::field::{Check, Field, OnDelete};
use crate::pki;
use crate::version::Time;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A certificate with its private key. What follows the first certificate in a text is its chain.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Certificate {
    /// PEM.
    pub cert: String,
    /// PEM.
    pub key: String,
    /// PEM, of another kind of key.
    pub cert_alt: Option<String>,
    /// PEM.
    pub key_alt: Option<String>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificate")
    }
}

/// A server name that a certificate is shown for.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Sni {
    /// Unique; may begin or end with `*`.
    pub name: String,
    /// The certificate.
    pub certificate: Reference,
}

/// The certificate of an authority.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct CaCertificate {
    /// PEM.
    pub cert: String,
    /// SHA-256 of its DER, in hex. Unique.
    pub cert_digest: String,
}

pub(super) static SCHEMA: Schema = Schema {
    endpoint_key: None,
    cache_key: &["cert"],
    names: Some(&SNIS),
    checks: CHECKS,
    ..Schema::new(Kind::Certificate, "certificates", FIELDS)
};

pub(super) static SNI_SCHEMA: Schema = Schema {
    unique: &[Unique::field("name", &["name"])],
    ..Schema::new(Kind::Sni, "snis", SNI_FIELDS)
};

pub(super) static CA_SCHEMA: Schema = Schema {
    endpoint_key: None,
    cache_key: &["cert"],
    unique: &[Unique::field("cert_digest", &["cert_digest"])],
    prepare: Some(add_digest),
    verify: Some(verify_ca),
    ..Schema::new(Kind::CaCertificate, "ca_certificates", CA_FIELDS)
};

static SNIS: Names = Names {
    field: &Field::array("snis", &Field::string("")),
    child: Kind::Sni,
    by: "certificate",
    label: "name",
};

const CERTIFICATE: Field = Field::string("cert").text(certificate);
const KEY: Field = Field::string("key").text(key).encrypted();

const FIELDS: &[Field] = &[
    CREATED_AT,
    UPDATED_AT,
    CERTIFICATE.required().referenceable(),
    KEY.required().referenceable(),
    CERTIFICATE.named("cert_alt").referenceable(),
    KEY.named("key_alt").referenceable(),
    TAGS,
];

const SNI_FIELDS: &[Field] = &[
    Field::string("name")
        .required()
        .unique()
        .text(text::wildcard_server_name),
    CREATED_AT,
    UPDATED_AT,
    TAGS,
    Field::foreign("certificate", Kind::Certificate, OnDelete::Cascade).required(),
];

const CA_FIELDS: &[Field] = &[
    CREATED_AT,
    UPDATED_AT,
    CERTIFICATE.required(),
    Field::string("cert_digest").unique(),
    TAGS,
];

const CHECKS: &[Check] = &[
    Check::MutuallyRequired(&["cert_alt", "key_alt"]),
    Check::Custom {
        fields: &["cert", "key"],
        test: |body| belongs(body, ["cert", "key"], "certificate does not match key"),
    },
    Check::Custom {
        fields: &["cert_alt", "key_alt"],
        test: |body| {
            belongs(
                body,
                ["cert_alt", "key_alt"],
                "alternative certificate does not match key",
            )
        },
    },
    Check::Custom {
        fields: &["cert", "cert_alt"],
        test: differ,
    },
];

fn certificate(pem: &str) -> Result<(), String> {
    match pki::Certificate::parse(pem) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("invalid certificate: {error}")),
    }
}

fn key(pem: &str) -> Result<(), String> {
    match pki::private_key(pem) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("invalid key: {error}")),
    }
}

fn text_of<'a>(body: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    body.get(field)?.as_str()
}

/// A certificate and a key belong together.
fn belongs(body: &Map<String, Value>, fields: [&str; 2], error: &str) -> Result<(), String> {
    let [Some(cert), Some(key)] = fields.map(|field| text_of(body, field)) else {
        return Ok(());
    };
    match (pki::Certificate::parse(cert), pki::private_key(key)) {
        (Ok(cert), Ok(key)) if cert.key != key => Err(error.to_owned()),
        // What cannot be read has an error of its own.
        (Ok(_) | Err(_), Ok(_) | Err(_)) => Ok(()),
    }
}

/// The two certificates are for different kinds of keys.
fn differ(body: &Map<String, Value>) -> Result<(), String> {
    let [Some(cert), Some(alternative)] = ["cert", "cert_alt"].map(|field| text_of(body, field))
    else {
        return Ok(());
    };
    let parsed = [cert, alternative].map(pki::Certificate::parse);
    match parsed {
        [Ok(cert), Ok(alternative)] if cert.key.key_type() == alternative.key.key_type() => Err(
            "certificate and alternative certificate need to have different type (e.g. RSA \
                 and ECDSA), the provided certificates were both of the same type"
                .to_owned(),
        ),
        [Ok(_) | Err(_), Ok(_) | Err(_)] => Ok(()),
    }
}

/// The digest is ours to say.
fn add_digest(input: &mut Map<String, Value>, _: &mut Errors) {
    input.remove("cert_digest");
    let cert = input.get("cert").and_then(Value::as_str);
    if let Some(Ok(cert)) = cert.map(pki::Certificate::parse) {
        input.insert("cert_digest".to_owned(), cert.digest.into());
    }
}

/// One certificate, of an authority, that is still valid. One that was accepted may expire and stay.
fn verify_ca(
    body: &Map<String, Value>,
    before: Option<&Map<String, Value>>,
    now: Time,
    errors: &mut Errors,
) {
    let Some(pem) = body.get("cert").and_then(Value::as_str) else {
        return;
    };
    let unchanged = before.is_some_and(|before| before.get("cert") == body.get("cert"));
    if errors.has("cert") || unchanged {
        return;
    }
    if pem.matches("-----BEGIN CERTIFICATE-----").count() > 1 {
        errors.entity("please submit only one certificate at a time");
        return;
    }
    match pki::Certificate::parse(pem) {
        Ok(cert) if cert.is_expired(now) => {
            errors.entity("certificate expired, \"Not After\" time is in the past");
        }
        Ok(cert) if !cert.is_ca => errors.entity(
            "certificate does not appear to be a CA because it is missing the \"CA\" basic \
             constraint",
        ),
        // What cannot be read has an error of its own.
        Ok(_) | Err(_) => {}
    }
}
