//! `key-auth`: who the client is, by a key in a header, in the query or in the body.
//!
//! Deviations from Kong: keys are not looked for in bodies of `multipart/form-data`, nor in such as are larger than
//! [`BODY_BYTES_MAX`].

use super::identify::{self, Found, equal, uuid_value};
use crate::plugin::{Access, Answer, Credential, Entity, Flow, Phases, Plugin, Step, Waiting};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Map, Value};
use sluice_schema::kind::Kind;
use std::borrow::Cow;
use std::sync::Arc;

/// The longest body that is read for a key.
const BODY_BYTES_MAX: usize = 256 * 1024;

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
pub(crate) struct KeyAuth {
    names: Vec<Name>,
    in_query: bool,
    in_body: bool,
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

/// Where a key may be.
enum Search<'n> {
    Found(&'n Name, String),
    Refused(Refusal),
    /// In the body, which is not here.
    Body,
}

impl Plugin for KeyAuth {
    const NAME: &'static str = "key-auth";
    const PRIORITY: i32 = 1250;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Fields;
    type State = ();

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
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
        Ok(Self {
            names: fields.key_names.into_iter().map(name).collect(),
            in_query: fields.key_in_query,
            in_body: fields.key_in_body,
            hide: fields.hide_credentials,
            anonymous: fields.anonymous,
            on_preflight: fields.run_on_preflight,
            challenge: challenge
                .and_then(|text| HeaderValue::try_from(text).ok())
                .unwrap_or(HeaderValue::from_static("Key")),
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        if !self.on_preflight && *request.method == Method::OPTIONS {
            return Step::Continue;
        }
        if identify::is_known(request, self.anonymous.as_ref()) {
            return Step::Continue;
        }
        match self.find(request, None) {
            Search::Body => Step::Wait,
            found @ (Search::Found(..) | Search::Refused(_)) => {
                self.conclude(request, found, None).into()
            }
        }
    }

    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a> {
        Box::pin(async move {
            // A body that cannot be read holds no key.
            let body = request.body(BODY_BYTES_MAX).await.unwrap_or_default();
            let form = Form::parse(request, &body);
            let found = self.find(request, Some(&form));
            self.conclude(request, found, Some(form))
        })
    }
}

impl KeyAuth {
    fn conclude(
        &self,
        request: &mut Access<'_>,
        search: Search<'_>,
        form: Option<Form<'_>>,
    ) -> Flow {
        let found = match search {
            Search::Found(name, key) => self.authenticate(request, name, &key, form),
            Search::Refused(refusal) => Err(refusal),
            Search::Body => Err(Refusal::Missing),
        };
        let found = found.map_err(|refusal| self.refuse(&refusal));
        identify::conclude(request, self.anonymous.as_ref(), found)
    }

    fn refuse(&self, refusal: &Refusal) -> Answer {
        let message = match refusal {
            Refusal::Missing => "No API key found in request",
            Refusal::Duplicate => "Duplicate API key found",
            Refusal::Unknown => "Unauthorized",
        };
        Answer::message(StatusCode::UNAUTHORIZED, message)
            .with(header::WWW_AUTHENTICATE, self.challenge.clone())
    }

    /// The consumer and the credential. A credential whose consumer cannot be used is worth nothing.
    fn authenticate(
        &self,
        request: &mut Access<'_>,
        name: &Name,
        key: &str,
        form: Option<Form<'_>>,
    ) -> Result<Found, Refusal> {
        let table = request.table;
        let found = table.key_credential(request.workspace(), key);
        if self.hide {
            hide(name, request, form);
        }
        let credential = found.ok_or(Refusal::Unknown)?;
        let lives = credential
            .ttl
            .is_none_or(|ttl| credential.created_at.saturating_add(ttl) > request.now);
        if !lives || !equal(credential.key.as_bytes(), key.as_bytes()) {
            return Err(Refusal::Unknown);
        }
        let consumer = table
            .consumer(credential.consumer.id)
            .ok_or(Refusal::Unknown)?;
        Ok(Found {
            consumer: Arc::clone(consumer),
            credential: Credential {
                kind: Some(Kind::KeyauthCredential),
                id: credential.id,
            },
            identifier: Some(uuid_value(credential.id)),
        })
    }

    /// The first key found, in the order of the names, and for each name in headers, in the query, in the body.
    fn find(&self, request: &Access<'_>, form: Option<&Form<'_>>) -> Search<'_> {
        for name in &self.names {
            let found = self
                .in_head(name, request)
                .or_else(|| match (self.in_body, form) {
                    (true, Some(form)) => form.key(&name.text),
                    (true, None) | (false, _) => None,
                });
            match found {
                Some(Ok(key)) if key.is_empty() => return Search::Refused(Refusal::Missing),
                Some(Ok(key)) => return Search::Found(name, key),
                Some(Err(refusal)) => return Search::Refused(refusal),
                None if self.in_body && form.is_none() && Form::may_be(request) => {
                    return Search::Body;
                }
                None => {}
            }
        }
        Search::Refused(Refusal::Missing)
    }

    /// A key by this name, perhaps an empty one.
    fn in_head(&self, name: &Name, request: &Access<'_>) -> Option<Result<String, Refusal>> {
        if let Some(header) = &name.header {
            let mut values = request.headers.get_all(header).iter();
            if let Some(value) = values.next() {
                let key = value.to_str().unwrap_or_default();
                return Some(match values.next() {
                    Some(_) => Err(Refusal::Duplicate),
                    None => Ok(key.to_owned()),
                });
            }
        }
        let query = request.query().filter(|_| self.in_query)?;
        in_pairs(query, &name.text)
    }
}

/// The value of a name in a query or in a form.
fn in_pairs(query: &str, name: &str) -> Option<Result<String, Refusal>> {
    let mut values = pairs(query).filter(|pair| pair.contains('=') && is_named(pair, name));
    let pair = values.next()?;
    if values.next().is_some() {
        return Some(Err(Refusal::Duplicate));
    }
    let value = form_urlencoded::parse(pair.as_bytes()).next();
    Some(Ok(value
        .map(|(_, value)| value)
        .unwrap_or_default()
        .into_owned()))
}

fn pairs(query: &str) -> impl Iterator<Item = &str> {
    query.split('&')
}

fn is_named(pair: &str, name: &str) -> bool {
    let first = form_urlencoded::parse(pair.as_bytes()).next();
    first.is_some_and(|(found, _)| found == name)
}

/// The type of the body, without its parameters.
fn content_type<'a>(request: &'a Access<'_>) -> &'a str {
    let kind = request.headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim()
}

/// What a body says by names.
enum Form<'b> {
    None,
    Pairs(Cow<'b, str>),
    Json(Map<String, Value>),
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

impl<'b> Form<'b> {
    /// Whether the body has a type that can be read. Others may be streams without an end.
    fn may_be(request: &Access<'_>) -> bool {
        let is = |name: &str| content_type(request).eq_ignore_ascii_case(name);
        request.has_body() && (is(FORM) || is(JSON))
    }

    fn parse(request: &Access<'_>, body: &'b [u8]) -> Self {
        let kind = content_type(request);
        if kind.eq_ignore_ascii_case(FORM) {
            return Self::Pairs(String::from_utf8_lossy(body));
        }
        if kind.eq_ignore_ascii_case(JSON) {
            return serde_json::from_slice(body).map_or(Self::None, Self::Json);
        }
        Self::None
    }

    fn key(&self, name: &str) -> Option<Result<String, Refusal>> {
        match self {
            Self::None => None,
            Self::Pairs(pairs) => in_pairs(pairs, name),
            Self::Json(fields) => match fields.get(name)? {
                Value::String(key) => Some(Ok(key.clone())),
                Value::Array(_) => Some(Err(Refusal::Duplicate)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
            },
        }
    }
}

/// Takes the key out of what goes upstream.
fn hide(name: &Name, request: &mut Access<'_>, form: Option<Form<'_>>) {
    if let Some(header) = &name.any_header {
        request.headers.remove(header);
    }
    if let Some(query) = request.query()
        && let Some(kept) = without(query, &name.text)
    {
        request.set_query(Some(kept).filter(|kept| !kept.is_empty()));
    }
    match form {
        Some(Form::Pairs(form)) => {
            if let Some(kept) = without(&form, &name.text) {
                request.set_body(kept);
            }
        }
        Some(Form::Json(mut fields)) => {
            if fields.remove(&name.text).is_some() {
                request.set_body(Value::Object(fields).to_string());
            }
        }
        Some(Form::None) | None => {}
    }
}

/// The pairs that do not have this name, if any has.
fn without(query: &str, name: &str) -> Option<String> {
    pairs(query).any(|pair| is_named(pair, name)).then(|| {
        let kept: Vec<_> = pairs(query).filter(|pair| !is_named(pair, name)).collect();
        kept.join("&")
    })
}
