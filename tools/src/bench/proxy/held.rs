//! Many connections that ask for nothing, or slowly.

use super::load;
use anyhow::{Context, Result, anyhow};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

/// Between two bytes of a slow connection.
const BYTE_EVERY: Duration = Duration::from_secs(1);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: shop.example.com\r\n\r\n";
/// The beginning of a request whose header does not end.
const BEGINNING: &[u8] = b"GET / HTTP/1.1\r\nhost: shop.example.com\r\nx-slow: ";
/// Hosts of a /24 that connections come from.
const HOSTS: usize = 250;

/// What they do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Manner {
    /// Every other has sent one request, the rest nothing
    Idle,
    /// A byte of a header a second
    Slow,
}

/// Connections that are held open, each from another address of 127.0.0.0/8.
pub(super) struct Held {
    over: CancellationToken,
    thread: JoinHandle<Result<usize>>,
}

impl Held {
    /// Comes back when all are open.
    pub(super) fn open(manner: Manner, number: usize, to: SocketAddr) -> Result<Self> {
        let over = CancellationToken::new();
        let (ready, opened) = channel();
        let held = over.clone();
        let thread = std::thread::spawn(move || hold_all(manner, number, to, &held, &ready));
        let held = Self { over, thread };
        match opened.recv() {
            Ok(()) => Ok(held),
            Err(_) => Err(held
                .release()
                .err()
                .unwrap_or_else(|| anyhow!("holding connections ended early"))),
        }
    }

    /// Closes them. Gives back how many the proxy had ended before.
    pub(super) fn release(self) -> Result<usize> {
        self.over.cancel();
        self.thread
            .join()
            .ok()
            .context("holding connections panicked")?
    }
}

fn hold_all(
    manner: Manner,
    number: usize,
    to: SocketAddr,
    over: &CancellationToken,
    ready: &Sender<()>,
) -> Result<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(LocalSet::new().run_until(async {
        let mut held = Vec::with_capacity(number);
        for index in 0..number {
            let stream = open(manner, index, to)
                .await
                .with_context(|| format!("could not open connection {index} of {number}"))?;
            // All over the second, not all at once.
            let first = BYTE_EVERY * u32::try_from(index)? / u32::try_from(number)?;
            held.push(tokio::task::spawn_local(hold(
                stream,
                manner,
                first,
                over.clone(),
            )));
        }
        ready.send(()).context("nobody waits for them")?;
        let mut ended = 0;
        for held in held {
            ended += usize::from(held.await.context("holding a connection panicked")?);
        }
        Ok(ended)
    }))
}

async fn open(manner: Manner, index: usize, to: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from(index), 0).into())?;
    let mut stream = socket.connect(to).await?;
    match manner {
        Manner::Idle if index.is_multiple_of(2) => {
            load::in_turn(std::slice::from_mut(&mut stream), REQUEST, 1, 200).await?;
        }
        Manner::Idle => {}
        Manner::Slow => stream.write_all(BEGINNING).await?,
    }
    Ok(stream)
}

fn from(index: usize) -> Ipv4Addr {
    let octet = |number: usize| u8::try_from(number % 256).unwrap_or(0);
    Ipv4Addr::new(127, 1, octet(index / HOSTS), octet(index % HOSTS + 1))
}

/// Gives back whether the proxy ended it.
async fn hold(
    mut stream: TcpStream,
    manner: Manner,
    first: Duration,
    over: CancellationToken,
) -> bool {
    let mut buffer = [0; 512];
    let mut every = interval_at(Instant::now() + first, BYTE_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = over.cancelled() => return false,
            // Whatever is said on it, it is the end.
            _ = stream.read(&mut buffer) => return true,
            _ = every.tick(), if manner == Manner::Slow => {
                if stream.write_all(b"x").await.is_err() {
                    return true;
                }
            }
        }
    }
}
