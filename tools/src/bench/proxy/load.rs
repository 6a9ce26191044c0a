//! A generator of HTTP/1.1 requests and the origin that answers them, both as cheap as they can be.

use anyhow::{Context, Result, bail, ensure};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

/// Between two looks whether a proxy has started.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
const READ_BYTES: usize = 16 << 10;
const BODY: &str = "{\"note\":\"a body of the size that an API often answers with: short, but not empty, so that framing and copying are counted\"}";

/// What is sent.
pub(super) struct Load<'a> {
    pub(super) to: SocketAddr,
    pub(super) connections: usize,
    /// Whole requests, sent in turn.
    pub(super) requests: &'a [Vec<u8>],
    /// Requests a second, sent whether or not earlier ones are answered; `None`: as fast as answers come.
    pub(super) rate: Option<u32>,
    pub(super) lasting: Duration,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) answered: u64,
    /// Connections that broke, with the request that was under way.
    pub(super) broken: u64,
    pub(super) statuses: BTreeMap<u16, u64>,
    /// From when a request was due until its answer had come, in microseconds.
    pub(super) latencies: Vec<u32>,
    pub(super) took: Duration,
}

impl Outcome {
    /// Requests that were not answered with `status`.
    pub(super) fn failed(&self, status: u16) -> u64 {
        let well = self.statuses.get(&status).copied().unwrap_or(0);
        self.answered - well + self.broken
    }

    /// Answers a second.
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    pub(super) fn rate(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }

    /// The latency that `hundredths` of the answers did not exceed; sorts.
    pub(super) fn latency(&mut self, hundredths: usize) -> Duration {
        self.latencies.sort_unstable();
        let at = self.latencies.len() * hundredths / 100;
        let found = self
            .latencies
            .get(at.min(self.latencies.len().saturating_sub(1)));
        Duration::from_micros(u64::from(found.copied().unwrap_or(0)))
    }
}

/// Sends requests from this thread until the time is over.
pub(super) fn run(load: &Load<'_>) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = Rc::new(RefCell::new(Outcome::default()));
    let next = Rc::new(Cell::new(0_usize));
    let requests: Rc<[Vec<u8>]> = load.requests.into();
    let began = Instant::now();
    let end = began + load.lasting;
    runtime.block_on(LocalSet::new().run_until(async {
        let clients = (0..load.connections).map(|number| {
            let client = Client {
                to: load.to,
                requests: Rc::clone(&requests),
                next: Rc::clone(&next),
                outcome: Rc::clone(&outcome),
                pace: load
                    .rate
                    .map(|rate| Pace::of(number, load.connections, rate, began)),
                due: None,
                end,
            };
            tokio::task::spawn_local(client.run())
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.context("a client panicked")??;
        }
        anyhow::Ok(())
    }))?;
    let mut outcome = outcome.take();
    outcome.took = began.elapsed();
    Ok(outcome)
}

/// When a connection's requests are due.
struct Pace {
    due: Instant,
    every: Duration,
}

impl Pace {
    fn of(number: usize, connections: usize, rate: u32, began: Instant) -> Self {
        let every = Duration::from_secs(1) * u32::try_from(connections).unwrap_or(1) / rate;
        let offset =
            every * u32::try_from(number).unwrap_or(0) / u32::try_from(connections).unwrap_or(1);
        Self {
            due: began + offset,
            every,
        }
    }

    /// Waits until the next request is due. Gives back since when its latency counts: a request that is late because the answer
    /// before was, counts from when it was due.
    async fn wait(&mut self) -> Instant {
        let due = self.due;
        self.due += self.every;
        if Instant::now() >= due {
            return due;
        }
        // The timer's own delay of up to a millisecond is not the proxy's.
        tokio::time::sleep_until(due.into()).await;
        Instant::now()
    }
}

struct Client {
    to: SocketAddr,
    requests: Rc<[Vec<u8>]>,
    next: Rc<Cell<usize>>,
    outcome: Rc<RefCell<Outcome>>,
    pace: Option<Pace>,
    /// Since when a request is due that has not been sent.
    due: Option<Instant>,
    end: Instant,
}

impl Client {
    async fn run(mut self) -> Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        while Instant::now() < self.end {
            let stream = TcpStream::connect(self.to)
                .await
                .context("the proxy refused a connection")?;
            stream.set_nodelay(true)?;
            if self.converse(stream, &mut buffer).await.is_err() {
                self.outcome.borrow_mut().broken += 1;
            }
        }
        Ok(())
    }

    /// Requests and answers, until the time is over or the proxy ends the connection after an answer.
    async fn converse(&mut self, mut stream: TcpStream, buffer: &mut [u8]) -> Result<()> {
        loop {
            let began = match (self.due.take(), &mut self.pace) {
                (Some(due), _) => due,
                (None, Some(pace)) => pace.wait().await,
                (None, None) => Instant::now(),
            };
            if began >= self.end {
                return Ok(());
            }
            // A client that sees its idle connection closed opens another, and no request is lost.
            if matches!(stream.try_read(buffer), Ok(0)) {
                self.due = Some(began);
                return Ok(());
            }
            let number = self.next.get();
            self.next.set((number + 1) % self.requests.len());
            stream.write_all(&self.requests[number]).await?;
            let answer = read_answer(&mut stream, buffer).await?;
            let took = began.elapsed().as_micros();
            let mut outcome = self.outcome.borrow_mut();
            outcome.answered += 1;
            *outcome.statuses.entry(answer.status).or_default() += 1;
            outcome
                .latencies
                .push(u32::try_from(took).unwrap_or(u32::MAX));
            if answer.last {
                return Ok(());
            }
        }
    }
}

/// Sends this many requests one after the other, over each of the connections in turn, so that what the proxy does for each is the
/// same every time.
pub(super) async fn in_turn(
    connections: &mut [TcpStream],
    request: &[u8],
    number: usize,
    status: u16,
) -> Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let count = connections.len();
    for number in 0..number {
        let stream = &mut connections[number % count];
        stream.write_all(request).await?;
        let answer = read_answer(stream, &mut buffer).await?;
        ensure!(
            answer.status == status && !answer.last,
            "a request was answered with {}, and its connection kept: {}",
            answer.status,
            !answer.last
        );
    }
    Ok(())
}

struct Answer {
    status: u16,
    /// Whether the connection is closed after it.
    last: bool,
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<Answer> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            bail!("the connection ended in the middle of an answer");
        }
        filled += read;
        let mut headers = [httparse::EMPTY_HEADER; 48];
        let mut answer = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head) = answer.parse(&buffer[..filled])? else {
            continue;
        };
        let header = |name: &str| {
            let found = answer
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(found.value).ok()
        };
        let status = answer.code.unwrap_or(0);
        let last = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let whole = match header("content-length") {
            Some(length) => filled >= head + length.parse::<usize>()?,
            None => buffer[head..filled].ends_with(b"0\r\n\r\n"),
        };
        if whole {
            return Ok(Answer { status, last });
        }
    }
}

/// An origin that answers every request with the same short body. Lives as long as the program.
pub(super) fn start_origin() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(LocalSet::new().run_until(async {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::task::spawn_local(answer_all(stream));
            }
        }))
    });
    Ok(address)
}

/// Requests have no bodies.
async fn answer_all(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            stream.write_all(answer.as_bytes()).await?;
            filled = 0;
        }
    }
}
