//! Settings of the data plane.

use clap::{Args, Parser};
use sluice_replica::node::SyncMode;
use sluice_replica::process::logging::LoggingSettings;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The prefix of variables only this program reads.
pub const VARIABLE_PREFIX: &str = "SLUICE_DP_";

/// Sluice's data plane: follows the configuration log and proxies traffic by it.
///
/// It serves its last good configuration whatever happens to the log. Settings come from flags, SLUICE_* variables and
/// a TOML file, in that order of strength; the file's keys are the flags' names with _ in place of -.
#[derive(Clone, Debug, Parser)]
#[command(name = "sluice-dp", version)]
pub struct Settings {
    /// TOML file with settings
    #[arg(long, env = "SLUICE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) log: LogSettings,
    #[command(flatten)]
    pub(crate) proxy: ProxySettings,
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
    /// Name of the cluster: part of the stream's name and subjects; A-Z a-z 0-9 _ -
    #[arg(
        long,
        env = "SLUICE_CLUSTER",
        default_value = "main",
        value_name = "NAME"
    )]
    pub(crate) cluster: String,
    /// Directory of the local store
    #[arg(
        long,
        env = "SLUICE_DP_DATA_DIR",
        default_value = ".sluice/dp",
        value_name = "DIR"
    )]
    pub(crate) data_dir: PathBuf,
    /// Public keys of the control planes to believe: a .pub file or a directory of them. `sluice keys show` prints them
    #[arg(long, env = "SLUICE_TRUSTED_KEYS", value_name = "PATH")]
    pub(crate) trusted_keys: PathBuf,
    /// Whether each change is taken up alone (on) or the whole configuration is reloaded on each change (off)
    #[arg(
        long,
        env = "SLUICE_INCREMENTAL_SYNC",
        default_value = "on",
        value_name = "on|off"
    )]
    pub(crate) incremental_sync: SyncMode,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Proxy")]
pub(crate) struct ProxySettings {
    /// Addresses of the proxy, separated by commas
    #[arg(
        long,
        env = "SLUICE_DP_PROXY_LISTEN",
        value_delimiter = ',',
        default_value = "0.0.0.0:8000",
        value_name = "ADDRESS"
    )]
    pub(crate) proxy_listen: Vec<SocketAddr>,
    /// Address of /status, /status/ready and /metrics
    #[arg(
        long,
        env = "SLUICE_DP_STATUS_LISTEN",
        default_value = "127.0.0.1:8007",
        value_name = "ADDRESS"
    )]
    pub(crate) status_listen: SocketAddr,
    /// Proxy threads, 1 to 1024 [default: one per CPU]
    #[arg(long, env = "SLUICE_DP_WORKERS", value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    pub(crate) workers: Option<u16>,
    /// Seconds that open requests may take after SIGTERM
    #[arg(long, env = "SLUICE_DP_DRAIN_TIMEOUT", default_value = "30", value_parser = parse_seconds, value_name = "SECONDS")]
    pub(crate) drain_timeout: Duration,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse::<u32>()
        .map_err(|_| "expected whole seconds, 0 or more".to_owned())?;
    Ok(Duration::from_secs(seconds.into()))
}
