//! `key-auth`: who the client is, by a key in a header or in the query.

use super::phase::{Access, Answer, Flow, Identity};
use crate::table::Consumer;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use std::borrow::Cow;
use std::sync::Arc;
use uuid::Uuid;

const CONSUMER_ID: HeaderName = HeaderName::from_static("x-consumer-id");
const CONSUMER_CUSTOM_ID: HeaderName = HeaderName::from_static("x-consumer-custom-id");
const CONSUMER_USERNAME: HeaderName = HeaderName::from_static("x-consumer-username");
const CREDENTIAL_IDENTIFIER: HeaderName = HeaderName::from_static("x-credential-identifier");
const ANONYMOUS_CONSUMER: HeaderName = HeaderName::from_static("x-anonymous-consumer");

/// The fields of the entity's `config`.
#[derive(Deserialize)]
#[serde(default)]
pub(crate) struct Fields {
    key_names: Vec<String>,
    hide_credentials: bool,
    anonymous: Option<String>,
    key_in_header: bool,
    key_in_query: bool,
    key_in_body: bool,
    run_on_preflight: bool,
    realm: Option<String>,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            key_names: vec!["apikey".into()],
            hide_credentials: false,
            anonymous: None,
            key_in_header: true,
            key_in_query: true,
            key_in_body: false,
            run_on_preflight: true,
            realm: None,
        }
    }
}

/// The prepared configuration.
#[derive(Debug)]
pub struct Config {
    names: Vec<Name>,
    in_query: bool,
    hide: bool,
    anonymous: Option<String>,
    on_preflight: bool,
    challenge: HeaderValue,
}

#[derive(Debug)]
struct Name {
    text: String,
    /// Where headers are looked at.
    header: Option<HeaderName>,
    /// To hide the key, wherever it was found.
    any_header: Option<HeaderName>,
}

/// Why a request is not authenticated.
enum Refusal {
    Missing,
    Duplicate,
    Unknown,
}

impl Config {
    pub(super) fn compile(fields: Fields) -> Self {
        if fields.key_in_body {
            tracing::warn!("key-auth does not read keys from bodies; key_in_body has no effect");
        }
        let name = |text: String| {
            let any_header: Option<HeaderName> = text.parse().ok();
            let header = any_header.clone().filter(|_| fields.key_in_header);
            Name {
                text,
                header,
                any_header,
            }
        };
        let challenge = fields.realm.map(|realm| format!("Key realm=\"{realm}\""));
        Self {
            names: fields.key_names.into_iter().map(name).collect(),
            in_query: fields.key_in_query,
            hide: fields.hide_credentials,
            anonymous: fields.anonymous,
            on_preflight: fields.run_on_preflight,
            challenge: challenge
                .and_then(|text| HeaderValue::try_from(text).ok())
                .unwrap_or(HeaderValue::from_static("Key")),
        }
    }

    pub(super) fn access(&self, request: &mut Access<'_, '_>) -> Flow {
        if !self.on_preflight && *request.method == Method::OPTIONS {
            return Flow::Continue;
        }
        if self.anonymous.is_some() && request.identity.credential.is_some() {
            // Another authentication plugin has succeeded: with `anonymous`, either is enough.
            return Flow::Continue;
        }
        match (self.authenticate(request), &self.anonymous) {
            (Ok((consumer, credential)), _) => {
                identify(
                    request,
                    Identity {
                        consumer: Some(consumer),
                        credential: Some(credential),
                    },
                );
                Flow::Continue
            }
            (Err(refusal), None) => Flow::Answer(self.refuse(&refusal)),
            (Err(_), Some(name)) => {
                let Some(consumer) = request.table.consumer_named(request.workspace, name) else {
                    return Flow::Answer(Answer {
                        status: StatusCode::INTERNAL_SERVER_ERROR,
                        message: Cow::Owned(format!(
                            "anonymous consumer {name} is configured but doesn't exist"
                        )),
                        headers: Vec::new(),
                    });
                };
                let consumer = Some(Arc::clone(consumer));
                identify(
                    request,
                    Identity {
                        consumer,
                        credential: None,
                    },
                );
                Flow::Continue
            }
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Answer {
        let message = match refusal {
            Refusal::Missing => "No API key found in request",
            Refusal::Duplicate => "Duplicate API key found",
            Refusal::Unknown => "Unauthorized",
        };
        Answer {
            status: StatusCode::UNAUTHORIZED,
            message: Cow::Borrowed(message),
            headers: vec![(header::WWW_AUTHENTICATE, self.challenge.clone())],
        }
    }

    /// The consumer and the credential. A credential whose consumer cannot be used is worth nothing.
    fn authenticate(&self, request: &mut Access<'_, '_>) -> Result<(Arc<Consumer>, Uuid), Refusal> {
        let (name, key) = self.find(request)?;
        let table = request.table;
        let found = table.key_credential(request.workspace, &key);
        if self.hide {
            hide(name, request);
        }
        let credential = found.ok_or(Refusal::Unknown)?;
        let lives = credential
            .ttl
            .is_none_or(|ttl| credential.created_at.saturating_add(ttl) > request.now);
        if !lives || !equal(credential.key.as_bytes(), key.as_bytes()) {
            return Err(Refusal::Unknown);
        }
        let consumer = table
            .consumer(credential.consumer)
            .ok_or(Refusal::Unknown)?;
        Ok((Arc::clone(consumer), credential.id))
    }

    /// The first key found, in the order of the names, and for each name in headers, then in the query.
    fn find(&self, request: &Access<'_, '_>) -> Result<(&Name, String), Refusal> {
        for name in &self.names {
            if let Some(header) = &name.header {
                let mut values = request.headers.get_all(header).iter();
                if let Some(value) = values.next() {
                    if values.next().is_some() {
                        return Err(Refusal::Duplicate);
                    }
                    let key = value.to_str().unwrap_or_default();
                    return if key.is_empty() {
                        Err(Refusal::Missing)
                    } else {
                        Ok((name, key.to_owned()))
                    };
                }
            }
            let Some(query) = request.query.as_deref().filter(|_| self.in_query) else {
                continue;
            };
            let mut values =
                pairs(query).filter(|pair| pair.contains('=') && is_named(pair, &name.text));
            if let Some(pair) = values.next() {
                if values.next().is_some() {
                    return Err(Refusal::Duplicate);
                }
                let value = form_urlencoded::parse(pair.as_bytes())
                    .next()
                    .map(|(_, value)| value);
                let key = value.unwrap_or_default();
                return if key.is_empty() {
                    Err(Refusal::Missing)
                } else {
                    Ok((name, key.into_owned()))
                };
            }
        }
        Err(Refusal::Missing)
    }
}

fn pairs(query: &str) -> impl Iterator<Item = &str> {
    query.split('&')
}

fn is_named(pair: &str, name: &str) -> bool {
    let first = form_urlencoded::parse(pair.as_bytes()).next();
    first.is_some_and(|(found, _)| found == name)
}

/// Takes the key out of what goes upstream.
fn hide(name: &Name, request: &mut Access<'_, '_>) {
    if let Some(header) = &name.any_header {
        request.headers.remove(header);
    }
    let Some(query) = &request.query else { return };
    if pairs(query).any(|pair| is_named(pair, &name.text)) {
        let kept: Vec<_> = pairs(query)
            .filter(|pair| !is_named(pair, &name.text))
            .collect();
        let kept = kept.join("&");
        request.query = Some(kept).filter(|kept| !kept.is_empty()).map(Cow::Owned);
    }
}

/// Tells the upstream who the client is.
fn identify(request: &mut Access<'_, '_>, identity: Identity) {
    let headers = &mut *request.headers;
    let consumer = identity.consumer.as_deref();
    set(
        headers,
        CONSUMER_ID,
        consumer.map(|consumer| uuid_value(consumer.id)),
    );
    let text = |text: Option<&String>| text.and_then(|text| HeaderValue::from_str(text).ok());
    set(
        headers,
        CONSUMER_CUSTOM_ID,
        text(consumer.and_then(|consumer| consumer.custom_id.as_ref())),
    );
    set(
        headers,
        CONSUMER_USERNAME,
        text(consumer.and_then(|consumer| consumer.username.as_ref())),
    );
    set(
        headers,
        CREDENTIAL_IDENTIFIER,
        identity.credential.map(uuid_value),
    );
    let anonymous = identity
        .credential
        .is_none()
        .then(|| HeaderValue::from_static("true"));
    set(headers, ANONYMOUS_CONSUMER, anonymous);
    request.identity = identity;
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => headers.insert(name, value),
        None => headers.remove(name),
    };
}

fn uuid_value(id: Uuid) -> HeaderValue {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = id.hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).expect("a UUID's text is a valid header value")
}

/// Compares in a time that depends on the lengths only.
fn equal(one: &[u8], two: &[u8]) -> bool {
    let difference = one
        .iter()
        .zip(two)
        .fold(0, |difference, (one, two)| difference | (one ^ two));
    one.len() == two.len() && std::hint::black_box(difference) == 0
}
