//! The `weir` binary.

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Heaps are many and small here: huge pages would double the resident memory and save no measurable time. A kernel that does not know
    // the switch changes nothing.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    weir::cli::main()
}
