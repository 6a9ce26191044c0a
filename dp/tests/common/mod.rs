//! A proxy over a table made by hand, an origin that says what it received, and a client.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod consistency;
pub(crate) mod dns;
pub(crate) mod programs;
pub(crate) mod secure;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::future::LocalBoxFuture;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use sluice_dp::plugin::{Registry, STANDARD, State};
use sluice_dp::proxy::{Options, Proxy, Running, Shared};
use sluice_dp::table::Table;
use sluice_schema::entity::{Body, Change, Entry, Id, Key, KindName, Workspace};
use sluice_schema::version::Version;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Whatever should happen and does not, fails the test after this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy and the table it serves.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) tables: Arc<ArcSwap<Table>>,
    pub(crate) shared: Shared,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: Running,
}

impl Gateway {
    pub(crate) fn start(entities: &[Entity]) -> Self {
        Self::with(Options::default(), entities)
    }

    pub(crate) fn with(options: Options, entities: &[Entity]) -> Self {
        Self::with_plugins(STANDARD, options, entities)
    }

    /// The same with these plugins.
    pub(crate) fn with_plugins(registry: Registry, options: Options, entities: &[Entity]) -> Self {
        let tables = Arc::new(ArcSwap::from_pointee(Table::with_plugins(registry)));
        let shared = Shared {
            state: Arc::new(State::new(registry)),
            ..Shared::default()
        };
        let shutdown = CancellationToken::new();
        let mut options = options;
        if options.listen.is_empty() {
            options.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()];
        }
        let running = Proxy::start(options, &tables, &shared, &shutdown).unwrap();
        let address = running.addresses()[0];
        let gateway = Self {
            address,
            tables,
            shared,
            shutdown,
            running,
        };
        gateway.apply(entities);
        gateway
    }

    /// The same on one listener of this kind.
    pub(crate) fn listening(flags: &str, entities: &[Entity]) -> Self {
        let options = Options {
            listen: vec![format!("127.0.0.1:0 {flags}").parse().unwrap()],
            ..Options::default()
        };
        Self::with(options, entities)
    }

    /// The next version, with these entities put.
    pub(crate) fn apply(&self, entities: &[Entity]) {
        assert_eq!(self.try_apply(entities), [""; 0]);
    }

    /// The next version, without these entities.
    pub(crate) fn remove(&self, entities: &[Entity]) {
        let table = self.tables.load_full();
        let version = table.version().next();
        let removed = entities.iter().map(|entity| Change {
            key: entity.key(),
            before: None,
            after: None,
        });
        let (table, _) = table.apply(version, &removed.collect::<Vec<_>>());
        self.activate(table);
    }

    /// The next version, with nothing but these entities, made anew from all of them.
    pub(crate) fn reload(&self, entities: &[Entity]) {
        self.reload_as(self.tables.load().version().next(), entities);
    }

    /// The same as this version, as after a log was restored.
    pub(crate) fn reload_as(&self, version: Version, entities: &[Entity]) {
        let before = self.tables.load_full();
        let all: Vec<_> = entities
            .iter()
            .map(|entity| entity.change(version))
            .collect();
        let (table, _) = Table::with_plugins(before.registry()).apply(version, &all);
        self.activate(table);
    }

    fn activate(&self, table: Table) {
        self.shared.upstreams.prepare(&table);
        let (before, table) = (self.tables.load_full(), Arc::new(table));
        let swap = || self.tables.store(Arc::clone(&table));
        self.shared.state.activate(&before, &table, swap);
        self.shared.swapped.notify_waiters();
    }

    /// The same. Gives why entities were refused.
    pub(crate) fn try_apply(&self, entities: &[Entity]) -> Vec<String> {
        let table = self.tables.load_full();
        let version = table.version().next();
        let changes: Vec<_> = entities
            .iter()
            .map(|entity| entity.change(version))
            .collect();
        let (table, rejected) = table.apply(version, &changes);
        self.activate(table);
        rejected.into_iter().map(|entity| entity.reason).collect()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.client().await.get(path).await
    }
}

/// An entity to put.
#[derive(Clone)]
pub(crate) struct Entity {
    kind: &'static str,
    id: Uuid,
    fields: Map<String, Value>,
}

impl Entity {
    fn new(kind: &'static str, id: u128, mut fields: Value, defaults: &Value) -> Self {
        let fields_map = fields.as_object_mut().unwrap();
        for (name, value) in defaults.as_object().unwrap() {
            fields_map.entry(name).or_insert_with(|| value.clone());
        }
        let fields = fields_map.clone();
        Self {
            kind,
            id: Uuid::from_u128(id),
            fields,
        }
    }

    fn key(&self) -> Key {
        Key {
            kind: KindName::known(self.kind),
            workspace: Workspace::DEFAULT,
            id: Id(self.id),
        }
    }

    fn change(&self, version: Version) -> Change {
        let key = self.key();
        let entry = Entry {
            version,
            body: Body::encode(&self.fields),
        };
        Change {
            key,
            before: None,
            after: Some(entry),
        }
    }
}

pub(crate) fn reference(id: u128) -> Value {
    json!({ "id": Uuid::from_u128(id).to_string() })
}

/// A service at an address.
pub(crate) fn service(id: u128, address: SocketAddr, fields: Value) -> Entity {
    let defaults = json!({
        "protocol": "http", "host": address.ip().to_string(), "port": address.port(), "retries": 5,
        "connect_timeout": 60_000, "write_timeout": 60_000, "read_timeout": 60_000, "enabled": true,
    });
    Entity::new("service", id, fields, &defaults)
}

/// A route to service 1.
pub(crate) fn route(id: u128, fields: Value) -> Entity {
    let defaults = json!({
        "protocols": ["http", "https"], "https_redirect_status_code": 426, "regex_priority": 0,
        "strip_path": true, "path_handling": "v0", "preserve_host": false,
        "request_buffering": true, "response_buffering": true, "service": reference(1),
    });
    Entity::new("route", id, fields, &defaults)
}

pub(crate) fn plugin(id: u128, fields: Value) -> Entity {
    let defaults =
        json!({ "protocols": ["grpc", "grpcs", "http", "https"], "enabled": true, "config": {} });
    Entity::new("plugin", id, fields, &defaults)
}

pub(crate) fn upstream(id: u128, fields: Value) -> Entity {
    Entity::new(
        "upstream",
        id,
        fields,
        &json!({ "algorithm": "round-robin", "slots": 10_000 }),
    )
}

pub(crate) fn target(id: u128, upstream: u128, address: SocketAddr, weight: u16) -> Entity {
    let fields =
        json!({ "target": address.to_string(), "weight": weight, "upstream": reference(upstream) });
    Entity::new("target", id, fields, &json!({}))
}

pub(crate) fn consumer(id: u128, fields: Value) -> Entity {
    Entity::new("consumer", id, fields, &json!({}))
}

/// An entity of another kind.
pub(crate) fn entity(kind: &'static str, id: u128, fields: Value) -> Entity {
    Entity::new(kind, id, fields, &json!({}))
}

pub(crate) fn key_credential(id: u128, consumer: u128, fields: Value) -> Entity {
    let defaults = json!({ "consumer": reference(consumer), "created_at": 1_700_000_000 });
    Entity::new("keyauth_credential", id, fields, &defaults)
}

/// A response, read whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }

    /// A header as the echoing origin received it.
    pub(crate) fn received(&self, name: &str) -> Option<String> {
        self.json()["headers"][name].as_str().map(str::to_owned)
    }
}

pub(crate) type ClientBody = UnsyncBoxBody<Bytes, Infallible>;

/// A keep-alive connection to a gateway.
pub(crate) struct Client(hyper::client::conn::http1::SendRequest<ClientBody>);

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    pub(crate) async fn over<I>(io: I) -> Self
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
            .await
            .unwrap();
        tokio::spawn(async move {
            let _ = connection.with_upgrades().await;
        });
        Self(sender)
    }

    pub(crate) async fn get(&mut self, path: &str) -> Reply {
        self.get_with(path, &[]).await
    }

    pub(crate) async fn get_with(&mut self, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = Request::builder().uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "gateway.test");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(empty()).unwrap()).await
    }

    pub(crate) async fn send(&mut self, request: Request<ClientBody>) -> Reply {
        let (head, body) = self.start(request).await.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect())
            .await
            .unwrap()
            .unwrap();
        Reply {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        }
    }

    pub(crate) async fn start(&mut self, request: Request<ClientBody>) -> Response<Incoming> {
        self.0.ready().await.unwrap();
        tokio::time::timeout(PATIENCE, self.0.send_request(request))
            .await
            .unwrap()
            .unwrap()
    }
}

pub(crate) fn empty() -> ClientBody {
    full(Bytes::new())
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> ClientBody {
    Full::new(bytes.into()).boxed_unsync()
}

pub(crate) type OriginBody = UnsyncBoxBody<Bytes, hyper::Error>;
type Handler = dyn Fn(Request<Incoming>) -> LocalBoxFuture<'static, Response<OriginBody>>;

/// An HTTP server for the length of a test, on a thread of its own.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    /// How many connections it has accepted.
    pub(crate) accepted: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Origin {
    /// Answers every request with what it received, as JSON.
    pub(crate) async fn echo() -> Self {
        Self::serve(|request| Box::pin(describe(request, ""))).await
    }

    /// The same, and says its name.
    pub(crate) async fn named(name: &'static str) -> Self {
        Self::serve(move |request| Box::pin(describe(request, name))).await
    }

    pub(crate) async fn serve<F>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> LocalBoxFuture<'static, Response<OriginBody>> + Send + 'static,
    {
        Self::serve_as(Manner::default(), handler).await
    }

    /// Says its name, at this address.
    pub(crate) async fn named_at(name: &'static str, address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let handler =
            move |request| -> LocalBoxFuture<'static, _> { Box::pin(describe(request, name)) };
        Ok(Self::listen(listener, Manner::default(), handler))
    }

    /// The same over TLS or in HTTP/2.
    pub(crate) async fn serve_as<F>(manner: Manner, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> LocalBoxFuture<'static, Response<OriginBody>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::listen(listener, manner, handler)
    }

    fn listen<F>(listener: TcpListener, manner: Manner, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> LocalBoxFuture<'static, Response<OriginBody>> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let listener = listener.into_std().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepted);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let handler: std::rc::Rc<Handler> = std::rc::Rc::new(handler);
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let stream = tokio::select! {
                        () = stopped.cancelled() => return,
                        accepted = listener.accept() => accepted.unwrap().0,
                    };
                    counted.fetch_add(1, Ordering::Relaxed);
                    let handler = std::rc::Rc::clone(&handler);
                    let service = hyper::service::service_fn(move |request| {
                        let answer = handler(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    let manner = manner.clone();
                    tokio::task::spawn_local(async move {
                        let Some(config) = manner.tls else {
                            return speak(stream, manner.http2, service).await;
                        };
                        let accepted = tokio_rustls::TlsAcceptor::from(config).accept(stream).await;
                        if let Ok(stream) = accepted {
                            speak(stream, manner.http2, service).await;
                        }
                    });
                }
            });
        });
        Self {
            address,
            accepted,
            stop,
        }
    }
}

/// How an origin is spoken to.
#[derive(Clone, Default)]
pub(crate) struct Manner {
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) http2: bool,
}

/// The streams of an origin.
#[derive(Clone)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, work: F) {
        tokio::task::spawn_local(work);
    }
}

async fn speak<I, S>(io: I, http2: bool, service: S)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    S: hyper::service::Service<
            Request<Incoming>,
            Response = Response<OriginBody>,
            Error = Infallible,
        > + 'static,
    S::Future: 'static,
{
    let io = TokioIo::new(io);
    let _ = if http2 {
        let server = hyper::server::conn::http2::Builder::new(Local);
        server.serve_connection(io, service).await
    } else {
        let server = hyper::server::conn::http1::Builder::new();
        server.serve_connection(io, service).with_upgrades().await
    };
}

pub(crate) async fn describe(request: Request<Incoming>, name: &str) -> Response<OriginBody> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let mut headers = Map::new();
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let joined = match headers.get(name.as_str()).and_then(Value::as_str) {
            Some(before) => format!("{before} | {value}"),
            None => value,
        };
        headers.insert(name.to_string(), joined.into());
    }
    let seen = json!({
        "name": name, "method": head.method.as_str(), "uri": head.uri.to_string(), "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    Response::builder()
        .header("content-type", "application/json")
        .header("x-origin", "yes")
        .body(reply(seen.to_string()))
        .unwrap()
}

pub(crate) fn reply(bytes: impl Into<Bytes>) -> OriginBody {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Waits until this is so.
pub(crate) async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited)
        .await
        .expect("it never came to be");
}

/// Two addresses with one port.
pub(crate) async fn pair(one: &'static str, two: &'static str) -> (Origin, Origin) {
    let ips = [[127, 0, 0, 1], [127, 0, 0, 2]];
    loop {
        let first = Origin::named_at(one, (ips[0], 0).into()).await.unwrap();
        // The port may be taken there.
        if let Ok(second) = Origin::named_at(two, (ips[1], first.address.port()).into()).await {
            return (first, second);
        }
    }
}

/// A target by name.
pub(crate) fn named_target(id: u128, upstream: u128, target: &str, weight: u16) -> Entity {
    let fields = json!({ "target": target, "weight": weight, "upstream": reference(upstream) });
    Entity::new("target", id, fields, &json!({}))
}

/// An address nobody listens on, and nobody will: it stays bound for the rest of the process.
#[allow(clippy::unused_async, reason = "as all that tests start")]
pub(crate) async fn refused() -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

/// Sends raw bytes and reads until the peer closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut received = Vec::new();
    // A reset after the answer is the same to us.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut received))
        .await
        .expect("the gateway closes");
    String::from_utf8_lossy(&received).into_owned()
}

/// The statuses of the answers in what was received.
pub(crate) fn statuses(received: &str) -> Vec<u16> {
    let heads = received.match_indices("HTTP/1.");
    heads
        .filter_map(|(at, _)| received.get(at + 9..at + 12)?.parse().ok())
        .collect()
}
