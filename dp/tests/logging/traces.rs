//! `opentelemetry` and `zipkin`: what the collector and the upstream are told.

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::listen::*;
use crate::support::*;
use serde_json::{Value, json};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

#[cfg(feature = "opentelemetry")]
mod otlp {
    use super::*;
    use bytes::Bytes;
    use http_body_util::BodyExt;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message;
    use std::sync::{Arc, Mutex};

    /// A collector, and what came.
    async fn collector() -> (Origin, Arc<Mutex<Vec<(http::HeaderMap, Bytes)>>>) {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&kept);
        let origin = Origin::serve(move |request| {
            let keep = Arc::clone(&keep);
            Box::pin(async move {
                let (head, body) = request.into_parts();
                assert_eq!(head.uri, "/v1/traces");
                let body = body.collect().await.unwrap().to_bytes();
                keep.lock().unwrap().push((head.headers, body));
                http::Response::new(reply(""))
            })
        })
        .await;
        (origin, kept)
    }

    fn attribute(span: &Span, name: &str) -> String {
        let found = span
            .attributes
            .iter()
            .find(|attribute| attribute.key == name);
        format!("{:?}", found.and_then(|found| found.value.clone()?.value))
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[tokio::test]
    async fn opentelemetry_sends_the_spans_of_a_trace_in_protobuf() {
        let (collector, kept) = collector().await;
        let config = json!({
            "traces_endpoint": format!("http://{}/v1/traces", collector.address),
            "headers": { "X-Token": "t" },
            "resource_attributes": { "service.name": "edge", "zone": "a" },
            "http_response_header_for_traceid": "x-trace",
            "queue": { "max_batch_size": 2, "max_coalescing_delay": 3600 },
            "sampling_rate": 0,
        });
        let (origin, gateway) = gateway_with(&[global(30, "opentelemetry", config)]).await;
        let mut client = gateway.client().await;
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let mut told = String::new();
        for _ in 0..2 {
            // Not recorded: nobody asked for it, and the rate is none.
            client.get("/").await;
            let reply = client.get_with("/a?b", &[("traceparent", &parent)]).await;
            assert_eq!(reply.header("x-trace"), Some(TRACE));
            told = reply.received("traceparent").unwrap();
        }
        until(async || !kept.lock().unwrap().is_empty()).await;
        let (headers, body) = kept.lock().unwrap().remove(0);
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["x-token"], "t");
        let message = ExportTraceServiceRequest::decode(body).unwrap();
        let resource = &message.resource_spans[0];
        let attributes = &resource.resource.as_ref().unwrap().attributes;
        let name = attributes
            .iter()
            .find(|attribute| attribute.key == "service.name");
        assert!(format!("{name:?}").contains("edge"));
        assert!(attributes.iter().any(|attribute| attribute.key == "zone"));
        let spans = &resource.scope_spans[0].spans;
        let [first, tried, second, _] = &**spans else {
            panic!("{spans:?}")
        };
        assert_eq!(
            (
                &*first.name,
                &*hex(&first.trace_id),
                &*hex(&first.parent_span_id)
            ),
            ("kong", TRACE, SPAN)
        );
        assert_eq!(
            (&*tried.name, &tried.parent_span_id),
            ("kong.balancer", &first.span_id)
        );
        assert_eq!(told, format!("00-{TRACE}-{}-01", hex(&second.span_id)));
        assert!(first.start_time_unix_nano <= tried.start_time_unix_nano);
        assert!(tried.end_time_unix_nano <= first.end_time_unix_nano);
        assert!(attribute(first, "http.url").contains("http://gateway.test/a?b"));
        assert!(attribute(first, "http.status_code").contains("200"));
        assert!(attribute(tried, "net.peer.port").contains(&origin.address.port().to_string()));
    }

    #[tokio::test]
    async fn opentelemetry_passes_the_context_on_as_configured() {
        let config = |propagation: Value| json!({ "propagation": propagation, "sampling_rate": 1 });
        let (_origin, gateway) = gateway_with(&[global(
            30,
            "opentelemetry",
            config(json!({ "default_format": "w3c" })),
        )])
        .await;
        let reply = gateway.get("/").await;
        let parent = reply.received("traceparent").unwrap();
        assert!(parent.len() == 55 && parent.ends_with("-01"), "{parent}");
        let lists = json!({
            "default_format": "w3c", "extract": ["b3"], "clear": ["b3"],
            "inject": ["preserve", "datadog", "aws", "gcp", "jaeger", "ot", "b3"],
        });
        gateway.apply(&[global(30, "opentelemetry", config(lists))]);
        let mut client = gateway.client().await;
        let reply = client
            .get_with("/", &[("b3", &format!("{TRACE}-{SPAN}-1"))])
            .await;
        for name in ["b3", "x-b3-traceid", "uber-trace-id", "ot-tracer-traceid"] {
            let value = reply.received(name).unwrap();
            assert!(value.starts_with(TRACE), "{name} {value}");
        }
        assert!(
            reply
                .received("x-cloud-trace-context")
                .unwrap()
                .ends_with(";o=1")
        );
        assert!(
            reply
                .received("x-amzn-trace-id")
                .unwrap()
                .starts_with("Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=")
        );
        assert_eq!(
            reply.received("x-datadog-trace-id").unwrap(),
            0xa3ce_929d_0e0e_4736_u64.to_string()
        );
        assert_eq!(reply.received("traceparent"), None);
    }

    #[tokio::test]
    async fn opentelemetry_is_consistent() {
        is_consistent(
            |n| {
                let config = json!({
                    "http_response_header_for_traceid": format!("x-trace-{n}"),
                    "propagation": { "inject": [if n % 2 == 0 { "w3c" } else { "ot" }] },
                });
                vec![global(30, "opentelemetry", config)]
            },
            async |client: &mut Client| client.get("/").await,
            |reply| {
                let shown = shown_by_name(reply);
                let even = reply.received("traceparent").is_some();
                assert_eq!(even, shown[0].is_multiple_of(2));
                shown
            },
        )
        .await;
    }
}

/// The numbers in the names of headers that show the trace.
fn shown_by_name(reply: &Reply) -> Vec<u64> {
    let names = reply.headers.keys();
    names
        .filter_map(|name| name.as_str().strip_prefix("x-trace-")?.parse().ok())
        .collect()
}

fn zipkin(sink: &HttpSink, fields: Value) -> Entity {
    let mut config = json!({ "http_endpoint": sink.url("/api/v2/spans"), "sample_ratio": 1 });
    config
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    global(30, "zipkin", config)
}

#[tokio::test]
async fn zipkin_sends_the_spans_of_a_trace() {
    let sink = HttpSink::start().await;
    let mut entities = key_auth(json!({}));
    entities.push(zipkin(&sink, json!({ "static_tags": [{ "name": "env", "value": "test" }], "http_span_name": "method_path" })));
    let (origin, gateway) = gateway_with(&entities).await;
    let mut client = gateway.client().await;
    let headers = [
        ("apikey", "secret"),
        ("x-b3-traceid", TRACE),
        ("x-b3-spanid", SPAN),
        ("x-b3-sampled", "1"),
        ("zipkin-tags", "one=1; two = 2;bad"),
    ];
    let reply = client.get_with("/a", &headers).await;
    sink.kept.wait(1).await;
    let spans = sink.entries();
    let [request, proxy, tried] = &*spans else {
        panic!("{spans:?}")
    };
    assert_eq!(
        (&request["traceId"], &request["id"], &request["kind"]),
        (&TRACE.into(), &SPAN.into(), &"SERVER".into())
    );
    assert_eq!(request["name"], "GET /a");
    assert_eq!(request["localEndpoint"]["serviceName"], "kong");
    assert_eq!(request["remoteEndpoint"]["ipv4"], "127.0.0.1");
    let tags = &request["tags"];
    for (name, value) in [
        ("lc", "kong"),
        ("http.method", "GET"),
        ("http.path", "/a"),
        ("http.status_code", "200"),
        ("env", "test"),
        ("one", "1"),
        ("two", "2"),
    ] {
        assert_eq!(tags[name], value, "{tags}");
    }
    assert_eq!(tags["kong.credential"], reference(11)["id"]);
    assert_eq!(
        (&proxy["name"], &proxy["parentId"], &proxy["kind"]),
        (&"GET /a (proxy)".into(), &SPAN.into(), &"CLIENT".into())
    );
    assert_eq!(proxy["tags"]["kong.route"], reference(2)["id"]);
    let named: Vec<_> = proxy["annotations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["value"].clone())
        .collect();
    assert_eq!(named, ["kas", "kaf", "khs", "khf", "kbs", "kbf"]);
    assert_eq!(
        (&tried["name"], &tried["remoteEndpoint"]["port"]),
        (
            &"GET /a (balancer try 1)".into(),
            &origin.address.port().into()
        )
    );
    assert_eq!(reply.received("x-b3-traceid").as_deref(), Some(TRACE));
    assert_eq!(
        reply.received("x-b3-spanid").unwrap(),
        proxy["id"].as_str().unwrap()
    );
    assert_eq!(reply.received("x-b3-parentspanid").as_deref(), Some(SPAN));
}

#[tokio::test]
async fn zipkin_decides_only_where_the_client_did_not() {
    let sink = HttpSink::start().await;
    let fields = json!({ "traceid_byte_count": 8, "phase_duration_flavor": "tags", "include_credential": false });
    let (_origin, gateway) = gateway_with(&[zipkin(&sink, fields)]).await;
    let mut client = gateway.client().await;
    let reply = client.get_with("/quiet", &[("b3", "0")]).await;
    assert!(reply.received("b3").unwrap().contains("-0-"));
    let reply = client.get("/told").await;
    assert_eq!(reply.received("x-b3-traceid").unwrap().len(), 16);
    sink.kept.wait(1).await;
    let spans = sink.entries();
    assert_eq!(spans[0]["tags"]["http.path"], "/told");
    assert!(spans[1]["tags"]["kong.access.duration_ms"].is_string());
    // A request without a route has its span, too.
    gateway.remove(&[route(2, json!({}))]);
    gateway.get("/lost").await;
    sink.kept.wait(2).await;
    assert_eq!(sink.entries()[3]["tags"]["http.status_code"], "404");
}

#[tokio::test]
async fn zipkin_is_consistent() {
    is_consistent(
        |n| {
            let config = json!({
                "http_response_header_for_traceid": format!("x-trace-{n}"),
                "default_header_type": if n % 2 == 0 { "b3" } else { "ot" },
            });
            vec![global(30, "zipkin", config)]
        },
        async |client: &mut Client| client.get("/").await,
        |reply| {
            let shown = shown_by_name(reply);
            let even = reply.received("x-b3-traceid").is_some();
            assert_eq!(even, shown[0].is_multiple_of(2));
            shown
        },
    )
    .await;
}
