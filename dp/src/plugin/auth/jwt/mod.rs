//! `jwt`: who the client is, by a token that its consumer's credential verifies.
//!
//! Algorithms are those of Kong: HS, RS, PS and ES with 256, 384 and 512, and EdDSA.
//!
//! Deviations from Kong: EdDSA is for Ed25519 only; RSA keys have at least 2048 bits; `Bearer` is found in any case, but
//! only where the header begins. A key claim that is no text is invalid, where Kong fails.

mod signature;
mod token;

use super::identify::{self, Found};
use super::text::{after_scheme, base64, challenge, cookies, header};
use crate::plugin::{Access, Answer, Cache, Credential, Entity, Phases, Plugin, Stamp, Step};
use crate::table::Credential as Stored;
use http::{HeaderName, HeaderValue, Method, StatusCode, header::WWW_AUTHENTICATE};
use serde::Deserialize;
use serde_json::{Map, Value};
use signature::Algorithm;
use sluice_schema::kind::{JwtSecret, Kind};
use sluice_schema::pki::{self, PublicKey};
use std::borrow::Cow;
use std::sync::Arc;
use token::{Claim, Token};

/// For how long a credential's key is kept as it was read. It is read again after that.
const KEY_SECONDS: u64 = 3600;

/// The fields of the entity's `config`.
#[derive(Deserialize)]
#[serde(default)]
pub(crate) struct Fields {
    uri_param_names: Vec<String>,
    cookie_names: Vec<String>,
    header_names: Vec<String>,
    key_claim_name: Option<String>,
    secret_is_base64: bool,
    claims_to_verify: Vec<Claim>,
    anonymous: Option<String>,
    run_on_preflight: bool,
    maximum_expiration: f64,
    realm: Option<String>,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            uri_param_names: vec!["jwt".into()],
            cookie_names: Vec::new(),
            header_names: vec!["authorization".into()],
            key_claim_name: None,
            secret_is_base64: false,
            claims_to_verify: Vec::new(),
            anonymous: None,
            run_on_preflight: true,
            maximum_expiration: 0.0,
            realm: None,
        }
    }
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct Jwt {
    parameters: Vec<String>,
    cookies: Vec<String>,
    headers: Vec<HeaderName>,
    key_claim: String,
    secret_is_base64: bool,
    claims: Vec<Claim>,
    anonymous: Option<String>,
    on_preflight: bool,
    /// Seconds from now until the end of a token; 0 if it may be any.
    seconds_max: f64,
    /// To who has no token.
    challenge: HeaderValue,
    /// To who has a bad one.
    invalid: HeaderValue,
}

/// Why a request is not authenticated.
enum Refusal {
    /// There is no token.
    Missing,
    /// The token is bad.
    Bad(Cow<'static, str>),
    /// What its claims say is not so.
    Claims(Map<String, Value>),
}

impl From<&'static str> for Refusal {
    fn from(message: &'static str) -> Self {
        Self::Bad(message.into())
    }
}

/// The keys of credentials, as they were read. `None` is one that cannot be used.
type Keys = Cache<Option<Arc<PublicKey>>>;

impl Plugin for Jwt {
    const NAME: &'static str = "jwt";
    const PRIORITY: i32 = 1450;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Fields;
    type State = Keys;

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        let challenge = challenge("Bearer", fields.realm.as_deref())?;
        let invalid = [challenge.as_bytes(), b" error=\"invalid_token\""].concat();
        let headers = fields.header_names.iter();
        Ok(Self {
            parameters: fields.uri_param_names,
            cookies: fields.cookie_names,
            headers: headers.filter_map(|name| name.parse().ok()).collect(),
            key_claim: fields.key_claim_name.unwrap_or_else(|| "iss".into()),
            secret_is_base64: fields.secret_is_base64,
            claims: fields.claims_to_verify,
            anonymous: fields.anonymous,
            on_preflight: fields.run_on_preflight,
            seconds_max: fields.maximum_expiration,
            invalid: HeaderValue::from_bytes(&invalid).map_err(|fault| fault.to_string())?,
            challenge,
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        if !self.on_preflight && *request.method == Method::OPTIONS {
            return Step::Continue;
        }
        if identify::is_known(request, self.anonymous.as_ref()) {
            return Step::Continue;
        }
        let found = self.authenticate(request);
        let found = found.map_err(|refusal| self.refuse(refusal));
        identify::conclude(request, self.anonymous.as_ref(), found).into()
    }
}

impl Jwt {
    fn refuse(&self, refusal: Refusal) -> Answer {
        let status = StatusCode::UNAUTHORIZED;
        let (answer, challenge) = match refusal {
            Refusal::Missing => (Answer::message(status, "Unauthorized"), &self.challenge),
            Refusal::Bad(message) => (Answer::message(status, message), &self.invalid),
            Refusal::Claims(errors) => (Answer::json(status, &errors.into()), &self.invalid),
        };
        answer.with(WWW_AUTHENTICATE, challenge.clone())
    }

    fn authenticate(&self, request: &Access<'_>) -> Result<Found, Refusal> {
        let text = self.find(request)?.ok_or(Refusal::Missing)?;
        let token = Token::parse(&text);
        let token = token.map_err(|what| Refusal::Bad(format!("Bad token; {what}").into()))?;
        let claim = &self.key_claim;
        let key = match token.claim_or_header(claim) {
            Some(Value::String(key)) if !key.is_empty() => key,
            Some(_) => return Err(Refusal::Bad(format!("Invalid '{claim}' in claims").into())),
            None => {
                let message = format!("No mandatory '{claim}' in claims");
                return Err(Refusal::Bad(message.into()));
            }
        };
        let credential = request.table.jwt_credential(request.workspace(), key);
        let credential = credential.ok_or_else(|| {
            Refusal::Bad(format!("No credentials found for given '{claim}'").into())
        })?;
        self.verify(request, &token, credential)?;
        self.check(&token, request.now)?;
        let consumer = request.table.consumer(credential.consumer.id);
        let consumer = consumer.ok_or_else(|| {
            Refusal::Bad(format!("Could not find consumer for '{claim}={key}'").into())
        })?;
        Ok(Found {
            consumer: Arc::clone(consumer),
            credential: Credential {
                kind: Some(Kind::JwtSecret),
                id: credential.id,
            },
            identifier: HeaderValue::from_str(&credential.key).ok(),
        })
    }

    /// The one token of a request.
    fn find<'r>(&self, request: &'r Access<'_>) -> Result<Option<Cow<'r, str>>, Refusal> {
        let mut found: Option<Cow<'r, str>> = None;
        let mut add = |token: Cow<'r, str>| match &found {
            _ if token.is_empty() => Ok(()),
            Some(other) if *other != token => Err("Multiple tokens provided"),
            Some(_) | None => {
                found = Some(token);
                Ok(())
            }
        };
        let query = request.query().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes());
        for (_, token) in pairs.filter(|(name, _)| self.parameters.iter().any(|one| one == name)) {
            add(token)?;
        }
        for name in &self.cookies {
            let token = cookies(request.headers, name).next();
            add(token.unwrap_or_default().into())?;
        }
        for name in &self.headers {
            let value = header(request.headers, name).unwrap_or_default();
            add(after_scheme(value, "bearer").unwrap_or_default().into())?;
        }
        Ok(found)
    }

    /// Whether a credential's owner signed the token.
    fn verify(
        &self,
        request: &Access<'_>,
        token: &Token<'_>,
        credential: &Stored<JwtSecret>,
    ) -> Result<(), Refusal> {
        // The credential says how: a token that chose could turn a public key into a secret.
        if token.alg() != credential.algorithm.as_deref().unwrap_or("HS256") {
            return Err("Invalid algorithm".into());
        }
        const NO_KEY: &str = "Invalid key/secret";
        let (message, by) = (token.message.as_bytes(), &*token.signature);
        let is_so = match token.algorithm {
            Algorithm::Hmac(algorithm) if self.secret_is_base64 => {
                let secret = base64(&credential.secret).ok_or(NO_KEY)?;
                signature::is_by_secret(algorithm, &secret, message, by)
            }
            Algorithm::Hmac(algorithm) => {
                signature::is_by_secret(algorithm, credential.secret.as_bytes(), message, by)
            }
            Algorithm::Private(scheme) => {
                let key = public_key(request, credential).ok_or(NO_KEY)?;
                signature::is_by_key(scheme, &key, message, by)
            }
        };
        is_so.then_some(()).ok_or("Invalid signature".into())
    }

    fn check(&self, token: &Token<'_>, now: u64) -> Result<(), Refusal> {
        let wrong = self.claims.iter().filter_map(|claim| {
            let error = token.check(*claim, now)?;
            Some((claim.name().to_owned(), error.into()))
        });
        let wrong: Map<String, Value> = wrong.collect();
        if !wrong.is_empty() {
            return Err(Refusal::Claims(wrong));
        }
        if self.seconds_max > 0.0 && !token.ends_within(self.seconds_max, now) {
            let error = "exceeds maximum allowed expiration".into();
            let wrong = Map::from_iter([(Claim::Exp.name().to_owned(), error)]);
            return Err(Refusal::Claims(wrong));
        }
        Ok(())
    }
}

/// The key of a credential, if it has one that can be used.
fn public_key(request: &Access<'_>, credential: &Stored<JwtSecret>) -> Option<Arc<PublicKey>> {
    let pem = credential.rsa_public_key.as_ref()?;
    let keys = request.state::<Jwt>();
    let stamp = Stamp::of(credential.id, credential.version, pem.as_bytes());
    keys.get(stamp, &[], request.now).unwrap_or_else(|| {
        let key = pki::any_key(pem).ok().map(Arc::new);
        let ends = request.now.saturating_add(KEY_SECONDS);
        keys.put(stamp, &[], key.clone(), ends);
        key
    })
}
