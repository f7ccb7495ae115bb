//! What one policy may use, and what it has used of it in an exchange.
//!
//! Each limit holds for one policy, so that a policy that floods takes nothing from the others of its chain.

use std::time::Duration;

use crate::engine::MAX_MEMORY;
use crate::error::LoadError;

/// What one policy may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PolicyLimits {
    /// CPU time of one call, in whole milliseconds.
    pub cpu: Duration,
    /// Wall time of one call.
    pub wall: Duration,
    /// Bytes of memory of one instance.
    pub memory: usize,
    /// Calls that may run at once on one worker.
    pub instances: usize,
    /// Bytes in the operator's log per exchange.
    pub log: usize,
    /// Tags per exchange.
    pub tags: usize,
    /// Findings per exchange.
    pub findings: usize,
    /// Bytes of header names, header values, targets and authorities that it may write per exchange.
    pub edits: usize,
    /// Bytes of an answer: headers and body.
    pub reply: usize,
    /// Bytes by which a response body may grow beyond twice its size.
    pub growth: usize,
}

/// Memory of one instance.
pub(crate) const DEFAULT_MEMORY: usize = 64 * 1024 * 1024;

impl Default for PolicyLimits {
    fn default() -> Self {
        Self {
            // A warm call takes microseconds: ten milliseconds is a loop, not work.
            cpu: Duration::from_millis(10),
            // Calls yield to other connections, so the clock runs on while they wait: five times the CPU limit.
            wall: Duration::from_millis(50),
            // A compiled rule set and its working memory, on every worker, within a small machine.
            memory: DEFAULT_MEMORY,
            // A call ends before the next one begins, unless it computes for more than a slice or waits: sixty-four that do so are a fault.
            instances: 64,
            // A hundred lines: who writes more about one exchange wants the decision log.
            log: 8 * 1024,
            // The bundled policies set up to five.
            tags: 32,
            // The IPS stops counting a request's rules long before.
            findings: 64,
            // Twice the largest head that a client may send.
            edits: 64 * 1024,
            // A page with its style sheet; files belong on a server.
            reply: 1024 * 1024,
            // Rewriting host names changes a page by percents; decompressing one does not fit, and is not what transforms are for.
            growth: 1024 * 1024,
        }
    }
}

/// A stack for which no correct policy asks: Rust guests use a few KiB of it. Deeper recursion traps.
pub(crate) const STACK: usize = 512 * 1024;
/// Room in one host call for what is not counted by another limit: names, reasons, the records around them.
const SPARE: usize = 1024 * 1024;
/// What `describe` and `configure` may answer, in bytes: a schema, or an error message.
pub(crate) const LOAD_ANSWER: usize = 1024 * 1024;
/// Bytes of randomness in one call.
pub(crate) const RANDOM: u64 = 64 * 1024;
/// Host objects one instance may hold (streams, pollables); a runtime needs a handful.
pub(crate) const HANDLES: usize = 1_000;

impl PolicyLimits {
    /// Bytes that the host takes from a guest in one host call, or as the answer of one call that is no piece of a body. Twice the
    /// answer's limit, so that one that is a little too long is refused with its reason.
    pub(crate) const fn taken(&self) -> usize {
        self.reply.saturating_mul(2).saturating_add(SPARE)
    }

    /// CPU time in milliseconds.
    pub(crate) const fn ticks(&self) -> u64 {
        self.cpu.as_secs().saturating_mul(1_000).saturating_add(self.cpu.subsec_millis() as u64)
    }

    /// Whether the host can give them.
    ///
    /// # Errors
    /// The key, and what is possible.
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        if self.memory > MAX_MEMORY {
            return Err(LoadError::Limit { key: "memory", message: format!("at most {} MiB", MAX_MEMORY >> 20) });
        }
        if self.cpu < Duration::from_millis(1) {
            return Err(LoadError::Limit { key: "cpu", message: "at least 1ms, the grain of the clock".to_owned() });
        }
        Ok(())
    }
}

/// What one policy has used in one exchange.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    policy: u32,
    log: usize,
    tags: usize,
    findings: usize,
    edits: usize,
    body_in: u64,
    body_out: u64,
}

impl Usage {
    /// Takes a line of the log: how many of its bytes are written. None when nothing is left.
    pub(crate) fn log(&mut self, bytes: usize, limits: &PolicyLimits) -> Option<usize> {
        take_log(&mut self.log, bytes, limits.log)
    }

    /// Takes one tag.
    pub(crate) fn tag(&mut self, limits: &PolicyLimits) -> bool {
        take(&mut self.tags, 1, limits.tags)
    }

    /// Takes one finding.
    pub(crate) fn finding(&mut self, limits: &PolicyLimits) -> bool {
        take(&mut self.findings, 1, limits.findings)
    }

    /// Takes an edit of so many bytes.
    pub(crate) fn edit(&mut self, bytes: usize, limits: &PolicyLimits) -> bool {
        take(&mut self.edits, bytes, limits.edits)
    }

    /// Notes a piece of the response body that it is given: how many bytes it may answer.
    pub(crate) fn body_in(&mut self, bytes: usize, limits: &PolicyLimits) -> usize {
        self.body_in = self.body_in.saturating_add(bytes as u64);
        let most = self.body_in.saturating_mul(2).saturating_add(limits.growth as u64);
        usize::try_from(most.saturating_sub(self.body_out)).unwrap_or(usize::MAX)
    }

    /// Notes what it answered.
    pub(crate) fn body_out(&mut self, bytes: usize) {
        self.body_out = self.body_out.saturating_add(bytes as u64);
    }
}

/// A line counts as this many bytes at least: each is a write, however short.
const LINE: usize = 64;

/// Takes a line from what is left of `most`.
pub(crate) fn take_log(used: &mut usize, bytes: usize, most: usize) -> Option<usize> {
    let left = most.saturating_sub(*used);
    *used = used.saturating_add(bytes.max(LINE));
    (left > 0).then(|| bytes.min(left))
}

fn take(used: &mut usize, more: usize, most: usize) -> bool {
    let fits = used.saturating_add(more) <= most;
    if fits {
        *used += more;
    }
    fits
}

/// What the policies of a chain have used: most have used nothing, and are not listed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usages(Vec<Usage>);

impl Usages {
    /// What the policy at this place of the chain has used.
    pub(crate) fn of(&mut self, policy: u32) -> &mut Usage {
        let found = self.0.iter().position(|usage| usage.policy == policy);
        let index = found.unwrap_or(self.0.len());
        if found.is_none() {
            self.0.push(Usage { policy, ..Usage::default() });
        }
        // It is there: pushed when it was not found.
        #[allow(clippy::indexing_slicing, reason = "found, or pushed just now")]
        &mut self.0[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_what_may_still_be_used() {
        let limits = PolicyLimits { tags: 2, findings: 1, edits: 10, ..PolicyLimits::default() };
        let mut usage = Usage::default();
        assert_eq!([0; 3].map(|_: i32| usage.tag(&limits)), [true, true, false]);
        assert_eq!([0; 2].map(|_: i32| usage.finding(&limits)), [true, false]);
        assert_eq!(
            [9, 2, 1, 1].map(|bytes| usage.edit(bytes, &limits)),
            [true, false, true, false],
            "what does not fit takes nothing"
        );
    }

    #[test]
    fn the_log_is_cut_and_short_lines_are_not_free() {
        let limits = PolicyLimits { log: 200, ..PolicyLimits::default() };
        let mut usage = Usage::default();
        assert_eq!([150, 150, 1].map(|bytes| usage.log(bytes, &limits)), [Some(150), Some(50), None]);
        let mut usage = Usage::default();
        assert_eq!([0, 1, 1, 1, 1].map(|bytes| usage.log(bytes, &limits)), [Some(0), Some(1), Some(1), Some(1), None]);
        assert_eq!(Usage::default().log(200, &limits), Some(200));
    }

    #[test]
    fn a_body_may_be_held_back_and_grow_by_so_much() {
        let limits = PolicyLimits { growth: 10, ..PolicyLimits::default() };
        let mut usage = Usage::default();
        assert_eq!(usage.body_in(100, &limits), 210);
        usage.body_out(0);
        assert_eq!(usage.body_in(50, &limits), 310, "what was held back may come later");
        usage.body_out(310);
        assert_eq!(usage.body_in(0, &limits), 0);
    }

    #[test]
    fn policies_are_counted_apart() {
        let limits = PolicyLimits { tags: 1, ..PolicyLimits::default() };
        let mut usages = Usages::default();
        assert_eq!([0, 3, 0, 3].map(|policy| usages.of(policy).tag(&limits)), [true, true, false, false]);
    }
}
