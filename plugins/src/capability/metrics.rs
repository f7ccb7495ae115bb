//! Counters of one plugin, with a bounded number of series.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Series one plugin may create.
const MAX_SERIES: usize = 64;
/// Characters of a name or a label.
const MAX_NAME: usize = 48;

/// The counters.
#[derive(Debug, Default)]
pub struct Counters {
    series: Mutex<HashMap<(String, String), u64>>,
    dropped: AtomicU64,
    cut_log_lines: AtomicU64,
}

impl Counters {
    pub(crate) fn add(&self, name: &str, label: &str, delta: u64) {
        let valid = |text: &str| {
            text.len() <= MAX_NAME && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        if name.is_empty() || !valid(name) || !valid(label) {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.to_owned(), label.to_owned());
        if series.len() >= MAX_SERIES && !series.contains_key(&key) {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        let value = series.entry(key).or_default();
        *value = value.saturating_add(delta);
    }

    /// Forgets every series.
    pub(crate) fn clear(&self) {
        self.series.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Adds what others have counted.
    pub(crate) fn adopt(&self, others: &Self) {
        for (name, label, delta) in others.snapshot() {
            self.add(&name, &label, delta);
        }
        self.dropped.fetch_add(others.dropped(), Relaxed);
        self.cut_log_lines.fetch_add(others.cut_log_lines(), Relaxed);
    }

    pub(crate) fn cut_log_line(&self) {
        self.cut_log_lines.fetch_add(1, Relaxed);
    }

    /// Name, label and value of every counter.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(String, String, u64)> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.iter().map(|((name, label), value)| (name.clone(), label.clone(), *value)).collect()
    }

    /// Additions that were refused for their name or for the number of series.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Log lines that were cut.
    #[must_use]
    pub fn cut_log_lines(&self) -> u64 {
        self.cut_log_lines.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_bounded_and_names_checked() {
        let counters = Counters::default();
        for number in 0..200 {
            counters.add(&format!("n{number}"), "", 1);
        }
        counters.add("n0", "", 5);
        counters.add("Bad Name", "", 1);
        assert_eq!(counters.snapshot().len(), MAX_SERIES);
        assert_eq!(counters.dropped(), 200 - MAX_SERIES as u64 + 1);
        assert!(counters.snapshot().contains(&("n0".to_owned(), String::new(), 6)));
    }
}
