//! Clients that other people wrote: h2load, a browser, and the public gRPC library, in clear and over TLS.
//!
//! h2load, Chromium and node are installed by `scripts/upstreams`; where they are not, this says so, and fails for that where
//! `SLUICE_TEST_UPSTREAMS=required`. The gRPC library comes with `scripts/python-clients`.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::programs::{Program, find, not_run};
use common::secure::*;
use common::*;
use serde_json::{Value, json};
use sluice_dp::proxy::{Options, TlsOptions};
use sluice_dp::table::Certificate;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// A browser takes its time to start, on a machine that does other things.
const BROWSER_PATIENCE: Duration = Duration::from_secs(120);
/// The site of the browser's page.
const SITE: &str = include_str!("programs/browser.js");
const NAME: &str = "a.test";
/// What grpc_walk.py calls by JSON.
const PROTO: &str = r#"
    syntax = "proto3";
    package shop;
    import "google/api/annotations.proto";
    service Cart {
      rpc Add(Item) returns (Item) {
        option (google.api.http) = {
          post: "/v1/items" body: "*" additional_bindings { get: "/v1/items/{id}" }
        };
      }
      rpc Repeat(Item) returns (stream Item) { option (google.api.http) = { get: "/v1/repeat/{id}" }; }
      rpc Fail(Item) returns (Item) { option (google.api.http) = { get: "/v1/fail" }; }
      rpc Missing(Item) returns (Item) { option (google.api.http) = { get: "/v1/missing" }; }
    }
    message Item { string id = 1; repeated string tags = 2; sint32 count = 3; }
"#;

/// A gateway that listens in clear and over TLS, both with HTTP/2.
struct Both {
    gateway: Gateway,
    clear: SocketAddr,
    secure: SocketAddr,
}

impl Both {
    fn start(ca: &Ca, entities: &[Entity]) -> Self {
        let pair = ca.issue(&[NAME]);
        let certificate = Certificate::from_pem(&[(&pair.cert, &pair.key)]).unwrap();
        let options = Options {
            listen: vec![
                "127.0.0.1:0 http2".parse().unwrap(),
                "127.0.0.1:0 ssl http2".parse().unwrap(),
            ],
            tls: TlsOptions {
                default_certificate: Some(Arc::new(certificate)),
                ..TlsOptions::default()
            },
            ..Options::default()
        };
        let gateway = Gateway::with(options, entities);
        let addresses = gateway.running.addresses();
        Self {
            clear: addresses[0],
            secure: addresses[1],
            gateway,
        }
    }
}

/// A file of the repository.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Runs h2load, all of whose requests must succeed.
fn load(program: &Path, arguments: &[&str], requests: usize, protocol: &str) {
    let output = Command::new(program)
        .args(["-n", &requests.to_string(), "-c", "8"])
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wanted = [
        format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout"),
        format!("status codes: {requests} 2xx"),
        format!("Application protocol: {protocol}"),
    ];
    for wanted in wanted {
        assert!(
            said.contains(&wanted),
            "{arguments:?}: not '{wanted}':\n{said}"
        );
    }
}

#[tokio::test]
async fn h2load_gets_all_its_answers() {
    let Some(program) = find("h2load") else {
        return not_run("h2load");
    };
    let origin = Origin::echo().await;
    let entities = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ];
    let both = Both::start(&Ca::new(), &entities);
    let (clear, secure) = (both.clear, both.secure);
    let (clear, secure) = (format!("http://{clear}/"), format!("https://{secure}/"));
    let body = tempfile::NamedTempFile::new().unwrap();
    body.as_file().write_all(&[b'x'; 200_000]).unwrap();
    let body = body.path().to_str().unwrap();
    for (url, protocol) in [(&clear, "h2c"), (&secure, "h2")] {
        load(&program, &["-m", "20", url], 2_000, protocol);
        load(&program, &["-m", "5", "-d", body, url], 100, protocol);
        // Windows of 16 KiB for a stream and 64 KiB for a connection: the gateway has to wait for them.
        let narrow = ["-w", "14", "-W", "16", "-m", "5", "-d", body, url];
        load(&program, &narrow, 100, protocol);
        load(&program, &["--h1", url], 1_000, "http/1.1");
    }
    drop(both.gateway);
}

/// What a browser found at the site.
fn browse(browser: &Path, site: &Program, url: String) -> Value {
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new(browser);
    command
        .args([
            "--headless",
            // The tests may run as root, where its own sandbox does not.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--ignore-certificate-errors",
            &format!("--host-resolver-rules=MAP {NAME} 127.0.0.1"),
            &format!("--user-data-dir={}", profile.path().display()),
            &url,
        ])
        .env("HOME", profile.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let _running = Program::start(&mut command);
    let report = site.lines.recv_timeout(BROWSER_PATIENCE);
    serde_json::from_str(&report.expect("the page reports")).unwrap()
}

#[test]
fn a_browser_finds_everything_as_without_a_gateway() {
    let (browser, node) = (find("chromium"), find("node"));
    let (Some(browser), Some(node)) = (browser, node) else {
        return not_run("chromium or node");
    };
    let site = Program::start(Command::new(node).args(["-e", SITE]).stdin(Stdio::null()));
    let port: u16 = site.lines.recv_timeout(PATIENCE).unwrap().parse().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let entities = [
        service(1, address, json!({})),
        route(2, json!({ "paths": ["/"], "strip_path": false })),
    ];
    let both = Both::start(&Ca::new(), &entities);
    let cases = [
        ("http", both.clear, "http/1.1", false),
        ("https", both.secure, "h2", true),
    ];
    for (scheme, gateway, protocol, secure) in cases {
        let url = format!("{scheme}://{NAME}:{}/", gateway.port());
        let expected = json!({
            "protocol": protocol, "secure": secure, "parallel": true, "upload": "POST /echo 300000", "large": 500_000,
            "missing": 404, "empty": 204, "head": "500000", "redirect": "/echo", "cookie": "basket=7",
            "streamed": "first,rest", "events": "1,2,3", "socket": "hello,true,true,1000",
        });
        assert_eq!(browse(&browser, &site, url), expected, "{scheme}");
    }
    drop(both.gateway);
}

/// The Python that has the clients.
fn python() -> String {
    let script = file("scripts/python-clients");
    let made = Command::new(&script).output().unwrap();
    let reason = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "no clients to test with: {reason}");
    String::from_utf8(made.stdout).unwrap().trim_end().into()
}

#[test]
fn grpc_calls_of_all_kinds_pass() {
    let ca = Ca::new();
    let pair = ca.issue(&[NAME, "127.0.0.1"]);
    let files = tempfile::tempdir().unwrap();
    for (name, pem) in [
        ("ca.pem", &ca.pem),
        ("cert.pem", &pair.cert),
        ("key.pem", &pair.key),
    ] {
        std::fs::write(files.path().join(name), pem).unwrap();
    }
    let python = python();
    let mut walk = Program::start(
        Command::new(python)
            .args(["-B", "-u"])
            .arg(file("tests/clients/grpc_walk.py"))
            .env("CERTIFICATES", files.path())
            .stdin(Stdio::piped()),
    );
    let ports = walk.lines.recv_timeout(PATIENCE).unwrap();
    let ports: Value = serde_json::from_str(&ports).unwrap();
    let address =
        |name: &str| -> SocketAddr { format!("127.0.0.1:{}", ports[name]).parse().unwrap() };
    // The host tells them apart: a route for grpcs would take calls in clear too, to refuse them.
    let shop = |protocol: &str, service: u128, host: &[&str]| {
        json!({
            "paths": ["/shop.Cart"], "protocols": [protocol], "strip_path": false,
            "service": reference(service), "hosts": host,
        })
    };
    let entities = [
        service(1, address("clear"), json!({ "protocol": "grpc" })),
        service(
            2,
            address("tls"),
            json!({ "protocol": "grpcs", "tls_verify": true, "ca_certificates": [uuid::Uuid::from_u128(5).to_string()] }),
        ),
        ca.entity(5),
        route(3, shop("grpc", 1, &[])),
        route(4, shop("grpcs", 2, &[NAME])),
        route(6, json!({ "paths": ["/v1"], "service": reference(1) })),
        plugin(
            7,
            json!({ "name": "grpc-gateway", "route": reference(6), "config": { "proto": PROTO } }),
        ),
    ];
    let both = Both::start(&ca, &entities);
    let gateways = json!({ "clear": both.clear.to_string(), "tls": both.secure.to_string() });
    let mut input = walk.process.stdin.take().unwrap();
    writeln!(input, "{gateways}").unwrap();
    let status = walk.process.wait().unwrap();
    assert!(status.success(), "grpc_walk.py: {status}");
    drop(both.gateway);
}
