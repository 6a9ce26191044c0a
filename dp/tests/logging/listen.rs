//! Servers that keep what they are told, and the status page.

use crate::common::*;
use http_body_util::BodyExt;
use serde_json::Value;
use sluice_dp::status::{self, Node, NodeState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What came, with where it came in.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<(String, String)>>>);

impl Kept {
    pub(crate) fn add(&self, place: impl Into<String>, text: impl Into<String>) {
        self.0.lock().unwrap().push((place.into(), text.into()));
    }

    pub(crate) fn all(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.all().into_iter().map(|(_, text)| text).collect()
    }

    /// Waits for so many.
    pub(crate) async fn wait(&self, count: usize) -> Vec<(String, String)> {
        until(async || self.0.lock().unwrap().len() >= count).await;
        self.all()
    }

    /// Waits for one with this in it.
    pub(crate) async fn find(&self, part: &str) -> (String, String) {
        let find = || {
            let kept = self.0.lock().unwrap();
            kept.iter()
                .rev()
                .find(|(_, text)| text.contains(part))
                .cloned()
        };
        until(async || find().is_some()).await;
        find().unwrap()
    }
}

/// How a server behaves.
pub(crate) const TAKES: u8 = 0;
pub(crate) const REFUSES: u8 = 1;
pub(crate) const HANGS: u8 = 2;

/// An HTTP server that keeps each request's method, target and headers, and its body.
pub(crate) struct HttpSink {
    pub(crate) origin: Origin,
    pub(crate) kept: Kept,
    pub(crate) manner: Arc<AtomicU8>,
}

impl HttpSink {
    pub(crate) async fn start() -> Self {
        let (kept, manner) = (Kept::default(), Arc::new(AtomicU8::new(TAKES)));
        let (keep, behave) = (kept.clone(), Arc::clone(&manner));
        let origin = Origin::serve(move |request| {
            let (keep, behave) = (keep.clone(), Arc::clone(&behave));
            Box::pin(async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let status = match behave.load(Ordering::SeqCst) {
                    TAKES => 200,
                    REFUSES => 503,
                    _ => {
                        std::future::pending::<()>().await;
                        0
                    }
                };
                if status == 200 {
                    let place = format!("{} {} {:?}", head.method, head.uri, head.headers);
                    keep.add(place, String::from_utf8_lossy(&body));
                }
                http::Response::builder()
                    .status(status)
                    .body(reply(""))
                    .unwrap()
            })
        })
        .await;
        Self {
            origin,
            kept,
            manner,
        }
    }

    pub(crate) fn set(&self, manner: u8) {
        self.manner.store(manner, Ordering::SeqCst);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.origin.address)
    }

    /// The entries that came, single ones and lists.
    pub(crate) fn entries(&self) -> Vec<Value> {
        let values = self
            .kept
            .texts()
            .into_iter()
            .map(|text| serde_json::from_str(&text).unwrap());
        let flat = values.flat_map(|value: Value| match value.as_array() {
            Some(list) => list.clone(),
            None => vec![value],
        });
        flat.collect()
    }
}

/// Keeps datagrams under a name.
pub(crate) async fn datagrams(kept: &Kept, name: &str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (kept, name) = (kept.clone(), name.to_owned());
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(bytes) = socket.recv(&mut buffer).await {
            kept.add(&*name, String::from_utf8_lossy(&buffer[..bytes]));
        }
    });
    address
}

/// Keeps lines of connections under a name, over TLS if told so.
pub(crate) async fn lines(
    kept: &Kept,
    name: &str,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (kept, name) = (kept.clone(), name.to_owned());
    tokio::spawn(async move {
        let mut connections = 0;
        while let Ok((stream, _)) = listener.accept().await {
            connections += 1;
            let (kept, name, tls) = (kept.clone(), format!("{name}#{connections}"), tls.clone());
            tokio::spawn(async move {
                match tls {
                    Some(config) => {
                        let stream = tokio_rustls::TlsAcceptor::from(config).accept(stream).await;
                        keep_lines(&kept, &name, stream.unwrap()).await;
                    }
                    None => keep_lines(&kept, &name, stream).await,
                }
            });
        }
    });
    address
}

async fn keep_lines(kept: &Kept, name: &str, mut stream: impl tokio::io::AsyncRead + Unpin) {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(bytes) = stream.read(&mut buffer).await
        && bytes > 0
    {
        text.extend_from_slice(&buffer[..bytes]);
        while let Some(end) = text.windows(2).position(|end| end == b"\r\n") {
            kept.add(name, String::from_utf8_lossy(&text[..end]));
            text.drain(..end + 2);
        }
    }
}

/// The node's metrics.
pub(crate) async fn metrics(gateway: &Gateway) -> String {
    let node = Node {
        id: Uuid::from_u128(7).to_string().parse().unwrap(),
        hostname: "here".into(),
    };
    let shared = gateway.shared.clone();
    let state = NodeState::new(node, shared.metrics, shared.state, shared.upstreams);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let end = CancellationToken::new();
    let serving = tokio::spawn(status::serve(listener, Arc::new(state), end.clone()));
    let reply = Client::connect(address).await.get("/metrics").await;
    end.cancel();
    serving.await.unwrap();
    String::from_utf8(reply.body.to_vec()).unwrap()
}

/// The value of the first metric that begins so.
pub(crate) fn value(metrics: &str, begins: &str) -> u64 {
    let line = metrics.lines().find(|line| line.starts_with(begins));
    let line = line.unwrap_or_else(|| panic!("no {begins} in {metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}
