//! Programs and built files that may be there.

use std::env;
use std::path::{Path, PathBuf};

use weir_tests::tool;

use crate::notes::Notes;

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
            let found = tool::find(program);
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
