//! The reverse proxy: HTTP/1.1 and HTTP/2 in and out, in clear and over TLS.
//!
//! A request's life (`life`): a plan (`plan`) from the checks hyper leaves to us (`request`), the route and the plugins;
//! then an endpoint (`balance`), a connection (`pool`, `link`), the request and its answer (`forward`), both bodies
//! streamed (`body`). Names and the health of targets are kept by a thread beside the workers (`keeper`, `probe`). Clients' connections are in `client`, other protocols than HTTP in `upgrade`, TLS in `tls`. It sees one table from start to end. Failures become responses in `errors` only.

mod body;
mod client;
mod drain;
mod errors;
mod exec;
mod forward;
mod hashed;
mod headers;
mod ids;
mod keeper;
mod life;
mod link;
mod listen;
mod peer;
mod plan;
mod pool;
mod probe;
mod request;
mod tls;
mod upgrade;
mod worker;

pub use listen::{Listen, ListenError};
pub use pool::PoolLimits;
pub use tls::{TlsOptions, TlsSettingsError, load_authorities, load_certificate};

use crate::balance::{DnsOptions, Upstreams};
use crate::metrics::Metrics;
use crate::plugin;
use crate::table::Table;
use arc_swap::ArcSwap;
use client::Entrance;
use keeper::Keeper;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tls::server::Acceptors;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Seconds since the Unix epoch, for what depends on the wall clock (rate limits, lifetimes of credentials).
pub type Clock = fn() -> u64;

/// How to run the proxy.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// TLS.
    pub tls: TlsOptions,
    /// Threads. At least one is started.
    pub workers: usize,
    /// How long open requests may take after the shutdown.
    pub drain_timeout: Duration,
    /// How long a client may take for a request's head, and how long a connection may be idle.
    pub header_read_timeout: Duration,
    /// How long a client may pause within a request's body.
    pub client_body_timeout: Duration,
    /// Client connections per worker.
    pub connections_max: usize,
    /// The pool of each worker.
    pub pool: PoolLimits,
    /// Where names are looked up.
    pub dns: DnsOptions,
    /// The wall clock.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            tls: TlsOptions::default(),
            workers: 1,
            drain_timeout: Duration::from_secs(30),
            header_read_timeout: Duration::from_secs(60),
            client_body_timeout: Duration::from_secs(60),
            connections_max: 16_384,
            pool: PoolLimits::default(),
            dns: DnsOptions::default(),
            clock: wall_clock,
        }
    }
}

fn wall_clock() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// What outlives the proxy's configuration and is seen from outside.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// The plugins' state.
    pub state: Arc<plugin::State>,
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// The upstreams, with the health of their targets.
    pub upstreams: Arc<Upstreams>,
}

/// The reverse proxy.
#[derive(Debug)]
pub struct Proxy;

/// A proxy that accepts requests.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<SocketAddr>,
    workers: Vec<oneshot::Receiver<io::Result<()>>>,
}

/// A worker that ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It could not run.
    #[error("a proxy worker failed")]
    Failed(#[source] io::Error),
    /// It panicked.
    #[error("a proxy worker panicked")]
    Panicked,
}

impl Proxy {
    /// Binds all addresses, then starts the workers. Requests are accepted when this returns. `shutdown` starts the
    /// drain.
    ///
    /// # Errors
    /// If an address cannot be bound, a thread cannot be started, or TLS cannot be set up.
    pub fn start(
        options: Options,
        tables: &Arc<ArcSwap<Table>>,
        shared: &Shared,
        shutdown: &CancellationToken,
    ) -> io::Result<Running> {
        let workers = options.workers.max(1);
        let mut addresses = Vec::new();
        let mut listeners: Vec<Vec<(TcpListener, Entrance)>> =
            (0..workers).map(|_| Vec::new()).collect();
        let acceptors = Acceptors::new(&options.tls, &options.listen, tables)?;
        for wanted in &options.listen {
            let entrance = match &acceptors {
                Some(acceptors) if wanted.ssl => Entrance::Tls(acceptors.of(wanted)),
                Some(_) | None if wanted.http2 => Entrance::Either,
                Some(_) | None => Entrance::Plain,
            };
            let first = bind(wanted)?;
            // The port that was taken if 0 was asked for.
            let address = first.local_addr()?;
            addresses.push(address);
            listeners[0].push((first, entrance.clone()));
            for listeners in &mut listeners[1..] {
                let wanted = Listen { address, ..*wanted };
                listeners.push((bind(&wanted)?, entrance.clone()));
            }
        }
        let mut running = Running {
            addresses,
            workers: Vec::new(),
        };
        let (working, workers_end) = mpsc::channel(1);
        let keeper = Keeper {
            upstreams: Arc::clone(&shared.upstreams),
            tables: Arc::clone(tables),
            dns: options.dns.clone(),
            tls: options.tls.clone(),
        };
        keeper.start(workers_end)?;
        for (index, listeners) in listeners.into_iter().enumerate() {
            let working = working.clone();
            let (done, ended) = oneshot::channel();
            let (options, tables, shared, shutdown) = (
                options.clone(),
                Arc::clone(tables),
                shared.clone(),
                shutdown.clone(),
            );
            std::thread::Builder::new()
                .name(format!("proxy-{index}"))
                .spawn(move || {
                    let result = block_on(worker::run(
                        index, options, tables, shared, listeners, shutdown,
                    ));
                    // Nobody may be waiting any more.
                    let _ = done.send(result);
                    drop(working);
                })?;
            running.workers.push(ended);
        }
        Ok(running)
    }
}

impl Running {
    /// The addresses listened on, in the order they were asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Waits for the end of all workers: the end of the drain, or the first one that fails.
    ///
    /// # Errors
    /// If a worker failed. The others go on; the caller decides.
    pub async fn stopped(self) -> Result<(), WorkerError> {
        let each = self.workers.into_iter().map(|worker| async {
            match worker.await {
                Ok(result) => result.map_err(WorkerError::Failed),
                Err(_) => Err(WorkerError::Panicked),
            }
        });
        futures::future::try_join_all(each).await.map(drop)
    }
}

fn block_on(work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = tokio::task::LocalSet::new().block_on(&runtime, work);
    // What hangs must not hold up the process.
    runtime.shutdown_background();
    result
}

/// A listener that shares its port with those of the other workers.
fn bind(listen: &Listen) -> io::Result<TcpListener> {
    let address = listen.address;
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(listen.backlog)?;
    Ok(socket.into())
}
