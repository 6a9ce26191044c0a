//! Who else is there: the nodes that report, and the other control planes.

mod census;
mod quorum;
mod trail;
mod wait;

pub use census::Behind;
pub use quorum::{NotAQuorum, Quorum};
pub use wait::{Outcome, Progress, Wanted};

use bytes::Bytes;
use census::{Census, Seen};
use sluice_replica::environment::Environment;
use sluice_replica::node::{Ailing, Head, Report};
use sluice_replica::run::Arrival;
use sluice_schema::digest::Digest;
use sluice_schema::version::{Cursor, Time, Version};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

/// A node that has not reported for this long is no longer alive.
const LEASE: Duration = Duration::from_secs(5);
/// A node that has not reported for this long is forgotten.
pub(crate) const FORGET: Duration = Duration::from_secs(24 * 3600);
/// More nodes than this are not kept: reports are input from the network.
const NODES_MAX: usize = 100_000;

/// A node as it last reported.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its report.
    pub report: Report,
    /// When it came.
    pub last_seen: Time,
    /// How long ago that was.
    pub age: Duration,
    /// Whether it reported within the lease.
    pub alive: bool,
}

/// The nodes that report. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fleet {
    environment: Environment,
    census: Arc<Mutex<Census>>,
    /// The highest version that somebody has waited for in vain, for a moment at least.
    asked: Arc<watch::Sender<Version>>,
    /// When each control plane last announced a head.
    announcers: Arc<Mutex<BTreeMap<Uuid, Instant>>>,
}

impl Fleet {
    /// No node yet.
    pub fn new(environment: Environment) -> Self {
        Self {
            environment,
            census: Arc::default(),
            asked: Arc::new(watch::Sender::new(Version::ZERO)),
            announcers: Arc::default(),
        }
    }

    /// The highest version that somebody waits for, or has.
    pub(crate) fn asked(&self) -> watch::Receiver<Version> {
        self.asked.subscribe()
    }

    /// Nodes are to say at once when they serve this.
    fn ask(&self, version: Version) {
        self.asked.send_if_modified(|asked| {
            let is_new = version > *asked;
            *asked = version.max(*asked);
            is_new
        });
    }

    /// The clock by which reports are dated.
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// All nodes, ordered by id.
    pub fn nodes(&self) -> Vec<Node> {
        let node = |seen: &Seen| Node {
            report: seen.report.clone(),
            last_seen: seen.time,
            age: seen.instant.elapsed(),
            alive: seen.live,
        };
        self.fresh().nodes().map(node).collect()
    }

    /// What live nodes say is not well of an upstream, with the node's id, and whether there are live nodes at all.
    pub fn ailing(&self, upstream: Uuid) -> (bool, Vec<(String, Ailing)>) {
        let census = self.fresh();
        let (mut any, mut ailing) = (false, Vec::new());
        for seen in census.nodes().filter(|seen| seen.live) {
            any = true;
            let own = seen
                .report
                .ailing
                .iter()
                .filter(|ailing| ailing.upstream == upstream);
            ailing.extend(own.map(|ailing| (seen.report.node.clone(), ailing.clone())));
        }
        (any, ailing)
    }

    /// This control plane's own state has gone on to `cursor`, by these events if it was not taken up as a whole. Whoever
    /// says to be there must have the same history.
    pub(crate) fn advance(&self, cursor: Cursor, digest: Digest, events: &[Arrival]) {
        self.census().advance(cursor, digest, events);
    }

    /// Whether a control plane other than `own` has announced a head within the lease.
    pub fn has_other_control_planes(&self, own: Uuid) -> bool {
        let announcers = self
            .announcers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        announcers
            .iter()
            .any(|(id, seen)| *id != own && seen.elapsed() < LEASE)
    }

    /// Takes in heads until the sender is gone.
    pub(crate) async fn collect_heads(self, mut heads: mpsc::Receiver<Head>) {
        while let Some(head) = heads.recv().await {
            let mut announcers = self
                .announcers
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            announcers.retain(|_, seen| seen.elapsed() < LEASE);
            announcers.insert(head.announcer, Instant::now());
        }
    }

    /// Takes in reports until the sender is gone.
    pub(crate) async fn collect(self, mut reports: mpsc::Receiver<Bytes>) {
        while let Some(message) = reports.recv().await {
            match Report::decode(&message) {
                Ok(report) => self.take(report),
                Err(error) => tracing::warn!(%error, "dropped a node report"),
            }
        }
    }

    fn take(&self, report: Report) {
        let time = self.environment.now();
        self.census().take(report, time, Instant::now());
    }

    fn census(&self) -> MutexGuard<'_, Census> {
        self.census.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nodes, of which those are live that are so now.
    fn fresh(&self) -> MutexGuard<'_, Census> {
        let mut census = self.census();
        census.expire(Instant::now());
        census
    }
}
