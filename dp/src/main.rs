//! The data plane's program.

use sluice_dp::config::{Settings, VARIABLE_PREFIX};
use sluice_replica::process;
use std::process::ExitCode;

/// Measured to cost 13 % less CPU per request than the C library's.
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
