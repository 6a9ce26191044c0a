//! A place in a distributed trace, as W3C's `traceparent` says it.
//!
//! It is decoration: nothing is decided by it, and what cannot be read is as if it were not there.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// The name of a trace; never all zeros.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId([u8; 16]);

/// The name of a span within a trace; never all zeros.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId([u8; 8]);

/// A span of a trace, for spans that are to be its children.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

/// The bit of the flags that says a trace is recorded.
const SAMPLED: u8 = 1;
/// The length of what version 0 has; later ones may add to it.
const TEXT_BYTES: usize = 55;

impl TraceId {
    /// `None` for zeros, which stand for no trace.
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }
}

impl SpanId {
    /// `None` for zeros, which stand for no span.
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }
}

impl TraceContext {
    /// Reads the value of a `traceparent`; `None` for what is none.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let dashes = [2, 35, 52];
        if bytes.len() < TEXT_BYTES || dashes.iter().any(|at| bytes[*at] != b'-') {
            return None;
        }
        let [version] = hex(&bytes[..2])?;
        let fits = match version {
            0 => bytes.len() == TEXT_BYTES,
            0xff => false,
            _ => bytes.get(TEXT_BYTES).is_none_or(|next| *next == b'-'),
        };
        let [flags] = hex(&bytes[53..TEXT_BYTES])?;
        fits.then_some(Self {
            trace: TraceId::new(hex(&bytes[3..35])?)?,
            span: SpanId::new(hex(&bytes[36..52])?)?,
            sampled: flags & SAMPLED != 0,
        })
    }
}

/// The bytes that lowercase digits stand for, two for each.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// 32 hexadecimal digits.
impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// 16 hexadecimal digits.
impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The value of a `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = if self.sampled { SAMPLED } else { 0 };
        write!(f, "00-{}-{}-{flags:02x}", self.trace, self.span)
    }
}

/// How an event carries it: as text, or not at all.
pub(crate) fn serialize<S: Serializer>(
    context: &Option<TraceContext>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    context
        .map(|context| context.to_string())
        .serialize(serializer)
}

/// See [`serialize`]. A text that is no `traceparent` does not make an event unreadable.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<TraceContext>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| TraceContext::parse(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn check(text: &str, expected: Option<&str>) {
        let shown = TraceContext::parse(text).map(|context| context.to_string());
        assert_eq!(shown.as_deref(), expected, "{text}");
    }

    #[test]
    fn a_traceparent_is_read_and_written_as_w3c_says() {
        let plain = format!("00-{TRACE}-{SPAN}-01");
        check(&plain, Some(&plain));
        let unsampled = format!("00-{TRACE}-{SPAN}-00");
        check(&unsampled, Some(&unsampled));
        // Flags nobody knows, and versions to come.
        check(&format!("00-{TRACE}-{SPAN}-03"), Some(&plain));
        check(&format!("cc-{TRACE}-{SPAN}-01"), Some(&plain));
        check(&format!("cc-{TRACE}-{SPAN}-01-what-comes"), Some(&plain));
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        let zeros = "0".repeat(32);
        let upper = TRACE.to_uppercase();
        for text in [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("cc-{TRACE}-{SPAN}-01.more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("00_{TRACE}_{SPAN}_01"),
            format!("00-{TRACE}-{}ü-01", &SPAN[..14]),
        ] {
            check(&text, None);
        }
    }

    proptest! {
        #[test]
        fn every_context_survives_its_own_text(trace in 1_u128.., span in 1_u64.., sampled: bool) {
            let context = TraceContext {
                trace: TraceId::new(trace.to_be_bytes()).unwrap(),
                span: SpanId::new(span.to_be_bytes()).unwrap(),
                sampled,
            };
            prop_assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _ = TraceContext::parse(&text);
        }
    }
}
