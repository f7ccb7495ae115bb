//! What the reader of a report must know beside the figures.

use std::io::{self, Write as _};

/// What was left out and what went wrong, in the order in which it was found.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Not on this machine, so not measured.
    pub(crate) skipped: Vec<String>,
    /// Should have run, and did not, or did wrong.
    pub(crate) failed: Vec<String>,
}

impl Notes {
    /// Something is not installed or not built; said at once.
    pub(crate) fn skip(&mut self, why: &str) {
        weir_tests::tool::skipped(why);
        self.skipped.push(why.to_owned());
    }

    /// Something did not run or was refused; said at once.
    pub(crate) fn fail(&mut self, why: &str) {
        say(&format!("FAILED: {why}"));
        self.failed.push(why.to_owned());
    }
}

/// A line for whoever waits, on standard error.
pub(crate) fn say(line: &str) {
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(io::stderr(), "{line}"));
}

/// A line of the report, on standard output.
pub(crate) fn print(line: &str) {
    // A reader that went away, such as `head`, has what it wanted.
    drop(writeln!(io::stdout(), "{line}"));
}
