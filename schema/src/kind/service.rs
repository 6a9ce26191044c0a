//! Services: upstream applications.

use super::Reference;
use serde::Deserialize;

/// The fields of a service the data plane uses.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Service {
    /// A unique name.
    pub name: Option<String>,
    /// `http`, `https`, `grpc`, ...
    pub protocol: String,
    /// A host name, an IP address or an upstream's name.
    pub host: String,
    /// 0 to 65535; unused if `host` names an upstream.
    pub port: u16,
    /// Prefix of the upstream path.
    pub path: Option<String>,
    /// Further tries after the first, 0 to 32767.
    pub retries: u16,
    /// Milliseconds.
    pub connect_timeout: u32,
    /// Milliseconds between two writes.
    pub write_timeout: u32,
    /// Milliseconds between two reads.
    pub read_timeout: u32,
    /// Whether requests may use it.
    pub enabled: bool,
    /// The certificate shown to the upstream.
    pub client_certificate: Option<Reference>,
    /// Whether the upstream's certificate is verified.
    pub tls_verify: Option<bool>,
    /// 0 to 64.
    pub tls_verify_depth: Option<u8>,
}
