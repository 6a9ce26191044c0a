//! The data plane's program.

use sluice_dp::config::{Settings, VARIABLE_PREFIX};
use sluice_replica::process;
use std::process::ExitCode;

/// Why this one: docs/decisions/0034.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    process::run::<Settings, _>(
        std::env::args_os(),
        VARIABLE_PREFIX,
        Settings::logging,
        tokio::runtime::Builder::new_current_thread(),
        sluice_dp::start::run,
    )
}
