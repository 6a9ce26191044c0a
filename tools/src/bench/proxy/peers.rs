//! Other proxies, if they are installed: one worker each, the same upstream, no access log, connections kept.

use super::load;
use crate::bench::usage;
use crate::processes::{ports, signal};
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A proxy that runs. Ended when dropped.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    /// The process that does the work.
    pub(super) process: u32,
    child: Child,
    /// Its configuration.
    pub(super) file: PathBuf,
    /// Where that is, and whatever else it writes.
    pub(super) directory: TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let children = usage::children(self.process);
        let _ = self.child.kill();
        let _ = self.child.wait();
        for child in children {
            // They end by themselves in part.
            let _ = signal(Some(child), Signal::KILL);
        }
    }
}

/// A kind of proxy, and how it is started.
pub(super) struct Known {
    name: &'static str,
    variable: &'static str,
    arguments: &'static [&'static str],
}

pub(super) const NGINX: Known = Known {
    name: "nginx",
    variable: "SLUICE_BENCH_NGINX",
    arguments: &["-e", "/dev/null", "-c", "{}"],
};
const HAPROXY: Known = Known {
    name: "haproxy",
    variable: "SLUICE_BENCH_HAPROXY",
    arguments: &["-db", "-f", "{}"],
};
pub(super) const ENVOY: Known = Known {
    name: "envoy",
    variable: "SLUICE_BENCH_ENVOY",
    arguments: &[
        "--concurrency",
        "1",
        "--use-dynamic-base-id",
        "--log-level",
        "off",
        "-c",
        "{}",
    ],
};

/// Starts those that are there, with one route.
pub(super) fn start(origin: SocketAddr) -> Vec<Peer> {
    let peers = [
        NGINX.start(|listen, directory| nginx(directory, origin, ONE_PROCESS, &nginx_one(listen))),
        HAPROXY.start(|listen, _| haproxy(listen, origin)),
        ENVOY.start(|listen, _| envoy(listen, origin, "", ENVOY_ONE)),
    ];
    peers.into_iter().flatten().collect()
}

impl Known {
    /// Starts it with what `config` gives for its port and its directory; if it is not there, says how it can be.
    pub(super) fn start(&self, config: impl FnOnce(u16, &Path) -> String) -> Option<Peer> {
        let binary = std::env::var(self.variable).unwrap_or_else(|_| self.name.to_owned());
        match self.try_start(&binary, config) {
            Ok(peer) => Some(peer),
            Err(error) => {
                println!(
                    "without {}: {error:#} (install it, or name its program by {})",
                    self.name, self.variable
                );
                None
            }
        }
    }

    fn try_start(&self, binary: &str, config: impl FnOnce(u16, &Path) -> String) -> Result<Peer> {
        let directory = tempfile::tempdir()?;
        let port = ports::free()?;
        let file = directory.path().join(format!("{}.yaml", self.name));
        fs::write(&file, config(port, directory.path()))?;
        let name = file.display().to_string();
        let arguments = self
            .arguments
            .iter()
            .map(|argument| argument.replace("{}", &name));
        let child = Command::new(binary)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("could not run '{binary}'"))?;
        let process = child.id();
        let peer = Peer {
            name: self.name,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            process,
            child,
            file,
            directory,
        };
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(peer.address).is_err() {
            anyhow::ensure!(Instant::now() < deadline, "'{binary}' does not listen");
            std::thread::sleep(load::PAUSE);
        }
        Ok(peer)
    }
}

/// Without a master: the one process does the work.
const ONE_PROCESS: &str = "master_process off;";

fn nginx_one(listen: u16) -> String {
    format!("server {{ listen 127.0.0.1:{listen}; location / {{ proxy_pass http://origin; }} }}")
}

/// With these lines at the top, and within `http`; `http://origin` is where requests go.
pub(super) fn nginx(directory: &Path, origin: SocketAddr, top: &str, http: &str) -> String {
    let directory = directory.display();
    format!(
        "daemon off; {top} worker_processes 1; pid {directory}/pid; error_log /dev/null;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 100000000;\n\
         client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;\n\
         uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;\n\
         upstream origin {{ server {origin}; keepalive 256; keepalive_requests 100000000; }}\n\
         proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;\n\
         {http} }}\n"
    )
}

fn haproxy(listen: u16, origin: SocketAddr) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  option forwardfor\n\
         frontend all\n  bind 127.0.0.1:{listen}\n  default_backend origin\n\
         backend origin\n  http-reuse always\n  server one {origin}\n"
    )
}

const ENVOY_ONE: &str = r#"route_config: { virtual_hosts: [{ name: all, domains: ["*"], routes: [{ match: { prefix: "/" }, route: { cluster: origin } }] }] }"#;

/// With these lines at the top, and this one for its routes, which go to `origin`.
pub(super) fn envoy(listen: u16, origin: SocketAddr, top: &str, routes: &str) -> String {
    let (ip, port) = (origin.ip(), origin.port());
    format!(
        r#"{top}
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {listen} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: all
          {routes}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: origin
    type: STATIC
    load_assignment:
      cluster_name: origin
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }} }} }}] }}]
"#
    )
}
