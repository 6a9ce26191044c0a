//! Settings of the control plane.

use clap::{Args, Parser};
use sluice_replica::node::SyncMode;
use sluice_replica::process::logging::LoggingSettings;
use std::net::SocketAddr;
use std::path::PathBuf;

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
    pub(crate) log: LogSettings,
    #[command(flatten)]
    pub(crate) admin: AdminSettings,
    #[command(flatten)]
    pub(crate) logging: LoggingSettings,
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
    /// NATS servers, separated by commas: nats://[user:password@]host:port
    #[arg(
        long,
        env = "SLUICE_NATS_URL",
        value_delimiter = ',',
        default_value = "nats://127.0.0.1:4222",
        value_name = "URL"
    )]
    pub(crate) nats_url: Vec<String>,
    /// Monitoring addresses of the NATS servers (http://host:8222), separated by commas: the only place that tells whether
    /// acknowledged writes are synced to disk
    #[arg(
        long,
        env = "SLUICE_CP_NATS_MONITOR_URL",
        value_delimiter = ',',
        value_name = "URL"
    )]
    pub(crate) nats_monitor_url: Vec<String>,
    /// Name of the cluster: part of the stream's name and subjects; A-Z a-z 0-9 _ -
    #[arg(
        long,
        env = "SLUICE_CLUSTER",
        default_value = "main",
        value_name = "NAME"
    )]
    pub(crate) cluster: String,
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
    /// Public keys of the control planes to believe: a .pub file or a directory of them [default: the directory of the signing key]
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
    /// Address of the Admin API. It has no authentication yet: keep it on loopback or behind something that has
    #[arg(
        long,
        env = "SLUICE_CP_ADMIN_LISTEN",
        default_value = "127.0.0.1:8001",
        value_name = "ADDRESS"
    )]
    pub(crate) admin_listen: SocketAddr,
    /// Host names by which the Admin API may be called, besides IP addresses and localhost
    #[arg(
        long,
        env = "SLUICE_CP_ADMIN_HOSTS",
        value_delimiter = ',',
        value_name = "NAME"
    )]
    pub(crate) admin_hosts: Vec<String>,
}
