//! Regexes that are simple enough to be matched without the library.
//!
//! A compiled regex of the library takes up to 100 KB, so that of tens of thousands only a few can be kept, and 100 us to
//! make again. Nearly all regexes of routes are sequences of characters, classes with a repetition, and groups; such a
//! one is a program of some dozens of bytes here, kept with its route. What is not understood is left to the library.
//!
//! Semantics: those of the library without Unicode, anchored at the start. Of several ways to match, the first by the
//! order in which a backtracking matcher tries them.

use std::ops::Range;

/// Bytes of a pattern; longer ones are left to the library.
const PATTERN_BYTES_MAX: usize = 512;
const STEPS_MAX: usize = 256;
/// The most a counted repetition may ask for.
const COUNT_MAX: u16 = 1000;
/// Groups within groups.
const DEPTH_MAX: u32 = 16;
/// What one match may take, in steps and bytes looked at, before it is left to the library, which takes linear time.
const FUEL: u32 = 20_000;

/// A program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Simple {
    steps: Box<[Step]>,
    /// Of each group, from 1 on.
    names: Box<[Option<Box<str>>]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Text(Box<[u8]>),
    Many {
        class: Class,
        min: u16,
        max: Option<u16>,
        greedy: bool,
    },
    /// First one way, then the other.
    Either(u16, u16),
    Go(u16),
    /// A bound of a group: twice its number, and one more at its end.
    Bound(u16),
    Start,
    End,
}

/// A set of bytes, by bits.
type Bits = [u64; 4];

/// A set of bytes. Nearly all are the well-known ones.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Class {
    Known(&'static Bits),
    Own(Box<Bits>),
}

static DIGIT: Bits = bits_of(b"09");
static NOT_DIGIT: Bits = inverted(bits_of(b"09"));
static WORD: Bits = bits_of(b"azAZ09__");
static NOT_WORD: Bits = inverted(bits_of(b"azAZ09__"));
static SPACE: Bits = bits_of(b"\t\r  ");
static NOT_SPACE: Bits = inverted(bits_of(b"\t\r  "));
static NOT_NEWLINE: Bits = inverted(bits_of(b"\n\n"));
static NOT_SLASH: Bits = inverted(bits_of(b"//"));
const KNOWN: [&Bits; 8] = [
    &DIGIT,
    &NOT_DIGIT,
    &WORD,
    &NOT_WORD,
    &SPACE,
    &NOT_SPACE,
    &NOT_NEWLINE,
    &NOT_SLASH,
];

/// The set of ranges, each given by its first and its last byte.
const fn bits_of(ranges: &[u8]) -> Bits {
    let mut bits = [0; 4];
    let mut at = 0;
    while at + 1 < ranges.len() {
        let mut byte = ranges[at];
        while byte <= ranges[at + 1] {
            bits[(byte >> 6) as usize] |= 1 << (byte & 63);
            byte += 1;
        }
        at += 2;
    }
    bits
}

const fn inverted(bits: Bits) -> Bits {
    [!bits[0], !bits[1], !bits[2], !bits[3]]
}

/// What a match came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The bytes of each group, 0 being the whole.
    Found(Vec<Option<Range<usize>>>),
    Nothing,
    /// Too many ways to try.
    Hard,
}

impl Simple {
    /// The program of a pattern; `None` if it is not simple, which says nothing about whether it is valid.
    pub(super) fn parse(pattern: &str) -> Option<Self> {
        if !pattern.is_ascii() || pattern.len() > PATTERN_BYTES_MAX {
            return None;
        }
        let mut parser = Parser {
            rest: pattern.as_bytes(),
            steps: Vec::new(),
            names: Vec::new(),
            depth: 0,
            joinable: false,
        };
        parser.alternatives()?;
        (parser.rest.is_empty() && parser.steps.len() <= STEPS_MAX).then(|| Self {
            steps: parser.steps.into(),
            names: parser.names.into(),
        })
    }

    /// The name of a group, if it has one.
    pub(super) fn name(&self, group: usize) -> Option<&str> {
        self.names.get(group.checked_sub(1)?)?.as_deref()
    }

    /// Matches the beginning of `text`.
    pub(super) fn run(&self, text: &[u8]) -> Outcome {
        let mut run = Run {
            text,
            bounds: vec![None; 2 * self.names.len() + 2],
            back: Vec::new(),
            fuel: FUEL,
        };
        run.bounds[0] = Some(0);
        let (mut step, mut at) = (0, 0);
        loop {
            let Some(fuel) = run.fuel.checked_sub(1) else {
                return Outcome::Hard;
            };
            run.fuel = fuel;
            let next = match self.steps.get(step) {
                None => {
                    run.bounds[1] = Some(at);
                    return Outcome::Found(run.groups());
                }
                Some(known) => run.take(known, step, at),
            };
            match next.or_else(|| run.turn_back()) {
                Some(next) => (step, at) = next,
                None => return Outcome::Nothing,
            }
        }
    }
}

struct Run<'a> {
    text: &'a [u8],
    bounds: Vec<Option<usize>>,
    back: Vec<Back<'a>>,
    fuel: u32,
}

/// Another way, to be tried if the one taken leads nowhere.
enum Back<'a> {
    /// Go on there.
    To(usize, usize),
    /// A repetition that ended at the last of these goes on at the one before.
    Shorter(usize, Range<usize>),
    /// One that ended there takes one byte more, up to a limit.
    Longer(usize, Range<usize>, &'a Bits),
    /// This bound was there.
    Bound(usize, Option<usize>),
}

impl<'a> Run<'a> {
    /// The step and place after this one, if it fits.
    fn take(&mut self, known: &'a Step, step: usize, at: usize) -> Option<(usize, usize)> {
        let next = step + 1;
        match known {
            Step::Text(text) => {
                let fits = self.text[at..].starts_with(text);
                fits.then_some((next, at + text.len()))
            }
            Step::Many {
                class,
                min,
                max,
                greedy,
            } => {
                let counts = (usize::from(*min), max.map_or(usize::MAX, usize::from));
                self.repeat(class.bits(), counts, *greedy, (next, at))
            }
            Step::Either(first, second) => {
                self.back.push(Back::To(usize::from(*second), at));
                Some((usize::from(*first), at))
            }
            Step::Go(to) => Some((usize::from(*to), at)),
            Step::Bound(number) => {
                let number = usize::from(*number);
                let was = self.bounds[number].replace(at);
                self.back.push(Back::Bound(number, was));
                Some((next, at))
            }
            Step::Start => (at == 0).then_some((next, at)),
            Step::End => (at == self.text.len()).then_some((next, at)),
        }
    }

    fn repeat(
        &mut self,
        class: &'a Bits,
        (min, most): (usize, usize),
        greedy: bool,
        (next, at): (usize, usize),
    ) -> Option<(usize, usize)> {
        let rest = &self.text[at..];
        let wanted = if greedy { most } else { min };
        let fitting = rest.iter().take(wanted);
        let count = fitting.take_while(|byte| holds(class, **byte)).count();
        self.fuel = self
            .fuel
            .saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        if count < min {
            return None;
        }
        let end = at + count;
        if greedy {
            if count > min {
                self.back.push(Back::Shorter(next, at + min..end));
            }
        } else {
            let limit = at.saturating_add(most).min(self.text.len());
            self.back.push(Back::Longer(next, end..limit, class));
        }
        Some((next, end))
    }

    fn turn_back(&mut self) -> Option<(usize, usize)> {
        loop {
            match self.back.pop()? {
                Back::To(step, at) => return Some((step, at)),
                Back::Bound(number, was) => self.bounds[number] = was,
                Back::Shorter(step, ends) => {
                    let end = ends.end - 1;
                    if end > ends.start {
                        self.back.push(Back::Shorter(step, ends.start..end));
                    }
                    return Some((step, end));
                }
                Back::Longer(step, ends, class) => {
                    let at = ends.start;
                    if at < ends.end && holds(class, self.text[at]) {
                        self.back.push(Back::Longer(step, at + 1..ends.end, class));
                        return Some((step, at + 1));
                    }
                }
            }
        }
    }

    fn groups(&self) -> Vec<Option<Range<usize>>> {
        let pairs = self.bounds.chunks(2);
        pairs
            .map(|pair| match pair {
                [Some(start), Some(end)] => Some(*start..*end),
                _ => None,
            })
            .collect()
    }
}

impl Class {
    fn of(bits: Bits) -> Self {
        let known = KNOWN.into_iter().find(|known| **known == bits);
        known.map_or_else(|| Self::Own(Box::new(bits)), Self::Known)
    }

    fn bits(&self) -> &Bits {
        match self {
            Self::Known(bits) => bits,
            Self::Own(bits) => bits,
        }
    }
}

fn holds(bits: &Bits, byte: u8) -> bool {
    bits[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
}

fn add(bits: &mut Bits, byte: u8) {
    bits[usize::from(byte >> 6)] |= 1 << (byte & 63);
}

/// `\d`, `\w`, `\s` and their opposites.
fn named(letter: u8) -> Option<&'static Bits> {
    match letter {
        b'd' => Some(&DIGIT),
        b'D' => Some(&NOT_DIGIT),
        b'w' => Some(&WORD),
        b'W' => Some(&NOT_WORD),
        b's' => Some(&SPACE),
        b'S' => Some(&NOT_SPACE),
        _ => None,
    }
}

/// One item of a pattern: a byte or a class of them. What may be repeated.
enum Atom {
    Byte(u8),
    Class(Class),
}

struct Parser<'a> {
    rest: &'a [u8],
    steps: Vec<Step>,
    names: Vec<Option<Box<str>>>,
    depth: u32,
    /// Whether the last step is a text that a further byte makes longer: nothing leads to behind it.
    joinable: bool,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn eat(&mut self, text: &[u8]) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn here(&self) -> Option<u16> {
        u16::try_from(self.steps.len()).ok()
    }

    /// Up to the end or the closing bracket of a group.
    fn alternatives(&mut self) -> Option<()> {
        let mut ends = Vec::new();
        loop {
            let begin = self.steps.len();
            self.joinable = false;
            self.sequence()?;
            if !self.eat(b"|") {
                break;
            }
            // Makes room before the alternative, all of whose own jumps move on by one.
            self.insert(begin, Step::Go(0))?;
            ends.push(self.steps.len());
            self.steps.push(Step::Go(0));
            self.steps[begin] = Step::Either(u16::try_from(begin + 1).ok()?, self.here()?);
        }
        self.joinable = false;
        let after = self.here()?;
        for end in ends {
            self.steps[end] = Step::Go(after);
        }
        Some(())
    }

    /// Inserts a step; what lies behind it goes on leading to where it led.
    fn insert(&mut self, at: usize, step: Step) -> Option<()> {
        let first = u16::try_from(at).ok()?;
        let moved = |to: &mut u16| {
            if *to >= first {
                *to += 1;
            }
        };
        for known in &mut self.steps[at..] {
            match known {
                Step::Either(one, other) => {
                    moved(one);
                    moved(other);
                }
                Step::Go(to) => moved(to),
                Step::Text(_) | Step::Many { .. } | Step::Bound(_) | Step::Start | Step::End => {}
            }
        }
        self.steps.insert(at, step);
        (self.steps.len() <= STEPS_MAX).then_some(())
    }

    fn sequence(&mut self) -> Option<()> {
        while let Some(byte) = self.peek() {
            match byte {
                b'|' | b')' => return Some(()),
                b'^' => {
                    self.next();
                    self.assertion(Step::Start)?;
                }
                b'$' => {
                    self.next();
                    self.assertion(Step::End)?;
                }
                b'(' => self.group()?,
                _ => {
                    let atom = self.atom()?;
                    self.repetition(atom)?;
                }
            }
            if self.steps.len() > STEPS_MAX {
                return None;
            }
        }
        Some(())
    }

    fn assertion(&mut self, step: Step) -> Option<()> {
        self.joinable = false;
        self.steps.push(step);
        // A repeated one is for the library.
        let repeated = matches!(self.peek(), Some(b'*' | b'+' | b'?' | b'{'));
        (!repeated).then_some(())
    }

    fn group(&mut self) -> Option<()> {
        self.next();
        self.depth += 1;
        let begin = self.steps.len();
        let number = if self.eat(b"?:") {
            None
        } else {
            let name = match self.eat(b"?P<") || self.eat(b"?<") {
                true => Some(self.name()?),
                false => None,
            };
            if name.is_some() && self.names.contains(&name) {
                return None;
            }
            self.names.push(name);
            Some(2 * u16::try_from(self.names.len()).ok()?)
        };
        if self.depth > DEPTH_MAX || self.peek() == Some(b'?') {
            return None;
        }
        self.steps.extend(number.map(Step::Bound));
        self.alternatives()?;
        if !self.eat(b")") {
            return None;
        }
        self.steps
            .extend(number.map(|number| Step::Bound(number + 1)));
        self.depth -= 1;
        self.joinable = false;
        if self.eat(b"?") {
            let greedy = !self.eat(b"?");
            self.insert(begin, Step::Go(0))?;
            let (inside, after) = (u16::try_from(begin + 1).ok()?, self.here()?);
            self.steps[begin] = match greedy {
                true => Step::Either(inside, after),
                false => Step::Either(after, inside),
            };
        }
        let repeated = matches!(self.peek(), Some(b'*' | b'+' | b'?' | b'{'));
        (!repeated).then_some(())
    }

    fn name(&mut self) -> Option<Box<str>> {
        let end = self.rest.iter().position(|byte| *byte == b'>')?;
        let name = std::str::from_utf8(&self.rest[..end]).ok()?;
        let mut bytes = name.bytes();
        let begins = bytes
            .next()
            .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        let goes_on = bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        self.rest = &self.rest[end + 1..];
        (begins && goes_on).then(|| name.into())
    }

    fn atom(&mut self) -> Option<Atom> {
        match self.next()? {
            b'.' => Some(Atom::Class(Class::Known(&NOT_NEWLINE))),
            b'[' => self.class().map(Atom::Class),
            b'\\' => {
                let byte = self.next()?;
                match named(byte) {
                    Some(bits) => Some(Atom::Class(Class::Known(bits))),
                    None => escaped(byte).map(Atom::Byte),
                }
            }
            b'*' | b'+' | b'?' | b'{' | b'}' | b']' => None,
            byte => Some(Atom::Byte(byte)),
        }
    }

    /// Behind the opening bracket.
    fn class(&mut self) -> Option<Class> {
        let negated = self.eat(b"^");
        let mut class = Bits::default();
        let mut first = true;
        loop {
            let byte = self.next()?;
            let low = match byte {
                b']' if !first => break,
                // Classes within classes, and sets of them, are for the library.
                b']' | b'[' | b'&' | b'~' => return None,
                b'\\' => {
                    let byte = self.next()?;
                    if let Some(known) = named(byte) {
                        class = std::array::from_fn(|index| class[index] | known[index]);
                        first = false;
                        if self.peek() == Some(b'-') && !self.rest.starts_with(b"-]") {
                            return None;
                        }
                        continue;
                    }
                    escaped(byte)?
                }
                b'-' if !first && self.peek() != Some(b']') => return None,
                byte => byte,
            };
            first = false;
            if self.peek() != Some(b'-') || self.rest.starts_with(b"-]") {
                add(&mut class, low);
                continue;
            }
            self.next();
            let high = match self.next()? {
                b'\\' => escaped(self.next()?)?,
                b'[' | b']' | b'-' | b'&' | b'~' => return None,
                byte => byte,
            };
            if low > high {
                return None;
            }
            (low..=high).for_each(|byte| add(&mut class, byte));
        }
        Some(Class::of(if negated { inverted(class) } else { class }))
    }

    fn repetition(&mut self, atom: Atom) -> Option<()> {
        let (min, max) = match self.peek() {
            Some(b'*') => (0, None),
            Some(b'+') => (1, None),
            Some(b'?') => (0, Some(1)),
            Some(b'{') => self.counts()?,
            Some(_) | None => {
                self.once(atom);
                return Some(());
            }
        };
        self.next();
        let greedy = !self.eat(b"?");
        let class = match atom {
            Atom::Class(class) => class,
            Atom::Byte(only) => Class::of(bits_of(&[only, only])),
        };
        self.joinable = false;
        self.steps.push(Step::Many {
            class,
            min,
            max,
            greedy,
        });
        let repeated = matches!(self.peek(), Some(b'*' | b'+' | b'?' | b'{'));
        (!repeated).then_some(())
    }

    /// Up to the closing brace, which is left.
    fn counts(&mut self) -> Option<(u16, Option<u16>)> {
        self.next();
        let min = self.number()?;
        let max = match self.eat(b",") {
            false => Some(min),
            true if self.peek() == Some(b'}') => None,
            true => Some(self.number()?),
        };
        let ordered = max.is_none_or(|max| min <= max && max <= COUNT_MAX) && min <= COUNT_MAX;
        (self.peek() == Some(b'}') && ordered).then_some((min, max))
    }

    fn number(&mut self) -> Option<u16> {
        let digits = self
            .rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        std::str::from_utf8(number).ok()?.parse().ok()
    }

    fn once(&mut self, atom: Atom) {
        let joins = std::mem::replace(&mut self.joinable, matches!(atom, Atom::Byte(_)));
        match (atom, self.steps.last_mut()) {
            (Atom::Byte(byte), Some(Step::Text(text))) if joins => {
                let mut longer = std::mem::take(text).into_vec();
                longer.push(byte);
                *text = longer.into();
            }
            (Atom::Byte(byte), _) => self.steps.push(Step::Text([byte].into())),
            (Atom::Class(class), _) => self.steps.push(Step::Many {
                class,
                min: 1,
                max: Some(1),
                greedy: true,
            }),
        }
    }
}

/// The byte that an escape stands for.
fn escaped(byte: u8) -> Option<u8> {
    match byte {
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        // These are assertions.
        b'<' | b'>' => None,
        _ => Some(byte).filter(u8::is_ascii_punctuation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex::bytes::RegexBuilder;

    /// What the library says of the same.
    fn expected(pattern: &str, text: &str) -> Option<Vec<Option<Range<usize>>>> {
        let anchored = format!("^(?:{pattern})");
        let regex = RegexBuilder::new(&anchored).unicode(false).build();
        let regex = regex.expect("what is simple is valid");
        let groups = regex.captures(text.as_bytes())?;
        Some(
            groups
                .iter()
                .map(|group| group.map(|group| group.range()))
                .collect(),
        )
    }

    #[track_caller]
    fn check(pattern: &str, texts: &[&str]) {
        let simple = Simple::parse(pattern).unwrap_or_else(|| panic!("{pattern} is not simple"));
        for text in texts {
            let outcome = match expected(pattern, text) {
                Some(groups) => Outcome::Found(groups),
                None => Outcome::Nothing,
            };
            assert_eq!(simple.run(text.as_bytes()), outcome, "{pattern} on {text}");
        }
    }

    #[test]
    fn usual_patterns_of_routes_are_simple() {
        check(
            r"/api/resource-1/\d+$",
            &[
                "/api/resource-1/12",
                "/api/resource-1/",
                "/api/resource-1/1x",
            ],
        );
        check(
            r"/users/(?<id>\d+)/orders/(?P<o>[a-z0-9-]+)",
            &["/users/1/orders/a-1/x", "/users//orders/a"],
        );
        check(
            r"^/v\d/(a|bc|b)(/.*)?$",
            &["/v1/a", "/v1/bc/x/y", "/v1/bcd", "/v1/b/"],
        );
        check(
            r"/(?:x|yy)z?.*\.(png|jpe?g)$",
            &["/xz/1.2.png", "/yy.jpg", "/yyz.jpeg", "/x.gif"],
        );
        check(
            r"/[^/]+/[\w.-]{2,4}(?:;v=\d{1,2})??",
            &["/a/bcdef", "/a/b", "/a/bc;v=12", "//bc"],
        );
        check(r"/a+?b*?(c+?)$", &["/aabbcc", "/ac", "/b"]);
        check("", &["", "/x"]);
        check("/a|/ab|", &["/ab", "x"]);
    }

    #[test]
    fn what_is_not_understood_is_left_to_the_library() {
        for pattern in [
            r"/a\b",
            r"(?i)/a",
            r"(?:ab)*",
            r"(a)+",
            r"a**",
            r"a{2",
            "/é",
            r"\p{L}",
            "[[:alpha:]]",
            "[a&&b]",
            "(",
            ")",
            "a)",
            "[b-a]",
            "a{3,2}",
            "a{2000}",
            r"\x41",
            "(?=a)",
            "(?<n>a)(?<n>b)",
            "$*",
            "[a",
            "[]a]",
        ] {
            assert_eq!(Simple::parse(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn a_match_that_would_take_long_is_given_up() {
        let simple = Simple::parse("/.*.*.*.*.*x").unwrap();
        assert_eq!(simple.run(&[b'/'; 200]), Outcome::Hard);
    }

    #[test]
    fn names_belong_to_groups() {
        let simple = Simple::parse("/(a)(?<b>c)(?:d)").unwrap();
        assert_eq!(
            [0, 1, 2, 3].map(|group| simple.name(group)),
            [None, None, Some("b"), None]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn simple_patterns_match_as_the_library_does(
            pattern in r"([ab/]|\\d|\\W|[.^$|]|\((\?:|\?<[xy]>)?|\)\??\??|[*+?]\??|\{[012](,[23]?)?\}|\[\^?(a|b-c|\\d|/)+-?\]){0,12}",
            text in "[abc/1]{0,10}",
        ) {
            if let Some(simple) = Simple::parse(&pattern) {
                let outcome = expected(&pattern, &text).map_or(Outcome::Nothing, Outcome::Found);
                let found = simple.run(text.as_bytes());
                if found != Outcome::Hard {
                    prop_assert_eq!(found, outcome);
                }
            }
        }
    }
}
