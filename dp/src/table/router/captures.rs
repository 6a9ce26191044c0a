//! The groups of regexes that matched, for plugins.

use crate::table::path::decode_capture;
use regex::bytes::Regex;

/// The groups of a route's regexes in a request, percent-decoded but for reserved and control characters.
#[derive(Clone, Debug)]
pub struct Captures(Box<[Group]>);

/// One group that took part in a match.
#[derive(Clone, Debug)]
pub(super) struct Group {
    number: usize,
    name: Option<Box<str>>,
    value: Box<str>,
}

impl Group {
    /// A group as it stands in the path.
    pub(super) fn new(number: usize, name: Option<&str>, value: &str) -> Self {
        Self {
            number,
            name: name.map(Into::into),
            value: decode_capture(value).into(),
        }
    }
}

impl Captures {
    /// `None` unless there is more than whole matches.
    pub(super) fn of(groups: Vec<Group>) -> Option<Self> {
        let some = groups.iter().any(|group| group.number > 0);
        some.then(|| Self(groups.into()))
    }

    /// The group with this number; 0 is the whole match.
    pub fn numbered(&self, number: usize) -> Option<&str> {
        let group = self.0.iter().rfind(|group| group.number == number)?;
        Some(&group.value)
    }

    /// The group with this name.
    pub fn named(&self, name: &str) -> Option<&str> {
        let named = |group: &&Group| group.name.as_deref() == Some(name);
        Some(&self.0.iter().rfind(named)?.value)
    }

    /// All groups that took part in the match: number, name, value. If several regexes matched, numbers and names may
    /// come again; the last counts.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Option<&str>, &str)> {
        self.0
            .iter()
            .map(|group| (group.number, group.name.as_deref(), &*group.value))
    }
}

/// The groups of one match.
pub(super) fn groups(
    regex: &Regex,
    found: &regex::bytes::Captures<'_>,
) -> impl Iterator<Item = Group> {
    let values = regex.capture_names().zip(found.iter()).enumerate();
    values.filter_map(|(number, (name, value))| {
        let value = std::str::from_utf8(value?.as_bytes()).ok()?;
        Some(Group::new(number, name, value))
    })
}
