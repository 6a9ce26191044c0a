//! Where the proxy listens, and what it speaks there.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

const BACKLOG_DEFAULT: i32 = 4096;

/// One address to listen on, in Kong's notation: `0.0.0.0:8443 ssl http2`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listen {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Whether clients speak TLS.
    pub ssl: bool,
    /// Whether clients may speak HTTP/2: by ALPN on TLS, else by beginning with it.
    pub http2: bool,
    /// Connections the system holds until a worker accepts them.
    pub backlog: i32,
}

/// What is wrong with an address to listen on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ListenError {
    /// The address.
    #[error("`{0}` is not an address with a port, such as 0.0.0.0:8000 or [::]:8000")]
    Address(String),
    /// A word after it.
    #[error(
        "`{0}` is not known after an address: use ssl, http2, reuseport, deferred, bind or backlog=NUMBER"
    )]
    Flag(String),
    /// A flag of Kong's that is not here.
    #[error("`{0}` is not supported by this proxy: leave it out")]
    Unsupported(String),
    /// The number of `backlog=`.
    #[error("`{0}` is not a backlog of 1 to 2147483647")]
    Backlog(String),
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            ssl: false,
            http2: false,
            backlog: BACKLOG_DEFAULT,
        }
    }
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let mut words = text.split_whitespace();
        let address = words.next().unwrap_or_default();
        let parsed: SocketAddr = address
            .parse()
            .map_err(|_| ListenError::Address(address.to_owned()))?;
        let mut listen = Self::from(parsed);
        for word in words {
            match word {
                "ssl" => listen.ssl = true,
                "http2" => listen.http2 = true,
                // The port is always shared by the workers, bound to its address, and its queue is short-lived.
                "reuseport" | "bind" | "deferred" => {}
                "proxy_protocol" | "udp" => return Err(ListenError::Unsupported(word.to_owned())),
                _ => match word.strip_prefix("backlog=") {
                    Some(number) => {
                        let backlog = number.parse().ok().filter(|backlog| *backlog > 0);
                        listen.backlog =
                            backlog.ok_or_else(|| ListenError::Backlog(number.to_owned()))?;
                    }
                    None => return Err(ListenError::Flag(word.to_owned())),
                },
            }
        }
        Ok(listen)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        f.write_str(if self.ssl { " ssl" } else { "" })?;
        f.write_str(if self.http2 { " http2" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_in_kong() {
        let check = |text: &str, expected: Result<(bool, bool, i32), &str>| {
            let parsed = text.parse::<Listen>();
            let parsed = parsed.map(|listen| (listen.ssl, listen.http2, listen.backlog));
            assert_eq!(
                parsed.map_err(|error| error.to_string()),
                expected.map_err(str::to_owned)
            );
        };
        check("127.0.0.1:8000", Ok((false, false, BACKLOG_DEFAULT)));
        check(
            " [::]:8443 http2 ssl reuseport backlog=16384",
            Ok((true, true, 16_384)),
        );
        check("0.0.0.0:8000 http2", Ok((false, true, BACKLOG_DEFAULT)));
        let error = "`a:1` is not an address with a port, such as 0.0.0.0:8000 or [::]:8000";
        check("a:1 ssl", Err(error));
        let error = "`proxy_protocol` is not supported by this proxy: leave it out";
        check("0.0.0.0:1 proxy_protocol", Err(error));
        check(
            "0.0.0.0:1 backlog=0",
            Err("`0` is not a backlog of 1 to 2147483647"),
        );
        assert!("0.0.0.0:1 tls".parse::<Listen>().is_err());
    }
}
