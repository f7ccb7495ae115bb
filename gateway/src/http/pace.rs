//! What a client's body may cost, and what a client can do wrong with it. Of its pace only the time counts in which it is waited for, so
//! a server that takes its time is no blame to it.

use std::time::{Duration, Instant};

use http::StatusCode;

use super::body::BodyError;

/// What a client did wrong with its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// It broke off.
    Failed,
    /// It stalled.
    Stalled,
    /// It is larger than the limit.
    TooLarge,
    /// It came in drops.
    TooSlow,
}

impl BodyFault {
    /// What a body's error was about.
    #[must_use]
    pub const fn of(error: &BodyError) -> Self {
        match error {
            BodyError::TooLarge(_) => Self::TooLarge,
            BodyError::TooSlow(_) => Self::TooSlow,
            BodyError::Stalled(_) => Self::Stalled,
            BodyError::Broken(_) | BodyError::Cut(_) | BodyError::Malformed(_) | BodyError::Policy(_) => Self::Failed,
        }
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Failed => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Stalled | Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
        }
    }

    /// The `reason` of the decision log.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Failed => "client_body_failed",
            Self::Stalled => "client_body_stalled",
            Self::TooLarge => "body_too_large",
            Self::TooSlow => "client_body_too_slow",
        }
    }
}

/// What a request body may cost.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Longest pause.
    pub idle: Duration,
    /// Least bytes a second, over twice `idle` of waiting for the client; 0 for none.
    pub rate: usize,
    /// Most bytes.
    pub bytes: Option<u64>,
}

/// The pace of one body.
#[derive(Debug)]
pub struct Pace {
    /// Time of waiting after which the pace is judged.
    window: Duration,
    /// Bytes a second; 0 means that any pace will do.
    rate: usize,
    waiting: Option<Instant>,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// A body that must come with `rate` bytes a second, judged over `window` at a time.
    #[must_use]
    pub const fn new(rate: usize, window: Duration) -> Self {
        Self { window, rate, waiting: None, waited: Duration::ZERO, bytes: 0 }
    }

    /// The client is waited for.
    pub fn wait(&mut self, now: impl Fn() -> Instant) {
        if self.rate > 0 && self.waiting.is_none() {
            self.waiting = Some(now());
        }
    }

    /// Bytes have come: whether they came in time. The clock is read only if they had to be waited for.
    pub fn moved(&mut self, bytes: usize, now: impl Fn() -> Instant) -> bool {
        self.bytes += bytes as u64;
        let Some(since) = self.waiting.take() else { return true };
        self.waited += now().saturating_duration_since(since);
        if self.waited < self.window {
            return true;
        }
        let least = (self.rate as u64).saturating_mul(u64::try_from(self.waited.as_millis()).unwrap_or(u64::MAX)) / 1000;
        let in_time = self.bytes >= least;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    /// Pieces of so many bytes, each waited for so many seconds: the number after which it is too slow, if it ever is.
    fn check(rate: usize, bytes: usize, seconds: u64, want: Option<u64>) {
        let start = Instant::now();
        let mut pace = Pace::new(rate, WINDOW);
        let slow = (1..=1000).find(|piece| {
            let began = start + Duration::from_secs((piece - 1) * seconds);
            pace.wait(|| began);
            !pace.moved(bytes, || began + Duration::from_secs(seconds))
        });
        assert_eq!(slow, want, "{bytes} B every {seconds} s at {rate} B/s");
    }

    #[test]
    fn drops_are_too_slow_and_a_modem_is_not() {
        check(256, 1, 10, Some(6));
        check(256, 2_560, 10, None);
        check(256, 2_559, 10, Some(6));
        check(256, 16_384, 29, None);
        check(0, 1, 29, None);
    }

    #[test]
    fn time_in_which_nobody_waits_is_not_counted() {
        let start = Instant::now();
        let mut pace = Pace::new(256, WINDOW);
        for piece in 0..1000 {
            assert!(pace.moved(1, || start + Duration::from_secs(100 * piece)));
        }
    }

    #[test]
    fn waiting_begins_once() {
        let start = Instant::now();
        let mut pace = Pace::new(256, WINDOW);
        pace.wait(|| start);
        pace.wait(|| start + WINDOW);
        assert!(!pace.moved(1, || start + WINDOW));
    }
}
