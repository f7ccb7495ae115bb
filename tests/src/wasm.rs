//! Plugin files: where they are built, and ways to put them into a directory.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::tool;

/// The file of one of the policies shipped with the gateway.
///
/// # Panics
/// It was not built.
#[must_use]
pub fn policy(name: &str) -> PathBuf {
    built("WEIR_POLICIES", "policies", name)
}

/// The file of one of the fixtures under `fixtures/guests`.
///
/// # Panics
/// It was not built.
#[must_use]
pub fn guest(name: &str) -> PathBuf {
    built("WEIR_GUESTS", "guests", name)
}

/// The same plugin with a custom section more: it behaves the same and has another digest.
///
/// # Panics
/// The file cannot be read.
#[must_use]
pub fn changed(file: &Path, note: &str) -> Vec<u8> {
    let mut bytes = fs::read(file).unwrap();
    let payload = [&[4], b"note".as_slice(), note.as_bytes()].concat();
    assert!(payload.len() < 128, "one byte of length");
    bytes.push(0);
    bytes.push(payload.len() as u8);
    bytes.extend_from_slice(&payload);
    bytes
}

/// SHA-256 of a file in hex.
///
/// # Panics
/// `sha256sum` cannot be run.
#[must_use]
pub fn digest(file: &Path) -> String {
    let output = tool::run("sha256sum", &[&file.display().to_string()]);
    tool::text(&output).split_whitespace().next().expect("a digest").to_owned()
}

/// Writes beside the target and renames over it, as `mv` does.
///
/// # Panics
/// The system refuses.
pub fn move_over(bytes: &[u8], target: &Path) {
    let beside = target.with_extension("part");
    fs::write(&beside, bytes).unwrap();
    fs::rename(&beside, target).unwrap();
}

/// Empties the target and writes it in pieces that take `time` together: most of it at once, then its last bytes one at a time.
///
/// # Panics
/// The system refuses.
pub fn copy_slowly(bytes: &[u8], target: &Path, time: Duration) {
    const LAST: usize = 100;
    let mut file = fs::File::create(target).unwrap();
    let (first, last) = bytes.split_at(bytes.len().saturating_sub(LAST));
    file.write_all(first).unwrap();
    for byte in last {
        file.write_all(&[*byte]).unwrap();
        std::thread::sleep(time / LAST as u32);
    }
}

/// A core module that is valid and empty.
pub const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

fn built(variable: &str, what: &str, name: &str) -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(what);
    let file = std::env::var_os(variable).map_or_else(default, PathBuf::from).join(format!("{name}.wasm"));
    assert!(file.is_file(), "{} is missing: run `make {what}`", file.display());
    file
}
