//! Other proxies, if they are installed: one worker each, the same upstream, no access log, connections kept.

use super::load;
use crate::processes::ports;
use anyhow::{Context, Result};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
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
    /// Where its configuration is.
    _directory: TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A kind of proxy: what its file says and how it is started.
struct Known {
    name: &'static str,
    variable: &'static str,
    config: fn(listen: u16, origin: SocketAddr, directory: &Path) -> String,
    arguments: &'static [&'static str],
}

const KNOWN: [Known; 3] = [
    Known {
        name: "nginx",
        variable: "SLUICE_BENCH_NGINX",
        config: nginx,
        arguments: &["-e", "/dev/null", "-c", "{}"],
    },
    Known {
        name: "haproxy",
        variable: "SLUICE_BENCH_HAPROXY",
        config: haproxy,
        arguments: &["-db", "-f", "{}"],
    },
    Known {
        name: "envoy",
        variable: "SLUICE_BENCH_ENVOY",
        config: envoy,
        arguments: &[
            "--concurrency",
            "1",
            "--use-dynamic-base-id",
            "--log-level",
            "off",
            "-c",
            "{}",
        ],
    },
];

/// Starts those that are there; says of the others how they can be.
pub(super) fn start(origin: SocketAddr) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for known in &KNOWN {
        let binary = std::env::var(known.variable).unwrap_or_else(|_| known.name.to_owned());
        match known.start(&binary, origin) {
            Ok(peer) => peers.push(peer),
            Err(error) => println!(
                "without {}: {error:#} (install it, or name its program by {})",
                known.name, known.variable
            ),
        }
    }
    Ok(peers)
}

impl Known {
    fn start(&self, binary: &str, origin: SocketAddr) -> Result<Peer> {
        let directory = tempfile::tempdir()?;
        let port = ports::free()?;
        let file = directory.path().join(format!("{}.yaml", self.name));
        fs::write(&file, (self.config)(port, origin, directory.path()))?;
        let file = file.display().to_string();
        let arguments = self
            .arguments
            .iter()
            .map(|argument| argument.replace("{}", &file));
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
            _directory: directory,
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
fn nginx(listen: u16, origin: SocketAddr, directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "daemon off; master_process off; worker_processes 1; pid {directory}/pid; error_log /dev/null;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 100000000;\n\
         client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;\n\
         uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;\n\
         upstream origin {{ server {origin}; keepalive 256; keepalive_requests 100000000; }}\n\
         server {{ listen 127.0.0.1:{listen}; location / {{ proxy_pass http://origin; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme; }} }} }}\n"
    )
}

fn haproxy(listen: u16, origin: SocketAddr, _: &Path) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  option forwardfor\n\
         frontend all\n  bind 127.0.0.1:{listen}\n  default_backend origin\n\
         backend origin\n  http-reuse always\n  server one {origin}\n"
    )
}

fn envoy(listen: u16, origin: SocketAddr, _: &Path) -> String {
    let (ip, port) = (origin.ip(), origin.port());
    format!(
        r#"static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {listen} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: all
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: origin }} }}]
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
