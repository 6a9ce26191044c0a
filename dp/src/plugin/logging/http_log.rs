//! `http-log`: requests as JSON to an HTTP server: one object, or a list if `queue.max_batch_size` is above 1.
//!
//! As in Kong the server's certificate is not verified, and any status below 400 counts as taken. Deviations: no
//! `custom_fields_by_lua`; `retry_count`, `queue_size` and `flush_timeout` are taken and mean nothing, as in Kong 3.

use super::{Entry, LuaFields, warn_of_lua};
use crate::plugin::call::{Bounds, Caller, Way, milliseconds};
use crate::plugin::queue::{Outlet, Outlets, Parameters, QueueFields, Sink, Undelivered};
use crate::plugin::{Change, Entity, Phases, Plugin, Record};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What is read of an answer.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    http_endpoint: String,
    #[serde(default = "post")]
    method: String,
    #[serde(default = "json")]
    content_type: String,
    #[serde(default = "ten_seconds")]
    timeout: f64,
    #[serde(default = "minute")]
    keepalive: f64,
    #[serde(default)]
    headers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    queue: QueueFields,
    #[serde(default)]
    custom_fields_by_lua: LuaFields,
}

fn post() -> String {
    "POST".into()
}

fn json() -> String {
    "application/json".into()
}

fn ten_seconds() -> f64 {
    10_000.0
}

fn minute() -> f64 {
    60_000.0
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct HttpLog(Outlet);

impl Plugin for HttpLog {
    const NAME: &'static str = "http-log";
    const PRIORITY: i32 = 12;
    const PHASES: Phases = Phases::LOG;
    type Config = Fields;
    type State = Outlets;

    fn compile(fields: Fields, entity: &Entity<'_>) -> Result<Self, String> {
        warn_of_lua(Self::NAME, &fields.custom_fields_by_lua);
        let parameters = Parameters::from(&fields.queue);
        let server = Server::new(&fields, parameters)?;
        Ok(Self(Outlet::new(entity, Self::NAME, parameters, server)))
    }

    fn changed(outlets: &Outlets, change: Change<'_, Self>) {
        outlets.changed(&change, |plugin| &plugin.0);
    }

    fn log(&self, record: &Record<'_>) {
        self.0
            .push(record.state::<Self>(), Entry::of(record).json());
    }
}

struct Server {
    uri: Uri,
    method: Method,
    headers: HeaderMap,
    way: Way,
    bounds: Bounds,
    /// Whether batches are lists.
    lists: bool,
}

impl Server {
    fn new(fields: &Fields, parameters: Parameters) -> Result<Self, String> {
        let (uri, authorization) = endpoint(&fields.http_endpoint)?;
        let mut headers = headers(fields.headers.iter().flatten())?;
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        let content_type = HeaderValue::from_str(&fields.content_type);
        let content_type = content_type.map_err(|_| "content_type is not a header's value")?;
        headers.insert(header::CONTENT_TYPE, content_type);
        let timeout = milliseconds(fields.timeout);
        Ok(Self {
            uri,
            method: Method::from_bytes(fields.method.as_bytes())
                .map_err(|_| "method is not a method")?,
            headers,
            way: Way {
                verify: false,
                connect_timeout: timeout,
                keepalive: milliseconds(fields.keepalive),
            },
            bounds: Bounds {
                timeout,
                bytes_max: ANSWER_BYTES_MAX,
            },
            lists: parameters.batch_max > 1,
        })
    }
}

impl Sink for Server {
    fn deliver<'a>(
        &'a self,
        caller: &'a Caller,
        batch: &'a [Bytes],
    ) -> BoxFuture<'a, Result<(), Undelivered>> {
        Box::pin(async move {
            let body = match batch {
                [one] if !self.lists => one.clone(),
                several => list(several),
            };
            let mut request = Request::new(Full::new(body));
            *request.method_mut() = self.method.clone();
            *request.uri_mut() = self.uri.clone();
            *request.headers_mut() = self.headers.clone();
            accepted(caller.call(self.way, self.bounds, request).await)
        })
    }
}

/// Whether an answer says that a batch was taken.
pub(crate) fn accepted(
    answer: Result<http::Response<Bytes>, crate::plugin::call::CallError>,
) -> Result<(), Undelivered> {
    let status = answer.map_err(Undelivered::later)?.status();
    if status.as_u16() < 400 {
        return Ok(());
    }
    Err(Undelivered::later(format_args!(
        "the server answered {status}"
    )))
}

/// Entries as a JSON list.
pub(crate) fn list(entries: &[Bytes]) -> Bytes {
    let bytes: usize = entries.iter().map(|entry| entry.len() + 1).sum();
    let mut list = Vec::with_capacity(bytes + 1);
    list.push(b'[');
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            list.push(b',');
        }
        list.extend_from_slice(entry);
    }
    list.push(b']');
    list.into()
}

/// The headers of a configuration.
///
/// # Errors
/// If a name or a value cannot be sent. Values are not quoted.
pub(crate) fn headers<'a>(
    fields: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let refused = |_| format!("header `{name}` cannot be sent");
        let value =
            HeaderValue::from_str(value).map_err(|_| format!("header `{name}` cannot be sent"))?;
        headers.insert(HeaderName::try_from(name).map_err(refused)?, value);
    }
    Ok(headers)
}

/// A URL without its user, and the user as a header.
///
/// # Errors
/// If it is no absolute URL. It is not quoted: it may hold a password.
pub(crate) fn endpoint(url: &str) -> Result<(Uri, Option<HeaderValue>), String> {
    let refused = || "the URL of the server cannot be used".to_owned();
    let (scheme, rest) = url.split_once("://").ok_or_else(refused)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let target = target.split('#').next().unwrap_or_default();
    let slash = if target.starts_with('/') { "" } else { "/" };
    let uri: Uri = format!("{scheme}://{host}{slash}{target}")
        .parse()
        .map_err(|_| refused())?;
    let user = user.map(|user| {
        let user: Vec<u8> = percent_decode_str(user).collect();
        let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(user)));
        if let Ok(value) = &mut value {
            value.set_sensitive(true);
        }
        value
    });
    let user = user.transpose().map_err(|_| refused())?;
    Ok((uri, user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_in_the_url_becomes_a_header() {
        let check = |url: &str, expected: &str, user: Option<&str>| {
            let (uri, found) = endpoint(url).unwrap();
            assert_eq!(uri.to_string(), expected);
            assert_eq!(found.as_ref().map(|value| value.to_str().unwrap()), user);
        };
        check("http://a.test", "http://a.test/", None);
        check("https://a.test:1/b?c=@", "https://a.test:1/b?c=@", None);
        check("http://a.test?b", "http://a.test/?b", None);
        check(
            "http://u:p%40@a.test/x#y",
            "http://a.test/x",
            Some("Basic dTpwQA=="),
        );
        assert!(endpoint("a.test").is_err());
    }

    #[test]
    fn a_batch_is_a_list() {
        assert_eq!(&*list(&["{}".into(), "1".into()]), b"[{},1]");
    }
}
