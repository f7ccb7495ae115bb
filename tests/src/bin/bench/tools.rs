//! Programs and built files that may be there.

use std::env;
use std::path::{Path, PathBuf};

use crate::notes::Notes;

/// Where servers are installed that an ordinary user's `PATH` leaves out.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The programs to compare with and to measure with, where they are installed.
#[derive(Debug)]
pub(crate) struct Tools {
    /// The peer that ratios are taken to; also the origin.
    pub(crate) nginx: Option<PathBuf>,
    /// The second peer.
    pub(crate) haproxy: Option<PathBuf>,
    /// The load generator for connections that are kept.
    pub(crate) wrk: Option<PathBuf>,
}

impl Tools {
    /// Looks for each, and notes what is not there.
    pub(crate) fn find(notes: &mut Notes) -> Self {
        let mut find = |program: &str, instead: &str| {
            let found = program_file(program);
            if found.is_none() {
                notes.skip(&format!("{program} is not installed (apt-get install {program}){instead}"));
            }
            found
        };
        Self {
            nginx: find("nginx", "; no ratios, and a built-in origin answers"),
            haproxy: find("haproxy", ""),
            wrk: find("wrk", "; the built-in load generator asks"),
        }
    }
}

/// The file of a plugin that `make` leaves in a directory of `target`, unless the variable names another directory.
pub(crate) fn plugin_file(variable: &str, directory: &str, name: &str) -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join(directory);
    env::var_os(variable).map_or_else(built, PathBuf::from).join(format!("{name}.wasm"))
}

fn program_file(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from));
    directories.map(|directory| directory.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_name_only_where_they_are() {
        assert!(program_file("sh").is_some_and(|file| file.ends_with("sh")));
        assert_eq!(program_file("no-such-program-of-weir"), None);
    }
}
