//! Counting in Redis, with a real server. NOT RUN where there is none (scripts/upstreams installs it).

#![allow(clippy::print_stdout, reason = "what does not run is told")]

use crate::common::secure::Ca;
use crate::common::*;
use crate::support::*;
use serde_json::{Value, json};
use sluice_dp::proxy::{Options, load_authorities};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Another process may take a port that was free.
const STARTS_MAX: usize = 5;

/// A redis-server.
struct Redis {
    port: u16,
    child: Child,
    arguments: Vec<String>,
    directory: tempfile::TempDir,
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Redis {
    /// `None` if there is none on this machine.
    fn start(arguments: &[&str]) -> Option<Self> {
        let installed = Command::new("redis-server")
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        if installed.is_err() {
            println!("NOT RUN: there is no redis-server here (scripts/upstreams installs it)");
            return None;
        }
        let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..STARTS_MAX {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            if let Some(child) = spawn(port, &arguments, &directory) {
                return Some(Self {
                    port,
                    child,
                    arguments,
                    directory,
                });
            }
        }
        panic!("redis-server does not start");
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The same on the same port, empty.
    fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.port, &self.arguments, &self.directory).unwrap();
    }

    fn config(&self, more: Value) -> Value {
        let mut config = json!({ "host": "127.0.0.1", "port": self.port, "timeout": 2000 });
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        config
    }
}

/// A server that takes connections.
fn spawn(port: u16, arguments: &[String], directory: &tempfile::TempDir) -> Option<Child> {
    let tls = arguments
        .iter()
        .any(|argument| argument == "--tls-cert-file");
    let port = port.to_string();
    let ports = if tls {
        vec!["--port", "0", "--tls-port", &port]
    } else {
        vec!["--port", &port]
    };
    let mut child = Command::new("redis-server")
        .args(ports)
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(arguments)
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.any(|line| line.unwrap().contains("eady to accept connections"));
    // It must not wait for somebody to read.
    std::thread::spawn(move || lines.for_each(drop));
    if !ready {
        let _ = child.wait();
        return None;
    }
    Some(child)
}

fn limited(redis: &Redis, config: Value, server: Value) -> Value {
    let mut config = config;
    config["policy"] = json!("redis");
    config["redis"] = redis.config(server);
    config
}

#[tokio::test]
async fn data_planes_that_share_a_redis_let_exactly_the_limit_pass_together() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let config = limited(
        &redis,
        json!({ "minute": 20, "hour": 100 }),
        json!({ "database": 3 }),
    );
    let plugin = [global(10, "rate-limiting", config)];
    let (_one, first) = gateway_with(&plugin).await;
    let (_two, second) = gateway_with(&plugin).await;
    let reply = first.get("/").await;
    assert_eq!(reply.header("x-ratelimit-remaining-minute"), Some("19"));
    assert_eq!(reply.header("x-ratelimit-remaining-hour"), Some("99"));
    let reply = second.get("/").await;
    assert_eq!(reply.header("x-ratelimit-remaining-minute"), Some("18"));
    let clients = [&first, &second, &first, &second].map(|gateway| async {
        let mut client = gateway.client().await;
        let mut passed = 0;
        for _ in 0..10 {
            let reply = client.get("/").await;
            let refused = reply.status == 429;
            assert_eq!(
                refused,
                reply.header("retry-after") == Some("40"),
                "{reply:?}"
            );
            passed += usize::from(!refused);
        }
        passed
    });
    let passed: usize = futures::future::join_all(clients).await.into_iter().sum();
    assert_eq!(passed, 18);
    let reply = first.get("/").await;
    // Those refused are not counted.
    assert_eq!(reply.header("x-ratelimit-remaining-hour"), Some("80"));
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// A server with TLS, the user alice, and a password for others.
fn guarded(ca: &Ca) -> Option<Redis> {
    let pair = ca.issue(&["redis.test"]);
    let (cert, key) = (file(&pair.cert), file(&pair.key));
    let path = |file: &tempfile::NamedTempFile| file.path().to_str().unwrap().to_owned();
    let arguments = [
        "--tls-cert-file",
        &path(&cert),
        "--tls-key-file",
        &path(&key),
        "--tls-auth-clients",
        "no",
        "--user",
        "alice",
        "on",
        ">secret",
        "~*",
        "&*",
        "+@all",
        "--requirepass",
        "other",
    ];
    // It has read its files when it takes connections.
    Redis::start(&arguments)
}

#[tokio::test]
async fn redis_is_reached_as_configured() {
    let ca = Ca::new();
    let Some(redis) = guarded(&ca) else {
        return;
    };
    let trusted = file(&ca.pem);
    let mut options = options();
    options.tls.trusted = load_authorities(&[trusted.path().to_owned()]).unwrap();
    let check = async |server: Value, reached: bool| {
        for tolerant in [true, false] {
            let config = json!({ "minute": 50, "fault_tolerant": tolerant });
            let plugin = global(10, "rate-limiting", limited(&redis, config, server.clone()));
            let origin = Origin::echo().await;
            let base = [
                service(1, origin.address, json!({})),
                route(2, json!({ "paths": ["/"] })),
                plugin,
            ];
            let gateway = Gateway::with(Options { ..options.clone() }, &base);
            let reply = gateway.get("/").await;
            let status = if reached || tolerant { 200 } else { 500 };
            assert_eq!(reply.status, status, "{server} {reply:?}");
            let told = reply.header("ratelimit-limit").is_some();
            assert_eq!(told, reached, "{server}");
            if status == 500 {
                assert_eq!(reply.message(), "An unexpected error occurred");
            }
        }
    };
    let ssl = json!({ "ssl": true, "username": "alice", "password": "secret" });
    let with = |more: Value| {
        let mut server = ssl.clone();
        server
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        server
    };
    check(ssl.clone(), true).await;
    check(with(json!({ "username": null, "password": "other" })), true).await;
    check(with(json!({ "password": "wrong" })), false).await;
    check(with(json!({ "username": null, "password": null })), false).await;
    check(with(json!({ "ssl": false, "timeout": 300 })), false).await;
    check(with(json!({ "ssl_verify": true })), false).await;
    check(
        with(json!({ "ssl_verify": true, "server_name": "redis.test" })),
        true,
    )
    .await;
    check(
        with(json!({ "ssl_verify": true, "server_name": "other.test" })),
        false,
    )
    .await;
}

#[tokio::test]
async fn a_redis_that_goes_away_and_comes_back_is_used_again_by_itself() {
    let Some(mut redis) = Redis::start(&[]) else {
        return;
    };
    let config = |tolerant: bool| {
        limited(
            &redis,
            json!({ "hour": 1000, "fault_tolerant": tolerant }),
            json!({}),
        )
    };
    let (_origin, gateway) = gateway_with(&[
        route(3, json!({ "paths": ["/strict"] })),
        global(10, "rate-limiting", config(true)),
        scoped(11, "rate-limiting", config(false), &[("route", 3)]),
    ])
    .await;
    let mut client = gateway.client().await;
    for path in ["/", "/strict"] {
        let reply = client.get(path).await;
        assert_eq!(reply.header("ratelimit-remaining"), Some("999"), "{path}");
    }
    redis.kill();
    for _ in 0..20 {
        let began = Instant::now();
        let reply = client.get("/").await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("ratelimit-limit")),
            (200, None)
        );
        let reply = client.get("/strict").await;
        assert_eq!(reply.status, 500);
        // Nobody waits for what is known to be away.
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    redis.restart();
    let began = Instant::now();
    loop {
        let reply = client.get("/strict").await;
        if reply.status == 200 {
            // What was counted went with the server.
            assert_eq!(reply.header("ratelimit-remaining"), Some("999"));
            break;
        }
        assert!(began.elapsed() < PATIENCE, "it is not used again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let reply = client.get("/").await;
    assert_eq!(reply.header("ratelimit-remaining"), Some("999"));
}

#[tokio::test]
async fn data_planes_that_synchronise_learn_of_each_other_in_time() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let config = limited(
        &redis,
        json!({ "hour": 1000, "sync_rate": 0.05 }),
        json!({}),
    );
    let plugin = [global(10, "rate-limiting", config)];
    let (_one, first) = gateway_with(&plugin).await;
    let (_two, second) = gateway_with(&plugin).await;
    let mut client = first.client().await;
    for used in 1..=30 {
        let reply = client.get("/").await;
        assert_eq!(
            reply.header("ratelimit-remaining"),
            Some(&*(1000 - used).to_string())
        );
    }
    let mut client = second.client().await;
    let began = Instant::now();
    for used in 1.. {
        let reply = client.get("/").await;
        let remaining = reply.header("ratelimit-remaining");
        if remaining == Some(&*(1000 - 30 - used).to_string()) {
            break;
        }
        assert_eq!(remaining, Some(&*(1000 - used).to_string()));
        assert!(began.elapsed() < PATIENCE, "it never learns");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_answers_use_is_counted_in_redis_too() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let config = json!({ "limits": { "videos": { "minute": 5 } } });
    let plugin = [global(
        10,
        "response-ratelimiting",
        limited(&redis, config, json!({})),
    )];
    let (_one, first) = crate::response_ratelimiting::gateway(&plugin).await;
    let (_two, second) = crate::response_ratelimiting::gateway(&plugin).await;
    let reply = first
        .client()
        .await
        .get_with("/", &[("x-use", "videos=2")])
        .await;
    assert_eq!(
        reply.header("x-ratelimit-remaining-videos-minute"),
        Some("3")
    );
    // It is told after the answer.
    let began = Instant::now();
    loop {
        let reply = second.client().await.get_with("/", &[("x-use", "")]).await;
        if reply.header("x-ratelimit-remaining-videos-minute") == Some("3") {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "it is never counted");
    }
    let reply = second
        .client()
        .await
        .get_with("/", &[("x-use", "videos=3")])
        .await;
    assert_eq!(
        reply.header("x-ratelimit-remaining-videos-minute"),
        Some("0")
    );
}
