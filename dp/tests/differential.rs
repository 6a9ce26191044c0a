//! The same bytes through the gateway to parsers that others wrote: nginx and Node's http. Each sees none or exactly one
//! request, told its length in the way the gateway chose.
//!
//! Needs nginx and node on this machine (`scripts/upstreams` installs them); says so if it cannot run, and fails for that
//! where `SLUICE_TEST_UPSTREAMS=required`.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]
#![allow(clippy::print_stdout, reason = "what is not run must be seen")]

mod common;
mod inputs;

use common::programs::{Program, find, not_run};
use common::*;
use inputs::{Fate, Framing, Input, SMUGGLED};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Says which requests it sees, a line of JSON each: method, target, length, coding, and for Node the body.
const NODE: &str = r#"
const http = require('http');
const server = http.createServer((request, response) => {
  let body = '';
  request.on('data', (data) => { body += data; });
  const say = (whole) => console.log(JSON.stringify({
    method: request.method, target: request.url, whole, body, id: request.headers['x-kong-request-id'],
    length: request.headers['content-length'] || '', coding: request.headers['transfer-encoding'] || '',
    lengths: request.rawHeaders.filter((name) => name.toLowerCase() === 'content-length').length,
  }));
  request.on('end', () => { say(true); response.end('ok'); });
  request.on('aborted', () => say(false));
});
server.on('clientError', (error, socket) => { console.log(JSON.stringify({ error: error.code })); socket.destroy(); });
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"#;

/// A parser of somebody else.
struct Upstream {
    name: &'static str,
    address: SocketAddr,
    program: Program,
    _files: tempfile::TempDir,
}

impl Upstream {
    fn node(program: &Path) -> Self {
        let files = tempfile::tempdir().unwrap();
        let program = Program::start(
            Command::new(program)
                .args(["-e", NODE])
                .stdin(Stdio::null())
                .stderr(Stdio::null()),
        );
        let port: u16 = program
            .lines
            .recv_timeout(PATIENCE)
            .unwrap()
            .parse()
            .unwrap();
        Self {
            name: "node",
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            program,
            _files: files,
        }
    }

    /// nginx wants a port that is named; another is tried if somebody else has taken it in between.
    fn nginx(program: &Path) -> Self {
        (0..5)
            .find_map(|_| Self::try_nginx(program))
            .expect("nginx starts")
    }

    fn try_nginx(program: &Path) -> Option<Self> {
        let files = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let place = files.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {place}/{kind};\n"))
            .concat();
        let user = if is_root() { "user root;\n" } else { "" };
        let config = format!(
            r#"{user}daemon off; master_process off; worker_processes 1; pid {place}/pid; error_log stderr crit;
            events {{ worker_connections 64; }}
            http {{
                {temporary}
                log_format seen escape=json '{{"method":"$request_method","target":"$request_uri","length":"$http_content_length","coding":"$http_transfer_encoding","status":"$status","id":"$http_x_kong_request_id"}}';
                access_log /dev/stdout seen;
                large_client_header_buffers 4 64k;
                server {{
                    listen {port};
                    location / {{ client_max_body_size 0; return 200 ok; }}
                }}
            }}"#
        );
        std::fs::write(files.path().join("conf"), config).unwrap();
        let mut program = Program::start(
            Command::new(program)
                .args(["-e", "stderr", "-p"])
                .arg(files.path())
                .arg("-c")
                .arg(files.path().join("conf"))
                .stdin(Stdio::null()),
        );
        let until = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(port).is_err() {
            if program.process.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(Instant::now() < until, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Self {
            name: "nginx",
            address: port,
            program,
            _files: files,
        })
    }

    /// What it has seen since the last call: everything up to a request that asks for the end.
    async fn seen(&self, number: usize) -> Vec<Value> {
        let mark = format!("/mark-{number}");
        let request = format!("GET {mark} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        raw(self.address, request.as_bytes()).await;
        let mut seen = Vec::new();
        loop {
            let line = self
                .program
                .lines
                .recv_timeout(PATIENCE)
                .expect("it says what it sees");
            let line: Value = serde_json::from_str(&line).unwrap();
            if line["target"] == mark {
                return seen;
            }
            seen.push(line);
        }
    }
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|id| id.stdout == b"0\n")
}

/// What is wrong with what an upstream saw.
fn judge(name: &str, input: &Input, buffered: bool, seen: &[Value]) -> Result<(), String> {
    let check = |good: bool, what: &str| good.then_some(()).ok_or_else(|| what.to_owned());
    let (target, body, framing) = match input.fate {
        Fate::Refused(_) | Fate::Closed => return check(seen.is_empty(), "it was passed on"),
        Fate::Broken => {
            // nginx answers before it has all, Node says that it was cut off.
            let cut = |line: &Value| name == "nginx" || line["whole"] != true;
            return check(seen.len() <= 2 && seen.iter().all(cut), "a whole request");
        }
        Fate::One(target, body, framing) => (target, body, framing.sent(buffered, body)),
        Fate::Without(_) | Fate::With(_) => ("/x", "", Framing::None),
    };
    let [line] = seen else {
        return Err("not one request".into());
    };
    check(line["target"] == target, "another target")?;
    let (length, coding) = match framing {
        Framing::None => (String::new(), ""),
        Framing::Length(length) => (length.to_string(), ""),
        Framing::Chunked => (String::new(), "chunked"),
    };
    check(
        line["length"] == length && line["coding"] == coding,
        "another framing",
    )?;
    match name {
        "node" => check(
            line["body"] == body && line["whole"] == true,
            "another body",
        ),
        _ => check(line["status"] == "200", "not understood"),
    }
}

async fn differ(upstream: &Upstream) {
    for buffered in [true, false] {
        differ_as(upstream, buffered).await;
    }
}

async fn differ_as(upstream: &Upstream, buffered: bool) {
    let gateway = Gateway::start(&[
        service(1, upstream.address, json!({ "retries": 0 })),
        route(
            2,
            json!({ "paths": ["/"], "strip_path": false, "request_buffering": buffered }),
        ),
    ]);
    let inputs = inputs::all();
    let mut wrong = Vec::new();
    upstream.seen(usize::MAX).await;
    for (number, input) in inputs.iter().enumerate() {
        let bytes = [&input.bytes, SMUGGLED.as_bytes()].concat();
        let received = raw(gateway.address, &bytes).await;
        let mut seen = upstream.seen(number).await;
        // A connection that was cut off may be noticed after its input's mark.
        let late = |line: &Value| {
            let cut = line["whole"] == false || !line["error"].is_null() || line["status"] == "400";
            let own = line["id"].as_str().is_some_and(|id| received.contains(id));
            cut && !own
        };
        seen.retain(|line| !late(line));
        if let Err(why) = judge(upstream.name, input, buffered, &seen) {
            wrong.push(format!(
                "{why}: {} {:?}\n  got {received:?}\n  saw {seen:?}",
                input.name, input.fate
            ));
        }
    }
    let (name, count) = (upstream.name, inputs.len());
    assert!(
        wrong.is_empty(),
        "{name}: {} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    println!("{name} and the gateway agree on {count} inputs");
}

#[tokio::test]
async fn nginx_sees_what_the_gateway_means() {
    match find("nginx") {
        Some(program) => differ(&Upstream::nginx(&program)).await,
        None => not_run("nginx"),
    }
}

#[tokio::test]
async fn node_sees_what_the_gateway_means() {
    match find("node") {
        Some(program) => differ(&Upstream::node(&program)).await,
        None => not_run("node"),
    }
}
