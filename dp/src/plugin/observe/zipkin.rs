//! `zipkin`: traces in Zipkin's format (v2, JSON), and their context for the upstream.
//!
//! A trace has the span of the request, one of its proxying, and one of each try to have it answered. A request that comes
//! with a span shares it, as is usual with B3.
//!
//! Deviations: there is no tag `kong.node.id`; of the phases only the ends of access, of the response's head and of its
//! body are known; `send_timeout` and `read_timeout` together bound a call; streams that are no HTTP are not traced.

use super::trace::{
    Format, Incoming, Outgoing, Propagation, PropagationFields, SpanId, TraceId, sampled, span_id,
};
use crate::plugin::call::{Bounds, Caller, Way, milliseconds};
use crate::plugin::logging::http_log::{accepted, endpoint, list};
use crate::plugin::queue::{Outlet, Outlets, Parameters, QueueFields, Sink, Undelivered};
use crate::plugin::{Access, Change, Entity, Phases, Plugin, Record, Step};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const ANSWER_BYTES_MAX: usize = 64 * 1024;
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    #[serde(default = "kong")]
    local_service_name: String,
    #[serde(default)]
    http_endpoint: Option<String>,
    #[serde(default = "one_in_a_thousand")]
    sample_ratio: Option<f64>,
    #[serde(default)]
    default_service_name: Option<String>,
    #[serde(default = "yes")]
    include_credential: bool,
    #[serde(default = "sixteen")]
    traceid_byte_count: u8,
    #[serde(default = "preserve")]
    header_type: String,
    #[serde(default)]
    default_header_type: Option<Format>,
    #[serde(default = "zipkin_tags")]
    tags_header: String,
    #[serde(default)]
    static_tags: Option<Vec<Tag>>,
    #[serde(default)]
    http_span_name: SpanName,
    #[serde(default = "two_seconds")]
    connect_timeout: f64,
    #[serde(default = "five_seconds")]
    send_timeout: f64,
    #[serde(default = "five_seconds")]
    read_timeout: f64,
    #[serde(default)]
    http_response_header_for_traceid: Option<String>,
    #[serde(default)]
    phase_duration_flavor: Flavor,
    #[serde(default)]
    queue: QueueFields,
    #[serde(default)]
    propagation: PropagationFields,
}

fn kong() -> String {
    "kong".into()
}

#[allow(clippy::unnecessary_wraps, reason = "the field may be null")]
fn one_in_a_thousand() -> Option<f64> {
    Some(0.001)
}

fn yes() -> bool {
    true
}

fn sixteen() -> u8 {
    16
}

fn preserve() -> String {
    "preserve".into()
}

fn zipkin_tags() -> String {
    "Zipkin-Tags".into()
}

fn two_seconds() -> f64 {
    2000.0
}

fn five_seconds() -> f64 {
    5000.0
}

#[derive(Clone, Debug, Deserialize)]
struct Tag {
    name: String,
    value: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SpanName {
    #[default]
    Method,
    MethodPath,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Flavor {
    #[default]
    Annotations,
    Tags,
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct Zipkin {
    /// `None` if only the context is passed on.
    outlet: Option<Outlet>,
    propagation: Propagation,
    sample_ratio: f64,
    trace_bytes: u8,
    shown_in: Option<HeaderName>,
    tags_header: HeaderName,
    static_tags: Vec<Tag>,
    local_name: String,
    default_name: Option<String>,
    credential: bool,
    span_name: SpanName,
    flavor: Flavor,
}

/// What is kept of a request between its phases.
struct Context {
    /// The span of the request.
    own: SpanId,
    /// The span above that.
    above: Option<SpanId>,
    /// The span of proxying.
    proxy: Outgoing,
    /// Of the header for that.
    tags: Vec<Tag>,
}

impl Plugin for Zipkin {
    const NAME: &'static str = "zipkin";
    const PRIORITY: i32 = 100_000;
    const PHASES: Phases = Phases::ACCESS.and(Phases::LOG);
    type Config = Fields;
    type State = Outlets;

    fn compile(fields: Fields, entity: &Entity<'_>) -> Result<Self, String> {
        let shown_in = fields.http_response_header_for_traceid.as_deref();
        let shown_in = shown_in.map(HeaderName::try_from).transpose();
        let server = fields
            .http_endpoint
            .as_ref()
            .map(|url| Server::new(url, &fields));
        let server = server.transpose()?;
        let parameters = Parameters::from(&fields.queue);
        let default_type = fields.default_header_type.or(Some(Format::B3));
        Ok(Self {
            outlet: server.map(|server| Outlet::new(entity, Self::NAME, parameters, server)),
            propagation: Propagation::new(fields.propagation, &fields.header_type, default_type)?,
            sample_ratio: fields.sample_ratio.unwrap_or_default(),
            trace_bytes: fields.traceid_byte_count,
            shown_in: shown_in
                .map_err(|_| "http_response_header_for_traceid is no header's name")?,
            tags_header: HeaderName::try_from(&fields.tags_header)
                .map_err(|_| "tags_header is no header's name")?,
            static_tags: fields.static_tags.unwrap_or_default(),
            local_name: fields.local_service_name,
            default_name: fields.default_service_name,
            credential: fields.include_credential,
            span_name: fields.http_span_name,
            flavor: fields.phase_duration_flavor,
        })
    }

    fn changed(outlets: &Outlets, change: Change<'_, Self>) {
        outlets.changed_if(&change, |plugin| plugin.outlet.as_ref());
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        let (came, context) = self.begin(request.headers);
        self.propagation
            .inject(request.headers, came, &context.proxy);
        if let Some(name) = &self.shown_in {
            let shown = self.propagation.shown(came, &context.proxy);
            if let Ok(shown) = HeaderValue::try_from(shown) {
                request.response_headers.push((name.clone(), shown));
            }
        }
        request.context.shared.insert(context);
        Step::Continue
    }

    fn log(&self, record: &Record<'_>) {
        let Some(outlet) = &self.outlet else {
            return;
        };
        let made;
        let context = match record.context.shared.get::<Context>() {
            Some(context) => context,
            // There was no route.
            None => {
                made = self.begin(&record.request.headers).1;
                &made
            }
        };
        if context.proxy.sampled {
            let spans = self.spans(record, context);
            // The list of a batch is made of these.
            let texts: Vec<_> = spans.iter().map(Value::to_string).collect();
            outlet.push(record.state::<Self>(), texts.join(","));
        }
    }
}

impl Zipkin {
    fn begin(&self, headers: &HeaderMap) -> (Option<Format>, Context) {
        let found = self.propagation.extract(headers);
        let (came, incoming) = found.map_or((None, Incoming::default()), |(came, incoming)| {
            (Some(came), incoming)
        });
        let own = incoming.span.unwrap_or_else(span_id);
        let proxy = Outgoing {
            trace: incoming
                .trace
                .unwrap_or_else(|| TraceId::new(self.trace_bytes)),
            span: span_id(),
            parent: Some(own),
            sampled: sampled(&incoming, self.sample_ratio),
        };
        let tags = headers
            .get(&self.tags_header)
            .and_then(|value| value.to_str().ok());
        let context = Context {
            own,
            above: incoming.parent,
            proxy,
            tags: tags.map(parse_tags).unwrap_or_default(),
        };
        (came, context)
    }

    fn spans(&self, record: &Record<'_>, context: &Context) -> Vec<Value> {
        let seen = record.request;
        let name = match self.span_name {
            SpanName::Method => seen.method.to_string(),
            SpanName::MethodPath => format!("{} {}", seen.method, seen.uri.path()),
        };
        let times = Times::of(record);
        let mut spans = vec![
            self.request_span(record, context, &name, &times),
            self.proxy_span(record, context, &name, &times),
        ];
        for (index, one) in record.tries.iter().enumerate() {
            let mut tags = self.service_tags(record);
            tags.insert("kong.balancer.try".into(), (index + 1).to_string().into());
            match one.status {
                Some(status) => _ = tags.insert("http.status_code".into(), status.as_str().into()),
                None => {
                    tags.insert("error".into(), "true".into());
                    tags.insert("kong.balancer.state".into(), "failed".into());
                }
            }
            let (began, ended) = (one.began, one.began + one.took);
            spans.push(json!({
                "traceId": context.proxy.trace.hex(),
                "id": format!("{:016x}", span_id()),
                "parentId": format!("{:016x}", context.own),
                "name": format!("{name} (balancer try {})", index + 1),
                "kind": "CLIENT",
                "timestamp": micros(began),
                "duration": micros(ended).saturating_sub(micros(began)),
                "localEndpoint": { "serviceName": self.local_name },
                "remoteEndpoint": self.remote(record, one.address),
                "tags": tags,
            }));
        }
        spans
    }

    fn request_span(
        &self,
        record: &Record<'_>,
        context: &Context,
        name: &str,
        times: &Times,
    ) -> Value {
        let seen = record.request;
        let mut tags = Map::new();
        let mut tag = |name: &str, value: String| _ = tags.insert(name.to_owned(), value.into());
        tag("lc", "kong".into());
        tag("http.method", seen.method.to_string());
        tag("http.host", seen.host.clone());
        tag("http.path", seen.uri.path().to_owned());
        tag("http.status_code", record.status.as_u16().to_string());
        let identity = &record.context.identity;
        if let Some(consumer) = &identity.consumer {
            tag("kong.consumer", consumer.id.to_string());
        }
        if let Some(credential) = identity.credential.filter(|_| self.credential) {
            tag("kong.credential", credential.id.to_string());
        }
        for given in self.static_tags.iter().chain(&context.tags) {
            tag(&given.name, given.value.clone());
        }
        let mut span = json!({
            "traceId": context.proxy.trace.hex(),
            "id": format!("{:016x}", context.own),
            "name": name,
            "kind": "SERVER",
            "timestamp": micros(times.began),
            "duration": micros(times.ended).saturating_sub(micros(times.began)),
            "localEndpoint": { "serviceName": self.local_name },
            "remoteEndpoint": endpoint_of(None, SocketAddr::new(seen.client, 0)),
            "tags": tags,
        });
        if let Some(above) = context.above {
            span["parentId"] = format!("{above:016x}").into();
        }
        span
    }

    fn proxy_span(
        &self,
        record: &Record<'_>,
        context: &Context,
        name: &str,
        times: &Times,
    ) -> Value {
        let mut tags = self.service_tags(record);
        let mut annotations = Vec::new();
        match self.flavor {
            Flavor::Annotations => {
                let points = [
                    ("kas", times.began),
                    ("kaf", times.access),
                    ("khs", times.head),
                    ("khf", times.head),
                    ("kbs", times.head),
                    ("kbf", times.ended),
                ];
                annotations.extend(
                    points.map(|(value, at)| json!({ "value": value, "timestamp": micros(at) })),
                );
            }
            Flavor::Tags => {
                let mut millis = |name: &str, from: SystemTime, to: SystemTime| {
                    let took = to.duration_since(from).unwrap_or_default().as_millis();
                    tags.insert(format!("kong.{name}.duration_ms"), took.to_string().into());
                };
                millis("access", times.began, times.access);
                millis("header_filter", times.head, times.head);
                millis("body_filter", times.head, times.ended);
            }
        }
        let last = record.tries.last();
        if let Some(last) = last {
            let host = String::from_utf8_lossy(last.host.as_bytes());
            tags.insert("peer.hostname".into(), host.into());
        }
        let mut span = json!({
            "traceId": context.proxy.trace.hex(),
            "id": format!("{:016x}", context.proxy.span),
            "parentId": format!("{:016x}", context.own),
            "name": format!("{name} (proxy)"),
            "kind": "CLIENT",
            "timestamp": micros(times.began),
            "duration": micros(times.ended).saturating_sub(micros(times.began)),
            "localEndpoint": { "serviceName": self.local_name },
            "tags": tags,
            "annotations": annotations,
        });
        if let Some(last) = last {
            span["remoteEndpoint"] = self.remote(record, last.address);
        }
        span
    }

    fn service_tags(&self, record: &Record<'_>) -> Map<String, Value> {
        let mut tags = Map::new();
        if let Some(service) = record.service {
            tags.insert("kong.service".into(), service.id.to_string().into());
            if let Some(name) = &service.name {
                tags.insert("kong.service_name".into(), (**name).into());
            }
        }
        if let Some(route) = record.route {
            tags.insert("kong.route".into(), route.id.to_string().into());
            if let Some(name) = &route.name {
                tags.insert("kong.route_name".into(), (**name).into());
            }
        }
        tags
    }

    fn remote(&self, record: &Record<'_>, address: SocketAddr) -> Value {
        let name = record.service.and_then(|service| service.name.as_deref());
        endpoint_of(name.or(self.default_name.as_deref()), address)
    }
}

/// When a request's phases ended.
struct Times {
    began: SystemTime,
    access: SystemTime,
    head: SystemTime,
    ended: SystemTime,
}

impl Times {
    fn of(record: &Record<'_>) -> Self {
        let began = record.request.began;
        let ended = began + record.request.started.elapsed();
        let last = record.tries.last();
        let head = last.map_or(ended, |last| (last.began + last.took).min(ended));
        Self {
            began,
            access: record
                .tries
                .first()
                .map_or(head, |first| began + first.after),
            head,
            ended,
        }
    }
}

fn endpoint_of(name: Option<&str>, address: SocketAddr) -> Value {
    let mut endpoint = Map::new();
    if let Some(name) = name {
        endpoint.insert("serviceName".into(), name.into());
    }
    let kind = match address.ip() {
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(_) => "ipv6",
    };
    endpoint.insert(kind.into(), address.ip().to_string().into());
    if address.port() != 0 {
        endpoint.insert("port".into(), address.port().into());
    }
    endpoint.into()
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// `name=value;name=value`
fn parse_tags(text: &str) -> Vec<Tag> {
    let tag = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        (!name.is_empty() && !value.is_empty()).then(|| Tag {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    };
    text.split(';').filter_map(tag).collect()
}

struct Server {
    uri: Uri,
    user: Option<HeaderValue>,
    way: Way,
    bounds: Bounds,
}

impl Server {
    fn new(url: &str, fields: &Fields) -> Result<Self, String> {
        let (uri, user) = endpoint(url)?;
        Ok(Self {
            uri,
            user,
            way: Way {
                verify: true,
                connect_timeout: milliseconds(fields.connect_timeout),
                keepalive: KEEPALIVE,
            },
            bounds: Bounds {
                timeout: milliseconds(
                    fields.connect_timeout + fields.send_timeout + fields.read_timeout,
                ),
                bytes_max: ANSWER_BYTES_MAX,
            },
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
            let mut request = Request::new(Full::new(list(batch)));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = self.uri.clone();
            let headers = request.headers_mut();
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
            if let Some(user) = &self.user {
                headers.insert(header::AUTHORIZATION, user.clone());
            }
            accepted(caller.call(self.way, self.bounds, request).await)
        })
    }
}
