//! Which site a host belongs to.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::HostPattern;
use crate::hash::BuildShort;

/// Host names to sites: exact names first, then the longest wildcard, then `*`. Look-ups cost the same for 10 and 10,000 sites.
#[derive(Debug)]
pub struct Hosts<T> {
    exact: HashMap<String, Arc<T>, BuildShort>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Arc<T>, BuildShort>,
    any: Option<Arc<T>>,
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Self { exact: HashMap::default(), wildcard: HashMap::default(), any: None }
    }
}

impl<T> Hosts<T> {
    /// Adds a host; the configuration has checked that nobody else has it.
    pub fn insert(&mut self, pattern: &HostPattern, target: &Arc<T>) {
        let target = Arc::clone(target);
        match pattern {
            HostPattern::Exact(host) => drop(self.exact.insert(host.clone(), target)),
            HostPattern::Wildcard(suffix) => drop(self.wildcard.insert(suffix.clone(), target)),
            HostPattern::Any => self.any = Some(target),
        }
    }

    /// The target of a host in lower case, without port.
    #[must_use]
    pub fn find(&self, host: &str) -> Option<&Arc<T>> {
        if let Some(found) = self.exact.get(host) {
            return Some(found);
        }
        if !self.wildcard.is_empty() {
            let mut rest = host;
            while let Some((_, suffix)) = rest.split_once('.') {
                if let Some(found) = self.wildcard.get(suffix) {
                    return Some(found);
                }
                rest = suffix;
            }
        }
        self.any.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_pattern_wins() {
        let mut hosts = Hosts::default();
        hosts.insert(&HostPattern::Exact("a.example.com".to_owned()), &Arc::new("exact"));
        hosts.insert(&HostPattern::Wildcard("example.com".to_owned()), &Arc::new("wild"));
        hosts.insert(&HostPattern::Wildcard("deep.example.com".to_owned()), &Arc::new("deep"));
        let check = |hosts: &Hosts<&str>, host: &str, want: Option<&str>| {
            assert_eq!(hosts.find(host).map(|found| **found), want, "{host}");
        };
        check(&hosts, "a.example.com", Some("exact"));
        check(&hosts, "b.example.com", Some("wild"));
        check(&hosts, "x.b.example.com", Some("wild"));
        check(&hosts, "x.deep.example.com", Some("deep"));
        check(&hosts, "example.com", None);
        check(&hosts, "badexample.com", None);
        check(&hosts, "", None);
        hosts.insert(&HostPattern::Any, &Arc::new("any"));
        check(&hosts, "example.org", Some("any"));
        check(&hosts, "", Some("any"));
    }
}
