//! The control plane's program.

use sluice_cp::config::{Settings, VARIABLE_PREFIX};
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
        tokio::runtime::Builder::new_multi_thread(),
        sluice_cp::start::run,
    )
}
