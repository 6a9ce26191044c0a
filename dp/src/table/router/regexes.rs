//! Regexes of routes. Of one that is not simple, the route keeps only the text; the compiled form (up to 100 KB each) lives
//! in a bounded cache that all versions of the table share.

use super::captures::{self, Captures, Group};
use super::simple::{Outcome, Simple};
use regex::bytes::{Regex, RegexBuilder};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

const SHARDS: usize = 16;
const SHARD_REGEXES_MAX: usize = 64;
/// Bytes of one compiled regex; larger ones are refused when the route is applied.
const REGEX_BYTES_MAX: usize = 1 << 20;
const PATTERN_BYTES_MAX: usize = 8192;

/// A path's regex.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct PathPattern {
    /// Anchored at the start.
    pub(super) anchored: Arc<str>,
    simple: Option<Simple>,
}

/// A match of a path's regex. Its groups are told on demand.
pub(super) struct PathMatch<'a> {
    /// Bytes from the start of the path.
    pub(super) bytes: usize,
    by: By<'a>,
}

enum By<'a> {
    Simple(&'a Simple, Vec<Option<Range<usize>>>),
    Library(Arc<Regex>),
}

impl PathPattern {
    /// As the route has it, without the tilde.
    pub(super) fn written(&self) -> &str {
        let inner = self.anchored.strip_prefix(PATH_START);
        let inner = inner.and_then(|rest| rest.strip_suffix(PATH_END));
        inner.unwrap_or(&self.anchored)
    }

    /// Matches the beginning of a path.
    pub(super) fn find(&self, path: &str, regexes: &Regexes) -> Option<PathMatch<'_>> {
        if let Some(simple) = &self.simple {
            match simple.run(path.as_bytes()) {
                Outcome::Nothing => return None,
                Outcome::Hard => {}
                Outcome::Found(groups) => {
                    let bytes = groups.first().cloned().flatten()?.end;
                    let by = By::Simple(simple, groups);
                    return Some(PathMatch { bytes, by });
                }
            }
        }
        let regex = regexes.find(&self.anchored)?;
        let found = regex.find(path.as_bytes());
        let bytes = found.filter(|found| found.start() == 0)?.end();
        let by = By::Library(regex);
        Some(PathMatch { bytes, by })
    }
}

impl PathMatch<'_> {
    /// The groups, if there are any but the whole.
    pub(super) fn captures(&self, path: &str) -> Option<Captures> {
        match &self.by {
            By::Simple(simple, groups) => {
                let groups = groups.iter().enumerate().filter_map(|(number, range)| {
                    let value = path.get(range.clone()?)?;
                    Some(Group::new(number, simple.name(number), value))
                });
                Captures::of(groups.collect())
            }
            By::Library(regex) if regex.captures_len() > 1 => {
                let groups = regex.captures(path.as_bytes())?;
                Captures::of(captures::groups(regex, &groups).collect())
            }
            By::Library(_) => None,
        }
    }
}

/// The cache of compiled regexes: at most 1024, the recently used ones.
pub(crate) struct Regexes {
    hasher: RandomState,
    shards: [RwLock<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    found: HashMap<Arc<str>, Slot>,
    /// In the order in which they are looked at when one has to go.
    order: std::collections::VecDeque<Arc<str>>,
}

struct Slot {
    regex: Arc<Regex>,
    used: AtomicBool,
}

impl Default for Regexes {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: Default::default(),
        }
    }
}

impl std::fmt::Debug for Regexes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Regexes")
    }
}

impl Regexes {
    /// A path's pattern, if it is valid.
    pub(super) fn check_path(&self, pattern: &str) -> Result<PathPattern, String> {
        if let Some(simple) = Simple::parse(pattern) {
            return Ok(PathPattern {
                anchored: path_pattern(pattern).into(),
                simple: Some(simple),
            });
        }
        if !is_balanced(pattern) {
            return Err(format!("regex `{pattern}` has unbalanced brackets"));
        }
        Ok(PathPattern {
            anchored: self.check(&path_pattern(pattern))?,
            simple: None,
        })
    }

    /// The pattern, if it compiles.
    pub(super) fn check(&self, pattern: &str) -> Result<Arc<str>, String> {
        let shard = self
            .shard(pattern)
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((known, _)) = shard.found.get_key_value(pattern) {
            return Ok(Arc::clone(known));
        }
        drop(shard);
        compile(pattern).map(|_| pattern.into())
    }

    /// The compiled form of a pattern that was checked before.
    pub(super) fn find(&self, pattern: &Arc<str>) -> Option<Arc<Regex>> {
        let shard = self.shard(pattern);
        if let Some(slot) = shard
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .found
            .get(pattern)
        {
            if !slot.used.load(Ordering::Relaxed) {
                slot.used.store(true, Ordering::Relaxed);
            }
            return Some(Arc::clone(&slot.regex));
        }
        let regex = Arc::new(compile(pattern).ok()?);
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        shard.keep(Arc::clone(pattern), Arc::clone(&regex));
        Some(regex)
    }

    fn shard(&self, pattern: &str) -> &RwLock<Shard> {
        let hash = usize::try_from(self.hasher.hash_one(pattern) >> 48).unwrap_or_default();
        &self.shards[hash % SHARDS]
    }
}

impl Shard {
    fn keep(&mut self, pattern: Arc<str>, regex: Arc<Regex>) {
        while self.found.len() >= SHARD_REGEXES_MAX {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            let used = self
                .found
                .get(&oldest)
                .is_some_and(|slot| slot.used.swap(false, Ordering::Relaxed));
            if used {
                self.order.push_back(oldest);
            } else {
                self.found.remove(&oldest);
            }
        }
        let slot = Slot {
            regex,
            used: AtomicBool::new(false),
        };
        if self.found.insert(Arc::clone(&pattern), slot).is_none() {
            self.order.push_back(pattern);
        }
    }
}

/// Canonical paths are ASCII, so a regex need not know Unicode, which makes it smaller and quicker; one that asks
/// for it (`\p{...}`, a class of non-ASCII characters) gets it.
fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("regex is longer than {PATTERN_BYTES_MAX} bytes"));
    }
    let build = |unicode| {
        RegexBuilder::new(pattern)
            .unicode(unicode)
            .size_limit(REGEX_BYTES_MAX)
            .dfa_size_limit(REGEX_BYTES_MAX)
            .build()
    };
    build(false)
        .or_else(|_| build(true))
        .map_err(|error| format!("regex does not compile: {error}"))
}

const PATH_START: &str = "^(?:";
const PATH_END: &str = ")";

/// Anchored at the start as a whole, so that no alternative can match further on.
fn path_pattern(pattern: &str) -> String {
    format!("{PATH_START}{pattern}{PATH_END}")
}

/// Header values are compared without regard to case.
pub(super) fn header_pattern(pattern: &str) -> String {
    format!("(?i){pattern}")
}

/// Text that every match of an anchored pattern begins with; may be shorter than it could be.
pub(super) fn literal_prefix(anchored: &str) -> String {
    let pattern = anchored
        .strip_prefix(PATH_START)
        .and_then(|rest| rest.strip_suffix(PATH_END));
    literal_prefix_of(pattern.unwrap_or_default())
}

/// The same, of a pattern that stands behind an anchor.
pub(super) fn literal_prefix_of(pattern: &str) -> String {
    let mut prefix = String::new();
    if has_alternatives(pattern) {
        return prefix;
    }
    let mut bytes = pattern.bytes();
    while let Some(byte) = bytes.next() {
        let literal = match byte {
            b'*' | b'?' | b'{' => {
                prefix.pop();
                break;
            }
            b'\\' => bytes.next().filter(|byte| is_escaped_literal(*byte)),
            b'/' | b'-' | b'_' | b'~' | b'%' | b'!' | b'&' | b'\'' | b',' | b';' | b':' | b'='
            | b'@' => Some(byte),
            _ => Some(byte).filter(u8::is_ascii_alphanumeric),
        };
        match literal {
            Some(byte) => prefix.push(char::from(byte)),
            None => break,
        }
    }
    prefix
}

/// `\<` and `\>` are assertions; escaped letters and digits are classes, assertions or characters.
fn is_escaped_literal(byte: u8) -> bool {
    byte.is_ascii_punctuation() && byte != b'<' && byte != b'>'
}

/// Whether a pattern has alternatives outside groups, or says something that makes this hard to tell.
fn has_alternatives(pattern: &str) -> bool {
    scan(pattern).is_none_or(|found| found.alternatives || found.flags)
}

fn is_balanced(pattern: &str) -> bool {
    scan(pattern).is_some_and(|found| found.flags || found.balanced)
}

#[derive(Default)]
struct Scan {
    alternatives: bool,
    flags: bool,
    balanced: bool,
}

/// Looks at the brackets of a pattern; `None` if one closes that was not open.
fn scan(pattern: &str) -> Option<Scan> {
    let bytes = pattern.as_bytes();
    let mut found = Scan::default();
    let mut groups = 0u32;
    let mut classes = 0u32;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'\\' => at += 1,
            b'[' => {
                classes += 1;
                // A bracket that closes right after one that opens (or after its `^`) is a literal.
                at += usize::from(bytes.get(at) == Some(&b'^'));
                at += usize::from(bytes.get(at) == Some(&b']'));
            }
            b']' if classes > 0 => classes -= 1,
            _ if classes > 0 => {}
            b'(' => {
                groups += 1;
                let rest = &bytes[at..];
                let named = [&b"?:"[..], b"?<", b"?P<"]
                    .iter()
                    .any(|known| rest.starts_with(known));
                found.flags |= rest.starts_with(b"?") && !named;
            }
            b')' => groups = groups.checked_sub(1)?,
            b'|' => found.alternatives |= groups == 0,
            _ => {}
        }
    }
    found.balanced = groups == 0 && classes == 0;
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pattern: &str, expected: &str) {
        assert_eq!(
            literal_prefix(&path_pattern(pattern)),
            expected,
            "{pattern}"
        );
    }

    #[test]
    fn literal_prefixes_are_found() {
        check(r"/users/\d+/profile", "/users/");
        check(r"/a\.b(c|d)", "/a.b");
        check("/ab?", "/a");
        check("/ab*", "/a");
        check("/ab{2}", "/a");
        check("/ab+", "/ab");
        check("/a|/b", "");
        check("/a[|]b", "/a");
        check("/a[]|]b", "/a");
        check("(?i)/a", "");
        check("/a(?x) # ( \n | b", "");
        check(r"/a\<", "/a");
        check("/é", "/");
    }

    #[test]
    fn patterns_cannot_escape_their_anchor() {
        let regexes = Regexes::default();
        assert!(regexes.check_path("/a)|(?:/b").is_err());
        assert!(regexes.check_path("/(a").is_err());
        assert!(regexes.check_path("/a|/b").is_ok());
        let pattern = regexes.check_path("/a|/b").unwrap();
        assert!(pattern.find("/x/b", &regexes).is_none());
        let pattern = regexes.check_path("(?:/a|/b)+").unwrap();
        assert!(pattern.find("/x/b", &regexes).is_none());
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let regexes = Regexes::default();
        let hot = regexes.check("/hot").unwrap();
        let first = regexes.find(&hot).unwrap();
        for index in 0..SHARDS * SHARD_REGEXES_MAX * 3 {
            regexes
                .find(&regexes.check(&format!("/{index}")).unwrap())
                .unwrap();
            regexes.find(&hot).unwrap();
        }
        let kept: usize = regexes
            .shards
            .iter()
            .map(|shard| shard.read().unwrap().found.len())
            .sum();
        assert!(kept <= SHARDS * SHARD_REGEXES_MAX);
        assert!(Arc::ptr_eq(&first, &regexes.find(&hot).unwrap()));
    }

    proptest! {
        #[test]
        fn every_match_begins_with_the_literal_prefix(
            pattern in r"([a-c]|[()|?*+.\[\]^]|\\d|\\\.|\(\?:|\{2\}){0,8}",
            text in "[a-c.1]{0,8}",
        ) {
            let regexes = Regexes::default();
            if let Ok(checked) = regexes.check_path(&pattern)
                && checked.find(&text, &regexes).is_some()
            {
                prop_assert!(text.starts_with(&literal_prefix(&checked.anchored)));
            }
        }
    }
}
