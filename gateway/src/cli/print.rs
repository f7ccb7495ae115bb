//! Lines for people. A closed pipe is not an error.

use std::io::Write;

/// A line on standard output.
pub fn out(line: &str) {
    let mut stdout = std::io::stdout().lock();
    drop(stdout.write_all(line.as_bytes()).and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush()));
}

/// A line on standard error.
pub fn err(line: &str) {
    let mut stderr = std::io::stderr().lock();
    drop(stderr.write_all(line.as_bytes()).and_then(|()| stderr.write_all(b"\n")));
}
