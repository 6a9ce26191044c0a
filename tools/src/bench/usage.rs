//! What a process uses, from /proc.

use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

/// CPU time of all threads of a process so far, to the nanosecond.
pub(super) fn cpu(process: u32) -> Result<Duration> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).context("the process has ended")?;
    let mut total = 0;
    for task in tasks {
        let path = task?.path().join("schedstat");
        // A thread may end while we look.
        let text = fs::read_to_string(path).unwrap_or_default();
        total += text
            .split(' ')
            .next()
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(Duration::from_nanos(total))
}

/// Resident memory of a process, in bytes.
pub(super) fn memory(process: u32) -> Result<u64> {
    let text =
        fs::read_to_string(format!("/proc/{process}/status")).context("the process has ended")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    Ok(kibibytes.unwrap_or(0) * 1024)
}
