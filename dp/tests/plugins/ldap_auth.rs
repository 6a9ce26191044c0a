//! `ldap-auth`, asking OpenLDAP's slapd. Says so if that is not on this machine (`scripts/upstreams` installs it).

#![allow(clippy::print_stderr, reason = "who is not run says so")]

use crate::common::consistency::is_consistent;
use crate::common::secure::Ca;
use crate::common::*;
use crate::support::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, TcpListener as Std, TcpStream as StdStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const BASE: &str = "ou=people,dc=example,dc=com";

/// A directory with Bob, whose password is `open: sesame`.
struct Slapd {
    child: Child,
    port: u16,
    tls_port: u16,
    _files: TempDir,
}

impl Drop for Slapd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let places = [
        "/usr/sbin",
        "/usr/local/sbin",
        "/usr/libexec",
        "/usr/local/libexec",
    ];
    let path = places.iter().map(|place| Path::new(place).join(name));
    path.into_iter().find(|path| path.exists())
}

impl Slapd {
    /// `None` if there is none on this machine. Another port is tried if somebody else has taken it in between.
    fn start() -> Option<Self> {
        let Some(slapd) = program("slapd") else {
            eprintln!("NOT RUN: slapd is not installed");
            return None;
        };
        let started = (0..5).find_map(|_| Self::try_start(&slapd));
        Some(started.expect("slapd starts"))
    }

    fn try_start(slapd: &Path) -> Option<Self> {
        let files = tempfile::tempdir().unwrap();
        let place = |name: &str| files.path().join(name);
        let pair = Ca::new().issue(&["localhost"]);
        std::fs::write(place("cert.pem"), &pair.cert).unwrap();
        std::fs::write(place("key.pem"), &pair.key).unwrap();
        std::fs::create_dir(place("data")).unwrap();
        let root = files.path().display();
        let config = format!(
            "include /etc/ldap/schema/core.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n\
             pidfile {root}/pid\nTLSCertificateFile {root}/cert.pem\nTLSCertificateKeyFile {root}/key.pem\n\
             database mdb\nmaxsize 1048576\nsuffix \"dc=example,dc=com\"\ndirectory {root}/data\n"
        );
        std::fs::write(place("slapd.conf"), config).unwrap();
        let entries = format!(
            "dn: dc=example,dc=com\nobjectClass: dcObject\nobjectClass: organization\no: e\ndc: example\n\n\
             dn: {BASE}\nobjectClass: organizationalUnit\nou: people\n\n\
             dn: cn=bob,{BASE}\nobjectClass: person\ncn: bob\nsn: b\nuserPassword: open: sesame\n\n\
             dn: ou=other,{BASE}\nobjectClass: organizationalUnit\nou: other\n\n\
             dn: cn=eve,ou=other,{BASE}\nobjectClass: person\ncn: eve\nsn: e\nuserPassword: open: sesame\n\n"
        );
        std::fs::write(place("entries.ldif"), entries).unwrap();
        let added = Command::new(slapd)
            .args(["-T", "add", "-f"])
            .arg(place("slapd.conf"))
            .arg("-l")
            .arg(place("entries.ldif"))
            .output()
            .unwrap();
        assert!(
            added.status.success(),
            "{}",
            String::from_utf8_lossy(&added.stderr)
        );
        let [port, tls_port] = [free(), free()];
        let mut child = Command::new(slapd)
            .args(["-d", "0", "-h"])
            .arg(format!(
                "ldap://127.0.0.1:{port} ldaps://127.0.0.1:{tls_port}"
            ))
            .arg("-f")
            .arg(place("slapd.conf"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let listens = |port| StdStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        let until = std::time::Instant::now() + PATIENCE;
        while !listens(port) || !listens(tls_port) {
            if child.try_wait().unwrap().is_some() || std::time::Instant::now() > until {
                return None;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Some(Self {
            child,
            port,
            tls_port,
            _files: files,
        })
    }
}

fn free() -> u16 {
    let listener = Std::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn ldap(port: u16, config: Value) -> Entity {
    let mut all =
        json!({ "ldap_host": "127.0.0.1", "ldap_port": port, "base_dn": BASE, "attribute": "cn" });
    all.as_object_mut()
        .unwrap()
        .extend(config.as_object().unwrap().clone());
    global(12, "ldap-auth", all)
}

fn claim(scheme: &str, pair: &str) -> String {
    format!("{scheme} {}", STANDARD.encode(pair))
}

const WRONG: [&str; 7] = [
    "bob:wrong",
    "bob:",
    "bob",
    ":open: sesame",
    "eve:open: sesame",
    "eve,ou=other:open: sesame",
    "bob,:open: sesame",
];

#[tokio::test]
async fn a_real_directory_says_who_has_which_password() {
    let Some(slapd) = Slapd::start() else { return };
    let guest = consumer(20, json!({ "username": "guest" }));
    let (_origin, gateway) = gateway_with(&[guest, ldap(slapd.port, json!({}))]).await;
    let bob = claim("ldap", "bob:open: sesame");
    for (port, config, works) in [
        (slapd.port, json!({}), true),
        (slapd.port, json!({ "start_tls": true }), true),
        (
            slapd.tls_port,
            json!({ "ldaps": true, "ldap_host": "localhost" }),
            true,
        ),
        // Nobody on this machine vouches for that certificate.
        (
            slapd.tls_port,
            json!({ "ldaps": true, "verify_ldap_host": true }),
            false,
        ),
        (
            slapd.port,
            json!({ "start_tls": true, "verify_ldap_host": true }),
            false,
        ),
    ] {
        gateway.apply(&[ldap(port, config.clone())]);
        let reply = ask(
            &gateway,
            "GET",
            "/",
            &[("authorization", &bob), ("x-consumer-id", "forged")],
        )
        .await;
        if !works {
            is_refused(&reply, 500, "An unexpected error occurred");
            continue;
        }
        assert_eq!(reply.status, 200, "{config}");
        assert_eq!(
            reply.received("x-credential-identifier").as_deref(),
            Some("bob")
        );
        for name in [
            "x-consumer-id",
            "x-consumer-username",
            "x-anonymous-consumer",
        ] {
            assert_eq!(reply.received(name), None, "{name}");
        }
        for wrong in WRONG {
            let reply = ask(
                &gateway,
                "GET",
                "/",
                &[("authorization", &claim("ldap", wrong))],
            )
            .await;
            is_refused(&reply, 401, "Unauthorized");
            assert_eq!(reply.header("www-authenticate"), Some("LDAP"), "{wrong}");
        }
    }
}

#[tokio::test]
async fn a_real_directory_is_asked_by_other_headers_and_no_more_often_than_needed() {
    let Some(slapd) = Slapd::start() else { return };
    let guest = consumer(20, json!({ "username": "guest" }));
    let (_origin, gateway) = gateway_with(&[guest]).await;
    let bob = claim("ldap", "bob:open: sesame");
    gateway.apply(&[ldap(
        slapd.port,
        json!({ "header_type": "basic", "realm": "here", "hide_credentials": true }),
    )]);
    let reply = ask(&gateway, "GET", "/", &[("authorization", &bob)]).await;
    is_refused(&reply, 401, "Unauthorized");
    assert_eq!(
        reply.header("www-authenticate"),
        Some("basic realm=\"here\"")
    );
    let (bob, eve) = (claim("Basic", "bob:open: sesame"), claim("basic", "eve:x"));
    for headers in [
        &[("authorization", &*bob)][..],
        &[("proxy-authorization", &bob)],
        &[("proxy-authorization", &eve), ("authorization", &bob)],
    ] {
        let reply = ask(&gateway, "GET", "/", headers).await;
        assert_eq!(
            (reply.status.as_u16(), reply.received("authorization")),
            (200, None)
        );
    }
    gateway.apply(&[ldap(slapd.port, json!({ "anonymous": "guest" }))]);
    let reply = gateway.get("/").await;
    assert_eq!(
        reply.received("x-consumer-username").as_deref(),
        Some("guest")
    );
    assert_eq!(
        reply.received("x-anonymous-consumer").as_deref(),
        Some("true")
    );
    // It is asked no more while its answer is kept.
    gateway.apply(&[ldap(slapd.port, json!({ "cache_ttl": 60 }))]);
    let bob = claim("ldap", "bob:open: sesame");
    let good = [("authorization", &*bob)];
    assert_eq!(ask(&gateway, "GET", "/", &good).await.status, 200);
    let slapd_port = slapd.port;
    drop(slapd);
    assert_eq!(ask(&gateway, "GET", "/", &good).await.status, 200);
    let other = claim("ldap", "bob:other");
    let reply = ask(&gateway, "GET", "/", &[("authorization", &other)]).await;
    is_refused(&reply, 500, "An unexpected error occurred");
    // Who might be Bob is not let in as nobody.
    gateway.apply(&[ldap(slapd_port, json!({ "anonymous": "guest" }))]);
    let reply = ask(&gateway, "GET", "/", &good).await;
    is_refused(&reply, 500, "An unexpected error occurred");
}

/// A directory where the password of everybody is what it is told. Counts who asks.
async fn responder(answer: &'static [u8], asked: Arc<AtomicUsize>) -> u16 {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            asked.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
                // Held until the other side goes.
                let _ = stream.read(&mut request).await;
            });
        }
    });
    port
}

const BOUND: &[u8] = b"\x30\x0c\x02\x01\x02\x61\x07\x0a\x01\x00\x04\x00\x04\x00";
const REFUSED: &[u8] = b"\x30\x0c\x02\x01\x02\x61\x07\x0a\x01\x31\x04\x00\x04\x00";

#[tokio::test]
async fn a_directory_is_asked_once_while_its_answer_is_kept_and_its_faults_are_not_kept() {
    let bob = claim("ldap", "bob:password");
    for (answer, status, keeps) in [
        (BOUND, 200, true),
        (REFUSED, 401, true),
        // `unavailable`, then nonsense, then silence.
        (
            b"\x30\x0c\x02\x01\x02\x61\x07\x0a\x01\x34\x04\x00\x04\x00",
            500,
            false,
        ),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 500, false),
        (b"", 500, false),
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        let port = responder(answer, Arc::clone(&asked)).await;
        let (_origin, gateway) = gateway_with(&[ldap(port, json!({ "timeout": 200 }))]).await;
        for _ in 0..3 {
            let reply = ask(&gateway, "GET", "/", &[("authorization", &bob)]).await;
            assert_eq!(reply.status.as_u16(), status, "{answer:?}");
        }
        let expected = if keeps { 1 } else { 3 };
        assert_eq!(asked.swap(0, Ordering::SeqCst), expected, "{answer:?}");
        // Nothing is kept of another version of the plugin, nor with no time to keep it.
        gateway.apply(&[ldap(port, json!({ "timeout": 200, "cache_ttl": 0 }))]);
        for _ in 0..2 {
            ask(&gateway, "GET", "/", &[("authorization", &bob)]).await;
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2, "{answer:?}");
    }
}

#[tokio::test]
async fn ldap_auth_is_consistent() {
    let asked = Arc::new(AtomicUsize::new(0));
    let even = responder(BOUND, Arc::clone(&asked)).await;
    let odd = responder(REFUSED, asked).await;
    let bob = claim("ldap", "bob:password");
    is_consistent(
        |n| {
            let port = if n % 2 == 0 { even } else { odd };
            vec![ldap(port, json!({ "realm": format!("v{n}") })), stamp(n)]
        },
        async |client: &mut Client| client.get_with("/", &[("authorization", &bob)]).await,
        stamped_and_passed,
    )
    .await;
}
