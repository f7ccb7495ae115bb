//! How to start this program again.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The binary and its arguments, as this process was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Where the binary is.
    pub path: PathBuf,
    /// What follows its name.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// This process. Call at its start, while the binary is still where it was.
    ///
    /// # Errors
    /// The system does not tell where it is.
    pub fn of_this_process() -> std::io::Result<Self> {
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        let directory = std::env::current_dir()?;
        let path = match named(&name, &directory) {
            Some(path) => path,
            None => std::env::current_exe()?,
        };
        Ok(Self { path, arguments: arguments.collect() })
    }
}

/// The path that a process was started by. A symlink in it stays one: switching it to another version is an upgrade. A name that was
/// looked up in `PATH` says nothing; the file itself is asked then.
fn named(name: &OsString, directory: &Path) -> Option<PathBuf> {
    let path = Path::new(name);
    (path.components().count() > 1 || path.is_absolute()).then(|| directory.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_kept_as_it_was_written() {
        let named = |name: &str| named(&name.into(), Path::new("/srv"));
        assert_eq!(named("/opt/weir/current/weir"), Some("/opt/weir/current/weir".into()));
        assert_eq!(named("bin/weir"), Some("/srv/bin/weir".into()));
        assert_eq!(named("./weir"), Some("/srv/./weir".into()));
        assert_eq!(named("weir"), None);
        assert_eq!(named(""), None);
    }
}
