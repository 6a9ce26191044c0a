//! What clients may take: time, bytes, connections.

use std::time::Duration;

/// The limits of clients. Of those counted per worker, a node allows as many times more as it has workers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a client may take for a request's head, and how long a connection may be idle.
    pub header_timeout: Duration,
    /// How long a client may pause within a request's body.
    pub body_timeout: Duration,
    /// Bytes per second of a request's body, on average over each `body_timeout`; 0 asks for none. gRPC is not held to it: its streams
    /// may be silent.
    pub body_rate_min: u32,
    /// How long a client may not read its answer.
    pub send_timeout: Duration,
    /// Bytes of a request's head.
    pub header_bytes_max: u32,
    /// Headers of a request.
    pub headers_max: u32,
    /// Bytes of a request's target; at most 65,534.
    pub uri_bytes_max: u32,
    /// Connections per worker.
    pub connections_max: usize,
    /// Connections per address (of IPv6: per /64 network) on all workers; 0 is no limit.
    pub connections_per_address_max: u32,
    /// Requests at a time on an HTTP/2 connection.
    pub streams_max: u32,
    /// Requests that an HTTP/2 connection may take back at once; 10 come back per second, and one for two requests.
    pub resets_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            body_rate_min: 16,
            send_timeout: Duration::from_secs(60),
            header_bytes_max: 32 * 1024,
            headers_max: 100,
            uri_bytes_max: 16 * 1024,
            connections_max: 16_384,
            connections_per_address_max: 0,
            streams_max: 100,
            resets_max: 100,
        }
    }
}
