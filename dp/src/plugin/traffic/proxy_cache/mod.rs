//! `proxy-cache`: keeps answers in memory and gives them again.
//!
//! What is kept belongs to one form of the plugin's entity: whatever changes it empties its cache. It is looked up and purged
//! on the status listener ([`Store::answer`](store::Store)), under Kong's paths; purging only from the machine itself.
//! Deviations: `memory.dictionary_name` is ignored, all plugins share 128 MiB; the key is of another hash than Kong's; bodies of more
//! than 8 MiB are not kept; `Server`, `Via` and `X-Kong-…` are those of the answer, not of the one that was kept.

mod control;
mod store;

use crate::plugin::{
    Access, Answer, BodyFilter, Change, Content, Entity, Phases, Plugin, Reply, Stamp, Step,
};
use bytes::{Bytes, BytesMut};
use control::{ContentType, Control, is_kept, lifetime};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use store::{Kept, Key, Status, Store};

const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
const CACHE_STATUS: HeaderName = HeaderName::from_static("x-cache-status");
const CACHE_KEY: HeaderName = HeaderName::from_static("x-cache-key");

/// The fields of the entity's `config`.
#[derive(Deserialize)]
#[serde(default)]
pub(crate) struct Fields {
    response_code: Vec<u16>,
    request_method: Vec<String>,
    content_type: Vec<String>,
    cache_ttl: u64,
    cache_control: bool,
    ignore_uri_case: Option<bool>,
    storage_ttl: Option<u64>,
    vary_query_params: Option<Vec<String>>,
    vary_headers: Option<Vec<String>>,
    response_headers: Shown,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            response_code: vec![200, 301, 404],
            request_method: vec!["GET".into(), "HEAD".into()],
            content_type: vec!["text/plain".into(), "application/json".into()],
            cache_ttl: 300,
            cache_control: false,
            ignore_uri_case: None,
            storage_ttl: None,
            vary_query_params: None,
            vary_headers: None,
            response_headers: Shown::default(),
        }
    }
}

/// Which headers clients see.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Shown {
    age: bool,
    #[serde(rename = "X-Cache-Status")]
    status: bool,
    #[serde(rename = "X-Cache-Key")]
    key: bool,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            age: true,
            status: true,
            key: true,
        }
    }
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct ProxyCache {
    stamp: Stamp,
    codes: Vec<u16>,
    methods: Vec<Method>,
    types: Vec<ContentType>,
    ttl: u64,
    storage_ttl: Option<u64>,
    control: bool,
    ignore_case: bool,
    params: Option<Vec<String>>,
    headers: Vec<HeaderName>,
    shown: Shown,
}

/// A request whose answer may be kept.
struct Pending(Vec<Key>);

impl Plugin for ProxyCache {
    const NAME: &'static str = "proxy-cache";
    const PRIORITY: i32 = 100;
    const PHASES: Phases = Phases::ACCESS.and(Phases::RESPONSE);
    type Config = Fields;
    type State = Store;

    fn compile(fields: Fields, entity: &Entity<'_>) -> Result<Self, String> {
        let methods = fields.request_method.iter();
        let methods = methods.filter_map(|method| method.parse().ok());
        let types = fields.content_type.iter();
        let types = types.filter_map(|text| ContentType::parse(text));
        let mut headers = Vec::new();
        for name in fields.vary_headers.unwrap_or_default() {
            let parsed = name.parse::<HeaderName>();
            headers.push(parsed.map_err(|_| format!("'{name}' is not a valid header"))?);
        }
        headers.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        let mut params = fields.vary_query_params;
        if let Some(params) = &mut params {
            params.sort();
        }
        Ok(Self {
            stamp: entity.stamp,
            codes: fields.response_code,
            methods: methods.collect(),
            types: types.collect(),
            ttl: fields.cache_ttl,
            storage_ttl: fields.storage_ttl,
            control: fields.cache_control,
            ignore_case: fields.ignore_uri_case.unwrap_or_default(),
            params,
            headers,
            shown: fields.response_headers,
        })
    }

    fn changed(store: &Store, change: Change<'_, Self>) {
        match change {
            Change::Created { .. } => {}
            Change::Updated { before, .. } | Change::Deleted { before, .. } => {
                store.forget(before.stamp.id);
            }
        }
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        let store = request.state::<Self>();
        let control = if self.control {
            Control::of(request.headers)
        } else {
            Control::default()
        };
        if !self.may_ask(request, &control) {
            return self.go_on(request, store, Status::Bypass);
        }
        let key = Key {
            stamp: self.stamp,
            hash: self.key(request),
        };
        if self.shown.key {
            // Hexadecimal.
            let value = HeaderValue::from_str(&key.to_string());
            request
                .response_headers
                .extend(value.ok().map(|value| (CACHE_KEY, value)));
        }
        let now = request.now;
        let status = match store.get(key, now) {
            Some(kept) if self.is_fresh(&kept, &control, now) => {
                store.count(Status::Hit);
                return Step::Answer(self.answer(&kept, request));
            }
            Some(_) => Status::Refresh,
            None if control.has("only-if-cached") => {
                return Step::Answer(Answer::message(
                    StatusCode::GATEWAY_TIMEOUT,
                    "The upstream server is timing out",
                ));
            }
            None => Status::Miss,
        };
        match request.context.shared.get_mut::<Pending>() {
            Some(pending) => pending.0.push(key),
            None => request.context.shared.insert(Pending(vec![key])),
        }
        self.go_on(request, store, status)
    }

    fn response(&self, reply: &mut Reply<'_>) {
        let pending = reply.context.shared.get::<Pending>();
        let key = pending.and_then(|pending| pending.0.iter().find(|key| key.stamp == self.stamp));
        let Some(key) = key.copied() else { return };
        let store = reply.state.of::<Store>();
        let Some(ttl) = self.may_keep(reply) else {
            store.count(Status::Bypass);
            if self.shown.status {
                let bypass = HeaderValue::from_static(Status::Bypass.name());
                reply.headers.insert(CACHE_STATUS, bypass);
            }
            return;
        };
        let head = reply.request.method == Method::HEAD;
        // What a HEAD says of a body that is not there.
        let length = |name: &HeaderName| head && *name == header::CONTENT_LENGTH;
        let headers = reply.headers.iter();
        let headers = headers.filter(|(name, _)| is_kept(name) || length(name));
        let headers = headers.map(|(name, value)| (name.clone(), value.clone()));
        let kept = Kept {
            status: *reply.status,
            headers: headers.collect(),
            body: Bytes::new(),
            at: reply.now,
            ttl,
            ends: reply.now.saturating_add(self.storage_ttl.unwrap_or(ttl)),
        };
        let empty = reply.headers.get(header::CONTENT_LENGTH);
        let empty = empty.is_some_and(|length| length == "0");
        let bodiless = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
        if head || empty || bodiless.contains(reply.status) {
            // Nobody will ask for its end.
            store.put(key, kept);
            return;
        }
        reply.filter(Gather {
            store: store.clone(),
            kept: Some((key, kept)),
            body: BytesMut::new(),
        });
    }
}

impl ProxyCache {
    fn may_ask(&self, request: &Access<'_>, control: &Control) -> bool {
        let barred = control.has("no-store") || control.has("no-cache");
        let authorized = self.control && request.headers.contains_key(header::AUTHORIZATION);
        self.methods.contains(request.method) && !barred && !authorized
    }

    /// Of all that the answer depends on.
    fn key(&self, request: &Access<'_>) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        let consumer = request.context.identity.consumer.as_ref();
        let consumer = consumer.map(|consumer| consumer.id).unwrap_or_default();
        part(consumer.as_bytes());
        part(request.route.id.as_bytes());
        part(request.method.as_str().as_bytes());
        let path = request.uri.path();
        if self.ignore_case {
            part(path.to_lowercase().as_bytes());
        } else {
            part(path.as_bytes());
        }
        let query = request.uri.query().unwrap_or_default();
        let mut query: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        if let Some(names) = &self.params {
            query.retain(|(name, _)| names.iter().any(|wanted| wanted == name));
        }
        query.sort();
        for (name, value) in &query {
            part(name.as_bytes());
            part(value.as_bytes());
        }
        part(b"headers");
        for name in &self.headers {
            for value in request.headers.get_all(name) {
                part(name.as_str().as_bytes());
                part(value.as_bytes());
            }
        }
        *hasher.finalize().as_bytes()
    }

    fn is_fresh(&self, kept: &Kept, control: &Control, now: u64) -> bool {
        let age = now.saturating_sub(kept.at);
        if !self.control {
            return age <= self.ttl;
        }
        let old = control.seconds("max-age").is_some_and(|max| age > max);
        let stale = control.seconds("max-stale");
        let stale = stale.is_some_and(|max| age.saturating_sub(kept.ttl) > max);
        let fresh = control.seconds("min-fresh");
        let unfresh = fresh.is_some_and(|min| kept.ttl.saturating_sub(age) < min);
        !old && !stale && !unfresh
    }

    fn answer(&self, kept: &Kept, request: &mut Access<'_>) -> Answer {
        let headers = kept
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()));
        let mut answer = Answer {
            status: kept.status,
            content: Content::Bytes(kept.body.clone()),
            headers: headers.collect(),
        };
        if self.shown.age {
            let age = request.now.saturating_sub(kept.at);
            answer.headers.push((header::AGE, HeaderValue::from(age)));
        }
        if self.shown.status {
            let hit = HeaderValue::from_static(Status::Hit.name());
            answer.headers.push((CACHE_STATUS, hit));
        }
        answer
    }

    fn go_on(&self, request: &mut Access<'_>, store: &Store, status: Status) -> Step {
        store.count(status);
        if self.shown.status {
            let value = HeaderValue::from_static(status.name());
            request.response_headers.push((CACHE_STATUS, value));
        }
        Step::Continue
    }

    /// How long a response is fresh, if it may be kept.
    fn may_keep(&self, reply: &Reply<'_>) -> Option<u64> {
        let content = reply.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let content = ContentType::parse(content)?;
        let covered = self.types.iter().any(|wanted| wanted.covers(&content));
        if !covered || !self.codes.contains(&reply.status.as_u16()) {
            return None;
        }
        if !self.control {
            return Some(self.ttl);
        }
        let control = Control::of(reply.headers);
        if ["private", "no-store", "no-cache"]
            .iter()
            .any(|name| control.has(name))
        {
            return None;
        }
        let ttl = lifetime(&control, reply.headers, reply.now);
        (ttl > 0).then_some(ttl)
    }
}

/// Keeps a body that passes, once it is at its end.
struct Gather {
    store: Store,
    kept: Option<(Key, Kept)>,
    body: BytesMut,
}

impl BodyFilter for Gather {
    fn data(&mut self, data: Bytes) -> Bytes {
        if self.kept.is_some() {
            self.body.extend_from_slice(&data);
        }
        if self.body.len() > BODY_BYTES_MAX {
            self.kept = None;
            self.body = BytesMut::new();
        }
        data
    }

    fn end(&mut self, _: &mut Option<HeaderMap>) -> Bytes {
        if let Some((key, mut kept)) = self.kept.take() {
            kept.body = std::mem::take(&mut self.body).freeze();
            self.store.put(key, kept);
        }
        Bytes::new()
    }

    fn keeps_length(&self) -> bool {
        true
    }
}
