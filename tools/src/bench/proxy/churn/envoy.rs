//! Envoy: its routes are in a file that is replaced for each change.

use crate::bench::client::Client;
use crate::bench::proxy::peers::{ENVOY, Peer, envoy};
use crate::bench::proxy::shapes::Shape;
use crate::bench::rig::PATIENCE;
use crate::processes::ports;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Between two looks whether a file was taken up.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The file of the routes, in a directory of its own, which Envoy watches.
const FILE: &str = "routes.json";

pub(super) struct Envoy {
    pub(super) peer: Peer,
    admin: Client,
    watched: TempDir,
    /// The routes that do not change, as JSON: objects with commas between them.
    hosts: String,
}

impl Envoy {
    /// `None` if Envoy is not there, which is said.
    pub(super) fn start(shape: Shape, routes: usize, origin: SocketAddr) -> Result<Option<Self>> {
        let watched = tempfile::tempdir()?;
        let each = shape
            .hosts(routes)
            .map(|(host, path)| virtual_host(&host, &path).to_string());
        let hosts = each.collect::<Vec<_>>().join(",");
        fs::write(
            watched.path().join(FILE),
            routes_file("start", "start", &hosts),
        )?;
        let admin = ports::free()?;
        let top = format!(
            "node: {{ id: bench, cluster: bench }}\n\
             admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {admin} }} }} }}"
        );
        let routes = dynamic(watched.path());
        let peer = ENVOY.start(|listen, _| envoy(listen, origin, &top, &routes));
        Ok(peer.map(|peer| Self {
            peer,
            admin: Client::new(format!("http://127.0.0.1:{admin}")),
            watched,
            hosts,
        }))
    }

    /// Comes back when Envoy says that it has the new file.
    pub(super) fn change(&self, number: u32) -> Result<()> {
        let version = format!("change-{number}");
        let host = format!("changing-{number}.example.com");
        let aside = self.peer.directory.path().join(FILE);
        fs::write(&aside, routes_file(&version, &host, &self.hosts))?;
        fs::rename(&aside, self.watched.path().join(FILE))?;
        let wanted = format!("rds.all.version_text: \"{version}\"");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut answer = self.admin.get("/stats?filter=rds.all.version_text")?;
            if answer.body_mut().read_to_string()?.contains(&wanted) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "Envoy does not take up its file");
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn dynamic(watched: &Path) -> String {
    let (file, directory) = (watched.join(FILE), watched.display());
    let file = file.display();
    format!(
        "rds: {{ route_config_name: all, config_source: {{ resource_api_version: V3, path_config_source: {{ path: {file}, \
         watched_directory: {{ path: {directory} }} }} }} }}"
    )
}

fn virtual_host(host: &str, path: &str) -> Value {
    json!({
        "name": host,
        "domains": [host],
        "routes": [{ "match": { "prefix": path }, "route": { "cluster": "origin" } }],
    })
}

/// The routes that do not change, and one to a host that does.
fn routes_file(version: &str, changing: &str, hosts: &str) -> String {
    let changing = virtual_host(changing, "/");
    format!(
        r#"{{"version_info":"{version}","resources":[{{"@type":"type.googleapis.com/envoy.config.route.v3.RouteConfiguration","name":"all","virtual_hosts":[{changing},{hosts}]}}]}}"#
    )
}
