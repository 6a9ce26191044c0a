//! The plugin interface: phases, waiting, bodies, notices, by plugins made for it.

use crate::common::consistency::is_consistent_with;
use crate::common::*;
use crate::support::ask;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_dp::plugin::{
    Access, Answer, Cache, Change, Collect, Entity as PluginEntity, Flow, Lasting, Phases, Plugin,
    Record, Registered, Registry, Reply as PluginReply, Rewrite, STANDARD, Stamp, Step, Waiting,
};
use sluice_dp::proxy::Options;
use sluice_schema::version::Version;
use std::sync::Mutex;

const TRACE: HeaderName = HeaderName::from_static("x-trace");

/// What happened, for the test to look at.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Lasting for Heard {}

impl Heard {
    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Config {
    label: String,
    /// Answers in place of the upstream.
    answer: Option<u16>,
    /// Waits for the body, and sends it upstream in capitals.
    upper: bool,
    /// The response in capitals.
    upper_response: bool,
    /// The path that is routed.
    path: Option<String>,
}

/// The labels of the plugins that have run.
#[derive(Default)]
struct Trace(Vec<String>);

struct Probe<const PRIORITY: i32>(Config);

impl<const PRIORITY: i32> Plugin for Probe<PRIORITY> {
    const NAME: &'static str = if PRIORITY > 1000 { "first" } else { "last" };
    const PRIORITY: i32 = PRIORITY;
    const PHASES: Phases = Phases::REWRITE
        .and(Phases::ACCESS)
        .and(Phases::RESPONSE)
        .and(Phases::LOG);
    type Config = Config;
    type State = Heard;

    fn compile(config: Config, _: &PluginEntity<'_>) -> Result<Self, String> {
        match config.label.as_str() {
            "bad" => Err("it is bad".to_owned()),
            _ => Ok(Self(config)),
        }
    }

    fn changed(state: &Heard, change: Change<'_, Self>) {
        state.add(match change {
            Change::Created { now, .. } => format!("+{}", now.0.label),
            Change::Updated { before, now, .. } => {
                format!("{}>{}", before.0.label, now.0.label)
            }
            Change::Deleted { before, .. } => format!("-{}", before.0.label),
        });
    }

    fn rewrite(&self, request: &mut Rewrite<'_>) -> Flow {
        if let Some(path) = &self.0.path {
            *request.uri = path.parse().unwrap();
        }
        Flow::Continue
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        if self.0.upper {
            return Step::Wait;
        }
        self.trace(request);
        match self.0.answer {
            Some(status) => Step::Answer(Answer::bytes(
                StatusCode::from_u16(status).unwrap(),
                HeaderValue::from_static("text/plain"),
                "from a plugin",
            )),
            None => Step::Continue,
        }
    }

    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a> {
        Box::pin(async move {
            match request.body(100).await {
                Ok(body) => request.set_body(body.to_ascii_uppercase()),
                Err(fault) => return Flow::Answer(fault.into()),
            }
            self.trace(request);
            Flow::Continue
        })
    }

    fn response(&self, reply: &mut PluginReply<'_>) {
        let trace = reply.context.shared.get::<Trace>();
        let ran = trace.map(|trace| trace.0.join(",")).unwrap_or_default();
        let line = format!("{}:{ran}", self.0.label);
        reply.headers.append(TRACE, line.parse().unwrap());
        if self.0.upper_response {
            reply.filter(Collect::new(10_000, |body: Bytes| {
                body.to_ascii_uppercase().into()
            }));
        }
    }

    fn log(&self, record: &Record<'_>) {
        let route = record.route.map(|route| route.id.as_u128());
        let service = record.service.map(|service| service.id.as_u128());
        record.state::<Self>().add(format!(
            "{} {} {} {route:?} {service:?} {:?} {}",
            self.0.label,
            record.request.method,
            record.status.as_u16(),
            record.origin,
            if record.whole { record.sent } else { 0 },
        ));
    }
}

impl<const PRIORITY: i32> Probe<PRIORITY> {
    fn trace(&self, request: &mut Access<'_>) {
        let shared = &mut request.context.shared;
        if shared.get::<Trace>().is_none() {
            shared.insert(Trace::default());
        }
        let trace = shared.get_mut::<Trace>().unwrap();
        trace.0.push(self.0.label.clone());
    }
}

static PROBES: &[Registered] = &[
    Registered::of::<Probe<5000>>(),
    Registered::of::<Probe<5>>(),
];
const REGISTRY: Registry = Registry::new(PROBES);

fn probe(id: u128, name: &str, config: Value, scope: &[(&str, u128)]) -> Entity {
    let mut fields = json!({ "name": name, "config": config });
    for (part, id) in scope {
        fields[*part] = reference(*id);
    }
    plugin(id, fields)
}

async fn gateway_with(entities: &[Entity]) -> (Origin, Gateway) {
    let origin = Origin::echo().await;
    let base = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/a"], "strip_path": false })),
    ];
    let entities = [&base, entities].concat();
    let gateway = Gateway::with_plugins(REGISTRY, Options::default(), &entities);
    (origin, gateway)
}

fn heard(gateway: &Gateway) -> &Heard {
    gateway.shared.state.find().unwrap()
}

/// What was logged, once there are so many lines.
async fn logged(gateway: &Gateway, count: usize) -> Vec<String> {
    until(async || heard(gateway).0.lock().unwrap().len() >= count).await;
    heard(gateway).take()
}

fn traces(reply: &Reply) -> Vec<&str> {
    let values = reply.headers.get_all(TRACE).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn every_phase_runs_once_in_the_order_of_priorities_and_knows_what_the_others_did() {
    let (_origin, gateway) = gateway_with(&[
        probe(10, "last", json!({ "label": "b" }), &[("service", 1)]),
        probe(11, "first", json!({ "label": "a" }), &[]),
        probe(12, "first", json!({ "label": "other" }), &[("route", 99)]),
    ])
    .await;
    let mut notices = heard(&gateway).take();
    notices.sort_unstable();
    assert_eq!(notices, ["+a", "+b", "+other"]);
    let reply = gateway.get("/a").await;
    assert_eq!(traces(&reply), ["a:a,b", "b:a,b"]);
    let bytes = reply.body.len();
    let expected =
        ["a", "b"].map(|label| format!("{label} GET 200 Some(2) Some(1) Upstream {bytes}"));
    assert_eq!(logged(&gateway, 2).await, expected);
}

#[tokio::test]
async fn what_the_gateway_answers_itself_goes_through_the_later_phases_too() {
    let refused = refused().await;
    let (_origin, gateway) = gateway_with(&[
        probe(10, "first", json!({ "label": "global" }), &[]),
        probe(11, "last", json!({ "label": "own" }), &[("route", 2)]),
        service(3, refused, json!({ "retries": 0 })),
        route(4, json!({ "paths": ["/broken"], "service": reference(3) })),
        route(5, json!({ "paths": ["/answered"] })),
        probe(
            12,
            "first",
            json!({ "label": "answer", "answer": 418 }),
            &[("route", 5)],
        ),
        route(6, json!({ "paths": ["/nowhere"], "service": null })),
        route(7, json!({ "paths": ["/secret"], "protocols": ["https"] })),
    ])
    .await;
    heard(&gateway).take();
    let cases = [
        ("/none", 404, "global GET 404 None None Gateway", "global:"),
        (
            "/broken",
            502,
            "global GET 502 Some(4) Some(3) Gateway",
            "global:global",
        ),
        (
            "/answered",
            418,
            "answer GET 418 Some(5) Some(1) Plugin",
            "answer:answer",
        ),
        (
            "/nowhere",
            503,
            "global GET 503 Some(6) None Gateway",
            "global:global",
        ),
        (
            "/secret",
            426,
            "global GET 426 Some(7) Some(1) Gateway",
            "global:",
        ),
    ];
    for (path, status, line, trace) in cases {
        let reply = gateway.get(path).await;
        assert_eq!(
            (reply.status.as_u16(), traces(&reply)),
            (status, vec![trace])
        );
        let expected = format!("{line} {}", reply.body.len());
        assert_eq!(logged(&gateway, 1).await, [expected]);
    }
    let answered = gateway.get("/answered").await;
    assert_eq!(&answered.body[..], b"from a plugin");
    assert_eq!(answered.header("content-type"), Some("text/plain"));
}

#[tokio::test]
async fn a_plugin_may_wait_for_the_body_and_change_it_for_all_that_follow() {
    let (_origin, gateway) = gateway_with(&[
        probe(10, "first", json!({ "label": "a", "upper": true }), &[]),
        probe(11, "last", json!({ "label": "b", "upper": true }), &[]),
    ])
    .await;
    let send = async |body: ClientBody| {
        let request = Request::post("/a").header("host", "a.test");
        gateway
            .client()
            .await
            .send(request.body(body).unwrap())
            .await
    };
    let reply = send(full("some words")).await;
    assert_eq!(reply.json()["body"], "SOME WORDS");
    assert_eq!(reply.received("content-length").as_deref(), Some("10"));
    assert_eq!(traces(&reply), ["a:a,b", "b:a,b"]);
    // In pieces, of no length that is told.
    let pieces =
        ["one ", "two ", "three"].map(|piece| Ok(http_body::Frame::data(Bytes::from(piece))));
    let stream = http_body_util::StreamBody::new(futures::stream::iter(pieces));
    let reply = send(http_body_util::BodyExt::boxed_unsync(stream)).await;
    assert_eq!(reply.json()["body"], "ONE TWO THREE");
    assert_eq!(send(empty()).await.json()["body"], "");
    let reply = send(full(vec![b'x'; 101])).await;
    assert_eq!(reply.status, 413);
    assert_eq!(traces(&reply), ["a:", "b:"]);
}

#[tokio::test]
async fn a_plugin_may_change_the_responses_body() {
    let (_origin, gateway) = gateway_with(&[probe(
        10,
        "first",
        json!({ "label": "a", "upper_response": true }),
        &[],
    )])
    .await;
    let reply = gateway.get("/a").await;
    let body = String::from_utf8(reply.body.to_vec()).unwrap();
    assert!(
        body.contains("\"GET\"") && body.contains("\"METHOD\""),
        "{body}"
    );
    assert_eq!(reply.header("content-length"), None);
    // One that has none keeps what is said of it.
    let (_plain_origin, plain) = gateway_with(&[]).await;
    let lengths = [&gateway, &plain].map(async |gateway: &Gateway| {
        let reply = ask(gateway, "HEAD", "/a", &[]).await;
        (
            reply.body.len(),
            reply.header("content-length").map(str::to_owned),
        )
    });
    let [filtered, plain] = lengths;
    assert_eq!(filtered.await, plain.await);
    // The gateway's own, too.
    let reply = gateway.get("/none").await;
    let body = String::from_utf8(reply.body.to_vec()).unwrap();
    assert!(body.contains("NO ROUTE MATCHED"), "{body}");
}

#[tokio::test]
async fn global_plugins_may_change_where_a_request_goes_before_it_is_routed() {
    let (_origin, gateway) = gateway_with(&[
        probe(
            10,
            "first",
            json!({ "label": "a", "path": "/a/b?c=d" }),
            &[],
        ),
        probe(
            11,
            "last",
            json!({ "label": "b", "path": "/x" }),
            &[("service", 1)],
        ),
    ])
    .await;
    let reply = gateway.get("/elsewhere").await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["uri"]),
        (200, &json!("/a/b?c=d"))
    );
}

#[tokio::test]
async fn notices_are_exact_whichever_way_a_version_came() {
    let (_origin, gateway) = gateway_with(&[]).await;
    let label = |label: &str| probe(10, "first", json!({ "label": label }), &[]);
    let check = |expected: &[&str]| assert_eq!(heard(&gateway).take(), expected);
    gateway.apply(&[label("1")]);
    check(&["+1"]);
    gateway.apply(&[route(9, json!({ "paths": ["/z"] }))]);
    check(&[]);
    gateway.apply(&[label("2")]);
    check(&["1>2"]);
    // One that cannot be used leaves the one before.
    let rejected = gateway.try_apply(&[label("bad")]);
    assert_eq!(rejected, ["plugin `first` cannot be used: it is bad"]);
    check(&[]);
    gateway.apply(&[label("3")]);
    check(&["2>3"]);
    gateway.apply(&[probe(10, "last", json!({ "label": "4" }), &[])]);
    check(&["+4", "-3"]);
    let mut disabled = json!({ "name": "last", "enabled": false });
    disabled["config"] = json!({ "label": "5" });
    gateway.apply(&[plugin(10, disabled)]);
    check(&["-4"]);
    gateway.apply(&[label("6"), probe(11, "last", json!({ "label": "7" }), &[])]);
    check(&["+6", "+7"]);
    // A state as a whole, in which one is new, one is another, and one is not.
    gateway.reload(&[label("8"), probe(12, "last", json!({ "label": "9" }), &[])]);
    check(&["6>8", "+9", "-7"]);
    // A log that was restored may use a version again, for something else or for the same.
    let version = gateway.tables.load().version();
    gateway.reload_as(
        version,
        &[label("10"), probe(12, "last", json!({ "label": "9" }), &[])],
    );
    check(&["8>10"]);
    gateway.remove(&[label("10")]);
    check(&["-10"]);
}

#[tokio::test]
async fn plugins_that_ran_before_the_consumer_was_known_keep_their_later_phases() {
    static ALL: &[Registered] = &[
        Registered::of::<Probe<5000>>(),
        Registered::of::<Probe<5>>(),
        Registered::of::<Known>(),
    ];
    let origin = Origin::echo().await;
    let entities = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
        consumer(20, json!({ "username": "alice" })),
        probe(10, "known", json!({}), &[]),
        probe(11, "first", json!({ "label": "early" }), &[]),
        probe(12, "first", json!({ "label": "late" }), &[("consumer", 20)]),
        probe(13, "last", json!({ "label": "any" }), &[]),
        probe(14, "last", json!({ "label": "hers" }), &[("consumer", 20)]),
    ];
    let gateway = Gateway::with_plugins(Registry::new(ALL), Options::default(), &entities);
    let reply = gateway.get("/").await;
    assert_eq!(traces(&reply), ["early:early,hers", "hers:early,hers"]);
}

/// Knows every client as consumer 20.
struct Known;

impl Plugin for Known {
    const NAME: &'static str = "known";
    const PRIORITY: i32 = 1000;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Value;
    type State = ();

    fn compile(_: Value, _: &PluginEntity<'_>) -> Result<Self, String> {
        Ok(Self)
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        let consumer = request.table.consumer(uuid::Uuid::from_u128(20)).cloned();
        request.context.identity.consumer = consumer;
        Step::Continue
    }
}

#[test]
fn all_plugins_of_the_build_have_names_of_their_own() {
    let mut names: Vec<_> = STANDARD.names().collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// Shows its configuration through a cache.
struct Cached<const STALE: bool> {
    stamp: Stamp,
    label: String,
}

impl<const STALE: bool> Plugin for Cached<STALE> {
    const NAME: &'static str = "cached";
    const PRIORITY: i32 = 1;
    const PHASES: Phases = Phases::RESPONSE;
    type Config = Config;
    type State = Cache<String>;

    fn compile(config: Config, entity: &PluginEntity<'_>) -> Result<Self, String> {
        let mut stamp = entity.stamp;
        if STALE {
            // What a cache by the plugin's id alone would do.
            (stamp.version, stamp.content) = (Version(0), 0);
        }
        let label = config.label;
        Ok(Self { stamp, label })
    }

    fn response(&self, reply: &mut PluginReply<'_>) {
        let now = reply.now;
        let cache = reply.state::<Self>();
        let found = cache.get(self.stamp, b"label", now);
        let label = found.unwrap_or_else(|| {
            cache.put(self.stamp, b"label", self.label.clone(), now + 60);
            self.label.clone()
        });
        reply.headers.append(TRACE, label.parse().unwrap());
    }
}

async fn cached_is_consistent(registry: Registry) {
    is_consistent_with(
        registry,
        |n| vec![probe(10, "cached", json!({ "label": n.to_string() }), &[])],
        async |client: &mut Client| client.get("/").await,
        |reply| {
            traces(reply)
                .iter()
                .map(|label| label.parse().unwrap())
                .collect()
        },
    )
    .await;
}

#[tokio::test]
async fn a_cache_by_stamps_is_never_stale() {
    static PLUGINS: &[Registered] = &[Registered::of::<Cached<false>>()];
    cached_is_consistent(Registry::new(PLUGINS)).await;
}

#[tokio::test]
#[should_panic(expected = "were active")]
async fn the_consistency_harness_finds_a_stale_cache() {
    static PLUGINS: &[Registered] = &[Registered::of::<Cached<true>>()];
    cached_is_consistent(Registry::new(PLUGINS)).await;
}
