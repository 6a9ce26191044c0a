//! Bytes that try to make two readers disagree. Whatever is refused closes the connection; what passes reaches the
//! upstream as exactly one unambiguous request, and nothing of it is taken for another.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::*;
use serde_json::json;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What comes of an input.
enum Fate {
    /// Refused with this status; the upstream sees nothing.
    Refused(u16),
    /// The connection is closed without an answer.
    Closed,
    /// One request with this target and body reaches the upstream, and the connection ends.
    One(&'static str, &'static str),
}

use Fate::{Closed, One, Refused};

/// What follows an ambiguous message in the attacker's plan.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

const CASES: &[(&str, &str, Fate)] = &[
    (
        "length before coding",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        One("/x", ""),
    ),
    (
        "coding before length",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        One("/x", ""),
    ),
    (
        "two codings",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "identity, chunked",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "chunked, identity",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "xchunked",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "coding in HTTP/1.0",
        "POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "space before the colon",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "vertical tab in the coding",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "differing lengths",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        Refused(400),
    ),
    (
        "list of lengths",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\nab",
        Refused(400),
    ),
    (
        "signed length",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\nab",
        Refused(400),
    ),
    (
        "hexadecimal length",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0x2\r\n\r\nab",
        Refused(400),
    ),
    (
        "negative length",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nab",
        Refused(400),
    ),
    (
        "huge length",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\nab",
        Refused(400),
    ),
    (
        "folded line",
        "GET /x HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n",
        Refused(400),
    ),
    (
        "NUL in a value",
        "GET /x HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n",
        Refused(400),
    ),
    (
        "bare CR in a value",
        "GET /x HTTP/1.1\r\nHost: a\r\nX-A: b\rc\r\n\r\n",
        Refused(400),
    ),
    (
        "no colon",
        "GET /x HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n",
        Refused(400),
    ),
    ("no host", "GET /x HTTP/1.1\r\n\r\n", Refused(400)),
    (
        "two hosts",
        "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        Refused(400),
    ),
    (
        "host with a path",
        "GET /x HTTP/1.1\r\nHost: a/b\r\n\r\n",
        Refused(400),
    ),
    (
        "host with userinfo",
        "GET /x HTTP/1.1\r\nHost: a@b\r\n\r\n",
        Refused(400),
    ),
    (
        "target with userinfo",
        "GET http://a@b/x HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(400),
    ),
    (
        "other scheme",
        "GET ftp://a/x HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(400),
    ),
    (
        "tab in the target",
        "GET /x\ty HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(400),
    ),
    (
        "encoded NUL",
        "GET /x%00y HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(400),
    ),
    (
        "backslash",
        "GET /x\\..\\y HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(400),
    ),
    (
        "broken escape",
        "GET /x%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(400),
    ),
    (
        "asterisk",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(400),
    ),
    (
        "CONNECT",
        "CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n",
        Refused(405),
    ),
    (
        "TRACE",
        "TRACE /x HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(405),
    ),
    (
        "HTTP/2 in clear",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        Closed,
    ),
    (
        "absolute form wins over Host",
        "GET http://b/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        One("/x", ""),
    ),
    (
        "climbing path",
        "GET /a/%2e%2E/%2e%2e//x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        One("/x", ""),
    ),
    (
        "chunk extensions",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n0\r\n\r\n",
        One("/x", "hi"),
    ),
    (
        "upgrade with a body",
        "POST /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nhi",
        One("/x", "hi"),
    ),
    (
        "lengths given twice",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
        One("/x", "hi"),
    ),
];

/// An origin that keeps what reaches it and answers each request once its body is there.
async fn recorder() -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut received = String::new();
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    received += &String::from_utf8_lossy(&buffer[..count]);
                    if is_complete(&received) {
                        kept.lock().unwrap().push(std::mem::take(&mut received));
                        let _ = stream
                            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                            .await;
                    }
                }
                if !received.is_empty() {
                    kept.lock().unwrap().push(format!("cut: {received}"));
                }
            });
        }
    });
    (address, seen)
}

fn is_complete(received: &str) -> bool {
    let Some((head, body)) = received.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with("0\r\n\r\n");
    }
    let length = head
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.lines().next()?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn body_of(message: &str) -> String {
    let (head, body) = message.split_once("\r\n\r\n").unwrap();
    if !head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        return body.to_owned();
    }
    let mut decoded = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        decoded += &after[..size];
        rest = after[size..].trim_start_matches("\r\n");
    }
    decoded
}

#[tokio::test]
async fn ambiguous_input_is_refused_or_passed_on_as_exactly_one_request() {
    for (name, input, fate) in CASES {
        let (origin, seen) = recorder().await;
        let gateway = Gateway::start(&[
            service(1, origin, json!({})),
            route(2, json!({ "paths": ["/"] })),
        ]);
        let received = raw(gateway.address, format!("{input}{SMUGGLED}").as_bytes()).await;
        let seen = seen.lock().unwrap().clone();
        assert!(
            !seen.iter().any(|message| message.contains("smuggled")),
            "{name}: {seen:?}"
        );
        match fate {
            Refused(status) => {
                assert_eq!(statuses(&received), [*status], "{name}: {received}");
                assert_eq!(seen, Vec::<String>::new(), "{name}");
            }
            Closed => assert_eq!((&*received, &seen[..]), ("", &[][..]), "{name}"),
            One(target, body) => {
                assert_eq!(statuses(&received), [200], "{name}: {received}");
                assert_eq!(seen.len(), 1, "{name}: {seen:?}");
                let line = seen[0].lines().next().unwrap();
                assert_eq!(line.split(' ').nth(1), Some(*target), "{name}");
                assert_eq!(body_of(&seen[0]), *body, "{name}");
                let head = seen[0].to_ascii_lowercase();
                let framings = head.matches("content-length:").count()
                    + head.matches("transfer-encoding:").count();
                assert!(framings <= 1, "{name}: {head}");
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_breaks_the_upstream_request_too() {
    let heads = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n";
    for rest in [
        "zz\r\n",
        "fffffffffffffffff\r\n",
        "2\r\nhiXX0\r\n\r\n",
        "-1\r\n",
    ] {
        let (origin, seen) = recorder().await;
        let gateway = Gateway::start(&[
            service(1, origin, json!({})),
            route(2, json!({ "paths": ["/"] })),
        ]);
        let received = raw(
            gateway.address,
            format!("{heads}{rest}{SMUGGLED}").as_bytes(),
        )
        .await;
        assert!(!statuses(&received).contains(&200), "{rest:?}: {received}");
        let seen = seen.lock().unwrap();
        assert!(
            seen.iter().all(|message| message.starts_with("cut: ")),
            "{rest:?}: {seen:?}"
        );
    }
}

#[tokio::test]
async fn a_body_the_client_cuts_off_never_looks_complete() {
    let (origin, seen) = recorder().await;
    let gateway = Gateway::start(&[
        service(1, origin, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ]);
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream
        .write_all(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let mut received = String::new();
    let _ = stream.read_to_string(&mut received).await;
    assert!(!statuses(&received).contains(&200), "{received}");
    // The next request must not be appended to what the first one left.
    let _ = gateway.get("/next").await;
    let seen = seen.lock().unwrap();
    let whole: Vec<_> = seen
        .iter()
        .filter(|message| !message.starts_with("cut: "))
        .collect();
    assert!(
        whole.len() == 1 && whole[0].starts_with("GET /next "),
        "{seen:?}"
    );
}

#[tokio::test]
async fn oversized_heads_are_refused() {
    let gateway = Gateway::start(&[]);
    let long = "a".repeat(70_000);
    for input in [
        format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {long}\r\n\r\n"),
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X-A: b\r\n".repeat(200)
        ),
    ] {
        let received = raw(gateway.address, input.as_bytes()).await;
        assert!(matches!(statuses(&received)[..], [414 | 431]), "{received}");
    }
}
