//! What a process uses, from its CPU clock and /proc.

use anyhow::{Context, Result, ensure};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::fs;
use std::time::{Duration, Instant};

/// CPU time of a process so far, to the nanosecond: of all its threads, those that have ended too.
pub(super) fn cpu(process: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(process.try_into()?));
    let time = clock.and_then(clock_gettime);
    Ok(time.context("the process has ended")?.into())
}

/// Waits until none of the processes does more than stay: each takes less than a hundredth of a core for a second. What
/// they write in the background after a load takes a while.
pub(super) fn wait_until_quiet(processes: &[u32]) -> Result<()> {
    const LOOK: Duration = Duration::from_secs(1);
    const LIMIT: Duration = Duration::from_secs(1200);
    let begun = Instant::now();
    let all = || {
        let each = processes.iter().map(|process| cpu(*process));
        each.collect::<Result<Vec<_>>>()
    };
    let mut before = all()?;
    loop {
        std::thread::sleep(LOOK);
        let now = all()?;
        let mut pairs = now.iter().zip(&before);
        if pairs.all(|(now, before)| *now - *before < LOOK / 100) {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < LIMIT,
            "the processes {processes:?} are still busy {LIMIT:?} after a load"
        );
        before = now;
    }
}

/// CPU time of a process with its children, those that have ended too, to the hundredth of a second.
pub(super) fn cpu_of_family(process: u32) -> Result<Duration> {
    let mut total = ticks(process, OWN_AND_OF_ENDED_CHILDREN)?;
    for child in children(process) {
        // One that ends while we look is counted by the next look.
        total += ticks(child, OWN).unwrap_or_default();
    }
    Ok(total)
}

/// How many fields of `stat` to add up, from the first with CPU time.
const OWN: usize = 2;
const OWN_AND_OF_ENDED_CHILDREN: usize = 4;

fn ticks(process: u32, fields: usize) -> Result<Duration> {
    let text =
        fs::read_to_string(format!("/proc/{process}/stat")).context("the process has ended")?;
    // The name before may hold anything but ends with the last parenthesis.
    let found = text.rsplit(')').next().unwrap_or_default();
    let ticks = found.split_whitespace().skip(11).take(fields);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// The processes it has started that still run.
pub(super) fn children(process: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let text = text.unwrap_or_default();
    text.split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// Resident memory of a process, in bytes.
pub(super) fn memory(process: u32) -> Result<u64> {
    status(process, "VmRSS:")
}

/// What of it is not of files (programs, libraries), in bytes.
pub(super) fn anonymous_memory(process: u32) -> Result<u64> {
    status(process, "RssAnon:")
}

/// The most resident memory a process has had, in bytes.
pub(super) fn memory_max(process: u32) -> Result<u64> {
    status(process, "VmHWM:")
}

fn status(process: u32, name: &str) -> Result<u64> {
    let text =
        fs::read_to_string(format!("/proc/{process}/status")).context("the process has ended")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    Ok(kibibytes.unwrap_or(0) * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_took_is_counted_once_it_has_ended() {
        let process = std::process::id();
        let before = cpu(process).unwrap();
        let busy = std::thread::spawn(move || {
            loop {
                let now = cpu(process).unwrap();
                if now > before + Duration::from_millis(50) {
                    return now;
                }
            }
        });
        let seen = busy.join().unwrap();
        assert!(cpu(process).unwrap() >= seen);
    }
}
