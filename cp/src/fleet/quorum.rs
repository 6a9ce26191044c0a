//! How many nodes a caller waits for.

use std::fmt;
use std::str::FromStr;

const HUNDRED: u64 = 100;

/// How many nodes a caller waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Quorum {
    /// So many of a hundred live nodes, rounded up: 1 to 100. All of them if it is 100.
    Percent(u8),
    /// So many nodes, 1 or more, whether or not there are that many now.
    Count(u32),
}

impl Quorum {
    /// All live nodes.
    pub const ALL: Self = Self::Percent(100);
    /// Before all others in order.
    pub(super) const LEAST: Self = Self::Percent(0);

    /// How many nodes that is, if `live` are there. Never none: nobody has confirmed anything where nobody is.
    pub fn needed(self, live: usize) -> usize {
        match self {
            Self::Percent(percent) => {
                let part = (live as u64 * u64::from(percent)).div_ceil(HUNDRED);
                usize::try_from(part).unwrap_or(usize::MAX).max(1)
            }
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
        }
    }

    /// Whether it takes knowing every live node to tell that it is reached.
    pub fn is_a_share(self) -> bool {
        match self {
            Self::Percent(_) => true,
            Self::Count(_) => false,
        }
    }
}

/// What is no quorum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected all, a percentage from 1% to 100%, or a number of nodes")]
pub struct NotAQuorum;

impl FromStr for Quorum {
    type Err = NotAQuorum;

    /// Reads `all`, `80%` or `3`.
    fn from_str(text: &str) -> Result<Self, NotAQuorum> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("all") {
            return Ok(Self::ALL);
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.parse().ok().filter(|p| (1..=100).contains(p));
            return percent.map(Self::Percent).ok_or(NotAQuorum);
        }
        let count = text.parse().ok().filter(|count| *count > 0);
        count.map(Self::Count).ok_or(NotAQuorum)
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(100) => f.write_str("all"),
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_all_a_percentage_or_a_number_and_never_nobody() {
        let needed = |text: &str, live| text.parse::<Quorum>().map(|quorum| quorum.needed(live));
        let cases = [
            ("all", 3, Ok(3)),
            ("ALL", 0, Ok(1)),
            ("100%", 7, Ok(7)),
            ("50%", 3, Ok(2)),
            ("1%", 1000, Ok(10)),
            ("1%", 5, Ok(1)),
            (" 2 ", 1, Ok(2)),
            ("0", 3, Err(NotAQuorum)),
            ("0%", 3, Err(NotAQuorum)),
            ("101%", 3, Err(NotAQuorum)),
            ("-1", 3, Err(NotAQuorum)),
            ("most", 3, Err(NotAQuorum)),
            ("", 3, Err(NotAQuorum)),
        ];
        for (text, live, expected) in cases {
            assert_eq!(needed(text, live), expected, "{text} of {live}");
        }
        for text in ["all", "80%", "12"] {
            assert_eq!(text.parse::<Quorum>().unwrap().to_string(), text);
        }
    }
}
