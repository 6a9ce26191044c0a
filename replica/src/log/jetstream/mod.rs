//! The log on NATS JetStream: one stream for the events, one for the chunks beside it.
//!
//! A control plane makes both streams, compares what the broker says they are with what it relies on, and refuses to
//! go on at a difference. A data plane asks for nothing but DIRECT.GET. Both may start while the broker is away.

mod append;
mod chunks;
mod health;
mod identity;
mod link;
mod monitor;
mod names;
mod read;
mod requests;
mod setup;
mod tail;
mod trim;

use super::{
    Append, AppendError, Bounds, ChunkUse, Chunks, CountsItem, Durability, Interest, Log, LogError,
    Page, REFRESH_AFTER, Record, Source, StoredRoot, TailItem,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
pub use identity::{Identity, Tls};
use link::Link;
use names::Names;
pub use requests::{Asked, Requests};
use setup::Setup;
use sluice_schema::hash::Hash32;
use sluice_schema::version::{Time, Version};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

const PING_INTERVAL: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What this process is to the log; says which of the broker's interfaces it may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Makes the streams, appends, asks their leaders.
    ControlPlane,
    /// Reads only, and only what DESIGN.md section 4 lets it.
    DataPlane,
    /// Reads only, single records from the leader. Makes no streams.
    Auditor,
}

/// How to reach the log.
#[derive(Clone)]
pub struct Options {
    /// Addresses of the brokers: `nats://[user:password@]host:port` or `tls://...`; a name without a password is a
    /// token. If one begins with `tls://`, none is talked to without TLS.
    pub servers: Vec<String>,
    /// Who we say we are.
    pub identity: Identity,
    /// How the connection is encrypted. If anything is set here, none is made without TLS.
    pub tls: Tls,
    /// The connection's name, for the broker's operator.
    pub name: String,
    /// The cluster whose log it is: letters, digits, `-` and `_`.
    pub cluster: String,
    /// How many brokers keep a copy of each stream. Control planes only.
    pub replicas: usize,
    /// What this process is.
    pub role: Role,
    /// The prefix of reply subjects, if the broker's permissions ask for one.
    pub inbox_prefix: Option<String>,
    /// How long to wait for the broker's answer to an append.
    pub append_timeout: Duration,
    /// The brokers' monitoring addresses (`http://host:8222`): the only place where a broker says whether it syncs.
    pub monitors: Vec<String>,
    /// How old a stored chunk may be for a put of the same content to leave it: [`REFRESH_AFTER`], or less.
    pub refresh_after: Duration,
    /// How often the client asks an idle connection whether it lives. A dead one is noticed after about three times this.
    pub ping_interval: Duration,
}

impl Options {
    /// A broker on this host, cluster `default`, one copy.
    pub fn new(role: Role, name: &str) -> Self {
        Self {
            servers: vec!["nats://127.0.0.1:4222".into()],
            identity: Identity::Address,
            tls: Tls::default(),
            name: name.into(),
            cluster: "default".into(),
            replicas: 1,
            role,
            inbox_prefix: None,
            append_timeout: REQUEST_TIMEOUT,
            monitors: Vec::new(),
            refresh_after: REFRESH_AFTER,
            ping_interval: PING_INTERVAL,
        }
    }
}

/// Without the servers: their addresses may hold passwords.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("name", &self.name)
            .field("cluster", &self.cluster)
            .field("role", &self.role)
            .field("identity", &self.identity)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// Whether `address` can be a broker's, and whether it says who we are.
///
/// # Errors
/// If it cannot, in words without the address: it may hold a password.
pub fn check_address(address: &str) -> Result<bool, String> {
    link::address(address).map(|address| identity::says_who(&address))
}

/// A log and chunk store on JetStream.
pub struct JetStream {
    link: Link,
    names: Names,
    role: Role,
    setup: Setup,
    append_timeout: Duration,
    monitors: Vec<String>,
    refresh_after: Duration,
}

impl fmt::Debug for JetStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JetStream")
            .field("stream", &self.names.log_stream)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl JetStream {
    /// Begins to connect, and goes on connecting by itself for as long as the log is in use. Returns at once, whether
    /// or not a broker is there.
    ///
    /// # Errors
    /// If the options cannot be right: a malformed address or cluster name.
    pub async fn connect(options: Options) -> Result<Source, LogError> {
        Ok(Self::open(options).await?.source())
    }

    /// The same, to take requests of other programs as well: as a member with this id.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_to_serve(
        options: Options,
        id: String,
    ) -> Result<(Source, Requests), LogError> {
        let log = Self::open(options).await?;
        Ok((log.source(), Requests::new(log, id)))
    }

    fn source(self: &Arc<Self>) -> Source {
        Source {
            log: self.clone(),
            chunks: self.clone(),
        }
    }

    async fn open(options: Options) -> Result<Arc<Self>, LogError> {
        let names = Names::new(&options.cluster)?;
        let link = Link::open(&options).await?;
        Ok(Arc::new(Self {
            link,
            setup: Setup::new(options.replicas),
            names,
            role: options.role,
            append_timeout: options.append_timeout,
            monitors: options.monitors,
            refresh_after: options.refresh_after.min(REFRESH_AFTER),
        }))
    }

    /// Sees to it that the broker is one to rely on. Asked before each operation; the work is done once a connection.
    async fn ready(&self) -> Result<(), LogError> {
        self.link.check_connected()?;
        self.setup.ensure(&self.link, &self.names, self.role).await
    }
}

#[async_trait]
impl Log for JetStream {
    async fn append(&self, expected: Version, events: Vec<Append>) -> Result<(), AppendError> {
        self.ready().await.map_err(AppendError::Refused)?;
        append::append(
            &self.link,
            &self.names,
            self.append_timeout,
            expected,
            events,
        )
        .await
    }

    async fn read(&self, from: Version) -> Result<Page, LogError> {
        self.ready().await?;
        read::page(&self.link, &self.names, from).await
    }

    async fn get(&self, version: Version) -> Result<Option<Record>, LogError> {
        self.ready().await?;
        match self.role {
            Role::ControlPlane | Role::Auditor => {
                read::from_leader(&self.link, &self.names, version).await
            }
            Role::DataPlane => read::from_any(&self.link, &self.names, version).await,
        }
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        self.ready().await?;
        read::bounds(&self.link, &self.names).await
    }

    async fn trim(&self, first: Version) -> Result<(), LogError> {
        self.ready().await?;
        trim::trim(&self.link, &self.names, first).await
    }

    async fn tail(&self, interest: Interest) -> Result<BoxStream<'static, TailItem>, LogError> {
        tail::subscribe(&self.link, &self.names, interest).await
    }

    async fn announce(&self, head: Bytes) -> Result<(), LogError> {
        self.link.publish(self.names.head.clone(), head).await
    }

    async fn report(&self, node: &str, report: Bytes) -> Result<(), LogError> {
        self.link.publish(self.names.node(node)?, report).await?;
        // A node that stops says so last: the process may end as soon as this returns.
        self.link.flush().await
    }

    async fn tell_counts(&self, node: &str, counts: Bytes) -> Result<(), LogError> {
        self.link.publish(self.names.count(node)?, counts).await
    }

    async fn counts(&self) -> Result<BoxStream<'static, CountsItem>, LogError> {
        tail::counts(&self.link, &self.names).await
    }

    async fn durability(&self) -> Durability {
        monitor::durability(&self.link, &self.monitors, self.setup.replicas).await
    }
}

#[async_trait]
impl Chunks for JetStream {
    async fn put(&self, part: ChunkUse, hash: Hash32, content: &[u8]) -> Result<(), LogError> {
        self.ready().await?;
        let refresh_after = self.refresh_after;
        chunks::put(&self.link, &self.names, refresh_after, part, hash, content).await
    }

    async fn get(&self, part: ChunkUse, hash: Hash32) -> Result<Option<Bytes>, LogError> {
        self.ready().await?;
        chunks::get(&self.link, &self.names, part, hash).await
    }

    async fn put_root(&self, name: &str, root: &[u8]) -> Result<(), LogError> {
        self.ready().await?;
        chunks::put_root(&self.link, &self.names, name, root).await
    }

    async fn roots(&self) -> Result<Vec<StoredRoot>, LogError> {
        self.ready().await?;
        chunks::roots(&self.link, &self.names).await
    }

    async fn remove_root(&self, name: &str) -> Result<(), LogError> {
        self.ready().await?;
        chunks::remove_root(&self.link, &self.names, name).await
    }

    async fn list(&self, part: ChunkUse) -> Result<BTreeSet<Hash32>, LogError> {
        self.ready().await?;
        chunks::list(&self.link, &self.names, part).await
    }

    async fn remove(
        &self,
        part: ChunkUse,
        hash: Hash32,
        stored_before: Time,
    ) -> Result<bool, LogError> {
        self.ready().await?;
        chunks::remove(&self.link, &self.names, part, hash, stored_before).await
    }
}
