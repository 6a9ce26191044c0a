//! Short texts in little memory.

use std::fmt;
use std::ops::Deref;

/// Bytes, kept in place if they are few: as many as fit in the space of the other form, unless one asks for more.
#[derive(Clone)]
pub(super) struct Text<const SHORT_BYTES_MAX: usize = 22>(Form<SHORT_BYTES_MAX>);

#[derive(Clone)]
enum Form<const SHORT_BYTES_MAX: usize> {
    Short(u8, [u8; SHORT_BYTES_MAX]),
    Long(Box<[u8]>),
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::from(&[][..])
    }
}

impl<const N: usize> From<&[u8]> for Text<N> {
    fn from(text: &[u8]) -> Self {
        let mut short = [0; N];
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

impl<const N: usize> Deref for Text<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Form::Short(bytes, short) => &short[..usize::from(*bytes)],
            Form::Long(long) => long,
        }
    }
}

impl<const N: usize> PartialEq for Text<N> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<const N: usize> Eq for Text<N> {}

impl<const N: usize> fmt::Debug for Text<N> {
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
