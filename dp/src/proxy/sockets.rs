//! The sockets that are listened on: bound here, or taken over from who started us, as systemd passes them. A socket
//! that outlives the process keeps the connections that wait in it, so that a restart refuses none.

use super::Listen;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

/// The first descriptor that is passed.
const FIRST_DESCRIPTOR: i32 = 3;
/// More would be a mistake.
const DESCRIPTORS_MAX: i32 = 1024;

/// Listening sockets of who started us.
#[derive(Clone, Debug, Default)]
pub struct Inherited(Arc<Vec<(SocketAddr, Socket)>>);

impl Inherited {
    /// The sockets that `LISTEN_FDS` counts, if `LISTEN_PID` says that they are for this process.
    ///
    /// # Errors
    /// If they cannot be had.
    pub fn from_environment() -> io::Result<Self> {
        let variable = |name| std::env::var(name).ok()?.parse::<i32>().ok();
        let pid = getpid();
        let own = variable("LISTEN_PID") == Some(pid.as_raw_nonzero().get());
        let count = variable("LISTEN_FDS")
            .filter(|_| own)
            .unwrap_or(0)
            .clamp(0, DESCRIPTORS_MAX);
        if count == 0 {
            return Ok(Self::default());
        }
        // A number alone is nothing that may be called a socket; a copy of its descriptor is.
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let mut sockets = Vec::new();
        for number in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + count {
            let socket = Socket::from(pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?);
            let listens = socket.r#type()? == Type::STREAM && socket.is_listener()?;
            match socket.local_addr()?.as_socket().filter(|_| listens) {
                Some(address) => sockets.push((address, socket)),
                None => tracing::warn!(
                    number,
                    "a descriptor of LISTEN_FDS is no TCP socket that listens"
                ),
            }
        }
        Ok(Self(Arc::new(sockets)))
    }

    /// Sockets handed over within a process.
    ///
    /// # Errors
    /// If one has no address.
    pub fn of(listeners: impl IntoIterator<Item = TcpListener>) -> io::Result<Self> {
        let with_address =
            |listener: TcpListener| Ok((listener.local_addr()?, Socket::from(listener)));
        let sockets = listeners.into_iter().map(with_address);
        Ok(Self(Arc::new(sockets.collect::<io::Result<_>>()?)))
    }

    /// One list of listeners for each worker.
    fn share(
        &self,
        address: SocketAddr,
        workers: usize,
    ) -> io::Result<Option<Vec<Vec<TcpListener>>>> {
        let own = self.0.iter().filter(|(own, _)| *own == address);
        let own: Vec<&Socket> = own.map(|(_, socket)| socket).collect();
        if own.is_empty() || address.port() == 0 {
            return Ok(None);
        }
        let mut shares: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        for index in 0..own.len().max(workers) {
            let socket = own[index % own.len()].try_clone()?;
            socket.set_nonblocking(true)?;
            shares[index % workers].push(socket.into());
        }
        Ok(Some(shares))
    }
}

/// Listeners for each worker, and their address.
pub(super) fn listen(
    wanted: &Listen,
    workers: usize,
    inherited: &Inherited,
) -> io::Result<(SocketAddr, Vec<Vec<TcpListener>>)> {
    if let Some(shares) = inherited.share(wanted.address, workers)? {
        return Ok((wanted.address, shares));
    }
    let first = bind(wanted)?;
    // The port that was taken if 0 was asked for.
    let address = first.local_addr()?;
    let mut shares = vec![vec![first]];
    for _ in 1..workers {
        shares.push(vec![bind(&Listen { address, ..*wanted })?]);
    }
    Ok((address, shares))
}

/// A listener that shares its port with those of the other workers.
fn bind(listen: &Listen) -> io::Result<TcpListener> {
    let address = listen.address;
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(listen.backlog)?;
    Ok(socket.into())
}
