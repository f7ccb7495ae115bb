//! Configuration files on disk: reading, line numbers, and the files an `include` pattern names.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use super::error::{Error, Errors, Invalid, Location};

/// What is needed of a file after its text is parsed: where it is, and where its lines begin.
#[derive(Debug)]
pub(super) struct Source {
    path: Arc<Path>,
    line_ends: Vec<usize>,
}

impl Source {
    pub(super) fn new(path: &Path, text: &str) -> Self {
        let line_ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset).collect();
        Self { path: Arc::from(path), line_ends }
    }

    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.line_ends.partition_point(|end| *end < span.start) + 1
    }

    pub(super) fn at(&self, line: usize) -> Location {
        Location { file: self.path.clone(), line }
    }

    /// Paths in a file are relative to that file.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or_else(|| Path::new("")).join(path)
    }

    /// The spanned tables of `text`, or every syntax error in it.
    pub(super) fn parse<'i>(&self, text: &'i str) -> Result<DeTable<'i>, Errors> {
        let (document, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Ok(document.into_inner());
        }
        let error = |error: &toml::de::Error| {
            let line = error.span().map_or(1, |span| self.line(&span));
            let message = format!("TOML syntax: {}", one_line(error.message()));
            Invalid::new(message).at(self.at(line), "")
        };
        let mut errors: Vec<_> = errors.iter().map(error).collect();
        // The parser recovers within a line by guessing; what it says next about that line only repeats the first mistake.
        errors.dedup_by(|next, first| next.location == first.location);
        Err(Errors::of(errors))
    }
}

/// The text of a file. The error says why there is none, and for bytes that are not UTF-8, at which line.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    let unreadable = |message: String| Error { location: None, key: path.display().to_string(), message, hint: None };
    let bytes = fs::read(path).map_err(|error| {
        let hint = (error.kind() == io::ErrorKind::NotFound)
            .then(|| "name another file with --config, or try `weir demo`, which needs none".to_owned());
        Error { hint, ..unreadable(format!("cannot be read: {error}")) }
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        unreadable(format!("line {line} is not UTF-8 text"))
    })
}

/// The files a pattern names, sorted. `*` stands for any characters in the last component only and does not match a leading dot;
/// a directory that does not exist holds no files. A pattern without `*` names exactly one file.
pub(super) fn matching_files(pattern: &Path) -> Result<Vec<PathBuf>, Invalid> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let directory = pattern.parent().unwrap_or_else(|| Path::new(""));
    if directory.to_string_lossy().contains('*') {
        return Err(Invalid::new(format!("`*` in a directory name ({})", pattern.display()))
            .hint("`*` may only be used in the file name: \"sites.d/*.toml\""));
    }
    if !name.contains('*') {
        return Ok(vec![pattern.to_owned()]);
    }
    // An empty parent means the working directory, which `read_dir` does not accept as an empty path.
    let listed = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let unreadable = |error: io::Error| Invalid::new(format!("cannot list {}: {error}", listed.display()));
    let entries = match fs::read_dir(listed) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(unreadable)?.file_name();
        if file.to_str().is_some_and(|file| !file.starts_with('.') && glob_matches(name, file)) {
            files.push(directory.join(file));
        }
    }
    files.sort();
    Ok(files)
}

/// Greedy match with one point to fall back to: linear in practice, quadratic at worst.
fn glob_matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let (first, last) = (parts.next().unwrap_or_default(), pattern.rsplit('*').next().unwrap_or_default());
    let Some(middle) = name.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else { return false };
    let inner: Vec<_> = parts.collect();
    let inner = inner.split_last().map_or(&[][..], |(_, inner)| inner);
    inner.iter().try_fold(middle, |rest, part| rest.find(part).and_then(|found| rest.get(found + part.len()..))).is_some()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_one() {
        let source = Source::new(Path::new("weir.toml"), "a\nbc\n\nd");
        let lines: Vec<_> = (0..8).map(|offset| source.line(&(offset..offset))).collect();
        assert_eq!(lines, [1, 1, 2, 2, 2, 3, 4, 4]);
    }

    #[test]
    fn glob_matches_as_a_shell_would() {
        let cases = [
            ("*.toml", "a.toml", true),
            ("*.toml", ".toml", true),
            ("*.toml", "a.toml.bak", false),
            ("*", "anything", true),
            ("site-*-*.toml", "site-a-b.toml", true),
            ("site-*-*.toml", "site-a.toml", false),
            ("a*a", "a", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxcyyc", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(glob_matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_missing_directory_holds_no_files_and_a_starred_one_is_refused() {
        assert_eq!(matching_files(Path::new("no-such-directory/*.toml")), Ok(vec![]));
        assert!(matching_files(Path::new("sites.*/a.toml")).is_err());
        assert_eq!(matching_files(Path::new("x/one.toml")), Ok(vec![PathBuf::from("x/one.toml")]));
    }
}
