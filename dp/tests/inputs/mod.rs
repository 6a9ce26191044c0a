//! What clients may send to make two readers disagree, as tables: each with what the client gets, and what the
//! upstream sees of it: nothing, or exactly one request with one framing.

#![allow(dead_code, reason = "each test file uses its own part")]

mod bodies;
mod heads;

/// How a request's length is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    /// There is no body.
    None,
    Length(usize),
    Chunked,
}

impl Framing {
    /// How the gateway tells it: a body that it has read as a whole is sent with its length.
    pub(crate) fn sent(self, buffered: bool, body: &str) -> Self {
        match self {
            Self::Chunked if buffered => Self::Length(body.len()),
            Self::Chunked | Self::None | Self::Length(_) => self,
        }
    }
}

/// What comes of an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// Refused with this status; the upstream sees nothing.
    Refused(u16),
    /// The connection is closed without an answer.
    Closed,
    /// One request with this target and body reaches the upstream, and the connection ends.
    One(&'static str, &'static str, Framing),
    /// The same without a body, and none of these words in its head.
    Without(&'static [&'static str]),
    /// The same without a body, with all of these words in its head.
    With(&'static [&'static str]),
    /// The head is good and the body is not: the upstream never sees a whole request, the client no success.
    Broken,
}

/// Bytes, and what comes of them.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) fate: Fate,
}

impl Input {
    fn new(table: &str, row: &str, text: String, fate: Fate) -> Self {
        Self {
            name: format!("{table}: {row:?}"),
            bytes: text.into_bytes(),
            fate,
        }
    }
}

/// What follows an ambiguous message in the attacker's plan.
pub(crate) const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// All inputs of HTTP/1.
pub(crate) fn all() -> Vec<Input> {
    let mut inputs = Vec::new();
    for (target, fate) in heads::TARGETS {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        inputs.push(Input::new("target", target, text, *fate));
    }
    for (line, fate) in heads::REQUEST_LINES {
        let text = format!("{line}Host: a\r\nConnection: close\r\n\r\n");
        inputs.push(Input::new("request line", line, text, *fate));
    }
    for (lines, fate) in heads::HOSTS {
        let text = format!("GET /x HTTP/1.1\r\nConnection: close\r\n{lines}\r\n");
        inputs.push(Input::new("host", lines, text, *fate));
    }
    for (lines, fate) in heads::LINES {
        let text = format!("GET /x HTTP/1.1\r\nHost: a\r\n{lines}Connection: close\r\n\r\n");
        inputs.push(Input::new("line", lines, text, *fate));
    }
    for (lines, body, fate) in bodies::FRAMINGS {
        let text = format!("POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n{body}");
        inputs.push(Input::new(
            "framing",
            &format!("{lines}{body}"),
            text,
            *fate,
        ));
    }
    for (body, fate) in bodies::CHUNKS {
        let text =
            format!("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        inputs.push(Input::new("chunks", body, text, *fate));
    }
    for (text, fate) in bodies::WHOLE {
        inputs.push(Input::new("whole", text, (*text).to_owned(), *fate));
    }
    inputs.extend(large());
    inputs
}

/// Inputs that are larger than allowed.
fn large() -> Vec<Input> {
    let many = "X-A: b\r\n".repeat(101);
    let long = "a".repeat(40_000);
    let extension = format!("2;{long}\r\nhi\r\n0\r\n\r\n");
    let trailer = format!("2\r\nhi\r\n0\r\nX-A: {long}\r\n\r\n");
    let trailers = format!("2\r\nhi\r\n0\r\n{many}\r\n");
    let head = |lines: &str| format!("GET /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let chunked = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let large = [
        ("102 headers", head(&many), Fate::Refused(431)),
        (
            "40 kB in a value",
            head(&format!("X-A: {long}\r\n")),
            Fate::Refused(431),
        ),
        (
            "40 kB in a name",
            head(&format!("{long}: a\r\n")),
            Fate::Refused(431),
        ),
        (
            "40 kB of target",
            format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            Fate::Refused(431),
        ),
        (
            "17 kB of target",
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..17_000]),
            Fate::Refused(414),
        ),
        (
            "17 kB of query",
            format!("GET /?{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..17_000]),
            Fate::Refused(414),
        ),
        (
            "40 kB of method",
            format!("{long} / HTTP/1.1\r\nHost: a\r\n\r\n"),
            Fate::Refused(431),
        ),
        (
            "40 kB of chunk extension",
            format!("{chunked}{extension}"),
            Fate::Broken,
        ),
        (
            "40 kB of trailer",
            format!("{chunked}{trailer}"),
            Fate::Broken,
        ),
        ("101 trailers", format!("{chunked}{trailers}"), Fate::Broken),
    ];
    let input = |(name, text, fate)| Input::new("large", name, text, fate);
    large.into_iter().map(input).collect()
}
