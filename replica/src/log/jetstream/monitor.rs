//! Whether acknowledged appends are synced. Brokers do not tell their clients; they tell whoever asks on their
//! monitoring port (`http_port`), in `/varz`.

use super::link::Link;
use crate::log::Durability;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ASK_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;
const PORT: u16 = 8222;

pub(super) async fn durability(link: &Link, monitors: &[String], replicas: usize) -> Durability {
    if monitors.len() < replicas.max(1) {
        return Durability::Unknown(format!(
            "the broker tells only on its monitoring port: set 'sync_interval: always' and 'http_port' in its \
             configuration and name the monitoring addresses of all {replicas} brokers"
        ));
    }
    let Some((_, connected)) = link.server() else {
        return Durability::Unknown("there has been no connection to a broker yet".into());
    };
    let mut met = false;
    for monitor in monitors {
        let asked = tokio::time::timeout(ASK_TIMEOUT, varz(monitor)).await;
        match asked.unwrap_or_else(|_| Err("no answer in time".into())) {
            Ok(varz) => {
                match varz["jetstream"]["config"]["sync_always"].as_bool() {
                    Some(true) => {}
                    Some(false) | None => return Durability::Delayed,
                }
                met |= varz["server_id"] == connected.as_str();
            }
            Err(reason) => {
                return Durability::Unknown(format!("could not ask '{monitor}': {reason}"));
            }
        }
    }
    if met {
        return Durability::Synced;
    }
    Durability::Unknown("none of the monitoring addresses belongs to the broker in use".into())
}

/// Asks in HTTP/1.0, so that the answer is plain and ends with the connection.
async fn varz(monitor: &str) -> Result<Value, String> {
    let host = monitor
        .strip_prefix("http://")
        .ok_or("it must begin with 'http://'")?;
    let host = host.trim_end_matches('/');
    let bare = !host.contains(':') || host.ends_with(']');
    let address = if bare {
        format!("{host}:{PORT}")
    } else {
        host.to_owned()
    };
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).await.map_err(text)?;
    let request = format!("GET /varz HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(text)?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await
        .map_err(text)?;
    let body = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or("not HTTP")?;
    serde_json::from_slice(&answer[body + 4..]).map_err(|error| error.to_string())
}
