//! What each role may do with the shipped permissions, tried one by one against a real broker; and why control planes and
//! data planes live in two accounts.

use crate::support::{PATIENCE, connected, event, include, options, shipped};
use async_nats::{Client, ConnectOptions, Event, HeaderMap, ServerError, Subscriber};
use futures::StreamExt;
use serde_json::{Value, json};
use sluice_replica::log::ChunkUse;
use sluice_replica::log::jetstream::Role;
use sluice_schema::hash::Hash32;
use sluice_schema::version::Version;
use sluice_tests::nats::Nats;
use std::collections::BTreeSet;
use tokio::sync::mpsc;

const READ: &str = "$JS.API.DIRECT.GET.SLUICE_main";
/// Never permitted: what the broker says about it shows that everything before it has been dealt with.
const SENTINEL: &str = "sentinel";

/// Where nothing may be published.
const SUBJECTS: &[&str] = &[
    "sluice.main.log.default.service.x",
    "sluice.main.log.x",
    "sluice.main.log",
    "sluice.main.tail.default.service.x",
    "sluice.main.head",
    "sluice.main.node.dp-2",
    "sluice.main.node.dp-10",
    "sluice.main.node.dp-1.x",
    "sluice.main.node",
    "sluice.main.count.dp-2",
    "sluice.main.count.dp-10",
    "sluice.main.count.dp-1.x",
    "sluice.main.count",
    "sluice.other.count.dp-1",
    "sluice.main.chunk.x",
    "sluice.main.chunk.tx.00",
    "sluice.main.chunk.snap.00",
    "sluice.main.chunk.root.a",
    "sluice.other.log.x",
    "sluice.other.node.dp-1",
    "SLUICE_main",
    "_INBOX_cp.x",
    "_INBOX_dp-1.x",
    "_INBOX_dp-2.x",
    "_R_.x",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.ACCOUNT.PING.CONNZ",
    "$SYS.REQ.USER.INFO",
    "$SYS.REQ.ACCOUNT.SLUICE.CLAIMS.UPDATE",
    "$SYS.ACCOUNT.SLUICE.CONNECT",
    "$JS.ACK.SLUICE_main.c.1.1.1.1.1",
    "$JS.FC.SLUICE_main.c.x",
    "$NRG.AE.x",
    "$MQTT.JSA.x",
    "$KV.x.y",
    "$O.x.C.y",
];

/// Where answers must have no effect.
const TARGETS: [&str; 15] = [
    "sluice.main.log.default.service.x",
    "sluice.main.chunk.x",
    "sluice.main.head",
    "sluice.main.node.dp-2",
    "sluice.main.count.dp-2",
    "$JS.API.STREAM.PURGE.SLUICE_main",
    "$JS.API.STREAM.PURGE.SLUICE_main_chunks",
    "$JS.API.STREAM.DELETE.SLUICE_main",
    "$JS.API.STREAM.DELETE.SLUICE_main_chunks",
    "$JS.API.STREAM.LEADER.STEPDOWN.SLUICE_main",
    "$JS.API.CONSUMER.DELETE.SLUICE_main.c",
    "$JS.API.DIRECT.GET.SLUICE_main",
    "$SYS.REQ.SERVER.PING",
    "_INBOX_cp.x",
    "_R_.x",
];

/// Something to try.
#[derive(Clone, Debug)]
enum Attempt {
    /// Publish this.
    Publish(String, String),
    /// Publish a permitted report with these headers.
    Headers(Vec<(&'static str, String)>),
    /// Subscribe, perhaps as one of a group.
    Subscribe(String, Option<&'static str>),
    /// Read this sequence, which is permitted, and have the answer sent there.
    Answer(String, u64),
}

fn publish(subject: &str, payload: &Value) -> Attempt {
    let payload = if payload.is_null() {
        String::new()
    } else {
        payload.to_string()
    };
    Attempt::Publish(subject.to_owned(), payload)
}

/// What somebody who may only read must not be able to do.
fn attempts() -> Vec<Attempt> {
    let mut all: Vec<_> = SUBJECTS
        .iter()
        .map(|subject| publish(subject, &json!({ "x": 1 })))
        .collect();
    all.extend(api_attempts());
    all.extend(subscriptions());
    for target in TARGETS {
        // A record, and the empty answer that there is none.
        all.push(Attempt::Answer(target.into(), 1));
        all.push(Attempt::Answer(target.into(), 1_000_000));
    }
    all.extend(headers());
    all
}

/// Headers that mean something to the broker.
fn headers() -> Vec<Attempt> {
    let mut all = Vec::new();
    for target in [
        "sluice.main.log.x",
        "sluice.main.head",
        "$JS.API.STREAM.PURGE.SLUICE_main",
    ] {
        all.push(Attempt::Headers(vec![("Nats-Trace-Dest", target.into())]));
        all.push(Attempt::Headers(vec![
            ("Nats-Trace-Dest", target.into()),
            ("Nats-Trace-Only", "true".into()),
        ]));
    }
    for headers in [
        vec![("Nats-Msg-Id", "1".to_owned())],
        vec![("Nats-Rollup", "all".to_owned())],
        vec![
            ("Nats-Stream", "SLUICE_main".to_owned()),
            ("Nats-Subject", "sluice.main.log.x".to_owned()),
            ("Nats-Sequence", "9".to_owned()),
        ],
        vec![("Nats-Expected-Stream", "SLUICE_main".to_owned())],
        vec![
            ("Nats-Batch-Id", "b".to_owned()),
            ("Nats-Batch-Sequence", "1".to_owned()),
            ("Nats-Batch-Commit", "1".to_owned()),
        ],
        vec![(
            "Nats-Request-Info",
            r#"{"acc":"SLUICE","user":"cp"}"#.to_owned(),
        )],
    ] {
        all.push(Attempt::Headers(headers));
    }
    all
}

fn api_attempts() -> Vec<Attempt> {
    let mut all = Vec::new();
    for stream in ["SLUICE_main", "SLUICE_main_chunks"] {
        let subjects = if stream == "SLUICE_main" {
            "log"
        } else {
            "chunk"
        };
        let config = json!({ "name": stream, "subjects": [format!("sluice.main.{subjects}.>")], "max_msgs": 1 });
        let consumer = json!({ "stream_name": stream, "config": { "name": "c", "deliver_subject": "_INBOX_dp-1.c", "ack_policy": "none" } });
        for (operation, body) in [
            ("STREAM.CREATE.*", &config),
            ("STREAM.UPDATE.*", &config),
            ("STREAM.DELETE.*", &Value::Null),
            ("STREAM.PURGE.*", &Value::Null),
            ("STREAM.INFO.*", &Value::Null),
            ("STREAM.MSG.GET.*", &json!({ "seq": 1 })),
            ("STREAM.MSG.DELETE.*", &json!({ "seq": 1 })),
            (
                "STREAM.SNAPSHOT.*",
                &json!({ "deliver_subject": "_INBOX_dp-1.s" }),
            ),
            ("STREAM.RESTORE.*", &json!({ "config": config.clone() })),
            ("STREAM.LEADER.STEPDOWN.*", &Value::Null),
            ("STREAM.PEER.REMOVE.*", &json!({ "peer": "nats-1" })),
            ("CONSUMER.CREATE.*", &consumer),
            ("CONSUMER.CREATE.*.c", &consumer),
            ("CONSUMER.CREATE.*.c.sluice.main.log.x", &consumer),
            ("CONSUMER.DURABLE.CREATE.*.c", &consumer),
            ("CONSUMER.DELETE.*.c", &Value::Null),
            ("CONSUMER.INFO.*.c", &Value::Null),
            ("CONSUMER.LIST.*", &Value::Null),
            ("CONSUMER.NAMES.*", &Value::Null),
            ("CONSUMER.PAUSE.*.c", &Value::Null),
            ("CONSUMER.MSG.NEXT.*.c", &Value::Null),
            ("CONSUMER.LEADER.STEPDOWN.*.c", &Value::Null),
            ("DIRECT.GET.*.sluice.main.log.x", &Value::Null),
        ] {
            all.push(publish(
                &format!("$JS.API.{}", operation.replace('*', stream)),
                body,
            ));
        }
    }
    for operation in [
        "INFO",
        "STREAM.LIST",
        "STREAM.NAMES",
        "STREAM.CREATE.MINE",
        "STREAM.TEMPLATE.CREATE.T",
        "ACCOUNT.INFO",
        "ACCOUNT.PURGE.SLUICE",
        "ACCOUNT.STREAM.MOVE.SLUICE.SLUICE_main",
        "META.LEADER.STEPDOWN",
        "SERVER.REMOVE",
        "DIRECT.GET.OTHER",
        "DIRECT.GET.SLUICE_other",
    ] {
        let body = json!({ "name": "MINE", "subjects": ["sluice.main.node.>"] });
        all.push(publish(&format!("$JS.API.{operation}"), &body));
    }
    all
}

fn subscriptions() -> Vec<Attempt> {
    let subscribe = |subject: &str, group| Attempt::Subscribe(subject.to_owned(), group);
    let mut all: Vec<_> = [
        ">",
        "*",
        "*.>",
        "*.*.*.*",
        "sluice.>",
        "sluice.main.>",
        "sluice.main.*",
        "sluice.*.tail.>",
        "sluice.main.node.*",
        "sluice.main.node.>",
        "sluice.main.node.dp-1",
        "sluice.main.node.dp-2",
        // Not `sluice.main.count.>`: to the broker its `>` is a token that the permitted `*` matches.
        "sluice.main.count.*.*",
        "sluice.other.count.*",
        "sluice.main.log.>",
        "sluice.main.chunk.>",
        "_INBOX.>",
        "_INBOX_cp.>",
        "_INBOX_dp-2.>",
        "_INBOX_dp-1",
        "_R_.>",
        "$JS.>",
        "$JS.API.>",
        "$JS.EVENT.>",
        "$SYS.>",
    ]
    .iter()
    .map(|subject| subscribe(subject, None))
    .collect();
    all.push(subscribe("sluice.main.node.*", Some("group")));
    all.push(subscribe("sluice.main.log.>", Some("group")));
    all.push(subscribe("$JS.API.DIRECT.GET.SLUICE_main", Some("group")));
    all
}

/// A client without manners: it says what it likes and listens to what the broker says about it.
struct Intruder {
    client: Client,
    said: mpsc::UnboundedReceiver<String>,
    user: String,
}

impl Intruder {
    async fn connect(nats: &Nats, user: &str) -> Self {
        let (sender, said) = mpsc::unbounded_channel();
        let client = ConnectOptions::new()
            .custom_inbox_prefix(format!("_INBOX_{user}"))
            .skip_subject_validation(true)
            .user_and_password(user.to_owned(), format!("change-me-{user}"))
            .event_callback(move |event| {
                if let Event::ServerError(ServerError::Other(text)) = event {
                    let _ = sender.send(text);
                }
                std::future::ready(())
            })
            .connect(nats.url())
            .await
            .unwrap();
        Self {
            client,
            said,
            user: user.to_owned(),
        }
    }

    async fn read(&self) {
        let question = json!({ "seq": 1 }).to_string();
        let answer = self.client.request(READ, question.into()).await.unwrap();
        assert_eq!(answer.status, None);
    }

    /// What the broker says about `attempt`, and what was subscribed to.
    async fn try_out(&mut self, attempt: &Attempt) -> (Vec<String>, Option<Subscriber>) {
        let mut subscriber = None;
        match attempt {
            Attempt::Publish(subject, payload) => {
                let reply = format!("_INBOX_{}.answer", self.user);
                self.client
                    .publish_with_reply(subject.clone(), reply, payload.clone().into())
                    .await
                    .unwrap();
            }
            Attempt::Headers(pairs) => {
                let mut headers = HeaderMap::new();
                for (name, value) in pairs {
                    headers.insert(*name, value.as_str());
                }
                let own = format!("sluice.main.node.{}", self.user);
                self.client
                    .publish_with_headers(own, headers, "well".into())
                    .await
                    .unwrap();
            }
            Attempt::Subscribe(subject, None) => {
                subscriber = Some(self.client.subscribe(subject.clone()).await.unwrap());
            }
            Attempt::Subscribe(subject, Some(group)) => {
                let found = self
                    .client
                    .queue_subscribe(subject.clone(), (*group).to_owned())
                    .await;
                subscriber = Some(found.unwrap());
            }
            Attempt::Answer(target, sequence) => {
                let question = json!({ "seq": sequence }).to_string();
                self.client
                    .publish_with_reply(READ, target.clone(), question.into())
                    .await
                    .unwrap();
            }
        }
        (self.flush().await, subscriber)
    }

    async fn flush(&mut self) -> Vec<String> {
        self.client.publish(SENTINEL, "".into()).await.unwrap();
        let mut said = Vec::new();
        loop {
            let text = tokio::time::timeout(PATIENCE, self.said.recv())
                .await
                .unwrap_or_else(|_| panic!("the broker says nothing about the sentinel: {said:?}"))
                .unwrap();
            if text.contains(&format!("\"{SENTINEL}\"")) {
                return said;
            }
            said.push(text);
        }
    }
}

/// Everything the broker keeps, as its operator sees it.
fn kept(nats: &Nats) -> Value {
    let url = format!(
        "{}/jsz?accounts=true&streams=true&consumers=true&config=true",
        nats.monitor_url()
    );
    let text = ureq::get(&url)
        .call()
        .unwrap()
        .body_mut()
        .read_to_string()
        .unwrap();
    let found: Value = serde_json::from_str(&text).unwrap();
    let details = |account: &Value| {
        // In no particular order.
        let mut streams = account["stream_detail"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        streams.sort_by_key(|stream| stream["name"].to_string());
        json!([account["name"], streams, account["store"]])
    };
    let accounts = found["account_details"].as_array().unwrap();
    Value::Array(accounts.iter().map(details).collect())
}

/// Where something would show that reached others.
struct Watch {
    subscribers: Vec<Subscriber>,
    allowed: String,
}

impl Watch {
    /// Everybody else's ears. Reports on `allowed` are expected.
    async fn start(nats: &Nats, allowed: &str) -> Self {
        let mut subscribers = Vec::new();
        for (user, subjects) in [
            (
                "cp",
                &[
                    "sluice.main.node.*",
                    "sluice.main.head",
                    "sluice.main.tail.>",
                    "_INBOX_cp.x",
                ][..],
            ),
            ("dp-2", &["_INBOX_dp-2.>"][..]),
        ] {
            let client = Intruder::connect(nats, user).await;
            for subject in subjects {
                subscribers.push(client.client.subscribe(*subject).await.unwrap());
            }
            client.client.flush().await.unwrap();
        }
        Self {
            subscribers,
            allowed: allowed.to_owned(),
        }
    }

    /// What has reached others so far.
    fn heard(&mut self) -> Vec<String> {
        let mut heard = Vec::new();
        for subscriber in &mut self.subscribers {
            while let Some(Some(message)) = futures::FutureExt::now_or_never(subscriber.next()) {
                if message.subject.as_str() != self.allowed {
                    heard.push(message.subject.to_string());
                }
            }
        }
        heard
    }
}

/// Tries everything as `user` and gives what was done about it.
#[allow(
    clippy::too_many_lines,
    reason = "one attempt from its beginning to its end"
)]
async fn try_everything(user: &str, attempts: &[Attempt], permitted: &BTreeSet<&str>) {
    let files = shipped("password.conf", &[]);
    let nats = Nats::start_with_files(&include("password.conf"), &files).unwrap();
    let control = connected(options(
        nats.url_as("cp", "change-me-cp"),
        Role::ControlPlane,
        "cp",
    ))
    .await;
    for (at, text) in ["one", "two", "three"].iter().enumerate() {
        control
            .log
            .append(Version(at as u64), vec![event(text)])
            .await
            .unwrap();
        control
            .chunks
            .put(
                ChunkUse::Transaction,
                Hash32::of(text.as_bytes()),
                text.as_bytes(),
            )
            .await
            .unwrap();
    }
    let mut intruder = Intruder::connect(&nats, user).await;
    let mut watch = Watch::start(&nats, &format!("sluice.main.node.{user}")).await;
    let before = kept(&nats);
    let (mut denied, mut harmless) = (0, 0);
    for attempt in attempts {
        let (said, subscriber) = intruder.try_out(attempt).await;
        let named = match attempt {
            Attempt::Publish(subject, _) | Attempt::Subscribe(subject, _) => Some(subject.as_str()),
            Attempt::Headers(_) | Attempt::Answer(..) => None,
        };
        let violation = said.iter().any(|text| {
            text.starts_with("Permissions Violation")
                && named.is_none_or(|subject| text.contains(&format!("\"{subject}\"")))
        });
        match named {
            Some(subject) if permitted.contains(subject) => assert_eq!(said, Vec::<String>::new()),
            Some(_) => assert!(violation, "{user}: {attempt:?} was not denied: {said:?}"),
            None => {}
        }
        if violation {
            denied += 1;
        } else {
            harmless += 1;
        }
        drop(subscriber);
        // What an answer sets off would be under way by now; and done, when this has been answered.
        intruder.read().await;
        control.log.bounds().await.unwrap();
        assert_eq!(
            kept(&nats),
            before,
            "{user}: {attempt:?} has changed what is kept"
        );
        assert_eq!(
            watch.heard(),
            Vec::<String>::new(),
            "{user}: {attempt:?} reached others"
        );
    }
    eprintln!(
        "{user}: {} attempts: {denied} denied, {harmless} without effect",
        attempts.len()
    );
    control
        .log
        .append(Version(3), vec![event("four")])
        .await
        .unwrap();
    assert_eq!(control.log.read(Version(1)).await.unwrap().records.len(), 4);
}

#[tokio::test]
async fn a_data_plane_can_do_nothing_but_read_and_report_as_itself() {
    let attempts = attempts();
    assert!(attempts.len() >= 60, "{}", attempts.len());
    try_everything("dp-1", &attempts, &BTreeSet::new()).await;
}

#[tokio::test]
async fn an_auditor_can_do_nothing_but_read() {
    let mut attempts = attempts();
    attempts.retain(|attempt| !matches!(attempt, Attempt::Headers(_)));
    for subject in [
        "sluice.main.tail.>",
        "sluice.main.head",
        "sluice.main.count.*",
    ] {
        attempts.push(Attempt::Subscribe(subject.into(), None));
    }
    for subject in ["sluice.main.node.auditor", "sluice.main.count.auditor"] {
        attempts.push(publish(subject, &Value::Null));
    }
    try_everything("auditor", &attempts, &BTreeSet::new()).await;
}

/// What the two accounts are for. If this fails, the broker has begun to check where answers go.
#[tokio::test]
async fn in_one_account_who_may_read_can_write_and_delete() {
    let nats = Nats::start_with(
        r#"authorization { users: [
          { user: cp, password: change-me-cp }
          { user: dp-1, password: change-me-dp-1, permissions: {
              publish: ["$JS.API.DIRECT.GET.SLUICE_main"], subscribe: ["_INBOX_dp-1.>"] } }
        ] }"#,
    )
    .unwrap();
    let control = connected(options(
        nats.url_as("cp", "change-me-cp"),
        Role::ControlPlane,
        "cp",
    ))
    .await;
    control
        .log
        .append(Version::ZERO, vec![event("one")])
        .await
        .unwrap();
    let mut intruder = Intruder::connect(&nats, "dp-1").await;
    // A record would not be stored again: it names the sequence it follows.
    let write = Attempt::Answer("sluice.main.log.x".into(), 1_000_000);
    assert_eq!(intruder.try_out(&write).await.0, Vec::<String>::new());
    wait_for(|| async { control.log.bounds().await.unwrap().last == Version(2) }).await;
    let delete = Attempt::Answer("$JS.API.STREAM.DELETE.SLUICE_main".into(), 1_000_000);
    assert_eq!(intruder.try_out(&delete).await.0, Vec::<String>::new());
    wait_for(|| async { control.log.bounds().await.is_err() }).await;
}

async fn wait_for<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("it happens");
}
