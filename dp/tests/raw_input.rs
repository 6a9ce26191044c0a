//! Bytes that try to make two readers disagree. Whatever is refused closes the connection; what passes reaches the
//! upstream as exactly one unambiguous request, and nothing of it is taken for another.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;
mod inputs;

use common::*;
use inputs::{Fate, Framing, Input, SMUGGLED};
use serde_json::json;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An origin that keeps what reaches it and answers each request once its body is there.
async fn recorder() -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    // An address that no other test's dead ports are at.
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
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

/// How the upstream was told the length.
fn framing(head: &str) -> Framing {
    let lines: Vec<_> = head
        .lines()
        .filter(|line| {
            line.starts_with("content-length:") || line.starts_with("transfer-encoding:")
        })
        .collect();
    match lines[..] {
        [] => Framing::None,
        ["transfer-encoding: chunked"] => Framing::Chunked,
        [line] => Framing::Length(line["content-length: ".len()..].parse().unwrap()),
        _ => panic!("two framings: {head}"),
    }
}

/// What is wrong with what came of an input.
fn judge(input: &Input, buffered: bool, received: &str, seen: &[String]) -> Result<(), String> {
    let check = |good: bool, what: &str| good.then_some(()).ok_or_else(|| what.to_owned());
    check(
        !seen.iter().any(|message| message.contains("smuggled")),
        "smuggled",
    )?;
    let statuses: Vec<_> = statuses(received)
        .into_iter()
        .filter(|status| *status != 100)
        .collect();
    let (target, body, expected, words, wanted) = match input.fate {
        Fate::Refused(status) => {
            check(statuses == [status], "another status")?;
            return check(seen.is_empty(), "it was passed on");
        }
        Fate::Closed => return check(received.is_empty() && seen.is_empty(), "not just closed"),
        Fate::Broken => {
            check(!statuses.contains(&200), "a success")?;
            let cut = seen.iter().all(|message| message.starts_with("cut: "));
            return check(cut, "a whole request");
        }
        Fate::One(target, body, framing) => {
            (target, body, framing.sent(buffered, body), &[][..], true)
        }
        Fate::Without(words) => ("/x", "", Framing::None, words, false),
        Fate::With(words) => ("/x", "", Framing::None, words, true),
    };
    check(statuses == [200], "another status")?;
    let [message] = seen else {
        return Err("not one request".into());
    };
    let (head, _) = message.split_once("\r\n\r\n").unwrap();
    let head = format!("{head}\r\n").to_lowercase();
    check(
        message.lines().next().unwrap().split(' ').nth(1) == Some(target),
        "another target",
    )?;
    check(body_of(message) == body, "another body")?;
    check(framing(&head) == expected, "another framing")?;
    check(
        words.iter().all(|word| head.contains(word) == wanted),
        "another head",
    )
}

#[tokio::test]
async fn ambiguous_input_is_refused_or_passed_on_as_exactly_one_request() {
    let inputs = inputs::all();
    assert!(inputs.len() >= 200, "only {}", inputs.len());
    let mut wrong = Vec::new();
    let cases = inputs
        .iter()
        .flat_map(|input| [(input, true), (input, false)]);
    for (input, buffered) in cases {
        // One origin each: what comes late must not be taken for the next one's.
        let (origin, seen) = recorder().await;
        let gateway = Gateway::start(&[
            service(1, origin, json!({})),
            route(
                2,
                json!({ "paths": ["/"], "strip_path": false, "request_buffering": buffered }),
            ),
        ]);
        let bytes = [&input.bytes, SMUGGLED.as_bytes()].concat();
        let received = raw(gateway.address, &bytes).await;
        let seen = seen.lock().unwrap().clone();
        if let Err(why) = judge(input, buffered, &received, &seen) {
            wrong.push(format!(
                "{why}: {} {:?}\n  got {received:?}\n  saw {seen:?}",
                input.name, input.fate
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        inputs.len(),
        wrong.join("\n")
    );
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
