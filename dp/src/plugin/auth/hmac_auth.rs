//! `hmac-auth`: who the client is, by a signature of its request with a shared secret.
//!
//! Deviations from Kong: bodies are validated up to [`BODY_BYTES_MAX`], where Kong gives up at those that do not fit its
//! buffer; what a client says to proxies is never passed on, with `hide_credentials` or without; a username cannot contain
//! a quotation mark.

use super::identify::{self, Found, equal};
use super::text::{base64, challenge, header};
use crate::plugin::{Access, Answer, Credential, Entity, Flow, Phases, Plugin, Step, Waiting};
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, StatusCode, Version, header as name};
use serde::Deserialize;
use sluice_schema::kind::Kind;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// The longest body that is validated. The signature of its request has been verified before it is read.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
const X_DATE: HeaderName = HeaderName::from_static("x-date");
const DIGEST: HeaderName = HeaderName::from_static("digest");
const UNVERIFIED: &str = "HMAC signature cannot be verified";
const OTHER: &str = "HMAC signature does not match";

/// An algorithm a client may sign with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub(crate) enum Algorithm {
    #[serde(rename = "hmac-sha1")]
    Sha1,
    #[serde(rename = "hmac-sha256")]
    Sha256,
    #[serde(rename = "hmac-sha384")]
    Sha384,
    #[serde(rename = "hmac-sha512")]
    Sha512,
}

impl Algorithm {
    const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "hmac-sha1",
            Self::Sha256 => "hmac-sha256",
            Self::Sha384 => "hmac-sha384",
            Self::Sha512 => "hmac-sha512",
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

/// The fields of the entity's `config`.
#[derive(Deserialize)]
#[serde(default)]
pub(crate) struct Fields {
    hide_credentials: bool,
    clock_skew: f64,
    anonymous: Option<String>,
    validate_request_body: bool,
    enforce_headers: Vec<String>,
    algorithms: Vec<Algorithm>,
    realm: Option<String>,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            hide_credentials: false,
            clock_skew: 300.0,
            anonymous: None,
            validate_request_body: false,
            enforce_headers: Vec::new(),
            algorithms: Algorithm::ALL.to_vec(),
            realm: None,
        }
    }
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct HmacAuth {
    hide: bool,
    /// How many seconds a date may be off.
    skew: f64,
    anonymous: Option<String>,
    with_body: bool,
    enforced: Vec<String>,
    algorithms: Vec<Algorithm>,
    challenge: HeaderValue,
}

impl Plugin for HmacAuth {
    const NAME: &'static str = "hmac-auth";
    const PRIORITY: i32 = 1030;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Fields;
    type State = ();

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        Ok(Self {
            hide: fields.hide_credentials,
            skew: fields.clock_skew,
            anonymous: fields.anonymous,
            with_body: fields.validate_request_body,
            enforced: fields.enforce_headers,
            algorithms: fields.algorithms,
            challenge: challenge("hmac", fields.realm.as_deref())?,
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        if identify::is_known(request, self.anonymous.as_ref()) {
            return Step::Continue;
        }
        if self.with_body && request.has_body() {
            return Step::Wait;
        }
        let found = self.authenticate(request);
        let found = found.and_then(|found| {
            let is_whole = !self.with_body || is_digest_of(request, b"");
            is_whole.then_some(found).ok_or(OTHER)
        });
        self.conclude(request, found).into()
    }

    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a> {
        Box::pin(async move {
            let found = match self.authenticate(request) {
                Ok(found) => match request.body(BODY_BYTES_MAX).await {
                    Ok(body) if is_digest_of(request, &body) => Ok(found),
                    Ok(_) | Err(_) => Err(OTHER),
                },
                Err(message) => Err(message),
            };
            self.conclude(request, found)
        })
    }
}

impl HmacAuth {
    fn conclude(&self, request: &mut Access<'_>, found: Result<Found, &'static str>) -> Flow {
        let found = found.map_err(|message| {
            Answer::message(StatusCode::UNAUTHORIZED, message)
                .with(name::WWW_AUTHENTICATE, self.challenge.clone())
        });
        identify::conclude(request, self.anonymous.as_ref(), found)
    }

    /// Who signed the head of the request, or why that is not known.
    fn authenticate(&self, request: &mut Access<'_>) -> Result<Found, &'static str> {
        let to_proxies = request.proxy_authorization;
        if to_proxies.is_none() && !request.headers.contains_key(name::AUTHORIZATION) {
            return Err("Unauthorized");
        }
        if ![X_DATE, name::DATE]
            .iter()
            .any(|date| self.is_now(request, date))
        {
            return Err(
                "HMAC signature cannot be verified, a valid date or x-date header is required for HMAC Authentication",
            );
        }
        let to_proxies = to_proxies.and_then(|value| value.to_str().ok());
        if let Some(claim) = to_proxies.and_then(Claim::parse) {
            return self.verify(request, &claim);
        }
        let general = header(request.headers, &name::AUTHORIZATION);
        let claim = general.and_then(Claim::parse).ok_or(UNVERIFIED)?;
        let found = self.verify(request, &claim);
        if self.hide {
            request.headers.remove(name::AUTHORIZATION);
        }
        found
    }

    /// Whether a header has a date that is about now.
    fn is_now(&self, request: &Access<'_>, date: &HeaderName) -> bool {
        let date = header(request.headers, date);
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let date = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
        date.is_some_and(|date| {
            #[allow(clippy::cast_precision_loss, reason = "a difference of seconds")]
            let off = date.as_secs().abs_diff(request.now) as f64;
            off <= self.skew
        })
    }

    fn verify(&self, request: &Access<'_>, claim: &Claim<'_>) -> Result<Found, &'static str> {
        let is_signed = |header: &String| claim.headers().any(|signed| signed == header);
        let algorithm = self
            .algorithms
            .iter()
            .find(|known| known.name() == claim.algorithm);
        let (true, Some(algorithm)) = (self.enforced.iter().all(is_signed), algorithm) else {
            return Err(UNVERIFIED);
        };
        let table = request.table;
        let credential = table.hmac_credential(request.workspace(), claim.username);
        let credential = credential.ok_or(UNVERIFIED)?;
        let signature = base64(claim.signature).ok_or(OTHER)?;
        let key = hmac::Key::new(algorithm.hmac(), credential.secret.as_bytes());
        let message = message(request, claim);
        hmac::verify(&key, &message, &signature).map_err(|_| OTHER)?;
        let consumer = table.consumer(credential.consumer.id).ok_or(UNVERIFIED)?;
        Ok(Found {
            consumer: Arc::clone(consumer),
            credential: Credential {
                kind: Some(Kind::HmacauthCredential),
                id: credential.id,
            },
            identifier: HeaderValue::from_str(&credential.username).ok(),
        })
    }
}

/// What a client says of its signature.
struct Claim<'v> {
    username: &'v str,
    algorithm: &'v str,
    headers: &'v str,
    signature: &'v str,
}

impl<'v> Claim<'v> {
    /// Reads `hmac username="...", algorithm="...", headers="...", signature="..."`.
    fn parse(value: &'v str) -> Option<Self> {
        let (scheme, rest) = value.trim_start().split_at_checked("hmac".len())?;
        if !scheme.eq_ignore_ascii_case("hmac") {
            return None;
        }
        let (username, rest) = part(rest, "username")?;
        let (algorithm, rest) = part(rest.strip_prefix(',')?, "algorithm")?;
        let (headers, rest) = part(rest.strip_prefix(',')?, "headers")?;
        let (signature, _) = part(rest.strip_prefix(',')?, "signature")?;
        Some(Self {
            username,
            algorithm,
            headers,
            signature,
        })
    }

    /// What is signed, in that order.
    fn headers(&self) -> impl Iterator<Item = &'v str> {
        self.headers.split(' ')
    }
}

/// The value of a part, and what follows it.
fn part<'v>(text: &'v str, name: &str) -> Option<(&'v str, &'v str)> {
    let value = text.trim_start().strip_prefix(name)?.strip_prefix("=\"")?;
    value.split_once('"').filter(|(value, _)| !value.is_empty())
}

/// What is signed. A header stands for itself before its name stands for something else.
fn message(request: &Access<'_>, claim: &Claim<'_>) -> Vec<u8> {
    let target = request
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let mut message = Vec::new();
    for (index, header) in claim.headers().enumerate() {
        if index > 0 {
            message.push(b'\n');
        }
        let value = request.headers.get(header).map(HeaderValue::as_bytes);
        // HTTP/2 has it apart.
        let authority = || request.uri.authority().map(|authority| authority.as_str());
        let value = value.or_else(|| {
            let host = authority().filter(|_| header.eq_ignore_ascii_case("host"));
            host.map(str::as_bytes)
        });
        match (value, header) {
            (Some(value), _) => {
                message.extend(header.as_bytes());
                message.extend(b": ");
                message.extend(value);
            }
            (None, "@request-target") => {
                let method = request.method.as_str().to_ascii_lowercase();
                message.extend(format!("{header}: {method} {target}").bytes());
            }
            (None, "request-line") => {
                let version = if request.version == Version::HTTP_2 {
                    "2.0"
                } else {
                    "1.1"
                };
                let version = if request.version == Version::HTTP_10 {
                    "1.0"
                } else {
                    version
                };
                message.extend(format!("{} {target} HTTP/{version}", request.method).bytes());
            }
            (None, _) => {
                message.extend(header.as_bytes());
                message.push(b':');
            }
        }
    }
    message
}

/// Whether the request has the digest of a body, or none where there is no body.
fn is_digest_of(request: &Access<'_>, body: &[u8]) -> bool {
    let Some(given) = request.headers.get(DIGEST) else {
        return body.is_empty();
    };
    let made = STANDARD.encode(digest::digest(&digest::SHA256, body));
    equal(given.as_bytes(), format!("SHA-256={made}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_has_its_parts_in_their_order() {
        let whole = "hmac username=\"bob\", algorithm=\"hmac-sha256\",   headers=\"date host\", signature=\"x=\"";
        let claim = Claim::parse(whole).expect("it is one");
        assert_eq!((claim.username, claim.algorithm), ("bob", "hmac-sha256"));
        assert_eq!(claim.headers().collect::<Vec<_>>(), ["date", "host"]);
        assert_eq!(claim.signature, "x=");
        for broken in [
            "",
            "basic username=\"bob\"",
            "hmac username=\"bob\", headers=\"date\", algorithm=\"hmac-sha256\", signature=\"x\"",
            "hmac username=\"\", algorithm=\"hmac-sha256\", headers=\"date\", signature=\"x\"",
            "hmac username=\"bob\", algorithm=\"hmac-sha256\", headers=\"date\", signature=\"x",
        ] {
            assert!(Claim::parse(broken).is_none(), "{broken}");
        }
    }
}
