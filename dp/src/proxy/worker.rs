//! A worker: one thread, one single-threaded runtime, its own listeners, connections and upstream pool. Workers share
//! the table, the plugins' state and nothing else on a request's path.

use super::addresses::Counted;
use super::client::{self, Entrance};
use super::drain::Drain;
use super::exec::LocalExec;
use super::ids::Ids;
use super::peer::Peer;
use super::pool::Pool;
use super::stream;
use super::tls::client::Clients;
use super::{Options, Shared};
use crate::access_log::{Log, Writer};
use crate::balance::Balance;
use crate::metrics::Shard;
use crate::table::Table;
use arc_swap::{ArcSwap, Cache};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often idle connections, counters and names are looked at.
const TICK: Duration = Duration::from_secs(1);
/// The pause after a failed accept (most likely: out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The most that are taken from a listener's queue when it is left: a flood must not keep a process from ending.
const WAITING_MAX: usize = 16_384;
/// The number of headers hyper allows by itself, without memory beyond the stack's.
const HEADERS_USUAL: u32 = 100;

/// What the requests of one worker share.
pub(super) struct Worker {
    tables: RefCell<Snapshots>,
    pub(super) ids: Ids,
    pub(super) pool: Rc<Pool>,
    pub(super) balance: Balance,
    pub(super) metrics: Arc<Shard>,
    pub(super) shared: Shared,
    pub(super) options: Options,
    /// The access log; `None` if it is off.
    pub(super) log: Option<Log>,
    /// TLS to upstreams.
    pub(super) tls: Clients,
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<LocalExec>,
    pub(super) drain: Rc<Drain>,
    connections: TaskTracker,
}

/// The newest table, and this worker's own count of who uses it: a request takes and drops its snapshot without
/// touching memory other workers write to.
struct Snapshots {
    newest: Cache<Arc<ArcSwap<Table>>, Arc<Table>>,
    current: Rc<Snapshot>,
}

/// A table as one request sees it from start to end.
pub(super) struct Snapshot {
    table: Arc<Table>,
    /// Whether a request was served by it.
    served: Cell<bool>,
}

impl Snapshot {
    fn new(table: Arc<Table>) -> Rc<Self> {
        Rc::new(Self {
            table,
            served: Cell::new(false),
        })
    }
}

impl Deref for Snapshot {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}

impl Worker {
    fn new(
        index: usize,
        options: Options,
        tables: &Arc<ArcSwap<Table>>,
        shared: Shared,
        log: &Writer,
    ) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(options.clients.header_timeout)
            .max_header_size(options.clients.header_bytes_max as usize);
        if options.clients.headers_max != HEADERS_USUAL {
            http.max_headers(options.clients.headers_max as usize);
        }
        let snapshots = Snapshots {
            newest: Cache::new(Arc::clone(tables)),
            current: Snapshot::new(tables.load_full()),
        };
        let metrics = shared.metrics.shard();
        Self {
            tables: RefCell::new(snapshots),
            log: log.log(&metrics),
            ids: Ids::new(),
            pool: Rc::new(Pool::new(options.pool)),
            balance: Balance::new(Arc::clone(&shared.upstreams), index as u64),
            metrics,
            shared,
            tls: Clients::new(&options.tls),
            http1: http,
            http2: client::http2_builder(&options.clients),
            options,
            drain: Rc::default(),
            connections: TaskTracker::new(),
        }
    }

    /// The newest table, for one request from its start to its end.
    pub(super) fn table(&self) -> Rc<Snapshot> {
        let snapshots = &mut *self.tables.borrow_mut();
        let newest = snapshots.newest.load();
        if !Arc::ptr_eq(newest, &snapshots.current.table) {
            snapshots.current = Snapshot::new(Arc::clone(newest));
        }
        Rc::clone(&snapshots.current)
    }

    /// Notes that a request is served by a table.
    pub(super) fn note_served(&self, table: &Snapshot) {
        if !table.served.replace(true) {
            self.shared.metrics.served(table.version());
        }
    }

    /// Runs what belongs to a client's connection; a drain waits for it.
    pub(super) fn track(&self, work: impl Future<Output = ()> + 'static) {
        self.track_counted(None, work);
    }

    fn track_counted(&self, counted: Option<Counted>, work: impl Future<Output = ()> + 'static) {
        let active = (Active::new(&self.metrics), counted);
        self.connections.spawn_local(async move {
            let _active = active;
            work.await;
        });
    }

    fn tick(&self) {
        let now = Instant::now();
        self.pool.reap(now);
        self.tls.tick(now);
        self.balance.tick(now);
        let clock = (self.options.clock)();
        self.shared.state.all().for_each(|kept| kept.tick(clock));
        self.metrics
            .idle_upstream
            .store(self.pool.idle() as u64, Ordering::Relaxed);
        if let Some(log) = &self.log {
            log.flush();
        }
        // An idle worker must not keep an old table alive.
        drop(self.table());
    }
}

/// Runs a worker until `shutdown`, then until its connections are done or the drain's deadline.
pub(super) async fn run(
    index: usize,
    options: Options,
    tables: Arc<ArcSwap<Table>>,
    shared: Shared,
    log: Writer,
    listeners: Vec<(std::net::TcpListener, Entrance)>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let worker = Rc::new(Worker::new(index, options, &tables, shared, &log));
    let accepting = TaskTracker::new();
    for (listener, entrance) in listeners {
        let listener = TcpListener::from_std(listener)?;
        accepting.spawn_local(accept(Rc::clone(&worker), listener, entrance));
    }
    accepting.close();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = ticks.tick() => worker.tick(),
        }
    }
    worker.drain.ask();
    accepting.wait().await;
    worker.connections.close();
    let drained = tokio::time::timeout(worker.options.drain_timeout, worker.connections.wait());
    if drained.await.is_err() {
        let open = worker.connections.len();
        tracing::warn!(
            worker = index,
            open,
            "closing connections that did not finish in time"
        );
    }
    Ok(())
}

/// Accepts until the drain begins, and then what already waits in the listener's queue.
async fn accept(worker: Rc<Worker>, listener: TcpListener, entrance: Entrance) {
    let mut asked = pin!(Rc::clone(&worker.drain).asked());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut asked => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => open(&worker, &entrance, stream, remote),
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Asked of the system itself: the runtime may not know yet that somebody waits.
    let rest = listener
        .into_std()
        .map(|listener| accept_waiting(&listener));
    for (stream, remote) in rest.into_iter().flatten() {
        open(&worker, &entrance, stream, remote);
    }
}

/// All that wait in a listener's queue.
fn accept_waiting(listener: &std::net::TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    let mut waiting = Vec::new();
    while waiting.len() < WAITING_MAX
        && let Ok((stream, remote)) = listener.accept()
    {
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream));
        waiting.extend(stream.ok().map(|stream| (stream, remote)));
    }
    waiting
}

/// Serves one client connection in a task of its own.
fn open(worker: &Rc<Worker>, entrance: &Entrance, stream: TcpStream, remote: SocketAddr) {
    worker.metrics.accepted.fetch_add(1, Ordering::Relaxed);
    let limits = &worker.options.clients;
    let counted = worker
        .shared
        .addresses
        .enter(remote.ip(), limits.connections_per_address_max)
        .filter(|_| worker.connections.len() < limits.connections_max);
    if counted.is_none() {
        worker.metrics.refused.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%remote, "connection refused: too many are open");
        return;
    }
    let local = stream
        .local_addr()
        .and_then(|local| stream.set_nodelay(true).map(|()| local));
    let Ok(local) = local else { return };
    match entrance {
        Entrance::Plain => {
            let peer = Peer::new(remote, local, &worker.options.trust);
            let work = client::serve_http1(worker, stream, peer);
            worker.track_counted(counted, work);
        }
        Entrance::Either => {
            let worker_too = Rc::clone(worker);
            let work = client::serve_either(worker_too, stream, remote, local);
            worker.track_counted(counted, work);
        }
        Entrance::Tls(acceptor) => {
            let (worker_too, acceptor) = (Rc::clone(worker), acceptor.clone());
            let work = client::serve_tls(worker_too, acceptor, stream, remote, local);
            worker.track_counted(counted, work);
        }
        Entrance::Stream => {
            let work = stream::serve_tcp(Rc::clone(worker), stream, remote, local);
            worker.track_counted(counted, work);
        }
        Entrance::StreamTls(acceptor) => {
            let (worker_too, acceptor) = (Rc::clone(worker), acceptor.clone());
            let work = stream::serve_tls(worker_too, acceptor, stream, remote, local);
            worker.track_counted(counted, work);
        }
    }
}

/// Counts an open connection for as long as it lives.
struct Active(Arc<Shard>);

impl Active {
    fn new(metrics: &Arc<Shard>) -> Self {
        metrics.active.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(metrics))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}
