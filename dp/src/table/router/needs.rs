//! What a request must have for an expression to hold: where a route with an expression is filed.
//!
//! This need not be exact. What is filed too widely is evaluated more often; what is filed at all places where it can
//! hold is always found.

use super::condition::{Compare, Condition, TextCondition};
use super::criteria::{HOST_BYTES_MAX, Host, METHOD_ANY, METHOD_OTHER, method_bit};
use super::regexes;
use sluice_schema::expression::TextField;

/// Most alternatives that are told apart.
const ALTERNATIVES_MAX: usize = 256;

/// Each is one of several alternatives; `None` if anything will do.
#[derive(Debug)]
pub(super) struct Needs {
    pub(super) hosts: Option<Vec<Host>>,
    pub(super) snis: Option<Vec<Host>>,
    /// Beginnings of the path.
    pub(super) prefixes: Option<Vec<Box<str>>>,
    pub(super) methods: u16,
}

impl Needs {
    pub(super) fn of(condition: &Condition) -> Self {
        match condition {
            Condition::All(parts) => {
                let each = parts.iter().map(Self::of);
                each.reduce(Self::and).unwrap_or_else(Self::nothing)
            }
            Condition::Any(parts) => {
                let each = parts.iter().map(Self::of);
                each.reduce(Self::or).unwrap_or_else(Self::nothing)
            }
            Condition::Text(text) => Self::of_text(text),
            Condition::Not(_) | Condition::Number { .. } | Condition::Address { .. } => {
                Self::nothing()
            }
        }
    }

    fn nothing() -> Self {
        Self {
            hosts: None,
            snis: None,
            prefixes: None,
            methods: METHOD_ANY,
        }
    }

    fn and(self, other: Self) -> Self {
        let prefixes = |prefixes: &Vec<Box<str>>| {
            prefixes
                .iter()
                .map(|prefix| usize::MAX - prefix.len())
                .max()
        };
        let wildcards = |hosts: &Vec<Host>| {
            let exact = |host: &Host| matches!(host, Host::Exact(_));
            hosts.iter().position(|host| !exact(host)).is_some()
        };
        Self {
            hosts: narrower(self.hosts, other.hosts, wildcards),
            snis: narrower(self.snis, other.snis, wildcards),
            prefixes: narrower(self.prefixes, other.prefixes, prefixes),
            methods: self.methods & other.methods,
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            hosts: both(self.hosts, other.hosts),
            snis: both(self.snis, other.snis),
            prefixes: both(self.prefixes, other.prefixes),
            methods: self.methods | other.methods,
        }
    }

    fn of_text(text: &TextCondition) -> Self {
        let mut needs = Self::nothing();
        match &text.field {
            TextField::Host => needs.hosts = name(&text.test).map(|host| vec![host]),
            TextField::Sni => needs.snis = name(&text.test).map(|sni| vec![sni]),
            TextField::Path if !text.lower => needs.prefixes = prefix(&text.test),
            TextField::Segments { first: 0, .. } if !text.lower => {
                let beginning = match &text.test {
                    Compare::Equal(text) | Compare::Prefix(text) => Some(text),
                    Compare::NotEqual(_)
                    | Compare::Suffix(_)
                    | Compare::Contains(_)
                    | Compare::Regex(_) => None,
                };
                needs.prefixes = beginning.map(|text| vec![format!("/{text}").into()]);
            }
            TextField::Method if !text.lower => {
                if let Compare::Equal(method) = &text.test {
                    needs.methods = method_bit(method);
                }
            }
            TextField::Protocol
            | TextField::Path
            | TextField::Method
            | TextField::Segments { .. }
            | TextField::Header(_)
            | TextField::Query(_) => {}
        }
        needs
    }
}

/// The form in which names are filed: exact, or with a wildcard in place of whole labels.
fn name(test: &Compare) -> Option<Host> {
    let usable = |text: &&str| !text.is_empty() && text.len() <= HOST_BYTES_MAX;
    match test {
        Compare::Equal(text) => Some(&**text)
            .filter(usable)
            .map(|text| Host::Exact(text.into())),
        Compare::Suffix(text) => Some(&**text)
            .filter(usable)
            .filter(|text| text.starts_with('.'))
            .map(|text| Host::Suffix(text.into())),
        Compare::Prefix(text) => Some(&**text)
            .filter(usable)
            .filter(|text| text.ends_with('.'))
            .map(|text| Host::Prefix(text.into())),
        Compare::NotEqual(_) | Compare::Contains(_) | Compare::Regex(_) => None,
    }
}

fn prefix(test: &Compare) -> Option<Vec<Box<str>>> {
    let prefix = match test {
        Compare::Equal(text) | Compare::Prefix(text) => text.clone(),
        Compare::Regex(pattern) => {
            let anchored = pattern.strip_prefix('^')?;
            regexes::literal_prefix_of(anchored).into()
        }
        Compare::NotEqual(_) | Compare::Suffix(_) | Compare::Contains(_) => return None,
    };
    (!prefix.is_empty()).then(|| vec![prefix])
}

/// The shorter list; of two as long, the one with the lower `rank`.
fn narrower<T, R: Ord>(
    one: Option<Vec<T>>,
    two: Option<Vec<T>>,
    rank: impl Fn(&Vec<T>) -> R,
) -> Option<Vec<T>> {
    match (one, two) {
        (Some(one), Some(two)) => {
            let second = (two.len(), rank(&two)) < (one.len(), rank(&one));
            Some(if second { two } else { one })
        }
        (one, two) => one.or(two),
    }
}

fn both<T: Ord>(one: Option<Vec<T>>, two: Option<Vec<T>>) -> Option<Vec<T>> {
    let (mut all, more) = (one?, two?);
    all.extend(more);
    all.sort_unstable();
    all.dedup();
    (all.len() <= ALTERNATIVES_MAX).then_some(all)
}

// Methods without a bit of their own share one, so that masks can be joined as sets can.
const _: () = assert!(METHOD_ANY & METHOD_OTHER != 0);
