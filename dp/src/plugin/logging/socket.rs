//! Sinks that are sockets: datagrams, and lines over a connection.

use crate::plugin::call::Caller;
use crate::plugin::queue::{Sink, Undelivered};
use bytes::Bytes;
use futures::future::BoxFuture;
use rustls::pki_types::ServerName;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

/// Where a socket leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// A sink of one datagram per entry. What is lost on the way nobody knows.
pub(crate) struct Datagrams {
    place: Place,
    timeout: Duration,
    /// Each line of an entry is for itself. Lines may share a datagram, up to so many bytes.
    lines: Option<usize>,
}

impl Datagrams {
    /// To this place.
    pub(crate) fn new(place: Place, timeout: Duration) -> Self {
        Self {
            place,
            timeout,
            lines: None,
        }
    }

    /// The same for entries of lines, of which as many as have room in so many bytes share a datagram.
    pub(crate) fn of_lines(self, shared_bytes: usize) -> Self {
        Self {
            lines: Some(shared_bytes),
            ..self
        }
    }

    async fn send(&self, batch: &[Bytes]) -> io::Result<()> {
        let address = resolve(&self.place).await?;
        let local = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(local).await?;
        socket.connect(address).await?;
        let Some(shared_bytes) = self.lines else {
            for entry in batch {
                send_one(&socket, entry).await?;
            }
            return Ok(());
        };
        let mut datagram = Vec::new();
        let lines = batch
            .iter()
            .flat_map(|entry| entry.split(|byte| *byte == b'\n'));
        for line in lines.filter(|line| !line.is_empty()) {
            if !datagram.is_empty() && datagram.len() + 1 + line.len() > shared_bytes {
                send_one(&socket, &datagram).await?;
                datagram.clear();
            }
            if !datagram.is_empty() {
                datagram.push(b'\n');
            }
            datagram.extend_from_slice(line);
        }
        send_one(&socket, &datagram).await
    }
}

/// That nobody listens is learned from the datagram before, so it says nothing of this one.
async fn send_one(socket: &UdpSocket, datagram: &[u8]) -> io::Result<()> {
    match socket.send(datagram).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
    }
}

async fn resolve(place: &Place) -> io::Result<SocketAddr> {
    let mut addresses = lookup_host((&*place.host, place.port)).await?;
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    addresses.next().ok_or_else(none)
}

impl Sink for Datagrams {
    fn deliver<'a>(
        &'a self,
        _: &'a Caller,
        batch: &'a [Bytes],
    ) -> BoxFuture<'a, Result<(), Undelivered>> {
        Box::pin(async {
            let sent = tokio::time::timeout(self.timeout, self.send(batch)).await;
            match sent {
                Ok(Ok(())) => Ok(()),
                // It will not get shorter.
                Ok(Err(error)) if error.raw_os_error() == Some(TOO_LONG) => {
                    Err(Undelivered::never("an entry is too long for a datagram"))
                }
                Ok(Err(error)) => Err(Undelivered::later(error)),
                Err(_) => Err(Undelivered::later("it was not sent in time")),
            }
        })
    }
}

/// `EMSGSIZE`
const TOO_LONG: i32 = 90;

/// A sink of bytes over a connection, which is kept.
pub(crate) struct Stream {
    place: Place,
    timeout: Duration,
    keepalive: Duration,
    /// TLS, with the name asked for.
    tls: Option<Option<String>>,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    connection: Box<dyn Connection>,
    used: Instant,
}

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl Stream {
    /// To this place. `timeout` is for connecting, the handshake and each batch; an idle connection is used again within
    /// `keepalive`.
    pub(crate) fn new(place: Place, timeout: Duration, keepalive: Duration) -> Self {
        Self {
            place,
            timeout,
            keepalive,
            tls: None,
            kept: Mutex::default(),
        }
    }

    /// The same over TLS. The server's certificate is not verified, as in Kong.
    pub(crate) fn over_tls(self, name: Option<String>) -> Self {
        Self {
            tls: Some(name),
            ..self
        }
    }

    async fn connect(&self, caller: &Caller) -> io::Result<Box<dyn Connection>> {
        let stream = TcpStream::connect((&*self.place.host, self.place.port)).await?;
        stream.set_nodelay(true)?;
        let Some(name) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = name.as_deref().unwrap_or(&self.place.host).to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let config = caller.tls(false).map_err(io::Error::other)?;
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        Ok(Box::new(stream))
    }

    async fn send(&self, caller: &Caller, bytes: &[u8]) -> io::Result<()> {
        let mut kept = self.kept.lock().await.take();
        let usable = match &mut kept {
            Some(kept) => kept.used.elapsed() < self.keepalive && kept.is_open().await,
            None => false,
        };
        let mut connection = match kept {
            Some(kept) if usable => kept.connection,
            Some(_) | None => self.connect(caller).await?,
        };
        connection.write_all(bytes).await?;
        connection.flush().await?;
        let used = Instant::now();
        *self.kept.lock().await = Some(Kept { connection, used });
        Ok(())
    }
}

impl Kept {
    /// Whether the server has not closed it meanwhile. What it says nobody reads.
    async fn is_open(&mut self) -> bool {
        let mut said = [0; 256];
        let read = tokio::time::timeout(Duration::ZERO, self.connection.read(&mut said)).await;
        !matches!(read, Ok(Ok(0) | Err(_)))
    }
}

impl Sink for Stream {
    fn deliver<'a>(
        &'a self,
        caller: &'a Caller,
        batch: &'a [Bytes],
    ) -> BoxFuture<'a, Result<(), Undelivered>> {
        Box::pin(async move {
            let bytes = batch.concat();
            let sent = tokio::time::timeout(self.timeout, self.send(caller, &bytes)).await;
            match sent {
                Ok(sent) => sent.map_err(Undelivered::later),
                Err(_) => Err(Undelivered::later("it was not sent in time")),
            }
        })
    }
}
