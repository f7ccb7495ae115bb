//! One of the two unsafe lines of the project: mapping a private, unlinked file into memory.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io::{Error, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;

/// A read-only mapping.
#[derive(Debug)]
pub(super) struct Mapped(Mmap);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Writes `bytes` to a new file in `directory`, maps it, and removes its name, so that nobody can open it again.
pub(super) fn copy_and_map(bytes: &[u8], directory: &Path) -> Result<Mapped, Error> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    std::fs::create_dir_all(directory)?;
    let path = directory.join(format!(".country-{}-{}.mmdb", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    let written = file.write_all(bytes).and_then(|()| {
        // SAFETY: the file was created by this process (`create_new`, mode 0600) and loses its only name below, so nobody else
        // can truncate or write it while it is mapped; this process never writes it again.
        unsafe { Mmap::map(&file) }
    });
    std::fs::remove_file(&path)?;
    written.map(Mapped)
}
