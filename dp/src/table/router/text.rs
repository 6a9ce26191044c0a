//! Short texts in little memory.

use std::fmt;
use std::ops::Deref;

/// Bytes, kept in place if they are few, as most are.
#[derive(Clone)]
pub(super) struct Text(Form);

#[derive(Clone)]
enum Form {
    Short(u8, [u8; Text::SHORT_BYTES_MAX]),
    Long(Box<[u8]>),
}

impl Text {
    /// As many as fit in the space of the other form.
    const SHORT_BYTES_MAX: usize = 22;
}

impl Default for Text {
    fn default() -> Self {
        Self::from(&[][..])
    }
}

impl From<&[u8]> for Text {
    fn from(text: &[u8]) -> Self {
        let mut short = [0; Self::SHORT_BYTES_MAX];
        Self(
            match (u8::try_from(text.len()), short.get_mut(..text.len())) {
                (Ok(bytes), Some(place)) => {
                    place.copy_from_slice(text);
                    Form::Short(bytes, short)
                }
                (Ok(_) | Err(_), _) => Form::Long(text.into()),
            },
        )
    }
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Form::Short(bytes, short) => &short[..usize::from(*bytes)],
            Form::Long(long) => long,
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(self).fmt(f)
    }
}

/// A list that has one element in most cases.
#[derive(Debug)]
pub(super) enum List<T> {
    /// Kept in place.
    One(T),
    Many(Box<[T]>),
}

impl<T> From<Vec<T>> for List<T> {
    fn from(mut items: Vec<T>) -> Self {
        match (items.len(), items.pop()) {
            (1, Some(one)) => Self::One(one),
            (_, last) => {
                items.extend(last);
                Self::Many(items.into())
            }
        }
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl<T> std::ops::DerefMut for List<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::One(one) => std::slice::from_mut(one),
            Self::Many(many) => many,
        }
    }
}
