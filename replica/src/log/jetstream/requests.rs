//! Requests of other programs that come over the broker: a subject on which control planes listen as a group, so that one
//! of them takes each request, and the discovery that NATS' own tools ask for (PING, INFO and STATS of its services).
//!
//! Whoever asks names the subject of the answer, and the broker sends it there with *our* rights: the log itself could be
//! named. So answers go to inboxes only, and never into our own.

use super::JetStream;
use super::LogError;
use async_nats::{HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The group in which services of NATS share their work.
const GROUP: &str = "q";
/// The name under which tools find the service.
const NAME: &str = "sluice-admin";
/// What answers may begin with: inboxes, and what the broker makes of an inbox in another account.
const INBOXES: [&str; 2] = ["_INBOX", "_R_."];
const RETRY: Duration = Duration::from_secs(1);

/// A program's request.
#[derive(Debug)]
pub struct Asked {
    /// Its headers; a name may come more than once.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub payload: Bytes,
    reply: String,
}

/// Takes requests and answers them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Requests {
    log: Arc<JetStream>,
    /// Of this process, for those who look for it.
    id: String,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    errors: AtomicU64,
}

impl Requests {
    pub(super) fn new(log: Arc<JetStream>, id: String) -> Self {
        Self {
            log,
            id,
            counts: Arc::default(),
        }
    }

    /// Where programs ask.
    pub fn subject(&self) -> &str {
        &self.log.names.admin
    }

    /// The most bytes an answer may have, headers included, as far as it is known.
    pub fn answer_bytes_max(&self) -> Option<usize> {
        self.log.link.payload_bytes_max()
    }

    /// Hands each request to `take` until the process ends. Comes back to it after any trouble.
    pub async fn listen(&self, take: impl Fn(Asked)) {
        loop {
            if let Err(error) = self.listen_once(&take).await {
                tracing::warn!(%error, "could not listen for requests over the broker");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn listen_once(&self, take: &impl Fn(Asked)) -> Result<(), LogError> {
        let link = &self.log.link;
        let subject = self.subject().to_owned();
        let mut requests = link.subscribe_in(subject, GROUP).await?;
        let mut discovery = futures::stream::SelectAll::<Subscriber>::new();
        for verb in ["PING", "INFO", "STATS"] {
            for rest in ["", ".sluice-admin", &format!(".sluice-admin.{}", self.id)] {
                let subject = format!("$SRV.{verb}{rest}");
                discovery.push(link.subscribe(subject).await?);
            }
        }
        loop {
            tokio::select! {
                message = requests.next() => match message {
                    Some(message) => self.take(message, take),
                    None => return Ok(()),
                },
                Some(message) = discovery.next() => self.discover(&message).await,
            }
        }
    }

    fn take(&self, message: Message, take: &impl Fn(Asked)) {
        let Some(reply) = self.may_answer(&message) else {
            return;
        };
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        let mut headers = Vec::new();
        for (name, values) in message.headers.iter().flat_map(HeaderMap::iter) {
            let named = values
                .iter()
                .map(|value| (name.to_string(), value.to_string()));
            headers.extend(named);
        }
        take(Asked {
            headers,
            payload: message.payload,
            reply,
        });
    }

    /// Where a message may be answered, if that is an inbox and not ours.
    fn may_answer(&self, message: &Message) -> Option<String> {
        let reply = message.reply.as_ref()?.to_string();
        let own = self.log.link.inbox_prefix();
        let is_own = reply
            .strip_prefix(own)
            .is_some_and(|rest| rest.starts_with('.'));
        // The usual prefix is everybody's: it is ours alone only if the settings say so.
        let is_own = is_own && own != INBOXES[0];
        if INBOXES.iter().any(|inbox| reply.starts_with(inbox)) && !is_own {
            return Some(reply);
        }
        tracing::warn!(
            reply,
            "dropped a request whose answer should go to no inbox"
        );
        None
    }

    /// Answers a request.
    ///
    /// # Errors
    /// If it cannot be sent now: whoever asked will hear nothing.
    pub async fn answer(
        &self,
        asked: &Asked,
        headers: &[(String, String)],
        payload: Bytes,
        is_error: bool,
    ) -> Result<(), LogError> {
        if is_error {
            self.counts.errors.fetch_add(1, Ordering::Relaxed);
        }
        let mut sent = HeaderMap::new();
        for (name, value) in headers {
            // A value with a line break cannot stand in a header; nothing of ours has one.
            if !value.contains(['\r', '\n']) {
                sent.append(name.as_str(), value.as_str());
            }
        }
        self.log
            .link
            .send(asked.reply.clone(), None, sent, payload)
            .await
    }

    async fn discover(&self, message: &Message) {
        let Some(reply) = self.may_answer(message) else {
            return;
        };
        let subject = message.subject.as_str();
        let body = if subject.starts_with("$SRV.PING") {
            self.describe("ping_response", "")
        } else if subject.starts_with("$SRV.INFO") {
            let endpoint = self.endpoint("");
            self.describe("info_response", &format!(r#","description":"Sluice's Admin API: Sluice-Method and Sluice-Path as headers, a JSON body","endpoints":[{endpoint}]"#))
        } else {
            let (requests, errors) = (
                self.counts.requests.load(Ordering::Relaxed),
                self.counts.errors.load(Ordering::Relaxed),
            );
            let counts = format!(
                r#","num_requests":{requests},"num_errors":{errors},"last_error":"","processing_time":0,"average_processing_time":0"#
            );
            let endpoint = self.endpoint(&counts);
            self.describe("stats_response", &format!(r#","endpoints":[{endpoint}]"#))
        };
        let sent = self
            .log
            .link
            .send(reply, None, HeaderMap::new(), body.into());
        if let Err(error) = sent.await {
            tracing::debug!(%error, "could not answer who looks for services");
        }
    }

    fn describe(&self, kind: &str, more: &str) -> String {
        let (id, version) = (&self.id, env!("CARGO_PKG_VERSION"));
        format!(
            r#"{{"type":"io.nats.micro.v1.{kind}","name":"{NAME}","id":"{id}","version":"{version}","metadata":{{}}{more}}}"#
        )
    }

    fn endpoint(&self, more: &str) -> String {
        let subject = self.subject();
        format!(
            r#"{{"name":"admin","subject":"{subject}","queue_group":"{GROUP}","metadata":{{}}{more}}}"#
        )
    }
}
