//! Programs that may be on the machine.

use std::process::{Command, Output, Stdio};

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
