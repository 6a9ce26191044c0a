//! A TCP proxy between a program and a broker that does what networks do: cuts, holds back, delays, trickles.
//!
//! What is held back is not lost: TCP repeats what did not arrive, so bytes held in a partition are delivered when it
//! heals, unless somebody has hung up by then. That is why there is no mode that drops bytes.

use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

const BUFFER_BYTES: usize = 64 * 1024;
/// A slow reader takes this part of a second's bytes at a time.
const SLICES_PER_SECOND: u32 = 20;

/// What happens to bytes in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Way {
    /// They pass.
    #[default]
    Pass,
    /// Nothing passes, and nothing is said about it: a black hole.
    Hold,
    /// They pass this much later, one buffer after the other.
    Delay(Duration),
    /// They pass at this many bytes per second.
    Trickle(u32),
}

/// What a proxy does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fault {
    /// Every connection is reset, and so is each new one.
    pub cut: bool,
    /// From the program to the broker.
    pub up: Way,
    /// From the broker to the program.
    pub down: Way,
}

impl Fault {
    /// Nothing is wrong.
    pub const NONE: Self = Self {
        cut: false,
        up: Way::Pass,
        down: Way::Pass,
    };
    /// Connections are reset and refused.
    pub const CUT: Self = Self {
        cut: true,
        ..Self::NONE
    };
    /// Connections stay open, and nothing passes either way.
    pub const HALF_OPEN: Self = Self::both(Way::Hold);
    /// The program is heard, and hears nothing.
    pub const DEAF: Self = Self {
        down: Way::Hold,
        ..Self::NONE
    };
    /// The program hears, and is not heard.
    pub const MUTE: Self = Self {
        up: Way::Hold,
        ..Self::NONE
    };

    /// The same both ways.
    pub const fn both(way: Way) -> Self {
        Self {
            cut: false,
            up: way,
            down: way,
        }
    }
}

/// A proxy to one server. Ends, with its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    runtime: Option<Runtime>,
}

impl Proxy {
    /// Starts a proxy to `server` that lets everything pass.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start(server: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fault proxy")
            .enable_all()
            .build()
            .context("could not start a proxy")?;
        let listener = runtime
            .block_on(TcpListener::bind(("127.0.0.1", 0)))
            .context("a proxy could not listen")?;
        let address = listener.local_addr()?;
        let (fault, faults) = watch::channel(Fault::NONE);
        runtime.spawn(accept(listener, server, faults));
        Ok(Self {
            address,
            fault,
            runtime: Some(runtime),
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on does this, to connections that are open too.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, faults: watch::Receiver<Fault>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(carry(client, server, faults.clone()));
    }
}

/// One connection, from its first byte to its end.
async fn carry(mut client: TcpStream, server: SocketAddr, mut faults: watch::Receiver<Fault>) {
    let open = !faults.borrow().cut;
    let connected = match open {
        true => TcpStream::connect(server).await.ok(),
        false => None,
    };
    let Some(mut server) = connected else {
        return reset(&client);
    };
    for stream in [&client, &server] {
        // Without it small messages would wait for each other.
        let _ = stream.set_nodelay(true);
    }
    let cut = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        let up = pump(client_reads, server_writes, faults.clone(), |fault| {
            fault.up
        });
        let down = pump(server_reads, client_writes, faults.clone(), |fault| {
            fault.down
        });
        tokio::select! {
            _ = async { tokio::join!(up, down) } => false,
            _ = faults.wait_for(|fault| fault.cut) => true,
        }
    };
    if cut {
        reset(&client);
        reset(&server);
    }
}

/// Makes the other side see a reset when the stream is dropped.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// Carries bytes one way until the end of the stream, which it passes on.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut faults: watch::Receiver<Fault>,
    way: impl Fn(&Fault) -> Way,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let open = faults.wait_for(|fault| way(fault) != Way::Hold).await;
        let Ok(now) = open.map(|fault| way(&fault)) else {
            return;
        };
        let room = match now {
            Way::Pass | Way::Hold | Way::Delay(_) => BUFFER_BYTES,
            Way::Trickle(rate) => (rate / SLICES_PER_SECOND).max(1) as usize,
        };
        let room = room.min(BUFFER_BYTES);
        let count = tokio::select! {
            read = from.read(&mut buffer[..room]) => read.unwrap_or(0),
            changed = faults.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        match now {
            Way::Pass | Way::Hold => {}
            Way::Delay(delay) => tokio::time::sleep(delay).await,
            Way::Trickle(_) => tokio::time::sleep(Duration::from_secs(1) / SLICES_PER_SECOND).await,
        }
        // A hold that began meanwhile holds these bytes too.
        if faults
            .wait_for(|fault| way(fault) != Way::Hold)
            .await
            .is_err()
        {
            return;
        }
        if count == 0 {
            let _ = to.shutdown().await;
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener as Listener, TcpStream as Stream};
    use std::thread;
    use std::time::Instant;

    /// A server that sends everything back.
    fn echo() -> SocketAddr {
        let listener = Listener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || std::io::copy(&mut stream.try_clone()?, &mut stream));
            }
        });
        address
    }

    fn ask(stream: &mut Stream, patience: Duration) -> std::io::Result<[u8; 4]> {
        stream.set_read_timeout(Some(patience))?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).map(|()| answer)
    }

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(100);

    #[test]
    fn what_is_held_back_arrives_when_the_wire_heals() {
        for fault in [Fault::HALF_OPEN, Fault::DEAF, Fault::MUTE] {
            let proxy = Proxy::start(echo()).unwrap();
            let mut stream = Stream::connect(proxy.address()).unwrap();
            stream.write_all(b"ping").unwrap();
            assert_eq!(&ask(&mut stream, LONG).unwrap(), b"ping");
            proxy.set(fault);
            stream.write_all(b"pong").unwrap();
            let nothing = ask(&mut stream, SHORT).unwrap_err();
            assert!(
                matches!(nothing.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                "{fault:?}: {nothing}"
            );
            proxy.set(Fault::NONE);
            assert_eq!(&ask(&mut stream, LONG).unwrap(), b"pong", "{fault:?}");
        }
    }

    #[test]
    fn a_cut_resets_connections_and_refuses_new_ones() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = Stream::connect(proxy.address()).unwrap();
        stream.write_all(b"ping").unwrap();
        assert_eq!(&ask(&mut stream, LONG).unwrap(), b"ping");
        proxy.set(Fault::CUT);
        let reset = ask(&mut stream, LONG).unwrap_err();
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
        let refused =
            Stream::connect(proxy.address()).and_then(|mut stream| ask(&mut stream, LONG));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionReset);
        proxy.set(Fault::NONE);
        let mut stream = Stream::connect(proxy.address()).unwrap();
        stream.write_all(b"ping").unwrap();
        assert_eq!(&ask(&mut stream, LONG).unwrap(), b"ping");
    }

    #[test]
    fn bytes_are_delayed_and_trickle() {
        for (fault, least) in [
            (Fault::both(Way::Delay(SHORT)), 2 * SHORT),
            // Four bytes up and four down, one every twentieth of a second.
            (Fault::both(Way::Trickle(1)), Duration::from_millis(200)),
        ] {
            let proxy = Proxy::start(echo()).unwrap();
            proxy.set(fault);
            let mut stream = Stream::connect(proxy.address()).unwrap();
            let began = Instant::now();
            stream.write_all(b"ping").unwrap();
            assert_eq!(&ask(&mut stream, LONG).unwrap(), b"ping");
            assert!(began.elapsed() >= least, "{fault:?}");
        }
    }
}
