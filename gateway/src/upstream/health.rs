//! How one server is doing: results and a time in, a standing out; no IO and no clock.
//!
//! ```text
//!            connect failed                 3 in a row, or half of the results, or the probes say so
//!    ready ────────────────► suspect ──────────────────────────────► down
//!      ▲      connected         │                                     │ probes (or, without them, a background
//!      ├────────────────────────┘                                     │ connection) are good again
//!      └──── ramping ◄──── held: good, but not for long enough ◄──────┘
//!
//! While a server that is down returns (some good probes), and while it is held, it serves when no other can.
//! ```

use std::time::{Duration, Instant};

/// Connections that fail in a row before a server is out: two may be chance.
const CONNECTS: u32 = 3;
/// Failed results are weighed for this long after the first.
const WINDOW: Duration = Duration::from_secs(10);
/// Fewer results than this say nothing.
const ENOUGH: u32 = 20;
/// A server that stays up for less than this after it came back is flapping.
const STABLE: Duration = Duration::from_secs(60);
/// Longest time a flapping server must have been good before it is preferred again.
const MAX_HOLD: Duration = Duration::from_secs(300);
/// First pause between background connections to a server that is down and has no probes, doubled up to [`MAX_PAUSE`].
pub const MIN_PAUSE: Duration = Duration::from_secs(1);
/// Longest such pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Pause between background connections to a suspect.
const SUSPECT_PAUSE: Duration = Duration::from_millis(250);
/// Share of requests a server gets at the beginning of its ramp.
const FIRST_SHARE: f64 = 0.1;

/// How results turn into a standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    /// Active probes, if there are any: then only they bring a server back.
    pub probes: Option<Probes>,
    /// How long a server that was down must have been good before it is preferred again. Doubled while it flaps.
    pub hold: Duration,
    /// From the first requests after that to all of them.
    pub ramp: Duration,
}

/// How results of probes turn into a standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Probes {
    /// Failed probes in a row that take a server out.
    pub fall: u32,
    /// Good probes in a row that bring it back.
    pub rise: u32,
    /// How long probes may connect and get no answer before the server is out.
    pub stall: Duration,
}

/// Whether requests may go to a server, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// As its priority says.
    Ready,
    /// Good, but not yet for long enough: when nobody is ready.
    Spare,
    /// Its last connection failed, or only its last probes were good: when nobody better is there.
    Suspect,
    /// Never.
    Down,
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// The expected answer.
    Good,
    /// A connection and no answer in time: the application stalls, the server is alive.
    Slow,
    /// No connection, a broken one, or the wrong answer.
    Bad(Cause),
}

/// Why a server is suspect or down. A closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its name has no address.
    Unresolved,
    /// Connection refused, unreachable or reset.
    Refused,
    /// No connection in time.
    ConnectTimeout,
    /// The TLS handshake failed.
    Tls,
    /// The certificate is not valid for the configured name.
    Certificate,
    /// The local address cannot be used.
    Bind,
    /// Half of its connections ended without an answer.
    Resets,
    /// Probes got the wrong answer, or none because the connection broke.
    ProbeFailed,
    /// Probes connected and got no answer for `health.stall`.
    ProbeStalled,
    /// The process that this one replaced knew it.
    Inherited,
}

impl Cause {
    /// The word in the admin API and the operator's log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unresolved => "unresolved",
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls_failed",
            Self::Certificate => "certificate_invalid",
            Self::Bind => "bind_failed",
            Self::Resets => "resets",
            Self::ProbeFailed => "probe_failed",
            Self::ProbeStalled => "probe_stalled",
            Self::Inherited => "inherited",
        }
    }
}

/// The health of one server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Health {
    rules: Rules,
    state: State,
    since: Instant,
    cause: Option<Cause>,
    suspect: bool,
    /// Good and failed probes in a row.
    good: u32,
    bad: u32,
    /// The first of the slow probes in a row.
    slow_since: Option<Instant>,
    failed_connects: u32,
    window: Option<Window>,
    /// The hold of the outage that is going on or was last.
    hold: Duration,
    last_trouble: Instant,
    /// Without probes: the pause before the next background connection.
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Preferred from this time on; `None` when it never was down.
    Up {
        ready_at: Option<Instant>,
    },
    Down,
}

/// Results since the first failure of late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    from: Instant,
    results: u32,
    failures: u32,
}

impl Health {
    /// A server is presumed up until something says otherwise.
    #[must_use]
    pub const fn new(rules: Rules, now: Instant) -> Self {
        Self {
            rules,
            state: State::Up { ready_at: None },
            since: now,
            cause: None,
            suspect: false,
            good: 0,
            bad: 0,
            slow_since: None,
            failed_connects: 0,
            window: None,
            hold: rules.hold,
            last_trouble: now,
            pause: MIN_PAUSE,
        }
    }

    /// Where it stands. `draw` is from 0 to 1: a server in its ramp is ready for a share of the draws.
    #[must_use]
    pub fn standing(&self, now: Instant, draw: f64) -> Standing {
        match self.state {
            // Its first good probes do not bring it back, but it is better than nobody.
            State::Down if self.good > 0 => Standing::Suspect,
            State::Down => Standing::Down,
            State::Up { .. } if self.suspect => Standing::Suspect,
            State::Up { .. } if draw < self.share(now) => Standing::Ready,
            State::Up { .. } => Standing::Spare,
        }
    }

    /// The share of requests it gets by its priority, 0 to 1.
    #[must_use]
    pub fn share(&self, now: Instant) -> f64 {
        let State::Up { ready_at } = self.state else { return 0.0 };
        let Some(ready_at) = ready_at else { return 1.0 };
        let Some(since) = now.checked_duration_since(ready_at) else { return 0.0 };
        if since >= self.rules.ramp {
            return 1.0;
        }
        FIRST_SHARE + (1.0 - FIRST_SHARE) * since.as_secs_f64() / self.rules.ramp.as_secs_f64()
    }

    /// Whether all is well: no request needs to ask again until something happens.
    #[must_use]
    pub fn is_settled(&self, now: Instant) -> bool {
        !self.suspect && self.share(now) >= 1.0
    }

    /// Whether successes matter at the moment: there were failures of late.
    #[must_use]
    pub const fn is_watched(&self) -> bool {
        self.window.is_some() || self.failed_connects > 0 || self.suspect || matches!(self.state, State::Down)
    }

    /// Whether it is out, be it on its way back.
    #[must_use]
    pub const fn is_out(&self) -> bool {
        matches!(self.state, State::Down)
    }

    /// `ready`, `ramping`, `held`, `suspect`, `returning` or `down`; since when, and why when it is not ready.
    #[must_use]
    pub fn describe(&self, now: Instant) -> (&'static str, Instant, Option<Cause>) {
        let name = match self.state {
            State::Down if self.good > 0 => "returning",
            State::Down => "down",
            State::Up { .. } if self.suspect => "suspect",
            State::Up { .. } if self.share(now) >= 1.0 => "ready",
            State::Up { ready_at: Some(at) } if now < at => "held",
            State::Up { .. } => "ramping",
        };
        (name, self.since, self.cause.filter(|_| name != "ready"))
    }

    /// When somebody should try a connection in the background: a suspect is tried until it is known what is true, a server that is
    /// down only when it has no probes.
    #[must_use]
    pub const fn check_after(&self) -> Option<Duration> {
        match self.state {
            State::Down if self.rules.probes.is_some() => None,
            State::Down => Some(self.pause),
            State::Up { .. } if self.suspect && self.failed_connects < 2 => Some(Duration::ZERO),
            State::Up { .. } if self.suspect => Some(SUSPECT_PAUSE),
            State::Up { .. } => None,
        }
    }

    /// A probe came back.
    pub fn on_probe(&mut self, probed: Probed, now: Instant) {
        let Some(probes) = self.rules.probes else { return };
        match probed {
            Probed::Good => {
                (self.bad, self.slow_since, self.failed_connects, self.suspect) = (0, None, 0, false);
                self.good = self.good.saturating_add(1);
                if self.good >= probes.rise && self.state == State::Down {
                    self.rise(now);
                }
            }
            Probed::Slow => {
                self.good = 0;
                let since = *self.slow_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= probes.stall {
                    self.trouble(now);
                    self.fall(Cause::ProbeStalled, now);
                } else if self.state == State::Down {
                    self.trouble(now);
                }
            }
            Probed::Bad(cause) => {
                (self.good, self.slow_since) = (0, None);
                self.bad = self.bad.saturating_add(1);
                self.trouble(now);
                if self.bad >= probes.fall {
                    self.fall(cause, now);
                }
            }
        }
    }

    /// A connection could not be made.
    pub fn on_connect_failed(&mut self, cause: Cause, now: Instant) {
        self.trouble(now);
        self.failed_connects = self.failed_connects.saturating_add(1);
        self.suspect(cause, now);
        self.on_result(false, now);
        if self.failed_connects >= CONNECTS {
            self.fall(cause, now);
        }
        if self.state == State::Down {
            self.pause = (self.pause * 2).min(MAX_PAUSE);
        }
    }

    /// It was down before this process began, or back and held: no request has to find that out again. A hold begins anew.
    pub fn on_inherited(&mut self, held: bool, now: Instant) {
        self.trouble(now);
        self.fall(Cause::Inherited, now);
        if held {
            self.rise(now);
        }
    }

    /// A connection takes longer than another server deserves to wait for it.
    pub fn on_connect_slow(&mut self, now: Instant) {
        self.suspect(Cause::ConnectTimeout, now);
    }

    /// A connection was made.
    pub fn on_connected(&mut self, now: Instant) {
        self.failed_connects = 0;
        if std::mem::take(&mut self.suspect) {
            self.since = now;
        }
        if self.state == State::Down && self.rules.probes.is_none() {
            self.rise(now);
        }
    }

    /// A request was answered, or its connection ended without an answer.
    pub fn on_result(&mut self, ok: bool, now: Instant) {
        let current = self.window.filter(|window| now.saturating_duration_since(window.from) < WINDOW);
        if ok && current.is_none() {
            self.window = None;
            return;
        }
        let mut window = current.unwrap_or(Window { from: now, results: 0, failures: 0 });
        window.results = window.results.saturating_add(1);
        window.failures = window.failures.saturating_add(u32::from(!ok));
        self.window = Some(window);
        if window.results >= ENOUGH && window.failures.saturating_mul(2) >= window.results {
            self.trouble(now);
            self.fall(Cause::Resets, now);
        }
    }

    fn suspect(&mut self, cause: Cause, now: Instant) {
        if self.state != State::Down && !self.suspect {
            (self.suspect, self.cause, self.since) = (true, Some(cause), now);
        }
    }

    /// Whoever is on hold begins again.
    fn trouble(&mut self, now: Instant) {
        self.last_trouble = now;
        if let State::Up { ready_at: Some(at) } = &mut self.state
            && *at > now
        {
            *at = now + self.hold;
        }
    }

    fn fall(&mut self, cause: Cause, now: Instant) {
        let State::Up { ready_at } = self.state else {
            self.cause = Some(cause);
            return;
        };
        self.hold = match ready_at {
            // It had not served again yet: the same outage goes on.
            Some(at) if now < at => self.hold,
            Some(at) if now.saturating_duration_since(at) < STABLE => (self.hold * 2).min(MAX_HOLD.max(self.rules.hold)),
            _ => self.rules.hold,
        };
        (self.state, self.since, self.cause) = (State::Down, now, Some(cause));
        (self.suspect, self.good, self.window, self.pause) = (false, 0, None, MIN_PAUSE);
    }

    fn rise(&mut self, now: Instant) {
        let ready_at = (self.last_trouble + self.hold).max(now);
        (self.state, self.since) = (State::Up { ready_at: Some(ready_at) }, now);
        (self.bad, self.failed_connects, self.slow_since, self.window) = (0, 0, None, None);
    }
}

#[cfg(test)]
mod tests;
