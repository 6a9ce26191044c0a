use super::*;
use crate::run::Arrival;
use serde_json::{Value as Json, json};
use sluice_schema::version::{Epoch, Version};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn resource() -> Resource {
    Resource {
        service: "sluice-dp",
        version: "1.2.3",
        node: "node-1".into(),
        hostname: "host".into(),
        cluster: "main".into(),
    }
}

fn caller() -> TraceContext {
    TraceContext::parse(TRACEPARENT).unwrap()
}

fn span(number: u64) -> Span {
    Span {
        name: "apply".into(),
        kind: SpanKind::Consumer,
        context: TraceContext {
            span: SpanId::new(number.to_be_bytes()).unwrap(),
            ..caller()
        },
        parent: Some(caller().span),
        start: Time(1_700_000_000_000_001),
        end: Time(1_700_000_000_000_005),
        attributes: vec![
            ("sluice.version", 7.into()),
            ("sluice.kind", "service".into()),
        ],
        events: vec![("stored", Time(1_700_000_000_000_002))],
        failure: None,
    }
}

/// A tracer whose spans stay where they are.
fn kept() -> (Tracer, Exporter) {
    Tracer::new("http://127.0.0.1:9".parse().unwrap(), resource())
}

/// What the tracer counts.
fn counted(tracer: &Tracer) -> [u64; 4] {
    let mut text = String::new();
    tracer.write("x", &mut text);
    let value = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.trim().parse().unwrap()
    };
    [
        value("x_trace_spans_sent_total "),
        value("x_trace_spans_dropped_total{reason=\"queue\"} "),
        value("x_trace_spans_dropped_total{reason=\"collector\"} "),
        value("x_trace_spans_dropped_total{reason=\"rate\"} "),
    ]
}

#[test]
fn spans_are_written_as_otlp_has_them_in_json() {
    let failed = Span {
        parent: None,
        kind: SpanKind::Server,
        failure: Some("503".into()),
        events: Vec::new(),
        // A clock that was set back.
        end: Time(0),
        ..span(2)
    };
    let body: Json =
        serde_json::from_slice(&otlp::encode(&resource(), &[span(1), failed])).unwrap();
    let attributes = json!([
        { "key": "sluice.version", "value": { "intValue": "7" } },
        { "key": "sluice.kind", "value": { "stringValue": "service" } },
    ]);
    let spans = json!([
        {
            "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "0000000000000001",
            "parentSpanId": "b7ad6b7169203331", "name": "apply", "kind": 5,
            "startTimeUnixNano": "1700000000000001000", "endTimeUnixNano": "1700000000000005000",
            "attributes": attributes,
            "events": [{ "timeUnixNano": "1700000000000002000", "name": "stored" }],
        },
        {
            "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "0000000000000002",
            "name": "apply", "kind": 2,
            "startTimeUnixNano": "1700000000000001000", "endTimeUnixNano": "1700000000000001000",
            "attributes": attributes, "events": [],
            "status": { "code": 2, "message": "503" },
        },
    ]);
    let group = &body["resourceSpans"][0];
    assert_eq!(group["scopeSpans"][0]["spans"], spans);
    let described = group["resource"]["attributes"].as_array().unwrap();
    for (key, value) in [("service.name", "sluice-dp"), ("sluice.cluster", "main")] {
        let expected = json!({ "key": key, "value": { "stringValue": value } });
        assert!(described.contains(&expected), "{described:?}");
    }
}

#[test]
fn a_trace_is_continued_begun_or_left_alone() {
    let environment = Environment::system();
    let (tracer, _exporter) = kept();
    let continued = tracer.begin(Some(caller()), 0.0, &environment).unwrap();
    assert_eq!(continued.trace, caller().trace);
    assert_ne!(continued.span, caller().span);
    let unsampled = TraceContext {
        sampled: false,
        ..caller()
    };
    assert_eq!(tracer.begin(Some(unsampled), 1.0, &environment), None);
    let begun = tracer.begin(None, 1.0, &environment).unwrap();
    assert_ne!(begun.trace, caller().trace);
    assert_eq!(tracer.begin(None, 0.0, &environment), None);
    assert_eq!(Tracer::off().begin(Some(caller()), 1.0, &environment), None);
}

#[test]
fn a_full_queue_drops_and_counts_and_never_waits() {
    let (tracer, _exporter) = kept();
    for number in 0..QUEUE_SPANS_MAX as u64 + 3 {
        tracer.record(span(number + 1));
    }
    assert_eq!(counted(&tracer), [0, 3, 0, 0]);
}

fn arrival(decided: u64, trace: Option<TraceContext>) -> Arrival {
    Arrival {
        id: EventId(Uuid::nil()),
        cursor: Cursor {
            epoch: Epoch::default(),
            version: Version(decided),
            ..Cursor::default()
        },
        decided: Time(decided),
        received: Time(decided + 10),
        stored: Time(decided + 20),
        trace,
        entities: 1,
        kind: Some(KindName::known("service")),
    }
}

#[test]
fn a_data_plane_that_catches_up_makes_no_flood_of_spans() {
    let (tracer, mut exporter) = kept();
    let applied = Applied::new(tracer.clone(), Environment::system(), Time(1_000));
    // Before this process, and without a trace.
    applied.active(
        &[arrival(999, Some(caller())), arrival(2_000, None)],
        Time(2_050),
    );
    assert!(exporter.waiting().is_empty());
    applied.active(&[arrival(2_000, Some(caller()))], Time(2_050));
    let made = exporter.waiting();
    assert_eq!(made.len(), 1);
    assert_eq!(
        (made[0].context.trace, made[0].parent),
        (caller().trace, Some(caller().span))
    );
    assert_eq!((made[0].start, made[0].end), (Time(2_010), Time(2_050)));
    let many = vec![arrival(3_000, Some(caller())); 1_000];
    applied.active(&many, Time(500_000));
    assert_eq!(exporter.waiting().len(), 99);
    applied.active(&many, Time(1_002_050));
    assert_eq!(exporter.waiting().len(), 100);
    assert_eq!(counted(&tracer), [0, 0, 0, 1_801]);
}

/// Answers one request after the other with these statuses, and gives their heads and bodies.
async fn collector(statuses: Vec<u16>) -> (SocketAddr, mpsc::Receiver<(String, Json)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = mpsc::channel(8);
    tokio::spawn(async move {
        for status in statuses {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                stream.read_line(&mut head).await.unwrap();
            }
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.unwrap().parse().unwrap()];
            stream.read_exact(&mut body).await.unwrap();
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 2\r\n\r\n{{}}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            let body = serde_json::from_slice(&body).unwrap();
            sender.send((head, body)).await.unwrap();
        }
    });
    (address, received)
}

#[tokio::test]
async fn what_a_collector_cannot_take_now_is_sent_again_and_the_last_spans_at_the_end() {
    let (address, mut received) = collector(vec![503, 200, 400, 200]).await;
    let target: Target = format!("http://{address}").parse().unwrap();
    let target = target.with_headers("x-key = a%20b").unwrap();
    assert!(!format!("{target:?}").contains("a b"));
    let (tracer, exporter) = Tracer::new(target, resource());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(exporter.run(shutdown.clone()));
    tracer.record(span(1));
    let (head, first) = received.recv().await.unwrap();
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("x-key: a b\r\n"), "{head}");
    let (_, second) = received.recv().await.unwrap();
    assert_eq!(first, second);
    tracer.record(span(2));
    received.recv().await.unwrap();
    while counted(&tracer) != [1, 0, 1, 0] {
        tokio::task::yield_now().await;
    }
    tracer.record(span(3));
    shutdown.cancel();
    running.await.unwrap();
    let (_, last) = received.recv().await.unwrap();
    let spans = &last["resourceSpans"][0]["scopeSpans"][0]["spans"];
    assert_eq!(spans[0]["spanId"], "0000000000000003");
    assert_eq!(counted(&tracer), [2, 0, 1, 0]);
}

#[tokio::test]
async fn a_collector_that_never_answers_does_not_hold_up_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    let (tracer, exporter) = Tracer::new(target.parse().unwrap(), resource());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(exporter.run(shutdown.clone()));
    tracer.record(span(1));
    let (_silent, _) = listener.accept().await.unwrap();
    shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(4), running).await;
    ended.unwrap().unwrap();
    assert_eq!(counted(&tracer), [0, 0, 1, 0]);
}
