//! The heads of HTTP/1 requests, looked at line by line as they come in.
//!
//! hyper takes the second of two equal lengths, a length beside a coding and a fragment in a target away before
//! anybody else sees them. So the line that makes a head ambiguous is broken here: its line feed becomes a NUL, hyper
//! answers 400 to that, and nothing after it on the connection is read as a request. The walk follows hyper in where
//! heads and bodies end; it stops for good where hyper does, too (after a chunked request the connection is closed).

use std::io::BufRead;

/// What is kept of a line that is not whole yet: enough for every name looked for, and a length.
const KEPT_BYTES_MAX: usize = 64;
const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";

/// Where in the stream of requests a connection is.
#[derive(Default)]
pub(super) struct Heads {
    stage: Stage,
    /// The beginning of a line whose end has not come.
    kept: Vec<u8>,
    length: Option<u64>,
    coding: bool,
}

#[derive(Default, PartialEq, Eq)]
enum Stage {
    /// Before a request's first line.
    #[default]
    Start,
    /// In its headers.
    Headers,
    /// In a body of which so much is missing.
    Body(u64),
    /// No further request is read from this connection.
    Over,
}

impl Heads {
    /// Looks at what was read, and breaks what is ambiguous.
    pub(super) fn read(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            match self.stage {
                Stage::Over => return,
                Stage::Body(missing) => {
                    let here = usize::try_from(missing)
                        .map_or(bytes.len(), |missing| missing.min(bytes.len()));
                    bytes = &mut bytes[here..];
                    let missing = missing - here as u64;
                    self.stage = if missing == 0 {
                        Stage::Start
                    } else {
                        Stage::Body(missing)
                    };
                }
                Stage::Start | Stage::Headers => {
                    let count = line_bytes(bytes);
                    let (line, rest) = bytes.split_at_mut(count);
                    if line.last() == Some(&b'\n') {
                        self.line(line);
                    } else {
                        self.keep(line);
                    }
                    bytes = rest;
                }
            }
        }
    }

    fn keep(&mut self, part: &[u8]) {
        // One byte more than is looked at says that there was more.
        let room = (KEPT_BYTES_MAX + 1).saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&part[..room.min(part.len())]);
        // A fragment may stand where nothing is kept.
        if self.stage == Stage::Start
            && part.contains(&b'#')
            && let Some(first) = self.kept.first_mut()
        {
            *first = b'#';
        }
    }

    fn line(&mut self, line: &mut [u8]) {
        let good = if self.kept.is_empty() {
            self.take(line)
        } else {
            let mut kept = std::mem::take(&mut self.kept);
            let room = (KEPT_BYTES_MAX + 1).saturating_sub(kept.len());
            let fragment = self.stage == Stage::Start && line.contains(&b'#');
            // The end of the line always, so that an empty one is known.
            let end = line.len().saturating_sub(2);
            kept.extend_from_slice(&line[..room.min(end)]);
            kept.extend_from_slice(&line[end..]);
            let good = self.take(&kept) && !fragment;
            kept.clear();
            self.kept = kept;
            good
        };
        if !good && let Some(end) = line.last_mut() {
            *end = 0;
            self.stage = Stage::Over;
        }
    }

    /// Whether a line leaves the request with one reading.
    fn take(&mut self, line: &[u8]) -> bool {
        if self.stage == Stage::Start {
            // Empty lines before a request are skipped.
            if matches!(line, b"\n" | b"\r\n") {
                return true;
            }
            self.stage = Stage::Headers;
            (self.length, self.coding) = (None, false);
            return !has(line, b'#');
        }
        match line {
            [b'c' | b'C', ..] if begins(line, LENGTH) => {
                let again = self.length.replace(parse(&line[LENGTH.len()..])).is_some();
                let value = line[LENGTH.len()..].trim_ascii();
                // Some take it for octal.
                let plain = !matches!(value, [b'0', _, ..]);
                !again && !self.coding && plain && line.len() <= KEPT_BYTES_MAX
            }
            [b't' | b'T', ..] if begins(line, CODING) => {
                let again = std::mem::replace(&mut self.coding, true);
                !again && self.length.is_none()
            }
            b"\n" | b"\r\n" => {
                self.stage = match self.length {
                    _ if self.coding => Stage::Over,
                    Some(missing @ 1..) => Stage::Body(missing),
                    Some(0) | None => Stage::Start,
                };
                true
            }
            _ => true,
        }
    }
}

/// The bytes up to the first line feed, with it; all if there is none.
fn line_bytes(bytes: &[u8]) -> usize {
    // Reading from memory does not fail.
    (&mut &*bytes).skip_until(b'\n').unwrap_or(bytes.len())
}

fn has(line: &[u8], byte: u8) -> bool {
    let count = (&mut &*line).skip_until(byte).unwrap_or_default();
    count.checked_sub(1).and_then(|last| line.get(last)) == Some(&byte)
}

fn begins(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(name))
}

/// hyper refuses what is not a number, so that what follows it does not matter.
fn parse(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value.trim_ascii()).unwrap_or_default();
    text.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is left of the input, read in pieces of these sizes.
    fn read(input: &str, sizes: impl IntoIterator<Item = usize>) -> String {
        let mut bytes = input.as_bytes().to_vec();
        let mut heads = Heads::default();
        let mut rest = &mut bytes[..];
        for size in sizes {
            let (piece, after) = rest.split_at_mut(size.min(rest.len()));
            heads.read(piece);
            rest = after;
        }
        heads.read(rest);
        String::from_utf8(bytes).unwrap()
    }

    const GOOD: &str = "\r\nGET /a HTTP/1.1\r\nHost: a\r\nCookie: #\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 40\r\n\r\n\
                        #\nContent-Length: 1\r\nContent-Length: 1\r\nPUT / HTTP/1.1\nHost: a\nContent-Length: 0\n\n\
                        GET / HTTP/1.1\r\nX: content-length: 3\r\nContent-Lengths: 4\r\n\r\n";
    const BAD: [(&str, &str); 5] = [
        ("GET /a#b HTTP/1.1\r\n\r\n", "GET /a#b HTTP/1.1\r\0\r\n"),
        (
            "GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa#b H\n",
            "GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa#b H\0",
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\0\r\n",
        ),
        (
            "POST / HTTP/1.1\nTransfer-Encoding: chunked\nA: b\ncontent-length:2\n\n",
            "POST / HTTP/1.1\nTransfer-Encoding: chunked\nA: b\ncontent-length:2\0\n",
        ),
        (
            "POST / HTTP/1.1\r\nCONTENT-LENGTH: 0\r\ntransfer-encoding: x\r\n\r\n",
            "POST / HTTP/1.1\r\nCONTENT-LENGTH: 0\r\ntransfer-encoding: x\r\0\r\n",
        ),
    ];

    proptest! {
        #[test]
        fn what_is_ambiguous_is_broken_however_it_comes_in(sizes in proptest::collection::vec(0usize..9, 0..99)) {
            prop_assert_eq!(read(GOOD, sizes.clone()), GOOD);
            for (input, left) in BAD {
                prop_assert_eq!(read(input, sizes.clone()), left);
                let after = format!("{GOOD}{input}");
                prop_assert_eq!(read(&after, sizes.clone()), format!("{GOOD}{left}"));
            }
        }
    }

    #[test]
    fn bodies_are_not_looked_at() {
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n#\n\r\n";
        assert_eq!(read(chunked, [1, 50]), chunked);
        assert_eq!(read(GOOD, []), GOOD);
    }
}
