//! A data plane is restarted while clients go on asking: none is refused, none gets another answer.

#![cfg(test)]

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use sluice_tests::cluster::{Cluster, PATIENCE};
use sluice_tests::processes::binary;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Puts a descriptor where systemd would, and says so.
const HAND_OVER: &str = r#"exec 3<&"$1"; shift; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@""#;
const CLIENTS: usize = 4;

/// A data plane on a socket that is not its own.
struct Passed(Child);

impl Passed {
    fn start(cluster: &Cluster, listener: &TcpListener) -> Self {
        let directory = cluster.directory.path();
        let mut child = Command::new("sh")
            .args(["-c", HAND_OVER, "sh"])
            .arg(listener.as_raw_fd().to_string())
            .arg(binary("sluice-dp").unwrap())
            .arg(format!("--nats-url={}", cluster.nats.url()))
            .arg(format!("--data-dir={}", directory.join("passed").display()))
            .arg(format!(
                "--trusted-keys={}",
                directory.join("keys").display()
            ))
            .arg(format!("--proxy-listen={}", listener.local_addr().unwrap()))
            .args([
                "--status-listen=127.0.0.1:0",
                "--workers=2",
                "--log-format=json",
            ])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let (sender, listening) = channel();
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                if line.contains("the proxy is listening") {
                    // Whoever waited may have given up.
                    let _ = sender.send(());
                }
            }
        });
        listening
            .recv_timeout(PATIENCE)
            .expect("the data plane listens");
        Self(child)
    }

    /// Asks it to end, and waits until it has.
    fn stop(&mut self) {
        let process = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        kill_process(process.unwrap(), Signal::TERM).unwrap();
        let until = Instant::now() + PATIENCE;
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "the data plane does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One request on a connection of its own.
fn ask(address: SocketAddr) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /shop HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().map_err(|error| error.to_string())
}

#[test]
fn a_restart_on_a_socket_that_stays_refuses_nobody() {
    let cluster = Cluster::start(1, 0).unwrap();
    let (host, port) = (cluster.origin.ip().to_string(), cluster.origin.port());
    let file = json!({ "_format_version": "3.0", "services": [
        { "name": "shop", "host": host, "port": port, "routes": [{ "name": "shop", "paths": ["/shop"] }] },
    ] });
    cluster.apply(0, &file).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    fcntl_setfd(&listener, FdFlags::empty()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut data = Passed::start(&cluster, &listener);
    let until = Instant::now() + PATIENCE;
    while !ask(address).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
        assert!(Instant::now() < until, "the route is not served");
    }

    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let failures = std::thread::scope(|scope| {
        let clients = (0..CLIENTS).map(|_| {
            scope.spawn(|| {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = ask(address);
                    asked.fetch_add(1, Ordering::Relaxed);
                    if !answer
                        .as_ref()
                        .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
                    {
                        failures.push(answer);
                    }
                }
                failures
            })
        });
        let clients: Vec<_> = clients.collect();
        for _ in 0..3 {
            let seen = asked.load(Ordering::Relaxed);
            while asked.load(Ordering::Relaxed) < seen + 200 {
                std::thread::sleep(Duration::from_millis(5));
            }
            data.stop();
            data = Passed::start(&cluster, &listener);
        }
        let seen = asked.load(Ordering::Relaxed);
        while asked.load(Ordering::Relaxed) < seen + 200 {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        let failures = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        failures.collect::<Vec<_>>()
    });
    let asked = asked.into_inner();
    assert!(
        failures.is_empty(),
        "{} of {asked}: {:?}",
        failures.len(),
        failures.first()
    );
    drop(data);
}
