//! Spans as OTLP has them in JSON: an `ExportTraceServiceRequest`. Numbers of 64 bits are texts there, ids hexadecimal.

use super::{Resource, Span, Value};
use serde::Serialize;
use serde::ser::Serializer;
use std::fmt::Display;

const SCOPE: &str = "sluice";
const FAILED: u8 = 2;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Attributes<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Attributes<'a> {
    attributes: Vec<Attribute<'a>>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope<'a>,
    spans: Vec<Encoded<'a>>,
}

#[derive(Serialize)]
struct Scope<'a> {
    name: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Encoded<'a> {
    #[serde(serialize_with = "as_text")]
    trace_id: String,
    #[serde(serialize_with = "as_text")]
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: &'a str,
    kind: u8,
    #[serde(serialize_with = "as_text")]
    start_time_unix_nano: u64,
    #[serde(serialize_with = "as_text")]
    end_time_unix_nano: u64,
    attributes: Vec<Attribute<'a>>,
    events: Vec<Event<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(serialize_with = "as_text")]
    time_unix_nano: u64,
    name: &'a str,
}

#[derive(Serialize)]
struct Status<'a> {
    code: u8,
    message: &'a str,
}

#[derive(Serialize)]
struct Attribute<'a> {
    key: &'a str,
    value: AnyValue<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum AnyValue<'a> {
    StringValue(&'a str),
    #[serde(serialize_with = "as_text")]
    IntValue(u64),
}

/// The body of a request with these spans.
pub(super) fn encode(resource: &Resource, spans: &[Span]) -> Vec<u8> {
    let request = Request {
        resource_spans: [ResourceSpans {
            resource: described(resource),
            scope_spans: [ScopeSpans {
                scope: Scope {
                    name: SCOPE,
                    version: resource.version,
                },
                spans: spans.iter().map(encoded).collect(),
            }],
        }],
    };
    // Texts and numbers only: there is nothing that JSON cannot hold.
    serde_json::to_vec(&request).unwrap_or_default()
}

fn described(resource: &Resource) -> Attributes<'_> {
    let text = |key, value| Attribute {
        key,
        value: AnyValue::StringValue(value),
    };
    let attributes = vec![
        text("service.name", resource.service),
        text("service.version", resource.version),
        text("service.instance.id", &resource.node),
        text("host.name", &resource.hostname),
        text("sluice.node", &resource.node),
        text("sluice.cluster", &resource.cluster),
    ];
    Attributes { attributes }
}

fn encoded(span: &Span) -> Encoded<'_> {
    let nanos = |microseconds: u64| microseconds.saturating_mul(1000);
    Encoded {
        trace_id: span.context.trace.to_string(),
        span_id: span.context.span.to_string(),
        parent_span_id: span.parent.map(|parent| parent.to_string()),
        name: &span.name,
        kind: span.kind as u8,
        start_time_unix_nano: nanos(span.start.0),
        // A clock that was set back.
        end_time_unix_nano: nanos(span.end.max(span.start).0),
        attributes: span.attributes.iter().map(attribute).collect(),
        events: span
            .events
            .iter()
            .map(|(name, time)| Event {
                time_unix_nano: nanos(time.0),
                name,
            })
            .collect(),
        status: span.failure.as_deref().map(|message| Status {
            code: FAILED,
            message,
        }),
    }
}

fn attribute<'a>((key, value): &'a (&'static str, Value)) -> Attribute<'a> {
    let value = match value {
        Value::Text(text) => AnyValue::StringValue(text),
        Value::Number(number) => AnyValue::IntValue(*number),
    };
    Attribute { key, value }
}

fn as_text<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
