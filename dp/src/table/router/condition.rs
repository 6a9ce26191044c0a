//! Expressions, compiled and evaluated.

use super::captures::{Group, groups};
use super::facts::Facts;
use super::regexes::Regexes;
use sluice_schema::expression::{
    AddressTest, End, Expression, NumberField, NumberTest, Predicate, TextField, TextTest,
};
use std::borrow::Cow;
use std::sync::Arc;

/// A compiled expression.
#[derive(Debug)]
pub(super) enum Condition {
    All(Box<[Self]>),
    Any(Box<[Self]>),
    Not(Box<Self>),
    Text(Box<TextCondition>),
    Number {
        field: NumberField,
        test: NumberTest,
        value: i64,
    },
    Address {
        end: End,
        test: AddressTest,
    },
}

#[derive(Debug)]
pub(super) struct TextCondition {
    pub(super) field: TextField,
    pub(super) lower: bool,
    pub(super) any: bool,
    pub(super) test: Compare,
}

#[derive(Debug)]
pub(super) enum Compare {
    Equal(Box<str>),
    NotEqual(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    /// The pattern.
    Regex(Arc<str>),
}

/// What the parts of an expression that made it hold say of the request.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// The bytes at the beginning of the path that the last comparison with it matched.
    pub(super) matched_bytes: usize,
    /// The groups of all regexes that matched; of equal ones the last counts.
    pub(super) groups: Vec<Group>,
}

impl Condition {
    pub(super) fn compile(expression: &Expression, regexes: &Regexes) -> Result<Self, String> {
        let all = |parts: &[Expression]| {
            parts
                .iter()
                .map(|part| Self::compile(part, regexes))
                .collect::<Result<_, _>>()
        };
        Ok(match expression {
            Expression::All(parts) => Self::All(all(parts)?),
            Expression::Any(parts) => Self::Any(all(parts)?),
            Expression::Not(inner) => Self::Not(Box::new(Self::compile(inner, regexes)?)),
            Expression::Is(Predicate::Text {
                field,
                lower,
                any,
                test,
                value,
            }) => Self::Text(Box::new(TextCondition {
                test: compare(field, *test, value, regexes)?,
                field: field.clone(),
                lower: *lower,
                any: *any,
            })),
            Expression::Is(Predicate::Number { field, test, value }) => Self::Number {
                field: *field,
                test: *test,
                value: *value,
            },
            Expression::Is(Predicate::Address { end, test }) => Self::Address {
                end: *end,
                test: *test,
            },
        })
    }

    /// Recursion is as deep as parentheses are nested.
    pub(super) fn holds(&self, facts: &Facts<'_>, regexes: &Regexes) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(facts, regexes)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(facts, regexes)),
            Self::Not(inner) => !inner.holds(facts, regexes),
            Self::Text(text) => text.holds(facts, regexes, &mut None),
            Self::Number { field, test, value } => facts
                .number(*field)
                .is_some_and(|number| test.passes(number, *value)),
            Self::Address { end, test } => test.passes(facts.address(*end)),
        }
    }

    /// The same, and what is found on the way. A part that does not hold leaves nothing.
    pub(super) fn trace(&self, facts: &Facts<'_>, regexes: &Regexes, trace: &mut Trace) -> bool {
        let (matched_bytes, groups) = (trace.matched_bytes, trace.groups.len());
        let holds = match self {
            Self::All(parts) => parts.iter().all(|part| part.trace(facts, regexes, trace)),
            Self::Any(parts) => parts.iter().any(|part| part.trace(facts, regexes, trace)),
            Self::Text(text) => text.holds(facts, regexes, &mut Some(trace)),
            Self::Not(_) | Self::Number { .. } | Self::Address { .. } => self.holds(facts, regexes),
        };
        if !holds {
            trace.matched_bytes = matched_bytes;
            trace.groups.truncate(groups);
        }
        holds
    }
}

impl TextCondition {
    fn holds(&self, facts: &Facts<'_>, regexes: &Regexes, trace: &mut Option<&mut Trace>) -> bool {
        let mut none = true;
        let mut last = false;
        facts.each(&self.field, |value| {
            none = false;
            let value = match self.lower {
                true => lower(value),
                false => Cow::Borrowed(value),
            };
            last = self.passes(&value, regexes, trace);
            // One that passes decides for "any", one that does not for "all".
            last != self.any
        });
        !none && last
    }

    fn passes(&self, value: &[u8], regexes: &Regexes, trace: &mut Option<&mut Trace>) -> bool {
        let is_path = self.field == TextField::Path;
        let mut note = |passes: bool, bytes: usize| {
            if let (true, true, Some(trace)) = (passes, is_path, trace.as_deref_mut()) {
                trace.matched_bytes = bytes;
            }
            passes
        };
        match &self.test {
            Compare::Equal(text) => note(value == text.as_bytes(), value.len()),
            Compare::Prefix(text) => note(value.starts_with(text.as_bytes()), text.len()),
            Compare::NotEqual(text) => value != text.as_bytes(),
            Compare::Suffix(text) => value.ends_with(text.as_bytes()),
            Compare::Contains(text) => contains(value, text.as_bytes()),
            Compare::Regex(pattern) => {
                let Some(regex) = regexes.find(pattern) else {
                    return false;
                };
                let Some(trace) = trace.as_deref_mut() else {
                    return regex.is_match(value);
                };
                let Some(found) = regex.captures(value) else {
                    return false;
                };
                // What is not at the beginning cannot be stripped.
                if let Some(whole) = found.get(0).filter(|whole| is_path && whole.start() == 0) {
                    trace.matched_bytes = whole.end();
                }
                trace.groups.extend(groups(&regex, &found));
                true
            }
        }
    }
}

fn compare(
    field: &TextField,
    test: TextTest,
    value: &str,
    regexes: &Regexes,
) -> Result<Compare, String> {
    let is_name = matches!(field, TextField::Host | TextField::Sni);
    let text = || match is_name {
        true => value.to_ascii_lowercase().into(),
        false => value.into(),
    };
    Ok(match test {
        TextTest::Equal => Compare::Equal(text()),
        TextTest::NotEqual => Compare::NotEqual(text()),
        TextTest::Prefix => Compare::Prefix(text()),
        TextTest::Suffix => Compare::Suffix(text()),
        TextTest::Contains => Compare::Contains(text()),
        TextTest::Regex if is_name => Compare::Regex(regexes.check(&format!("(?i){value}"))?),
        TextTest::Regex => Compare::Regex(regexes.check(value)?),
    })
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

fn lower(value: &[u8]) -> Cow<'_, [u8]> {
    if value.is_ascii() {
        return match value.iter().any(u8::is_ascii_uppercase) {
            true => value.to_ascii_lowercase().into(),
            false => value.into(),
        };
    }
    match std::str::from_utf8(value) {
        Ok(text) => text.to_lowercase().into_bytes().into(),
        Err(_) => value.to_ascii_lowercase().into(),
    }
}
