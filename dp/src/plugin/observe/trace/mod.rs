//! What `opentelemetry` and `zipkin` have in common: the trace a request belongs to, and the headers that say so.

mod extract;
mod format;
mod inject;

pub(super) use format::{Format, Propagation, PropagationFields};

use rand::Rng;

/// A trace's id. Some formats have only half of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TraceId {
    pub(super) value: u128,
    /// It has 64 bits, and is written so where the format allows it.
    pub(super) short: bool,
}

/// A span's id.
pub(super) type SpanId = u64;

/// What a request says of the trace it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Incoming {
    pub(super) trace: Option<TraceId>,
    pub(super) span: Option<SpanId>,
    /// The span above that one.
    pub(super) parent: Option<SpanId>,
    /// Whether the trace is recorded; `None` if that is left to us.
    pub(super) sampled: Option<bool>,
}

/// A span of ours that goes upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outgoing {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) sampled: bool,
}

impl TraceId {
    /// A new one of this many bytes, 8 or 16.
    pub(super) fn new(bytes: u8) -> Self {
        let mut dice = rand::rng();
        if bytes == 8 {
            return Self {
                value: u128::from(span_id()),
                short: true,
            };
        }
        Self {
            value: dice.random_range(1..=u128::MAX),
            short: false,
        }
    }

    /// The lower half.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the upper half is left out"
    )]
    pub(super) fn low(self) -> u64 {
        self.value as u64
    }

    /// As many hex digits as it has.
    pub(super) fn hex(self) -> String {
        if self.short {
            format!("{:016x}", self.value)
        } else {
            self.long_hex()
        }
    }

    /// 32 hex digits.
    pub(super) fn long_hex(self) -> String {
        format!("{:032x}", self.value)
    }

    /// An id of at most 32 hex digits that is not zero.
    fn parse(text: &str) -> Option<Self> {
        let value = hex(text, 32)?;
        Some(Self {
            value,
            short: text.len() <= 16,
        })
    }
}

/// A new id.
pub(super) fn span_id() -> SpanId {
    rand::rng().random_range(1..=u64::MAX)
}

/// Up to so many hex digits that are not all zero.
fn hex(text: &str, digits_max: usize) -> Option<u128> {
    let fits =
        (1..=digits_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let value = u128::from_str_radix(text, 16).ok().filter(|_| fits);
    value.filter(|value| *value != 0)
}

fn span_hex(text: &str) -> Option<SpanId> {
    u64::try_from(hex(text, 16)?).ok()
}

/// The decision of a trace for a request: the client's, or by chance.
pub(super) fn sampled(incoming: &Incoming, rate: f64) -> bool {
    incoming
        .sampled
        .unwrap_or_else(|| rand::random::<f64>() < rate)
}

#[cfg(test)]
mod tests;
