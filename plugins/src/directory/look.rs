//! One look at the directory, and at one of its files. Whatever lies there: links in circles, pipes, files of any size.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use thiserror::Error;

use super::settle::Stamp;
use crate::load::MAX_PLUGIN_BYTES;
use crate::signature::{EXTENSION, MAX_SIGNATURE_BYTES};

/// Plugin files of a directory that are looked at. A directory with more is a mistake.
pub const MAX_FILES: usize = 1_000;

/// Why a file cannot be taken as it lies there.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReadError {
    /// No policy can name it.
    #[error(
        "not a name of a plugin: use 1 to 64 letters, digits, `-`, `_`, `.` and `@`, beginning with a letter or digit, before `.wasm`"
    )]
    Name,
    /// Larger than a plugin may be.
    #[error("{0} bytes: a plugin may have at most {MAX_PLUGIN_BYTES}")]
    TooLarge(u64),
    /// A directory, a pipe, a socket or a device.
    #[error("{0} is no regular file")]
    NoFile(String),
    /// The system refuses.
    #[error("cannot read {path}: {reason}")]
    System {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
}

impl ReadError {
    /// Whether it takes another file: the others may go away by themselves.
    #[must_use]
    pub const fn is_lasting(&self) -> bool {
        matches!(self, Self::Name | Self::TooLarge(_))
    }
}

/// The plugin files of a directory: name without `.wasm`, and stamp. Dotfiles and other endings are not plugins; what cannot be looked into
/// is listed, so that reading it tells why.
///
/// # Errors
/// The directory cannot be read.
pub fn list(directory: &Path) -> std::io::Result<HashMap<String, Stamp>> {
    let mut files = HashMap::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".wasm"));
        let Some(name) = name.filter(|name| !name.is_empty() && !name.starts_with('.')) else { continue };
        if let Some(stamp) = stamp(&path) {
            files.insert(name.to_owned(), stamp);
        }
    }
    Ok(files)
}

/// The content of a plugin file.
///
/// # Errors
/// It cannot be taken as it lies there.
pub fn read(directory: &Path, name: &str) -> Result<Vec<u8>, ReadError> {
    if !is_name(name) {
        return Err(ReadError::Name);
    }
    let path = directory.join(format!("{name}.wasm"));
    let system = |error: std::io::Error| ReadError::System { path: path.display().to_string(), reason: error.to_string() };
    let file = open(&path).map_err(system)?;
    let metadata = file.metadata().map_err(system)?;
    if !metadata.is_file() {
        return Err(ReadError::NoFile(path.display().to_string()));
    }
    if metadata.len() > MAX_PLUGIN_BYTES {
        return Err(ReadError::TooLarge(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    // It may grow meanwhile.
    file.take(MAX_PLUGIN_BYTES + 1).read_to_end(&mut bytes).map_err(system)?;
    if bytes.len() as u64 > MAX_PLUGIN_BYTES {
        return Err(ReadError::TooLarge(bytes.len() as u64));
    }
    Ok(bytes)
}

/// The file of a plugin's signature.
#[must_use]
pub fn signature_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.wasm.{EXTENSION}"))
}

/// The signature that lies beside a plugin; one that cannot be read as it lies there is none.
#[must_use]
pub fn signature(directory: &Path, name: &str) -> Option<String> {
    let file = open(&signature_path(directory, name)).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    // More than a signature has is no signature.
    file.take(MAX_SIGNATURE_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Opening a pipe would wait for somebody who writes to it.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// What a file looks like from outside. Links are followed, so that flipping one counts as a change; one that leads nowhere is looked at
/// itself.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).or_else(|_| std::fs::symlink_metadata(path)).ok()?;
    let signature = std::fs::metadata(path.with_extension(format!("wasm.{EXTENSION}"))).ok();
    Some(Stamp {
        length: metadata.len(),
        modified: metadata.modified().ok(),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        inode: (metadata.dev(), metadata.ino()),
        signature: signature.map(|file| (file.len(), file.ino(), (file.ctime(), file.ctime_nsec()))),
    })
}

/// What policies can name, and what is safe in commands, metrics and logs.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@');
    name.len() <= 64 && name.bytes().all(allowed) && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn whatever_lies_there_is_listed_and_says_why_it_cannot_be_read() {
        let directory = std::env::temp_dir().join(format!("weir-look-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&directory));
        std::fs::create_dir_all(directory.join("dir.wasm")).unwrap();
        std::fs::write(directory.join("good.wasm"), "x").unwrap();
        std::fs::write(directory.join("ips@new.wasm"), "y").unwrap();
        std::fs::write(directory.join("a name.wasm"), "x").unwrap();
        for other in [".hidden.wasm", "part.wasm.tmp", ".wasm", "notes.txt"] {
            std::fs::write(directory.join(other), "x").unwrap();
        }
        symlink("loop.wasm", directory.join("loop.wasm")).unwrap();
        symlink("nowhere", directory.join("broken.wasm")).unwrap();
        symlink("good.wasm", directory.join("link.wasm")).unwrap();
        File::create(directory.join("large.wasm")).unwrap().set_len(MAX_PLUGIN_BYTES + 1).unwrap();
        let made = std::process::Command::new("mkfifo").arg(directory.join("pipe.wasm")).status();
        assert!(made.is_ok_and(|made| made.success()));

        let mut names: Vec<String> = list(&directory).unwrap().into_keys().collect();
        names.sort();
        let expected = ["a name", "broken", "dir", "good", "ips@new", "large", "link", "loop", "pipe"].map(str::to_owned);
        assert_eq!(names, expected);
        for (name, bytes) in [("good", b"x"), ("link", b"x"), ("ips@new", b"y")] {
            assert_eq!(read(&directory, name).unwrap(), bytes, "{name}");
        }
        let cases = [
            ("a name", "not a name of a plugin", true),
            ("broken", "No such file", false),
            ("dir", "no regular file", false),
            ("large", "at most", true),
            ("loop", "ymbolic links", false),
            ("pipe", "no regular file", false),
        ];
        for (name, expected, lasting) in cases {
            let error = read(&directory, name).unwrap_err();
            assert!(error.to_string().contains(expected), "{name}: {error}");
            assert_eq!(error.is_lasting(), lasting, "{name}");
        }
        let made = std::process::Command::new("mkfifo").arg(signature_path(&directory, "good")).status();
        assert!(made.is_ok_and(|made| made.success()));
        std::fs::write(signature_path(&directory, "ips@new"), "signed").unwrap();
        std::fs::write(signature_path(&directory, "link"), [0xff]).unwrap();
        for (name, text) in [("good", None), ("ips@new", Some("signed")), ("link", None), ("large", None)] {
            assert_eq!(signature(&directory, name).as_deref(), text, "{name}");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}
