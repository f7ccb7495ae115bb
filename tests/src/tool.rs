//! Programs that may be on the machine.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Where servers are installed that an ordinary user's `PATH` leaves out.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The file of a program, by name.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from));
    directories.map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// Whether a program can be run; says loudly when not. A scenario without its tool proves nothing, and the log of the run shows it.
#[must_use]
pub fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let found = found.is_ok_and(|output| output.status.success() || !output.stdout.is_empty() || !output.stderr.is_empty());
    if !found {
        skipped(&format!("{program} is not installed"));
    }
    found
}

/// Says that a scenario did not run.
#[allow(clippy::print_stderr, reason = "the log of the run must show what it did not prove")]
pub fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// Runs a program to its end with nothing on its input.
///
/// # Panics
/// It cannot be run.
#[must_use]
pub fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// What a program wrote, standard error after standard output.
#[must_use]
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_name_only_where_they_are() {
        assert!(find("sh").is_some_and(|file| file.ends_with("sh")));
        assert_eq!(find("no-such-program-of-weir"), None);
    }
}
