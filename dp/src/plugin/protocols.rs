//! Sets of protocols.

/// A set of protocols.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Protocols(u16);

impl Protocols {
    /// Plain HTTP.
    pub const HTTP: Self = Self(1);
    /// HTTP over TLS.
    pub const HTTPS: Self = Self(1 << 1);
    /// gRPC.
    pub const GRPC: Self = Self(1 << 2);
    /// gRPC over TLS.
    pub const GRPCS: Self = Self(1 << 3);
    /// gRPC in clear or over TLS.
    pub const GRPC_ANY: Self = Self(Self::GRPC.0 | Self::GRPCS.0);
    /// A raw stream.
    pub const TCP: Self = Self(1 << 4);
    /// A stream over TLS.
    pub const TLS: Self = Self(1 << 5);
    /// Datagrams.
    pub const UDP: Self = Self(1 << 6);
    /// TLS relayed as it is.
    pub const TLS_PASSTHROUGH: Self = Self(1 << 7);
    /// WebSocket.
    pub const WS: Self = Self(1 << 8);
    /// WebSocket over TLS.
    pub const WSS: Self = Self(1 << 9);
    /// All that come as HTTP requests.
    pub const REQUESTS: Self =
        Self(Self::HTTP.0 | Self::HTTPS.0 | Self::GRPC_ANY.0 | Self::WS.0 | Self::WSS.0);

    /// The set of these names; names this build does not know are left out.
    pub fn parse(names: &[String]) -> Self {
        let known = [
            "http",
            "https",
            "grpc",
            "grpcs",
            "tcp",
            "tls",
            "udp",
            "tls_passthrough",
            "ws",
            "wss",
        ];
        let bit = |name: &String| known.iter().position(|known| known == name);
        Self(
            names
                .iter()
                .filter_map(bit)
                .fold(0, |set, bit| set | 1 << bit),
        )
    }

    /// Whether all of `other` are in this set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is in this set.
    pub fn overlap(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}
