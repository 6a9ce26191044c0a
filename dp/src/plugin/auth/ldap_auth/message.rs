//! The few messages of LDAP (RFC 4511) that it takes to ask whether a password is right.

use tokio::io::{AsyncRead, AsyncReadExt};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const BIND: u8 = 0x60;
const BOUND: u8 = 0x61;
const UNBIND: u8 = 0x42;
const EXTENDED: u8 = 0x77;
const EXTENDED_DONE: u8 = 0x78;
const CONTEXT_0: u8 = 0x80;
const PROTOCOL_VERSION: u8 = 3;
const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";
/// Longer answers are not read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// All went well.
pub(super) const SUCCESS: u8 = 0;

/// Asks to be believed to be `name`.
pub(super) fn bind(id: u8, name: &str, password: &str) -> Vec<u8> {
    let parts = [
        element(INTEGER, &[PROTOCOL_VERSION]),
        element(OCTETS, name.as_bytes()),
        element(CONTEXT_0, password.as_bytes()),
    ];
    message(id, &element(BIND, &parts.concat()))
}

/// Asks to go on in TLS.
pub(super) fn start_tls(id: u8) -> Vec<u8> {
    message(id, &element(EXTENDED, &element(CONTEXT_0, START_TLS)))
}

/// Says good-bye.
pub(super) fn unbind(id: u8) -> Vec<u8> {
    message(id, &[UNBIND, 0])
}

fn message(id: u8, operation: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[&element(INTEGER, &[id]), operation].concat())
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut element = vec![tag];
    match u8::try_from(content.len()) {
        Ok(length) if length < 0x80 => element.push(length),
        Ok(_) | Err(_) => {
            let length = content.len().to_be_bytes();
            let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
            // At most the eight bytes of a length.
            element.push(0x80 | u8::try_from(length.len()).unwrap_or(8));
            element.extend(length);
        }
    }
    element.extend(content);
    element
}

/// Why an answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
    /// It is not what was asked for.
    #[error("the answer is not an answer of LDAP to what was asked")]
    Malformed,
}

/// The result code of the answer to message `id`: [`SUCCESS`] or why not.
pub(super) async fn answer(
    stream: &mut (impl AsyncRead + Unpin),
    id: u8,
) -> Result<u8, AnswerError> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    let [tag, first] = head;
    if tag != SEQUENCE {
        return Err(AnswerError::Malformed);
    }
    let length = match first {
        0..0x80 => usize::from(first),
        0x81..=0x84 => {
            let mut bytes = [0; 4];
            let count = usize::from(first & 0x7f);
            stream.read_exact(&mut bytes[4 - count..]).await?;
            usize::try_from(u32::from_be_bytes(bytes)).map_err(|_| AnswerError::Malformed)?
        }
        0x80 | 0x85.. => return Err(AnswerError::Malformed),
    };
    if length > ANSWER_BYTES_MAX {
        return Err(AnswerError::Malformed);
    }
    let mut content = vec![0; length];
    stream.read_exact(&mut content).await?;
    result(&content, id).ok_or(AnswerError::Malformed)
}

/// The result code in the content of an answer.
fn result(content: &[u8], id: u8) -> Option<u8> {
    let (found, operation) = part(content, INTEGER)?;
    let (tag, _) = operation.split_first()?;
    if found != [id] || (*tag != BOUND && *tag != EXTENDED_DONE) {
        return None;
    }
    let (operation, _) = part(operation, *tag)?;
    let (code, _) = part(operation, ENUMERATED)?;
    match code {
        [code] => Some(*code),
        _ => None,
    }
}

/// The content of the first element, which has this tag, and what follows it.
fn part(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match *first {
        length @ 0..0x80 => (usize::from(length), rest),
        first => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let add = |sum: usize, byte: &u8| sum.checked_mul(256)?.checked_add(usize::from(*byte));
            (bytes.iter().try_fold(0, add)?, rest)
        }
    };
    (*tag == wanted).then_some(rest)?.split_at_checked(length)
}

/// A value as part of a distinguished name (RFC 4514): none of its characters means anything.
pub(super) fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (index, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => {
                escaped.push('\\');
                escaped.push(character);
            }
            '#' | ' ' if index == 0 => escaped.extend(['\\', character]),
            ' ' if index == last => escaped.push_str("\\ "),
            '\0' => escaped.push_str("\\00"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_are_read_and_nonsense_is_not() {
        let answer = async |mut bytes: &[u8]| answer(&mut bytes, 1).await.ok();
        let bound = b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x31\x04\x00\x04\x00";
        assert_eq!(answer(bound).await, Some(49));
        // Longer forms of lengths are as good.
        let long = b"\x30\x84\x00\x00\x00\x10\x02\x01\x01\x61\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00";
        assert_eq!(answer(long).await, Some(SUCCESS));
        for length in 0..bound.len() {
            assert_eq!(answer(&bound[..length]).await, None, "{length}");
        }
        let nonsense: [&[u8]; 5] = [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\x80\x00\x00",
            b"\x30\x0c\x02\x01\x02\x61\x07\x0a\x01\x00\x04\x00\x04\x00",
            b"\x30\x05\x02\x01\x01\x61\xff",
        ];
        for bytes in nonsense {
            assert_eq!(answer(bytes).await, None, "{bytes:?}");
        }
    }

    #[test]
    fn long_values_have_long_lengths() {
        let long = bind(1, &"n".repeat(300), "p");
        assert_eq!(long[..4], [SEQUENCE, 0x82, 0x01, 0x3d]);
        assert_eq!(
            bind(1, "n", "p"),
            b"\x30\x0e\x02\x01\x01\x60\x09\x02\x01\x03\x04\x01n\x80\x01p"
        );
    }

    #[test]
    fn a_username_cannot_name_somebody_elsewhere() {
        let check = |name, expected| assert_eq!(escape(name), expected);
        check("bob", "bob");
        check("bob,ou=admins", "bob\\,ou\\=admins");
        check("#a b ", "\\#a b\\ ");
        check(" ", "\\ ");
        check("a\\\"+;<>\0é", "a\\\\\\\"\\+\\;\\<\\>\\00é");
    }
}
