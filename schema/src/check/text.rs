//! Rules for texts: names, hosts, addresses, paths, headers. Wordings are Kong's.

use crate::field::STRING_BYTES_MAX;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The outcome of a rule; the error is what the client reads.
pub type Verdict = Result<(), String>;

const PORT_ERROR: &str = "invalid port number";

/// A host as it stands in configuration, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// The host.
    pub host: Host,
    /// The port, if there is one.
    pub port: Option<u16>,
}

/// What a host is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    /// A host name.
    Name(String),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6(Ipv6Addr),
}

impl Address {
    /// Parses `name`, `1.2.3.4`, `::1` or `[::1]`, each but the third with an optional `:port`.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn parse(text: &str) -> Result<Self, String> {
        let colons = text.bytes().filter(|byte| *byte == b':').count();
        if colons > 1 {
            return parse_v6(text);
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if is_digits(port) => (host, Some(port)),
            _ => (text, None),
        };
        let host = if host
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
        {
            let address = host
                .parse()
                .map_err(|_| format!("invalid ipv4 address: {text}"))?;
            Host::V4(address)
        } else if is_hostname(host) {
            Host::Name(host.to_owned())
        } else {
            return Err(format!("invalid hostname: {text}"));
        };
        let port = port.map(parse_port).transpose()?;
        Ok(Self { host, port })
    }

    /// `host:port`, with `default_port` if it has none. IPv6 is written in full, in brackets, as Kong stores it.
    pub fn with_port(&self, default_port: u16) -> String {
        let port = self.port.unwrap_or(default_port);
        match &self.host {
            Host::Name(name) => format!("{name}:{port}"),
            Host::V4(address) => format!("{address}:{port}"),
            Host::V6(address) => {
                let groups: Vec<_> = address
                    .segments()
                    .map(|group| format!("{group:04x}"))
                    .into();
                format!("[{}]:{port}", groups.join(":"))
            }
        }
    }
}

fn parse_v6(text: &str) -> Result<Address, String> {
    let error = || format!("invalid ipv6 address: {text}");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(error)?;
            match port.strip_prefix(':') {
                Some(port) if is_digits(port) => (host, Some(parse_port(port)?)),
                None if port.is_empty() => (host, None),
                Some(_) | None => return Err(error()),
            }
        }
        None => (text, None),
    };
    Ok(Address {
        host: Host::V6(host.parse().map_err(|_| error())?),
        port,
    })
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| PORT_ERROR.to_owned())
}

fn is_hostname(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    // One dot may follow the last label (a name from the root).
    let labels = name.strip_suffix('.').unwrap_or(name);
    name.bytes().all(allowed)
        && labels
            .split('.')
            .all(|label| !label.is_empty() && !label.ends_with('-'))
}

/// A host without a port.
pub(crate) fn host(text: &str) -> Verdict {
    match Address::parse(text) {
        Ok(Address { port: None, .. }) => Ok(()),
        Ok(Address { port: Some(_), .. }) => Err("must not have a port".to_owned()),
        Err(error) if error == PORT_ERROR => Err("must not have a port".to_owned()),
        Err(_) => Err(format!("invalid value: {text}")),
    }
}

/// A host with an optional port.
pub(crate) fn host_with_port(text: &str) -> Verdict {
    Address::parse(text).map(|_| ())
}

/// A server name: a host name without a port.
pub(crate) fn server_name(text: &str) -> Verdict {
    host(text)?;
    match Address::parse(text) {
        Ok(Address {
            host: Host::V4(_) | Host::V6(_),
            ..
        }) => Err("must not be an IP".to_owned()),
        Ok(Address {
            host: Host::Name(_),
            ..
        })
        | Err(_) => Ok(()),
    }
}

/// A server name that may begin or end with a `*`.
pub(crate) fn wildcard_server_name(text: &str) -> Verdict {
    match text.find('*') {
        None => server_name(text),
        Some(at) if at != 0 && at + 1 != text.len() => {
            Err("wildcard must be leftmost or rightmost character".to_owned())
        }
        Some(_) if text.bytes().filter(|byte| *byte == b'*').count() > 1 => {
            Err("only one wildcard must be specified".to_owned())
        }
        Some(_) => server_name(&text.replace('*', "wildcard")),
    }
}

/// A host of a route: one `*` as the first or last label, an optional port.
pub(crate) fn wildcard_host(text: &str) -> Verdict {
    let wildcards = text.bytes().filter(|byte| *byte == b'*').count();
    if wildcards > 1 {
        return Err("invalid wildcard: must have at most one wildcard".to_owned());
    }
    if wildcards == 1 && !text.starts_with("*.") && !host_part(text).ends_with(".*") {
        return Err("invalid wildcard: must be placed at leftmost or rightmost label".to_owned());
    }
    Address::parse(&text.replace('*', "abc"))
        .map(|_| ())
        .map_err(|error| match error.as_str() {
            PORT_ERROR => error,
            _ => format!("invalid hostname: {text}"),
        })
}

fn host_part(text: &str) -> &str {
    match text.rsplit_once(':') {
        Some((host, port)) if is_digits(port) => host,
        _ => text,
    }
}

/// The name of an upstream: a host name.
pub(crate) fn upstream_name(text: &str) -> Verdict {
    match Address::parse(text) {
        Err(_) => Err(format!("Invalid name ('{text}'); must be a valid hostname")),
        Ok(Address {
            host: Host::V4(_) | Host::V6(_),
            ..
        }) => Err(format!("Invalid name ('{text}'); no ip addresses allowed")),
        Ok(Address { port: Some(_), .. }) => {
            Err(format!("Invalid name ('{text}'); no port allowed"))
        }
        Ok(Address {
            host: Host::Name(_),
            port: None,
        }) => Ok(()),
    }
}

/// The address of a target.
pub(crate) fn target(text: &str) -> Verdict {
    Address::parse(text)
        .map(|_| ())
        .map_err(|_| format!("Invalid target ('{text}'); not a valid hostname or ip address"))
}

/// An IP address or CIDR block.
pub(crate) fn ip_or_cidr(text: &str) -> Verdict {
    let valid = match text.split_once('/') {
        None => text.parse::<IpAddr>().is_ok(),
        Some((address, bits)) => match (address.parse::<IpAddr>(), bits.parse::<u8>()) {
            (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
            (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
            (Ok(_) | Err(_), _) => false,
        },
    };
    if valid {
        Ok(())
    } else {
        Err(format!("invalid ip or cidr range: '{text}'"))
    }
}

/// A unique name.
pub(crate) fn name(text: &str) -> Verdict {
    let allowed = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || ".-_~".contains(c);
    if text.chars().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "invalid value '{text}': the only accepted ascii characters are alphanumerics or ., -, _, and ~"
    ))
}

/// A tag.
pub(crate) fn tag(text: &str) -> Verdict {
    let allowed = |c: char| !c.is_ascii() || ((' '..='~').contains(&c) && c != ',' && c != '/');
    if text.chars().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "invalid tag '{text}': expected printable ascii (except `,` and `/`) or valid utf-8 sequences"
    ))
}

/// Whether a text stands for a value that a vault holds: `{vault://prefix/name}`. What it refers to is not known here.
pub fn is_vault_reference(text: &str) -> bool {
    text.starts_with("{vault://") && text.ends_with('}') && text.len() <= STRING_BYTES_MAX
}

/// The name of an HTTP header.
pub(crate) fn header_name(text: &str) -> Verdict {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if text.bytes().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "bad header name '{text}', allowed characters are A-Z, a-z, 0-9, '_', and '-'"
    ))
}

/// The name of a header a route matches on.
pub(crate) fn route_header_name(text: &str) -> Verdict {
    if text.eq_ignore_ascii_case("host") {
        return Err(
            "cannot contain 'host' header, which must be specified in the 'hosts' attribute"
                .to_owned(),
        );
    }
    header_name(text)
}

/// The name of a cookie: an HTTP token.
pub(crate) fn cookie_name(text: &str) -> Verdict {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.bytes().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "bad cookie name '{text}', expected an HTTP token (RFC 9110)"
    ))
}

/// Upper-case letters only: a method.
pub(crate) fn is_upper(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&str) -> Verdict, text: &str, expected: &str) {
        let found = rule(text).err().unwrap_or_default();
        assert_eq!(found, expected, "for {text:?}");
    }

    #[test]
    fn hosts_are_names_or_addresses_without_a_port() {
        for valid in [
            "a",
            "a.b-c_d.",
            "1.2.3.4",
            "::1",
            "[::1]",
            "xn--bcher-kva.example",
        ] {
            check(host, valid, "");
        }
        check(host, "a:80", "must not have a port");
        check(host, "a:80000", "must not have a port");
        check(host, "1.2.3", "invalid value: 1.2.3");
        check(host, "a..b", "invalid value: a..b");
        check(host, "a-.b", "invalid value: a-.b");
        check(host, "a b", "invalid value: a b");
        check(server_name, "1.2.3.4", "must not be an IP");
        check(server_name, "a.example", "");
    }

    #[test]
    fn wildcards_stand_at_an_end() {
        for valid in [
            "*.example.com",
            "example.*",
            "example.com:80",
            "example.*:80",
            "a.b",
        ] {
            check(wildcard_host, valid, "");
        }
        let misplaced = "invalid wildcard: must be placed at leftmost or rightmost label";
        check(wildcard_host, "*example.com", misplaced);
        check(wildcard_host, "a.*.com", misplaced);
        check(
            wildcard_host,
            "*.a.*",
            "invalid wildcard: must have at most one wildcard",
        );
        check(wildcard_host, "a.com:1000000", "invalid port number");
        check(wildcard_host, "exa mple", "invalid hostname: exa mple");
        check(wildcard_server_name, "*.example.com", "");
        check(
            wildcard_server_name,
            "a.*.b",
            "wildcard must be leftmost or rightmost character",
        );
        check(
            wildcard_server_name,
            "*.a.*",
            "only one wildcard must be specified",
        );
    }

    #[test]
    fn targets_get_a_port_and_full_ipv6() {
        let normal = |text: &str| Address::parse(text).unwrap().with_port(8000);
        assert_eq!(normal("example.com"), "example.com:8000");
        assert_eq!(normal("1.2.3.4:80"), "1.2.3.4:80");
        assert_eq!(
            normal("[::1]:90"),
            "[0000:0000:0000:0000:0000:0000:0000:0001]:90"
        );
        assert_eq!(
            normal("::1"),
            "[0000:0000:0000:0000:0000:0000:0000:0001]:8000"
        );
        check(
            target,
            "123",
            "Invalid target ('123'); not a valid hostname or ip address",
        );
        check(
            target,
            "a:1.0",
            "Invalid target ('a:1.0'); not a valid hostname or ip address",
        );
        check(
            upstream_name,
            "1.2.3.4",
            "Invalid name ('1.2.3.4'); no ip addresses allowed",
        );
        check(
            upstream_name,
            "a:80",
            "Invalid name ('a:80'); no port allowed",
        );
        check(
            upstream_name,
            "a b",
            "Invalid name ('a b'); must be a valid hostname",
        );
    }

    #[test]
    fn names_tags_and_blocks_are_checked() {
        check(name, "a.b-c_d~é", "");
        check(
            name,
            "a b",
            "invalid value 'a b': the only accepted ascii characters are alphanumerics or ., -, _, and ~",
        );
        check(tag, "a tag", "");
        check(
            tag,
            "a,b",
            "invalid tag 'a,b': expected printable ascii (except `,` and `/`) or valid utf-8 sequences",
        );
        check(ip_or_cidr, "10.0.0.0/8", "");
        check(ip_or_cidr, "::/129", "invalid ip or cidr range: '::/129'");
        check(ip_or_cidr, "a", "invalid ip or cidr range: 'a'");
        check(route_header_name, "x-a", "");
        check(
            route_header_name,
            "Host",
            "cannot contain 'host' header, which must be specified in the 'hosts' attribute",
        );
    }
}
