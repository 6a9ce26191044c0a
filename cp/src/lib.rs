//! The control plane: takes changes over the Admin API, decides whether they are valid, appends them to the log.
//!
//! Any number of control planes run on one log without a leader. Each folds the log into its own state and answers
//! reads from that; only the writer appends.

pub mod access;
pub mod admin;
pub mod config;
pub mod core;
pub mod counts;
pub mod fleet;
pub mod history;
pub mod permission;
pub mod snapshots;
pub mod start;
mod time;
pub mod traces;
pub mod view;
pub mod writer;

pub use access::Access;
pub use fleet::Fleet;
pub use history::History;
pub use snapshots::Snapshots;
pub use traces::Traces;
pub use view::View;
pub use writer::Writer;

use sluice_replica::keys::Keychain;
use sluice_replica::log::{Durability, Source};
use sluice_replica::node::SyncMode;
use sluice_replica::process::logging::LogLevel;
use sluice_schema::kind::RouterFlavor;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;
use uuid::Uuid;

/// A running control plane, as its Admin API sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// Takes commands.
    pub writer: Writer,
    /// The folded state.
    pub view: View,
    /// The nodes that report.
    pub fleet: Fleet,
    /// Its snapshots.
    pub snapshots: Snapshots,
    /// What has happened.
    pub history: History,
    /// The log.
    pub source: Source,
    /// Whose signatures it believes.
    pub keychain: Keychain,
    /// Changes what is logged.
    pub log_level: LogLevel,
    /// Who may call its Admin API.
    pub access: Access,
    /// Makes spans of writes.
    pub traces: Traces,
    /// What does not change while it runs.
    pub info: Arc<Info>,
}

/// What does not change while a control plane runs.
#[derive(Debug)]
pub struct Info {
    /// Its own id.
    pub node_id: Uuid,
    /// The machine's name.
    pub hostname: String,
    /// The program's version.
    pub version: &'static str,
    /// When it started.
    pub started: SystemTime,
    /// Where the Admin API listens.
    pub listen: Vec<SocketAddr>,
    /// Host names (without port) by which the Admin API may be called, besides addresses and `localhost`.
    pub allowed_hosts: Vec<String>,
    /// Origins (`https://manager.example:8445`) whose pages may read and write, besides those of the hosts above.
    pub allowed_origins: Vec<String>,
    /// The cluster's name.
    pub cluster: String,
    /// How data planes are asked to take up changes.
    pub sync: SyncMode,
    /// What routes may say.
    pub router_flavor: RouterFlavor,
    /// Whether every change must say why.
    pub require_reason: bool,
    /// Where its files are.
    pub data_dir: PathBuf,
    /// The id of the key this control plane signs with.
    pub signing_key: String,
    /// Whether acknowledged writes are synced to disk.
    pub durability: watch::Receiver<Durability>,
}
