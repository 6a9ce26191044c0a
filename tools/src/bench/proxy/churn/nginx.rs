//! nginx: the whole file is written anew and reloaded for each change.

use crate::bench::proxy::peers::{NGINX, Peer, nginx};
use crate::bench::proxy::shapes::Shape;
use crate::bench::rig::PATIENCE;
use crate::bench::usage;
use crate::processes::signal;
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Between two looks whether a reload is done.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Otherwise its workers may be somebody who cannot reach the directory; not used by anybody but root.
const TOP: &str = "user root;";

pub(super) struct Nginx {
    pub(super) peer: Peer,
    origin: SocketAddr,
    /// The blocks of all routes, which do not change.
    servers: String,
}

impl Nginx {
    /// `None` if nginx is not there, which is said.
    pub(super) fn start(shape: Shape, routes: usize, origin: SocketAddr) -> Option<Self> {
        let mut servers = String::new();
        let peer = NGINX.start(|listen, directory| {
            servers = blocks(shape, routes, listen);
            nginx(directory, origin, TOP, &servers)
        })?;
        Some(Self {
            peer,
            origin,
            servers,
        })
    }

    /// Comes back when a new worker has taken over and the old one is gone.
    pub(super) fn change(&self, number: u32) -> Result<()> {
        let http = format!(
            "server {{ listen {}; server_name changing-{number}.example.com; location / {{ proxy_pass http://origin; }} }}\n{}",
            self.peer.address, self.servers
        );
        let directory = self.peer.directory.path();
        fs::write(&self.peer.file, nginx(directory, self.origin, TOP, &http))?;
        let workers = usage::children(self.peer.process);
        signal(Some(self.peer.process), Signal::HUP).context("nginx has ended")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = usage::children(self.peer.process);
            if !now.is_empty() && now.iter().all(|worker| !workers.contains(worker)) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "nginx does not reload its file");
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// A block for each route.
fn blocks(shape: Shape, routes: usize, listen: u16) -> String {
    // Names have their place in a table of hashes that must be large enough.
    let names = (routes * 8).next_power_of_two();
    let mut text = format!(
        "server_names_hash_max_size {names}; server_names_hash_bucket_size 128;\n\
         server {{ listen 127.0.0.1:{listen} default_server; return 404; }}\n"
    );
    for (host, path) in shape.hosts(routes) {
        // Writing to a text does not fail.
        let _ = writeln!(
            text,
            "server {{ listen 127.0.0.1:{listen}; server_name {host}; location {path} {{ proxy_pass http://origin; }} }}"
        );
    }
    text
}
