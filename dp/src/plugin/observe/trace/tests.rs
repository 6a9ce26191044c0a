//! Each format there and back.

use super::*;
use http::{HeaderMap, HeaderName};
use serde_json::json;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::try_from(*name).unwrap(), value.parse().unwrap())
    };
    pairs.iter().map(pair).collect()
}

fn propagation(fields: serde_json::Value, header_type: &str) -> Propagation {
    let fields = serde_json::from_value(fields).unwrap();
    Propagation::new(fields, header_type, None).unwrap()
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn span() -> Outgoing {
    Outgoing {
        trace: TraceId::parse(TRACE).unwrap(),
        span: 0xff,
        parent: Some(span_hex(SPAN).unwrap()),
        sampled: true,
    }
}

type Read = (Format, Option<String>, Option<SpanId>, Option<bool>);

/// What is read of these headers: format, trace, span, sampled.
fn read(pairs: &[(&str, &str)]) -> Option<Read> {
    let found = propagation(json!({}), "preserve").extract(&headers(pairs));
    let (format, found) = found?;
    Some((
        format,
        found.trace.map(TraceId::hex),
        found.span,
        found.sampled,
    ))
}

fn check_read(pairs: &[(&str, &str)], format: Format, sampled: Option<bool>) {
    let (trace, span) = (Some(TRACE.to_owned()), span_hex(SPAN));
    assert_eq!(
        read(pairs),
        Some((format, trace, span, sampled)),
        "{pairs:?}"
    );
}

#[test]
fn formats_of_one_header_are_read() {
    let check = |name, value: &str, format, sampled| check_read(&[(name, value)], format, sampled);
    let (yes, no) = (Some(true), Some(false));
    let w3c = format!("00-{TRACE}-{SPAN}-");
    check("traceparent", &format!("{w3c}01"), Format::W3c, yes);
    check("traceparent", &format!("{w3c}00"), Format::W3c, no);
    let b3 = format!("{TRACE}-{SPAN}");
    check("b3", &format!("{b3}-1-{SPAN}"), Format::B3Single, yes);
    check("b3", &b3, Format::B3Single, None);
    let jaeger = format!("{TRACE}:{SPAN}:0:1");
    check("uber-trace-id", &jaeger, Format::Jaeger, yes);
    let (time, rest) = TRACE.split_at(8);
    let aws = format!("Root=1-{time}-{rest};Parent={SPAN};Sampled=0");
    check("x-amzn-trace-id", &aws, Format::Aws, no);
    let gcp = format!("{TRACE}/{};o=1", span_hex(SPAN).unwrap());
    check("x-cloud-trace-context", &gcp, Format::Gcp, yes);
    let alone = Some((Format::B3Single, None, None, no));
    assert_eq!(read(&[("b3", "0")]), alone);
}

#[test]
fn formats_of_several_headers_are_read() {
    let check = |names: [&str; 3], last: &str, format, sampled| {
        let values = [TRACE, SPAN, last];
        let pairs: Vec<_> = names.into_iter().zip(values).collect();
        check_read(&pairs, format, sampled);
    };
    let b3 = |last| ["x-b3-traceid", "x-b3-spanid", last];
    check(b3("x-b3-sampled"), "0", Format::B3, Some(false));
    check(b3("x-b3-flags"), "1", Format::B3, Some(true));
    let ot = ["ot-tracer-traceid", "ot-tracer-spanid", "ot-tracer-sampled"];
    check(ot, "true", Format::Ot, Some(true));
    let instana = ["x-instana-t", "x-instana-s", "x-instana-l"];
    check(instana, "1", Format::Instana, Some(true));
    let datadog = read(&[
        ("x-datadog-trace-id", "255"),
        ("x-datadog-parent-id", "3"),
        ("x-datadog-sampling-priority", "-1"),
    ]);
    let trace = Some("00000000000000ff".into());
    assert_eq!(
        datadog,
        Some((Format::Datadog, trace, Some(3), Some(false)))
    );
}

#[test]
fn what_is_malformed_is_not_there() {
    let zero = "0".repeat(32);
    for pairs in [
        [("traceparent", &*format!("00-{zero}-{SPAN}-01"))],
        [("traceparent", &*format!("00-{TRACE}-{SPAN}-01-x"))],
        [("traceparent", &*format!("ff-{TRACE}-{SPAN}-01"))],
        [("traceparent", "00-x")],
        [("b3", "x-y")],
        [("x-b3-spanid", SPAN)],
        [("x-b3-traceid", "abc")],
        [("uber-trace-id", "1:2")],
        [("x-amzn-trace-id", "Root=1-12-34")],
        [("x-amzn-trace-id", ";;")],
        [("x-cloud-trace-context", "12/3")],
        [("x-datadog-trace-id", "-1")],
        [("ot-tracer-traceid", "+f")],
    ] {
        assert_eq!(read(&pairs), None, "{pairs:?}");
    }
}

#[test]
fn what_is_written_is_read_the_same() {
    for name in [
        "w3c",
        "b3",
        "b3-single",
        "jaeger",
        "ot",
        "aws",
        "gcp",
        "instana",
        "datadog",
    ] {
        let propagation = propagation(json!({ "inject": [name] }), "preserve");
        let mut sent = HeaderMap::new();
        propagation.inject(&mut sent, None, &span());
        let pairs: Vec<_> = sent
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        let (format, trace, id, sampled) = read(&pairs).unwrap();
        assert_eq!(
            serde_json::from_value::<Format>(name.into()).unwrap(),
            format
        );
        let expected = if name == "datadog" {
            "a3ce929d0e0e4736"
        } else {
            TRACE
        };
        assert_eq!(
            (trace.as_deref(), id, sampled),
            (Some(expected), Some(0xff), Some(true)),
            "{name}"
        );
    }
}

#[test]
fn the_header_type_and_the_lists_say_what_is_written() {
    let b3 = [("b3", &*format!("{TRACE}-{SPAN}-1")), ("x-old", "1")];
    let check = |fields, header_type, pairs: &[(&str, &str)], expected: &[&str]| {
        let propagation = propagation(fields, header_type);
        let mut sent = headers(pairs);
        let came = propagation.extract(&sent).map(|(format, _)| format);
        propagation.inject(&mut sent, came, &span());
        let mut names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, expected, "{header_type}");
    };
    check(json!({}), "preserve", &b3, &["b3", "x-old"]);
    check(json!({}), "preserve", &[], &["traceparent"]);
    check(
        json!({ "default_format": "gcp" }),
        "preserve",
        &[],
        &["x-cloud-trace-context"],
    );
    check(json!({}), "w3c", &b3, &["b3", "traceparent", "x-old"]);
    check(json!({}), "jaeger", &[], &["uber-trace-id"]);
    check(
        json!({ "default_format": "ot" }),
        "ignore",
        &[],
        &["ot-tracer-sampled", "ot-tracer-spanid", "ot-tracer-traceid"],
    );
    let lists =
        json!({ "extract": ["w3c", "b3"], "clear": ["x-old", "b3"], "inject": ["datadog"] });
    check(
        lists,
        "preserve",
        &b3,
        &[
            "x-datadog-parent-id",
            "x-datadog-sampling-priority",
            "x-datadog-trace-id",
        ],
    );
    check(
        json!({ "extract": ["w3c"], "inject": ["preserve"] }),
        "preserve",
        &b3[1..],
        &["traceparent", "x-old"],
    );
    check(
        json!({ "extract": ["b3"] }),
        "preserve",
        &b3,
        &["b3", "x-old"],
    );
}
