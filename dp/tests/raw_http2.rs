//! Frames that make no request, or more of them than they should: what the client gets, and what the upstream sees.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::*;
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const LAST: u8 = END_STREAM | END_HEADERS;

/// What comes of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The request on stream 1 is answered with this status; the upstream sees nothing.
    Refused(u16),
    /// The stream is reset, or the connection ended with GOAWAY, or just closed; the upstream sees nothing.
    Broken,
    /// The upstream sees one request with this target and body.
    One(&'static str, &'static str),
    /// The same, or the connection ended; the upstream sees this request or nothing.
    AtMost(&'static str, &'static str),
    /// The upstream may see the head; it never sees a whole body.
    Cut,
}

use Fate::{AtMost, Broken, Cut, One, Refused};

type Fields = &'static [(&'static str, &'static str)];

const GOOD: Fields = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/x"),
    (":authority", "a"),
];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Literal fields, without indexing and without Huffman coding.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            let mut length = text.len();
            if length < 127 {
                bytes.push(u8::try_from(length).unwrap());
            } else {
                bytes.push(127);
                length -= 127;
                while length >= 128 {
                    bytes.push(u8::try_from(length % 128 + 128).unwrap());
                    length /= 128;
                }
                bytes.push(u8::try_from(length).unwrap());
            }
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

fn get(list: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, LAST, 1, &fields(list))
}

/// A POST with these further fields, and these bodies in frames of their own.
fn post(extra: &[(&str, &str)], bodies: &[&str]) -> Vec<u8> {
    let mut list = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/x"),
        (":authority", "a"),
    ];
    list.extend_from_slice(extra);
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &fields(&list));
    for (index, body) in bodies.iter().enumerate() {
        let last = if index + 1 == bodies.len() {
            END_STREAM
        } else {
            0
        };
        bytes.extend(frame(DATA, last, 1, body.as_bytes()));
    }
    bytes
}

/// Requests by their fields.
#[rustfmt::skip]
const HEADS: &[(Fields, Fate)] = &[
    (GOOD, One("/x", "")),
    (&[(":path", "/x"), (":scheme", "https"), (":authority", "a"), (":method", "GET")], One("/x", "")),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), ("host", "a")], One("/x", "")),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("host", "a")], One("/x", "")),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("host", "b")], Refused(400)),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), ("host", "a"), ("host", "b")], Refused(400)),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x")], Refused(400)),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a@b")], Refused(400)),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a b")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a:99999")], Refused(400)),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/a/../x"), (":authority", "a")], One("/x", "")),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/%2e%2e//x"), (":authority", "a")], One("/x", "")),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/a/..%2fx"), (":authority", "a")], Refused(400)),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/a%00"), (":authority", "a")], Refused(400)),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/a\\b"), (":authority", "a")], Refused(400)),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/a b"), (":authority", "a")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x HTTP/1.1\r\nX: y"), (":authority", "a")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "x"), (":authority", "a")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", ""), (":authority", "a")], Broken),
    (&[(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), (":authority", "a")], Refused(400)),
    (&[(":method", "GET"), (":scheme", "http"), (":authority", "a")], Broken),
    (&[(":method", "GET"), (":path", "/x"), (":authority", "a")], Broken),
    (&[(":scheme", "http"), (":path", "/x"), (":authority", "a")], Broken),
    (&[(":method", ""), (":scheme", "http"), (":path", "/x"), (":authority", "a")], Broken),
    (&[(":method", "G T"), (":scheme", "http"), (":path", "/x"), (":authority", "a")], Broken),
    (&[(":method", "TRACE"), (":scheme", "http"), (":path", "/x"), (":authority", "a")], Refused(405)),
    (&[(":method", "CONNECT"), (":authority", "a:80")], Refused(405)),
    (&[(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/x"), (":authority", "a")], Broken),
    (&[(":method", "GET"), (":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":path", "/y"), (":authority", "a")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), (":authority", "b")], Broken),
    (&[(":method", "GET"), ("a", "b"), (":scheme", "http"), (":path", "/x"), (":authority", "a")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), (":status", "200")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), (":x", "y")], Broken),
    (&[(":method", "GET"), (":scheme", "ftp"), (":path", "/x"), (":authority", "a")], Refused(400)),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("connection", "close")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("keep-alive", "5")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("proxy-connection", "close")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("upgrade", "h2c")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("transfer-encoding", "chunked")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("te", "gzip")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("te", "trailers")], One("/x", "")),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("X-A", "b")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("x a", "b")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("x:a", "b")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("", "b")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("x\r\ny", "b")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("x-a", "b\r\nX: y")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("x-a", "b\nc")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("x-a", "b\0c")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("x_a", "b")], One("/x", "")),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("content-length", "0")], One("/x", "")),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("content-length", "2")], Broken),
    (&[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("content-length", "x")], Broken),
];

/// Other frames.
#[rustfmt::skip]
fn others() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let good = || get(GOOD);
    let big = "a".repeat(40_000);
    let large: Vec<(&str, &str)> = [GOOD, &[("x-a", big.as_str())]].concat();
    let block = fields(&large);
    let mut split = frame(HEADERS, END_STREAM, 1, &block[..16_384]);
    split.extend(frame(CONTINUATION, 0, 1, &block[16_384..32_768]));
    split.extend(frame(CONTINUATION, END_HEADERS, 1, &block[32_768..]));
    let half = fields(GOOD);
    let mut halves = frame(HEADERS, END_STREAM, 1, &half[..5]);
    halves.extend(frame(CONTINUATION, END_HEADERS, 1, &half[5..]));
    let mut flood = frame(HEADERS, END_STREAM, 1, &half);
    (0..10_000).for_each(|_| flood.extend(frame(CONTINUATION, 0, 1, &[])));
    let mut between = frame(HEADERS, END_STREAM, 1, &half[..5]);
    between.extend(frame(PING, 0, 0, &[0; 8]));
    between.extend(frame(CONTINUATION, END_HEADERS, 1, &half[5..]));
    let again = [post(&[], &["hi"]), frame(DATA, END_STREAM, 1, b"more")].concat();
    vec![
        ("a body", post(&[], &["h", "i"]), One("/x", "hi")),
        ("a body of the length told", post(&[("content-length", "2")], &["hi"]), One("/x", "hi")),
        ("an empty body of no length", post(&[], &[""]), One("/x", "")),
        ("a body that is too long", post(&[("content-length", "1")], &["hi"]), Cut),
        ("a body that is too short", post(&[("content-length", "3")], &["hi"]), Cut),
        ("two lengths", post(&[("content-length", "2"), ("content-length", "3")], &["hi"]), Broken),
        ("the same length twice", post(&[("content-length", "2"), ("content-length", "2")], &["hi"]), Refused(400)),
        ("a length with zeros", post(&[("content-length", "02")], &["hi"]), Refused(400)),
        ("a list of lengths", post(&[("content-length", "2, 2")], &["hi"]), Broken),
        ("a signed length", post(&[("content-length", "+2")], &["hi"]), Broken),
        ("data after the end", again, AtMost("/x", "hi")),
        ("trailers", [post(&[], &[])[..].to_vec(), frame(DATA, 0, 1, b"hi"), frame(HEADERS, LAST, 1, &fields(&[("x-a", "b")]))] .concat(), One("/x", "hi")),
        // Such fields are taken out.
        ("trailers with a pseudo field", [post(&[], &[]), frame(DATA, 0, 1, b"hi"), frame(HEADERS, LAST, 1, &fields(&[(":path", "/y")]))] .concat(), One("/x", "hi")),
        ("trailers that end nothing", [post(&[], &[]), frame(HEADERS, END_HEADERS, 1, &fields(&[("x-a", "b")]))] .concat(), Cut),
        ("a head of 40 kB", split, Refused(431)),
        ("a head in two frames", halves, One("/x", "")),
        ("a flood of CONTINUATION", flood, Broken),
        ("a frame between head and CONTINUATION", between, Broken),
        ("CONTINUATION alone", frame(CONTINUATION, END_HEADERS, 1, &half), Broken),
        ("a stream of the server", frame(HEADERS, LAST, 2, &half), Broken),
        ("stream 0", frame(HEADERS, LAST, 0, &half), Broken),
        ("DATA on stream 0", frame(DATA, 0, 0, b"hi"), Broken),
        ("DATA on an idle stream", frame(DATA, 0, 1, b"hi"), Broken),
        ("RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), Broken),
        ("RST_STREAM of a wrong size", [good(), frame(RST_STREAM, 0, 1, &[0; 3])].concat(), Cut),
        ("PUSH_PROMISE from a client", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), Broken),
        ("PING of a wrong size", frame(PING, 0, 0, &[0; 7]), Broken),
        ("PING on a stream", frame(PING, 0, 1, &[0; 8]), Broken),
        ("SETTINGS of a wrong size", frame(SETTINGS, 0, 0, &[0; 5]), Broken),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), Broken),
        ("SETTINGS ack with content", frame(SETTINGS, 1, 0, &[0; 6]), Broken),
        ("a window too large by SETTINGS", frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]), Broken),
        ("frames too small by SETTINGS", frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]), Broken),
        ("WINDOW_UPDATE of 0", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), Broken),
        ("WINDOW_UPDATE too large", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), Broken),
        ("PRIORITY on itself", frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]), Broken),
        ("a frame larger than allowed", frame(DATA, 0, 1, &[0; 20_000]), Broken),
        ("padding longer than the frame", frame(HEADERS, LAST | 8, 1, &[200, 0x82]), Broken),
        ("HPACK index 0", frame(HEADERS, LAST, 1, &[0x80]), Broken),
        ("HPACK index beyond the table", frame(HEADERS, LAST, 1, &[0xff, 0x80, 0x01]), Broken),
        ("HPACK integer that overflows", frame(HEADERS, LAST, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Broken),
        ("HPACK table larger than allowed", frame(HEADERS, LAST, 1, &[0x3f, 0xff, 0xff, 0x7f, 0x82]), Broken),
        ("HPACK string cut off", frame(HEADERS, LAST, 1, &[0, 5, b'a']), Broken),
        ("an unknown frame, then a request", [frame(0x42, 0xff, 0, b"hello"), good()].concat(), One("/x", "")),
        ("GOAWAY, then a request", [frame(GOAWAY, 0, 0, &[0; 8]), good()].concat(), One("/x", "")),
        ("HTTP/1.1 in place of frames", b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Broken),
    ]
}

/// An origin that keeps what it was asked for, with the body, or `cut` if that did not come whole.
async fn recorder() -> (Origin, Arc<Mutex<Vec<(String, String)>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let origin = Origin::serve(move |request| {
        let kept = Arc::clone(&kept);
        Box::pin(async move {
            use http_body_util::BodyExt;
            let target = request.uri().to_string();
            let mut names = request.headers().keys();
            assert!(names.all(|name| !name.as_str().contains('_')));
            let body = request.into_body().collect().await;
            let body = body.map_or("cut".into(), |body| {
                String::from_utf8(body.to_bytes().to_vec()).unwrap()
            });
            kept.lock().unwrap().push((target, body));
            http::Response::new(reply("ok"))
        })
    });
    (origin.await, seen)
}

/// What a client was told.
#[derive(Debug, Default)]
struct Told {
    /// The beginning of each block of headers on stream 1.
    heads: Vec<Vec<u8>>,
    reset: bool,
    ended: bool,
}

impl Told {
    fn status(&self) -> Option<u16> {
        Some(match self.heads.first()?[..] {
            [0x88, ..] => 200,
            [0x8c, ..] => 400,
            [0x8d, ..] => 404,
            // By the name's index, with Huffman coding: the digits 405 and 431.
            [0x48, 0x83, 0x68, 0x0d, 0xff, ..] => 405,
            [0x48, 0x83, 0x69, 0x90, 0xff, ..] => 431,
            _ => 0,
        })
    }
}

/// Sends frames, and reads until the answer, or the end, or until the gateway answers a ping after them.
async fn send(gateway: &Gateway, frames: &[u8]) -> Told {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[]), frames].concat();
    // The gateway may close before it has read all of it.
    let _ = stream.write_all(&bytes).await;
    let mut told = Told::default();
    loop {
        let mut head = [0; 9];
        let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut head)).await;
        if read.expect("an answer, or an end").is_err() {
            told.ended = true;
            return told;
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        if stream.read_exact(&mut payload).await.is_err() {
            told.ended = true;
            return told;
        }
        let on_stream = head[5..] == [0, 0, 0, 1];
        match head[3] {
            HEADERS if on_stream => {
                told.heads.push(payload);
                if head[4] & END_STREAM != 0 {
                    return told;
                }
            }
            DATA if on_stream && head[4] & END_STREAM != 0 => return told,
            RST_STREAM if on_stream => {
                told.reset = true;
                return told;
            }
            GOAWAY => told.ended = true,
            _ => {}
        }
    }
}

#[tokio::test]
async fn frames_make_one_request_or_none() {
    let heads = HEADS
        .iter()
        .map(|(list, fate)| (format!("{list:?}"), get(list), *fate));
    let others = others()
        .into_iter()
        .map(|(name, bytes, fate)| (name.to_owned(), bytes, fate));
    let cases: Vec<_> = heads.chain(others).collect();
    assert!(cases.len() >= 90, "only {}", cases.len());
    let mut wrong = Vec::new();
    for (name, bytes, fate) in &cases {
        let (origin, seen) = recorder().await;
        let gateway = Gateway::listening(
            "http2",
            &[
                service(1, origin.address, json!({})),
                route(2, json!({ "paths": ["/"], "strip_path": false })),
            ],
        );
        let told = send(&gateway, bytes).await;
        // What the upstream has not been asked for by now, it never is.
        drop(gateway);
        let seen = seen.lock().unwrap().clone();
        let good = match *fate {
            Refused(status) => told.status() == Some(status) && seen.is_empty(),
            Broken => told.status().is_none() && (told.reset || told.ended) && seen.is_empty(),
            One(target, body) => {
                told.status() == Some(200) && seen == [(target.to_owned(), body.to_owned())]
            }
            AtMost(target, body) => {
                let whole = (target.to_owned(), body.to_owned());
                seen.iter().all(|(_, body)| body == "cut") || seen == [whole]
            }
            Cut => told.status() != Some(200) && seen.iter().all(|(_, body)| body == "cut"),
        };
        if !good {
            wrong.push(format!("{name} {fate:?}\n  got {told:x?}\n  saw {seen:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

async fn ends_by(options: sluice_dp::proxy::Options, round: &[u8]) -> bool {
    let origin = Origin::serve(|_| Box::pin(std::future::pending())).await;
    let mut options = options;
    options.listen = vec!["127.0.0.1:0 http2".parse().unwrap()];
    let entities = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ];
    let gateway = Gateway::with(options, &entities);
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    // A client that reads: what it is sent must not fill up.
    let reading = tokio::spawn(async move {
        let mut buffer = [0; 16_384];
        while let Ok(1..) = reader.read(&mut buffer).await {}
    });
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for number in 0..5000_u32 {
        bytes.extend_from_slice(round);
        // Streams have odd numbers that grow.
        for at in (0..round.len()).filter(|at| round[*at..].starts_with(b"\xee\xee\xee\xee")) {
            let end = bytes.len() - round.len() + at;
            bytes[end..end + 4].copy_from_slice(&(number * 2 + 1).to_be_bytes());
        }
    }
    let _ = writer.write_all(&bytes).await;
    tokio::time::timeout(Duration::from_secs(5), reading)
        .await
        .is_ok()
}

#[tokio::test]
async fn floods_end_the_connection() {
    use sluice_dp::proxy::{Limits, Options};
    let stream = 0xeeee_eeee;
    let begin = frame(HEADERS, LAST, stream, &fields(GOOD));
    let reset = [begin, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat();
    for (name, round) in [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("PRIORITY", frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 0])),
        ("unknown", frame(0x77, 0, 0, &[])),
        ("requests taken back", reset),
    ] {
        assert!(
            ends_by(Options::default(), &round).await,
            "{name} is let through"
        );
    }
    let clients = Limits {
        resets_max: 3,
        ..Limits::default()
    };
    let strict = Options {
        clients,
        ..Options::default()
    };
    let reset = [
        frame(HEADERS, LAST, stream, &fields(GOOD)),
        frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
    ]
    .concat();
    assert!(ends_by(strict, &reset).await);
}
