//! As much of DER as private keys are made of.

use super::Unreadable;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;

const BROKEN: Unreadable = Unreadable("the DER encoding is broken");

/// Elements one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The elements inside the one SEQUENCE that `bytes` are.
    pub(super) fn sequence(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let mut outer = Self(bytes);
        let inside = outer.expect(SEQUENCE)?;
        match outer.0 {
            [] => Ok(Self(inside)),
            [_, ..] => Err(BROKEN),
        }
    }

    /// The elements in `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The content of the next element, which has this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<&'a [u8], Unreadable> {
        match self.next()? {
            Some((found, content)) if found == tag => Ok(content),
            Some(_) | None => Err(BROKEN),
        }
    }

    /// The next whole number, without leading zeros; it is not negative.
    pub(super) fn unsigned(&mut self) -> Result<&'a [u8], Unreadable> {
        let content = self.expect(INTEGER)?;
        match content {
            [] | [0x80..=0xff, ..] => Err(BROKEN),
            [_, ..] => Ok(without_leading_zeros(content)),
        }
    }

    /// The bytes of the next BIT STRING, which has no unused bits.
    pub(super) fn bits(&mut self) -> Result<&'a [u8], Unreadable> {
        bits(self.expect(BIT_STRING)?)
    }

    /// The next element: its tag and content.
    pub(super) fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, Unreadable> {
        let (tag, rest) = match self.0 {
            [] => return Ok(None),
            [tag, rest @ ..] => (*tag, rest),
        };
        let (length, rest) = length(rest)?;
        let (content, rest) = rest.split_at_checked(length).ok_or(BROKEN)?;
        self.0 = rest;
        Ok(Some((tag, content)))
    }
}

/// The bytes in the content of a BIT STRING without unused bits.
pub(super) fn bits(content: &[u8]) -> Result<&[u8], Unreadable> {
    match content {
        [0, bytes @ ..] => Ok(bytes),
        [_, ..] | [] => Err(BROKEN),
    }
}

pub(super) fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// A length of at most four bytes.
fn length(bytes: &[u8]) -> Result<(usize, &[u8]), Unreadable> {
    match bytes {
        [short @ ..=0x7f, rest @ ..] => Ok((usize::from(*short), rest)),
        [long @ 0x81..=0x84, rest @ ..] => {
            let (digits, rest) = rest
                .split_at_checked(usize::from(long & 0x7f))
                .ok_or(BROKEN)?;
            let length = digits
                .iter()
                .fold(0_u32, |length, digit| length << 8 | u32::from(*digit));
            Ok((usize::try_from(length).map_err(|_| BROKEN)?, rest))
        }
        [_, ..] | [] => Err(BROKEN),
    }
}
