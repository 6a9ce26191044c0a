//! What the client says about its connection, made into something to act upon: why there is none, and what the broker
//! does not permit.

use super::{LogError, TailItem};
use async_nats::{ClientError, ConnectErrorKind, Event, Server, ServerError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender, channel};

const EVENTS_MAX: usize = 256;
/// Different warnings told of one connection; each is told once.
const TOLD_MAX: usize = 64;

/// What a broker or the TLS library says, and what to do about it.
const ADVICE: [(&str, &str); 14] = [
    (
        "authorization violation",
        "it does not know us by what we say: check the user's password, token, key, certificate or .creds file, and whether it has expired",
    ),
    (
        "UnknownIssuer",
        "nobody we trust vouches for its certificate: name the CA's certificate in nats_tls_ca",
    ),
    (
        "BadSignature",
        "its certificate is not signed by the CA we trust, though that has the same name: renew nats_tls_ca",
    ),
    (
        "certificate not valid for name",
        "its certificate is for another host: use a name in nats_url that the certificate holds",
    ),
    (
        "NotValidForName",
        "its certificate is for another host: use a name in nats_url that the certificate holds",
    ),
    (
        "invalid peer certificate: certificate expired",
        "renew the broker's certificate",
    ),
    (
        "invalid peer certificate",
        "the broker's certificate cannot be accepted",
    ),
    (
        "CertificateRequired",
        "it asks for a certificate of ours: set nats_tls_cert and nats_tls_key",
    ),
    (
        "received fatal alert",
        "it does not accept our certificate: check nats_tls_cert and nats_tls_key, and the broker's CA",
    ),
    (
        "InvalidContentType",
        "it does not speak TLS at this point: check tls:// in nats_url, and nats_tls_first",
    ),
    (
        "timed out",
        "nobody answers there, or the broker waits for TLS at once: then set nats_tls_first",
    ),
    (
        "connection reset",
        "it may ask for a certificate of ours (nats_tls_cert), or for TLS at once (nats_tls_first)",
    ),
    (
        "broken pipe",
        "it may ask for a certificate of ours (nats_tls_cert), or for TLS at once (nats_tls_first)",
    ),
    ("Connection refused", "no broker listens there"),
];

/// What the broker does not let us do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Denial {
    /// Publish to a subject.
    Publish(String),
    /// Subscribe to a subject.
    Subscribe(String),
}

impl Denial {
    /// The broker says it in words only: `Permissions Violation for Publish to "subject"`.
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("Permissions Violation for ")?;
        let subject = |rest: &str| Some(rest.split('"').nth(1)?.to_owned());
        if let Some(rest) = rest.strip_prefix("Publish to ") {
            return subject(rest).map(Self::Publish);
        }
        subject(rest.strip_prefix("Subscription to ")?).map(Self::Subscribe)
    }

    fn error(&self) -> LogError {
        LogError::Unusable(match self {
            Self::Publish(subject) => format!(
                "the broker does not permit this user to publish to '{subject}': correct its permissions"
            ),
            Self::Subscribe(subject) => format!(
                "the broker does not permit this user to subscribe to '{subject}': correct its permissions (nats_inbox_prefix, for replies)"
            ),
        })
    }
}

/// What is known of one connection that restores itself.
#[derive(Debug)]
pub(super) struct Health {
    inbox_prefix: String,
    events: Sender<TailItem>,
    denials: Sender<Denial>,
    /// Counts the connections made, so that each can be checked once.
    connections: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Why there is no connection.
    problem: Option<String>,
    /// Replies do not reach us on this connection.
    deaf: Option<Denial>,
    /// What has been told of this connection.
    told: BTreeSet<String>,
    /// How often each broker has failed, to find those that failed since.
    failures: BTreeMap<String, usize>,
}

impl Health {
    pub(super) fn new(inbox_prefix: &str) -> Self {
        Self {
            inbox_prefix: format!("{inbox_prefix}."),
            events: channel(EVENTS_MAX).0,
            denials: channel(EVENTS_MAX).0,
            connections: AtomicU64::new(0),
            known: Mutex::default(),
        }
    }

    /// What happens from now on.
    pub(super) fn events(&self) -> Receiver<TailItem> {
        self.events.subscribe()
    }

    /// What is denied from now on.
    pub(super) fn denials(&self) -> Denials {
        Denials {
            inbox_prefix: self.inbox_prefix.clone(),
            denials: self.denials.subscribe(),
        }
    }

    /// Which connection this is, counted from 1; 0 before the first.
    pub(super) fn connection(&self) -> u64 {
        self.connections.load(Ordering::Acquire)
    }

    /// Why there is no connection, as far as that is known.
    pub(super) fn problem(&self) -> Option<String> {
        self.known().problem.clone()
    }

    /// # Errors
    /// If the broker does not let us have replies on this connection.
    pub(super) fn check_replies(&self) -> Result<(), LogError> {
        self.known()
            .deaf
            .as_ref()
            .map_or(Ok(()), |denial| Err(denial.error()))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, item: TailItem) {
        // Nobody may be listening yet.
        let _ = self.events.send(item);
    }

    /// Tells a warning, once a connection.
    fn warn(&self, text: String) {
        let mut known = self.known();
        if known.told.len() < TOLD_MAX && known.told.insert(text.clone()) {
            drop(known);
            self.tell(TailItem::Warning(text));
        }
    }

    /// Tells why there is no connection. Each attempt has a reason, and only a new one is worth telling.
    fn tell_problem(&self, text: String) {
        let mut known = self.known();
        if known.problem.as_ref() != Some(&text) {
            known.problem = Some(text.clone());
            drop(known);
            self.tell(TailItem::Warning(text));
        }
    }

    /// Takes what the client says has happened.
    pub(super) fn take(&self, event: Event) {
        match event {
            Event::Connected => {
                let mut known = self.known();
                known.problem = None;
                known.deaf = None;
                known.told.clear();
                drop(known);
                self.connections.fetch_add(1, Ordering::Release);
                self.tell(TailItem::Connected);
            }
            Event::Disconnected => self.tell(TailItem::Disconnected),
            Event::ClientError(ClientError::Other(kind)) => {
                // Everything else is told with its reason before the next attempt; see `take_attempts`.
                if kind == ConnectErrorKind::Dns.to_string() {
                    self.tell_problem(
                        "could not connect to a broker: no address is known for its name; check nats_url".to_owned(),
                    );
                }
            }
            Event::ClientError(
                error @ (ClientError::MaxReconnects | ClientError::ServerNotInPool),
            ) => self.warn(error.to_string()),
            Event::Draining | Event::Closed => {}
            Event::LameDuckMode => self.warn("the broker is about to shut down".to_owned()),
            Event::SlowConsumer(_) => {
                self.tell(TailItem::Warning(
                    "messages were dropped: this process is too slow".to_owned(),
                ));
            }
            Event::ServerError(ServerError::Other(text)) => self.take_error(&text),
            Event::ServerError(
                error @ (ServerError::AuthorizationViolation | ServerError::SlowConsumer(_)),
            ) => self.warn(format!("the broker says: {error}")),
        }
    }

    fn take_error(&self, text: &str) {
        let Some(denial) = Denial::parse(text) else {
            self.warn(format!("the broker says: {text}"));
            return;
        };
        if let Denial::Subscribe(subject) = &denial
            && subject.starts_with(&self.inbox_prefix)
        {
            self.known().deaf = Some(denial.clone());
        }
        let text = denial.error().to_string();
        // Nobody may be asking anything.
        let _ = self.denials.send(denial);
        self.warn(format!("permission denied: {text}"));
    }

    /// Takes what the client knows of the brokers when it is about to try them again.
    pub(super) fn take_attempts(&self, servers: &[Server]) {
        let mut reasons = BTreeMap::new();
        {
            let mut known = self.known();
            for server in servers {
                let address = format!("{}:{}", server.addr.host(), server.addr.port());
                let before = known
                    .failures
                    .insert(address.clone(), server.failed_attempts);
                let failed = server.failed_attempts > before.unwrap_or(0);
                if let Some(error) = server.last_error.as_ref().filter(|_| failed) {
                    reasons.insert(address, explain(error));
                }
            }
        }
        if !reasons.is_empty() {
            let reasons: Vec<_> = reasons
                .iter()
                .map(|(address, reason)| format!("{address}: {reason}"))
                .collect();
            self.tell_problem(format!(
                "could not connect to a broker: {}",
                reasons.join("; ")
            ));
        }
    }
}

/// Adds to an error what to do about it, if that is known.
fn explain(error: &str) -> String {
    // Our own words come back wrapped in the client's.
    if let Some((_, rest)) = error.split_once("AuthError(") {
        return rest.strip_suffix(')').unwrap_or(rest).to_owned();
    }
    let lower = error.to_lowercase();
    match ADVICE
        .iter()
        .find(|(sign, _)| lower.contains(&sign.to_lowercase()))
    {
        Some((_, advice)) => format!("{error} ({advice})"),
        None => error.to_owned(),
    }
}

/// The denials from one moment on.
pub(super) struct Denials {
    inbox_prefix: String,
    denials: Receiver<Denial>,
}

impl Denials {
    /// Waits until publishing to `subject`, or having its reply, is denied. Does not end otherwise.
    pub(super) async fn of(&mut self, subject: &str) -> LogError {
        loop {
            match self.denials.recv().await {
                Ok(denial) if self.concerns(&denial, subject) => return denial.error(),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// Waits until subscribing to anything is denied. `false` if that cannot happen any more.
    pub(super) async fn of_subscription(&mut self) -> bool {
        loop {
            match self.denials.recv().await {
                Ok(Denial::Subscribe(_)) => return true,
                Ok(Denial::Publish(_)) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return false,
            }
        }
    }

    fn concerns(&self, denial: &Denial, subject: &str) -> bool {
        match denial {
            Denial::Publish(denied) => denied == subject,
            Denial::Subscribe(denied) => denied.starts_with(&self.inbox_prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_denies_is_found_in_its_words() {
        let check = |text: &str, expected: Option<Denial>| {
            assert_eq!(Denial::parse(text), expected, "{text}");
        };
        check(
            "Permissions Violation for Publish to \"a.b\"",
            Some(Denial::Publish("a.b".into())),
        );
        check(
            "Permissions Violation for Subscription to \"a.>\" using queue \"q\"",
            Some(Denial::Subscribe("a.>".into())),
        );
        check("Permissions Violation for Publish", None);
        check("Permissions Violation for Publish to a", None);
        check("Stale Connection", None);
    }

    #[tokio::test]
    async fn a_denial_is_told_once_a_connection_and_to_whoever_asks() {
        let health = Health::new("_INBOX_x");
        let mut events = health.events();
        let denied = |what: &str| {
            let text = format!("Permissions Violation for {what}");
            Event::ServerError(ServerError::Other(text))
        };
        let mut denials = health.denials();
        health.take(denied("Publish to \"other\""));
        health.take(denied("Publish to \"mine\""));
        health.take(denied("Publish to \"mine\""));
        let error = denials.of("mine").await.to_string();
        assert!(error.contains("'mine'"), "{error}");
        let mut told = Vec::new();
        while let Ok(item) = events.try_recv() {
            told.push(item);
        }
        assert_eq!(told.len(), 2, "{told:?}");

        health.take(denied("Subscription to \"_INBOX_x.1.*\""));
        assert!(health.check_replies().is_err());
        assert!(denials.of_subscription().await);
        health.take(Event::Connected);
        assert!(health.check_replies().is_ok());
        health.take(denied("Subscription to \"_INBOX_xy.1\""));
        assert!(health.check_replies().is_ok());
    }

    #[test]
    fn a_reason_says_what_to_do_and_our_own_words_are_not_wrapped() {
        let text = explain("IO error: invalid peer certificate: UnknownIssuer");
        assert!(text.contains("nats_tls_ca"), "{text}");
        let text = explain("failed signing nonce: AuthError(nats_creds 'a (b)' cannot be read)");
        assert_eq!(text, "nats_creds 'a (b)' cannot be read");
        assert_eq!(explain("something new"), "something new");
    }
}
