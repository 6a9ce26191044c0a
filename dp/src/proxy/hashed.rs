//! What of a request is hashed, for upstreams with consistent hashing.

use crate::balance;
use crate::plugin::Identity;
use crate::table::{Algorithm, Captures, Hash, HashOn, Upstream};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use uuid::Uuid;

/// A request as its plugins leave it.
pub(super) struct Hashed<'a> {
    pub(super) headers: &'a HeaderMap,
    /// As trusted proxies tell it.
    pub(super) client: IpAddr,
    pub(super) identity: &'a Identity,
    /// The canonical path.
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) captures: Option<&'a Captures>,
}

impl Hashed<'_> {
    /// The hash of what the upstream wants, else of what it falls back to, else of nothing: requests without either
    /// all go to one target. A cookie that is missing is made. Most upstreams want none.
    pub(super) fn hash(
        &self,
        upstream: Option<&Arc<Upstream>>,
        response: &mut Vec<(HeaderName, HeaderValue)>,
    ) -> u64 {
        let by = match wanted(upstream) {
            Ok(by) => by,
            Err(hash) => return hash,
        };
        let mut value = |on| self.value(on, by, response);
        let found = value(&by.on).or_else(|| value(&by.fallback));
        balance::hash(&found.unwrap_or_default())
    }

    fn value(
        &self,
        on: &HashOn,
        by: &Hash,
        response: &mut Vec<(HeaderName, HeaderValue)>,
    ) -> Option<Cow<'_, [u8]>> {
        match on {
            HashOn::None => None,
            HashOn::Consumer => {
                let consumer = self.identity.consumer.as_ref();
                let id = consumer
                    .map(|consumer| consumer.id)
                    .or(self.identity.credential.map(|credential| credential.id))?;
                Some(Cow::Owned(id.as_bytes().to_vec()))
            }
            HashOn::Ip => Some(Cow::Owned(address(self.client))),
            HashOn::Header(name) => {
                joined(self.headers.get_all(name).iter().map(HeaderValue::as_bytes))
            }
            HashOn::Cookie => Some(match self.cookie(&by.cookie) {
                Some(value) => Cow::Borrowed(value),
                None => Cow::Owned(make_cookie(by, response)?),
            }),
            HashOn::Path => Some(Cow::Borrowed(self.path.as_bytes())),
            HashOn::QueryArg(name) => self.argument(name),
            HashOn::UriCapture(group) => {
                let captures = self.captures?;
                let value = match group.parse() {
                    Ok(number) => captures.numbered(number),
                    Err(_) => captures.named(group),
                };
                value.map(|value| Cow::Owned(value.as_bytes().to_vec()))
            }
        }
    }

    fn cookie(&self, name: &str) -> Option<&[u8]> {
        let headers = self.headers.get_all(header::COOKIE).iter();
        let mut pairs = headers.flat_map(|header| header.as_bytes().split(|byte| *byte == b';'));
        pairs.find_map(|pair| {
            let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
            value.strip_prefix(b"=").filter(|value| !value.is_empty())
        })
    }

    fn argument(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let pairs = form_urlencoded::parse(self.query?.as_bytes());
        let mut values: Vec<_> = pairs
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value)
            .collect();
        values.sort_unstable();
        let values = values.iter().map(|value| value.as_bytes());
        joined(values).map(|joined| Cow::Owned(joined.into_owned()))
    }
}

/// The same for a stream. Of all that can be hashed it has the client's address.
pub(super) fn of_stream(upstream: Option<&Arc<Upstream>>, client: IpAddr) -> u64 {
    let by = match wanted(upstream) {
        Ok(by) => by,
        Err(hash) => return hash,
    };
    let by_address = [&by.on, &by.fallback].contains(&&HashOn::Ip);
    let value = by_address.then(|| address(client));
    balance::hash(&value.unwrap_or_default())
}

/// What is to be hashed; else the hash that goes without.
fn wanted(upstream: Option<&Arc<Upstream>>) -> Result<&Hash, u64> {
    match upstream {
        Some(upstream) if upstream.algorithm == Algorithm::ConsistentHashing => {
            // Without anything to hash they are spread.
            if upstream.hash.on == HashOn::None {
                return Err(balance::hash(Uuid::new_v4().as_bytes()));
            }
            Ok(&upstream.hash)
        }
        Some(_) | None => Err(0),
    }
}

fn address(client: IpAddr) -> Vec<u8> {
    client.to_string().into_bytes()
}

/// Values joined by commas; `None` of none.
fn joined<'v>(mut values: impl Iterator<Item = &'v [u8]>) -> Option<Cow<'v, [u8]>> {
    let first = values.next()?;
    let mut all = Cow::Borrowed(first);
    for value in values {
        all.to_mut().push(b',');
        all.to_mut().extend_from_slice(value);
    }
    Some(all)
}

/// A value for the cookie, which the client gets along with the answer.
fn make_cookie(by: &Hash, response: &mut Vec<(HeaderName, HeaderValue)>) -> Option<Vec<u8>> {
    let value = Uuid::new_v4().to_string();
    let (name, path) = (&by.cookie, &by.cookie_path);
    let cookie = format!("{name}={value}; Path={path}; HttpOnly; SameSite=Lax");
    response.push((header::SET_COOKIE, HeaderValue::try_from(cookie).ok()?));
    Some(value.into_bytes())
}
