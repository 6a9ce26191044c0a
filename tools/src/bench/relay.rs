//! A TCP relay that counts: what a process receives on its socket, measured outside of it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const BUFFER_BYTES: usize = 256 * 1024;

/// A relay to one server. Its threads end with the connections.
#[derive(Debug)]
pub(super) struct Relay {
    address: SocketAddr,
    received: Arc<AtomicU64>,
}

impl Relay {
    /// Relays connections to `server`.
    pub(super) fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let received = Arc::new(AtomicU64::new(0));
        let counter = received.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Ok(server) = TcpStream::connect(server) {
                    let _ = serve(client, server, counter.clone());
                }
            }
        });
        Ok(Self { address, received })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that went from the server to its clients so far.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

fn serve(client: TcpStream, server: TcpStream, received: Arc<AtomicU64>) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (up_from, up_to) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || copy(up_from, up_to, &AtomicU64::new(0)));
    std::thread::spawn(move || copy(server, client, &received));
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream, counter: &AtomicU64) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
