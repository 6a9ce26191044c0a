//! Short texts that come again and again, each kept once.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Texts by number. Past a limit of bytes new ones are not kept.
#[derive(Debug)]
pub(super) struct Texts {
    numbers: BTreeMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
    bytes: usize,
    bytes_max: usize,
}

/// A text by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Text(u32);

impl Text {
    /// There is none.
    pub(super) const NONE: Self = Self(u32::MAX);
    /// There is one, which is not kept here.
    pub(super) const ELSEWHERE: Self = Self(u32::MAX - 1);
}

impl Texts {
    /// None yet, and never more than about `bytes_max` bytes of them.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            numbers: BTreeMap::new(),
            texts: Vec::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Keeps a text.
    pub(super) fn add(&mut self, text: &str) -> Text {
        if let Some(number) = self.numbers.get(text) {
            return Text(*number);
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        if self.bytes + text.len() > self.bytes_max || number >= Text::ELSEWHERE.0 {
            return Text::ELSEWHERE;
        }
        let kept: Arc<str> = text.into();
        self.bytes += kept.len();
        self.numbers.insert(kept.clone(), number);
        self.texts.push(kept);
        Text(number)
    }

    /// The number of a text that is kept.
    pub(super) fn find(&self, text: &str) -> Option<Text> {
        self.numbers.get(text).copied().map(Text)
    }

    /// The text, if it is kept here.
    pub(super) fn get(&self, text: Text) -> Option<&Arc<str>> {
        self.texts.get(text.0 as usize)
    }

    /// Whether some are not kept.
    pub(super) fn is_full(&self) -> bool {
        self.bytes + FULL_MARGIN > self.bytes_max
    }

    /// The texts that hold, by number.
    pub(super) fn matching(&self, holds: impl Fn(&str) -> bool) -> Vec<bool> {
        self.texts.iter().map(|text| holds(text)).collect()
    }

    /// Whether `text` is among those that [`Texts::matching`] has found; one that is elsewhere may be.
    pub(super) fn is_among(matching: &[bool], text: Text) -> bool {
        match text {
            Text::NONE => false,
            Text::ELSEWHERE => true,
            Text(number) => matching.get(number as usize).copied().unwrap_or(false),
        }
    }
}

/// The longest text that events hold is 1 KiB.
const FULL_MARGIN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_once_and_not_beyond_the_limit() {
        let mut texts = Texts::new(8);
        let ann = texts.add("ann");
        assert_eq!(texts.add("ann"), ann);
        assert_eq!(texts.find("ann"), Some(ann));
        let bob = texts.add("bob");
        assert_ne!(ann, bob);
        assert_eq!(texts.add("carla"), Text::ELSEWHERE);
        assert_eq!(texts.get(bob).map(|text| &**text), Some("bob"));
        assert_eq!(texts.get(Text::ELSEWHERE), None);
        let matching = texts.matching(|text| text.contains('n'));
        let among =
            [ann, bob, Text::ELSEWHERE, Text::NONE].map(|text| Texts::is_among(&matching, text));
        assert_eq!(among, [true, false, true, false]);
    }
}
