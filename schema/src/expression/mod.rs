//! The language of route expressions, as Kong's `expressions` flavor has it.
//!
//! A predicate compares a field of a request with a value: `http.path ^= "/a"`. Predicates are joined by `&&`, `||`
//! and `!( )`. **`||` binds tighter than `&&`**, as in Kong: `a && b || c` is `a && (b || c)`. What is parsed is also
//! typed: an [`Expression`] can be evaluated without asking again.

mod read;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

/// Parses and types an expression. Its regexes compile.
///
/// # Errors
/// With the first thing that is wrong, and where.
pub fn parse(text: &str, subsystem: Subsystem) -> Result<Expression, ExpressionError> {
    read::expression(text, subsystem)
}

/// Which fields an expression may name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subsystem {
    /// All.
    Http,
    /// Those of a connection.
    Stream,
}

impl Subsystem {
    /// Of a route with these protocols; the first decides.
    pub fn of<'a>(protocols: impl IntoIterator<Item = &'a str>) -> Self {
        match protocols.into_iter().next() {
            Some("tcp" | "tls" | "udp" | "tls_passthrough") => Self::Stream,
            Some(_) | None => Self::Http,
        }
    }
}

/// A condition on a request.
#[derive(Clone, PartialEq, Debug)]
pub enum Expression {
    /// All of these hold; two at least.
    All(Vec<Self>),
    /// One of these holds; two at least.
    Any(Vec<Self>),
    /// It does not hold.
    Not(Box<Self>),
    /// A comparison.
    Is(Predicate),
}

/// One comparison. It does not hold for a field without a value, whatever the test.
#[derive(Clone, PartialEq, Debug)]
pub enum Predicate {
    /// Of texts.
    Text {
        /// What is compared.
        field: TextField,
        /// Whether it is put in lower case before.
        lower: bool,
        /// Whether one value that passes is enough; otherwise all must.
        any: bool,
        /// How.
        test: TextTest,
        /// With what.
        value: String,
    },
    /// Of numbers.
    Number {
        /// What is compared.
        field: NumberField,
        /// How.
        test: NumberTest,
        /// With what.
        value: i64,
    },
    /// Of an address.
    Address {
        /// Whose.
        end: End,
        /// With what.
        test: AddressTest,
    },
}

/// A field that holds text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TextField {
    /// `net.protocol`
    Protocol,
    /// `tls.sni`
    Sni,
    /// `http.method`
    Method,
    /// `http.host`
    Host,
    /// `http.path`
    Path,
    /// `http.path.segments.<first>` and `.<first>_<last>`: segments of the path, from 0, joined by slashes.
    Segments {
        /// The first.
        first: usize,
        /// The last.
        last: usize,
    },
    /// `http.headers.<name>`: in lower case, with underscores for dashes. May have several values.
    Header(String),
    /// `http.queries.<name>`. May have several values.
    Query(String),
}

/// A field that holds a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NumberField {
    /// `http.path.segments.len`
    SegmentCount,
    /// `net.src.port`, `net.dst.port`
    Port(End),
}

/// An end of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The client.
    Source,
    /// Where it connected to.
    Destination,
}

/// How texts are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TextTest {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `~`: the regex matches somewhere.
    Regex,
    /// `^=`
    Prefix,
    /// `=^`
    Suffix,
    /// `contains`
    Contains,
}

/// How numbers are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NumberTest {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl NumberTest {
    /// Whether `one` passes when compared with `two`.
    pub fn passes(self, one: i64, two: i64) -> bool {
        match self {
            Self::Equal => one == two,
            Self::NotEqual => one != two,
            Self::Less => one < two,
            Self::LessOrEqual => one <= two,
            Self::Greater => one > two,
            Self::GreaterOrEqual => one >= two,
        }
    }
}

/// What an address is compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressTest {
    /// `==`
    Equal(IpAddr),
    /// `!=`
    NotEqual(IpAddr),
    /// `in`
    In(Block),
    /// `not in`
    NotIn(Block),
}

impl AddressTest {
    /// Whether an address passes.
    pub fn passes(self, address: IpAddr) -> bool {
        match self {
            Self::Equal(other) => address == other,
            Self::NotEqual(other) => address != other,
            Self::In(block) => block.holds(address),
            Self::NotIn(block) => !block.holds(address),
        }
    }
}

/// A CIDR block. The bits behind its length do not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    address: IpAddr,
    bits: u8,
}

impl Block {
    /// A block of this length in bits; `None` if addresses are shorter.
    pub fn new(address: IpAddr, bits: u8) -> Option<Self> {
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        (bits <= bits_max).then_some(Self { address, bits })
    }

    /// Parses `<address>/<bits>`, or an address alone.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(whole), |bits| bits.parse().ok())?;
        Self::new(address, bits)
    }

    /// Whether an address lies in it. One of the other family does not.
    pub fn holds(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(block), IpAddr::V4(address)) => {
                let rest = 32 - u32::from(self.bits);
                u32::from(block).checked_shr(rest) == u32::from(address).checked_shr(rest)
            }
            (IpAddr::V6(block), IpAddr::V6(address)) => {
                let rest = 128 - u32::from(self.bits);
                u128::from(block).checked_shr(rest) == u128::from(address).checked_shr(rest)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether it is its own first address, with nothing behind its length.
    fn is_network(self) -> bool {
        match self.address {
            IpAddr::V4(address) => u32::from(address).trailing_zeros() >= 32 - u32::from(self.bits),
            IpAddr::V6(address) => {
                u128::from(address).trailing_zeros() >= 128 - u32::from(self.bits)
            }
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.address.is_ipv4() { 32 } else { 128 };
        match self.bits == whole {
            true => self.address.fmt(f),
            false => write!(f, "{}/{}", self.address, self.bits),
        }
    }
}

/// What is wrong with an expression. Shown as Kong shows it: the line, with a mark below.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct ExpressionError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub reason: String,
    /// The line itself.
    text: String,
}

impl ExpressionError {
    /// With the byte of `source` where it is.
    fn new(source: &str, at: usize, reason: impl Into<String>) -> Self {
        let before = source.get(..at).unwrap_or(source);
        let begin = before.rfind('\n').map_or(0, |newline| newline + 1);
        let text = source[begin..].lines().next().unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: before[begin..].chars().count() + 1,
            reason: reason.into(),
            text: text.to_owned(),
        }
    }
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = (self.line, self.column);
        let margin = line.to_string().len();
        let mark = column - 1;
        writeln!(f, "{:margin$}--> {line}:{column}", "")?;
        writeln!(f, "{:margin$} |", "")?;
        writeln!(f, "{line} | {}", self.text)?;
        writeln!(f, "{:margin$} | {:mark$}^---", "", "")?;
        writeln!(f, "{:margin$} |", "")?;
        write!(f, "{:margin$} = {}", "", self.reason)
    }
}
