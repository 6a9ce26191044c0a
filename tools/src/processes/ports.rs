//! Ports that stay ours while nobody listens on them: between choosing and starting, and while a process is down.

use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

/// Lower ports are those of services that are installed.
const FIRST: u16 = 10_000;
const TRIES: u32 = 1_000;

/// A port of the loopback address on which nobody listens. The system gives it to no connection and no listener that
/// leaves the choice to it, and it is told only once in this process.
///
/// # Errors
/// If none is found.
pub fn free() -> Result<u16> {
    static TOLD: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let low = first_chosen_by_the_system();
    let span = u32::from(low.saturating_sub(FIRST).max(1));
    // Where processes begin to search must differ, or two that start together would choose the same.
    let begin = std::process::id().wrapping_mul(7_919);
    for step in 0..TRIES {
        let offset = begin.wrapping_add(step * 3) % span;
        let port = FIRST + u16::try_from(offset).unwrap_or(0);
        if !told.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            told.insert(port);
            return Ok(port);
        }
    }
    bail!("no free port of {FIRST} to {low}")
}

/// From this one on the system chooses ports for those who leave it to it.
fn first_chosen_by_the_system() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let low = range.split_whitespace().next();
    // The default of Linux.
    low.and_then(|low| low.parse().ok()).unwrap_or(32_768)
}
