//! Regexes that are simple enough to be matched without the library.
//!
//! A compiled regex of the library takes up to 100 KB, so that of tens of thousands only a few can be kept, and up to
//! 100 us to make again. Nearly all regexes of routes are sequences of characters, classes with a repetition, and
//! groups; such a one is a program of some dozens of bytes here, kept with its route. What is not understood is left to
//! the library.
//!
//! Semantics: those of the library without Unicode, anchored at the start. Of several ways to match, the first by the
//! order in which a backtracking matcher tries them.

mod class;
mod parse;
#[cfg(test)]
mod tests;

use super::text::Text;
use class::{Bits, Class, holds};
use smallvec::SmallVec;
use std::ops::Range;

/// What one match may take, in steps and bytes looked at, before it is left to the library, which takes linear time.
const FUEL: u32 = 20_000;

/// A program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Simple {
    /// In place if they are few, so that all of a program lies together.
    steps: SmallVec<[Step; 5]>,
    /// Of each group, from 1 on.
    names: Box<[Option<Box<str>>]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Text(Text<30>),
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
