//! The `sluice` program.

use std::process::ExitCode;

/// Why this one: docs/decisions/0034.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    sluice_tools::run()
}
