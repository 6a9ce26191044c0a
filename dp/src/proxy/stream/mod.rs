//! Connections that are no HTTP: a route by address, port and server name, an upstream, bytes both ways.

mod hello;

use super::forwarded::Trust;
use super::hashed;
use super::link::ConnectError;
use super::logged::name;
use super::peer::Peer;
use super::tls::client::{Client, server_name};
use super::tunnel::{self, Carried};
use super::worker::{Snapshot, Worker};
use super::{drain, forward};
use crate::access_log::{Latencies, Record, Session};
use crate::balance::{Flight, Outcome, Picked, Source};
use crate::plugin::Protocols;
use crate::table::{Protocol, Route, Service, StreamHead, StreamProtocol};
use hello::{Hello, Prefixed};
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// What is served to a client and to an upstream alike.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}
type AnyStream = Box<dyn Stream>;

/// The upstream's side of a stream, which counts as being with its target until it ends.
struct Reached {
    stream: AnyStream,
    flight: Flight,
}

/// What the log wants to know of a stream.
struct Story {
    began: SystemTime,
    started: Instant,
    peer: Peer,
    protocol: &'static str,
    status: u16,
    route: Option<Arc<Route>>,
    service: Option<Arc<Service>>,
    upstream: Option<SocketAddr>,
    connecting: Duration,
}

/// Why a stream was not served.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("no route")]
    NoRoute,
    #[error("the route has no service, or one that is not enabled")]
    NoService,
    #[error("the upstream has no target that can be used, or the name does not resolve")]
    NoAddress,
    #[error("udp services are not supported")]
    Udp,
    #[error("no TLS with the client")]
    Handshake(#[source] io::Error),
    #[error("no TLS to the upstream")]
    Tls(#[source] super::tls::client::ClientError),
    #[error("no connection to the upstream")]
    Connect(#[source] ConnectError),
}

impl Fault {
    /// The status in the log, as nginx has it for streams.
    fn status(&self) -> u16 {
        match self {
            Self::Handshake(_) => 400,
            Self::NoRoute => 404,
            Self::Connect(_) | Self::NoAddress | Self::Tls(_) => 502,
            Self::NoService | Self::Udp => 503,
        }
    }
}

/// Serves a client in clear.
pub(super) async fn serve_tcp(
    worker: Rc<Worker>,
    stream: TcpStream,
    remote: SocketAddr,
    local: SocketAddr,
) {
    let peer = Peer::new(remote, local, &Trust::default());
    let table = worker.table();
    let mut story = Story::new(peer, "TCP");
    let served = async {
        story.find(&table, StreamProtocol::Tcp)?;
        let upstream = story.connect(&worker, &table).await?;
        Ok((Box::new(stream) as AnyStream, upstream))
    };
    let served = served.await;
    story.finish(&worker, table, served).await;
}

/// Serves a client that begins with TLS. The route says whether it ends here or is relayed.
pub(super) async fn serve_tls(
    worker: Rc<Worker>,
    acceptor: TlsAcceptor,
    mut stream: TcpStream,
    remote: SocketAddr,
    local: SocketAddr,
) {
    let timeout = worker.options.tls.handshake_timeout;
    let hello = {
        let mut overdue = pin!(drain::overdue(Rc::clone(&worker.drain)));
        tokio::select! {
            biased;
            hello = tokio::time::timeout(timeout, hello::read(&mut stream)) => hello,
            () = &mut overdue => return,
        }
    };
    let Ok(Ok(Hello { name, bytes })) = hello else {
        tracing::debug!(%remote, "a client did not begin with TLS");
        return;
    };
    let peer = Peer::new(remote, local, &Trust::default()).over_tls(name.as_deref());
    let table = worker.table();
    let mut story = Story::new(peer, "TLS");
    let stream = Prefixed::new(bytes, stream);
    let served = async {
        let route = story.find(&table, StreamProtocol::Tls)?;
        let client: AnyStream = if route.protocols.contains(Protocols::TLS) {
            let accepting = Box::pin(acceptor.accept(stream));
            let accepted = tokio::time::timeout(timeout, accepting).await;
            let accepted = accepted.map_err(|_| io::ErrorKind::TimedOut.into());
            Box::new(
                accepted
                    .and_then(|accepted| accepted)
                    .map_err(Fault::Handshake)?,
            )
        } else {
            Box::new(stream)
        };
        let upstream = story.connect(&worker, &table).await?;
        Ok((client, upstream))
    };
    let served = served.await;
    story.finish(&worker, table, served).await;
}

/// Whether a service is spoken to over TLS.
fn speaks_tls(service: &Service) -> Result<bool, Fault> {
    match service.protocol {
        Protocol::Udp => Err(Fault::Udp),
        Protocol::Tls | Protocol::Https | Protocol::Grpcs | Protocol::Wss => Ok(true),
        Protocol::Tcp
        | Protocol::TlsPassthrough
        | Protocol::Http
        | Protocol::Grpc
        | Protocol::Ws => Ok(false),
    }
}

/// Opens a connection, with TLS if there is a `client` for it. `asked` is the server name to ask for instead of the
/// endpoint's.
async fn open(
    picked: &Picked,
    client: Option<&Client>,
    asked: Option<ServerName<'static>>,
) -> io::Result<AnyStream> {
    let address = picked.address();
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let Some(client) = client else {
        return Ok(Box::new(stream));
    };
    let name = asked
        .or_else(|| server_name(picked.host(true)))
        .unwrap_or_else(|| ServerName::from(address.ip()));
    Ok(Box::new(client.connector.connect(name, stream).await?))
}

impl Story {
    fn new(peer: Peer, protocol: &'static str) -> Self {
        Self {
            began: SystemTime::now(),
            started: Instant::now(),
            peer,
            protocol,
            status: 200,
            route: None,
            service: None,
            upstream: None,
            connecting: Duration::ZERO,
        }
    }

    fn find(&mut self, table: &Snapshot, protocol: StreamProtocol) -> Result<Arc<Route>, Fault> {
        let found = table.find_stream(&StreamHead {
            protocol,
            sni: self.peer.server_name.as_deref(),
            source: self.peer.remote,
            destination: self.peer.local,
        });
        let route = found.ok_or(Fault::NoRoute)?.route;
        self.route = Some(Arc::clone(&route));
        let service = route.service.and_then(|id| table.service(id));
        let service = service
            .filter(|service| service.enabled)
            .ok_or(Fault::NoService)?;
        self.service = Some(Arc::clone(service));
        Ok(route)
    }

    /// A connection to one of the service's endpoints, and how long that took.
    async fn connect(&mut self, worker: &Rc<Worker>, table: &Snapshot) -> Result<Reached, Fault> {
        let begun = Instant::now();
        let reached = self.reach(worker, table).await;
        self.connecting = begun.elapsed();
        reached
    }

    /// Tries as many endpoints as the service says.
    async fn reach(&mut self, worker: &Rc<Worker>, table: &Snapshot) -> Result<Reached, Fault> {
        let (Some(route), Some(service)) = (&self.route, &self.service) else {
            return Err(Fault::NoService);
        };
        let upstream = table.upstream(&service.workspace, &service.host);
        // What is relayed as it is, is TLS already.
        let passes = self.peer.tls && !route.protocols.contains(Protocols::TLS);
        let client = if speaks_tls(service)? && !passes {
            let upstream = upstream.map(|upstream| &**upstream);
            let found = worker.tls.find(table, service, upstream, false);
            Some(found.map_err(Fault::Tls)?)
        } else {
            None
        };
        let asked = self.peer.server_name.as_deref();
        let asked = asked.filter(|_| route.preserve_host);
        let asked = asked.and_then(|name| ServerName::try_from(name.to_owned()).ok());
        let source = upstream.map_or(Source::Service(service), Source::Upstream);
        let hash = hashed::of_stream(upstream, self.peer.address());
        let mut tried = Vec::new();
        loop {
            let picked = forward::pick(worker, (source, hash), &tried).await;
            let picked = picked.map_err(|_| Fault::NoAddress)?;
            self.upstream = Some(picked.address());
            let flight = picked.fly();
            let opened = open(&picked, client.as_deref(), asked.clone());
            // Boxed because it is large, and a stream lives long.
            let opened = tokio::time::timeout(service.connect_timeout, Box::pin(opened)).await;
            let (outcome, error) = match opened {
                Ok(Ok(stream)) => {
                    picked.report(Outcome::Success);
                    return Ok(Reached { stream, flight });
                }
                Ok(Err(error)) => (
                    Outcome::TcpFailure,
                    ConnectError::Refused(picked.address(), error),
                ),
                Err(_) => (Outcome::Timeout, ConnectError::Timeout(picked.address())),
            };
            picked.report(outcome);
            tried.push(picked.address());
            if tried.len() > usize::from(service.retries) {
                return Err(Fault::Connect(error));
            }
        }
    }

    /// Relays, and writes the line.
    async fn finish(
        mut self,
        worker: &Rc<Worker>,
        table: Rc<Snapshot>,
        served: Result<(AnyStream, Reached), Fault>,
    ) {
        let version = table.version().0;
        // A stream may be long: it must not keep an old table.
        drop(table);
        let nothing = Carried {
            received: 0,
            sent: 0,
            whole: false,
        };
        worker.metrics.streams.fetch_add(1, Ordering::Relaxed);
        let carried = match (served, &self.service) {
            (Ok((client, upstream)), Some(service)) => {
                let Reached { stream, flight } = upstream;
                let relay = tunnel::relay(client, stream, service.as_ref().into());
                let carried = Box::pin(relay).await;
                drop(flight);
                carried
            }
            (Ok(_), None) => nothing,
            (Err(fault), _) => {
                let (client, error) = (self.peer.remote, &fault as &dyn std::error::Error);
                tracing::debug!(%client, error, "a stream was not served");
                self.status = fault.status();
                nothing
            }
        };
        let Some(log) = &worker.log else { return };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        log.add(&Record {
            began: self.began,
            client: self.peer.address(),
            version,
            workspace: self.route.as_ref().map(|route| route.workspace.as_str()),
            route: self
                .route
                .as_ref()
                .map(|route| name(route.name.as_deref(), route.id)),
            service: self
                .service
                .as_ref()
                .map(|service| name(service.name.as_deref(), service.id)),
            upstream: self.upstream,
            received: carried.received,
            sent: carried.sent,
            whole: carried.whole,
            latencies: Latencies {
                request: millis(self.started.elapsed()),
                kong: 0,
                proxy: millis(self.connecting),
            },
            request: None,
            stream: Some(Session {
                protocol: self.protocol,
                sni: self.peer.server_name.as_deref(),
                status: self.status,
            }),
        });
    }
}
