//! Small shared state of one plugin: bounded, with time to live, evicting the oldest.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Keys one plugin may hold.
const MAX_ENTRIES: usize = 10_000;
/// Bytes of keys and values one plugin may hold.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of one key and of one value.
const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 64 * 1024;

/// The store. A lock is held for a map operation only, never across a call of a guest.
#[derive(Debug, Default)]
pub struct Kv {
    table: Mutex<Table>,
}

#[derive(Clone, Debug, Default)]
struct Table {
    entries: HashMap<String, Entry>,
    /// Age order: sequence number to key.
    order: BTreeMap<u64, String>,
    next: u64,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    value: Vec<u8>,
    expires: Option<Instant>,
    sequence: u64,
}

impl Kv {
    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.with(|table| table.get(key, Instant::now()).map(<[u8]>::to_vec))
    }

    pub(crate) fn set(&self, key: String, value: Vec<u8>, ttl_ms: u64) {
        self.with(|table| table.set(key, value, expiry(ttl_ms, Instant::now())));
    }

    pub(crate) fn delete(&self, key: &str) {
        self.with(|table| table.remove(key));
    }

    pub(crate) fn increment(&self, key: String, delta: i64, ttl_ms: u64) -> i64 {
        self.with(|table| table.increment(key, delta, ttl_ms, Instant::now()))
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.with(|table| *table = Table::default());
    }

    /// A copy to write to, and where its own writes will begin.
    pub(crate) fn copy(&self) -> (Self, u64) {
        let table = self.with(|table| table.clone());
        let begin = table.next;
        (Self { table: Mutex::new(table) }, begin)
    }

    /// Repeats what was written to a copy. What changed here meanwhile and not there stays.
    pub(crate) fn adopt(&self, copy: &Self, begin: u64) {
        let copy = copy.with(|table| table.clone());
        self.with(|table| {
            let missing = |(_, key): &(&u64, &String)| !copy.entries.contains_key(*key);
            let deleted: Vec<String> = table.order.range(..begin).filter(missing).map(|(_, key)| key.clone()).collect();
            deleted.iter().for_each(|key| table.remove(key));
            for (_, key) in copy.order.range(begin..) {
                if let Some(entry) = copy.entries.get(key) {
                    table.set(key.clone(), entry.value.clone(), entry.expires);
                }
            }
        });
    }

    /// Sets or deletes a key whose value is the expected one; none stands for no such key. Answers whether it did.
    pub(crate) fn compare_and_set(&self, key: String, expected: Option<&[u8]>, new: Option<Vec<u8>>, ttl_ms: u64) -> bool {
        let now = Instant::now();
        self.with(|table| table.compare_and_set(key, expected, new, expiry(ttl_ms, now), now))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        change(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn expiry(ttl_ms: u64, now: Instant) -> Option<Instant> {
    if ttl_ms == 0 { None } else { now.checked_add(Duration::from_millis(ttl_ms)) }
}

impl Table {
    fn get(&mut self, key: &str, now: Instant) -> Option<&[u8]> {
        if self.entries.get(key)?.expires.is_some_and(|at| at <= now) {
            self.remove(key);
        }
        self.entries.get(key).map(|entry| entry.value.as_slice())
    }

    fn set(&mut self, key: String, value: Vec<u8>, expires: Option<Instant>) -> bool {
        if key.len() > MAX_KEY || value.len() > MAX_VALUE {
            return false;
        }
        self.remove(&key);
        self.bytes += key.len() + value.len();
        self.order.insert(self.next, key.clone());
        self.entries.insert(key, Entry { value, expires, sequence: self.next });
        self.next += 1;
        while self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES {
            let Some((_, oldest)) = self.order.first_key_value() else { break };
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
        true
    }

    fn compare_and_set(
        &mut self,
        key: String,
        expected: Option<&[u8]>,
        new: Option<Vec<u8>>,
        expires: Option<Instant>,
        now: Instant,
    ) -> bool {
        if self.get(&key, now) != expected {
            return false;
        }
        match new {
            Some(value) => self.set(key, value, expires),
            None => {
                self.remove(&key);
                true
            }
        }
    }

    /// Counts in eight bytes, little endian; a value that is no counter starts again at 0. The time to live of the first
    /// increment stays, so that a steady stream cannot keep a window open.
    fn increment(&mut self, key: String, delta: i64, ttl_ms: u64, now: Instant) -> i64 {
        let old = self.get(&key, now).and_then(|value| value.try_into().ok()).map(i64::from_le_bytes);
        let expires = match (old, self.entries.get(&key)) {
            (Some(_), Some(entry)) => entry.expires,
            _ => expiry(ttl_ms, now),
        };
        let new = old.unwrap_or(0).saturating_add(delta);
        self.set(key, new.to_le_bytes().to_vec(), expires);
        new
    }

    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= key.len() + entry.value.len();
            self.order.remove(&entry.sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_expire_and_counters_keep_their_window() {
        let mut table = Table::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(table.increment("a".to_owned(), 2, 100, at(0)), 2);
        assert_eq!(table.increment("a".to_owned(), 3, 100, at(60)), 5);
        assert_eq!(table.increment("a".to_owned(), 1, 100, at(110)), 1, "the window of the first increment ended");
        table.set("b".to_owned(), b"x".to_vec(), None);
        assert_eq!(table.get("b", at(1_000_000)), Some(b"x".as_slice()));
    }

    #[test]
    fn a_copy_is_adopted_with_its_writes_only() {
        let (store, key) = (Kv::default(), |name: &str| name.to_owned());
        for name in ["kept", "changed", "deleted", "meanwhile"] {
            store.set(key(name), b"old".to_vec(), 0);
        }
        let (copy, begin) = store.copy();
        copy.set(key("changed"), b"new".to_vec(), 0);
        copy.set(key("added"), b"new".to_vec(), 0);
        copy.delete("deleted");
        store.set(key("meanwhile"), b"newer".to_vec(), 0);
        assert_eq!(store.get("added"), None, "nothing before it is adopted");
        store.adopt(&copy, begin);
        let values = ["kept", "changed", "added", "deleted", "meanwhile"].map(|name| store.get(name));
        let bytes = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(values, [bytes("old"), bytes("new"), bytes("new"), None, bytes("newer")]);
    }

    #[test]
    fn a_value_is_replaced_only_where_it_is_the_expected_one() {
        let mut table = Table::default();
        let now = Instant::now();
        let mut swap = |expected: Option<&str>, new: Option<&str>, at: Instant| {
            let new = new.map(|text| text.as_bytes().to_vec());
            table.compare_and_set("k".to_owned(), expected.map(str::as_bytes), new, expiry(100, at), at)
        };
        assert!(!swap(Some("a"), Some("b"), now), "there is no such key");
        assert!(swap(None, Some("a"), now));
        assert!(!swap(None, Some("b"), now) && !swap(Some("b"), Some("c"), now));
        assert!(swap(Some("a"), Some("b"), now) && swap(Some("b"), None, now) && swap(None, Some("c"), now));
        assert!(swap(None, Some("d"), now + Duration::from_millis(100)), "what expired is not there");
        let too_large = "v".repeat(MAX_VALUE + 1);
        assert!(!swap(Some("d"), Some(&too_large), now) && swap(Some("d"), Some(""), now), "the old value stays");
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut table = Table::default();
        for number in 0..=MAX_ENTRIES {
            table.set(number.to_string(), b"v".to_vec(), None);
        }
        assert_eq!(table.entries.len(), MAX_ENTRIES);
        assert!(table.get("0", Instant::now()).is_none());
        assert!(table.get("1", Instant::now()).is_some());
        table.set("k".repeat(MAX_KEY + 1), Vec::new(), None);
        assert_eq!(table.entries.len(), MAX_ENTRIES, "a key over the limit is not kept");
        let bytes: usize = table.entries.iter().map(|(key, entry)| key.len() + entry.value.len()).sum();
        assert_eq!(bytes, table.bytes);
    }
}
