//! Settings of the control plane.

use crate::access::Anonymous;
use crate::snapshots::Policy;
use crate::start::AdminTls;
use clap::{Args, Parser};
use sluice_replica::node::SyncMode;
use sluice_replica::process::connection::ConnectionSettings;
use sluice_replica::process::logging::LoggingSettings;
use sluice_replica::process::secrets::SecretsSettings;
use sluice_replica::process::settings::parse_switch;
use sluice_replica::process::traces::{SamplingSettings, TracesSettings};
use sluice_schema::kind::RouterFlavor;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The prefix of variables only this program reads.
pub const VARIABLE_PREFIX: &str = "SLUICE_CP_";

/// Sluice's control plane: takes configuration changes over a Kong-compatible Admin API and appends them to the log.
///
/// Any number of control planes can run on one log. Settings come from flags, SLUICE_* variables and a TOML file, in
/// that order of strength; the file's keys are the flags' names with _ in place of -.
#[derive(Clone, Debug, Parser)]
#[command(name = "sluice-cp", version)]
pub struct Settings {
    /// TOML file with settings
    #[arg(long, env = "SLUICE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) connection: ConnectionSettings,
    #[command(flatten)]
    pub(crate) log: LogSettings,
    #[command(flatten)]
    pub(crate) admin: AdminSettings,
    #[command(flatten)]
    pub(crate) snapshots: SnapshotSettings,
    #[command(flatten)]
    pub(crate) secrets: SecretsSettings,
    #[command(flatten)]
    pub(crate) logging: LoggingSettings,
    #[command(flatten)]
    pub(crate) traces: TracesSettings,
    #[command(flatten)]
    pub(crate) sampling: SamplingSettings,
}

impl Settings {
    /// The settings of the logs.
    pub fn logging(&self) -> &LoggingSettings {
        &self.logging
    }
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Log")]
pub(crate) struct LogSettings {
    /// Monitoring addresses of the NATS servers (http://host:8222), separated by commas: the only place that tells whether
    /// acknowledged writes are synced to disk
    #[arg(
        long,
        env = "SLUICE_CP_NATS_MONITOR_URL",
        value_delimiter = ',',
        value_name = "URL"
    )]
    pub(crate) nats_monitor_url: Vec<String>,
    /// Copies of the log in a NATS cluster, 1 to 5; used when the stream is created
    #[arg(long, env = "SLUICE_CP_REPLICAS", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=5), value_name = "N")]
    pub(crate) replicas: u8,
    /// Directory of the local store and keys
    #[arg(
        long,
        env = "SLUICE_CP_DATA_DIR",
        default_value = ".sluice/cp",
        value_name = "DIR"
    )]
    pub(crate) data_dir: PathBuf,
    /// Key this control plane signs with; made if it is not there [default: <data-dir>/keys/cp.key]
    #[arg(long, env = "SLUICE_CP_SIGNING_KEY", value_name = "FILE")]
    pub(crate) signing_key: Option<PathBuf>,
    /// Public keys to believe, of roots or control planes: a .pub file or a directory of them, also with a keyring [default: the directory of the signing key]
    #[arg(long, env = "SLUICE_TRUSTED_KEYS", value_name = "PATH")]
    pub(crate) trusted_keys: Option<PathBuf>,
    /// Whether data planes take up each change alone (on) or reload the whole configuration on each change (off)
    #[arg(
        long,
        env = "SLUICE_INCREMENTAL_SYNC",
        default_value = "on",
        value_name = "on|off"
    )]
    pub(crate) incremental_sync: SyncMode,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Admin API")]
pub(crate) struct AdminSettings {
    /// Address of the Admin API
    #[arg(
        long,
        env = "SLUICE_CP_ADMIN_LISTEN",
        default_value = "127.0.0.1:8001",
        value_name = "ADDRESS"
    )]
    pub(crate) admin_listen: SocketAddr,
    /// File that says who may do what: tokens (`sluice token new`) and client certificates. Read again when it changes
    #[arg(long, env = "SLUICE_CP_ADMIN_ACCESS", value_name = "FILE")]
    pub(crate) admin_access: Option<PathBuf>,
    /// What callers may do who show neither token nor certificate [default: none where admin_access is given, admin on a loopback
    /// address, read elsewhere]
    #[arg(
        long,
        env = "SLUICE_CP_ADMIN_ANONYMOUS",
        value_name = "none|read|admin"
    )]
    pub(crate) admin_anonymous: Option<Anonymous>,
    /// Certificate of the Admin API (PEM), with those that lead to its authority; it speaks TLS only then
    #[arg(
        long,
        env = "SLUICE_CP_ADMIN_SSL_CERT",
        requires = "admin_ssl_cert_key",
        value_name = "FILE"
    )]
    pub(crate) admin_ssl_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(
        long,
        env = "SLUICE_CP_ADMIN_SSL_CERT_KEY",
        requires = "admin_ssl_cert",
        value_name = "FILE"
    )]
    pub(crate) admin_ssl_cert_key: Option<PathBuf>,
    /// Authorities (PEM) of the certificates that callers may show instead of a token
    #[arg(
        long,
        env = "SLUICE_CP_ADMIN_CLIENT_CA",
        requires = "admin_ssl_cert",
        value_name = "FILE"
    )]
    pub(crate) admin_client_ca: Option<PathBuf>,
    /// Whether the Admin API is also served on the NATS subject `sluice.<cluster>.admin`: on or off. Whoever may publish
    /// there may then change everything
    #[arg(long, env = "SLUICE_CP_ADMIN_OVER_NATS", default_value = "off", action = clap::ArgAction::Set, value_parser = parse_switch, value_name = "on|off")]
    pub(crate) admin_over_nats: bool,
    /// Host names by which the Admin API may be called, besides IP addresses and localhost
    #[arg(
        long,
        env = "SLUICE_CP_ADMIN_HOSTS",
        value_delimiter = ',',
        value_name = "NAME"
    )]
    pub(crate) admin_hosts: Vec<String>,
    /// What routes may say: hosts, paths and so on (traditional_compatible), or these or an expression (expressions). Give
    /// all control planes the same; data planes run both
    #[arg(
        long,
        env = "SLUICE_CP_ROUTER_FLAVOR",
        default_value = "traditional_compatible",
        value_name = "FLAVOR"
    )]
    pub(crate) router_flavor: RouterFlavor,
    /// Origins of pages that may use the Admin API, such as Kong Manager's (https://manager.example:8445), besides pages of the
    /// same host
    #[arg(
        long,
        env = "SLUICE_CP_ADMIN_GUI_URL",
        value_delimiter = ',',
        value_name = "URL"
    )]
    pub(crate) admin_gui_url: Vec<String>,
    /// Refuse changes that do not say why (the header Sluice-Reason)
    #[arg(long, env = "SLUICE_CP_REQUIRE_REASON")]
    pub(crate) require_reason: bool,
}

impl AdminSettings {
    /// TLS, if it is wanted.
    pub(crate) fn tls(&self) -> anyhow::Result<Option<AdminTls>> {
        match (&self.admin_ssl_cert, &self.admin_ssl_cert_key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(AdminTls {
                certificate: certificate.clone(),
                key: key.clone(),
                client_ca: self.admin_client_ca.clone(),
            })),
            (Some(_), None) | (None, Some(_)) => {
                anyhow::bail!("admin_ssl_cert and admin_ssl_cert_key go together")
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Snapshots")]
pub(crate) struct SnapshotSettings {
    /// Events after which a snapshot is cut
    #[arg(long, env = "SLUICE_CP_SNAPSHOT_EVENTS", default_value = "10000", value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub(crate) snapshot_events: u64,
    /// Bytes of changed entities after which a snapshot is cut
    #[arg(long, env = "SLUICE_CP_SNAPSHOT_BYTES", default_value = "67108864", value_parser = clap::value_parser!(u64).range(1..), value_name = "BYTES")]
    pub(crate) snapshot_bytes: u64,
    /// Seconds after which a snapshot is cut if anything has changed since the last
    #[arg(long, env = "SLUICE_CP_SNAPSHOT_AGE", default_value = "3600", value_parser = clap::value_parser!(u64).range(1..), value_name = "SECONDS")]
    pub(crate) snapshot_age: u64,
}

impl SnapshotSettings {
    pub(crate) fn policy(self) -> Policy {
        Policy {
            events: self.snapshot_events,
            bytes: self.snapshot_bytes,
            age: Duration::from_secs(self.snapshot_age),
        }
    }
}
