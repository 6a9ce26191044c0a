//! `opentelemetry`: traces by OTLP over HTTP in protobuf, and their context for the upstream.
//!
//! A trace has the span `kong` of the request and a span `kong.balancer` of each try to have it answered. The client's
//! decision whether a trace is recorded counts; otherwise `sampling_rate` does, or Kong's default of one in a hundred.
//!
//! Deviations: no `logs_endpoint` (a node's own log goes to its standard error); spans of single plugins, of the router
//! and of name resolution are not made; `send_timeout` and `read_timeout` together bound a call; `batch_span_count` and
//! `batch_flush_delay` mean nothing, as in Kong 3.

use super::trace::{
    Format, Incoming, Outgoing, Propagation, PropagationFields, SpanId, TraceId, sampled, span_id,
};
use crate::plugin::call::{Bounds, Caller, Way, milliseconds};
use crate::plugin::logging::http_log::{accepted, endpoint, headers};
use crate::plugin::queue::{Outlet, Outlets, Parameters, QueueFields, Sink, Undelivered};
use crate::plugin::{Access, Change, Entity, Phases, Plugin, Record, Step, Try};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// Kong's `tracing_sampling_rate`.
const SAMPLING_RATE: f64 = 0.01;
/// What is read of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const KEEPALIVE: Duration = Duration::from_secs(60);
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    #[serde(default)]
    traces_endpoint: Option<String>,
    #[serde(default)]
    logs_endpoint: Option<String>,
    #[serde(default)]
    headers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    resource_attributes: Option<BTreeMap<String, String>>,
    #[serde(default)]
    queue: QueueFields,
    #[serde(default = "one_second")]
    connect_timeout: f64,
    #[serde(default = "five_seconds")]
    send_timeout: f64,
    #[serde(default = "five_seconds")]
    read_timeout: f64,
    #[serde(default)]
    http_response_header_for_traceid: Option<String>,
    #[serde(default)]
    header_type: Option<String>,
    #[serde(default)]
    sampling_rate: Option<f64>,
    #[serde(default)]
    propagation: PropagationFields,
}

fn one_second() -> f64 {
    1000.0
}

fn five_seconds() -> f64 {
    5000.0
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct OpenTelemetry {
    /// `None` if only the context is passed on.
    outlet: Option<Outlet>,
    propagation: Propagation,
    sampling_rate: f64,
    shown_in: Option<HeaderName>,
}

/// What is kept of a request between its phases.
struct Context {
    span: Outgoing,
    parent: Option<SpanId>,
}

impl Plugin for OpenTelemetry {
    const NAME: &'static str = "opentelemetry";
    const PRIORITY: i32 = 14;
    const PHASES: Phases = Phases::ACCESS.and(Phases::LOG);
    type Config = Fields;
    type State = Outlets;

    fn compile(fields: Fields, entity: &Entity<'_>) -> Result<Self, String> {
        if fields.logs_endpoint.is_some() {
            tracing::warn!(plugin = Self::NAME, "logs_endpoint is not honoured");
        }
        let shown_in = fields.http_response_header_for_traceid.as_deref();
        let shown_in = shown_in.map(HeaderName::try_from).transpose();
        let server = fields
            .traces_endpoint
            .as_ref()
            .map(|url| Server::new(url, &fields, entity));
        let server = server.transpose()?;
        let parameters = Parameters::from(&fields.queue);
        let header_type = fields.header_type.as_deref().unwrap_or("preserve");
        Ok(Self {
            outlet: server.map(|server| Outlet::new(entity, Self::NAME, parameters, server)),
            propagation: Propagation::new(fields.propagation, header_type, None)?,
            sampling_rate: fields.sampling_rate.unwrap_or(SAMPLING_RATE),
            shown_in: shown_in
                .map_err(|_| "http_response_header_for_traceid is no header's name")?,
        })
    }

    fn changed(outlets: &Outlets, change: Change<'_, Self>) {
        outlets.changed_if(&change, |plugin| plugin.outlet.as_ref());
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        let (came, context) = self.begin(request.headers);
        self.propagation
            .inject(request.headers, came, &context.span);
        if let Some(name) = &self.shown_in {
            let shown = self.propagation.shown(came, &context.span);
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
            // Another plugin has answered before, or there was no route.
            None => {
                made = self.begin(&record.request.headers).1;
                &made
            }
        };
        if context.span.sampled {
            outlet.push(
                record.state::<Self>(),
                spans(record, context).encode_to_vec(),
            );
        }
    }
}

impl OpenTelemetry {
    fn begin(&self, headers: &HeaderMap) -> (Option<Format>, Context) {
        let found = self.propagation.extract(headers);
        let (came, incoming) = found.map_or((None, Incoming::default()), |(came, incoming)| {
            (Some(came), incoming)
        });
        let span = Outgoing {
            trace: incoming.trace.unwrap_or_else(|| TraceId::new(16)),
            span: span_id(),
            parent: incoming.span,
            sampled: sampled(&incoming, self.sampling_rate),
        };
        let parent = incoming.span;
        (came, Context { span, parent })
    }
}

/// The spans of a request. Messages of this type, one after the other, are one message with the spans of all.
fn spans(record: &Record<'_>, context: &Context) -> ScopeSpans {
    let mut spans = vec![request_span(record, context)];
    let tries = record.tries.iter().enumerate();
    spans.extend(tries.map(|(number, one)| try_span(number + 1, one, context)));
    ScopeSpans {
        spans,
        ..ScopeSpans::default()
    }
}

fn request_span(record: &Record<'_>, context: &Context) -> Span {
    let seen = record.request;
    let scheme = if seen.tls { "https" } else { "http" };
    let target = seen
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let mut attributes = vec![
        text("http.method", seen.method.as_str()),
        text("http.url", format!("{scheme}://{}{target}", seen.host)),
        text("http.host", &*seen.host),
        text("http.scheme", scheme),
        text("http.flavor", flavor(seen.version)),
        text("net.peer.ip", seen.client.to_string()),
        number("http.status_code", record.status.as_u16().into()),
        text("kong.request.id", seen.id.to_str().unwrap_or_default()),
    ];
    if let Some(route) = record.route {
        attributes.push(text(
            "kong.route",
            route
                .name
                .as_deref()
                .map_or_else(|| route.id.to_string(), str::to_owned),
        ));
    }
    if let Some(service) = record.service {
        attributes.push(text(
            "kong.service",
            service
                .name
                .as_deref()
                .map_or_else(|| service.id.to_string(), str::to_owned),
        ));
    }
    if let Some(consumer) = &record.context.identity.consumer {
        attributes.push(text("kong.consumer", consumer.id.to_string()));
    }
    Span {
        parent_span_id: context
            .parent
            .map_or_else(Vec::new, |parent| parent.to_be_bytes().to_vec()),
        span_id: context.span.span.to_be_bytes().to_vec(),
        name: "kong".into(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanos(seen.began),
        end_time_unix_nano: nanos(seen.began + seen.started.elapsed()),
        attributes,
        status: record.status.is_server_error().then(failed),
        ..span_of(context)
    }
}

fn try_span(number_of: usize, one: &Try, context: &Context) -> Span {
    let mut attributes = vec![
        text("net.peer.ip", one.address.ip().to_string()),
        number("net.peer.port", one.address.port().into()),
        text(
            "net.peer.name",
            String::from_utf8_lossy(one.host.as_bytes()),
        ),
        number("try_count", i64::try_from(number_of).unwrap_or(i64::MAX)),
    ];
    if let Some(status) = one.status {
        attributes.push(number("http.status_code", status.as_u16().into()));
    }
    Span {
        parent_span_id: context.span.span.to_be_bytes().to_vec(),
        span_id: span_id().to_be_bytes().to_vec(),
        name: "kong.balancer".into(),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: nanos(one.began),
        end_time_unix_nano: nanos(one.began + one.took),
        attributes,
        status: one.status.is_none().then(failed),
        ..span_of(context)
    }
}

fn span_of(context: &Context) -> Span {
    Span {
        trace_id: context.span.trace.value.to_be_bytes().to_vec(),
        ..Span::default()
    }
}

fn failed() -> Status {
    Status {
        code: StatusCode::Error.into(),
        message: String::new(),
    }
}

fn flavor(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_2 => "2.0",
        http::Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

struct Server {
    uri: Uri,
    headers: HeaderMap,
    way: Way,
    bounds: Bounds,
    resource: Vec<KeyValue>,
}

impl Server {
    fn new(url: &str, fields: &Fields, entity: &Entity<'_>) -> Result<Self, String> {
        let (uri, user) = endpoint(url)?;
        let mut headers = headers(fields.headers.iter().flatten())?;
        if let Some(user) = user {
            headers.insert(header::AUTHORIZATION, user);
        }
        headers.insert(header::CONTENT_TYPE, PROTOBUF);
        // An instance of the service is this plugin's entity on this process.
        let instance = Uuid::new_v5(&entity.id, &std::process::id().to_be_bytes());
        let mut resource: BTreeMap<&str, String> = BTreeMap::from([
            ("service.name", "kong".into()),
            ("service.instance.id", instance.to_string()),
            ("service.version", env!("CARGO_PKG_VERSION").into()),
        ]);
        for (name, value) in fields.resource_attributes.iter().flatten() {
            resource.insert(name, value.clone());
        }
        Ok(Self {
            uri,
            headers,
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
            resource: resource
                .into_iter()
                .map(|(name, value)| text(name, value))
                .collect(),
        })
    }

    fn message(&self, batch: &[Bytes]) -> Result<Vec<u8>, prost::DecodeError> {
        let mut spans = ScopeSpans::decode(&*batch.concat())?;
        spans.scope = Some(InstrumentationScope {
            name: "kong-internal".into(),
            version: "0.1.0".into(),
            ..InstrumentationScope::default()
        });
        let resource = Resource {
            attributes: self.resource.clone(),
            ..Resource::default()
        };
        let message = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource),
                scope_spans: vec![spans],
                schema_url: String::new(),
            }],
        };
        Ok(message.encode_to_vec())
    }
}

impl Sink for Server {
    fn deliver<'a>(
        &'a self,
        caller: &'a Caller,
        batch: &'a [Bytes],
    ) -> BoxFuture<'a, Result<(), Undelivered>> {
        Box::pin(async move {
            let message = self.message(batch).map_err(Undelivered::never)?;
            let mut request = Request::new(Full::new(Bytes::from(message)));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = self.uri.clone();
            *request.headers_mut() = self.headers.clone();
            accepted(caller.call(self.way, self.bounds, request).await)
        })
    }
}
