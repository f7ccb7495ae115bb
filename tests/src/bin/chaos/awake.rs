//! Processors that do not sleep. A virtual machine whose processor sleeps is woken by its host, when that has the time: often a tenth of a
//! millisecond later, on a busy host several. Where that is more than what is measured, ratios of times say nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};

/// What the kernel is asked for by this file is granted while it is open (`Documentation/power/pm_qos_interface.rst`).
const LATENCY: &str = "/dev/cpu_dma_latency";

/// Keeps all processors awake until the file is dropped.
///
/// # Errors
/// The system's: it takes root, and a kernel that looks after idle processors.
pub(crate) fn keep() -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).open(LATENCY)?;
    // Microseconds.
    file.write_all(&0_i32.to_ne_bytes())?;
    Ok(file)
}
