//! Compiled services, consumers and credentials: only what requests need.

use sluice_schema::entity::Workspace;
use sluice_schema::kind;
use sluice_schema::version::Version;
use std::time::Duration;
use uuid::Uuid;

/// The protocol spoken to a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// HTTP/1.1 in clear.
    Http,
    /// HTTP over TLS.
    Https,
    /// gRPC in clear.
    Grpc,
    /// gRPC over TLS.
    Grpcs,
    /// WebSocket in clear.
    Ws,
    /// WebSocket over TLS.
    Wss,
    /// A raw stream.
    Tcp,
    /// A raw stream over TLS.
    Tls,
    /// TLS relayed as it is.
    TlsPassthrough,
    /// Datagrams.
    Udp,
}

impl Protocol {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "http" => Self::Http,
            "https" => Self::Https,
            "grpc" => Self::Grpc,
            "grpcs" => Self::Grpcs,
            "ws" => Self::Ws,
            "wss" => Self::Wss,
            "tcp" => Self::Tcp,
            "tls" => Self::Tls,
            "tls_passthrough" => Self::TlsPassthrough,
            "udp" => Self::Udp,
            _ => return None,
        })
    }

    /// As services have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Grpc => "grpc",
            Self::Grpcs => "grpcs",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::TlsPassthrough => "tls_passthrough",
            Self::Udp => "udp",
        }
    }

    /// Whether requests are sent over it; the others are for raw streams.
    pub(crate) fn is_http(self) -> bool {
        match self {
            Self::Http | Self::Https | Self::Grpc | Self::Grpcs | Self::Ws | Self::Wss => true,
            Self::Tcp | Self::Tls | Self::TlsPassthrough | Self::Udp => false,
        }
    }

    /// Whether it is spoken over TLS.
    pub fn is_tls(self) -> bool {
        match self {
            Self::Https | Self::Grpcs | Self::Wss | Self::Tls => true,
            Self::Http | Self::Grpc | Self::Ws | Self::Tcp | Self::TlsPassthrough | Self::Udp => {
                false
            }
        }
    }
}

/// An upstream application.
#[derive(Clone, PartialEq, Debug)]
pub struct Service {
    /// The entity.
    pub id: Uuid,
    /// The event that last wrote it.
    pub version: Version,
    /// Its workspace.
    pub workspace: Workspace,
    /// Its name, for logs.
    pub name: Option<Box<str>>,
    /// What to speak.
    pub protocol: Protocol,
    /// A host name, an IP address or an upstream's name.
    pub host: Box<str>,
    /// Unused if `host` names an upstream.
    pub port: u16,
    /// Prefix of the upstream path.
    pub path: Option<Box<str>>,
    /// Further tries after the first.
    pub retries: u16,
    /// To connect.
    pub connect_timeout: Duration,
    /// Between two writes.
    pub write_timeout: Duration,
    /// Between two reads.
    pub read_timeout: Duration,
    /// Whether requests may use it.
    pub enabled: bool,
    /// The certificate shown to the upstream.
    pub client_certificate: Option<Uuid>,
    /// Whether the upstream's certificate is verified; `None` leaves it to the node.
    pub tls_verify: Option<bool>,
    /// Longest chain accepted: certificates between the upstream's and an authority's.
    pub tls_verify_depth: Option<u8>,
    /// The authorities to verify with; `None` leaves it to the node.
    pub ca_certificates: Option<Box<[Uuid]>>,
}

impl Service {
    pub(super) fn compile(origin: Origin<'_>, fields: kind::Service) -> Result<Self, String> {
        let protocol = Protocol::parse(&fields.protocol)
            .ok_or_else(|| format!("protocol `{}` is not known", fields.protocol))?;
        let ids = fields.ca_certificates.map(|texts| {
            let ids = texts.iter().map(|text| Uuid::try_parse(text));
            ids.collect::<Result<Box<[_]>, _>>()
        });
        let ca_certificates = ids
            .transpose()
            .map_err(|error| format!("an id of ca_certificates is not a UUID: {error}"))?;
        let milliseconds = |count: u32| Duration::from_millis(u64::from(count));
        Ok(Self {
            id: origin.id,
            version: origin.version,
            workspace: origin.workspace.clone(),
            name: fields.name.map(Into::into),
            protocol,
            host: fields.host.into(),
            port: fields.port,
            path: fields.path.map(Into::into),
            retries: fields.retries,
            connect_timeout: milliseconds(fields.connect_timeout),
            write_timeout: milliseconds(fields.write_timeout),
            read_timeout: milliseconds(fields.read_timeout),
            enabled: fields.enabled,
            client_certificate: fields.client_certificate.map(|certificate| certificate.id),
            tls_verify: fields.tls_verify,
            tls_verify_depth: fields.tls_verify_depth,
            ca_certificates,
        })
    }
}

/// A user of services.
#[derive(Clone, PartialEq, Debug)]
pub struct Consumer {
    /// The entity.
    pub id: Uuid,
    /// The event that last wrote it.
    pub version: Version,
    /// Its workspace.
    pub workspace: Workspace,
    /// A unique name.
    pub username: Option<String>,
    /// A unique id of the caller's own system.
    pub custom_id: Option<String>,
}

impl Consumer {
    pub(super) fn compile(origin: Origin<'_>, fields: kind::Consumer) -> Self {
        Self {
            id: origin.id,
            version: origin.version,
            workspace: origin.workspace.clone(),
            username: fields.username,
            custom_id: fields.custom_id,
        }
    }
}

/// Where an entity comes from: what is not in its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    pub(super) id: Uuid,
    pub(super) version: Version,
    pub(super) workspace: &'a Workspace,
}
