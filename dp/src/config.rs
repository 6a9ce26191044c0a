//! Settings of the data plane.

use crate::NodeId;
use crate::access_log::{self, Destination, Format, Query};
use crate::proxy::{
    Freshness, Limits, Listen, ListenError, Network, TlsOptions, TlsSettingsError, Trust,
    load_authorities, load_certificate,
};
use clap::{Args, Parser};
use http::HeaderName;
use sluice_replica::node::{Group, SyncMode};
use sluice_replica::process::connection::ConnectionSettings;
use sluice_replica::process::logging::LoggingSettings;
use sluice_replica::process::secrets::SecretsSettings;
use sluice_replica::process::settings::parse_switch;
use sluice_replica::process::traces::TracesSettings;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The prefix of variables only this program reads.
pub const VARIABLE_PREFIX: &str = "SLUICE_DP_";
const DNS_PORT: u16 = 53;
/// The longest that a request is held for a newer configuration.
const MIN_VERSION_WAIT_MS_MAX: u32 = 60_000;

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
    pub(crate) clients: ClientSettings,
    #[command(flatten)]
    pub(crate) access_log: AccessLogSettings,
    #[command(flatten)]
    pub(crate) secrets: SecretsSettings,
    #[command(flatten)]
    pub(crate) logging: LoggingSettings,
    #[command(flatten)]
    pub(crate) traces: TracesSettings,
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
    /// Groups this node belongs to, separated by commas, such as edge-eu: callers can wait for the nodes of one. Up to 16 names of 1 to
    /// 64 of A-Z a-z 0-9 _ -
    #[arg(
        long,
        env = "SLUICE_DP_GROUP",
        value_delimiter = ',',
        value_name = "NAME"
    )]
    pub(crate) group: Vec<Group>,
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
    /// Addresses for tcp, tls and tls_passthrough routes, separated by commas; after each may stand ssl (clients begin with TLS) and backlog=N; or off
    #[arg(
        long,
        env = "SLUICE_DP_STREAM_LISTEN",
        value_delimiter = ',',
        value_parser = parse_stream_listen,
        default_value = "off",
        value_name = "ADDRESS|off"
    )]
    pub(crate) stream_listen: Vec<StreamListen>,
    #[command(flatten)]
    pub(crate) freshness: FreshnessSettings,
    #[command(flatten)]
    pub(crate) tls: TlsSettings,
    /// Address of /status, /status/ready, /metrics and /debug/node/log-level
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

/// What requests may ask about versions of the configuration.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct FreshnessSettings {
    /// Milliseconds for which a request with `Sluice-Min-Version: V` is held while an older version serves, before it is
    /// answered with 503; off does not look at the header
    #[arg(long, env = "SLUICE_DP_MIN_VERSION_WAIT", default_value = "1000", value_parser = parse_wait, value_name = "MILLISECONDS|off")]
    min_version_wait: Wait,
    /// Whether responses name the version of the configuration that served them, as Sluice-Version
    #[arg(long, env = "SLUICE_DP_VERSION_HEADER", default_value = "off", action = clap::ArgAction::Set, value_parser = parse_switch, value_name = "on|off")]
    version_header: bool,
}

/// A time to wait; `None` is `off`.
pub(crate) type Wait = Option<Duration>;

impl FreshnessSettings {
    pub(crate) fn freshness(self) -> Freshness {
        Freshness {
            wait: self.min_version_wait,
            tell: self.version_header,
        }
    }
}

fn parse_wait(text: &str) -> Result<Wait, String> {
    if text == "off" {
        return Ok(None);
    }
    let milliseconds = text.parse::<u32>().ok();
    let milliseconds = milliseconds.filter(|milliseconds| *milliseconds <= MIN_VERSION_WAIT_MS_MAX);
    milliseconds
        .map(|milliseconds| Some(Duration::from_millis(milliseconds.into())))
        .ok_or_else(|| format!("expected milliseconds, up to {MIN_VERSION_WAIT_MS_MAX}, or off"))
}

/// What clients may take, and which of them are believed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Clients")]
pub(crate) struct ClientSettings {
    /// Seconds a client may take for a request's head, and a connection may be idle
    #[arg(long, env = "SLUICE_DP_CLIENT_HEADER_TIMEOUT", default_value = "60", value_parser = parse_positive, value_name = "SECONDS")]
    client_header_timeout: Duration,
    /// Seconds a client may pause within a request's body
    #[arg(long, env = "SLUICE_DP_CLIENT_BODY_TIMEOUT", default_value = "60", value_parser = parse_positive, value_name = "SECONDS")]
    client_body_timeout: Duration,
    /// Bytes per second of a request's body at least, on average over client_body_timeout; 0 asks for none. gRPC is not held to it
    #[arg(
        long,
        env = "SLUICE_DP_CLIENT_BODY_RATE_MIN",
        default_value = "16",
        value_name = "BYTES"
    )]
    client_body_rate_min: u32,
    /// Seconds a client may not read its answer
    #[arg(long, env = "SLUICE_DP_CLIENT_SEND_TIMEOUT", default_value = "60", value_parser = parse_positive, value_name = "SECONDS")]
    client_send_timeout: Duration,
    /// Bytes of a request's head, 8192 to 1048576
    #[arg(long, env = "SLUICE_DP_CLIENT_HEADER_BYTES_MAX", default_value = "32768", value_parser = clap::value_parser!(u32).range(8192..=1_048_576), value_name = "BYTES")]
    client_header_bytes_max: u32,
    /// Headers of a request, 1 to 1000
    #[arg(long, env = "SLUICE_DP_CLIENT_HEADERS_MAX", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    client_headers_max: u32,
    /// Bytes of a request's path and query, 1 to 65534
    #[arg(long, env = "SLUICE_DP_CLIENT_URI_BYTES_MAX", default_value = "16384", value_parser = clap::value_parser!(u32).range(1..=65_534), value_name = "BYTES")]
    client_uri_bytes_max: u32,
    /// Connections of clients per worker
    #[arg(
        long,
        env = "SLUICE_DP_CLIENT_CONNECTIONS_MAX",
        default_value = "16384",
        value_name = "N"
    )]
    client_connections_max: u32,
    /// Connections per client address, of IPv6 per /64 network, on all workers; 0 is no limit
    #[arg(
        long,
        env = "SLUICE_DP_CLIENT_CONNECTIONS_PER_ADDRESS",
        default_value = "0",
        value_name = "N"
    )]
    client_connections_per_address: u32,
    /// Requests at a time on a client's HTTP/2 connection, 1 to 10000
    #[arg(long, env = "SLUICE_DP_HTTP2_STREAMS_MAX", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    http2_streams_max: u32,
    /// Requests that an HTTP/2 connection may take back at once before it is ended; 10 come back per second, and one for two requests
    #[arg(
        long,
        env = "SLUICE_DP_HTTP2_RESETS_MAX",
        default_value = "100",
        value_name = "N"
    )]
    http2_resets_max: u32,
    /// Addresses and networks of proxies in front, separated by commas, that are believed about X-Forwarded-* and the client's address
    #[arg(
        long,
        env = "SLUICE_DP_TRUSTED_IPS",
        value_delimiter = ',',
        value_name = "NETWORK"
    )]
    trusted_ips: Vec<Network>,
    /// Header in which trusted proxies give the client's address: X-Real-IP, X-Forwarded-For or another
    #[arg(
        long,
        env = "SLUICE_DP_REAL_IP_HEADER",
        default_value = "x-real-ip",
        value_name = "NAME"
    )]
    real_ip_header: HeaderName,
    /// Whether trusted addresses in that header are passed over, from the right, to the first that is not trusted
    #[arg(long, env = "SLUICE_DP_REAL_IP_RECURSIVE", default_value = "off", action = clap::ArgAction::Set, value_parser = parse_switch, value_name = "on|off")]
    real_ip_recursive: bool,
}

impl ClientSettings {
    /// What clients may take.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            header_timeout: self.client_header_timeout,
            body_timeout: self.client_body_timeout,
            body_rate_min: self.client_body_rate_min,
            send_timeout: self.client_send_timeout,
            header_bytes_max: self.client_header_bytes_max,
            headers_max: self.client_headers_max,
            uri_bytes_max: self.client_uri_bytes_max,
            connections_max: self.client_connections_max as usize,
            connections_per_address_max: self.client_connections_per_address,
            streams_max: self.http2_streams_max,
            resets_max: self.http2_resets_max,
        }
    }

    /// Which of them are believed.
    pub(crate) fn trust(&self) -> Trust {
        Trust {
            networks: self.trusted_ips.clone(),
            header: self.real_ip_header.clone(),
            recursive: self.real_ip_recursive,
        }
    }
}

/// Settings of the access log.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Access log")]
pub(crate) struct AccessLogSettings {
    /// Where a line for each request goes: off, stdout or a file, which is opened anew at SIGHUP and SIGUSR1
    #[arg(
        long,
        env = "SLUICE_DP_PROXY_ACCESS_LOG",
        default_value = "off",
        value_name = "off|stdout|FILE"
    )]
    pub(crate) proxy_access_log: Destination,
    /// How a line looks
    #[arg(
        long,
        env = "SLUICE_DP_ACCESS_LOG_FORMAT",
        value_enum,
        default_value = "text"
    )]
    access_log_format: Format,
    /// What of a query is written; its values may be credentials, which only `full` writes
    #[arg(
        long,
        env = "SLUICE_DP_ACCESS_LOG_QUERY",
        value_enum,
        default_value = "names"
    )]
    access_log_query: Query,
}

impl AccessLogSettings {
    pub(crate) fn settings(&self) -> access_log::Settings {
        access_log::Settings {
            destination: self.proxy_access_log.clone(),
            format: self.access_log_format,
            query: self.access_log_query,
        }
    }
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
    /// Files with authorities (PEM), separated by commas, that verify upstreams of services with tls_verify and without ca_certificates, and servers that plugins call; `system`
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

/// An address for streams; `None` is `off`.
pub(crate) type StreamListen = Option<Listen>;

fn parse_stream_listen(text: &str) -> Result<StreamListen, String> {
    if text.trim() == "off" {
        return Ok(None);
    }
    let listen: Listen = text
        .parse()
        .map_err(|error: ListenError| error.to_string())?;
    if listen.http2 {
        return Err("`http2` is for proxy_listen: here it says nothing".to_owned());
    }
    Ok(Some(listen))
}

fn parse_positive(text: &str) -> Result<Duration, String> {
    let seconds = parse_seconds(text).ok().filter(|time| !time.is_zero());
    seconds.ok_or_else(|| "expected whole seconds, 1 or more".to_owned())
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
