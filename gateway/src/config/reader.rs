//! Walks a TOML table: hands out its values parsed, records what is wrong with them, and reports the keys nobody asked for.

use std::path::PathBuf;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Invalid, Location, Mistakes};
use super::source::Source;
use super::{suggest, values};

/// A value and the line it stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) at: Location,
}

/// One table being read. Every key is asked for once; [`finish`](Self::finish) refuses the others.
pub(super) struct Reader<'r, 'i> {
    source: &'r Source,
    mistakes: &'r Mistakes,
    table: &'r DeTable<'i>,
    path: String,
    line: usize,
    known: Vec<&'static str>,
}

impl<'r, 'i> Reader<'r, 'i> {
    /// The top level of a file.
    pub(super) fn new(source: &'r Source, mistakes: &'r Mistakes, table: &'r DeTable<'i>) -> Self {
        Self { source, mistakes, table, path: String::new(), line: 1, known: Vec::new() }
    }

    /// Where the table begins.
    pub(super) fn at(&self) -> Location {
        self.source.at(self.line)
    }

    pub(super) fn optional<T>(&mut self, key: &'static str, parse: impl Parse<T>) -> Option<T> {
        self.located(key, parse).map(|located| located.value)
    }

    pub(super) fn or<T>(&mut self, key: &'static str, default: T, parse: impl Parse<T>) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    /// Like [`optional`](Self::optional), but a missing key is a mistake too; `example` is what the hint tells to write.
    pub(super) fn required<T>(&mut self, key: &'static str, example: &str, parse: impl Parse<T>) -> Option<T> {
        self.required_at(key, example, parse).map(|located| located.value)
    }

    pub(super) fn required_at<T>(&mut self, key: &'static str, example: &str, parse: impl Parse<T>) -> Option<Located<T>> {
        if !self.table.contains_key(key) {
            self.missing(key, example);
        }
        self.located(key, parse)
    }

    pub(super) fn located<T>(&mut self, key: &'static str, parse: impl Parse<T>) -> Option<Located<T>> {
        self.known.push(key);
        let value = self.table.get(key)?;
        self.parsed(key, value, &parse)
    }

    /// A file or directory, relative to the configuration file.
    pub(super) fn file(&mut self, key: &'static str) -> Option<PathBuf> {
        self.optional(key, values::path).map(|path| self.source.resolve(&path))
    }

    pub(super) fn required_file(&mut self, key: &'static str, example: &str) -> Option<PathBuf> {
        self.required(key, example, values::path).map(|path| self.source.resolve(&path))
    }

    /// A path written inside another value, such as `unix:PATH`.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.source.resolve(path)
    }

    /// The items of an array that are right; the others are recorded. Empty when the key is absent.
    pub(super) fn list<T>(&mut self, key: &'static str, parse: impl Parse<T>) -> Vec<Located<T>> {
        self.known.push(key);
        let Some(value) = self.table.get(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            let wrong = values::wrong_type("an array", value.get_ref()).hint(format!("write {key} = [..]"));
            self.refuse(self.line_of(value), key, wrong);
            return Vec::new();
        };
        items.iter().filter_map(|item| self.parsed(key, item, &parse)).collect()
    }

    /// How many items an array has; 1 for a value that is none; absent when the key is.
    pub(super) fn length(&self, key: &str) -> Option<usize> {
        self.table.get(key).map(|value| value.get_ref().as_array().map_or(1, |items| items.len()))
    }

    /// `[key]` or `key = { .. }`.
    pub(super) fn table(&mut self, key: &'static str) -> Option<Self> {
        self.known.push(key);
        let (name, value) = self.table.get_key_value(key)?;
        let Some(table) = value.get_ref().as_table() else {
            let wrong =
                values::wrong_type("a table", value.get_ref()).hint(format!("write {key} = {{ .. }}, or a section of its own"));
            self.refuse(self.line_of(name), key, wrong);
            return None;
        };
        Some(self.nested(table, self.key(key), self.line_of(name)))
    }

    /// `[[key]]` sections, or `key = [{ .. }, ..]`. None when the key is absent.
    pub(super) fn tables(&mut self, key: &'static str) -> Option<Vec<Self>> {
        self.known.push(key);
        let value = self.table.get(key)?;
        let section = self.key(key);
        let Some(items) = value.get_ref().as_array() else {
            let wrong = values::wrong_type("an array of tables", value.get_ref());
            let hint = if self.path.is_empty() { format!("write [[{key}]]") } else { format!("write {key} = [{{ .. }}]") };
            self.refuse(self.line_of(value), key, wrong.hint(hint));
            return Some(Vec::new());
        };
        let nested = items.iter().filter_map(|item| match item.get_ref() {
            DeValue::Table(table) => Some(self.nested(table, section.clone(), self.line_of(item))),
            other => {
                let wrong = values::wrong_type("a table", other).hint(format!("write {key} = [{{ .. }}]"));
                self.refuse(self.line_of(item), key, wrong);
                None
            }
        });
        Some(nested.collect())
    }

    /// `[key.NAME]` sections, each with its name.
    pub(super) fn named(&mut self, key: &'static str) -> Vec<(Arc<str>, Self)> {
        let Some(outer) = self.table(key) else { return Vec::new() };
        let nested = outer.table.iter().filter_map(|(name, value)| {
            let line = outer.line_of(name);
            if let Err(invalid) = values::check_name(name.get_ref()) {
                outer.refuse(line, name.get_ref(), invalid);
                return None;
            }
            let Some(table) = value.get_ref().as_table() else {
                let wrong = values::wrong_type("a table", value.get_ref()).hint(format!("write [{key}.{}]", name.get_ref()));
                outer.refuse(line, name.get_ref(), wrong);
                return None;
            };
            Some((Arc::from(name.get_ref().as_ref()), outer.nested(table, outer.key(name.get_ref()), line)))
        });
        nested.collect()
    }

    /// Records a mistake found by looking at several keys together, at the line of `key` or, without one, of the table.
    pub(super) fn conflict(&self, key: &str, invalid: Invalid) {
        let line = self.table.get_key_value(key).map_or(self.line, |(name, _)| self.line_of(name));
        self.refuse(line, key, invalid);
    }

    /// Records a mistake at a place already known.
    pub(super) fn refuse_at(&self, at: &Location, key: &str, invalid: Invalid) {
        self.mistakes.add(at, key, invalid);
    }

    pub(super) fn missing(&self, key: &str, example: &str) {
        self.refuse(self.line, key, Invalid::new("missing").hint(format!("write {example}")));
    }

    /// A key of a later version: known, but only `off` does anything today.
    pub(super) fn later(&mut self, key: &'static str, hint: &str) {
        self.known.push(key);
        if let Some(value) = self.table.get(key)
            && value.get_ref().as_bool() != Some(false)
        {
            let message = format!("not supported yet ({})", values::shown(value.get_ref()));
            self.refuse(self.line_of(value), key, Invalid::new(message).hint(hint));
        }
    }

    /// Refuses the keys that were not asked for.
    pub(super) fn finish(self) {
        self.finish_or(|_| None);
    }

    /// Like [`finish`](Self::finish); `explain` may know better than "unknown key" what is wrong with one.
    pub(super) fn finish_or(self, explain: impl Fn(&str) -> Option<Invalid>) {
        for name in self.table.keys().filter(|name| !self.known.contains(&name.get_ref().as_ref())) {
            let key = name.get_ref();
            let invalid = explain(key).unwrap_or_else(|| {
                Invalid::new("unknown key").maybe_hint(suggest::hint(key, "known here", self.known.iter().copied()))
            });
            self.refuse(self.line_of(name), key, invalid);
        }
    }

    fn parsed<T>(&self, key: &str, value: &Spanned<DeValue<'_>>, parse: &impl Parse<T>) -> Option<Located<T>> {
        let line = self.line_of(value);
        match parse(value.get_ref()) {
            Ok(value) => Some(Located { value, at: self.source.at(line) }),
            Err(invalid) => {
                self.refuse(line, key, invalid);
                None
            }
        }
    }

    fn nested(&self, table: &'r DeTable<'i>, path: String, line: usize) -> Self {
        Self { source: self.source, mistakes: self.mistakes, table, path, line, known: Vec::new() }
    }

    fn refuse(&self, line: usize, key: &str, invalid: Invalid) {
        self.mistakes.add(&self.source.at(line), self.key(key), invalid);
    }

    fn line_of<T>(&self, spanned: &Spanned<T>) -> usize {
        self.source.line(&spanned.span())
    }

    fn key(&self, key: &str) -> String {
        let key = values::shown_key(key);
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }
}

/// From a TOML value to a checked one.
pub(super) trait Parse<T>: Fn(&DeValue<'_>) -> Result<T, Invalid> {}

impl<T, F: Fn(&DeValue<'_>) -> Result<T, Invalid>> Parse<T> for F {}
