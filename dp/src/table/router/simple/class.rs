//! Sets of bytes.

/// A set of bytes, by bits.
pub(super) type Bits = [u64; 4];

/// A set of bytes. Nearly all are the well-known ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Known(&'static Bits),
    Own(Box<Bits>),
}

static DIGIT: Bits = bits_of(b"09");
static NOT_DIGIT: Bits = inverted(bits_of(b"09"));
static WORD: Bits = bits_of(b"azAZ09__");
static NOT_WORD: Bits = inverted(bits_of(b"azAZ09__"));
static SPACE: Bits = bits_of(b"\t\r  ");
static NOT_SPACE: Bits = inverted(bits_of(b"\t\r  "));
pub(super) static NOT_NEWLINE: Bits = inverted(bits_of(b"\n\n"));
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
pub(super) const fn bits_of(ranges: &[u8]) -> Bits {
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

pub(super) const fn inverted(bits: Bits) -> Bits {
    [!bits[0], !bits[1], !bits[2], !bits[3]]
}

impl Class {
    pub(super) fn of(bits: Bits) -> Self {
        let known = KNOWN.into_iter().find(|known| **known == bits);
        known.map_or_else(|| Self::Own(Box::new(bits)), Self::Known)
    }

    pub(super) fn bits(&self) -> &Bits {
        match self {
            Self::Known(bits) => bits,
            Self::Own(bits) => bits,
        }
    }
}

/// Whether a set has a byte.
pub(super) fn holds(bits: &Bits, byte: u8) -> bool {
    bits[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
}

/// Puts a byte into a set.
pub(super) fn add(bits: &mut Bits, byte: u8) {
    bits[usize::from(byte >> 6)] |= 1 << (byte & 63);
}

/// `\d`, `\w`, `\s` and their opposites.
pub(super) fn named(letter: u8) -> Option<&'static Bits> {
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
