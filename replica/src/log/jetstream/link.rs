//! The connection: its life, and requests over it with an end to their patience.

use super::{LogError, Options, REQUEST_TIMEOUT, TailItem};
use async_nats::client::{PublishErrorKind, RequestErrorKind};
use async_nats::connection::State;
use async_nats::{
    Client, ConnectOptions, Event, HeaderMap, Message, Request, ServerAddr, Subscriber,
};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(25);
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(2);
/// Messages that wait for one subscriber. More than a page has, so that a page never overflows it.
const SUBSCRIPTION_MESSAGES_MAX: usize = 8192;
const EVENTS_MAX: usize = 256;

/// A connection that restores itself.
pub(super) struct Link {
    client: Client,
    events: broadcast::Sender<TailItem>,
    /// Counts the connections made, so that each can be checked once.
    connections: Arc<AtomicU64>,
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
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let connections = Arc::new(AtomicU64::new(0));
        let (sender, count) = (events.clone(), connections.clone());
        let (servers, mut connect) = servers(options)?;
        let said = Mutex::new(String::new());
        connect = connect
            .name(&options.name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .ping_interval(options.ping_interval)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .subscription_capacity(SUBSCRIPTION_MESSAGES_MAX)
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(move |event| {
                if matches!(event, Event::Connected) {
                    count.fetch_add(1, Ordering::Release);
                }
                if let Some(item) = tail_item(&event, &said) {
                    // Nobody may be listening yet.
                    let _ = sender.send(item);
                }
                ready(())
            });
        if let Some(prefix) = &options.inbox_prefix {
            connect = connect.custom_inbox_prefix(prefix);
        }
        let client = connect
            .connect(servers)
            .await
            .map_err(|error| LogError::Unusable(format!("could not begin to connect: {error}")))?;
        Ok(Self {
            client,
            events,
            connections,
        })
    }

    /// What happens to the connection from now on.
    pub(super) fn events(&self) -> broadcast::Receiver<TailItem> {
        self.events.subscribe()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Which connection this is, counted from 1; 0 before the first.
    pub(super) fn connection(&self) -> u64 {
        self.connections.load(Ordering::Acquire)
    }

    /// The broker's version and id, if one has been met.
    pub(super) fn server(&self) -> Option<(String, String)> {
        self.client
            .try_server_info()
            .map(|info| (info.version, info.server_id))
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

    /// Sends without waiting for anything.
    pub(super) async fn publish(&self, subject: String, payload: Bytes) -> Result<(), LogError> {
        self.send(subject, None, HeaderMap::new(), payload).await
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
        let asking = self.client.send_request(subject, request);
        let unanswered = || LogError::Unavailable(format!("no answer from '{shown}' in time"));
        // The inner time-out begins when the request is in the client's queue; the outer also bounds getting there.
        match tokio::time::timeout(timeout + timeout / 4, asking).await {
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

    fn check_connected(&self) -> Result<(), LogError> {
        if self.is_connected() {
            return Ok(());
        }
        Err(LogError::Unavailable(
            "there is no connection to a broker".into(),
        ))
    }
}

/// Doubles from attempt to attempt up to a limit, and spreads clients that lost the same broker.
fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1).min(8)).unwrap_or(8);
    let longest = (RECONNECT_DELAY_MIN * 2_u32.pow(doublings)).min(RECONNECT_DELAY_MAX);
    longest.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

/// The brokers' addresses, and the options with what these say about who we are: the client does not look there.
fn servers(options: &Options) -> Result<(Vec<ServerAddr>, ConnectOptions), LogError> {
    let parse = |text: &String| {
        // Without the address: it may hold a password.
        text.parse::<ServerAddr>().map_err(|error| {
            LogError::Unusable(format!("a broker's address cannot be understood: {error}"))
        })
    };
    let servers = options
        .servers
        .iter()
        .map(parse)
        .collect::<Result<Vec<_>, _>>()?;
    if servers.is_empty() {
        return Err(LogError::Unusable("no broker is named".into()));
    }
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let named = servers
        .iter()
        .find_map(|server| Some((server.username()?, server.password())));
    let connect = match named {
        Some((user, Some(password))) => {
            ConnectOptions::with_user_and_password(decode(user), decode(password))
        }
        Some((token, None)) => ConnectOptions::with_token(decode(token)),
        None => ConnectOptions::new(),
    };
    Ok((servers, connect))
}

/// `said` is the last reason for not connecting: each attempt has one, and only a new one is worth telling.
fn tail_item(event: &Event, said: &Mutex<String>) -> Option<TailItem> {
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    match event {
        Event::Connected => {
            said.clear();
            Some(TailItem::Connected)
        }
        Event::Disconnected => Some(TailItem::Disconnected),
        Event::ClientError(error) => {
            let reason = error.to_string();
            if *said == reason {
                return None;
            }
            said.clone_from(&reason);
            Some(TailItem::Warning(format!(
                "could not connect to a broker: {reason}"
            )))
        }
        Event::Draining | Event::Closed => None,
        Event::LameDuckMode => Some(TailItem::Warning(
            "the broker is about to shut down".to_owned(),
        )),
        Event::SlowConsumer(_) => Some(TailItem::Warning(
            "messages were dropped: this process is too slow".to_owned(),
        )),
        Event::ServerError(error) => Some(TailItem::Warning(format!("the broker says: {error}"))),
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
