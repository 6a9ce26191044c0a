//! Writing the headers of each format.

use super::{Format, Outgoing};
use http::{HeaderMap, HeaderName, HeaderValue};

impl Format {
    /// Says which span of which trace a request comes from.
    pub(super) fn inject(self, headers: &mut HeaderMap, span: &Outgoing) {
        let Outgoing {
            trace,
            span: id,
            parent,
            sampled,
        } = *span;
        let bit = u8::from(sampled);
        let mut set = |name: &'static str, value: String| {
            // Digits and marks are always a header's value.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        match self {
            Self::W3c => set(
                "traceparent",
                format!("00-{}-{id:016x}-{bit:02x}", trace.long_hex()),
            ),
            Self::B3 => {
                set("x-b3-traceid", trace.hex());
                set("x-b3-spanid", format!("{id:016x}"));
                if let Some(parent) = parent {
                    set("x-b3-parentspanid", format!("{parent:016x}"));
                }
                set("x-b3-sampled", bit.to_string());
            }
            Self::B3Single => {
                let parent = parent.map_or_else(String::new, |parent| format!("-{parent:016x}"));
                set("b3", format!("{}-{id:016x}-{bit}{parent}", trace.hex()));
            }
            Self::Jaeger => {
                let parent = parent.unwrap_or_default();
                set(
                    "uber-trace-id",
                    format!("{}:{id:016x}:{parent:016x}:{bit:02x}", trace.hex()),
                );
            }
            Self::Ot => {
                set("ot-tracer-traceid", trace.hex());
                set("ot-tracer-spanid", format!("{id:016x}"));
                set("ot-tracer-sampled", bit.to_string());
            }
            Self::Datadog => {
                set("x-datadog-trace-id", trace.low().to_string());
                set("x-datadog-parent-id", id.to_string());
                set("x-datadog-sampling-priority", bit.to_string());
            }
            Self::Aws => {
                let digits = trace.long_hex();
                let (time, rest) = digits.split_at(8);
                set(
                    "x-amzn-trace-id",
                    format!("Root=1-{time}-{rest};Parent={id:016x};Sampled={bit}"),
                );
            }
            Self::Gcp => set(
                "x-cloud-trace-context",
                format!("{}/{id};o={bit}", trace.long_hex()),
            ),
            Self::Instana => {
                set("x-instana-t", trace.hex());
                set("x-instana-s", format!("{id:016x}"));
                set("x-instana-l", bit.to_string());
            }
        }
    }
}
