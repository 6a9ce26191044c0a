//! A connection to one Redis that is kept up.

use super::super::limiter::Server;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo, RedisError, RedisResult};
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsConnector;

/// The wait after an attempt that failed, and the longest after several.
const RETRY: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// A connection to a server, shared by all who ask it. It is made anew whenever it ends.
#[derive(Debug)]
pub(super) struct Link {
    status: watch::Receiver<Status>,
    /// The connection may be dead without having ended.
    suspect: Arc<Notify>,
    timeout: Duration,
}

#[derive(Clone, Debug)]
enum Status {
    /// There has been no attempt yet.
    Starting,
    Up(MultiplexedConnection),
    Down,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("it did not connect in time")]
    Timeout,
}

impl Link {
    pub(super) fn start(server: Server, tls: Option<TlsConnector>, runtime: &Handle) -> Arc<Self> {
        let (status, watched) = watch::channel(Status::Starting);
        let suspect = Arc::new(Notify::new());
        let timeout = Duration::from_millis(server.timeout.max(1));
        let suspected = Arc::clone(&suspect);
        runtime.spawn(async move {
            tokio::select! {
                () = keep(&server, tls, &status, &suspected) => {}
                // Nobody asks any more.
                () = status.closed() => {}
            }
        });
        Arc::new(Self {
            status: watched,
            suspect,
            timeout,
        })
    }

    /// The connection; waits for the first attempt, and for no other.
    pub(super) async fn connection(&self) -> Option<MultiplexedConnection> {
        let now = match &*self.status.borrow() {
            Status::Up(connection) => Some(connection.clone()),
            Status::Down => return None,
            Status::Starting => None,
        };
        if now.is_some() {
            return now;
        }
        let mut status = self.status.clone();
        let tried = status.wait_for(|status| !matches!(status, Status::Starting));
        let tried = tokio::time::timeout(self.timeout, tried).await;
        match &*tried.ok()?.ok()? {
            Status::Up(connection) => Some(connection.clone()),
            Status::Starting | Status::Down => None,
        }
    }

    /// The answer to a question, if it is one; has the connection made anew if it should be.
    pub(super) fn judge<T>(&self, answer: RedisResult<T>) -> Option<T> {
        answer
            .inspect_err(|error| {
                tracing::debug!(%error, "no answer from Redis");
                if error.is_timeout() || error.is_io_error() {
                    self.suspect.notify_one();
                }
            })
            .ok()
    }
}

/// Keeps a connection up.
async fn keep(
    server: &Server,
    tls: Option<TlsConnector>,
    status: &watch::Sender<Status>,
    suspect: &Notify,
) {
    let mut pause = RETRY;
    let mut told = false;
    loop {
        let error = match connect(server, tls.as_ref(), status, suspect).await {
            Ok(()) => {
                pause = RETRY;
                told = false;
                "the connection ended".to_owned()
            }
            Err(error) => error.to_string(),
        };
        status.send_replace(Status::Down);
        // Once for each time that it goes away.
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(error, ?server, "Redis is not reached");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Connects, and drives the connection to its end.
async fn connect(
    server: &Server,
    tls: Option<&TlsConnector>,
    status: &watch::Sender<Status>,
    suspect: &Notify,
) -> Result<(), Fault> {
    let timeout = Duration::from_millis(server.timeout.max(1));
    let greeting = greeting(server);
    let opened = async {
        let host = server.host.as_deref().unwrap_or_default();
        let stream = TcpStream::connect((host, server.port)).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = server.server_name.as_deref().unwrap_or(host);
                let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
                Box::new(tls.connect(name, stream).await?)
            }
        };
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(timeout));
        let opened = MultiplexedConnection::new_with_config(&greeting, stream, config);
        Ok::<_, Fault>(opened.await?)
    };
    let opened = tokio::time::timeout(timeout, opened).await;
    let (connection, driver) = opened.map_err(|_| Fault::Timeout)??;
    tracing::debug!(?server, "connected to Redis");
    status.send_replace(Status::Up(connection));
    tokio::select! {
        () = driver => {}
        () = suspect.notified() => {}
    }
    Ok(())
}

fn greeting(server: &Server) -> RedisConnectionInfo {
    let greeting = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP2)
        .set_skip_set_lib_name()
        .set_db(server.database);
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let Some(password) = text(&server.password) else {
        return greeting;
    };
    let greeting = greeting.set_password(password);
    match text(&server.username) {
        Some(username) => greeting.set_username(username),
        None => greeting,
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}
