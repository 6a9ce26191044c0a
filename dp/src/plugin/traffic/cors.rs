//! `cors`: tells browsers which pages may send requests, and answers when they ask first.
//!
//! Deviation from Kong: patterns that need look-around are refused.

use crate::plugin::{Access, Answer, Entity, Phases, Plugin, Reply, Step};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use std::borrow::Cow;

const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");
const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const METHODS: &str = "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT";
const TRUE: HeaderValue = HeaderValue::from_static("true");
const ANY: HeaderValue = HeaderValue::from_static("*");
/// Most memory of a compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    origins: Option<Vec<String>>,
    headers: Option<Vec<String>>,
    exposed_headers: Option<Vec<String>>,
    methods: Option<Vec<String>>,
    max_age: Option<f64>,
    credentials: bool,
    private_network: bool,
    preflight_continue: bool,
    allow_origin_absent: bool,
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct Cors {
    origins: Origins,
    headers: Option<HeaderValue>,
    exposed: Option<HeaderValue>,
    methods: HeaderValue,
    max_age: Option<HeaderValue>,
    credentials: bool,
    private_network: bool,
    passes_preflight: bool,
    without_origin: bool,
}

#[derive(Debug)]
enum Origins {
    Any,
    /// This one, whatever the request's.
    One(HeaderValue),
    List(Vec<Allowed>),
}

#[derive(Debug)]
enum Allowed {
    Any,
    Origin(String),
    Pattern {
        regex: Regex,
        /// Matched with the host alone, as it says nothing of a scheme or a port.
        by_host: bool,
    },
}

/// What a response says of origins.
enum Said {
    /// Every one may.
    Any,
    /// This one may.
    Origin(HeaderValue),
    /// This one may not.
    Nothing,
}

/// Marks a request whose response says all already.
struct Preflight;

impl Plugin for Cors {
    const NAME: &'static str = "cors";
    const PRIORITY: i32 = 2000;
    const PHASES: Phases = Phases::ACCESS.and(Phases::RESPONSE);
    type Config = Fields;
    type State = ();

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        let methods = fields.methods.unwrap_or_else(|| vec![METHODS.to_owned()]);
        Ok(Self {
            origins: Origins::compile(fields.origins.unwrap_or_default())?,
            headers: joined(fields.headers)?,
            exposed: joined(fields.exposed_headers)?,
            methods: joined(Some(methods))?.unwrap_or(HeaderValue::from_static("")),
            max_age: fields
                .max_age
                .map(|age| value(&age.to_string()))
                .transpose()?,
            credentials: fields.credentials,
            private_network: fields.private_network,
            passes_preflight: fields.preflight_continue,
            without_origin: fields.allow_origin_absent,
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        let headers = &*request.headers;
        let asks = headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let origin = headers.get(ORIGIN);
        let (Some(origin), true, true) = (origin, asks, *request.method == Method::OPTIONS) else {
            return Step::Continue;
        };
        request.context.shared.insert(Preflight);
        if self.passes_preflight {
            return Step::Continue;
        }
        let mut answer = Answer::empty(StatusCode::OK);
        answer.headers = self.say(Some(origin));
        let mut add = |name, value| answer.headers.push((name, value));
        let wanted = || headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        if let Some(allowed) = self.headers.clone().or_else(wanted) {
            add(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        }
        add(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        if let Some(age) = &self.max_age {
            add(ACCESS_CONTROL_MAX_AGE, age.clone());
        }
        if self.private_network && headers.get(REQUEST_PRIVATE_NETWORK) == Some(&TRUE) {
            add(ALLOW_PRIVATE_NETWORK, TRUE);
        }
        Step::Answer(answer)
    }

    fn response(&self, reply: &mut Reply<'_>) {
        if reply.context.shared.get::<Preflight>().is_some() {
            return;
        }
        let origin = reply.request.headers.get(ORIGIN);
        if origin.is_none() && !self.without_origin {
            return;
        }
        reply.headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
        let mut said = self.say(origin);
        if let Some(exposed) = &self.exposed {
            said.push((ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone()));
        }
        for (name, value) in said {
            if name == VARY {
                reply.headers.append(name, value);
            } else {
                reply.headers.insert(name, value);
            }
        }
    }
}

impl Cors {
    /// What a request's origin is told. Without an `Access-Control-Allow-Origin` in it there must be none.
    fn say(&self, origin: Option<&HeaderValue>) -> Vec<(HeaderName, HeaderValue)> {
        let vary = (VARY, HeaderValue::from_static("Origin"));
        let mut said = Vec::new();
        if !matches!(self.origins, Origins::Any) {
            said.push(vary.clone());
        }
        match (self.origins.judge(origin), self.credentials, origin) {
            (Said::Any, true, Some(origin)) => {
                // Not even every origin may send credentials, only this one.
                if said.is_empty() {
                    said.push(vary);
                }
                said.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
                said.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE));
            }
            (Said::Any, true, None) | (Said::Any, false, _) => {
                said.push((ACCESS_CONTROL_ALLOW_ORIGIN, ANY));
            }
            (Said::Origin(origin), credentials, _) => {
                said.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin));
                if credentials {
                    said.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE));
                }
            }
            (Said::Nothing, credentials, _) => {
                if credentials {
                    said.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE));
                }
            }
        }
        said
    }
}

impl Origins {
    fn compile(origins: Vec<String>) -> Result<Self, String> {
        match origins.as_slice() {
            [] => return Ok(Self::Any),
            [one] if one == "*" => return Ok(Self::Any),
            [one] if is_plain(one) => return Ok(Self::One(value(one)?)),
            _ => {}
        }
        let allowed = origins.iter().map(|origin| Allowed::compile(origin));
        allowed.collect::<Result<_, _>>().map(Self::List)
    }

    fn judge(&self, origin: Option<&HeaderValue>) -> Said {
        let allowed = match self {
            Self::Any => return Said::Any,
            Self::One(one) => return Said::Origin(one.clone()),
            Self::List(allowed) => allowed,
        };
        let Some(Ok(origin)) = origin.map(HeaderValue::to_str) else {
            return Said::Nothing;
        };
        if allowed
            .iter()
            .any(|allowed| matches!(allowed, Allowed::Any))
        {
            return Said::Any;
        }
        let (normal, host) = normalize(origin);
        if allowed.iter().any(|allowed| allowed.covers(&normal, host)) {
            return HeaderValue::from_str(&normal).map_or(Said::Nothing, Said::Origin);
        }
        Said::Nothing
    }
}

impl Allowed {
    fn compile(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if is_plain(text) {
            return Ok(Self::Origin(normalize(text).0.into_owned()));
        }
        let pattern = text.strip_prefix('^').unwrap_or(text);
        let pattern = pattern.strip_suffix('$').unwrap_or(pattern);
        let regex = RegexBuilder::new(&format!("^(?:{pattern})$"))
            .size_limit(PATTERN_BYTES_MAX)
            .build();
        Ok(Self::Pattern {
            regex: regex.map_err(|error| error.to_string())?,
            by_host: !text.contains(':'),
        })
    }

    fn covers(&self, normal: &str, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Origin(origin) => origin == normal,
            Self::Pattern { regex, by_host } => {
                regex.is_match(if *by_host { host } else { normal })
            }
        }
    }
}

/// Whether a text is an origin and no pattern.
fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:/-".contains(&byte);
    text.bytes().all(plain)
}

/// An origin without a path and without the port that its scheme has anyway; and its host.
fn normalize(origin: &str) -> (Cow<'_, str>, &str) {
    let Some((scheme, rest)) = origin.split_once("://") else {
        return (origin.into(), origin);
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port))
            if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            (host, Some(port))
        }
        Some(_) | None => (authority, None),
    };
    match (scheme, port) {
        ("http", Some("80")) | ("https", Some("443")) | (_, None) => {
            (format!("{scheme}://{host}").into(), host)
        }
        (_, Some(port)) => (format!("{scheme}://{host}:{port}").into(), host),
    }
}

fn value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| format!("`{text}` cannot be a header's value"))
}

fn joined(texts: Option<Vec<String>>) -> Result<Option<HeaderValue>, String> {
    let texts = texts.filter(|texts| !texts.is_empty());
    texts.map(|texts| value(&texts.join(","))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_without_the_ports_they_have_anyway() {
        let check = |text: &str, normal: &str, host: &str| {
            assert_eq!(normalize(text), (normal.into(), host), "{text}");
        };
        check("http://a.test:80", "http://a.test", "a.test");
        check("https://a.test:443/x", "https://a.test", "a.test");
        check("https://a.test:80", "https://a.test:80", "a.test");
        check("null", "null", "null");
    }
}
