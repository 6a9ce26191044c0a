//! Who a request is from, where proxies that are trusted say so; nobody else is believed.

use super::peer::Peer;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// A network, such as `10.0.0.0/8`; an address alone is one of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// What is not a network.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is not an address or a network, such as 10.0.0.0/8 or ::/0")]
pub struct NetworkError(String);

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let error = || NetworkError(text.to_owned());
        let (address, bits) = match text.trim().split_once('/') {
            None => (text.trim(), None),
            Some((address, bits)) => (address, Some(bits)),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| error()))?;
        if bits > most {
            return Err(error());
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Network {
    /// Whether an address is in it.
    pub fn contains(self, address: IpAddr) -> bool {
        let shift = |width: u32| width - u32::from(self.bits);
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differs = u32::from(own) ^ u32::from(other);
                differs.checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differs = u128::from(own) ^ u128::from(other);
                differs.checked_shr(shift(128)).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Which peers are believed, and where they say who the client is.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The peers.
    pub networks: Vec<Network>,
    /// The header with the client's address.
    pub header: HeaderName,
    /// Whether trusted addresses in that header are passed over, from the right, to the first that is not.
    pub recursive: bool,
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            networks: Vec::new(),
            header: REAL_IP,
            recursive: false,
        }
    }
}

impl Trust {
    /// Whether a peer is believed.
    pub(super) fn covers(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks
            .iter()
            .any(|network| network.contains(address))
    }

    /// The client's address as a trusted peer tells it.
    fn address(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let values = headers.get_all(&self.header).iter();
        let texts = values.filter_map(|value| value.to_str().ok());
        let items: Vec<&str> = texts.flat_map(|text| text.split(',')).collect();
        let mut last = None;
        for item in items.iter().rev() {
            // What stands further left was said by somebody else.
            let Some(address) = parse(item) else { break };
            last = Some(address);
            if !self.recursive || !self.covers(address) {
                break;
            }
        }
        last
    }
}

/// An address, perhaps with a port.
fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare.parse().ok();
    let address = address.or_else(|| Some(text.parse::<std::net::SocketAddr>().ok()?.ip()));
    address.map(|address| address.to_canonical())
}

/// The client of a request.
pub(super) struct Client {
    pub(super) address: IpAddr,
    /// Its address as a header value, where it is not the peer's.
    pub(super) text: Option<HeaderValue>,
    /// Whether it came by TLS, to us or to who is believed.
    pub(super) tls: bool,
    /// Whether what the request says of how it came is believed.
    pub(super) trusted: bool,
}

impl Client {
    pub(super) fn of(peer: &Peer, headers: &HeaderMap, trust: &Trust) -> Self {
        let direct = Self {
            address: peer.address(),
            text: None,
            tls: peer.tls,
            trusted: peer.trusted,
        };
        if !peer.trusted {
            return direct;
        }
        let address = trust.address(headers);
        let scheme = headers.get(FORWARDED_PROTO);
        Self {
            address: address.unwrap_or(direct.address),
            text: address.and_then(|address| HeaderValue::try_from(address.to_string()).ok()),
            tls: scheme.map_or(peer.tls, |scheme| {
                scheme.as_bytes().eq_ignore_ascii_case(b"https")
            }),
            trusted: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(networks: &[&str], header: &'static str, recursive: bool) -> Trust {
        Trust {
            networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
            header: HeaderName::from_static(header),
            recursive,
        }
    }

    #[test]
    fn networks_are_what_they_say() {
        let check = |network: &str, address: &str, expected| {
            let found = trust(&[network], "x-real-ip", false).covers(address.parse().unwrap());
            assert_eq!(found, expected, "{network} {address}");
        };
        check("10.0.0.0/8", "10.9.9.9", true);
        check("10.0.0.0/8", "11.0.0.0", false);
        check("10.1.2.3", "10.1.2.3", true);
        check("10.1.2.3", "10.1.2.2", false);
        check("0.0.0.0/0", "::ffff:1.2.3.4", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "2001::1", true);
        check("2001:db8::/32", "2001:db9::1", false);
        for bad in [
            "",
            "a",
            "1.2.3.4/33",
            "::/129",
            "1.2.3.4/",
            "1.2.3/8",
            "1.2.3.4/-1",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_client_is_who_the_last_one_believed_names() {
        let check = |trust: Trust, lines: &[&'static str], expected: Option<&str>| {
            let value =
                |line: &&'static str| (trust.header.clone(), HeaderValue::from_static(line));
            let headers: HeaderMap = lines.iter().map(value).collect();
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(trust.address(&headers), expected, "{lines:?}");
        };
        let once = || trust(&["10.0.0.0/8"], "x-forwarded-for", false);
        let all = || trust(&["10.0.0.0/8"], "x-forwarded-for", true);
        check(once(), &["1.1.1.1, 2.2.2.2"], Some("2.2.2.2"));
        check(once(), &["1.1.1.1, 10.0.0.1"], Some("10.0.0.1"));
        check(
            all(),
            &["6.6.6.6, 1.1.1.1, 10.0.0.2", "10.0.0.1"],
            Some("1.1.1.1"),
        );
        check(all(), &["10.0.0.2, 10.0.0.1"], Some("10.0.0.2"));
        check(all(), &["6.6.6.6, unknown, 10.0.0.1"], Some("10.0.0.1"));
        check(all(), &["[2001::1]:80, 10.0.0.1:4000"], Some("2001::1"));
        check(all(), &["nonsense"], None);
        check(all(), &[], None);
    }
}
