//! Mistakes in a configuration: all of them, each with its place and a remedy.

use std::cell::RefCell;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A line of a configuration file. Shown as `file:line`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The file as it was named to [`load`](super::load), or as found by `include`.
    pub file: Arc<Path>,
    /// Counted from 1.
    pub line: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// One mistake. Shown on one line as `file:line: key: message; hint`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// Where it is; absent when the file itself could not be read.
    pub location: Option<Location>,
    /// The dotted key (`upstream.automate.timeouts.connect`); empty for a syntax error, the file's name when it could not be read.
    pub key: String,
    /// What is wrong, with the offending value.
    pub message: String,
    /// What to do about it, when that is known.
    pub hint: Option<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// Every mistake of a configuration, the main file's first, each file's in line order. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Errors(Vec<Error>);

impl Errors {
    /// `errors` must not be empty.
    pub(super) fn of(errors: Vec<Error>) -> Self {
        Self(errors)
    }

    /// The mistakes in the order they are shown.
    pub fn iter(&self) -> std::slice::Iter<'_, Error> {
        self.0.iter()
    }

    /// For `--json`: an array of `{file, line, key, message, hint}`; `file`, `line` and `hint` are null when unknown.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let one = |error: &Error| {
            serde_json::json!({
                "file": error.location.as_ref().map(|at| at.file.display().to_string()),
                "line": error.location.as_ref().map(|at| at.line),
                "key": error.key,
                "message": error.message,
                "hint": error.hint,
            })
        };
        self.0.iter().map(one).collect()
    }
}

impl From<Vec<Error>> for Errors {
    /// `errors` must not be empty.
    fn from(errors: Vec<Error>) -> Self {
        Self(errors)
    }
}

impl From<Error> for Errors {
    fn from(error: Error) -> Self {
        Self(vec![error])
    }
}

impl<'a> IntoIterator for &'a Errors {
    type Item = &'a Error;
    type IntoIter = std::slice::Iter<'a, Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Errors {
    type Item = Error;
    type IntoIter = std::vec::IntoIter<Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

/// Why a single value is refused. The reader adds place and key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    message: String,
    hint: Option<String>,
}

impl Invalid {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(super) fn maybe_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    /// For a value that stands in no `weir.toml`.
    pub(super) fn into_text(self) -> String {
        let hint = self.hint.map_or_else(String::new, |hint| format!("; {hint}"));
        format!("{}{hint}", self.message)
    }

    pub(super) fn at(self, location: Location, key: impl Into<String>) -> Error {
        Error { location: Some(location), key: key.into(), message: self.message, hint: self.hint }
    }
}

/// Collects mistakes while several readers walk one document.
#[derive(Debug, Default)]
pub(super) struct Mistakes(RefCell<Vec<Error>>);

impl Mistakes {
    pub(super) fn push(&self, error: Error) {
        self.0.borrow_mut().push(error);
    }

    pub(super) fn add(&self, location: &Location, key: impl Into<String>, invalid: Invalid) {
        self.push(invalid.at(location.clone(), key));
    }

    /// Ok when nothing was collected; otherwise everything, `main`'s mistakes before those of included files.
    pub(super) fn finish(self, main: &Path) -> Result<(), Errors> {
        let mut errors = self.0.into_inner();
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by(|a, b| {
            let rank = |error: &Error| error.location.as_ref().is_some_and(|at| &*at.file != main);
            rank(a).cmp(&rank(b)).then_with(|| a.location.cmp(&b.location))
        });
        Err(Errors(errors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(file: &str, line: usize) -> Location {
        Location { file: Arc::from(Path::new(file)), line }
    }

    #[test]
    fn main_file_comes_first_then_files_and_lines_in_order() {
        let mistakes = Mistakes::default();
        for (file, line) in [("a.toml", 9), ("weir.toml", 7), ("a.toml", 2), ("weir.toml", 3)] {
            mistakes.add(&at(file, line), "k", Invalid::new("m"));
        }
        let errors = mistakes.finish(Path::new("weir.toml")).unwrap_err();
        assert_eq!(errors.to_string(), "weir.toml:3: k: m\nweir.toml:7: k: m\na.toml:2: k: m\na.toml:9: k: m");
    }

    #[test]
    fn json_keeps_every_part() {
        let errors = Errors::from(Invalid::new("bad").hint("do better").at(at("weir.toml", 4), "site.hosts"));
        let expected =
            serde_json::json!([{"file": "weir.toml", "line": 4, "key": "site.hosts", "message": "bad", "hint": "do better"}]);
        assert_eq!(errors.to_json(), expected);
    }

    #[test]
    fn no_mistakes_is_ok() {
        assert_eq!(Mistakes::default().finish(Path::new("weir.toml")), Ok(()));
    }
}
