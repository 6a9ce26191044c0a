//! Reading the headers of each format. What is malformed is as if it were not there.

use super::{Format, Incoming, TraceId, hex, span_hex};
use http::HeaderMap;

impl Format {
    /// What a request says in this format. `b3` gives which of its two it was.
    pub(super) fn extract(self, headers: &HeaderMap) -> Option<(Self, Incoming)> {
        let found = match self {
            Self::W3c => w3c(headers)?,
            Self::B3 | Self::B3Single => return b3(headers),
            Self::Jaeger => jaeger(headers)?,
            Self::Ot => ot(headers)?,
            Self::Datadog => datadog(headers)?,
            Self::Aws => aws(headers)?,
            Self::Gcp => gcp(headers)?,
            Self::Instana => instana(headers)?,
        };
        Some((self, found))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// `1` and `true`, `0` and `false`.
fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "true" | "True" => Some(true),
        "0" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// `00-<trace>-<span>-<flags>`
fn w3c(headers: &HeaderMap) -> Option<Incoming> {
    let mut parts = text(headers, "traceparent")?.split('-');
    let [version, trace, span, flags] = [(); 4].map(|()| parts.next());
    let (version, trace, span, flags) = (version?, trace?, span?, flags?);
    let lengths = [version, trace, span, flags].map(str::len) == [2, 32, 16, 2];
    let known = version != "ff" && (version != "00" || parts.next().is_none());
    let flags = u8::from_str_radix(flags, 16).ok()?;
    (lengths && known).then_some(Incoming {
        trace: Some(TraceId::parse(trace)?),
        span: Some(span_hex(span)?),
        parent: None,
        sampled: Some(flags & 1 == 1),
    })
}

fn b3(headers: &HeaderMap) -> Option<(Format, Incoming)> {
    if let Some(single) = text(headers, "b3").and_then(b3_single) {
        return Some((Format::B3Single, single));
    }
    let debug = text(headers, "x-b3-flags") == Some("1");
    let sampled = text(headers, "x-b3-sampled").and_then(flag);
    let found = Incoming {
        trace: text(headers, "x-b3-traceid").and_then(b3_trace),
        span: text(headers, "x-b3-spanid").and_then(span_hex),
        parent: text(headers, "x-b3-parentspanid").and_then(span_hex),
        sampled: if debug { Some(true) } else { sampled },
    };
    let found = Incoming {
        // Without a trace there are no spans of it.
        span: found.span.filter(|_| found.trace.is_some()),
        parent: found.parent.filter(|_| found.trace.is_some()),
        ..found
    };
    (found != Incoming::default()).then_some((Format::B3, found))
}

fn b3_trace(text: &str) -> Option<TraceId> {
    TraceId::parse(text).filter(|_| matches!(text.len(), 16 | 32))
}

/// `<trace>-<span>[-<sampled>[-<parent>]]`, or the decision alone.
fn b3_single(text: &str) -> Option<Incoming> {
    let decision = |text: &str| if text == "d" { Some(true) } else { flag(text) };
    let Some((trace, rest)) = text.split_once('-') else {
        return Some(Incoming {
            sampled: Some(decision(text)?),
            ..Incoming::default()
        });
    };
    let mut parts = rest.split('-');
    Some(Incoming {
        trace: Some(b3_trace(trace)?),
        span: Some(span_hex(parts.next()?)?),
        sampled: parts.next().and_then(decision),
        parent: parts.next().and_then(span_hex),
    })
}

/// `<trace>:<span>:<parent>:<flags>`, perhaps with colons as `%3A`.
fn jaeger(headers: &HeaderMap) -> Option<Incoming> {
    let value = text(headers, "uber-trace-id")?
        .replace("%3A", ":")
        .replace("%3a", ":");
    let mut parts = value.split(':');
    let trace = TraceId::parse(parts.next()?)?;
    let span = span_hex(parts.next()?)?;
    let parent = span_hex(parts.next()?);
    let flags = hex(parts.next()?, 2).unwrap_or_default();
    Some(Incoming {
        trace: Some(trace),
        span: Some(span),
        parent,
        sampled: Some(flags & 1 == 1),
    })
}

fn ot(headers: &HeaderMap) -> Option<Incoming> {
    let trace = TraceId::parse(text(headers, "ot-tracer-traceid")?)?;
    Some(Incoming {
        trace: Some(trace),
        span: text(headers, "ot-tracer-spanid").and_then(span_hex),
        parent: None,
        sampled: text(headers, "ot-tracer-sampled").and_then(flag),
    })
}

/// Numbers in decimal; half a trace's id.
fn datadog(headers: &HeaderMap) -> Option<Incoming> {
    let number = |name| {
        text(headers, name)?
            .parse::<u64>()
            .ok()
            .filter(|number| *number != 0)
    };
    let trace = number("x-datadog-trace-id")?;
    let priority = text(headers, "x-datadog-sampling-priority");
    let priority = priority.and_then(|text| text.parse::<i32>().ok());
    Some(Incoming {
        trace: Some(TraceId {
            value: trace.into(),
            short: true,
        }),
        span: number("x-datadog-parent-id"),
        parent: None,
        sampled: priority.map(|priority| priority > 0),
    })
}

/// `Root=1-<8 digits>-<24 digits>;Parent=<span>;Sampled=<0 or 1>`
fn aws(headers: &HeaderMap) -> Option<Incoming> {
    let mut found = Incoming::default();
    for field in text(headers, "x-amzn-trace-id")?.split(';') {
        let (name, value) = field.trim().split_once('=')?;
        match name.trim() {
            "Root" => {
                let mut parts = value.trim().split('-');
                let (version, time, rest) = (parts.next()?, parts.next()?, parts.next()?);
                let whole = version == "1" && time.len() == 8 && rest.len() == 24;
                found.trace = TraceId::parse(&format!("{time}{rest}")).filter(|_| whole);
            }
            "Parent" => found.span = span_hex(value.trim()),
            "Sampled" => found.sampled = flag(value.trim()),
            _ => {}
        }
    }
    found.trace.map(|_| found)
}

/// `<trace>/<span in decimal>;o=<0 or 1>`
fn gcp(headers: &HeaderMap) -> Option<Incoming> {
    let value = text(headers, "x-cloud-trace-context")?;
    let (ids, options) = match value.split_once(';') {
        Some((ids, options)) => (ids, Some(options)),
        None => (value, None),
    };
    let (trace, span) = match ids.split_once('/') {
        Some((trace, span)) => (trace, span.parse::<u64>().ok()),
        None => (ids, None),
    };
    let trace = TraceId::parse(trace).filter(|_| trace.len() == 32)?;
    Some(Incoming {
        trace: Some(trace),
        span: span.filter(|span| *span != 0),
        parent: None,
        sampled: options.and_then(|options| flag(options.trim().strip_prefix("o=")?)),
    })
}

fn instana(headers: &HeaderMap) -> Option<Incoming> {
    let trace = text(headers, "x-instana-t").and_then(TraceId::parse);
    let level = text(headers, "x-instana-l");
    let level = level.and_then(|level| flag(level.split([',', ';']).next()?));
    let found = Incoming {
        trace,
        span: text(headers, "x-instana-s")
            .and_then(span_hex)
            .filter(|_| trace.is_some()),
        parent: None,
        sampled: level,
    };
    (found != Incoming::default()).then_some(found)
}
