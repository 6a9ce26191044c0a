//! Bodies, and what tells their length.

use super::Fate::{self, Broken, Closed, One, Refused};
use super::Framing::{Chunked, Length, None as Bare};

const BAD: Fate = Refused(400);

/// Lines about the length, and a body.
pub(super) const FRAMINGS: &[(&str, &str, Fate)] = &[
    ("Content-Length: 2\r\n", "hi", One("/x", "hi", Length(2))),
    ("content-length:2\r\n", "hi", One("/x", "hi", Length(2))),
    ("Content-Length: \t2 \r\n", "hi", One("/x", "hi", Length(2))),
    ("Content-Length: 002\r\n", "hi", BAD),
    ("Content-Length: 00\r\n", "", BAD),
    ("Content-Length: 0\r\n", "", One("/x", "", Length(0))),
    ("", "", One("/x", "", Bare)),
    ("Content-Length: 2\r\nContent-Length: 2\r\n", "hi", BAD),
    (
        "Content-Length: 2\r\nX-A: b\r\ncontent-length: 2\r\n",
        "hi",
        BAD,
    ),
    ("Content-Length: 2\r\nContent-Length: 3\r\n", "abc", BAD),
    ("Content-Length: 0\r\nContent-Length: 0\r\n", "", BAD),
    ("Content-Length: 2\r\nContent-Length:\r\n", "hi", BAD),
    ("Content-Length: 2, 2\r\n", "hi", BAD),
    ("Content-Length: 2,3\r\n", "hi", BAD),
    ("Content-Length: +2\r\n", "hi", BAD),
    ("Content-Length: -1\r\n", "hi", BAD),
    ("Content-Length: -0\r\n", "hi", BAD),
    ("Content-Length: 0x2\r\n", "hi", BAD),
    ("Content-Length: 2.0\r\n", "hi", BAD),
    ("Content-Length: 2e0\r\n", "hi", BAD),
    ("Content-Length: 1 2\r\n", "hi", BAD),
    ("Content-Length: 2;a\r\n", "hi", BAD),
    ("Content-Length: \"2\"\r\n", "hi", BAD),
    ("Content-Length: a\r\n", "hi", BAD),
    ("Content-Length:\r\n", "hi", BAD),
    ("Content-Length: \x0b2\r\n", "hi", BAD),
    ("Content-Length: \u{662}\r\n", "hi", BAD),
    ("Content-Length : 2\r\n", "hi", BAD),
    ("Content-Length\t: 2\r\n", "hi", BAD),
    (" Content-Length: 2\r\n", "hi", BAD),
    ("X-A: b\r\n Content-Length: 2\r\n", "hi", BAD),
    ("Content-Length: 18446744073709551616\r\n", "hi", BAD),
    (
        "Content-Length: 18446744073709551615\r\n",
        "hi",
        Refused(431),
    ),
    (
        "Content-Length: 99999999999999999999999999999999999999999999999999\r\n",
        "hi",
        BAD,
    ),
    (
        "Transfer-Encoding: chunked\r\n",
        "2\r\nhi\r\n0\r\n\r\n",
        One("/x", "hi", Chunked),
    ),
    (
        "transfer-encoding:Chunked\r\n",
        "2\r\nhi\r\n0\r\n\r\n",
        One("/x", "hi", Chunked),
    ),
    (
        "Transfer-Encoding: chunked\n",
        "0\r\n\r\n",
        One("/x", "", Chunked),
    ),
    (
        "Content-Length: 60\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
        BAD,
    ),
    (
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "0\r\n\r\n",
        BAD,
    ),
    (
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "0\r\n\r\n",
        BAD,
    ),
    (
        "Transfer-Encoding: chunked\r\nContent-Length: x\r\n",
        "0\r\n\r\n",
        BAD,
    ),
    (
        "Content-Length:\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
        BAD,
    ),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
        BAD,
    ),
    (
        "Transfer-Encoding: chunked\r\nX-A: b\r\nTRANSFER-ENCODING: identity\r\n",
        "0\r\n\r\n",
        BAD,
    ),
    (
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
        BAD,
    ),
    ("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: identity, chunked\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: ,chunked\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: chunked,\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: chunkedx\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: identity\r\n", "hi", BAD),
    ("Transfer-Encoding: gzip\r\n", "hi", BAD),
    ("Transfer-Encoding:\r\n", "hi", BAD),
    ("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: 'chunked'\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: chunked;a=b\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: chunk\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: \x0cchunked\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: chunked\0\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding\r\n : chunked\r\n", "0\r\n\r\n", BAD),
    ("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n", BAD),
    (" Transfer-Encoding: chunked\r\n", "0\r\n\r\n", BAD),
    (
        "Transfer_Encoding: chunked\r\nContent-Length: 2\r\n",
        "hi",
        One("/x", "hi", Length(2)),
    ),
    (
        "X: y\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
        One("/x", "", Chunked),
    ),
    ("X: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n", BAD),
    (
        "Connection: Content-Length\r\nContent-Length: 2\r\n",
        "hi",
        One("/x", "hi", Length(2)),
    ),
    (
        "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
        "2\r\nhi\r\n0\r\n\r\n",
        One("/x", "hi", Chunked),
    ),
    (
        "Expect: 100-continue\r\nContent-Length: 2\r\n",
        "hi",
        One("/x", "hi", Length(2)),
    ),
    (
        "Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 2\r\n",
        "hi",
        One("/x", "hi", Length(2)),
    ),
];

/// Bodies in chunks.
pub(super) const CHUNKS: &[(&str, Fate)] = &[
    ("2\r\nhi\r\n0\r\n\r\n", One("/x", "hi", Chunked)),
    ("1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", One("/x", "hi", Chunked)),
    ("0000000002\r\nhi\r\n000\r\n\r\n", One("/x", "hi", Chunked)),
    (
        "A\r\n0123456789\r\n0\r\n\r\n",
        One("/x", "0123456789", Chunked),
    ),
    (
        "a\r\n0123456789\r\n0\r\n\r\n",
        One("/x", "0123456789", Chunked),
    ),
    ("2;a=b\r\nhi\r\n0;c\r\n\r\n", One("/x", "hi", Chunked)),
    ("2 ;a=\"b\"\r\nhi\r\n0\r\n\r\n", One("/x", "hi", Chunked)),
    ("2\r\nhi\r\n0\r\nX-A: b\r\n\r\n", One("/x", "hi", Chunked)),
    (
        "2\r\nhi\r\n0\r\nContent-Length: 9\r\n\r\n",
        One("/x", "hi", Chunked),
    ),
    ("2\r\nhi\r\nzz\r\n", Broken),
    ("2\r\nhi\r\nfffffffffffffffff\r\n", Broken),
    ("2\r\nhi\r\n2\r\nhiXX0\r\n\r\n", Broken),
    ("2\r\nhi\r\n-1\r\n", Broken),
    ("2\r\nhi\r\n+1\r\nx\r\n0\r\n\r\n", Broken),
    ("2\r\nhi\r\n0x1\r\nx\r\n0\r\n\r\n", Broken),
    ("2\r\nhi\r\n1_0\r\nx\r\n0\r\n\r\n", Broken),
    ("2\r\nhi\r\n 1\r\nx\r\n0\r\n\r\n", Broken),
    ("2\r\nhi\r\n1 1\r\nx\r\n0\r\n\r\n", Broken),
    ("2\r\nhi\r\n\r\n0\r\n\r\n", Broken),
    ("2\r\nhi\r\n;a\r\n0\r\n\r\n", Broken),
    ("2\nhi\r\n0\r\n\r\n", Broken),
    ("2\r\nhi\n0\r\n\r\n", Broken),
    ("2\r\nhi0\r\n\r\n", Broken),
    ("2\r\nhi\r\n0\n\r\n", Broken),
    // What follows is taken for trailers; none are passed on, and the connection ends.
    ("2\r\nhi\r\n0\r\n\n", One("/x", "hi", Chunked)),
    ("2;a\nb\r\nhi\r\n0\r\n\r\n", Broken),
    ("2;\nhi\r\n0\r\n\r\n", Broken),
    ("2\r\nhi\r\n0\r\nX-A\r\n\r\n", Broken),
    ("2\r\nhi\r\n0\r\n X-A: b\r\n\r\n", Broken),
    ("2\r\nhi\r\n0\r\nX A: b\r\n\r\n", Broken),
];

/// Whole messages.
pub(super) const WHOLE: &[(&str, Fate)] = &[
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Closed),
    (
        "POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        BAD,
    ),
    (
        "POST /x HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        One("/x", "hi", Length(2)),
    ),
    (
        "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        One("/x", "hi", Length(2)),
    ),
    (
        "GET /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        One("/x", "hi", Chunked),
    ),
    (
        "HEAD /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        One("/x", "hi", Length(2)),
    ),
    (
        "GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
        BAD,
    ),
    (
        "GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 64\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        BAD,
    ),
    (
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 2\r\n\r\nhi",
        Refused(405),
    ),
    (
        "GET /x HTTP/1.1\nHost: a\nConnection: close\n\n",
        One("/x", "", Bare),
    ),
    (
        "POST /x HTTP/1.1\nHost: a\nConnection: close\nContent-Length: 2\n\nhi",
        One("/x", "hi", Length(2)),
    ),
];
