//! Calls that plugins make to HTTP servers: time-outs, TLS with the verification that is asked for, kept connections.

use super::Surroundings;
use crate::proxy::checker;
use crate::table::Authority;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Ways of calling that are kept; more start anew.
const WAYS_MAX: usize = 256;
/// Idle connections kept per server and way.
const IDLE_MAX: usize = 32;

type HyperClient = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The client for calls of plugins, with its connections. Names are looked up by the system.
#[derive(Default)]
pub(crate) struct Caller {
    clients: Mutex<HashMap<Way, HyperClient>>,
    trusted: OnceLock<Arc<[Authority]>>,
    verifying: OnceLock<Option<Arc<ClientConfig>>>,
    trusting: OnceLock<Option<Arc<ClientConfig>>>,
}

/// What of a call its connection depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Way {
    /// Whether the server's certificate is verified, by the authorities that the node trusts.
    pub(crate) verify: bool,
    /// To connect, without TLS.
    pub(crate) connect_timeout: Duration,
    /// How long an idle connection is kept. Zero closes each after its call.
    pub(crate) keepalive: Duration,
}

/// How long a call may take, and how long its answer may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// From its beginning to the end of the answer.
    pub(crate) timeout: Duration,
    /// Of the answer's body.
    pub(crate) bytes_max: usize,
}

/// Why there is no answer. Does not quote the request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// TLS cannot be set up here.
    #[error("TLS cannot be set up")]
    Tls,
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// No connection, or it broke.
    #[error("no answer: {0}")]
    Broken(String),
    /// The answer's body broke off.
    #[error("the answer broke off")]
    Body,
    /// The answer is longer than was allowed.
    #[error("the answer is too long")]
    TooLong,
}

impl Caller {
    /// Takes what verifies servers from the node.
    pub(crate) fn start(&self, node: &Surroundings) {
        let _ = self.trusted.set(Arc::clone(&node.trusted)); // set already only if it is started twice
    }

    /// Sends a request with an absolute target and reads the answer whole.
    ///
    /// # Errors
    /// If there is no answer within `bounds`.
    pub(crate) async fn call(
        &self,
        way: Way,
        bounds: Bounds,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, CallError> {
        if way.keepalive.is_zero() {
            let close = http::HeaderValue::from_static("close");
            request.headers_mut().insert(header::CONNECTION, close);
        }
        let client = self.client(way)?;
        let exchange = async {
            let answer = client.request(request).await;
            let answer = answer.map_err(|error| CallError::Broken(reason(&error)))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, bounds.bytes_max).collect().await;
            let body = body.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    CallError::TooLong
                } else {
                    CallError::Body
                }
            })?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        let answer = tokio::time::timeout(bounds.timeout, exchange).await;
        answer.map_err(|_| CallError::Timeout)?
    }

    /// The form of TLS to servers that are verified, or not.
    pub(crate) fn tls(&self, verify: bool) -> Result<Arc<ClientConfig>, CallError> {
        let made = if verify {
            self.verifying
                .get_or_init(|| make_tls(Some(self.trusted.get().map_or(&[], |trusted| trusted))))
        } else {
            self.trusting.get_or_init(|| make_tls(None))
        };
        made.clone().ok_or(CallError::Tls)
    }

    fn client(&self, way: Way) -> Result<HyperClient, CallError> {
        let find = |clients: &HashMap<Way, HyperClient>| clients.get(&way).cloned();
        let lock = || self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let known = find(&lock());
        if let Some(client) = known {
            return Ok(client);
        }
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(way.connect_timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(ClientConfig::clone(&*self.tls(way.verify)?))
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(way.keepalive)
            .pool_max_idle_per_host(if way.keepalive.is_zero() { 0 } else { IDLE_MAX })
            .build(connector);
        let mut clients = lock();
        if clients.len() >= WAYS_MAX {
            clients.clear();
        }
        Ok(clients.entry(way).or_insert(client).clone())
    }
}

fn make_tls(trusted: Option<&[Authority]>) -> Option<Arc<ClientConfig>> {
    match checker(trusted, None, false) {
        Ok(connector) => Some(Arc::clone(connector.config())),
        Err(error) => {
            tracing::error!(%error, "plugins cannot call servers over TLS");
            None
        }
    }
}

/// The error with its cause, which alone tells what is the matter.
fn reason(error: &legacy::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A configured number of milliseconds.
pub(crate) fn milliseconds(count: f64) -> Duration {
    const MAX: f64 = 1e10;
    Duration::try_from_secs_f64(count.clamp(0.0, MAX) / 1000.0).unwrap_or_default()
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").finish_non_exhaustive()
    }
}
