//! The connection: its life, and requests over it with an end to their patience.

use super::health::{Denials, Health};
use super::identity::{self, Identity};
use super::{LogError, Options, REQUEST_TIMEOUT, TailItem};
use async_nats::client::{PublishErrorKind, RequestErrorKind};
use async_nats::connection::State;
use async_nats::{
    Client, ConnectOptions, HeaderMap, Message, ReconnectToServer, Request, ServerAddr, Subscriber,
};
use bytes::Bytes;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(25);
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(2);
/// After a subscription was denied. The broker does not come back to one when permissions are corrected; only
/// subscribing again helps.
const DENIED_RECONNECT_DELAY: Duration = Duration::from_secs(30);
/// Messages that wait for one subscriber. More than a page has, so that a page never overflows it.
const SUBSCRIPTION_MESSAGES_MAX: usize = 8192;
const INBOX_PREFIX: &str = "_INBOX";

/// A connection that restores itself.
pub(super) struct Link {
    client: Client,
    inbox_prefix: String,
    health: Arc<Health>,
    resubscribing: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.resubscribing.abort();
    }
}

/// Why a request has no answer.
pub(super) enum NoAnswer {
    /// Nothing was sent, or nobody was there to take it.
    NotTaken(LogError),
    /// It may have been carried out.
    Unknown(LogError),
}

impl From<NoAnswer> for LogError {
    fn from(no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::NotTaken(error) | NoAnswer::Unknown(error) => error,
        }
    }
}

impl Link {
    pub(super) async fn open(options: &Options) -> Result<Self, LogError> {
        let (servers, connect) = servers(options)?;
        let prefix = options.inbox_prefix.as_deref().unwrap_or(INBOX_PREFIX);
        let health = Arc::new(Health::new(prefix));
        let (happened, attempted) = (health.clone(), health.clone());
        let client = connect
            .name(&options.name)
            .custom_inbox_prefix(prefix)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .ping_interval(options.ping_interval)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .subscription_capacity(SUBSCRIPTION_MESSAGES_MAX)
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(move |event| {
                happened.take(event);
                ready(())
            })
            // Chooses no broker: it is the only place where the client says why the last attempts failed.
            .reconnect_to_server_callback(move |servers, _| {
                attempted.take_attempts(&servers);
                ready(None::<ReconnectToServer>)
            })
            .connect(servers)
            .await
            .map_err(|error| LogError::Unusable(format!("could not begin to connect: {error}")))?;
        let resubscribing = tokio::spawn(resubscribe(client.clone(), health.denials()));
        Ok(Self {
            client,
            inbox_prefix: prefix.to_owned(),
            health,
            resubscribing,
        })
    }

    /// What happens to the connection from now on.
    pub(super) fn events(&self) -> broadcast::Receiver<TailItem> {
        self.health.events()
    }

    /// How the connection is, for somebody who did not listen to the events so far.
    pub(super) fn standing(&self) -> Option<TailItem> {
        if self.is_connected() {
            return Some(TailItem::Connected);
        }
        self.health.problem().map(TailItem::Warning)
    }

    /// What the broker does not permit, from now on. To be had before anything is sent.
    pub(super) fn denials(&self) -> Denials {
        self.health.denials()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Which connection this is, counted from 1; 0 before the first.
    pub(super) fn connection(&self) -> u64 {
        self.health.connection()
    }

    /// The broker's version and id, if one has been met.
    pub(super) fn server(&self) -> Option<(String, String)> {
        self.client
            .try_server_info()
            .map(|info| (info.version, info.server_id))
    }

    /// The most the broker takes in one message, headers included; nothing before the first connection.
    pub(super) fn payload_bytes_max(&self) -> Option<usize> {
        self.client.try_server_info().map(|info| info.max_payload)
    }

    /// What our own inboxes begin with.
    pub(super) fn inbox_prefix(&self) -> &str {
        &self.inbox_prefix
    }

    pub(super) fn new_inbox(&self) -> String {
        self.client.new_inbox()
    }

    pub(super) async fn subscribe(&self, subject: String) -> Result<Subscriber, LogError> {
        let shown = subject.clone();
        let subscribing = tokio::time::timeout(REQUEST_TIMEOUT, self.client.subscribe(subject));
        let reason = match subscribing.await {
            Ok(Ok(subscriber)) => return Ok(subscriber),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the connection takes nothing more".into(),
        };
        Err(LogError::Unavailable(format!(
            "could not subscribe to '{shown}': {reason}"
        )))
    }

    /// Subscribes as one of a group, of which one gets each message.
    pub(super) async fn subscribe_in(
        &self,
        subject: String,
        group: &str,
    ) -> Result<Subscriber, LogError> {
        let subscribing = self
            .client
            .queue_subscribe(subject.clone(), group.to_owned());
        let reason = match tokio::time::timeout(REQUEST_TIMEOUT, subscribing).await {
            Ok(Ok(subscriber)) => return Ok(subscriber),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the connection takes nothing more".into(),
        };
        Err(LogError::Unavailable(format!(
            "could not subscribe to '{subject}': {reason}"
        )))
    }

    /// Sends without waiting for anything.
    pub(super) async fn publish(&self, subject: String, payload: Bytes) -> Result<(), LogError> {
        self.send(subject, None, HeaderMap::new(), payload).await
    }

    /// Returns when what was sent has been handed to the system.
    pub(super) async fn flush(&self) -> Result<(), LogError> {
        match tokio::time::timeout(REQUEST_TIMEOUT, self.client.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(LogError::Unavailable("could not send in time".into())),
        }
    }

    /// Sends, naming where answers go. Refuses while there is no connection: the client would keep the message and
    /// send it whenever it has one again.
    pub(super) async fn send(
        &self,
        subject: String,
        reply: Option<String>,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), LogError> {
        self.check_connected()?;
        let shown = subject.clone();
        let sending = async {
            match reply {
                Some(reply) => {
                    self.client
                        .publish_with_reply_and_headers(subject, reply, headers, payload)
                        .await
                }
                None if headers.is_empty() => self.client.publish(subject, payload).await,
                None => {
                    self.client
                        .publish_with_headers(subject, headers, payload)
                        .await
                }
            }
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(match error.kind() {
                PublishErrorKind::MaxPayloadExceeded | PublishErrorKind::InvalidSubject => {
                    LogError::Unusable(format!("could not send to '{shown}': {error}"))
                }
                PublishErrorKind::Send => {
                    LogError::Unavailable(format!("could not send to '{shown}': {error}"))
                }
            }),
            Err(_) => Err(LogError::Unavailable(format!(
                "no room to send to '{shown}'"
            ))),
        }
    }

    /// Sends and waits for one answer.
    pub(super) async fn request(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Message, NoAnswer> {
        self.check_connected().map_err(NoAnswer::NotTaken)?;
        let shown = subject.clone();
        let mut request = Request::new().payload(payload).timeout(Some(timeout));
        if !headers.is_empty() {
            request = request.headers(headers);
        }
        let mut denials = self.denials();
        // Before anything is sent, so that a loss is not missed.
        let mut events = self.events();
        let asking = self.client.send_request(subject, request);
        let unanswered = || LogError::Unavailable(format!("no answer from '{shown}' in time"));
        // The inner time-out begins when the request is in the client's queue; the outer also bounds getting there.
        let asking = tokio::time::timeout(timeout + timeout / 4, asking);
        let answered = tokio::select! {
            answered = asking => answered,
            error = denials.of(&shown) => return Err(NoAnswer::NotTaken(error)),
            // The client does not tell those who wait: their answers would have come over the lost connection.
            () = lost(&mut events) => {
                return Err(NoAnswer::Unknown(LogError::Unavailable(format!(
                    "lost the connection while asking '{shown}'"
                ))));
            }
        };
        match answered {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(error)) => Err(match error.kind() {
                RequestErrorKind::TimedOut => NoAnswer::Unknown(unanswered()),
                RequestErrorKind::NoResponders => {
                    NoAnswer::NotTaken(LogError::Unavailable(format!(
                        "nobody answers on '{shown}': no such stream, no leader, or no JetStream"
                    )))
                }
                RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                    NoAnswer::NotTaken(LogError::Unusable(format!(
                        "could not send to '{shown}': {error}"
                    )))
                }
                RequestErrorKind::Other => NoAnswer::Unknown(LogError::Unavailable(format!(
                    "lost the connection while asking '{shown}'"
                ))),
            }),
            Err(_) => Err(NoAnswer::Unknown(unanswered())),
        }
    }

    /// # Errors
    /// If there is no connection, with the reason if it is known, or if no answer can come over it.
    pub(super) fn check_connected(&self) -> Result<(), LogError> {
        if self.is_connected() {
            return self.health.check_replies();
        }
        Err(LogError::Unavailable(match self.health.problem() {
            Some(problem) => format!("there is no connection to a broker: {problem}"),
            None => "there is no connection to a broker".into(),
        }))
    }
}

/// Connects anew some time after a subscription was denied.
async fn resubscribe(client: Client, mut denials: Denials) {
    while denials.of_subscription().await {
        tokio::time::sleep(DENIED_RECONNECT_DELAY).await;
        if client.force_reconnect().await.is_err() {
            return;
        }
    }
}

/// Returns when the connection is lost. Pending for ever if it never is.
async fn lost(events: &mut broadcast::Receiver<TailItem>) {
    loop {
        match events.recv().await {
            Ok(TailItem::Disconnected) => return,
            Ok(
                TailItem::Connected
                | TailItem::Warning(_)
                | TailItem::Record(_)
                | TailItem::Head(_)
                | TailItem::Report(_),
            ) => {}
            // What was missed may have been the loss, or not: the time-out decides.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Doubles from attempt to attempt up to a limit, and spreads clients that lost the same broker.
fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1).min(8)).unwrap_or(8);
    let longest = (RECONNECT_DELAY_MIN * 2_u32.pow(doublings)).min(RECONNECT_DELAY_MAX);
    longest.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

/// The brokers' addresses, and the options that say who we are and how we encrypt.
fn servers(options: &Options) -> Result<(Vec<ServerAddr>, ConnectOptions), LogError> {
    let servers = options
        .servers
        .iter()
        .map(|text| address(text).map_err(LogError::Unusable))
        .collect::<Result<Vec<_>, _>>()?;
    if servers.is_empty() {
        return Err(LogError::Unusable("no broker is named".into()));
    }
    if options.identity != Identity::Address && servers.iter().any(identity::says_who) {
        return Err(LogError::Unusable(
            "a broker's address says who we are, and so does another setting: take one of them away".into(),
        ));
    }
    let connect = options.identity.options(&servers);
    Ok((servers.clone(), options.tls.add_to(connect, &servers)))
}

/// A broker's address: `nats://[user:password@]host:port` or `tls://...`.
///
/// # Errors
/// In words without the address: it may hold a password.
pub(super) fn address(text: &str) -> Result<ServerAddr, String> {
    let address = text
        .parse::<ServerAddr>()
        .map_err(|error| format!("a broker's address cannot be understood: {error}"))?;
    match address.scheme() {
        "nats" | "tls" if !address.host().is_empty() => Ok(address),
        "nats" | "tls" => Err("a broker's address has no host".into()),
        scheme => Err(format!(
            "a broker's address begins with '{scheme}://', and must with nats:// or tls://"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnecting_slows_down_to_a_limit() {
        for attempts in 0..100 {
            let delay = reconnect_delay(attempts);
            assert!(
                delay >= RECONNECT_DELAY_MIN / 2 && delay <= RECONNECT_DELAY_MAX,
                "{delay:?}"
            );
        }
        assert!(reconnect_delay(20) >= RECONNECT_DELAY_MAX / 2);
    }
}
