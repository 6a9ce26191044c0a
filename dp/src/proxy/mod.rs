//! The reverse proxy: HTTP/1.1 and HTTP/2 in and out, in clear and over TLS.
//!
//! A request's life (`life`): a plan (`plan`) from the checks hyper leaves to us (`request`), the route and the plugins
//! (`draft`); then an endpoint (`balance`), a connection (`pool`, `link`), the request and its answer (`forward`), both bodies
//! streamed (`body`), and the plugins' later phases (`later`, `filtered`). Names and the health of targets are kept by a thread beside the workers (`keeper`, `probe`). Clients'
//! connections are in `client`, watched by `guard`; other protocols than HTTP in `upgrade` and `stream`, TLS in `tls`. It sees
//! one table from start to end. Failures become responses in `errors` only.

mod addresses;
mod body;
mod buffer;
mod client;
mod draft;
mod drain;
mod dry;
mod errors;
mod exec;
mod filtered;
mod forward;
mod forwarded;
mod fresh;
mod guard;
mod hashed;
mod headers;
mod ids;
mod keeper;
mod later;
mod life;
mod limits;
mod link;
mod listen;
mod logged;
mod peer;
mod plan;
mod pool;
mod probe;
mod request;
mod sockets;
mod stream;
mod tls;
mod tunnel;
mod upgrade;
mod worker;

pub use addresses::Addresses;
pub(crate) use dry::{Dry, Refusal};
pub use forwarded::{Network, NetworkError, Trust};
pub use fresh::Freshness;
pub(crate) use later::takes_part;
pub use limits::Limits;
pub use listen::{Listen, ListenError};
pub(crate) use plan::is_grpc;
pub use pool::PoolLimits;
pub use sockets::Inherited;
pub(crate) use tls::client::checker;
pub(crate) use tls::{AnyCertificate, provider};
pub use tls::{TlsOptions, TlsSettingsError, load_authorities, load_certificate};

use crate::access_log::Ended;
use crate::access_log::{self, Writer};
use crate::balance::{DnsOptions, Upstreams};
use crate::metrics::Metrics;
use crate::plugin;
use crate::table::Table;
use arc_swap::ArcSwap;
use client::Entrance;
use keeper::Keeper;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tls::server::Acceptors;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// How long what plugins have still to hand over may take at the end.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Seconds since the Unix epoch, for what depends on the wall clock (rate limits, lifetimes of credentials).
pub type Clock = fn() -> u64;

/// How to run the proxy.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// Where to listen for connections that are no HTTP.
    pub stream_listen: Vec<Listen>,
    /// Sockets that are listened on already.
    pub inherited: Inherited,
    /// TLS.
    pub tls: TlsOptions,
    /// Threads. At least one is started.
    pub workers: usize,
    /// How long open requests may take after the shutdown.
    pub drain_timeout: Duration,
    /// What clients may take.
    pub clients: Limits,
    /// Which proxies in front are believed.
    pub trust: Trust,
    /// What requests may ask about versions.
    pub freshness: Freshness,
    /// The access log.
    pub access_log: access_log::Settings,
    /// The pool of each worker.
    pub pool: PoolLimits,
    /// Where names are looked up.
    pub dns: DnsOptions,
    /// The wall clock.
    pub clock: Clock,
    /// The way to the other data planes, where there can be any.
    pub peers: Option<Arc<dyn plugin::Peers>>,
}

impl Options {
    fn surroundings(&self) -> plugin::Surroundings {
        plugin::Surroundings {
            trusted: Arc::clone(&self.tls.trusted),
            peers: self.peers.clone(),
            clock: self.clock,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            stream_listen: Vec::new(),
            inherited: Inherited::default(),
            tls: TlsOptions::default(),
            workers: 1,
            drain_timeout: Duration::from_secs(30),
            clients: Limits::default(),
            trust: Trust::default(),
            freshness: Freshness::default(),
            access_log: access_log::Settings::default(),
            pool: PoolLimits::default(),
            dns: DnsOptions::default(),
            clock: wall_clock,
            peers: None,
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
    /// The connections of each client address.
    pub addresses: Addresses,
    /// The upstreams, with the health of their targets.
    pub upstreams: Arc<Upstreams>,
    /// Told after a table was swapped, for requests that wait for one.
    pub swapped: Arc<Notify>,
}

/// The reverse proxy.
#[derive(Debug)]
pub struct Proxy;

/// A proxy that accepts requests.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<SocketAddr>,
    stream_addresses: Vec<SocketAddr>,
    workers: Vec<oneshot::Receiver<io::Result<()>>>,
    log: Writer,
    log_ended: Ended,
    state: Arc<plugin::State>,
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
        let (mut addresses, mut stream_addresses) = (Vec::new(), Vec::new());
        let mut listeners: Vec<Vec<(TcpListener, Entrance)>> =
            (0..workers).map(|_| Vec::new()).collect();
        let (log, log_ended) = Writer::start(options.access_log.clone(), shared.metrics.shard())?;
        let all = options.listen.iter().chain(&options.stream_listen);
        let acceptors = Acceptors::new(&options.tls, all, tables)?;
        let entrance = |wanted: &Listen| match &acceptors {
            Some(acceptors) if wanted.ssl => Entrance::Tls(acceptors.of(wanted)),
            Some(_) | None if wanted.http2 => Entrance::Either,
            Some(_) | None => Entrance::Plain,
        };
        let stream_entrance = |wanted: &Listen| match &acceptors {
            Some(acceptors) if wanted.ssl => Entrance::StreamTls(acceptors.stream()),
            Some(_) | None => Entrance::Stream,
        };
        let mut open = |wanted: &Listen, entrance: Entrance| {
            let (address, shares) = sockets::listen(wanted, workers, &options.inherited)?;
            for (listeners, share) in listeners.iter_mut().zip(shares) {
                listeners.extend(share.into_iter().map(|socket| (socket, entrance.clone())));
            }
            Ok::<_, io::Error>(address)
        };
        for wanted in &options.listen {
            addresses.push(open(wanted, entrance(wanted))?);
        }
        for wanted in &options.stream_listen {
            stream_addresses.push(open(wanted, stream_entrance(wanted))?);
        }
        let mut running = Running {
            addresses,
            stream_addresses,
            workers: Vec::new(),
            log,
            log_ended,
            state: Arc::clone(&shared.state),
        };
        shared.state.start(&options.surroundings());
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
            let log = running.log.clone();
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
                        index, options, tables, shared, log, listeners, shutdown,
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

    /// The addresses where streams are listened for, in the order they were asked for.
    pub fn stream_addresses(&self) -> &[SocketAddr] {
        &self.stream_addresses
    }

    /// The access log.
    pub fn access_log(&self) -> &Writer {
        &self.log
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
        let ended = futures::future::try_join_all(each).await.map(drop);
        drop(self.log);
        self.state.stop(STOP_PATIENCE).await;
        self.log_ended.wait().await;
        ended
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
