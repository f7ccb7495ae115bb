//! Numbers that one thread writes and any thread reads.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use weir_plugins::{Decision, Mode, Phase, VerdictKind};

use crate::hash::BuildShort;
use crate::observe::record::{AccessRecord, DecidedBy};

/// Every thread's part of the numbers. A thread finds its own part without a lock; the lists here are locked only when a thread meets
/// a name for the first time, and to render.
#[derive(Debug)]
pub(super) struct Shards {
    id: u64,
    /// Grows when names are forgotten: threads let go of their cells then.
    forgotten: AtomicU64,
    pub(super) sites: Shared<SiteCells>,
    pub(super) policies: Shared<PolicyCells>,
    pub(super) upstreams: Shared<UpstreamCells>,
    pub(super) refusals: Shared<Cell>,
    pub(super) closures: Shared<Cell>,
    pub(super) active: Mutex<Vec<Arc<ActiveCells>>>,
}

impl Default for Shards {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            forgotten: AtomicU64::new(0),
            sites: Shared::default(),
            policies: Shared::default(),
            upstreams: Shared::default(),
            refusals: Shared::default(),
            closures: Shared::default(),
            active: Mutex::default(),
        }
    }
}

impl Shards {
    pub(super) fn exchange(&self, record: &AccessRecord) {
        self.local(|local| {
            let site = record.site.as_deref().unwrap_or_default();
            local.sites.with(&self.sites, site, |cells| cells.count(record));
            self.decisions(local, &record.decisions);
            if !record.attempts.is_empty() {
                let upstream = record.upstream.as_deref().unwrap_or_default();
                local.upstreams.with(&self.upstreams, upstream, |cells| {
                    for attempt in &record.attempts {
                        cells.count(attempt.outcome, attempt.elapsed);
                    }
                });
            }
        });
    }

    /// Forgets the names of one family that are not kept. A name that comes back begins anew.
    pub(super) fn retain(&self, family: Family, keep: impl Fn(&str) -> bool) {
        let forgot = match family {
            Family::Sites => self.sites.retain(keep),
            Family::Policies => self.policies.retain(keep),
            Family::Upstreams => self.upstreams.retain(keep),
        };
        if forgot {
            self.forgotten.fetch_add(1, Ordering::Release);
        }
    }

    fn decisions(&self, local: &mut Local, decisions: &[Decision]) {
        // What a shadow says decides nothing: its calls have a metric of their own.
        for decision in decisions.iter().filter(|decision| decision.counts()) {
            local.policies.with(&self.policies, &decision.version.policy, |cells| {
                cells.count(decision.phase, decision.verdict, decision.mode, decision.elapsed);
            });
        }
    }

    pub(super) fn lost_connection(&self, reason: &str, decisions: &[Decision]) {
        self.local(|local| {
            self.decisions(local, decisions);
            let known = local.refusals.0.len() < MAX_REASONS || local.refusals.0.contains_key(reason);
            local.refusals.with(&self.refusals, if known { reason } else { "other" }, |cell| cell.add(1));
        });
    }

    pub(super) fn closed_connection(&self, reason: &'static str) {
        self.local(|local| local.closures.with(&self.closures, reason, |cell| cell.add(1)));
    }

    pub(super) fn connection(&self) -> Active {
        self.local(|local| {
            local.active.accepted.add(1);
            Active::begin(&local.active, Kind::Connection)
        })
    }

    pub(super) fn request(&self) -> Active {
        self.local(|local| Active::begin(&local.active, Kind::Request))
    }

    fn local<R>(&self, body: impl FnOnce(&mut Local) -> R) -> R {
        thread_local!(static LOCALS: RefCell<Vec<(u64, Local)>> = const { RefCell::new(Vec::new()) });
        LOCALS.with_borrow_mut(|locals| {
            let forgotten = self.forgotten.load(Ordering::Acquire);
            if let Some((_, local)) = locals.iter_mut().find(|(id, _)| *id == self.id) {
                if local.forgotten != forgotten {
                    local.forget();
                    local.forgotten = forgotten;
                }
                return body(local);
            }
            let mut local = Local { forgotten, ..Local::default() };
            self.active.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&local.active));
            let result = body(&mut local);
            locals.push((self.id, local));
            result
        })
    }
}

/// The gateway's reasons are a closed set of about a dozen; this only guards against a mistake.
const MAX_REASONS: usize = 64;

#[derive(Default)]
struct Local {
    forgotten: u64,
    sites: Named<SiteCells>,
    policies: Named<PolicyCells>,
    upstreams: Named<UpstreamCells>,
    refusals: Named<Cell>,
    closures: Named<Cell>,
    active: Arc<ActiveCells>,
}

impl Local {
    fn forget(&mut self) {
        self.sites.forget();
        self.policies.forget();
        self.upstreams.forget();
    }
}

/// Numbers by names of the configuration, which change with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// By site.
    Sites,
    /// By policy.
    Policies,
    /// By upstream.
    Upstreams,
}

/// All threads' cells of one family, with their names.
#[derive(Debug)]
pub(super) struct Shared<T>(Mutex<Vec<(Arc<str>, Arc<T>)>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Shared<T> {
    pub(super) fn for_each(&self, mut visit: impl FnMut(&Arc<str>, &T)) {
        for (name, cells) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            visit(name, cells);
        }
    }
}

impl<T> Shared<T> {
    /// Answers whether any was forgotten. What has no name (no site was found) is always kept.
    fn retain(&self, keep: impl Fn(&str) -> bool) -> bool {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = cells.len();
        cells.retain(|(name, _)| name.is_empty() || keep(name));
        cells.len() < before
    }
}

/// One thread's cells of one family, by name.
struct Named<T>(HashMap<Arc<str>, Arc<T>, BuildShort>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<T> Named<T> {
    /// Lets go of what only this thread still has.
    fn forget(&mut self) {
        self.0.retain(|_, cells| Arc::strong_count(cells) > 1);
    }
}

impl<T: Default> Named<T> {
    fn with(&mut self, shared: &Shared<T>, name: &str, count: impl FnOnce(&T)) {
        if let Some(cells) = self.0.get(name) {
            return count(cells);
        }
        let (name, cells) = (Arc::<str>::from(name), Arc::new(T::default()));
        shared.0.lock().unwrap_or_else(PoisonError::into_inner).push((Arc::clone(&name), Arc::clone(&cells)));
        count(&cells);
        self.0.insert(name, cells);
    }
}

/// A counter with one writing thread, which therefore needs no locked instruction.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    pub(super) fn add(&self, count: u64) {
        self.0.store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets in nanoseconds; one more bucket holds the rest.
pub(super) type Bounds = [u64; 14];

/// The buckets that the OpenTelemetry conventions give `http.server.request.duration`.
pub(super) const HTTP_BOUNDS: Bounds = {
    const MS: u64 = 1_000_000;
    [
        5 * MS,
        10 * MS,
        25 * MS,
        50 * MS,
        75 * MS,
        100 * MS,
        250 * MS,
        500 * MS,
        750 * MS,
        1_000 * MS,
        2_500 * MS,
        5_000 * MS,
        7_500 * MS,
        10_000 * MS,
    ]
};

/// From a policy that only looks to one that reaches its deadline.
pub(super) const POLICY_BOUNDS: Bounds = {
    const US: u64 = 1_000;
    [
        US / 2,
        US,
        5 * US / 2,
        5 * US,
        10 * US,
        25 * US,
        50 * US,
        100 * US,
        250 * US,
        500 * US,
        1_000 * US,
        5_000 * US,
        10_000 * US,
        50_000 * US,
    ]
};

/// How often a duration fell between two bounds, and the sum in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    pub(super) buckets: [Cell; 15],
    pub(super) sum: Cell,
}

impl Histogram {
    fn observe(&self, bounds: &Bounds, duration: Duration) {
        let nanos = duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()));
        if let Some(bucket) = self.buckets.get(bounds.partition_point(|bound| *bound < nanos)) {
            bucket.add(1);
        }
        self.sum.add(nanos);
    }

    fn absorb(&self, other: &Self) {
        self.buckets.iter().zip(&other.buckets).for_each(|(sum, cell)| sum.add(cell.get()));
        self.sum.add(other.sum.get());
    }
}

/// The classes of the `status` label, by hundreds; `none` when the connection ended before a status.
pub(super) const STATUSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// The values of the `decided_by` label.
pub(super) const DECIDERS: [&str; 3] = ["upstream", "gateway", "policy"];

#[derive(Debug, Default)]
pub(super) struct SiteCells {
    pub(super) requests: [[Cell; DECIDERS.len()]; STATUSES.len()],
    pub(super) duration: Histogram,
    pub(super) bytes_in: Cell,
    pub(super) bytes_out: Cell,
}

impl SiteCells {
    fn count(&self, record: &AccessRecord) {
        let class = usize::from(record.status / 100).min(STATUSES.len() - 1);
        let decider = match record.decided_by {
            DecidedBy::Upstream => 0,
            DecidedBy::Gateway => 1,
            DecidedBy::Policy(_) => 2,
        };
        if let Some(cell) = self.requests.get(class).and_then(|cells| cells.get(decider)) {
            cell.add(1);
        }
        self.duration.observe(&HTTP_BOUNDS, record.duration);
        self.bytes_in.add(record.bytes_in);
        self.bytes_out.add(record.bytes_out);
    }

    pub(super) fn absorb(&self, other: &Self) {
        let pairs = self.requests.iter().flatten().zip(other.requests.iter().flatten());
        pairs.for_each(|(sum, cell)| sum.add(cell.get()));
        self.duration.absorb(&other.duration);
        self.bytes_in.add(other.bytes_in.get());
        self.bytes_out.add(other.bytes_out.get());
    }
}

/// The verdicts and modes a call can have, in the order of their cells.
pub(super) const VERDICTS: [VerdictKind; 5] =
    [VerdictKind::Next, VerdictKind::Accept, VerdictKind::Deny, VerdictKind::Reply, VerdictKind::Error];
pub(super) const MODES: [Mode; 2] = [Mode::Enforce, Mode::Observe];

/// The cells of one policy, by phase in the order of [`Phase::ALL`].
#[derive(Debug, Default)]
pub(super) struct PolicyCells(pub(super) [PhaseCells; Phase::ALL.len()]);

#[derive(Debug, Default)]
pub(super) struct PhaseCells {
    pub(super) calls: [[Cell; MODES.len()]; VERDICTS.len()],
    pub(super) duration: Histogram,
}

impl PolicyCells {
    fn count(&self, phase: Phase, verdict: VerdictKind, mode: Mode, elapsed: Duration) {
        let Some(cells) = self.0.get(phase as usize) else { return };
        let mode = usize::from(mode != Mode::Enforce);
        if let Some(cell) = cells.calls.get(verdict as usize).and_then(|modes| modes.get(mode)) {
            cell.add(1);
        }
        cells.duration.observe(&POLICY_BOUNDS, elapsed);
    }

    pub(super) fn absorb(&self, other: &Self) {
        for (sum, cells) in self.0.iter().zip(&other.0) {
            let pairs = sum.calls.iter().flatten().zip(cells.calls.iter().flatten());
            pairs.for_each(|(sum, cell)| sum.add(cell.get()));
            sum.duration.absorb(&cells.duration);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct UpstreamCells {
    pub(super) ok: Cell,
    /// Locked only for an attempt that failed, and to render.
    pub(super) failed: Mutex<Vec<(&'static str, u64)>>,
    pub(super) duration: Histogram,
}

impl UpstreamCells {
    fn count(&self, outcome: &'static str, elapsed: Duration) {
        if outcome == "ok" {
            self.ok.add(1);
        } else {
            self.add_failed(outcome, 1);
        }
        self.duration.observe(&HTTP_BOUNDS, elapsed);
    }

    fn add_failed(&self, outcome: &'static str, count: u64) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match failed.iter_mut().find(|(known, _)| *known == outcome) {
            Some((_, sum)) => *sum += count,
            None => failed.push((outcome, count)),
        }
    }

    pub(super) fn absorb(&self, other: &Self) {
        self.ok.add(other.ok.get());
        for (outcome, count) in other.failed.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            self.add_failed(outcome, *count);
        }
        self.duration.absorb(&other.duration);
    }
}

#[derive(Debug, Default)]
pub(super) struct ActiveCells {
    pub(super) accepted: Cell,
    pub(super) connections: AtomicI64,
    pub(super) requests: AtomicI64,
}

impl ActiveCells {
    const fn gauge(&self, kind: Kind) -> &AtomicI64 {
        match kind {
            Kind::Connection => &self.connections,
            Kind::Request => &self.requests,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Connection,
    Request,
}

/// Something under way, counted until this is dropped, on whatever thread.
#[derive(Debug)]
pub struct Active {
    cells: Arc<ActiveCells>,
    kind: Kind,
}

impl Active {
    fn begin(cells: &Arc<ActiveCells>, kind: Kind) -> Self {
        cells.gauge(kind).fetch_add(1, Ordering::Relaxed);
        Self { cells: Arc::clone(cells), kind }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.cells.gauge(self.kind).fetch_sub(1, Ordering::Relaxed);
    }
}
