//! Traces of changes: from a write's request to what each data plane does with its event.

#![cfg(test)]

use serde_json::{Value, json};
use sluice_schema::trace::TraceContext;
use sluice_tests::cluster::{Cluster, PATIENCE};
use sluice_tools::admin::{Answer, Connection};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// As long as a process waits for a collector that does not answer. What waits for that takes longer.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// A span as the collector got it, its attributes and its resource's by name.
#[derive(Clone, Debug)]
struct Span {
    resource: BTreeMap<String, String>,
    attributes: BTreeMap<String, String>,
    fields: Value,
}

impl Span {
    fn text(&self, field: &str) -> &str {
        self.fields[field].as_str().unwrap_or_default()
    }

    fn time(&self, field: &str) -> u64 {
        self.text(field).parse().unwrap()
    }
}

/// A collector of traces that takes everything.
struct Collector {
    address: SocketAddr,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let bodies = Arc::<Mutex<Vec<String>>>::default();
        let taken = Arc::clone(&bodies);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A process that was stopped meanwhile.
                if let Ok(body) = take(stream) {
                    taken.lock().unwrap().push(body);
                }
            }
        });
        Self { address, bodies }
    }

    fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().unwrap();
        bodies.iter().flat_map(|body| spans(body)).collect()
    }

    fn of(&self, trace: &str) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.text("traceId") == trace);
        spans
    }
}

/// Takes one request and answers it.
fn take(stream: TcpStream) -> std::io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        let header = line.trim().to_ascii_lowercase();
        if let Some(text) = header.strip_prefix("content-length: ") {
            length = text.parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")?;
    Ok(String::from_utf8(body).unwrap())
}

fn spans(body: &str) -> Vec<Span> {
    let body: Value = serde_json::from_str(body).unwrap();
    let group = &body["resourceSpans"][0];
    let resource = attributes(&group["resource"]["attributes"]);
    let spans = group["scopeSpans"][0]["spans"].as_array().unwrap();
    let span = |fields: &Value| Span {
        resource: resource.clone(),
        attributes: attributes(&fields["attributes"]),
        fields: fields.clone(),
    };
    spans.iter().map(span).collect()
}

fn attributes(list: &Value) -> BTreeMap<String, String> {
    let pair = |attribute: &Value| {
        let value = &attribute["value"];
        let text = value["stringValue"].as_str().or(value["intValue"].as_str());
        (
            attribute["key"].as_str().unwrap().to_owned(),
            text.unwrap().to_owned(),
        )
    };
    list.as_array().unwrap().iter().map(pair).collect()
}

fn post(cluster: &Cluster, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let admin = cluster.admin(0);
    let body = body.to_string();
    let answer = admin.post(path, "application/json", headers, body.as_bytes());
    let answer = answer.unwrap();
    assert!(answer.status < 300, "{}: {}", answer.status, answer.body);
    answer
}

fn only<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut named = spans.iter().filter(|span| span.text("name") == name);
    let found = named.next().unwrap_or_else(|| panic!("{name}: {spans:#?}"));
    assert!(named.next().is_none(), "{name} twice: {spans:#?}");
    found
}

#[test]
fn a_write_and_what_every_data_plane_does_with_it_are_one_trace() {
    let collector = Collector::start();
    let endpoint = format!("--traces-endpoint=http://{}", collector.address);
    let logs = "--log-level=info,sluice_cp=debug";
    let cluster =
        Cluster::start_with(&[vec![&endpoint, logs]], &vec![vec![&*endpoint]; 2]).unwrap();
    let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let trace = &caller[3..35];
    let wait = ("sluice-wait", "2; timeout=30");
    let service = json!({ "name": "shop", "host": "shop.internal" });
    let headers = [("traceparent", caller), wait];
    let answer = post(&cluster, "/services", &headers, &service);
    cluster
        .wait_until("the trace is there", |_| Ok(collector.of(trace).len() == 6))
        .unwrap();

    let spans = collector.of(trace);
    let request = only(&spans, "POST /services");
    assert_eq!(request.text("parentSpanId"), &caller[36..52]);
    assert_eq!(request.attributes["http.response.status_code"], "201");
    for name in ["decide", "append", "fold"] {
        let step = only(&spans, name);
        assert_eq!(step.text("parentSpanId"), request.text("spanId"), "{name}");
        assert_eq!(step.resource["service.name"], "sluice-cp");
        assert!(step.time("startTimeUnixNano") >= request.time("startTimeUnixNano"));
        assert!(step.time("endTimeUnixNano") <= request.time("endTimeUnixNano"));
    }
    let append = only(&spans, "append");
    let version = answer.version.unwrap().to_string();
    let applied: Vec<&Span> = spans
        .iter()
        .filter(|span| span.text("name") == "apply")
        .collect();
    for span in &applied {
        assert_eq!(span.text("parentSpanId"), append.text("spanId"));
        assert_eq!(span.resource["service.name"], "sluice-dp");
        assert_eq!(span.resource["sluice.cluster"], "main");
        assert_eq!(span.attributes["sluice.version"], version);
        assert_eq!(span.attributes["sluice.kind"], "service");
        for name in ["sluice.epoch", "sluice.event.id", "sluice.entities"] {
            assert_eq!(span.attributes[name], append.attributes[name]);
        }
        let stages = span.fields["events"].as_array().unwrap();
        let stages: Vec<_> = stages.iter().map(|stage| &stage["name"]).collect();
        assert_eq!(stages, ["received", "stored", "active"]);
    }
    let nodes: BTreeSet<&str> = applied
        .iter()
        .map(|span| &*span.resource["sluice.node"])
        .collect();
    assert_eq!(nodes.len(), 2, "{applied:#?}");
    let event = cluster.admin(0).get(&format!("/log/events/{version}"));
    assert_eq!(event.unwrap()["trace_id"], trace);
    assert!(cluster.controls[0].said().contains(trace));
}

#[test]
fn a_write_without_a_trace_begins_one_and_one_that_is_not_recorded_stays_so() {
    let collector = Collector::start();
    let endpoint = format!("--traces-endpoint=http://{}", collector.address);
    let cluster = Cluster::start_with(&[vec![&endpoint]], &[vec![&*endpoint]]).unwrap();
    let unrecorded = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let headers = [("traceparent", unrecorded)];
    let consumer = json!({ "username": "ann" });
    let quiet = post(&cluster, "/consumers", &headers, &consumer);
    let key = json!({ "key": "canary-4711" });
    let loud = post(&cluster, "/consumers/ann/key-auth", &[], &key);
    let shown = |version: Option<u64>| {
        let path = format!("/log/events/{}", version.unwrap());
        cluster.admin(0).get(&path).unwrap()["trace_id"].clone()
    };
    assert_eq!(shown(quiet.version), Value::Null);
    let trace = shown(loud.version);
    let trace = trace.as_str().unwrap();
    cluster
        .wait_until("the trace is there", |_| Ok(collector.of(trace).len() == 5))
        .unwrap();
    let spans = collector.of(trace);
    let request = only(&spans, "POST /consumers/{consumers}/key-auth");
    assert_eq!(request.text("parentSpanId"), "");
    let applied = only(&spans, "apply");
    assert_eq!(applied.attributes["sluice.kind"], "keyauth_credential");
    assert_eq!(
        applied.text("parentSpanId"),
        only(&spans, "append").text("spanId")
    );
    assert!(collector.of(&unrecorded[3..35]).is_empty());
    // What was refused is a trace, too, and says nothing of what was asked.
    let refused = cluster.admin(0).post(
        "/consumers/canary-4711/key-auth",
        "application/json",
        &[("traceparent", &unrecorded.replace("-00", "-01"))],
        b"{}",
    );
    assert_eq!(refused.unwrap().status, 404);
    let trace = &unrecorded[3..35];
    cluster
        .wait_until("the refusal is there", |_| {
            Ok(!collector.of(trace).is_empty())
        })
        .unwrap();
    let bodies = collector.bodies.lock().unwrap();
    assert!(!bodies.iter().any(|body| body.contains("canary")));
}

#[test]
fn a_collector_that_is_down_delays_nothing() {
    // It takes connections, and never answers.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let silent_endpoint = format!("--traces-endpoint=http://{}", silent.local_addr().unwrap());
    let closed = {
        let gone = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        gone.local_addr().unwrap()
    };
    let closed_endpoint = format!("--traces-endpoint=http://{closed}");
    let cluster =
        Cluster::start_with(&[vec![&silent_endpoint]], &[vec![&*closed_endpoint]]).unwrap();
    let name = |round: usize| json!({ "name": format!("s{round}"), "host": "x" });
    let first = [("sluice-wait", "1; timeout=30")];
    assert_eq!(post(&cluster, "/services", &first, &name(0)).status, 201);
    for round in 1..20 {
        let began = Instant::now();
        let answer = post(
            &cluster,
            "/services",
            &[("sluice-wait", "all")],
            &name(round),
        );
        // 202 would be an answer before the data plane served it.
        assert_eq!(answer.status, 201, "{}", answer.body);
        assert!(began.elapsed() < SEND_TIMEOUT, "{:?}", began.elapsed());
    }
    let metrics = Connection::to(cluster.datas[0].status_url());
    cluster
        .wait_until("the data plane gives its spans up", |_| {
            let dropped = "sluice_dp_trace_spans_dropped_total{reason=\"collector\"} ";
            let text = metrics.get_text("/metrics")?;
            let count = text.lines().find_map(|line| line.strip_prefix(dropped));
            Ok(count.is_some_and(|count| count != "0"))
        })
        .unwrap();
    drop(silent);
}

#[test]
fn without_a_collector_at_the_control_plane_the_callers_trace_goes_on_to_the_data_planes() {
    let collector = Collector::start();
    let endpoint = format!("--traces-endpoint=http://{}", collector.address);
    let cluster = Cluster::start_with(&[vec![]], &[vec![&*endpoint]]).unwrap();
    let caller = "00-2af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let context = TraceContext::parse(caller).unwrap();
    let consumer = json!({ "username": "ann" });
    post(
        &cluster,
        "/consumers",
        &[("traceparent", caller)],
        &consumer,
    );
    let plain = post(&cluster, "/consumers", &[], &json!({ "username": "bob" }));
    let trace = context.trace.to_string();
    cluster
        .wait_until("the span is there", |_| {
            Ok(!collector.of(&trace).is_empty())
        })
        .unwrap();
    let spans = collector.of(&trace);
    let applied = only(&spans, "apply");
    assert_eq!(applied.text("parentSpanId"), context.span.to_string());
    let path = format!("/log/events/{}", plain.version.unwrap());
    assert_eq!(
        cluster.admin(0).get(&path).unwrap()["trace_id"],
        Value::Null
    );
}
