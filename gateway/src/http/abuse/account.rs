//! The account of one connection: frames of both directions and a time in, and out comes when it is enough.

use std::time::{Duration, Instant};

use super::frames::{Found, Frames, Head, flag, kind};
use super::windows::Windows;
use super::{Limits, Reason};

/// Streams that a client ended before their answer, of the last [`Recent::SIZE`] that ended. Envoy's default: half of 500.
const PREMATURE: u32 = 250;
/// RST_STREAM in a second. A browser that leaves a page cancels what it had under way: a hundred at most.
const RESETS: u32 = 200;
/// Streams that the server had to reset for what the client sent on them, in the life of a connection. A correct client causes none.
const OWN_RESETS: u32 = 100;
/// CONTINUATION frames of one header block. The parser allows fewer while heads are small.
const CONTINUATIONS: u32 = 20;
/// In a second; each must be acknowledged.
const SETTINGS: u32 = 50;
/// In a second; each must be answered. gRPC sends some for its estimate of the bandwidth.
const PINGS: u32 = 100;
/// DATA frames in a second that carry next to nothing and do not end their stream.
const TINY: u32 = 1000;
/// What next to nothing is: less than the frame's header and its bookkeeping.
const TINY_BYTES: u32 = 32;
/// PRIORITY and unknown frames: so many, and so many more for each stream opened.
const PRIORITIES: u64 = 100;
const PRIORITIES_A_STREAM: u64 = 10;
/// WINDOW_UPDATE: so many, and so many more for each stream opened and each DATA frame sent. Envoy's default is ten a frame, too.
const UPDATES: u64 = 100;
const UPDATES_A_STREAM: u64 = 2;
const UPDATES_A_FRAME: u64 = 10;
/// The parameter SETTINGS_INITIAL_WINDOW_SIZE.
const INITIAL_WINDOW_SIZE: u16 = 4;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// End the connection.
    End(Reason),
    /// The server's own parser has told the client that it ends the connection.
    Told(Reason),
}

/// The account of one connection.
#[derive(Debug)]
pub struct Account {
    client: Frames,
    server: Frames,
    counts: Counts,
}

impl Account {
    /// A connection on which nothing was sent.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { client: Frames::of_client(), server: Frames::of_server(), counts: Counts::new(limits) }
    }

    /// Bytes that came from the client. `now` is asked only for frames that are counted by the second.
    pub fn read(&mut self, bytes: &[u8], now: impl Fn() -> Instant) -> Option<Verdict> {
        let Self { client, counts, .. } = self;
        let mut verdict = None;
        // What follows the verdict is counted, too: where frames begin must stay known.
        client.feed(bytes, |found| {
            let found = counts.received(found, &now);
            verdict = verdict.or(found);
        });
        verdict.map(Verdict::End)
    }

    /// Bytes that were sent to the client.
    pub fn wrote(&mut self, bytes: &[u8]) -> Option<Verdict> {
        let Self { server, counts, .. } = self;
        let mut verdict = None;
        server.feed(bytes, |found| {
            let found = counts.sent(found);
            verdict = verdict.or(found);
        });
        verdict
    }

    /// Whether something is going on that [`Account::look`] must end.
    #[must_use]
    pub fn needs_clock(&self) -> bool {
        self.is_in_head() || self.counts.windows.is_held()
    }

    /// Looks at the clock. To be called at once when [`Account::needs_clock`] begins to hold, and a few times within the shorter limit
    /// while it does.
    pub fn look(&mut self, now: Instant) -> Option<Reason> {
        let (in_head, counts) = (self.is_in_head(), &mut self.counts);
        if counts.windows.is_stalled(counts.limits.stall, now) {
            return Some(Reason::Stalled);
        }
        if !in_head {
            counts.slow = None;
            return None;
        }
        match counts.slow {
            Some((whole, since)) if whole == counts.whole => {
                (now.saturating_duration_since(since) >= counts.limits.head).then_some(Reason::SlowHead)
            }
            _ => {
                counts.slow = Some((counts.whole, now));
                None
            }
        }
    }

    /// Whether a frame of one's own may be put between what was sent and what will be.
    #[must_use]
    pub const fn is_between_frames(&self) -> bool {
        self.server.is_between()
    }

    /// Whether answers are not yet all sent.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        self.counts.windows.is_answering()
    }

    /// The last stream that the client opened.
    #[must_use]
    pub const fn last_stream(&self) -> u32 {
        self.counts.last
    }

    /// What there is to say of it, for the operator.
    #[must_use]
    pub fn summary(&self) -> String {
        let counts = &self.counts;
        let said = counts.said.map(|code| format!("; GOAWAY with code {code}")).unwrap_or_default();
        format!(
            "{} streams opened, {} reset by the client, {} by the server{said}",
            counts.opened, counts.reset, counts.own_resets
        )
    }

    /// DATA has a limit of its own where bodies are read.
    const fn is_in_head(&self) -> bool {
        self.counts.in_block || !(self.client.is_between() || self.client.is_in_data())
    }
}

#[derive(Debug)]
struct Counts {
    limits: Limits,
    windows: Windows,
    last: u32,
    opened: u64,
    recent: Recent,
    reset: u64,
    resets: Rate,
    own_resets: u32,
    /// The code of the parser's GOAWAY.
    said: Option<u32>,
    settings: Rate,
    pings: Rate,
    tiny: Rate,
    priorities: u64,
    updates: u64,
    data_sent: u64,
    /// A header block has begun and not ended, in so many CONTINUATION frames.
    in_block: bool,
    continuations: u32,
    /// Frames and header blocks received whole.
    whole: u64,
    /// What was whole when one was first seen that is not, and when that was.
    slow: Option<(u64, Instant)>,
}

impl Counts {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            windows: Windows::default(),
            last: 0,
            opened: 0,
            recent: Recent::default(),
            reset: 0,
            resets: Rate::default(),
            own_resets: 0,
            said: None,
            settings: Rate::default(),
            pings: Rate::default(),
            tiny: Rate::default(),
            priorities: 0,
            updates: 0,
            data_sent: 0,
            in_block: false,
            continuations: 0,
            whole: 0,
            slow: None,
        }
    }

    fn received(&mut self, found: Found<'_>, now: impl Fn() -> Instant) -> Option<Reason> {
        match found {
            Found::Begin(head) => self.begun(head, now),
            Found::Setting(INITIAL_WINDOW_SIZE, size) => {
                self.windows.initial(size);
                None
            }
            Found::Setting(..) => None,
            Found::End(head, kept) => self.ended(head, kept, now),
        }
    }

    fn begun(&mut self, head: Head, now: impl Fn() -> Instant) -> Option<Reason> {
        let over = |over: bool, reason| over.then_some(reason);
        match head.kind {
            kind::DATA => None,
            kind::HEADERS => {
                if head.stream > self.last {
                    self.last = head.stream;
                    self.opened += 1;
                }
                self.in_block = true;
                self.continuations = 0;
                None
            }
            kind::CONTINUATION => {
                self.continuations += 1;
                over(self.continuations > CONTINUATIONS, Reason::ContinuationFlood)
            }
            kind::RST_STREAM => {
                self.reset += 1;
                self.windows.close(head.stream);
                let premature = head.stream <= self.last && self.recent.ended(true) >= PREMATURE;
                over(premature || self.resets.hit(now()) > RESETS, Reason::RapidReset)
            }
            kind::SETTINGS => over(self.settings.hit(now()) > SETTINGS, Reason::SettingsFlood),
            kind::PING => over(self.pings.hit(now()) > PINGS, Reason::PingFlood),
            kind::WINDOW_UPDATE => {
                self.updates += 1;
                let allowed = UPDATES + UPDATES_A_STREAM * self.opened + UPDATES_A_FRAME * self.data_sent;
                over(self.updates > allowed, Reason::WindowUpdateFlood)
            }
            _ => {
                self.priorities += 1;
                over(self.priorities > PRIORITIES + PRIORITIES_A_STREAM * self.opened, Reason::PriorityFlood)
            }
        }
    }

    fn ended(&mut self, head: Head, kept: &[u8], now: impl Fn() -> Instant) -> Option<Reason> {
        let mut verdict = None;
        match head.kind {
            kind::HEADERS | kind::CONTINUATION if head.has(flag::END_HEADERS) => self.in_block = false,
            kind::WINDOW_UPDATE => {
                if let Some(room) = word(kept, 0) {
                    self.windows.update(head.stream, room & 0x7fff_ffff);
                }
            }
            kind::DATA if !head.has(flag::END_STREAM) => {
                let padding = if head.has(flag::PADDED) { kept.first().map_or(0, |length| u32::from(*length) + 1) } else { 0 };
                let tiny = head.length.saturating_sub(padding) < TINY_BYTES;
                verdict = (tiny && self.tiny.hit(now()) > TINY).then_some(Reason::DataFlood);
            }
            _ => {}
        }
        if !self.in_block {
            self.whole += 1;
        }
        verdict
    }

    fn sent(&mut self, found: Found<'_>) -> Option<Verdict> {
        match found {
            Found::Begin(head) if matches!(head.kind, kind::HEADERS | kind::DATA) => {
                if head.kind == kind::DATA {
                    self.data_sent += 1;
                    self.windows.sent(head.stream, head.length);
                }
                if head.has(flag::END_STREAM) {
                    self.recent.ended(false);
                    self.windows.close(head.stream);
                } else if head.kind == kind::HEADERS {
                    self.windows.open(head.stream);
                }
                None
            }
            Found::End(Head { kind: kind::RST_STREAM, stream, .. }, kept) => {
                self.windows.close(stream);
                if word(kept, 0).is_some_and(blames_client) {
                    self.own_resets += 1;
                }
                (self.own_resets > OWN_RESETS).then_some(Verdict::End(Reason::MadeYouReset))
            }
            Found::End(Head { kind: kind::GOAWAY, .. }, kept) => {
                let (code, text) = (word(kept, 4)?, kept.get(8..).unwrap_or_default());
                self.said = Some(code).filter(|code| *code != 0).or(self.said);
                meaning(code, text).map(Verdict::Told)
            }
            Found::Begin(_) | Found::Setting(..) | Found::End(..) => None,
        }
    }
}

/// A number in a payload.
fn word(payload: &[u8], at: usize) -> Option<u32> {
    payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
}

/// Codes of RST_STREAM that say that the client broke a rule; not that the server failed, had no place, or had no use for more of a
/// body. RFC 9113 section 7.
const fn blames_client(code: u32) -> bool {
    // PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, COMPRESSION_ERROR, ENHANCE_YOUR_CALM.
    matches!(code, 1 | 3 | 5 | 6 | 9 | 11)
}

/// What the parser means by its GOAWAY; nothing when it says goodbye. The texts are those of the `h2` crate, and a test through the
/// real binary holds each.
fn meaning(code: u32, text: &[u8]) -> Option<Reason> {
    match text {
        _ if code == 0 => None,
        b"too_many_resets" => Some(Reason::RapidReset),
        b"too_many_internal_resets" => Some(Reason::MadeYouReset),
        b"too_many_data_frames" => Some(Reason::DataFlood),
        b"too_many_continuations" => Some(Reason::ContinuationFlood),
        b"header_list_way_too_large" => Some(Reason::HeaderFlood),
        _ => Some(Reason::ProtocolError),
    }
}

/// How the last streams ended.
#[derive(Debug, Default)]
struct Recent {
    /// A bit for each: whether it was ended by the client, before its answer.
    bits: [u64; 8],
    next: usize,
    premature: u32,
}

impl Recent {
    const SIZE: usize = 500;

    /// Notes one, and answers how many of the last ones were premature.
    fn ended(&mut self, premature: bool) -> u32 {
        if let Some(word) = self.bits.get_mut(self.next / 64) {
            let bit = 1 << (self.next % 64);
            self.premature -= u32::from(*word & bit != 0);
            self.premature += u32::from(premature);
            *word = if premature { *word | bit } else { *word & !bit };
        }
        self.next = (self.next + 1) % Self::SIZE;
        self.premature
    }
}

/// How often something happens in a second.
#[derive(Debug, Default)]
struct Rate {
    since: Option<Instant>,
    count: u32,
}

impl Rate {
    /// Counts one; answers the count of the second that it falls into.
    fn hit(&mut self, now: Instant) -> u32 {
        let is_old = |since: Instant| now.saturating_duration_since(since) >= Duration::from_secs(1);
        if self.since.is_none_or(is_old) {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count += 1;
        self.count
    }
}

#[cfg(test)]
mod tests;
