//! A control plane on port 0, and a client for it.

use serde_json::Value;
use sluice_cp::ControlPlane;
use sluice_cp::start::{AccessOptions, AdminTls, Parts, Running, TracesOptions, start};
use sluice_replica::keys::{Keychain, SigningKey};
use sluice_replica::log::Source;
use sluice_replica::log::embedded::Embedded;
use sluice_replica::node::SyncMode;
use sluice_replica::process::logging::LogLevel;
use sluice_replica::process::secrets::Secrets;
use sluice_schema::kind::RouterFlavor;
use sluice_schema::version::{Epoch, Version};
use std::net::SocketAddr;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const TIMEOUT: Duration = Duration::from_secs(20);

/// A running control plane. Stops when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) control_plane: ControlPlane,
    pub(crate) shutdown: CancellationToken,
    _running: Running,
    _directory: TempDir,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let same = |line: &&str| {
            line.split_once(':')
                .is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
        };
        self.head
            .lines()
            .find(same)
            .and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim())
    }

    /// The version of the state it speaks of.
    pub(crate) fn version(&self) -> u64 {
        self.header("sluice-version").unwrap().parse().unwrap()
    }
}

impl Server {
    /// A control plane whose log has its first event and nothing else.
    pub(crate) async fn start() -> Self {
        let key = SigningKey::from_seed([1; 32]);
        Self::start_with(Keychain::fixed(key.trusted())).await
    }

    /// The same, believing these keys. Its own has the seed of ones.
    pub(crate) async fn start_with(keychain: Keychain) -> Self {
        Self::start_on(keychain, |source| source).await
    }

    /// The same as the first, refusing changes that do not say why.
    pub(crate) async fn start_demanding_reasons() -> Self {
        let key = SigningKey::from_seed([1; 32]);
        let keychain = Keychain::fixed(key.trusted());
        Self::start_changed(keychain, |parts| parts.require_reason = true).await
    }

    /// The same, on what `wrap` makes of the log.
    pub(crate) async fn start_on(keychain: Keychain, wrap: impl FnOnce(Source) -> Source) -> Self {
        Self::start_changed(keychain, |parts| parts.source = wrap(parts.source.clone())).await
    }

    /// One whose callers must be known, by this file.
    pub(crate) async fn start_guarded(access: AccessOptions, tls: Option<AdminTls>) -> Self {
        let key = SigningKey::from_seed([1; 32]);
        let guard = |parts: &mut Parts| (parts.access, parts.admin_tls) = (access, tls);
        Self::start_changed(Keychain::fixed(key.trusted()), guard).await
    }

    async fn start_changed(keychain: Keychain, change: impl FnOnce(&mut Parts)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let shutdown = CancellationToken::new();
        let key = SigningKey::from_seed([1; 32]);
        let mut parts = Parts {
            source: Embedded::open(&directory.path().join("log")).unwrap(),
            admin: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            requests: None,
            admin_hosts: vec!["gui.example".to_owned()],
            router_flavor: RouterFlavor::default(),
            admin_gui_url: vec!["https://manager.example:8445".to_owned()],
            access: AccessOptions::default(),
            admin_tls: None,
            require_reason: false,
            log_level: LogLevel::default(),
            data_dir: directory.path().join("data"),
            keychain,
            key,
            cluster: "test".to_owned(),
            sync: SyncMode::Incremental,
            snapshots: sluice_cp::snapshots::Policy::default(),
            secrets: Secrets::default(),
            traces: TracesOptions::default(),
        };
        change(&mut parts);
        let running = start(parts, &shutdown).unwrap();
        let control_plane = running.control_plane.clone();
        let begun = control_plane
            .view
            .reached(Epoch::default(), Version::GENESIS);
        tokio::time::timeout(TIMEOUT, begun)
            .await
            .expect("the log did not begin");
        Self {
            address: running.admin,
            control_plane,
            shutdown,
            _running: running,
            _directory: directory,
        }
    }

    /// Sends a request with a JSON body (none if it is null) and gives back the status and the body.
    pub(crate) async fn check(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let answer = self.send(method, path, &[], body).await;
        (answer.status, answer.json())
    }

    /// Like `check`, with headers, and with all of the answer.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Answer {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let mut headers = headers.to_vec();
        if !text.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        self.send_text(method, path, &headers, &text).await
    }

    /// Sends any text with these headers, and `Host` and `Content-Length` if they are not among them.
    pub(crate) async fn send_text(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        self.send_bytes(method, path, headers, body.as_bytes())
            .await
    }

    /// The same with any bytes.
    pub(crate) async fn send_bytes(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut stream = self.open(method, path, headers, body).await;
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        tokio::time::timeout(TIMEOUT, read)
            .await
            .expect("no answer in time")
            .unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, text) = text.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer {
            status,
            head: head.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Sends a request and leaves reading to the caller. HTTP/1.0: the end of the connection ends the answer.
    pub(crate) async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> TcpStream {
        let body = body.as_ref();
        let mut head = format!("{method} {path} HTTP/1.0\r\n");
        let given = |name: &str| headers.iter().any(|(given, _)| *given == name);
        if !given("host") {
            head += &format!("host: {}\r\n", self.address);
        }
        if !given("content-length") {
            head += &format!("content-length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream
            .write_all(&[head.as_bytes(), b"\r\n", body].concat())
            .await
            .unwrap();
        stream
    }

    /// The version the control plane is at.
    pub(crate) fn version(&self) -> u64 {
        self.control_plane.view.state().version().0
    }

    /// Creates an entity and gives back what was answered.
    pub(crate) async fn create(&self, path: &str, body: Value) -> Value {
        let (status, created) = self.check("POST", path, body).await;
        assert_eq!(status, 201, "{path}: {created}");
        created
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
