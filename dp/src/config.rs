//! Settings of the data plane.

use crate::NodeId;
use crate::proxy::{Listen, TlsOptions, TlsSettingsError, load_authorities, load_certificate};
use clap::{Args, Parser};
use sluice_replica::node::SyncMode;
use sluice_replica::process::connection::ConnectionSettings;
use sluice_replica::process::logging::LoggingSettings;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The prefix of variables only this program reads.
pub const VARIABLE_PREFIX: &str = "SLUICE_DP_";
const DNS_PORT: u16 = 53;

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
    pub(crate) connection: ConnectionSettings,
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
    /// Directory of the local store
    #[arg(
        long,
        env = "SLUICE_DP_DATA_DIR",
        default_value = ".sluice/dp",
        value_name = "DIR"
    )]
    pub(crate) data_dir: PathBuf,
    /// Id of this node, part of the subject it reports on: 1 to 64 of A-Z a-z 0-9 _ - [default: made at the first start, and
    /// kept in the data directory]
    #[arg(long, env = "SLUICE_DP_NODE_ID", value_name = "ID")]
    pub(crate) node_id: Option<NodeId>,
    /// Public keys to believe, of roots or control planes: a .pub file or a directory of them, also with a keyring. `sluice keys show` prints them
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
    /// Addresses of the proxy, separated by commas; after each may stand ssl, http2 and backlog=N, as in Kong
    #[arg(
        long,
        env = "SLUICE_DP_PROXY_LISTEN",
        value_delimiter = ',',
        default_value = "0.0.0.0:8000, 0.0.0.0:8443 http2 ssl",
        value_name = "ADDRESS"
    )]
    pub(crate) proxy_listen: Vec<Listen>,
    #[command(flatten)]
    pub(crate) tls: TlsSettings,
    /// Address of /status, /status/ready and /metrics
    #[arg(
        long,
        env = "SLUICE_DP_STATUS_LISTEN",
        default_value = "127.0.0.1:8007",
        value_name = "ADDRESS"
    )]
    pub(crate) status_listen: SocketAddr,
    /// DNS servers (address:port, port 53 if not said), separated by commas [default: those of /etc/resolv.conf]
    #[arg(
        long,
        env = "SLUICE_DP_DNS_RESOLVER",
        value_delimiter = ',',
        value_parser = parse_server,
        value_name = "ADDRESS"
    )]
    pub(crate) dns_resolver: Vec<SocketAddr>,
    /// Proxy threads, 1 to 1024 [default: one per CPU]
    #[arg(long, env = "SLUICE_DP_WORKERS", value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    pub(crate) workers: Option<u16>,
    /// Seconds that open requests may take after SIGTERM
    #[arg(long, env = "SLUICE_DP_DRAIN_TIMEOUT", default_value = "30", value_parser = parse_seconds, value_name = "SECONDS")]
    pub(crate) drain_timeout: Duration,
}

/// Settings of TLS.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsSettings {
    /// Files with certificate chains (PEM), separated by commas, for clients that ask for no server name the configuration knows: one, or one
    /// for each kind of key [default: a self-signed one, made at each start]
    #[arg(
        long,
        env = "SLUICE_DP_SSL_CERT",
        value_delimiter = ',',
        requires = "ssl_cert_key",
        value_name = "FILE"
    )]
    pub(crate) ssl_cert: Vec<PathBuf>,
    /// Files with the private keys (PEM) of ssl_cert, in the same order
    #[arg(
        long,
        env = "SLUICE_DP_SSL_CERT_KEY",
        value_delimiter = ',',
        requires = "ssl_cert",
        value_name = "FILE"
    )]
    pub(crate) ssl_cert_key: Vec<PathBuf>,
    /// Files with authorities (PEM), separated by commas, that verify upstreams of services with tls_verify and without ca_certificates; `system`
    /// stands for those of the system
    #[arg(
        long,
        env = "SLUICE_DP_TRUSTED_CERTIFICATE",
        value_delimiter = ',',
        default_value = "system",
        value_name = "FILE"
    )]
    pub(crate) trusted_certificate: Vec<PathBuf>,
    /// Seconds a client may take for its TLS handshake
    #[arg(long, env = "SLUICE_DP_TLS_HANDSHAKE_TIMEOUT", default_value = "10", value_parser = parse_seconds, value_name = "SECONDS")]
    pub(crate) tls_handshake_timeout: Duration,
}

impl TlsSettings {
    /// Reads the files.
    pub(crate) fn load(&self) -> Result<TlsOptions, TlsSettingsError> {
        Ok(TlsOptions {
            default_certificate: load_certificate(&self.ssl_cert, &self.ssl_cert_key)?,
            trusted: load_authorities(&self.trusted_certificate)?,
            handshake_timeout: self.tls_handshake_timeout,
        })
    }
}

fn parse_server(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let alone = text
        .parse::<IpAddr>()
        .map(|ip| SocketAddr::new(ip, DNS_PORT));
    let address = text.parse().or(alone);
    address.map_err(|_| "expected an IP address, with or without a port".to_owned())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse::<u32>()
        .map_err(|_| "expected whole seconds, 0 or more".to_owned())?;
    Ok(Duration::from_secs(seconds.into()))
}
