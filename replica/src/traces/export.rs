//! Sending spans: a batch at a time, over a connection of its own. Changes are rare, so connections are not kept.

use super::otlp;
use super::{Counts, Resource, Span, Target, add};
use crate::run::chain;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// Spans of one request.
const BATCH_SPANS_MAX: usize = 512;
/// How long the first span of a batch waits for more.
const BATCH_DELAY: Duration = Duration::from_millis(500);
/// How long a request may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last one may take, when the program stops.
const LAST_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a batch is sent if the collector is not there or busy.
const ATTEMPTS_MAX: u32 = 3;
/// Between two attempts.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Sends the spans of a [`Tracer`](super::Tracer).
#[derive(Debug)]
pub struct Exporter {
    inbox: mpsc::Receiver<Span>,
    target: Target,
    resource: Resource,
    counts: Arc<Counts>,
    /// For an encrypted target.
    tls: Option<Arc<ClientConfig>>,
    /// Whether the last batch was not taken, and that was said.
    failing: bool,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("could not connect")]
    Connect(#[source] std::io::Error),
    #[error("the collector's name cannot be one of a certificate")]
    Name(#[source] rustls::pki_types::InvalidDnsNameError),
    #[error("could not set up TLS")]
    Tls,
    #[error("could not send the request")]
    Request(#[source] http::Error),
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    #[error("it took too long")]
    Slow,
    #[error("the collector answered with {0}")]
    Status(StatusCode),
}

impl SendError {
    /// Whether the same may be taken later. OTLP names the statuses.
    fn is_passing(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Broken(_) | Self::Slow => true,
            Self::Name(_) | Self::Tls | Self::Request(_) => false,
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }
}

impl Exporter {
    pub(super) fn new(
        inbox: mpsc::Receiver<Span>,
        target: Target,
        resource: Resource,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            inbox,
            target,
            resource,
            counts,
            tls: None,
            failing: false,
        }
    }

    /// Takes what waits.
    #[cfg(test)]
    pub(super) fn waiting(&mut self) -> Vec<Span> {
        std::iter::from_fn(|| self.inbox.try_recv().ok()).collect()
    }

    /// Sends spans until `shutdown`, and then what is left, if that is quick.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tracing::info!(collector = %self.target, "spans of changes are sent to a collector");
        if self.target.encrypted {
            self.tls = tls().await;
        }
        let mut batch = Vec::new();
        loop {
            let room = BATCH_SPANS_MAX - batch.len();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                taken = self.inbox.recv_many(&mut batch, room) => if taken == 0 {
                    // Nobody makes spans any more.
                    return shutdown.cancelled().await;
                },
            }
            if batch.len() < BATCH_SPANS_MAX {
                let delay = tokio::time::sleep(BATCH_DELAY);
                tokio::pin!(delay);
                self.fill(&mut batch, delay, &shutdown).await;
            }
            let sent = self.send_patiently(&batch, &shutdown).await;
            self.settle(batch.len(), sent);
            batch.clear();
        }
        while let Ok(span) = self.inbox.try_recv() {
            batch.push(span);
        }
        if !batch.is_empty() {
            let sent = timeout(LAST_TIMEOUT, self.send(&batch)).await;
            self.settle(batch.len(), sent.unwrap_or(Err(SendError::Slow)));
        }
    }

    /// Takes what comes until `delay` is over, the batch is full, or the program stops.
    async fn fill(
        &mut self,
        batch: &mut Vec<Span>,
        mut delay: std::pin::Pin<&mut tokio::time::Sleep>,
        shutdown: &CancellationToken,
    ) {
        while batch.len() < BATCH_SPANS_MAX {
            let room = BATCH_SPANS_MAX - batch.len();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = &mut delay => return,
                taken = self.inbox.recv_many(batch, room) => if taken == 0 {
                    return;
                },
            }
        }
    }

    async fn send_patiently(
        &self,
        batch: &[Span],
        shutdown: &CancellationToken,
    ) -> Result<(), SendError> {
        let mut attempt = 1;
        loop {
            let sent = match shutdown.is_cancelled() {
                true => timeout(LAST_TIMEOUT, self.send(batch)).await,
                false => tokio::select! {
                    sent = timeout(SEND_TIMEOUT, self.send(batch)) => sent,
                    () = shutdown.cancelled() => timeout(LAST_TIMEOUT, self.send(batch)).await,
                },
            };
            let sent = sent.unwrap_or(Err(SendError::Slow));
            let again = sent.as_ref().is_err_and(SendError::is_passing);
            if !again || attempt == ATTEMPTS_MAX || shutdown.is_cancelled() {
                return sent;
            }
            attempt += 1;
            tokio::select! {
                () = shutdown.cancelled() => return sent,
                () = tokio::time::sleep(RETRY_DELAY) => {}
            }
        }
    }

    async fn send(&self, batch: &[Span]) -> Result<(), SendError> {
        let body = Bytes::from(otlp::encode(&self.resource, batch));
        let stream = TcpStream::connect((&*self.target.host, self.target.port)).await;
        let stream = stream.map_err(SendError::Connect)?;
        if !self.target.encrypted {
            return self.post(stream, body).await;
        }
        let name = ServerName::try_from(self.target.host.clone()).map_err(SendError::Name)?;
        let tls = self.tls.clone().ok_or(SendError::Tls)?;
        let stream = TlsConnector::from(tls).connect(name, stream).await;
        self.post(stream.map_err(SendError::Connect)?, body).await
    }

    async fn post<S>(&self, stream: S, body: Bytes) -> Result<(), SendError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.target.path)
            .body(Full::new(body))
            .map_err(SendError::Request)?;
        *request.headers_mut() = self.target.headers.clone();
        let connecting = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connecting.map_err(SendError::Broken)?;
        let answering = sender.send_request(request);
        tokio::pin!(answering);
        let answer = tokio::select! {
            biased;
            answer = &mut answering => answer,
            ended = connection => {
                ended.map_err(SendError::Broken)?;
                // What came before the end is there.
                answering.await
            }
        };
        match answer.map_err(SendError::Broken)?.status() {
            status if status.is_success() => Ok(()),
            status => Err(SendError::Status(status)),
        }
    }

    /// Counts what became of so many spans. A collector that is away is told of once.
    fn settle(&mut self, spans: usize, sent: Result<(), SendError>) {
        match sent {
            Ok(()) => {
                add(&self.counts.sent, spans);
                if self.failing {
                    tracing::info!(collector = %self.target, "spans are taken again");
                }
                self.failing = false;
            }
            Err(error) => {
                add(&self.counts.undelivered, spans);
                if !self.failing {
                    let (error, collector) = (chain(&error), &self.target);
                    tracing::warn!(%collector, error, spans, "could not send spans; they are dropped and counted until it works again");
                }
                self.failing = true;
            }
        }
    }
}

/// The authorities of the system vouch for the collector. They are read once: that takes a while.
async fn tls() -> Option<Arc<ClientConfig>> {
    let reading = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
    let found = reading.await.ok()?;
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(found.certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().ok()?;
    let config = config
        .with_root_certificates(authorities)
        .with_no_client_auth();
    Some(Arc::new(config))
}
