//! Who may call, and what each may do.

use crate::server::Server;
use serde_json::{Value, json};
use sluice_cp::access::{Anonymous, Hash, make_token};
use sluice_cp::start::{AccessOptions, AdminTls};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);

/// A file with a token for each of these, written as TOML behind its hash.
fn file(directory: &TempDir, callers: &[(&str, &str)]) -> PathBuf {
    let path = directory.path().join("access.toml");
    let stanza = |(name, more): &(&str, &str)| {
        format!(
            "[[token]]\nname = \"{name}\"\nhash = \"{}\"\n{more}\n",
            Hash::of(&token(name))
        )
    };
    let text: String = callers.iter().map(stanza).collect();
    fs::write(&path, text).unwrap();
    path
}

fn token(name: &str) -> String {
    make_token(*blake3::hash(name.as_bytes()).as_bytes())
}

async fn guarded(directory: &TempDir) -> Server {
    let file = file(
        directory,
        &[
            ("reader", "role = \"read\""),
            ("writer", "role = \"write\""),
            ("shop", "role = \"write\"\nworkspaces = [\"shop\"]"),
            ("operator", "role = \"operate\""),
            ("boss", "role = \"admin\""),
        ],
    );
    let access = AccessOptions {
        file: Some(file),
        anonymous: None,
    };
    Server::start_guarded(access, None).await
}

/// The status of a request with a caller's token.
async fn ask(server: &Server, name: &str, method: &str, path: &str, body: Value) -> u16 {
    let bearer = format!("Bearer {}", token(name));
    let headers = [("authorization", &*bearer)];
    server.send(method, path, &headers, body).await.status
}

#[tokio::test]
async fn a_role_opens_what_it_is_for_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let server = guarded(&directory).await;
    let boss = |method, path, body| ask(&server, "boss", method, path, body);
    assert_eq!(
        boss("POST", "/workspaces", json!({ "name": "shop" })).await,
        201
    );
    let service = |name: &str| json!({ "name": name, "host": "a.example" });
    assert_eq!(boss("POST", "/services", service("first")).await, 201);
    assert_eq!(boss("POST", "/shop/services", service("first")).await, 201);

    let names = ["reader", "writer", "shop", "operator"];
    let mut number = 0;
    for (method, path, expected) in [
        ("GET", "/services", [200, 200, 403, 200]),
        ("GET", "/services/first", [200, 200, 403, 200]),
        ("GET", "/shop/services", [200, 200, 200, 200]),
        ("POST", "/services", [403, 201, 403, 403]),
        ("POST", "/shop/services", [403, 201, 201, 403]),
        ("PATCH", "/services/first", [403, 200, 403, 403]),
        ("POST", "/apply", [403, 200, 403, 403]),
        ("POST", "/shop/apply", [403, 200, 200, 403]),
        ("GET", "/dump", [403, 200, 403, 403]),
        ("GET", "/config", [403, 200, 403, 403]),
        ("POST", "/workspaces", [403, 403, 403, 403]),
        ("DELETE", "/workspaces/shop", [403, 403, 403, 403]),
        ("GET", "/log/events", [200, 200, 403, 200]),
        ("GET", "/log/head", [200, 200, 200, 200]),
        ("GET", "/nodes", [200, 200, 200, 200]),
        ("POST", "/log/snapshots", [403, 403, 403, 201]),
        // It does not say what to trim.
        ("POST", "/log/trim", [403, 403, 403, 400]),
        ("GET", "/metrics", [200, 200, 200, 200]),
        ("GET", "/status", [200, 200, 200, 200]),
    ] {
        for (name, expected) in names.iter().zip(expected) {
            number += 1;
            let body = match (method, path) {
                ("GET" | "DELETE", _) => Value::Null,
                (_, "/apply" | "/shop/apply") => json!({ "_format_version": "3.0" }),
                (_, "/log/snapshots" | "/log/trim") => Value::Null,
                _ => service(&format!("new-{number}")),
            };
            let body = match path {
                "/services/first" if method == "PATCH" => json!({ "retries": 3 }),
                _ => body,
            };
            let status = ask(&server, name, method, path, body).await;
            assert_eq!(status, expected, "{name}: {method} {path}");
        }
    }
}

#[tokio::test]
async fn a_file_does_not_lead_into_another_workspace() {
    let directory = tempfile::tempdir().unwrap();
    let server = guarded(&directory).await;
    let shop = json!({ "name": "shop" });
    assert_eq!(ask(&server, "boss", "POST", "/workspaces", shop).await, 201);
    let file = json!({ "_format_version": "3.0", "_workspace": "default", "services": [{ "name": "a", "host": "a" }] });
    let status = ask(&server, "shop", "POST", "/shop/apply", file).await;
    assert!([400, 403].contains(&status), "{status}");
    assert_eq!(
        ask(&server, "boss", "GET", "/services/a", Value::Null).await,
        404
    );
}

#[tokio::test]
async fn who_shows_nothing_gets_nothing_and_is_told_what_to_show() {
    let directory = tempfile::tempdir().unwrap();
    let server = guarded(&directory).await;
    let answer = server.send("GET", "/services", &[], Value::Null).await;
    assert_eq!(answer.status, 401);
    assert_eq!(
        answer.header("www-authenticate"),
        Some("Bearer realm=\"sluice\"")
    );
    assert!(answer.text.contains("show a token"), "{}", answer.text);
    let wrong = [("kong-admin-token", "slt_wrong")];
    let answer = server.send("GET", "/status", &wrong, Value::Null).await;
    assert_eq!(
        answer.status, 401,
        "a wrong token is a mistake wherever it is shown"
    );
    let answer = server.send("GET", "/status", &[], Value::Null).await;
    assert_eq!(answer.status, 200);
    let (status, _) = server.check("GET", "/nowhere", Value::Null).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn the_actor_is_the_tokens_and_readers_see_no_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let server = guarded(&directory).await;
    let writer = format!("Bearer {}", token("writer"));
    let headers = [("authorization", &*writer), ("sluice-actor", "anna")];
    let consumer = json!({ "username": "c" });
    let answer = server.send("POST", "/consumers", &headers, consumer).await;
    assert_eq!(answer.status, 201);
    let path = format!("/log/events/{}", answer.version());
    let shown = server
        .send("GET", &path, &headers, Value::Null)
        .await
        .json();
    assert_eq!(shown["actor"]["name"], "writer");
    assert_eq!(shown["actor"]["via"], "admin-api for anna");

    let key = json!({ "key": "the-secret" });
    let answer = server
        .send("POST", "/consumers/c/key-auth", &headers, key)
        .await;
    assert_eq!(answer.json()["key"], "the-secret");
    let reader = format!("Bearer {}", token("reader"));
    for path in [
        "/consumers/c/key-auth",
        "/key-auths",
        "/consumers/c/key-auth/the-secret",
    ] {
        let headers = [("authorization", &*reader)];
        let answer = server.send("GET", path, &headers, Value::Null).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            !answer.text.contains("the-secret"),
            "{path}: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn a_changed_file_counts_at_once_and_a_broken_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let server = guarded(&directory).await;
    assert_eq!(
        ask(&server, "reader", "GET", "/services", Value::Null).await,
        200
    );
    let until = async |name: &str, expected: u16| {
        let wait = async {
            while ask(&server, name, "GET", "/services", Value::Null).await != expected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect(name);
    };
    file(&directory, &[("newcomer", "role = \"read\"")]);
    until("newcomer", 200).await;
    assert_eq!(
        ask(&server, "reader", "GET", "/services", Value::Null).await,
        401
    );
    fs::write(directory.path().join("access.toml"), "[[token]]").unwrap();
    file(&directory, &[("newcomer", "role = \"root\"")]);
    // What was there before counts until there is something better.
    assert_eq!(
        ask(&server, "newcomer", "GET", "/services", Value::Null).await,
        200
    );
    file(&directory, &[("third", "role = \"read\"")]);
    until("third", 200).await;
    assert_eq!(
        ask(&server, "newcomer", "GET", "/services", Value::Null).await,
        401
    );
}

#[tokio::test]
async fn nobody_may_read_if_that_is_wanted() {
    let access = AccessOptions {
        file: None,
        anonymous: Some(Anonymous::Read),
    };
    let server = Server::start_guarded(access, None).await;
    assert_eq!(server.check("GET", "/services", Value::Null).await.0, 200);
    let (status, body) = server
        .check("POST", "/services", json!({ "host": "a" }))
        .await;
    assert_eq!(status, 401, "{body}");
}

/// An authority, a certificate for `localhost`, and one that says who a caller is.
fn certificates(directory: &TempDir) -> (AdminTls, rustls::RootCertStore, Vec<(String, String)>) {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(params, authority_key);
    let issue = |names: &[&str], common: &str| {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (certificate, key) = issue(&["localhost"], "server");
    let tls = AdminTls {
        certificate: write("server.pem", &certificate),
        key: write("server.key", &key),
        client_ca: Some(write("ca.pem", &authority.pem())),
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let known = issue(&["ops.example.com"], "ops");
    let unknown = issue(&["other.example.com"], "other");
    (tls, roots, vec![known, unknown])
}

/// The status line of `GET /services` over TLS.
async fn over_tls(
    server: &Server,
    roots: &rustls::RootCertStore,
    shown: Option<&(String, String)>,
) -> String {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots.clone());
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder
                .with_client_auth_cert(vec![certificate], key)
                .unwrap()
        }
    };
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    let request = b"GET /services HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // The end may come without a goodbye.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_client_certificate_stands_for_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.toml");
    fs::write(
        &path,
        "[[certificate]]\nname = \"ops.example.com\"\nrole = \"read\"\n",
    )
    .unwrap();
    let access = AccessOptions {
        file: Some(path),
        anonymous: None,
    };
    let (tls, roots, shown) = certificates(&directory);
    let server = Server::start_guarded(access, Some(tls)).await;
    assert_eq!(
        over_tls(&server, &roots, Some(&shown[0])).await,
        "HTTP/1.1 200 OK"
    );
    let unauthorized = "HTTP/1.1 401 Unauthorized";
    assert_eq!(
        over_tls(&server, &roots, Some(&shown[1])).await,
        unauthorized
    );
    assert_eq!(over_tls(&server, &roots, None).await, unauthorized);
}
