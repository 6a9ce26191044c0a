//! From the text of a pattern to its program.

use super::class::{Bits, Class, NOT_NEWLINE, add, bits_of, inverted, named};
use super::{Simple, Step};

/// Bytes of a pattern; longer ones are left to the library.
const PATTERN_BYTES_MAX: usize = 512;
const STEPS_MAX: usize = 256;
/// The most a counted repetition may ask for.
const COUNT_MAX: u16 = 1000;
/// Groups within groups.
const DEPTH_MAX: u32 = 16;

impl Simple {
    /// The program of a pattern; `None` if it is not simple, which says nothing about whether it is valid.
    pub(in crate::table::router) fn parse(pattern: &str) -> Option<Self> {
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
            steps: parser.steps.into_iter().collect(),
            names: parser.names.into(),
        })
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
                *text = [&**text, &[byte]].concat().as_slice().into();
            }
            (Atom::Byte(byte), _) => self.steps.push(Step::Text([byte].as_slice().into())),
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
